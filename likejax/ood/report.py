"""The result of a benchmark: numbers only, from which tables, JSON and pictures are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset
from likejax.density import Density, bits_per_dim
from likejax.ood.metrics import METRICS, Interval, roc_curve

_TITLES = {
    "auroc": "AUROC",
    "aupr_out": "AUPR-Out",
    "aupr_in": "AUPR-In",
    "fpr95": "FPR95",
    "fpr80": "FPR80",
    "detection_error": "detection error",
}
CONVENTIONS = (
    "OOD is the positive class and higher scores are more OOD. AUROC counts ties half, with DeLong intervals; AUPR is "
    "average precision (In: inside positive, scores negated); FPR95 and FPR80 are read at the first of all thresholds "
    "that reaches that TPR; detection error is the smallest mean of FNR and FPR. Their intervals come from a bootstrap "
    "that resamples inside and outside separately: percentiles for FPR; for AUPR and detection error standard errors "
    "on the logit scale, with the bias of resampling taken back. Where scores do not overlap those of AUPR have no "
    "width. Intervals take examples as independent and say nothing of the variance between trainings."
)


def describe(dataset: Dataset) -> dict[str, Any]:
    """What a report says of a set of rows."""
    return {
        "name": dataset.name,
        "split": dataset.split,
        "n": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "provenance": list(dataset.provenance),
    }


@dataclasses.dataclass(frozen=True)
class SetResult:
    """A set in a report: what it is, and its likelihood.

    Attributes:
      name: In tables.
      record: What ``describe`` says of it.
      mean: Mean of ``log_prob`` in bits per dimension, or of ``-log_prob`` in nats for continuous data.
      standard_error: Of the mean.
      deviation: Standard deviation over examples.
      unit: ``bits/dim`` or ``nats``.
      kind: Of the log-probabilities.
    """

    name: str
    record: dict[str, Any]
    mean: float
    standard_error: float
    deviation: float
    unit: str
    kind: str

    @classmethod
    def of(
        cls, dataset: Dataset, name: str, log_prob: Float[np.ndarray, " n"], density: Density
    ) -> SetResult:
        """From the log-probabilities of the examples of a set."""
        values = (
            -log_prob if density.levels is None else bits_per_dim(log_prob, density.event_shape)
        )
        known = (
            len(values) > 1 and np.isfinite(values).all()
        )  # of infinite values there is no deviation
        deviation = float(np.std(values, ddof=1)) if known else float("nan")
        return cls(
            name=name,
            record=describe(dataset),
            mean=float(np.mean(values)),
            standard_error=deviation / len(values) ** 0.5,
            deviation=deviation,
            unit="nats" if density.levels is None else "bits/dim",
            kind=density.kind.value,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreResult:
    """One score in a report.

    Attributes:
      label: In tables.
      settings: Of the recipe.
      kinds: What the log-probabilities of its densities are.
      values: Scores of every set.
      metrics: For every outside set the metrics of ``evaluate_scores``.
      calibrated_with: Number of calibration scores.
      threshold: Calibrated threshold.
    """

    label: str
    settings: Mapping[str, Any]
    kinds: Mapping[str, str]
    values: Mapping[str, Float[np.ndarray, " n"]]
    metrics: Mapping[str, Mapping[str, Interval]]
    calibrated_with: int
    threshold: float

    def flagged(self, name: str) -> float:
        """Share of a set that lies above the threshold."""
        return float(np.mean(self.values[name] > self.threshold))


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What ``benchmark`` found.

    Attributes:
      representation: What the density saw of every example, the same for all sets.
      sets: Records of the inside set and then of the outside sets.
      scores: Records of the scores.
      parts: Which rows scores were fitted on and calibrated with, and which the density was selected and trained on.
      overlap_tolerance: Largest share of a part that another was allowed to share.
      notes: Sentences that belong to the numbers: what the parts share, and what is not known of them.
      fpr: False-positive rate that thresholds were calibrated to.
      confidence: Probability that an interval holds the true value.
      resamples: Number of bootstrap resamples.
      draws: Draws per example, for the likelihoods of the sets.
      key: Data of the key.
      versions: Versions of the packages.
    """

    representation: dict[str, Any]
    sets: tuple[SetResult, ...]
    scores: tuple[ScoreResult, ...]
    parts: dict[str, dict[str, Any]]
    overlap_tolerance: float
    notes: tuple[str, ...]
    fpr: float
    confidence: float
    resamples: int
    draws: int
    key: list[int]
    versions: dict[str, str]

    def metric(self, score: str, outside: str, name: str) -> Interval:
        """One number of the tables.

        Args:
          score: Label of the score.
          outside: Name of the outside set.
          name: One of ``ood.METRICS``.
        """
        for result in self.scores:
            if result.label == score and outside in result.metrics and name in METRICS:
                return result.metrics[outside][name]
        scores, sets = (
            ", ".join(names)
            for names in ([r.label for r in self.scores], [s.name for s in self.sets[1:]])
        )
        raise ValueError(
            f"expected a score of {scores}, an outside set of {sets} and a metric of {', '.join(METRICS)}; "
            f"got {score!r}, {outside!r}, {name!r}"
        )

    def representation_hash(self) -> str:
        """Twelve digits that are equal for reports on data in the same representation."""
        return hashlib.sha256(json.dumps(self.representation, sort_keys=True).encode()).hexdigest()[
            :12
        ]

    def to_markdown(self) -> str:
        """The tables: likelihoods of the sets, AUROC of all scores, every metric per outside set, calibration."""
        inside, *outside = self.sets
        percent = f"{100 * self.confidence:g} %"
        draws = (
            "" if inside.kind == "exact" else f", {self.draws} draw{'s' if self.draws > 1 else ''}"
        )
        blocks = [
            f"# {inside.name} against {', '.join(s.name for s in outside)}",
            f"Likelihoods of kind {inside.kind}{draws}. Representation {self.representation_hash()}: "
            + ", ".join(f"{k} {v}" for k, v in self.representation.items() if v not in ("", None))
            + ".",
            _table(
                ["set", "n", inside.unit, "deviation", "source and geometry"],
                [
                    [
                        s.name,
                        f"{s.record['n']:,}",
                        f"{_sign(s)}{s.mean:.3f} ± {s.standard_error:.3f}",
                        f"{s.deviation:.3f}",
                        "; ".join(s.record["provenance"]),
                    ]
                    for s in self.sets
                ],
            ),
            f"## AUROC [{percent} interval]",
            self.auroc_table(),
            CONVENTIONS,
            *(
                f"{r.label} compares numbers of different kinds: {', '.join(f'{n} {k}' for n, k in r.kinds.items())}."
                for r in self.scores
                if len(set(r.kinds.values())) > 1
            ),
        ]
        for s in outside:
            rows = [[r.label, *(str(r.metrics[s.name][m]) for m in METRICS)] for r in self.scores]
            blocks += [f"## {s.name}", _table(["score", *(_TITLES[m] for m in METRICS)], rows)]
        blocks += [
            f"## Thresholds calibrated to a false-positive rate of {self.fpr:g}",
            _table(
                [
                    "score",
                    "calibrated with",
                    "threshold",
                    f"flagged of {inside.name}",
                    *(s.name for s in outside),
                ],
                [
                    [
                        r.label,
                        str(r.calibrated_with),
                        f"{r.threshold:.5g}",
                        *(f"{r.flagged(s.name):.3f}" for s in self.sets),
                    ]
                    for r in self.scores
                ],
            ),
            "Rows: "
            + "; ".join(
                f"{what} {p['n']:,} of {p['name']} {p['split']}" for what, p in self.parts.items()
            )
            + f". Allowed overlap of parts: {self.overlap_tolerance:g} of the smaller. Bootstrap of {self.resamples}. "
            + f"Key {self.key}. "
            + ", ".join(f"{k} {v}" for k, v in self.versions.items())
            + ".",
            *self.notes,
        ]
        return "\n\n".join(blocks) + "\n"

    def auroc_table(self) -> str:
        """Scores against outside sets, AUROC with its interval, in Markdown."""
        names = [s.name for s in self.sets[1:]]
        rows = [[r.label, *(str(r.metrics[name]["auroc"]) for name in names)] for r in self.scores]
        return _table(["score", *names], rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything, raw scores included, as JSON takes it: what is not finite becomes ``None``."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record["representation_hash"] = self.representation_hash()
        record["conventions"] = CONVENTIONS
        record["sets"] = [dataclasses.asdict(s) for s in self.sets]
        record["scores"] = [
            {
                "label": r.label,
                "settings": dict(r.settings),
                "kinds": dict(r.kinds),
                "metrics": {
                    name: {m: dataclasses.asdict(i) for m, i in found.items()}
                    for name, found in r.metrics.items()
                },
                "calibrated_with": r.calibrated_with,
                "threshold": r.threshold,
                "flagged": {s.name: r.flagged(s.name) for s in self.sets},
                "values": {name: values.tolist() for name, values in r.values.items()},
            }
            for r in self.scores
        ]
        return _finite(record)

    def plot(self) -> dict[str, Any]:
        """Two figures: ``histograms`` of every score on every set, and ``roc``, the curves of every outside set."""
        from likejax import plot

        inside, *outside = self.sets
        histograms = plot.histograms({r.label: r.values for r in self.scores})
        curves = {
            s.name: {
                f"{r.label} ({r.metrics[s.name]['auroc'].value:.3f})": roc_curve(
                    r.values[inside.name], r.values[s.name]
                )
                for r in self.scores
            }
            for s in outside
        }
        return {"histograms": histograms, "roc": plot.roc(curves)}

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Writes ``report.md``, ``report.json`` and the pictures; returns the directory."""
        place = Path(directory).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        pictures = self.plot()
        for name, figure in pictures.items():
            figure.savefig(place / f"{name}.png", dpi=130)
        shown = "\n".join(f"![{name}]({name}.png)" for name in pictures)
        (place / "report.md").write_text(self.to_markdown() + "\n" + shown + "\n")
        (place / "report.json").write_text(json.dumps(self.to_dict()))
        return place


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sign(s: SetResult) -> str:
    return {"exact": "= ", "bound": "<= ", "estimate": "~ "}[s.kind]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )

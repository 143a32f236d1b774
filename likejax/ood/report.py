"""The report of a benchmark: numbers, and the tables, files and figures that are made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import os
from pathlib import Path
from typing import Any

from likejax.ood import render
from likejax.ood.intervals import Interval
from likejax.ood.metrics import METRICS
from likejax.ood.results import ScoreResult, SetResult


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The result of ``benchmark``.

    Attributes:
      representation: Form in which the density saw the examples, the same for all sets.
      sets: Records of the inside set and then of the outside sets.
      scores: Records of the scores.
      parts: Rows that scores were fitted on and calibrated with, and those that the density was
        selected and trained on.
      overlap_tolerance: Largest share of a part that another was allowed to share.
      notes: Sentences that belong to the numbers: what the parts share, and what is not known of
        them.
      fpr: False-positive rate that thresholds were calibrated to.
      confidence: Probability that an interval holds the true value.
      resamples: Number of bootstrap resamples.
      draws: Number of draws per example, for the likelihoods of the sets.
      key: Data of the key.
      versions: Versions of the packages.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> report = lj.ood.benchmark(
      ...     gaussian,
      ...     inside=points[100:200],
      ...     outside={"shifted": points[200:300] + 9},
      ...     scores=[lj.ood.Typicality()],
      ...     held_out=points[300:],
      ...     key=0,
      ...     resamples=10,
      ... )
      >>> print(report.auroc_table())
      | score | shifted |
      | --- | --- |
      | typicality | 1.000 [0.964, 1.000] |
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

    @property
    def title(self) -> str:
        """Names of the inside set and of the outside sets."""
        inside, *outside = self._names
        return f"{inside} against {', '.join(outside)}"

    @property
    def _names(self) -> list[str]:
        return [each.name for each in self.sets]

    def __repr__(self) -> str:
        labels = ", ".join(score.label for score in self.scores)
        return f"Report({self.title}; {labels})"

    def _repr_html_(self) -> str:
        heading = f"<p>{html.escape(self.title)}, AUROC [{self._percent} interval]</p>"
        return heading + render.auroc_table(self.scores, self._names[1:]).to_html()

    def metric(self, score: str, outside: str, name: str) -> Interval:
        """Returns one number of the tables.

        Args:
          score: Label of the score.
          outside: Name of the outside set.
          name: Name of the metric, one of ``ood.METRICS``.

        Raises:
          ValueError: If there is no such number.
        """
        for result in self.scores:
            if result.label == score and outside in result.metrics and name in METRICS:
                return result.metrics[outside][name]
        labels = ", ".join(result.label for result in self.scores)
        sets = ", ".join(self._names[1:])
        raise ValueError(
            f"expected a score of {labels}, an outside set of {sets} and a metric of "
            f"{', '.join(METRICS)}; got {score!r}, {outside!r}, {name!r}"
        )

    def representation_hash(self) -> str:
        """Returns twelve digits that are equal for reports on data in the same representation."""
        text = json.dumps(self.representation, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def auroc_table(self) -> str:
        """Returns AUROC with its interval, scores against outside sets, in Markdown."""
        return render.auroc_table(self.scores, self._names[1:]).to_markdown()

    def to_markdown(self) -> str:
        """Returns all tables: likelihoods, AUROC, every metric per outside set, and calibration."""
        blocks = [
            f"# {self.title}",
            self._about_likelihoods(),
            render.likelihood_table(self.sets).to_markdown(),
            f"## AUROC [{self._percent} interval]",
            self.auroc_table(),
            render.CONVENTIONS,
            *self._about_mixed_kinds(),
        ]
        for name in self._names[1:]:
            blocks += [f"## {name}", render.metrics_table(self.scores, name).to_markdown()]
        blocks += [
            f"## Thresholds calibrated to a false-positive rate of {self.fpr:g}",
            render.threshold_table(self.scores, self._names).to_markdown(),
            self._about_rows(),
            *self.notes,
        ]
        return "\n\n".join(blocks) + "\n"

    @property
    def _percent(self) -> str:
        return f"{100 * self.confidence:g} %"

    def _about_likelihoods(self) -> str:
        """Returns the kind of the likelihoods and the representation of the data."""
        kind, draws = self.sets[0].kind, ""
        if kind != "exact":
            draws = f", {self.draws} draw{'s' if self.draws > 1 else ''}"
        known = {k: v for k, v in self.representation.items() if v not in ("", None)}
        entries = ", ".join(f"{name} {value}" for name, value in known.items())
        return (
            f"Likelihoods of kind {kind}{draws}. "
            f"Representation {self.representation_hash()}: {entries}."
        )

    def _about_mixed_kinds(self) -> list[str]:
        """Returns a sentence for every score that compares numbers of different kinds."""
        sentences = []
        for score in self.scores:
            kinds = ", ".join(f"{name} {kind}" for name, kind in score.kinds.items())
            if len(set(score.kinds.values())) > 1:
                sentences.append(f"{score.label} compares numbers of different kinds: {kinds}.")
        return sentences

    def _about_rows(self) -> str:
        """Returns which rows served for what, and everything that a repetition needs."""
        parts = []
        for what, part in self.parts.items():
            parts.append(f"{what} {part['n']:,} of {part['name']} {part['split']}")
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"Rows: {'; '.join(parts)}. "
            f"Allowed overlap of parts: {self.overlap_tolerance:g} of the smaller. "
            f"Bootstrap of {self.resamples}. Key {self.key}. {versions}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns everything for JSON, raw scores included; what is not finite becomes ``None``."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        record["representation_hash"] = self.representation_hash()
        record["conventions"] = render.CONVENTIONS
        record["sets"] = [dataclasses.asdict(each) for each in self.sets]
        record["scores"] = [render.score_record(score) for score in self.scores]
        return render.for_json(record)

    def plot(self) -> dict[str, Any]:
        """Returns two figures.

        ``histograms`` shows every score on every set, ``roc`` the curves for every outside set.
        """
        return {
            "histograms": render.histograms(self.scores),
            "roc": render.roc_curves(self.scores, self._names),
        }

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Writes ``report.md``, ``report.json`` and the pictures.

        Args:
          directory: Directory to write to; created if absent.

        Returns:
          The directory.
        """
        place = Path(directory).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        pictures = self.plot()
        for name, figure in pictures.items():
            figure.savefig(place / f"{name}.png", dpi=130)
        shown = "\n".join(f"![{name}]({name}.png)" for name in pictures)
        (place / "report.md").write_text(self.to_markdown() + "\n" + shown + "\n")
        (place / "report.json").write_text(json.dumps(self.to_dict()))
        return place

"""Tables, JSON and figures of the records of a report."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from likejax import plot
from likejax.ood.intervals import Interval, Spread
from likejax.ood.metrics import METRICS, roc_curve
from likejax.ood.results import ScoreResult, SetResult

_TITLES = {
    "auroc": "AUROC",
    "aupr_out": "AUPR-Out",
    "aupr_in": "AUPR-In",
    "fpr95": "FPR95",
    "fpr80": "FPR80",
    "tpr_at_1": "TPR at FPR 1 %",
    "tpr_at_01": "TPR at FPR 0.1 %",
    "detection_error": "detection error",
}
_CURVES = 8
"""Most ROC curves of a panel."""
_SIGNS = {"exact": "= ", "bound": "<= ", "estimate": "~ "}
CONVENTIONS = (
    "Inside is in-distribution, outside is out-of-distribution (OOD). OOD is the positive class "
    "and higher scores are more OOD. AUROC counts ties half, with DeLong intervals; AUPR is "
    "average precision (In: inside positive, scores negated); FPR95 and FPR80 are read at the "
    "first of all thresholds that reaches that TPR, TPR at an FPR at the last that keeps it; with "
    "fewer than 1,000 inside examples 0.1 % means none of them. Detection error is the smallest "
    "mean of FNR and FPR. Their intervals come from a bootstrap that resamples inside and outside "
    "separately: percentiles for FPR; for AUPR and detection error standard errors on the logit "
    "scale, with the bias of resampling taken back. Those of TPR at an FPR also cover where the "
    "threshold is. Where scores do not overlap those of AUPR have no width. "
    "Intervals take examples as independent. Where the steps of an outside set say that it is the "
    "inside examples changed, each is taken together with its changed form, but for TPR at an FPR. "
    "Intervals do not cover the variance between trainings."
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, in Markdown or HTML.

    Attributes:
      header: Titles of the columns.
      rows: Cells of every row.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        """Returns the table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(_markdown_line(cells) for cells in lines)

    def to_html(self) -> str:
        """Returns the table in HTML."""
        lines = [_html_line(self.header, "th"), *(_html_line(row, "td") for row in self.rows)]
        return f"<table>{''.join(lines)}</table>"

    def to_latex(self) -> str:
        """Returns the table in LaTeX, for the package ``booktabs``."""
        columns = "l" + "r" * (len(self.header) - 1)
        header, *body = [_latex_line(cells) for cells in (self.header, *self.rows)]
        lines = ["\\toprule", header, "\\midrule", *body, "\\bottomrule"]
        inner = "\n".join(lines)
        return f"\\begin{{tabular}}{{{columns}}}\n{inner}\n\\end{{tabular}}\n"


def _latex_line(cells: Sequence[str]) -> str:
    escaped = []
    for cell in cells:
        text = "".join(_LATEX.get(character, character) for character in cell)
        escaped.append(text)
    return " & ".join(escaped) + r" \\"


_LATEX = {
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "±": r"$\pm$",
    ">": "$>$",
    "<": "$<$",
    "~": r"$\sim$",
    "^": r"\^{}",
    "\\": r"\textbackslash{}",
}
"""Characters that mean something to LaTeX, and how they are written."""


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html_line(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def likelihood_table(sets: Sequence[SetResult]) -> Table:
    """Returns the likelihood and the source of every set.

    Args:
      sets: Records of the sets.
    """
    header = ["set", "n", sets[0].unit, "deviation", "source and geometry"]
    rows = []
    for each in sets:
        mean = f"{_SIGNS[each.kind]}{each.mean:.3f} ± {each.standard_error:.3f}"
        source = "; ".join(each.record["provenance"])
        rows.append([each.name, f"{each.record['n']:,}", mean, f"{each.deviation:.3f}", source])
    return Table(header, rows)


def metric_table(
    scores: Sequence[ScoreResult],
    outside: Sequence[str],
    trainings: Sequence[Sequence[ScoreResult]] = (),
    *,
    metric: str,
) -> Table:
    """Returns a metric with its interval, scores against outside sets.

    Args:
      scores: Records of the scores, of the first training.
      outside: Names of the outside sets.
      trainings: Records of the same scores of further trainings; cells then begin with mean and
        standard deviation over all.
      metric: Name of the metric.
    """
    rows = []
    for number, score in enumerate(scores):
        of_score = [score, *(training[number] for training in trainings)]
        rows.append([score.label, *(_metric_cell(of_score, name, metric) for name in outside)])
    return Table(["score", *outside], rows)


def _metric_cell(of_score: Sequence[ScoreResult], outside: str, metric: str) -> str:
    """Mean and deviation over the trainings if they differ; value and interval of the first.

    Scores without a density, and those of an ensemble of all trainings, are the same numbers.
    """
    found = [score.metrics[outside][metric] for score in of_score]
    first = of_score[0].values[outside]
    if all(np.array_equal(score.values[outside], first) for score in of_score[1:]):
        return str(found[0])
    return f"{_mean_and_deviation(found)}; {found[0]}"


def _mean_and_deviation(found: Sequence[Interval]) -> str:
    """A number over several trainings."""
    spread = Spread.of([each.value for each in found])
    return f"{spread.mean:.3f} ± {spread.deviation:.3f}"


def averages_table(
    scores: Sequence[ScoreResult], trainings: Sequence[Sequence[ScoreResult]] = ()
) -> Table:
    """Returns mean AUROC over near and over far sets, with its standard error and interval.

    Args:
      scores: Records of the scores, of the first training.
      trainings: Records of the same scores of further trainings; cells then begin with mean and
        standard deviation over all.
    """
    distances = list(scores[0].averages)
    header = ["score", *(f"mean of {distance} sets" for distance in distances)]
    rows = []
    for number, score in enumerate(scores):
        of_score = [score, *(training[number] for training in trainings)]
        rows.append([score.label, *(_average_cell(of_score, each) for each in distances)])
    return Table(header, rows)


def _average_cell(of_score: Sequence[ScoreResult], distance: str) -> str:
    """Mean and deviation over the trainings; mean, standard error and interval of the first."""
    found = [score.averages[distance] for score in of_score]
    first = found[0]
    text = f"{first.value:.3f} ± {first.standard_error:.3f} [{first.low:.3f}, {first.high:.3f}]"
    if len(found) == 1:
        return text
    return f"{_mean_and_deviation(found)} over trainings; {text}"


def metrics_table(
    scores: Sequence[ScoreResult],
    outside: str,
    trainings: Sequence[Sequence[ScoreResult]] = (),
) -> Table:
    """Returns every metric of every score on one outside set.

    Args:
      scores: Records of the scores, of the first training.
      outside: Name of the outside set.
      trainings: Records of the same scores of further trainings; cells then begin with mean and
        standard deviation over all.
    """
    rows = []
    for number, score in enumerate(scores):
        of_score = [score, *(training[number] for training in trainings)]
        rows.append([score.label, *(_metric_cell(of_score, outside, each) for each in METRICS)])
    return Table(["score", *(_TITLES[metric] for metric in METRICS)], rows)


def threshold_table(scores: Sequence[ScoreResult], sets: Sequence[str]) -> Table:
    """Returns the calibrated threshold of every score and the share of each set above it.

    Args:
      scores: Records of the scores.
      sets: Names of the sets, the inside set first.
    """
    inside, *outside = sets
    header = ["score", "calibrated with", "threshold", f"flagged of {inside}", *outside]
    rows = []
    for score in scores:
        flagged = [f"{score.flagged(name):.3f}" for name in sets]
        rows.append([score.label, str(score.calibrated_with), f"{score.threshold:.5g}", *flagged])
    return Table(header, rows)


def score_record(score: ScoreResult) -> dict[str, Any]:
    """Returns everything that is known of a score, raw scores included, for JSON.

    Args:
      score: Record of the score.
    """
    metrics = {}
    for name, found in score.metrics.items():
        metrics[name] = {metric: dataclasses.asdict(each) for metric, each in found.items()}
    return {
        "label": score.label,
        "settings": dict(score.settings),
        "kinds": dict(score.kinds),
        "metrics": metrics,
        "averages": {name: dataclasses.asdict(each) for name, each in score.averages.items()},
        "calibrated_with": score.calibrated_with,
        "threshold": score.threshold,
        "flagged": {name: score.flagged(name) for name in score.values},
        "values": {name: values.tolist() for name, values in score.values.items()},
    }


def set_record(result: SetResult) -> dict[str, Any]:
    """Returns everything that is known of a set, but for its pictures, for JSON.

    Args:
      result: Record of the set.
    """
    names = [field.name for field in dataclasses.fields(result) if field.name != "extremes"]
    return {name: getattr(result, name) for name in names}


def galleries(sets: Sequence[SetResult]) -> dict[str, dict[str, Any]]:
    """Returns rows of pictures by their titles, for each figure, for sets of images.

    Args:
      sets: Records of the sets.

    Returns:
      ``extremes`` with the most and the least likely images, and ``typical`` with the most and the
      least typical ones; nothing for other data.
    """
    found: dict[str, dict[str, Any]] = {}
    for each in sets:
        if each.extremes is None:
            continue
        most, least, most_typical, least_typical = each.extremes
        kinds = {
            "extremes": {"most likely": most, "least likely": least},
            "typical": {"most typical": most_typical, "least typical": least_typical},
        }
        for figure, parts in kinds.items():
            rows = found.setdefault(figure, {})
            for what, part in parts.items():
                rows[f"{each.name}: {what}"] = part.images
                if part.maps is not None:
                    rows[f"{each.name}: {what}, nats of pixels"] = part.maps
    return found


def for_json(value: object) -> Any:
    """Returns nested values as JSON takes them, which has no word for numbers that are not finite.

    NaN becomes ``None``, and an infinite number the text ``Infinity`` or ``-Infinity``, which
    ``float`` reads: an example that a density excludes has such a score, and counts in an AUROC.

    Args:
      value: Mappings, sequences, numbers and text.
    """
    if isinstance(value, Mapping):
        return {name: for_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def histograms(scores: Sequence[ScoreResult]) -> Any:
    """Returns a figure with the histogram of every score on every set.

    Args:
      scores: Records of the scores.
    """
    return plot.histograms(
        {score.label: score.values for score in scores}, x_label="score, higher is more unusual"
    )


def roc_curves(scores: Sequence[ScoreResult], sets: Sequence[str]) -> Any:
    """Returns a figure with ROC curves for every outside set: of the best scores and the first.

    Args:
      scores: Records of the scores.
      sets: Names of the sets, the inside set first.
    """
    inside, *outside = sets
    curves: dict[str, dict[str, Any]] = {}
    for name in outside:
        curves[name] = {}
        for score in _best(scores, name):
            title = f"{score.label} ({score.metrics[name]['auroc'].value:.3f})"
            curves[name][title] = roc_curve(score.values[inside], score.values[name])
    return plot.roc(curves)


def _best(scores: Sequence[ScoreResult], outside: str) -> list[ScoreResult]:
    """The first score and those of the largest AUROC, as many as a panel has colors for."""
    first, *others = scores

    def auroc(score: ScoreResult) -> float:
        return score.metrics[outside]["auroc"].value

    return [first, *sorted(others, key=auroc, reverse=True)[: _CURVES - 1]]


def auroc_map(scores: Sequence[ScoreResult], outside: Sequence[str]) -> Any:
    """Returns a figure of AUROC in color, scores against outside sets.

    Args:
      scores: Records of the scores.
      outside: Names of the outside sets.
    """
    values = [[score.metrics[name]["auroc"].value for name in outside] for score in scores]
    labels = [score.label for score in scores]
    return plot.matrix(np.array(values), rows=labels, columns=outside, limits=(0.0, 1.0))

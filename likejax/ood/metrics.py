"""Metrics of how well scores separate outside from inside examples: AUROC, AUPR, FPR and others.

Outside examples are the positive class, and a higher score is more OOD, everywhere. A curve has a
point at every distinct score. Nothing is interpolated but for trapezoids, and everything is
computed in float64 from ranks and counts.

Every metric is a method of ``Counts``, so that a bootstrap can count examples several times. The
functions of the same names take scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Integer

from likejax.settings import Range, checked

Positive = Literal["outside", "inside"]
"""The class that a precision-recall curve is about."""
Estimator = Literal["average_precision", "trapezoid"]
"""Sum that approximates the area under a precision-recall curve."""
Scores = Iterable[Any]
"""Scores of a class: an array or a list of numbers, higher = more OOD."""
Rate = Annotated[float, Range(above=0, at_most=1)]
"""A share above 0."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """True and false positives at every threshold, from the highest threshold to the lowest.

    Attributes:
      true: Number of outside examples at or above each threshold, ``(thresholds,)``.
      false: Number of inside examples at or above each threshold, ``(thresholds,)``.

    Example:
      >>> from likejax.ood.metrics import Ranking
      >>> counts = Ranking.of([0.1, 0.3, 0.6, 1.3], [0.9]).counts()
      >>> counts.auroc(), counts.detection_error()
      (0.75, 0.125)
    """

    true: Float[np.ndarray, " thresholds"]
    false: Float[np.ndarray, " thresholds"]

    def swapped(self) -> Counts:
        """Returns the counts with the classes exchanged and the order of scores reversed."""
        return Counts((self.false[-1] - self.false)[::-1], (self.true[-1] - self.true)[::-1])

    def without_collinear(self) -> Counts:
        """Returns the counts without points on a straight line, as in scikit-learn's curve."""
        if len(self.true) <= 3:
            return self
        bends = (np.diff(self.true[1:], 2) != 0) | (np.diff(self.false[1:], 2) != 0)
        kept = np.concatenate([[True, True], bends, [True]])
        return Counts(self.true[kept], self.false[kept])

    def rates(self) -> tuple[Float[np.ndarray, " thresholds"], Float[np.ndarray, " thresholds"]]:
        """Returns the false- and the true-positive rate at every threshold."""
        return self.false / self.false[-1], self.true / self.true[-1]

    def auroc(self) -> float:
        """Returns the area under the ROC curve: ties count half."""
        width = np.diff(self.false)
        twice_height = self.true[1:] + self.true[:-1]
        return float(np.sum(width * twice_height) / (2 * self.true[-1] * self.false[-1]))

    def aupr(self, estimator: Estimator = "average_precision") -> float:
        """Returns the area under the precision-recall curve of the outside examples.

        Args:
          estimator: See the function ``aupr``.
        """
        positives = self.true + self.false
        recall = self.true / self.true[-1]
        precision = np.ones(len(self.true))  # 1 where nothing is above the threshold
        np.divide(self.true, positives, out=precision, where=positives > 0)
        if estimator == "trapezoid":
            return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1])) / 2)
        return float(np.sum(np.diff(recall) * precision[1:]))

    def fpr_at_tpr(self, tpr: float) -> float:
        """Returns the false-positive rate at the first threshold that reaches a true-positive rate.

        Args:
          tpr: Wanted true-positive rate, above 0 and at most 1.
        """
        false_rate, true_rate = self.rates()
        return float(false_rate[np.argmax(true_rate >= tpr)])

    def tpr_at_fpr(self, fpr: float) -> float:
        """Returns the true-positive rate at the last threshold within a false-positive rate.

        Args:
          fpr: Largest false-positive rate, above 0 and at most 1.
        """
        false_rate, true_rate = self.rates()
        return float(true_rate[np.flatnonzero(false_rate <= fpr)[-1]])

    def detection_error(self) -> float:
        """Returns the smallest mean of the false-negative and the false-positive rate."""
        false_rate, true_rate = self.rates()
        return float(np.min(1 - true_rate + false_rate) / 2)


FALSE_RATES = {"tpr_at_1": 0.01, "tpr_at_01": 0.001}
"""False-positive rates of the metrics that are the true-positive rate at one."""
METRICS: dict[str, Callable[[Counts], float]] = {
    "auroc": Counts.auroc,
    "aupr_out": Counts.aupr,
    "aupr_in": lambda counts: counts.swapped().aupr(),
    "fpr95": lambda counts: counts.fpr_at_tpr(0.95),
    "fpr80": lambda counts: counts.fpr_at_tpr(0.80),
    "tpr_at_1": lambda counts: counts.tpr_at_fpr(FALSE_RATES["tpr_at_1"]),
    "tpr_at_01": lambda counts: counts.tpr_at_fpr(FALSE_RATES["tpr_at_01"]),
    "detection_error": Counts.detection_error,
}
"""The metrics of ``evaluate_scores`` by name, in the order of its tables."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Both classes in one descending order of scores.

    Attributes:
      is_outside: Whether the example at each place is an outside one, ``(n,)``.
      rows: Number of the example at each place among those of its class, ``(n,)``.
      ends: Last place of every run of equal scores, ``(thresholds - 1,)``.
    """

    is_outside: Bool[np.ndarray, " n"]
    rows: Integer[np.ndarray, " n"]
    ends: Integer[np.ndarray, " runs"]

    @classmethod
    def of(cls, inside: Scores, outside: Scores) -> Ranking:
        """Returns the ranking of the scores of both classes.

        Args:
          inside: Scores of inside examples.
          outside: Scores of outside examples.

        Raises:
          TypeError: If scores are no real numbers.
          ValueError: If a class is empty or a score is NaN.
        """
        of_inside, of_outside = checked_scores(inside, outside)
        scores = np.concatenate([of_outside, of_inside])
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        is_end = np.append(scores[1:] != scores[:-1], True)
        is_outside = order < len(of_outside)
        rows = np.where(is_outside, order, order - len(of_outside))
        return cls(is_outside, rows, np.flatnonzero(is_end))

    def counts(self, weights: Float[np.ndarray, " n"] | None = None) -> Counts:
        """Returns true and false positives at every threshold.

        Args:
          weights: Number of times that each place counts, ``(n,)``; once each if not given.
        """
        if weights is None:
            weights = np.ones(len(self.is_outside))
        of_classes = [weights * self.is_outside, weights * ~self.is_outside]
        above = np.cumsum(of_classes, axis=1)[:, self.ends]
        true, false = np.concatenate([np.zeros((2, 1)), above], axis=1)
        return Counts(true, false)


def checked_scores(
    inside: Scores, outside: Scores
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Returns the scores of both classes in float64.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.

    Raises:
      TypeError: If one holds no numbers.
      ValueError: If one is empty or holds NaN.
    """
    return _checked_class(inside, "inside"), _checked_class(outside, "outside")


def _checked_class(scores: Scores, name: str) -> Float[np.ndarray, " n"]:
    scores = as_scores(scores, name)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            f"expected scores (n,) with n > 0 of both classes, {name} has shape {scores.shape}"
        )
    missing = int(np.isnan(scores).sum())
    if missing:
        raise ValueError(f"expected scores without NaN, {name} has {missing}")
    return scores


def as_scores(scores: Scores, name: str) -> Float[np.ndarray, "..."]:
    """Returns real numbers of any shape in float64; infinite ones are kept, they have a rank.

    Args:
      scores: An array, or what ``numpy.asarray`` turns into one.
      name: Name of the scores in an error message.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If they form no array.
    """
    try:
        array = np.asarray(scores)
    except ValueError as error:
        raise ValueError(f"expected {name} scores that form one array: {error}") from error
    if array.size and array.dtype.kind not in "uif":
        raise TypeError(f"expected real numbers as scores, {name} has dtype {array.dtype}")
    return array.astype(np.float64)


def roc_curve(
    inside: Scores, outside: Scores, *, drop_collinear: bool = False
) -> tuple[Float[np.ndarray, " thresholds"], Float[np.ndarray, " thresholds"]]:
    """Computes false- and true-positive rates at every threshold, from ``(0, 0)`` to ``(1, 1)``.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      drop_collinear: Whether to leave out points on a straight line, as scikit-learn's
        ``roc_curve`` does by default. It changes the FPR at a given TPR, which is read off the
        first point that reaches it.

    Returns:
      False-positive rates and true-positive rates, each ``(thresholds,)``.

    Example:
      >>> from likejax import ood
      >>> false_rate, true_rate = ood.roc_curve(inside=[0.1, 0.3], outside=[0.2, 0.9])
      >>> false_rate.tolist(), true_rate.tolist()
      ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    drop_collinear = checked("drop_collinear", drop_collinear, bool)
    counts = Ranking.of(inside, outside).counts()
    return (counts.without_collinear() if drop_collinear else counts).rates()


def auroc(inside: Scores, outside: Scores) -> float:
    """Computes the area under the ROC curve, ``P(s_out > s_in) + P(s_out = s_in) / 2``.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.

    Example:
      >>> from likejax import ood
      >>> ood.auroc(inside=[0.1, 0.3, 0.6, 1.3], outside=[0.9])
      0.75
    """
    return Ranking.of(inside, outside).counts().auroc()


def aupr(
    inside: Scores,
    outside: Scores,
    *,
    positive: Positive = "outside",
    estimator: Estimator = "average_precision",
) -> float:
    """Computes the area under the precision-recall curve, which depends on the classes' sizes.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      positive: ``outside`` for AUPR-Out; ``inside`` for AUPR-In, where low scores are positive.
      estimator: ``average_precision`` for the sum of steps ``sum (R_i - R_{i-1}) P_i`` of
        scikit-learn's ``average_precision_score``; ``trapezoid`` for trapezoids from the point
        ``(0, 1)`` on, as in pytorch-ood and OpenOOD. The two differ.

    Example:
      >>> from likejax import ood
      >>> inside, outside = [0.1, 0.3, 0.6, 1.3], [0.9]
      >>> ood.aupr(inside, outside), ood.aupr(inside, outside, estimator="trapezoid")
      (0.5, 0.25)
    """
    positive = checked("positive", positive, Positive)
    estimator = checked("estimator", estimator, Estimator)
    counts = Ranking.of(inside, outside).counts()
    return (counts.swapped() if positive == "inside" else counts).aupr(estimator)


def fpr_at_tpr(
    inside: Scores, outside: Scores, tpr: float, *, drop_collinear: bool = False
) -> float:
    """Computes the false-positive rate at the first threshold that reaches a true-positive rate.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      tpr: Wanted true-positive rate, such as 0.95 or 0.80.
      drop_collinear: Whether to leave out points on a straight line, as code that reads
        scikit-learn's curve does; see ``roc_curve``.

    Example:
      >>> from likejax import ood
      >>> ood.fpr_at_tpr(inside=[0.1, 0.3, 0.6, 1.3], outside=[0.9], tpr=0.95)
      0.25
    """
    tpr = checked("tpr", tpr, Rate)
    drop_collinear = checked("drop_collinear", drop_collinear, bool)
    counts = Ranking.of(inside, outside).counts()
    return (counts.without_collinear() if drop_collinear else counts).fpr_at_tpr(tpr)


def tpr_at_fpr(inside: Scores, outside: Scores, fpr: float) -> float:
    """Computes the true-positive rate at the last threshold that keeps a false-positive rate.

    It is the largest share of outside examples that can be flagged while at most a share ``fpr`` of
    the inside examples is. With fewer than ``1 / fpr`` inside examples none of them may be flagged,
    whatever ``fpr`` is. Membership tests are read at 1 % and 0.1 %: a test that recognizes few
    members for sure is a leak, even if its AUROC is near chance (Carlini et al., 2022,
    arXiv:2112.03570).

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      fpr: Largest false-positive rate, such as 0.01 or 0.001.

    Example:
      >>> from likejax import ood
      >>> ood.tpr_at_fpr(inside=[0.1, 0.3, 0.6, 1.3], outside=[0.2, 0.9], fpr=0.25)
      0.5
    """
    fpr = checked("fpr", fpr, Rate)
    return Ranking.of(inside, outside).counts().tpr_at_fpr(fpr)


def detection_error(inside: Scores, outside: Scores) -> float:
    """Computes ``min_t (FNR(t) + FPR(t)) / 2`` over all thresholds ``t``.

    Others report the value at a TPR of 95 %, which is another number.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.

    Example:
      >>> from likejax import ood
      >>> ood.detection_error(inside=[0.1, 0.3, 0.6, 1.3], outside=[0.9])
      0.125
    """
    return Ranking.of(inside, outside).counts().detection_error()

"""How well scores tell outside from inside: AUROC, AUPR, false-positive rates, and how sure that is.

OOD is the positive class and higher scores are more OOD, everywhere. Curves have a point at every distinct score,
nothing is interpolated unless a name says so, and everything is computed in float64 from ranks and counts.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float

from likejax.settings import CountOrZero, Probability, Range, checked

Scores = Float[np.ndarray, " n"]
METRICS = ("auroc", "aupr_out", "aupr_in", "fpr95", "fpr80", "detection_error")
"""What ``evaluate_scores`` computes, in the order of its tables."""
Positive = Literal["outside", "inside"]
Estimator = Literal["average_precision", "trapezoid"]
Rate = Annotated[float, Range(above=0, at_most=1)]


def _checked(inside: Any, outside: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both classes in float64.

    Raises:
      TypeError: If one holds no numbers.
      ValueError: If one is empty or holds NaN.
    """
    pair = []
    for name, scores in (("inside", inside), ("outside", outside)):
        scores = as_scores(scores, name)
        if scores.ndim != 1 or len(scores) == 0:
            raise ValueError(
                f"expected scores (n,) with n > 0 of both classes, {name} has shape {scores.shape}"
            )
        if np.isnan(scores).any():
            raise ValueError(
                f"expected scores without NaN, {name} has {int(np.isnan(scores).sum())}"
            )
        pair.append(scores)
    return pair[0], pair[1]


def as_scores(scores: Any, name: str) -> np.ndarray:
    """Real numbers in float64, of any shape; infinite ones have their rank.

    Args:
      scores: An array, or what ``numpy.asarray`` turns into one.
      name: What the scores are called in an error message.

    Raises:
      TypeError: If these are no real numbers.
    """
    array = np.asarray(scores)
    if array.size and array.dtype.kind not in "uif":
        raise TypeError(f"expected real numbers as scores, {name} has dtype {array.dtype}")
    return array.astype(np.float64)


@dataclasses.dataclass(frozen=True)
class _Ordered:
    """Both classes in one descending order, with the ends of runs of equal scores."""

    is_outside: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, inside: np.ndarray, outside: np.ndarray) -> _Ordered:
        scores = np.concatenate([outside, inside])
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        return cls(order < len(outside), ends)

    def counts(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives at every threshold, from none to all, each example counted ``weights`` times."""
        ones = np.ones(len(self.is_outside)) if weights is None else weights
        above = np.cumsum([ones * self.is_outside, ones * ~self.is_outside], axis=1)[:, self.ends]
        true, false = np.concatenate([np.zeros((2, 1)), above], axis=1)
        return true, false


def roc_curve(
    inside: Any, outside: Any, *, drop_collinear: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates at every threshold, from ``(0, 0)`` to ``(1, 1)``.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      drop_collinear: Leave out points on a straight line, as scikit-learn's ``roc_curve`` does by default. It
        changes FPR at a given TPR, which is read off the first point that reaches it.
    """
    inside, outside = _checked(inside, outside)
    true, false = _Ordered.of(inside, outside).counts()
    if drop_collinear and len(true) > 3:
        bends = (np.diff(true[1:], 2) != 0) | (np.diff(false[1:], 2) != 0)
        kept = np.concatenate([[True, True], bends, [True]])
        true, false = true[kept], false[kept]
    return false / len(inside), true / len(outside)


def auroc(inside: Any, outside: Any) -> float:
    """``P(s_out > s_in) + P(s_out = s_in) / 2``: area under the ROC curve.

    Example:
      >>> from likejax import ood
      >>> ood.auroc(inside=[0.1, 0.3, 0.6, 1.3], outside=[0.9])
      0.75
    """
    inside, outside = _checked(inside, outside)
    return _auroc(*_Ordered.of(inside, outside).counts())


def aupr(
    inside: Any,
    outside: Any,
    *,
    positive: Positive = "outside",
    estimator: Estimator = "average_precision",
) -> float:
    """Area under the precision-recall curve; it depends on how many of each class there are.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      positive: ``outside`` for AUPR-Out; ``inside`` for AUPR-In, with low scores positive.
      estimator: The step-wise sum ``sum (R_i - R_{i-1}) P_i`` (scikit-learn's ``average_precision_score``), or
        trapezoids from the point ``(0, 1)`` on (pytorch-ood, OpenOOD). They differ.
    """
    positive = checked("positive", positive, Positive)
    estimator = checked("estimator", estimator, Estimator)
    inside, outside = _checked(inside, outside)
    true, false = _Ordered.of(inside, outside).counts()
    return _aupr(*(_swapped(true, false) if positive == "inside" else (true, false)), estimator)


def fpr_at_tpr(inside: Any, outside: Any, tpr: float, *, drop_collinear: bool = False) -> float:
    """False-positive rate at the first threshold that finds at least ``tpr`` of the outside examples.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      tpr: Wanted true-positive rate, such as 0.95 or 0.80.
      drop_collinear: As in ``roc_curve``; ``True`` reproduces code that reads scikit-learn's curve.
    """
    tpr = checked("tpr", tpr, Rate)
    false_rate, true_rate = roc_curve(inside, outside, drop_collinear=drop_collinear)
    return float(false_rate[np.argmax(true_rate >= tpr)])


def detection_error(inside: Any, outside: Any) -> float:
    """``min_t (FNR(t) + FPR(t)) / 2``; others report its value at a TPR of 95 %, which is another number."""
    inside, outside = _checked(inside, outside)
    return _detection_error(*_Ordered.of(inside, outside).counts())


def _auroc(true: np.ndarray, false: np.ndarray) -> float:
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / (2 * true[-1] * false[-1]))


def _swapped(true: np.ndarray, false: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts with the classes exchanged and the order reversed."""
    return (false[-1] - false)[::-1], (true[-1] - true)[::-1]


def _aupr(true: np.ndarray, false: np.ndarray, estimator: str) -> float:
    recall, precision = true / true[-1], np.ones(len(true))
    np.divide(true, true + false, out=precision, where=true + false > 0)
    if estimator == "trapezoid":
        return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1])) / 2)
    return float(np.sum(np.diff(recall) * precision[1:]))


def _fpr_at_tpr(true: np.ndarray, false: np.ndarray, tpr: float) -> float:
    return float((false / false[-1])[np.argmax(true / true[-1] >= tpr)])


def _detection_error(true: np.ndarray, false: np.ndarray) -> float:
    return float(np.min(1 - true / true[-1] + false / false[-1]) / 2)


def _all_metrics(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    return np.array(
        [
            _auroc(true, false),
            _aupr(true, false, "average_precision"),
            _aupr(*_swapped(true, false), "average_precision"),
            _fpr_at_tpr(true, false, 0.95),
            _fpr_at_tpr(true, false, 0.80),
            _detection_error(true, false),
        ]
    )


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its confidence interval and standard error."""

    value: float
    low: float
    high: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def _placements(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every outside score the share of inside ones below it, and the reverse; ties count half."""
    ranks_of_all = _midranks(np.concatenate([outside, inside]))
    of_outside = (ranks_of_all[: len(outside)] - _midranks(outside)) / len(inside)
    of_inside = 1 - (ranks_of_all[len(outside) :] - _midranks(inside)) / len(outside)
    return of_outside, of_inside


def _midranks(scores: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[inverse]


def auroc_interval(inside: Any, outside: Any, *, confidence: float = 0.95) -> Interval:
    """AUROC with DeLong's standard error, and an interval on the logit scale, which stays between 0 and 1.

    Where the classes do not overlap DeLong's error is 0; the interval then is that of as many successes without a
    failure as the smaller class has examples.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      confidence: Of the interval.

    References:
      DeLong, DeLong and Clarke-Pearson, 1988, Comparing the areas under two or more correlated receiver operating
      characteristic curves. Sun and Xu, 2014, Fast implementation of DeLong's algorithm.
    """
    from scipy.stats import norm

    inside, outside = _checked(inside, outside)
    confidence = checked("confidence", confidence, Probability)
    value = auroc(inside, outside)
    if min(len(inside), len(outside)) < 2:  # one example says nothing of its variance
        return Interval(value, 0.0, 1.0, math.nan)
    error = math.sqrt(_variance_of_mean(*_placements(inside, outside)))
    if not 0 < value < 1:
        edge = ((1 - confidence) / 2) ** (1 / min(len(inside), len(outside)))
        low, high = (edge, 1.0) if value >= 1 else (0.0, 1 - edge)
    else:
        logit, spread = (
            math.log(value / (1 - value)),
            norm.ppf((1 + confidence) / 2) * error / (value * (1 - value)),
        )
        low, high = (
            1 / (1 + math.exp(-min(max(logit + sign * spread, -700), 700))) for sign in (-1, 1)
        )
    return Interval(value, low, high, error)


def auroc_difference(
    first: tuple[Any, Any], second: tuple[Any, Any], *, confidence: float = 0.95
) -> Interval:
    """AUROC of one score minus that of another on the same examples, with DeLong's paired standard error.

    Args:
      first: Inside and outside scores of the first.
      second: The same examples, in the same order, under the second.
      confidence: Of the interval.
    """
    from scipy.stats import norm

    confidence = checked("confidence", confidence, Probability)
    pairs = [_checked(*pair) for pair in (first, second)]
    if pairs[0][0].shape != pairs[1][0].shape or pairs[0][1].shape != pairs[1][1].shape:
        raise ValueError(
            "expected the same examples under both scores, the numbers of scores differ"
        )
    placements = [_placements(*pair) for pair in pairs]
    differences = [a - b for a, b in zip(*placements, strict=True)]
    value = auroc(*pairs[0]) - auroc(*pairs[1])
    error = math.sqrt(_variance_of_mean(*differences))
    spread = float(norm.ppf((1 + confidence) / 2)) * error
    return Interval(value, value - spread, value + spread, error)


def _variance_of_mean(*samples: np.ndarray) -> float:
    return sum(
        float(np.var(sample, ddof=1)) / len(sample) if len(sample) > 1 else 0.0
        for sample in samples
    )


def evaluate_scores(
    inside: Any, outside: Any, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Every metric of ``METRICS`` with its interval.

    AUROC has DeLong's interval, the others those of a bootstrap that resamples inside and outside examples separately:
    for FPR percentiles; for AUPR and the detection error, on the logit scale, as many standard errors as the confidence
    says around the value less the bias of resampling, since a minimum is biased in every resample once more. At its
    ends, 0 and 1, FPR has the exact binomial bound, and the detection error at 0 that of the smaller class; with one
    example of a class every interval is 0 to 1. AUPR is average precision, FPR uses all thresholds, detection error is
    the minimum.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      confidence: Probability that an interval holds the true value, such as 0.95.
      resamples: Number of bootstrap resamples; without any, intervals but AUROC's are NaN.
      seed: Seed of the resamples.

    Returns:
      Name of the metric to its value, interval and standard error.

    Raises:
      TypeError: If scores are no real numbers.
      ValueError: If a class is empty or a score is NaN.

    Example:
      >>> from likejax import ood
      >>> print(ood.evaluate_scores([0.1, 0.2, 0.3, 0.6], [0.5, 0.7, 0.9])["auroc"])
      0.917 [0.348, 0.996]
    """
    inside, outside = _checked(inside, outside)
    confidence = checked("confidence", confidence, Probability)
    resamples = checked("resamples", resamples, CountOrZero)
    ordered = _Ordered.of(inside, outside)
    values = _all_metrics(*ordered.counts())
    draws = _bootstrap(ordered, resamples, seed)
    errors = draws.std(0, ddof=1) if resamples > 1 else np.full(len(METRICS), np.nan)
    low, high = _bootstrap_intervals(values, draws, confidence, len(inside), len(outside))
    if min(len(inside), len(outside)) < 2:
        low[:], high[:], errors[:] = 0.0, 1.0, np.nan
    found = {
        name: Interval(float(values[i]), float(low[i]), float(high[i]), float(errors[i]))
        for i, name in enumerate(METRICS)
    }
    return found | {"auroc": auroc_interval(inside, outside, confidence=confidence)}


def _bootstrap(ordered: _Ordered, resamples: int, seed: int) -> np.ndarray:
    """Every metric of every resample, ``(resamples, metrics)``."""
    rng = np.random.default_rng(seed)
    places = np.flatnonzero(~ordered.is_outside), np.flatnonzero(ordered.is_outside)
    draws = np.empty((resamples, len(METRICS)))
    for i in range(resamples):
        weights = np.zeros(len(ordered.is_outside))
        for place in places:
            weights[place] = np.bincount(
                rng.integers(0, len(place), len(place)), minlength=len(place)
            )
        draws[i] = _all_metrics(*ordered.counts(weights))
    return draws


def _bootstrap_intervals(
    values: np.ndarray, draws: np.ndarray, confidence: float, n_inside: int, n_outside: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends for every metric; see ``evaluate_scores``."""
    if len(draws) == 0:
        return np.full(len(METRICS), np.nan), np.full(len(METRICS), np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    smaller = min(n_inside, n_outside)
    for i in map(METRICS.index, ("aupr_out", "aupr_in", "detection_error")):
        low[i], high[i] = _logit_interval(values[i], draws[:, i], confidence, smaller)
    least = METRICS.index("detection_error")
    if values[least] == 0:
        high[least] = max(high[least], 1 - tail ** (1 / smaller))
    high[least] = min(0.5, high[least])  # chance
    edge = tail ** (1 / n_inside)
    for i in (METRICS.index("fpr95"), METRICS.index("fpr80")):
        low[i] = min(low[i], edge) if values[i] == 1 else low[i]
        high[i] = max(high[i], 1 - edge) if values[i] == 0 else high[i]
    return low, high


def _logit_interval(
    value: float, draws: np.ndarray, confidence: float, n: int
) -> tuple[float, float]:
    """Ends of the interval of a share on the logit scale, with the bias of the resamples taken back.

    Args:
      value: The share, from 0 to 1.
      draws: The shares of the resamples.
      confidence: Probability that the interval holds the true share.
      n: Number of examples of the smaller class; half an example is added on both sides, so that 0 and 1 have logits.
    """
    from scipy.special import expit, logit
    from scipy.stats import norm

    with_half = logit((np.append(draws, value) * n + 0.5) / (n + 1))
    resampled, middle = with_half[:-1], with_half[-1]
    bias = resampled.mean() - middle
    spread = (
        norm.ppf((1 + confidence) / 2) * resampled.std(ddof=1) if len(resampled) > 1 else np.nan
    )
    ends = expit(middle - bias + np.array([-spread, spread]))
    low, high = np.clip((ends * (n + 1) - 0.5) / n, 0, 1)
    return min(low, value), max(high, value)

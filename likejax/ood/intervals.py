"""Confidence intervals of the metrics: DeLong's for AUROC, and a bootstrap for the others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from likejax.ood.metrics import (
    FALSE_RATES,
    METRICS,
    Counts,
    Ranking,
    Scores,
    auroc,
    checked_scores,
)
from likejax.settings import CountOrZero, Probability, checked


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its confidence interval and its standard error.

    Attributes:
      value: The number itself.
      low: Lower end of the interval.
      high: Upper end of the interval.
      standard_error: Standard error of ``value``; NaN where it is not known.

    Example:
      >>> from likejax import ood
      >>> print(ood.Interval(value=0.9, low=0.8, high=0.95, standard_error=0.04))
      0.900 [0.800, 0.950]
    """

    value: float
    low: float
    high: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


# --- AUROC: DeLong's method


def auroc_interval(inside: Scores, outside: Scores, *, confidence: float = 0.95) -> Interval:
    """Computes AUROC with DeLong's standard error and an interval on the logit scale.

    Where the classes do not overlap, DeLong's error is 0. The interval then is that of as many
    successes without a failure as the smaller class has examples.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      confidence: Probability that the interval holds the true value.

    References:
      DeLong, DeLong and Clarke-Pearson, 1988, Comparing the areas under two or more correlated
      receiver operating characteristic curves. Sun and Xu, 2014, Fast implementation of DeLong's
      algorithm.

    Example:
      >>> from likejax import ood
      >>> print(ood.auroc_interval(inside=[0.1, 0.2, 0.3, 0.6], outside=[0.5, 0.7, 0.9]))
      0.917 [0.348, 0.996]
    """
    return mean_auroc_interval(inside, [outside], confidence=confidence)


def mean_auroc_interval(
    inside: Scores,
    outside: Sequence[Scores] = (),
    *,
    changed: Sequence[Scores] = (),
    confidence: float = 0.95,
) -> Interval:
    """Computes the mean of AUROC over several outside sets, with DeLong's standard error.

    All sets weigh the same, as in OpenOOD's averages of near and of far sets. Their AUROC share the
    inside examples, so their errors are not independent: with the placements ``V_k`` of DeLong,
    ``SE^2 = var(mean_k V_k(inside)) / m + sum_k var(V_k(outside_k)) / n_k / K^2``. The placement of
    a changed example belongs to that of the example itself, and the first variance is that of their
    sum, as Obuchowski does for clusters.

    Args:
      inside: Scores of inside examples, ``m`` of them.
      outside: Scores of the examples of each outside set that is independent of the inside ones.
      changed: Scores of the inside examples in changed forms, such as turned images: for each form
        ``m`` scores in the order of ``inside``.
      confidence: Probability that the interval holds the true value; its ends are on the logit
        scale.

    Raises:
      ValueError: If there is no outside set, or a score is NaN.

    References:
      DeLong, DeLong and Clarke-Pearson, 1988. Yang et al., 2022, OpenOOD: benchmarking generalized
      out-of-distribution detection, arXiv:2210.07242. Obuchowski, 1997, Nonparametric analysis of
      clustered ROC curve data.

    Example:
      >>> from likejax import ood
      >>> print(ood.mean_auroc_interval([0.1, 0.2, 0.3, 0.6], [[0.5, 0.7, 0.9], [0.0, 0.4]]))
      0.646 [0.219, 0.922]
      >>> inside = [0.1, 0.2, 0.3, 0.6]
      >>> print(ood.mean_auroc_interval(inside, changed=[[0.3, 0.4, 0.5, 0.8]]))
      0.781 [0.508, 0.925]
    """
    confidence = checked("confidence", confidence, Probability)
    pairs = [checked_scores(inside, each) for each in (*outside, *changed)]
    _check_as_many(pairs[len(outside) :])
    if not pairs:
        raise ValueError("expected the scores of at least one outside set, got none")
    value = float(np.mean([auroc(*pair) for pair in pairs]))
    smaller = min(min(map(len, pair)) for pair in pairs)
    if smaller < 2:  # one example shows nothing of the variance
        return Interval(value, 0.0, 1.0, math.nan)
    of_outside, of_inside = zip(*(_placements(*pair) for pair in pairs), strict=True)
    weighted = [placements / len(pairs) for placements in of_outside]
    own, of_changed = weighted[: len(outside)], weighted[len(outside) :]
    shared = np.sum([np.mean(of_inside, axis=0), *of_changed], axis=0)
    error = math.sqrt(_variance_of_mean(shared, *own))
    if 0 < value < 1:
        low, high = _ends_on_logit_scale(value, error, confidence)
    else:
        least = ((1 - confidence) / 2) ** (1 / smaller)
        low, high = (least, 1.0) if value >= 1 else (0.0, 1 - least)
    return Interval(value, low, high, error)


def _check_as_many(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Raises a ValueError unless there is a changed example for every inside one."""
    for inside, changed in pairs:
        if len(inside) != len(changed):
            raise ValueError(
                f"expected a score of each of the {len(inside)} inside examples in its changed "
                f"form, in their order, got {len(changed)}"
            )


def _ends_on_logit_scale(value: float, error: float, confidence: float) -> tuple[float, float]:
    """Returns the ends ``expit(logit(value) ± z error / (value (1 - value)))``."""
    logit = math.log(value / (1 - value))
    spread = _quantile(confidence) * error / (value * (1 - value))
    low, high = (min(max(end, -700), 700) for end in (logit - spread, logit + spread))
    return 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high))


class Spread(NamedTuple):
    """A number over several trainings of a model.

    Attributes:
      mean: Mean over the trainings.
      deviation: Standard deviation between them, with ``n - 1`` in the denominator; NaN for one.
      count: Number of trainings.

    Example:
      >>> from likejax import ood
      >>> print(ood.Spread.of([0.8, 0.9, 1.0]))
      0.900 ± 0.100 (3 trainings)
    """

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the spread of numbers.

        Args:
          values: One number for each training.
        """
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), deviation, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f} ({self.count} trainings)"


def auroc_difference(
    first: Sequence[Scores], second: Sequence[Scores], *, confidence: float = 0.95
) -> Interval:
    """Computes AUROC of one score minus that of another, with DeLong's paired standard error.

    Args:
      first: Inside scores and outside scores of the first, as a pair.
      second: The same pair under the second score: the same examples in the same order.
      confidence: Probability that the interval holds the true difference.

    Raises:
      TypeError: If one of them is no pair of scores.
      ValueError: If the numbers of scores differ, or a score is NaN.

    Example:
      >>> from likejax import ood
      >>> good, poor = ([0.1, 0.2, 0.6], [0.5, 0.9]), ([0.1, 0.7, 0.6], [0.5, 0.9])
      >>> print(ood.auroc_difference(good, poor))
      0.167 [-0.295, 0.629]
    """
    differences = _differences_of_placements(first, second)
    return _difference(first, second, _variance_of_mean(*differences), confidence)


def auroc_difference_of_changed(
    first: Sequence[Scores], second: Sequence[Scores], *, confidence: float = 0.95
) -> Interval:
    """Computes AUROC of one score minus that of another where outside is inside in a changed form.

    Args:
      first: Scores of inside examples and of the same examples changed, in the same order, as a
        pair, under the first score.
      second: The same pair under the second score.
      confidence: Probability that the interval holds the true difference.

    Raises:
      TypeError: If one of them is no pair of scores.
      ValueError: If the numbers of scores differ, or a score is NaN.

    Example:
      >>> from likejax import ood
      >>> good, poor = ([0.1, 0.2, 0.6], [0.5, 0.3, 0.9]), ([0.1, 0.7, 0.6], [0.2, 0.5, 0.9])
      >>> print(ood.auroc_difference_of_changed(good, poor))
      0.222 [-0.354, 0.798]
    """
    of_outside, of_inside = _differences_of_placements(first, second)
    _check_as_many([(of_inside, of_outside)])
    return _difference(first, second, _variance_of_mean(of_outside + of_inside), confidence)


def _difference(
    first: Sequence[Scores], second: Sequence[Scores], variance: float, confidence: float
) -> Interval:
    """Returns AUROC of the first minus that of the second, with its interval."""
    confidence = checked("confidence", confidence, Probability)
    value = auroc(*first) - auroc(*second)
    error = math.sqrt(variance)
    spread = _quantile(confidence) * error
    return Interval(value, value - spread, value + spread, error)


def _differences_of_placements(
    first: Sequence[Scores], second: Sequence[Scores]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the placements of outside and of inside examples under the first minus the second."""
    first_inside, first_outside = _checked_pair(first, "first")
    second_inside, second_outside = _checked_pair(second, "second")
    sizes = (len(first_inside), len(first_outside)), (len(second_inside), len(second_outside))
    if sizes[0] != sizes[1]:
        raise ValueError(
            "expected the same examples under both scores, got "
            f"{sizes[0][0]} inside and {sizes[0][1]} outside scores of the first, "
            f"{sizes[1][0]} and {sizes[1][1]} of the second"
        )
    of_first = _placements(first_inside, first_outside)
    of_second = _placements(second_inside, second_outside)
    return of_first[0] - of_second[0], of_first[1] - of_second[1]


def _checked_pair(pair: Sequence[Scores], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns inside and outside scores in float64.

    Raises:
      TypeError: If this is no pair.
    """
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2
    if not is_pair or any(isinstance(scores, float | int) for scores in pair):
        raise TypeError(
            f"expected {name} to be a pair (inside scores, outside scores), "
            f"got {type(pair).__name__}: auroc_difference((inside_a, outside_a), "
            "(inside_b, outside_b)) compares the scores a and b"
        )
    return checked_scores(*pair)


def _placements(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for every score, the share of the other class on the right side of it.

    That is below an outside score, and above an inside one; ties count half.
    """
    ranks = _midranks(np.concatenate([outside, inside]))
    # the rank among all minus the rank in the own class counts the other class below
    of_outside = (ranks[: len(outside)] - _midranks(outside)) / len(inside)
    of_inside = 1 - (ranks[len(outside) :] - _midranks(inside)) / len(outside)
    return of_outside, of_inside


def _midranks(scores: np.ndarray) -> np.ndarray:
    """Returns ranks from 1, the mean rank for equal scores."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[inverse]


def _variance_of_mean(*samples: np.ndarray) -> float:
    """Returns the sum of ``var / n`` over independent samples; one example adds nothing."""
    known = [sample for sample in samples if len(sample) > 1]
    return sum(float(np.var(sample, ddof=1)) / len(sample) for sample in known)


def _quantile(confidence: float) -> float:
    """Returns the standard normal quantile ``z`` of a two-sided interval."""
    from scipy.stats import norm

    return float(norm.ppf((1 + confidence) / 2))


# --- the other metrics: a bootstrap


def evaluate_scores(
    inside: Scores,
    outside: Scores,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Computes every metric of ``METRICS`` with its interval.

    AUPR is average precision, FPR uses all thresholds, and the detection error is the minimum over
    thresholds. AUROC has DeLong's interval. The others have that of a bootstrap which resamples
    inside and outside examples separately:

    * FPR has percentiles. Where it is 0 or 1 the end has the exact binomial bound.
    * TPR at a small FPR has percentiles over the number of inside scores above the true threshold,
      which is binomial, and the exact bounds of the outside scores above each; resamples of the
      largest inside scores would hold the truth too rarely. With few inside examples the lower end
      is 0, because they do not say where the threshold is.
    * AUPR and the detection error have a number of standard errors on the logit scale, around the
      value less the bias of resampling: a minimum is biased once more in every resample. A
      detection error of 0 has the binomial bound of the smaller class.

    With a single example of a class every interval is from 0 to 1.

    Args:
      inside: Scores of inside examples.
      outside: Scores of outside examples.
      confidence: Probability that an interval holds the true value, such as 0.95.
      resamples: Number of bootstrap resamples; with 0 the intervals are NaN, but for AUROC's.
      seed: Random seed of the resamples, an integer from 0.

    Returns:
      Intervals by the name of the metric.

    Raises:
      TypeError: If scores are no real numbers.
      ValueError: If a class is empty or a score is NaN.

    Example:
      >>> from likejax import ood
      >>> print(ood.evaluate_scores([0.1, 0.2, 0.3, 0.6], [0.5, 0.7, 0.9])["auroc"])
      0.917 [0.348, 0.996]
    """
    of_auroc = auroc_interval(inside, outside, confidence=confidence)
    return _evaluated(inside, outside, of_auroc, _apart, confidence, resamples, seed)


def evaluate_changed(
    inside: Scores,
    changed: Scores,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Computes every metric where the outside examples are the inside ones in a changed form.

    An image and its turned form are often unusual together, so that the intervals of
    ``evaluate_scores`` would be too wide. Here AUROC has the interval of ``mean_auroc_interval``,
    and the bootstrap draws each example with its changed form. The intervals of TPR at a small FPR
    are those of independent sets.

    Args:
      inside: Scores of inside examples.
      changed: Scores of the same examples in the changed form, in the same order.
      confidence: Probability that an interval holds the true value, such as 0.95.
      resamples: Number of bootstrap resamples; with 0 the intervals are NaN, but for AUROC's.
      seed: Random seed of the resamples, an integer from 0.

    Returns:
      Intervals by the name of the metric.

    Raises:
      TypeError: If scores are no real numbers.
      ValueError: If the numbers of scores differ, there are none, or one is NaN.

    Example:
      >>> from likejax import ood
      >>> print(ood.evaluate_changed([0.1, 0.2, 0.3, 0.6], [0.3, 0.4, 0.5, 0.8])["auroc"])
      0.781 [0.508, 0.925]
    """
    of_auroc = mean_auroc_interval(inside, changed=[changed], confidence=confidence)
    return _evaluated(inside, changed, of_auroc, _in_pairs, confidence, resamples, seed)


Draw = Callable[[Ranking, np.random.Generator], Float[np.ndarray, " n"]]
"""From a ranking to how often a resample has the example at each place."""


def _evaluated(
    inside: Scores,
    outside: Scores,
    of_auroc: Interval,
    draw: Draw,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Returns every metric with its interval, by resamples of one kind."""
    of_inside, of_outside = checked_scores(inside, outside)
    confidence = checked("confidence", confidence, Probability)
    resamples = checked("resamples", resamples, CountOrZero)
    seed = checked("seed", seed, CountOrZero)
    ranking = Ranking.of(of_inside, of_outside)
    counts = ranking.counts()
    draws = _bootstrap(ranking, draw, resamples, seed)
    sizes = len(of_inside), len(of_outside)
    found = {"auroc": of_auroc}
    for name, values in draws.items():
        ends = _ENDS.get(name) or _ends_of_found(counts, FALSE_RATES[name], seed)
        found[name] = _interval(METRICS[name](counts), values, ends, sizes, confidence)
    return found


def _bootstrap(
    ranking: Ranking, draw: Draw, resamples: int, seed: int
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """Returns the metrics of every resample."""
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in METRICS if name != "auroc"}
    for _ in range(resamples):
        counts = ranking.counts(draw(ranking, rng))
        for name, values in draws.items():
            values.append(METRICS[name](counts))
    return {name: np.array(values) for name, values in draws.items()}


def _apart(ranking: Ranking, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Draws the examples of each class by themselves."""
    weights = np.zeros(len(ranking.is_outside))
    for place in (np.flatnonzero(~ranking.is_outside), np.flatnonzero(ranking.is_outside)):
        drawn = rng.integers(0, len(place), len(place))
        weights[place] = np.bincount(drawn, minlength=len(place))
    return weights


def _in_pairs(ranking: Ranking, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Draws inside examples, each with its changed form."""
    count = len(ranking.rows) // 2
    times = np.bincount(rng.integers(0, count, count), minlength=count)
    return times[ranking.rows].astype(float)


Ends = Callable[[float, np.ndarray, tuple[int, int], float], tuple[float, float]]
"""From a value, its resamples, the sizes of both classes and the confidence to the ends."""


def _interval(
    value: float,
    draws: Float[np.ndarray, " resamples"],
    ends: Ends,
    sizes: tuple[int, int],
    confidence: float,
) -> Interval:
    """Returns a metric with the interval that its resamples give."""
    if min(sizes) < 2:
        return Interval(value, 0.0, 1.0, math.nan)
    if len(draws) == 0:
        return Interval(value, math.nan, math.nan, math.nan)
    error = float(np.std(draws, ddof=1)) if len(draws) > 1 else math.nan
    low, high = ends(value, draws, sizes, confidence)
    return Interval(value, float(low), float(high), error)


def _ends_of_precision(
    value: float, draws: np.ndarray, sizes: tuple[int, int], confidence: float
) -> tuple[float, float]:
    """Returns the ends for AUPR."""
    return _logit_ends(value, draws, confidence, min(sizes))


def _ends_of_rate(
    value: float, draws: np.ndarray, sizes: tuple[int, int], confidence: float
) -> tuple[float, float]:
    """Returns the ends for a false-positive rate: percentiles, and binomial bounds at 0 and 1."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    least = tail ** (1 / sizes[0])
    if value == 1:
        low = min(low, least)
    if value == 0:
        high = max(high, 1 - least)
    return low, high


def _ends_of_found(counts: Counts, fpr: float, seed: int) -> Ends:
    """Returns the ends for a true-positive rate at a small false-positive rate.

    Few inside scores are above the true threshold, so a resample of them never looks beyond the
    largest, and its percentiles hold the truth far too rarely. Their number ``k`` is binomial: the
    threshold is between the ``k``-th and the next largest inside score. Above either lies a number
    of outside scores, whose rate has the distributions of Clopper and Pearson's bounds.
    """

    def ends(
        value: float, draws: np.ndarray, sizes: tuple[int, int], confidence: float
    ) -> tuple[float, float]:
        del draws
        rng, (n, m) = np.random.default_rng(seed), sizes
        k = rng.binomial(n, fpr, _THRESHOLDS)
        # outside scores above the k-th and the next largest inside score: the last point of the
        # curve with at most so many inside ones above it; before the first point there is none
        last = np.searchsorted(counts.false, np.stack([k - 1, k]), side="right") - 1
        above = np.where(last < 0, 0, counts.true[last]).astype(int)
        # Clopper and Pearson: Beta(a, m - a + 1) below, Beta(a + 1, m - a) above
        lowest = np.where(above[0] > 0, rng.beta(np.maximum(above[0], 1), m - above[0] + 1), 0.0)
        highest = np.where(above[1] < m, rng.beta(above[1] + 1, np.maximum(m - above[1], 1)), 1.0)
        tail = (1 - confidence) / 2
        low, high = np.quantile(lowest, tail), np.quantile(highest, 1 - tail)
        return min(float(low), value), max(float(high), value)

    return ends


_THRESHOLDS = 10_000
"""Number of thresholds that are drawn for the interval of a true-positive rate."""


def _ends_of_error(
    value: float, draws: np.ndarray, sizes: tuple[int, int], confidence: float
) -> tuple[float, float]:
    """Returns the ends for the detection error, which is at most that of chance, 0.5."""
    low, high = _logit_ends(value, draws, confidence, min(sizes))
    if value == 0:
        tail = (1 - confidence) / 2
        high = max(high, 1 - tail ** (1 / min(sizes)))
    return low, min(0.5, high)


_ENDS: dict[str, Ends] = {
    "aupr_out": _ends_of_precision,
    "aupr_in": _ends_of_precision,
    "fpr95": _ends_of_rate,
    "fpr80": _ends_of_rate,
    "detection_error": _ends_of_error,
}
"""The metrics whose ends come from resamples, and how."""


def _logit_ends(
    value: float, draws: Float[np.ndarray, " resamples"], confidence: float, n: int
) -> tuple[float, float]:
    """Returns the ends of the interval of a share on the logit scale, without the resamples' bias.

    Args:
      value: The share, from 0 to 1.
      draws: Shares of the resamples.
      confidence: Probability that the interval holds the true share.
      n: Number of examples of the smaller class. Half an example is added on both sides, so that
        0 and 1 have logits.
    """
    from scipy.special import expit, logit

    with_half = logit((np.append(draws, value) * n + 0.5) / (n + 1))
    resampled, middle = with_half[:-1], with_half[-1]
    bias = resampled.mean() - middle
    spread = math.nan
    if len(resampled) > 1:
        spread = _quantile(confidence) * resampled.std(ddof=1)
    ends = expit(middle - bias + np.array([-spread, spread]))
    low, high = np.clip((ends * (n + 1) - 0.5) / n, 0, 1)
    return min(low, value), max(high, value)

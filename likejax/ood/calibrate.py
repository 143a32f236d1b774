"""Conformal calibration: p-values and thresholds with a guarantee, from scores of inside examples.

References:
  Vovk, Gammerman and Shafer, 2005, Algorithmic learning in a random world. Bates, Candes, Lei,
  Romano and Sesia, 2023, Testing for outliers with conformal p-values, arXiv:2104.08279.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from likejax.ood.metrics import as_scores
from likejax.settings import Count, CountOrZero, Probability, checked


def p_values(
    calibration: Float[np.ndarray, " n"],
    scores: Float[np.ndarray, "*batch"],
    *,
    seed: int | None = None,
) -> Float[np.ndarray, "*batch"]:
    """Computes ``p = (#{i: s_i > s} + U (#{i: s_i = s} + 1)) / (n + 1)``.

    Without a seed ``U = 1``. For a new inside example then ``P(p <= alpha) <= alpha``, where the
    probability is over the calibration set and the example together. Ties count against the
    example, so that the inequality holds for discrete scores too.

    With a seed every ``U`` is drawn uniformly from 0 to 1, independently for every score. Then
    ``P(p <= alpha) = alpha`` exactly, for discrete scores too: no power is lost, at the price of a
    draw in the answer.

    Args:
      calibration: Scores of ``n`` inside examples that nothing was fitted on.
      scores: Scores of new examples, higher = more OOD.
      seed: Random seed of the draws, in the order of the scores: each call needs another one.
        ``None`` for no draws.

    Returns:
      A p-value of every score: without a seed from ``1 / (n + 1)`` to 1, with one above 0.

    Raises:
      TypeError: If scores are no real numbers, or the seed is no integer.
      ValueError: If there are no calibration scores, or a score is NaN.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> ood.p_values(calibration=np.arange(99.0), scores=np.array([200.0, 50.0])).tolist()
      [0.01, 0.5]
    """
    ordered = np.sort(calibration_scores(calibration))
    scores = new_scores(scores)
    above = len(ordered) - np.searchsorted(ordered, scores, side="right")
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    ties = at_least - above
    return (above + tie_shares(seed, scores.shape) * (ties + 1)) / (len(ordered) + 1.0)


def tie_shares(seed: int | None, shape: tuple[int, ...]) -> float | Float[np.ndarray, "..."]:
    """Returns the share of its ties that counts against every score: 1, or draws above 0.

    Args:
      seed: Random seed of the draws; ``None`` for no draws.
      shape: Shape of the scores.

    Raises:
      TypeError: If the seed is no integer.
      ValueError: If the seed is negative.
    """
    seed = checked("seed", seed, CountOrZero | None)
    if seed is None:
        return 1.0
    return 1 - np.random.default_rng(seed).random(shape)  # from (0, 1]: no p-value is 0


def rank_of_threshold(n: int, fpr: float, delta: float | None = None) -> int:
    """Computes which largest calibration score is the threshold for a false-positive rate.

    Without ``delta`` the rank is ``k = floor(fpr (n + 1))``: a new inside example lies above the
    ``k``-th largest score with probability ``k / (n + 1)``, on average over calibration sets. With
    ``delta`` it is the largest ``k`` with ``P(Beta(k, n + 1 - k) > fpr) <= delta``: then the true
    rate is at most ``fpr`` with probability at least ``1 - delta`` over calibration sets.

    Args:
      n: Number of calibration scores.
      fpr: Wanted false-positive rate, between 0 and 1.
      delta: Probability, over calibration sets, that the true rate exceeds ``fpr``; ``None`` for a
        rate that holds on average.

    Returns:
      Rank ``k`` such that the ``k``-th largest calibration score is the threshold; 0 if no finite
      threshold exists.

    Example:
      >>> from likejax import ood
      >>> ood.rank_of_threshold(1000, 0.05), ood.rank_of_threshold(1000, 0.05, delta=0.1)
      (50, 41)
    """
    from scipy.stats import beta

    n = checked("n", n, Count)
    fpr = checked("fpr", fpr, Probability)
    delta = checked("delta", delta, Probability | None)
    k = min(math.floor(fpr * (n + 1) + 1e-9), n)
    if delta is None:
        return k
    ranks = np.arange(1, k + 1)
    allowed = ranks[beta.sf(fpr, ranks, n + 1 - ranks) <= delta]
    return int(allowed[-1]) if len(allowed) else 0


def threshold(
    calibration: Float[np.ndarray, " n"], fpr: float, delta: float | None = None
) -> float:
    """Computes the score above which an example is called OOD.

    Args:
      calibration: Scores of ``n`` inside examples that nothing was fitted on.
      fpr: Wanted false-positive rate.
      delta: See ``rank_of_threshold``.

    Returns:
      The threshold; infinite if ``n`` is too small to guarantee the rate.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> ood.threshold(np.arange(99.0), fpr=0.05), ood.threshold(np.arange(9.0), fpr=0.05)
      (94.0, inf)
    """
    ordered = np.sort(calibration_scores(calibration))
    k = rank_of_threshold(len(ordered), fpr, delta)
    return float(ordered[-k]) if k else math.inf


def false_alarm_rates(
    scores: Float[np.ndarray, " n"],
    *,
    calibration: int,
    test: int,
    fpr: float,
    repeats: int,
    seed: int,
) -> Float[np.ndarray, " repeats"]:
    """Computes false-alarm rates over random cuts of inside scores into calibration and test.

    For exchangeable scores without ties a rate times ``test`` follows
    ``BetaBinomial(test, k, calibration + 1 - k)`` with ``k = floor(fpr (calibration + 1))``, which
    checks that a calibration reaches its rate.

    Args:
      scores: Scores of inside examples.
      calibration: Number of scores to calibrate with, drawn anew each time.
      test: Number of scores to count false alarms in, disjoint from the others.
      fpr: Wanted false-positive rate.
      repeats: Number of cuts.
      seed: Random seed of the cuts.

    Returns:
      The rate of every cut.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> scores = np.random.default_rng(0).normal(size=2000)
      >>> rates = ood.false_alarm_rates(
      ...     scores, calibration=200, test=500, fpr=0.05, repeats=50, seed=0
      ... )
      >>> bool(abs(rates.mean() - 0.05) < 0.01)
      True
    """
    scores = calibration_scores(scores, "inside")
    calibration = checked("calibration", calibration, Count)
    test = checked("test", test, Count)
    repeats = checked("repeats", repeats, CountOrZero)
    seed = checked("seed", seed, CountOrZero)
    if calibration + test > len(scores):
        raise ValueError(f"expected at least {calibration + test} scores to cut, got {len(scores)}")
    rng = np.random.default_rng(seed)
    rates = []
    for _ in range(repeats):
        drawn = rng.permutation(scores)[: calibration + test]
        limit = threshold(drawn[:calibration], fpr)
        rates.append(np.mean(drawn[calibration:] > limit))
    return np.array(rates)


def calibration_scores(
    scores: Float[np.ndarray, " n"], name: str = "calibration"
) -> Float[np.ndarray, " n"]:
    """Returns scores of inside examples in float64; infinite ones are kept, they have a rank.

    Args:
      scores: At least one score, ``(n,)``.
      name: Name of the scores in an error message.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If there are none, or one is NaN.
    """
    scores = as_scores(scores, name)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"expected {name} scores (n,) with n > 0, got shape {scores.shape}")
    missing = int(np.isnan(scores).sum())
    if missing:
        raise ValueError(f"expected {name} scores without NaN, got {missing}")
    return scores


def new_scores(scores: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Returns scores of new examples in float64; infinite ones are kept, they have a rank.

    Args:
      scores: Scores of any shape.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If one is NaN.
    """
    scores = as_scores(scores, "new")
    missing = int(np.isnan(scores).sum())
    if missing:
        raise ValueError(f"expected scores without NaN, got {missing}")
    return scores

"""Conformal calibration: from scores of held-out inside examples to p-values and thresholds with a guarantee.

References:
  Vovk, Gammerman and Shafer, 2005, Algorithmic learning in a random world. Bates, Candes, Lei, Romano and Sesia, 2023,
  Testing for outliers with conformal p-values, arXiv:2104.08279.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from likejax.ood.metrics import as_scores
from likejax.settings import Count, CountOrZero, Probability, checked


def p_values(
    calibration: Float[np.ndarray, " n"], scores: Float[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch"]:
    """``p = (1 + #{i: s_i >= s}) / (n + 1)``: for a new inside example, ``P(p <= alpha) <= alpha``.

    The probability is over calibration set and example together. Ties count against the example, so that the
    inequality holds for discrete scores too.

    Args:
      calibration: Scores of ``n`` inside examples that nothing was fitted on.
      scores: Scores of new examples, higher = more OOD.

    Returns:
      A p-value of every score, from ``1 / (n + 1)`` to 1.
    """
    ordered = np.sort(_without_nan(calibration))
    scores = as_scores(scores, "scores")
    if np.isnan(scores).any():
        raise ValueError(f"expected scores without NaN, got {int(np.isnan(scores).sum())}")
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1.0 + at_least) / (len(ordered) + 1.0)


def rank_of_threshold(n: int, fpr: float, delta: float | None = None) -> int:
    """Which largest calibration score is the threshold for a false-positive rate: the ``k``-th, 0 for none.

    Marginal (``delta=None``): ``k = floor(fpr (n + 1))``, and a new inside example lies above the ``k``-th largest
    with probability ``k / (n + 1)`` on average over calibration sets. With ``delta``: the largest ``k`` with
    ``P(Beta(k, n + 1 - k) > fpr) <= delta``; then with probability at least ``1 - delta`` over calibration sets the
    rate that this threshold really has is at most ``fpr``.

    Args:
      n: Number of calibration scores.
      fpr: Wanted rate, between 0 and 1.
      delta: Chance that a calibration set may mislead.

    Example:
      >>> from likejax import ood
      >>> ood.rank_of_threshold(1000, 0.05), ood.rank_of_threshold(1000, 0.05, delta=0.1)
      (50, 41)
    """
    from scipy.stats import beta

    n = checked("n", n, Count)
    fpr = checked("fpr", fpr, Probability)
    delta = checked("delta", delta, Probability | None)
    k = math.floor(fpr * (n + 1) + 1e-9)
    if delta is None:
        return min(k, n)
    ranks = np.arange(1, min(k, n) + 1)
    allowed = ranks[beta.sf(fpr, ranks, n + 1 - ranks) <= delta]
    return int(allowed[-1]) if len(allowed) else 0


def threshold(
    calibration: Float[np.ndarray, " n"], fpr: float, delta: float | None = None
) -> float:
    """The score above which an example is called OOD; infinite if ``n`` is too small for the wish.

    Args:
      calibration: Scores of inside examples that nothing was fitted on.
      fpr: Wanted false-positive rate.
      delta: See ``rank_of_threshold``.
    """
    ordered = np.sort(_without_nan(calibration))
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
    """False-alarm rates of the marginal threshold over random cuts of inside scores into calibration and test.

    For exchangeable scores without ties a rate times ``test`` is ``BetaBinomial(test, k, calibration + 1 - k)`` with
    ``k = floor(fpr (calibration + 1))``: the check that a calibration does what it says.

    Args:
      scores: Inside scores.
      calibration: Scores to calibrate on, drawn anew each time.
      test: Scores to count false alarms in, disjoint from them.
      fpr: Wanted rate.
      repeats: Number of cuts.
      seed: Seed of the cuts.

    Returns:
      The rate of every cut.
    """
    scores = _without_nan(scores, "inside")
    calibration, test = checked("calibration", calibration, Count), checked("test", test, Count)
    repeats = checked("repeats", repeats, CountOrZero)
    if calibration + test > len(scores):
        raise ValueError(f"expected at least {calibration + test} scores to cut, got {len(scores)}")
    rng = np.random.default_rng(seed)
    rates = []
    for _ in range(repeats):
        drawn = rng.permutation(scores)[: calibration + test]
        rates.append(np.mean(drawn[calibration:] > threshold(drawn[:calibration], fpr)))
    return np.array(rates)


def _without_nan(scores: np.ndarray, name: str = "calibration") -> np.ndarray:
    scores = as_scores(scores, name)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"expected {name} scores (n,) with n > 0, got shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"expected {name} scores without NaN, got {int(np.isnan(scores).sum())}")
    return scores

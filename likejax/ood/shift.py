"""Calibration under covariate shift: source examples calibrate, target examples are decided about.

The distribution of examples changes from source to target, and that of the score given the example
does not. If the ratio ``r(x) = p_target(x) / p_source(x)`` of densities is known, weighted
conformal p-values are exact. In high dimension it is not: then ``ShiftedThreshold`` learns a
threshold that depends on features of the example.

References:
  Tibshirani, Foygel Barber, Candes and Ramdas, 2019, Conformal prediction under covariate shift,
  arXiv:1904.06019.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from likejax.ood.calibrate import calibration_scores, new_scores, tie_shares
from likejax.ood.checks import finite_numbers, real_numbers
from likejax.settings import Positive, checked


def shift_weights(
    source_log_prob: Float[np.ndarray, "*batch"],
    target_log_prob: Float[np.ndarray, "*batch"],
    *,
    largest: float = 100.0,
    offset: float = 0.0,
) -> Float[np.ndarray, "*batch"]:
    """Computes ``w = min(exp(log p_target - log p_source - offset), largest)``.

    P-values depend on ratios of weights alone, so any ``offset`` gives the same, up to clipping. It
    serves log-probabilities that are not normalized, or bounds: choose one that makes the mean
    weight of source examples about 1, and use it for calibration and new examples alike.

    A clipped weight counts an example less than it should, which costs coverage; one that is not
    clipped can count more than all others together. ``effective_size`` says what is left.

    Args:
      source_log_prob: Log-probabilities in nats under a density of the source.
      target_log_prob: Log-probabilities in nats of the same examples under one of the target.
      largest: Largest weight.
      offset: Log-ratio that has the weight 1, in nats.

    Returns:
      Weights, for ``weighted_p_values``; nothing overflows before it is clipped.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If shapes differ, one is NaN, or both densities exclude an example.

    References:
      Tibshirani, Foygel Barber, Candes and Ramdas, 2019, Conformal prediction under covariate
      shift, arXiv:1904.06019.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> source, target = np.array([-3000.0, -3000.0, -10.0]), np.array([-3001.0, -20.0, -10.0])
      >>> ood.shift_weights(source, target, largest=50.0).round(3).tolist()
      [0.368, 50.0, 1.0]
    """
    source = real_numbers("source_log_prob", source_log_prob)
    target = real_numbers("target_log_prob", target_log_prob)
    largest = checked("largest", largest, Positive)
    offset = checked("offset", offset, float)
    if source.shape != target.shape:
        raise ValueError(
            "expected log-probabilities of the same examples under both densities, got shapes "
            f"{source.shape} and {target.shape}"
        )
    with np.errstate(invalid="ignore"):
        log_ratio = target - source - offset
    unknown = int(np.isnan(log_ratio).sum())
    if unknown:
        raise ValueError(
            f"expected examples that have a ratio, {unknown} have infinite log-probabilities of "
            "the same sign under both densities: leave them out"
        )
    return np.exp(np.minimum(log_ratio, math.log(largest)))


def effective_size(weights: Float[np.ndarray, " n"]) -> float:
    """Computes ``(sum_i w_i)^2 / sum_i w_i^2``: how many equal weights say as much.

    Args:
      weights: Weights of ``n`` examples, at least 0.

    Returns:
      A number of examples, from 1 to ``n``.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If one is negative or not finite, or all are 0.

    References:
      Kish, 1965, Survey sampling.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> ood.effective_size(np.array([1.0, 1.0, 0.0])), ood.effective_size(np.array([1.0, 0.5]))
      (2.0, 1.8)
    """
    w = _checked_weights("weights", weights)
    if w.ndim != 1:
        raise ValueError(f"expected weights of shape (n,), got {w.shape}")
    w = w / _largest("weights", w)
    return float(w.sum() ** 2 / np.square(w).sum())


def weighted_p_values(
    calibration: Float[np.ndarray, " n"],
    scores: Float[np.ndarray, "*batch"],
    calibration_weights: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, "*batch"],
    *,
    seed: int | None = None,
) -> Float[np.ndarray, "*batch"]:
    """Computes ``p = (sum_i w_i 1[s_i > s] + U (sum_i w_i 1[s_i = s] + w)) / (sum_i w_i + w)``.

    With ``w`` the true ratio of the target's density to the source's, ``P(p <= alpha) <= alpha``
    for a new example of the target, over the calibration set and the example together. Without a
    seed ``U = 1``, with one it is uniform and the probability is ``alpha`` exactly. Equal weights
    give ``p_values``.

    Args:
      calibration: Scores of ``n`` source examples that nothing was fitted on.
      scores: Scores of new examples of the target, higher = more OOD.
      calibration_weights: Weights of the source examples, such as those of ``shift_weights``.
      weights: Weights of the new examples, on the same scale.
      seed: Random seed of ``U``, in the order of the scores: each call needs another one; ``None``
        for no draws.

    Returns:
      A p-value of every score, from 0 to 1. One whose weight is large against all others is near 1
      whatever the score: the calibration set says nothing about it.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If a score is NaN, lengths differ, or a weight is negative or not finite; if all
        calibration weights are 0.

    References:
      Tibshirani, Foygel Barber, Candes and Ramdas, 2019, Conformal prediction under covariate
      shift, arXiv:1904.06019. Hu and Lei, 2024, A two-sample conditional distribution test using
      conformal prediction and weighted rank sum.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> calibration, weights = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 4.0])
      >>> ood.weighted_p_values(calibration, np.array([2.5]), weights, np.array([2.0])).tolist()
      [0.75]
    """
    calibration = calibration_scores(calibration)
    scores = new_scores(scores)
    of_calibration = _checked_weights("calibration_weights", calibration_weights)
    of_new = _checked_weights("weights", weights)
    _check_same_shape("calibration_weights", of_calibration, calibration)
    _check_same_shape("weights", of_new, scores)
    largest = max(_largest("calibration_weights", of_calibration), of_new.max(initial=0.0))
    of_calibration = of_calibration / largest  # sums of scaled weights do not overflow
    of_new = of_new / largest
    order = np.argsort(calibration)
    ordered = calibration[order]
    totals = np.concatenate([[0.0], np.cumsum(of_calibration[order][::-1])])  # of the largest
    above = totals[len(ordered) - np.searchsorted(ordered, scores, side="right")]
    at_least = totals[len(ordered) - np.searchsorted(ordered, scores, side="left")]
    counted = above + tie_shares(seed, scores.shape) * (at_least - above + of_new)
    return np.minimum(counted / (totals[-1] + of_new), 1.0)  # rounding can exceed 1


def _checked_weights(name: str, weights: np.ndarray) -> Float[np.ndarray, "..."]:
    """Returns weights in float64.

    Raises:
      ValueError: If one is negative, NaN or infinite.
    """
    w = finite_numbers(name, weights)
    negative = w[w < 0]
    if negative.size:
        raise ValueError(
            f"expected {name} of at least 0, {negative.size} are negative, such as "
            f"{negative[0]:g}: weights are ratios of densities, not their logarithms"
        )
    return w


def _check_same_shape(name: str, weights: np.ndarray, scores: np.ndarray) -> None:
    if weights.shape != scores.shape:
        raise ValueError(
            f"expected one weight of every score, {name} have shape {weights.shape} and the "
            f"scores {scores.shape}"
        )


def _largest(name: str, weights: np.ndarray) -> float:
    """Returns the largest weight.

    Raises:
      ValueError: If all are 0.
    """
    largest = float(weights.max(initial=0.0))
    if largest == 0:
        raise ValueError(
            f"expected {name} above 0, all {weights.size} are 0: the target's density excludes "
            "every one of these examples, or is so small there that it underflows (an offset of "
            "shift_weights helps where densities are not normalized)"
        )
    return largest

"""Calibration under covariate shift: source examples calibrate, target examples are decided about.

The distribution of examples changes from source to target, and that of the score given the example
does not. If the ratio ``r(x) = p_target(x) / p_source(x)`` of densities is known, weighted
conformal p-values are exact. In high dimension it is not: then ``ShiftedThreshold`` learns a
threshold that depends on features of the example.

References:
  Tibshirani, Foygel Barber, Candes and Ramdas, 2019, Conformal prediction under covariate shift,
  arXiv:1904.06019. Joshi, Kiyani, Pappas, Dobriban and Hassani, 2025, Conformal inference under
  high-dimensional covariate shifts via likelihood-ratio regularization, arXiv:2502.13030.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import numpy as np
from jaxtyping import Float

from likejax.ood.calibrate import calibration_scores, new_scores, tie_shares
from likejax.ood.checks import finite_numbers, real_numbers
from likejax.settings import NonNegative, Positive, Range, Settings, checked

_WIDTHS = (0.3, 0.03, 0.003)
"""Widths of the smoothed kink of the pinball loss, in units of the scaled scores, one by one."""
_LARGEST_SLOPE = 1e-3
"""Slope above which a minimum was not found, for an objective of size 1."""
_SEARCH = {"gtol": 1e-6, "maxiter": 1000}
"""Slope at which the search with one width ends, and its number of steps."""
UpperRate = Annotated[float, Range(above=0, below=0.5)]
"""A false-positive rate whose threshold lies above the median."""


# --- weights


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


# --- a threshold that depends on the example


@dataclasses.dataclass(frozen=True)
class ShiftedThreshold(Settings):
    """Likelihood-ratio-regularized quantile regression: a threshold ``h(x)`` under covariate shift.

    With ``h`` linear in features, ``(h, beta)`` minimizes

        ``E_1[pinball_{1 - fpr}(h(X), S)] + strength (E_1[beta^2 h(X)^2] - 2 E_2[beta h(X)])``

    where ``E_1`` is the mean over source examples, whose scores ``S`` are known, ``E_2`` that over
    target examples, and ``pinball_q(h, s) = max(q (s - h), (1 - q) (h - s))``. The second term is
    ``E_1[(beta h - r)^2]`` but for a constant, with ``r`` the ratio of the target's density to the
    source's: it draws ``h`` toward a multiple of the ratio. The false-positive rate on the target
    is then near ``fpr``, if a linear function of the features comes near the ratio or the quantile.

    The scores in the formula have their median subtracted, and are divided by the distance from
    there to the quantile of ``1 - fpr``. Hence ``h`` and ``r`` are both about 1, ``strength`` has
    no unit, and a threshold changes with the scores as these are shifted and scaled. Linear maps of
    the features change nothing.

    The rate is no guarantee for a finite sample, and the strength is a choice. At 0 the rate is too
    high where features are many: a wanted 0.1 became 0.19 with 100 features, 500 examples each of
    source and target, and a shift of the one feature that matters by a standard deviation (0.28
    with one threshold for all); 0.16 at 0.01 and 0.12 at 0.05. A strength that is too large makes
    it too low where no linear function comes near the ratio: with 4 features, 1000 examples and a
    shift of two features it became 0.09 at 0.01 and 0.07 at 0.05.

    Attributes:
      fpr: Wanted false-positive rate on the target, below one half.
      strength: Weight of the regularization; 0 for quantile regression on the source alone.

    References:
      Joshi, Kiyani, Pappas, Dobriban and Hassani, 2025, Conformal inference under high-dimensional
      covariate shifts via likelihood-ratio regularization, arXiv:2502.13030. Koenker and Bassett,
      1978, Regression quantiles.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> rng = np.random.default_rng(0)
      >>> source, target = rng.normal(size=(2000, 2)), rng.normal(1.0, size=(2000, 2))
      >>> scores, new = (x[:, 0] + rng.normal(size=2000) for x in (source, target))
      >>> limit = ood.ShiftedThreshold(fpr=0.1).fit(source, scores, target)
      >>> bool(np.mean(new > ood.threshold(scores, 0.1)) > 0.25)  # one threshold for all
      True
      >>> bool(abs(np.mean(new > limit(target)) - 0.1) < 0.03)
      True
    """

    fpr: UpperRate = 0.05
    strength: NonNegative = 0.01

    def fit(
        self,
        source_features: Float[np.ndarray, "n features"],
        source_scores: Float[np.ndarray, " n"],
        target_features: Float[np.ndarray, "m features"],
    ) -> FittedThreshold:
        """Returns the threshold as a function of features; a constant is added to the features.

        Args:
          source_features: Features of ``n`` inside examples of the source, more than features.
          source_scores: Scores of these, ``(n,)``, higher = more OOD; nothing was fitted on them.
          target_features: Features of ``m`` examples of the target, without scores.

        Returns:
          The fitted threshold. A feature that does not vary among source examples has weight 0.

        Raises:
          TypeError: If these are no real numbers.
          ValueError: If shapes do not fit, a number is not finite, all scores are equal, or no
            minimum is found.
        """
        source = _checked_features("source_features", source_features)
        target = _checked_features("target_features", target_features)
        scores = finite_numbers("source_scores", source_scores)
        _check_fit(source, scores, target)
        center = float(np.median(scores))
        scale = _distance(scores, center, self.fpr)
        frame = _Frame.of(source)
        problem = _Problem(
            frame(source), (scores - center) / scale, frame(target).mean(0), self.fpr, self.strength
        )
        constant, slopes = frame.in_features(_minimum(problem))
        return FittedThreshold(scale * slopes, center + scale * constant)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedThreshold:
    """Threshold ``h(x) = intercept + sum_j weights_j x_j`` of an example with features ``x``.

    Attributes:
      weights: Weight of every feature, ``(features,)``.
      intercept: Threshold where all features are 0.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> limit = ood.FittedThreshold(weights=np.array([1.0, -2.0]), intercept=0.5)
      >>> limit(np.array([[0.0, 0.0], [3.0, 1.0]])).tolist()
      [0.5, 1.5]
    """

    weights: Float[np.ndarray, " features"]
    intercept: float

    def __call__(self, features: Float[np.ndarray, "*batch features"]) -> Float[np.ndarray, "..."]:
        """Returns the score above which every example is called OOD, ``(*batch,)``.

        Args:
          features: Features of examples, ``(*batch, features)``.

        Raises:
          TypeError: If these are no real numbers.
          ValueError: If there is another number of features, or one is not finite.
        """
        x = finite_numbers("features", features)
        if x.ndim == 0 or x.shape[-1] != len(self.weights):
            raise ValueError(f"expected features (*batch, {len(self.weights)}), got {x.shape}")
        return self.intercept + x @ self.weights


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    """Coordinates of features, a constant among them, whose second moment is 1 on the source.

    Attributes:
      center: Mean of every feature, ``(features,)``.
      spread: Standard deviation of every feature, ``(features,)``.
      basis: Coordinates of the constant and the standardized features, ``(1 + features, rank)``.
    """

    center: np.ndarray
    spread: np.ndarray
    basis: np.ndarray

    @classmethod
    def of(cls, source: np.ndarray) -> _Frame:
        center = source.mean(0)
        varies = np.ptp(source, axis=0) > 0  # a deviation of equal numbers is not 0 but rounding
        spread = np.where(varies, source.std(0), np.inf)
        standard = _with_constant((source - center) / spread)
        _, sizes, directions = np.linalg.svd(standard / math.sqrt(len(source)), full_matrices=False)
        least = sizes[0] * max(standard.shape) * np.finfo(np.float64).eps
        kept = sizes > least  # features that others determine add no direction
        return cls(center, spread, directions[kept].T / sizes[kept])

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return _with_constant((features - self.center) / self.spread) @ self.basis

    def in_features(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the constant and the slopes in the features of a function in coordinates."""
        constant, *rest = self.basis @ theta
        slopes = np.array(rest) / self.spread
        return float(constant - slopes @ self.center), slopes


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """The objective in coordinates, minimized over ``beta`` already.

    With ``h = theta . phi``, ``E_1[phi phi'] = 1`` and ``m = E_2[phi]`` the best ``beta`` is
    ``theta . m / |theta|^2``, and the regularization ``-strength (theta . m)^2 / |theta|^2``.

    Attributes:
      source: Coordinates ``phi`` of source examples, ``(n, rank)``.
      scores: Their scores, centered and scaled, ``(n,)``.
      target_mean: Mean ``m`` of the coordinates over target examples, ``(rank,)``.
      fpr: Wanted false-positive rate.
      strength: Weight of the regularization.
    """

    source: np.ndarray
    scores: np.ndarray
    target_mean: np.ndarray
    fpr: float
    strength: float

    def __call__(self, theta: np.ndarray, width: float) -> tuple[float, np.ndarray]:
        """Returns the objective with a pinball loss whose kink has a width, and its gradient."""
        excess = self.scores - self.source @ theta
        loss = (1 - self.fpr) * excess + width * np.logaddexp(0, -excess / width)
        slope = self.source.T @ (self._covered(theta, width) - (1 - self.fpr)) / len(excess)
        beta = self._beta(theta)
        value = loss.mean() - self.strength * beta * float(theta @ self.target_mean)
        return float(value), slope + 2 * self.strength * beta * (beta * theta - self.target_mean)

    def curvature(self, theta: np.ndarray, along: np.ndarray, width: float) -> np.ndarray:
        """Returns the change of the gradient along a direction."""
        covered = self._covered(theta, width)
        density = covered * (1 - covered) / width
        of_loss = self.source.T @ (density * (self.source @ along)) / len(density)
        beta = self._beta(theta)
        change = float((self.target_mean - 2 * beta * theta) @ along) / float(theta @ theta)
        of_penalty = change * (2 * beta * theta - self.target_mean) + beta**2 * along
        return of_loss + 2 * self.strength * of_penalty

    def _covered(self, theta: np.ndarray, width: float) -> np.ndarray:
        """Returns how far every score lies below its threshold: 1, or less within the kink."""
        from scipy.special import expit

        return expit((self.source @ theta - self.scores) / width)

    def _beta(self, theta: np.ndarray) -> float:
        return float(theta @ self.target_mean) / float(theta @ theta)


def _minimum(problem: _Problem) -> np.ndarray:
    """Returns the coordinates that minimize the objective, from those of ``h = 1`` on.

    Second derivatives take a few steps where a quasi-Newton search takes hundreds.

    Raises:
      ValueError: If no minimum is found.
    """
    from scipy.optimize import minimize

    theta = problem.source.mean(0)
    for width in _WIDTHS:  # a wide kink leads near the minimum, a narrow one does not move it
        found = minimize(
            problem,
            theta,
            (width,),
            method="trust-krylov",
            jac=True,
            hessp=problem.curvature,
            options=_SEARCH,
        )
        theta = found.x
    slope = float(abs(problem(theta, _WIDTHS[-1])[1]).max())
    if not slope <= _LARGEST_SLOPE * (1 + problem.strength):  # NaN is none
        raise ValueError(
            f"expected a minimum of the quantile regression, its slope is still {slope:g}: use "
            "fewer features, more source examples or a smaller strength"
        )
    return theta


def _with_constant(features: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(features), 1)), features], axis=1)


def _distance(scores: np.ndarray, center: float, fpr: float) -> float:
    """Returns the distance from the median to the quantile, or the spread where that is 0.

    Raises:
      ValueError: If all scores are equal.
    """
    distance = float(np.quantile(scores, 1 - fpr)) - center
    if distance > 0:
        return distance
    if np.ptp(scores) > 0:
        return float(scores.std())
    raise ValueError(f"expected source_scores that differ, all {len(scores)} are {center:g}")


def _checked_features(name: str, features: np.ndarray) -> Float[np.ndarray, "n features"]:
    """Returns features in float64.

    Raises:
      ValueError: If there are no examples, or a number is not finite.
    """
    x = finite_numbers(name, features)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"expected {name} of shape (n, features) with n > 0, got {x.shape}")
    return x


def _check_fit(source: np.ndarray, scores: np.ndarray, target: np.ndarray) -> None:
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            "expected the same features of source and target, got "
            f"{source.shape[1]} and {target.shape[1]} of them"
        )
    if scores.shape != source.shape[:1]:
        raise ValueError(
            f"expected one score of every source example, got {len(source)} examples and scores "
            f"of shape {scores.shape}"
        )
    if len(source) <= source.shape[1] + 1:
        raise ValueError(
            f"expected more source examples than the {source.shape[1]} features and a constant, "
            f"got {len(source)}: a threshold would fit every score by itself"
        )

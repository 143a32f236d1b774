"""A threshold that depends on features of the example, learned for a shift of covariates.

It needs no ratio of densities: the examples of source and target stand for it.

References:
  Joshi, Kiyani, Pappas, Dobriban and Hassani, 2025, Conformal inference under high-dimensional
  covariate shifts via likelihood-ratio regularization, arXiv:2502.13030.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import numpy as np
from jaxtyping import Float

from likejax.ood.checks import finite_numbers
from likejax.settings import NonNegative, Range, Settings

_WIDTHS = (0.3, 0.03, 0.003)
"""Widths of the smoothed kink of the pinball loss, in units of the scaled scores, one by one."""
_LARGEST_SLOPE = 1e-3
"""Slope above which a minimum was not found, for an objective of size 1."""
_SEARCH = {"gtol": 1e-6, "maxiter": 1000}
"""Slope at which the search with one width ends, and its number of steps."""
UpperRate = Annotated[float, Range(above=0, below=0.5)]
"""A false-positive rate whose threshold lies above the median."""


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

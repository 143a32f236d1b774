"""Score from the curvature of the log-probability: how much perturbations lower it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Num

from likejax.density import Density, Kind
from likejax.inputs import numpy_of
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    LogProb,
    Numbers,
    OfDraws,
    Values,
)
from likejax.ood.score import Score
from likejax.settings import Count, Positive

_STREAM = np.uint32(2**31)
"""Number of the keys of perturbations, far from those of a density's draws."""
_LEAST_SCALE = 0.5
"""Smallest standard deviation in levels: with less, most entries are rounded to where they were."""


@dataclasses.dataclass(frozen=True)
class PerturbedLogProbs(OfDraws):
    """``log p(x + e_i)`` for several Gaussian perturbations ``e_i`` of an example, ``(n, draws)``.

    Perturbations of integers are rounded, and the results clipped to the levels. Every
    log-probability is one draw with the noise of the unperturbed example, so that its difference
    from ``LogProb()`` is that of the perturbation alone.

    Example:
      >>> import likejax as lj, numpy as np
      >>> gaussian = lj.models.FullGaussian.fit(np.eye(3, dtype=np.float32))
      >>> keys = lj.example_keys(0, np.arange(2))
      >>> feature = lj.ood.PerturbedLogProbs(scale=0.1, draws=4)
      >>> feature({"density": gaussian}, np.zeros((2, 3), np.float32), keys).shape
      (2, 4)
    """

    scale: Positive
    """Standard deviation of the perturbations in units of the data; for integers, in levels."""
    draws: Count = 16
    """Number of perturbations of each example."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the log-probabilities of perturbed examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example.

        Raises:
          ValueError: If there are no keys.
        """
        density = densities["density"]
        if keys is None:
            raise ValueError(
                "expected a key, by which perturbations are drawn: pass key=jax.random.key(seed)"
            )
        own = None if density.kind is Kind.EXACT else keys
        values = []
        for draw in range(self.draws):
            moved = _perturbed(jnp.asarray(x), keys, np.uint32(draw), self.scale, density.levels)
            values.append(density.log_prob(moved, key=own))
        return jnp.stack(values, axis=-1)


@functools.partial(jax.jit, static_argnums=4)
def _perturbed(
    x: Array, keys: Array, draw: ArrayLike, scale: ArrayLike, levels: int | None
) -> Num[Array, "n ..."]:
    def of_one(x: Array, key: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), draw)
        noise = scale * jax.random.normal(key, x.shape)
        if levels is None:
            return x + noise.astype(x.dtype)
        moved = x.astype(jnp.int32) + jnp.rint(noise).astype(jnp.int32)
        return jnp.clip(moved, 0, levels - 1).astype(x.dtype)

    return jax.vmap(of_one)(x, keys)


@dataclasses.dataclass(frozen=True)
class Curvature(Score):
    """Score ``s = -d``, ``d = log p(x) - mean_i log p(x + e_i)``, with Gaussian ``e_i``; nats.

    A density has learned to put its examples on peaks: there ``d`` is high, and for training
    examples higher than for new ones. An outside example on a slope has a low ``d``. For a normal
    with covariance ``S``, ``E d = scale^2 tr(S^-1) / 2``, the same everywhere; in general ``d``
    estimates ``-scale^2 / 2`` times the trace of the Hessian of ``log p``. So an outside example in
    a region where the density is sharp, such as a constant image, looks like an inside one.

    Perturbations of integers are rounded to levels, and clipped to their range. Entries at the edge
    are moved half as often, and those that round to 0 not at all.

    References:
      Mitchell et al., 2023, DetectGPT: zero-shot machine-generated text detection using probability
      curvature, arXiv:2301.11305, with Gaussian noise in place of rewritten text.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> score = lj.ood.Curvature(scale=0.1).fit(gaussian, points[100:], key=1)
      >>> score(points[:3], key=2).shape
      (3,)
    """

    name: ClassVar[str] = "curvature"

    scale: Positive
    """Standard deviation of the perturbations in units of the data; for integers, in levels, at
    least 0.5."""
    draws: Count = 16
    """Number of perturbations of each example."""
    standardize: bool = False
    """Whether ``d`` is divided by the standard deviation of ``log p(x + e_i)`` over ``i``."""

    @property
    def label(self) -> str:
        """Name in tables, with the settings."""
        name = "standardized curvature" if self.standardize else self.name
        return f"{name}, scale {self.scale:g} ({self.draws} draws)"

    @property
    def features(self) -> tuple[Feature, ...]:
        """The log-probabilities of the example and of its perturbations."""
        return LogProb(), PerturbedLogProbs(self.scale, self.draws)

    def _check_together(self) -> None:
        if self.standardize and self.draws < 2:
            raise ValueError(
                "expected at least 2 draws, whose standard deviation standardizes, got draws=1"
            )

    def check(self, density: Density) -> None:
        """Raises a ValueError if rounding would undo most perturbations.

        Args:
          density: Density that is scored.
        """
        if density.levels is not None and self.scale < _LEAST_SCALE:
            raise ValueError(
                f"expected a scale of at least {_LEAST_SCALE} levels for {type(density).__name__}, "
                f"which takes integers, got {self.scale:g}: smaller perturbations are rounded to 0"
            )

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns minus ``d``, in nats, or in standard deviations.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        log_prob, perturbed = map(compute, self.features)
        drop = log_prob - perturbed.mean(axis=1)
        return -drop / _spread(perturbed) if self.standardize else -drop


def _spread(values: Float[Any, "n draws"]) -> Float[Any, " n"]:
    """The standard deviation of each row, or 1 where all are equal: there the drop itself is 0."""
    numpy = numpy_of(values)
    std = values.std(axis=1, ddof=1)
    return numpy.where(std == 0, 1.0, std)

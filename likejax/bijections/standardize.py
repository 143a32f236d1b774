"""Standardization with statistics of the training data, and batch normalization as evaluated."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, LogDet, check_last_axis
from likejax.nn.modules import Buffer, replace
from likejax.nn.normalization import channel_statistics
from likejax.settings import Count, checked

Vector = Float[Array, " d"]


class Standardize(Bijection):
    """``z = (x - mean) / std`` with the mean and standard deviation of each entry of the data.

    ``log_det = -sum(log std)``, so nats refer to the data as given. The statistics are not trained:
    ``initialize`` takes them from data. An entry that varies by no more than the rounding of its
    values keeps its scale.

    Args:
      dimensions: Number of entries of a vector.

    Example:
      >>> import jax, likejax as lj
      >>> batch = 5 + 3 * jax.random.normal(jax.random.key(0), (100, 2))
      >>> standardize = lj.bijections.Standardize(2).initialize(batch, jax.random.key(1))
      >>> bool(standardize.sum_log_std() > 2)
      True
    """

    def __init__(self, dimensions: int):
        dimensions = checked("dimensions", dimensions, Count)
        self.mean = Buffer(jnp.zeros(dimensions))
        self.std = Buffer(jnp.ones(dimensions))

    @override
    def forward(
        self, x: Vector, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        check_last_axis(x, len(self.mean[...]), "Standardize")
        return (x - self.mean[...]) / self.std[...], -self.sum_log_std()

    @override
    def inverse(self, z: Vector, condition: Array | None = None) -> Vector:
        """Maps a latent back to its example."""
        return z * self.std[...] + self.mean[...]

    @override
    def initialize(self, batch: Float[Array, "batch d"], key: Array) -> Standardize:
        """Returns a new map that is fitted to ``batch``."""
        statistics = channel_statistics(batch)
        std = jnp.where(statistics.varies, statistics.std, 1.0)
        return replace(self, mean=Buffer(statistics.mean), std=Buffer(std))

    def sum_log_std(self) -> LogDet:
        """Returns ``sum(log std)``, which is added to nats of the data for standardized data."""
        return jnp.sum(jnp.log(self.std[...]))


class BatchNorm(Bijection):
    """``z = (x - mean) / sqrt(variance + epsilon) * exp(log_scale) + shift`` with fixed statistics.

    ``log_det = sum(log_scale - log(variance + epsilon) / 2)``. This is the moving batch
    normalization of the official FFJORD code as it is evaluated, for its weights.

    Args:
      mean: Running mean of each entry.
      variance: Running variance of each entry.
      log_scale: Learned logarithm of the scale after normalization.
      shift: Learned shift after normalization.
      epsilon: Constant added to the variance.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> zeros, ones = jnp.zeros(2), jnp.ones(2)
      >>> norm = lj.bijections.BatchNorm(ones, ones, zeros, zeros, epsilon=0.0)
      >>> norm.forward(jnp.full(2, 3.0))[0].tolist()
      [2.0, 2.0]
    """

    def __init__(
        self,
        mean: Vector,
        variance: Vector,
        log_scale: Vector,
        shift: Vector,
        *,
        epsilon: float = 1e-4,
    ):
        self.mean = Buffer(mean)
        self.variance = Buffer(variance)
        self.log_scale = nnx.Param(log_scale)
        self.shift = nnx.Param(shift)
        self.epsilon = epsilon

    @override
    def forward(
        self, x: Vector, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        log_factor = self._log_factor()
        z = (x - self.mean[...]) * jnp.exp(log_factor) + self.shift[...]
        return z, jnp.sum(log_factor)

    @override
    def inverse(self, z: Vector, condition: Array | None = None) -> Vector:
        """Maps a latent back to its example."""
        return (z - self.shift[...]) * jnp.exp(-self._log_factor()) + self.mean[...]

    def _log_factor(self) -> Vector:
        return self.log_scale[...] - 0.5 * jnp.log(self.variance[...] + self.epsilon)

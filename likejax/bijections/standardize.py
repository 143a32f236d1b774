"""Standardization as a map, with statistics of the training data; and batch normalization as it is evaluated."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from likejax.bijections.bijection import Bijection, check_last_axis
from likejax.nn.modules import Buffer, replace
from likejax.nn.normalization import channel_statistics
from likejax.settings import Count, checked


class Standardize(Bijection):
    """``z = (x - mean) / std`` with the mean and standard deviation of each entry of the data; not trained.

    ``log_det = -sum(log std)``, so nats refer to the data as given. ``initialize`` takes the statistics; an entry
    that varies by no more than the rounding of its values keeps its scale.

    Args:
      dimensions: Entries of a vector.
    """

    def __init__(self, dimensions: int):
        dimensions = checked("dimensions", dimensions, Count)
        self.mean = Buffer(jnp.zeros(dimensions))
        self.std = Buffer(jnp.ones(dimensions))

    def forward(
        self, x: Float[Array, " d"], key: Array | None = None, condition: Array | None = None
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        check_last_axis(x, len(self.mean[...]), "Standardize")
        return (x - self.mean[...]) / self.std[...], -self.sum_log_std()

    def inverse(self, z: Float[Array, " d"], condition: Array | None = None) -> Float[Array, " d"]:
        return z * self.std[...] + self.mean[...]

    def initialize(self, batch: Float[Array, "batch d"], key: Array) -> Standardize:
        statistics = channel_statistics(batch)
        std = jnp.where(statistics.varies, statistics.std, 1.0)
        return replace(self, mean=Buffer(statistics.mean), std=Buffer(std))

    def sum_log_std(self) -> Float[Array, ""]:
        """``sum(log std)``: what is added to nats of the data to get nats of the standardized data."""
        return jnp.sum(jnp.log(self.std[...]))


class BatchNorm(Bijection):
    """``z = (x - mean) / sqrt(variance + epsilon) * exp(log_scale) + shift`` with fixed statistics.

    ``log_det = sum(log_scale - log(variance + epsilon) / 2)``: the moving batch normalization of the official FFJORD
    code as it is evaluated, for its weights.

    Args:
      mean: Running mean.
      variance: Running variance.
      log_scale: Learned.
      shift: Learned.
      epsilon: Added to the variance.
    """

    def __init__(
        self,
        mean: Float[Array, " d"],
        variance: Float[Array, " d"],
        log_scale: Float[Array, " d"],
        shift: Float[Array, " d"],
        *,
        epsilon: float = 1e-4,
    ):
        self.mean = Buffer(mean)
        self.variance = Buffer(variance)
        self.log_scale = nnx.Param(log_scale)
        self.shift = nnx.Param(shift)
        self.epsilon = epsilon

    def _log_factor(self) -> Float[Array, " d"]:
        return self.log_scale[...] - 0.5 * jnp.log(self.variance[...] + self.epsilon)

    def forward(
        self, x: Float[Array, " d"], key: Array | None = None, condition: Array | None = None
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        log_factor = self._log_factor()
        return (x - self.mean[...]) * jnp.exp(log_factor) + self.shift[...], jnp.sum(log_factor)

    def inverse(self, z: Float[Array, " d"], condition: Array | None = None) -> Float[Array, " d"]:
        return (z - self.shift[...]) * jnp.exp(-self._log_factor()) + self.mean[...]

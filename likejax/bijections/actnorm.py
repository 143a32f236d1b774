"""ActNorm: a learned scale and shift per channel, initialized from data."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.bijections.bijection import Bijection, check_last_axis
from likejax.nn.modules import replace
from likejax.nn.normalization import ChannelAffine
from likejax.settings import Count, checked


class ActNorm(Bijection):
    """``z = (x + bias) * exp(3 * log_scale)`` per channel; ``log_det = positions * sum(3 * log_scale)``.

    Args:
      channels: Size of the last axis.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.1; the factor 3 is of its official code.
    """

    def __init__(self, channels: int):
        self.affine = ChannelAffine(checked("channels", channels, Count))

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape channels"], Float[Array, ""]]:
        check_last_axis(x, len(self.affine.bias[...]), "ActNorm")
        positions = math.prod(x.shape[:-1])
        shape = (1,) * (x.ndim - 1) + (-1,)
        z = (x + self.affine.bias[...].reshape(shape)) * self.affine.scale().reshape(shape)
        return z, positions * self.affine.factor * jnp.sum(self.affine.log_scale[...])

    def inverse(
        self, z: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape channels"]:
        shape = (1,) * (z.ndim - 1) + (-1,)
        return z / self.affine.scale().reshape(shape) - self.affine.bias[...].reshape(shape)

    def initialize(self, batch: Float[Array, "batch *shape channels"], key: Array) -> ActNorm:
        return replace(self, affine=self.affine.initialize(batch))

"""ActNorm: a learned scale and shift per channel, initialized from data."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, Event, LogDet, check_last_axis
from likejax.nn.channels import per_channel
from likejax.nn.modules import replace
from likejax.nn.normalization import ChannelAffine
from likejax.settings import Count, checked


class ActNorm(Bijection):
    """``z = (x + bias) * exp(3 * log_scale)`` per channel.

    ``log_det = positions * sum(3 * log_scale)``.

    Args:
      channels: Size of the last axis.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.1; the factor 3 is that of its
      official code.

    Example:
      >>> import jax, likejax as lj
      >>> batch = 5 + 3 * jax.random.normal(jax.random.key(0), (100, 2))
      >>> actnorm = lj.bijections.ActNorm(2).initialize(batch, jax.random.key(1))
      >>> z, log_det = actnorm.forward(batch[0])
      >>> z.shape
      (2,)
    """

    def __init__(self, channels: int):
        self.affine = ChannelAffine(checked("channels", channels, Count))

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        bias, scale = self.affine.bias[...], self.affine.scale()
        check_last_axis(x, len(bias), "ActNorm")
        positions = math.prod(x.shape[:-1])
        z = (x + per_channel(bias, x)) * per_channel(scale, x)
        return z, positions * self.affine.factor * jnp.sum(self.affine.log_scale[...])

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        bias, scale = self.affine.bias[...], self.affine.scale()
        return z / per_channel(scale, z) - per_channel(bias, z)

    @override
    def initialize(self, batch: Float[Array, "batch *shape channels"], key: Array) -> ActNorm:
        """Returns a new map that is fitted to ``batch``."""
        return replace(self, affine=self.affine.initialize(batch))

"""The per-channel affine layer whose initial statistics come from data."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from likejax.nn.modules import replace

ROUNDING = 32
"""Spread of a channel that counts as noise, in spacings of numbers at its largest value."""


class Statistics(NamedTuple):
    """Mean, standard deviation, and whether a channel varies by more than rounding."""

    mean: Float[Array, " channels"]
    std: Float[Array, " channels"]
    varies: Bool[Array, " channels"]


def channel_statistics(batch: Float[Array, "*batch channels"]) -> Statistics:
    """Computes the statistics of every channel over all other axes.

    They are taken of the differences from the first value, so a channel far from zero keeps its
    spread, and one that never varies has a standard deviation of exactly 0. A spread of a few
    spacings of floating-point numbers at the channel's largest value is rounding: nothing may be
    divided by it.

    Args:
      batch: Array ``(*batch, channels)``.

    Returns:
      Statistics ``(channels,)``, in float32 or better.
    """
    rows = batch.reshape(-1, batch.shape[-1]).astype(jnp.promote_types(batch.dtype, jnp.float32))
    first = rows[:1]
    mean = jnp.mean(rows - first, axis=0, keepdims=True)
    centered = rows - first - mean
    largest = jnp.max(jnp.abs(centered), axis=0)
    unit = jnp.where(
        largest > 0, largest, 1
    )  # squares of 1e20 or 1e-25 leave the range of single precision
    std = unit * jnp.sqrt(jnp.mean(jnp.square(centered / unit[None]), axis=0))
    noise = ROUNDING * jnp.finfo(rows.dtype).eps * jnp.max(jnp.abs(rows), axis=0)
    return Statistics((first + mean)[0], std, std > noise)


class ChannelAffine(nnx.Module):
    """``y = (x + bias) * exp(factor * log_scale)`` per channel, the layer behind ActNorm.

    Args:
      channels: Size of the last axis.
      factor: Constant on the stored log-scale; 3 in the official Glow code, which trebles its step
        size.

    References:
      Kingma and Dhariwal, 2018, Glow: Generative Flow with Invertible 1x1 Convolutions,
      arXiv:1807.03039, section 3.1, and its official code.
    """

    def __init__(self, channels: int, *, factor: float = 3.0):
        self.bias = nnx.Param(jnp.zeros(channels))
        self.log_scale = nnx.Param(jnp.zeros(channels))
        self.factor = factor

    def scale(self) -> Float[Array, " channels"]:
        """Computes ``exp(factor * log_scale)``."""
        return jnp.exp(self.factor * self.log_scale[...])

    def initialize(self, batch: Float[Array, "*batch channels"]) -> ChannelAffine:
        """Returns a layer under which ``batch`` has mean 0 and root mean square 1 per channel.

        A channel that varies by no more than its rounding keeps its scale.

        Args:
          batch: Array ``(*batch, channels)``.
        """
        statistics = channel_statistics(batch.astype(self.bias[...].dtype))
        log_scale = jnp.where(statistics.varies, -jnp.log(statistics.std + 1e-6) / self.factor, 0.0)
        return replace(self, bias=nnx.Param(-statistics.mean), log_scale=nnx.Param(log_scale))

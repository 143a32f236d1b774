"""The per-channel affine layer whose initial statistics come from data."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from likejax.nn.modules import replace


class ChannelAffine(nnx.Module):
    """``y = (x + bias) * exp(factor * log_scale)`` per channel, the layer behind ActNorm.

    Args:
      channels: Size of the last axis.
      factor: Constant on the stored log-scale; 3 in the official Glow code, which trebles its step size.

    References:
      Kingma and Dhariwal, 2018, Glow: Generative Flow with Invertible 1x1 Convolutions, arXiv:1807.03039,
      section 3.1, and its official code.
    """

    def __init__(self, channels: int, *, factor: float = 3.0):
        self.bias = nnx.Param(jnp.zeros(channels))
        self.log_scale = nnx.Param(jnp.zeros(channels))
        self.factor = factor

    def scale(self) -> Float[Array, " channels"]:
        """``exp(factor * log_scale)``."""
        return jnp.exp(self.factor * self.log_scale[...])

    def initialise(self, batch: Float[Array, "*batch channels"]) -> ChannelAffine:
        """A new layer under which ``batch`` has mean 0 and root mean square 1 in every channel."""
        axes = tuple(range(batch.ndim - 1))
        batch = batch.astype(self.bias[...].dtype)
        mean = jnp.mean(batch, axes)
        rms = jnp.sqrt(jnp.mean(jnp.square(batch - mean.reshape((1,) * len(axes) + (-1,))), axes))
        log_scale = -jnp.log(rms + 1e-6) / self.factor
        return replace(self, bias=nnx.Param(-mean), log_scale=nnx.Param(log_scale))

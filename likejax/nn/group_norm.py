"""Normalization of groups of channels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.nn.channels import per_channel


class GroupNorm(nnx.Module):
    """``y = scale (x - mean) / sqrt(variance + epsilon) + bias`` with statistics of each group.

    A group is ``channels / groups`` channels in a row, at all positions of one example. It is no
    ``nnx.GroupNorm``, which takes one axis of examples; this takes any number of them, and its
    statistics are in float32 or better.

    Args:
      channels: Size of the last axis.
      groups: Number of groups, which divides the channels. With as many groups as channels a layer
        takes out whatever was added to a channel as a whole.
      position_axes: Number of axes of positions before the last: 2 for images, 0 for vectors.
      epsilon: Constant added to the variance.

    Raises:
      ValueError: If the groups do not divide the channels.

    References:
      Wu and He, 2018, Group normalization, arXiv:1803.08494.
    """

    def __init__(
        self, channels: int, groups: int, *, position_axes: int = 2, epsilon: float = 1e-6
    ):
        if channels % groups:
            raise ValueError(f"expected groups that divide {channels} channels, got {groups}")
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups = groups
        self.position_axes = position_axes
        self.epsilon = epsilon

    @override
    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*shape channels"]:
        """Normalizes, and returns the type of ``x``."""
        own = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        center = self._mean(own)
        inverse = jax.lax.rsqrt(self._mean(jnp.square(own - center)) + self.epsilon)
        # per channel, so that only one product and one sum go over all positions
        factor = inverse * per_channel(self.scale[...], inverse)
        shift = per_channel(self.bias[...], factor) - center * factor
        return x * factor.astype(x.dtype) + shift.astype(x.dtype)

    def _mean(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*ones channels"]:
        """The mean of a channel's group, for each channel.

        Channels are averaged over the positions first, and the channels of a group then: sums along
        rows of memory take a third of the time of sums over both at once.
        """
        axes = tuple(range(x.ndim - 1 - self.position_axes, x.ndim - 1))
        of_channels = x.mean(axes, keepdims=True)
        size = x.shape[-1] // self.groups
        grouped = of_channels.reshape(*of_channels.shape[:-1], self.groups, size)
        of_groups = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
        return of_groups.reshape(of_channels.shape)

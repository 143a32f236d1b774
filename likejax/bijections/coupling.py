"""Coupling layers: one half of the channels moves the other half."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from likejax.bijections.bijection import Bijection
from likejax.nn.coupling_network import CouplingNetwork
from likejax.nn.modules import replace
from likejax.settings import Count, checked


def halves(channels: int) -> tuple[int, int]:
    """Sizes of the two halves of the channels; of an odd number the first half is the larger.

    Raises:
      ValueError: If there is nothing to split.
    """
    channels = checked("channels", channels, Count)
    if channels < 2:
        raise ValueError(
            f"expected at least 2 channels to split in halves, got {channels}; squeeze the input first"
        )
    return channels - channels // 2, channels // 2


class _Coupling(Bijection):
    """What both couplings share: the halves, and a network that reads the first."""

    outputs: ClassVar[int]
    """Outputs of the network for each channel it moves."""

    def __init__(
        self,
        channels: int,
        *,
        width: int,
        rngs: nnx.Rngs,
        kernel_sizes: tuple[int, int, int] = (3, 1, 3),
        dtype: str = "float32",
    ):
        self.kept, moved = halves(channels)
        width = checked("width", width, Count)
        self.network = CouplingNetwork(
            self.kept,
            self.outputs * moved,
            width=width,
            kernel_sizes=kernel_sizes,
            rngs=rngs,
            dtype=dtype,
        )

    def initialize(self, batch: Float[Array, "batch *shape channels"], key: Array):
        return replace(self, network=self.network.initialize(batch[..., : self.kept]))


class AdditiveCoupling(_Coupling):
    """``z1 = x1``, ``z2 = x2 + network(x1)``; ``log_det = 0``.

    Args:
      channels: Size of the last axis, at least 2.
      width: Hidden channels of the network.
      rngs: Source of the initial weights.
      kernel_sizes: (3, 1, 3) for images, (1, 1, 1) for vectors.
      dtype: Type the network computes in.

    References:
      Dinh, Krueger and Bengio, 2015, NICE, arXiv:1410.8516. Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039.
    """

    outputs = 1

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape channels"], Float[Array, ""]]:
        kept, moved = jnp.split(x, [self.kept], axis=-1)
        z = jnp.concatenate([kept, moved + self.network(kept)], axis=-1)
        return z, jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))

    def inverse(
        self, z: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape channels"]:
        kept, moved = jnp.split(z, [self.kept], axis=-1)
        return jnp.concatenate([kept, moved - self.network(kept)], axis=-1)


class AffineCoupling(_Coupling):
    """``z1 = x1``, ``z2 = (x2 + shift) * s`` with ``s = sigmoid(h + 2)``; ``log_det = sum(log s)``.

    The network's outputs are interleaved: shift at even channels, ``h`` at odd ones. As in the official code
    the scale at initialization is ``sigmoid(2) = 0.88``, not 1.

    Args:
      channels: Size of the last axis, at least 2.
      width: Hidden channels of the network.
      rngs: Source of the initial weights.
      kernel_sizes: (3, 1, 3) for images, (1, 1, 1) for vectors.
      dtype: Type the network computes in.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803. Kingma and Dhariwal, 2018, Glow,
      arXiv:1807.03039, table 1 and official code.
    """

    outputs = 2

    def _shift_and_log_scale(self, kept: Array) -> tuple[Array, Array]:
        h = self.network(kept)
        logit = h[..., 1::2] + 2.0
        return h[..., 0::2], jnp.minimum(logit, 0) - jnp.log1p(
            jnp.exp(-jnp.abs(logit))
        )  # log sigmoid, never -inf

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape channels"], Float[Array, ""]]:
        kept, moved = jnp.split(x, [self.kept], axis=-1)
        shift, log_scale = self._shift_and_log_scale(kept)
        return jnp.concatenate([kept, (moved + shift) * jnp.exp(log_scale)], axis=-1), jnp.sum(
            log_scale
        )

    def inverse(
        self, z: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape channels"]:
        kept, moved = jnp.split(z, [self.kept], axis=-1)
        shift, log_scale = self._shift_and_log_scale(kept)
        return jnp.concatenate([kept, moved * jnp.exp(-log_scale) - shift], axis=-1)

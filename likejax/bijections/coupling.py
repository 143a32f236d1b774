"""Coupling layers: one half of the channels moves the other half."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, Event, LogDet, no_volume
from likejax.nn.coupling_network import CouplingNetwork
from likejax.nn.modules import replace
from likejax.settings import Count, CountOrOff, checked


def halves(channels: int) -> tuple[int, int]:
    """Returns the sizes of the two halves of the channels; of an odd number the first is larger.

    Args:
      channels: Number of channels.

    Returns:
      The sizes of the first and of the second half.

    Raises:
      TypeError: If ``channels`` is not an integer.
      ValueError: If there are fewer than 2.
    """
    channels = checked("channels", channels, Count)
    if channels < 2:
        raise ValueError(
            f"expected at least 2 channels to split in halves, got {channels}; "
            "squeeze the input first"
        )
    return channels - channels // 2, channels // 2


class Coupling(Bijection):
    """The common part of both couplings: the halves, and a network that reads the first."""

    outputs: ClassVar[int]
    """Outputs of the network for each channel it moves."""

    def __init__(
        self,
        channels: int,
        *,
        width: int,
        rngs: nnx.Rngs,
        kernel_sizes: tuple[int, int, int] = (3, 1, 3),
        condition_size: int | None = None,
        dtype: DTypeLike | None = None,
    ):
        self.kept, moved = halves(channels)
        self.network = CouplingNetwork(
            self.kept,
            self.outputs * moved,
            width=checked("width", width, Count),
            kernel_sizes=kernel_sizes,
            condition_size=checked("condition_size", condition_size, CountOrOff),
            rngs=rngs,
            dtype=dtype,
        )

    def split(self, x: Event) -> tuple[Array, Array]:
        """Splits the channels into the half that is kept and the half that is moved.

        Args:
          x: One example ``(*shape, channels)``.

        Returns:
          The first ``kept`` channels, and the rest.
        """
        kept, moved = jnp.split(x, [self.kept], axis=-1)
        return kept, moved

    @override
    def initialize(self, batch: Float[Array, "batch *shape channels"], key: Array):
        """Returns a new map that is fitted to ``batch``."""
        return replace(self, network=self.network.initialize(batch[..., : self.kept]))

    @override
    def forward_at_start(self, x: Event) -> Event:
        """Maps one example in initialization, where nothing depends on the condition yet."""
        return self.forward(x, None, self.network.no_condition())[0]


class AdditiveCoupling(Coupling):
    """``z1 = x1``, ``z2 = x2 + network(x1)``; ``log_det = 0``.

    Args:
      channels: Size of the last axis, at least 2.
      width: Hidden channels of the network.
      rngs: Source of the initial weights.
      kernel_sizes: Kernel sizes of the network: (3, 1, 3) for images, (1, 1, 1) for vectors.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      dtype: Type the network computes in; ``None`` for that of its inputs and parameters.

    References:
      Dinh, Krueger and Bengio, 2015, NICE, arXiv:1410.8516. Kingma and Dhariwal, 2018, Glow,
      arXiv:1807.03039.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> options = {"rngs": nnx.Rngs(0), "kernel_sizes": (1, 1, 1)}
      >>> coupling = lj.bijections.AdditiveCoupling(4, width=8, **options)
      >>> float(coupling.forward(jnp.ones(4))[1])
      0.0
    """

    outputs = 1

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        kept, moved = self.split(x)
        return jnp.concatenate([kept, moved + self.network(kept, condition)], axis=-1), no_volume(x)

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        kept, moved = self.split(z)
        return jnp.concatenate([kept, moved - self.network(kept, condition)], axis=-1)


class AffineCoupling(Coupling):
    """``z1 = x1``, ``z2 = (x2 + shift) * s`` with ``s = sigmoid(h + 2)``; ``log_det = sum(log s)``.

    The network's outputs are interleaved: shift at even channels, ``h`` at odd ones. As in the
    official code the scale at initialization is ``sigmoid(2) = 0.88``, not 1.

    Args:
      channels: Size of the last axis, at least 2.
      width: Hidden channels of the network.
      rngs: Source of the initial weights.
      kernel_sizes: Kernel sizes of the network: (3, 1, 3) for images, (1, 1, 1) for vectors.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      dtype: Type the network computes in; ``None`` for that of its inputs and parameters.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803. Kingma and Dhariwal, 2018,
      Glow, arXiv:1807.03039, table 1 and official code.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> options = {"rngs": nnx.Rngs(0), "kernel_sizes": (1, 1, 1)}
      >>> coupling = lj.bijections.AffineCoupling(4, width=8, **options)
      >>> round(float(coupling.forward(jnp.ones(4))[1]), 4)  # 2 log sigmoid(2)
      -0.2539
    """

    outputs = 2

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        kept, moved = self.split(x)
        shift, log_scale = self._shift_and_log_scale(kept, condition)
        z = jnp.concatenate([kept, (moved + shift) * jnp.exp(log_scale)], axis=-1)
        return z, jnp.sum(log_scale)

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        kept, moved = self.split(z)
        shift, log_scale = self._shift_and_log_scale(kept, condition)
        return jnp.concatenate([kept, moved * jnp.exp(-log_scale) - shift], axis=-1)

    def _shift_and_log_scale(self, kept: Array, condition: Array | None) -> tuple[Array, Array]:
        h = self.network(kept, condition)
        logit = h[..., 1::2] + 2.0
        # log sigmoid in the form that is never -inf
        log_scale = jnp.minimum(logit, 0) - jnp.log1p(jnp.exp(-jnp.abs(logit)))
        return h[..., 0::2], log_scale

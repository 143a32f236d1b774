"""Squeeze: space to channels."""

from __future__ import annotations

from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, LogDet, no_volume

Image = Float[Array, "height width channels"]
Squeezed = Float[Array, "half_height half_width four_channels"]


class Squeeze(Bijection):
    """``(H, W, C) -> (H/2, W/2, 4C)``; output channel ``4 c + 2 dy + dx``; ``log_det = 0``.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 3.6; channel order
      of the official Glow code.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> lj.bijections.Squeeze().forward(jnp.ones((4, 4, 3)))[0].shape
      (2, 2, 12)
    """

    @override
    def forward(
        self, x: Image, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Squeezed, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        if x.ndim != 3 or x.shape[0] % 2 or x.shape[1] % 2:
            raise ValueError(
                f"expected an image of even height and width, got shape {x.shape}; "
                "use fewer levels or pad the images"
            )
        height, width, channels = x.shape
        squares = x.reshape(height // 2, 2, width // 2, 2, channels)
        # (row, dy, column, dx, channel) to (row, column, channel, dy, dx)
        by_channel = squares.transpose(0, 2, 4, 1, 3)
        return by_channel.reshape(height // 2, width // 2, 4 * channels), no_volume(x)

    @override
    def inverse(self, z: Squeezed, condition: Array | None = None) -> Image:
        """Maps a latent back to its example."""
        height, width, squeezed = z.shape
        by_channel = z.reshape(height, width, squeezed // 4, 2, 2)
        squares = by_channel.transpose(0, 3, 1, 4, 2)
        return squares.reshape(2 * height, 2 * width, squeezed // 4)

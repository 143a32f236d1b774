"""Squeeze: space to channels."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.bijections.bijection import Bijection


class Squeeze(Bijection):
    """``(H, W, C) -> (H/2, W/2, 4C)``; output channel ``4 c + 2 dy + dx``; ``log_det = 0``.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 3.6; channel order of the
      official Glow code.
    """

    def forward(
        self,
        x: Float[Array, "height width channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "half_height half_width squeezed"], Float[Array, ""]]:
        if x.ndim != 3 or x.shape[0] % 2 or x.shape[1] % 2:
            raise ValueError(
                f"expected an image of even height and width, got shape {x.shape}; use fewer levels or pad the images"
            )
        height, width, channels = x.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channels).transpose(0, 2, 4, 1, 3)
        zero = jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))
        return x.reshape(height // 2, width // 2, 4 * channels), zero

    def inverse(
        self, z: Float[Array, "half_height half_width squeezed"], condition: Array | None = None
    ) -> Float[Array, "height width channels"]:
        height, width, squeezed = z.shape
        z = z.reshape(height, width, squeezed // 4, 2, 2).transpose(0, 3, 1, 4, 2)
        return z.reshape(2 * height, 2 * width, squeezed // 4)

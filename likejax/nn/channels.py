"""Arrays with one value per channel beside arrays with leading axes."""

from __future__ import annotations

from jaxtyping import Array, Float


def per_channel(values: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Reshapes values of the last axes so that they broadcast over the leading axes of ``x``.

    Args:
      values: One value per channel, or an array of the last axes of ``x``.
      x: Array to broadcast with, channels last.

    Returns:
      The values with as many axes as ``x``, of size 1 in front.

    Example:
      >>> import jax.numpy as jnp
      >>> per_channel(jnp.ones(3), jnp.ones((4, 4, 3))).shape
      (1, 1, 3)
    """
    return values.reshape((1,) * (x.ndim - values.ndim) + values.shape)

"""Dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dropout(x: Float[Array, "*shape"], rate: float, key: Array | None) -> Float[Array, "*shape"]:
    """Zeroes each entry with probability ``rate`` (to 1/256), and scales the others up.

    Args:
      x: Any array.
      rate: Probability of an entry to become zero.
      key: Key of the mask; ``None`` for no dropout.
    """
    if key is None or rate == 0:
        return x
    kept = max(1, round(256 * (1 - rate)))
    mask = jax.random.bits(key, (x.size,), jnp.uint8).reshape(x.shape) < kept
    return jnp.where(mask, x * (256 / kept), jnp.zeros((), x.dtype))

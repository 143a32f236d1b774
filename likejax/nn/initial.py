"""Initial weights."""

from __future__ import annotations

import math

import jax
from jaxtyping import Array, Float


def normal_weights(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Independent standard normal weights, the values of ``jax.random.normal(key, (size,))`` in that shape.

    They are drawn flat, 1,024 or a higher power of two at once, and cut: XLA takes seconds to compile a vectorized draw
    of four axes, and every new size would cost a compilation.

    Example:
      >>> import jax
      >>> bool((normal_weights(jax.random.key(0), (2, 3)).ravel() == jax.random.normal(jax.random.key(0), (6,))).all())
      True
    """
    size = math.prod(shape)
    drawn = jax.random.normal(key, (1 << max(10, (size - 1).bit_length()),))
    return drawn[:size].reshape(shape)

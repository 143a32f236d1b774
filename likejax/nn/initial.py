"""Initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

SMALLEST_DRAW = 16
"""Binary logarithm of the smallest number of values that are drawn at once."""


def normal_weights(
    key: Array, shape: tuple[int, ...], *, scale: float = 1.0
) -> Float[Array, "..."]:
    """Independent normal weights, the values of ``scale * jax.random.normal(key, (size,))``.

    A draw of another size is another program, and XLA takes about a second to compile one. So the
    weights of a network share few sizes: 65,536 times a power of four values are drawn and cut.

    Args:
      key: Key of the draw.
      shape: Shape of the weights.
      scale: Standard deviation of the weights.

    Returns:
      Weights of that shape.

    Example:
      >>> import jax
      >>> normal_weights(jax.random.key(0), (2, 3)).shape
      (2, 3)
    """
    return _cut(key, shape, lambda key, size: scale * jax.random.normal(key, size))


def uniform_weights(key: Array, shape: tuple[int, ...], bound: float) -> Float[Array, "..."]:
    """Independent weights that are uniform between ``-bound`` and ``bound``.

    Like ``normal_weights`` they are cut from a draw whose size many shapes share.

    Args:
      key: Key of the draw.
      shape: Shape of the weights.
      bound: Largest absolute value.

    Returns:
      Weights of that shape.

    Example:
      >>> import jax
      >>> bool(abs(uniform_weights(jax.random.key(0), (2, 3), 0.5)).max() <= 0.5)
      True
    """

    def draw(key: Array, size: tuple[int]) -> Array:
        return bound * jax.random.uniform(key, size, minval=-1, maxval=1)

    return _cut(key, shape, draw)


def _cut(
    key: Array, shape: tuple[int, ...], draw: Callable[[Array, tuple[int]], Array]
) -> Float[Array, "..."]:
    """Returns the first values of a draw of 65,536 times a power of four, in a shape."""
    size = math.prod(shape)
    exponent = max(SMALLEST_DRAW, (size - 1).bit_length())
    exponent += exponent % 2
    drawn = draw(key, (1 << exponent,))
    if isinstance(drawn, Tracer):
        return drawn[:size].reshape(shape)
    # Cut on the host, where nothing is to compile: `jnp.array` compiles a copy for every shape.
    return jax.device_put(np.asarray(drawn)[:size].reshape(shape).copy())

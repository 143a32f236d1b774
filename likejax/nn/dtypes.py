"""The type that a network computes in."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike


def compute_dtype(name: str) -> DTypeLike | None:
    """Returns the type of a config's ``compute_dtype``.

    Args:
      name: Name of the type, such as ``bfloat16``.

    Returns:
      ``None`` for ``"float32"``: the type follows inputs and parameters, so a model in float64
      computes in float64. The named type otherwise.

    Example:
      >>> compute_dtype("bfloat16")
      dtype(bfloat16)
    """
    return None if name == "float32" else jnp.dtype(name)


def promote(x: Array, kernel: Array, *, dtype: DTypeLike | None) -> tuple[Array, Array]:
    """Converts an input and a kernel to ``dtype``; to their common type if it is ``None``.

    Args:
      x: Input of any shape.
      kernel: Kernel of any shape.
      dtype: Type to convert to; ``None`` for their common type.

    Returns:
      The input and the kernel, in their shapes.
    """
    common = jnp.promote_types(x.dtype, kernel.dtype) if dtype is None else jnp.dtype(dtype)
    return x.astype(common), kernel.astype(common)

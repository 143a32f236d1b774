"""Conditions inside a network: a label that no class has gives NaN, never another class."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int


def row_of_label(
    table: Float[Array, "classes ..."], label: Int[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """The row of each label in a table of one row for each class; NaN for a label out of range.

    Args:
      table: One row for each class.
      label: Labels ``(*batch,)``, of which ``0..classes-1`` have a row.

    Returns:
      ``(*batch, ...)``: the row of each label.
    """
    label = jnp.asarray(label)
    known = (label >= 0) & (label < len(table))
    rows = table[label]
    return jnp.where(known.reshape(known.shape + (1,) * (table.ndim - 1)), rows, jnp.nan)


def project(table: Float[Array, "size ..."], condition: Array) -> Float[Array, "..."]:
    """The contribution of one condition to a layer: a linear map without a bias.

    Args:
      table: One row for each class, or for each entry of a float condition.
      condition: An integer label ``()``, whose row is taken, or floats of ``size`` entries in any
        shape, whose product with the table it is.

    Returns:
      The row, or the sum of rows; NaN for a label that no class has.
    """
    if jnp.issubdtype(condition.dtype, jnp.integer):
        return row_of_label(table, condition)
    return jnp.tensordot(condition.reshape(-1), table, 1)

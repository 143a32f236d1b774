"""Class labels inside a network: a label that no class has gives NaN, never another class."""

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

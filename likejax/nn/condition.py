"""Conditions inside a network: a label that no class has gives NaN, never another class."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from likejax.nn.product import product


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


def as_vector(condition: Array, axes: int | None = None) -> Array:
    """Conditions as layers take them: floats with their axes flattened to one, labels as they are.

    Args:
      condition: Labels ``(*batch,)``, or floats ``(*batch, *condition_shape)``.
      axes: Number of axes of one condition; ``None`` if there is no batch.

    Returns:
      Labels ``(*batch,)``, or floats ``(*batch, size)``.
    """
    if jnp.issubdtype(condition.dtype, jnp.integer):
        return condition
    batch = () if axes is None else condition.shape[: condition.ndim - axes]
    return condition.reshape(*batch, -1)


def project(table: Float[Array, "size ..."], condition: Array) -> Float[Array, "..."]:
    """The contribution of conditions to a layer: a linear map without a bias.

    Args:
      table: One row for each class, or for each entry of a float condition.
      condition: Labels ``(*batch,)``, whose rows are taken, or floats ``(*batch, size)``, whose
        product with the table it is; see ``as_vector``.

    Returns:
      ``(*batch, ...)``: the row, or the weighted sum of rows; NaN for a label that no class has.
    """
    if jnp.issubdtype(condition.dtype, jnp.integer):
        return row_of_label(table, condition)
    flat = table.reshape(table.shape[0], -1)
    return product(condition, flat).reshape(*condition.shape[:-1], *table.shape[1:])


def over_positions(values: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Contributions to each channel, reshaped so that they broadcast over the positions of ``x``.

    Args:
      values: ``(*batch, channels)``.
      x: ``(*batch, *positions, channels)``.

    Returns:
      ``(*batch, 1, ..., 1, channels)``, with as many axes as ``x``.
    """
    positions = (1,) * (x.ndim - values.ndim)
    return values.reshape(*values.shape[:-1], *positions, values.shape[-1])

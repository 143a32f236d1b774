"""Examination of columns in float64: those that a smaller type cannot hold, or that never vary."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, DTypeLike, Float

LARGEST_LOSS = 1e-3
"""Rounding error of a column, root mean square, as a share of its standard deviation, up to which a
type holds it."""


def check_representable(
    examples: Float[np.ndarray, "n ..."], dtype: DTypeLike, *, columns: Sequence[str] | None = None
) -> None:
    """Checks that ``dtype`` can hold every column: its largest values, and its variation.

    Args:
      examples: Continuous examples.
      dtype: Floating-point type that a density computes in.
      columns: Names of the columns, for messages.
    """
    name, limits = jnp.dtype(dtype).name, jnp.finfo(dtype)
    if np.finfo(examples.dtype).eps >= float(limits.eps):
        return
    rows = examples.reshape(len(examples), -1)
    too_large = np.argwhere(np.abs(rows) > float(limits.max))
    if len(too_large):
        row, entry = (int(i) for i in too_large[0])
        raise ValueError(
            f"expected values that {name} holds (up to {float(limits.max):.3g}), got "
            f"{rows[row, entry]:.6g} at row "
            f"{row}, {_named(entry, examples, columns)}: correct or leave out this value, give the "
            "column another "
            "unit, or compute in float64 (jax.config.update('jax_enable_x64', True))"
        )
    std, lost = rows.astype(np.float64).std(0), _rounding_error(rows, dtype)
    bad = np.flatnonzero((lost > LARGEST_LOSS * std) & ~never_varies(rows))
    if len(bad):
        entry = int(bad[np.argmax(lost[bad] / std[bad])])
        others = f" ({len(bad)} such columns)" if len(bad) > 1 else ""
        raise ValueError(
            f"expected columns whose variation {name} holds: {_named(entry, examples, columns)} "
            "has the mean "
            f"{rows[:, entry].mean():.10g} and the standard deviation {std[entry]:.3g}, and "
            "rounding changes its "
            f"values by {lost[entry]:.3g}{others}. {_mend(rows[:, entry])}"
        )


def entry_name(entry: Sequence[int], columns: Sequence[str] | None) -> str:
    """Name of an entry of an example in messages: a column, or a place in an image.

    Args:
      entry: Index of the entry, one number for each axis of an example.
      columns: Names of the columns of a table, if they are known.
    """
    if len(entry) > 1:
        return f"entry {tuple(entry)}"
    named = f" ({columns[entry[0]]!r})" if columns is not None else ""
    return f"column {entry[0]}{named}"


def never_varies(rows: Float[np.ndarray, "n ..."]) -> Bool[np.ndarray, "..."]:
    """Finds columns that vary by no more than the rounding of the type they are stored in.

    Args:
      rows: Array ``(n, ...)`` of floats, one example a row.

    Returns:
      Booleans of the shape of one example.
    """
    eps = float(np.finfo(rows.dtype).eps)
    first, low, high = (each.astype(np.float64) for each in (rows[0], rows.min(0), rows.max(0)))
    return np.maximum(high - first, first - low) <= 4 * eps * np.maximum(np.abs(low), np.abs(high))


def _mend(column: np.ndarray) -> str:
    if np.abs(column).max() < float(np.finfo(np.float32).tiny):
        return "Give the column another unit: its values are too small"
    return (
        "Subtract an offset from every part, which leaves log p as it is: offset = "
        "train.column_means(); "
        "train.subtract(offset), test.subtract(offset)"
    )


def _rounding_error(rows: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    error = rows - rows.astype(jnp.dtype(dtype)).astype(np.float64)
    return np.sqrt(np.mean(np.square(error), axis=0))


def _named(entry: int, examples: np.ndarray, columns: Sequence[str] | None) -> str:
    place = np.unravel_index(entry, examples.shape[1:])
    return entry_name([int(i) for i in place], columns)

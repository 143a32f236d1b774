"""Columns of a training table that hold one value, where a density has no largest value."""

from __future__ import annotations

import numpy as np

from likejax.data.dataset import Dataset
from likejax.precision import entry_name, never_varies

_MOST = 8
"""Most columns that a warning names."""


def warning_of_constant_columns(dataset: Dataset) -> str | None:
    """Returns what to say of columns that never vary before a density is fitted to their rows.

    Only continuous columns of vectors count: those of integers and categories have masses, and
    images often have constant borders. A single row says nothing of its columns.

    Args:
      dataset: Training examples.

    Returns:
      The text of a warning; ``None`` if every column varies.

    Example:
      >>> import numpy as np, likejax as lj
      >>> from likejax.data.constant_columns import warning_of_constant_columns
      >>> x = np.array([[0.1, 3.0], [0.7, 3.0]], np.float32)
      >>> warning_of_constant_columns(lj.Dataset.from_array(x))[:38]
      "column 1 of 'array' is 3 in all 2 rows"
    """
    x, kinds = dataset.examples, dataset.column_kinds
    if dataset.levels is not None or x.ndim != 2 or len(x) < 2:
        return None
    is_constant = never_varies(x)
    if kinds is not None:
        is_constant &= ~np.array([kind.discrete for kind in kinds])
    found = np.flatnonzero(is_constant).tolist()
    if not found:
        return None
    names = [entry_name([column], dataset.columns) for column in found[:_MOST]]
    if len(found) == 1:
        fact = f"{names[0]} of {dataset.name!r} is {x[0, found[0]]:g} in all {len(x)} rows"
    else:
        more = ", ..." if len(found) > _MOST else ""
        fact = (
            f"{len(found)} columns of {dataset.name!r} hold one value each in all {len(x)} rows "
            f"({', '.join(names)}{more})"
        )
    return (
        f"{fact}: a density grows there without bound as it is fitted, and its nats say nothing. "
        "Leave such columns out of every part: varies = np.ptp(x_train, axis=0) > 0; x[:, varies]"
    )

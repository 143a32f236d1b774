"""What the public functions of this package need of their arguments, checked before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from likejax.data.dataset import Dataset, as_dataset
from likejax.density import Density


def checked_dataset(data: Any, density: Density, name: str) -> Dataset:
    """A dataset of what a density is over.

    Args:
      data: A dataset, or an array, a data frame or nested lists of examples.
      density: Gives the shape and the levels that plain arrays have.
      name: What the data are called in an error message; an array has this name.

    Raises:
      TypeError: If these are no examples.
      ValueError: If there are none, or they make no dataset.
    """
    try:
        dataset = as_dataset(
            data, levels=density.levels, name=name, event_shape=density.event_shape
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    if len(dataset) == 0:
        raise ValueError(f"expected examples as {name}, {dataset!r} has none")
    return dataset


def rows_named(rows: np.ndarray) -> str:
    """The first few row numbers and how many there are, for an error message.

    Args:
      rows: Numbers of rows.
    """
    shown = ", ".join(map(str, rows[:3])) + (", ..." if len(rows) > 3 else "")
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown})"

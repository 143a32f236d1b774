"""What the public functions of this package need of their arguments, checked before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from likejax.data.dataset import Dataset
from likejax.density import Density


def checked_dataset(data: Any, density: Density, name: str) -> Dataset:
    """A dataset of what a density is over.

    Args:
      data: What was passed.
      density: Gives the levels that plain arrays have.
      name: What the data are called in an error message.

    Raises:
      TypeError: If it is no dataset.
      ValueError: If it has no examples.
    """
    if not isinstance(data, Dataset):
        raise TypeError(
            f"expected a likejax.Dataset as {name}, got {type(data).__name__}: likejax.Dataset.from_array(array, "
            f"levels={density.levels}) makes one"
        )
    if len(data) == 0:
        raise ValueError(f"expected examples as {name}, {data!r} has none")
    return data


def rows_named(rows: np.ndarray) -> str:
    """The first few row numbers and how many there are, for an error message.

    Args:
      rows: Numbers of rows.
    """
    shown = ", ".join(map(str, rows[:3])) + (", ..." if len(rows) > 3 else "")
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown})"

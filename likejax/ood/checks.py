"""What the public functions of this package need of their arguments, checked before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from likejax.data.dataset import Dataset
from likejax.density import Density, Kind


def checked_density(density: Any, name: str = "density") -> Density:
    """A density that says what it is over and what its numbers are.

    Args:
      density: What was passed.
      name: What it is called in an error message.

    Raises:
      TypeError: If it is no density, or lacks its shape or its kind.
    """
    if not isinstance(density, Density):
        hint = ": pass its .density" if hasattr(density, "density") else ""
        raise TypeError(f"expected a likejax.Density as {name}, got {_kind_of(density)}{hint}")
    if not isinstance(getattr(density, "event_shape", None), tuple):
        raise TypeError(f"expected {type(density).__name__}.event_shape to be the shape of one example, a tuple")
    if not isinstance(getattr(density, "kind", None), Kind):
        raise TypeError(
            f"expected {type(density).__name__}.kind to say what its log_prob is, one of likejax.Kind.EXACT, BOUND and "
            "ESTIMATE"
        )
    return density


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
            f"expected a likejax.Dataset as {name}, got {_kind_of(data)}: likejax.Dataset.from_array(array, "
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


def _kind_of(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__

"""Checks of arguments that the public functions of this package share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from likejax.data.dataset import Dataset, as_dataset
from likejax.density import Density

Examples = Dataset | Iterable[Any]
"""A dataset, or an array ``(n, *event_shape)``, a data frame or nested lists of examples."""


def checked_dataset(data: Examples | None, density: Density, name: str) -> Dataset:
    """Returns examples of a density as a dataset.

    Args:
      data: A dataset, or an array, a data frame or nested lists of examples.
      density: Density whose event shape and levels plain arrays have.
      name: Name of the data in an error message, and of the dataset that is made of an array.

    Raises:
      TypeError: If these are no examples.
      ValueError: If there are none, or they make no dataset.
    """
    shape, levels = density.event_shape, density.levels
    try:
        dataset = as_dataset(data, levels=levels, name=name, event_shape=shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    if len(dataset) == 0:
        raise ValueError(f"expected examples as {name}, {dataset!r} has none")
    return dataset


def rows_named(rows: np.ndarray) -> str:
    """Returns the first few row numbers and how many there are, for an error message.

    Args:
      rows: Numbers of rows.
    """
    shown = ", ".join(map(str, rows[:3])) + (", ..." if len(rows) > 3 else "")
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown})"


def title_of(dataset: Dataset) -> str:
    """Returns the name and the part of a dataset, for an error message.

    Args:
      dataset: The dataset.
    """
    return f"{dataset.name} {dataset.split}"

"""Checks of arguments that the public functions of this package share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset, as_dataset
from likejax.density import Density

Examples = Dataset | Iterable[Any]
"""A dataset, or an array ``(n, *event_shape)``, a data frame or nested lists of examples."""


def checked_dataset(data: object, density: Density, name: str) -> Dataset:
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


def real_numbers(name: str, values: Iterable[Any]) -> Float[np.ndarray, "..."]:
    """Returns real numbers of any shape in float64; infinite ones are kept.

    Args:
      name: Name of the argument in an error message.
      values: An array, or what ``numpy.asarray`` turns into one.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If they form no array, or one is NaN.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"expected {name} to form one array: {error}") from error
    if array.size and array.dtype.kind not in "uif":
        raise TypeError(f"expected {name} to be real numbers, got dtype {array.dtype}")
    missing = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
    if missing:
        raise ValueError(f"expected {name} without NaN, got {missing}")
    return array.astype(np.float64)


def finite_numbers(name: str, values: Iterable[Any]) -> Float[np.ndarray, "..."]:
    """Returns finite real numbers of any shape in float64.

    Args:
      name: Name of the argument in an error message.
      values: An array, or what ``numpy.asarray`` turns into one.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If they form no array, or one is NaN or infinite.
    """
    numbers = real_numbers(name, values)
    infinite = int(np.isinf(numbers).sum())
    if infinite:
        raise ValueError(f"expected {name} to be finite, {infinite} of {numbers.size} are not")
    return numbers

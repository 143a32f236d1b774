"""Class numbers that are the same in all parts of a source, whatever its files call the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from likejax.data.arrays import whole_numbers

_MOST_CLASSES = 100_000
"""Largest range of numbers that is taken as a range of classes; larger ones are identifiers."""


class Classes(NamedTuple):
    """Labels of every part as numbers from 0, the names of the classes, and notes on changes."""

    labels: dict[str, np.ndarray | None]
    names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def numbered(labels: Mapping[str, np.ndarray | None]) -> Classes:
    """Numbers classes over all parts together, so that a number means the same in each.

    Names are numbered in alphabetical order. Numbers that start at 0 stay as they are, numbers that
    start at 1 become one less; of any others the different ones are numbered in their order.

    Args:
      labels: Labels of each part, ``(n,)``: numbers or names; ``None`` where a part has none.

    Raises:
      ValueError: If labels are numbers but no integers, or names in one part and numbers in
        another.
    """
    given = {part: values for part, values in labels.items() if values is not None and len(values)}
    if not given:
        return Classes(dict.fromkeys(labels), None)
    text = {values.dtype.kind in "US" for values in given.values()}
    if len(text) > 1:
        raise ValueError(
            "expected labels of one kind, got names in one part and numbers in another"
        )
    if text == {True}:
        given = {part: values.astype(str) for part, values in given.items()}
        if not _are_numbers(given):
            note = f"classes are numbered by their names, {_from_to(given)}"
            return _by_value(labels, given, note)
        # folders called 0, 1, ..., 10
        given = {part: values.astype(np.int64) for part, values in given.items()}
    given = {part: whole_numbers(values).astype(np.int64) for part, values in given.items()}
    low = min(int(values.min()) for values in given.values())
    high = max(int(values.max()) for values in given.values())
    if low not in (0, 1) or high - low > _MOST_CLASSES:
        return _by_value(labels, given, f"labels {_from_to(given)} are numbered from 0")
    shifted = {part: values - low for part, values in given.items()}
    notes = (f"labels {low} to {high} are classes 0 to {high - low}",) if low else ()
    names = tuple(str(number) for number in range(low, high + 1))
    return Classes({part: shifted.get(part) for part in labels}, names, notes)


def _are_numbers(given: Mapping[str, np.ndarray]) -> bool:
    """Whether all names of classes are written in digits."""
    names = [str(name) for values in given.values() for name in np.unique(values)]
    return all(name.isascii() and name.isdigit() for name in names)


def _by_value(
    labels: Mapping[str, np.ndarray | None], given: Mapping[str, np.ndarray], note: str
) -> Classes:
    values = np.unique(np.concatenate(list(given.values())))
    found = {part: np.searchsorted(values, each) for part, each in given.items()}
    names = tuple(str(value) for value in values)
    return Classes({part: found.get(part) for part in labels}, names, (note,))


def _from_to(given: Mapping[str, np.ndarray]) -> str:
    values = np.unique(np.concatenate(list(given.values())))
    return f"{values[0]} to {values[-1]}"

"""Tables of numbers as text, plain or gzip-compressed.

The rule: lines that begin with ``#`` and empty lines are left out. The delimiter is the first of
tab, semicolon and comma that the first line has, else white space. The first line is the header if
none of its entries is a number, or if they are 0, 1, 2 and so on, the names that pandas gives to
three columns and more. A column called ``label``, ``labels``, ``class`` or ``y`` (in any letters)
holds the classes, as numbers or names; all other columns are the examples, in float64.
"""

from __future__ import annotations

import csv
import gzip
import warnings
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

import numpy as np

from likejax.data.parts import Raw
from likejax.data.readers.files import FileError

SUFFIXES = tuple(
    f"{form}{packed}"
    for form in (".csv", ".tsv", ".txt", ".data", ".dat")
    for packed in ("", ".gz")
)
"""Endings of the names of such files."""
_UNREADABLE = (OSError, UnicodeDecodeError, EOFError, zlib.error, csv.Error)
_CLASSES = ("label", "labels", "class", "y")


class Layout(NamedTuple):
    """The form of the lines of a table.

    Attributes:
      delimiter: Character between entries; ``None`` for white space.
      columns: Names of all columns, or ``None`` without a header.
      count: Number of columns.
    """

    delimiter: str | None
    columns: tuple[str, ...] | None
    count: int

    @property
    def classes(self) -> int | None:
        """Index of the column with the classes, or ``None``."""
        names = [name.lower() for name in self.columns or ()]
        found = [names.index(name) for name in _CLASSES if name in names]
        return found[0] if found else None


def layout(path: Path) -> Layout | None:
    """Reads the form of a file from its first two lines.

    Args:
      path: The file.

    Returns:
      The layout; ``None`` if the lines are not a table of numbers.
    """
    try:
        with _open(path) as file:
            lines = [line for _, line in zip(range(2), _lines(file), strict=False)]
    except _UNREADABLE:
        return None
    if not lines:
        return None
    delimiter = next((sign for sign in ("\t", ";", ",") if sign in lines[0]), None)
    first, *rest = (_entries(line, delimiter) for line in lines)
    numbers = [_is_number(entry) for entry in first]
    counted = len(first) > 2 and first == [str(i) for i in range(len(first))]
    if all(numbers) and not counted:
        return Layout(delimiter, None, len(first))
    if any(numbers) and not counted:
        return None
    if not rest or len(rest[0]) != len(first) or not any(_is_number(entry) for entry in rest[0]):
        return None
    return Layout(delimiter, tuple(entry.strip() for entry in first), len(first))


def read_delimited(path: Path) -> Raw:
    """Reads the table in a text file.

    Args:
      path: The file.

    Returns:
      Examples in float64, and classes if a column holds them.

    Raises:
      FileError: If it is not a table of numbers; the message names the line and the column.
    """
    how = layout(path)
    if how is None:
        raise FileError(
            path,
            "expected a table: numbers between commas, semicolons, tabs or spaces; its first line "
            "must be all numbers "
            "or all names, and a column of classes must be called 'label'",
        )
    if how.columns is not None and "" in how.columns:
        raise FileError(
            path,
            f"column {how.columns.index('')} has no name; if it numbers the rows, leave it out "
            "(pandas: index=False)",
        )
    try:
        return _read(path, how)
    except _UNREADABLE as error:
        raise FileError(path, f"damaged, or not text in UTF-8: {error}") from error


def _read(path: Path, how: Layout) -> Raw:
    classes = how.classes
    taken = [i for i in range(how.count) if i != classes]
    if not taken:
        raise FileError(path, "expected columns of numbers beside the classes, got none")
    examples = _numbers(path, how, taken)
    labels = None if classes is None else _labels(path, how, classes)
    columns = None if how.columns is None else tuple(how.columns[i] for i in taken)
    notes: tuple[str, ...] = ()
    if classes is not None and how.columns is not None:
        notes = (f"column {how.columns[classes]!r} taken as classes",)
    return Raw(examples, labels, notes, columns)


def _numbers(path: Path, how: Layout, taken: list[int]) -> np.ndarray:
    with _open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns about no rows; the message below says it
        lines = _body(file, how)
        try:
            examples = np.loadtxt(
                lines, np.float64, delimiter=how.delimiter, usecols=taken, ndmin=2, quotechar='"'
            )
        except (ValueError, IndexError) as error:
            raise FileError(path, _what_is_wrong(path, how, taken) or str(error)) from error
    if not len(examples):
        raise FileError(path, "expected rows of numbers, got none")
    if not np.isfinite(examples).all() or _is_ragged(path, how):
        problem = _what_is_wrong(path, how, taken) or "holds entries that are not finite numbers"
        raise FileError(path, problem)
    return examples


def _labels(path: Path, how: Layout, column: int) -> np.ndarray:
    with _open(path) as file:
        values = np.array(
            [_entries(line, how.delimiter)[column].strip() for line in _body(file, how)]
        )
    if all(_is_number(value) for value in values):
        return values.astype(np.float64)
    return values


def _is_ragged(path: Path, how: Layout) -> bool:
    with _open(path) as file:
        return any(len(_entries(line, how.delimiter)) != how.count for line in _body(file, how))


def _what_is_wrong(path: Path, how: Layout, taken: list[int]) -> str:
    """The first entry that is not a finite number, and what may help."""
    with _open(path) as file:
        for row, line in enumerate(_body(file, how), start=1):
            entries = _entries(line, how.delimiter)
            if len(entries) != how.count:
                return f"expected {how.count} entries in every row, row {row} has {len(entries)}"
            for i in taken:
                if _is_number(entries[i]) and np.isfinite(float(entries[i])):
                    continue
                name = f" ({how.columns[i]!r})" if how.columns is not None else ""
                return (
                    f"expected finite numbers, got {entries[i]!r} in row {row}, column {i}{name}; "
                    "fill or leave out "
                    "missing values, turn words into numbers, and call a column of classes 'label'"
                )
    return ""


def _open(path: Path) -> TextIOWrapper:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _lines(file: TextIOWrapper) -> Iterator[str]:
    return (line for line in file if line.strip() and not line.startswith("#"))


def _body(file: TextIOWrapper, how: Layout) -> Iterator[str]:
    lines = _lines(file)
    if how.columns is not None:
        next(lines, None)
    return lines


def _entries(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""Tables of numbers and words: text with a header, and Parquet.

The delimiter of a text is the first of tab, semicolon and comma that its first line has. The first
line names the columns. A column of numbers alone is read as numbers, any other as words. An empty
entry, ``NA``, ``N/A``, ``NaN`` and ``null`` (in any letters) are missing values.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np

from likejax.data.readers.files import FileError

TEXTS = tuple(f"{form}{packed}" for form in (".csv", ".tsv", ".txt") for packed in ("", ".gz"))
"""Endings of the names of texts."""
PARQUET = (".parquet", ".pq")
"""Endings of the names of Parquet files."""
_MISSING = frozenset({"", "na", "n/a", "nan", "null"})
_UNREADABLE = (OSError, UnicodeDecodeError, EOFError, zlib.error, csv.Error)


def read_mixed(path: Path) -> dict[str, np.ndarray]:
    """Reads a table from a file.

    Args:
      path: A text or a Parquet file, by its ending.

    Returns:
      From the name of each column to its values; missing values are ``None`` or NaN.

    Raises:
      FileError: If it is no such file, or damaged.
      ImportError: If it is a Parquet file and pyarrow is not installed.
    """
    if not path.is_file():
        raise FileError(path, "there is no such file")
    name = path.name.lower()
    if name.endswith(PARQUET):
        return _read_parquet(path)
    if name.endswith(TEXTS):
        try:
            return _read_text(path)
        except _UNREADABLE as error:
            raise FileError(path, f"damaged, or not text in UTF-8: {error}") from error
    known = ", ".join((*TEXTS, *PARQUET))
    raise FileError(path, f"expected a table by its ending, one of {known}")


def _read_text(path: Path) -> dict[str, np.ndarray]:
    with _open(path) as file:
        first = file.readline()
        file.seek(0)
        delimiter = next((sign for sign in ("\t", ";", ",") if sign in first), ",")
        rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    if len(rows) < 2:
        raise FileError(path, f"expected a line of names and rows below it, got {len(rows)} lines")
    names, *body = rows
    names = [name.strip() for name in names]
    _check_names(path, names)
    for number, row in enumerate(body):
        if len(row) != len(names):
            raise FileError(
                path, f"expected {len(names)} entries in every row, row {number} has {len(row)}"
            )
    columns = zip(*body, strict=True)
    return {name: _typed(column) for name, column in zip(names, columns, strict=True)}


def _open(path: Path) -> TextIOWrapper:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _check_names(path: Path, names: Sequence[str]) -> None:
    if "" in names:
        raise FileError(
            path,
            f"column {names.index('')} has no name; if it numbers the rows, leave it out "
            "(pandas: index=False)",
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise FileError(path, f"expected columns of different names, got {twice[0]!r} twice")
    if all(as_number(name) is not None for name in names):
        raise FileError(
            path,
            f"expected a first line of names, got the numbers {', '.join(names[:4])}: name the "
            "columns there, or read a table of numbers with lj.load(name, data_dir=...)",
        )


def _typed(entries: Sequence[str]) -> np.ndarray:
    """A column as integers or floats if all of its entries are, else as words and ``None``."""
    words = [entry.strip() for entry in entries]
    is_missing = [word.lower() in _MISSING for word in words]
    kept = [word for word, missing in zip(words, is_missing, strict=True) if not missing]
    kind: Callable[[str], Any] = str
    if all(as_number(word) is not None for word in kept):
        kind = int if all(_is_integer(word) for word in kept) else float
    if not any(is_missing):
        return np.array([kind(word) for word in words])
    values = np.empty(len(words), object)
    for row, word in enumerate(words):
        values[row] = None if is_missing[row] else kind(word)
    return values


def as_number(word: str) -> float | None:
    """The number that a word is, or ``None``.

    Args:
      word: An entry of a text.
    """
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _is_integer(word: str) -> bool:
    return word.lstrip("+-").isdecimal()


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError(f"{path.name} is a Parquet file: pip install pyarrow") from error
    try:
        table = parquet.read_table(path, page_checksum_verification=True)
    except (ArrowException, OSError) as error:
        raise FileError(path, f"not a readable Parquet file: {error}") from error
    return arrow_columns(table)


def arrow_columns(table: Any) -> dict[str, np.ndarray]:
    """The columns of an Arrow table as arrays; missing values are ``None``.

    Args:
      table: A ``pyarrow.Table``.
    """
    columns = zip(table.column_names, table.columns, strict=True)
    found: dict[str, np.ndarray] = {}
    for name, column in columns:
        if name in found:
            raise ValueError(f"expected columns of different names, got {name!r} twice")
        found[name] = _from_arrow(column)
    return found


def _from_arrow(column: Any) -> np.ndarray:
    if not column.null_count:
        return np.asarray(column.to_numpy())
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values

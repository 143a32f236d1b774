"""From a frame or a file to the rows of a table whose columns are declared."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from likejax.data.columns import (
    LARGEST_INTEGER,
    Bounded,
    Categorical,
    Column,
    Continuous,
    Integer,
    Positive,
    Tails,
    check_support,
    shown,
)
from likejax.data.readers.mixed import arrow_columns, as_number, read_mixed
from likejax.inputs import refuse_masked
from likejax.names import meant
from likejax.precision import never_varies

WORDS = ("continuous", "positive", "integer", "categorical")
"""Words that declare a column and leave its range or its categories to the data."""
_FAR = 20
"""Distance of a value from the median, in interquartile ranges, that only heavy tails reach."""
_CLOSED_RANGE = 256
"""Most values of a range of integers that is taken to end with the smallest and the largest."""
_MOST_CATEGORIES = 256
"""Most categories that a column has that nobody declared."""

Declaration = Column | str | tuple[float, float] | None
"""A kind, one of ``WORDS``, two bounds, or ``None`` for a column that is left out."""
Declarations = Mapping[str, Declaration] | Sequence[Column]
"""Declarations by the names of columns, or the kinds of all columns of another table."""


class Values(NamedTuple):
    """The values of a column as they came, without missing ones.

    Attributes:
      array: Numbers, booleans, or an array of text.
      categories: Categories that the type of the column lists, if it does.
    """

    array: np.ndarray
    categories: tuple[str, ...] | None

    @property
    def are_numbers(self) -> bool:
        """Whether they can be computed with: booleans and text are names."""
        return self.array.dtype.kind in "uif"


class Declared(NamedTuple):
    """A table whose columns are declared.

    Attributes:
      rows: Raw numbers; of categories their numbers.
      columns: Kind of each column, with its name.
      taken: Columns that hold labels or weights, by their names.
      notes: Notes for the provenance.
    """

    rows: Float[np.ndarray, "n d"]
    columns: tuple[Column, ...]
    taken: dict[str, np.ndarray]
    notes: tuple[str, ...]


def declared(source: object, declarations: Declarations | None, taken: Sequence[str]) -> Declared:
    """Reads a table, and decides the kind of every column.

    Args:
      source: A frame, a mapping of columns, or the path of a file.
      declarations: Declarations of columns; the values decide those of all others.
      taken: Names of columns that are not part of an example: labels, weights.

    Raises:
      TypeError: If the source is no table, or a column holds values of another type.
      ValueError: If a name is unknown, or a column holds missing values or such of another kind.
    """
    raw = _columns_of(source)
    for name in taken:
        _check_known(name, raw)
    by_name = _by_name(declarations, [name for name in raw if name not in taken])
    left_out = [name for name in raw if name not in by_name and name not in taken]
    columns: list[Column] = []
    arrays: list[np.ndarray] = []
    for name, declaration in by_name.items():
        values = _values(name, raw[name])
        column = _resolved(name, values, declaration)
        columns.append(column)
        arrays.append(_numbers(values, column))
    if not columns:
        raise ValueError("expected columns to model, got none")
    rows = _stacked(arrays, columns)
    check_support(rows, columns)
    notes = [f"columns left out: {', '.join(left_out)}"] if left_out else []
    decided = [column for column in columns if not isinstance(by_name[column.name], Column)]
    notes += [f"column {column.name!r} taken as {column}" for column in decided]
    others = {name: _values(name, raw[name]).array for name in taken}
    return Declared(rows, tuple(columns), others, tuple(notes))


def labels_of(
    values: np.ndarray, name: str, class_names: Sequence[str] | None
) -> tuple[np.ndarray, Sequence[str] | None]:
    """Turns a column of classes into class numbers and names.

    Args:
      values: Classes: numbers from 0, booleans, or names.
      name: Name of the column.
      class_names: Names in the order of the numbers; if not given, names are numbered in order.

    Returns:
      The class numbers, and the names of the classes, or ``None`` if they have numbers only.

    Raises:
      ValueError: If a class is none of ``class_names``.
    """
    if values.dtype.kind in "uif":
        return values, class_names
    column = Values(values, None)
    classes = tuple(class_names) if class_names is not None else _categories(column)
    if len(classes) < 2:
        raise ValueError(
            f"column {name!r}: expected at least two classes, got {shown(classes)}: pass "
            "class_names= of the training part"
        )
    return _numbers(column, Categorical(classes, name=name)), classes


def names_of_conditions(conditions: object) -> tuple[str, ...]:
    """Returns the names of columns if conditions are given by names, else none.

    Args:
      conditions: One name, a sequence of names, numbers, or ``None``.
    """
    if isinstance(conditions, str):
        return (conditions,)
    if not isinstance(conditions, Sequence):
        return ()
    words = tuple(each for each in conditions if isinstance(each, str))
    return words if len(words) == len(conditions) else ()


def conditions_of(
    taken: Mapping[str, np.ndarray], names: Sequence[str]
) -> Float[np.ndarray, "n k"]:
    """Returns columns of numbers side by side, as the conditions of the rows.

    Args:
      taken: Columns by their names.
      names: Names of the columns, in order.

    Raises:
      TypeError: If a column does not hold numbers.
    """
    for name in names:
        if not Values(taken[name], None).are_numbers:
            raise TypeError(
                f"column {name!r}: expected numbers to condition on, got {taken[name].dtype}: pass "
                "a column of classes as labels="
            )
    return np.stack([taken[name].astype(np.float64) for name in names], axis=1)


# --- the source


def _columns_of(source: Any) -> dict[str, object]:
    """The columns of any source by their names."""
    if isinstance(source, str | os.PathLike):
        found: dict[str, object] = dict(read_mixed(Path(source).expanduser()))
    elif isinstance(source, Mapping):
        found = {str(name): values for name, values in source.items()}
    elif hasattr(source, "column_names") and hasattr(source, "columns"):
        found = dict(arrow_columns(source))
    elif hasattr(source, "collect_schema") and hasattr(source, "collect"):
        raise TypeError(
            f"expected a data frame that has its rows, got {type(source).__name__}, which has yet "
            "to read them: pass source.collect()"
        )
    elif hasattr(source, "columns") and hasattr(source, "__getitem__"):
        names = list(source.columns)
        if len({str(name) for name in names}) < len(names):
            raise ValueError(
                f"expected columns of different names, got {shown(list(map(str, names)))}"
            )
        found = {str(name): source[name] for name in names}
    else:
        raise TypeError(
            "expected a data frame, a mapping of column names to values, or the path of a .csv or "
            f".parquet file, got {type(source).__name__}: lj.Dataset.from_array makes a dataset of "
            "an array"
        )
    if not found:
        raise ValueError("expected a table with columns, got none")
    sizes = {name: np.shape(np.asarray(values))[:1] for name, values in found.items()}
    first = next(iter(sizes))
    for name, size in sizes.items():
        if size != sizes[first] or size == (0,):
            raise ValueError(
                f"expected columns of one length of at least 1, got {sizes[first]} for {first!r} "
                f"and {size} for {name!r}"
            )
    return found


def _check_known(name: str, names: Iterable[str]) -> None:
    names = list(names)
    if name not in names:
        near = meant(name, names) or f"; there are {shown(names)}"
        raise ValueError(f"expected the name of a column, got {name!r}{near}")


def _by_name(declarations: Declarations | None, names: Sequence[str]) -> dict[str, Declaration]:
    """The declaration of each column that is modeled; ``""`` if there is none."""
    if declarations is None:
        return dict.fromkeys(names, "")
    if isinstance(declarations, Mapping):
        for name in declarations:
            _check_known(name, names)
        every = {name: declarations.get(name, "") for name in names}
        return {name: each for name, each in every.items() if each is not None}
    if isinstance(declarations, str) or not isinstance(declarations, Sequence):
        raise TypeError(
            "expected columns to be a mapping from names to kinds, or the column_kinds of another "
            f"table, got {type(declarations).__name__}"
        )
    for column in declarations:
        if not isinstance(column, Column) or not column.name:
            raise TypeError(
                f"expected kinds with names, such as train.column_kinds, got {column!r}: a mapping "
                "from names to kinds gives them names"
            )
        _check_known(column.name, names)
    return {column.name: column for column in declarations}


# --- the values of a column


def _values(name: str, raw: object) -> Values:
    """The values of a column, refused if some are missing or of no type that a table holds."""
    refuse_masked(f"column {name!r}", raw)
    array = _as_objects(raw) if isinstance(raw, list | tuple) else np.asarray(raw)
    if array.ndim != 1:
        raise ValueError(f"column {name!r}: expected one value a row, got shape {array.shape}")
    if array.dtype.kind == "O":
        array = _from_objects(name, array)
    if array.dtype.kind == "S":
        array = array.astype(str)
    if array.dtype.kind not in "buifU":
        advice = (
            "; turn times into numbers, such as days since the first"
            if array.dtype.kind in "mM"
            else ""
        )
        raise TypeError(f"column {name!r}: expected numbers or words, got {array.dtype}{advice}")
    if array.dtype.kind == "f":
        _refuse_missing(name, np.isnan(array))
        bad = np.flatnonzero(np.isinf(array))
        if len(bad):
            raise ValueError(
                f"column {name!r}: expected finite numbers, got {array[bad[0]]} at row {bad[0]}"
            )
    return Values(array, _listed_categories(getattr(raw, "dtype", None)))


def _listed_categories(dtype: object) -> tuple[str, ...] | None:
    """The categories that the type of a column lists for this column alone, else None.

    Those of the type ``Categorical`` of polars are of all columns of the process, whatever tables
    they are in, so the values that occur say more.
    """
    listed = getattr(dtype, "categories", None)
    if type(dtype).__name__ == "Categorical" or not isinstance(listed, Iterable):
        return None
    return tuple(map(label, listed))


def _refuse_missing(name: str, is_missing: np.ndarray) -> None:
    rows = np.flatnonzero(is_missing)
    if len(rows):
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise ValueError(
            f"column {name!r}: expected no missing values, got one at row {rows[0]}{others}; fill "
            f"them, drop these rows, or leave the column out with columns={{{name!r}: None}}"
        )


def _as_objects(values: Sequence[object]) -> np.ndarray:
    """An array of the objects in a list: numpy would turn numbers and NaN beside words to words."""
    array = np.empty(len(values), object)
    for row, value in enumerate(values):
        array[row] = value
    return array


def _from_objects(name: str, array: np.ndarray) -> np.ndarray:
    """A typed array of Python objects: of numbers, of booleans, or of text."""
    _refuse_missing(name, np.array([_is_missing(value) for value in array], bool))
    is_text = [isinstance(value, str) for value in array]
    if all(is_text):
        return array.astype(str)
    is_boolean = [isinstance(value, bool | np.bool_) for value in array]
    if all(is_boolean):
        return array.astype(bool)
    if any(is_text) or any(is_boolean):
        odd = is_text.index(not is_text[0]) if any(is_text) else is_boolean.index(not is_boolean[0])
        raise TypeError(
            f"column {name!r}: expected values of one type, got {array[0]!r} at row 0 and "
            f"{array[odd]!r} at row {odd}"
        )
    try:
        are_integers = all(isinstance(value, int | np.integer) for value in array)
        return array.astype(np.int64 if are_integers else np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"column {name!r}: expected numbers or words, got {type(array[0]).__name__}: {error}"
        ) from error


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def label(value: object) -> str:
    """The name of a category: a number that is whole has no decimals.

    Args:
      value: A word, a number or a boolean.

    Example:
      >>> from likejax.data.declared import label
      >>> label(2.0), label(True), label("2.0")
      ('2', 'True', '2.0')
    """
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)  # type: ignore[call-overload]


# --- the kind of a column


def _resolved(name: str, values: Values, declaration: Declaration) -> Column:
    """The kind of a column, with its name."""
    if isinstance(declaration, Column):
        return dataclasses.replace(declaration, name=name)
    if isinstance(declaration, tuple | list) and len(declaration) == 2:
        return Bounded(*declaration, name=name)
    if not isinstance(declaration, str):
        raise TypeError(
            f"column {name!r}: expected a kind such as lj.data.Positive(), one of the words "
            f"{', '.join(WORDS)}, or bounds (low, high), got {declaration!r}"
        )
    _check_varies(name, values)
    if declaration == "":
        return _by_values(name, values)
    if declaration == "categorical":
        return Categorical(_categories(values), name=name)
    if declaration not in WORDS:
        near = meant(declaration, WORDS) or f"; the words are {', '.join(WORDS)}"
        if declaration == "bounded":
            near = ": give the bounds (low, high)"
        raise ValueError(f"column {name!r}: unknown kind {declaration!r}{near}")
    _check_numbers(name, values, declaration)
    if declaration == "positive":
        return Positive(name=name)
    return _integer(name, values) if declaration == "integer" else _continuous(name, values)


def _check_varies(name: str, values: Values) -> None:
    """Refuses a column of one value: it has no density and says nothing of the rows."""
    array = values.array
    if len(array) < 2:
        return
    is_float = array.dtype.kind == "f"
    is_constant = (
        bool(never_varies(array[:, None])[0]) if is_float else bool((array == array[0]).all())
    )
    if is_constant:
        raise ValueError(
            f"column {name!r}: expected values that vary, all {len(array)} are "
            f"{label(array[0])}, which has no density to learn; leave the column out with "
            f"columns={{{name!r}: None}}, or declare it by a kind, such as lj.data.Continuous()"
        )


def _check_numbers(name: str, values: Values, wanted: object) -> None:
    if not values.are_numbers and values.array.dtype.kind != "b":
        words = [as_number(word) is None for word in values.array]
        row = words.index(True) if any(words) else 0
        raise TypeError(
            f"column {name!r}: expected numbers for a column that is {wanted}, got "
            f"{str(values.array[row])!r} at row {row}"
        )


def _by_values(name: str, values: Values) -> Column:
    """The kind of a column that nobody declared."""
    if not values.are_numbers or values.categories is not None:
        _check_words(name, values)
        return Categorical(_categories(values), name=name)
    if values.array.dtype.kind == "f":
        return _continuous(name, values)
    largest = max(abs(int(values.array.min())), abs(int(values.array.max())))
    if largest > LARGEST_INTEGER:
        return _continuous(name, values)
    return _integer(name, values)


def _check_words(name: str, values: Values) -> None:
    """Refuses words that are numbers but for a few, and such as differ from row to row."""
    words = values.array
    if words.dtype.kind != "U":
        return
    are_words = np.array([as_number(word) is None for word in words])
    if 0 < are_words.sum() < 0.5 * len(words):
        row = int(np.argmax(are_words))
        raise ValueError(
            f"column {name!r}: expected numbers as in most rows, got {str(words[row])!r} at row "
            f"{row}; correct it, or declare the column 'categorical'"
        )
    count = len(np.unique(words))
    if count > _MOST_CATEGORIES:
        raise ValueError(
            f"column {name!r}: expected at most {_MOST_CATEGORIES} categories, got {count}; leave "
            f"the column out with columns={{{name!r}: None}}, or declare it 'categorical'"
        )


def _categories(values: Values) -> tuple[str, ...]:
    """Categories that the type lists, or those of the values, in order."""
    if values.categories is not None:
        return values.categories
    if values.array.dtype.kind == "b":
        return ("False", "True")
    return tuple(label(value) for value in np.unique(values.array))


def _integer(name: str, values: Values) -> Integer:
    """Integers of a closed range if it is short, else counts, else integers without bounds."""
    low, high = int(values.array.min()), int(values.array.max())
    if max(abs(low), abs(high)) > LARGEST_INTEGER:
        return Integer(name=name)  # whose values are refused
    if high - low < _CLOSED_RANGE:
        return Integer(low, high, name=name)
    return Integer(0, name=name) if low >= 0 else Integer(tails=_tails(values), name=name)


def _continuous(name: str, values: Values) -> Continuous:
    """A continuous column, whose tails are heavy if a value lies very far from the others."""
    array = values.array.astype(np.float64)
    different, counts = np.unique(array, return_counts=True)
    value, share = different[counts.argmax()], counts.max() / len(array)
    if share > 0.5 and len(array) > 2:
        raise ValueError(
            f"column {name!r}: expected continuous values, {share:.0%} of the rows hold "
            f"{label(value)}, where a density grows without bound; declare it 'integer' or "
            "'categorical', or by a kind, such as lj.data.Continuous()"
        )
    return Continuous(_tails(values), name=name)


def _tails(values: Values) -> Tails:
    """Heavy tails if a value lies very far from the others."""
    array = values.array.astype(np.float64)
    low, median, high = np.percentile(array, [25, 50, 75])
    return "heavy" if np.abs(array - median).max() > _FAR * (high - low) else "light"


# --- numbers of a column


def _numbers(values: Values, column: Column) -> np.ndarray:
    """The numbers of a column, categories by their places."""
    if not isinstance(column, Categorical):
        _check_numbers(column.name, values, column)
        return values.array
    places = {category: place for place, category in enumerate(column.categories)}
    labels = [label(value) for value in values.array]
    for row, each in enumerate(labels):
        if each not in places:
            near = meant(each, column.categories)
            raise ValueError(
                f"column {column.name!r}: expected one of the categories "
                f"{shown(column.categories)}, got {each!r} at row {row}{near}"
            )
    return np.array([places[each] for each in labels], np.int32)


def _stacked(arrays: Sequence[np.ndarray], columns: Sequence[Column]) -> Float[np.ndarray, "n d"]:
    """The columns side by side, in single precision if that holds all of them as they came."""
    is_wide = False
    for array, column in zip(arrays, columns, strict=True):
        if array.dtype.kind == "f":
            is_wide |= array.dtype.itemsize > 4
            continue
        largest = max(abs(int(array.min())), abs(int(array.max())))
        is_wide |= largest > LARGEST_INTEGER
        if largest > 2**53:
            raise ValueError(
                f"column {column.name!r}: expected integers up to 2**53, got {largest}; subtract "
                "an offset from it first"
            )
    dtype = np.float64 if is_wide else np.float32
    return np.stack([array.astype(dtype) for array in arrays], axis=1)

"""Numeric arrays of whatever a user holds: arrays of any library, data frames, lists."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer, Num

from likejax.density import integer_dtype
from likejax.inputs import refuse_masked
from likejax.precision import entry_name

_EXACT_IN_FLOAT32 = 2**24
_EXACT_IN_FLOAT64 = 2**53


class Numbers(NamedTuple):
    """A numeric array, the names of its columns if it has any, and notes on decisions."""

    array: Num[np.ndarray, "..."]
    columns: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


@runtime_checkable
class _Frame(Protocol):
    """A data frame of any library: it lists its columns and gives each by its name."""

    @property
    def columns(self) -> Iterable[Hashable]: ...

    def __getitem__(self, name: Hashable, /) -> object: ...


def _is_frame(values: object) -> TypeGuard[_Frame]:
    return hasattr(values, "columns") and hasattr(values, "__getitem__")


def as_numbers(examples: object, *, levels: int | None) -> tuple[Numbers, int | None]:
    """Converts examples to the type in which a dataset keeps them.

    Args:
      examples: ``(n, *event_shape)``: an array of any library, a data frame, lists.
      levels: Number of integer values; ``None`` to decide by the type: two for booleans, 256 for
        ``uint8`` and for integer images within 0..255, continuous otherwise.

    Raises:
      TypeError: If the entries are not numbers, or floats where integers are due.
      ValueError: If entries are masked, missing or not finite, the shape has no examples, or
        integers leave the levels.
    """
    array, columns = _array(examples)
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"expected a numeric array of examples, got dtype {array.dtype}{_advice(array)}"
        )
    if array.ndim < 2 or len(array) == 0:
        advice = "; a table with one column has shape (n, 1)" if array.ndim == 1 else ""
        raise ValueError(
            "expected examples of shape (n, *event_shape) with n > 0, got shape "
            f"{array.shape}{advice}"
        )
    if array.size == 0:
        raise ValueError(f"expected examples with entries, got shape {array.shape}")
    notes: tuple[str, ...] = ()
    if array.dtype.kind == "b":
        array, levels = array.astype(np.uint8), levels or 2
    if levels is None and array.dtype == np.uint8:
        levels = 256
    if levels is None and array.dtype.kind in "ui":
        levels, notes = _levels_of_integers(array)
    if levels is None:
        array = _continuous(array, columns)
    else:
        array = _integers(array, levels)
        array = array[..., None] if array.ndim == 3 else array
    return Numbers(array, columns, notes), levels


def as_labels(
    labels: object, count: int, *, classes: int | None = None
) -> Integer[np.ndarray, " n"]:
    """Checks class numbers.

    Args:
      labels: Integers, booleans, or floats that are integers, ``(n,)`` or ``(n, 1)``.
      count: Number of examples.
      classes: Number of classes, where it is known.

    Returns:
      Class numbers from 0, ``(n,)``.

    Raises:
      ValueError: If they are something else, of another number, or out of range.
    """
    array, _ = _array(labels, what="labels")
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,) or array.dtype.kind not in "buif":
        many = array.ndim == 2 and len(array) == count
        advice = "; for one-hot rows pass labels.argmax(1)" if many else ""
        if array.dtype.kind in "USO":
            call = "np.unique(names, return_inverse=True)[1]"
            advice = f"; for names pass {call}, the same for every part"
        raise ValueError(
            f"expected integer labels of shape ({count},), got {array.dtype} of shape "
            f"{array.shape}{advice}"
        )
    array = whole_numbers(array)
    low, high = int(array.min()), int(array.max())
    if low < 0 or (classes is not None and high >= classes):
        last = "C-1" if classes is None else classes - 1
        raise ValueError(
            f"expected labels in 0..{last}, got {low}..{high}; number the classes from 0"
        )
    return array


def as_conditions(conditions: object, count: int) -> Float[np.ndarray, "n ..."]:
    """Checks float conditions.

    Args:
      conditions: Numbers ``(n, *condition_shape)``, with at least one axis besides the first.
      count: Number of examples.

    Returns:
      Floats of the same shape.

    Raises:
      TypeError: If they are no numbers.
      ValueError: If they are of another shape, or one is not finite.
    """
    array, columns = _array(conditions, what="conditions")
    if array.dtype.kind not in "buif":
        raise TypeError(f"expected numbers as conditions, got {array.dtype}{_advice(array)}")
    if array.ndim < 2 or len(array) != count or array.size == 0:
        advice = ""
        if array.shape == (count,):
            advice = ": pass conditions[:, None], or labels= if they are class numbers"
        raise ValueError(
            f"expected conditions of shape ({count}, *condition_shape), one for each example, got "
            f"shape {array.shape}{advice}"
        )
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return _continuous(array, columns, what="conditions")


def whole_numbers(labels: np.ndarray) -> Integer[np.ndarray, "..."]:
    """Converts labels to integers.

    Args:
      labels: Integers, booleans, or floats that are integers.

    Raises:
      ValueError: If floats are not integers.
    """
    if labels.dtype.kind in "ui":
        return labels
    if labels.dtype.kind == "f":
        is_finite = np.isfinite(labels)
        is_whole = labels == np.floor(np.where(is_finite, labels, 0))
        is_right = is_finite & is_whole
        if not is_right.all():
            place = tuple(np.argwhere(~is_right)[0])
            raise ValueError(
                f"expected integer labels, got {labels[place]} at row {place[0]}; labels are class "
                "numbers, so leave "
                "out targets of a regression"
            )
    return labels.astype(np.int64)


def _array(values: object, what: str = "examples") -> tuple[np.ndarray, tuple[str, ...] | None]:
    """An array of whatever came, and the names of columns that it has."""
    if _is_frame(values):
        return _frame(values)
    refuse_masked(what, values)
    if hasattr(values, "toarray"):
        raise TypeError(
            f"expected a dense array of {what}, got {type(values).__name__}; pass x.toarray()"
        )
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:  # lists of unequal lengths, tensors on a device
        raise ValueError(
            f"expected {what} that form one array, got {type(values).__name__}: {error}"
        ) from error
    if array.dtype.kind == "O" and array.ndim:
        array = _from_objects(array, what)
    return array, None


def _frame(frame: _Frame) -> tuple[np.ndarray, tuple[str, ...]]:
    """The columns of a data frame side by side."""
    names = tuple(str(name) for name in frame.columns)
    arrays = []
    for name, key in zip(names, frame.columns, strict=True):
        refuse_masked(f"column {name!r}", frame[key])
        column = np.asarray(frame[key])
        if column.dtype.kind == "O":
            column = _from_objects(column, f"column {name!r}")
        if column.dtype.kind not in "buif":
            raise TypeError(
                f"expected numeric columns, column {name!r} has dtype "
                f"{column.dtype}{_advice(column)}; leave it out "
                "or turn it into numbers"
            )
        arrays.append(column)
    if not arrays:
        raise ValueError("expected a data frame with columns, got none")
    return np.stack(arrays, axis=1), names


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    """Converts Python numbers in an array of objects, as columns with missing values are."""
    flat = array.reshape(-1)
    numbers = np.empty(flat.size, np.float64)
    for i, value in enumerate(flat):
        place = np.unravel_index(i, array.shape)
        row = f"row {int(place[0])}" + (f", column {int(place[1])}" if array.ndim == 2 else "")
        if isinstance(value, str | bytes):
            raise TypeError(
                f"expected a numeric array of examples, {what} hold the text {value!r} at {row}"
            )
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            raise ValueError(
                f"expected no missing values, {what} lack one at {row}; fill or drop them"
            )
        try:
            numbers[i] = value
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"expected a numeric array of examples, {what} hold {type(value).__name__} at {row}"
            ) from error
    are_integers = all(isinstance(value, int | np.integer) for value in flat)
    if are_integers and np.abs(numbers).max(initial=0) < _EXACT_IN_FLOAT64:
        return numbers.astype(np.int64).reshape(array.shape)
    return numbers.reshape(array.shape)


def _advice(array: np.ndarray) -> str:
    """Advice on a type that is not a number, as the end of a sentence."""
    if array.dtype.kind in "mM":
        return "; turn times into numbers, and subtract the first of them"
    if array.dtype.kind == "c":
        return "; pass real and imaginary parts as columns"
    return ""


def _levels_of_integers(array: np.ndarray) -> tuple[int | None, tuple[str, ...]]:
    """Levels of integers that came without: 256 for images of 0..255, none for tables."""
    if array.ndim == 2:
        return None, (f"{array.dtype.name} taken as continuous values",)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"expected levels= for {array.dtype} examples of shape {array.shape} with values "
            f"{low}..{high}: pass "
            "levels=N for integers 0..N-1, or convert continuous data with x.astype('float32')"
        )
    return 256, (f"{array.dtype.name} within 0..255 taken as 256 levels",)


def _integers(array: np.ndarray, levels: int) -> np.ndarray:
    if array.dtype.kind == "f":
        raise TypeError(
            f"expected integers for data with {levels} levels, got {array.dtype}; pass raw pixel "
            "values, unscaled"
            f"{_how_to_quantize(array, levels)}"
        )
    if not 2 <= levels <= 65536:
        raise ValueError(
            f"expected 2 to 65536 levels, got {levels}; reduce finer data, or take them as "
            "continuous"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= levels:
        raise ValueError(
            f"expected values in 0..{levels - 1} for {levels} levels, got {low}..{high}"
        )
    return array.astype(integer_dtype(levels), copy=False)


def _how_to_quantize(array: np.ndarray, levels: int) -> str:
    """The call that turns floats into the integers that they were, if it is clear."""
    if not np.isfinite(array).all():
        return ""
    low, high = float(array.min()), float(array.max())
    dtype = integer_dtype(levels).name
    if low >= 0 and high <= 1:
        return f": np.rint(x * {levels - 1}).astype('{dtype}') if they were divided by {levels - 1}"
    if low >= -1 and high <= 1:
        return (
            f": np.rint((x + 1) / 2 * {levels - 1}).astype('{dtype}') if they were brought to -1..1"
        )
    if low >= 0 and high < levels and (array == np.round(array)).all():
        return f": x.astype('{dtype}')"
    return ""


def _continuous(
    array: np.ndarray, columns: Sequence[str] | None, what: str = "examples"
) -> np.ndarray:
    """Values as native float32 where that keeps them, else as native float64."""
    if array.dtype.kind in "ui":
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > _EXACT_IN_FLOAT64:
            largest_at = np.unravel_index(
                int(np.argmax(np.abs(array.astype(np.float64)))), array.shape
            )
            row, *entry = (int(i) for i in largest_at)
            raise ValueError(
                f"expected integers up to 2**53 as continuous values, got {array[largest_at]} at "
                f"row {row}, "
                f"{entry_name(entry, columns)}; subtract an offset from it first"
            )
        return array.astype(np.float32 if largest <= _EXACT_IN_FLOAT32 else np.float64)
    with np.errstate(over="ignore"):
        cast = array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
    bad = np.argwhere(~np.isfinite(cast))
    if len(bad):
        row, *entry = (int(i) for i in bad[0])
        raise ValueError(
            f"expected finite {what}, got {len(bad)} NaN or infinite entries, the first at row "
            f"{row}, "
            f"{entry_name(entry, columns)}"
        )
    return cast

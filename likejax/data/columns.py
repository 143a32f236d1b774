"""Kinds of the columns of a table: the values that a column takes, and their names."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Num

from likejax.settings import Settings

LARGEST_INTEGER = 2**24 - 1
"""Largest integer of a discrete column: single precision holds it and the next one exactly."""
Tails = Literal["light", "heavy"]
_INFINITY = float("inf")
_MOST_SHOWN = 8
"""Most categories that a message or a notebook shows."""


@dataclasses.dataclass(frozen=True)
class Column(Settings, abc.ABC):
    """The kind of a column of a table: what its values are.

    A density of raw rows, ``lj.models.Tabular``, maps the interval of a column to all reals. Log
    probabilities are densities of continuous columns and masses of discrete ones.

    Attributes:
      discrete: Whether the values are integers; a value ``k`` then stands for ``[k, k + 1)``.

    Example:
      >>> import likejax as lj
      >>> [lj.data.Bounded(0, 100).interval, lj.data.Integer(0, 5).interval]
      [(0.0, 100.0), (0.0, 6.0)]
    """

    discrete: ClassVar[bool] = False

    name: str = dataclasses.field(default="", kw_only=True)
    """Name of the column."""

    @property
    @abc.abstractmethod
    def interval(self) -> tuple[float, float]:
        """Open interval of the values; of a discrete column that of values and noise together."""

    @property
    def has_heavy_tails(self) -> bool:
        """Whether values without bounds are drawn in by an inverse hyperbolic sine."""
        return False

    def __str__(self) -> str:
        return type(self).__name__.lower()

    def holds(self, values: Num[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Finds the values that the column can take.

        Args:
          values: Numbers.

        Example:
          >>> import numpy as np, likejax as lj
          >>> lj.data.Integer(0, 5).holds(np.array([0.0, 5.0, 6.0, 0.5])).tolist()
          [True, True, False, False]
        """
        low, high = self.interval
        if not self.discrete:
            return (values > low) & (values < high)
        is_whole = values == np.floor(values)
        is_exact = np.abs(values) <= LARGEST_INTEGER
        return is_whole & is_exact & (values >= low) & (values < high)


@dataclasses.dataclass(frozen=True)
class Continuous(Column):
    """A column of any real numbers.

    Example:
      >>> import likejax as lj
      >>> lj.data.Continuous(tails="heavy").interval
      (-inf, inf)
    """

    tails: Tails = "light"
    """Tails of the distribution; heavy ones (Cauchy, say) are drawn in by an inverse hyperbolic
    sine about the median."""

    @property
    def has_heavy_tails(self) -> bool:
        """Whether the tails are heavy."""
        return self.tails == "heavy"

    @property
    def interval(self) -> tuple[float, float]:
        """All reals."""
        return -_INFINITY, _INFINITY

    def __str__(self) -> str:
        return "continuous" if self.tails == "light" else "continuous with heavy tails"


@dataclasses.dataclass(frozen=True)
class Positive(Column):
    """A column of numbers above 0; the density maps their logarithm.

    Example:
      >>> import likejax as lj
      >>> lj.data.Positive().interval
      (0.0, inf)
    """

    @property
    def interval(self) -> tuple[float, float]:
        """Numbers above 0."""
        return 0.0, _INFINITY


@dataclasses.dataclass(frozen=True)
class Bounded(Column):
    """A column of numbers strictly between two bounds; the density maps their logit.

    Example:
      >>> import likejax as lj
      >>> str(lj.data.Bounded(0, 100))
      'between 0 and 100'
    """

    low: float = 0.0
    """Lower bound, which no value reaches."""
    high: float = 1.0
    """Upper bound, which no value reaches."""

    def _check_together(self):
        if not self.low < self.high:
            raise ValueError(
                f"expected Bounded.low below Bounded.high, got {self.low:g} and {self.high:g}"
            )

    @property
    def interval(self) -> tuple[float, float]:
        """Numbers between the bounds."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"between {self.low:g} and {self.high:g}"


@dataclasses.dataclass(frozen=True)
class Integer(Column):
    """A column of integers, such as counts; the density gives each its probability mass.

    Example:
      >>> import likejax as lj
      >>> str(lj.data.Integer(1, 5)), str(lj.data.Integer(0)), str(lj.data.Integer())
      ('integer 1..5', 'integer from 0', 'integer')
    """

    discrete: ClassVar[bool] = True

    low: int | None = None
    """Smallest value; ``None`` for no bound."""
    high: int | None = None
    """Largest value; ``None`` for no bound."""
    tails: Tails = "light"
    """Tails of integers without bounds."""

    @property
    def has_heavy_tails(self) -> bool:
        """Whether there are no bounds and the tails are heavy."""
        return self.low is None and self.tails == "heavy"

    def _check_together(self):
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if any(abs(bound) > LARGEST_INTEGER for bound in bounds):
            raise ValueError(
                f"expected bounds of Integer below 2**24, got {self.low} and {self.high}: single "
                "precision holds no larger integers exactly; subtract an offset from the column"
            )
        if self.low is None and self.high is not None:
            raise ValueError(
                f"expected Integer.low for Integer.high={self.high}, got None: give both bounds, "
                "the lower one or none"
            )
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(
                f"expected Integer.low below Integer.high, got {self.low} and {self.high}"
            )

    @property
    def interval(self) -> tuple[float, float]:
        """Integers with their noise: from the smallest to the largest and 1."""
        low = -_INFINITY if self.low is None else float(self.low)
        high = _INFINITY if self.high is None else float(self.high) + 1
        return low, high

    def __str__(self) -> str:
        if self.low is None:
            return "integer" if self.tails == "light" else "integer with heavy tails"
        return (
            f"integer from {self.low}" if self.high is None else f"integer {self.low}..{self.high}"
        )


@dataclasses.dataclass(frozen=True)
class Categorical(Column):
    """A column of names; a dataset holds the number of each, from 0 in the order of the categories.

    Example:
      >>> import likejax as lj
      >>> lj.data.Categorical(("blue", "red")).interval
      (0.0, 2.0)
    """

    discrete: ClassVar[bool] = True

    categories: tuple[str, ...]
    """Names of the categories, at least two."""

    def _check_together(self):
        if len(self.categories) < 2 or len(set(self.categories)) < len(self.categories):
            raise ValueError(
                "expected Categorical.categories to be at least two different names, got "
                f"{shown(self.categories)}"
            )

    @property
    def interval(self) -> tuple[float, float]:
        """Numbers of the categories with their noise."""
        return 0.0, float(len(self.categories))

    def __str__(self) -> str:
        return f"categorical: {shown(self.categories)}"


def shown(names: Sequence[str]) -> str:
    """The first of some names, for messages.

    Args:
      names: Any names.
    """
    more = f", ... ({len(names)} in all)" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more


def summary(columns: Sequence[Column]) -> str:
    """Counts the kinds of columns.

    Args:
      columns: Kinds of the columns of a table.

    Example:
      >>> import likejax as lj
      >>> from likejax.data.columns import summary
      >>> summary([lj.data.Positive(), lj.data.Integer(), lj.data.Positive()])
      '2 positive, 1 integer'
    """
    words = [type(column).__name__.lower() for column in columns]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def identified(columns: Sequence[Column]) -> str:
    """Counts the kinds of columns, with a hash of their names and settings.

    Args:
      columns: Kinds of the columns of a table.

    Example:
      >>> import likejax as lj
      >>> from likejax.data.columns import identified
      >>> identified([lj.data.Positive(name="size")])
      '1 positive (hash 8007d255)'
    """
    digest = hashlib.sha256("; ".join(map(repr, columns)).encode())
    return f"{summary(columns)} (hash {digest.hexdigest()[:8]})"


def check_support(rows: Float[np.ndarray, "n d"], columns: Sequence[Column]) -> None:
    """Checks that every column of a table holds values of its kind only.

    Args:
      rows: Raw rows.
      columns: Kind of each column.

    Raises:
      ValueError: If a value is none that its column can take; the message names column and row.
    """
    for values, column in zip(rows.T, columns, strict=True):
        bad = np.flatnonzero(~column.holds(values))
        if len(bad):
            others = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
            raise ValueError(
                f"column {column.name!r}: expected values that are {column}, got "
                f"{values[bad[0]]:.10g} at row {bad[0]}{others}{_advice(column, values[bad])}"
            )


def _advice(column: Column, bad: np.ndarray) -> str:
    """What helps where values are not of their kind, as the end of a sentence."""
    if isinstance(column, Positive) and (bad == 0).all():
        return (
            ": zero has no logarithm; declare counts 'integer', and amounts that may be zero "
            "'continuous'"
        )
    if isinstance(column, Bounded) and np.isin(bad, column.interval).all():
        margin = 0.005 * (column.high - column.low)
        return (
            ": a value on a bound has no logit; declare bounds a little outside of the values, "
            f"such as ({column.low - margin:g}, {column.high + margin:g})"
        )
    if isinstance(column, Integer) and (np.abs(bad) > LARGEST_INTEGER).all():
        return (
            ": single precision holds integers below 2**24; subtract an offset from the column, or "
            "declare it 'continuous'"
        )
    if isinstance(column, Integer) and (bad == np.floor(bad)).all():
        return ": declare Integer(low, high) with a wider range when the training table is made"
    return ": correct these rows, or declare another kind for the column"


def as_columns(rows: object, columns: Sequence[Column]) -> dict[str, np.ndarray]:
    """Turns rows of a table, such as samples, into columns of their own types.

    Args:
      rows: Raw rows ``(n, d)``: examples or samples.
      columns: Kind of each column, such as ``dataset.column_kinds``.

    Returns:
      From the name of each column to its values: floats, integers, or names of categories. A frame
      is made of it by ``pandas.DataFrame`` or ``polars.DataFrame``.

    Raises:
      ValueError: If the rows have another shape, or a number stands for no category.

    Example:
      >>> import likejax as lj
      >>> color = lj.data.Categorical(("blue", "red"), name="color")
      >>> lj.data.as_columns([[0.5, 1.0]], [lj.data.Positive(name="size"), color])["color"].tolist()
      ['red']
    """
    array = np.asarray(rows)
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise ValueError(f"expected rows of shape (n, {len(columns)}), got {array.shape}")
    found = {}
    for place, column in enumerate(columns):
        values = array[:, place]
        if column.discrete:
            check_support(values[:, None], [column])
            values = values.astype(np.int64)
        if isinstance(column, Categorical):
            values = np.asarray(column.categories)[values]
        found[column.name or str(place)] = values
    return found

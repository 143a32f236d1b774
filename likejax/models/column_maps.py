"""From the raw columns of a table to real numbers: identity, inverse sine, logarithm and logit."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float

from likejax.data.columns import Column
from likejax.nn.modules import Buffer, replace

Row = Float[Array, " d"]
_IQR = 1.349
"""Interquartile range of the standard normal."""


class ColumnMaps(nnx.Module):
    """Increasing maps of the columns of a row to all reals, with noise on discrete ones.

    With the interval ``(low, high)`` of a column, ``u`` in (0, 1) the noise of a discrete column
    and 0 for others, a map takes ``x + u`` to

    * ``log((x + u - low) / (high - x - u))`` if both ends are finite,
    * ``log((x + u - low) / width)`` if the lower end is,
    * ``asinh((x + u - origin) / width)`` for heavy tails, and ``x + u - origin`` otherwise.

    ``origin`` and ``width`` are fixed numbers that ``initialize`` takes from data.

    Args:
      columns: Kind of each column.

    Raises:
      ValueError: If the interval of a column has an upper end only.
    """

    def __init__(self, columns: tuple[Column, ...]):
        self.columns = columns
        self.origin = Buffer(jnp.zeros(len(columns)))
        self.width = Buffer(jnp.ones(len(columns)))
        for column in columns:
            low, high = column.interval
            if np.isinf(low) and np.isfinite(high):
                raise ValueError(
                    f"expected an interval with a lower end for column {column.name!r}, got "
                    f"{column.interval}: change the sign of the column"
                )

    @property
    def adds_noise(self) -> bool:
        """Whether a column is discrete."""
        return any(column.discrete for column in self.columns)

    def noise(self, key: Array, dtype: DTypeLike) -> Row:
        """Uniform noise strictly between 0 and 1.

        Args:
          key: One key.
          dtype: Floating-point type.
        """
        # half a step above zero: a logarithm of 0 would be infinite
        step = jnp.finfo(dtype).eps
        return jax.random.uniform(key, (len(self.columns),), dtype) + step / 2

    def outside(self, x: Row) -> Bool[Array, " d"]:
        """Finds the columns whose value is none that they can take; NaN is no such value.

        Args:
          x: Raw row.

        Returns:
          Booleans ``(d,)``; False for NaN.
        """
        forms = _Forms(self.columns)
        low, high = forms.ends(x.dtype)
        # the rest of a division by 1 is 0 for integers, and NaN for infinity
        misses = (x < low) | (x >= high) | (x % 1 > 0)
        return jnp.where(forms.discrete, misses, (x <= low) | (x >= high))

    def forward(self, x: Row, noise: Row) -> tuple[Row, Float[Array, ""]]:
        """Maps one row to real numbers, with the log-determinant.

        Args:
          x: Raw numbers that the columns can take.
          noise: Numbers in (0, 1), which discrete columns use.
        """
        forms = _Forms(self.columns)
        low, high = forms.ends(x.dtype)
        width = self.width[...]
        u = jnp.where(forms.discrete, noise, 0)
        # integers are subtracted before the noise is added, so that large ones do not absorb it
        above = x - jnp.where(forms.is_real, self.origin[...], low) + u
        below = jnp.where(forms.is_box, high - x - u, 1)
        log_above = jnp.log(jnp.where(forms.is_real, 1, above))
        ratio = jnp.where(forms.is_heavy, above / width, 0)
        box = log_above - jnp.log(below)
        half = log_above - jnp.log(width)
        real = jnp.where(forms.is_heavy, jnp.arcsinh(ratio), above)
        y = jnp.where(forms.is_box, box, jnp.where(forms.is_real, real, half))
        # Every branch is computed for all columns, with harmless numbers where it is not taken: a
        # NaN in a branch that `where` drops would still be one in the gradient.
        # derivatives: span / (above below), 1 / above, 1 / (width sqrt(1 + ratio^2)), 1
        span = jnp.where(forms.is_box, high - low, 1)
        bent = jnp.where(forms.is_heavy, jnp.log(width) + jnp.log(jnp.hypot(1.0, ratio)), 0)
        return y, jnp.sum(jnp.log(span) - log_above - jnp.log(below) - bent)

    def inverse(self, y: Row) -> Row:
        """Maps real numbers back to a row; where they are not finite it is NaN or infinite.

        Args:
          y: Real numbers ``(d,)``.

        Returns:
          Raw row ``(d,)``, discrete columns as floats.
        """
        forms = _Forms(self.columns)
        low, high = forms.ends(y.dtype)
        width = self.width[...]
        span = jnp.where(forms.is_box, high - low, 1)
        box = span * jax.nn.sigmoid(y)
        half = width * jnp.exp(jnp.where(forms.is_real, 0, y))
        real = jnp.where(forms.is_heavy, width * jnp.sinh(jnp.where(forms.is_heavy, y, 0)), y)
        above = jnp.where(forms.is_box, box, jnp.where(forms.is_real, real, half))
        above = jnp.where(forms.discrete, jnp.floor(above), above)
        x = above + jnp.where(forms.is_real, self.origin[...], low)
        smallest, largest = forms.extremes(y.dtype)
        return jnp.where(jnp.isfinite(y), jnp.clip(x, smallest, largest), jnp.nan)

    def initialize(self, batch: Float[Array, "n d"]) -> ColumnMaps:
        """Returns maps about the medians of the columns, whatever lies far from them.

        Args:
          batch: Raw rows.
        """
        forms = _Forms(self.columns)
        low, _ = forms.ends(batch.dtype)
        first, median, third = jnp.percentile(batch, jnp.array([25.0, 50.0, 75.0]), axis=0)
        origin = jnp.where(forms.discrete, jnp.round(median), median)
        spread = (third - first) / _IQR
        # more than half of the rows may be the same number, and have no quartiles apart
        spread = jnp.where(spread > 0, spread, batch.std(0))
        above = jnp.where(forms.is_real, 1, median - low + 0.5 * forms.discrete)
        width = jnp.where(forms.is_heavy, spread, jnp.where(forms.is_half, above, 1))
        return replace(
            self,
            origin=Buffer(jnp.where(forms.is_real, origin, 0)),
            width=Buffer(jnp.where(width > 0, width, 1)),
        )


class _Forms:
    """Which map each column has, and the ends of its interval, as arrays ``(d,)``."""

    def __init__(self, columns: Sequence[Column]):
        ends = np.array([column.interval for column in columns], np.float64)
        self.low, self.high = ends.T
        self.discrete = np.array([column.discrete for column in columns])
        self.is_box = np.isfinite(ends).all(1)
        self.is_real = np.isinf(ends).all(1)
        self.is_half = ~self.is_box & ~self.is_real
        self.is_heavy = np.array([column.has_heavy_tails for column in columns])

    def ends(self, dtype: DTypeLike) -> tuple[Row, Row]:
        """The ends of the intervals."""
        return jnp.asarray(self.low, dtype), jnp.asarray(self.high, dtype)

    def extremes(self, dtype: DTypeLike) -> tuple[Row, Row]:
        """The smallest and the largest value that a column can take in a type."""
        low, high = self.low.astype(dtype), self.high.astype(dtype)
        tiny = np.finfo(low.dtype).tiny
        above = np.nextafter(low, np.inf, dtype=low.dtype)
        above = np.where(low == 0, tiny, above)
        below = np.where(high == 0, -tiny, np.nextafter(high, -np.inf, dtype=high.dtype))
        smallest = np.where(self.discrete | np.isinf(low), low, above)
        largest = np.where(np.isinf(high), high, np.where(self.discrete, high - 1, below))
        return jnp.asarray(smallest), jnp.asarray(largest)

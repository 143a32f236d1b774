"""From a density of real vectors to one of the raw rows of a table."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from likejax.bijections.standardize import Standardize
from likejax.data.columns import Column, check_support
from likejax.density import Density, Diffusion, Kind, Statistics, Terms, check_density
from likejax.keys import KeyLike, as_key
from likejax.models.column_maps import ColumnMaps
from likejax.models.vector_flows import NSFConfig
from likejax.nn.modules import replace
from likejax.settings import Settings, checked


class Tabular(Density):
    """The raw rows of a table under a density ``p`` of real vectors.

    ``log_prob(x) = log p(z) + log |det dz/dx|`` with ``z`` the standardized image of ``x``. A
    positive column is mapped by its logarithm, a bounded one by its logit. A discrete column gets
    uniform noise first: its values have masses, and one draw of the noise is a bound. So nats refer
    to the raw table, a density in its continuous columns and a mass in its discrete ones, and
    compare between all models of it. A row that the columns cannot hold has the log-probability
    minus infinity. Samples are raw rows, categories as numbers; ``lj.data.as_columns`` names them.

    Args:
      density: A continuous density of vectors with an entry for each column.
      columns: Kind of each column, such as ``dataset.column_kinds``.

    Raises:
      TypeError: If the density is on integers, or something else than kinds is given.
      ValueError: If the density is of another shape.

    Attributes:
      column_kinds: Kind of each column.
      kind: Kind of ``density`` without discrete columns; with some ``BOUND``, or ``ESTIMATE`` if
        ``density`` only estimates.

    References:
      Uria, Murray and Larochelle, 2013, RNADE, arXiv:1306.0186 (the noise).

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> normal = lj.models.FullGaussian(jnp.zeros(1), jnp.eye(1), (1,))
      >>> log_normal = lj.models.Tabular(normal, [lj.data.Positive()])
      >>> [round(value, 4) for value in log_normal.log_prob(jnp.array([[1.0], [-1.0]])).tolist()]
      [-0.9189, -inf]
    """

    def __init__(self, density: Density, columns: object):
        check_density(density)
        if density.levels is not None:
            raise TypeError("expected a continuous density of real vectors, got one on integers")
        kinds = checked("columns", columns, tuple[Column, ...])
        if density.event_shape != (len(kinds),):
            raise ValueError(
                f"expected a density of event shape ({len(kinds)},), one entry for each "
                f"column, got {density.event_shape}: set the dimensions of its config"
            )
        self.density = density
        self.column_kinds = kinds
        self.maps = ColumnMaps(kinds)
        self.standardize = Standardize(len(kinds))
        self.event_shape = density.event_shape
        self.condition_shape = density.condition_shape
        self.num_classes = density.num_classes

    @property
    def kind(self) -> Kind:
        """Whether ``log_prob`` is exact, a bound or an estimate."""
        inner = self.density.kind
        return Kind.BOUND if inner is Kind.EXACT and self.maps.adds_noise else inner

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        z, log_det, key = self._mapped(x, key)
        return self._total(x, self.density._log_prob(z, key, condition), log_det)

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        z, log_det, key = self._mapped(x, key)
        terms = self.density._terms(z, key, condition)
        return terms._replace(log_prob=self._total(x, terms.log_prob, log_det))

    def _mapped(self, x: Array, key: Array | None) -> tuple[Array, Array, Array | None]:
        """The vector of one row, the log-determinant of the map, and the key that is left."""
        noise, key = self._noise(key, x)
        outside = self.maps.outside(x)
        # any row that the columns hold in place of one they do not: no gradient may be NaN
        held = jnp.where(outside, self.maps.inverse(jnp.zeros_like(x)), x)
        return *self._forward(held, noise), key

    def _total(self, x: Array, log_prob: Array, log_det: Array) -> Float[Array, ""]:
        """The log-probability of a row; minus infinity if the columns cannot hold it."""
        return jnp.where(self.maps.outside(x).any(), -jnp.inf, log_prob + log_det)

    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """Statistics of the density inside, of the row as standardized real numbers."""
        z, _, inner_key = self._mapped(x, key)
        values = self.density._statistics(z, inner_key, condition)
        return {**values, "log_prob": self._log_prob(x, key, condition)}

    def offers(self, query: str) -> bool:
        """Returns whether the density inside has a query.

        Args:
          query: Name of the query; per-dimension terms are not those of the density inside.
        """
        return super().offers(query) and self.density.offers(query)

    def _white_latents(
        self, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, ...]:
        z, _, inner_key = self._mapped(x, key)
        return self.density._white_latents(z, inner_key, condition)

    def _embed(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, " d"]:
        z, _, inner_key = self._mapped(x, key)
        return self.density._embed(z, inner_key, condition)

    def _diffusion(self, x: Array, key: Array | None, condition: Array | None) -> Diffusion:
        z, _, inner_key = self._mapped(x, key)
        return self.density._diffusion(z, inner_key, condition)

    def _noise(self, key: Array | None, x: Array) -> tuple[Array, Array | None]:
        """Noise of one row, and the key that is left."""
        if not self.maps.adds_noise:
            return jnp.zeros_like(x), key
        assert key is not None
        noise_key, density_key = jax.random.split(key)
        return self.maps.noise(noise_key, x.dtype), density_key

    def _forward(self, x: Array, noise: Array) -> tuple[Array, Float[Array, ""]]:
        """One row as standardized real numbers, with the log-determinant."""
        y, log_det = self.maps.forward(x, noise)
        z, log_det_of_scale = self.standardize.forward(y)
        return z, log_det + log_det_of_scale

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        z, finite = self.density._draw(key, condition, temperature)
        return self.maps.inverse(self.standardize.inverse(z)), finite

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Tabular:
        """Returns a density whose standardization and data-dependent parameters fit ``batch``.

        Args:
          batch: Raw rows ``(n, d)``.
          key: Key of the noise.

        Raises:
          ValueError: If a column holds a value that it cannot take.
        """
        rows = self._checked_batch(batch)
        if not isinstance(rows, Tracer):
            check_support(np.asarray(rows), self.maps.columns)
        noise_key, density_key = jax.random.split(as_key(key))
        maps, standardize, z = _fitted(self.maps, self.standardize, rows, noise_key)
        density = self.density.initialize(z, density_key)
        return replace(self, maps=maps, standardize=standardize, density=density)


@jax.jit
def _fitted(
    maps: ColumnMaps, standardize: Standardize, rows: Float[Array, "n d"], key: Array
) -> tuple[ColumnMaps, Standardize, Float[Array, "n d"]]:
    """Maps and standardization that are fitted to rows, and the rows as they see them."""
    fitted = maps.initialize(rows)
    noise = jax.vmap(lambda each: fitted.noise(each, rows.dtype))(jax.random.split(key, len(rows)))
    y = jax.vmap(fitted.forward)(rows, noise)[0]
    scaled = standardize.initialize(y, key)
    return fitted, scaled, jax.vmap(lambda row: scaled.forward(row)[0])(y)


@dataclasses.dataclass(frozen=True)
class TabularConfig(Settings):
    """A model of a table whose columns are declared, around a model of real vectors.

    Example:
      >>> import likejax as lj
      >>> frame = {"size": [0.5, 1.2, 0.9, 0.7], "rooms": [1, 3, 2, 2]}
      >>> table = lj.Dataset.from_table(frame, columns={"size": "positive"})
      >>> flow = lj.models.NSFConfig(dimensions=2, depth=2, width=8)
      >>> lj.build(lj.models.TabularConfig(table.column_kinds, flow), key=0).kind
      <Kind.BOUND: 'bound'>
    """

    family: ClassVar[str] = "tabular"

    columns: tuple[Column, ...] = ()
    """Kind of each column: the ``column_kinds`` of the training data."""
    model: Any = dataclasses.field(default_factory=NSFConfig)
    """Config of the density of real vectors, with a dimension for each column."""

    def _check_together(self):
        if not hasattr(self.model, "build") or isinstance(self.model, type):
            raise TypeError(
                "expected TabularConfig.model to be the config of a density of vectors, such as "
                f"lj.models.NSFConfig(), got {self.model!r:.100}"
            )

    def build(self, rngs: nnx.Rngs) -> Tabular:
        """Builds the untrained density.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of raw rows ``(len(columns),)``.

        Raises:
          ValueError: If the config has no columns.
        """
        if not self.columns:
            raise ValueError(
                "expected TabularConfig.columns of the training data, got none: pass "
                "columns=train.column_kinds, where train is a lj.Dataset.from_table(...)"
            )
        return Tabular(self.model.build(rngs), self.columns)

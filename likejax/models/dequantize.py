"""From a continuous density to one on integers, by uniform noise."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Num

from likejax.batching import Rows, over_batch
from likejax.bijections.bijection import Latent
from likejax.density import (
    Density,
    Diffusion,
    Kind,
    Statistics,
    Terms,
    check_density,
    integer_dtype,
)
from likejax.inputs import inside_levels
from likejax.keys import KeyLike, as_key, keys_of_batch
from likejax.models.flow import Flow
from likejax.nn.modules import replace
from likejax.rounding import warn_of_lost
from likejax.settings import Levels, checked

_MARGIN = 0.01
"""Distance that the noise of ``encode`` keeps from the edges of its cell, in levels."""


class Dequantized(Density):
    """The probability mass of integers ``0..levels-1`` under a density ``p`` on ``[0, 1]^D``.

    ``log P(k, u) = log p((k + u) / levels) - D log(levels)`` with ``u`` uniform on ``[0, 1)^D``.
    Since ``E_u[P(k, u)]`` is the mass that ``p`` gives to the cell of ``k``, one draw is a bound.
    This class is the only owner of ``log(levels)``.

    Args:
      density: A continuous density; its scale is the unit interval.
      levels: Number of integer values.

    Attributes:
      kind: ``BOUND``, or ``ESTIMATE`` if ``density`` only estimates.

    References:
      Uria, Murray and Larochelle, 2013, RNADE, arXiv:1306.0186. Theis, van den Oord and Bethge,
      2016, A note on the evaluation of generative models, arXiv:1511.01844, section 3.1.

    Example:
      >>> import likejax as lj, numpy as np
      >>> density = lj.models.Dequantized(lj.models.Uniform((2, 2, 1)), levels=4)
      >>> density.log_prob(np.zeros((3, 2, 2, 1), np.uint8), key=0).shape
      (3,)
    """

    levels: int

    def __init__(self, density: Density, levels: int):
        check_density(density)
        if density.levels is not None:
            raise TypeError("expected a continuous density to dequantize, got one on integers")
        self.density = density
        self.levels = checked("levels", levels, Levels)
        self.event_shape = density.event_shape
        self.condition_shape = density.condition_shape
        self.num_classes = density.num_classes

    @property
    def kind(self) -> Kind:
        """Whether ``log_prob`` is a bound or an estimate."""
        return Kind.ESTIMATE if self.density.kind is Kind.ESTIMATE else Kind.BOUND

    def dequantize(self, x: Num[Array, "*shape"], key: Array) -> Float[Array, "*shape"]:
        """Returns ``(x + u) / levels`` with ``u`` uniform on [0, 1).

        Args:
          x: Integers, one example or a batch; floats that hold them are taken too, by which a
            gradient can be taken.
          key: One key.
        """
        noise = jax.random.uniform(key, (x.size,)).reshape(x.shape)
        return (x.astype(noise.dtype) + noise) / self.levels

    def quantize(self, y: Float[Array, "*shape"]) -> Integer[Array, "*shape"]:
        """Inverts ``dequantize``: ``floor(levels * y)``, clipped to ``0..levels-1``.

        Args:
          y: Numbers of any shape, on the scale on which the levels span [0, 1].

        Returns:
          Integers ``0..levels-1`` of the smallest unsigned type, of the shape of ``y``.
        """
        k = jnp.clip(jnp.floor(y * self.levels), 0, self.levels - 1)
        return k.astype(integer_dtype(self.levels))

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        y, density_key = self._continuous(x, key)
        return self._mass(x, self.density._log_prob(y, density_key, condition))

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        y, density_key = self._continuous(x, key)
        terms = self.density._terms(y, density_key, condition)
        return terms._replace(log_prob=self._mass(x, terms.log_prob))

    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """Statistics of the density inside, at the point of the cell that ``log_prob`` sees."""
        y, density_key = self._continuous(x, key)
        values = self.density._statistics(y, density_key, condition)
        return {**values, "log_prob": self._mass(x, values["log_prob"])}

    def offers(self, query: str) -> bool:
        """Returns whether the density inside has a query.

        Args:
          query: Name of the query; per-dimension terms are not those of the density inside.
        """
        return super().offers(query) and self.density.offers(query)

    def _white_latents(
        self, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, ...]:
        y, density_key = self._continuous(x, key)
        return self.density._white_latents(y, density_key, condition)

    def _embed(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, " d"]:
        y, density_key = self._continuous(x, key)
        return self.density._embed(y, density_key, condition)

    def _diffusion(self, x: Array, key: Array | None, condition: Array | None) -> Diffusion:
        y, density_key = self._continuous(x, key)
        return self.density._diffusion(y, density_key, condition)

    def _continuous(self, x: Array, key: Array | None) -> tuple[Float[Array, "*event"], Array]:
        """The point of the cell that ``log_prob`` sees, and the key that is left."""
        assert key is not None
        noise_key, density_key = jax.random.split(key)
        return self.dequantize(x, noise_key), density_key

    def _mass(self, x: Num[Array, "*shape"], log_prob: Float[Array, ""]) -> Float[Array, ""]:
        """Turns the density at a point of a cell into a mass; it is zero outside the levels."""
        mass = log_prob - x.size * math.log(self.levels)
        return jnp.where(inside_levels(x, self.levels).all(), mass, -jnp.inf)

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        y, finite = self.density._draw(key, condition, temperature)
        return self.quantize(y), finite

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Dequantized:
        """Returns a density whose data-dependent parameters fit ``batch``.

        Args:
          batch: Integer examples ``(n, *event_shape)``.
          key: Key of the noise.
        """
        flat = self._checked_batch(batch)
        noise_key, density_key = jax.random.split(as_key(key))
        continuous = self.dequantize(flat, noise_key)
        return replace(self, density=self.density.initialize(continuous, density_key))

    def encode(self, x: ArrayLike, *, key: KeyLike, condition: ArrayLike | None = None) -> Latent:
        """All latents of integer examples after dequantization; see ``Flow.encode``.

        The noise keeps a hundredth of a level away from the edges of its cell, so that rounding in
        the flow there and back cannot carry it into the next one.

        Args:
          x: Integers ``(*batch, *event_shape)``.
          key: One key for the batch, or keys of shape ``batch``, as in ``log_prob``.
          condition: ``(*batch, *condition_shape)``.

        Returns:
          Latents with leading axes ``batch``: an array, or a tuple of arrays, coarsest first.
        """
        flat, batch = self._checked(x)
        rows = Rows(flat, keys_of_batch(key, batch), None, batch)
        y = over_batch(_inside_cells, self, rows)
        return self.flow.encode(y, condition=condition)

    def decode(self, z: Latent, *, condition: ArrayLike | None = None) -> Integer[Array, "..."]:
        """The integers of latents ``z``: ``decode(encode(x, key=key))`` is ``x``.

        A warning counts the images whose numbers are not finite before they are rounded.

        Args:
          z: Latents with leading axes ``batch``.
          condition: ``(*batch, *condition_shape)``.

        Returns:
          Integers ``(*batch, *event_shape)``.

        Raises:
          ValueError: If the latents are of other shapes, or no image is finite.
        """
        y = self.flow.decode(z, condition=condition)
        finite = jnp.isfinite(y).all(tuple(range(-len(self.event_shape), 0)))
        again = "density.flow.decode(z) shows the numbers."
        warn_of_lost(finite.reshape(-1), "decoded image", again)
        return self.quantize(y)

    @property
    def flow(self) -> Flow:
        """The flow inside.

        Raises:
          TypeError: If the continuous density is not a flow, and so has no latents.
        """
        if not isinstance(self.density, Flow):
            raise TypeError(
                f"expected a flow to encode with, got {type(self.density).__name__}, "
                "which has no latents"
            )
        return self.density


def _inside_cells(
    dequantized: Dequantized, x: Integer[Array, "*shape"], key: Array, condition: None
) -> Float[Array, "*shape"]:
    """Dequantized integers that keep ``_MARGIN`` from the edges of their cells."""
    del condition
    centers = (x + 0.5) / dequantized.levels
    noisy = dequantized.dequantize(x, key)
    return centers + (1 - 2 * _MARGIN) * (noisy - centers)

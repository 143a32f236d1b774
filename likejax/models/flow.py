"""Normalizing flows: a bijection to standard normal latents."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from likejax.bijections.bijection import Bijection, Latent, check_bijection, dry_run
from likejax.bijections.chain import Chain
from likejax.bijections.standardize import Standardize
from likejax.density import Density, Kind, Terms
from likejax.distributions import standard_normal_log_prob
from likejax.inputs import as_array
from likejax.keys import KeyLike, as_key
from likejax.nn.modules import replace
from likejax.settings import Count, checked


class Flow(Density):
    """``log p(x) = log N(z; 0, I) + log |det dz/dx|`` with ``z = bijection(x)``, on continuous data.

    Every learned prior is a whitening map inside the bijection, so the base is always the standard normal,
    ``encode`` gives white latents, and temperature is a factor on their standard deviation.

    Args:
      bijection: Data to latent; the latent is an array or a tuple of arrays.
      event_shape: Shape of one example.
      condition_shape: Shape of one condition, if the bijection uses it.

    Raises:
      TypeError: If ``bijection`` is not one.
      ValueError: If the shapes of the maps do not fit; the error names the map.

    Attributes:
      kind: ``EXACT``, or ``ESTIMATE`` if a map estimates its log-determinant.
    """

    def __init__(
        self,
        bijection: Bijection,
        event_shape: tuple[int, ...],
        *,
        condition_shape: tuple[int, ...] | None = None,
    ):
        check_bijection(bijection)
        self.bijection = bijection
        self.event_shape = checked("event_shape", event_shape, tuple[Count, ...])
        self.condition_shape = condition_shape
        self.latent_shapes()  # raises if the shapes of the maps do not fit

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return Kind.ESTIMATE if self.bijection.estimates else Kind.EXACT

    @property
    def sum_log_std(self) -> float | None:  # type: ignore[override]
        """``sum(log std)`` of the data if the flow begins by standardizing them."""
        first = (
            self.bijection.bijections[0] if isinstance(self.bijection, Chain) else self.bijection
        )
        return float(first.sum_log_std()) if isinstance(first, Standardize) else None

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        z, log_det = self.bijection.forward(x, key, condition)
        return self._latent_log_prob(z) + log_det

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        z, log_det, parts = self.bijection.terms(x, key, condition)
        return Terms(self._latent_log_prob(z) + log_det, parts)

    def _latent_log_prob(self, z: Latent) -> Float[Array, ""]:
        return sum(standard_normal_log_prob(part).sum() for part in jax.tree.leaves(z))  # type: ignore[return-value]

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        shapes, tree = jax.tree.flatten(self.latent_shapes())
        keys = jax.random.split(key, len(shapes))
        parts = [
            temperature * jax.random.normal(k, s.shape, s.dtype)
            for k, s in zip(keys, shapes, strict=True)
        ]
        return self.bijection.inverse(jax.tree.unflatten(tree, parts), condition)

    def latent_shapes(self) -> Latent:
        """Shape and dtype of the latents of one example, as ``jax.ShapeDtypeStruct``."""
        x = jax.ShapeDtypeStruct(self.event_shape, jnp.zeros(()).dtype)
        condition = None
        if self.condition_shape is not None:
            condition = jax.ShapeDtypeStruct(self.condition_shape, jnp.int32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(functools.partial(dry_run, self.bijection), x, key, condition)

    def encode(self, x: ArrayLike, *, condition: ArrayLike | None = None) -> Latent:
        """All latents of ``x``, white under the model; ``decode`` undoes it.

        Args:
          x: ``(*batch, *event_shape)``.
          condition: ``(*batch, *condition_shape)``.

        Returns:
          Latents with leading axes ``batch``: an array, or a tuple of arrays, coarsest first.
        """
        flat, batch = self._checked(x)
        latents = _encode(self, flat, self._checked_condition(condition, batch))
        return jax.tree.map(lambda part: part.reshape(batch + part.shape[1:]), latents)

    def decode(self, z: Latent, *, condition: ArrayLike | None = None) -> Float[Array, "..."]:
        """The data of latents ``z``, as ``encode`` returned them."""
        z = jax.tree.map(lambda part: as_array("a latent", part), z)
        parts, shapes = jax.tree.leaves(z), jax.tree.leaves(self.latent_shapes())
        if len(parts) != len(shapes):
            raise ValueError(f"expected {len(shapes)} latent arrays, got {len(parts)}")
        for part, wanted in zip(parts, shapes, strict=True):
            if part.ndim < wanted.ndim or part.shape[part.ndim - wanted.ndim :] != wanted.shape:
                raise ValueError(
                    f"expected a latent of shape (*batch, {wanted.shape}), got {part.shape}"
                )
        batch = parts[0].shape[: parts[0].ndim - shapes[0].ndim]
        for part in parts:
            if part.shape[: len(batch)] != batch:
                raise ValueError(
                    f"expected latents of one batch shape, got {batch} and {part.shape[: len(batch)]}"
                )
        count = math.prod(batch)
        z = jax.tree.map(
            lambda part: jnp.asarray(part).reshape(count, *part.shape[len(batch) :]), z
        )
        x = _decode(self, z, self._checked_condition(condition, batch))
        return x.reshape(batch + self.event_shape)

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Flow:
        """A new flow whose data-dependent maps fit ``batch``, continuous examples ``(n, *event_shape)``."""
        flat = self._checked_batch(batch)
        return replace(self, bijection=_initialize(self.bijection, flat, as_key(key)))


@jax.jit
def _encode(flow: Flow, x: Array, condition: Array | None) -> Latent:
    return jax.vmap(lambda x, condition: flow.bijection.forward(x, None, condition)[0])(
        x, condition
    )


@jax.jit
def _decode(flow: Flow, z: Latent, condition: Array | None) -> Array:
    return jax.vmap(flow.bijection.inverse)(z, condition)


@jax.jit
def _initialize(bijection: Bijection, batch: Array, key: Array) -> Bijection:
    return bijection.initialize(batch, key)

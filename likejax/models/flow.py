"""Normalizing flows: a bijection to latents of a simple density, by default standard normal."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from likejax.batching import Rows, over_batch
from likejax.bijections.bijection import Bijection, Latent, check_bijection, dry_run
from likejax.bijections.chain import Chain
from likejax.bijections.standardize import Standardize
from likejax.density import Density, Kind, Statistics, Terms
from likejax.distributions import standard_normal_log_prob
from likejax.inputs import as_array
from likejax.keys import KeyLike, as_key
from likejax.models.bases import LatentDensity, check_latent_density
from likejax.nn.modules import replace
from likejax.settings import Count, checked


class Flow(Density):
    """``log p(x) = log N(z; 0, I) + log |det dz/dx|`` with ``z = bijection(x)``, continuous data.

    Every learned prior is a whitening map inside the bijection. So the base is the standard normal,
    ``encode`` gives white latents, and temperature is a factor on their standard deviation. Heavy
    tails and modes apart from each other, which no such map can make well, are the exception: for
    them there is another ``base``, ``log p(x) = log base(z) + log |det dz/dx|``, whose latents are
    not white. ``lj.models.StudentT`` and ``lj.models.GaussianMixture`` say when to take which, and
    what temperature means.

    Args:
      bijection: Map from data to latent; the latent is an array or a tuple of arrays.
      event_shape: Shape of one example.
      condition_shape: Shape of one condition, if the bijection uses it.
      num_classes: Number of class labels, if the condition is one.
      base: Density of all latents of an example as one vector, in the order of ``encode``;
        ``None`` for the standard normal.

    Raises:
      TypeError: If ``bijection`` or ``base`` is not one.
      ValueError: If the shapes of the maps do not fit, the error names the map; or if the base has
        other dimensions.

    Attributes:
      kind: ``EXACT``, or ``ESTIMATE`` if a map estimates its log-determinant.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,))
      >>> flow.encode(jnp.ones((3, 2))).shape
      (3, 2)
    """

    def __init__(
        self,
        bijection: Bijection,
        event_shape: tuple[int, ...],
        *,
        condition_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        base: LatentDensity | None = None,
    ):
        check_bijection(bijection)
        self.bijection = bijection
        self.event_shape = checked("event_shape", event_shape, tuple[Count, ...])
        self.condition_shape = condition_shape
        self.num_classes = num_classes
        self.latent_shapes()  # raises if the shapes of the maps do not fit
        if base is not None:
            check_latent_density(base, math.prod(self.event_shape))
        self.base = nnx.data(base)

    @property
    def kind(self) -> Kind:
        """Whether ``log_prob`` is exact or an estimate."""
        return Kind.ESTIMATE if self.bijection.estimates else Kind.EXACT

    @property
    def sum_log_std(self) -> float | None:
        """``sum(log std)`` of the data in nats, if the flow begins by standardizing them."""
        first = self.bijection
        if isinstance(first, Chain):
            first = first.bijections[0]
        return float(first.sum_log_std()) if isinstance(first, Standardize) else None

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        z, log_det = self.bijection.forward(x, key, condition)
        return self._latent_log_prob(z) + log_det

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        z, log_det, parts = self.bijection.terms(x, key, condition)
        return Terms(self._latent_log_prob(z) + log_det, parts)

    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """Log-determinant and latent log-probability, of each level where there are several."""
        if isinstance(self.bijection, Chain):
            z, log_dets = self.bijection.forward_in_levels(x, key, condition)
        else:
            z, log_det = self.bijection.forward(x, key, condition)
            log_dets = [log_det]
        latent, log_det = self._latent_log_prob(z), sum(log_dets[1:], start=log_dets[0])
        values = {
            "log_prob": latent + log_det,
            "latent_log_prob": latent,
            "log_det": log_det,
        }
        parts = jax.tree.leaves(z)[::-1]  # the finest level, which leaves first, comes first
        if self.base is not None or len(parts) == 1 or len(parts) != len(log_dets):
            return values
        for level, (part, of_level) in enumerate(zip(parts, log_dets, strict=True), start=1):
            values[f"latent_log_prob_{level}"] = standard_normal_log_prob(part).sum()
            values[f"log_det_{level}"] = of_level
        return values

    def offers(self, query: str) -> bool:
        """Returns whether the flow has a query; latents of another base are not white.

        Args:
          query: Name of the query, see ``Density.offers``.
        """
        return super().offers(query) and (query != "white_latents" or self.base is None)

    def _white_latents(
        self, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, ...]:
        z, _ = self.bijection.forward(x, key, condition)
        return z if isinstance(z, tuple) else (z,)

    def _embed(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, " d"]:
        z, _ = self.bijection.forward(x, key, condition)
        return (z[0] if isinstance(z, tuple) else z).reshape(-1)

    def _latent_log_prob(self, z: Latent) -> Float[Array, ""]:
        """Log-density of all latents of one example under the base, nats."""
        if self.base is not None:
            flat = [part.reshape(-1) for part in jax.tree.leaves(z)]
            return self.base.log_prob(jnp.concatenate(flat))
        parts = [standard_normal_log_prob(part).sum() for part in jax.tree.leaves(z)]
        return sum(parts[1:], start=parts[0])

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        if self.base is not None:
            return self.bijection.inverse(self._latents_of_base(key, temperature), condition)
        shapes, tree = jax.tree.flatten(self.latent_shapes())
        keys = jax.random.split(key, len(shapes))
        parts = []
        for part_key, latent in zip(keys, shapes, strict=True):
            noise = jax.random.normal(part_key, latent.shape, latent.dtype)
            parts.append(temperature * noise)
        return self.bijection.inverse(jax.tree.unflatten(tree, parts), condition)

    def _latents_of_base(self, key: Array, temperature: ArrayLike) -> Latent:
        """Latents of one example drawn from a base, which makes all entries as one vector."""
        assert self.base is not None
        vector = self.base.sample(key, temperature)
        shapes, tree = jax.tree.flatten(self.latent_shapes())
        parts, start = [], 0
        for latent in shapes:
            end = start + math.prod(latent.shape)
            parts.append(vector[start:end].reshape(latent.shape).astype(latent.dtype))
            start = end
        return jax.tree.unflatten(tree, parts)

    def latent_shapes(self) -> Latent:
        """Shape and dtype of the latents of one example, as ``jax.ShapeDtypeStruct``."""
        x = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        condition = self.condition_form
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(functools.partial(dry_run, self.bijection), x, key, condition)

    def encode(self, x: ArrayLike, *, condition: ArrayLike | None = None) -> Latent:
        """All latents of ``x``, drawn from the base if the model is right; ``decode`` undoes it.

        They are white for the standard normal alone, not for another ``base``.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          condition: ``(*batch, *condition_shape)``.

        Returns:
          Latents with leading axes ``batch``: an array, or a tuple of arrays, coarsest first.
        """
        flat, batch = self._checked(x)
        rows = Rows(flat, None, self._checked_condition(condition, batch), batch)
        return over_batch(_encoded, self, rows)

    def decode(self, z: Latent, *, condition: ArrayLike | None = None) -> Float[Array, "..."]:
        """The data of latents ``z``, as ``encode`` returned them.

        Args:
          z: Latents with leading axes ``batch``.
          condition: ``(*batch, *condition_shape)``.

        Returns:
          Examples ``(*batch, *event_shape)``.

        Raises:
          ValueError: If the latents are of other shapes, or of several batch shapes.
        """
        z = jax.tree.map(lambda part: as_array("a latent", part), z)
        batch = self._batch_of_latents(z)
        rank, count = len(batch), math.prod(batch)
        flat = jax.tree.map(lambda part: part.reshape(count, *part.shape[rank:]), z)
        rows = Rows(flat, None, self._checked_condition(condition, batch), batch)
        return over_batch(_decoded, self, rows)

    def _batch_of_latents(self, z: Latent) -> tuple[int, ...]:
        """The batch shape of latents, whose other axes are checked."""
        parts, shapes = jax.tree.leaves(z), jax.tree.leaves(self.latent_shapes())
        if len(parts) != len(shapes):
            raise ValueError(f"expected {len(shapes)} latent arrays, got {len(parts)}")
        batches = []
        for part, wanted in zip(parts, shapes, strict=True):
            rank = part.ndim - wanted.ndim
            if rank < 0 or part.shape[rank:] != wanted.shape:
                raise ValueError(
                    f"expected a latent of shape (*batch, {wanted.shape}), got {part.shape}"
                )
            batches.append(part.shape[:rank])
        for batch in batches:
            if batch != batches[0]:
                raise ValueError(
                    f"expected latents of one batch shape, got {batches[0]} and {batch}"
                )
        return batches[0]

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Flow:
        """Returns a flow whose data-dependent maps fit ``batch``.

        Args:
          batch: Continuous examples ``(n, *event_shape)``.
          key: Key of the noise, if any.
        """
        flat = self._checked_batch(batch)
        return replace(self, bijection=self.bijection.initialize(flat, as_key(key)))


def _encoded(flow: Flow, x: Array, key: None, condition: Array | None) -> Latent:
    return flow.bijection.forward(x, key, condition)[0]


def _decoded(flow: Flow, z: Latent, key: None, condition: Array | None) -> Array:
    del key
    return flow.bijection.inverse(z, condition)

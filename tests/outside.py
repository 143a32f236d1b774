"""Everything that a user may add to likejax, defined outside the package: see ``test_doors.py``."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import likejax as lj
from likejax.data.batches import Batch
from likejax.settings import Positive, Settings


class Laplace(lj.Density):
    """Independent Laplace distributions of points."""

    kind = lj.Kind.EXACT
    levels = None

    def __init__(self, dimensions: int, scale: float):
        self.event_shape = (dimensions,)
        self.log_scale = nnx.Param(jnp.full((dimensions,), jnp.log(scale)))

    def _log_prob(self, x, key, condition):
        scale = jnp.exp(self.log_scale[...])
        return -(jnp.abs(x) / scale + jnp.log(2 * scale)).sum()

    def _sample(self, key, condition, temperature):
        noise = jax.random.laplace(key, self.event_shape)
        return temperature * jnp.exp(self.log_scale[...]) * noise


@dataclasses.dataclass(frozen=True)
class LaplaceConfig(Settings):
    """A family: any dataclass with a method ``build``."""

    dimensions: int = 2
    scale: Positive = 1.0

    def build(self, rngs: nnx.Rngs) -> Laplace:
        """The untrained density."""
        del rngs
        return Laplace(self.dimensions, self.scale)


@dataclasses.dataclass(frozen=True)
class Clipped:
    """An objective with a setting."""

    largest: float = 100.0

    def __call__(
        self, density: lj.Density, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Mean of clipped negative log-likelihoods in nats."""
        nats = -density.terms(batch.x, key=key).log_prob
        return jnp.mean(jnp.minimum(nats, self.largest)), {"clipped": jnp.mean(nats > self.largest)}


OPTIMIZER = optax.chain(
    optax.clip(1.0), optax.lion(optax.warmup_cosine_decay_schedule(0.0, 0.02, 4, 40))
)


@dataclasses.dataclass(frozen=True)
class Surprise(lj.ood.Score):
    """A score with a setting."""

    scale: Positive = 1.0

    @property
    def features(self):
        """The log-probability alone."""
        return (lj.ood.LogProb(),)

    def statistic(self, compute, event_shape):
        """Negative log-probability of each example, scaled."""
        return -self.scale * compute(self.features[0])


class Kept:
    """A logger that keeps its records."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.is_closed = False

    def log(self, record):
        """Keeps it."""
        self.records.append(dict(record))

    def close(self) -> None:
        """Notes it."""
        self.is_closed = True

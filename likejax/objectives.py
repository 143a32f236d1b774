"""What training minimises: plain functions of a density, a batch and a key."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.data.batches import Batch
from likejax.density import Density, bits_per_dim

Metrics = Mapping[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class NLL:
    """Mean negative log-likelihood per dimension, in bits, of one draw per example.

    ``loss = mean(-log_prob) / (D ln 2) + class_weight * mean(-class_log_prob) / ln 2``; of weighted examples, whose
    weights average 1 over the data, the mean of ``weight * value``.

    References:
      The official Glow code, whose objective this is (``weight_y`` is ``class_weight``).
    """

    class_weight: float = 0.0
    """Weight of a conditional model's classifier, in bits."""

    def __call__(self, density: Density, batch: Batch, key: Array, step: Array) -> tuple[Array, Metrics]:
        """The loss of a batch and what to log of it."""
        del step
        terms = density.terms(batch.x, key=key, condition=batch.condition)
        weight = 1.0 if batch.weight is None else batch.weight
        metrics = {"log_prob": jnp.mean(weight * terms.log_prob)}
        metrics |= {name: jnp.mean(weight * part) for name, part in terms.parts.items()}
        loss = bits_per_dim(metrics["log_prob"], density.event_shape)
        if self.class_weight:
            loss = loss - self.class_weight * metrics["class_log_prob"] / math.log(2.0)
        return loss, jax.lax.stop_gradient(metrics)

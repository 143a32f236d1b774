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
    weights average 1 over the data, the mean of ``weight * value``. The energies of a continuous flow's path are added
    as they are, ``kinetic_weight * mean(kinetic_energy) + jacobian_weight * mean(jacobian_norm)``.

    References:
      The official Glow code, whose objective this is (``weight_y`` is ``class_weight``). Finlay, Jacobsen, Nurbekyan
      and Oberman, 2020, How to train your neural ODE, arXiv:2002.02798 (RNODE, the energies).
    """

    class_weight: float = 0.0
    """Weight of a conditional model's classifier, in bits."""
    kinetic_weight: float = 0.0
    """Weight of a continuous flow's kinetic energy, for straight paths."""
    jacobian_weight: float = 0.0
    """Weight of the squared Frobenius norm of its Jacobian."""

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
        for name, factor in (("kinetic_energy", self.kinetic_weight), ("jacobian_norm", self.jacobian_weight)):
            if factor and name not in metrics:
                raise ValueError(f"the weight of {name} is {factor}, but {type(density).__name__} has no such term")
            if factor:
                loss = loss + factor * metrics[name]
        return loss, jax.lax.stop_gradient(metrics)

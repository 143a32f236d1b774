"""What training minimises: plain functions of a density, a batch and a key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.data.batches import Batch
from likejax.density import Density, LatentTerms, bits_per_dim
from likejax.settings import CountOrZero, NonNegative, Settings

Metrics = Mapping[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class NLL(Settings):
    """Mean negative log-likelihood per dimension, in bits, of one draw per example.

    ``loss = mean(-log_prob) / (D ln 2) + class_weight * mean(-class_log_prob) / ln 2``; of weighted examples, whose
    weights average 1 over the data, the mean of ``weight * value``. The energies of a continuous flow's path are added
    as they are, ``kinetic_weight * mean(kinetic_energy) + jacobian_weight * mean(jacobian_norm)``.

    References:
      The official Glow code, whose objective this is (``weight_y`` is ``class_weight``). Finlay, Jacobsen, Nurbekyan
      and Oberman, 2020, How to train your neural ODE, arXiv:2002.02798 (RNODE, the energies).
    """

    class_weight: NonNegative = 0.0
    """Weight of a conditional model's classifier, in bits."""
    kinetic_weight: NonNegative = 0.0
    """Weight of a continuous flow's kinetic energy, for straight paths."""
    jacobian_weight: NonNegative = 0.0
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
            loss = loss + bits_per_dim(self.class_weight * metrics["class_log_prob"], ())  # of one label
        for name, factor in (("kinetic_energy", self.kinetic_weight), ("jacobian_norm", self.jacobian_weight)):
            if factor and name not in metrics:
                raise ValueError(f"the weight of {name} is {factor}, but {type(density).__name__} has no such term")
            if factor:
                loss = loss + factor * metrics[name]
        return loss, jax.lax.stop_gradient(metrics)


@dataclasses.dataclass(frozen=True)
class ELBO(Settings):
    """Negative evidence lower bound of a VAE, nats, with warm-up and free nats.

    ``loss = mean(-log p(x | z)) + beta(step) * sum_i KL_i``, with ``beta`` rising linearly over the warm-up and a floor
    under each ``KL_i`` below which it costs the same. ``free_nats_per`` says what the floor ``f`` is under: ``layer``,
    ``max(mean_x KL_i, f)``; ``element``, every element of a latent with ``f / C``, ``C`` its channels, as in the
    official code of Havtorn et al., where positions do not share the budget: ``f`` nats at each.

    References:
      Kingma and Welling, 2014, arXiv:1312.6114. Sonderby et al., 2016, Ladder variational autoencoders,
      arXiv:1602.02282 (warm-up). Kingma et al., 2016, arXiv:1606.04934, appendix C.8 (free bits). Higgins et al., 2017
      (beta). Havtorn, Frellsen, Hauberg and Maaloe, 2021, arXiv:2102.08248.
    """

    beta: NonNegative = 1.0
    """Weight of the divergences after warm-up; 1 for the bound itself."""
    warmup_steps: CountOrZero = 0
    """Steps over which the weight rises linearly from zero."""
    free_nats: NonNegative = 0.0
    """Floor under the divergence of each latent."""
    free_steps: CountOrZero = 0
    """Steps after which the floor begins to sink; 0 if it stays."""
    free_fade_steps: CountOrZero = 0
    """Steps over which it sinks to zero."""
    free_nats_per: Literal["layer", "element"] = "layer"
    """What the floor is under."""
    kl: Literal["analytic", "sampled"] = "analytic"
    """Divergences in closed form given the latents above, or their estimates at the drawn values."""

    def __call__(self, density: Density, batch: Batch, key: Array, step: Array) -> tuple[Array, Metrics]:
        """The loss of a batch and what to log of it.

        Raises:
          TypeError: If the density is no VAE.
        """
        if not hasattr(density, "latent_terms"):
            raise TypeError(f"expected a VAE for the ELBO objective, got {type(density).__name__}: use NLL")
        terms = density.latent_terms(batch.x, key=key)  # type: ignore[attr-defined]
        weight = 1.0 if batch.weight is None else batch.weight
        metrics = {
            "log_prob": jnp.mean(weight * terms.log_prob),
            "reconstruction": jnp.mean(weight * terms.reconstruction),
        }
        metrics |= {f"kl_{i + 1}": jnp.mean(weight * _total(kl)) for i, kl in enumerate(terms.kl)}
        return self.loss(terms, step, weight), jax.lax.stop_gradient(metrics)

    def loss(self, terms: LatentTerms, step: Array, weight: Any = 1.0) -> Float[Array, ""]:
        """The loss from what ``VAE.latent_terms`` gives for a batch."""
        floor = self.free_nats * self._floor_left(step)
        divergence = jnp.zeros(())
        for kl in terms.kl if self.kl == "analytic" else terms.sampled_kl:
            if self.free_nats and self.free_nats_per == "element":
                channels = kl.shape[-1]
                kl = jnp.maximum(kl, (floor / channels).astype(kl.dtype))
            mean = jnp.mean(weight * _total(kl))
            if self.free_nats and self.free_nats_per == "layer":
                mean = jnp.maximum(mean, floor.astype(mean.dtype))
            divergence = divergence + mean
        beta = self.beta * (jnp.clip(step / self.warmup_steps, 0, 1) if self.warmup_steps else 1.0)
        return -jnp.mean(weight * terms.reconstruction) + beta * divergence

    def _floor_left(self, step: Array) -> Array:
        """The part of the floor that is left: 1, then sinking to 0."""
        if not self.free_steps and not self.free_fade_steps:
            return jnp.ones(())
        return 1.0 - jnp.clip((step - self.free_steps) / max(1, self.free_fade_steps), 0, 1)


def _total(kl: Array) -> Float[Array, " batch"]:
    return kl.reshape(kl.shape[0], -1).sum(1)


OBJECTIVES = {"NLL": NLL, "ELBO": ELBO}
"""Name in the record of a run to objective."""

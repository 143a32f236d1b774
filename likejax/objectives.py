"""What training minimizes: plain functions of a density, a batch and a key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.data.batches import Batch
from likejax.density import Density, LatentTerms, bits_per_dim, integer_dtype
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

    def __call__(
        self, density: Density, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Metrics]:
        """The loss of a batch and what to log of it."""
        del step
        terms = density.terms(batch.x, key=key, condition=batch.condition)
        weight = 1.0 if batch.weight is None else batch.weight
        metrics = {"log_prob": jnp.mean(weight * terms.log_prob)}
        metrics |= {name: jnp.mean(weight * part) for name, part in terms.parts.items()}
        self._check_parts(density, terms.parts)
        loss = bits_per_dim(metrics["log_prob"], density.event_shape)
        if self.class_weight:
            loss = loss + bits_per_dim(
                self.class_weight * metrics["class_log_prob"], ()
            )  # of one label
        if self.kinetic_weight:
            loss = loss + self.kinetic_weight * metrics["kinetic_energy"]
        if self.jacobian_weight:
            loss = loss + self.jacobian_weight * metrics["jacobian_norm"]
        return loss, jax.lax.stop_gradient(metrics)

    def check(self, density: Density) -> None:
        """Sees before training whether the density has the terms that are weighted.

        Args:
          density: What will be trained, or its structure alone (from ``jax.eval_shape``).

        Raises:
          ValueError: If it lacks one.
        """
        if self.class_weight or self.kinetic_weight or self.jacobian_weight:
            self._check_parts(density, part_names(density))

    def _check_parts(self, density: Density, parts: Iterable[str]) -> None:
        wanted = {
            "class_weight": ("class_log_prob", "a Glow with num_classes has"),
            "kinetic_weight": ("kinetic_energy", "continuous flows (FFJORD) have"),
            "jacobian_weight": ("jacobian_norm", "continuous flows (FFJORD) have"),
        }
        for name, (part, owners) in wanted.items():
            weight = getattr(self, name)
            if weight and part not in parts:
                raise ValueError(
                    f"expected NLL.{name}=0 for {_named(density)}, got {weight}: its terms have no part {part}, which "
                    f"{owners}"
                )


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

    def __call__(
        self, density: Density, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Metrics]:
        """The loss of a batch and what to log of it.

        Raises:
          TypeError: If the density is no VAE.
        """
        self.check(density)
        terms = density.latent_terms(batch.x, key=key)  # type: ignore[attr-defined]
        weight = 1.0 if batch.weight is None else batch.weight
        metrics = {
            "log_prob": jnp.mean(weight * terms.log_prob),
            "reconstruction": jnp.mean(weight * terms.reconstruction),
        }
        metrics |= {f"kl_{i + 1}": jnp.mean(weight * _total(kl)) for i, kl in enumerate(terms.kl)}
        return self.loss(terms, step, weight), jax.lax.stop_gradient(metrics)

    def check(self, density: Density) -> None:
        """Sees before training whether the density has latents.

        Raises:
          TypeError: If it is no VAE.
        """
        if not hasattr(density, "latent_terms"):
            raise TypeError(
                f"expected a VAE for the ELBO objective, got {_named(density)}: use NLL"
            )

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


def part_names(density: Density) -> set[str]:
    """Names of the parts that the terms of a density have; nothing is computed.

    Args:
      density: A density, or its structure alone (from ``jax.eval_shape``).
    """
    dtype = jnp.zeros(()).dtype if density.levels is None else integer_dtype(density.levels)
    x = jax.ShapeDtypeStruct((1, *density.event_shape), dtype)
    condition = None
    if density.condition_shape is not None:
        condition = jax.ShapeDtypeStruct((1, *density.condition_shape), jnp.int32)

    def parts(density: Density, x: Array, condition: Array | None) -> Mapping[str, Array]:
        return density.terms(x, key=jax.random.key(0), condition=condition).parts

    return set(jax.eval_shape(parts, density, x, condition))


def _named(density: Density) -> str:
    """The model's class, inside the wrapper that makes it one of integers."""
    inner = getattr(density, "density", None)
    name = type(density).__name__
    return name if inner is None else f"{name}({type(inner).__name__})"


OBJECTIVES = {"NLL": NLL, "ELBO": ELBO}
"""Name in the record of a run to objective."""

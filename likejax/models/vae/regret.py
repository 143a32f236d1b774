"""Fitting of a VAE's posterior to a single example."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from likejax.models.vae.inference import Latents, Noise, Pass


@runtime_checkable
class LatentVariableModel(Protocol):
    """What is asked of a VAE here."""

    def draw_noise(self, key: Array) -> Noise:
        """Draws the noise of one example."""
        ...

    def run(self, x: Array, noise: Noise, *, condition: Array | None) -> Pass:
        """Infers the latents of one example."""
        ...

    def log_joint(self, x: Array, latents: Latents, condition: Array | None) -> Array:
        """Returns ``log p(x, z)`` of one example in nats."""
        ...


class Posterior(NamedTuple):
    """Independent normals of all latents of one example.

    Attributes:
      mean: Mean of each latent.
      log_std: Log of each latent's standard deviations.
    """

    mean: Latents
    log_std: Latents


def regret_of_one(
    model: LatentVariableModel,
    x: Array,
    key: Array,
    condition: Array | None,
    *,
    steps: int,
    learning_rate: float,
    draws: int,
) -> Float[Array, ""]:
    """Returns what the bound of one example gains by fitting its posterior, nats.

    Args:
      model: The model, which does not change.
      x: One example.
      key: Its key.
      condition: Its condition.
      steps: Steps of Adam.
      learning_rate: Learning rate.
      draws: Number of draws of the bounds before and after.
    """
    fit_key, bound_key = jax.random.split(key)
    inferred = _inferred(model, x, condition)
    fitted = _fitted(model, x, condition, inferred, fit_key, steps, learning_rate)
    noises = jax.vmap(model.draw_noise)(jax.random.split(bound_key, draws))

    def bound(posterior: Posterior) -> Float[Array, ""]:
        return jax.vmap(lambda eps: _bound(model, x, condition, posterior, eps))(
            noises.posterior
        ).mean()

    return bound(fitted) - bound(inferred)


def _inferred(model: LatentVariableModel, x: Array, condition: Array | None) -> Posterior:
    """The moments that the network infers, at the means of the latents."""
    shapes = model.draw_noise(jax.random.key(0))
    nothing = Noise(*jax.tree.map(jnp.zeros_like, tuple(shapes)))
    passed = model.run(x, nothing, condition=condition)
    moments = [each for each in passed.posteriors if each is not None]
    means = tuple(each.mean for each in moments)
    return Posterior(means, tuple(jnp.log(each.std) for each in moments))


def _fitted(
    model: LatentVariableModel,
    x: Array,
    condition: Array | None,
    start: Posterior,
    key: Array,
    steps: int,
    learning_rate: float,
) -> Posterior:
    """The moments after some steps of Adam."""
    adam = optax.adam(learning_rate)

    def step(
        carry: tuple[Posterior, optax.OptState], key: Array
    ) -> tuple[tuple[Posterior, optax.OptState], None]:
        posterior, state = carry
        eps = model.draw_noise(key).posterior
        gradient = jax.grad(lambda q: -_bound(model, x, condition, q, eps))(posterior)
        updates, state = adam.update(gradient, state)
        moved = jax.tree.map(jnp.add, posterior, updates)
        return (moved, state), None

    keys = jax.random.split(key, steps)
    (fitted, _), _ = jax.lax.scan(step, (start, adam.init(start)), keys)
    return fitted


def _bound(
    model: LatentVariableModel,
    x: Array,
    condition: Array | None,
    posterior: Posterior,
    eps: Latents,
) -> Float[Array, ""]:
    """``log p(x, z)`` and the entropy of the posterior, at one draw of the latents, nats."""
    stds = [jnp.exp(log_std) for log_std in posterior.log_std]
    draws = zip(posterior.mean, stds, eps, strict=True)
    latents = tuple(mean + std * noise for mean, std, noise in draws)
    entropy_of_one = 0.5 * (1 + math.log(2 * math.pi))
    entropies = [(log_std + entropy_of_one).sum() for log_std in posterior.log_std]
    return model.log_joint(x, latents, condition) + sum(entropies[1:], start=entropies[0])

"""Fitting of a VAE's posterior to a single example."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from likejax.distributions import normal_log_prob
from likejax.models.vae.inference import Latents, Noise, generated

if TYPE_CHECKING:
    from likejax.models.vae.density import VAE


class Posterior(NamedTuple):
    """Independent normals of all latents of one example.

    Attributes:
      mean: Mean of each latent.
      log_std: Log of each latent's standard deviations.
    """

    mean: Latents
    log_std: Latents


def regret_of_one(
    vae: VAE,
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
      vae: The model, which does not change.
      x: One example.
      key: Its key.
      condition: Its condition.
      steps: Steps of Adam.
      learning_rate: Learning rate.
      draws: Number of draws of the bounds before and after.
    """
    fit_key, bound_key = jax.random.split(key)
    inferred = _inferred(vae, x, condition)
    fitted = _fitted(vae, x, condition, inferred, fit_key, steps, learning_rate)
    noises = jax.vmap(vae.draw_noise)(jax.random.split(bound_key, draws))

    def bound(posterior: Posterior) -> Float[Array, ""]:
        return jax.vmap(lambda eps: _bound(vae, x, condition, posterior, eps))(
            noises.posterior
        ).mean()

    return bound(fitted) - bound(inferred)


def _inferred(vae: VAE, x: Array, condition: Array | None) -> Posterior:
    """The moments that the network infers, at the means of the latents."""
    shapes = vae.draw_noise(jax.random.key(0))
    nothing = Noise(*jax.tree.map(jnp.zeros_like, tuple(shapes)))
    passed = vae.run(x, nothing, condition=condition)
    moments = [each for each in passed.posteriors if each is not None]
    means = tuple(each.mean for each in moments)
    return Posterior(means, tuple(jnp.log(each.std) for each in moments))


def _fitted(
    vae: VAE,
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
        eps = vae.draw_noise(key).posterior
        gradient = jax.grad(lambda q: -_bound(vae, x, condition, q, eps))(posterior)
        updates, state = adam.update(gradient, state)
        return (Posterior(*optax.apply_updates(posterior, updates)), state), None

    keys = jax.random.split(key, steps)
    (fitted, _), _ = jax.lax.scan(step, (start, adam.init(start)), keys)
    return fitted


def _bound(
    vae: VAE, x: Array, condition: Array | None, posterior: Posterior, eps: Latents
) -> Float[Array, ""]:
    """``log p(x | z) + log p(z) + entropy of q`` at one draw of the latents, nats."""
    stds = [jnp.exp(log_std) for log_std in posterior.log_std]
    draws = zip(posterior.mean, stds, eps, strict=True)
    latents = tuple(mean + std * noise for mean, std, noise in draws)
    outputs, priors = generated(vae.ladder(condition), latents)
    total = vae._reconstruction(outputs, x)
    for z, prior, log_std in zip(latents, priors, posterior.log_std, strict=True):
        entropy = log_std + 0.5 * (1 + jnp.log(2 * jnp.pi))
        total = total + (normal_log_prob(z, *prior) + entropy).sum()
    return total

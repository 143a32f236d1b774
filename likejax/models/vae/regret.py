"""Fitting of a VAE's posterior to a single example."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from likejax.models.vae.inference import Latents, Noise, Pass


@runtime_checkable
class LatentVariableModel(Protocol):
    """What is asked of a VAE here."""

    def draw_noise(self, key: Array) -> Noise:
        """Draws the noise of one example.

        Args:
          key: Random key.
        """
        ...

    def run(self, x: Array, noise: Noise, *, condition: Array | None) -> Pass:
        """Infers the latents of one example.

        Args:
          x: One example.
          noise: Noise of all its latents.
          condition: Condition of the example, if the model has one.
        """
        ...

    def log_joint(self, x: Array, latents: Latents, condition: Array | None) -> Array:
        """Returns ``log p(x, z)`` of one example in nats.

        Args:
          x: One example.
          latents: Values of its latents.
          condition: Condition of the example, if the model has one.
        """
        ...


class Posterior(NamedTuple):
    """Independent normals of all latents of one example.

    Attributes:
      mean: Mean of each latent.
      log_std: Log of each latent's standard deviations.
    """

    mean: Latents
    log_std: Latents


class Fit(NamedTuple):
    """State of the fitting of one example's posterior.

    Attributes:
      posterior: Its moments.
      optimizer: State of Adam.
    """

    posterior: Posterior
    optimizer: optax.OptState


def begin(model: LatentVariableModel, x: Array, key: None, condition: Array | None) -> Fit:
    """Returns the state before the first step: the moments that the network infers.

    Args:
      model: The model.
      x: One example.
      key: Nothing; nothing is drawn.
      condition: Its condition.
    """
    del key
    posterior = _inferred(model, x, condition)
    return Fit(posterior, optax.scale_by_adam().init(posterior))


def step(
    model: LatentVariableModel,
    example: tuple[Array, Fit],
    key: Array,
    condition: Array | None,
    number: Array,
    rate: Array,
) -> Fit:
    """Returns the state after one step of Adam, at one draw of the latents.

    Args:
      model: The model, which does not change.
      example: One example and the state of its posterior.
      key: Key of the example.
      condition: Its condition.
      number: Number of the step, folded into the key.
      rate: Learning rate of the step.
    """
    x, fit = example
    eps = model.draw_noise(jax.random.fold_in(key, number)).posterior
    gradient = jax.grad(lambda q: -_bound(model, x, condition, q, eps))(fit.posterior)
    updates, optimizer = optax.scale_by_adam().update(gradient, fit.optimizer)
    moved = jax.tree.map(lambda old, change: old - rate * change, fit.posterior, updates)
    return Fit(moved, optimizer)


def gain(
    model: LatentVariableModel,
    example: tuple[Array, Fit],
    key: Array,
    condition: Array | None,
    *,
    draws: int,
) -> Float[Array, ""]:
    """Returns what the bound has gained by fitting, nats, both at the same draws.

    Args:
      model: The model.
      example: One example and the state of its posterior.
      key: Key of the example.
      condition: Its condition.
      draws: Number of draws.
    """
    x, fit = example
    keys = jax.random.split(jax.random.fold_in(key, np.uint32(2**32 - 1)), draws)
    noises = jax.vmap(lambda key: model.draw_noise(key).posterior)(keys)
    inferred = _inferred(model, x, condition)

    def difference(eps: Latents) -> Float[Array, ""]:
        after = _bound(model, x, condition, fit.posterior, eps)
        return after - _bound(model, x, condition, inferred, eps)

    return jax.vmap(difference)(noises).mean()


def _inferred(model: LatentVariableModel, x: Array, condition: Array | None) -> Posterior:
    """The moments that the network infers, at the means of the latents."""
    shapes = model.draw_noise(jax.random.key(0))
    nothing = Noise(*jax.tree.map(jnp.zeros_like, tuple(shapes)))
    passed = model.run(x, nothing, condition=condition)
    moments = [each for each in passed.posteriors if each is not None]
    means = tuple(each.mean for each in moments)
    return Posterior(means, tuple(jnp.log(each.std) for each in moments))


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

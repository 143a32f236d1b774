"""The times at which a diffusion model is evaluated, and what gradient its schedule gets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def evaluation_times(key: Array, count: int) -> Float[Array, " count"]:
    """One time in each of ``count`` equal parts of [0, 1), at the same place of each.

    Args:
      key: Key of the place.
      count: Number of times.
    """
    return (jax.random.uniform(key) + jnp.arange(count)) / count


@jax.custom_batching.custom_vmap
def training_time(key: Array) -> Float[Array, ""]:
    """The time of one example in training; under ``jax.vmap`` times are spread over the batch.

    With one uniform number ``u`` for the batch, example ``j`` of ``B`` gets ``(u + j / B) mod 1``:
    each time is uniform, and their mean varies less than that of independent ones.

    Args:
      key: Key of the example.

    References:
      Kingma et al., 2021, Variational diffusion models, arXiv:2107.00630, appendix I.1.
    """
    return jax.random.uniform(key)


@training_time.def_vmap
def _training_times(size: int, is_batched: list[Any], keys: Array) -> tuple[Array, bool]:
    first = keys[0] if is_batched[0] else keys
    return (jax.random.uniform(first) + jnp.arange(size) / size) % 1.0, True


# A schedule that reduces the variance of the loss needs the gradient of the squared loss,
# 2 loss d(loss), and the denoiser that of the loss itself. One backward pass gives both if the
# gradient that arrives at the schedule is multiplied by 2 loss. The loss comes after the schedule,
# so the backward pass brings it along: `carried` is a zero that goes from the one function to the
# other, and its cotangent is the loss.


@jax.custom_vjp
def scaled_by_loss(
    gamma: Float[Array, "*shape"], rate: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Returns a schedule's values as they are, with a gradient that is multiplied by 2 loss.

    Args:
      gamma: Values of the schedule.
      rate: Their derivatives by time.

    Returns:
      Both, and zeros for ``with_loss_for_schedule``.

    References:
      Kingma et al., 2021, Variational diffusion models, arXiv:2107.00630, section 5.2 and
      appendix I.2.
    """
    return gamma, rate, jnp.zeros_like(gamma)


def _scaled_forward(gamma: Array, rate: Array) -> tuple[tuple[Array, Array, Array], None]:
    return scaled_by_loss(gamma, rate), None


def _scaled_backward(_: None, cotangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    of_gamma, of_rate, loss = cotangents
    return 2 * loss * of_gamma, 2 * loss * of_rate


scaled_by_loss.defvjp(_scaled_forward, _scaled_backward)


@jax.custom_vjp
def with_loss_for_schedule(
    losses: Float[Array, "*shape"], carried: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Returns losses as they are; the backward pass takes them to ``scaled_by_loss``.

    Args:
      losses: Loss at every value of the schedule.
      carried: Last result of ``scaled_by_loss``.
    """
    del carried
    return losses


def _loss_forward(losses: Array, carried: Array) -> tuple[Array, Array]:
    del carried
    return losses, losses


def _loss_backward(losses: Array, cotangent: Array) -> tuple[Array, Array]:
    return cotangent, losses


with_loss_for_schedule.defvjp(_loss_forward, _loss_backward)

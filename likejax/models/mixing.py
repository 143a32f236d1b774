"""The log-probability of a mixture from those of its components, whatever kind they are."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.density import Kind

NO_DIFFUSION = (
    "the noise that a mixture sees in a point is the mean over its components by their posteriors "
    "at that level of noise, which need the density of the noisy point under each, and denoisers "
    "do not give that; a plain mean of what they see is the score of another density. {}"
)
"""Reason why a mixture of diffusion models offers no diffusion, and what to do instead."""


def log_mixture(
    joint: Callable[[Array | None], Float[Array, " components"]], kind: Kind, key: Array | None
) -> Float[Array, ""]:
    """One draw of ``log sum_i p(i) p(x | i)`` for one example, of the kind of the components.

    * ``EXACT`` gives ``EXACT``: the log of the sum.
    * ``BOUND`` gives ``BOUND``. Draws ``w_i`` of all components, with one key, have
      ``E[w_i] = p(x | i)``, so ``sum_i p(i) w_i`` is an importance weight of the mixture.
    * ``ESTIMATE`` gives ``ESTIMATE``. The log of a sum of exponentials of noisy estimates is too
      high on average. So one draw of all estimates ``l'_i`` gives weights
      ``q(i) ~ p(i) exp(l'_i)``, and a second draw ``l_i`` with an independent key the value
      ``sum_i q(i) (log p(i) + l_i - log q(i))``, which is at most ``log p(x)`` on average.

    Args:
      joint: Function of a key that gives one draw of ``log p(i) + log p(x | i)``, in nats, of every
        component; minus infinity for a component of probability 0.
      kind: Kind of the components' numbers.
      key: Key of the example; ``None`` if the kind is exact.

    Returns:
      A scalar in nats.
    """
    if kind is not Kind.ESTIMATE:
        return jax.nn.logsumexp(joint(key))
    assert key is not None
    weights_key, value_key = jax.random.split(key)
    log_q = jax.nn.log_softmax(joint(weights_key))
    possible = log_q > -jnp.inf  # components of probability 0 add nothing
    gain = jnp.where(possible, joint(value_key), 0) - jnp.where(possible, log_q, 0)
    return jnp.sum(jnp.exp(log_q) * gain)

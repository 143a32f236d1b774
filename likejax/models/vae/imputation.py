"""Imputation of unknown entries by a Markov chain through the latents."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Redraw = Callable[[Array, Array], tuple[Array, Array]]
"""From data and a key to new data, drawn given latents of the old ones, and their expectation."""


def chain_mean(
    redraw: Redraw,
    x: Float[Array, "*event"],
    known: Bool[Array, "*event"],
    keys: Array,
) -> Float[Array, "*event"]:
    """Runs the chain, and averages the expected data over its second half.

    Each sweep draws the latents given the data, and the unknown data given the latents.

    Args:
      redraw: One sweep over all data.
      x: Data, with a guess where they are not known.
      known: Mask of the entries that are known; they stay as they are.
      keys: One key per sweep.

    Returns:
      The expected data, with the known entries as they are.

    References:
      Rezende, Mohamed and Wierstra, 2014, Stochastic backpropagation and approximate inference in
      deep generative models, arXiv:1401.4082, appendix F.
    """

    def sweep(x: Array, key: Array) -> tuple[Array, Array]:
        drawn, mean = redraw(x, key)
        return jnp.where(known, x, drawn), mean

    _, means = jax.lax.scan(sweep, x, keys)
    return jnp.where(known, x, means[len(keys) // 2 :].mean(0))

"""Attention of positions to each other."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.nn.product import PRECISION


def attend(
    query: Float[Array, "*batch positions heads channels"],
    key: Float[Array, "*batch positions heads channels"],
    value: Float[Array, "*batch positions heads channels"],
) -> Float[Array, "*batch positions heads channels"]:
    """``softmax(query key^T / sqrt(channels)) value`` over all positions, for each head.

    It is no ``jax.nn.dot_product_attention``, whose softmax is in single precision at most. Forward
    mode can differentiate it.

    Args:
      query: Queries.
      key: Keys.
      value: Values.
    """
    logits = jnp.einsum("...qhc,...khc->...hqk", query, key, precision=PRECISION)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = jax.nn.softmax(logits / math.sqrt(query.shape[-1]), axis=-1).astype(value.dtype)
    return jnp.einsum("...hqk,...khc->...qhc", weights, value, precision=PRECISION)

"""Matrix products of arrays with weights, with a gradient by the weights that is fast on CPU.

The gradient by the weights sums over all rows, ``dW = sum_m x[m]^T g[m]``. As JAX writes it, XLA's
CPU code transposes ``g`` and multiplies at half the rate of other products. Here the narrower side
is turned and the wider side stays as it is. ``benchmarks/convolutions.py`` measures what networks
gain.

A product is linear in the array and in the weights, so it is a primitive with a gradient for each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.nn.bilinear import bilinear_primitive

PRECISION = "high"
"""Precision of matrix products in networks: TF32 on GPU, 3 bfloat16 passes on TPU, exact on CPU."""


def product(
    x: Float[Array, "*shape channels"],
    weights: Float[Array, "channels features"],
    *,
    precision: str = PRECISION,
) -> Float[Array, "*shape features"]:
    """Multiplies the last axis of ``x`` with a matrix of weights: ``x @ weights``.

    Args:
      x: Any array, channels last.
      weights: Matrix.
      precision: Precision of the products.

    Returns:
      An array with the features of the weights as last axis.
    """
    dtype = jnp.result_type(x, weights)
    x, weights = x.astype(dtype), weights.astype(dtype)
    if jax.default_backend() != "cpu":
        return _by_xla(x, weights, precision=precision)
    return _primitive.bind(x, weights, precision=precision)


def _by_xla(x: Array, weights: Array, *, precision: str) -> Array:
    return jnp.tensordot(x, weights, 1, precision=precision)


def _gradient_by_array(cotangent: Array, x: Any, weights: Array, *, precision: str) -> Array:
    del x
    return product(cotangent, weights.T, precision=precision)


def _gradient_by_weights(cotangent: Array, x: Array, weights: Any, *, precision: str) -> Array:
    channels, features = weights.aval.shape
    rows, outputs = x.reshape(-1, channels), cotangent.reshape(-1, features)
    if channels < features:
        return jnp.matmul(rows.T, outputs, precision=precision)
    turned = jnp.matmul(outputs.T, rows, precision=precision)
    # Without the barrier XLA swaps the sides of the product to save this small transpose.
    return jax.lax.optimization_barrier(turned).T


_primitive = bilinear_primitive(
    "likejax_product", _by_xla, _gradient_by_array, _gradient_by_weights
)

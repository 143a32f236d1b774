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

from likejax.nn.batch_last import batch_last_primitive
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


def dense_in_rows(
    x: Float[Array, " channels"],
    weights: Float[Array, "channels features"],
    bias: Float[Array, " features"],
    rows: int,
    *,
    precision: str = PRECISION,
) -> Float[Array, "rows columns"]:
    """Computes ``x @ weights + bias`` of one example, dealt to rows: feature ``i`` to ``i % rows``.

    Under ``jax.vmap`` the batch becomes the last axis, as functions of the rows like it.

    Args:
      x: Vector of one example.
      weights: Matrix.
      bias: Vector that is added.
      rows: Number of rows, a divisor of the number of features.
      precision: Precision of the products.
    """
    (y,) = _in_rows.bind(x, weights, bias, rows=rows, precision=precision)
    return y


def _dense_in_rows(
    x: Array, weights: Array, bias: Array, *, rows: int, precision: str
) -> tuple[Array]:
    y = jnp.tensordot(weights, x, (0, 0), precision=precision)
    y = y + jnp.expand_dims(bias, range(1, y.ndim))
    return (jnp.moveaxis(y.reshape(-1, rows, *y.shape[1:]), 1, 0),)


_in_rows = batch_last_primitive("likejax_dense_in_rows", _dense_in_rows, weights=2)

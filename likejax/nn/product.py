"""Matrix products of arrays with weights, with a gradient by the weights that is fast on CPU.

The gradient by the weights sums over all rows, ``dW = sum_m x[m]^T g[m]``. As JAX writes it, XLA's
CPU code transposes ``g`` and multiplies at half the rate of other products. Here the narrower side
is turned and the wider side stays as it is. ``benchmarks/convolutions.py`` measures what networks
gain.

A product is linear in the array and in the weights, so it is a primitive of JAX with a transpose
for each, which keeps forward mode.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

PRECISION = "high"
"""Precision of matrix products in networks: TF32 on GPU, 3 bfloat16 passes on TPU, exact on CPU."""

_primitive = Primitive("likejax_product")


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


def _over_a_batch(
    arguments: tuple[Array, Array], axes: tuple[int | None, int | None], *, precision: str
) -> tuple[Array, int]:
    """The rule of ``jax.vmap``: rows of a batch are more rows."""
    x, weights = arguments
    of_x, of_weights = axes
    if of_weights is not None:
        over = functools.partial(_by_xla, precision=precision)
        return jax.vmap(over, in_axes=axes)(x, weights), 0
    assert of_x is not None
    return _primitive.bind(jnp.moveaxis(x, of_x, 0), weights, precision=precision), 0


def _shape_of_output(x: Any, weights: Any, *, precision: str) -> Any:
    out = jax.eval_shape(functools.partial(_by_xla, precision=precision), x, weights)
    return x.update(shape=out.shape, dtype=out.dtype)


_primitive.def_impl(jax.jit(_by_xla, static_argnames="precision"))
_primitive.def_abstract_eval(_shape_of_output)
mlir.register_lowering(_primitive, mlir.lower_fun(_by_xla, multiple_results=False))
ad.defbilinear(_primitive, _gradient_by_array, _gradient_by_weights)
batching.primitive_batchers[_primitive] = _over_a_batch

"""Primitives of JAX for functions that are linear in an array and in weights.

Such a function has a fast form for batches and gradients of its own. As a primitive it keeps
forward mode, and ``jax.vmap`` over examples gives the form for batches instead of the form for
examples, each operation of which is batched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


def bilinear_primitive(
    name: str,
    function: Callable[..., Array],
    gradient_by_array: Callable[..., Array],
    gradient_by_weights: Callable[..., Array],
) -> Primitive:
    """Makes a primitive of a function of an array, whose first axes are a batch, and of weights.

    Args:
      name: Name in traced programs.
      function: ``(x, weights, **settings)`` to an array whose first axes are those of ``x``.
      gradient_by_array: ``(cotangent, x, weights, **settings)`` to a cotangent of ``x``, of which
        only the shape is known.
      gradient_by_weights: The same for the weights, of which only the shape is known.
    """
    primitive = Primitive(name)

    @functools.cache  # a network has many layers of one shape, and each trace asks for all of them
    def output(x: jax.ShapeDtypeStruct, weights: jax.ShapeDtypeStruct, **settings: Any) -> Any:
        return jax.eval_shape(functools.partial(function, **settings), x, weights)

    def shape_of_output(x: Any, weights: Any, **settings: Any) -> Any:
        forms = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (x, weights)]
        out = output(*forms, **settings)
        return x.update(shape=out.shape, dtype=out.dtype)

    def over_a_batch(
        arguments: tuple[Array, Array], axes: tuple[int | None, int | None], **settings: Any
    ) -> tuple[Array, int]:
        x, weights = arguments
        of_x, of_weights = axes
        if of_weights is not None:
            return jax.vmap(functools.partial(function, **settings), in_axes=axes)(x, weights), 0
        assert of_x is not None
        return primitive.bind(jnp.moveaxis(x, of_x, 0), weights, **settings), 0

    compiled = functools.cache(lambda **settings: jax.jit(functools.partial(function, **settings)))
    primitive.def_impl(lambda x, weights, **settings: compiled(**settings)(x, weights))
    primitive.def_abstract_eval(shape_of_output)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    ad.defbilinear(primitive, gradient_by_array, gradient_by_weights)
    batching.primitive_batchers[primitive] = over_a_batch
    return primitive

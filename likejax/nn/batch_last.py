"""Primitives of JAX for functions of examples, which ``jax.vmap`` computes with the batch last.

``jax.vmap`` puts the batch first, so that the parameters of one number lie side by side: a sum over
eight of them is then a loop of eight turns. With the batch last the same code works on rows of
hundreds of numbers, as processors like it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from likejax.nn.calls import called


def batch_last_primitive(
    name: str, function: Callable[..., Sequence[Array]], *, weights: int = 0, once: bool = False
) -> Primitive:
    """Makes a primitive of a function of arrays of an example, and of weights.

    Under ``jax.vmap`` it becomes the function itself, called once with the batch as last axis, and
    so it does under differentiation: its derivatives are those of the function, of all orders.

    Args:
      name: Name in traced programs.
      function: ``(*arrays, *weights, **settings)`` to a sequence of arrays. All arrays may have one
        more axis at their end, of the same size or of size 1; the outputs then have it too.
      weights: Number of arguments that are weights.
      once: Whether a program for CPU has the function and its derivatives once and calls them at
        every place. It then compiles faster; what XLA would fuse with its neighbors is lost.
    """

    @functools.cache
    def with_settings(**settings: Any) -> Callable[..., Sequence[Array]]:
        call = functools.partial(function, **settings)
        return called(call) if once else call

    primitive = Primitive(name)
    primitive.multiple_results = True

    @functools.cache  # a flow has many maps of one shape, and each trace asks for all of them
    def outputs_of(*forms: jax.ShapeDtypeStruct, **settings: Any) -> Any:
        return jax.eval_shape(functools.partial(function, **settings), *forms)

    def forms_of_outputs(*arguments: Any, **settings: Any) -> list[Any]:
        forms = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in arguments]
        outputs = outputs_of(*forms, **settings)
        return [
            arguments[0].update(shape=each.shape, dtype=each.dtype, weak_type=False)
            for each in outputs
        ]

    def over_a_batch(
        arguments: Sequence[Array], axes: Sequence[int | None], **settings: Any
    ) -> tuple[Sequence[Array], list[int]]:
        call = with_settings(**settings)
        arrays = len(arguments) - weights
        if any(axis is not None for axis in axes[arrays:]):
            outputs = jax.vmap(call, in_axes=tuple(axes))(*arguments)
            return outputs, [0] * len(outputs)
        moved = [
            each[..., None] if axis is None else jnp.moveaxis(each, axis, -1)
            for each, axis in zip(arguments[:arrays], axes, strict=False)
        ]
        outputs = call(*moved, *arguments[arrays:])
        return outputs, [each.ndim - 1 for each in outputs]

    def tangents_too(
        primals: Sequence[Array], tangents: Sequence[Any], **settings: Any
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        tangents = [ad.instantiate_zeros(each) for each in tangents]
        call = with_settings(**settings)
        return jax.jvp(call, tuple(primals), tuple(tangents))

    def place_of_call(*arguments: Array, **settings: Any) -> Sequence[Array]:
        return with_settings(**settings)(*arguments)

    compiled = functools.cache(lambda **settings: jax.jit(with_settings(**settings)))
    primitive.def_impl(lambda *arguments, **settings: compiled(**settings)(*arguments))
    primitive.def_abstract_eval(forms_of_outputs)
    mlir.register_lowering(primitive, mlir.lower_fun(place_of_call, multiple_results=True))
    ad.primitive_jvps[primitive] = tangents_too
    batching.primitive_batchers[primitive] = over_a_batch
    return primitive

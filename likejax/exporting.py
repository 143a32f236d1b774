"""``log_prob`` as a compiled program in a file, which runs where likejax is not installed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array

from likejax.density import (
    Density,
    Kind,
    check_density,
    combine_draws,
    integer_dtype,
    log_prob_of_draw,
)
from likejax.keys import as_key, example_keys
from likejax.nn.calls import written_out
from likejax.nn.repeat import stack
from likejax.settings import Count, checked


def export(density: Density, *, draws: int = 1, platforms: Sequence[str] | None = None) -> bytes:
    """Serializes ``log_prob`` with its parameters, for any number of examples, by ``jax.export``.

    The program takes the arguments that this density needs, in this order:

    * examples ``(n, *event_shape)``;
    * a condition, if the density is conditional: labels ``(n,)`` of ``int32``, or floats
      ``(n, *condition_shape)``;
    * the two words of a key, ``uint32`` of shape ``(2,)`` (``jax.random.key_data(key)``), unless
      the density is exact.

    It returns nats ``(n,)``, those of ``density.log_prob`` with the same key. Values outside the
    levels give ``-inf`` or are clipped, and nothing is checked. ``jax.export`` keeps programs
    readable by later versions of JAX for six months.

    Args:
      density: Any density.
      draws: Draws of each example that the program combines.
      platforms: Platforms that the program can run on: ``cpu``, ``cuda``, ``rocm``, ``tpu``; by
        default the present one.

    Returns:
      The program. To run it: ``jax.export.deserialize(bytearray(blob)).call(x, key_data)``.

    Raises:
      ValueError: If flatbuffers is not installed.

    References:
      JAX documentation, Exporting and serializing staged-out computations.

    Example:
      >>> import jax, numpy as np, likejax as lj
      >>> blob = lj.export(lj.models.Dequantized(lj.models.Uniform((2, 2, 1)), 4))
      >>> program = jax.export.deserialize(bytearray(blob))
      >>> program.call(np.zeros((3, 2, 2, 1), np.uint8), np.zeros(2, np.uint32)).shape
      (3,)
    """
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("export needs flatbuffers: pip install 'likejax[export]'") from error
    check_density(density)
    draws = checked("draws", draws, Count)
    if platforms is not None and "cpu" not in platforms:
        density = stack(density)  # a scan compiles faster there; blocks in a row run faster on CPU

    def log_prob(x: Array, *rest: Array) -> Array:
        arguments = list(rest)
        condition = arguments.pop(0) if density.condition_shape is not None else None
        keys = None
        if density.kind is not Kind.EXACT:
            rows = jnp.arange(x.shape[0], dtype=jnp.uint32)
            keys = example_keys(as_key(arguments.pop(0)), rows)

        def one(draw: Array) -> Array:
            query = functools.partial(log_prob_of_draw, density, draw=draw)
            return jax.vmap(query)(x, keys, condition)

        numbers = jnp.arange(1 if density.kind is Kind.EXACT else draws)
        return combine_draws(jax.lax.map(one, numbers), density.kind)

    is_for_others = platforms is not None and set(platforms) != {"cpu"}
    with written_out() if is_for_others else contextlib.nullcontext():
        exported = jax_export.export(jax.jit(log_prob), platforms=platforms)(*_arguments(density))
    return bytes(exported.serialize())


def _arguments(density: Density) -> list[Any]:
    """Shapes of the program's arguments, with a symbol for the number of examples."""
    (n,) = jax_export.symbolic_shape("n")
    dtype = jnp.result_type(float) if density.levels is None else integer_dtype(density.levels)
    arguments = [jax.ShapeDtypeStruct((n, *density.event_shape), dtype)]
    condition = density.condition_form
    if condition is not None:
        arguments.append(jax.ShapeDtypeStruct((n, *condition.shape), condition.dtype))
    if density.kind is not Kind.EXACT:
        arguments.append(jax.ShapeDtypeStruct((2,), np.uint32))
    return arguments

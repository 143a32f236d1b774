"""Functions that a compiled program calls, and does not write out at every place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

Function = TypeVar("Function", bound=Callable[..., Any])


def called(function: Function) -> Function:
    """Returns a function of arrays that XLA calls wherever it is used, on CPU.

    XLA writes a compiled function out at each of its places before it optimizes the whole, so that
    a function used a hundred times is lowered and optimized a hundred times. Here it is traced and
    lowered once for all arguments of one form, and stays a function of the program, with its
    derivatives. What XLA would fuse across its border is lost.

    Args:
      function: Function of pytrees of arrays, of a module's top level: it is remembered forever.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from likejax.nn.calls import called
      >>> def step(x):
      ...     return jnp.sin(x) + x
      >>> lowered = jax.jit(lambda x: called(step)(called(step)(x))).lower(jnp.ones(3))
      >>> lowered.compile().as_text().count(" call(")
      2
    """
    return _called(function)


@functools.cache
def _called(function: Callable[..., Any]) -> Any:
    def inner(*arguments: Any) -> Any:
        # what the function itself calls is written out as ever, also in its gradient
        with set_xla_metadata(inlineable="true"):
            return function(*arguments)

    compiled = jax.jit(functools.update_wrapper(inner, function))

    def call(*arguments: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    return call

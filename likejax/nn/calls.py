"""Functions that a compiled program calls, and does not write out at every place.

XLA writes a compiled function out at each of its places before it optimizes the whole. On CPU that
has two costs. A function used a hundred times is lowered and optimized a hundred times; and what
the backward pass shall compute anew is seen to be computed already, and kept. A function of this
module stays a function of the program, with its derivatives. What XLA would fuse across its border
is lost. Programs for other platforms are left to XLA.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

Function = TypeVar("Function", bound=Callable[..., Any])

_writes_out: ContextVar[bool] = ContextVar("writes_out", default=False)


def called(function: Function) -> Function:
    """Returns a function of arrays that XLA calls wherever it is used, on CPU.

    It is traced and lowered once for all arguments of one form.

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


def recomputed(function: Function) -> Function:
    """Returns a function of arrays of which gradients keep the arguments alone, as in ``remat``.

    The backward pass computes the function once more, which takes time and saves memory.

    Args:
      function: Function of pytrees of arrays, of a module's top level: it is remembered forever.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from likejax.nn.calls import recomputed
      >>> def step(x):
      ...     return jnp.sin(x)
      >>> float(jax.grad(recomputed(step))(jnp.zeros(())))
      1.0
    """
    inside = function if _is_written_out() else called(function)
    return jax.checkpoint(inside)  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Lets XLA write all functions out, for a program of other platforms than this process has."""
    token = _writes_out.set(True)
    try:
        # JAX keeps what it traced under other metadata apart: no trace with calls is used again
        with set_xla_metadata(written_out="true"):
            yield
    finally:
        _writes_out.reset(token)


@functools.cache
def _called(function: Callable[..., Any]) -> Any:
    def inner(*arguments: Any) -> Any:
        # what the function itself calls is written out as ever, also in its gradient
        with set_xla_metadata(inlineable="true"):
            return function(*arguments)

    compiled = jax.jit(functools.update_wrapper(inner, function))

    def call(*arguments: Any) -> Any:
        if _is_written_out():
            return function(*arguments)
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    return call


def _is_written_out() -> bool:
    return _writes_out.get() or jax.default_backend() != "cpu"

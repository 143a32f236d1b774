"""Modules of one structure as a single module, whose arrays have one more axis for them.

In a stack of repeated blocks (``Stacked``) the axis of the copies comes behind those of the blocks,
so that stacks are taken apart and put together as in any other module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array

from likejax.nn.modules import Module
from likejax.nn.repeat import Stacked


def together(modules: Sequence[Module]) -> Module:
    """Puts modules of one structure together.

    Args:
      modules: At least one module; all have the same structure, and arrays of the same shapes.

    Returns:
      A module of that structure, whose arrays have an axis with an entry for each module.
    """
    each = [jax.tree.leaves(module) for module in modules]
    axes = copy_axes(modules[0])
    leaves = [_stacked(parts, axis) for axis, *parts in zip(axes, *each, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(modules[0]), leaves)


def copy_at(module: Module, index: int) -> Module:
    """Returns one of the modules that were put together.

    Args:
      module: Result of ``together``.
      index: Number of the module.
    """
    leaves, structure = jax.tree.flatten(module)
    pairs = zip(leaves, copy_axes(module), strict=True)
    return jax.tree.unflatten(structure, [_taken(leaf, index, axis) for leaf, axis in pairs])


def map_copies(function: Callable[..., Any], module: nnx.Module, count: int, *each: Array) -> Any:
    """Computes a function of each of the modules that were put together, all at once.

    Args:
      function: Function of one module, and of its entry of every further array, that returns
        arrays.
      module: Result of ``together``.
      count: Number of modules, which a module without arrays does not tell.
      each: Further arrays with a leading axis of the modules.

    Returns:
      What the function returns, every array with a leading axis of the modules.
    """
    leaves, structure = jax.tree.flatten(module)

    def of_leaves(own: list[Array], *entries: Array) -> Any:
        return function(jax.tree.unflatten(structure, own), *entries)

    in_axes = (copy_axes(module), *[0] * len(each))
    return jax.vmap(of_leaves, in_axes=in_axes, axis_size=count)(leaves, *each)


def copy_axes(module: nnx.Module) -> list[int]:
    """Returns the axis of the copies in every leaf: the number of stacks that the leaf is in.

    Args:
      module: Result of ``together``, or its structure without arrays.
    """
    axes: list[int] = []
    for node in jax.tree.leaves(module, is_leaf=_is_stack):
        axes += [axis + 1 for axis in copy_axes(node.block)] if _is_stack(node) else [0]
    return axes


def _is_stack(node: object) -> bool:
    return isinstance(node, Stacked)


def _stacked(parts: list[Any], axis: int) -> Array:
    """Arrays with a new axis; made on the host where that is possible, with nothing to compile."""
    if any(isinstance(part, Tracer) for part in parts):
        return jnp.stack(parts, axis)
    return jax.device_put(np.stack([np.asarray(part) for part in parts], axis))


def _taken(leaf: Any, index: int, axis: int) -> Array:
    if isinstance(leaf, Tracer):
        return jnp.take(leaf, index, axis)
    return jax.device_put(np.take(np.asarray(leaf), index, axis))

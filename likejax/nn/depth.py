"""Repeated blocks: stored stacked, run as a scan on accelerators and as a plain loop on CPU.

XLA's CPU backend neither parallelises nor vectorises well inside a loop, so there the blocks are taken
apart once, outside any compiled function; ``for_backend`` is the one place that chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Carry = TypeVar("Carry")
Step = Callable[[Carry, Any], tuple[Carry, Any]]


class Stacked(nnx.Module):
    """``length`` blocks of one structure as a single module whose arrays have a leading axis ``length``."""

    def __init__(self, block: nnx.Module, length: int):
        self.block = block
        self.length = length

    def fold(self, step: Step, carry: Carry, *, reverse: bool = False) -> tuple[Carry, Any]:
        """``carry, out = step(carry, block)`` over the blocks in order; outs come back stacked."""
        return jax.lax.scan(step, carry, self.block, length=self.length, reverse=reverse)

    def with_blocks(self, outs: Any) -> Stacked:
        """The same repetition with the blocks that a ``fold`` put out."""
        return Stacked(outs, self.length)


class Unstacked(nnx.Module):
    """The same blocks as separate modules."""

    def __init__(self, blocks: list[nnx.Module]):
        self.blocks = nnx.List(blocks)

    def fold(self, step: Step, carry: Carry, *, reverse: bool = False) -> tuple[Carry, Any]:
        """``carry, out = step(carry, block)`` over the blocks in order; outs come back as a list."""
        outs = []
        for block in reversed(self.blocks) if reverse else self.blocks:
            carry, out = step(carry, block)
            outs.append(out)
        return carry, outs[::-1] if reverse else outs

    def with_blocks(self, outs: Any) -> Unstacked:
        """The same repetition with the blocks that a ``fold`` put out."""
        return Unstacked(outs)


Blocks = Stacked | Unstacked


def stacked_axes(name: str) -> int:
    """How many leading axes of the array of that dotted name count blocks and not entries of a weight."""
    return name.split(".").count("block")


def repeat(make: Callable[[nnx.Rngs], nnx.Module], length: int, *, rngs: nnx.Rngs) -> Stacked:
    """``length`` independently initialised blocks, built by one vectorised call of ``make``."""
    keys = jax.random.split(rngs.params(), length)
    return Stacked(jax.vmap(lambda key: make(nnx.Rngs(key)))(keys), length)


def unstack(module: Any) -> Any:
    """``module`` with every ``Stacked`` in it taken apart into an ``Unstacked``."""

    def apart(node: Any) -> Any:
        if not isinstance(node, Stacked):
            return node
        return Unstacked([jax.tree.map(lambda leaf, i=i: leaf[i], node.block) for i in range(node.length)])

    return jax.tree.map(apart, module, is_leaf=lambda node: isinstance(node, Stacked))


def stack(module: Any) -> Any:
    """``module`` with every ``Unstacked`` in it put together into a ``Stacked``."""

    def together(node: Any) -> Any:
        if not isinstance(node, Unstacked):
            return node
        return Stacked(jax.tree.map(lambda *leaves: _stack_leaves(leaves), *node.blocks), len(node.blocks))

    return jax.tree.map(together, module, is_leaf=lambda node: isinstance(node, Unstacked))


def _stack_leaves(leaves: tuple[Any, ...]) -> Any:
    """Arrays of the host stay on the host."""
    return np.stack(leaves) if isinstance(leaves[0], np.ndarray) else jnp.stack(leaves)


def for_backend(module: Any) -> Any:
    """``module`` in the form that runs fastest here: blocks apart on CPU, stacked on GPU and TPU."""
    return unstack(module) if jax.default_backend() == "cpu" else stack(module)

"""Repeated blocks: stored stacked, run as a scan or, where that is faster, one by one.

A scan compiles once for all blocks. On CPU its gradient copies the parameters of a block on their
way into and out of the loop, so large blocks are faster one by one, and a few blocks compile no
faster as a scan; there they are taken apart once, outside any compiled function. ``for_backend`` is
the one place that chooses. Many blocks of a flow that are apart call one program (``shared``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, PyTree

from likejax.nn.calls import Function, called

Carry = TypeVar("Carry")
Step = Callable[..., tuple[Carry, Any]]
"""``(carry, block, *items) -> (carry, out)``: one block, with its item of every sequence."""


class Stacked(nnx.Module):
    """Blocks of one structure as a single module whose arrays have a leading axis ``length``.

    Args:
      block: The blocks, their arrays stacked.
      length: Number of blocks.
    """

    def __init__(self, block: nnx.Module, length: int):
        self.block = block
        self.length = length

    def fold(
        self, step: Step, carry: Carry, *sequences: PyTree, reverse: bool = False
    ) -> tuple[Carry, Any]:
        """``carry, out = step(carry, block, *items)`` over the blocks in order.

        Args:
          step: One block's work.
          carry: Arrays that go from block to block.
          sequences: Each an out of an earlier ``fold``, arrays with a leading axis ``length``, or
            ``None``.
          reverse: Whether to begin with the last block; items and outs stay with their block.

        Returns:
          The last carry, and the outs of all blocks; if a step puts out a tuple, a tuple of such.
          Their form is that of the blocks, stacked or apart, and no one else's concern: they go
          to another ``fold``, to ``sum`` or to ``with_blocks``.
        """

        def one(carry: Carry, items: PyTree) -> tuple[Carry, Any]:
            return step(carry, *items)

        return jax.lax.scan(
            one, carry, (self.block, *sequences), length=self.length, reverse=reverse
        )

    def sum(self, outs: PyTree) -> Any:
        """Returns the sum over the blocks of every array in the outs of a ``fold``.

        Args:
          outs: Arrays with a leading axis ``length``.
        """
        return jax.tree.map(lambda leaf: leaf.sum(0), outs)

    def shared(self, function: Function) -> Function:
        """Returns a function of one block for use in a step: as it is, a scan has it once.

        Args:
          function: Function of a module's top level, of a block and further arrays.
        """
        return function

    def first(self) -> Any:
        """Returns a block to ask what all have in common; its arrays are those of the stack."""
        return self.block

    def at(self, index: int) -> Any:
        """Returns one block.

        Args:
          index: Number of the block, from 0.
        """
        return jax.tree.map(lambda leaf: leaf[index], self.block)

    def with_blocks(self, outs: PyTree) -> Stacked:
        """The same repetition with the blocks that a ``fold`` put out.

        Args:
          outs: New blocks, their arrays stacked.
        """
        return Stacked(outs, self.length)


class Unstacked(nnx.Module):
    """The same blocks as separate modules."""

    def __init__(self, blocks: list[nnx.Module]):
        self.blocks = nnx.List(blocks)

    @property
    def length(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def shared(self, function: Function) -> Function:
        """Returns a function of one block for use in a step: many blocks call one program.

        The gradient of a Glow of 96 blocks is so traced in a quarter of the time and compiled in
        less, and takes little more than half of the memory (``benchmarks/scan.py``). The network of
        a diffusion model, whose blocks all add to one path, was slower so.

        Args:
          function: Function of a module's top level, of a block and further arrays.
        """
        return called(function) if self.length >= _MANY_BLOCKS else function

    def first(self) -> Any:
        """Returns a block to ask what all have in common."""
        return self.blocks[0]

    def fold(
        self, step: Step, carry: Carry, *sequences: PyTree, reverse: bool = False
    ) -> tuple[Carry, Any]:
        """Folds as ``Stacked.fold``.

        Args:
          step: One block's work.
          carry: Arrays that go from block to block.
          sequences: Each an out of an earlier ``fold``, arrays with a leading axis ``length``, or
            ``None``.
          reverse: Whether to begin with the last block; items and outs stay with their block.

        Returns:
          The last carry, and a list of the outs of all blocks; if a step puts out a tuple, a tuple
          of lists.
        """
        outs: list[Any] = [None] * self.length
        order = range(self.length)
        for i in reversed(order) if reverse else order:
            items = [_item(sequence, i) for sequence in sequences]
            carry, outs[i] = step(carry, self.blocks[i], *items)
        if isinstance(outs[0], tuple):
            return carry, tuple(list(column) for column in zip(*outs, strict=True))
        return carry, outs

    def at(self, index: int) -> Any:
        """Returns one block.

        Args:
          index: Number of the block, from 0.
        """
        return self.blocks[index]

    def sum(self, outs: PyTree) -> Any:
        """Returns the sum over the blocks of every array in the outs of a ``fold``.

        Args:
          outs: Trees of arrays in a list, one for each block.
        """
        return jax.tree.map(lambda *leaves: functools.reduce(jnp.add, leaves), *outs)

    def with_blocks(self, outs: PyTree) -> Unstacked:
        """The same repetition with the blocks that a ``fold`` put out.

        Args:
          outs: New blocks in a list.
        """
        return Unstacked(outs)


def _item(sequence: PyTree, index: int) -> Any:
    """A block's part of the outs of a ``fold`` or of arrays with a leading axis."""
    if isinstance(sequence, list):
        return sequence[index]
    return jax.tree.map(lambda leaf: leaf[index], sequence)


Blocks = Stacked | Unstacked


def stacked_axes(name: str) -> int:
    """Returns how many leading axes of the array of that dotted name count blocks.

    Args:
      name: Dotted name of the array, as ``split`` gives it.
    """
    return name.split(".").count("block")


def repeat(make: Callable[[nnx.Rngs], nnx.Module], length: int, *, rngs: nnx.Rngs) -> Stacked:
    """Builds ``length`` independently initialized blocks by one vectorized call of ``make``.

    Args:
      make: Function from a source of weights to one block.
      length: Number of blocks.
      rngs: Source of the initial weights of all blocks.
    """
    keys = jax.random.split(rngs.params(), length)
    block = jax.vmap(lambda key: make(nnx.Rngs(key)))(keys)
    return Stacked(block, length)


def unstack(module: PyTree) -> Any:
    """Returns ``module`` with every ``Stacked`` in it taken apart into an ``Unstacked``.

    Args:
      module: Any module, or another pytree with modules in it.
    """
    return _map_blocks(
        lambda blocks: _apart(blocks) if isinstance(blocks, Stacked) else blocks, module
    )


def stack(module: PyTree) -> Any:
    """Returns ``module`` with every ``Unstacked`` in it put together into a ``Stacked``.

    Args:
      module: Any module, or another pytree with modules in it.
    """
    return _map_blocks(
        lambda blocks: _together(blocks) if isinstance(blocks, Unstacked) else blocks, module
    )


def _map_blocks(change: Callable[[Blocks], Blocks], module: PyTree) -> Any:
    """Returns ``module`` with ``change`` applied to each of its outermost repetitions."""

    def is_blocks(node: object) -> bool:
        return isinstance(node, Stacked | Unstacked)

    return jax.tree.map(
        lambda node: change(node) if is_blocks(node) else node, module, is_leaf=is_blocks
    )


def _apart(blocks: Stacked) -> Unstacked:
    """The blocks one by one."""
    parts = [
        jax.tree.map(lambda leaf, i=i: _slice_leaf(leaf, i), blocks.block)
        for i in range(blocks.length)
    ]
    return Unstacked(parts)


def _together(blocks: Unstacked) -> Stacked:
    """The blocks in one module with a leading axis."""
    block = jax.tree.map(lambda *leaves: _stack_leaves(leaves), *blocks.blocks)
    return Stacked(block, blocks.length)


def _slice_leaf(leaf: Array | np.ndarray, index: int) -> Array | np.ndarray:
    """One block's part of a stacked array; cut on the host on CPU, where nothing is to compile."""
    if _is_cheap_on_the_host(leaf):
        return jax.device_put(np.asarray(leaf)[index].copy())
    return leaf[index, ...]  # the dots make a number of the host an array too


def _stack_leaves(leaves: tuple[Any, ...]) -> Any:
    """Arrays of the host stay there; those on CPU are stacked there, with nothing to compile."""
    if isinstance(leaves[0], np.ndarray):
        return np.stack(leaves)
    if all(map(_is_cheap_on_the_host, leaves)):
        return jax.device_put(np.stack([np.asarray(leaf) for leaf in leaves]))
    return jnp.stack(leaves)


def _is_cheap_on_the_host(leaf: object) -> bool:
    """Whether the host may work on an array and put it back where it was, on the first CPU."""
    if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
        return False
    return jax.default_backend() == "cpu" and leaf.devices() == {jax.local_devices()[0]}


def for_backend(module: PyTree) -> Any:
    """Returns ``module`` in its fastest form.

    On GPU and TPU all blocks are stacked; on CPU only where they are many and small.

    Args:
      module: Any module, or another pytree with modules in it.
    """
    if jax.default_backend() != "cpu":
        return stack(module)
    return _map_blocks(_for_cpu, module)


_MANY_BLOCKS = 6
_SMALL_BLOCK = 30_000
"""Entries of a block. The gradient of a Glow is faster as a scan at a width of 128, about 25,000
entries, and no longer at 256, about 80,000; ``benchmarks/scan.py`` measures both forms."""


def _for_cpu(blocks: Blocks) -> Blocks:
    """The repetition in the form that CPUs run faster."""
    entries = sum(leaf.size for leaf in jax.tree.leaves(blocks)) // blocks.length
    is_faster_as_scan = blocks.length >= _MANY_BLOCKS and entries <= _SMALL_BLOCK
    if is_faster_as_scan:
        return _together(blocks) if isinstance(blocks, Unstacked) else blocks
    return _apart(blocks) if isinstance(blocks, Stacked) else blocks

"""Repeated maps whose training keeps no activations: the backward pass inverts the maps instead."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from typing_extensions import override

from likejax.bijections.bijection import (
    Bijection,
    LogDet,
    Parts,
    check_not_batched,
    no_volume,
)
from likejax.bijections.chain import Chain, Repeat
from likejax.keys import fold_in_each
from likejax.nn.repeat import Blocks


class ReversibleRepeat(Repeat):
    """A ``Repeat`` that is trained in memory that does not grow with the number of maps.

    Back-propagation needs the input of every map. A ``Repeat`` keeps them all, with what the maps
    compute on their way; here only the last latent is kept, and the backward pass recomputes the
    inputs from it, last map first: ``x = inverse(z)``. In a coupling the network is then evaluated
    once more, so a step takes up to a third longer. Gradients are those of ``Repeat`` up to the
    rounding of the inverses.

    Only ``terms`` differs, the map of training, whose gradients JAX takes of a batch. ``forward``
    can be differentiated in all ways, also in forward mode and for every example by itself.

    Args:
      blocks: Maps from ``likejax.nn.repeat.repeat``, with an exact ``log_det`` and without parts.

    Raises:
      TypeError: If they are something else.
      ValueError: If their log-determinant is an estimate.

    References:
      Gomez, Ren, Urtasun and Grosse, 2017, The reversible residual network: backpropagation without
      storing activations, arXiv:1707.04585.

    Example:
      >>> import jax, jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> from likejax.nn.repeat import repeat
      >>> blocks = repeat(lambda rngs: lj.bijections.Conv1x1(3, rngs=rngs), 4, rngs=nnx.Rngs(0))
      >>> bijection = lj.bijections.ReversibleRepeat(blocks)
      >>> gradient = jax.grad(lambda x: jax.vmap(bijection.terms)(x)[0].sum())(jnp.ones((2, 3)))
      >>> gradient.shape
      (2, 3)
    """

    def __init__(self, blocks: Blocks):
        super().__init__(blocks)
        if self.estimates:
            raise ValueError(
                f"expected blocks with an exact log-determinant, {type(blocks.first()).__name__} "
                "estimates it: use Repeat"
            )

    @override
    def terms(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, LogDet, Parts]:
        """Maps one example for training; under ``jax.vmap``, the batch at once.

        Raises:
          ValueError: If the blocks have a batch axis, or parts that an objective weights.
        """
        z, log_det = _map(self.blocks, x, key, condition)
        return z, log_det, {}


@jax.custom_batching.custom_vmap
def _map(
    blocks: Blocks, x: Array, key: Array | None, condition: Array | None
) -> tuple[Array, Array]:
    """The map of one example by itself, which keeps its activations."""
    z, log_det, parts = Repeat(blocks).terms(x, key, condition)
    _check_no_parts(parts)
    return z, log_det


@_map.def_vmap
def _vectorized_map(
    size: int,
    is_batched: list[Any],
    blocks: Blocks,
    x: Array,
    key: Array | None,
    condition: Array | None,
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    """The map under ``jax.vmap``: the parameters' gradients are summed map by map."""
    blocks_are_batched, *examples_are_batched = is_batched
    check_not_batched(blocks_are_batched, "flow")

    def with_axis(leaf: Array, has_axis: bool) -> Array:
        return leaf if has_axis else jnp.broadcast_to(leaf, (size, *leaf.shape))

    batch = jax.tree.map(with_axis, [x, key, condition], examples_are_batched)
    return _map_batch(blocks, *batch), (True, True)


@jax.custom_vjp
def _map_batch(
    blocks: Blocks,
    x: Float[Array, "batch ..."],
    keys: Array | None,
    conditions: Array | None,
) -> tuple[Float[Array, "batch ..."], Float[Array, " batch"]]:
    """Maps examples through all blocks."""
    apply = blocks.shared(_forward)

    def step(carry, block, index):
        x, total = carry
        z, log_det = apply(block, x, _fold_in(keys, index), conditions)
        return (z, total + log_det), None

    total = jax.vmap(no_volume)(x)
    return blocks.fold(step, (x, total), np.arange(blocks.length))[0]


class _Kept(NamedTuple):
    """All that the backward pass needs."""

    blocks: Blocks
    z: Array
    keys: Array | None
    conditions: Array | None


def _map_and_keep(
    blocks: Blocks, x: Array, keys: Array | None, conditions: Array | None
) -> tuple[tuple[Array, Array], _Kept]:
    z, log_det = _map_batch(blocks, x, keys, conditions)
    return (z, log_det), _Kept(blocks, z, keys, conditions)


class _Backward(NamedTuple):
    """Where the backward pass stands between two maps.

    Attributes:
      x: The examples there, recomputed.
      of_x: Cotangent of the examples.
      of_conditions: Cotangent of the float conditions so far; ``None`` if there are none.
    """

    x: Array
    of_x: Array
    of_conditions: Array | None


def _backward(
    kept: _Kept, cotangents: tuple[Array, Array]
) -> tuple[PyTree, Array, None, Array | None]:
    """Cotangents of the arguments of ``_map_batch``; ``None`` for what has no derivative."""
    of_z, of_log_det = cotangents
    pull_back = kept.blocks.shared(_pull_back)

    def step(place, block, index):
        keys = _fold_in(kept.keys, index)
        place, of_leaves = pull_back(block, place, keys, kept.conditions, of_log_det)
        return place, jax.tree.unflatten(jax.tree.structure(block), of_leaves)

    conditions = kept.conditions
    of_conditions = None
    if conditions is not None and not _is_discrete(conditions):
        of_conditions = jnp.zeros_like(conditions)
    place = _Backward(kept.z, of_z, of_conditions)
    place, of_blocks = kept.blocks.fold(step, place, np.arange(kept.blocks.length), reverse=True)
    return kept.blocks.with_blocks(of_blocks), place.of_x, None, place.of_conditions


_map_batch.defvjp(_map_and_keep, _backward)


def _pull_back(
    bijection: Bijection,
    place: _Backward,
    keys: Array | None,
    conditions: Array | None,
    of_log_det: Array,
) -> tuple[_Backward, list[Array | None]]:
    """Goes back through one map, and returns the cotangents of its arrays beside.

    A chain is taken map by map: then the network of a coupling gets the very numbers that it got in
    the inverse, and the compiler evaluates it once for both.
    """
    if type(bijection) is Chain:
        of_maps: list[list[Array | None]] = []
        for i, each in reversed(list(enumerate(bijection.bijections))):
            place, of_each = _pull_back(each, place, _fold_in(keys, i), conditions, of_log_det)
            of_maps.insert(0, of_each)
        return place, [leaf for of_each in of_maps for leaf in of_each]

    x = jax.vmap(lambda z, condition: bijection.inverse(z, condition))(place.x, conditions)
    _, pull = jax.vjp(
        lambda bijection, x, conditions: _forward(bijection, x, keys, conditions),
        *(bijection, x, conditions),
    )
    of_bijection, of_x, of_conditions = pull((place.of_x, of_log_det))
    total = place.of_conditions
    if total is not None:
        total = total + of_conditions
    of_leaves = [None if _is_discrete(leaf) else leaf for leaf in jax.tree.leaves(of_bijection)]
    return _Backward(x, of_x, total), of_leaves


def _forward(
    bijection: Bijection, x: Array, keys: Array | None, conditions: Array | None
) -> tuple[Array, Array]:
    """A map of every example, as in training."""
    z, log_det, parts = jax.vmap(bijection.terms)(x, keys, conditions)
    _check_no_parts(parts)
    return z, log_det


def _check_no_parts(parts: Parts) -> None:
    if parts:
        raise ValueError(
            "expected repeated maps without parts that an objective weights, got "
            f"{', '.join(sorted(parts))}: use Repeat"
        )


def _fold_in(keys: Array | None, index: Any) -> Array | None:
    """The keys of a map by its number, as those of ``Repeat`` and ``Chain``."""
    return None if keys is None else fold_in_each(keys, index)


def _is_discrete(leaf: Array | np.ndarray) -> bool:
    """Whether an array, or a cotangent of JAX's type for such, has no derivative."""
    return not jnp.issubdtype(leaf.dtype, jnp.inexact)

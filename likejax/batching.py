"""One way from one example to a batch: flattened, vectorized, compiled once per shape.

A *query* is a function ``query(module, x, key, condition, *shared, **options)`` of one example.
``x`` is an array or a tree of arrays, and each of ``x``, ``key`` and ``condition`` may be ``None``.
``shared`` arguments are the same for every example, and ``options`` are static, so each set of
options is a program of its own.

Compiling a program takes longer than running it on a few more rows. Outside of traced functions an
odd batch size is therefore padded with copies of its first row to a size that is compiled already,
if one is at most twice as large.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Key, PyTree

from likejax.keys import keys_of_rows

Query = Callable[..., PyTree]
"""A function of a module and one example, see above."""


class Rows(NamedTuple):
    """The flattened arguments of a query, one row per example.

    Attributes:
      x: Tree of arrays with a leading axis of examples, or ``None``.
      key: One key, of which row ``i`` gets ``fold_in(key, i)``; the ``n`` keys of the rows; or
        ``None`` for a query that draws nothing.
      condition: Array ``(n, *condition_shape)``, or ``None``.
      shape: Batch shape that results are given back in; its product is the number of rows.
    """

    x: PyTree
    key: Key[Array, "..."] | None
    condition: Array | np.ndarray | None
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of examples."""
        return math.prod(self.shape)


_own_shapes: contextvars.ContextVar[bool] = contextvars.ContextVar("own_shapes", default=False)
_sizes: dict[Hashable, dict[int, int]] = {}
"""For every program that ran, the compiled batch size that each number of examples is padded to."""


@contextlib.contextmanager
def own_shapes() -> Iterator[None]:
    """A context in which every batch is compiled at its own size, whatever was compiled before.

    Numbers that must be the same in every process to the last bit are computed in it.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from likejax.batching import own_shapes
      >>> with own_shapes():
      ...     lj.models.Uniform((2,)).log_prob(jnp.zeros((3, 2))).shape
      (3,)
    """
    token = _own_shapes.set(True)
    try:
        yield
    finally:
        _own_shapes.reset(token)


def over_batch(
    query: Query, module: nnx.Module, rows: Rows, *shared: PyTree, **options: Hashable
) -> PyTree:
    """The query of every row.

    Args:
      query: Function of one example.
      module: Module that the query belongs to.
      rows: Arguments of every example.
      *shared: Arguments that are the same for all examples.
      **options: Static settings of the query.

    Returns:
      What the query returns, every array with the leading axes ``rows.shape``.
    """
    prepared = _prepare(query, module, rows, options)
    return prepared.give_back(prepared.compute(*shared))


def over_draws(
    query: Query, module: nnx.Module, rows: Rows, draws: int, **options: Hashable
) -> Array | np.ndarray:
    """The query of every row for the draws ``0..draws-1``, whose number is its last argument.

    Args:
      query: Function of one example and a draw, that returns an array.
      module: Module that the query belongs to.
      rows: Arguments of every example.
      draws: Number of draws.
      **options: Static settings of the query.

    Returns:
      An array ``(draws, *rows.shape, ...)``, on the host unless the call is traced.
    """
    prepared = _prepare(query, module, rows, options)
    if prepared.is_traced:
        # One draw needs no loop, which takes long to compile.
        if draws == 1:
            values = prepared.compute(np.int32(0))[None]
        else:
            values = jax.lax.map(prepared.compute, jnp.arange(draws))
        return values.reshape(draws, *rows.shape, *values.shape[2:])
    # One compiled call per draw: memory of one draw, and no loop that the compiler slows down.
    each = [prepared.compute(draw) for draw in np.arange(draws, dtype=np.int32)]
    values = np.stack(jax.device_get(each))[:, : rows.count]
    return values.reshape(draws, *rows.shape, *values.shape[2:])


class _Prepared(NamedTuple):
    """A query with the arguments of ``size`` rows, of which the first ``count`` are wanted.

    The module is here as its leaves: to flatten it again would take as long as a small program.
    """

    query: Query
    options: tuple[tuple[str, Hashable], ...]
    structure: Hashable
    leaves: list[Any]
    arguments: tuple[PyTree, Array | None, Array | None]
    shape: tuple[int, ...]
    size: int
    is_traced: bool

    def compute(self, *shared: PyTree) -> PyTree:
        static = (self.query, self.options, self.structure)
        return _compiled(*static, self.leaves, self.arguments, shared)

    def give_back(self, values: PyTree) -> PyTree:
        """Results without the padding, in the shape of the batch."""
        count = math.prod(self.shape)
        if self.size == count:
            return jax.tree.map(lambda leaf: leaf.reshape(self.shape + leaf.shape[1:]), values)

        def unpadded(leaf: np.ndarray) -> Array:
            return jax.device_put(leaf[:count].reshape(self.shape + leaf.shape[1:]))

        return jax.tree.map(unpadded, jax.device_get(values))  # on the host: nothing to compile


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    query: Query,
    options: tuple[tuple[str, Hashable], ...],
    structure: Hashable,
    leaves: list[Any],
    arguments: tuple[PyTree, Array | None, Array | None],
    shared: tuple[PyTree, ...],
) -> PyTree:
    module = jax.tree.unflatten(structure, leaves)

    def one(x: PyTree, key: Array | None, condition: Array | None) -> PyTree:
        return query(module, x, key, condition, *shared, **dict(options))

    return jax.vmap(one)(*arguments)


def _prepare(
    query: Query, module: nnx.Module, rows: Rows, options: dict[str, Hashable]
) -> _Prepared:
    static = tuple(sorted(options.items()))
    leaves, structure = jax.tree.flatten(module)
    data: tuple[PyTree, PyTree] = (rows.x, rows.condition)
    of_rows = jax.tree.leaves(data)
    is_traced = any(isinstance(leaf, Tracer) for leaf in (*leaves, *of_rows, rows.key))
    size = rows.count
    if not is_traced and size > 0 and not _is_distributed(of_rows):
        forms = (*map(_form, leaves), *(_form(leaf, skip=1) for leaf in of_rows))
        program = (query, static, structure, forms, rows.key is None)
        size = _compiled_size(program, rows.count)
    # Padding repeats the first row, with its key.
    positions = np.arange(size, dtype=np.uint32)
    positions[rows.count :] = 0
    if size > rows.count:
        data = jax.tree.map(lambda leaf: np.asarray(leaf)[positions], data)
    # `jnp.asarray` would compile a copy for every shape.
    x, condition = data if is_traced else jax.device_put(data)
    arguments = (x, keys_of_rows(rows.key, positions), condition)
    return _Prepared(query, static, structure, leaves, arguments, rows.shape, size, is_traced)


def _compiled_size(program: Hashable, count: int) -> int:
    """The batch size to run a program at: one that is compiled already, or ``count`` itself.

    A number of examples keeps the size that it was first given, so that a call can be repeated to
    the last bit.
    """
    known = _sizes.setdefault(program, {})
    if _own_shapes.get():
        known.setdefault(count, count)  # from now on there for others
        return count
    if count not in known:
        fitting = [size for size in known.values() if count <= size <= 2 * count]
        known[count] = min(fitting, default=count)
    return known[count]


def _form(leaf: ArrayLike, skip: int = 0) -> tuple[tuple[int, ...], Hashable]:
    """Shape, without the first ``skip`` axes, and type of an array."""
    return np.shape(leaf)[skip:], getattr(leaf, "dtype", type(leaf))


def _is_distributed(leaves: list[Array | np.ndarray]) -> bool:
    """Whether an array lies on several devices, where the rows of a batch must stay."""
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    return any(len(array.sharding.device_set) > 1 for array in arrays)

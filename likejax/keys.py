"""Random keys: what the library takes as one, and one key for each example."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Integer, Key, UInt32

if TYPE_CHECKING:
    KeyLike = Key[Array, "..."] | UInt32[Array, "..."] | UInt32[np.ndarray, "..."] | int
else:
    KeyLike = Any  # checked by `as_key`, whose message helps more than that of a type checker
"""A typed key, a legacy ``uint32`` key, an integer seed, or an array of keys."""

_GENERATOR = "threefry2x32"
"""The one generator that the library draws with. Under ``vmap`` the numbers of JAX's hardware
generator (``rbg``) depend on the other examples of the batch, so a log-probability would too."""
_WORDS = 2
"""Number of 32-bit words in a threefry key."""


def as_key(key: KeyLike) -> Key[Array, "..."]:
    """Returns the typed key of a typed key, a legacy ``uint32`` key, an integer, or keys.

    Keys of other generators, such as ``rbg``, are taken as seeds of a threefry key: the numbers
    drawn for an example then depend on its key alone.

    Args:
      key: A typed key, a legacy ``uint32`` key, an integer seed, or an array of keys.

    Returns:
      A threefry key, or an array of them of the same shape.

    Raises:
      TypeError: If ``key`` is none of these.
      ValueError: If an integer seed has more than 64 bits.

    Example:
      >>> import jax
      >>> from likejax.keys import as_key
      >>> as_key(3) == jax.random.key(3)
      Array(True, dtype=bool)
    """
    if type(key) is int or isinstance(key, np.integer):
        if not -(2**63) <= key < 2**63:
            raise ValueError(f"expected an integer seed of at most 64 bits, got {key}")
        return jax.random.key(int(key), impl=_GENERATOR)
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        typed = cast(Array, key)
        return typed if dtype == _own_dtype() else _from_words(jax.random.key_data(typed))
    if dtype is not None and shape == () and jnp.issubdtype(dtype, jnp.integer):
        return jax.random.key(jnp.asarray(key), impl=_GENERATOR)
    default_words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape[-1]
    if dtype == jnp.uint32 and shape[-1:] in ((_WORDS,), (default_words,)):
        return _from_words(jnp.asarray(key))
    given = type(key).__name__
    if dtype is not None:
        given += f" of dtype {dtype} and shape {shape}"
    raise TypeError(
        f"expected a key from jax.random.key(seed), a legacy uint32 key of {default_words} words "
        f"or an integer seed, got {given}"
    )


@functools.cache
def _own_dtype() -> Any:
    """The dtype of a threefry key; to ask JAX for it takes as long as a small query."""
    return jax.eval_shape(lambda: jax.random.key(0, impl=_GENERATOR)).dtype


def _from_words(words: Array) -> Key[Array, "..."]:
    """Makes threefry keys from words on the last axis; words beyond the second are folded in."""
    keys = jax.random.wrap_key_data(words[..., :_WORDS], impl=_GENERATOR)
    for i in range(_WORDS, words.shape[-1]):
        keys = fold_in_each(keys, words[..., i])
    return keys


def fold_in_each(keys: Key[Array, "*batch"], numbers: ArrayLike) -> Key[Array, "*batch"]:
    """Folds one number, or one number per key, into keys.

    Args:
      keys: Keys of any shape.
      numbers: Integer for all keys, or integers of a shape that broadcasts to that of the keys.

    Returns:
      Keys of the same shape.
    """
    numbers = jnp.broadcast_to(jnp.asarray(numbers), keys.shape)
    folded = jax.vmap(jax.random.fold_in)(keys.reshape(-1), numbers.reshape(-1))
    return folded.reshape(keys.shape)


def keys_of_batch(key: KeyLike, batch: tuple[int, ...]) -> Key[Array, "..."]:
    """Returns keys of the shape of a batch as one flat array, and one key as it is.

    Args:
      key: One key, or keys of the shape ``batch``.
      batch: Shape of the batch; a single key is the key of a single example, ``()``.

    Returns:
      Keys ``(n,)`` of the ``n`` examples, or one key, whose examples are told apart by position.

    Raises:
      ValueError: If there are keys of another shape.
    """
    key = as_key(key)
    if key.shape == batch:
        return key.reshape(-1)
    if key.shape != ():
        raise ValueError(
            f"expected one key or keys of the batch shape {batch}, got keys of shape {key.shape}"
        )
    return key


def keys_of_rows(
    key: Key[Array, "..."] | None, rows: Integer[np.ndarray, " n"]
) -> Key[Array, " n"] | None:
    """Returns the key of each row: of one key by the row's number, of several keys its own.

    Args:
      key: Result of ``keys_of_batch``, or ``None``.
      rows: Row numbers.
    """
    if key is None:
        return None
    if key.shape == ():
        return _folded(key, rows)
    is_all = len(rows) == len(key) and bool((rows == np.arange(len(key))).all())
    return key if is_all else key[rows]


@jax.jit
def _folded(key: Key[Array, ""], indices: Integer[Array, " n"]) -> Key[Array, " n"]:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def example_keys(key: KeyLike, indices: object) -> Key[Array, "..."]:
    """One key per example, ``fold_in(key, index)``, the same in whatever batch the example arrives.

    Args:
      key: A single key or an integer seed.
      indices: Integers of any shape from 0 to 2^32 - 1, usually positions in a dataset.

    Returns:
      Keys of the shape of ``indices``.

    Raises:
      TypeError: If ``key`` is not a key, or the indices are not integers.
      ValueError: If ``key`` is an array of keys, or an index is out of range.

    Example:
      >>> import jax, likejax as lj
      >>> lj.example_keys(jax.random.key(0), range(3)).shape
      (3,)
    """
    key = as_key(key)
    if key.shape != ():
        raise ValueError(
            f"expected one key to make keys of examples from, got keys of shape {key.shape}"
        )
    checked = _checked_indices(indices)
    return _folded(key, checked.reshape(-1)).reshape(checked.shape)


def _checked_indices(indices: object) -> Array:
    array = indices if isinstance(indices, jax.Array) else np.asarray(indices)
    if array.size and not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"expected integers as indices of examples, got {array.dtype}")
    is_known = not isinstance(array, Tracer) and array.size > 0
    if is_known and not (int(array.min()) >= 0 and int(array.max()) < 2**32):
        raise ValueError(
            f"expected indices of examples from 0 to 2^32 - 1, got {array.min()} to {array.max()}"
        )
    if isinstance(array, Tracer):
        return array
    return jax.device_put(np.asarray(array).astype(np.uint32))

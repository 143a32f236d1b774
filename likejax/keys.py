"""Random keys: what the library takes as one, and one key for each example."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Key

KeyLike = Any
"""A typed key, a legacy ``uint32`` key, an integer seed, or an array of keys."""

_GENERATOR = "threefry2x32"
"""The one generator the library draws with. Under ``vmap`` the numbers of JAX's hardware generator (``rbg``) depend on
the other examples of the batch, so a log-probability would too."""
_WORDS = 2


def as_key(key: KeyLike) -> Key[Array, "..."]:
    """The typed key behind a typed key, a legacy ``uint32`` key, an integer seed, or an array of keys.

    Keys of other generators, such as ``rbg``, are taken as seeds of a threefry key: the numbers drawn for an example
    then depend on its key alone.

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
        own = dtype == jax.eval_shape(lambda: jax.random.key(0, impl=_GENERATOR)).dtype
        return key if own else _from_words(jax.random.key_data(key))
    if dtype is not None and shape == () and jnp.issubdtype(dtype, jnp.integer):
        return jax.random.key(jnp.asarray(key), impl=_GENERATOR)
    default_words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape[-1]
    if dtype == jnp.uint32 and shape[-1:] in ((_WORDS,), (default_words,)):
        return _from_words(jnp.asarray(key))
    given = type(key).__name__ + (
        f" of dtype {dtype} and shape {shape}" if dtype is not None else ""
    )
    raise TypeError(
        f"expected a key from jax.random.key(seed), a legacy uint32 key of {default_words} words or an integer seed, "
        f"got {given}"
    )


def _from_words(words: Array) -> Key[Array, "..."]:
    """Threefry keys from the words of keys on the last axis; words beyond the second are folded in."""
    keys = jax.random.wrap_key_data(words[..., :_WORDS], impl=_GENERATOR)
    for i in range(_WORDS, words.shape[-1]):
        keys = fold_in_each(keys, words[..., i])
    return keys


def fold_in_each(keys: Key[Array, "*batch"], numbers: ArrayLike) -> Key[Array, "*batch"]:
    """``fold_in`` of one number, or of one for each key."""
    numbers = jnp.broadcast_to(jnp.asarray(numbers), keys.shape)
    folded = jax.vmap(jax.random.fold_in)(keys.reshape(-1), numbers.reshape(-1))
    return folded.reshape(keys.shape)


def example_keys(key: KeyLike, indices: Any) -> Key[Array, "..."]:
    """One key per example, ``fold_in(key, index)``: the same whatever batch the example arrives in.

    Args:
      key: A single key or an integer seed.
      indices: Integers of any shape from 0 to 2^32 - 1, usually positions in a dataset.

    Returns:
      Keys of the shape of ``indices``.

    Raises:
      TypeError: If ``key`` is no key, or the indices are no integers.
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
    indices = _checked_indices(indices)
    folded = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices.reshape(-1))
    return folded.reshape(indices.shape)


def _checked_indices(indices: Any) -> Array:
    indices = indices if hasattr(indices, "dtype") else np.asarray(indices)
    if indices.size and not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"expected integers as indices of examples, got {indices.dtype}")
    is_known = not isinstance(indices, Tracer) and indices.size > 0
    if is_known and not (int(indices.min()) >= 0 and int(indices.max()) < 2**32):
        raise ValueError(
            f"expected indices of examples from 0 to 2^32 - 1, got {indices.min()} to {indices.max()}"
        )
    return (
        jnp.asarray(indices)
        if isinstance(indices, Tracer)
        else jnp.asarray(np.asarray(indices).astype(np.uint32))
    )

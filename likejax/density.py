"""The interface every model shares: what a log-probability is, and how draws of it combine."""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Key

KeyLike = Any
"""A typed key, a legacy ``uint32`` key, an integer seed, or an array of keys."""


class Kind(enum.Enum):
    """What the number returned by ``log_prob`` is, and so how several draws of it combine.

    * ``EXACT``: ``log p(x)``; the key is unused.
    * ``BOUND``: a log importance weight, ``E[exp log_prob(x, key)] = p(x)``. One draw is a lower
      bound in expectation, and draws combine by the log of their mean, which tightens it.
    * ``ESTIMATE``: ``E[log_prob(x, key)] <= log p(x)``, with equality for a continuous flow with a
      Hutchinson trace. Draws combine by the plain mean; the mean of exponentials would be too high.
    """

    EXACT = "exact"
    BOUND = "bound"
    ESTIMATE = "estimate"


class Terms(NamedTuple):
    """What training needs of each example.

    Attributes:
      log_prob: The training value of ``log p(x)``, nats, shape ``(*batch,)``.
      parts: Named parts that an objective may weight (``class_log_prob``, ``kl_1``), each ``(*batch,)``.
    """

    log_prob: Float[Array, "*batch"]
    parts: Mapping[str, Float[Array, "*batch"]]


class LatentTerms(NamedTuple):
    """What an ELBO is made of, for each example.

    Attributes:
      log_prob: The log importance weight, ``(*batch,)``.
      reconstruction: ``log p(x | z)``, ``(*batch,)``.
      kl: Divergence of each latent's posterior from its prior given those above, elementwise ``(*batch, *latent)``.
      sampled_kl: Its estimate ``log q - log p`` at the value, elementwise.
    """

    log_prob: Float[Array, "*batch"]
    reconstruction: Float[Array, "*batch"]
    kl: tuple[Float[Array, "..."], ...]
    sampled_kl: tuple[Float[Array, "..."], ...]


def as_key(key: KeyLike) -> Key[Array, ...]:
    """The typed key behind a typed key, a legacy ``uint32`` key, an integer seed, or an array of keys.

    Raises:
      TypeError: If ``key`` is none of these.
    """
    if type(key) is int or isinstance(key, np.integer):
        return jax.random.key(int(key))
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return key
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape[-1]
    if dtype == jnp.uint32 and key.shape[-1:] == (words,):
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(
        f"expected a key from jax.random.key(seed), a legacy uint32 key of {words} words or an integer seed, "
        f"got {type(key).__name__}" + (f" of dtype {dtype} and shape {key.shape}" if dtype is not None else "")
    )


def example_keys(key: KeyLike, indices: Any) -> Key[Array, ...]:
    """One key per example, ``fold_in(key, index)``: the same whatever batch the example arrives in.

    Args:
      key: A single key or an integer seed.
      indices: Integers of any shape, usually positions in a dataset.

    Returns:
      Keys of the shape of ``indices``.

    Example:
      >>> import jax, likejax as lj
      >>> lj.example_keys(jax.random.key(0), range(3)).shape
      (3,)
    """
    key = as_key(key)
    indices = jnp.asarray(indices if hasattr(indices, "dtype") else np.asarray(indices, dtype=np.uint32))
    folded = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices.reshape(-1))
    return folded.reshape(indices.shape)


def combine_draws(log_probs: Float[Array, "draws ..."], kind: Kind) -> Float[Array, "..."]:
    """Reduces the leading axis of draws as ``kind`` allows: log-mean-exp for a bound, mean for an estimate.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> round(float(lj.combine_draws(jnp.log(jnp.array([1.0, 3.0])), lj.Kind.BOUND)), 4)  # log 2
      0.6931
    """
    if kind is Kind.BOUND:
        return jax.nn.logsumexp(log_probs, axis=0) - math.log(log_probs.shape[0])
    if kind is Kind.ESTIMATE:
        return jnp.mean(log_probs, axis=0)
    return log_probs[0]


def bits_per_dim(log_prob: Any, event_shape: Sequence[int]) -> Any:
    """Bits per dimension, ``-log_prob / (D ln 2)`` with ``D`` the number of (sub-)pixels.

    Args:
      log_prob: Log-probability masses in nats, any shape, numpy or JAX.
      event_shape: Shape of one example; ``D`` is its product.

    Returns:
      An array of the shape of ``log_prob``, in bits per dimension.

    Example:
      >>> import math, likejax as lj
      >>> lj.bits_per_dim(-4 * math.log(256), (2, 2, 1))
      8.0
    """
    return -log_prob / (math.prod(event_shape) * math.log(2.0))


def integer_dtype(levels: int) -> np.dtype:
    """The smallest unsigned type that holds ``0..levels-1``: that of datasets and samples."""
    return np.min_scalar_type(levels - 1)


class Density(nnx.Module, abc.ABC):
    """A probability distribution over arrays of ``event_shape``.

    A subclass sets ``event_shape``, says its ``kind`` and implements two methods for *one* example,
    ``_log_prob(x, key, condition)`` and ``_sample(key, condition, temperature)``; everything public is
    built on them, vectorised over any leading batch shape and compiled. Modules are frozen: no method
    changes one, and ``initialise`` returns a new one.

    Attributes:
      event_shape: Shape of one example.
      levels: Number of integer values an entry can take (256 for 8-bit images); ``None`` if continuous.
      condition_shape: Shape of one example's condition (``()`` for a class label); ``None`` if unconditional.
      kind: What ``log_prob`` returns; see ``Kind``.
      sum_log_std: ``sum(log std)`` of the data that the density standardises inside, nats; ``None`` if it does not.
      config: What ``build`` made the density from; ``None`` for one put together by hand.

    Example:
      >>> import jax, jax.numpy as jnp, likejax as lj
      >>> class Exponential(lj.Density):
      ...     event_shape = (1,)
      ...     kind = lj.Kind.EXACT
      ...     def _log_prob(self, x, key, condition):
      ...         return -x.sum()
      ...     def _sample(self, key, condition, temperature):
      ...         return jax.random.exponential(key, self.event_shape)
      >>> Exponential().log_prob(jnp.ones((2, 3, 1))).shape
      (2, 3)
    """

    event_shape: tuple[int, ...]
    levels: int | None = None
    condition_shape: tuple[int, ...] | None = None
    kind: Kind
    sum_log_std: float | None = None
    config: Any = None

    @abc.abstractmethod
    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Array:
        """The log-probability of one example, nats, a scalar; ``key`` is ``None`` if the kind is exact."""

    @abc.abstractmethod
    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        """One example; ``temperature`` multiplies the standard deviations of the model's Gaussians."""

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        """The training terms of one example; a model with named parts returns them here."""
        return Terms(self._log_prob(x, key, condition), {})

    def _batch_terms(self, x: Array, keys: Array | None, condition: Array | None) -> Terms:
        """The training terms of a batch; a model whose training couples examples implements them here."""
        return jax.vmap(self._terms)(x, keys, condition)

    def initialise(self, batch: ArrayLike, key: KeyLike) -> Density:
        """A new density whose data-dependent parameters fit ``batch``; without such parameters, itself.

        Args:
          batch: Examples ``(n, *event_shape)`` from the training stream.
          key: Key of the noise, if any.
        """
        del batch, key
        return self

    def log_prob(
        self, x: ArrayLike, *, key: KeyLike | None = None, condition: ArrayLike | None = None, draws: int = 1
    ) -> Float[Array, "*batch"]:
        """Log-probability in nats, summed over the dimensions of the event.

        The value of an example depends on the example and its key alone, never on its batch-mates.

        Args:
          x: Examples ``(*batch, *event_shape)``: integers if the density has ``levels``, floats otherwise.
          key: One key, folded with the flat position in ``x``; or keys of shape ``batch``, used as they are (so
            the key of a single example, batch shape ``()``, is used as it is). Draw ``s`` uses
            ``fold_in(example_key, s)``. Not needed where ``kind`` is ``EXACT``.
          condition: ``(*batch, *condition_shape)``, or one ``condition_shape`` for all.
          draws: How many draws to combine, as the kind allows.

        Returns:
          ``(*batch,)`` in nats.

        Raises:
          TypeError: For floats where integers are due, or the reverse.
          ValueError: For a wrong shape, values outside ``0..levels-1``, or a missing key or condition.
        """
        return combine_draws(self.log_prob_draws(x, key=key, condition=condition, draws=draws), self.kind)

    def log_prob_draws(
        self, x: ArrayLike, *, key: KeyLike | None = None, condition: ArrayLike | None = None, draws: int = 1
    ) -> Float[Array, "draws ..."]:
        """All draws that ``log_prob`` would combine, ``(draws, *batch)`` in nats; arguments as there."""
        if draws < 1:
            raise ValueError(f"expected draws >= 1, got {draws}")
        x, batch = self._checked(x)
        condition = self._checked_condition(condition, batch)
        if self.kind is Kind.EXACT:
            exact = _batched_log_prob(self, x, None, condition, 0).reshape(batch)
            return jnp.broadcast_to(exact, (draws, *batch))
        keys = self._keys(key, batch)
        if _is_traced((self, x, keys, condition)):
            values = jax.lax.map(lambda draw: _batched_log_prob(self, x, keys, condition, draw), jnp.arange(draws))
        else:  # one compiled call a draw: memory of one draw, and no loop for the compiler to slow down
            each = [_batched_log_prob(self, x, keys, condition, draw) for draw in range(draws)]
            values = jnp.asarray(np.stack(jax.device_get(each)))
        return values.reshape(draws, *batch)

    def terms(self, x: ArrayLike, *, key: KeyLike | None = None, condition: ArrayLike | None = None) -> Terms:
        """Training terms of each example; ``log_prob`` in them is the one-draw value. Arguments as there."""
        x, batch = self._checked(x)
        condition = self._checked_condition(condition, batch)
        keys = None if self.kind is Kind.EXACT and key is None else self._keys(key, batch)
        terms = _batched_terms(self, x, keys, condition)
        return jax.tree.map(lambda term: term.reshape(batch), terms)

    def sample(
        self,
        key: KeyLike,
        sample_shape: int | tuple[int, ...] = (),
        condition: ArrayLike | None = None,
        temperature: ArrayLike = 1.0,
    ) -> Array:
        """Independent samples.

        Args:
          key: One key; sample ``i`` uses ``fold_in(key, i)``.
          sample_shape: Leading shape of the result.
          condition: ``(*batch, *condition_shape)``; the result is ``(*sample_shape, *batch, *event_shape)``.
          temperature: Factor on the standard deviation of the model's Gaussians (Glow, section 5).

        Returns:
          Samples: ``uint8`` (or the smallest unsigned type) if the density has ``levels``.
        """
        sample_shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        if condition is not None and self.condition_shape is not None:
            condition = jnp.asarray(condition)
            batch = condition.shape[: condition.ndim - len(self.condition_shape)]
            condition = jnp.broadcast_to(condition, sample_shape + condition.shape)
        else:
            batch = ()
        shape = sample_shape + batch
        condition = self._checked_condition(condition, shape)
        keys = example_keys(key, np.arange(math.prod(shape), dtype=np.uint32))
        return _batched_sample(self, keys, condition, temperature).reshape(shape + self.event_shape)

    def sample_and_log_prob(
        self, key: KeyLike, sample_shape: int | tuple[int, ...] = (), condition: ArrayLike | None = None
    ) -> tuple[Array, Float[Array, ...]]:
        """Samples and their exact log-probabilities; equal to ``log_prob`` of the samples.

        Raises:
          TypeError: If the density's log-probability is not exact.
        """
        if self.kind is not Kind.EXACT:
            raise TypeError(
                f"{type(self).__name__}.log_prob is of kind {self.kind.value}, so a sample has no exact "
                "log-probability to return with it; call sample(key) and then log_prob(x, key=...)"
            )
        x = self.sample(key, sample_shape, condition)
        if condition is not None:
            shape = x.shape[: x.ndim - len(self.event_shape)] + (self.condition_shape or ())
            condition = jnp.broadcast_to(jnp.asarray(condition), shape)
        return x, self.log_prob(x, condition=condition)

    def _checked(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        """``x`` flattened to ``(n, *event_shape)``, and its batch shape."""
        x = x if hasattr(x, "dtype") else np.asarray(x)
        rank = len(self.event_shape)
        if x.ndim < rank or x.shape[x.ndim - rank :] != self.event_shape:
            raise ValueError(
                f"expected x of shape (*batch, {', '.join(map(str, self.event_shape))}), got {tuple(x.shape)}"
            )
        if self.levels is None and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"expected floating-point x for a continuous density, got {x.dtype}; for integer data wrap the "
                "density in Dequantised(density, levels), for others cast with x.astype('float32')"
            )
        if self.levels is not None:
            _check_integers(x, self.levels)
        batch = tuple(x.shape[: x.ndim - rank])
        return jnp.asarray(x).reshape(math.prod(batch), *self.event_shape), batch

    def _checked_condition(self, condition: ArrayLike | None, batch: tuple[int, ...]) -> Array | None:
        """The condition broadcast to the batch and flattened to ``(n, *condition_shape)``."""
        if self.condition_shape is None:
            if condition is not None:
                raise ValueError(f"{type(self).__name__} is unconditional: call it without a condition")
            return None
        if condition is None:
            raise ValueError(
                f"{type(self).__name__} is conditional: pass condition= of shape (*batch, *{self.condition_shape})"
            )
        condition = jnp.asarray(condition)
        wanted = batch + self.condition_shape
        if condition.shape not in (wanted, self.condition_shape):
            raise ValueError(f"expected a condition of shape {wanted} or {self.condition_shape}, got {condition.shape}")
        return jnp.broadcast_to(condition, wanted).reshape(math.prod(batch), *self.condition_shape)

    def _keys(self, key: KeyLike | None, batch: tuple[int, ...]) -> Key[Array, " n"]:
        """One key per example of the flattened batch."""
        if key is None:
            raise ValueError(
                f"{type(self).__name__}.log_prob is of kind {self.kind.value}, computed with random draws, so it "
                "needs a key: pass key=jax.random.key(seed)"
            )
        key = as_key(key)
        if key.shape == batch:
            return key.reshape(-1)
        if key.shape == ():
            return example_keys(key, np.arange(math.prod(batch), dtype=np.uint32))
        raise ValueError(f"expected one key or keys of the batch shape {batch}, got keys of shape {key.shape}")


def _check_integers(x: Any, levels: int) -> None:
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            f"expected integers 0..{levels - 1} (uint8 for images), got {x.dtype}; pass the raw values: scaling and "
            "noise are inside the density"
        )
    if isinstance(x, Tracer) or (x.dtype == jnp.uint8 and levels == 256) or x.size == 0:
        return
    with jax.ensure_compile_time_eval():  # known values inside somebody's jit are checked too
        low, high = int(x.min()), int(x.max())
    if low < 0 or high >= levels:
        raise ValueError(f"expected integers 0..{levels - 1} for a density with {levels} levels, got {low}..{high}")


def _is_traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _fold_draw(keys: Key[Array, " n"] | None, draw: ArrayLike) -> Key[Array, " n"] | None:
    return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, draw)


@jax.jit
def _batched_log_prob(density: Density, x: Array, keys: Array | None, condition: Array | None, draw: ArrayLike):
    return jax.vmap(density._log_prob)(x, _fold_draw(keys, draw), condition)


@jax.jit
def _batched_terms(density: Density, x: Array, keys: Array | None, condition: Array | None) -> Terms:
    return density._batch_terms(x, _fold_draw(keys, 0), condition)


@jax.jit
def _batched_sample(density: Density, keys: Array, condition: Array | None, temperature: ArrayLike):
    return jax.vmap(density._sample, in_axes=(0, 0, None))(keys, condition, temperature)


def log_prob_draws_in_chunks(
    density: Density,
    x: np.ndarray,
    *,
    key: KeyLike | None = None,
    condition: np.ndarray | None = None,
    draws: int = 1,
    batch_size: int = 128,
) -> np.ndarray:
    """``log_prob_draws`` of a large host array in chunks, on the host, in memory that ``batch_size`` bounds.

    Keys come from the position in ``x`` and the last chunk is padded to the shape of the others, so a value
    does not depend on how the data are cut (to 5e-6 relative between compiled shapes, bitwise within one).

    Args:
      density: Any density.
      x: Examples ``(n, *event_shape)``; only one chunk at a time is moved to the device.
      key: One key; example ``i`` uses ``fold_in(key, i)``.
      condition: ``(n, *condition_shape)`` or ``None``.
      draws: Draws per example.
      batch_size: Examples per chunk.

    Returns:
      ``(draws, n)`` in nats, on the host.
    """
    n = len(x)
    size = max(1, min(batch_size, n))
    key = None if key is None else as_key(key)
    values = []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        chunk = density.log_prob_draws(
            np.asarray(x[start : start + size]) if start + size <= n else np.asarray(x)[rows],
            key=None if key is None else example_keys(key, rows.astype(np.uint32)),
            condition=None if condition is None else np.asarray(condition)[rows],
            draws=draws,
        )
        values.append(np.asarray(chunk)[:, : n - start])
    return np.concatenate(values, axis=1) if values else np.zeros((draws, 0))


def log_prob_in_chunks(
    density: Density,
    x: np.ndarray,
    *,
    key: KeyLike | None = None,
    condition: np.ndarray | None = None,
    draws: int = 1,
    batch_size: int = 128,
) -> np.ndarray:
    """``log_prob`` of a large host array in chunks of bounded memory; see ``log_prob_draws_in_chunks``.

    Returns:
      ``(n,)`` in nats, on the host.
    """
    values = log_prob_draws_in_chunks(density, x, key=key, condition=condition, draws=draws, batch_size=batch_size)
    return np.asarray(combine_draws(jnp.asarray(values), density.kind))

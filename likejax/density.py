"""The interface every model shares: what a log-probability is, and how draws of it combine."""

from __future__ import annotations

import abc
import enum
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from likejax.inputs import as_array, check_finite, check_labels, checked_floats, checked_integers
from likejax.keys import KeyLike as KeyLike
from likejax.keys import as_key as as_key
from likejax.keys import example_keys as example_keys
from likejax.keys import fold_in_each
from likejax.precision import check_representable
from likejax.settings import Count, CountOrZero, NonNegative, checked


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


def combine_draws(log_probs: Float[Array, "draws ..."], kind: Kind) -> Float[Array, "..."]:
    """Reduces the leading axis of draws as ``kind`` allows: log-mean-exp for a bound, mean for an estimate.

    Args:
      log_probs: Draws ``(draws, ...)`` in nats.
      kind: What one draw is.

    Returns:
      The combined value without the axis of draws, in nats.

    Raises:
      TypeError: If ``kind`` is no ``Kind``.
      ValueError: If there are no draws.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> round(float(lj.combine_draws(jnp.log(jnp.array([1.0, 3.0])), lj.Kind.BOUND)), 4)  # log 2
      0.6931
    """
    if not isinstance(kind, Kind):
        raise TypeError(f"expected a kind of {', '.join(map(str, Kind))}, got {kind!r}")
    log_probs = jnp.asarray(log_probs)
    if log_probs.ndim == 0 or len(log_probs) == 0:
        raise ValueError(f"expected draws on the first axis, got shape {log_probs.shape}")
    if kind is Kind.BOUND:
        return jax.nn.logsumexp(log_probs, axis=0) - math.log(log_probs.shape[0])
    if kind is Kind.ESTIMATE:
        return jnp.mean(log_probs, axis=0)
    return log_probs[0]


def bits_per_dim(log_prob: Any, event_shape: int | Sequence[int]) -> Any:
    """Bits per dimension, ``-log_prob / (D ln 2)`` with ``D`` the number of (sub-)pixels.

    Args:
      log_prob: Log-probability masses in nats, any shape, numpy or JAX.
      event_shape: Shape of one example, whose product is ``D``, or ``D`` itself.

    Returns:
      An array of the shape of ``log_prob``, in bits per dimension.

    Raises:
      TypeError: If the shape holds anything but integers.
      ValueError: If a size is below 1.

    Example:
      >>> import math, likejax as lj
      >>> lj.bits_per_dim(-4 * math.log(256), (2, 2, 1))
      8.0
    """
    sizes = event_shape if isinstance(event_shape, Sequence | np.ndarray) else (event_shape,)
    dimensions = math.prod(checked("event_shape", sizes, tuple[Count, ...]))
    values = log_prob if isinstance(log_prob, float | int) else as_array("log_prob", log_prob)
    return -values / (dimensions * math.log(2.0))


def integer_dtype(levels: int) -> np.dtype:
    """The smallest unsigned type that holds ``0..levels-1``: that of datasets and samples."""
    return np.min_scalar_type(levels - 1)


class Density(nnx.Module, abc.ABC):
    """A probability distribution over arrays of ``event_shape``.

    A subclass sets ``event_shape``, says its ``kind`` and implements two methods for *one* example,
    ``_log_prob(x, key, condition)`` and ``_sample(key, condition, temperature)``; everything public is
    built on them, vectorized over any leading batch shape and compiled. Modules are frozen: no method
    changes one, and ``initialize`` returns a new one.

    Attributes:
      event_shape: Shape of one example.
      levels: Number of integer values an entry can take (256 for 8-bit images); ``None`` if continuous.
      condition_shape: Shape of one example's condition (``()`` for a class label); ``None`` if unconditional.
      num_classes: Number of class labels, which are then ``0..num_classes-1``; ``None`` if the condition is no label.
      kind: What ``log_prob`` returns; see ``Kind``.
      sum_log_std: ``sum(log std)`` of the data that the density standardizes inside, nats; ``None`` if it does not.
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
    num_classes: int | None = None
    kind: Kind
    sum_log_std: float | None = None
    config: Any = None

    @abc.abstractmethod
    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Array:
        """The log-probability of one example, nats, a scalar; ``key`` is ``None`` if the kind is exact."""

    @abc.abstractmethod
    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        """One example; ``temperature`` multiplies the standard deviations of the model's Gaussians."""

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        """One example, and whether all numbers that it was made from are finite.

        Integers have no NaN: a model that rounds what it computes to integers says here what rounding would hide.
        """
        x = self._sample(key, condition, temperature)
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return x, jnp.isfinite(x).all() if is_float else jnp.ones((), bool)

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        """The training terms of one example; a model with named parts returns them here."""
        return Terms(self._log_prob(x, key, condition), {})

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Density:
        """A new density whose data-dependent parameters fit ``batch``; without such parameters, itself.

        Args:
          batch: Examples ``(n, *event_shape)`` from the training stream.
          key: Key of the noise, if any.
        """
        del batch, key
        return self

    def log_prob(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
        draws: int = 1,
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
        return combine_draws(
            self.log_prob_draws(x, key=key, condition=condition, draws=draws), self.kind
        )

    def log_prob_draws(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
        draws: int = 1,
    ) -> Float[Array, "draws ..."]:
        """All draws that ``log_prob`` would combine, ``(draws, *batch)`` in nats; arguments as there."""
        draws = checked("draws", draws, Count)
        x, batch = self._checked(x)
        condition = self._checked_condition(condition, batch)
        if self.kind is Kind.EXACT:
            exact = _batched_log_prob(self, x, None, condition, 0).reshape(batch)
            return jnp.broadcast_to(exact, (draws, *batch))
        keys = self._keys(key, batch)
        if _is_traced((self, x, keys, condition)):
            values = jax.lax.map(
                lambda draw: _batched_log_prob(self, x, keys, condition, draw), jnp.arange(draws)
            )
        else:  # one compiled call a draw: memory of one draw, and no loop for the compiler to slow down
            each = [_batched_log_prob(self, x, keys, condition, draw) for draw in range(draws)]
            values = jnp.asarray(np.stack(jax.device_get(each)))
        return values.reshape(draws, *batch)

    def terms(
        self, x: ArrayLike, *, key: KeyLike | None = None, condition: ArrayLike | None = None
    ) -> Terms:
        """Training terms of each example; ``log_prob`` in them is the one-draw value. Arguments as there."""
        x, batch = self._checked(x)
        condition = self._checked_condition(condition, batch)
        keys = None if self.kind is Kind.EXACT and key is None else self._keys(key, batch)
        terms = _batched_terms(self, x, keys, condition)
        return jax.tree.map(lambda term: term.reshape(batch), terms)

    def sample(
        self,
        key: KeyLike,
        sample_shape: int | Sequence[int] = (),
        condition: ArrayLike | None = None,
        temperature: ArrayLike = 1.0,
    ) -> Array:
        """Independent samples.

        Integers have no NaN: where the numbers behind a sample of integers are not finite, as when decoding overflows,
        a warning counts these samples and says how to draw them again. If all are lost, as with weights that are NaN,
        there is an error instead; in a function that is traced (``jax.jit``) a warning while it runs is all there can
        be. Continuous samples hold the numbers that are not finite.

        Args:
          key: One key, of which sample ``i`` uses ``fold_in(key, i)``; or keys of the shape of the samples, used as
            they are.
          sample_shape: Leading shape of the result.
          condition: ``(*batch, *condition_shape)``; the result is ``(*sample_shape, *batch, *event_shape)``.
          temperature: Factor on the standard deviation of the model's Gaussians (Glow, section 5), at least 0.

        Returns:
          Samples: ``uint8`` (or the smallest unsigned type) if the density has ``levels``.

        Raises:
          TypeError: If an argument is of another type.
          ValueError: For negative sizes, a temperature below 0, labels out of range, or if no sample is finite.
        """
        shape, condition = self._shape_and_condition(sample_shape, condition)
        keys = (
            self._keys(key, shape) if as_key(key).shape else _keys_by_position(as_key(key), shape)
        )
        x, finite = _batched_sample(self, keys, condition, checked_temperature(temperature))
        if self.levels is not None:
            tell_of_lost(
                finite,
                "sample",
                "density.sample(lj.example_keys(key, {rows}), {count}) draws them again",
            )
        return x.reshape(shape + self.event_shape)

    def _shape_and_condition(
        self, sample_shape: int | Sequence[int], condition: ArrayLike | None
    ) -> tuple[tuple[int, ...], Array | None]:
        """The leading shape of all samples, and the condition of each, flattened."""
        self._check_declared()
        sizes = sample_shape if isinstance(sample_shape, Sequence | np.ndarray) else (sample_shape,)
        sizes = checked("sample_shape", sizes, tuple[CountOrZero, ...])
        if condition is None or self.condition_shape is None:
            return sizes, self._checked_condition(condition, sizes)
        values = as_array("condition", condition)
        batch = values.shape[: values.ndim - len(self.condition_shape)]
        shape = (*sizes, *batch)
        return shape, self._checked_condition(
            jnp.broadcast_to(values, (*sizes, *values.shape)), shape
        )

    def sample_and_log_prob(
        self,
        key: KeyLike,
        sample_shape: int | tuple[int, ...] = (),
        condition: ArrayLike | None = None,
    ) -> tuple[Array, Float[Array, "..."]]:
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

    def _check_declared(self) -> None:
        """Raises a TypeError unless the class says what every density must say."""
        name = type(self).__name__
        for attribute, example in (("event_shape", "(28, 28, 1)"), ("kind", "lj.Kind.EXACT")):
            if not hasattr(self, attribute):
                raise TypeError(
                    f"{name} sets no {attribute}: write {attribute} = {example}, say, in its class"
                )
        if not isinstance(self.kind, Kind):
            raise TypeError(f"expected {name}.kind to be a lj.Kind, got {self.kind!r}")
        sizes = self.event_shape
        if not isinstance(sizes, tuple) or not all(
            isinstance(size, int) and size > 0 for size in sizes
        ):
            raise TypeError(
                f"expected {name}.event_shape to be a tuple of positive integers, got {sizes!r}"
            )

    def _checked(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        """``x`` flattened to ``(n, *event_shape)``, and its batch shape."""
        self._check_declared()
        x = as_array("x", x)
        rank = len(self.event_shape)
        if x.ndim < rank or x.shape[x.ndim - rank :] != self.event_shape:
            raise ValueError(
                f"expected x of shape (*batch, {', '.join(map(str, self.event_shape))}), got {tuple(x.shape)}"
            )
        x = checked_floats(x) if self.levels is None else checked_integers(x, self.levels)
        batch = tuple(x.shape[: x.ndim - rank])
        return jnp.asarray(x).reshape(math.prod(batch), *self.event_shape), batch

    def _checked_batch(self, batch: Any) -> Array:
        """Examples ``(n, *event_shape)`` to take statistics of, at least one."""
        is_wide = isinstance(batch, np.ndarray) and batch.dtype == np.float64
        if is_wide and batch.shape[1:] == self.event_shape and len(batch):
            check_representable(batch, jnp.zeros(()).dtype)
        flat, shape = self._checked(batch)
        if math.prod(shape) == 0:
            raise ValueError(
                f"expected at least one example to initialize with, got shape {np.shape(batch)}"
            )
        return flat

    def _checked_condition(
        self, condition: ArrayLike | None, batch: tuple[int, ...]
    ) -> Array | None:
        """The condition broadcast to the batch and flattened to ``(n, *condition_shape)``."""
        if self.condition_shape is None:
            if condition is not None:
                raise ValueError(
                    f"{type(self).__name__} is unconditional: call it without a condition"
                )
            return None
        wanted = batch + self.condition_shape
        if condition is None:
            raise ValueError(
                f"{type(self).__name__} is conditional: pass condition= of shape {wanted}"
            )
        values = as_array("condition", condition)
        if values.shape not in (wanted, self.condition_shape):
            raise ValueError(
                f"expected a condition of shape {wanted} or {self.condition_shape}, got {values.shape}"
            )
        if self.num_classes is not None:
            check_labels(values, self.num_classes)
        elif jnp.issubdtype(values.dtype, jnp.floating):
            values = checked_floats(values, "condition")
            check_finite(values)
        return jnp.broadcast_to(jnp.asarray(values), wanted).reshape(
            math.prod(batch), *self.condition_shape
        )

    def _keys(self, key: KeyLike | None, batch: tuple[int, ...]) -> Key[Array, " n"]:
        """One key per example of the flattened batch."""
        if key is None:
            raise ValueError(
                f"{type(self).__name__}.log_prob is of kind {self.kind.value}, computed with random draws, so it "
                "needs a key: pass key=jax.random.key(seed)"
            )
        key = as_key(key)
        return key.reshape(-1) if key.shape == batch else _keys_by_position(key, batch)


def _keys_by_position(key: Key[Array, "..."], batch: tuple[int, ...]) -> Key[Array, " n"]:
    if key.shape != ():
        raise ValueError(
            f"expected one key or keys of the batch shape {batch}, got keys of shape {key.shape}"
        )
    return example_keys(key, np.arange(math.prod(batch), dtype=np.uint32))


def check_density(density: Any) -> None:
    """Raises a TypeError unless ``density`` is a density that says what it is."""
    if isinstance(density, Density):
        density._check_declared()
        return
    advice = "a subclass of lj.Density"
    if hasattr(density, "build"):
        advice = "build one with lj.build(config, key=...)"
    elif isinstance(getattr(density, "density", None), Density):
        advice = f"pass its attribute density: {type(density).__name__.lower()}.density"
    raise TypeError(f"expected a density, got {type(density).__name__}: {advice}")


def checked_temperature(temperature: ArrayLike) -> ArrayLike:
    """A factor on the noise of samples: a number of at least 0, or one that is traced."""
    return (
        temperature
        if isinstance(temperature, Tracer)
        else checked("temperature", temperature, NonNegative)
    )


def tell_of_lost(finite: Bool[Array, " n"], what: str, again: str) -> None:
    """Warns of integers that were rounded from numbers that are not finite; an error if all were.

    Args:
      finite: Whether each example was made from finite numbers only.
      what: What an example is called.
      again: How to get those examples again, with ``{rows}`` and ``{count}`` in it.

    Raises:
      ValueError: If no example is finite.
    """
    if isinstance(finite, Tracer):
        jax.debug.callback(lambda finite: _warn_of_lost(np.atleast_1d(finite), what, again), finite)
        return
    known = np.asarray(finite)
    if known.size and not known.any():
        raise ValueError(
            f"expected finite numbers behind the {what}s, got none for any of {known.size}: the weights are NaN, or "
            "decoding overflows"
        )
    _warn_of_lost(known, what, again)


def _warn_of_lost(finite: np.ndarray, what: str, again: str) -> None:
    rows = np.flatnonzero(~finite).tolist()
    if not rows:
        return
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    warnings.warn(
        f"{len(rows)} of {finite.size} {what}s were rounded from numbers that are not finite and mean nothing (rows "
        f"{shown}): decoding overflowed; a lower temperature helps. {again.format(rows=rows[:8], count=len(rows[:8]))}",
        RuntimeWarning,
        stacklevel=4,
    )


def _is_traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _fold_draw(keys: Key[Array, " n"] | None, draw: ArrayLike) -> Key[Array, " n"] | None:
    return None if keys is None else fold_in_each(keys, draw)


@jax.jit
def _batched_log_prob(
    density: Density, x: Array, keys: Array | None, condition: Array | None, draw: ArrayLike
):
    def one(x: Array, key: Array | None, condition: Array | None) -> Array:
        return _scalar(density, density._log_prob(x, key, condition))

    return jax.vmap(one)(x, _fold_draw(keys, draw), condition)


def _scalar(density: Density, log_prob: Any) -> Array:
    """The value of a density's own ``_log_prob``, in float32 or better."""
    if jnp.shape(log_prob) != ():
        raise TypeError(
            f"expected {type(density).__name__}._log_prob to return one number for an example, got shape "
            f"{jnp.shape(log_prob)}: sum over the dimensions of the event"
        )
    log_prob = jnp.asarray(log_prob)
    return log_prob.astype(jnp.promote_types(log_prob.dtype, jnp.float32))


@jax.jit
def _batched_terms(
    density: Density, x: Array, keys: Array | None, condition: Array | None
) -> Terms:
    return jax.vmap(density._terms)(x, _fold_draw(keys, 0), condition)


@jax.jit
def _batched_sample(density: Density, keys: Array, condition: Array | None, temperature: ArrayLike):
    def one(key: Array, condition: Array | None) -> tuple[Array, Array]:
        x, finite = density._draw(key, condition, temperature)
        if x.shape != density.event_shape:
            raise TypeError(
                f"expected {type(density).__name__}._sample to return an example of shape {density.event_shape}, got "
                f"{x.shape}"
            )
        return x, finite

    return jax.vmap(one)(keys, condition)


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
    check_density(density)
    draws, batch_size = checked("draws", draws, Count), checked("batch_size", batch_size, Count)
    x = as_array("x", x)
    if x.shape[1:] != density.event_shape:
        raise ValueError(
            f"expected x of shape (n, {', '.join(map(str, density.event_shape))}), got {x.shape}"
        )
    n = len(x)
    if condition is not None and np.shape(condition)[:1] != (n,):
        raise ValueError(
            f"expected a condition for each of the {n} examples, got shape {np.shape(condition)}"
        )
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
    values = log_prob_draws_in_chunks(
        density, x, key=key, condition=condition, draws=draws, batch_size=batch_size
    )
    return np.asarray(combine_draws(jnp.asarray(values), density.kind))

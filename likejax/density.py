"""The interface of every model: what a log-probability is, and how draws of it combine."""

from __future__ import annotations

import abc
import enum
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from likejax.batching import Query, Rows, over_batch, over_draws, own_shapes
from likejax.devices import Devices, check_shared, in_chunks
from likejax.facts import facts_table
from likejax.inputs import (
    as_array,
    check_labels,
    checked_conditions,
    checked_floats,
    checked_integers,
    numpy_of,
    shape_advice,
)
from likejax.keys import KeyLike, as_key, fold_in_each, keys_of_batch, keys_of_rows
from likejax.precision import check_representable
from likejax.rounding import warn_of_lost
from likejax.settings import Count, CountOrZero, NonNegative, checked


class Kind(enum.Enum):
    """The kind of number that ``log_prob`` returns, and so how several draws of it combine.

    * ``EXACT``: ``log p(x)``; the key is unused.
    * ``BOUND``: a log importance weight, ``E[exp log_prob(x, key)] = p(x)``. One draw is a lower
      bound in expectation, and draws combine by the log of their mean, which tightens it.
    * ``ESTIMATE``: ``E[log_prob(x, key)] <= log p(x)``, with equality for a continuous flow with a
      Hutchinson trace. Draws combine by the plain mean; the mean of exponentials would be too high.

    Example:
      >>> import likejax as lj
      >>> lj.models.Dequantized(lj.models.Uniform((2, 2, 1)), 4).kind
      <Kind.BOUND: 'bound'>
    """

    EXACT = "exact"
    BOUND = "bound"
    ESTIMATE = "estimate"


OptionalQuery = Literal[
    "white_latents",
    "embed",
    "log_prob_map",
    "token_moments",
    "diffusion",
    "log_prob_above",
    "regret",
]
"""Names of queries that not every family has."""
_WHO_OFFERS: dict[OptionalQuery, str] = {
    "white_latents": "such as a flow",
    "embed": "such as a flow",
    "log_prob_map": "such as a PixelCNN++; log_prob(x) gives the sum over all dimensions",
    "token_moments": "such as a PixelCNN++; log_prob(x) gives the sum over all dimensions",
    "diffusion": "such as a VDM",
    "log_prob_above": "such as a VAE",
    "regret": "such as a VAE",
}
"""A family that has the query, or what to call instead."""
Statistics = Mapping[str, Array]
"""Named numbers of one example, scalars."""


Moments = tuple[Float[Array, "*event"], Float[Array, "*event"]]
"""Mean and standard deviation for every dimension of an example."""


class Terms(NamedTuple):
    """Values that training needs of each example: its log-probability and named parts.

    Attributes:
      log_prob: Training value of ``log p(x)`` in nats, shape ``(*batch,)``.
      parts: Named parts that an objective may weight (``class_log_prob``, ``kl_1``), each of shape
        ``(*batch,)``, or elementwise ``(*batch, *part_shape)``.

    Example:
      >>> import jax.numpy as jnp
      >>> from likejax.density import Terms
      >>> terms = Terms(jnp.zeros(2), {"kl_1": jnp.ones((2, 3))})
      >>> terms.per_example()["kl_1"].tolist()
      [3.0, 3.0]
    """

    log_prob: Float[Array, "*batch"]
    parts: Mapping[str, Float[Array, "..."]]

    def per_example(self) -> dict[str, Float[Array, "*batch"]]:
        """Returns every part as one number per example: elementwise parts are summed."""
        return {name: self._summed(part) for name, part in self.parts.items()}

    def _summed(self, part: Float[Array, "..."]) -> Float[Array, "*batch"]:
        batch = self.log_prob.shape
        return part if part.shape == batch else part.reshape(*batch, -1).sum(-1)


class Diffusion(NamedTuple):
    """An example in a variance-preserving diffusion, and what the model's denoiser sees around it.

    ``gamma``, the negative log signal-to-noise ratio, rises from the data to the noise. There the
    point ``y`` of the example has become ``z = alpha y + sigma eps`` with standard normal ``eps``,
    ``alpha^2 = sigmoid(-gamma)`` and ``sigma^2 = sigmoid(gamma)``.

    Attributes:
      point: Point ``y`` of the example, ``(*batch, *latent)``.
      noise_at: Function from points ``z`` of that shape and ``gamma`` of shape ``batch`` to the
        noise ``eps_hat`` that the denoiser sees in ``z``; the score of the model's density of ``z``
        is ``-eps_hat / sigma``.
      ends: ``gamma`` at the data and at the noise, each of shape ``batch``.

    Example:
      >>> import jax, jax.numpy as jnp, likejax as lj
      >>> config = lj.models.VectorVDMConfig(width=8, blocks=1)
      >>> x = jnp.zeros((3, 2))
      >>> diffusion = lj.build(config, key=0).diffusion(x, key=1)
      >>> diffusion.noise_at(diffusion.point, diffusion.ends[0]).shape
      (3, 2)
    """

    point: Float[Array, "..."]
    noise_at: Callable[[Array, Array], Array]
    ends: tuple[Float[Array, "*batch"], Float[Array, "*batch"]]


def combine_draws(log_probs: Float[ArrayLike, "draws ..."], kind: Kind) -> Any:
    """Reduces the leading axis of draws: by the log of the mean for a bound, by the mean otherwise.

    Numpy arrays are combined on the host in float64, JAX arrays on their device and in their type.

    Args:
      log_probs: Draws ``(draws, ...)`` in nats.
      kind: Kind of number that one draw is.

    Returns:
      The combined value without the axis of draws, in nats.

    Raises:
      TypeError: If ``kind`` is not a ``Kind``.
      ValueError: If there are no draws.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from likejax.density import combine_draws
      >>> round(float(combine_draws(jnp.log(jnp.array([1.0, 3.0])), lj.Kind.BOUND)), 4)  # log 2
      0.6931
    """
    if not isinstance(kind, Kind):
        raise TypeError(f"expected a kind of {', '.join(map(str, Kind))}, got {kind!r}")
    on_host = isinstance(log_probs, np.ndarray)
    values = log_probs.astype(np.float64) if on_host else jnp.asarray(log_probs)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"expected draws on the first axis, got shape {values.shape}")
    if kind is Kind.EXACT:
        return values[0]
    if kind is Kind.ESTIMATE:
        return values.mean(axis=0)
    total = np.logaddexp.reduce(values) if on_host else jax.nn.logsumexp(values, axis=0)
    return total - math.log(len(values))


def combine_in_own_type(log_probs: Float[Any, "draws ..."], kind: Kind) -> Array:
    """Draws combined in their own type: on the host, with nothing to compile, unless traced.

    Args:
      log_probs: Draws ``(draws, ...)`` in nats, as ``over_draws`` returns them.
      kind: Kind of number that one draw is.

    Returns:
      The combined value without the axis of draws, in nats.

    Example:
      >>> import jax.numpy as jnp, numpy as np, likejax as lj
      >>> from likejax.density import combine_in_own_type
      >>> combine_in_own_type(np.zeros((3, 2), np.float32), lj.Kind.BOUND).dtype
      dtype('float32')
    """
    return jax.device_put(combine_draws(log_probs, kind).astype(log_probs.dtype))


def bits_per_dim(log_prob: object, event_shape: int | Sequence[int]) -> Any:
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
    """Returns the smallest unsigned type that holds ``0..levels-1``, as in datasets and samples.

    Args:
      levels: Number of integers, such as 256 for ``uint8``.
    """
    return np.min_scalar_type(levels - 1)


def count_parameters(module: nnx.Module) -> int:
    """Number of trainable entries of a density, or of any other module.

    Args:
      module: A density, or its structure alone (from ``jax.eval_shape``).

    Returns:
      The sum of the sizes of all ``nnx.Param`` arrays.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.VectorGlowConfig(dimensions=2, depth=1, width=4)
      >>> lj.count_parameters(lj.build(config, key=jax.random.key(0)))
      66
    """
    variables = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, nnx.Variable))
    trained = [variable for variable in variables if isinstance(variable, nnx.Param)]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))


class Density(nnx.Module, abc.ABC):
    """A probability distribution over arrays of ``event_shape``.

    A subclass sets ``event_shape`` and ``kind``, and implements two methods for *one* example,
    ``_log_prob(x, key, condition)`` and ``_sample(key, condition, temperature)``. Everything public
    is built on them, vectorized over any leading batch shape and compiled. Modules are frozen: no
    method changes one, and ``initialize`` returns a new one.

    Attributes:
      event_shape: Shape of one example.
      levels: Number of integer values an entry can take (256 for 8-bit images); ``None`` if the
        density is continuous.
      condition_shape: Shape of one example's condition: ``()`` for a class label, an integer; any
        other shape for floats; ``None`` if the density is unconditional.
      num_classes: Number of class labels, which are then ``0..num_classes-1``; ``None`` if the
        condition is not a label.
      kind: Kind of number that ``log_prob`` returns; see ``Kind``.
      sum_log_std: ``sum(log std)`` in nats of the data that the density standardizes inside;
        ``None`` if it does not.
      differentiable: Whether the log-probability changes with ``x`` between integers too; False for
        tables of probabilities.
      column_kinds: Kinds of the columns of a table whose raw rows the density takes, such as
        ``dataset.column_kinds``; ``None`` for other data.
      config: Config that ``build`` made the density from; ``None`` for one put together by hand.

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
    differentiable: bool = True
    column_kinds: tuple[Any, ...] | None = None
    config: Any = None

    @abc.abstractmethod
    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Array:
        """Returns the log-probability of one example, a scalar in nats.

        The key is ``None`` if the kind is exact.
        """

    @abc.abstractmethod
    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        """Draws one example; ``temperature`` multiplies the standard deviations of Gaussians."""

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        """Draws one example, and returns whether all numbers that it was made from are finite.

        Integers have no NaN: a model that rounds its numbers to integers reports here what rounding
        would hide.
        """
        x = self._sample(key, condition, temperature)
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return x, jnp.isfinite(x).all() if is_float else jnp.ones((), bool)

    def _draw_rows(self, rows: Rows, temperature: ArrayLike) -> tuple[Array, Bool[Array, "*batch"]]:
        """Draws the example of every key; a model that takes long shows its progress meanwhile."""
        return over_batch(_sample_of_key, self, rows, temperature)

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        """Returns the training terms of one example; a model with named parts overrides it."""
        return Terms(self._log_prob(x, key, condition), {})

    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """Returns the statistics of one example; a family with numbers to offer overrides it."""
        return {"log_prob": self._log_prob(x, key, condition)}

    def _white_latents(
        self, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, ...]:
        """Returns the white latents of one example, coarsest first, if the family has them."""
        raise self._lacks("white_latents")

    def _embed(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, " d"]:
        """Returns the embedding of one example, if the family has one."""
        raise self._lacks("embed")

    def _log_prob_map(self, x: Array, condition: Array | None) -> Float[Array, "*event"]:
        """Returns one log-probability per dimension given those before it, if there are such."""
        raise self._lacks("log_prob_map")

    def _token_moments(self, x: Array, condition: Array | None) -> Moments:
        """Returns the moments of the log-probability of each dimension, if they can be had."""
        raise self._lacks("token_moments")

    def _diffusion(self, x: Array, key: Array | None, condition: Array | None) -> Diffusion:
        """Returns one example in the model's diffusion, if the model is one."""
        raise self._lacks("diffusion")

    def initialize(self, batch: ArrayLike, key: KeyLike) -> Density:
        """Returns a density whose data-dependent parameters fit ``batch``.

        Args:
          batch: Examples ``(n, *event_shape)`` from the training stream.
          key: Key of the noise, if any.

        Returns:
          A new density; this one if it has no data-dependent parameters.
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
          x: Examples ``(*batch, *event_shape)``: integers if the density has ``levels``, floats
            otherwise.
          key: One key, folded with the flat position in ``x``; or keys of shape ``batch``, used as
            they are (so the key of a single example, batch shape ``()``, is used as it is). Draw
            ``s`` uses ``fold_in(example_key, s)``. Not needed where ``kind`` is ``EXACT``.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``; or one of them
            for all examples.
          draws: Number of draws to combine, as the kind allows.

        Returns:
          ``(*batch,)`` in nats.

        Raises:
          TypeError: For floats where the density takes integers, or the reverse; so for conditions.
          ValueError: For a wrong shape, values outside ``0..levels-1``, a label that no class has,
            conditions that are not finite, or a missing key or condition.
        """
        values = self._draws(x, key=key, condition=condition, draws=draws)
        if len(values) == 1:
            return jax.device_put(values[0])
        return combine_in_own_type(values, self.kind)

    def log_prob_draws(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
        draws: int = 1,
    ) -> Float[Array, "draws ..."]:
        """All draws that ``log_prob`` combines, one by one.

        Args:
          x: Examples ``(*batch, *event_shape)``, as in ``log_prob``.
          key: One key, or keys of shape ``batch``; not needed where ``kind`` is ``EXACT``.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``; or one of them
            for all examples.
          draws: Number of draws of each example, at least 1.

        Returns:
          Array ``(draws, *batch)`` in nats; all draws of an exact density are equal.

        Raises:
          TypeError: If an argument is of another type, as in ``log_prob``.
          ValueError: For the arguments that ``log_prob`` refuses.
        """
        draws = checked("draws", draws, Count)
        values = self._draws(x, key=key, condition=condition, draws=draws)
        repeated = numpy_of(values).broadcast_to(values, (draws, *values.shape[1:]))
        return jax.device_put(repeated)

    def _draws(
        self, x: ArrayLike, *, key: KeyLike | None, condition: ArrayLike | None, draws: int
    ) -> Array | np.ndarray:
        """Returns ``(draws, *batch)`` in nats; a single draw if the density is exact."""
        draws = checked("draws", draws, Count)
        self._check_declared()
        if self.kind is Kind.EXACT:
            key, draws = None, 1
        return self._over_draws(log_prob_of_draw, x, key=key, condition=condition, draws=draws)

    def terms(
        self, x: ArrayLike, *, key: KeyLike | None = None, condition: ArrayLike | None = None
    ) -> Terms:
        """Training terms of each example; ``log_prob`` in them is the one-draw value.

        Where training spreads its random numbers over the batch, as a diffusion model its times,
        it is another draw.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``; an exact density with dropout uses it too.
          condition: Condition, as for ``log_prob``.

        Returns:
          Terms whose arrays have the leading axes ``batch``.
        """
        rows = self._rows(x, key=key, condition=condition)
        keys = keys_of_rows(rows.key, np.arange(rows.count, dtype=np.uint32))
        terms = _terms_of_batch(self, rows.x, keys, rows.condition)
        return jax.tree.map(lambda term: term.reshape(rows.shape + term.shape[1:]), terms)

    def statistics(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
        draws: int = 1,
    ) -> dict[str, Float[Array, "*batch"]]:
        """Named numbers of each example that the family computes on the way to ``log_prob``.

        Every density has ``log_prob``. A flow adds log-determinants and the log-probability of its
        latents per level, a VAE reconstruction, divergences and norms of its posteriors, an
        autoregressive model summaries of its pixels. OOD scores that fit a vector of numbers are
        made of them (Morningstar et al., 2021, arXiv:2006.09273), so a score never asks for a
        class.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``; draw ``s`` is the same as there.
          condition: Condition, as for ``log_prob``.
          draws: Number of draws per example, of which each number is the plain mean.

        Returns:
          Numbers ``(*batch,)`` by name, those that are log-probabilities in nats.

        Raises:
          TypeError: If an argument is of another type, as for ``log_prob``.
          ValueError: If an argument does not fit, as for ``log_prob``.
        """
        draws = checked("draws", draws, Count)
        self._check_declared()
        if self.kind is Kind.EXACT:
            key, draws = None, 1
        rows = self._rows(x, key=key, condition=condition)
        values = over_draws(_statistics_of_draw, self, rows, draws)
        means = values.mean(axis=0)
        return {name: jax.device_put(means[..., i]) for i, name in enumerate(self.statistic_names)}

    def white_latents(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
    ) -> tuple[Float[Array, "..."], ...]:
        """Latents that are independent standard normals if the model is right, coarsest first.

        Flows have them; ``offers("white_latents")`` asks.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.

        Returns:
          Arrays with the leading axes ``batch``, together as many entries as the example has.

        Raises:
          TypeError: If the density has none.
          ValueError: If an argument does not fit, as for ``log_prob``.
        """
        self._check_offers("white_latents")
        return self._over_batch(white_latents_of_draw, x, key=key, condition=condition)

    def embed(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
    ) -> Float[Array, "*batch d"]:
        """A vector that tells examples apart by what they are about: the model's coarsest latent.

        Flows have it, and VAEs, for which it is the mean of the top posterior;
        ``offers("embed")`` asks.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.

        Returns:
          Vectors ``(*batch, d)``.

        Raises:
          TypeError: If the density has none.
          ValueError: If an argument does not fit, as for ``log_prob``.
        """
        self._check_offers("embed")
        return self._over_batch(_embedding_of, x, key=key, condition=condition)

    def log_prob_map(
        self, x: ArrayLike, *, condition: ArrayLike | None = None
    ) -> Float[Array, "*batch event"]:
        """Log-probability of every dimension given those before it in the example, in nats.

        ``log p(x) = sum_t log p(x_t | x_1 ... x_(t-1))``: the sum of the map is ``log_prob``.
        Autoregressive models have it, and models of independent entries;
        ``offers("log_prob_map")`` asks.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          condition: Condition, as for ``log_prob``.

        Returns:
          ``(*batch, *event_shape)``; a PixelCNN++ has one entry for every channel of every pixel.

        Raises:
          TypeError: If the density has no such terms.
          ValueError: If an argument does not fit, as for ``log_prob``.
        """
        self._check_offers("log_prob_map")
        return self._over_batch(_log_prob_map_of, x, condition=condition)

    def token_moments(
        self, x: ArrayLike, *, condition: ArrayLike | None = None
    ) -> tuple[Float[Array, "*batch event"], Float[Array, "*batch event"]]:
        """Mean and standard deviation of ``log p`` over the values each dimension could have taken.

        ``mu_t = sum_v p_t(v) log p_t(v)`` and
        ``sigma_t^2 = sum_v p_t(v) (log p_t(v) - mu_t)^2`` with
        ``p_t(v) = p(x_t = v | x_1 ... x_(t-1))`` and ``v`` over all levels, in nats; exact.
        ``-mu_t`` is the entropy of the dimension given those before it. Models of integers that
        have ``log_prob_map`` have it; ``offers("token_moments")`` asks.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          condition: Condition, as for ``log_prob``.

        Returns:
          Means and standard deviations, each ``(*batch, *event_shape)``.

        Raises:
          TypeError: If the density has no such moments.
          ValueError: If an argument does not fit, as for ``log_prob``.

        References:
          Zhang et al., 2024, Min-K%++: improved baseline for detecting pre-training data from large
          language models, arXiv:2404.02936.
        """
        self._check_offers("token_moments")
        return self._over_batch(_token_moments_of, x, condition=condition)

    def diffusion(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
    ) -> Diffusion:
        """Examples as points of the model's diffusion, with the noise that its denoiser sees.

        Diffusion models have it; ``offers("diffusion")`` asks.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.

        Returns:
          Points, the function that sees noise in points near them, and the ends of ``gamma``.

        Raises:
          TypeError: If the density has none.
          ValueError: If an argument does not fit, as for ``log_prob``.
        """
        self._check_offers("diffusion")
        rows = self._rows(x, key=key, condition=condition)
        point, ends = over_batch(_point_and_ends, self, rows)

        def noise_at(z: ArrayLike, gamma: ArrayLike) -> Array:
            z = as_array("z", z)
            if z.shape != point.shape:
                raise ValueError(f"expected points z of shape {point.shape}, got {z.shape}")
            each = jnp.broadcast_to(as_array("gamma", gamma), rows.shape)
            flat = z.reshape(rows.count, *z.shape[len(rows.shape) :])
            questions = rows._replace(x=(rows.x, flat, each.reshape(rows.count)))
            return over_batch(_noise_at, self, questions)

        return Diffusion(point, noise_at, ends)

    def offers(self, query: str) -> bool:
        """Returns whether the density has one of the queries that not every family has.

        A class has it that implements the query of one example, or has a method of that name.

        Args:
          query: ``white_latents``, ``embed``, ``log_prob_map``, ``token_moments``, ``diffusion``,
            ``log_prob_above`` or ``regret``.

        Raises:
          ValueError: If there is no such query.
        """
        checked("query", query, OptionalQuery)
        names = (f"_{query}", query)
        return any(
            getattr(type(self), name, None) is not getattr(Density, name, None) for name in names
        )

    def why_not(self, query: str) -> str:
        """Returns why the density cannot have an optional query; empty if no reason is known.

        Args:
          query: Name of the query, see ``offers``.

        Raises:
          ValueError: If there is no such query.
        """
        checked("query", query, OptionalQuery)
        return ""

    def _check_offers(self, query: OptionalQuery) -> None:
        self._check_declared()
        if not self.offers(query):
            raise self._lacks(query)

    def _lacks(self, query: OptionalQuery) -> TypeError:
        """The error of a density that was asked for what its family does not have."""
        advice = self.why_not(query) or f"take another, {_WHO_OFFERS[query]}"
        return TypeError(
            f"expected a density with {query.replace('_', ' ')}, {type(self).__name__} has none: "
            f"{advice}"
        )

    @property
    def statistic_names(self) -> tuple[str, ...]:
        """Names of what ``statistics`` returns, in alphabetical order."""
        dtype = jnp.result_type(float) if self.levels is None else integer_dtype(self.levels)
        x = jax.ShapeDtypeStruct(self.event_shape, dtype)
        key = None if self.kind is Kind.EXACT else jax.eval_shape(lambda: jax.random.key(0))
        return tuple(sorted(jax.eval_shape(_statistics_of, self, x, key, self.condition_form)))

    def sample(
        self,
        key: KeyLike,
        sample_shape: int | Sequence[int] = (),
        condition: ArrayLike | None = None,
        temperature: ArrayLike = 1.0,
        *,
        batch_size: int | None = None,
        devices: Devices | None = None,
    ) -> Array:
        """Independent samples, many of them in chunks and on all devices.

        Integers have no NaN: where the numbers behind a sample of integers are not finite, as when
        decoding overflows, a warning counts these samples and names the way to draw them again. If
        all are lost, as with weights that are NaN, there is an error instead; in a function that is
        traced (``jax.jit``) there is only the warning, while it runs. Continuous samples hold the
        numbers that are not finite.

        Args:
          key: One key, of which sample ``i`` uses ``fold_in(key, i)``; or keys of the shape of the
            samples, used as they are.
          sample_shape: Leading shape of the result.
          condition: ``(*batch, *condition_shape)``; the result then has the shape
            ``(*sample_shape, *batch, *event_shape)``.
          temperature: Factor on the standard deviation of the model's Gaussians (Glow, section 5),
            at least 0.
          batch_size: Number of samples that are drawn at a time on each device, which bounds the
            memory and shows progress; all at once if not given. In a traced function they are drawn
            at once.
          devices: Devices to draw with; all of this process if not given. Those of several
            processes share the samples, and every process must make the same call. Samples do not
            depend on the number of devices. They need a ``batch_size``.

        Returns:
          Samples: ``uint8`` (or the smallest unsigned type) if the density has ``levels``.

        Raises:
          TypeError: If an argument is of another type.
          ValueError: For negative sizes, a temperature below 0, labels out of range, ``devices``
            without a ``batch_size``, or if no sample is finite.
        """
        dtype = getattr(sample_shape, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
            raise TypeError(
                "expected the number of samples or their shape after the key, got a second key: "
                "density.sample(key, 16)"
            )
        shape, condition = self._shape_and_condition(sample_shape, condition)
        key = as_key(key)
        keys = key if key.shape == () else keys_of_batch(key, shape)
        rows = Rows(None, keys, condition, shape)
        temperature = checked_temperature(temperature)
        if batch_size is None:
            if devices is not None:
                raise ValueError("expected a batch_size with devices: each draws so many at a time")
            x, finite = self._draw_rows(rows, temperature)
        else:
            size = checked("batch_size", batch_size, Count)
            x, finite = self._draw_in_chunks(rows, temperature, batch_size=size, devices=devices)
        if self.levels is not None:
            again = (
                "density.sample(lj.example_keys(key, {rows}), {count}, temperature=0.9), or one "
                "still lower (--temperature on the command line), draws them again"
            )
            warn_of_lost(finite.reshape(-1), "sample", again)
        return x

    def _draw_in_chunks(
        self, rows: Rows, temperature: ArrayLike, *, batch_size: int, devices: Devices | None
    ) -> tuple[Array, Bool[Array, "*batch"]]:
        """Draws the example of every key as ``_draw_rows`` does, chunk by chunk."""
        leaves = (rows.key, rows.condition, temperature, *jax.tree.leaves(self))
        if rows.count == 0 or any(isinstance(leaf, Tracer) for leaf in leaves):
            return self._draw_rows(rows, temperature)
        assert rows.key is not None  # samples always have keys
        check_shared((self, rows.key, temperature), devices)
        one_key, keys = (rows.key, None) if rows.key.shape == () else (None, rows.key)
        chunks = in_chunks(
            functools.partial(_drawn_chunk, temperature=temperature),
            (self, one_key),
            (np.arange(rows.count, dtype=np.uint32), keys, rows.condition),
            rows.count,
            batch_size=batch_size,
            devices=devices,
            what="samples",
        )
        parts = [[part[:kept] for part in drawn] for drawn, kept in chunks]
        x, finite = (np.concatenate(each) for each in zip(*parts, strict=True))
        in_shape = x.reshape(*rows.shape, *self.event_shape), finite.reshape(rows.shape)
        return jax.device_put(in_shape)

    def sample_and_log_prob(
        self,
        key: KeyLike,
        sample_shape: int | tuple[int, ...] = (),
        condition: ArrayLike | None = None,
    ) -> tuple[Array, Float[Array, "..."]]:
        """Samples and their exact log-probabilities; equal to ``log_prob`` of the samples.

        Args:
          key: One key, or keys of the shape of the samples, as in ``sample``.
          sample_shape: Leading shape of the result.
          condition: Labels or floats ``(*batch, *condition_shape)``; the samples then have the
            shape ``(*sample_shape, *batch, *event_shape)``.

        Returns:
          The samples, and their log-probabilities ``(*sample_shape, *batch)`` in nats.

        Raises:
          TypeError: If the density's log-probability is not exact, or an argument is of another
            type.
          ValueError: For the arguments that ``sample`` refuses.
        """
        if self.kind is not Kind.EXACT:
            raise TypeError(
                f"{type(self).__name__}.log_prob is of kind {self.kind.value}, so a sample has no "
                "exact log-probability to return with it; call sample(key) and then "
                "log_prob(x, key=...)"
            )
        x = self.sample(key, sample_shape, condition)
        if condition is not None:
            shape = x.shape[: x.ndim - len(self.event_shape)] + (self.condition_shape or ())
            values = as_array("condition", condition)
            condition = numpy_of(values).broadcast_to(values, shape)
        return x, self.log_prob(x, condition=condition)

    # --- from an example to a batch

    def _over_batch(
        self,
        query: Query,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        condition: ArrayLike | None = None,
        shared: tuple[PyTree, ...] = (),
        **options: Hashable,
    ) -> Any:
        """Returns what a query of one example gives for each of a batch, vectorized and compiled.

        Args:
          query: ``query(density, x, key, condition, *shared, **options)`` of one example, such as
            a method of the class.
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``; the query gets the key of its example.
          condition: Condition, as for ``log_prob``.
          shared: Arguments that are the same for all examples.
          **options: Static settings of the query.

        Returns:
          What the query returns, every array with the leading axes ``batch``.
        """
        rows = self._rows(x, key=key, condition=condition)
        return over_batch(query, self, rows, *shared, **options)

    def _over_draws(
        self,
        query: Query,
        x: ArrayLike,
        *,
        key: KeyLike | None,
        condition: ArrayLike | None = None,
        draws: int,
        **options: Hashable,
    ) -> Array | np.ndarray:
        """Returns ``(draws, *batch, ...)``: as ``_over_batch``, for every number of a draw."""
        rows = self._rows(x, key=key, condition=condition)
        return over_draws(query, self, rows, draws, **options)

    def _rows(self, x: ArrayLike, *, key: KeyLike | None, condition: ArrayLike | None) -> Rows:
        """Checks the arguments of a query, and flattens them to one row per example."""
        flat, batch = self._checked(x)
        condition = self._checked_condition(condition, batch)
        if key is None and self.kind is not Kind.EXACT:
            raise ValueError(
                f"{type(self).__name__}.log_prob is of kind {self.kind.value}, computed with "
                "random draws, so it needs a key: pass key=jax.random.key(seed)"
            )
        return Rows(flat, None if key is None else keys_of_batch(key, batch), condition, batch)

    # --- what is checked before anything is computed

    def _shape_and_condition(
        self, sample_shape: int | Sequence[int], condition: ArrayLike | None
    ) -> tuple[tuple[int, ...], Array | np.ndarray | None]:
        """Returns the leading shape of all samples, and the condition of each, flattened."""
        self._check_declared()
        sizes = sample_shape if isinstance(sample_shape, Sequence | np.ndarray) else (sample_shape,)
        sizes = checked("sample_shape", sizes, tuple[CountOrZero, ...])
        if condition is None or self.condition_shape is None:
            return sizes, self._checked_condition(condition, sizes)
        values = as_array("condition", condition)
        batch = values.shape[: values.ndim - len(self.condition_shape)]
        shape = (*sizes, *batch)
        repeated = numpy_of(values).broadcast_to(values, (*sizes, *values.shape))
        return shape, self._checked_condition(repeated, shape)

    def _check_declared(self) -> None:
        """Raises a TypeError unless the class declares what every density must declare."""
        name = type(self).__name__
        for attribute, example in (("event_shape", "(28, 28, 1)"), ("kind", "lj.Kind.EXACT")):
            if not hasattr(self, attribute):
                raise TypeError(
                    f"{name} sets no {attribute}: write {attribute} = {example}, say, in its class"
                )
        if not isinstance(self.kind, Kind):
            raise TypeError(f"expected {name}.kind to be a lj.Kind, got {self.kind!r}")
        sizes = self.event_shape
        if not isinstance(sizes, tuple) or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise TypeError(
                f"expected {name}.event_shape to be a tuple of positive integers, got {sizes!r}"
            )

    def _checked(self, x: object) -> tuple[Array | np.ndarray, tuple[int, ...]]:
        """Returns ``x`` flattened to ``(n, *event_shape)``, and its batch shape."""
        self._check_declared()
        array = as_array("x", x)
        rank = len(self.event_shape)
        if array.ndim < rank or array.shape[array.ndim - rank :] != self.event_shape:
            wanted = ", ".join(map(str, self.event_shape))
            advice = shape_advice("x", array.shape, self.event_shape)
            raise ValueError(
                f"expected x of shape (*batch, {wanted}), got {tuple(array.shape)}{advice}"
            )
        if self.levels is None:
            array = checked_floats(array)
        else:
            array = checked_integers(array, self.levels)
        batch = tuple(array.shape[: array.ndim - rank])
        return array.reshape(math.prod(batch), *self.event_shape), batch

    def _checked_batch(self, batch: object) -> Array:
        """Returns examples ``(n, *event_shape)`` to take statistics of, at least one."""
        if isinstance(batch, np.ndarray) and batch.dtype == np.float64:
            self._check_precision(batch)
        flat, shape = self._checked(batch)
        if math.prod(shape) == 0:
            raise ValueError(
                "expected at least one example to initialize with, got shape "
                f"{(*shape, *self.event_shape)}"
            )
        return jnp.asarray(flat)

    def _check_precision(self, batch: np.ndarray) -> None:
        """Raises a ValueError if JAX computes in a type that cannot hold these examples."""
        if batch.shape[1:] == self.event_shape and len(batch):
            check_representable(batch, jnp.result_type(float))

    def _checked_condition(
        self, condition: ArrayLike | None, batch: tuple[int, ...]
    ) -> Array | np.ndarray | None:
        """Returns the condition broadcast to the batch and flattened to one row per example."""
        name = type(self).__name__
        if self.condition_shape is None:
            if condition is not None:
                raise ValueError(f"{name} is unconditional: call it without a condition")
            return None
        wanted = batch + self.condition_shape
        if condition is None:
            raise ValueError(f"{name} is conditional: pass condition= of shape {wanted}")
        values = as_array("condition", condition)
        if values.shape not in (wanted, self.condition_shape):
            raise ValueError(
                f"expected a condition of shape {wanted} or {self.condition_shape}, "
                f"got {values.shape}"
            )
        if self.condition_shape == ():
            check_labels(values, self.num_classes)
            if isinstance(values, np.ndarray):  # one type, for one program
                values = values.astype(jnp.result_type(int))
        else:
            values = checked_conditions(values, self.condition_shape)
        rows = (math.prod(batch), *self.condition_shape)
        return numpy_of(values).broadcast_to(values, wanted).reshape(rows)

    def checked_value(self, value: ArrayLike) -> Array | np.ndarray:
        """Returns one condition as an array, after the checks of a query's conditions.

        Args:
          value: Condition of shape ``condition_shape``.

        Raises:
          TypeError: If it is of another type.
          ValueError: If it has another shape, is out of range or not finite.
        """
        rows = self._checked_condition(value, ())
        assert rows is not None  # without a condition every value was refused
        return rows.reshape(rows.shape[1:])

    @property
    def condition_form(self) -> jax.ShapeDtypeStruct | None:
        """Shape and type of one condition: a label is an integer, an array holds floats."""
        if self.condition_shape is None:
            return None
        dtype = jnp.dtype(jnp.int32) if self.condition_shape == () else jnp.result_type(float)
        return jax.ShapeDtypeStruct(self.condition_shape, dtype)

    # --- how a density is shown

    def __repr__(self) -> str:
        """A few lines: family, event shape, kind and number of parameters."""
        lines = [f"  {name}: {value}" for name, value in self._facts().items()]
        return "\n".join([self._family(), *lines])

    __str__ = __repr__  # not the listing of all arrays that NNX gives

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        facts = {name: str(value) for name, value in self._facts().items()}
        return facts_table(facts, caption=self._family())

    def _family(self) -> str:
        """The class, what it wraps, and the config that it was built from."""
        inner = getattr(self, "density", None)
        name = type(self).__name__
        if isinstance(inner, Density):
            name += f"({type(inner).__name__})"
        return name if self.config is None else f"{name}, built from {type(self.config).__name__}"

    def _facts(self) -> dict[str, Any]:
        kind = getattr(self, "kind", None)
        facts = {
            "event shape": getattr(self, "event_shape", "not set"),
            "levels": "continuous" if self.levels is None else self.levels,
            "kind": kind.value if isinstance(kind, Kind) else kind,
            "parameters": f"{count_parameters(self):,}",
        }
        if self.condition_shape is not None:
            facts["condition shape"] = self.condition_shape
        if self.num_classes is not None:
            facts["classes"] = self.num_classes
        return facts


# --- queries of one example, in the form that `batching` vectorizes


def log_prob_of_draw(
    density: Density, x: Array, key: Array | None, condition: Array | None, draw: ArrayLike
) -> Array:
    """Returns one draw of the log-probability of one example, in nats and float32 or better.

    Args:
      density: Any density.
      x: One example.
      key: Key of the example; ``None`` if the density is exact.
      condition: Condition of the example, if the density has one.
      draw: Number of the draw, folded into the key.

    Raises:
      TypeError: If the density returns anything but a scalar.
    """
    log_prob = density._log_prob(x, _key_of_draw(key, draw), condition)
    if jnp.shape(log_prob) != ():
        raise TypeError(
            f"expected {type(density).__name__}._log_prob to return one number for an example, got "
            f"shape {jnp.shape(log_prob)}: sum over the dimensions of the event"
        )
    log_prob = jnp.asarray(log_prob)
    return log_prob.astype(jnp.promote_types(log_prob.dtype, jnp.float32))


def _statistics_of(
    density: Density, x: Array, key: Array | None, condition: Array | None
) -> Statistics:
    """A function of the module, unlike a method, is traced once for all densities of one form."""
    return density._statistics(x, key, condition)


def _statistics_of_draw(
    density: Density, x: Array, key: Array | None, condition: Array | None, draw: ArrayLike
) -> Float[Array, " names"]:
    values = density._statistics(x, _key_of_draw(key, draw), condition)
    for name, value in values.items():
        if jnp.shape(value) != ():
            raise TypeError(
                f"expected {type(density).__name__}._statistics to return one number for {name!r}, "
                f"got shape {jnp.shape(value)}"
            )
    numbers = [jnp.asarray(values[name], jnp.result_type(float)) for name in sorted(values)]
    return jnp.stack(numbers)


def white_latents_of_draw(
    density: Density, x: Array, key: Array | None, condition: Array | None, draw: ArrayLike = 0
) -> tuple[Array, ...]:
    """Returns the white latents of one example, coarsest first.

    Args:
      density: A density that offers them.
      x: One example.
      key: Key of the example; ``None`` if the density is exact.
      condition: Condition of the example, if the density has one.
      draw: Number of the draw, folded into the key.
    """
    return density._white_latents(x, _key_of_draw(key, draw), condition)


def _embedding_of(
    density: Density, x: Array, key: Array | None, condition: Array | None
) -> Float[Array, " d"]:
    return density._embed(x, _key_of_draw(key, 0), condition)


def _log_prob_map_of(
    density: Density, x: Array, key: None, condition: Array | None
) -> Float[Array, "*event"]:
    del key
    return density._log_prob_map(x, condition)


def _token_moments_of(density: Density, x: Array, key: None, condition: Array | None) -> Moments:
    del key
    return density._token_moments(x, condition)


def diffusion_of_draw(
    density: Density, x: Array, key: Array | None, condition: Array | None, draw: ArrayLike = 0
) -> Diffusion:
    """Returns one example in the diffusion of a model.

    Args:
      density: A density that offers it.
      x: One example.
      key: Key of the example; ``None`` if the density is exact.
      condition: Condition of the example, if the density has one.
      draw: Number of the draw, folded into the key.
    """
    return density._diffusion(x, _key_of_draw(key, draw), condition)


def _point_and_ends(
    density: Density, x: Array, key: Array | None, condition: Array | None
) -> tuple[Array, tuple[Array, Array]]:
    diffusion = diffusion_of_draw(density, x, key, condition)
    return diffusion.point, diffusion.ends


def _noise_at(
    density: Density, question: tuple[Array, ...], key: Array | None, condition: Array | None
) -> Array:
    x, z, gamma = question
    return diffusion_of_draw(density, x, key, condition).noise_at(z, gamma)


def _key_of_draw(key: Array | None, draw: ArrayLike) -> Array | None:
    return None if key is None else jax.random.fold_in(key, draw)


@jax.jit
def _terms_of_batch(
    density: Density, x: Array, keys: Array | None, condition: Array | None
) -> Terms:
    """Training may couple the batch, so its terms are not those of padded rows."""
    keys = None if keys is None else fold_in_each(keys, 0)
    return jax.vmap(density._terms)(x, keys, condition)


def _sample_of_key(
    density: Density, x: None, key: Array, condition: Array | None, temperature: ArrayLike
) -> tuple[Array, Bool[Array, ""]]:
    """One sample, checked to be of the event's shape, and whether its numbers are finite."""
    del x
    drawn, finite = density._draw(key, condition, temperature)
    if drawn.shape != density.event_shape:
        raise TypeError(
            f"expected {type(density).__name__}._sample to return an example of shape "
            f"{density.event_shape}, got {drawn.shape}"
        )
    return drawn, finite


def _drawn_chunk(
    model: tuple[Density, Array | None],
    chunk: tuple[np.ndarray, Array | None, Array | np.ndarray | None],
    *,
    temperature: ArrayLike,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of some rows, on the host, and whether their numbers are finite."""
    density, one_key = model
    numbers, keys, conditions = chunk
    rows = Rows(None, keys_of_rows(one_key, numbers), conditions, (len(numbers),))
    if keys is not None:
        rows = rows._replace(key=keys)
    with own_shapes():  # samples must not depend on what was compiled before
        return jax.device_get(density._draw_rows(rows, temperature))


def check_density(density: object) -> None:
    """Raises a TypeError unless ``density`` is a density that declares its shape and kind.

    Args:
      density: Anything.

    Raises:
      TypeError: If it is not one; the message says where to get one.
    """
    if isinstance(density, Density):
        density._check_declared()
        return
    advice = "a subclass of lj.Density"
    if hasattr(density, "model"):
        advice = "lj.fit(experiment, train, key=...).density is one, trained"
    elif hasattr(density, "build"):
        advice = "build one with lj.build(config, key=...)"
    elif isinstance(getattr(density, "density", None), Density):
        advice = f"pass its attribute density: {type(density).__name__.lower()}.density"
    raise TypeError(f"expected a density, got {type(density).__name__}: {advice}")


def checked_temperature(temperature: ArrayLike) -> ArrayLike:
    """Returns a factor on the noise of samples: a number of at least 0, or one that is traced.

    Args:
      temperature: Factor on the noise; a traced one cannot be examined.

    Raises:
      TypeError: If it is not a number.
      ValueError: If it is below 0.
    """
    if isinstance(temperature, Tracer):
        return temperature
    return float(checked("temperature", temperature, NonNegative))

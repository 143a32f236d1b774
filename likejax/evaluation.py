"""From a density and a dataset to a number with its error."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from likejax.batching import own_shapes
from likejax.data.conditions import condition_of
from likejax.data.dataset import Dataset, as_dataset
from likejax.density import Density, Kind, bits_per_dim, check_density, combine_draws
from likejax.devices import Devices, check_shared, in_chunks
from likejax.facts import facts_table
from likejax.inputs import as_array, shape_advice
from likejax.keys import KeyLike, as_key, example_keys
from likejax.settings import Count, checked

_BITS_SIGN = {Kind.EXACT: "=", Kind.BOUND: "<=", Kind.ESTIMATE: "~"}
_NATS_SIGN = {Kind.EXACT: "=", Kind.BOUND: ">=", Kind.ESTIMATE: "~"}


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Log-likelihoods of a dataset under a density, and their summary.

    Attributes:
      log_prob: Nats of each example, ``(n,)``, draws combined as ``kind`` allows.
      kind: Kind of these numbers.
      draws: Draws per example.
      levels: Number of integer values of the data; ``None`` for continuous data, which have no bits
        per dimension.
      event_shape: Shape of one example.
      dataset: Name and part of the data.
      fingerprint: Hash of the examples.
      monte_carlo_error: Standard error of ``mean`` from the random draws alone; 0 if exact, NaN for
        one draw.
      sum_log_std: ``sum(log std)`` of the training data in nats, if the density standardizes them
        inside.

    Example:
      >>> import likejax as lj
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> lj.evaluate(histogram, lj.load("digits", split="test")).n
      359
    """

    log_prob: Float[np.ndarray, " n"]
    kind: Kind
    draws: int
    levels: int | None
    event_shape: tuple[int, ...]
    dataset: str
    fingerprint: str
    monte_carlo_error: float
    sum_log_std: float | None = None

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.log_prob)

    @property
    def mean(self) -> float:
        """Mean log-likelihood in nats."""
        return float(np.mean(self.log_prob))

    @property
    def standard_error(self) -> float:
        """Standard error of ``mean`` in nats, over examples and draws together.

        NaN for a single example, or if a log-likelihood is infinite.
        """
        if self.n <= 1 or not np.isfinite(self.log_prob).all():
            return math.nan
        return float(np.std(self.log_prob, ddof=1) / math.sqrt(self.n))

    @property
    def impossible(self) -> int:
        """Number of examples of log-likelihood minus infinity: one makes the mean infinite."""
        return int(np.isneginf(self.log_prob).sum())

    @property
    def standardized(self) -> float | None:
        """``mean`` that refers to the standardized data, ``mean + sum(log std)``, or ``None``."""
        return None if self.sum_log_std is None else self.mean + self.sum_log_std

    @property
    def bits_per_dim(self) -> float | None:
        """Mean bits per dimension, or ``None`` for continuous data."""
        if self.levels is None:
            return None
        return float(bits_per_dim(self.mean, self.event_shape))

    @property
    def bits_per_dim_error(self) -> float | None:
        """Standard error of ``bits_per_dim``."""
        if self.levels is None:
            return None
        return float(-bits_per_dim(self.standard_error, self.event_shape))

    def to_dict(self) -> dict[str, Any]:
        """A record for JSON, without the single examples."""
        numbers = {
            "n": self.n,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "bits_per_dim": self.bits_per_dim,
            "bits_per_dim_error": self.bits_per_dim_error,
            "monte_carlo_error": self.monte_carlo_error,
            "draws": self.draws,
            "sum_log_std": self.sum_log_std,
            "standardized": self.standardized,
        }
        record: dict[str, Any] = {name: _json_number(value) for name, value in numbers.items()}
        return record | {
            "kind": self.kind.value,
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
        }

    def __str__(self) -> str:
        details = [self.kind.value]
        if self.kind is not Kind.EXACT:
            details.append(f"{self.draws} draw{'s' if self.draws > 1 else ''}")
        details.append(f"n = {self.n}")
        if self.impossible:
            details.append(f"{self.impossible} of probability 0")
        details.append(self.dataset)
        return f"{self._number()} ({', '.join(details)})"

    def _number(self) -> str:
        """The mean with its unit and error, after the sign that its kind allows."""
        if self.levels is not None:
            sign = _BITS_SIGN[self.kind]
            return f"bits/dim {sign} {self.bits_per_dim:.4f} ± {self.bits_per_dim_error:.4f}"
        sign = _NATS_SIGN[self.kind]
        number = f"log p {sign} {self.mean:.4f} ± {self.standard_error:.4f} nats"
        if self.standardized is not None:
            number += f", {self.standardized:.4f} standardized"
        return number

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        facts = {
            "value": self._number(),
            "kind": self.kind.value,
            "draws": str(self.draws),
            "examples": str(self.n),
            "Monte-Carlo error": f"{self.monte_carlo_error:.4g} nats",
        }
        if self.impossible:
            facts["of probability 0"] = str(self.impossible)
        return facts_table(facts, caption=self.dataset)


def _json_number(value: float | int | None) -> float | int | None:
    """A number as JSON can keep it: no NaN, no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(
    density: Density,
    dataset: object,
    *,
    key: KeyLike | None = None,
    draws: int = 1,
    batch_size: int = 128,
    devices: Devices | None = None,
) -> Evaluation:
    """Evaluates the log-likelihood of every example of a dataset.

    Keys come from the position in the dataset, and no example is dropped. A progress bar appears
    after two seconds.

    Args:
      density: Any density; a conditional one gets the labels, or the conditions.
      dataset: Examples of the density's shape and levels: a ``Dataset``, or an array
        ``(n, *event_shape)``. Weights, which are for training, do not count.
      key: Key of the draws; needed unless the density is exact.
      draws: Draws per example, combined as the kind allows; more draws tighten a bound.
      batch_size: Examples at a time on each device; the result does not depend on it (to 5e-6
        relative).
      devices: Devices to compute on; all of this process if not given. Those of several
        processes share the rows, and every process must make the same call. The numbers are
        those of one device.

    Returns:
      An ``Evaluation``; ``print`` it.

    Raises:
      ValueError: If dataset and density do not fit, or a log-likelihood is NaN.

    Example:
      >>> import likejax as lj
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> print(lj.evaluate(histogram, lj.load("digits", split="test")))
      bits/dim = 2.4386 ± 0.0109 (exact, n = 359, digits test)
    """
    draws, batch_size = checked("draws", draws, Count), checked("batch_size", batch_size, Count)
    check_density(density)
    dataset = as_dataset(dataset, levels=density.levels, event_shape=density.event_shape)
    check_fit(density, dataset)
    check_shared((density, key), devices)
    if key is None and density.kind is not Kind.EXACT:
        raise ValueError(
            f"{type(density).__name__} draws at random to be evaluated: "
            "pass key=jax.random.key(seed)"
        )
    if density.kind is Kind.EXACT:
        draws = 1
    log_probs = log_prob_draws_in_chunks(
        density,
        dataset.examples,
        key=key,
        condition=condition_of(dataset, density.condition_shape),
        draws=draws,
        batch_size=batch_size,
        devices=devices,
    )
    _refuse_nan(log_probs, dataset)
    variance = _monte_carlo_variance(log_probs, density.kind)
    return Evaluation(
        log_prob=combine_draws(log_probs, density.kind),
        kind=density.kind,
        draws=draws,
        levels=density.levels,
        event_shape=density.event_shape,
        dataset=f"{dataset.name} {dataset.split}",
        fingerprint=dataset.examples_fingerprint(),
        monte_carlo_error=float(np.sqrt(variance.sum()) / len(dataset)),
        sum_log_std=density.sum_log_std,
    )


def _refuse_nan(log_probs: Float[np.ndarray, "draws n"], dataset: Dataset) -> None:
    """Raises a ValueError if a log-likelihood is NaN."""
    bad = np.flatnonzero(np.isnan(log_probs).any(0))
    if len(bad):
        raise ValueError(
            f"log_prob is NaN for {len(bad)} of the {len(dataset)} examples of {dataset.name} "
            f"{dataset.split}, the first at row {bad[0]}: the weights or these examples hold "
            "numbers that the model cannot compute with. If it is a continuous flow, its solver "
            "may have run out of steps (Solver.max_steps)"
        )


def _monte_carlo_variance(
    log_probs: Float[np.ndarray, "draws n"], kind: Kind
) -> Float[np.ndarray, " n"]:
    """Variance of each example's combined value over the draws; NaN for a single draw.

    For a bound by the delta method, ``var(log w_mean) = var(w) / (draws * w_mean^2)``.
    """
    draws, n = log_probs.shape
    if kind is Kind.EXACT:
        return np.zeros(n)
    if draws == 1:
        return np.full(n, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # infinite draws have no variance
        if kind is Kind.ESTIMATE:
            return log_probs.var(0, ddof=1) / draws
        top = log_probs.max(0)
        weights = np.exp(log_probs - np.where(np.isfinite(top), top, 0.0))
        return weights.var(0, ddof=1) / (draws * weights.mean(0) ** 2)


def log_prob_draws_in_chunks(
    density: Density,
    x: object,
    *,
    key: KeyLike | None = None,
    condition: np.ndarray | None = None,
    draws: int = 1,
    batch_size: int = 128,
    devices: Devices | None = None,
) -> Float[np.ndarray, "draws n"]:
    """Computes ``log_prob_draws`` of a large host array, in memory that ``batch_size`` bounds.

    Keys come from the position in ``x``, and the last chunk is padded to the shape of the others.
    So a value does not depend on how the data are cut (to 5e-6 relative between compiled shapes,
    bitwise within one).

    Args:
      density: Any density.
      x: Examples ``(n, *event_shape)``; only one chunk at a time is moved to the device.
      key: One key; example ``i`` uses ``fold_in(key, i)``.
      condition: ``(n, *condition_shape)`` or ``None``.
      draws: Draws per example.
      batch_size: Examples per chunk, on one device.
      devices: Devices to compute on; all of this process if not given.

    Returns:
      ``(draws, n)`` in nats, float64 on the host.

    Example:
      >>> import numpy as np, likejax as lj
      >>> from likejax.evaluation import log_prob_draws_in_chunks
      >>> log_prob_draws_in_chunks(lj.models.Uniform((2,)), np.zeros((5, 2)), batch_size=2).shape
      (1, 5)
    """
    check_density(density)
    draws, batch_size = checked("draws", draws, Count), checked("batch_size", batch_size, Count)
    x = as_array("x", x)
    if x.shape[1:] != density.event_shape:
        wanted = ", ".join(map(str, density.event_shape))
        advice = shape_advice("x", x.shape, density.event_shape)
        raise ValueError(f"expected x of shape (n, {wanted}), got {x.shape}{advice}")
    n = len(x)
    if condition is not None and np.shape(condition)[:1] != (n,):
        raise ValueError(
            f"expected a condition for each of the {n} examples, got shape {np.shape(condition)}"
        )
    if n == 0:
        return np.zeros((draws, 0))
    if condition is not None:
        condition = np.asarray(condition)
    model = density, None if key is None else as_key(key)
    arrays = x, np.arange(n, dtype=np.uint32), condition
    chunks = in_chunks(
        functools.partial(_draws_of_chunk, draws=draws),
        model,
        arrays,
        n,
        batch_size=batch_size,
        devices=devices,
        what="log-likelihoods",
    )
    return np.concatenate([values[:, :kept] for values, kept in chunks], axis=1)


def _draws_of_chunk(
    model: tuple[Density, Array | None],
    chunk: tuple[Any, np.ndarray, np.ndarray | None],
    *,
    draws: int,
) -> Float[np.ndarray, "draws n"]:
    """Draws of the log-probability of rows, of which the keys come from their numbers."""
    density, key = model
    x, numbers, condition = chunk
    with own_shapes():  # the numbers of a run must not depend on what was compiled before
        values = density.log_prob_draws(
            np.asarray(x),
            key=None if key is None else example_keys(key, numbers),
            condition=condition,
            draws=draws,
        )
    return np.asarray(values, np.float64)


def log_prob_in_chunks(
    density: Density,
    x: object,
    *,
    key: KeyLike | None = None,
    condition: np.ndarray | None = None,
    draws: int = 1,
    batch_size: int = 128,
    devices: Devices | None = None,
) -> Float[np.ndarray, " n"]:
    """Computes ``log_prob`` of a large host array in chunks; see ``log_prob_draws_in_chunks``.

    Args:
      density: Any density.
      x: Examples ``(n, *event_shape)``.
      key: One key; example ``i`` uses ``fold_in(key, i)``.
      condition: ``(n, *condition_shape)`` or ``None``.
      draws: Draws per example, combined as the kind allows.
      batch_size: Examples per chunk, on one device.
      devices: Devices to compute on; all of this process if not given.

    Returns:
      ``(n,)`` in nats, float64 on the host.

    Example:
      >>> import numpy as np, likejax as lj
      >>> from likejax.evaluation import log_prob_in_chunks
      >>> log_prob_in_chunks(lj.models.Uniform((2,)), np.zeros((5, 2)), batch_size=2).shape
      (5,)
    """
    values = log_prob_draws_in_chunks(
        density,
        x,
        key=key,
        condition=condition,
        draws=draws,
        batch_size=batch_size,
        devices=devices,
    )
    return combine_draws(values, density.kind)


def check_fit(density: Density, dataset: Dataset) -> None:
    """Raises unless a dataset holds examples of a density's shape and levels, and its conditions.

    Args:
      density: Any density.
      dataset: Data for it.

    Raises:
      TypeError: If one of them is not a density, or not a dataset.
      ValueError: If they do not fit.
    """
    check_density(density)
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"expected a lj.Dataset, got {type(dataset).__name__}: "
            "lj.Dataset.from_array(x) makes one"
        )
    if dataset.event_shape != density.event_shape or dataset.levels != density.levels:
        raise ValueError(
            f"expected examples of shape {density.event_shape} with levels={density.levels}, "
            f"got dataset {dataset.name!r} with {dataset.event_shape} and levels={dataset.levels}; "
            + _advice_on_form(density, dataset)
        )
    _check_columns(density, dataset)
    condition_of(dataset, density.condition_shape, num_classes=density.num_classes)
    dataset.check_precision()


def _advice_on_form(density: Density, dataset: Dataset) -> str:
    """Returns how a dataset may get the shape and the levels of a density."""
    if dataset.event_shape == density.event_shape:
        return (
            "for fewer levels there are dataset.reduce_levels(levels) and, for two, "
            "dataset.binarize(seed); in the name of a dataset +levels:32 and +binarize"
        )
    steps = ""
    if len(density.event_shape) == len(dataset.event_shape) == 3:
        height, width, channels = density.event_shape
        if dataset.event_shape[2] != channels:
            steps = {1: "+gray", 3: "+color"}.get(channels, "")
        if dataset.event_shape[:2] != (height, width):
            steps += f"+resize:{height}x{width}"
    if not steps:
        return "the examples need the density's shape"
    return f"{steps} in the name of a dataset gives images the density's shape"


def _check_columns(density: Density, dataset: Dataset) -> None:
    """Raises a ValueError unless a density takes the columns of a table for what they are."""
    columns = dataset.column_kinds
    if columns is None:
        return
    if density.column_kinds is not None:
        for mine, theirs in zip(density.column_kinds, columns, strict=True):
            named = dataclasses.replace(mine, name=mine.name or theirs.name)
            if named != theirs:
                raise ValueError(
                    "expected a table with the columns of the density, got dataset "
                    f"{dataset.name!r} with {theirs!r} in place of {mine!r}: read it with "
                    "lj.Dataset.from_table(..., columns=density.column_kinds)"
                )
        return
    discrete = [column.name for column in columns if column.discrete]
    if discrete:
        raise ValueError(
            f"expected a density that gives masses to the discrete columns of {dataset.name!r} "
            f"({', '.join(discrete)}), got one of real numbers: wrap the model in "
            "lj.models.TabularConfig(dataset.column_kinds, model)"
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Mean difference of two evaluations of the same examples, with its error.

    Attributes:
      difference: Mean of ``first - second`` in nats.
      standard_error: Standard error of the difference, of paired examples.
      kinds: Kinds of the two evaluations.

    Example:
      >>> import likejax as lj
      >>> from likejax.evaluation import Comparison
      >>> print(Comparison(1.5, 0.25, (lj.Kind.EXACT, lj.Kind.EXACT)))
      difference +1.5000 ± 0.2500 nats (paired)
    """

    difference: float
    standard_error: float
    kinds: tuple[Kind, Kind]

    def __str__(self) -> str:
        first, second = self.kinds
        note = "" if first is second else f"; kinds differ: {first.value}, {second.value}"
        return f"difference {self.difference:+.4f} ± {self.standard_error:.4f} nats (paired{note})"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        facts = {
            "first minus second": f"{self.difference:+.4f} ± {self.standard_error:.4f} nats",
            "errors": "of paired examples",
            "kinds": ", ".join(kind.value for kind in self.kinds),
        }
        return facts_table(facts)


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compares two densities on the same examples, which is sharper than two separate errors.

    Args:
      first: Evaluation of one density.
      second: Evaluation of another density on the same examples.

    Returns:
      The mean difference ``first - second`` in nats, with its error.

    Raises:
      TypeError: If these are not evaluations.
      ValueError: If the evaluations are of different data, or an example has probability 0 under
        one of them.

    Example:
      >>> import likejax as lj
      >>> digits, test = lj.load("digits"), lj.load("digits", split="test")
      >>> histogram = lj.evaluate(lj.models.PixelHistogram.fit(digits), test)
      >>> lj.compare(histogram, histogram).difference
      0.0
    """
    for each in (first, second):
        if not isinstance(each, Evaluation):
            raise TypeError(f"expected two evaluations from lj.evaluate, got {type(each).__name__}")
    if first.fingerprint != second.fingerprint:
        raise ValueError(
            f"expected evaluations of the same data, got {first.dataset} and {second.dataset}"
        )
    if first.impossible or second.impossible:
        raise ValueError(
            "expected examples that both densities can have made, "
            f"{first.impossible} have probability 0 under the first and {second.impossible} under "
            "the second: a mean difference with them is not a number"
        )
    difference = first.log_prob - second.log_prob
    error = math.nan
    if len(difference) > 1:
        error = float(np.std(difference, ddof=1) / math.sqrt(len(difference)))
    return Comparison(float(difference.mean()), error, (first.kind, second.kind))

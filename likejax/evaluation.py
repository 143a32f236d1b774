"""From a density and a dataset to a number with its error."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset, as_dataset
from likejax.density import Density, Kind, bits_per_dim, check_density, log_prob_draws_in_chunks
from likejax.inputs import check_labels
from likejax.keys import KeyLike
from likejax.settings import Count, checked


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Log-likelihoods of a dataset under a density, and their summary.

    Attributes:
      log_prob: Nats of each example, ``(n,)``, draws combined as ``kind`` allows.
      kind: What these numbers are.
      draws: Draws per example.
      levels: Of the data; ``None`` for continuous data, which have no bits per dimension.
      event_shape: Of one example.
      dataset: Name and part of the data.
      fingerprint: Hash of the examples.
      monte_carlo_error: Standard error of ``mean`` from the random draws alone; 0 if exact, NaN for one draw.
      sum_log_std: ``sum(log std)`` of the training data in nats, if the density standardizes them inside.
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
        """Standard error of ``mean`` in nats, over examples and draws together; NaN for one or infinite examples."""
        known = self.n > 1 and bool(np.isfinite(self.log_prob).all())
        return float(np.std(self.log_prob, ddof=1) / math.sqrt(self.n)) if known else math.nan

    @property
    def impossible(self) -> int:
        """Number of examples whose log-likelihood is minus infinity: one of them makes the mean infinite."""
        return int(np.isneginf(self.log_prob).sum())

    @property
    def standardized(self) -> float | None:
        """``mean`` with reference to the standardized data, ``mean + sum(log std)``; ``None`` without."""
        return None if self.sum_log_std is None else self.mean + self.sum_log_std

    @property
    def bits_per_dim(self) -> float | None:
        """Mean bits per dimension, or ``None`` for continuous data."""
        return None if self.levels is None else float(bits_per_dim(self.mean, self.event_shape))

    @property
    def bits_per_dim_error(self) -> float | None:
        """Standard error of ``bits_per_dim``."""
        return (
            None
            if self.levels is None
            else float(-bits_per_dim(self.standard_error, self.event_shape))
        )

    def to_dict(self) -> dict[str, Any]:
        """A record for JSON, without the single examples."""
        names = (
            "n",
            "mean",
            "standard_error",
            "bits_per_dim",
            "bits_per_dim_error",
            "monte_carlo_error",
            "draws",
        )
        names += ("sum_log_std", "standardized")
        record = {name: _json_number(getattr(self, name)) for name in names}
        return record | {
            "kind": self.kind.value,
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
        }

    def __str__(self) -> str:
        draws = (
            "" if self.kind is Kind.EXACT else f", {self.draws} draw{'s' if self.draws > 1 else ''}"
        )
        if self.levels is None:
            sign = {Kind.EXACT: "=", Kind.BOUND: ">=", Kind.ESTIMATE: "~"}[self.kind]
            number = f"log p {sign} {self.mean:.4f} ± {self.standard_error:.4f} nats"
            if self.standardized is not None:
                number += f", {self.standardized:.4f} standardized"
        else:
            sign = {Kind.EXACT: "=", Kind.BOUND: "<=", Kind.ESTIMATE: "~"}[self.kind]
            number = f"bits/dim {sign} {self.bits_per_dim:.4f} ± {self.bits_per_dim_error:.4f}"
        excluded = f", {self.impossible} of probability 0" if self.impossible else ""
        return f"{number} ({self.kind.value}{draws}, n = {self.n}{excluded}, {self.dataset})"


def _json_number(value: float | int | None) -> float | int | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(
    density: Density,
    dataset: Any,
    *,
    key: KeyLike | None = None,
    draws: int = 1,
    batch_size: int = 128,
) -> Evaluation:
    """Log-likelihood of every example of a dataset; keys come from the position in it, none is dropped.

    Args:
      density: Any density; a conditional one gets the labels.
      dataset: Examples of the density's shape and levels: a ``Dataset``, or an array ``(n, *event_shape)``. Weights,
        which are for training, do not count.
      key: Needed unless the density is exact.
      draws: Draws per example, combined as the kind allows; more draws tighten a bound.
      batch_size: Examples at a time; the result does not depend on it (to 5e-6 relative).

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
    if key is None and density.kind is not Kind.EXACT:
        raise ValueError(
            f"{type(density).__name__} draws at random to be evaluated: pass key=jax.random.key(seed)"
        )
    draws = 1 if density.kind is Kind.EXACT else draws
    condition = dataset.labels if density.condition_shape is not None else None
    log_probs = log_prob_draws_in_chunks(
        density, dataset.examples, key=key, condition=condition, draws=draws, batch_size=batch_size
    ).astype(np.float64)
    if np.isnan(log_probs).any():
        bad = np.flatnonzero(np.isnan(log_probs).any(0))
        raise ValueError(
            f"log_prob is NaN for {len(bad)} of the {len(dataset)} examples of {dataset.name} {dataset.split}, the "
            f"first at row {bad[0]}: the weights or these examples hold numbers that the model cannot compute with. "
            "If it is a continuous flow, its solver may have run out of steps (Solver.max_steps)"
        )
    combined, variance = _combine(log_probs, density.kind)
    return Evaluation(
        log_prob=combined,
        kind=density.kind,
        draws=draws,
        levels=density.levels,
        event_shape=density.event_shape,
        dataset=f"{dataset.name} {dataset.split}",
        fingerprint=dataset.examples_fingerprint(),
        monte_carlo_error=float(np.sqrt(variance.sum()) / len(dataset)),
        sum_log_std=density.sum_log_std,
    )


def check_fit(density: Density, dataset: Dataset) -> None:
    """Raises unless ``dataset`` holds what ``density`` is over: examples of its shape and levels, and its labels.

    Raises:
      TypeError: If one of them is no density, or no dataset.
      ValueError: If they do not fit.
    """
    check_density(density)
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"expected a lj.Dataset, got {type(dataset).__name__}: lj.Dataset.from_array(x) makes one"
        )
    if dataset.event_shape != density.event_shape or dataset.levels != density.levels:
        raise ValueError(
            f"expected examples of shape {density.event_shape} with levels={density.levels}, got dataset "
            f"{dataset.name!r} with {dataset.event_shape} and levels={dataset.levels}; for fewer levels there are "
            "dataset.reduce_levels(levels) and, for two, dataset.binarize(seed)"
        )
    if density.condition_shape is not None and dataset.labels is None:
        raise ValueError(
            f"expected a labeled dataset for a conditional density, {dataset.name!r} has no labels"
        )
    if density.num_classes is not None:
        try:
            check_labels(dataset.labels, density.num_classes)
        except ValueError as error:
            raise ValueError(f"dataset {dataset.name!r}, {dataset.split}: {error}") from error
    dataset.check_precision()


def _combine(log_probs: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Combined draws of each example, and the Monte-Carlo variance of each, in float64 on the host."""
    draws, n = log_probs.shape
    if kind is Kind.EXACT:
        return log_probs[0], np.zeros(n)
    if kind is Kind.ESTIMATE:
        combined = log_probs.mean(0)
        with np.errstate(invalid="ignore"):  # of infinite draws there is no variance
            return combined, log_probs.var(0, ddof=1) / draws if draws > 1 else np.full(n, np.nan)
    top = log_probs.max(0)
    safe = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(log_probs - safe)
    mean = weights.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        combined = np.log(mean) + safe
        # delta method: var(log w_bar) = var(w) / (draws * mean(w)^2)
        variance = weights.var(0, ddof=1) / (draws * mean**2) if draws > 1 else np.full(n, np.nan)
    return combined, variance


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Mean difference in nats (``first - second``) of two evaluations of the same examples, with its error."""

    difference: float
    standard_error: float
    kinds: tuple[Kind, Kind]

    def __str__(self) -> str:
        note = (
            ""
            if self.kinds[0] is self.kinds[1]
            else f"; kinds differ: {self.kinds[0].value}, {self.kinds[1].value}"
        )
        return f"difference {self.difference:+.4f} ± {self.standard_error:.4f} nats (paired{note})"


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Paired comparison of two densities on the same examples, sharper than two separate errors.

    Raises:
      TypeError: If these are no evaluations.
      ValueError: If the evaluations are of different data, or an example has probability 0 under one of them.
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
            f"expected examples that both densities can have made, {first.impossible} have probability 0 under the "
            f"first and {second.impossible} under the second: a mean difference with them is no number"
        )
    difference = first.log_prob - second.log_prob
    error = (
        float(np.std(difference, ddof=1) / math.sqrt(len(difference)))
        if len(difference) > 1
        else math.nan
    )
    return Comparison(float(difference.mean()), error, (first.kind, second.kind))

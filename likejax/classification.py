"""Classification by Bayes' rule with a density of examples given their class label."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Integer, Shaped

from likejax import plot
from likejax.batching import own_shapes
from likejax.data.dataset import Dataset
from likejax.density import Density, Kind
from likejax.devices import Devices, in_chunks
from likejax.evaluation import check_fit
from likejax.facts import facts_table
from likejax.keys import KeyLike, as_key, example_keys
from likejax.models.class_mixture import ClassMixture
from likejax.settings import Count, checked

_BINS = 15
"""Number of bins of the confidence, of equal width, in the calibration error."""


@dataclasses.dataclass(frozen=True, eq=False)
class Classification:
    """Posteriors of a labeled dataset, and how good they are.

    Every number has its standard error over the examples in ``standard_errors``.

    Attributes:
      log_posterior: ``log p(y | x)`` of every example and class, ``(n, classes)`` in nats.
      labels: True labels, ``(n,)``.
      kind: Kind of the log-likelihoods that the posteriors are made from. Posteriors themselves
        have no kind: a ratio of bounds is no bound.
      draws: Draws per example and class.
      dataset: Name and part of the data.
      fingerprint: Hash of the examples.
      class_names: Name of each class, or ``None``.

    References:
      Brier, 1950, Verification of forecasts expressed in terms of probability. Guo, Pleiss, Sun and
      Weinberger, 2017, On calibration of modern neural networks, arXiv:1706.04599.

    Example:
      >>> import likejax as lj
      >>> classifier = lj.Classifier(lj.models.NaiveBayes.fit(lj.load("digits")))
      >>> result = classifier.evaluate(lj.load("digits", split="test"))
      >>> round(result.accuracy, 3), round(result.standard_errors["accuracy"], 3)
      (0.886, 0.017)
    """

    log_posterior: Float[np.ndarray, "n classes"]
    labels: Integer[np.ndarray, " n"]
    kind: Kind
    draws: int
    dataset: str
    fingerprint: str
    class_names: tuple[str, ...] | None = None

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def predicted(self) -> Integer[np.ndarray, " n"]:
        """The most probable class of every example."""
        return self.log_posterior.argmax(1)

    @property
    def accuracy(self) -> float:
        """Part of the examples whose most probable class is the true one."""
        return float(self._is_correct.mean())

    @property
    def log_loss(self) -> float:
        """Mean of ``-log p(y | x)`` of the true class, in nats."""
        return float(self._losses.mean())

    @property
    def brier(self) -> float:
        """Mean of ``sum_k (p(k | x) - [k = y])^2``, from 0 to 2."""
        return float(self._squared_distances.mean())

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the most probable class.

        The confidences ``max_y p(y | x)`` are put into 15 bins of equal width. The error is the
        mean over the examples of ``|accuracy - mean confidence|`` of their bins. Few examples in a
        bin make it too large, also for a classifier that is calibrated.
        """
        return float(self._signed_gaps.mean())

    @property
    def standard_errors(self) -> Mapping[str, float]:
        """Standard errors of ``accuracy``, ``log_loss``, ``brier`` and ``calibration_error``.

        They are over the examples; NaN for a single one, or where a loss is infinite. That of the
        calibration error takes as given which bins are too confident.
        """
        values = {
            "accuracy": self._is_correct,
            "log_loss": self._losses,
            "brier": self._squared_distances,
            "calibration_error": self._signed_gaps,
        }
        return {name: _standard_error(each) for name, each in values.items()}

    @property
    def _is_correct(self) -> Float[np.ndarray, " n"]:
        return (self.predicted == self.labels).astype(np.float64)

    @property
    def _losses(self) -> Float[np.ndarray, " n"]:
        return -self.log_posterior[np.arange(self.n), self.labels]

    @property
    def _squared_distances(self) -> Float[np.ndarray, " n"]:
        truth = np.eye(self.log_posterior.shape[1])[self.labels]
        return np.square(np.exp(self.log_posterior) - truth).sum(1)

    @property
    def _signed_gaps(self) -> Float[np.ndarray, " n"]:
        """Numbers whose mean is the calibration error.

        They are confidence minus success in bins whose confidence is too high on average, and
        success minus confidence in the others.
        """
        confidence = np.exp(self.log_posterior.max(1))
        gaps = confidence - self._is_correct
        bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
        sums = np.bincount(bins, weights=gaps, minlength=_BINS)
        return np.sign(sums)[bins] * gaps

    def to_dict(self) -> dict[str, Any]:
        """A record for JSON, without the single examples."""
        record: dict[str, Any] = {"n": self.n, "classes": self.log_posterior.shape[1]}
        for name, error in self.standard_errors.items():
            record[name] = _json_number(getattr(self, name))
            record[f"{name}_error"] = _json_number(error)
        return record | {
            "draws": self.draws,
            "kind": self.kind.value,
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
        }

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {number}" for name, number in self._numbers().items())
        details = [f"{self.kind.value} log-likelihoods"]
        if self.kind is not Kind.EXACT:
            details.append(f"{self.draws} draw{'s' if self.draws > 1 else ''}")
        details += [f"n = {self.n}", self.dataset]
        return f"{numbers} ({', '.join(details)})"

    def _numbers(self) -> dict[str, str]:
        """Every number with its error and unit, by what it is called."""
        errors = self.standard_errors
        units = {"log_loss": " nats"}
        numbers = {}
        for name, error in errors.items():
            number = f"{getattr(self, name):.4f} ± {error:.4f}{units.get(name, '')}"
            numbers[name.replace("_", " ")] = number
        return numbers

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        facts = self._numbers() | {"log-likelihoods": self.kind.value, "examples": str(self.n)}
        return facts_table(facts, caption=self.dataset)

    @property
    def mean_posterior(self) -> Float[np.ndarray, "classes classes"]:
        """Mean of ``p(k | x)`` over the examples of each true class, ``[true class, k]``.

        It is NaN for a class without examples. The diagonal of a perfect classifier is 1.
        """
        classes = self.log_posterior.shape[1]
        posterior = np.exp(self.log_posterior)
        means = np.full((classes, classes), np.nan)
        for label in np.unique(self.labels):
            means[label] = posterior[self.labels == label].mean(0)
        return means

    def plot(self) -> Any:
        """Returns a figure of the mean posterior, true classes against classes.

        Example:
          >>> import likejax as lj
          >>> classifier = lj.Classifier(lj.models.NaiveBayes.fit(lj.load("digits")))
          >>> figure = classifier.evaluate(lj.load("digits", split="test")).plot()
        """
        classes = self.log_posterior.shape[1]
        names = _class_names(self.class_names, classes)
        counts = np.bincount(self.labels, minlength=classes)
        rows = [f"{name} (n = {count})" for name, count in zip(names, counts, strict=True)]
        return plot.matrix(
            self.mean_posterior,
            rows=rows,
            columns=names,
            limits=(0.0, 1.0),
            colors="Blues",
            x_label="class k",
            y_label="true class",
            title=f"mean p(k | x), {self.dataset}",
        )


class Classifier:
    """``p(y | x) = p(y) p(x | y) / sum_k p(k) p(x | k)`` with a density ``p(x | y)``, Bayes' rule.

    From bounds or estimates of ``log p(x | y)``, draws are combined for each class as the kind
    allows, and the posterior of the results is an approximation that is no bound itself.

    Args:
      density: A density whose condition is a class label, of any family.
      log_prior: Log-probability of each class in nats, ``(classes,)``, such as
        ``Classifier.log_prior_of(train)``; ``None`` for equal classes.

    Raises:
      TypeError: If ``density`` is not one, or the prior no array of floats.
      ValueError: If the condition of the density is no label, or the prior has another shape or
        does not sum to 1.

    Attributes:
      mixture: The density ``p(x) = sum_y p(y) p(x | y)`` without a condition.

    References:
      Ng and Jordan, 2002, On discriminative vs. generative classifiers: a comparison of logistic
      regression and naive Bayes, NIPS 14.

    Example:
      >>> import likejax as lj
      >>> digits, test = lj.load("digits"), lj.load("digits", split="test")
      >>> density = lj.models.NaiveBayes.fit(digits)
      >>> classifier = lj.Classifier(density, lj.Classifier.log_prior_of(digits))
      >>> classifier.predict(test.examples[:6]).tolist(), test.labels[:6].tolist()
      ([6, 9, 0, 3, 1, 0], [6, 9, 0, 3, 1, 0])
      >>> classifier.log_posterior(test.examples[:6]).shape
      (6, 10)
    """

    def __init__(self, density: Density, log_prior: ArrayLike | None = None):
        self.mixture = ClassMixture(density, log_prior)

    def __repr__(self) -> str:
        return f"Classifier({type(self.density).__name__}, {self.num_classes} classes)"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        prior = np.exp(np.asarray(self.log_prior, np.float64))
        facts = {
            "density given the class": type(self.density).__name__,
            "log-likelihoods": self.density.kind.value,
            "event shape": str(self.density.event_shape),
            "classes": str(self.num_classes),
            "prior": f"{prior.min():.4g} to {prior.max():.4g}",
        }
        return facts_table(facts, caption="Classifier by Bayes' rule")

    @property
    def density(self) -> Density:
        """The density of examples given the label."""
        return self.mixture.density

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.mixture.labels)

    @property
    def log_prior(self) -> Float[Array, " classes"]:
        """Log-probability of each class in nats."""
        return self.mixture.log_prior[...]

    @staticmethod
    def log_prior_of(
        dataset: Dataset, *, num_classes: int | None = None
    ) -> Float[np.ndarray, " classes"]:
        """Log-frequencies of the labels with add-one smoothing, ``log((n_y + 1) / (n + classes))``.

        Args:
          dataset: Labeled dataset.
          num_classes: Number of classes; those of the dataset if not given.

        Raises:
          TypeError: If it is no dataset.
          ValueError: If it has no labels, or more classes than ``num_classes``.

        Example:
          >>> import numpy as np, likejax as lj
          >>> data = lj.Dataset.from_array(np.zeros((4, 2)), labels=[0, 1, 1, 1])
          >>> np.exp(lj.Classifier.log_prior_of(data)).round(4).tolist()
          [0.3333, 0.6667]
        """
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"expected a lj.Dataset with labels, got {type(dataset).__name__}: "
                "lj.Dataset.from_array(x, labels=y) makes one"
            )
        if dataset.labels is None or dataset.num_classes is None:
            raise ValueError(f"expected a labeled dataset, {dataset.name!r} has no labels")
        classes = dataset.num_classes
        if num_classes is not None:
            classes = checked("num_classes", num_classes, Count)
        counts = np.bincount(dataset.labels, minlength=classes)
        if len(counts) > classes:
            raise ValueError(
                f"expected labels below num_classes={classes}, {dataset.name!r} has "
                f"{len(counts) - 1}"
            )
        return np.log((counts + 1.0) / (len(dataset) + classes))

    def log_posterior(
        self, x: ArrayLike, *, key: KeyLike | None = None, draws: int = 1
    ) -> Float[Array, "*batch classes"]:
        """``log p(y | x)`` of every class.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``density.log_prob``; the classes of an example share its key.
          draws: Number of draws to combine for each class, as the kind allows.

        Returns:
          ``(*batch, classes)`` in nats; NaN for an example that no class can have made.
        """
        log_prob = self.mixture.class_log_prob(x, key=key, draws=draws)
        log_prior = jnp.broadcast_to(self.log_prior, log_prob.shape)
        return jax.nn.log_softmax(log_prior + log_prob, axis=-1)

    def predict(
        self, x: ArrayLike, *, key: KeyLike | None = None, draws: int = 1
    ) -> Integer[Array, "*batch"]:
        """The most probable class.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_posterior``.
          draws: Number of draws to combine for each class.

        Returns:
          Labels ``(*batch,)``.

        Raises:
          ValueError: If an example has no posterior; in a traced function its label is -1.
        """
        log_posterior = self.log_posterior(x, key=key, draws=draws)
        lost = jnp.isnan(log_posterior).any(-1)
        if not isinstance(lost, Tracer):
            _refuse_lost(np.asarray(lost).reshape(-1), "x")
        return jnp.where(lost, -1, log_posterior.argmax(-1))

    def plot(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        draws: int = 1,
        titles: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Any:
        """Draws the posterior of a few examples: a bar for every class, below the image.

        Args:
          x: Examples ``(n, *event_shape)``.
          key: Key of the draws; needed unless the density is exact.
          draws: Draws per example and class, combined as the kind allows.
          titles: Title of every example, such as its true class; ``None`` for none.
          class_names: Name of every class; their numbers if not given.

        Returns:
          A matplotlib figure.

        Raises:
          ValueError: If an example has no posterior, or the numbers of titles or names do not fit.

        Example:
          >>> import likejax as lj
          >>> test = lj.load("digits", split="test")
          >>> classifier = lj.Classifier(lj.models.NaiveBayes.fit(lj.load("digits")))
          >>> titles = [f"a {label}" for label in test.labels[:6]]
          >>> figure = classifier.plot(test.examples[:6], titles=titles)
        """
        x = np.asarray(x)
        posterior = np.exp(np.asarray(self.log_posterior(x, key=key, draws=draws), np.float64))
        _refuse_lost(np.asarray(np.isnan(posterior).any(1)), "x")
        names = _class_names(class_names, self.num_classes)
        levels = self.density.levels
        if levels is None or x.ndim != 4 or x.shape[-1] not in (1, 3):
            return plot.posteriors(posterior, names=names, titles=titles)
        return plot.posteriors(posterior, names=names, images=x, levels=levels, titles=titles)

    def evaluate(
        self,
        dataset: Dataset,
        *,
        key: KeyLike | None = None,
        draws: int = 1,
        batch_size: int = 128,
        devices: Devices | None = None,
    ) -> Classification:
        """Classifies every example of a labeled dataset.

        Keys come from the position in the dataset, and no example is dropped.

        Args:
          dataset: Labeled dataset of the density's shape and levels.
          key: Key of the draws; needed unless the density is exact.
          draws: Draws per example and class, combined as the kind allows.
          batch_size: Examples at a time on each device, each with all classes.
          devices: Devices to compute on; all of this process if not given.

        Returns:
          Accuracy, log-loss, Brier score and calibration error with their standard errors;
          ``print`` it.

        Raises:
          TypeError: If it is no dataset.
          ValueError: If dataset and density do not fit, there are no labels, or an example has no
            posterior.

        Example:
          >>> import likejax as lj
          >>> classifier = lj.Classifier(lj.models.NaiveBayes.fit(lj.load("digits")))
          >>> print(classifier.evaluate(lj.load("digits", split="test")))
          accuracy 0.8858 ± 0.0168, log loss ... nats, brier ... (exact ..., n = 359, digits test)
        """
        draws, batch_size = checked("draws", draws, Count), checked("batch_size", batch_size, Count)
        check_fit(self.density, dataset)
        assert dataset.labels is not None  # check_fit has seen them
        exact = self.density.kind is Kind.EXACT
        if key is None and not exact:
            raise ValueError(
                f"{type(self.density).__name__} draws at random to be evaluated: "
                "pass key=jax.random.key(seed)"
            )
        draws = 1 if exact else draws
        key = None if key is None else as_key(key)
        chunks = in_chunks(
            functools.partial(_scores_of_chunk, draws=draws),
            (self.mixture, key),
            (dataset.examples, np.arange(len(dataset), dtype=np.uint32)),
            len(dataset),
            batch_size=batch_size,
            devices=devices,
            what="classes",
        )
        log_probs = np.concatenate([values[:kept] for values, kept in chunks])
        scores = log_probs + np.asarray(self.log_prior, np.float64)
        with np.errstate(invalid="ignore"):  # minus infinity for every class gives NaN
            log_posterior = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        lost = np.asarray(np.isnan(log_posterior).any(1))
        _refuse_lost(lost, f"{dataset.name} {dataset.split}")
        return Classification(
            log_posterior=log_posterior,
            labels=dataset.labels,
            kind=self.density.kind,
            draws=draws,
            dataset=f"{dataset.name} {dataset.split}",
            fingerprint=dataset.examples_fingerprint(),
            class_names=dataset.class_names,
        )


def _scores_of_chunk(
    model: tuple[ClassMixture, Array | None], chunk: tuple[np.ndarray, np.ndarray], *, draws: int
) -> Float[np.ndarray, "n classes"]:
    """``log p(x | y)`` of rows for every class, of which the keys come from their numbers."""
    mixture, key = model
    x, numbers = chunk
    with own_shapes():  # numbers must not depend on what was compiled before
        keys = None if key is None else example_keys(key, numbers)
        values = mixture.class_log_prob(x, key=keys, draws=draws)
    return np.asarray(values, np.float64)


def _class_names(names: Sequence[str] | None, classes: int) -> list[str]:
    """The names of all classes: those given, or their numbers."""
    if names is None:
        return [str(label) for label in range(classes)]
    if len(names) != classes:
        raise ValueError(f"expected {classes} names of classes, got {len(names)}")
    return list(names)


def _refuse_lost(lost: Shaped[np.ndarray, " n"], where: str) -> None:
    """Raises a ValueError if examples have no posterior."""
    rows = np.flatnonzero(lost)
    if len(rows):
        raise ValueError(
            f"{len(rows)} of the {len(lost)} examples of {where} have no posterior, the first at "
            f"row {rows[0]}: their log_prob is NaN, or minus infinity for every class"
        )


def _standard_error(values: Float[np.ndarray, " n"]) -> float:
    """Standard error of a mean over examples; NaN where it cannot be told."""
    if len(values) <= 1 or not np.isfinite(values).all():
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _json_number(value: float) -> float | None:
    """A number as JSON can keep it: no NaN, no infinity."""
    return value if math.isfinite(value) else None

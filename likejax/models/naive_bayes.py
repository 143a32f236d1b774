"""Naive Bayes: independent entries given the class label, fitted by counting."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer

from likejax.data.dataset import Dataset
from likejax.density import Density, Kind, Moments, integer_dtype
from likejax.distributions import normal_log_prob, table_log_probs, table_moments
from likejax.nn.condition import row_of_label
from likejax.nn.modules import Buffer
from likejax.settings import NonNegative, checked

Variance = Literal["per_class", "shared"]
"""Whether each class has variances of its own, or all classes have the same."""


class NaiveBayes(Density):
    """Independent integer entries given the class label, by their smoothed frequencies; exact.

    ``P(x | y) = prod_d (count_yd(x_d) + 1) / (n_y + levels)``. With a prior it is the classifier of
    the same name, ``lj.Classifier(density)``.

    Args:
      log_probs: Log-frequencies ``(classes, *event_shape, levels)``.

    References:
      Ng and Jordan, 2002, On discriminative vs. generative classifiers: a comparison of logistic
      regression and naive Bayes, NIPS 14.

    Example:
      >>> import likejax as lj
      >>> density = lj.models.NaiveBayes.fit(lj.load("digits"))
      >>> density.num_classes, density.levels
      (10, 17)
    """

    kind = Kind.EXACT
    differentiable = False
    condition_shape = ()
    levels: int

    def __init__(self, log_probs: Float[Array, "classes *event levels"]):
        self.log_probs = Buffer(log_probs)
        self.num_classes = log_probs.shape[0]
        self.event_shape = log_probs.shape[1:-1]
        self.levels = log_probs.shape[-1]

    @classmethod
    def fit(cls, dataset: Dataset) -> NaiveBayes:
        """Counts the values of every entry in each class.

        A class without examples gets equal frequencies.

        Args:
          dataset: Labeled dataset of integers.

        Raises:
          TypeError: If it is no dataset.
          ValueError: If it has no labels or is continuous.

        Example:
          >>> import likejax as lj
          >>> lj.models.NaiveBayes.fit(lj.load("digits")).event_shape
          (8, 8, 1)
        """
        labels, classes = _labels_of(dataset)
        levels = dataset.levels
        if levels is None:
            raise ValueError(
                f"expected integer data, {dataset.name!r} is continuous: GaussianNaiveBayes takes "
                "floats"
            )
        entries = dataset.examples.reshape(len(dataset), -1).astype(np.int64)
        dimensions = entries.shape[1]
        of_pair = labels[:, None] * dimensions + np.arange(dimensions)
        cells = (of_pair * levels + entries).reshape(-1)
        counts = np.bincount(cells, minlength=classes * dimensions * levels)
        counts = counts.reshape(classes, *dataset.event_shape, levels)
        totals = counts.sum(-1, keepdims=True)
        return cls(jnp.asarray(np.log((counts + 1.0) / (totals + levels))))

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        return self._log_prob_map(x, condition).sum()

    def _log_prob_map(self, x: Array, condition: Array | None) -> Float[Array, "*event"]:
        return table_log_probs(x, self._of(condition))

    def _token_moments(self, x: Array, condition: Array | None) -> Moments:
        return table_moments(self._of(condition))

    def _of(self, label: Array | None) -> Float[Array, "*event levels"]:
        """The log-frequencies of a class; NaN for a label that no class has."""
        assert label is not None
        return row_of_label(self.log_probs[...], label)

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        # At temperature 0 the sample is the most frequent value.
        log_probs = self._of(condition)
        gumbel = jax.random.gumbel(key, log_probs.shape)
        values = jnp.argmax(log_probs + temperature * gumbel, axis=-1)
        # A frequency of 0 has the log -inf, which is no failure.
        return values.astype(integer_dtype(self.levels)), ~jnp.isnan(log_probs).any()


class GaussianNaiveBayes(Density):
    """Independent normal entries given the class label, ``x_d ~ N(mean_yd, std_yd^2)``; exact.

    Args:
      mean: Means ``(classes, *event_shape)``.
      std: Standard deviations of the same shape.

    References:
      Ng and Jordan, 2002, On discriminative vs. generative classifiers: a comparison of logistic
      regression and naive Bayes, NIPS 14.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> density = lj.models.GaussianNaiveBayes(jnp.array([[-1.0], [1.0]]), jnp.ones((2, 1)))
      >>> classifier = lj.Classifier(density)
      >>> round(float(jnp.exp(classifier.log_posterior(jnp.array([1.0]))[1])), 4)  # sigmoid(2)
      0.8808
    """

    kind = Kind.EXACT
    condition_shape = ()

    def __init__(self, mean: Float[Array, "classes ..."], std: Float[Array, "classes ..."]):
        if jnp.shape(mean) != jnp.shape(std) or jnp.ndim(mean) < 2:
            raise ValueError(
                "expected means and standard deviations of one shape (classes, *event_shape), got "
                f"{jnp.shape(mean)} and {jnp.shape(std)}"
            )
        self.mean = Buffer(mean)
        self.std = Buffer(std)
        self.num_classes = mean.shape[0]
        self.event_shape = mean.shape[1:]

    @classmethod
    def fit(
        cls, dataset: Dataset, *, variance: Variance = "per_class", floor: float = 1e-3
    ) -> GaussianNaiveBayes:
        """Takes the mean and the variance of every entry in each class.

        A class without examples gets the mean and the variance of all examples.

        Args:
          dataset: Labeled dataset of floats.
          variance: ``per_class``, or ``shared`` for the mean variance within the classes, with
            which the classifier is linear: the partner of logistic regression in the paper.
          floor: Part of the mean variance of all entries that is added to every variance: an entry
            that a class never changes would have none.

        Raises:
          TypeError: If it is no dataset.
          ValueError: If it has no labels, holds integers, or does not vary at all.

        Example:
          >>> import numpy as np, likejax as lj
          >>> points = np.array([[0.0], [2.0], [5.0], [9.0]], np.float32)
          >>> data = lj.Dataset.from_array(points, labels=[0, 0, 1, 1])
          >>> lj.models.GaussianNaiveBayes.fit(data).mean[...].tolist()
          [[1.0], [7.0]]
        """
        variance = checked("variance", variance, Variance)
        floor = checked("floor", floor, NonNegative)
        labels, classes = _labels_of(dataset)
        if dataset.levels is not None:
            raise ValueError(
                f"expected continuous data, {dataset.name!r} has {dataset.levels} levels: "
                "NaiveBayes takes integers, and dataset.continuous() makes floats of a table"
            )
        dataset.check_precision()
        rows = dataset.examples.reshape(len(dataset), -1).astype(np.float64)
        means = np.tile(rows.mean(0), (classes, 1))
        variances = np.tile(rows.var(0), (classes, 1))
        least = floor * rows.var(0).mean()
        for label in np.unique(labels):
            of_class = rows[labels == label]
            means[label], variances[label] = of_class.mean(0), of_class.var(0)
        if variance == "shared":
            within = np.square(rows - means[labels]).mean(0)
            variances = np.tile(within, (classes, 1))
        variances = variances + least
        if not (variances > 0).all():
            raise ValueError(
                f"expected entries that vary within every class, {dataset.name!r} has constant "
                "ones: choose a larger floor, or leave these out"
            )
        shape = (classes, *dataset.event_shape)
        mean, std = means.reshape(shape), np.sqrt(variances).reshape(shape)
        return cls(jnp.asarray(mean, float), jnp.asarray(std, float))

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        mean, std = self._of(condition)
        return normal_log_prob(x, mean, std).sum()

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        mean, std = self._of(condition)
        return mean + temperature * std * jax.random.normal(key, mean.shape)

    def _of(self, label: Array | None) -> tuple[Float[Array, "*event"], Float[Array, "*event"]]:
        """Means and deviations of a class; NaN for a label that no class has."""
        assert label is not None
        return row_of_label(self.mean[...], label), row_of_label(self.std[...], label)


def _labels_of(dataset: object) -> tuple[Integer[np.ndarray, " n"], int]:
    """The labels of a dataset and the number of its classes."""
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"expected a lj.Dataset with labels, got {type(dataset).__name__}: "
            "lj.Dataset.from_array(x, labels=y) makes one"
        )
    classes = dataset.num_classes
    if dataset.labels is None or classes is None:
        raise ValueError(
            f"expected a labeled dataset, {dataset.name!r} has no labels: "
            "lj.Dataset.from_array(x, labels=y) takes them"
        )
    return dataset.labels.astype(np.int64), classes

"""Densities of a few numbers per example, fitted to inside examples: how unusual a vector is.

A *backend* learns arrays from vectors ``(n, k)`` and gives one number for each new vector, higher
for those that are less like the vectors it was fitted to. What is learned is arrays alone, so that
a fitted score is saved, and computed on a device, like any other.

Columns that do not vary are left out. The other columns are standardized, and whitened where a
backend takes columns together: directions without variance, such as a sum that is one of the
columns too, are left out there.
"""

from __future__ import annotations

import abc
import importlib
import math
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from likejax.inputs import numpy_of
from likejax.settings import checked

Vectors = Float[Any, "n k"]
"""Vectors of examples, on the host or traced."""
Learned = dict[str, np.ndarray]
"""Arrays that a backend has learned, by name."""
Backend = Literal["gaussian", "mixture", "kde", "copod", "one_class_svm"]
"""Names of backends."""

_RELATIVE_VARIANCE = 1e-6
"""Share of the largest variance below which a direction is taken to have none."""
_COMPONENTS = (1, 2, 3, 5, 8, 12)
"""Numbers of components that the mixture is chosen from."""
_OUTSIDE_SHARE = 0.05
"""Bound on the share of inside vectors outside the region of the one-class machine."""
_ROWS_AT_A_TIME = 512


def fit_backend(name: Backend, vectors: Float[np.ndarray, "n k"]) -> Learned:
    """Returns what a backend learns from the vectors of inside examples.

    Args:
      name: Name of the backend.
      vectors: Finite vectors ``(n, k)``.

    Raises:
      ValueError: If there is no such backend, there are fewer than two vectors, or none of the
        columns varies.
      ImportError: If the backend needs scikit-learn, which is not installed.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> vectors = np.random.default_rng(0).normal(size=(500, 3))
      >>> learned = ood.fit_backend("gaussian", vectors)
      >>> scores = ood.backend_score("gaussian", learned, np.array([[0, 0, 0], [5.0, 0, 0]]))
      >>> bool(scores[0] < scores[1])
      True
    """
    backend = _BACKENDS[checked("name", name, Backend)]
    if len(vectors) < 2:
        raise ValueError(f"expected at least two examples to fit a vector to, got {len(vectors)}")
    std = vectors.std(axis=0)
    columns = np.flatnonzero(std > 1e-9 * (1 + abs(vectors).max(axis=0)))
    if len(columns) == 0:
        raise ValueError(
            f"expected numbers that differ between inside examples, all {vectors.shape[1]} columns "
            "are constant: choose other features"
        )
    chosen = vectors[:, columns]
    shift, scale = chosen.mean(axis=0), std[columns]
    learned = backend.fit((chosen - shift) / scale)
    return {"columns": columns, "shift": shift, "scale": scale, **learned}


def backend_score(name: Backend, learned: dict[str, Any], vectors: Vectors) -> Float[Any, " n"]:
    """Returns one number per vector, higher = less like the vectors of inside examples.

    A vector with an infinite entry, such as the log-probability of an example that a density
    excludes, has the score infinity; one with NaN has NaN.

    Args:
      name: Name of the backend.
      learned: Arrays from ``fit_backend``.
      vectors: Vectors ``(n, k)``.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> learned = ood.fit_backend("copod", np.random.default_rng(0).normal(size=(99, 2)))
      >>> ood.backend_score("copod", learned, np.array([[-np.inf, 0.0]])).tolist()
      [inf]
    """
    backend = _BACKENDS[checked("name", name, Backend)]
    numpy = numpy_of(vectors)
    columns = numpy.asarray(learned["columns"]).astype(int)
    chosen = (vectors[:, columns] - learned["shift"][None]) / learned["scale"][None]
    infinite = numpy.isinf(chosen).any(axis=1)
    missing = numpy.isnan(vectors).any(axis=1)
    finite = numpy.where(numpy.isfinite(chosen), chosen, 0.0)
    score = _in_chunks(lambda rows: backend.score(learned, rows), finite)
    score = numpy.where(infinite, math.inf, score)
    return numpy.where(missing, math.nan, score)


def _in_chunks(score: Callable[[Vectors], Any], vectors: Vectors) -> Any:
    """Scores of vectors, a few at a time: distances to all inside vectors take memory."""
    starts = range(0, len(vectors), _ROWS_AT_A_TIME)
    chunks = [score(vectors[start : start + _ROWS_AT_A_TIME]) for start in starts]
    numpy = numpy_of(vectors)
    return numpy.concatenate(chunks) if chunks else numpy.zeros(0)


class _Backend(abc.ABC):
    """A density of standardized vectors."""

    @staticmethod
    @abc.abstractmethod
    def fit(z: Float[np.ndarray, "n k"]) -> Learned:
        """Returns what is learned from standardized vectors."""

    @staticmethod
    @abc.abstractmethod
    def score(learned: dict[str, Any], z: Vectors) -> Float[Any, " n"]:
        """Returns one number for each standardized vector, higher = more unusual."""


class _Gaussian(_Backend):
    """Minus the log-density of a normal with full covariance, in nats: half of Mahalanobis squared.

    Its constant is that of the whitened directions.
    """

    @staticmethod
    def fit(z: Float[np.ndarray, "n k"]) -> Learned:
        return {"whiten": _whitening(z)}

    @staticmethod
    def score(learned: dict[str, Any], z: Vectors) -> Float[Any, " n"]:
        white = z @ learned["whiten"]
        return ((white**2).sum(axis=1) + white.shape[1] * math.log(2 * math.pi)) / 2


class _Mixture(_Backend):
    """Minus the log-density of a mixture of normals; BIC chooses the number of components."""

    @staticmethod
    def fit(z: Float[np.ndarray, "n k"]) -> Learned:
        mixture = _scikit_learn("mixture").GaussianMixture
        whiten = _whitening(z)
        white = z @ whiten
        most = max(1, len(white) // (5 * white.shape[1]))
        fitted = []
        for components in _COMPONENTS:
            if components <= most:
                model = mixture(components, reg_covar=1e-3, random_state=0, n_init=2)
                fitted.append(model.fit(white))
        best = min(fitted, key=lambda model: model.bic(white))
        return {
            "whiten": whiten,
            "log_weights": np.log(best.weights_),
            "means": best.means_,
            "precisions": best.precisions_cholesky_,
        }

    @staticmethod
    def score(learned: dict[str, Any], z: Vectors) -> Float[Any, " n"]:
        numpy = numpy_of(z)
        white = z @ learned["whiten"]
        logs = []
        terms = zip(learned["log_weights"], learned["means"], learned["precisions"], strict=True)
        for log_weight, mean, precision in terms:
            distance = (((white - mean[None]) @ precision) ** 2).sum(axis=1)
            log_det = numpy.log(numpy.diagonal(precision)).sum()
            constant = white.shape[1] * math.log(2 * math.pi)
            logs.append(log_weight + log_det - (distance + constant) / 2)
        return -_log_sum_exp(numpy.stack(logs), axis=0)


class _KDE(_Backend):
    """Minus the sum over columns of the log of a kernel density estimate of the column.

    The kernels are normal, with the bandwidth of Scott's rule, ``n^(-1/5)`` standard deviations.
    Columns are taken as independent, so correlated ones count more than once.
    """

    @staticmethod
    def fit(z: Float[np.ndarray, "n k"]) -> Learned:
        return {"points": z}

    @staticmethod
    def score(learned: dict[str, Any], z: Vectors) -> Float[Any, " n"]:
        points = learned["points"]
        n = len(points)
        bandwidth = n**-0.2
        constant = math.log(n * bandwidth * math.sqrt(2 * math.pi))
        total = 0.0
        for column in range(z.shape[1]):
            differences = (z[:, column, None] - points[None, :, column]) / bandwidth
            total = total + constant - _log_sum_exp(-(differences**2) / 2, axis=1)
        return total


class _COPOD(_Backend):
    """Sum over columns of minus the log of empirical tail probabilities; nothing is tuned.

    The largest of three sums counts: left tails, right tails, and of each column the tail on the
    side of its skewness (Li et al., 2020, COPOD, arXiv:2009.09463).
    """

    @staticmethod
    def fit(z: Float[np.ndarray, "n k"]) -> Learned:
        return {"ordered": np.sort(z, axis=0), "skewed_left": ((z**3).mean(axis=0) < 0) * 1.0}

    @staticmethod
    def score(learned: dict[str, Any], z: Vectors) -> Float[Any, " n"]:
        numpy = numpy_of(z)
        ordered = learned["ordered"]
        n = len(ordered)
        left, right = [], []
        for column in range(z.shape[1]):
            at_most = numpy.searchsorted(ordered[:, column], z[:, column], side="right")
            below = numpy.searchsorted(ordered[:, column], z[:, column], side="left")
            left.append(-numpy.log((at_most + 1) / (n + 1)))
            right.append(-numpy.log((n - below + 1) / (n + 1)))
        lefts, rights = numpy.stack(left, axis=1), numpy.stack(right, axis=1)
        by_skewness = numpy.where(learned["skewed_left"][None] > 0, lefts, rights)
        sums = [each.sum(axis=1) for each in (lefts, rights, by_skewness)]
        return numpy.maximum(numpy.maximum(sums[0], sums[1]), sums[2])


class _OneClassSVM(_Backend):
    """Distance from the region of a one-class support vector machine with a Gaussian kernel.

    References:
      Schoelkopf et al., 2001, Estimating the support of a high-dimensional distribution.
    """

    @staticmethod
    def fit(z: Float[np.ndarray, "n k"]) -> Learned:
        machine = _scikit_learn("svm").OneClassSVM
        whiten = _whitening(z)
        white = z @ whiten
        gamma = 1.0 / white.shape[1]
        fitted = machine(kernel="rbf", gamma=gamma, nu=_OUTSIDE_SHARE).fit(white)
        return {
            "whiten": whiten,
            "supports": fitted.support_vectors_,
            "weights": fitted.dual_coef_[0],
            "offset": np.asarray(float(fitted.intercept_[0])),
        }

    @staticmethod
    def score(learned: dict[str, Any], z: Vectors) -> Float[Any, " n"]:
        numpy = numpy_of(z)
        white, supports = z @ learned["whiten"], learned["supports"]
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, all pairs by one product
        squares = (white**2).sum(axis=1)[:, None] + (supports**2).sum(axis=1)[None]
        distances = squares - 2 * white @ supports.T
        kernel = numpy.exp(-distances / white.shape[1])
        return -(kernel @ learned["weights"] + learned["offset"])


_BACKENDS: dict[str, type[_Backend]] = {
    "gaussian": _Gaussian,
    "mixture": _Mixture,
    "kde": _KDE,
    "copod": _COPOD,
    "one_class_svm": _OneClassSVM,
}


def _whitening(z: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "k r"]:
    """The matrix that makes centered vectors white, of the directions that have variance.

    As many vectors as numbers, or fewer, vary in fewer directions, and what is unusual in the
    others is not seen.
    """
    count, size = z.shape
    if count <= size:
        warnings.warn(
            f"{count} examples are few to fit a density of {size} numbers to: directions in which "
            f"they do not vary are left out, so that unusual examples can look usual; fit on more "
            f"than {size}, or take the backend kde or copod",
            stacklevel=2,
        )
    variances, directions = np.linalg.eigh(z.T @ z / len(z))
    kept = variances > _RELATIVE_VARIANCE * variances.max()
    return directions[:, kept] / np.sqrt(variances[kept])


def _log_sum_exp(values: Any, axis: int) -> Any:
    """The log of the sum of exponentials along an axis."""
    numpy = numpy_of(values)
    largest = values.max(axis=axis, keepdims=True)
    total = numpy.log(numpy.exp(values - largest).sum(axis=axis))
    return total + numpy.squeeze(largest, axis=axis)


def _scikit_learn(name: str) -> ModuleType:
    """A module of scikit-learn, which is needed for some backends alone.

    Raises:
      ImportError: If it is not installed; the message says what helps.
    """
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError as error:
        raise ImportError(
            "the backends mixture and one_class_svm are fitted by scikit-learn, which is not "
            "installed: pip install scikit-learn, or take gaussian, kde or copod"
        ) from error

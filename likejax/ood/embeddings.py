"""Scores of embeddings: distances between the vectors that a network makes of examples."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Key

from likejax.data.dataset import Dataset
from likejax.density import Density, Kind
from likejax.inputs import numpy_of
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    Numbers,
    Values,
)
from likejax.ood.score import FittedScore, Groups, Score, State
from likejax.ood.vectors import Backend, backend_score, fit_backend
from likejax.settings import Count

_TRIED_ROWS = 16
"""Rows of which a vector is computed beside two kinds of others."""
_ALIKE = 0.02
"""Largest difference of a vector beside other rows, relative to the vectors: that of rounding."""


@dataclasses.dataclass(frozen=True)
class Embedding(Feature):
    """Vectors of examples, ``(n, d)``.

    Example:
      >>> import likejax as lj, numpy as np
      >>> def halves(x):
      ...     return x.reshape(len(x), 2, -1).mean(-1)
      >>> lj.ood.Embedding(halves)({}, np.ones((3, 8)), None).shape
      (3, 2)
    """

    function: Any = None
    """Function from examples to vectors ``(n, d)``; ``None`` for the density's own ``embed``."""

    def _check_together(self) -> None:
        if self.function is not None and not callable(self.function):
            raise TypeError(
                "expected a function from examples (n, *event_shape) to vectors (n, d), got "
                f"{type(self.function).__name__}"
            )

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the vectors of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed for a function, or if the density is exact.
        """
        if self.function is None:
            return densities["density"].embed(x, key=keys)
        vectors = self.function(x)
        if vectors.shape[:1] != (len(x),):
            raise ValueError(
                f"expected one vector for each of {len(x)} examples from {self.function}, got "
                f"shape {vectors.shape}"
            )
        return vectors.reshape(len(x), -1)

    def needs_key(self, densities: Densities) -> bool:
        """Returns whether it is the density's own embedding, and that is drawn.

        Args:
          densities: Densities by name.
        """
        return self.function is None and densities["density"].kind is not Kind.EXACT


@dataclasses.dataclass(frozen=True)
class _OfEmbedding(Score):
    """Part of the scores of embeddings."""

    embed: Any = None
    """Function from examples ``(n, *event_shape)`` to vectors ``(n, d)``; ``None`` for the
    density's own ``embed``."""

    def _check_together(self) -> None:
        Embedding(self.embed)  # refuses what is no function

    @property
    def features(self) -> tuple[Feature, ...]:
        """The vectors."""
        return (Embedding(self.embed),)

    def fit_features(
        self, densities: dict[str, Density], compute: Compute, dataset: Dataset
    ) -> FittedScore:
        """Fits the score from features that are computed already.

        Args:
          densities: Densities from ``densities_of``.
          compute: Function that computes a feature of the examples.
          dataset: Inside examples.

        Raises:
          ValueError: If the function's vector of an example depends on the examples beside it, or
            is not finite.
        """
        if self.embed is not None:
            _check_rows_alone(self.embed, dataset.examples[:_TRIED_ROWS])
        return super().fit_features(densities, compute, dataset)

    def check(self, density: Density) -> None:
        """Raises a ValueError if the density has no embedding and no function is given.

        Args:
          density: Density that is scored.
        """
        if self.embed is None and not density.offers("embed"):
            raise ValueError(
                f"expected a function embed=, since {type(density).__name__} has no embedding of "
                "its own: flows and VAEs have one, and lj.ood.DensityOfStates takes the numbers "
                "that a density offers"
            )


def _check_rows_alone(embed: Any, x: Batch) -> None:
    """Raises a ValueError unless a vector stays the same beside other rows, and is finite.

    A network that normalizes by its batch would give an example another score in other company.
    """
    vectors = np.asarray(embed(x), np.float64)
    if not np.isfinite(vectors).all():
        raise ValueError(f"expected finite vectors from {embed}, got NaN or infinite numbers")
    beside_itself = np.asarray(embed(np.repeat(x[:1], len(x), axis=0)), np.float64)
    if abs(beside_itself[0] - vectors[0]).max() > _ALIKE * abs(vectors).max():
        raise ValueError(
            f"expected a vector of each example by itself from {embed}, the first example has "
            "another one beside other examples: switch a network to evaluation, so that its "
            "normalization uses no statistics of the batch"
        )


@dataclasses.dataclass(frozen=True)
class WhitenedEmbedding(_OfEmbedding):
    """Score ``s = (e - m)' S^-1 (e - m)``, squared Mahalanobis distance of an embedding.

    Mean ``m`` and covariance ``S`` are those of inside examples, the covariance shrunk towards a
    multiple of the identity by the amount of Ledoit and Wolf. What an embedding calls unusual
    depends on the network that makes it.

    References:
      Ledoit and Wolf, 2004, A well-conditioned estimator for large-dimensional covariance matrices.
      Lee et al., 2018, A simple unified framework for detecting out-of-distribution samples,
      arXiv:1807.03888.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,)).initialize(points[:100], 0)
      >>> score = lj.ood.WhitenedEmbedding().fit(flow, points[100:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "whitened embedding"

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns the mean, and the matrix that whitens.

        Args:
          statistics: Vectors of inside examples, ``(n, d)``.
        """
        mean = statistics.mean(axis=0)
        covariance = shrunk_covariance(statistics - mean)
        variances, directions = np.linalg.eigh(covariance)
        if variances.min() <= 0:
            raise ValueError(
                "expected embeddings that differ between inside examples, all are the same"
            )
        return {"mean": mean, "whiten": directions / np.sqrt(variances)}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns the squared distance of every example.

        Args:
          state: Mapping with ``mean`` and ``whiten``.
          statistics: Vectors, ``(n, 1, d)``.
        """
        return (((statistics[:, 0] - state["mean"][None]) @ state["whiten"]) ** 2).sum(axis=1)


def shrunk_covariance(centered: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """Returns the covariance of centered vectors, shrunk by the amount of Ledoit and Wolf.

    ``(1 - a) S + a tr(S)/d I``, with ``a`` the estimate that minimizes the expected squared error.

    Args:
      centered: Vectors whose mean is zero.

    References:
      Ledoit and Wolf, 2004, A well-conditioned estimator for large-dimensional covariance matrices.

    Example:
      >>> import numpy as np
      >>> from likejax.ood.embeddings import shrunk_covariance
      >>> points = np.random.default_rng(0).normal(size=(50, 2))
      >>> shrunk_covariance(points - points.mean(0)).shape
      (2, 2)
    """
    n, d = centered.shape
    covariance = centered.T @ centered / n
    scale = np.trace(covariance) / d
    distance = ((covariance - scale * np.eye(d)) ** 2).sum()
    # the sum over vectors of ||x x' - S||^2, without making the matrices
    noise = ((centered**2).sum(axis=1) ** 2).sum() / n - (covariance**2).sum()
    amount = min(1.0, noise / n / distance) if distance > 0 else 1.0
    return (1 - amount) * covariance + amount * scale * np.eye(d)


@dataclasses.dataclass(frozen=True)
class NearestNeighbors(_OfEmbedding):
    """Place of an embedding among the nearest of inside examples, as a density of four numbers.

    One half of the inside examples are references. The numbers of an example are the log of its
    distance to the ``k``-th nearest reference, the share of the ``k`` nearest references whose own
    ``k``-th neighbor is farther than the example (density, also its indicator, precision), and the
    log of the ratio of both distances. A density of them is fitted to the other half. Radii come
    from references alone, so that an example's score depends on no other that is scored with it.

    References:
      Naeem, Oh, Uh, Choi and Yoo, 2020, Reliable fidelity and diversity metrics, arXiv:2002.09797.
      Ganguly, Morris, Yan, Chau and Chen, 2025, Forte, arXiv:2410.01322, whose recall and coverage
      look at all examples that are scored together, and are left out here.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,)).initialize(points[:100], 0)
      >>> score = lj.ood.NearestNeighbors().fit(flow, points[100:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "nearest neighbors"

    k: Count = 5
    """Number of neighbors."""
    backend: Backend = "kde"
    """Form of the density of the four numbers."""

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns the references, their radii, and the arrays of the density.

        Args:
          statistics: Vectors of inside examples, ``(n, d)``.
        """
        references, others = statistics[::2], statistics[1::2]
        if min(len(references) - 1, len(others)) < max(self.k, 2):
            raise ValueError(
                f"expected at least {2 * max(self.k, 2) + 2} examples to fit {self.name} with "
                f"k={self.k}, got {len(statistics)}"
            )
        own = _distances(references, references)
        np.fill_diagonal(own, np.inf)
        radii = np.sort(own, axis=1)[:, self.k - 1]
        state = {"references": references, "radii": radii}
        learned = fit_backend(self.backend, self._numbers(state, others))
        return {**state, **{f"density_{name}": value for name, value in learned.items()}}

    def _numbers(self, state: State, vectors: Any) -> Any:
        """The four numbers of every vector."""
        numpy = numpy_of(vectors)
        distances = _distances(vectors, state["references"])
        order = numpy.argsort(distances, axis=1)[:, : self.k]
        nearest = numpy.take_along_axis(distances, order, axis=1)
        radii = numpy.asarray(state["radii"])[order]
        inside = (nearest < radii).mean(axis=1)
        log_distance = numpy.log(nearest[:, -1] + 1e-12)
        ratio = log_distance - numpy.log(radii[:, -1] + 1e-12)
        return numpy.stack([log_distance, ratio, inside, (inside > 0) * 1.0], axis=1)

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns minus the log-density of the four numbers of every example.

        Args:
          state: Result of ``learn``.
          statistics: Vectors, ``(n, 1, d)``.
        """
        prefix = "density_"
        names = [name for name in state if name.startswith(prefix)]
        learned = {name.removeprefix(prefix): state[name] for name in names}
        return backend_score(self.backend, learned, self._numbers(state, statistics[:, 0]))


def _distances(first: Any, second: Any) -> Any:
    """Euclidean distances between all vectors of two sets."""
    numpy = numpy_of(first)
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None]
    return numpy.sqrt(numpy.maximum(squares - 2 * first @ second.T, 0.0))

"""Scores without a density: what any other score has to beat."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Key

from likejax.inputs import numpy_of
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    Numbers,
    OfExamples,
    Values,
)
from likejax.ood.score import Groups, Score, State


@dataclasses.dataclass(frozen=True)
class Intensity(OfExamples):
    """Mean and standard deviation of the entries of an example, ``(n, 2)``.

    Example:
      >>> import likejax as lj, numpy as np
      >>> lj.ood.Intensity()({}, np.array([[0.0, 2.0], [3.0, 3.0]]), None).tolist()
      [[1.0, 1.0], [3.0, 0.0]]
    """

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes mean and standard deviation of examples.

        Args:
          densities: Densities by name; they do not matter.
          x: Examples ``(n, *event_shape)``.
          keys: Keys; nothing is drawn.
        """
        del densities, keys
        numpy = numpy_of(x)
        values = numpy.asarray(x.reshape(len(x), -1), float)
        return numpy.stack([values.mean(1), values.std(1)], axis=-1)


@dataclasses.dataclass(frozen=True)
class _FarFromMean(Score):
    """Part of the baselines: distance of one number from its mean over inside examples."""

    column: ClassVar[int]

    @property
    def features(self) -> tuple[Feature, ...]:
        """Mean and standard deviation of the entries."""
        return (Intensity(),)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns the number of every example.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return compute(self.features[0])[:, self.column]

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns the mean.

        Args:
          statistics: Numbers of inside examples, ``(n,)``.
        """
        return {"mean": float(statistics.mean())}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns the distance from the mean.

        Args:
          state: Mapping with the ``mean``.
          statistics: Numbers, ``(n, 1)``.
        """
        return abs(statistics[:, 0] - state["mean"])


@dataclasses.dataclass(frozen=True)
class MeanIntensity(_FarFromMean):
    """Score ``s = |mean(x) - m|``, ``m`` its mean over inside examples: no density at all.

    A score that does not beat it on a pair of datasets has found brightness.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
      >>> score = lj.ood.MeanIntensity().fit(lj.models.FullGaussian.fit(points), points)
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "mean intensity"
    column: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class Contrast(_FarFromMean):
    """Score ``s = |std(x) - m|``, ``m`` its mean over inside examples: no density at all.

    A score that does not beat it on a pair of datasets has found contrast.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(100, 9)).astype(np.float32)
      >>> score = lj.ood.Contrast().fit(lj.models.FullGaussian.fit(points), points)
      >>> noise, constant = score(np.stack([points[0], np.zeros(9, np.float32)]))
      >>> bool(noise < constant)
      True
    """

    name: ClassVar[str] = "contrast"
    column: ClassVar[int] = 1

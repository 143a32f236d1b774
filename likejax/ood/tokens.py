"""Scores from the least likely dimensions of an example: Min-K% and Min-K%++."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from likejax.density import Density, OptionalQuery
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    LogProbMap,
    Numbers,
    Values,
    named_density,
)
from likejax.ood.score import Score
from likejax.settings import Range

Percent = Annotated[int, Range(at_least=1, at_most=100)]
"""A share of the dimensions in percent."""
LEAST_STD = 1e-4
"""Standard deviation in nats that stands for any smaller one, which float32 cannot tell from 0."""


@dataclasses.dataclass(frozen=True)
class StandardizedMap(Feature):
    """``r_t = (log p_t(x_t) - mu_t) / sigma_t`` of every dimension, ``(n, *event_shape)``.

    ``mu_t`` and ``sigma_t`` are mean and standard deviation of ``log p_t(v)`` over the values ``v``
    that the dimension could have taken given those before it; see ``Density.token_moments``. Under
    samples of the density ``r_t`` has mean 0 and variance 1, but where all values are equally
    likely, or one is certain: there ``sigma_t`` is 0, and 1e-4 nats stand for it.

    Example:
      >>> import jax.numpy as jnp, likejax as lj, numpy as np
      >>> even = lj.models.PixelHistogram(jnp.full((2, 2, 1, 4), -jnp.log(4.0)))
      >>> x = np.zeros((1, 2, 2, 1), np.uint8)
      >>> lj.ood.StandardizedMap()({"density": even}, x, None).ravel().tolist()
      [0.0, 0.0, 0.0, 0.0]
    """

    density: str = "density"
    """Name of the density: ``density`` for the scored one, or one that it is compared with."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the standardized log-probabilities of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Keys; nothing is drawn.
        """
        del keys
        density = named_density(densities, self.density)
        mean, std = density.token_moments(x)
        return (density.log_prob_map(x) - mean) / jnp.maximum(std, LEAST_STD)


@dataclasses.dataclass(frozen=True)
class LowestMean(Feature):
    """Mean of the lowest ``percent`` % of another feature's entries, ``(n,)``.

    Example:
      >>> import likejax as lj, numpy as np
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> x = lj.load("digits", split="test").examples[:3]
      >>> lowest = lj.ood.LowestMean(lj.ood.LogProbMap(), percent=100)
      >>> found = lowest({"density": histogram}, x, None)
      >>> bool(np.allclose(found, histogram.log_prob(x) / 64))
      True
    """

    entries: Feature
    """Feature of several numbers per example."""
    percent: Percent = 20
    """Share of the entries, rounded down to at least one entry."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Values:
        """Computes the mean of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example, if the other feature needs it.
        """
        entries = jnp.asarray(self.entries(densities, x, keys))
        return _lowest_mean(entries.reshape(len(x), -1), self.percent)

    def needs_key(self, densities: Densities) -> bool:
        """Returns whether the other feature is computed with random draws.

        Args:
          densities: Densities by name.
        """
        return self.entries.needs_key(densities)


@functools.partial(jax.jit, static_argnums=1)
def _lowest_mean(entries: Float[Array, "n d"], percent: int) -> Float[Array, " n"]:
    count = _lowest_count(entries.shape[1], percent)
    return jnp.sort(entries, axis=1)[:, :count].mean(axis=1)


def _lowest_count(dimensions: int, percent: int) -> int:
    return max(1, dimensions * percent // 100)


class _OfLowest:
    """Part of the scores that are the mean of the lowest entries of a map, with the sign turned."""

    name: ClassVar[str]
    percent: int
    query: ClassVar[OptionalQuery]
    entries: ClassVar[Feature]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The mean of the lowest entries."""
        return (LowestMean(self.entries, self.percent),)

    @property
    def label(self) -> str:
        """Name in tables, with the share of the dimensions."""
        return f"{self.name}, {self.percent} %"

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density has a term for every dimension.

        Args:
          density: Density that is scored.
        """
        if not density.offers(self.query):
            raise ValueError(
                f"expected a density with {self.query.replace('_', ' ')}, such as a PixelCNN++, "
                f"{type(density).__name__} has none: lj.ood.Curvature(scale) takes any density"
            )

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns minus the mean of the lowest entries.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return -compute(self.features[0])

    def statistic_map(self, compute: Compute, event_shape: tuple[int, ...]) -> Float[Any, "n ..."]:
        """Returns minus the lowest entries, each over their number, and 0 for all others.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        entries = np.asarray(compute(self.entries))
        flat = entries.reshape(len(entries), -1)
        count = _lowest_count(flat.shape[1], self.percent)
        lowest = np.argsort(flat, axis=1, kind="stable")[:, :count]
        parts = np.zeros_like(flat)
        np.put_along_axis(parts, lowest, -np.take_along_axis(flat, lowest, 1) / count, 1)
        return parts.reshape(entries.shape)


@dataclasses.dataclass(frozen=True)
class MinK(_OfLowest, Score):
    """Score ``s = -mean of the lowest k % of log p(x_t | x_<t)``, in nats per dimension.

    An example that the density was trained on has few dimensions that surprise it. So ``-s`` is
    the statistic of membership: it is high for training examples. As an OOD score, ``s`` is high
    where some dimensions are very unlikely, whatever the others are.

    References:
      Shi et al., 2024, Detecting pretraining data from large language models, arXiv:2310.16789.

    Example:
      >>> import likejax as lj, numpy as np
      >>> train, valid, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
      >>> histogram = lj.models.PixelHistogram.fit(train)
      >>> score = lj.ood.MinK(percent=10).fit(histogram, valid)
      >>> digit, noise = score(np.stack([test.examples[0], 16 - test.examples[0]]))
      >>> bool(digit < noise)
      True
    """

    name: ClassVar[str] = "Min-K"
    query: ClassVar[OptionalQuery] = "log_prob_map"
    entries: ClassVar[Feature] = LogProbMap()

    percent: Percent = 20
    """Share of the dimensions that count, k, rounded down to at least one dimension."""


@dataclasses.dataclass(frozen=True)
class MinKPlus(_OfLowest, Score):
    """Score ``s = -mean of the lowest k % of r_t``, ``r_t = (log p_t(x_t) - mu_t) / sigma_t``.

    ``mu_t`` and ``sigma_t`` are mean and standard deviation of ``log p_t(v)`` over all values ``v``
    of a dimension given those before it (``Density.token_moments``). A dimension that is hard to
    predict for everybody then does not count as a surprise. ``-s`` is the published statistic of
    membership, Min-K%++: it is high for training examples. Where ``sigma_t`` is below 1e-4 nats,
    1e-4 stands for it, so that ``r_t`` is 0 under a uniform distribution.

    References:
      Zhang et al., 2024, Min-K%++: improved baseline for detecting pre-training data from large
      language models, arXiv:2404.02936.

    Example:
      >>> import likejax as lj, numpy as np
      >>> train, valid, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
      >>> histogram = lj.models.PixelHistogram.fit(train)
      >>> score = lj.ood.MinKPlus().fit(histogram, valid)
      >>> digit, noise = score(np.stack([test.examples[0], 16 - test.examples[0]]))
      >>> bool(digit < noise)
      True
    """

    name: ClassVar[str] = "Min-K++"
    query: ClassVar[OptionalQuery] = "token_moments"
    entries: ClassVar[Feature] = StandardizedMap()

    percent: Percent = 20
    """Share of the dimensions that count, k, rounded down to at least one dimension."""

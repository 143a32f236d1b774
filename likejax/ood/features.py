"""Features: the numbers of an example that scores are computed from, each computed once."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key, Shaped

from likejax.density import Density, Kind
from likejax.devices import Devices, in_chunks
from likejax.keys import KeyLike, as_key, example_keys
from likejax.names import meant
from likejax.settings import Count, CountOrZero, Settings, checked

Densities = Mapping[str, Density]
"""The density that is scored, called ``density``, and those that scores compare it with."""
Batch = Shaped[Array | np.ndarray, "n ..."]
"""Examples in a row."""
Values = Float[Any, " n"]
"""One number per example."""
Numbers = Float[Any, "n ..."]
"""One number per example, or several."""


def named_density(densities: Densities, name: str) -> Density:
    """Returns the density that a feature names.

    Args:
      densities: Densities by name.
      name: Name in the feature's settings.

    Raises:
      ValueError: If the score has no density of that name.
    """
    if name not in densities:
        raise ValueError(
            f"expected a feature of a density that the score has, {', '.join(densities)}, got "
            f"{name!r}{meant(name, densities)}: a score with a field that holds another density, "
            "such as LikelihoodRatio's background, has it by the name of the field"
        )
    return densities[name]


@dataclasses.dataclass(frozen=True)
class Feature(Settings, abc.ABC):
    """One number per example, or several.

    Features that are equal are computed once and shared by all scores that need them.

    Example:
      >>> import dataclasses, numpy as np
      >>> from likejax import ood
      >>> @dataclasses.dataclass(frozen=True)
      ... class Brightness(ood.Feature):
      ...     def __call__(self, densities, x, keys):
      ...         return x.reshape(len(x), -1).mean(1)
      >>> Brightness()({}, np.ones((2, 4, 4, 1)), None).tolist()
      [1.0, 1.0]
    """

    @abc.abstractmethod
    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the feature of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example, or ``None`` if nothing is drawn.
        """

    def check(self, density: Density) -> None:
        """Raises a ValueError if a density does not offer what the feature needs.

        Args:
          density: Density that is scored.
        """

    def needs_key(self, densities: Densities) -> bool:
        """Returns whether the feature is computed with random draws.

        Args:
          densities: Densities by name.
        """
        del densities
        return False


class OfDensity(Feature):
    """Part of the features that are computed by one density, with draws unless it is exact.

    It is the density of the field ``density`` if the feature has one, else the scored one.
    """

    def needs_key(self, densities: Densities) -> bool:
        """Returns whether the density's log-probability is not exact.

        Args:
          densities: Densities by name.
        """
        return named_density(densities, getattr(self, "density", "density")).kind is not Kind.EXACT


class OfDraws(Feature):
    """Part of the features that are computed with random draws, whatever the density is."""

    def needs_key(self, densities: Densities) -> bool:
        """Returns True.

        Args:
          densities: Densities by name.
        """
        del densities
        return True


class OfExamples(Feature):
    """Part of the features that come from the examples alone, without a density or draws.

    A benchmark of several trainings computes them once.
    """


@dataclasses.dataclass(frozen=True)
class LogProb(OfDensity):
    """Log-probability of one of the densities, in nats.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.full((3, 2), 0.5, np.float32)
      >>> lj.ood.LogProb()({"density": lj.models.Uniform((2,))}, points, None).tolist()
      [0.0, 0.0, 0.0]
    """

    density: str = "density"
    """Name of the density: ``density`` for the scored one, or one that it is compared with."""
    draws: Count = 1
    """Number of draws per example, combined as the kind allows."""
    stream: CountOrZero = 0
    """Number of an independent stream of draws; equal numbers give equal draws."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Values:
        """Computes the log-probability of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        density = named_density(densities, self.density)
        if density.kind is Kind.EXACT:
            return density.log_prob(x, draws=self.draws)
        if self.stream and keys is not None:
            number = np.uint32(2**32 - self.stream)  # from the top, where no draw's number is
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
        return density.log_prob(x, key=keys, draws=self.draws)


@dataclasses.dataclass(frozen=True)
class LogProbMap(Feature):
    """Log-probability of every dimension given those before it, ``(n, *event_shape)`` in nats.

    Example:
      >>> import likejax as lj, numpy as np
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> x = np.zeros((3, 8, 8, 1), np.uint8)
      >>> lj.ood.LogProbMap()({"density": histogram}, x, None).shape
      (3, 8, 8, 1)
    """

    density: str = "density"
    """Name of the density: ``density`` for the scored one, or one that it is compared with."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the log-probabilities of examples.

        Args:
          densities: Densities by name; the one that is asked offers ``log_prob_map``.
          x: Examples ``(n, *event_shape)``.
          keys: Keys; nothing is drawn.
        """
        del keys
        return named_density(densities, self.density).log_prob_map(x)


Compute = Callable[[Feature], Numbers]
"""From a feature to its values on a set of examples."""


def features_of(
    densities: Densities,
    x: Batch,
    keys: Key[Array, " n"] | None,
    *,
    batch_size: int = 128,
    devices: Devices | None = None,
    what: str = "scoring",
) -> Compute:
    """Returns a function that computes features of examples, each feature once.

    Features of arrays on the host are computed in chunks and given in float64.

    Args:
      densities: Densities by name.
      x: Examples ``(n, *event_shape)``, on the host or traced.
      keys: One key per example, or ``None`` if no feature needs one.
      batch_size: Number of examples at a time on each device; the last chunk is padded to the shape
        of the others.
      devices: Devices to compute on; all of this process if not given.
      what: Name of the computation beside its progress bar.
    """
    batch_size = checked("batch_size", batch_size, Count)
    is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((densities, x, keys)))
    known: dict[Feature, Numbers] = {}

    def compute(feature: Feature) -> Numbers:
        if feature in known:
            return known[feature]
        if is_traced:
            values = feature(densities, x, keys)
        else:
            chunks = in_chunks(
                functools.partial(_of_chunk, feature),
                dict(densities),
                (x, keys),
                len(x),
                batch_size=batch_size,
                devices=devices,
                what=what,
            )
            values = np.concatenate([each[:kept] for each, kept in chunks])
        known[feature] = values
        return values

    return compute


def _of_chunk(
    feature: Feature, densities: Densities, chunk: tuple[Batch, Key[Array, " n"] | None]
) -> Float[np.ndarray, "n ..."]:
    """A feature of the examples of a chunk, on the host."""
    return np.asarray(feature(densities, *chunk), np.float64)


def keys_of(key: KeyLike | None, batch: tuple[int, ...], group: int = 1) -> Key[Array, " n"] | None:
    """Returns one key per example of a batch of groups.

    Args:
      key: One key, which is folded by flat position; or keys of shape ``batch``, for groups
        ``(*batch, group)``, which are used as they are; or ``None``.
      batch: Shape of the batch.
      group: Number of examples in a group.
    """
    if key is None:
        return None
    key = as_key(key)
    wanted = batch if group == 1 else (*batch, group)
    if key.shape == wanted:
        return key.reshape(-1)
    if key.shape == ():
        count = int(np.prod(wanted, dtype=int))
        return example_keys(key, np.arange(count, dtype=np.uint32))
    raise ValueError(f"expected one key or keys of shape {wanted}, got keys of shape {key.shape}")

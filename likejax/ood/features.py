"""What scores are made of: numbers that a density, or the image alone, gives for each example."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from likejax.density import Density, KeyLike, Kind, as_key, example_keys
from likejax.ood.complexity import code_lengths

Densities = Mapping[str, Density]
Values = Float[Any, " n"]


@dataclasses.dataclass(frozen=True)
class Feature(abc.ABC):
    """One number per example; equal features are computed once and shared by all scores that need them."""

    @abc.abstractmethod
    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Values:
        """The feature of examples ``(n, *event_shape)``, each with its key."""

    def needs_key(self, densities: Densities) -> bool:
        """Whether the feature is computed with random draws."""
        return False


@dataclasses.dataclass(frozen=True)
class LogProb(Feature):
    """``log_prob`` of one of the densities, in nats."""

    density: str = "density"
    """Which: the density that is scored, or one that a score compares it with."""
    draws: int = 1
    """Draws per example, combined as the kind allows."""

    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Values:
        density = densities[self.density]
        return density.log_prob(x, key=None if density.kind is Kind.EXACT else keys, draws=self.draws)

    def needs_key(self, densities: Densities) -> bool:
        """Unless the density is exact."""
        return densities[self.density].kind is not Kind.EXACT


@dataclasses.dataclass(frozen=True)
class CodeLength(Feature):
    """Length of the built-in lossless code of the image, in bits."""

    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Values:
        return code_lengths(x if isinstance(x, Tracer) else np.asarray(x))


Compute = Callable[[Feature], Values]
"""From a feature to its values on the examples at hand."""


def features_of(
    densities: Densities, x: Any, keys: Key[Array, " n"] | None, *, batch_size: int = 128
) -> Callable[[Feature], Values]:
    """A function that computes features of ``x``, each once; of host arrays in chunks, in float64.

    Args:
      densities: By name.
      x: Examples ``(n, *event_shape)``, on the host or traced.
      keys: One key per example, or ``None`` if no feature needs one.
      batch_size: Examples at a time; the last chunk is padded to the shape of the others.
    """
    known: dict[Feature, Values] = {}

    def compute(feature: Feature) -> Values:
        if feature not in known:
            if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((densities, x, keys))):
                known[feature] = feature(densities, x, keys)
            else:
                known[feature] = _in_chunks(feature, densities, x, keys, batch_size)
        return known[feature]

    return compute


def _in_chunks(feature: Feature, densities: Densities, x: Any, keys: Any, batch_size: int) -> np.ndarray:
    n = len(x)
    size = max(1, min(batch_size, n))
    values = []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        chunk = feature(densities, x[rows], None if keys is None else keys[rows])
        values.append(np.asarray(chunk, np.float64)[: n - start])
    return np.concatenate(values) if values else np.zeros(0)


def keys_of(key: KeyLike | None, batch: tuple[int, ...], group: int = 1) -> Key[Array, " n"] | None:
    """One key per example of a batch of groups: folded by flat position, or as they were given.

    Args:
      key: One key, or keys of shape ``batch`` (``(*batch, group)`` for groups), or ``None``.
      batch: Shape of the batch.
      group: Examples per group.
    """
    if key is None:
        return None
    key = as_key(key)
    wanted = batch if group == 1 else (*batch, group)
    if key.shape == wanted:
        return key.reshape(-1)
    if key.shape == ():
        return example_keys(key, jnp.arange(int(np.prod(wanted, dtype=int)), dtype=jnp.uint32))
    raise ValueError(f"expected one key or keys of shape {wanted}, got keys of shape {key.shape}")

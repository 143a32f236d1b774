"""What scores are made of: numbers that a density, or the image alone, gives for each example."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from likejax.density import Density, Kind
from likejax.keys import KeyLike, as_key, example_keys
from likejax.ood.complexity import code_lengths
from likejax.settings import Count, CountOrZero, Settings, checked

Densities = Mapping[str, Density]
Values = Float[Any, " n"]
"""One number per example."""
Numbers = Float[Any, "n ..."]
"""One number per example, or several."""


@dataclasses.dataclass(frozen=True)
class Feature(Settings, abc.ABC):
    """One number per example, or several; equal ones are computed once and shared by all scores that need them."""

    @abc.abstractmethod
    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Numbers:
        """The feature of examples ``(n, *event_shape)``, each with its key."""

    def needs_key(self, densities: Densities) -> bool:
        """Whether the feature is computed with random draws."""
        return False


@dataclasses.dataclass(frozen=True)
class LogProb(Feature):
    """``log_prob`` of one of the densities, in nats."""

    density: str = "density"
    """Which: the density that is scored, or one that a score compares it with."""
    draws: Count = 1
    """Draws per example, combined as the kind allows."""
    stream: CountOrZero = 0
    """Above 0, draws that are independent of those of the stream 0."""

    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Values:
        density = densities[self.density]
        if self.stream and keys is not None:  # counted down from the top, where no draw's number is
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(
                keys, np.uint32(2**32 - self.stream)
            )
        return density.log_prob(
            x, key=None if density.kind is Kind.EXACT else keys, draws=self.draws
        )

    def needs_key(self, densities: Densities) -> bool:
        """Unless the density is exact."""
        return densities[self.density].kind is not Kind.EXACT


@dataclasses.dataclass(frozen=True)
class LogProbAbove(Feature):
    """``VAE.log_prob_above`` for every number of lowest latents, ``(n, L)`` in nats: one call gives all."""

    draws: Count = 1
    """Draws per example, combined by the log of their mean."""
    replacement: Literal["sample", "mean"] = "mean"
    """What stands for the latents that are not inferred: ``sample`` or ``mean``."""

    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Numbers:
        density: Any = densities["density"]
        return density.log_prob_above(x, key=keys, draws=self.draws, replacement=self.replacement).T

    def needs_key(self, densities: Densities) -> bool:
        """Always: latents are drawn."""
        return True


@dataclasses.dataclass(frozen=True)
class LatentKL(Feature):
    """Divergence of each latent's posterior from its prior, ``(n, L)`` in nats, of one draw."""

    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Numbers:
        density: Any = densities["density"]
        parts = density.terms(x, key=keys).per_example()
        return jnp.stack([parts[f"kl_{i + 1}"] for i in range(density.depth)], axis=-1)

    def needs_key(self, densities: Densities) -> bool:
        """Always: latents are drawn."""
        return True


@dataclasses.dataclass(frozen=True)
class CodeLength(Feature):
    """Length of the built-in lossless code of the image, in bits."""

    def __call__(self, densities: Densities, x: Any, keys: Key[Array, " n"] | None) -> Values:
        return code_lengths(x if isinstance(x, Tracer) else np.asarray(x))


Compute = Callable[[Feature], Numbers]
"""From a feature to its values on the examples at hand."""


def features_of(
    densities: Densities, x: Any, keys: Key[Array, " n"] | None, *, batch_size: int = 128
) -> Compute:
    """A function that computes features of ``x``, each once; of host arrays in chunks, in float64.

    Args:
      densities: By name.
      x: Examples ``(n, *event_shape)``, on the host or traced.
      keys: One key per example, or ``None`` if no feature needs one.
      batch_size: Examples at a time; the last chunk is padded to the shape of the others.
    """
    batch_size = checked("batch_size", batch_size, Count)
    known: dict[Feature, Numbers] = {}

    def compute(feature: Feature) -> Numbers:
        if feature not in known:
            if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((densities, x, keys))):
                known[feature] = feature(densities, x, keys)
            else:
                known[feature] = _in_chunks(feature, densities, x, keys, batch_size)
        return known[feature]

    return compute


def _in_chunks(
    feature: Feature, densities: Densities, x: Any, keys: Any, batch_size: int
) -> np.ndarray:
    n = len(x)
    size = min(batch_size, n)
    values = []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        chunk = feature(densities, x[rows], None if keys is None else keys[rows])
        values.append(np.asarray(chunk, np.float64)[: n - start])
    return np.concatenate(values)


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

"""An ensemble without training: one density with noise on its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from likejax.data.conditions import condition_of
from likejax.data.dataset import Dataset, as_dataset
from likejax.density import Density, check_density
from likejax.evaluation import check_fit, log_prob_in_chunks
from likejax.keys import KeyLike, as_key
from likejax.models.ensemble import Ensemble
from likejax.nn.initial import normal_weights
from likejax.nn.repeat import for_backend, stack, stacked_axes
from likejax.nn.state import Arrays, merge, split
from likejax.settings import Count, Positive, checked

_FIRST_SCALE = 0.0625
_LARGEST_SCALE = 1024.0
"""Scale at which the search ends: weights are noise alone by then."""
_HALVINGS = 10
"""Bisections of an interval whose ends differ by a factor of 2: the scale is found to 0.1 %."""


@dataclasses.dataclass(frozen=True, eq=False)
class WeightNoise:
    """Result of ``weight_noise_ensemble``.

    Attributes:
      density: Ensemble of the densities with noise on their weights.
      scale: Standard deviation of the noise, relative to the root mean square of each array.
      rises: Rise of the mean negative log-probability of the inside examples in nats per dimension,
        of every member.

    Example:
      >>> import likejax as lj
      >>> density = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
      >>> inside = lj.load("moons").examples[:64]
      >>> noise = lj.train.weight_noise_ensemble(density, members=2, key=0, inside=inside, rise=0.1)
      >>> max(noise.rises) <= 0.1
      True
    """

    density: Ensemble
    scale: float
    rises: tuple[float, ...]


def weight_noise_ensemble(
    density: Density,
    *,
    members: int = 5,
    key: KeyLike,
    inside: object,
    rise: float = 0.01,
    draws: int = 1,
    batch_size: int = 128,
) -> WeightNoise:
    """Makes an ensemble of one trained density by Gaussian noise on its weights, without training.

    Every entry ``w`` of a trainable array becomes ``w + scale * rms * eps``, with ``rms`` the root
    mean square of its array and ``eps`` standard normal. Arrays that are zero stay so. The scale is
    the largest that raises the mean of ``-log p`` over the inside examples by at most ``rise`` nats
    per dimension, for every member. It is found by doubling and bisection, with the same ``eps``
    and the same noise of ``log_prob`` at every scale. If the rise does not grow with the scale all
    the way, the result is one of the scales at which it crosses the bound. The members lie around
    one optimum, while those of ``fit_ensemble`` are different optima.

    Args:
      density: A trained density.
      members: Number of members.
      key: Key of the noise on the weights, and of ``log_prob``.
      inside: Inside examples to measure the rise on, best held out from training: a dataset or an
        array. A conditional density takes their labels or conditions.
      rise: Largest rise in nats per dimension; for a share ``s`` of the mean ``nll`` in nats, pass
        ``s * nll / D``.
      draws: Draws for each example, unless the density is exact.
      batch_size: Examples at a time.

    Returns:
      The ensemble in ``density``, the scale, and what each member loses.

    Raises:
      TypeError: If an argument is of another type.
      ValueError: If the examples do not fit the density, it has no trainable parameters, its own
        log-probabilities are not finite, or no noise raises them.

    References:
      Choi, Jang and Alemi, 2018, WAIC, but why? Generative ensembles for robust anomaly detection,
      arXiv:1810.01392 (the use of an ensemble).

    Example:
      >>> import likejax as lj
      >>> density = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
      >>> inside = lj.load("moons").examples[:64]
      >>> noise = lj.train.weight_noise_ensemble(density, members=3, key=0, inside=inside)
      >>> noise.density.log_prob_members(inside).shape
      (3, 64)
    """
    check_density(density)
    members, rise = checked("members", members, Count), checked("rise", rise, Positive)
    dataset = as_dataset(inside, levels=density.levels, event_shape=density.event_shape)
    check_fit(density, dataset)
    noise_key, draw_key = jax.random.split(as_key(key))
    keys = [jax.random.fold_in(noise_key, number) for number in range(members)]
    noisy = [_noisy(density, own) for own in keys]

    def loss(changed: Density) -> float:
        return _loss(changed, dataset, draw_key, draws=draws, batch_size=batch_size)

    own_loss = loss(density)
    if not math.isfinite(own_loss):
        raise ValueError(
            "expected finite log-probabilities of the inside examples before there is noise on the "
            f"weights, got a mean of {-own_loss} nats per dimension"
        )
    scale = _largest_scale(
        lambda scale: all(loss(member(scale)) - own_loss <= rise for member in noisy)
    )
    chosen = [member(scale) for member in noisy]
    rises = tuple(loss(member) - own_loss for member in chosen)
    return WeightNoise(Ensemble(chosen), scale, rises)


def _loss(density: Density, inside: Dataset, key: KeyLike, *, draws: int, batch_size: int) -> float:
    """The mean of ``-log p`` in nats per dimension."""
    log_probs = log_prob_in_chunks(
        density,
        inside.examples,
        key=key,
        condition=condition_of(inside, density.condition_shape),
        draws=draws,
        batch_size=batch_size,
    )
    return -float(log_probs.mean()) / math.prod(density.event_shape)


def _noisy(density: Density, key: jax.Array) -> Callable[[float], Density]:
    """The density with noise of one direction on its weights, by the scale of the noise."""
    structure, params, fixed = split(stack(density))
    if not params:
        raise ValueError(
            f"expected a density with trainable parameters, {type(density).__name__} has none: "
            "noise changes arrays in nnx.Param"
        )
    keys = jax.random.split(key, len(params))
    pairs = zip(params, keys, strict=True)
    noise = {name: _noise(name, params[name], own) for name, own in pairs}

    def at(scale: float) -> Density:
        changed: Arrays = {
            name: jnp.asarray(np.asarray(leaf, np.float64) + scale * noise[name], leaf.dtype)
            for name, leaf in params.items()
        }
        return for_backend(merge(structure, changed, fixed))

    return at


def _noise(name: str, leaf: Any, key: jax.Array) -> np.ndarray:
    """Noise of the root mean square of an array; of each block of a stack by itself."""
    values = np.asarray(leaf, np.float64)
    axes = tuple(range(stacked_axes(name), values.ndim))
    rms = np.sqrt(np.square(values).mean(axes, keepdims=True))
    return rms * np.asarray(normal_weights(key, values.shape), np.float64)


def _largest_scale(accepts: Callable[[float], bool]) -> float:
    """The largest scale that is accepted, between one that is and twice of it that is not.

    Raises:
      ValueError: If every scale is accepted.
    """
    low = _FIRST_SCALE
    while not accepts(low):
        low /= 2  # ends: noise below the precision of the weights changes nothing
    high = 2 * low
    while low >= _FIRST_SCALE and accepts(high):
        low, high = high, 2 * high
        if low >= _LARGEST_SCALE:
            raise ValueError(
                "expected noise on the weights to raise -log p of the inside examples, got no such "
                f"rise up to {low:g} times their size: nothing reads them, or rise is too large"
            )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if accepts(middle) else (low, middle)
    return low

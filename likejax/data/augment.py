"""Keyed integer-to-integer augmentation of training batches; evaluation never sees it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Integer

from likejax.names import meant

Images = Integer[np.ndarray, "n height width channels"]


def flip(images: Images, rng: np.random.Generator) -> Images:
    """Exchanges left and right in a random half of the images.

    Args:
      images: Integer images.
      rng: Source of the draws.
    """
    chosen = rng.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def shift(images: Images, rng: np.random.Generator) -> Images:
    """Moves images by up to a tenth of their size in both directions; edges are repeated.

    The official Glow code moves by fractions of a pixel and interpolates; whole pixels keep the
    values as they are.

    Args:
      images: Images ``(n, height, width, channels)``.
      rng: Source of the draws.

    Returns:
      Images of the same shape and type.
    """
    height, width = images.shape[1:3]
    down, right = height // 10, width // 10
    padded = np.pad(images, [(0, 0), (down, down), (right, right), (0, 0)], mode="edge")
    tops = rng.integers(0, 2 * down + 1, len(images))
    lefts = rng.integers(0, 2 * right + 1, len(images))
    rows = tops[:, None] + np.arange(height)
    columns = lefts[:, None] + np.arange(width)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def mutate(images: Images, rng: np.random.Generator, *, levels: int, rate: float) -> Images:
    """Replaces entries at random: ``(x + m u) mod levels``.

    ``m`` is Bernoulli(``rate``) and ``u`` uniform on ``0..levels-1``, independent for every entry,
    so an entry changes with probability ``rate (levels - 1) / levels``. Background models are
    trained on such images.

    Args:
      images: Integers ``0..levels-1``.
      rng: Source of the draws.
      levels: Number of values.
      rate: Probability that an entry is replaced.

    References:
      Ren et al., 2019, Likelihood ratios for out-of-distribution detection, arXiv:1906.02845, and
      its code.
    """
    chosen = rng.random(images.shape, np.float32) < rate
    offsets = rng.integers(0, levels, images.shape, np.uint16)
    return ((images + chosen * offsets) % levels).astype(images.dtype)


def binarize(images: Images, rng: np.random.Generator, *, levels: int) -> Images:
    """Draws zeros and ones anew in every epoch: 1 with probability ``x / (levels - 1)``.

    The model sees two levels; evaluation uses one fixed draw, ``Dataset.binarize``.

    Args:
      images: Integers ``0..levels-1``, ``(n, height, width, channels)``.
      rng: Source of the draws.
      levels: Number of values of the images.

    Returns:
      Zeros and ones of the same shape, as ``uint8``.

    References:
      Salakhutdinov and Murray, 2008, On the quantitative analysis of deep belief networks.
    """
    return (rng.random(images.shape, np.float32) * (levels - 1) < images).astype(np.uint8)


AUGMENTATIONS: dict[str, Callable[..., Images]] = {
    "flip": flip,
    "shift": shift,
    "mutate": mutate,
    "binarize": binarize,
}
"""Name in an experiment to function."""


def check_augmentation(spec: str) -> None:
    """Raises a ValueError unless ``spec`` names an augmentation as an experiment may.

    Args:
      spec: Name of an augmentation, with its rate if it has one.

    Raises:
      ValueError: If there is none of that name, or its rate is missing or no probability.
    """
    augmentation(spec, levels=256)


def augmentation(
    spec: str, *, levels: int | None
) -> Callable[[Images, np.random.Generator], Images]:
    """Finds the augmentation of a name in an experiment.

    The names are ``flip``, ``shift``, ``binarize``, and ``mutate:0.2`` with its rate.

    Args:
      spec: Name of an augmentation, with its rate if it has one.
      levels: Number of values of the images; ``None`` for continuous data, which have none.

    Returns:
      A function from images ``(n, height, width, channels)`` and a source of draws to new images.

    Raises:
      ValueError: If there is none of that name, its rate is missing or no probability, or the data
        are no integers.
    """
    name, colon, rate = spec.partition(":")
    if name not in AUGMENTATIONS:
        near = meant(name, AUGMENTATIONS)
        raise ValueError(
            f"unknown augmentation {name!r}; there are flip, shift, binarize and mutate:RATE{near}"
        )
    if levels is None:
        raise ValueError(f"expected integer images to augment by {name}, got continuous data")
    if bool(colon) != (name == "mutate"):
        raise ValueError(
            f"expected {'mutate:RATE' if name == 'mutate' else name}, got augmentation {spec!r}"
        )
    if name == "binarize":
        return partial(binarize, levels=levels)
    return partial(mutate, levels=levels, rate=_probability(rate)) if colon else AUGMENTATIONS[name]


def _probability(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < 1:
        raise ValueError(f"expected a rate between 0 and 1, got {text!r}")
    return rate

"""Keyed integer-to-integer augmentation of training batches; evaluation never sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Integer

Images = Integer[np.ndarray, "n height width channels"]


def flip(images: Images, rng: np.random.Generator) -> Images:
    """Left and right exchanged in every second image, at random."""
    chosen = rng.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def shift(images: Images, rng: np.random.Generator) -> Images:
    """Images moved by up to a tenth of their size in both directions, whole pixels, edges repeated.

    The official Glow code moves by fractions of a pixel and interpolates; whole pixels keep the values as they are.
    """
    height, width = images.shape[1:3]
    down, right = height // 10, width // 10
    padded = np.pad(images, [(0, 0), (down, down), (right, right), (0, 0)], mode="edge")
    tops = rng.integers(0, 2 * down + 1, len(images))
    lefts = rng.integers(0, 2 * right + 1, len(images))
    rows = tops[:, None] + np.arange(height)
    columns = lefts[:, None] + np.arange(width)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


AUGMENTATIONS: dict[str, Callable[[Images, np.random.Generator], Images]] = {"flip": flip, "shift": shift}
"""Name in an experiment to function."""

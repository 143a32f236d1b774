"""Transforms: functions from a dataset to a dataset, from integers to integers.

Each transform notes itself in the provenance of its result. All are methods of ``Dataset`` too, and
steps behind a dataset's name (see ``likejax.data.steps``), so these are the same:
``lj.data.resize(lj.data.gray(photographs), 8, 8)``, ``photographs.gray().resize(8, 8)`` and
``lj.load("photographs+gray+resize:8x8")``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Num

from likejax.data import augment
from likejax.data.columns import Column, Continuous
from likejax.names import meant
from likejax.settings import Count, CountOrZero, Probability, checked

_LUMA = {"R": 0.299, "G": 0.587, "B": 0.114}
"""Weights of red, green and blue in the luma of ITU-R BT.601."""


@runtime_checkable
class Transformable(Protocol):
    """The attributes of a ``Dataset`` that transforms use."""

    @property
    def examples(self) -> Num[np.ndarray, "n ..."]:
        """Examples ``(n, *event_shape)``."""
        ...

    @property
    def levels(self) -> int | None:
        """Number of integer values, or ``None`` for continuous data."""
        ...

    @property
    def color_order(self) -> str:
        """Meaning of three channels, in order."""
        ...

    @property
    def column_kinds(self) -> tuple[Column, ...] | None:
        """Kinds of the columns of a table that declares them."""
        ...

    def with_examples(self: Data, examples: np.ndarray, *, step: str, **changes: object) -> Data:
        """The same dataset with other examples and one more step in its provenance.

        Args:
          examples: New examples ``(n, *new_event_shape)``, one for each.
          step: Note for the provenance.
          **changes: New values of other attributes.
        """
        ...


Data = TypeVar("Data", bound=Transformable)
"""A ``Dataset``; every transform returns another one."""


def invert(dataset: Data) -> Data:
    """Inverts images: ``x`` becomes ``levels - 1 - x``, so that ink becomes paper.

    Args:
      dataset: Integer images.

    Returns:
      The inverted images.

    Raises:
      ValueError: If the data are not integer images.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits")
      >>> int(digits.examples.min()), int(lj.data.invert(digits).examples.max())
      (0, 16)
    """
    levels = image_levels(dataset)
    inverted = levels - 1 - dataset.examples.astype(np.int32)
    return dataset.with_examples(inverted.astype(dataset.examples.dtype), step="inverted")


def pad(dataset: Data, height: int, width: int, *, value: int = 0) -> Data:
    """Puts images in the middle of a larger canvas of one value.

    Args:
      dataset: Integer images.
      height: Height of the canvas in pixels.
      width: Width of the canvas in pixels.
      value: Value of the canvas, in ``0..levels-1``.

    Returns:
      Images of shape ``(height, width, channels)``.

    Raises:
      ValueError: If the canvas is smaller than the images, or the value is not one of the levels.

    Example:
      >>> import likejax as lj
      >>> lj.data.pad(lj.load("digits"), 12, 10).event_shape
      (12, 10, 1)
    """
    levels = image_levels(dataset)
    if not 0 <= value < levels:
        raise ValueError(f"expected a value in 0..{levels - 1} to pad with, got {value}")
    above_and_below = _margins(dataset.examples.shape[1], height)
    left_and_right = _margins(dataset.examples.shape[2], width)
    margins = [(0, 0), above_and_below, left_and_right, (0, 0)]
    padded = np.pad(dataset.examples, margins, constant_values=value)
    return dataset.with_examples(padded, step=f"padded to {height}x{width} with {value}")


def _margins(size: int, canvas: int) -> tuple[int, int]:
    """Pixels before and after an axis of ``size`` in the middle of ``canvas``."""
    extra = canvas - size
    if extra < 0:
        raise ValueError(f"expected a canvas of at least {size}, got {canvas}")
    return extra // 2, extra - extra // 2


def crop(dataset: Data, height: int, width: int) -> Data:
    """Cuts the middle out of images; of an odd rest the larger half is cut off below and right.

    Args:
      dataset: Integer images.
      height: Height that is kept, in pixels.
      width: Width that is kept, in pixels.

    Returns:
      Images of shape ``(height, width, channels)``.

    Raises:
      ValueError: If the data are not integer images, or smaller than what is to be kept.

    Example:
      >>> import likejax as lj
      >>> lj.data.crop(lj.load("photographs", split="test"), 28, 24).event_shape
      (28, 24, 3)
    """
    image_levels(dataset)
    kept = (checked("height", height, Count), checked("width", width, Count))
    present = dataset.examples.shape[1:3]
    if kept[0] > present[0] or kept[1] > present[1]:
        raise ValueError(
            f"expected at most {present[0]}x{present[1]} to keep, got {kept[0]}x{kept[1]}: pad "
            "makes images larger"
        )
    top, left = (present[0] - kept[0]) // 2, (present[1] - kept[1]) // 2
    middle = dataset.examples[:, top : top + kept[0], left : left + kept[1]]
    return dataset.with_examples(middle, step=f"middle {kept[0]}x{kept[1]} of the image")


def resize(dataset: Data, height: int, width: int, *, filter: str = "box") -> Data:
    """Resamples images with Pillow.

    Args:
      dataset: Images of 256 levels.
      height: New height in pixels.
      width: New width in pixels.
      filter: Pillow's filter: ``nearest``, ``box``, ``bilinear``, ``hamming``, ``bicubic`` or
        ``lanczos``. Likelihoods depend strongly on it, so it is part of the provenance.

    Returns:
      Images of shape ``(height, width, channels)``.

    Raises:
      ValueError: If the images do not have 256 levels, a size is not positive, or the filter is
        unknown.

    Example:
      >>> import likejax as lj
      >>> photographs = lj.load("photographs", split="test")
      >>> lj.data.resize(photographs, 8, 8, filter="bilinear").event_shape
      (8, 8, 3)
    """
    from PIL import Image

    if image_levels(dataset) != 256:
        raise ValueError(f"expected 8-bit images to resize, got {dataset.levels} levels")
    filters = {each.name.lower(): each for each in Image.Resampling}
    if filter not in filters:
        known = ", ".join(filters)
        raise ValueError(
            f"unknown filter {filter!r}; the filters are {known}{meant(filter, filters)}"
        )
    size = checked("width", width, Count), checked("height", height, Count)

    def resized(plane: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(plane).resize(size, filters[filter]))

    images = []
    for image in dataset.examples:
        planes = np.moveaxis(image, -1, 0)  # Pillow takes one channel at a time
        images.append(np.stack([resized(plane) for plane in planes], axis=-1))
    return dataset.with_examples(np.stack(images), step=f"resized to {height}x{width} ({filter})")


def gray(dataset: Data) -> Data:
    """Turns color images gray: the luma ``0.299 R + 0.587 G + 0.114 B`` of ITU-R BT.601, rounded.

    Args:
      dataset: Integer images of three channels.

    Returns:
      Images of one channel.

    Raises:
      ValueError: If the data are not integer images of red, green and blue.

    Example:
      >>> import likejax as lj
      >>> lj.data.gray(lj.load("photographs", split="test")).event_shape
      (32, 32, 1)
    """
    image_levels(dataset)
    channels = dataset.examples.shape[-1]
    if channels != 3:
        raise ValueError(f"expected 3 channels to turn gray, got {channels}")
    order = dataset.color_order
    if sorted(order) != sorted(_LUMA):
        raise ValueError(f"expected red, green and blue in some order to turn gray, got {order!r}")
    weights = np.array([_LUMA[color] for color in order])
    luma = np.rint(dataset.examples @ weights)[..., None]
    values = luma.astype(dataset.examples.dtype)
    return dataset.with_examples(values, step="gray (BT.601)", color_order="RGB")


def color(dataset: Data) -> Data:
    """Repeats the one channel of gray images three times.

    Args:
      dataset: Integer images of one channel.

    Returns:
      Images of three equal channels.

    Raises:
      ValueError: If the data are not integer images of one channel.

    Example:
      >>> import likejax as lj
      >>> lj.data.color(lj.load("digits")).event_shape
      (8, 8, 3)
    """
    image_levels(dataset)
    channels = dataset.examples.shape[-1]
    if channels != 1:
        raise ValueError(f"expected 1 channel to repeat, got {channels}")
    repeated = np.repeat(dataset.examples, 3, axis=-1)
    return dataset.with_examples(repeated, step="gray repeated to 3 channels")


def transpose(dataset: Data) -> Data:
    """Exchanges rows and columns of images.

    Args:
      dataset: Integer images.

    Returns:
      Images of shape ``(width, height, channels)``.

    Raises:
      ValueError: If the data are not integer images.

    Example:
      >>> import likejax as lj
      >>> lj.data.transpose(lj.load("digits")).provenance[-1]
      'rows and columns exchanged'
    """
    image_levels(dataset)
    exchanged = dataset.examples.transpose(0, 2, 1, 3)
    return dataset.with_examples(exchanged, step="rows and columns exchanged")


def reduce_levels(dataset: Data, levels: int) -> Data:
    """Reduces the number of integer values: ``floor(x levels / old_levels)``.

    32 levels give the 5-bit images of Glow.

    Bits per dimension of data with different levels do not compare. A number that does not divide
    the old one makes levels of unequal width.

    Args:
      dataset: Integer images.
      levels: New number of values, from 2 to the present number.

    Returns:
      Images with values in ``0..levels-1``.

    Raises:
      TypeError: If ``levels`` is not an integer.
      ValueError: If the number is out of range, or the images hold only zeros and ones.

    Example:
      >>> import likejax as lj
      >>> lj.data.reduce_levels(lj.load("photographs", split="test"), 32).levels
      32
    """
    old = image_levels(dataset)
    levels = checked("levels", levels, Count)
    if not 2 <= levels <= old:
        raise ValueError(f"expected 2 to {old} as the new number of levels, got {levels}")
    _check_not_binary(dataset, "reduce")
    wide = dataset.examples.astype(np.int64)
    reduced = (wide * levels // old).astype(dataset.examples.dtype)
    return dataset.with_examples(reduced, step=f"{old} levels reduced to {levels}", levels=levels)


def binarize(dataset: Data, seed: int) -> Data:
    """Draws zeros and ones once: 1 with the gray value ``x / (levels - 1)`` as probability.

    Args:
      dataset: Integer images.
      seed: Random seed of the draw.

    Returns:
      Images of two levels.

    Raises:
      ValueError: If the data are not integer images, or hold only zeros and ones already.

    References:
      Salakhutdinov and Murray, 2008, On the quantitative analysis of deep belief networks.

    Example:
      >>> import likejax as lj
      >>> lj.data.binarize(lj.load("digits"), 0).levels
      2
    """
    levels = image_levels(dataset)
    _check_not_binary(dataset, "binarize")
    seed = checked("seed", seed, CountOrZero)
    draws = np.random.default_rng([seed, 2]).random(dataset.examples.shape)
    binary = (draws < dataset.examples / (levels - 1)).astype(np.uint8)
    made = f"drawn from the gray values with seed {seed}"
    return dataset.with_examples(binary, step=f"binarized, {made}", levels=2, binarization=made)


def mutate(dataset: Data, rate: float, seed: int) -> Data:
    """Draws once the mutation that background models are trained on.

    Each entry becomes ``(x + u) mod levels`` with probability ``rate``, where ``u`` is uniform on
    ``0..levels-1``.

    Args:
      dataset: Integer images.
      rate: Probability that an entry is mutated, between 0 and 1.
      seed: Random seed of the draw.

    Returns:
      Images of the same shape and levels.

    Raises:
      ValueError: If the data are not integer images, or the rate is not between 0 and 1.

    References:
      Ren et al., 2019, Likelihood ratios for out-of-distribution detection, arXiv:1906.02845, and
      its code.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits")
      >>> mutated = lj.data.mutate(digits, 0.5, seed=0)
      >>> round(float((mutated.examples != digits.examples).mean()), 1)
      0.5
    """
    levels = image_levels(dataset)
    seed = checked("seed", seed, CountOrZero)
    rate = checked("rate", rate, Probability)
    rng = np.random.default_rng([seed, 3])
    mutated = augment.mutate(dataset.examples, rng, levels=levels, rate=rate)
    return dataset.with_examples(mutated, step=f"mutated at rate {rate} with seed {seed}")


def continuous(dataset: Data) -> Data:
    """Takes the integers of a table as continuous values; no noise is added.

    Log-likelihoods are then densities in nats, which can grow without bound where values repeat.

    Args:
      dataset: Table of integers.

    Returns:
      The same values as ``float32``, without levels.

    Raises:
      ValueError: If the data are not a table of integers.

    Example:
      >>> import numpy as np, likejax as lj
      >>> table = lj.Dataset.from_array(np.arange(6, dtype=np.uint8).reshape(3, 2))
      >>> table.levels, lj.data.continuous(table).levels
      (256, None)
    """
    levels = dataset.levels
    if levels is None or dataset.examples.ndim != 2:
        raise ValueError(f"expected a table of integers to take as continuous, got {dataset!r}")
    values = dataset.examples.astype(np.float32)
    step = f"{levels} levels taken as continuous values"
    return dataset.with_examples(values, step=step, levels=None)


def subtract(dataset: Data, offset: object) -> Data:
    """Subtracts an offset from continuous examples, in float64; log-likelihoods stay as they are.

    A column far from zero, such as Unix times, loses its variation where a density computes in
    float32. Subtract the same offset from all parts of a dataset. Of a table that declares its
    columns only the continuous ones can be moved.

    Args:
      dataset: Continuous data.
      offset: A number, or one number for every entry of an example, such as
        ``dataset.column_means()``.

    Returns:
      Examples in float64.

    Raises:
      ValueError: If the data are integers, or the offset is not finite or of another shape.

    Example:
      >>> import likejax as lj
      >>> moons = lj.load("moons")
      >>> float(abs(lj.data.subtract(moons, moons.column_means()).column_means()).max()) < 1e-12
      True
    """
    if dataset.levels is not None:
        raise ValueError(f"expected continuous data for subtract, got {dataset!r}")
    event_shape = dataset.examples.shape[1:]
    offset = np.asarray(offset, np.float64)
    if offset.shape not in ((), event_shape) or not np.isfinite(offset).all():
        raise ValueError(
            f"expected a finite offset of shape () or {event_shape} to subtract, got shape "
            f"{offset.shape}"
        )
    if dataset.column_kinds is not None:
        _check_free(np.broadcast_to(offset, event_shape), dataset.column_kinds)
    digest = hashlib.sha256(offset.tobytes()).hexdigest()[:8]
    shown = f"an offset per entry (hash {digest})"
    if offset.ndim == 0:
        shown = f"{offset:.17g}"
    moved = dataset.examples.astype(np.float64) - offset
    return dataset.with_examples(moved, step=f"{shown} subtracted")


def _check_free(offset: Float[np.ndarray, " d"], columns: Sequence[Column]) -> None:
    """Refuses to move a column whose kind says where its values lie."""
    for shift, column in zip(offset, columns, strict=True):
        if shift and not isinstance(column, Continuous):
            raise ValueError(
                f"expected an offset of 0 for column {column.name!r}, which is {column}, got "
                f"{shift:g}: dataset.column_means() moves continuous columns only"
            )


def image_levels(dataset: Transformable) -> int:
    """Returns the levels of integer images.

    Args:
      dataset: Any data.

    Raises:
      ValueError: If the data are not integer images.
    """
    if dataset.levels is None or dataset.examples.ndim != 4:
        raise ValueError(f"expected integer images for this step, got {dataset!r}")
    return dataset.levels


def _check_not_binary(dataset: Transformable, step: str) -> None:
    """Refuses images of zeros and ones with more levels: nearly all of their ones would be lost."""
    if dataset.levels != 2 and dataset.examples.max() == 1:
        raise ValueError(
            f"expected gray values of {dataset.levels} levels to {step}, got only zeros and ones: "
            "make binary images "
            "with Dataset.from_array(examples, levels=2) or from booleans"
        )

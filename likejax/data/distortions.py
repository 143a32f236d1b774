"""Distortions: transforms that move integer images out of their distribution and keep their form.

They are transforms like those of ``likejax.data.transforms``: functions, methods of ``Dataset``,
and steps behind a dataset's name, ``fashion_mnist+vflip`` or ``fashion_mnist+noise:0.1``. Results
are rounded to the nearest level (halves to the even one) and cut off at the lowest and the highest
level, so a density sees them in the form of the images they were made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from jaxtyping import Float, Integer, Num

from likejax.data.transforms import Data, image_levels
from likejax.names import meant
from likejax.settings import CountOrZero, NonNegative, Positive, Range, checked

_ORDERS = {"nearest": 0, "bilinear": 1}
"""From a way to interpolate to the order of scipy's spline."""
_NOISE = 6
"""Number of the stream of random draws that noise has beside a seed."""
_Shift = Annotated[float, Range(at_least=-1, at_most=1)]
_Values = Num[np.ndarray, "*shape"]


def hflip(dataset: Data) -> Data:
    """Mirrors images: column ``j`` becomes column ``width - 1 - j``.

    Args:
      dataset: Integer images.

    Returns:
      Images of the same shape, left and right exchanged.

    Raises:
      ValueError: If the data are not integer images.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits")
      >>> lj.data.hflip(lj.data.hflip(digits)).fingerprint() == digits.fingerprint()
      True
    """
    image_levels(dataset)
    return dataset.with_examples(dataset.examples[:, :, ::-1], step="left and right exchanged")


def vflip(dataset: Data) -> Data:
    """Puts images upside down: row ``i`` becomes row ``height - 1 - i``.

    Args:
      dataset: Integer images.

    Returns:
      Images of the same shape, top and bottom exchanged.

    Raises:
      ValueError: If the data are not integer images.

    Example:
      >>> import likejax as lj
      >>> lj.data.vflip(lj.load("digits")).provenance[-1]
      'top and bottom exchanged'
    """
    image_levels(dataset)
    return dataset.with_examples(dataset.examples[:, ::-1], step="top and bottom exchanged")


def rotate(dataset: Data, degrees: float, *, filter: str = "bilinear", value: int = 0) -> Data:
    """Rotates images counterclockwise about their middle.

    Multiples of 90 degrees move pixels and change none; height and width are exchanged by odd ones.
    Any other angle keeps the shape: the pixel at ``p`` from the middle gets the value that the
    image, on a canvas of one value without end, has at ``p`` rotated back.

    Args:
      dataset: Integer images.
      degrees: Angle in degrees; negative angles are clockwise.
      filter: Interpolation between pixels, ``nearest`` or ``bilinear``. Multiples of 90 need none.
      value: Value of the canvas, in ``0..levels-1``.

    Returns:
      The rotated images.

    Raises:
      ValueError: If the data are not integer images, the angle is not finite, the filter is
        unknown, or the value is not one of the levels.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits")
      >>> lj.data.rotate(digits, 90).rotate(-90).fingerprint() == digits.fingerprint()
      True
    """
    levels = image_levels(dataset)
    degrees = checked("degrees", degrees, float)
    if filter not in _ORDERS:
        known = ", ".join(_ORDERS)
        raise ValueError(
            f"unknown filter {filter!r}; the filters are {known}{meant(filter, _ORDERS)}"
        )
    if not 0 <= value < levels:
        raise ValueError(f"expected a value in 0..{levels - 1} around the images, got {value}")
    step = f"rotated by {degrees:g} degrees counterclockwise"
    quarters, rest = divmod(degrees, 90)
    if rest == 0:
        turned = np.rot90(dataset.examples, int(quarters) % 4, axes=(1, 2))
        return dataset.with_examples(turned, step=step)
    from scipy import ndimage

    rotated = ndimage.rotate(
        dataset.examples.astype(np.float32),
        degrees,
        axes=(2, 1),
        reshape=False,
        order=_ORDERS[filter],
        mode="grid-constant",
        cval=value,
    )
    values = _rounded(rotated, levels, dataset.examples.dtype)
    return dataset.with_examples(values, step=f"{step} ({filter}, {value} around)")


def contrast(dataset: Data, factor: float) -> Data:
    """Changes the contrast about the middle level: ``x`` becomes ``m + factor (x - m)``.

    The middle ``m = (levels - 1) / 2`` is that of the levels, not the mean of an image, so
    brightness changes too where an image is dark or light as a whole.

    Args:
      dataset: Integer images.
      factor: Factor of at least 0; below 1 for less contrast.

    Returns:
      Images of the same shape and levels.

    Raises:
      ValueError: If the data are not integer images, or the factor is below 0 or not finite.

    Example:
      >>> import numpy as np, likejax as lj
      >>> images = lj.Dataset.from_array(np.array([[[0, 100, 255]]], np.uint8))
      >>> lj.data.contrast(images, 0.5).examples.ravel().tolist()
      [64, 114, 191]
    """
    middle = (image_levels(dataset) - 1) / 2
    factor = checked("factor", factor, NonNegative)
    step = f"contrast times {factor:g} about the middle level"
    return _by_level(dataset, lambda x: middle + factor * (x - middle), step)


def brightness(dataset: Data, shift: float) -> Data:
    """Changes the brightness: ``x + shift (levels - 1)``.

    Args:
      dataset: Integer images.
      shift: Share of the range that is added, from -1 to 1; below 0 for darker images.

    Returns:
      Images of the same shape and levels.

    Raises:
      ValueError: If the data are not integer images, or the shift is not between -1 and 1.

    Example:
      >>> import numpy as np, likejax as lj
      >>> images = lj.Dataset.from_array(np.array([[[0, 100, 255]]], np.uint8))
      >>> lj.data.brightness(images, 0.2).examples.ravel().tolist()
      [51, 151, 255]
    """
    highest = image_levels(dataset) - 1
    shift = checked("shift", shift, _Shift)
    step = f"brightness changed by {shift:g} of the range"
    return _by_level(dataset, lambda x: x + shift * highest, step)


def blur(dataset: Data, deviation: float) -> Data:
    """Blurs every channel of images with a Gaussian filter; edges are repeated.

    Args:
      dataset: Integer images.
      deviation: Standard deviation of the filter in pixels, above 0; it ends at four of them.

    Returns:
      Images of the same shape and levels.

    Raises:
      ValueError: If the data are not integer images, or the deviation is not positive and finite.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits")
      >>> bool(lj.data.blur(digits, 1.0).examples.std() < digits.examples.std())
      True
    """
    levels = image_levels(dataset)
    deviation = checked("deviation", deviation, Positive)
    from scipy import ndimage

    wide = dataset.examples.astype(np.float32)
    sigma = (0, deviation, deviation, 0)
    blurred = ndimage.gaussian_filter(wide, sigma, mode="nearest")
    values = _rounded(blurred, levels, dataset.examples.dtype)
    step = f"blurred by a Gaussian of {deviation:g} pixels"
    return dataset.with_examples(values, step=step)


def add_noise(dataset: Data, deviation: float, seed: int = 0) -> Data:
    """Adds Gaussian noise: ``x + deviation (levels - 1) n`` with independent standard normal ``n``.

    The noise of a row depends on the seed, the number of the row and the shape of an image alone:
    the first rows get the same noise whether or not others follow.

    Args:
      dataset: Integer images.
      deviation: Standard deviation as a share of the range, above 0.
      seed: Random seed of the draws.

    Returns:
      Images of the same shape and levels.

    Raises:
      ValueError: If the data are not integer images, the deviation is not positive and finite, or
        the seed is negative.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits")
      >>> noisy = lj.data.add_noise(digits, 0.1)
      >>> noisy[:5].fingerprint() == lj.data.add_noise(digits[:5], 0.1).fingerprint()
      True
    """
    levels = image_levels(dataset)
    deviation = checked("deviation", deviation, Positive)
    seed = checked("seed", seed, CountOrZero)
    scale = deviation * (levels - 1)
    noisy = np.empty_like(dataset.examples)
    for row, image in enumerate(dataset.examples):
        rng = np.random.default_rng([seed, _NOISE, row])
        moved = image + scale * rng.standard_normal(image.shape)
        noisy[row] = _rounded(moved, levels, noisy.dtype)
    step = f"Gaussian noise of {deviation:g} of the range with seed {seed}"
    return dataset.with_examples(noisy, step=step)


def _by_level(dataset: Data, change: Callable[[_Values], _Values], step: str) -> Data:
    """Changes every value by what becomes of its level."""
    levels = image_levels(dataset)
    changed = change(np.arange(levels, dtype=np.float64))
    table = _rounded(changed, levels, dataset.examples.dtype)
    return dataset.with_examples(table[dataset.examples], step=step)


def _rounded(
    values: Float[np.ndarray, "*shape"], levels: int, dtype: np.dtype
) -> Integer[np.ndarray, "*shape"]:
    """The nearest levels, in a type that holds them."""
    return np.clip(np.rint(values), 0, levels - 1).astype(dtype)

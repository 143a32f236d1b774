"""A lossless code for images: how many bits an image takes when no model of it is learned."""

from __future__ import annotations

import lzma
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

Image = Integer[np.ndarray, "height width channels"]

_LZMA: list[dict[str, Any]] = [
    {
        "id": lzma.FILTER_LZMA1,
        "dict_size": 1 << 20,
        "lc": 0,
        "lp": 0,
        "pb": 0,
        "mode": lzma.MODE_NORMAL,
        "nice_len": 64,
    }
]


def encode(image: Image) -> bytes:
    """Codes an image by the shortest of six codes.

    Each code predicts every byte from its neighbors and packs the residuals modulo 256 by LZMA. The
    predictions are zero, the left neighbor, the upper one, their mean, PNG's Paeth predictor and
    the median of JPEG-LS. The first byte is the number of the prediction. Values above 255 are two
    bytes.

    Args:
      image: Unsigned integers ``(height, width, channels)``.

    References:
      Serra et al., 2020, Input complexity and out-of-distribution detection with likelihood-based
      generative models, arXiv:1909.11480, which takes the shortest of several codecs. Weinberger,
      Seroussi and Sapiro, 2000, LOCO-I.

    Example:
      >>> import numpy as np
      >>> from likejax.ood.lossless import decode, encode
      >>> image = np.full((8, 8, 1), 7, np.uint8)
      >>> bool((decode(encode(image), image.shape) == image).all())
      True
    """
    planes = _bytes_of(image)
    codes = []
    for number, prediction in enumerate(_predictions(planes)):
        residuals = (planes - prediction).astype(np.uint8)
        packed = lzma.compress(residuals.tobytes(), lzma.FORMAT_RAW, filters=_LZMA)
        codes.append(bytes([number]) + packed)
    return min(codes, key=len)


def decode(code: bytes, shape: tuple[int, int, int], dtype: type | np.dtype = np.uint8) -> Image:
    """Returns the image of ``encode`` exactly, which shows that the code is lossless.

    Args:
      code: Bytes from ``encode``.
      shape: Shape ``(height, width, channels)`` of the image.
      dtype: Type of the image.
    """
    height, width, channels = shape
    bytes_per_value = np.dtype(dtype).itemsize
    packed = lzma.decompress(code[1:], lzma.FORMAT_RAW, filters=_LZMA)
    residuals = np.frombuffer(packed, np.uint8)
    residuals = residuals.reshape(height, width, channels * bytes_per_value)
    # a row and a column of zeros come first: the neighbors of the first row and column
    planes = np.zeros((height + 1, width + 1, channels * bytes_per_value), np.int16)
    for i in range(height):
        for j in range(width):
            left, up, corner = planes[i + 1, j], planes[i, j + 1], planes[i, j]
            prediction = _predicted(left, up, corner)[code[0]]
            planes[i + 1, j + 1] = (prediction + residuals[i, j]) % 256
    flat = planes[1:, 1:].astype(np.uint8)
    if bytes_per_value == 1:
        return flat
    return np.ascontiguousarray(flat).view("<u2").astype(dtype).reshape(shape)


def _bytes_of(image: Image) -> Integer[np.ndarray, "height width bytes"]:
    """Returns the bytes of every pixel on the last axis, as integers that have a sign."""
    if image.ndim != 3 or image.dtype.kind != "u":
        raise ValueError(
            "expected unsigned integers (height, width, channels), "
            f"got {image.dtype} of {image.shape}"
        )
    if image.dtype != np.uint8:
        image = np.ascontiguousarray(image.astype("<u2")).view(np.uint8)
    return image.astype(np.int16)


def _predictions(planes: np.ndarray) -> list[np.ndarray]:
    """Returns every prediction of a whole image from its true neighbors."""
    padded = np.pad(planes, ((1, 0), (1, 0), (0, 0)))
    return _predicted(left=padded[1:, :-1], up=padded[:-1, 1:], corner=padded[:-1, :-1])


def _predicted(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> list[np.ndarray]:
    """Returns every prediction of a value from its left, upper and upper-left neighbors."""
    plane = left + up - corner
    # Paeth: the neighbor that is nearest to the plane through all three, ties in this order
    to_left, to_up, to_corner = np.abs(plane - left), np.abs(plane - up), np.abs(plane - corner)
    up_or_corner = np.where(to_up <= to_corner, up, corner)
    paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, up_or_corner)
    # LOCO-I: the median of left, up and the plane
    median = np.clip(plane, np.minimum(left, up), np.maximum(left, up))
    return [np.zeros_like(left), left, up, (left + up) // 2, paeth, median]


def code_length_maps(
    images: Integer[np.ndarray, "n height width channels"],
) -> Float[np.ndarray, "n height width channels"]:
    """Returns the length of the code of each image, shared among its values, in bits.

    Each value gets a part in proportion to ``log(n / count)`` of its residual under the prediction
    that the code has chosen, where ``count`` of the ``n`` residuals of the image are equal to it.
    If all residuals are equal, the parts are equal too.

    Args:
      images: Unsigned integers ``(n, height, width, channels)``.

    Returns:
      Bits ``(n, height, width, channels)``, whose sums are ``code_lengths``.

    Example:
      >>> import numpy as np
      >>> from likejax.ood.lossless import code_length_maps
      >>> image = np.zeros((1, 8, 8, 1), np.uint8)
      >>> image[0, 4, 4] = 200
      >>> bool(code_length_maps(image)[0, 4, 4, 0] == code_length_maps(image).max())
      True
    """
    return np.array([_length_map(image) for image in images], np.float64).reshape(images.shape)


def _length_map(image: Image) -> Float[np.ndarray, "height width channels"]:
    code = encode(image)
    planes = _bytes_of(image)
    residuals = (planes - _predictions(planes)[code[0]]).astype(np.uint8)
    counts = np.bincount(residuals.reshape(-1), minlength=256)
    ideal = np.log(residuals.size / counts[residuals])
    if ideal.max() == 0:
        ideal = np.ones_like(ideal)
    of_values = ideal.reshape(*image.shape, -1).sum(axis=-1)
    return 8.0 * len(code) * of_values / of_values.sum()

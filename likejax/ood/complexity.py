"""A lossless code for images: how many bits an image takes when no model of it is learned."""

from __future__ import annotations

import lzma
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Integer

from likejax.inputs import as_array

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
    """The shortest of six codes of an image: each predicts every byte from its neighbors and packs what is left.

    The predictions are none, the left neighbor, the upper one, their mean, PNG's Paeth and JPEG-LS's median; the
    residuals modulo 256 are packed by LZMA. The first byte names the prediction. Values above 255 are two bytes.

    Args:
      image: Unsigned integers ``(height, width, channels)``.

    References:
      Serra et al., 2020, Input complexity and out-of-distribution detection with likelihood-based generative models,
      arXiv:1909.11480, which takes the shortest of several codecs. Weinberger, Seroussi and Sapiro, 2000, LOCO-I.
    """
    planes = _bytes_of(image)
    codes = [
        bytes([number])
        + lzma.compress(
            (planes - prediction).astype(np.uint8).tobytes(), lzma.FORMAT_RAW, filters=_LZMA
        )
        for number, prediction in enumerate(_predictions(planes))
    ]
    return min(codes, key=len)


def decode(code: bytes, shape: tuple[int, int, int], dtype: Any = np.uint8) -> Image:
    """The image of ``encode``, exactly: what proves that the length of a code is one.

    Args:
      code: What ``encode`` returned.
      shape: Of the image.
      dtype: Of the image.
    """
    height, width, channels = shape
    wide = np.dtype(dtype).itemsize
    residuals = np.frombuffer(lzma.decompress(code[1:], lzma.FORMAT_RAW, filters=_LZMA), np.uint8)
    residuals = residuals.reshape(height, width, channels * wide)
    planes = np.zeros(
        (height + 1, width + 1, channels * wide), np.int16
    )  # a row and a column of zeros before
    for i in range(height):
        for j in range(width):
            left, up, corner = planes[i + 1, j], planes[i, j + 1], planes[i, j]
            planes[i + 1, j + 1] = (_predicted(left, up, corner)[code[0]] + residuals[i, j]) % 256
    flat = planes[1:, 1:].astype(np.uint8)
    return (
        flat if wide == 1 else np.ascontiguousarray(flat).view("<u2").astype(dtype).reshape(shape)
    )


def _bytes_of(image: Image) -> np.ndarray:
    if image.ndim != 3 or image.dtype.kind != "u":
        raise ValueError(
            f"expected unsigned integers (height, width, channels), got {image.dtype} of {image.shape}"
        )
    wide = (
        image
        if image.dtype == np.uint8
        else np.ascontiguousarray(image.astype("<u2")).view(np.uint8)
    )
    return wide.astype(np.int16)


def _predictions(planes: np.ndarray) -> list[np.ndarray]:
    padded = np.pad(planes, ((1, 0), (1, 0), (0, 0)))
    return _predicted(left=padded[1:, :-1], up=padded[:-1, 1:], corner=padded[:-1, :-1])


def _predicted(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> list[np.ndarray]:
    """Every prediction of a value from its left, upper and upper-left neighbors."""
    plane = left + up - corner
    to_left, to_up, to_corner = np.abs(plane - left), np.abs(plane - up), np.abs(plane - corner)
    paeth = np.where(
        (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
    )
    median = np.clip(plane, np.minimum(left, up), np.maximum(left, up))
    return [np.zeros_like(left), left, up, (left + up) // 2, paeth, median]


def code_lengths(images: Integer[Any, "n height width channels"]) -> Float[Any, " n"]:
    """Length of the code of each image, in bits; inside compiled functions by a call back to the host.

    Args:
      images: Unsigned integers ``(n, height, width, channels)``.

    Returns:
      ``(n,)`` in bits.

    Raises:
      TypeError: If these are no numbers.
      ValueError: If these are no unsigned integers of that shape.
    """
    images = as_array("images", images)
    if images.ndim != 4:
        raise ValueError(
            f"expected images of shape (n, height, width, channels), got {tuple(images.shape)}"
        )
    if isinstance(images, Tracer):
        shape = jax.ShapeDtypeStruct(images.shape[:1], jnp.float32)
        lengths = lambda x: code_lengths(np.asarray(x)).astype(np.float32)  # noqa: E731
        return jax.pure_callback(lengths, shape, images, vmap_method="sequential")
    return np.array([8.0 * len(encode(np.asarray(image))) for image in images], np.float64)

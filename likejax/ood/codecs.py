"""Lengths of lossless codes: the built-in one, and PNG, JPEG 2000, WebP and JPEG XL of others."""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Integer

from likejax.inputs import as_array
from likejax.ood.lossless import encode
from likejax.settings import checked

Codec = Literal["built-in", "png", "jpeg2000", "webp", "jpeg-xl", "smallest"]
"""Names of codecs; ``smallest`` is the shortest of the built-in code, PNG and JPEG 2000."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 9, "optimize": True},
    # the format is named, since an ending such as .jpg would choose the lossy JPEG
    "jpeg2000": {"format": "JPEG2000", "irreversible": False},
    "webp": {"format": "WEBP", "lossless": True, "method": 6, "quality": 100, "exact": True},
    "jpeg-xl": {"format": "JXL", "lossless": True, "effort": 9},
}


def codecs_for(levels: int, channels: int) -> tuple[Codec, ...]:
    """Returns the built-in code, PNG and WebP, if the others take such images and are installed.

    Args:
      levels: Number of values of a pixel.
      channels: Number of channels.

    Example:
      >>> from likejax.ood.codecs import codecs_for
      >>> codecs_for(65536, 1)
      ('built-in',)
    """
    from PIL import features

    if levels > 256 or channels not in (1, 3):
        return ("built-in",)
    return ("built-in", "png", "webp") if features.check("webp") else ("built-in", "png")


def encoder(codec: Codec) -> Callable[[Integer[np.ndarray, "height width channels"]], bytes]:
    """Returns the function from one image to its code.

    PNG, JPEG 2000 and WebP are those of Pillow; JPEG XL needs ``pillow-jxl-plugin``. They take
    values up to 255 of one or three channels; the built-in code takes any unsigned integers.

    Args:
      codec: Name of the codec.

    Raises:
      ImportError: If it is JPEG XL and the plugin is not installed.

    Example:
      >>> import numpy as np
      >>> from likejax.ood.codecs import encoder
      >>> encoder("png")(np.zeros((8, 8, 1), np.uint8))[1:4]
      b'PNG'
    """
    if codec == "built-in":
        return encode
    if codec == "smallest":
        codes = [encode, encoder("png"), encoder("jpeg2000")]
        return lambda image: min((code(image) for code in codes), key=len)
    if codec == "jpeg-xl":
        _load_jpeg_xl()
    options = _OPTIONS[codec]
    return lambda image: _code(image, codec, options)


def _code(image: Integer[np.ndarray, "h w c"], codec: Codec, options: dict[str, Any]) -> bytes:
    from PIL import Image

    is_taken = image.dtype.kind == "u" and image.ndim == 3 and image.shape[2] in (1, 3)
    if not is_taken or image.max() > 255:
        raise ValueError(
            f"expected unsigned integers up to 255 of one or three channels for the codec {codec}, "
            f"got {image.dtype} up to {image.max(initial=0)} of shape {image.shape}: the built-in "
            "codec takes any unsigned integers"
        )
    pixels = image.astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def _load_jpeg_xl() -> None:
    try:
        importlib.import_module("pillow_jxl")
    except ImportError as error:
        raise ImportError(
            "the codec jpeg-xl needs a plugin of Pillow that is not installed: pip install "
            "pillow-jxl-plugin, or take png, jpeg2000, webp or the built-in code"
        ) from error


def code_lengths(
    images: Integer[Any, "n height width channels"], *, codec: Codec = "built-in"
) -> Float[Any, " n"]:
    """Returns the length of the code of each image, in bits.

    Inside compiled functions the lengths come from a call back to the host.

    Args:
      images: Unsigned integers ``(n, height, width, channels)``.
      codec: Name of the codec; see ``likejax.ood.lossless`` for the one that is built in.

    Returns:
      Lengths ``(n,)`` in bits.

    Raises:
      TypeError: If these are no numbers.
      ValueError: If these are no unsigned integers of that shape, the codec does not take them, or
        there is no such codec.
      ImportError: If the codec is not installed.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> bool(ood.code_lengths(np.zeros((1, 8, 8, 1), np.uint8))[0] < 8 * 64)
      True
    """
    codec = checked("codec", codec, Codec)
    images = as_array("images", images)
    if images.ndim != 4:
        raise ValueError(
            f"expected images of shape (n, height, width, channels), got {tuple(images.shape)}"
        )
    if isinstance(images, Tracer):
        shape = jax.ShapeDtypeStruct(images.shape[:1], jnp.float32)
        on_host = functools.partial(_lengths_on_host, codec=codec)
        return jax.pure_callback(on_host, shape, images, vmap_method="sequential")
    code = encoder(codec)
    return np.array([8.0 * len(code(np.asarray(image))) for image in images], np.float64)


def _lengths_on_host(images: Array | np.ndarray, *, codec: Codec) -> Float[np.ndarray, " n"]:
    return code_lengths(np.asarray(images), codec=codec).astype(np.float32)

"""Image files, by themselves or in zip archives, read with Pillow."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from likejax.data.parts import is_hidden
from likejax.data.readers.files import MAX_BYTES, FileError, Header, named

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the names of image files."""
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Formats that a file may have, whatever its name: some of Pillow's other readers start
programs."""
_ORIENTATION = 0x0112
"""Number of the EXIF tag that says how a picture was turned."""
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "PA": "RGB"}
"""From the modes of Pillow that are read to the mode that they become."""


class Images(NamedTuple):
    """Images of one size, and what was done to get them.

    Attributes:
      array: ``uint8`` values ``(n, height, width, channels)``.
      notes: Notes for the provenance.
    """

    array: UInt8[np.ndarray, "n height width channels"]
    notes: tuple[str, ...]


def read_images(
    files: Iterable[tuple[str, Any]], *, prepare: Callable[[Any], Any] | None = None
) -> Images:
    """Reads image files of one size, turned as their EXIF orientation says.

    Images in black and white become 0 and 255, palettes become RGB. Images with transparent pixels,
    with 16 bits or with the colors of print are refused, because they have no values between 0 and
    255 that everybody agrees on.

    Args:
      files: Pairs of a name for messages and something Pillow can open, or a function that returns
        it.
      prepare: Function from Pillow's image to another, which is done to every image once it is
        gray or RGB; it brings images of several sizes to one.

    Raises:
      FileError: If a file is damaged or refused, or the sizes differ.
    """
    images: list[np.ndarray] = []
    first, turned = "", 0
    for name, source in files:
        array, was_turned = _read_image(name, source, prepare)
        turned += was_turned
        if images and array.shape != images[0].shape:
            raise FileError(
                name,
                f"expected the shape {images[0].shape} of {first}, got {array.shape}; bring all to "
                "one size",
            )
        first = first or name
        images.append(array)
    notes = (f"{turned} images turned as their EXIF orientation says",) if turned else ()
    return Images(np.stack(images), notes)


def image_header(name: str, source: Path | io.BytesIO) -> Header:
    """Reads the shape of an image file, before it is turned.

    Args:
      name: Name for messages.
      source: Anything that Pillow can open.

    Raises:
      FileError: If the file is damaged.
    """
    from PIL import Image

    try:
        with Image.open(source, formats=IMAGE_FORMATS) as image:
            channels = 1 if image.mode in ("1", "L", "LA") else 3
            return Header((image.height, image.width, channels), np.dtype(np.uint8))
    except Exception as error:  # the readers of formats raise many kinds
        raise FileError(name, f"not a readable image: {named(error)}") from error


def _read_image(
    name: str, source: Any, prepare: Callable[[Any], Any] | None
) -> tuple[UInt8[np.ndarray, "height width channels"], bool]:
    """Values of one image file, and whether it was turned."""
    from PIL import Image, ImageOps

    try:
        opened: Any = source() if callable(source) else source
        with warnings.catch_warnings(), Image.open(opened, formats=IMAGE_FORMATS) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if image.mode not in _MODES:
                problem = f"images of mode {image.mode} are not supported; {_advice(image.mode)}"
                raise FileError(name, problem)
            image.load()
            if _is_transparent(image):
                raise FileError(
                    name,
                    "has transparent pixels; put it on a background first, such as white, and save "
                    "it as RGB",
                )
            turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
            upright = ImageOps.exif_transpose(image) if turned else image
            plain = upright.convert(_MODES[image.mode])
            array = np.asarray(plain if prepare is None else prepare(plain))
    except FileError:
        raise
    except Exception as error:  # the readers of formats raise many kinds
        raise FileError(name, f"not a readable image: {named(error)}") from error
    return array[..., None] if array.ndim == 2 else array, turned


def _is_transparent(image: Any) -> bool:
    if "A" not in image.mode and "transparency" not in image.info:
        return False
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    return bool((alpha < 255).any())


def _advice(mode: str) -> str:
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return "convert them to RGB: image.convert('RGB')"
    if mode.startswith(("I", "F")):
        return "save more than 8 bits as an .npy array, and give its levels to Dataset.from_array"
    return "convert them to RGB, or to gray (L)"


def images_in_zip(path: Path) -> list[tuple[str, Callable[[], io.BytesIO]]]:
    """Lists the image files in a zip archive.

    Args:
      path: The archive.

    Returns:
      Name of each image, in their order, and a function that reads it.

    Raises:
      FileError: If the archive is damaged, too large, or holds no image.
    """
    entries = files_in_zip(path, IMAGE_SUFFIXES)
    if not entries:
        raise FileError(path, "holds no image")
    return entries


def files_in_zip(
    path: Path, endings: tuple[str, ...]
) -> list[tuple[str, Callable[[], io.BytesIO]]]:
    """Lists the files of some endings in a zip archive, without those that are hidden.

    Args:
      path: The archive.
      endings: Endings of the names, in small letters.

    Returns:
      Name of each file, in their order, and a function that reads it.

    Raises:
      FileError: If the archive is damaged or too large.
    """
    try:
        archive = zipfile.ZipFile(path)
        entries = [entry for entry in archive.infolist() if _is_one_of(entry.filename, endings)]
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"damaged zip archive: {named(error)}") from error
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise FileError(path, "too large to unpack")
    entries.sort(key=lambda entry: entry.filename)
    return [(entry.filename, partial(_read_entry, path, archive, entry)) for entry in entries]


def _is_one_of(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings) and not is_hidden(name.split("/"))


def _read_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> io.BytesIO:
    try:
        return io.BytesIO(archive.read(entry))
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"damaged zip archive: {named(error)}") from error

"""Readers of single files: bytes in, arrays out, and a clear error for anything that is not what it claims."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from likejax.data.parts import is_hidden
from likejax.data.readers.mat import MatError, array_headers, numeric_arrays

MAX_BYTES = 16 * 2**30
"""Largest array that a file may unpack to; a damaged header or a compression bomb ends here."""

_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What a file's content may be, whatever its name: some of Pillow's other readers start programs."""


class FileError(ValueError):
    """A data file that cannot be read as what it claims to be."""

    def __init__(self, path: Path | str, problem: str):
        told = "".join(
            c if c.isprintable() else "?" for c in problem
        )  # damaged files put anything into messages
        super().__init__(f"{path}: {told if len(told) < 600 else told[:600] + ' ...'}")


class Header(NamedTuple):
    """Shape and type of an array that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype.name if self.dtype.kind != 'U' else 'text'}"


def read_idx(path: Path) -> np.ndarray:
    """An array from an IDX file, plain or gzip-compressed (MNIST's format)."""
    try:
        with _open_idx(path) as file:
            shape, dtype = _idx_header(path, file)
            expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if expected > MAX_BYTES:
                raise FileError(
                    path,
                    f"too large: the header claims an array of shape {shape}, {expected} bytes",
                )
            data = _read(file, expected + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileError(
            path, f"damaged or truncated gzip data ({error}); fetch the file again"
        ) from error
    if len(data) < expected:
        raise FileError(
            path, f"truncated: shape {shape} needs {expected} bytes of data, found {len(data)}"
        )
    if len(data) > expected:
        raise FileError(
            path, f"too long: shape {shape} needs {expected} bytes of data, and more follow"
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def idx_header(path: Path) -> Header:
    """Shape and type of the array in an IDX file."""
    try:
        with _open_idx(path) as file:
            return _idx_header(path, file)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileError(
            path, f"damaged or truncated gzip data ({error}); fetch the file again"
        ) from error


def _open_idx(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _idx_header(path: Path, file: Any) -> Header:
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in _IDX_TYPES:
        raise FileError(
            path, f"expected the magic number of an IDX file, got {header.hex() or 'nothing'}"
        )
    dtype, rank = np.dtype(_IDX_TYPES[header[2]]), header[3]
    sizes = file.read(4 * rank)
    if rank == 0 or len(sizes) < 4 * rank:
        raise FileError(path, "truncated: the IDX header ends early")
    return Header(tuple(int(n) for n in np.frombuffer(sizes, ">u4")), dtype)


def _read(file: Any, count: int) -> bytes:
    """At most ``count`` bytes, in pieces: a header that claims more than there is costs no memory."""
    pieces, left = [], count
    while left and (piece := file.read(min(left, 1 << 24))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_npy(path: Path) -> np.ndarray:
    """A numeric array from a ``.npy`` file; pickled objects are refused."""
    with path.open("rb") as file:
        return _npy_array(path, file, path.stat().st_size)


def npy_header(path: Path) -> Header:
    """Shape and type of the array in a ``.npy`` file."""
    with path.open("rb") as file:
        shape, _, dtype = _npy_header(path, file, "buif")
    return Header(shape, dtype)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by name, of numbers or text; pickled objects are refused."""
    return _each_in_npz(path, lambda file, size: _npy_array(path, file, size, kinds="buifU"))


def npz_headers(path: Path) -> dict[str, Header]:
    """Shape and type of the arrays in a ``.npz`` file."""

    def header(file: Any, size: int) -> Header:
        shape, _, dtype = _npy_header(path, file, "buifU")
        return Header(shape, dtype)

    return _each_in_npz(path, header)


def _each_in_npz(path: Path, read: Callable[[Any, int], Any]) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [
                entry for entry in archive.infolist() if not is_hidden(entry.filename.split("/"))
            ]
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise FileError(
                    path, f"too large: unpacks to {sum(entry.file_size for entry in entries)} bytes"
                )
            arrays = {}
            for entry in entries:
                with archive.open(entry) as file:
                    arrays[entry.filename.removesuffix(".npy")] = read(file, entry.file_size)
            return arrays
    except FileError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"not a readable .npz file: {_named(error)}") from error


def _npy_header(path: Path, file: Any, kinds: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of an open ``.npy`` file."""
    try:
        version = np.lib.format.read_magic(file)
        headers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in headers:
            raise FileError(
                path, f"a .npy file of version {version}, which only structured arrays need"
            )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about damaged text in a header; what is wrong with it is said below
            shape, fortran, dtype = headers[version](file)
        if dtype.kind not in kinds:
            raise FileError(path, f"expected a numeric array, got dtype {dtype}")
        return shape, fortran, dtype
    except FileError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise FileError(path, f"not a readable .npy file: {_named(error)}") from error


def _npy_array(path: Path, file: Any, size: int, *, kinds: str = "buif") -> np.ndarray:
    """The array of an open ``.npy`` file of ``size`` bytes; its header is checked before memory is taken."""
    shape, fortran, dtype = _npy_header(path, file, kinds)
    try:
        expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if any(n < 0 for n in shape) or expected != size - file.tell():
            raise FileError(
                path,
                f"damaged or truncated: shape {shape} of {dtype} needs {expected} bytes, others are there",
            )
        data = _read(file, expected)
        if len(data) < expected:
            raise FileError(
                path,
                f"truncated: shape {shape} of {dtype} needs {expected} bytes, found {len(data)}",
            )
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()
    except FileError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise FileError(path, f"not a readable .npy file: {_named(error)}") from error


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """The numeric arrays of a MATLAB file, version 5."""
    data = path.read_bytes()
    if data[:8] == b"\x89HDF\r\n\x1a\n" or b"MATLAB 7.3" in data[:20]:
        raise FileError(path, "a MATLAB 7.3 file; save it again with -v7 (version 5) or as .npz")
    try:
        arrays = numeric_arrays(data, limit=MAX_BYTES)
    except MatError as error:
        raise FileError(path, f"not a readable MATLAB 5 file: {error}") from error
    if not arrays:
        raise FileError(path, "holds no numeric array")
    return arrays


def mat_headers(path: Path) -> dict[str, Header]:
    """Shape and type of the numeric arrays in a MATLAB file, version 5."""
    with path.open("rb") as file:
        try:
            return {
                name: Header(shape, dtype) for name, (shape, dtype) in array_headers(file).items()
            }
        except MatError as error:
            raise FileError(path, f"not a readable MATLAB 5 file: {error}") from error


def read_cifar_binary(path: Path, *, label_bytes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, 32, 32, 3)`` and labels from a CIFAR binary batch; of two label bytes the last is the fine one."""
    data = path.read_bytes()
    record = label_bytes + 3072
    if not data or len(data) % record:
        raise FileError(
            path,
            f"expected records of {record} bytes, found {len(data)} bytes; truncated or another format",
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, label_bytes - 1].astype(np.int64)


def read_cifar_pickle(
    path: Path, *, sides: tuple[int, ...] = (32,)
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from a CIFAR python batch, by an unpickler that builds only data.

    Args:
      path: The file.
      sides: Heights of the square RGB images that it may hold.

    Returns:
      Images ``(n, side, side, 3)`` and labels ``(n,)``.
    """
    try:
        with path.open("rb") as file:
            batch = _DataUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise FileError(path, f"not a readable CIFAR python batch: {_named(error)}") from error
    if not isinstance(batch, dict):
        raise FileError(path, f"expected a dictionary, got {type(batch).__name__}")
    batch = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    data, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    images = planes_to_images(data, sides) if isinstance(data, np.ndarray) else None
    if images is None:
        columns = " or ".join(str(3 * side**2) for side in sides)
        raise FileError(path, f"expected 'data' to be a uint8 array of {columns} columns")
    if (
        not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(type(label) is int for label in labels)
    ):
        count = f"{len(labels)} of them" if isinstance(labels, list) else type(labels).__name__
        raise FileError(path, f"expected {len(images)} labels, integers in a list, got {count}")
    return images, np.array(labels, np.int64)


def planes_to_images(rows: np.ndarray, sides: tuple[int, ...]) -> np.ndarray | None:
    """Images ``(n, side, side, 3)`` of rows that hold a red, a green and a blue plane; ``None`` if they hold others."""
    for side in sides:
        if rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == 3 * side**2:
            return np.ascontiguousarray(rows.reshape(-1, 3, side, side).transpose(0, 2, 3, 1))
    return None


class _DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers, strings and numeric arrays; every other name in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (
            re.fullmatch(r"numpy\.(_?core)\.(multiarray|_multiarray_umath)", module)
            and name == "_reconstruct"
        ):
            return _new_array
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _numeric_dtype
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(
            f"refused to build {module}.{name}: only arrays and strings may be in it"
        )


def _new_array(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    if kind is not np.ndarray or shape != (0,):  # numpy writes an empty array, whose state follows
        raise pickle.UnpicklingError("refused to build what numpy does not write")
    return np.ndarray.__new__(np.ndarray, shape, "b")


def _numeric_dtype(spec: Any, *rest: Any) -> np.dtype:
    dtype = np.dtype(spec.decode() if isinstance(spec, bytes) else spec)
    if dtype.kind not in "buif":
        raise pickle.UnpicklingError(f"refused an array of dtype {dtype}")
    return dtype


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1", b"latin1"):
        raise pickle.UnpicklingError(f"refused the encoding {encoding!r}")
    return text.encode("latin1")


class Images(NamedTuple):
    """A ``uint8`` array ``(n, height, width, channels)``, and what was done to get it."""

    array: np.ndarray
    notes: tuple[str, ...]


def read_images(files: Iterable[tuple[str, Any]]) -> Images:
    """Image files of one size, turned as their EXIF orientation says.

    Args:
      files: Pairs of a name for messages and something Pillow can open, or a function that returns it. Images in
        black and white become 0 and 255, palettes become RGB. Images with transparent pixels, with 16 bits or with
        the colors of print are refused, because they have no values between 0 and 255 that everybody agrees on.
    """
    images, first, turned = [], "", 0
    for name, source in files:
        array, was_turned = _image(name, source)
        turned += was_turned
        if images and array.shape != images[0].shape:
            raise FileError(
                name,
                f"expected the shape {images[0].shape} of {first}, got {array.shape}; bring all to one size",
            )
        first = first or name
        images.append(array)
    notes = (f"{turned} images turned as their EXIF orientation says",) if turned else ()
    return Images(np.stack(images), notes)


def image_header(name: str, source: Any) -> Header:
    """Shape of an image file, before it is turned."""
    from PIL import Image

    try:
        with Image.open(source, formats=IMAGE_FORMATS) as image:
            channels = 1 if image.mode in ("1", "L", "LA") else 3
            return Header((image.height, image.width, channels), np.dtype(np.uint8))
    except Exception as error:  # the readers of formats raise many kinds
        raise FileError(name, f"not a readable image: {_named(error)}") from error


_ORIENTATION = 0x0112
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "PA": "RGB"}
"""Modes of Pillow that are read, and as what."""


def _image(name: str, source: Any) -> tuple[np.ndarray, bool]:
    """Values of one image file ``(height, width, channels)``, and whether it was turned."""
    from PIL import Image, ImageOps

    try:
        source = source() if callable(source) else source
        with warnings.catch_warnings(), Image.open(source, formats=IMAGE_FORMATS) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if image.mode not in _MODES:
                raise FileError(
                    name, f"images of mode {image.mode} are not supported; {_advice(image.mode)}"
                )
            image.load()
            if _is_transparent(image):
                raise FileError(
                    name,
                    "has transparent pixels; put it on a background first, such as white, and save it as RGB",
                )
            turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
            upright = ImageOps.exif_transpose(image) if turned else image
            array = np.asarray(upright.convert(_MODES[image.mode]))
    except FileError:
        raise
    except Exception as error:  # the readers of formats raise many kinds
        raise FileError(name, f"not a readable image: {_named(error)}") from error
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
    """Name of every image file in a zip archive, in their order, and a function that reads it."""
    try:
        archive = zipfile.ZipFile(path)
        entries = [
            entry for entry in archive.infolist() if entry.filename.lower().endswith(IMAGE_SUFFIXES)
        ]
        entries = [entry for entry in entries if not is_hidden(entry.filename.split("/"))]
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"damaged zip archive: {_named(error)}") from error
    if not entries:
        raise FileError(path, "holds no image")
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise FileError(path, "too large to unpack")
    entries.sort(key=lambda entry: entry.filename)
    return [(entry.filename, partial(_zip_entry, path, archive, entry)) for entry in entries]


def _zip_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> io.BytesIO:
    try:
        return io.BytesIO(archive.read(entry))
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"damaged zip archive: {_named(error)}") from error

"""Readers of single files: bytes in, arrays out, and a clear error for anything that is not what it claims."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from likejax.data.mat import MatError, numeric_arrays

MAX_BYTES = 16 * 2**30
"""Largest array that a file may unpack to; a damaged header or a compression bomb ends here."""

_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What a file's content may be, whatever its name: some of Pillow's other readers start programs."""


class FileError(ValueError):
    """A data file that cannot be read as what it claims to be."""

    def __init__(self, path: Path | str, problem: str):
        told = "".join(c if c.isprintable() else "?" for c in problem)  # damaged files put anything into messages
        super().__init__(f"{path}: {told if len(told) < 600 else told[:600] + ' ...'}")


def read_idx(path: Path) -> np.ndarray:
    """An array from an IDX file, plain or gzip-compressed (MNIST's format)."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4)
            if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in _IDX_TYPES:
                raise FileError(path, f"expected the magic number of an IDX file, got {header.hex() or 'nothing'}")
            dtype, rank = np.dtype(_IDX_TYPES[header[2]]), header[3]
            sizes = file.read(4 * rank)
            if rank == 0 or len(sizes) < 4 * rank:
                raise FileError(path, "truncated: the IDX header ends early")
            shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
            expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if expected > MAX_BYTES:
                raise FileError(path, f"too large: the header claims an array of shape {shape}, {expected} bytes")
            data = _read(file, expected + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileError(path, f"damaged or truncated gzip data ({error}); fetch the file again") from error
    if len(data) < expected:
        raise FileError(path, f"truncated: shape {shape} needs {expected} bytes of data, found {len(data)}")
    if len(data) > expected:
        raise FileError(path, f"too long: shape {shape} needs {expected} bytes of data, and more follow")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read(file: Any, count: int) -> bytes:
    """At most ``count`` bytes, in pieces: a header that claims more than there is costs no memory."""
    pieces, left = [], count
    while left and (piece := file.read(min(left, 1 << 24))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_npy(path: Path) -> np.ndarray:
    """An array from a ``.npy`` file; pickled objects are refused."""
    with path.open("rb") as file:
        return _npy_array(path, file, path.stat().st_size)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by name; pickled objects are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise FileError(path, f"too large: unpacks to {sum(entry.file_size for entry in entries)} bytes")
            arrays = {}
            for entry in entries:
                with archive.open(entry) as file:
                    arrays[entry.filename.removesuffix(".npy")] = _npy_array(path, file, entry.file_size)
            return arrays
    except FileError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"not a readable .npz file: {_named(error)}") from error


def _npy_array(path: Path, file: Any, size: int) -> np.ndarray:
    """The numeric array of an open ``.npy`` file of ``size`` bytes; its header is checked before memory is taken."""
    try:
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in headers:
            raise FileError(path, f"a .npy file of version {version}, which only structured arrays need")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged text in a header; what is wrong with it is said below
            shape, fortran, dtype = headers[version](file)
        if dtype.kind not in "buif":
            raise FileError(path, f"expected a numeric array, got dtype {dtype}")
        expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if any(n < 0 for n in shape) or expected != size - file.tell():
            raise FileError(
                path, f"damaged or truncated: shape {shape} of {dtype} needs {expected} bytes, others are there"
            )
        data = _read(file, expected)
        if len(data) < expected:
            raise FileError(path, f"truncated: shape {shape} of {dtype} needs {expected} bytes, found {len(data)}")
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


def read_cifar_binary(path: Path, *, label_bytes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, 32, 32, 3)`` and labels from a CIFAR binary batch; of two label bytes the last is the fine one."""
    data = path.read_bytes()
    record = label_bytes + 3072
    if not data or len(data) % record:
        raise FileError(
            path, f"expected records of {record} bytes, found {len(data)} bytes; truncated or another format"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, label_bytes - 1].astype(np.int64)


def read_cifar_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, 32, 32, 3)`` and labels from a CIFAR python batch, by an unpickler that builds only data."""
    try:
        with path.open("rb") as file:
            batch = _DataUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise FileError(path, f"not a readable CIFAR python batch: {_named(error)}") from error
    if not isinstance(batch, dict):
        raise FileError(path, f"expected a dictionary, got {type(batch).__name__}")
    batch = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    data, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise FileError(path, "expected 'data' to be a uint8 array of 3072 columns")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(type(label) is int for label in labels):
        count = f"{len(labels)} of them" if isinstance(labels, list) else type(labels).__name__
        raise FileError(path, f"expected {len(data)} labels, integers in a list, got {count}")
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), np.array(labels, np.int64)


class _DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers, strings and numeric arrays; every other name in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(r"numpy\.(_?core)\.(multiarray|_multiarray_umath)", module) and name == "_reconstruct":
            return _new_array
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _numeric_dtype
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"refused to build {module}.{name}: only arrays and strings may be in it")


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


def read_images(files: Iterable[tuple[str, Any]]) -> np.ndarray:
    """A ``uint8`` array ``(n, height, width, channels)`` of image files of one size.

    Args:
      files: Pairs of a name for messages and something Pillow can open. Images in black and white or with 16
        bits are not silently converted: modes 1, L, P, RGB and RGBA are taken (1 as 0/255, P and RGBA as RGB).
    """
    from PIL import Image

    images, first = [], ""
    for name, source in files:
        try:
            with warnings.catch_warnings(), Image.open(source, formats=IMAGE_FORMATS) as image:
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
                    raise FileError(name, f"images of mode {image.mode} are not supported; convert to 8 bits")
                mode = "L" if image.mode in ("1", "L") else "RGB"
                array = np.asarray(image.convert(mode))
        except FileError:
            raise
        except Exception as error:  # the readers of formats raise many kinds
            raise FileError(name, f"not a readable image: {_named(error)}") from error
        array = array[..., None] if array.ndim == 2 else array
        if images and array.shape != images[0].shape:
            raise FileError(
                name, f"expected the shape {images[0].shape} of {first}, got {array.shape}; bring all to one size"
            )
        first = first or name
        images.append(array)
    return np.stack(images)


def images_in_zip(path: Path) -> Iterator[tuple[str, io.BytesIO]]:
    """Name and bytes of every image file in a zip archive, in the order of their names."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(IMAGE_SUFFIXES)]
            if not entries:
                raise FileError(path, "holds no image")
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise FileError(path, "too large to unpack")
            for entry in sorted(entries, key=lambda entry: entry.filename):
                yield f"{path}:{entry.filename!r}", io.BytesIO(archive.read(entry))
    except FileError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"damaged zip archive: {_named(error)}") from error

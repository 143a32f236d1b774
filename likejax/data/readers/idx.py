"""IDX files, plain or gzip-compressed: the format of MNIST."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from likejax.data.readers.files import MAX_BYTES, BinaryFile, FileError, Header, read_at_most

_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_DAMAGED = (gzip.BadGzipFile, zlib.error, EOFError)


def read_idx(path: Path) -> Num[np.ndarray, "..."]:
    """Reads the array of an IDX file.

    Args:
      path: The file; ``.gz`` at its end means that it is compressed.

    Raises:
      FileError: If it is damaged or another format.
    """
    try:
        with _open(path) as file:
            shape, dtype = _header(path, file)
            expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if expected > MAX_BYTES:
                claim = f"an array of shape {shape}, {expected} bytes"
                raise FileError(path, f"too large: the header claims {claim}")
            data = read_at_most(file, expected + 1)
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    needed = f"shape {shape} needs {expected} bytes of data"
    if len(data) < expected:
        raise FileError(path, f"truncated: {needed}, found {len(data)}")
    if len(data) > expected:
        raise FileError(path, f"too long: {needed}, and more follow")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def idx_header(path: Path) -> Header:
    """Reads shape and type of the array in an IDX file.

    Args:
      path: The file.

    Raises:
      FileError: If it is damaged or another format.
    """
    try:
        with _open(path) as file:
            return _header(path, file)
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _open(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _header(path: Path, file: BinaryFile) -> Header:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        found = magic.hex() or "nothing"
        raise FileError(path, f"expected the magic number of an IDX file, got {found}")
    dtype, rank = np.dtype(_TYPES[magic[2]]), magic[3]
    sizes = file.read(4 * rank)
    if rank == 0 or len(sizes) < 4 * rank:
        raise FileError(path, "truncated: the IDX header ends early")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    return Header(shape, dtype)


def _damaged(path: Path, error: Exception) -> FileError:
    return FileError(path, f"damaged or truncated gzip data ({error}); fetch the file again")

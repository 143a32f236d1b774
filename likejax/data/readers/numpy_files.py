"""numpy's files, ``.npy`` and ``.npz``, without pickled objects.

``numpy.load`` takes the memory that a header claims before it looks whether the file has so much,
so the header is read first and compared with the size of the file.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped

from likejax.data.parts import is_hidden
from likejax.data.readers.files import MAX_BYTES, BinaryFile, FileError, Header, named, read_at_most

_NUMBERS = "buif"
_NUMBERS_AND_TEXT = "buifU"
_HEADERS: dict[tuple[int, int], Callable[[Any], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
Result = TypeVar("Result")


def read_npy(path: Path) -> Shaped[np.ndarray, "..."]:
    """Reads the array of numbers in a ``.npy`` file.

    Args:
      path: The file.

    Raises:
      FileError: If it is damaged, or holds something else.
    """
    with path.open("rb") as file:
        return _array(path, file, path.stat().st_size, kinds=_NUMBERS)


def npy_header(path: Path) -> Header:
    """Reads shape and type of the array in a ``.npy`` file.

    Args:
      path: The file.

    Raises:
      FileError: If it is damaged, or holds something else.
    """
    with path.open("rb") as file:
        shape, _, dtype = _header(path, file, _NUMBERS)
    return Header(shape, dtype)


def read_npz(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the arrays of a ``.npz`` file, of numbers or text.

    Args:
      path: The file.

    Returns:
      Arrays by name.

    Raises:
      FileError: If it is damaged, too large, or holds something else.
    """

    def array(file: BinaryFile, size: int) -> np.ndarray:
        return _array(path, file, size, kinds=_NUMBERS_AND_TEXT)

    return _each_in_npz(path, array)


def npz_headers(path: Path) -> dict[str, Header]:
    """Reads shape and type of the arrays in a ``.npz`` file.

    Args:
      path: The file.

    Returns:
      Headers by name.

    Raises:
      FileError: If it is damaged, too large, or holds something else.
    """

    def header(file: BinaryFile, size: int) -> Header:
        shape, _, dtype = _header(path, file, _NUMBERS_AND_TEXT)
        return Header(shape, dtype)

    return _each_in_npz(path, header)


def _each_in_npz(path: Path, read: Callable[[BinaryFile, int], Result]) -> dict[str, Result]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [
                entry for entry in archive.infolist() if not is_hidden(entry.filename.split("/"))
            ]
            size = sum(entry.file_size for entry in entries)
            if size > MAX_BYTES:
                raise FileError(path, f"too large: unpacks to {size} bytes")
            found = {}
            for entry in entries:
                with archive.open(entry) as file:
                    found[entry.filename.removesuffix(".npy")] = read(file, entry.file_size)
            return found
    except FileError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise FileError(path, f"not a readable .npz file: {named(error)}") from error


def _header(path: Path, file: BinaryFile, kinds: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of an open ``.npy`` file."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            problem = f"a .npy file of version {version}, which only structured arrays need"
            raise FileError(path, problem)
        with warnings.catch_warnings():
            # numpy warns about damaged text in a header; what is wrong with it is said below
            warnings.simplefilter("ignore")
            shape, is_fortran, dtype = _HEADERS[version](file)
        if dtype.kind not in kinds:
            raise FileError(path, f"expected a numeric array, got dtype {dtype}")
        return shape, is_fortran, dtype
    except FileError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise FileError(path, f"not a readable .npy file: {named(error)}") from error


def _array(path: Path, file: BinaryFile, size: int, *, kinds: str) -> np.ndarray:
    """The array of an open ``.npy`` file of ``size`` bytes; memory is taken after the checks."""
    shape, is_fortran, dtype = _header(path, file, kinds)
    try:
        expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
        needed = f"shape {shape} of {dtype} needs {expected} bytes"
        if any(n < 0 for n in shape) or expected != size - file.tell():
            raise FileError(path, f"damaged or truncated: {needed}, others are there")
        data = read_at_most(file, expected)
        if len(data) < expected:
            raise FileError(path, f"truncated: {needed}, found {len(data)}")
        order = "F" if is_fortran else "C"
        return np.frombuffer(data, dtype).reshape(shape, order=order).copy()
    except FileError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise FileError(path, f"not a readable .npy file: {named(error)}") from error

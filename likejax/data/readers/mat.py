"""MATLAB 5 files: their numeric arrays, and nothing else of them.

``scipy.io.loadmat`` reads far more of the format. On some damaged files (a few in a thousand) it
ends the interpreter with a segmentation fault, which no caller can catch, so it is not used here;
the tests compare the two on whole files.

A file is a header of 128 bytes and a row of elements. An element has a tag, its type and its size
in bytes, and content that is padded to a multiple of eight bytes; an element of at most four bytes
keeps size, type and content in one tag. A matrix is an element of elements: flags, dimensions, name
and values.

References:
  The MathWorks, MAT-File Format, level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from likejax.data.readers.files import MAX_BYTES, BinaryFile, FileError, Header

_MATRIX, _COMPRESSED = 14, 15
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
"""Type of data as stored, and as returned: MATLAB takes the smallest that holds the values."""
_NUMERIC = range(6, 16)
"""Classes of numeric arrays; others (cells, structures, text, sparse) are passed over."""
_PEEK = 4096
"""Bytes of a variable that hold its flags, dimensions and name."""
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_HEADER = 128
_NO_HEADER = "the header of a MATLAB 5 file is missing"


class MatError(Exception):
    """Bytes that are not what the format says."""


def read_mat(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the numeric arrays of a MATLAB file, version 5.

    Args:
      path: The file.

    Returns:
      Arrays by name.

    Raises:
      FileError: If the file is damaged, of another version, or holds no numeric array.
    """
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
    """Reads shape and type of the numeric arrays in a MATLAB file, version 5, without their values.

    Args:
      path: The file.

    Returns:
      Headers by name.

    Raises:
      FileError: If the file is damaged or of another version.
    """
    with path.open("rb") as file:
        try:
            return array_headers(file)
        except MatError as error:
            raise FileError(path, f"not a readable MATLAB 5 file: {error}") from error


def numeric_arrays(data: bytes, *, limit: int) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Finds the real numeric and logical arrays in the bytes of a file.

    Args:
      data: The whole file.
      limit: Most bytes that a compressed variable may unpack to.

    Returns:
      Arrays by name.

    Raises:
      MatError: If the bytes are not what the format says.
    """
    order = _byte_order(data[:_HEADER])
    arrays = {}
    for kind, content in _elements(memoryview(data)[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = memoryview(_unpacked(content, limit))
            element = next(_elements(unpacked, order), None)
            if element is None:
                raise MatError("a compressed variable that is empty")
            kind, content = element
        if kind != _MATRIX:
            continue
        matrix = _matrix(content, order)
        if matrix is not None:
            name, array = matrix
            arrays[name] = array
    return arrays


def array_headers(file: BinaryFile) -> dict[str, Header]:
    """Finds shape and stored type of the numeric arrays of an open file, without their values.

    Args:
      file: The file, at its beginning.

    Returns:
      Headers by name.

    Raises:
      MatError: If the bytes are not what the format says.
    """
    order = _byte_order(file.read(_HEADER))
    found = {}
    while len(tag := file.read(8)) == 8:
        kind, size = struct.unpack(order + "II", tag)
        begin = file.tell()
        content = file.read(min(size, _PEEK))
        if kind == _COMPRESSED:
            try:
                content = zlib.decompressobj().decompress(content, _PEEK)
            except zlib.error as error:
                raise MatError(f"damaged compressed variable ({error})") from error
            if len(content) < 8:
                raise MatError("a compressed variable that is empty")
            (kind,) = struct.unpack_from(order + "I", content)
            content = content[8:]
        matrix = _matrix_header(content, order) if kind == _MATRIX else None
        if matrix is not None:
            name, header = matrix
            found[name] = header
        file.seek(begin + size)
    return found


def _byte_order(header: bytes) -> str:
    """Byte order of a file, as ``struct`` writes it, from its last two bytes of header."""
    marks = {b"IM": "<", b"MI": ">"}
    if len(header) < _HEADER or header[126:128] not in marks:
        raise MatError(_NO_HEADER)
    return marks[header[126:128]]


def _matrix_header(content: bytes, order: str) -> tuple[str, Header] | None:
    """Name and header of a matrix element that is cut off; ``None`` for another class."""
    parts = []
    place = 0
    for _ in range(3):  # flags, dimensions, name
        if len(content) - place < 8:
            raise MatError("truncated: a matrix without flags, dimensions or name")
        first, size = struct.unpack_from(order + "II", content, place)
        begin = place + 8
        after = begin + _padded(size)
        if first >> 16:  # a small element
            size = first >> 16
            begin = place + 4
            after = place + 8
        parts.append(content[begin : begin + size])
        place = after
    flags, dimensions, name = parts
    if len(flags) < 4 or len(dimensions) % 4 or len(content) - place < 4:
        raise MatError("a matrix with damaged flags or dimensions")
    (bits,) = struct.unpack_from(order + "I", flags)
    (stored,) = struct.unpack_from(order + "I", content, place)
    if stored >> 16:  # the values are a small element
        stored &= 0xFFFF
    if not _is_real(bits) or stored not in _STORED:
        return None
    dtype = np.dtype(bool) if bits & _LOGICAL else np.dtype(_STORED[stored])
    return name.decode("latin1"), Header(_shape(dimensions, order), dtype)


def _is_real(bits: int) -> bool:
    """Whether the flags of a matrix are those of a real numeric array."""
    return bits & 0xFF in _NUMERIC and not bits & _COMPLEX


def _shape(dimensions: bytes | memoryview, order: str) -> tuple[int, ...]:
    return struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)


def _padded(size: int) -> int:
    """The next multiple of eight."""
    return -(-size // 8) * 8


def _unpacked(content: memoryview, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(content, limit)
    except zlib.error as error:
        raise MatError(f"damaged compressed variable ({error})") from error
    if not unpacker.eof:
        raise MatError(f"a compressed variable is truncated, or unpacks to more than {limit} bytes")
    return data


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of every element in a row; compressed ones are not padded."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise MatError("truncated: an element has no tag")
        first, size = struct.unpack_from(order + "II", data, place)
        if (
            first >> 16
        ):  # a small element: size and type in four bytes, the content in the next four
            kind = first & 0xFFFF
            size = first >> 16
            begin = place + 4
            after = place + 8
            if size > 4:
                raise MatError(f"a small element claims {size} bytes")
        else:
            kind = first
            begin = place + 8
            after = begin + (size if kind == _COMPRESSED else _padded(size))
        if begin + size > len(data):
            raise MatError(f"truncated: an element of {size} bytes, {len(data) - begin} are left")
        yield kind, data[begin : begin + size]
        place = after


def _matrix(content: memoryview, order: str) -> tuple[str, np.ndarray] | None:
    """Name and array of a matrix element, or ``None`` if it is of another class."""
    elements = _elements(content, order)
    parts = []
    for _ in range(3):
        element = next(elements, None)
        if element is None:
            raise MatError("truncated: a matrix without flags, dimensions or name")
        parts.append(element[1])
    flags, dimensions, name = parts
    if len(flags) < 4 or len(dimensions) % 4 or len(dimensions) < 8:
        raise MatError("a matrix with damaged flags or dimensions")
    (bits,) = struct.unpack_from(order + "I", flags)
    if not _is_real(bits):
        return None
    element = next(elements, None)
    if element is None or element[0] not in _STORED:
        raise MatError("a numeric matrix without numeric data")
    kind, values = element
    stored = np.dtype(order + _STORED[kind])
    shape = _shape(dimensions, order)
    if min(shape) < 0 or math.prod(shape) * stored.itemsize != len(values):
        raise MatError(f"a matrix of shape {shape} with {len(values)} bytes of {stored.name}")
    array = np.frombuffer(values, stored).reshape(shape, order="F")
    dtype = np.dtype(bool) if bits & _LOGICAL else stored.newbyteorder("=")
    return bytes(name).decode("latin1"), np.ascontiguousarray(array.astype(dtype))

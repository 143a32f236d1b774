"""The numeric arrays of a MATLAB 5 file, and nothing else of it.

scipy reads far more of the format, and crashes the interpreter on damaged files.

References:
  The MathWorks, MAT-File Format, level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

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


class MatError(Exception):
    """What is wrong with the bytes."""


def numeric_arrays(data: bytes, *, limit: int) -> dict[str, np.ndarray]:
    """Real numeric and logical arrays by name.

    Args:
      data: The whole file.
      limit: Most bytes that a compressed variable may unpack to.

    Raises:
      MatError: If the bytes are not what the format says.
    """
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise MatError("the header of a MATLAB 5 file is missing")
    order = "<" if data[126:128] == b"IM" else ">"
    arrays = {}
    for kind, content in _elements(memoryview(data)[128:], order):
        if kind == _COMPRESSED:
            content = memoryview(_unpacked(content, limit))
            if (element := next(_elements(content, order), None)) is None:
                raise MatError("a compressed variable that is empty")
            kind, content = element
        if kind == _MATRIX and (found := _matrix(content, order)) is not None:
            arrays[found[0]] = found[1]
    return arrays


def array_headers(file: BinaryIO) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and stored type of the numeric arrays of an open file, without reading their values.

    Raises:
      MatError: If the bytes are not what the format says.
    """
    header = file.read(128)
    if len(header) < 128 or header[126:128] not in (b"IM", b"MI"):
        raise MatError("the header of a MATLAB 5 file is missing")
    order = "<" if header[126:128] == b"IM" else ">"
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
            kind, content = struct.unpack_from(order + "I", content)[0], content[8:]
        if kind == _MATRIX and (matrix := _matrix_header(content, order)) is not None:
            found[matrix[0]] = matrix[1:]
        file.seek(begin + size)
    return found


def _matrix_header(content: bytes, order: str) -> tuple[str, tuple[int, ...], np.dtype] | None:
    """Name, shape and stored type of a matrix element that is cut off, or ``None`` if it is of another class."""
    parts, place = [], 0
    for _ in range(3):
        if len(content) - place < 8:
            raise MatError("truncated: a matrix without flags, dimensions or name")
        first, size = struct.unpack_from(order + "II", content, place)
        begin = place + 8
        if first >> 16:
            size, begin = first >> 16, place + 4
        parts.append(content[begin : begin + size])
        place = place + 8 if first >> 16 else begin + -(-size // 8) * 8
    flags, dimensions, name = parts
    if len(flags) < 4 or len(dimensions) % 4 or len(content) - place < 4:
        raise MatError("a matrix with damaged flags or dimensions")
    (bits,) = struct.unpack_from(order + "I", flags)
    (stored,) = struct.unpack_from(order + "I", content, place)
    stored = stored & 0xFFFF if stored >> 16 else stored
    if bits & 0xFF not in _NUMERIC or bits & _COMPLEX or stored not in _STORED:
        return None
    dtype = np.dtype(bool) if bits & _LOGICAL else np.dtype(_STORED[stored])
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    return name.decode("latin1"), shape, dtype


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
    """Type and content of every element in a row; each begins on a multiple of eight bytes, compressed ones apart."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise MatError("truncated: an element has no tag")
        first, size = struct.unpack_from(order + "II", data, place)
        if (
            first >> 16
        ):  # a small element: size and type in four bytes, the content in the next four
            kind, size, begin = first & 0xFFFF, first >> 16, place + 4
            after = place + 8
            if size > 4:
                raise MatError(f"a small element claims {size} bytes")
        else:
            kind, begin = first, place + 8
            after = begin + size if kind == _COMPRESSED else begin + -(-size // 8) * 8
        if begin + size > len(data):
            raise MatError(f"truncated: an element of {size} bytes, {len(data) - begin} are left")
        yield kind, data[begin : begin + size]
        place = after


def _matrix(content: memoryview, order: str) -> tuple[str, np.ndarray] | None:
    """Name and array of a matrix element, or ``None`` if it is of another class."""
    elements = _elements(content, order)
    parts = []
    for _ in range(3):
        if (element := next(elements, None)) is None:
            raise MatError("truncated: a matrix without flags, dimensions or name")
        parts.append(element[1])
    flags, dimensions, name = parts
    if len(flags) < 4 or len(dimensions) % 4 or len(dimensions) < 8:
        raise MatError("a matrix with damaged flags or dimensions")
    (bits,) = struct.unpack_from(order + "I", flags)
    if bits & 0xFF not in _NUMERIC or bits & _COMPLEX:
        return None
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if (element := next(elements, None)) is None or element[0] not in _STORED:
        raise MatError("a numeric matrix without numeric data")
    stored = np.dtype(order + _STORED[element[0]])
    if min(shape) < 0 or math.prod(shape) * stored.itemsize != len(element[1]):
        raise MatError(f"a matrix of shape {shape} with {len(element[1])} bytes of {stored.name}")
    array = np.frombuffer(element[1], stored).reshape(shape, order="F")
    dtype = np.dtype(bool) if bits & _LOGICAL else stored.newbyteorder("=")
    return bytes(name).decode("latin1"), np.ascontiguousarray(array.astype(dtype))

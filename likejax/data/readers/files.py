"""Parts that all readers share: the error of a file, the header of an array, the limit on sizes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

MAX_BYTES = 16 * 2**30
"""Largest array that a file may unpack to; a damaged header or a compression bomb ends here."""
_LONGEST = 600
"""Most characters of a message: damaged files put anything into it."""
_PIECE = 1 << 24


@runtime_checkable
class BinaryFile(Protocol):
    """An open file of bytes, on disk or in an archive."""

    def read(self, size: int = -1, /) -> bytes:
        """Reads at most so many bytes; all that are left if negative.

        Args:
          size: Largest number of bytes.
        """
        ...

    def seek(self, offset: int, /) -> int:
        """Moves to a position, counted from the beginning.

        Args:
          offset: Number of bytes from the beginning.

        Returns:
          The new position.
        """
        ...

    def tell(self) -> int:
        """Returns the position."""
        ...


class FileError(ValueError):
    """A data file that cannot be read as what it claims to be.

    Args:
      path: The file or folder, or its name.
      problem: Description of the problem, and how to fix it.
    """

    def __init__(self, path: Path | str, problem: str):
        printable = "".join(c if c.isprintable() else "?" for c in problem)
        if len(printable) >= _LONGEST:
            printable = printable[:_LONGEST] + " ..."
        super().__init__(f"{path}: {printable}")


class Header(NamedTuple):
    """Shape and type of an array that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        kind = "text" if self.dtype.kind == "U" else self.dtype.name
        return f"{self.shape} {kind}"


def read_at_most(file: BinaryFile, count: int) -> bytes:
    """Reads in pieces, so that a header that claims more than there is costs no memory.

    Args:
      file: An open file.
      count: Most bytes to read.
    """
    pieces = []
    left = count
    while left and (piece := file.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def named(error: Exception) -> str:
    """The kind of an error and the beginning of its message.

    Args:
      error: Error of a library that reads files.
    """
    return f"{type(error).__name__}: {str(error)[:200]}"

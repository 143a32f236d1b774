"""Batches of CIFAR, binary or pickled, and of the downsampled ImageNet, which has their form."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from likejax.data.readers.files import FileError, named

Images = UInt8[np.ndarray, "n side side 3"]
Labels = Int[np.ndarray, " n"]
_PIXELS = 3 * 32**2


def read_cifar_binary(path: Path, *, label_bytes: int = 1) -> tuple[Images, Labels]:
    """Reads a binary batch of CIFAR.

    Args:
      path: The file.
      label_bytes: Bytes before each image: 1 for CIFAR-10; 2 for CIFAR-100, the last of which is
        the fine label.

    Returns:
      Images ``(n, 32, 32, 3)`` and labels ``(n,)``.

    Raises:
      FileError: If the file is not made of such records.
    """
    data = path.read_bytes()
    record = label_bytes + _PIXELS
    if not data or len(data) % record:
        raise FileError(
            path,
            f"expected records of {record} bytes, found {len(data)} bytes; truncated or another "
            "format",
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    planes = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return images, rows[:, label_bytes - 1].astype(np.int64)


def read_cifar_pickle(path: Path, *, sides: tuple[int, ...] = (32,)) -> tuple[Images, Labels]:
    """Reads a pickled batch of CIFAR, by an unpickler that builds only data.

    Args:
      path: The file.
      sides: Heights of the square RGB images that it may hold.

    Returns:
      Images ``(n, side, side, 3)`` and labels ``(n,)``.

    Raises:
      FileError: If the file is damaged, holds something else, or asks for code to be run.
    """
    try:
        with path.open("rb") as file:
            batch = _DataUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise FileError(path, f"not a readable CIFAR python batch: {named(error)}") from error
    if not isinstance(batch, dict):
        raise FileError(path, f"expected a dictionary, got {type(batch).__name__}")
    fields = {_text(name): value for name, value in batch.items()}
    data = fields.get("data")
    images = planes_to_images(data, sides) if isinstance(data, np.ndarray) else None
    if images is None:
        columns = " or ".join(str(3 * side**2) for side in sides)
        raise FileError(path, f"expected 'data' to be a uint8 array of {columns} columns")
    labels = fields.get("fine_labels", fields.get("labels"))
    if not _are_labels(labels, len(images)):
        found = f"{len(labels)} of them" if isinstance(labels, list) else type(labels).__name__
        raise FileError(path, f"expected {len(images)} labels, integers in a list, got {found}")
    return images, np.array(labels, np.int64)


def _text(name: object) -> object:
    return name.decode("latin1") if isinstance(name, bytes) else name


def _are_labels(labels: object, count: int) -> bool:
    if not isinstance(labels, list) or len(labels) != count:
        return False
    return all(type(label) is int for label in labels)


def planes_to_images(rows: np.ndarray, sides: tuple[int, ...]) -> Images | None:
    """Turns rows that hold a red, a green and a blue plane into images.

    Args:
      rows: Array ``(n, 3 side side)`` of ``uint8``.
      sides: Sides that the images may have.

    Returns:
      Images ``(n, side, side, 3)``; ``None`` if the rows are something else.
    """
    if rows.dtype != np.uint8 or rows.ndim != 2:
        return None
    for side in sides:
        if rows.shape[1] == 3 * side**2:
            planes = rows.reshape(-1, 3, side, side)
            return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return None


class _DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers, strings and numeric arrays, and refuses all other names."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the object of a name: a careful version of those that numpy pickles by."""
        array_module = re.fullmatch(r"numpy\.(_?core)\.(multiarray|_multiarray_umath)", module)
        if array_module and name == "_reconstruct":
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


def _numeric_dtype(spec: str | bytes, *rest: object) -> np.dtype:
    dtype = np.dtype(spec.decode() if isinstance(spec, bytes) else spec)
    if dtype.kind not in "buif":
        raise pickle.UnpicklingError(f"refused an array of dtype {dtype}")
    return dtype


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1", b"latin1"):
        raise pickle.UnpicklingError(f"refused the encoding {encoding!r}")
    return text.encode("latin1")

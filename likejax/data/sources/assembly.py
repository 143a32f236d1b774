"""Raw parts as datasets that agree in shape, type, levels and the numbering of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from likejax.data.arrays import as_numbers
from likejax.data.dataset import Dataset
from likejax.data.parts import Raw
from likejax.data.readers.files import FileError
from likejax.data.sources.known import known

Arrays = dict[str, np.ndarray]
Notes = tuple[str, ...]


def assembled(place: Path, name: str, parts: Mapping[str, Raw]) -> dict[str, Dataset]:
    """Makes datasets of the parts of a source.

    Args:
      place: File or folder, for messages.
      name: Name of the dataset.
      parts: Raw examples and labels of each part.

    Returns:
      Datasets by part; what names no part has the key ``WHOLE``.

    Raises:
      FileError: If the parts do not agree, or an array is not a dataset.
    """
    _check_shapes(place, parts)
    examples = _of_one_kind(place, parts)
    examples, turned = _channels_last(examples)
    levels, notes = _levels(examples)
    try:
        classes = known(name).classes({part: raw.labels for part, raw in parts.items()})
    except ValueError as error:
        raise FileError(place, str(error)) from error
    made = {}
    for part, raw in parts.items():
        split = part or known(name).whole
        title = f"part {part}" if part else "which name no parts"
        try:
            (array, _, found), own_levels = as_numbers(examples[part], levels=levels)
            dataset = Dataset.from_array(
                array,
                levels=own_levels,
                labels=classes.labels[part],
                class_names=classes.names,
                conditions=raw.conditions,
                name=name,
                split=split or "train",
                provenance=[f"files of {name}, {title}", *raw.notes, *turned, *notes, *found],
            )
        except (TypeError, ValueError) as error:
            raise FileError(place, f"{title}: {error}") from error
        provenance = (*dataset.provenance, *classes.notes)
        described = dataclasses.replace(dataset, columns=raw.columns, provenance=provenance)
        made[split] = known(name).adjust(described)
    return _of_one_type(made)


def _check_shapes(place: Path, parts: Mapping[str, Raw]) -> None:
    shapes = {part: raw.examples.shape[1:] for part, raw in parts.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
        raise FileError(place, f"expected examples of one shape in all parts, got {found}")
    conditions = [raw.conditions for raw in parts.values() if raw.conditions is not None]
    if conditions and len(conditions) < len(parts):
        raise FileError(place, "expected conditions in all parts, or in none")
    if len({each.shape[1:] for each in conditions}) > 1:
        raise FileError(place, "expected conditions of one shape in all parts")
    columns = {raw.columns for raw in parts.values()}
    if len(columns) > 1:
        raise FileError(
            place, "expected the same columns in all parts, in the same order; the headers differ"
        )


def _of_one_kind(place: Path, parts: Mapping[str, Raw]) -> Arrays:
    """Examples of all parts in one type; images are integers in all parts or floats in all."""
    dtypes = {part: raw.examples.dtype for part, raw in parts.items()}
    are_images = any(raw.examples.ndim > 2 for raw in parts.values())
    are_mixed = len({dtype.kind == "f" for dtype in dtypes.values()}) > 1
    if are_images and are_mixed:
        found = ", ".join(f"{part}: {dtype}" for part, dtype in dtypes.items())
        raise FileError(
            place,
            f"expected parts of one type, got floats beside integers ({found}): is one part "
            "scaled?",
        )
    dtype = np.result_type(*dtypes.values())
    return {part: raw.examples.astype(dtype, copy=False) for part, raw in parts.items()}


def _channels_last(examples: Arrays) -> tuple[Arrays, Notes]:
    """Turns square images whose channels come first, as PyTorch programs save them."""
    arrays = list(examples.values())
    if arrays[0].ndim != 4 or any(array.dtype.kind not in "buif" for array in arrays):
        return examples, ()
    channels, height, width = arrays[0].shape[1:]
    if channels not in (1, 3) or height != width or width < 8:
        return examples, ()
    turned = {}
    for part, array in examples.items():
        turned[part] = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    before = f"(n, {channels}, {height}, {width})"
    return turned, (f"axes {before} brought to (n, height, width, channels)",)


def _levels(examples: Arrays) -> tuple[int | None, Notes]:
    """Levels of all parts: 2 for images of zeros and ones; ``None`` to decide by the type."""
    arrays = [array for array in examples.values() if array.size]
    if not arrays or arrays[0].dtype.kind not in "ui" or arrays[0].ndim < 3:
        return None, ()
    low = min(int(array.min()) for array in arrays)
    high = max(int(array.max()) for array in arrays)
    if (low, high) == (0, 1):
        return 2, ("only zeros and ones: 2 levels",)
    return (256, ()) if low >= 0 and high <= 255 else (None, ())


def _of_one_type(parts: dict[str, Dataset]) -> dict[str, Dataset]:
    """Continuous parts in the widest type of them: large integers may be in one part only."""
    dtype = np.result_type(*(part.examples.dtype for part in parts.values()))
    for split, part in parts.items():
        if part.examples.dtype != dtype:
            wide = Dataset.from_array(part.examples.astype(dtype), levels=part.levels)
            parts[split] = dataclasses.replace(part, examples=wide.examples)
    return parts

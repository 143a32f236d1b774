"""Arrays by name, as archives have them: examples and labels of each part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from likejax.data.parts import WHOLE, Raw, split_name
from likejax.data.readers.files import FileError

_EXAMPLES = {"x", "image", "images", "data", "examples", "samples", "features", "inputs"}
_LABELS = {"y", "label", "labels", "class", "classes"}
_CONDITIONS = {"condition", "conditions"}


class Keys(NamedTuple):
    """Names of the arrays of each part, by their meaning."""

    examples: dict[str, str]
    labels: dict[str, str]
    conditions: dict[str, str]


def parts_of_arrays(
    place: Path, arrays: Mapping[str, np.ndarray], *, file_part: str = WHOLE
) -> dict[str, Raw]:
    """Finds the parts of a source by the names of its arrays, in small letters or capitals.

    ``x_train`` and ``y_train`` (Keras), ``train_images`` and ``train_labels`` (MedMNIST),
    ``train``, or ``X`` and ``y`` for a source that names no parts; where nothing has such a name,
    the only array. ``conditions``, ``conditions_train`` or ``train_conditions`` are the float
    conditions of the examples.

    Args:
      place: File or folder, for messages.
      arrays: Arrays by name.
      file_part: Part of arrays whose names contain none.

    Returns:
      Examples, labels and conditions by part.

    Raises:
      FileError: If it is not clear which array holds the examples.
    """
    doubled = _doubled(arrays, file_part)
    if doubled:
        raise FileError(
            place, f"holds two arrays of one meaning: {' and '.join(doubled)}; remove one"
        )
    examples, labels, conditions = keys_of_parts(arrays, file_part=file_part)
    if not examples:
        known = {*labels.values(), *conditions.values()}
        others = [key for key in arrays if key not in known and arrays[key].ndim > 1]
        if len(others) != 1:
            names = ", ".join(arrays) or "none"
            raise FileError(
                place, f"expected arrays named x_train and x_test, or X and y; got {names}"
            )
        examples[file_part] = others[0]
    if len(examples) > 1 and WHOLE in examples:
        names = ", ".join(examples.values())
        raise FileError(place, f"expected examples of parts, or of one whole; got both: {names}")
    used = {*examples.values(), *labels.values(), *conditions.values()}
    unused = [key for key in arrays if key not in used]
    notes = (f"arrays not used: {', '.join(unused)}",) if unused else ()
    parts = {}
    for part, key in examples.items():
        raw = _raw(place, arrays, key, labels.get(part), notes)
        parts[part] = raw._replace(conditions=arrays.get(conditions.get(part, "")))
    return parts


def keys_of_parts(keys: Iterable[str], *, file_part: str = WHOLE) -> Keys:
    """Finds the names of the arrays that hold examples, labels and conditions, by part.

    Args:
      keys: Names of arrays.
      file_part: Part of names that contain none.
    """
    examples: dict[str, str] = {}
    labels: dict[str, str] = {}
    conditions: dict[str, str] = {}
    for key in keys:
        part, rest = split_name(key)
        if rest in _EXAMPLES or (part is not None and not rest):
            examples[part or file_part] = key
        elif rest in _LABELS:
            labels[part or file_part] = key
        elif rest in _CONDITIONS:
            conditions[part or file_part] = key
    return Keys(examples, labels, conditions)


def _doubled(keys: Iterable[str], file_part: str) -> tuple[str, ...]:
    """Two names that mean the same, such as ``x_val`` and ``x_valid``."""
    seen: dict[str, str] = {}
    for key in keys:
        for kind, found in enumerate(keys_of_parts([key], file_part=file_part)):
            for part in found:
                other = seen.setdefault(f"{kind} {part}", key)
                if other != key:
                    return other, key
    return ()


def _raw(
    place: Path,
    arrays: Mapping[str, np.ndarray],
    key: str,
    labels_key: str | None,
    notes: tuple[str, ...],
) -> Raw:
    examples = arrays[key]
    if labels_key is None:
        return Raw(examples, None, notes)
    if not examples.ndim or not len(examples):
        raise FileError(place, f"array {key} holds no examples: its shape is {examples.shape}")
    labels = arrays[labels_key]
    count = len(examples)
    if labels.size == count:
        return Raw(examples, labels.reshape(-1), notes)
    if labels.ndim >= 2 and len(labels) == count:
        if _is_one_hot(labels):
            one_hot = f"{labels_key}: one-hot rows taken as class numbers"
            return Raw(examples, labels.argmax(1), (*notes, one_hot))
        several = f"{labels_key} of shape {labels.shape} is no class number per example: not taken"
        return Raw(examples, None, (*notes, several))
    raise FileError(
        place, f"expected {count} labels, got {labels_key} of shape {labels.shape} for {key}"
    )


def _is_one_hot(labels: np.ndarray) -> bool:
    if labels.ndim != 2 or labels.dtype.kind not in "buif":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def examples_first(
    place: Path, arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Brings the examples of MATLAB's arrays to the first axis.

    MATLAB programs keep images as (height, width, channels, n), as SVHN is published, or (height,
    width, n).

    Args:
      place: File or folder, for messages.
      arrays: Arrays by name.

    Returns:
      The arrays, and notes on those that were turned.

    Raises:
      FileError: If it is not clear which axis the examples are.
    """
    vectors = [array for array in arrays.values() if array.ndim == 2 and 1 in array.shape]
    counts = {array.size for array in vectors if array.size > 1}
    turned, notes = {}, []
    for key, array in arrays.items():
        if array.ndim >= 3 and _axis_of_examples(place, key, array.shape, counts) != 0:
            array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
            notes.append(f"{key}: last axis, the examples, brought to the front")
        turned[key] = _whole_images(array)
        if turned[key] is not array:
            notes.append(
                f"{key}: {array.dtype.name} of whole numbers within 0..255 taken as integers"
            )
    return turned, tuple(notes)


def _axis_of_examples(place: Path, key: str, shape: tuple[int, ...], counts: set[int]) -> int:
    """0 or -1: by the axis of channels or the square images, else by the number of labels."""
    channels = (1, 3, 4)
    if len(shape) == 4:
        first, last = shape[3] in channels, shape[2] in channels
    else:
        first, last = shape[-1] == shape[-2], shape[0] == shape[1]
    if first == last:
        first, last = shape[0] in counts, shape[-1] in counts
    if first == last:
        raise FileError(
            place,
            f"array {key} of shape {shape}: cannot tell which axis is the examples; save it as "
            ".npz, them first",
        )
    return 0 if first else -1


def _whole_images(array: np.ndarray) -> np.ndarray:
    """Images that MATLAB keeps as doubles, as the integers that they are."""
    if array.ndim < 3 or array.dtype.kind != "f" or not array.size:
        return array
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255) or (array != np.round(array)).any():
        return array
    return array.astype(np.uint8)

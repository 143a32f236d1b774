"""TensorFlow Datasets by name, read without TensorFlow."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from likejax.data.classes import Classes, numbered
from likejax.data.dataset import Dataset
from likejax.data.parts import PART_NAMES
from likejax.data.sources.published import FACE, resized_face

_NEEDS_TENSORFLOW = (
    "prepare it once where TensorFlow is installed, then remove TensorFlow: pip install "
    "tensorflow-cpu && "
    'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}{folder}, '
    "file_format='array_record')"
    '.download_and_prepare()" && pip uninstall -y tensorflow-cpu'
)

NAMES = {
    "svhn": "svhn_cropped",
    "imagenet32": "downsampled_imagenet/32x32",
    "imagenet64": "downsampled_imagenet/64x64",
    "imagenet32_old": "downsampled_imagenet/32x32",
    "imagenet64_old": "downsampled_imagenet/64x64",
    "celeba_hq256": "celeb_a_hq/256",
    "celeba": "celeb_a",
    "emnist_letters": "emnist/letters",
}
"""From the names of datasets here to those of TFDS."""


class _Change(NamedTuple):
    """A change of every image of a TFDS dataset to the form that its published files get."""

    note: str
    change: Callable[[np.ndarray], np.ndarray]


def _face(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(resized_face(Image.fromarray(image)))


_CHANGES = {
    "celeb_a": _Change(FACE, _face),
    "emnist": _Change("rows and columns exchanged", lambda image: image.transpose(1, 0, 2)),
    "omniglot": _Change("one of three equal channels", lambda image: image[..., :1]),
}
"""From the name of a builder, without its configuration, to what is done to its images."""
_ROWS = 1000
"""Rows that are read at once; all of CelebA would fill 24 GB before they are resized."""


def load_tfds(name: str, data_dir: Path | None) -> dict[str, Dataset]:
    """Reads the parts of a TFDS dataset of images; prepares it if need be, which takes a network.

    Args:
      name: Name of the builder, such as ``mnist`` or ``cifar10``, with its configuration where it
        has several.
      data_dir: Folder of prepared datasets; TFDS's own default if ``None``.

    Raises:
      ValueError: If it can neither be read nor prepared here; the message says what was tried and
        what to do.
    """
    import tensorflow_datasets as tfds

    options: dict[str, Any] = {} if data_dir is None else {"data_dir": str(data_dir)}
    tried = []
    for folder in (options, {}) if options else ({},):
        try:
            return _read(tfds, name, folder)
        except (
            Exception
        ) as error:  # TFDS raises many kinds: not found, not prepared, wrong file format
            tried.append(
                f"reading it from {folder.get('data_dir', 'the default folder of TFDS')}: "
                f"{_first_line(error)}"
            )
    try:
        _check_online()
        tfds.builder(name, file_format="array_record", **options).download_and_prepare()
        return _read(tfds, name, options)
    except Exception as error:
        tried.append(f"downloading and preparing it: {_first_line(error)}")
        folder = f", data_dir={str(data_dir)!r}" if data_dir else ""
        raise ValueError(
            f"TFDS dataset {name!r} is not available here. Tried " + "; ".join(tried) + ". "
            "Some builders need TensorFlow to prepare: "
            + _NEEDS_TENSORFLOW.format(name=name, folder=folder)
        ) from error


def _check_online() -> None:
    """Fails at once without a network, where TFDS would retry for minutes."""
    try:
        socket.getaddrinfo("www.tensorflow.org", 443)
    except OSError as error:
        raise ConnectionError("no network") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def _read(tfds: ModuleType, name: str, options: dict[str, Any]) -> dict[str, Dataset]:
    if not any(
        Path(options.get("data_dir", tfds.core.constants.DATA_DIR))
        .expanduser()
        .glob(f"{name}/**/features.json")
    ):
        raise FileNotFoundError("not prepared there")
    sources = tfds.data_source(name, download=False, **options)
    raw, notes = {}, {}
    for split, source in sources.items():
        ours = PART_NAMES.get(split)
        if ours is None:
            continue
        raw[ours], changes = _images_and_labels(name, source)
        notes[ours] = (f"TFDS {name}, part {split}, in the order of its files", *changes)
    if not raw:
        raise ValueError(f"TFDS dataset {name!r} has no train, validation or test part")
    classes = _classes(tfds, name, options, {part: labels for part, (_, labels) in raw.items()})
    return {
        part: Dataset.from_array(
            images,
            labels=classes.labels[part],
            class_names=classes.names,
            name=name,
            split=part,
            provenance=[*notes[part], *classes.notes],
        )
        for part, (images, _) in raw.items()
    }


def _images_and_labels(
    name: str, source: Any
) -> tuple[tuple[np.ndarray, np.ndarray | None], tuple[str, ...]]:
    """Images and labels of a part, and notes on what was done to the images."""
    change = _CHANGES.get(name.split("/")[0])
    images: list[np.ndarray] = []
    labels: list[Any] = []
    for start in range(0, len(source), _ROWS):
        rows = source.__getitems__(list(range(start, min(start + _ROWS, len(source)))))
        if "image" not in rows[0]:
            raise ValueError(
                f"expected a dataset of images, the features of {name!r} are {', '.join(rows[0])}"
            )
        images += [row["image"] if change is None else change.change(row["image"]) for row in rows]
        labels += [row.get("label") for row in rows]
    notes = () if change is None else (change.note,)
    has_numbers = np.ndim(labels[0]) == 0 and np.array(labels).dtype.kind in "ui"
    return (np.stack(images), np.array(labels) if has_numbers else None), notes


def _classes(
    tfds: ModuleType, name: str, options: dict[str, Any], labels: dict[str, np.ndarray | None]
) -> Classes:
    """The labels with the names that TFDS has for them, or numbered by what they are."""
    features = tfds.builder(name, **options).info.features
    names = getattr(features["label"], "names", None) if "label" in features else None
    highest = max((int(each.max()) for each in labels.values() if each is not None), default=-1)
    if names and highest < len(names):
        return Classes(labels, tuple(names))
    return numbered(labels)

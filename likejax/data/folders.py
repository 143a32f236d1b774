"""Datasets in folders: which files make up which part."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from likejax.data import formats
from likejax.data.dataset import Dataset
from likejax.data.formats import FileError

Part = tuple[np.ndarray, np.ndarray | None]
Parts = dict[str, Part]

_PART_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
    "t10k": "test",
}
_PART = "|".join(sorted(_PART_NAMES, key=len, reverse=True))


def load_folder(folder: Path, name: str) -> dict[str, Dataset]:
    """The parts that the files of a folder make up, in the first known form that fits.

    IDX pairs, MATLAB files by part, ``.npz`` with ``x_train`` and the like, ``.npy``, CIFAR batches (binary or
    python), folders or zip archives of images. A source with one part is its ``test`` part.

    Raises:
      FileError: If no file is of a known form, or one is damaged.
    """
    known = KNOWN.get(name, _Known())
    zips = partial(_image_zips, pattern=known.archives)
    for form in (_idx, _mat, _npz, _npy, _cifar_binary, _cifar_python, _image_folders, zips):
        parts = form(folder)
        if parts:
            return {split: named_part(folder, name, split, part) for split, part in parts.items()}
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise FileError(
        folder,
        "no file of a known form: expected IDX (train-images-idx3-ubyte.gz ...), .npz with x_train/x_test, .npy, "
        f"MATLAB 5, CIFAR batches, or images in train/ and test/; found {found}",
    )


def named_part(path: Path, name: str, split: str, part: Part) -> Dataset:
    """A part as a dataset, with what is known of the files of that name applied."""
    examples, labels = part
    levels = None
    if examples.dtype.kind in "uib" and examples.ndim >= 3:
        levels = 256
    try:
        dataset = Dataset.from_array(
            examples,
            levels=levels,
            labels=labels,
            name=name,
            split=split,
            provenance=[f"files of {name}, part {split}"],
        )
    except (TypeError, ValueError) as error:
        raise FileError(path, f"part {split}: {error}") from error
    return KNOWN.get(name, _Known()).adjust(dataset)


def _upright(dataset: Dataset) -> Dataset:
    return dataset.transpose()


def _binary_images(dataset: Dataset) -> Dataset:
    """Rows of 784 zeros and ones as binary 28x28 images."""
    images = Dataset.from_array(dataset.examples.reshape(-1, 28, 28), levels=2)
    return dataclasses.replace(
        dataset,
        examples=images.examples,
        levels=2,
        provenance=(*dataset.provenance, "rows of 784 as 28x28"),
        binarisation="as in the files",
    )


@dataclasses.dataclass(frozen=True)
class _Known:
    """What the files of a dataset of a certain name need."""

    adjust: Callable[[Dataset], Dataset] = lambda dataset: dataset
    """Turns what the files hold into upright images."""
    archives: str = "*.zip"
    """Which zip archives belong to it."""


KNOWN = {
    "emnist_letters": _Known(adjust=_upright),
    "binarized_mnist": _Known(adjust=_binary_images),
    "omniglot": _Known(archives="images_background*.zip"),  # the one-shot runs are another task
}


def _one_part(parts: Parts) -> Parts:
    """A source with a single part: it becomes the test part, so that nobody trains on it by accident."""
    return {"test": next(iter(parts.values()))} if len(parts) == 1 else parts


def _idx(folder: Path) -> Parts:
    parts: Parts = {}
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(rf"(.*?)({_PART})-images[-.]idx3-ubyte(\.gz)?", path.name)
        if match is None:
            continue
        split = _PART_NAMES[match[2]]
        if split in parts:
            raise FileError(folder, f"more than one IDX file of images for the part {split!r}")
        images = formats.read_idx(path)
        if images.ndim != 3 or images.dtype != np.uint8:
            raise FileError(path, f"expected images, got {images.dtype} of shape {images.shape}; mislabelled?")
        parts[split] = images, _idx_labels(path, len(images))
    return _one_part(parts)


def _idx_labels(images: Path, count: int) -> np.ndarray | None:
    stem = images.name.removesuffix(".gz").replace("-images", "-labels").replace("idx3", "idx1")
    for path in (images.with_name(stem), images.with_name(stem + ".gz")):
        if path.exists():
            labels = formats.read_idx(path)
            if labels.shape != (count,):
                raise FileError(path, f"expected {count} labels for {images.name}, got shape {labels.shape}")
            return labels.astype(np.int64)
    return None


def _mat(folder: Path) -> Parts:
    parts: Parts = {}
    for path in sorted(folder.glob("*.mat")):
        match = re.search(rf"({_PART})", path.stem.split("_")[-1])
        arrays = formats.read_mat(path)
        x = arrays.get("X", next(iter(arrays.values())))
        parts[_PART_NAMES[match[1]] if match else path.stem] = x, None
    return _one_part(parts)


def _npz(folder: Path) -> Parts:
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        return {}
    if len(paths) > 1:
        names = ", ".join(path.stem for path in paths[:5])
        raise FileError(folder, f"holds {len(paths)} .npz files; name one of them: {names}, ...")
    return npz_parts(paths[0])


def npz_parts(path: Path) -> Parts:
    """Parts of one ``.npz``: ``x_train``, ``y_train`` and so on, or ``X``/``x`` and ``y`` as one part."""
    arrays = formats.read_npz(path)
    parts: Parts = {}
    for key, split in _PART_NAMES.items():
        x = arrays.get(f"x_{key}", arrays.get(key))
        if x is not None:
            parts[split] = x, _labels_of(path, x, arrays.get(f"y_{key}"))
    for key in ("x", "X"):
        if not parts and key in arrays:
            parts["test"] = arrays[key], _labels_of(path, arrays[key], arrays.get("y"))
    if not parts:
        raise FileError(path, f"expected arrays named x_train and x_test, or X; got {', '.join(arrays) or 'none'}")
    return _one_part(parts)


def _labels_of(path: Path, x: np.ndarray, y: np.ndarray | None) -> np.ndarray | None:
    if y is None or y.dtype.kind not in "ui":
        return None
    if y.reshape(-1).shape != (len(x),):
        raise FileError(path, f"expected {len(x)} labels, got shape {y.shape}")
    return y.reshape(-1).astype(np.int64)


def _npy(folder: Path) -> Parts:
    parts: Parts = {}
    for path in sorted(folder.glob("*.npy")):
        parts[_PART_NAMES.get(path.stem, path.stem)] = formats.read_npy(path), None
    unknown = [split for split in parts if split not in _PART_NAMES.values()]
    if len(parts) > 1 and unknown:
        raise FileError(
            folder, f"expected train.npy, validation.npy, test.npy or a single file; got {', '.join(parts)}"
        )
    return _one_part(parts)


def _cifar_binary(folder: Path) -> Parts:
    return _cifar(folder, ".bin", formats.read_cifar_binary)


def _cifar_python(folder: Path) -> Parts:
    return _cifar(folder, "", formats.read_cifar_pickle)


def _cifar(folder: Path, suffix: str, read: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Parts:
    inner = [folder, *(p for p in folder.iterdir() if p.is_dir() and p.name.startswith("cifar"))]
    for place in inner:
        batches = [place / f"data_batch_{i}{suffix}" for i in range(1, 6)]
        missing = [path.name for path in batches if not path.exists()]
        if len(missing) == len(batches):
            continue
        if missing:
            raise FileError(place, f"CIFAR-10 is incomplete: {', '.join(missing)} missing")
        read_batches = [read(path) for path in batches]
        train = tuple(np.concatenate(arrays) for arrays in zip(*read_batches, strict=True))
        test = place / f"test_batch{suffix}"
        return {"train": train, "test": read(test)} if test.exists() else {"train": train}  # type: ignore[dict-item]
    for place in inner:  # CIFAR-100
        train, test = place / f"train{suffix}", place / f"test{suffix}"
        if train.is_file() and test.is_file():
            extra = {"label_bytes": 2} if suffix else {}
            return {"train": read(train, **extra), "test": read(test, **extra)}
    return {}


def _image_folders(folder: Path) -> Parts:
    parts: Parts = {}
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        if place.name in _PART_NAMES and (part := _images_below(place)):
            parts[_PART_NAMES[place.name]] = part
    if not parts and (part := _images_below(folder)):
        parts["test"] = part
    return _one_part(parts)


def _images_below(place: Path) -> Part | None:
    """All images under a folder; its direct subfolders, if any, are the classes."""
    files = sorted(p for p in place.rglob("*") if p.suffix.lower() in formats.IMAGE_SUFFIXES)
    if not files:
        return None
    images = formats.read_images((str(path), path) for path in files)
    classes = [path.relative_to(place).parts[0] if path.parent != place else "" for path in files]
    if len(set(classes)) < 2:
        return images, None
    names = sorted(set(classes))
    return images, np.array([names.index(c) for c in classes], np.int64)


def _image_zips(folder: Path, pattern: str) -> Parts:
    """Images in zip archives, each distinct picture once: archives that overlap are common."""
    archives = sorted(folder.glob(pattern))
    if not archives:
        return {}
    images = formats.read_images(entry for path in archives for entry in formats.images_in_zip(path))
    seen: dict[bytes, int] = {}
    for row, image in enumerate(images):
        seen.setdefault(image.tobytes(), row)
    return {"test": (images[sorted(seen.values())], None)}

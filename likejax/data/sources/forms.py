"""Forms in which datasets are published: each function reads the parts in a folder.

A form that is not there gives no parts; one that is there and damaged, or not clear, gives a
``FileError``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from likejax.data.parts import PART_NAMES, WHOLE, Raw, split_name, visible_files
from likejax.data.readers.cifar import planes_to_images, read_cifar_binary, read_cifar_pickle
from likejax.data.readers.delimited import SUFFIXES as TEXT
from likejax.data.readers.delimited import layout, read_delimited
from likejax.data.readers.files import FileError
from likejax.data.readers.idx import read_idx
from likejax.data.readers.mat import read_mat
from likejax.data.readers.named_arrays import examples_first, parts_of_arrays
from likejax.data.readers.numpy_files import read_npy, read_npz

Parts = dict[str, Raw]

_PART = "|".join(sorted(PART_NAMES, key=len, reverse=True))
_IMAGENET = re.compile(r"(?P<part>train|val)_data(_batch_(?P<number>\d+))?(\.npz)?")
_IDX = re.compile(rf"(?P<before>.*?)(?P<part>{_PART})-images[-.]idx3-ubyte(\.gz)?", re.IGNORECASE)
_KUZUSHIJI = re.compile(r"k(mnist|49)-(?P<part>train|test)-(?P<kind>imgs|labels)\.npz")
_SIDES = (8, 16, 32, 64)
"""Sides of the images of the downsampled ImageNet."""


def is_idx(name: str) -> bool:
    """Whether a file's name is that of an IDX file of images.

    Args:
      name: Name of the file, without its folder.
    """
    return _IDX.fullmatch(name) is not None


def idx(folder: Path) -> Parts:
    """Pairs of IDX files: ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz`` ...

    Args:
      folder: Folder of the files.

    Returns:
      Images with their labels, by split; empty if there are none.

    Raises:
      FileError: If a file is damaged, or there are two of a part.
    """
    parts: Parts = {}
    for path in visible_files(folder):
        match = _IDX.fullmatch(path.name)
        if match is None:
            continue
        split = PART_NAMES[match["part"].lower()]
        if split in parts:
            raise FileError(folder, f"more than one IDX file of images for the part {split!r}")
        images = read_idx(path)
        if images.ndim != 3 or images.dtype != np.uint8:
            raise FileError(
                path, f"expected images, got {images.dtype} of shape {images.shape}; mislabeled?"
            )
        labels = _idx_labels(path, len(images))
        parts[split] = Raw(images, labels)
        if match["before"].lower().startswith("emnist-"):  # EMNIST is published lying on its side
            upright = np.ascontiguousarray(images.transpose(0, 2, 1))
            parts[split] = Raw(upright, labels, ("rows and columns exchanged",))
    return parts


def _idx_labels(images: Path, count: int) -> np.ndarray | None:
    stem = images.name.lower().removesuffix(".gz")
    stem = stem.replace("-images", "-labels").replace("idx3", "idx1")
    for path in visible_files(images.parent):
        if path.name.lower() in (stem, stem + ".gz"):
            labels = read_idx(path)
            if labels.shape != (count,):
                raise FileError(
                    path, f"expected {count} labels for {images.name}, got shape {labels.shape}"
                )
            return labels
    return None


def mat(folder: Path) -> Parts:
    """MATLAB files, one for all or one for each part.

    Args:
      folder: Folder of the files.

    Returns:
      Examples with their labels, by split; empty if there are none.

    Raises:
      FileError: If a file is damaged, or there are two of a part.
    """
    parts: Parts = {}
    unused = []
    paths = visible_files(folder, ".mat")
    titles = {path: split_name(path.stem)[0] for path in paths}
    for path in paths:
        if titles[path] is None and any(titles.values()):
            unused.append(path.name)
            continue
        for part, raw in mat_parts(path, titles[path] or WHOLE).items():
            if part in parts:
                raise FileError(
                    folder,
                    f"more than one MATLAB file for {part or 'the whole'}: {path.name} and another",
                )
            parts[part] = raw
    notes = (f"files not used: {', '.join(unused)}",) if unused else ()
    return {part: raw._replace(notes=(*raw.notes, *notes)) for part, raw in parts.items()}


def mat_parts(path: Path, part: str) -> Parts:
    """Parts in one MATLAB file.

    Args:
      path: The file.
      part: Part of arrays whose names contain none.
    """
    arrays, notes = examples_first(path, read_mat(path))
    found = parts_of_arrays(path, arrays, file_part=part)
    return {split: raw._replace(notes=(*notes, *raw.notes)) for split, raw in found.items()}


def is_imagenet_batch(name: str) -> bool:
    """Whether a file's name is that of a batch of the downsampled ImageNet of 2017.

    Args:
      name: Name of the file, without its folder.
    """
    return _IMAGENET.fullmatch(name) is not None


def imagenet_batches(folder: Path) -> Parts:
    """Batches of the downsampled ImageNet, ``.npz`` or pickled: rows of planes, labels from 1.

    Args:
      folder: Folder of the files.

    Returns:
      Images with their labels, by split; empty if there are none.

    Raises:
      FileError: If a file is damaged.

    References:
      Chrabaszcz, Loshchilov and Hutter, 2017, A downsampled variant of ImageNet, arXiv:1707.08819.
    """
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in visible_files(folder):
        match = _IMAGENET.fullmatch(path.name)
        if match is not None:
            part = PART_NAMES[match["part"]]
            number = int(match["number"] or 0)
            found.setdefault(part, []).append((number, path))
    parts = {}
    for part, numbered in found.items():
        parts[part] = _joined(folder, [path for _, path in sorted(numbered)])
    return parts


def _joined(folder: Path, paths: list[Path]) -> Raw:
    batches = [_imagenet_batch(path) for path in paths]
    if len({images.shape[1:] for images, _ in batches}) > 1:
        names = ", ".join(path.name for path in paths)
        raise FileError(folder, f"expected batches of images of one size: {names}")
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return Raw(images, labels, (f"{len(paths)} batches",))


def _imagenet_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.suffix != ".npz":
        return read_cifar_pickle(path, sides=_SIDES)
    arrays = read_npz(path)
    images = planes_to_images(arrays["data"], _SIDES) if "data" in arrays else None
    if images is None or arrays.get("labels", np.empty(0)).shape != (len(images),):
        raise FileError(
            path,
            "expected 'data', rows of three planes of 8x8 to 64x64, and 'labels', one for each",
        )
    return images, arrays["labels"]


def npz(folder: Path) -> Parts:
    """One ``.npz`` file with arrays of all parts, or one for each part.

    Args:
      folder: Folder of the files.

    Returns:
      Examples by split; empty if there are none.

    Raises:
      FileError: If a file is damaged, or the names of the arrays do not tell the parts.
    """
    paths = visible_files(folder, ".npz")
    if not paths:
        return {}
    if all(is_kuzushiji(path.name) for path in paths):
        return parts_of_arrays(folder, dict(_kuzushiji(path) for path in paths))
    if len(paths) == 1:
        return parts_of_arrays(paths[0], read_npz(paths[0]))

    def one_part(path: Path) -> Raw:
        parts = parts_of_arrays(path, read_npz(path))
        if WHOLE not in parts:
            names = ", ".join(parts)
            raise FileError(path, f"names parts ({names}) beside other files: keep one file of all")
        return parts[WHOLE]

    return _one_file_each(folder, paths, one_part)


def is_kuzushiji(name: str) -> bool:
    """Whether a file's name is that of an array of Kuzushiji-MNIST or Kuzushiji-49.

    Args:
      name: Name of the file, without its folder.
    """
    return _KUZUSHIJI.fullmatch(name) is not None


def _kuzushiji(path: Path) -> tuple[str, np.ndarray]:
    """The one array in a file, and the name that says what it is."""
    arrays = read_npz(path)
    match = _KUZUSHIJI.fullmatch(path.name)
    if match is None or len(arrays) != 1:
        raise FileError(path, f"expected one array, got {', '.join(arrays) or 'none'}")
    meaning = "images" if match["kind"] == "imgs" else "labels"
    return f"{match['part']}_{meaning}", next(iter(arrays.values()))


def npy(folder: Path) -> Parts:
    """One ``.npy`` file, or one for each array of each part.

    Args:
      folder: Folder of the files.

    Returns:
      Examples by split; empty if there are none.

    Raises:
      FileError: If a file is damaged, or the names of the files do not tell the parts.
    """
    paths = visible_files(folder, ".npy")
    if not paths:
        return {}
    if len(paths) == 1:
        part = PART_NAMES.get(paths[0].stem.lower(), WHOLE)
        return {part: Raw(read_npy(paths[0]))}
    return parts_of_arrays(folder, {path.stem: read_npy(path) for path in paths})


def text(folder: Path) -> Parts:
    """Tables of numbers as text, one for all or one for each part.

    Args:
      folder: Folder of the files.

    Returns:
      Rows by split; empty if there are none.

    Raises:
      FileError: If a file is damaged, or the names of the files do not tell the parts.
    """
    paths = [path for path in visible_files(folder, *TEXT) if layout(path) is not None]
    if len(paths) == 1:
        part = split_name(paths[0].name.split(".")[0])[0]
        return {part or WHOLE: read_delimited(paths[0])}
    return _one_file_each(folder, paths, read_delimited) if paths else {}


def _one_file_each(folder: Path, paths: list[Path], read: Callable[[Path], Raw]) -> Parts:
    """Parts from files that are called by their parts and alike otherwise."""
    titles = [split_name(path.name.split(".")[0]) for path in paths]
    parts = [part for part, _ in titles]
    if None in parts or len(set(parts)) < len(parts) or len({rest for _, rest in titles}) > 1:
        names = ", ".join(path.name for path in paths[:5])
        raise FileError(
            folder,
            f"holds {len(paths)} {paths[0].suffix} files; name one of them, or call them by parts: "
            f"{names}, ...",
        )
    return {str(part): read(path) for part, path in zip(parts, paths, strict=True)}


def cifar_binary(folder: Path) -> Parts:
    """CIFAR-10 or CIFAR-100 in binary batches.

    Args:
      folder: Folder of the files, or the one that an archive was unpacked in.

    Returns:
      Images with their labels, by split; empty if there are none.

    Raises:
      FileError: If a file is damaged, or a batch is missing.
    """
    return _cifar(folder, ".bin", read_cifar_binary)


def cifar_python(folder: Path) -> Parts:
    """CIFAR-10 or CIFAR-100 in pickled batches.

    Args:
      folder: Folder of the files, or the one that an archive was unpacked in.

    Returns:
      Images with their labels, by split; empty if there are none.

    Raises:
      FileError: If a file is damaged, or a batch is missing.
    """
    return _cifar(folder, "", read_cifar_pickle)


def places_of_cifar(folder: Path) -> list[Path]:
    """Folders with batches of CIFAR: the folder itself, and those that archives unpack to.

    Args:
      folder: Folder that exists.
    """
    inner = [path for path in folder.iterdir() if path.is_dir() and path.name.startswith("cifar")]
    return [folder, *inner]


def _cifar(folder: Path, suffix: str, read: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Parts:
    for place in places_of_cifar(folder):
        found = _cifar10(place, suffix, read)
        if found:
            return found
    for place in places_of_cifar(folder):
        train, test = place / f"train{suffix}", place / f"test{suffix}"
        if train.is_file() and test.is_file():  # CIFAR-100
            extra = {"label_bytes": 2} if suffix else {}
            return {"train": Raw(*read(train, **extra)), "test": Raw(*read(test, **extra))}
    return {}


def _cifar10(place: Path, suffix: str, read: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Parts:
    paths = [place / f"data_batch_{number}{suffix}" for number in range(1, 6)]
    missing = [path.name for path in paths if not path.exists()]
    if len(missing) == len(paths):
        return {}
    if missing:
        raise FileError(place, f"CIFAR-10 is incomplete: {', '.join(missing)} missing")
    images, labels = zip(*(read(path) for path in paths), strict=True)
    parts = {"train": Raw(np.concatenate(images), np.concatenate(labels))}
    test = place / f"test_batch{suffix}"
    if test.exists():
        parts["test"] = Raw(*read(test))
    return parts

"""Datasets in folders and files: which files make up which part, and what they hold."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from likejax.data.arrays import as_numbers
from likejax.data.classes import Classes, numbered
from likejax.data.dataset import Dataset
from likejax.data.parts import PART_NAMES, WHOLE, Raw, split_name, visible_files
from likejax.data.readers import formats
from likejax.data.readers.archives import examples_first, parts_of_arrays
from likejax.data.readers.delimited import SUFFIXES as TEXT
from likejax.data.readers.delimited import layout, read_delimited
from likejax.data.readers.formats import FileError
from likejax.data.readers.pictures import parts_in_folder, parts_in_zips

Parts = dict[str, Raw]
FILES = (".npz", ".npy", ".mat", *TEXT)
"""What single files that are datasets are called."""
_PART = "|".join(sorted(PART_NAMES, key=len, reverse=True))
_IMAGENET = re.compile(r"(?P<part>train|val)_data(_batch_(?P<number>\d+))?(\.npz)?")
_IDX = re.compile(rf"(?P<before>.*?)(?P<part>{_PART})-images[-.]idx3-ubyte(\.gz)?", re.IGNORECASE)


def load_folder(folder: Path, name: str) -> dict[str, Dataset]:
    """The parts that the files of a folder make up, in the first known form that fits.

    IDX pairs, MATLAB files by part, ``.npz`` with ``x_train`` and the like, ``.npy``, CIFAR batches (binary or
    python), folders or zip archives of images, tables as text. What names no part has the key ``WHOLE``.

    Raises:
      FileError: If no file is of a known form, or one is damaged.
    """
    known = _known(name)
    zips = partial(parts_in_zips, pattern=known.archives)
    for form in (
        _idx,
        _mat,
        _imagenet_batches,
        _npz,
        _npy,
        _cifar_binary,
        _cifar_python,
        parts_in_folder,
        zips,
        _text,
    ):
        parts = form(folder)
        if parts:
            return assembled(folder, name, parts)
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise FileError(
        folder,
        "no file of a known form: expected IDX (train-images-idx3-ubyte.gz ...), .npz with x_train/x_test, .npy, "
        f"MATLAB 5, .csv, CIFAR batches, or images in train/ and test/; found {found}",
    )


def load_file(path: Path, name: str) -> dict[str, Dataset]:
    """The parts in a single file: ``.npz``, ``.npy``, ``.mat`` or a table as text.

    Raises:
      FileError: If it is damaged or of another form.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        parts = parts_of_arrays(path, formats.read_npz(path))
    elif suffix == ".npy":
        parts = {WHOLE: Raw(formats.read_npy(path))}
    elif suffix == ".mat":
        parts = _mat_parts(path, WHOLE)
    else:
        parts = {WHOLE: read_delimited(path)}
    return assembled(path, name, parts)


def assembled(place: Path, name: str, parts: Mapping[str, Raw]) -> dict[str, Dataset]:
    """Parts as datasets that agree: one type, one number of levels, one numbering of the classes.

    Raises:
      FileError: If they do not agree, or an array is no dataset.
    """
    known = _known(name)
    _check_shapes(place, parts)
    kinds = {part: raw.examples.dtype.kind == "f" for part, raw in parts.items()}
    are_images = any(raw.examples.ndim > 2 for raw in parts.values())
    if are_images and len(set(kinds.values())) > 1:
        found = ", ".join(f"{part}: {raw.examples.dtype}" for part, raw in parts.items())
        raise FileError(
            place,
            f"expected parts of one type, got floats beside integers ({found}): is one part scaled?",
        )
    dtype = np.result_type(*(raw.examples.dtype for raw in parts.values()))
    examples = {part: raw.examples.astype(dtype, copy=False) for part, raw in parts.items()}
    examples, turned = _channels_last(examples)
    levels, notes = _levels(examples)
    try:
        classes = known.classes({part: raw.labels for part, raw in parts.items()})
    except ValueError as error:
        raise FileError(place, str(error)) from error
    made = {}
    for part, raw in parts.items():
        split = part or known.whole
        title = f"part {part}" if part else "which name no parts"
        try:
            (array, _, found), own_levels = as_numbers(examples[part], levels=levels)
            dataset = Dataset.from_array(
                array,
                levels=own_levels,
                labels=classes.labels[part],
                class_names=classes.names,
                name=name,
                split=split or "train",
                provenance=[
                    f"files of {name}, {title}",
                    *raw.notes,
                    *turned,
                    *notes,
                    *found,
                    *classes.notes,
                ],
            )
        except (TypeError, ValueError) as error:
            raise FileError(place, f"{title}: {error}") from error
        made[split] = known.adjust(dataclasses.replace(dataset, columns=raw.columns))
    return _of_one_type(made)


def _check_shapes(place: Path, parts: Mapping[str, Raw]) -> None:
    shapes = {part: raw.examples.shape[1:] for part, raw in parts.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
        raise FileError(place, f"expected examples of one shape in all parts, got {told}")
    columns = {raw.columns for raw in parts.values()}
    if len(columns) > 1:
        raise FileError(
            place, "expected the same columns in all parts, in the same order; the headers differ"
        )


def _channels_last(
    examples: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Square integer images whose one or three channels come first, as PyTorch programs save them, turned."""
    arrays = list(examples.values())
    if arrays[0].ndim != 4 or any(array.dtype.kind not in "buif" for array in arrays):
        return examples, ()
    channels, height, width = arrays[0].shape[1:]
    if channels not in (1, 3) or height != width or width < 8:
        return examples, ()
    turned = {
        part: np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for part, array in examples.items()
    }
    return turned, (
        f"axes (n, {channels}, {height}, {width}) brought to (n, height, width, channels)",
    )


def _levels(examples: Mapping[str, np.ndarray]) -> tuple[int | None, tuple[str, ...]]:
    """Levels that all parts have: images of zeros and ones are binary; ``None`` to decide by the type."""
    arrays = [array for array in examples.values() if array.size]
    if not arrays or arrays[0].dtype.kind not in "ui" or arrays[0].ndim < 3:
        return None, ()
    low, high = min(int(array.min()) for array in arrays), max(int(array.max()) for array in arrays)
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


# --- what is known of datasets by their names


def _binary_images(dataset: Dataset) -> Dataset:
    """Rows of 784 zeros and ones as binary 28x28 images."""
    images = Dataset.from_array(dataset.examples.reshape(-1, 28, 28).astype(np.uint8), levels=2)
    return dataclasses.replace(
        dataset,
        examples=images.examples,
        levels=2,
        provenance=(*dataset.provenance, "rows of 784 as 28x28"),
        binarization="as in the files",
    )


def _digit_classes(labels: Mapping[str, np.ndarray | None]) -> Classes:
    """SVHN's labels 1 to 10, where 10 is the digit 0, as the digits."""
    given = {part: each for part, each in labels.items() if each is not None}
    highest = max((int(each.max()) for each in given.values() if each.size), default=0)
    digits = {part: each.astype(np.int64) % 10 for part, each in given.items()}
    if not given or highest > 10:
        return numbered(labels)
    notes = ("label 10 is the digit 0",) if highest == 10 else ()
    return Classes({part: digits.get(part) for part in labels}, tuple("0123456789"), notes)


@dataclasses.dataclass(frozen=True)
class _Known:
    """What the files of a dataset of a certain name need."""

    adjust: Callable[[Dataset], Dataset] = lambda dataset: dataset
    """Turns what the files hold into images."""
    archives: str = "*.zip"
    """Which zip archives belong to it."""
    classes: Callable[[Mapping[str, np.ndarray | None]], Classes] = numbered
    """Numbers its classes."""
    whole: str = WHOLE
    """Part that files which name none are; ``WHOLE`` to cut them."""


_SVHN = _Known(classes=_digit_classes)
_KNOWN = {
    "binarized_mnist": _Known(adjust=_binary_images),
    "omniglot": _Known(
        archives="images_background*.zip", whole="test"
    ),  # the one-shot runs are another task
    "svhn": _SVHN,
    "svhn_cropped": _SVHN,
}


def _known(name: str) -> _Known:
    return _KNOWN.get(name.rsplit("/", 1)[-1].lower(), _Known())


# --- forms


def is_idx(name: str) -> bool:
    """Whether a file's name is that of an IDX file of images."""
    return _IDX.fullmatch(name) is not None


def _idx(folder: Path) -> Parts:
    parts: Parts = {}
    for path in visible_files(folder):
        match = _IDX.fullmatch(path.name)
        if match is None:
            continue
        split = PART_NAMES[match["part"].lower()]
        if split in parts:
            raise FileError(folder, f"more than one IDX file of images for the part {split!r}")
        images = formats.read_idx(path)
        if images.ndim != 3 or images.dtype != np.uint8:
            raise FileError(
                path, f"expected images, got {images.dtype} of shape {images.shape}; mislabeled?"
            )
        labels = _idx_labels(path, len(images))
        notes: tuple[str, ...] = ()
        if match["before"].lower().startswith("emnist-"):  # EMNIST is published lying on its side
            images, notes = (
                np.ascontiguousarray(images.transpose(0, 2, 1)),
                ("rows and columns exchanged",),
            )
        parts[split] = Raw(images, labels, notes)
    return parts


def _idx_labels(images: Path, count: int) -> np.ndarray | None:
    stem = (
        images.name.lower()
        .removesuffix(".gz")
        .replace("-images", "-labels")
        .replace("idx3", "idx1")
    )
    for path in visible_files(images.parent):
        if path.name.lower() in (stem, stem + ".gz"):
            labels = formats.read_idx(path)
            if labels.shape != (count,):
                raise FileError(
                    path, f"expected {count} labels for {images.name}, got shape {labels.shape}"
                )
            return labels
    return None


def _mat(folder: Path) -> Parts:
    parts: Parts = {}
    unused = []
    paths = visible_files(folder, ".mat")
    spoken = {path: split_name(path.stem)[0] for path in paths}
    for path in paths:
        if spoken[path] is None and any(spoken.values()):
            unused.append(path.name)
            continue
        for part, raw in _mat_parts(path, spoken[path] or WHOLE).items():
            if part in parts:
                raise FileError(
                    folder,
                    f"more than one MATLAB file for {part or 'the whole'}: {path.name} and another",
                )
            parts[part] = raw
    notes = (f"files not used: {', '.join(unused)}",) if unused else ()
    return {part: raw._replace(notes=(*raw.notes, *notes)) for part, raw in parts.items()}


def _mat_parts(path: Path, part: str) -> Parts:
    arrays, notes = examples_first(path, formats.read_mat(path))
    found = parts_of_arrays(path, arrays, file_part=part)
    return {split: raw._replace(notes=(*notes, *raw.notes)) for split, raw in found.items()}


def is_imagenet_batch(name: str) -> bool:
    """Whether a file's name is that of a batch of the downsampled ImageNet of 2017."""
    return _IMAGENET.fullmatch(name) is not None


def _imagenet_batches(folder: Path) -> Parts:
    """The downsampled ImageNet in batches, ``.npz`` or pickled: rows of planes, labels from 1.

    References:
      Chrabaszcz, Loshchilov and Hutter, 2017, A downsampled variant of ImageNet, arXiv:1707.08819.
    """
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in visible_files(folder):
        if match := _IMAGENET.fullmatch(path.name):
            found.setdefault(PART_NAMES[match["part"]], []).append(
                (int(match["number"] or 0), path)
            )
    return {
        part: _joined(folder, [path for _, path in sorted(paths)]) for part, paths in found.items()
    }


def _joined(folder: Path, paths: list[Path]) -> Raw:
    batches = [_imagenet_batch(path) for path in paths]
    if len({images.shape[1:] for images, _ in batches}) > 1:
        raise FileError(
            folder,
            f"expected batches of images of one size: {', '.join(path.name for path in paths)}",
        )
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return Raw(images, labels, (f"{len(paths)} batches",))


def _imagenet_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    sides = (8, 16, 32, 64)
    if path.suffix != ".npz":
        return formats.read_cifar_pickle(path, sides=sides)
    arrays = formats.read_npz(path)
    images = formats.planes_to_images(arrays["data"], sides) if "data" in arrays else None
    if images is None or arrays.get("labels", np.empty(0)).shape != (len(images),):
        raise FileError(
            path,
            "expected 'data', rows of three planes of 8x8 to 64x64, and 'labels', one for each",
        )
    return images, arrays["labels"]


def _npz(folder: Path) -> Parts:
    paths = visible_files(folder, ".npz")
    if not paths:
        return {}
    if len(paths) == 1:
        return parts_of_arrays(paths[0], formats.read_npz(paths[0]))
    return _one_file_each(
        folder, paths, lambda path: parts_of_arrays(path, formats.read_npz(path))[WHOLE]
    )


def _npy(folder: Path) -> Parts:
    paths = visible_files(folder, ".npy")
    if len(paths) == 1:
        part = PART_NAMES.get(paths[0].stem.lower(), WHOLE)
        return {part: Raw(formats.read_npy(paths[0]))}
    return (
        parts_of_arrays(folder, {path.stem: formats.read_npy(path) for path in paths})
        if paths
        else {}
    )


def _text(folder: Path) -> Parts:
    paths = [path for path in visible_files(folder, *TEXT) if layout(path) is not None]
    if len(paths) == 1:
        part = split_name(paths[0].name.split(".")[0])[0]
        return {part or WHOLE: read_delimited(paths[0])}
    return _one_file_each(folder, paths, read_delimited) if paths else {}


def _one_file_each(folder: Path, paths: list[Path], read: Callable[[Path], Raw]) -> Parts:
    """Parts from files that are called by their parts and alike otherwise."""
    spoken = [split_name(path.name.split(".")[0]) for path in paths]
    parts = [part for part, _ in spoken]
    if None in parts or len(set(parts)) < len(parts) or len({rest for _, rest in spoken}) > 1:
        names = ", ".join(path.name for path in paths[:5])
        raise FileError(
            folder,
            f"holds {len(paths)} {paths[0].suffix} files; name one of them, or call them by parts: {names}, ...",
        )
    return {str(part): read(path) for part, path in zip(parts, paths, strict=True)}


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
        images, labels = (
            np.concatenate(arrays) for arrays in zip(*(read(path) for path in batches), strict=True)
        )
        test = place / f"test_batch{suffix}"
        train = {"train": Raw(images, labels)}
        return train | {"test": Raw(*read(test))} if test.exists() else train
    for place in inner:  # CIFAR-100
        train, test = place / f"train{suffix}", place / f"test{suffix}"
        if train.is_file() and test.is_file():
            extra = {"label_bytes": 2} if suffix else {}
            return {"train": Raw(*read(train, **extra)), "test": Raw(*read(test, **extra))}
    return {}

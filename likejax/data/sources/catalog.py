"""Names of datasets and the places of their files, for ``datasets`` and ``load`` alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from likejax.data.parts import is_hidden, split_name, visible_files
from likejax.data.readers.delimited import SUFFIXES as TEXT
from likejax.data.readers.delimited import layout
from likejax.data.readers.images import IMAGE_SUFFIXES
from likejax.data.readers.named_arrays import keys_of_parts
from likejax.data.sources.folders import FILES
from likejax.data.sources.forms import is_idx, is_imagenet_batch, is_kuzushiji
from likejax.data.sources.known import known
from likejax.data.sources.tables import TABLES
from likejax.data.sources.texts import is_text

_DEEPEST = 4
"""Folders below the folder of all data in which datasets are looked for."""


def place_of(folder: Path, name: str) -> Path | None:
    """Finds a folder ``name``, a file ``name``, or a file ``name`` with a known ending.

    Args:
      folder: Folder of data files.
      name: Path inside the folder, with or without the ending of a file.

    Returns:
      The path; ``None`` if there is no such file, or TFDS prepared the folder.

    Raises:
      ValueError: If files of several forms have that name.
    """
    place = folder / name
    if not name or is_prepared(place):
        return None
    if place.is_dir():
        return place
    if place.is_file() and place.name.lower().endswith(FILES):
        return place
    found = [path for suffix in FILES if (path := place.with_name(place.name + suffix)).is_file()]
    if len(found) > 1:
        names = " or ".join(repr(path.relative_to(folder).as_posix()) for path in found)
        raise ValueError(f"{name!r} is the name of {len(found)} files: load {names}")
    return found[0] if found else None


def named_places(folder: Path) -> dict[str, Path]:
    """Every dataset below a folder, by the name that ``place_of`` finds it by.

    Args:
      folder: Folder of data files.

    Returns:
      Paths by name, in the order of the names.
    """
    places = [*_loose_files(folder), *_below(folder, 1)]
    short = [_short(place) for place in places]
    found = {}
    for place, name in zip(places, short, strict=True):
        called = name if short.count(name) == 1 else place
        found[called.relative_to(folder).as_posix()] = place
    return dict(sorted(found.items()))


def prepared(folder: Path) -> list[str]:
    """Names of the TFDS datasets that were prepared in a folder, with their configuration.

    Args:
      folder: Folder of TFDS.

    Returns:
      Names in alphabetical order, such as ``mnist`` or ``emnist/letters``.
    """
    found = [*folder.glob("*/*/features.json"), *folder.glob("*/*/*/features.json")]
    return sorted({path.parent.parent.relative_to(folder).as_posix() for path in found})


def is_prepared(place: Path) -> bool:
    """Whether TFDS prepared a dataset in a folder.

    Args:
      place: Folder of one dataset.
    """
    return any(place.glob("*/features.json"))


def _short(place: Path) -> Path:
    """A file without the ending that ``place_of`` adds; a folder as it is."""
    if place.is_dir():
        return place
    suffix = max((end for end in FILES if place.name.lower().endswith(end)), key=len)
    return place.with_name(place.name[: -len(suffix)]) if place.name.endswith(suffix) else place


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Datasets in the folders of a folder."""
    for place in _folders(folder):
        if place.name == "tfds" or is_prepared(place) or depth > _DEEPEST:
            continue
        if _is_one(place) or (depth == 1 and _is_table(place)):
            yield place
            continue
        loose, inner = _loose_files(place), list(_below(place, depth + 1))
        are_pictures = bool(inner) and all(_is_pictures(each) for each in inner)
        if are_pictures and all(each.name.endswith(TEXT) for each in loose):
            yield place  # folders of images: parts or classes of one dataset, and words about them
        else:
            yield from (*loose, *inner)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden([path.name]))


def _is_one(folder: Path) -> bool:
    """Whether the files directly in a folder are one dataset."""
    names = [path.name for path in visible_files(folder)]
    if known(folder.name).layout is not None and _has_pictures_or_archives(folder):
        return True
    if any(is_idx(name) or is_imagenet_batch(name) or name.endswith(".mat") for name in names):
        return True
    if archives := [name for name in names if name.endswith(".npz")]:
        are_kuzushiji = all(is_kuzushiji(name) for name in archives)
        return len(archives) == 1 or are_kuzushiji or _are_parts(archives)
    if arrays := [name.removesuffix(".npy") for name in names if name.endswith(".npy")]:
        return len(arrays) == 1 or bool(keys_of_parts(arrays)[0])
    if any(name.startswith(("data_batch_", "test_batch")) for name in names) or _is_cifar100(names):
        return True
    if any(place.name.startswith("cifar") and _is_one(place) for place in _folders(folder)):
        return True
    if any(name.lower().endswith((*IMAGE_SUFFIXES, ".zip")) for name in names):
        return True
    tables = [path for path in visible_files(folder, *TEXT) if layout(path) is not None]
    if _folders(folder) and any(_has_pictures(place) for place in _folders(folder)):
        return False  # words about images, not a table of its own
    return len(tables) == 1 or _are_parts([path.name for path in tables])


def _is_table(folder: Path) -> bool:
    """Whether a folder holds the raw files of a benchmark table."""
    names = {path.name for path in visible_files(folder)}
    return folder.name in TABLES and any(set(files) <= names for files in TABLES[folder.name].files)


def _is_cifar100(names: list[str]) -> bool:
    return {"train", "test"} <= set(names) or {"train.bin", "test.bin"} <= set(names)


def _are_parts(names: list[str]) -> bool:
    titles = [split_name(name.split(".")[0]) for name in names]
    parts = [part for part, _ in titles]
    return bool(parts) and None not in parts and len({rest for _, rest in titles}) == 1


def _loose_files(folder: Path) -> list[Path]:
    """Files of a folder that are datasets of their own."""
    found = visible_files(folder, *FILES)
    texts = visible_files(folder, *TEXT)
    return [path for path in found if path not in texts or is_text(path) or layout(path)]


def _is_pictures(place: Path) -> bool:
    return place.is_dir() and _has_pictures(place)


def _has_pictures_or_archives(folder: Path) -> bool:
    return bool(visible_files(folder, ".zip")) or _has_pictures(folder)


def _has_pictures(folder: Path) -> bool:
    """Whether there is an image below a folder; stops at the first."""
    for place, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if not is_hidden([name])]
        if any(name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden([name]) for name in files):
            return bool(place)
    return False

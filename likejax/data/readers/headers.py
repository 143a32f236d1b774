"""What the files of a dataset hold, told from their headers, without reading their values."""

from __future__ import annotations

from pathlib import Path

from likejax.data.parts import is_hidden, visible_files
from likejax.data.readers import formats
from likejax.data.readers.delimited import SUFFIXES as TEXT
from likejax.data.readers.delimited import layout
from likejax.data.readers.formats import FileError
from likejax.data.sources.folders import is_idx, is_imagenet_batch

_MOST = 6
"""Most arrays or files that are named."""


def outline_of(place: Path) -> str:
    """A line on the arrays in a file or a folder: names, shapes, types; or what is wrong with them."""
    try:
        told = _file(place) if place.is_file() else _folder(place)
    except (FileError, OSError) as error:
        return str(error)
    more = [f"and {len(told) - _MOST} more"] if len(told) > _MOST else []
    return ", ".join(told[:_MOST] + more)


def _file(path: Path) -> list[str]:
    name = path.name.lower()
    if name.endswith(TEXT):
        how = layout(path)
        return [] if how is None else [f"{path.name}: table of {how.count} columns"]
    if path.suffix == ".npy":
        return [f"{path.stem} {formats.npy_header(path)}"]
    arrays = formats.npz_headers(path) if path.suffix == ".npz" else formats.mat_headers(path)
    return [f"{key} {header}" for key, header in arrays.items()]


def _folder(folder: Path) -> list[str]:
    if paths := [path for path in visible_files(folder) if is_idx(path.name)]:
        return [f"{path.name.split('-images')[0]} {formats.idx_header(path)}" for path in paths]
    if paths := [path for path in visible_files(folder) if is_imagenet_batch(path.name)]:
        return [f"{len(paths)} batches of the downsampled ImageNet"]
    for ending in (".mat", ".npz", ".npy"):
        if paths := visible_files(folder, ending):
            return [told for path in paths for told in _in_folder(path, ending)]
    for look in (_cifar, _pictures, _zips):
        if told := look(folder):
            return told
    return [told for path in visible_files(folder, *TEXT) for told in _file(path)]


def _in_folder(path: Path, ending: str) -> list[str]:
    return [f"{path.stem}: {told}" for told in _file(path)] if ending == ".mat" else _file(path)


def _cifar(folder: Path) -> list[str]:
    inner = [
        folder,
        *(place for place in folder.iterdir() if place.is_dir() and place.name.startswith("cifar")),
    ]
    names = [path.name for place in inner for path in place.iterdir()]
    count = sum(name.startswith(("data_batch_", "test_batch")) for name in names)
    return [f"{count} CIFAR batches of (32, 32, 3) uint8"] if count else []


def _pictures(folder: Path) -> list[str]:
    """The first image, and the folders above it that may be parts or classes."""
    for path in folder.rglob("*"):
        inner = path.relative_to(folder).parts
        if path.suffix.lower() in formats.IMAGE_SUFFIXES and not is_hidden(inner):
            return [f"images like {formats.image_header(str(path), path)}{_in_folders(folder)}"]
    return []


def _in_folders(folder: Path) -> str:
    names = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not is_hidden([path.name])
    )
    more = ", ..." if len(names) > _MOST else ""
    return f" in {len(names)} folders ({', '.join(names[:_MOST])}{more})" if names else ""


def _zips(folder: Path) -> list[str]:
    told = []
    for path in visible_files(folder, ".zip"):
        entries = formats.images_in_zip(path)
        name, read = entries[0]
        told.append(f"{path.name}: {len(entries)} images like {formats.image_header(name, read())}")
    return told

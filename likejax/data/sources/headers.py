"""Contents of the files of a dataset by their headers, without reading their values."""

from __future__ import annotations

from pathlib import Path

from likejax.data.parts import is_hidden, visible_files
from likejax.data.readers.delimited import SUFFIXES as TEXT
from likejax.data.readers.delimited import layout
from likejax.data.readers.files import FileError
from likejax.data.readers.idx import idx_header
from likejax.data.readers.images import IMAGE_SUFFIXES, files_in_zip, image_header
from likejax.data.readers.mat import mat_headers
from likejax.data.readers.numpy_files import npy_header, npz_headers
from likejax.data.sources.forms import is_idx, is_imagenet_batch, places_of_cifar
from likejax.data.sources.texts import is_text

_MOST_NAMED = 6
"""Most arrays or files that are named."""


def outline_of(place: Path) -> str:
    """Describes the arrays in a file or a folder in a line, or what is wrong with them.

    Args:
      place: A file or a folder.
    """
    try:
        found = _file(place) if place.is_file() else _folder(place)
    except (FileError, OSError) as error:
        return str(error)
    more = [f"and {len(found) - _MOST_NAMED} more"] if len(found) > _MOST_NAMED else []
    return ", ".join(found[:_MOST_NAMED] + more)


def _file(path: Path) -> list[str]:
    name = path.name.lower()
    if is_text(path):
        return [f"{path.name}: text of {path.stat().st_size} bytes"]
    if name.endswith(TEXT):
        how = layout(path)
        return [] if how is None else [f"{path.name}: table of {how.count} columns"]
    if path.suffix == ".npy":
        return [f"{path.stem} {npy_header(path)}"]
    arrays = npz_headers(path) if path.suffix == ".npz" else mat_headers(path)
    return [f"{key} {header}" for key, header in arrays.items()]


def _folder(folder: Path) -> list[str]:
    if paths := [path for path in visible_files(folder) if is_idx(path.name)]:
        return [f"{path.name.split('-images')[0]} {idx_header(path)}" for path in paths]
    if paths := [path for path in visible_files(folder) if is_imagenet_batch(path.name)]:
        return [f"{len(paths)} batches of the downsampled ImageNet"]
    for ending in (".mat", ".npz", ".npy"):
        if paths := visible_files(folder, ending):
            return [found for path in paths for found in _in_folder(path, ending)]
    for look in (_cifar, _pictures, _zips):
        if found := look(folder):
            return found
    return [found for path in visible_files(folder, *TEXT) for found in _file(path)]


def _in_folder(path: Path, ending: str) -> list[str]:
    return [f"{path.stem}: {found}" for found in _file(path)] if ending == ".mat" else _file(path)


def _cifar(folder: Path) -> list[str]:
    names = [path.name for place in places_of_cifar(folder) for path in place.iterdir()]
    count = sum(name.startswith(("data_batch_", "test_batch")) for name in names)
    return [f"{count} CIFAR batches of (32, 32, 3) uint8"] if count else []


def _pictures(folder: Path) -> list[str]:
    """The first image, and the folders above it that may be parts or classes."""
    for path in folder.rglob("*"):
        inner = path.relative_to(folder).parts
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(inner):
            return [f"images like {image_header(str(path), path)}{_in_folders(folder)}"]
    return []


def _in_folders(folder: Path) -> str:
    names = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not is_hidden([path.name])
    )
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return f" in {len(names)} folders ({', '.join(names[:_MOST_NAMED])}{more})" if names else ""


def _zips(folder: Path) -> list[str]:
    found = []
    for path in visible_files(folder, ".zip"):
        entries = files_in_zip(path, IMAGE_SUFFIXES)
        if not entries:
            continue  # an archive of lists
        name, read = entries[0]
        found.append(f"{path.name}: {len(entries)} images like {image_header(name, read())}")
    return found

"""Image files in folders and zip archives: part and class of each picture."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from likejax.data.parts import PART_NAMES, WHOLE, Raw, is_hidden, split_name, visible_files
from likejax.data.readers.files import FileError
from likejax.data.readers.images import IMAGE_SUFFIXES, files_in_zip, read_images


class Picture(NamedTuple):
    """An image file.

    Attributes:
      path: Folders and name within the source.
      name: Name for messages.
      open: Function that returns what Pillow can open.
    """

    path: tuple[str, ...]
    name: str
    open: Callable[[], Any]

    @property
    def top(self) -> str:
        """The first folder of the path; empty for an image outside of folders."""
        return self.path[0] if len(self.path) > 1 else ""


def parts_in_folder(folder: Path, *, left_out: frozenset[str] = frozenset()) -> dict[str, Raw]:
    """Reads the images below a folder.

    Parts are folders called ``train``, ``test`` and so on, classes the folders below them.

    Args:
      folder: The folder of a dataset.
      left_out: Names of files that are not read, because they are published damaged.

    Returns:
      Examples and labels by part; empty if there is no image.

    Raises:
      FileError: If parts or classes are not clear, or an image is damaged.
    """
    pictures = pictures_in_folder(folder)
    kept = [picture for picture in pictures if picture.path[-1] not in left_out]
    parts = _parts(folder, _without_wrapper(kept), each_once=False)
    if len(kept) == len(pictures):
        return parts
    note = f"{len(pictures) - len(kept)} pictures that are published damaged left out"
    return {part: raw._replace(notes=(*raw.notes, note)) for part, raw in parts.items()}


def parts_in_zips(folder: Path, pattern: str) -> dict[str, Raw]:
    """Reads the images in zip archives, each distinct picture of a class once.

    Archives of one dataset often overlap.

    Args:
      folder: The folder of a dataset.
      pattern: Pattern of the names of its archives, such as ``*.zip``.

    Returns:
      Examples and labels by part; empty if there is no archive.

    Raises:
      FileError: If parts or classes are not clear, or a file is damaged.
    """
    files = visible_files(folder)
    archives = [path for path in files if fnmatch.fnmatchcase(path.name.lower(), pattern)]
    if not archives:
        return {}
    titles = {path.name: split_name(path.stem) for path in archives}
    are_parts = _all_name_parts(titles)
    pictures: list[Picture] = []
    for archive in archives:
        part, _ = titles[archive.name]
        inside = _without_wrapper(pictures_in_zip(archive))
        if not inside:
            raise FileError(archive, "holds no image")
        prefix = (str(part),) if are_parts else ()
        pictures += [picture._replace(path=prefix + picture.path) for picture in inside]
    return _parts(folder, pictures, each_once=True)


def pictures_in_folder(folder: Path) -> list[Picture]:
    """Lists the image files below a folder, by their paths, without those that are hidden.

    Args:
      folder: The folder of a dataset.
    """
    pictures = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        if is_image and not is_hidden(inner):
            pictures.append(Picture(inner, str(path), lambda path=path: path))
    return pictures


def pictures_in_zip(archive: Path) -> list[Picture]:
    """Lists the image files in a zip archive, by their paths in it.

    Args:
      archive: The archive; it may hold no image.

    Raises:
      FileError: If the archive is damaged or too large.
    """
    pictures = []
    for inner, open_entry in files_in_zip(archive, IMAGE_SUFFIXES):
        path = tuple(word for word in inner.split("/") if word)
        pictures.append(Picture(path, f"{archive}:{inner!r}", open_entry))
    return pictures


def _without_wrapper(pictures: list[Picture]) -> list[Picture]:
    """Paths without the one folder that holds everything in an archive, unless it is a part."""
    while pictures and all(len(picture.path) > 1 for picture in pictures):
        tops = {picture.path[0] for picture in pictures}
        if len(tops) > 1 or split_name(next(iter(tops)))[0] is not None:
            break
        pictures = [picture._replace(path=picture.path[1:]) for picture in pictures]
    return pictures


def _parts(place: Path, pictures: list[Picture], *, each_once: bool) -> dict[str, Raw]:
    parts, notes = _by_part(place, pictures)
    classes = {picture.top for part in parts.values() for picture in part}
    if "" in classes and len(classes) > 1:
        named = ", ".join(sorted(classes - {""})[:5])
        raise FileError(
            place,
            f"holds images beside folders of images ({named}): move them into folders of their "
            "own, or the folders "
            "away, so that it is clear whether the folders are classes",
        )
    labeled = len(classes) > 1
    return {part: _read(inside, labeled, notes, each_once) for part, inside in parts.items()}


def _by_part(
    place: Path, pictures: list[Picture]
) -> tuple[dict[str, list[Picture]], tuple[str, ...]]:
    """Pictures by part, with paths below the part; ``WHOLE`` if no folder names one."""
    tops = sorted({picture.top for picture in pictures})
    titles = {top: split_name(top) for top in tops}
    exact = [top for top in tops if top.lower() in PART_NAMES]
    if len(exact) > 1 or exact == tops:
        part_of = {top: PART_NAMES[top.lower()] for top in exact}
    elif _all_name_parts(titles):
        part_of = {top: str(part) for top, (part, _) in titles.items()}
    elif exact:
        others = ", ".join(top or "images" for top in tops if top not in exact)
        raise FileError(
            place,
            f"holds a folder {exact[0]!r} beside {others}: if {exact[0]!r} is a part, leave only "
            "parts beside it; if "
            "it is a class, put the classes into a folder train",
        )
    else:
        _check_no_parts_below(place, pictures)
        return ({WHOLE: pictures} if pictures else {}), ()
    if len(set(part_of.values())) < len(part_of):
        raise FileError(
            place, f"holds two folders for one part: {', '.join(part_of)}; keep one of them"
        )
    unused = [top or "images outside of folders" for top in tops if top not in part_of]
    notes = (f"not used: {', '.join(unused)}",) if unused else ()
    parts: dict[str, list[Picture]] = {}
    for picture in pictures:
        if picture.top in part_of:
            parts.setdefault(part_of[picture.path[0]], []).append(
                picture._replace(path=picture.path[1:])
            )
    return parts, notes


def _all_name_parts(titles: dict[str, tuple[str | None, str]]) -> bool:
    """Whether names differ in the part alone, as ``train_32x32`` and ``valid_32x32`` do."""
    all_have_parts = all(part is not None for part, _ in titles.values())
    rests = {rest for _, rest in titles.values()}
    return all_have_parts and len(rests) == 1


def _check_no_parts_below(place: Path, pictures: list[Picture]) -> None:
    for picture in pictures:
        below = [name for name in picture.path[1:-1] if name.lower() in PART_NAMES]
        if below:
            raise FileError(
                place,
                f"holds a part below another folder ({'/'.join(picture.path[:-1])}), whose parts "
                "would be mixed: load "
                f"{picture.path[0]!r} by its own name, or put train/ and test/ on top",
            )


def _read(
    pictures: Sequence[Picture], labeled: bool, notes: tuple[str, ...], each_once: bool
) -> Raw:
    images, found = read_images((picture.name, picture.open()) for picture in pictures)
    labels = np.array([picture.path[0] for picture in pictures]) if labeled else None
    notes = (*notes, *found)
    raw = Raw(images, labels, notes)
    return _without_copies(raw) if each_once else raw


def _without_copies(raw: Raw) -> Raw:
    """Each picture of a class once."""
    classes = [""] * len(raw.examples) if raw.labels is None else raw.labels.tolist()
    seen: dict[tuple[str, bytes], int] = {}
    for row, image in enumerate(raw.examples):
        seen.setdefault((classes[row], image.tobytes()), row)
    left_out = len(raw.examples) - len(seen)
    if not left_out:
        return raw
    rows = sorted(seen.values())
    labels = None if raw.labels is None else raw.labels[rows]
    notes = (*raw.notes, f"{left_out} repeated pictures left out")
    return Raw(raw.examples[rows], labels, notes)

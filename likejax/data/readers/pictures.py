"""Image files in folders and zip archives: which picture is of which part and which class."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from likejax.data.parts import PART_NAMES, WHOLE, Raw, is_hidden, split_name
from likejax.data.readers import formats
from likejax.data.readers.formats import FileError


class Picture(NamedTuple):
    """An image file: its path within the source, what messages call it, and how to open it."""

    path: tuple[str, ...]
    name: str
    open: Callable[[], Any]

    @property
    def top(self) -> str:
        """The first folder of the path; empty for an image outside of folders."""
        return self.path[0] if len(self.path) > 1 else ""


def parts_in_folder(folder: Path) -> dict[str, Raw]:
    """Images below a folder: parts are folders called ``train``, ``test`` ..., classes the folders below them."""
    return _parts(folder, _without_wrapper(_pictures_in_folder(folder)), each_once=False)


def parts_in_zips(folder: Path, pattern: str) -> dict[str, Raw]:
    """Images in zip archives, each distinct picture of a class once: archives that overlap are common."""
    named = (path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name.lower(), pattern))
    archives = sorted(path for path in named if path.is_file() and not is_hidden([path.name]))
    if not archives:
        return {}
    spoken = [split_name(path.stem) for path in archives]
    by_part = all(part is not None for part, _ in spoken) and len({rest for _, rest in spoken}) == 1
    pictures: list[Picture] = []
    for archive, (part, _) in zip(archives, spoken, strict=True):
        inside = _without_wrapper(_pictures_in_zip(archive))
        prefix = (str(part),) if by_part else ()
        pictures += [picture._replace(path=prefix + picture.path) for picture in inside]
    return _parts(folder, pictures, each_once=True)


def _pictures_in_folder(folder: Path) -> list[Picture]:
    pictures = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        if (
            path.suffix.lower() in formats.IMAGE_SUFFIXES
            and not is_hidden(inner)
            and path.is_file()
        ):
            pictures.append(Picture(inner, str(path), lambda path=path: path))
    return pictures


def _pictures_in_zip(archive: Path) -> list[Picture]:
    return [
        Picture(
            tuple(word for word in inner.split("/") if word), f"{archive}:{inner!r}", open_entry
        )
        for inner, open_entry in formats.images_in_zip(archive)
    ]


def _without_wrapper(pictures: list[Picture]) -> list[Picture]:
    """Paths without the one folder that holds everything, as archives have it, unless it names a part."""
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
            f"holds images beside folders of images ({named}): move them into folders of their own, or the folders "
            "away, so that it is clear whether the folders are classes",
        )
    labeled = len(classes) > 1
    return {part: _read(inside, labeled, notes, each_once) for part, inside in parts.items()}


def _by_part(
    place: Path, pictures: list[Picture]
) -> tuple[dict[str, list[Picture]], tuple[str, ...]]:
    """Pictures by part, with paths below the part; ``WHOLE`` if no folder names one."""
    tops = sorted({picture.top for picture in pictures})
    spoken = {top: split_name(top) for top in tops}
    exact = [top for top in tops if top.lower() in PART_NAMES]
    if len(exact) > 1 or exact == tops:
        part_of = {top: PART_NAMES[top.lower()] for top in exact}
    elif _all_name_parts(spoken):
        part_of = {top: str(part) for top, (part, _) in spoken.items()}
    elif exact:
        others = ", ".join(top or "images" for top in tops if top not in exact)
        raise FileError(
            place,
            f"holds a folder {exact[0]!r} beside {others}: if {exact[0]!r} is a part, leave only parts beside it; if "
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


def _all_name_parts(spoken: dict[str, tuple[str | None, str]]) -> bool:
    """Whether all folders are called alike but for the part: ``train_32x32`` and ``valid_32x32``."""
    return (
        bool(spoken)
        and all(part is not None for part, _ in spoken.values())
        and len({rest for _, rest in spoken.values()}) == 1
    )


def _check_no_parts_below(place: Path, pictures: list[Picture]) -> None:
    for picture in pictures:
        below = [name for name in picture.path[1:-1] if name.lower() in PART_NAMES]
        if below:
            raise FileError(
                place,
                f"holds a part below another folder ({'/'.join(picture.path[:-1])}), whose parts would be mixed: load "
                f"{picture.path[0]!r} by its own name, or put train/ and test/ on top",
            )


def _read(
    pictures: Sequence[Picture], labeled: bool, notes: tuple[str, ...], each_once: bool
) -> Raw:
    images, found = formats.read_images((picture.name, picture.open()) for picture in pictures)
    labels = np.array([picture.path[0] for picture in pictures]) if labeled else None
    notes = (*notes, *found)
    if each_once:
        seen: dict[tuple[str, bytes], int] = {}
        for row, image in enumerate(images):
            seen.setdefault(("" if labels is None else str(labels[row]), image.tobytes()), row)
        if len(seen) < len(images):
            notes = (*notes, f"{len(images) - len(seen)} repeated pictures left out")
        rows = sorted(seen.values())
        images, labels = images[rows], None if labels is None else labels[rows]
    return Raw(images, labels, notes)

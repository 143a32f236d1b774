"""Layouts of single published datasets, whose parts and classes stand in lists beside the images.

A layout that is not there gives no parts, and the folder is read as any other folder of images.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from likejax.data.parts import WHOLE, Raw, is_hidden, visible_files
from likejax.data.readers.files import FileError, read_at_most
from likejax.data.readers.image_folders import Picture, pictures_in_folder, pictures_in_zip
from likejax.data.readers.images import files_in_zip, read_images

if TYPE_CHECKING:
    from PIL.Image import Image

Parts = dict[str, Raw]

FACE = "middle 140x140 of 218x178, resized to 64x64 (box)"
"""Description of what is done to CelebA's aligned faces when they are read."""
_LARGEST_LIST = 1 << 28
"""Most bytes of a list."""
_LISTS = (".txt", ".csv")


class Contents(NamedTuple):
    """Images and lists below a folder and in its zip archives.

    Attributes:
      pictures: Images; those of archives only where the folder has no others.
      lists: Readers of texts by the names of their files.
    """

    pictures: list[Picture]
    lists: Mapping[str, Callable[[], str]]


class Labeled(NamedTuple):
    """An image file and the name of its class; ``None`` if no list says it."""

    picture: Picture
    label: str | None


def tiny_imagenet(folder: Path) -> Parts:
    """Tiny ImageNet, ``tiny-imagenet-200``: a list has the classes of ``val``, ``test`` has none.

    The part published as ``val`` becomes the test part, as in any source without another. The few
    gray pictures are repeated to three channels.

    Args:
      folder: Folder of the unpacked archive, or of the archive itself.

    Raises:
      FileError: If a picture of ``val`` is not in the list, or one is damaged.
    """
    found = contents(folder)
    if "val_annotations.txt" not in found.lists:
        return {}
    rows = [line.split("\t") for line in found.lists["val_annotations.txt"]().splitlines()]
    classes = {row[0]: row[1] for row in rows if len(row) > 1}
    parts: dict[str, list[Labeled]] = {"train": [], "validation": []}
    for picture in found.pictures:
        words = [word for word in picture.path[:-1] if word != "images"]
        if "train" in words:
            parts["train"].append(Labeled(picture, words[-1]))
        elif "val" in words:
            label = classes.get(picture.path[-1])
            if label is None:
                raise FileError(picture.name, "its class is not in val_annotations.txt")
            parts["validation"].append(Labeled(picture, label))
    notes = ("gray pictures repeated to 3 channels", "not used: test, which has no classes")
    return _read(parts, _in_color, notes)


def gtsrb(folder: Path) -> Parts:
    """German traffic signs: classes are folders in the training part, a list in the test part.

    The pictures have sizes from 15x15 to 250x250; all of each is resized to 32x32. Known are the
    folders of the published archives, of torchvision's (``GTSRB/Training``), and ``Train``,
    ``Test`` and ``Test.csv``.

    Args:
      folder: Folder of the unpacked archives, or of the archives themselves.

    Raises:
      FileError: If a list is not readable, or a picture is damaged.

    References:
      Stallkamp, Schlipsing, Salmen and Igel, 2012, Man vs. computer: benchmarking machine learning
      algorithms for traffic sign recognition.
    """
    found = contents(folder)
    classes: dict[str, str] = {}
    for name in ("GT-final_test.csv", "Test.csv"):
        if name in found.lists:
            classes |= _sign_classes(name, found.lists[name]())
    parts: dict[str, list[Labeled]] = {"train": [], "test": []}
    for picture in found.pictures:
        above = Path(*picture.path).parent.name
        if above.isdigit():
            parts["train"].append(Labeled(picture, above))
        elif above in ("Images", "Test"):
            parts["test"].append(Labeled(picture, classes.get(picture.path[-1])))
    return _read(parts, _sign, ("all of the picture resized to 32x32 (bilinear)",))


def celeba(folder: Path) -> Parts:
    """CelebA's aligned faces: a list has their parts.

    The faces are 218x178 and would fill 24 GB: the middle 140x140 is kept and resized to 64x64.

    Args:
      folder: Folder of ``img_align_celeba``, unpacked or not, and of ``list_eval_partition.txt``
        or ``.csv``.

    Raises:
      FileError: If the list lacks a picture, or a picture is damaged.

    References:
      Liu, Luo, Wang and Tang, 2015, Deep learning face attributes in the wild.
    """
    found = contents(folder)
    names = ("list_eval_partition.txt", "list_eval_partition.csv")
    lists = [found.lists[name]() for name in names if name in found.lists]
    if not found.pictures:
        return {}
    if not lists:
        whole = [Labeled(picture, None) for picture in found.pictures]
        return _read({WHOLE: whole}, resized_face, (FACE, "no list_eval_partition.txt"))
    rows = [line.replace(",", " ").split() for line in lists[0].splitlines()]
    parts_by_number = {"0": "train", "1": "validation", "2": "test"}
    part_of = {row[0]: parts_by_number.get(row[1]) for row in rows if len(row) == 2}
    parts: dict[str, list[Labeled]] = {"train": [], "validation": [], "test": []}
    for picture in found.pictures:
        part = part_of.get(picture.path[-1])
        if part is None:
            raise FileError(picture.name, "its part is not in list_eval_partition")
        parts[part].append(Labeled(picture, None))
    return _read(parts, resized_face, (FACE,))


def resized_face(picture: Image) -> Image:
    """Resizes the middle of a face of CelebA, as ``FACE`` says.

    Args:
      picture: Image of Pillow, of any size from 140x140.
    """
    from PIL.Image import Resampling

    left, top = (picture.width - 140) // 2, (picture.height - 140) // 2
    middle = picture.crop((left, top, left + 140, top + 140))
    return middle.resize((64, 64), Resampling.BOX)


def contents(folder: Path) -> Contents:
    """Lists the images and the texts of a dataset, unpacked or in zip archives.

    Args:
      folder: The folder of a dataset.

    Raises:
      FileError: If an archive is damaged or too large.
    """
    lists: dict[str, Callable[[], str]] = {}
    pictures: list[Picture] = []
    for archive in visible_files(folder, ".zip"):
        pictures += pictures_in_zip(archive)
        for name, read in files_in_zip(archive, _LISTS):
            lists[name.rsplit("/", 1)[-1]] = partial(_text_of_entry, read)
    for path in sorted(folder.rglob("*")):
        is_list = path.suffix.lower() in _LISTS and path.is_file()
        if is_list and not is_hidden(path.relative_to(folder).parts):
            lists[path.name] = partial(_text_of_file, path)
    return Contents(pictures_in_folder(folder) or pictures, lists)


def _text_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return read_at_most(file, _LARGEST_LIST).decode("utf-8", errors="replace")


def _text_of_entry(read: Callable[[], io.BytesIO]) -> str:
    return read_at_most(read(), _LARGEST_LIST).decode("utf-8", errors="replace")


def _sign_classes(name: str, text: str) -> dict[str, str]:
    """The class of each test picture, by the name of its file."""
    separator = ";" if ";" in text.split("\n", 1)[0] else ","
    rows = list(csv.DictReader(io.StringIO(text), delimiter=separator))
    column = next((key for key in ("Filename", "Path") if rows and key in rows[0]), None)
    if column is None or "ClassId" not in rows[0]:
        raise FileError(name, "expected columns Filename (or Path) and ClassId")
    return {str(row[column]).rsplit("/", 1)[-1]: str(row["ClassId"]) for row in rows}


def _in_color(picture: Image) -> Image:
    return picture.convert("RGB")


def _sign(picture: Image) -> Image:
    from PIL.Image import Resampling

    return picture.convert("RGB").resize((32, 32), Resampling.BILINEAR)


def _read(
    parts: Mapping[str, Sequence[Labeled]],
    prepare: Callable[[Image], Image],
    notes: tuple[str, ...],
) -> Parts:
    """Reads the pictures of every part that has some; labels only where all have one."""
    read = {}
    for part, labeled in parts.items():
        if not labeled:
            continue
        files = ((each.picture.name, each.picture.open()) for each in labeled)
        images, found = read_images(files, prepare=prepare)
        labels = [each.label for each in labeled if each.label is not None]
        classes = np.array(labels) if len(labels) == len(labeled) else None
        read[part] = Raw(images, classes, (*notes, *found))
    return read

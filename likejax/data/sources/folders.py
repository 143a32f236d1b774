"""Datasets in folders and single files: the first known form that fits, made into datasets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from likejax.data.dataset import Dataset
from likejax.data.parts import WHOLE, Raw
from likejax.data.readers.delimited import SUFFIXES as TEXT
from likejax.data.readers.delimited import read_delimited
from likejax.data.readers.files import FileError
from likejax.data.readers.image_folders import parts_in_folder, parts_in_zips
from likejax.data.readers.named_arrays import parts_of_arrays
from likejax.data.readers.numpy_files import read_npy, read_npz
from likejax.data.sources import forms
from likejax.data.sources.assembly import assembled
from likejax.data.sources.known import known

FILES = (".npz", ".npy", ".mat", *TEXT)
"""Endings of the names of single files that are datasets."""


def load_folder(folder: Path, name: str) -> dict[str, Dataset]:
    """Reads the parts that the files of a folder make up, in the first known form that fits.

    The forms are IDX pairs, MATLAB files by part, ``.npz`` with ``x_train`` and the like, ``.npy``,
    CIFAR batches (binary or python), folders or zip archives of images, and tables as text. The
    layouts of CelebA, GTSRB and Tiny ImageNet are known by the names of these datasets.

    Args:
      folder: The folder.
      name: Name of the dataset.

    Returns:
      Datasets by part; what names no part has the key ``WHOLE``.

    Raises:
      FileError: If no file is of a known form, or one is damaged.
    """
    facts = known(name)
    pictures = partial(parts_in_folder, left_out=facts.damaged)
    zips = partial(parts_in_zips, pattern=facts.archives)
    own = () if facts.layout is None else (facts.layout,)
    for form in (
        *own,
        forms.idx,
        forms.mat,
        forms.imagenet_batches,
        forms.npz,
        forms.npy,
        forms.cifar_binary,
        forms.cifar_python,
        pictures,
        zips,
        forms.text,
    ):
        parts = form(folder)
        if parts:
            return assembled(folder, name, parts)
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise FileError(
        folder,
        "no file of a known form: expected IDX (train-images-idx3-ubyte.gz ...), .npz with "
        "x_train/x_test, .npy, "
        f"MATLAB 5, .csv, CIFAR batches, or images in train/ and test/; found {found}",
    )


def load_file(path: Path, name: str) -> dict[str, Dataset]:
    """Reads the parts in a single file: ``.npz``, ``.npy``, ``.mat`` or a table as text.

    Args:
      path: The file.
      name: Name of the dataset.

    Returns:
      Datasets by part; what names no part has the key ``WHOLE``.

    Raises:
      FileError: If it is damaged or of another form.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        parts = parts_of_arrays(path, read_npz(path))
    elif suffix == ".npy":
        parts = {WHOLE: Raw(read_npy(path))}
    elif suffix == ".mat":
        parts = forms.mat_parts(path, WHOLE)
    else:
        parts = {WHOLE: read_delimited(path)}
    return assembled(path, name, parts)

"""One function that finds a dataset by name, whatever its source."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from likejax.data.builtin import load_digits, load_photographs
from likejax.data.dataset import Dataset
from likejax.data.folders import load_folder, named_part, npz_parts
from likejax.data.splits import carve, pick, with_validation
from likejax.data.steps import apply_steps
from likejax.data.tables import TABLES, load_table
from likejax.data.toys import TOYS, load_toy

BUILT_IN = {"digits": load_digits, "photographs": load_photographs}
"""Name to loader of the images that need no files."""


def load(name: str, *, split: str = "train", data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """A part of a dataset.

    Sources, in this order: built in (``digits``, ``photographs``, the eight 2-D toys); a folder or ``.npz`` file
    ``name`` in ``data_dir``; TFDS by name (``tfds/name`` asks for it outright). A source without a validation
    part gets one from its training part, always the same rows; a source with one part has ``test`` only.

    Args:
      name: A dataset's name, or the path of a folder below ``data_dir``, such as ``uci/redwine``; steps may follow
        it, ``omniglot+invert+resize:28x28`` (see ``data.steps``).
      split: ``train``, ``validation`` or ``test``; they never overlap.
      data_dir: Where files lie; the environment variable ``LIKEJAX_DATA`` if not given.

    Raises:
      ValueError: If there is no such dataset or part, or a file is damaged; the message says what to do.

    Example:
      >>> import likejax as lj
      >>> lj.load("digits", split="test")
      Dataset('digits', test, n=359, (8, 8, 1), 17 levels, labelled)
    """
    folder = _folder(data_dir)
    name, *steps = name.split("+")
    return apply_steps(pick(name, _parts(name, folder, _stamp(folder, name)), split), steps)


def datasets(data_dir: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Names that ``load`` knows here, each with its source: built in, or a folder of files."""
    found = dict.fromkeys(BUILT_IN, "built in") | dict.fromkeys(TOYS, "built in, 2-D points")
    folder = _folder(data_dir)
    if folder is not None:
        for place in sorted(p for p in folder.rglob("*") if p.is_dir() and "tfds" not in p.relative_to(folder).parts):
            depth = len(place.relative_to(folder).parts)
            if depth <= 2 and _has_data(place):
                names = [place] if len(list(place.glob("*.npz"))) < 2 else sorted(place.glob("*.npz"))
                for path in names:
                    found[path.relative_to(folder).with_suffix("").as_posix()] = "files"
        for place in sorted((folder / "tfds").glob("*")):
            found[f"tfds/{place.name}"] = "TFDS, prepared"
    return found


def _has_data(place: Path) -> bool:
    known = (
        ".gz",
        ".mat",
        ".npz",
        ".npy",
        ".bin",
        ".zip",
        ".hdf5",
        ".csv",
        "_co.txt",
        ".png",
        ".jpg",
        "-ubyte",
        "_batch",
    )
    return any(path.is_file() and path.name.lower().endswith(known) for path in place.iterdir())


def _folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    given = data_dir if data_dir is not None else os.environ.get("LIKEJAX_DATA")
    if given is None:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise ValueError(f"expected data_dir to be a folder, {folder} is none")
    return folder.resolve()


def _stamp(folder: Path | None, name: str) -> tuple[tuple[str, int, int], ...]:
    """What changes when the files of a dataset do."""
    if folder is None:
        return ()
    place = folder / name
    paths = sorted(place.rglob("*")) if place.is_dir() else [place.with_suffix(".npz")]
    return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in paths if p.is_file())


@lru_cache(maxsize=2)  # a call for each split should read the files once
def _parts(name: str, folder: Path | None, stamp: tuple[tuple[str, int, int], ...]) -> dict[str, Dataset]:
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name in TOYS:
        return load_toy(name)
    if not name.startswith("tfds/") and folder is not None:
        place = folder / name
        if place.is_dir():
            table = load_table(place, name) if name in TABLES else None
            return table or _completed(load_folder(place, name))
        if place.with_suffix(".npz").is_file():
            path = place.with_suffix(".npz")
            return _completed({s: named_part(path, name, s, part) for s, part in npz_parts(path).items()})
    return _from_tfds(name, folder)


def _completed(parts: dict[str, Dataset]) -> dict[str, Dataset]:
    """With a validation part; a table of one part, which has no order to respect, is cut in three."""
    only = parts.get("test")
    if len(parts) == 1 and only is not None and only.levels is None:
        return carve(only.name, only, {"train": 1.0, "validation": 0.1, "test": 0.1})
    return with_validation(parts)


def _from_tfds(name: str, folder: Path | None) -> dict[str, Dataset]:
    from likejax.data.tfds import load_tfds

    short = name.removeprefix("tfds/")
    prepared = folder / "tfds" if folder is not None and (folder / "tfds").is_dir() else folder
    try:
        return _completed(load_tfds(short, prepared))
    except ValueError as error:
        where = f"{folder}/{name} does not exist" if folder else "no data_dir was given and LIKEJAX_DATA is not set"
        known = ", ".join((*BUILT_IN, *TOYS))
        raise ValueError(
            f"no dataset {name!r}: it is not built in ({known}), and {where}; put its files (IDX, .npz, .npy, MATLAB, "
            f"CIFAR batches or images) into a folder of that name and pass data_dir. {error}"
        ) from error

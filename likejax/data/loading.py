"""Loading of datasets by their names, whatever the source."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from likejax.data.dataset import Dataset, check_split
from likejax.data.sources.builtin import load_digits, load_photographs
from likejax.data.sources.catalog import named_places, place_of, prepared
from likejax.data.sources.folders import load_file, load_folder
from likejax.data.sources.headers import outline_of
from likejax.data.sources.known import PUBLISHED
from likejax.data.sources.tables import TABLES, load_table
from likejax.data.sources.texts import is_text, load_text
from likejax.data.sources.toys import TOYS, load_toy
from likejax.data.splits import completed, select_split
from likejax.data.steps import apply_steps
from likejax.names import meant

BUILT_IN = {"digits": load_digits, "photographs": load_photographs}
"""Name to loader of the images that need no files."""


def load(
    name: str, *, split: str = "train", data_dir: str | os.PathLike[str] | None = None
) -> Dataset:
    """Loads a part of a dataset.

    Sources, in this order: built in (``digits``, ``photographs``, the eight 2-D toys); a folder
    ``name`` in ``data_dir``, or a file ``name`` of a known ending (``.npz``, ``.npy``, ``.mat``,
    ``.csv`` and other tables of text); TFDS by name (``tfds/name`` asks for it outright; ``svhn``,
    ``imagenet32`` and the like are known by the names that the presets use). Parts that a source
    lacks are carved from it, always the same rows, and the provenance says so: validation from
    train; all three from a source that names no parts. A part published as ``valid`` beside
    ``train`` alone is the test part. A source with a test part alone has only that. A ``.txt`` file
    in a folder ``text`` is no table but prose, in rows of 64 characters; its parts are stretches.

    Args:
      name: A dataset's name, or the path of a folder or file below ``data_dir``, such as
        ``uci/redwine``; steps may follow it, ``omniglot+invert+resize:28x28`` (see ``data.steps``).
      split: ``train``, ``validation`` or ``test``; parts that are carved never overlap.
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.

    Raises:
      ValueError: If there is no such dataset or part, or a file is damaged; the message says what
        to do.

    Example:
      >>> import likejax as lj
      >>> lj.load("digits", split="test")
      Dataset('digits', test, n=359, (8, 8, 1) uint8, 17 levels, 10 classes)
    """
    parts, steps = _found(name, _folder(data_dir), split)
    return apply_steps(select_split(name, parts, split), steps)


def load_parts(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> dict[str, Dataset]:
    """Loads all parts of a dataset.

    Args:
      name: Name of a dataset, which ``load`` explains.
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.

    Raises:
      ValueError: If there is no such dataset, or a file is damaged.

    Example:
      >>> from likejax.data import load_parts
      >>> list(load_parts("digits"))
      ['train', 'validation', 'test']
    """
    parts, steps = _found(name, _folder(data_dir), "train")
    return {split: apply_steps(part, steps) for split, part in parts.items()}


def datasets(data_dir: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Lists the names that ``load`` knows here.

    Args:
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.

    Example:
      >>> import likejax as lj
      >>> lj.data.datasets()["digits"]
      'built in'
    """
    found = dict.fromkeys(BUILT_IN, "built in") | dict.fromkeys(TOYS, "built in, 2-D points")
    folder = _folder(data_dir)
    if folder is not None:
        found |= {name: "files" for name in named_places(folder) if name not in found}
        found |= {f"tfds/{name}": "TFDS, prepared" for name in prepared(_tfds_folder(folder))}
    return found


def source_of(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> str:
    """Says where ``load`` finds a dataset here, without reading or fetching it.

    Args:
      name: Name of a dataset, which ``load`` explains; steps behind it are not checked.
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.

    Returns:
      ``built in``, ``files`` or ``TFDS, prepared``; empty if it is not in any of them.

    Raises:
      ValueError: If ``data_dir`` is not a folder, or files of several forms have the name.

    Example:
      >>> import likejax as lj
      >>> lj.data.source_of("digits+hflip")
      'built in'
    """
    folder = _folder(data_dir)
    dataset, _ = _without_steps(name, folder)
    if dataset in BUILT_IN or dataset in TOYS:
        return "built in"
    if folder is None:
        return ""
    short = dataset.removeprefix("tfds/")
    if short == dataset and place_of(folder, dataset) is not None:
        return "files"
    return "TFDS, prepared" if _name_in_tfds(short) in prepared(_tfds_folder(folder)) else ""


def outline(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> str:
    """Describes the files of a dataset by their headers alone; empty if there are none.

    Args:
      name: Name of a dataset, without steps.
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.

    Returns:
      Line with the shapes and types of the arrays, or with the error of a file.

    Raises:
      ValueError: If ``data_dir`` is not a folder, or files of several forms have the name.
    """
    folder = _folder(data_dir)
    place = None if folder is None or name in BUILT_IN or name in TOYS else place_of(folder, name)
    return "" if place is None else outline_of(place)


def _found(name: str, folder: Path | None, split: str) -> tuple[dict[str, Dataset], list[str]]:
    """All parts of a dataset, and the steps that stand behind its name."""
    check_split(split)
    if not isinstance(name, str):
        raise TypeError(
            f"expected the name of a dataset, got {type(name).__name__}: lj.data.datasets() lists "
            "them"
        )
    dataset, steps = _without_steps(name, folder)
    return _parts(dataset, folder, _stamp(folder, dataset)), steps


def _without_steps(name: str, folder: Path | None) -> tuple[str, list[str]]:
    """The longest beginning of a name that is a dataset, and the steps behind it.

    Both may contain plus signs.
    """
    words = name.split("+")
    for count in range(len(words), 1, -1):
        longer = "+".join(words[:count])
        if folder is not None and place_of(folder, longer) is not None:
            return longer, words[count:]
    return words[0], words[1:]


def _folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    given = data_dir if data_dir is not None else os.environ.get("LIKEJAX_DATA")
    if given is None:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise ValueError(f"expected data_dir to be a folder, {folder} is not one")
    return folder.resolve()


def _tfds_folder(folder: Path) -> Path:
    return folder / "tfds" if (folder / "tfds").is_dir() else folder


def _stamp(folder: Path | None, name: str) -> tuple[tuple[str, int, int], ...]:
    """Paths, times and sizes of the files of a dataset: they change when the files do."""
    place = None if folder is None or name in BUILT_IN or name in TOYS else place_of(folder, name)
    if place is None:
        return ()
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in paths if p.is_file())


@lru_cache(maxsize=2)  # a call for each split should read the files once
def _parts(
    name: str, folder: Path | None, stamp: tuple[tuple[str, int, int], ...]
) -> dict[str, Dataset]:
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name in TOYS:
        return load_toy(name)
    place = None if folder is None or name.startswith("tfds/") else place_of(folder, name)
    if place is None:
        return _from_tfds(name, folder)
    if is_text(place):
        return load_text(place, name)
    if place.is_file():
        return completed(load_file(place, name))
    table = load_table(place, name) if name in TABLES else None
    return table or completed(load_folder(place, name))


def _name_in_tfds(name: str) -> str:
    from likejax.data.sources.tfds import NAMES

    return NAMES.get(name, name)


def _from_tfds(name: str, folder: Path | None) -> dict[str, Dataset]:
    from likejax.data.sources.tfds import load_tfds

    short = name.removeprefix("tfds/")
    theirs = _name_in_tfds(short)
    try:
        return completed(load_tfds(theirs, None if folder is None else _tfds_folder(folder)))
    except ValueError as error:
        where = "no data_dir was given and LIKEJAX_DATA is not set"
        if folder:
            where = f"{folder}/{name} does not exist"
        known = ", ".join((*BUILT_IN, *TOYS))
        near = "" if name in PUBLISHED else meant(name, (*datasets(folder), *PUBLISHED))
        if near and short == name:  # a slip of the pen needs no help with TFDS
            raise ValueError(
                f"no dataset {name!r}{near} It is not built in ({known}), {where}, and TFDS has "
                f"none that can be read here; lj.load('tfds/{name}') says why"
            ) from error
        other = f" TFDS calls it {theirs!r}." if theirs != short else ""
        raise ValueError(
            f"no dataset {name!r}: it is not built in ({known}), and {where}; put its "
            "files (IDX, .npz, .npy, MATLAB, .csv, CIFAR batches or images) into a folder of that "
            f"name and pass data_dir (--data-dir on the command line).{other} {error}"
        ) from error

"""Raw parts of a source, before they are datasets, and the names of parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num, Shaped

WHOLE = ""
"""Key of the one part of a source whose files name no part."""
PART_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "t10k": "test",
}
"""From the names that publishers give to a part to its split."""


class Raw(NamedTuple):
    """Examples of a part as a file holds them.

    Attributes:
      examples: ``(n, ...)``.
      labels: Numbers or names, ``(n,)``, or ``None``.
      notes: Notes on changes and omissions, for the provenance.
      columns: Names of the columns of a table.
      conditions: Numbers ``(n, *condition_shape)``, or ``None``.
    """

    examples: Num[np.ndarray, "n ..."]
    labels: Shaped[np.ndarray, " n"] | None = None
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    conditions: Num[np.ndarray, "n ..."] | None = None


def split_name(text: str) -> tuple[str | None, str]:
    """Splits a name into its part and the rest: ``train_32x32`` gives ``("train", "32x32")``.

    A name without a part, or with two, gives ``None`` and itself, in small letters.

    Args:
      text: Name of a file, a folder or an array, without its ending.

    Returns:
      The split, ``train``, ``validation`` or ``test``, and the other words.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]
    parts = [word for word in words if word in PART_NAMES]
    if len(parts) != 1:
        return None, text.lower()
    return PART_NAMES[parts[0]], " ".join(word for word in words if word != parts[0])


def is_hidden(path: Iterable[str]) -> bool:
    """Whether a path leads through files that archivers, notebooks and file managers leave.

    Args:
      path: Names of the folders and of the file.
    """
    return any(name.startswith(".") or name in ("__MACOSX", "__pycache__") for name in path)


def visible_files(folder: Path, *suffixes: str) -> list[Path]:
    """The files directly in a folder, by name, without those that are hidden.

    Args:
      folder: Folder whose own folders are not searched.
      *suffixes: Endings in small letters, such as ``.npz``; all files if none is given.
    """
    found = (path for path in folder.iterdir() if not is_hidden([path.name]) and path.is_file())
    return sorted(path for path in found if not suffixes or path.name.lower().endswith(suffixes))

"""Folders of saved scores: a record, arrays and densities, written whole and verified when read."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from likejax.density import Density
from likejax.storage.density import checksum_of, restore, save
from likejax.storage.files import digest, directory_path, write_atomically
from likejax.storage.store import CheckpointError

_RECORD = "score.json"
_ARRAYS = "score.npz"

SCORES = {
    "negative log-likelihood": "NegativeLogProb",
    "typicality": "Typicality",
    "likelihood ratio": "LikelihoodRatio",
    "input complexity": "InputComplexity",
    "complexity only": "ComplexityOnly",
    "hierarchy ratio": "HierarchyRatio",
}
"""Classes of ``likejax.ood`` by the names that records of layout 2 have for them."""


class Saved(NamedTuple):
    """The contents of a folder.

    Attributes:
      record: Entries for JSON.
      arrays: Arrays by name.
      densities: Densities by name.
    """

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    densities: dict[str, Density]


def write_folder(directory: str | os.PathLike[str], contents: Saved) -> None:
    """Writes a folder. The record comes last and has the checksums of everything else.

    Args:
      directory: Directory to write to; created if absent.
      contents: Record, arrays and densities.
    """
    place = directory_path(directory)
    place.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for name, density in contents.densities.items():
        save(density, place / name)
        checksums[name] = checksum_of(density)
    arrays = io.BytesIO()
    np.savez(arrays, **contents.arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(place / _ARRAYS, arrays.getvalue())
    record = contents.record | {"densities": checksums, "arrays": _file_digest(place / _ARRAYS)}
    record["digest"] = digest(record)
    write_atomically(place / _RECORD, json.dumps(record, indent=2))


def read_folder(directory: str | os.PathLike[str], densities: Mapping[str, Density]) -> Saved:
    """Reads a folder and verifies all checksums.

    Args:
      directory: Directory to read.
      densities: Densities of the same structure, by name, for those that have no config.

    Raises:
      CheckpointError: If a file is missing or damaged.
      ValueError: If ``densities`` has a name that the folder does not have.
    """
    place = directory_path(directory)
    record = json.loads((place / _RECORD).read_text())
    if record["digest"] != digest(record):
        raise CheckpointError(f"{place / _RECORD} does not have the checksum that was written")
    if record["arrays"] != _file_digest(place / _ARRAYS):
        raise CheckpointError(f"{place / _ARRAYS} does not have the checksum that was written")
    checksums = record["densities"]
    unknown = [name for name in densities if name not in checksums]
    if unknown:
        known = ", ".join(checksums)
        raise ValueError(f"expected densities called {known}, got {unknown[0]!r}")
    with np.load(place / _ARRAYS, allow_pickle=False) as archive:
        arrays = dict(archive)
    found = {}
    for name, checksum in checksums.items():
        found[name] = restore(place / name, density=densities.get(name))
        if checksum_of(found[name]) != checksum:
            raise CheckpointError(
                f"{place / name} is not the density that the score was saved with"
            )
    return Saved(_modern(record), arrays, found)


def _modern(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record in the present form: those of layout 2 name a score in words."""
    if not isinstance(record["score"], str):
        return record
    name = record["score"]
    if name not in SCORES:
        known = ", ".join(SCORES)
        raise CheckpointError(f"expected a score of {known}, the record holds {name!r}")
    score = {"class": f"likejax.ood:{SCORES[name]}", **record["settings"]}
    others = [density for density in record["densities"] if density != "density"]
    companions = dict.fromkeys(("background",), others[0]) if others else {}
    return record | {"score": score, "companions": companions}


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

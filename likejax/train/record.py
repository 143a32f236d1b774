"""The record of a run in its directory: its experiment, and the rows that chose its weights."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from likejax.data.dataset import Dataset
from likejax.data.splits import row_hashes
from likejax.experiment import Experiment, record_of, to_json, with_defaults
from likejax.storage.density import RECORD, holds_density
from likejax.storage.files import directory_path, write_atomically
from likejax.storage.store import CheckpointError

SELECTION = "selection.npy"
_FREE = {
    "steps",
    "validate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "samples_every",
    "tensorboard",
    "validation_examples",
    "overlap_tolerance",
    "early_stopping",
    "parameter_shards",
    "initialize_with",
    "model.sampler",
}
"""Settings that may change when a run goes on."""
_KINDS = ("class", "name", "density")
"""Entries that name the kind of an object, on which its other settings depend."""
_ABSENT = object()


def write_record(workdir: Path, experiment: Experiment) -> None:
    """Writes the experiment to the run's directory, whole or not at all.

    Args:
      workdir: Directory of the run, created if absent.
      experiment: Experiment that is run.

    Raises:
      CheckpointError: If it cannot be written.
    """
    if jax.process_index() != 0:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / RECORD, to_json(experiment))
    except OSError as error:
        raise CheckpointError(
            f"could not write {workdir / RECORD}: {error.strerror or error}; make room or choose "
            "another workdir. Complete checkpoints there are intact"
        ) from error


def check_record(workdir: Path, experiment: Experiment) -> None:
    """Refuses to go on with a run of another model, data or optimizer.

    Args:
      workdir: Directory of the run.
      experiment: Experiment that is asked for.

    Raises:
      CheckpointError: If a setting differs; the message names it.
    """
    path = workdir / RECORD
    if not path.exists():
        if holds_density(workdir):
            raise CheckpointError(
                f"{workdir} holds a saved density: choose another workdir for the run"
            )
        return
    different = _differences(with_defaults(read_json(path)), record_of(experiment))
    if different:
        shown = "; ".join(different[:5])
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise CheckpointError(
            f"{workdir} holds a run with other settings: {shown}{more}. Resume it with those of "
            "the run, or choose another workdir"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ between two records and may not, by their dotted names."""
    were, are = _flat(before), _flat(now)
    different = [
        name
        for name in {**are, **were}
        if name not in _FREE and were.get(name, _ABSENT) != are.get(name, _ABSENT)
    ]
    # another objective or family has other settings altogether: its name is enough
    of_other_kind = {_owner(name) for name in different if _last(name) in _KINDS}

    def is_told(name: str) -> bool:
        is_in_both = name in were and name in are
        return _owner(name) not in of_other_kind or is_in_both or _last(name) in _KINDS

    return [
        f"{name}: {_shown(were, name)} in the run, {_shown(are, name)} now"
        for name in different
        if is_told(name)
    ]


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of a nested record by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(record: Mapping[str, Any], name: str) -> str:
    return repr(record[name]) if name in record else "not there"


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file of a run.

    Args:
      path: File of the run.

    Raises:
      CheckpointError: If the file is damaged.
    """
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise TypeError(f"expected an object, got {type(record).__name__}")
        return record
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): restore it, or choose another workdir"
        ) from error


def run_directory(directory: str | os.PathLike[str]) -> Path:
    """Returns the path of the directory of a run.

    Args:
      directory: The run's ``workdir``.

    Raises:
      TypeError: If it is no path.
      CheckpointError: If there is no such directory, or it holds no run.
    """
    place = directory_path(directory)
    if not place.exists():
        raise CheckpointError(f"expected the directory of a run, {place} does not exist")
    if not (place / RECORD).exists():
        raise CheckpointError(f"expected the directory of a run, {place} has no {RECORD}")
    return place


def note_selection(workdir: Path, validation: Dataset | None) -> None:
    """Adds rows to those that choose the weights of a run, so that nothing is calibrated on them.

    Rows are never taken back: when a run goes on with other validation rows, both have chosen. The
    run of an older version, which has no such note, gets none: which rows chose its weights so far
    is not known.

    Args:
      workdir: Directory of the run, created if absent.
      validation: Examples as the density sees them; ``None`` if nothing selects.

    Raises:
      CheckpointError: If the note cannot be written, or the one that is there is damaged.
    """
    if jax.process_index() != 0:
        return
    path = workdir / SELECTION
    before = selection_of(workdir)
    if (workdir / RECORD).exists() and before is None:
        return
    rows = np.zeros(0, np.uint64) if validation is None else row_hashes(validation)
    if before is not None:
        rows = np.union1d(before, rows)
    content = io.BytesIO()
    np.save(content, rows)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def selection_of(directory: str | os.PathLike[str]) -> np.ndarray | None:
    """Returns hashes of the rows that chose the weights of a run, as ``row_hashes`` makes them.

    Args:
      directory: The run's ``workdir``.

    Returns:
      ``uint64`` of shape ``(n,)``, empty if nothing selected; ``None`` if the run has no note.

    Raises:
      CheckpointError: If the note is damaged.

    Example:
      >>> import tempfile, likejax as lj, numpy as np
      >>> train, valid = lj.load("moons"), lj.load("moons", split="validation")
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, steps=1, validate_every=1, validation_examples=50)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run = lj.fit(experiment, train, validation=valid, workdir=folder, key=0)
      ...     hashes = lj.train.selection_of(folder)
      >>> int(np.isin(lj.data.row_hashes(valid), hashes).sum())
      50
    """
    path = Path(directory).expanduser() / SELECTION
    if not path.exists():
        return None
    try:
        rows = np.load(path, allow_pickle=False)
        if rows.dtype != np.uint64 or rows.ndim != 1:
            raise ValueError(
                f"expected uint64 of shape (n,), got {rows.dtype} of shape {rows.shape}"
            )
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): restore it, or delete it if it is lost"
        ) from error
    return rows

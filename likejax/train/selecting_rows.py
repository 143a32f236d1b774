"""Which rows chose the weights of a run: noted in its directory, so that nothing is calibrated on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from likejax.data.dataset import Dataset
from likejax.data.splits import row_hashes
from likejax.storage.store import CheckpointError
from likejax.train.checkpoint import RECORD

SELECTION = "selection.npy"


def note_selection(workdir: Path, validation: Dataset | None) -> None:
    """Adds rows to those that choose the weights of the run in a directory.

    Rows are never taken back: when a run goes on with other validation rows, both have had their say. The run of an
    older version, which has no such note, gets none: which rows chose its weights so far is not known.

    Args:
      workdir: The run's directory, created if absent.
      validation: Examples as the density sees them; ``None`` if nothing selects.

    Raises:
      CheckpointError: If the note cannot be written, or the one that is there is damaged.
    """
    path = workdir / SELECTION
    before = selection_of(workdir)
    if (workdir / RECORD).exists() and before is None:
        return
    rows = np.zeros(0, np.uint64) if validation is None else row_hashes(validation)
    draft = workdir / (SELECTION + ".tmp")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            np.save(file, rows if before is None else np.union1d(before, rows))
        draft.replace(path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def selection_of(directory: str | os.PathLike[str]) -> np.ndarray | None:
    """Hashes of the rows that chose the weights of a run, as ``row_hashes`` makes them.

    Args:
      directory: The run's ``workdir``.

    Returns:
      ``uint64`` of shape ``(n,)``, empty if nothing selected; ``None`` if the run does not say.

    Raises:
      CheckpointError: If the note is damaged.
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

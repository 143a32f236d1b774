"""A folder of checkpoints: written whole or not at all, verified when read."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

LAYOUT = 2
"""Version of the layout on disk: 2 has a manifest of checksums, and what an exact resume needs."""


_COMMITTED = "commit_success.txt"
"""orbax's mark of a checkpoint that is on disk whole."""


class CheckpointError(ValueError):
    """A run directory that cannot be used as asked."""


class _Damaged(Exception):
    """One checkpoint that is not what was written."""


class Store:
    """The checkpoints of one folder, by step, on orbax.

    Arrays are written in the background; every checkpoint carries a JSON record and the SHA-256 of every array, since
    orbax does not notice flipped bits. What a crash leaves half-written has no commit file and is not seen.

    Args:
      directory: The folder.
      writes: Whether to write: creates the folder, and removes what a crash left in it.
    """

    def __init__(self, directory: Path, *, writes: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

        self.directory = directory
        self._writing: int | None = None
        self._failed: CheckpointError | None = None
        # not orbax's CheckpointManager, which one damaged checkpoint keeps from opening the others
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(), atomicity_options=AtomicityOptions(mode=AtomicityMode.COMMIT_FILE)
        )
        if not writes:
            return
        directory.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            whole = {str(step) for step in self.steps()}
            for place in directory.iterdir():
                if place.is_dir() and place.name not in whole:
                    shutil.rmtree(place, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        places = [place for place in self.directory.iterdir() if place.name.isdecimal()]
        return sorted(int(place.name) for place in places if (place / _COMMITTED).is_file())

    def _place(self, step: int) -> Path:
        return self.directory / str(step)

    def save(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Writes trees of host arrays and a record in the background; waits for the save before this one.

        Args:
          step: Steps done; a checkpoint of that step is replaced.
          items: Trees of dictionaries of numpy arrays, by name.
          record: What else to remember, as JSON.

        Raises:
          CheckpointError: If this save or the one before could not be written.
        """
        import orbax.checkpoint as ocp

        self.wait()
        record = {"layout": LAYOUT, "likejax": importlib.metadata.version("likejax"), **record}
        record["arrays"] = manifest(items)
        record = json.loads(json.dumps(record)) | {"digest": _digest(record)}
        trees = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        try:
            self._writing = step
            args = ocp.args.Composite(record=ocp.args.JsonSave(record), **trees)
            self._checkpointer.save(self._place(step), args=args, force=True)
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise self._failure(error) from error

    def wait(self) -> None:
        """Blocks until what is being written is on disk.

        Raises:
          CheckpointError: If it could not be written.
        """
        if self._failed is not None:
            raise self._failed
        try:
            self._checkpointer.wait_until_finished()
        except Exception as error:
            raise self._failure(error) from error
        self._writing = None

    def _failure(self, error: Exception) -> CheckpointError:
        step, self._writing = self._writing, None
        whole = ", ".join(map(str, (s for s in self.steps() if s != step))) or "none"
        self._failed = CheckpointError(
            f"could not write the checkpoint of step {step} in {self.directory}: {_reason(error)}. The complete "
            f"checkpoints there are intact (steps: {whole}); make room and run the same again, it goes on from the last"
        )
        return self._failed

    def keep(self, steps: Iterable[int]) -> None:
        """Deletes all complete checkpoints but those of ``steps``; one that is being written is left alone."""
        if jax.process_index() != 0:
            return
        for step in set(self.steps()) - set(steps):
            (self._place(step) / _COMMITTED).unlink()  # first, so that a half-deleted checkpoint is not seen
            shutil.rmtree(self._place(step), ignore_errors=True)

    def close(self) -> None:
        """Waits for what is being written and lets go."""
        try:
            self.wait()
        finally:
            try:
                self._checkpointer.close()
            except Exception as error:  # the same failure once more, already raised by wait
                warnings.warn(f"closing {self.directory}: {_reason(error)}", stacklevel=2)

    def record(self, step: int) -> dict[str, Any]:
        """The verified record of a checkpoint.

        Raises:
          CheckpointError: If it is damaged.
        """
        try:
            return self._record(step)
        except _Damaged as error:
            raise CheckpointError(f"the checkpoint of step {step} in {self.directory} is damaged: {error}") from error

    def read(
        self, templates: Callable[[dict[str, Any]], Mapping[str, Any]], *, newest: int | None = None
    ) -> tuple[int, dict[str, Any], dict[str, Any]]:
        """Step, trees and record of the newest checkpoint that verifies; damaged ones are passed over with a warning.

        Args:
          templates: From a record to the trees to read, with arrays or ``jax.ShapeDtypeStruct`` in them.
          newest: Look at checkpoints up to this step only.

        Raises:
          CheckpointError: If there is none, or it holds other arrays than the templates.
        """
        damaged = []
        for step in reversed([step for step in self.steps() if newest is None or step <= newest]):
            try:
                record = self._record(step)
                wanted = dict(templates(record))
                self._check_structure(step, record, wanted)
                return step, self._arrays(step, record, wanted), record
            except _Damaged as error:
                damaged.append(step)
                warnings.warn(
                    f"the checkpoint of step {step} in {self.directory} is damaged and passed over: {error}",
                    stacklevel=3,
                )
        what = f"; those of steps {', '.join(map(str, damaged))} are damaged" if damaged else ""
        raise CheckpointError(f"no complete checkpoint in {self.directory}{what}")

    def _record(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        try:
            args = ocp.args.Composite(record=ocp.args.JsonRestore())
            record = self._checkpointer.restore(self._place(step), args=args)["record"]
            layout = record["layout"]
        except Exception as error:  # a damaged file can raise anything
            raise _Damaged(f"its record cannot be read ({_reason(error)})") from error
        if layout == 1:
            return record
        if not isinstance(layout, int) or record.get("digest") != _digest(record):
            raise _Damaged("its record does not have the checksum that was written")
        if layout > LAYOUT:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.directory} has layout {layout}, written by likejax "
                f"{record.get('likejax')}; this version reads layouts up to {LAYOUT}: install that one or a newer one"
            )
        return record

    def _check_structure(self, step: int, record: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        if "arrays" not in record:  # layout 1; orbax refuses other shapes
            return
        there = {n: (a["shape"], a["dtype"]) for n, a in record["arrays"].items() if n.split("/")[0] in wanted}
        asked = {n: (list(a.shape), str(np.dtype(a.dtype))) for n, a in _named(wanted).items()}
        different = [name for name in {**asked, **there} if asked.get(name) != there.get(name)]
        if different:
            name = different[0]
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.directory} does not fit: it was written with another model "
                f"or optimiser. Of {len(different)} arrays that differ the first is {name}: expected "
                f"{asked.get(name, 'none')}, there is {there.get(name, 'none')}"
            )

    def _arrays(self, step: int, record: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        targets = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), dict(wanted))
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(target) for name, target in targets.items()})
        try:
            restored = self._checkpointer.restore(self._place(step), args=args)
            items = jax.tree.map(np.asarray, {name: restored[name] for name in wanted})
        except Exception as error:
            raise _Damaged(f"its arrays cannot be read ({_reason(error)})") from error
        if "arrays" not in record:
            warnings.warn(
                f"{self.directory} was written by likejax {record.get('likejax')} in layout 1, without checksums: its "
                "arrays are read as they are",
                stacklevel=4,
            )
            return items
        read = manifest(items)
        for name, entry in read.items():
            if entry["sha256"] != record["arrays"][name]["sha256"]:
                raise _Damaged(f"the array {name} does not have the checksum that was written")
        return items


def _named(items: Mapping[str, Any]) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(items))
    return {"/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def manifest(items: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Shape, type and checksum of every array; hashing runs in threads, it releases the interpreter."""
    arrays = {name: np.asarray(leaf) for name, leaf in _named(items).items()}

    def entry(array: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(arrays, pool.map(entry, arrays.values()), strict=True))


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps({k: v for k, v in record.items() if k != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _reason(error: BaseException) -> str:
    """One line of an error; of the pages that a failed write fills, what the system said."""
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO):
        if os.strerror(number) in text:
            return os.strerror(number).lower()
    lines = text.strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"

"""Folder of checkpoints, which are written whole or not at all and verified when they are read."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath, keystr

from likejax.storage.files import digest
from likejax.storage.thread import Job, StorageTimeoutError, ask

Leaf = jax.Array | np.ndarray | jax.ShapeDtypeStruct
"""An array, or the shape and type of one."""
LAYOUT = 2
"""Version of the layout on disk: 2 has a manifest of checksums, and what an exact resume needs."""


_COMMITTED = "commit_success.txt"
"""File by which orbax marks a checkpoint that is complete."""
_WIDTHS = re.compile(r"(?<=t)(32|64)$")
"""The digits of a type that depend on ``jax_enable_x64``."""


class CheckpointError(ValueError):
    """Error of a directory that cannot be used as asked: damaged, in use, or of another run.

    Example:
      >>> import tempfile, likejax as lj
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     try:
      ...         lj.restore(directory)
      ...     except lj.train.CheckpointError as error:
      ...         print(str(error).split(":")[0])
      expected the directory of a run, with experiment.json, or of a saved density, with density/
    """


class _Damaged(Exception):
    """Error of one checkpoint that differs from what was written."""


class Store:
    """Checkpoints of one folder, by step, on orbax.

    Every checkpoint carries a JSON record and the SHA-256 of every array, because orbax does not
    notice flipped bits. A checkpoint that a crash left incomplete has no commit file and is not
    seen. The storage thread of this process does all work on files (``likejax.storage.thread``), so
    any number of threads may save and restore at once. If there are several processes, all have the
    same host arrays, and the first one writes.

    Args:
      directory: Folder of the checkpoints.
      writes: Whether to write; if so, the folder is created, and what a crash left in it is
        removed.

    Attributes:
      directory: Folder of the checkpoints.

    Raises:
      CheckpointError: If the folder cannot be made.
    """

    def __init__(self, directory: Path, *, writes: bool = False):
        self.directory = directory
        self._writing: tuple[int, Job[None]] | None = None
        self._failed: CheckpointError | None = None
        if writes and jax.process_index() == 0:
            try:
                ask(f"the folder {directory} to be made ready", self._make_ready).result()
            except OSError as error:
                raise CheckpointError(f"{directory} cannot be written: {reason(error)}") from error

    def _make_ready(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        whole = {str(step) for step in self.steps()}
        for place in self.directory.iterdir():
            if place.is_dir() and place.name not in whole:
                shutil.rmtree(place, ignore_errors=True)

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        places = [place for place in self.directory.iterdir() if place.name.isdecimal()]
        return sorted(int(place.name) for place in places if (place / _COMMITTED).is_file())

    def _place(self, step: int) -> Path:
        return self.directory / str(step)

    def _where(self, step: int) -> str:
        return f"the checkpoint of step {step} in {self.directory}"

    def save(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Writes trees of host arrays and a record in the background, after the save before.

        Args:
          step: Number of steps done; a checkpoint of that step is replaced.
          items: Trees of dictionaries of numpy arrays, by name, which must not change afterwards.
          record: All other values of the checkpoint, for JSON.

        Raises:
          CheckpointError: If the save before could not be written.
        """
        self.wait()
        if jax.process_index() != 0:
            return
        what = f"the checkpoint of step {step} in {self.directory} to be written"
        copy = json.loads(json.dumps(record))  # training goes on and changes the lists in it
        self._writing = step, ask(what, lambda: self._write(step, items, copy))

    def replace(self, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Writes a checkpoint, waits for it, and then deletes all others.

        Args:
          items: Trees of dictionaries of numpy arrays, by name.
          record: All other values of the checkpoint, for JSON.

        Raises:
          CheckpointError: If it could not be written.
        """
        self.wait()
        if jax.process_index() != 0:
            return

        def write_and_keep_it() -> None:
            step = max(self.steps(), default=-1) + 1
            self._write(step, items, record)
            self.keep([step])

        what = f"the density in {self.directory} to be written"
        self._writing = max(self.steps(), default=-1) + 1, ask(what, write_and_keep_it)
        self.wait()

    def _write(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Writes a checkpoint, in the storage thread."""
        import orbax.checkpoint as ocp

        record = {"layout": LAYOUT, "likejax": importlib.metadata.version("likejax"), **record}
        record["arrays"] = manifest(items)
        record = json.loads(json.dumps(record)) | {"digest": digest(record)}
        trees = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        with _checkpointer() as checkpointer:
            args = ocp.args.Composite(record=ocp.args.JsonSave(record), **trees)
            checkpointer.save(self._place(step), args=args, force=True)

    def wait(self) -> None:
        """Blocks until what is being written is on disk.

        Raises:
          CheckpointError: If it could not be written.
        """
        if self._failed is not None:
            raise self._failed
        if self._writing is None:
            return
        step, job = self._writing
        try:
            job.result()
        except Exception as error:  # orbax and tensorstore raise many kinds
            self._failed = self._failure(step, error)
            raise self._failed from error
        self._writing = None

    def _failure(self, step: int, error: Exception) -> CheckpointError:
        whole = ", ".join(map(str, (s for s in self.steps() if s != step))) or "none"
        return CheckpointError(
            f"could not write the checkpoint of step {step} in {self.directory}: "
            f"{reason(error)}. The complete checkpoints there are intact (steps: {whole}); make "
            "room and run the same again, it goes on from the last"
        )

    def keep(self, steps: Iterable[int]) -> None:
        """Deletes all complete checkpoints but those of ``steps``.

        Args:
          steps: Steps of the checkpoints that stay.
        """
        if jax.process_index() != 0:
            return
        for step in set(self.steps()) - set(steps):
            # the mark first, so that a half-deleted checkpoint is not seen
            (self._place(step) / _COMMITTED).unlink(missing_ok=True)
            shutil.rmtree(self._place(step), ignore_errors=True)

    def record(self, step: int) -> dict[str, Any]:
        """Returns the verified record of a checkpoint.

        Args:
          step: Step of the checkpoint.

        Raises:
          CheckpointError: If it is damaged.
        """
        try:
            return self._record(step)
        except _Damaged as error:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.directory} is damaged: {error}"
            ) from error

    def read(
        self, templates: Callable[[dict[str, Any]], Mapping[str, Any]], *, newest: int | None = None
    ) -> tuple[int, dict[str, Any], dict[str, Any]]:
        """Returns step, trees and record of the newest intact checkpoint; warns of damaged ones.

        Args:
          templates: Function from a record to the trees to read, whose leaves are arrays or
            ``jax.ShapeDtypeStruct``.
          newest: Largest step to look at; ``None`` for all.

        Raises:
          CheckpointError: If there is none, or it holds other arrays than the templates.
        """
        damaged, tried = [], set()
        while left := {step for step in self.steps() if newest is None or step <= newest} - tried:
            step = max(left)  # listed anew each time: who saves meanwhile replaces what was there
            tried.add(step)
            try:
                record = self._record(step)
                wanted = dict(templates(record))
                check_structure(self._where(step), record, wanted)
                return step, self._arrays(step, record, wanted), record
            except _Damaged as error:
                if step not in self.steps():
                    continue
                damaged.append(step)
                warnings.warn(
                    f"the checkpoint of step {step} in {self.directory} is damaged and passed "
                    f"over: {error}",
                    stacklevel=3,
                )
        what = f"; those of steps {', '.join(map(str, damaged))} are damaged" if damaged else ""
        raise CheckpointError(f"no complete checkpoint in {self.directory}{what}")

    def _restore(self, step: int, args: Callable[[Any], Any]) -> Any:
        """Reads with orbax; ``args`` makes the arguments from orbax's module of arguments."""

        def read() -> Any:
            import orbax.checkpoint as ocp

            with _checkpointer() as checkpointer:
                return checkpointer.restore(self._place(step), args=args(ocp.args))

        return ask(f"the checkpoint of step {step} in {self.directory} to be read", read).result()

    def _record(self, step: int) -> dict[str, Any]:
        try:
            record = self._restore(step, lambda args: args.Composite(record=args.JsonRestore()))[
                "record"
            ]
            layout = record["layout"]
        except StorageTimeoutError as error:  # nothing is known of the files
            raise CheckpointError(str(error)) from error
        except Exception as error:  # a damaged file can raise anything
            raise _Damaged(f"its record cannot be read ({reason(error)})") from error
        if layout == 1:
            return record
        if not isinstance(layout, int) or record.get("digest") != digest(record):
            raise _Damaged("its record does not have the checksum that was written")
        if layout > LAYOUT:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.directory} has layout {layout}, written "
                f"by likejax {record.get('likejax')}; this version reads layouts up to {LAYOUT}: "
                "install that one or a newer one"
            )
        return record

    def _arrays(
        self, step: int, record: Mapping[str, Any], wanted: Mapping[str, Any]
    ) -> dict[str, Any]:
        written = record.get("arrays", {})

        def as_written(name: str, leaf: Leaf) -> np.ndarray:
            dtype = jnp.dtype(written[name]["dtype"]) if name in written else leaf.dtype
            return np.empty(leaf.shape, dtype)

        targets = jax.tree_util.tree_map_with_path(
            lambda path, leaf: as_written(_name(path), leaf), dict(wanted)
        )
        try:
            restored = self._restore(
                step,
                lambda args: args.Composite(
                    **{name: args.StandardRestore(tree) for name, tree in targets.items()}
                ),
            )
            items = jax.tree.map(np.asarray, {name: restored[name] for name in wanted})
        except StorageTimeoutError as error:
            raise CheckpointError(str(error)) from error
        except Exception as error:
            raise _Damaged(f"its arrays cannot be read ({reason(error)})") from error
        if not written:
            warnings.warn(
                f"{self.directory} was written by likejax {record.get('likejax')} in layout 1, "
                "without checksums: its arrays are read as they are",
                stacklevel=4,
            )
            return items
        read = manifest(items)
        for name, entry in read.items():
            if entry["sha256"] != written[name]["sha256"]:
                raise _Damaged(f"the array {name} does not have the checksum that was written")
        return in_this_precision(self._where(step), items, wanted)


def check_structure(where: str, record: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises a CheckpointError unless what was written has the arrays that are wanted.

    Args:
      where: The checkpoint or file, in words.
      record: Record with the manifest of what was written.
      wanted: Trees to read, whose leaves have a shape and a type.

    Raises:
      CheckpointError: If an array is missing, is not wanted, or has another shape or type.
    """
    if "arrays" not in record:  # layout 1; orbax refuses other shapes
        return
    there = {
        n: (a["shape"], a["dtype"])
        for n, a in record["arrays"].items()
        if n.split("/")[0] in wanted
    }
    asked = {n: (list(a.shape), str(np.dtype(a.dtype))) for n, a in named(wanted).items()}
    different = [name for name in {**asked, **there} if not _fits(there.get(name), asked.get(name))]
    if different:
        name = different[0]
        raise CheckpointError(
            f"{where} does not fit: it was written with another model or optimizer. Of "
            f"{len(different)} arrays that differ the first is {name}: expected "
            f"{asked.get(name, 'none')}, there is {there.get(name, 'none')}"
        )


def in_this_precision(where: str, items: dict[str, Any], wanted: Mapping[str, Any]) -> Any:
    """Returns the arrays in the types that this process computes in (``jax_enable_x64``).

    Args:
      where: The checkpoint or file, in words.
      items: Trees of arrays that were read.
      wanted: Trees of the same structure, whose leaves have a type.
    """
    shortened = []

    def convert(path: KeyPath, array: np.ndarray, like: Leaf) -> np.ndarray:
        if array.dtype.itemsize > np.dtype(like.dtype).itemsize:
            shortened.append(_name(path))
        return array.astype(like.dtype, copy=False)

    converted = jax.tree_util.tree_map_with_path(convert, items, dict(wanted))
    if shortened:
        warnings.warn(
            f"{where} was written in 64 bits (jax_enable_x64) and is read in 32: "
            f"{len(shortened)} arrays are rounded, the first is {shortened[0]}; to read all "
            "their digits, call jax.config.update('jax_enable_x64', True) first",
            stacklevel=4,
        )
    return converted


def _fits(there: tuple[list[int], str] | None, asked: tuple[list[int], str] | None) -> bool:
    """Whether an array can be read as asked: it is equal, or differs in 32 or 64 bits."""
    if there is None or asked is None:
        return False
    return there[0] == asked[0] and _WIDTHS.sub("", there[1]) == _WIDTHS.sub("", asked[1])


def _checkpointer() -> Any:
    """A checkpointer that does not wait for other processes; for the storage thread only."""
    import orbax.checkpoint as ocp
    from orbax.checkpoint.options import AtomicityMode, AtomicityOptions, MultiprocessingOptions

    # not orbax's CheckpointManager, which one damaged checkpoint keeps from opening the others
    this_process = jax.process_index()
    alone = MultiprocessingOptions(primary_host=this_process, active_processes={this_process})
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(composite_options=options),
        multiprocessing_options=alone,
        atomicity_options=AtomicityOptions(mode=AtomicityMode.COMMIT_FILE),
    )


def named(items: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of trees by their names, the path of each with slashes.

    Args:
      items: Trees of arrays by name.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(items))
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: KeyPath) -> str:
    return keystr(path, simple=True, separator="/")


def manifest(items: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns shape, type and checksum of every array, hashed in threads.

    Args:
      items: Trees of arrays by name.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in named(items).items()}

    def entry(array: np.ndarray) -> dict[str, Any]:
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        sha256 = hashlib.sha256(content).hexdigest()
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": sha256}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(arrays, pool.map(entry, arrays.values()), strict=True))


def reason(error: BaseException) -> str:
    """The first line of an error, or the system's reason in the long text of a failed write.

    Args:
      error: Error of the system or of the library that writes the files.
    """
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO):
        if os.strerror(number) in text:
            return os.strerror(number).lower()
    lines = text.strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"

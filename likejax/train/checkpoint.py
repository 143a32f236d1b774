"""Checkpoints of a training run: what it needs to go on, and the best density."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from likejax import processes
from likejax.data.batches import Position
from likejax.nn.repeat import for_backend, stack
from likejax.nn.state import Arrays, Structure, merge, split
from likejax.storage.density import density_items
from likejax.storage.store import CheckpointError, Store
from likejax.train.guard import GuardState, begin
from likejax.train.state import Best, TrainState, convert_blocks

_OPTIMIZER = "optimiser"
"""Name of the optimizer's state on disk, in the spelling of the first versions."""


class Checkpoints:
    """The checkpoints of one run: ``last/`` to resume from and ``best/`` to use.

    States are written with repeated blocks stacked, as host arrays, so they restore on any number
    of devices. Use it as a context manager: leaving it, however, waits for what is being written. A
    lock file keeps a second process from training in the same directory.

    Args:
      workdir: The run's directory, created if absent; with ``None`` nothing is written and nothing
        found.
      keep: Number of the last checkpoints to keep.

    Raises:
      CheckpointError: If another process or thread is training there, or the directory cannot be
        written.
    """

    def __init__(self, workdir: Path | None, *, keep: int = 2):
        self.workdir = workdir
        self._keep = keep
        self._best_of: dict[int, int] = {}
        if workdir is None:
            return
        self._lock = _lock(workdir) if jax.process_index() == 0 else None
        self._last, self._best = (Store(workdir / name, writes=True) for name in ("last", "best"))
        for step in self._last.steps():
            try:
                self._best_of[step] = self._last.record(step)["best_step"]
            except (CheckpointError, KeyError):
                continue

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        if self.workdir is None:
            return
        try:
            self.wait()
            self._tidy()
        finally:
            if self._lock is not None:
                self._lock.close()

    def wait(self) -> None:
        """Blocks until what is being written is on disk.

        Raises:
          CheckpointError: If it could not be written.
        """
        if self.workdir is not None:
            self._last.wait()
            self._best.wait()

    def all_written(self) -> None:
        """Waits until the last checkpoint is on disk, in every process: the first writes for all.

        Raises:
          CheckpointError: In every process, if it could not be written.
        """
        failure = None
        try:
            self.wait()
        except CheckpointError as error:
            failure = error
        if processes.agreed(failure is not None):
            raise failure or CheckpointError(
                "another process could not write its checkpoint: see there"
            )

    def save_last(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Writes what a resumed run needs.

        Args:
          step: Number of steps done.
          items: Trees of host arrays.
          record: Plain values; ``best_step`` names the best checkpoint that goes with it.
        """
        if self.workdir is not None:
            self._tidy()
            self._best.wait()  # the best that the record names is on disk before it
            self._last.save(step, items, record)
            self._best_of[step] = record["best_step"]

    def save_best(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Writes the density that is best so far.

        Args:
          step: Number of steps done.
          items: Trees of host arrays.
          record: Plain values.
        """
        if self.workdir is not None:
            self._tidy()
            self._best.save(step, items, record)

    def _tidy(self) -> None:
        """Deletes what is not needed any more: only where what replaces it is on disk whole."""
        kept = self._last.steps()[-self._keep :]
        self._last.keep(kept)
        self._best.keep(
            [
                *self._best.steps()[-1:],
                *(self._best_of[step] for step in kept if step in self._best_of),
            ]
        )

    def has_last(self) -> bool:
        """Whether there is something to resume from."""
        return self.workdir is not None and bool(self._last.steps())

    def read_last(self, templates: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trees and record of the newest intact checkpoint.

        Args:
          templates: Trees by name, whose leaves are arrays or ``jax.ShapeDtypeStruct``.

        Raises:
          CheckpointError: If there is none, it was written with another model, or in an older
            layout.
        """

        def wanted(record: dict[str, Any]) -> Mapping[str, Any]:
            if record["layout"] < 2:
                raise CheckpointError(
                    f"{self.workdir} was written by likejax {record.get('likejax')} in layout "
                    f"{record['layout']}, "
                    "which lacks what an exact resume needs: choose another workdir. Its weights "
                    "are not lost: "
                    "likejax.restore reads them, and an Experiment may start from them as its model"
                )
            return templates

        found, items, record = self._last.read(wanted)
        self._last.keep(
            [step for step in self._last.steps() if step <= found]
        )  # damaged ones are not worth a place
        return items, record

    def drop_best_after(self, step: int) -> None:
        """Forgets best checkpoints of steps that will be done again.

        Args:
          step: Number of steps done; best checkpoints of later steps are deleted.
        """
        if self.workdir is not None:
            self._best.keep([kept for kept in self._best.steps() if kept <= step])

    def read_best(self, step: int, templates: Mapping[str, Any]) -> dict[str, Any] | None:
        """The trees of the best checkpoint of a step, or ``None`` if it is not there whole.

        Args:
          step: Step of the checkpoint.
          templates: Trees by name, whose leaves are arrays or ``jax.ShapeDtypeStruct``.
        """
        try:
            found, items, _ = self._best.read(lambda record: templates, newest=step)
        except CheckpointError:
            return None
        return items if found == step else None


def _lock(workdir: Path) -> Any:
    """An open file with a lock that the system releases when the process ends, however it ends."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("w")
    except OSError as error:
        raise CheckpointError(f"{workdir} cannot be written: {error}") from error
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise CheckpointError(
            f"another process or thread is training in {workdir}: wait for it, or choose another "
            "workdir"
        ) from error
    return file


def training_items(state: TrainState) -> dict[str, Any]:
    """What a resumed run needs besides the density of its moving average.

    Args:
      state: State of the training.

    Returns:
      Trees of dictionaries of the arrays of the state.
    """
    leaves = jax.tree.leaves(state.optimizer)
    optimizer = {str(i): leaf for i, leaf in enumerate(leaves)}
    guard = state.guard._asdict()
    return {
        "training": {
            "step": state.step,
            "params": state.params,
            _OPTIMIZER: optimizer,
            "guard": guard,
        }
    }


def optimizer_template(record: Mapping[str, Any], params: Arrays) -> dict[str, Any]:
    """Returns what ``training_items`` holds according to a checkpoint's record.

    Args:
      record: Record of a checkpoint, with the shapes of all arrays.
      params: Trainable arrays, or their shapes.
    """
    start = f"training/{_OPTIMIZER}/"
    leaves = {
        name.removeprefix(start): jax.ShapeDtypeStruct(tuple(array["shape"]), array["dtype"])
        for name, array in record["arrays"].items()
        if name.startswith(start)
    }
    training = {"step": np.zeros((), np.int32), "params": params, _OPTIMIZER: leaves}
    training["guard"] = jax.eval_shape(begin)._asdict()
    return {"training": training}


def state_of(items: Mapping[str, Any], like: TrainState) -> TrainState:
    """Returns the train state of ``density_items`` and ``training_items``.

    Args:
      items: Trees of a checkpoint.
      like: State whose optimizer's structure is taken; ``None`` for its optimizer leaves it out.
    """
    density, training = items["density"], items["training"]
    leaves = [training[_OPTIMIZER][str(i)] for i in range(len(training[_OPTIMIZER]))]
    optimizer = None
    if like.optimizer is not None:
        optimizer = jax.tree.unflatten(jax.tree.structure(like.optimizer), leaves)
    return TrainState(
        step=training["step"],
        params=training["params"],
        ema=density["params"],
        buffers=density["fixed"],
        optimizer=optimizer,
        guard=GuardState(**training["guard"]),
    )


class RunCheckpoints:
    """Checkpoints of a run as states: conversion to the form on disk, and what goes with a state.

    On disk repeated blocks are stacked; in memory they have the form that runs fastest here.

    Args:
      checkpoints: Checkpoints of the run's directory.
      structure: Structure of the density in memory.
      provenance: Experiment, key and data of the run.

    Attributes:
      provenance: Experiment, key and data of the run.
    """

    def __init__(
        self, checkpoints: Checkpoints, structure: Structure, provenance: Mapping[str, Any]
    ):
        self._checkpoints = checkpoints
        self._structure = structure
        self.provenance = provenance

    @property
    def workdir(self) -> Path | None:
        """Directory of the run; ``None`` if nothing is written."""
        return self._checkpoints.workdir

    def has_last(self) -> bool:
        """Returns whether there is something to resume from."""
        return self._checkpoints.has_last()

    def drop_best_after(self, step: int) -> None:
        """Deletes the best checkpoints of steps that will be done again.

        Args:
          step: Number of steps done.
        """
        self._checkpoints.drop_best_after(step)

    def save(
        self,
        state: TrainState,
        position: Position,
        best: Best,
        window: Sequence[Mapping[str, float]],
    ) -> None:
        """Writes what a resumed run needs.

        Args:
          state: State on the devices.
          position: Position of the batches after it.
          best: Best validation so far.
          window: Metrics of the steps since the last record.
        """
        if self.workdir is None:
            return
        stored = convert_blocks(stack, self._structure, processes.to_host(state))
        record = {
            **self.provenance,
            "position": list(position),
            "best_step": best.step,
            "best_loss": best.loss if math.isfinite(best.loss) else None,
            "validations_since_best": best.since,
            "best_on": best.measured_on,
            "window": window,
        }
        items = density_items(stored.ema, stored.buffers) | training_items(stored)
        self._checkpoints.save_last(int(stored.step), items, record)

    def save_best(self, best: Best, buffers: Arrays) -> None:
        """Writes the density that is best so far.

        Args:
          best: Best validation, with its moving average.
          buffers: Arrays that are not trained.
        """
        _, ema, buffers = split(stack(merge(self._structure, best.ema or {}, buffers)))
        record = {
            "experiment": self.provenance["experiment"],
            "best_step": best.step,
            "validation": best.loss,
            "best_on": best.measured_on,
        }
        self._checkpoints.save_best(best.step, density_items(ema, buffers), record)

    def load(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns state and record of the newest intact checkpoint.

        Args:
          like: State of the run's structure.
        """
        stored = convert_blocks(stack, self._structure, processes.to_host(like))
        templates = density_items(stored.ema, stored.buffers) | training_items(stored)
        items, record = self._checkpoints.read_last(templates)
        state = state_of(items, stored)
        return convert_blocks(for_backend, self._stacked(like), state), record

    def load_best(self, record: Mapping[str, Any], like: TrainState) -> Best:
        """Returns the best validation that a record names.

        If its weights are lost, selection begins anew, rather than with weights that are not there.

        Args:
          record: Record of ``load``.
          like: State of the run's structure.
        """
        loss = record["best_loss"]
        best = Best(
            step=record["best_step"],
            loss=math.inf if loss is None else loss,
            since=record["validations_since_best"],
            measured_on=record.get("best_on"),
        )
        if not best.step:
            return best
        stored = convert_blocks(stack, self._structure, processes.to_host(like))
        items = self._checkpoints.read_best(best.step, density_items(stored.ema, stored.buffers))
        if items is None:
            return Best()
        arrays = items["density"]
        density = merge(self._stacked(like), arrays["params"], arrays["fixed"])
        best.ema = split(for_backend(density))[1]
        return best

    def _stacked(self, like: TrainState) -> Structure:
        return split(stack(merge(self._structure, like.params, like.buffers)))[0]

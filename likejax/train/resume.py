"""Going on with a run from its last checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from likejax.data.batches import Position
from likejax.experiment import Experiment, Optimizer
from likejax.storage.store import CheckpointError
from likejax.train.best_effort import warn
from likejax.train.checkpoint import RunCheckpoints
from likejax.train.optimizer import rate_that_jumps
from likejax.train.record import note_selection, write_record
from likejax.train.selection import Validation, comparable_best
from likejax.train.state import Best, TrainState


@dataclasses.dataclass(frozen=True)
class RunState:
    """State of a run between two steps, with all that an exact resume needs.

    Attributes:
      state: Train state.
      position: Position of the batches.
      best: Best validation so far.
      window: Metrics of the steps since the last record of the log.
    """

    state: TrainState
    position: Position
    best: Best = dataclasses.field(default_factory=Best)
    window: Sequence[Mapping[str, float]] = ()


def resume_or_begin(
    checkpoints: RunCheckpoints,
    new: RunState,
    experiment: Experiment,
    *,
    rows: Validation | None,
    data_hashes: Sequence[str | None],
    unit: str,
) -> RunState:
    """Returns where a run goes on: at its beginning, or at its newest intact checkpoint.

    The directory of the run gets its record. There are warnings if this call has other plans than
    the calls before.

    Args:
      checkpoints: Checkpoints of the run.
      new: State of a new run, which gives the structure.
      experiment: Experiment that is run.
      rows: Rows that select; ``None`` if there are none.
      data_hashes: Hashes of the training data, in the form of this version and of older ones.
      unit: Unit of validation losses, for warnings.

    Raises:
      CheckpointError: If the run was begun with another key, other data or other weights, or its
        record cannot be written.
    """
    workdir = checkpoints.workdir
    if workdir is not None:
        # before the record of the experiment, by which the runs of older versions are known
        note_selection(workdir, None if rows is None else rows.examples)
    run_state = new
    if checkpoints.has_last():
        run_state, planned = _loaded(checkpoints, new, data_hashes)
        done, steps = int(run_state.state.step), experiment.steps
        warn_of_other_plans(
            experiment.optimizer, workdir=workdir, done=done, planned=planned, steps=steps
        )
        best = comparable_best(
            run_state.best, rows, workdir=workdir, unit=unit, ended=done >= steps
        )
        run_state = dataclasses.replace(run_state, best=best)
    done = int(run_state.state.step)
    checkpoints.drop_best_after(done)
    if workdir is not None and done <= experiment.steps:
        write_record(workdir, experiment)
    return run_state


def _loaded(
    checkpoints: RunCheckpoints, new: RunState, data_hashes: Sequence[str | None]
) -> tuple[RunState, int]:
    """The state of the newest intact checkpoint, and the steps that the run was planned for."""
    provenance = checkpoints.provenance
    state, record = checkpoints.load(new.state)
    known_data = data_hashes if _is_older(record) else data_hashes[:1]
    wanted = [
        ("key", "another key", [provenance["key"]]),
        ("data", "other training data", known_data),
    ]
    if "initial" in record:  # versions before 0.7 had no initial weights
        wanted.append(("initial", "other initial weights (initial=)", [provenance["initial"]]))
    for name, what, known in wanted:
        if record[name] not in known:
            raise CheckpointError(
                f"{checkpoints.workdir} holds a run that was begun with {what} "
                f"({_short(record[name])}, now {_short(provenance[name])}): resume it with those, "
                "or choose another workdir"
            )
    best = checkpoints.load_best(record, new.state)
    run_state = RunState(state, Position(*record["position"]), best, record["window"])
    return run_state, record["experiment"]["steps"]


def _short(identity: object) -> str:
    """The beginning of a checksum, or a key."""
    return identity[:12] if isinstance(identity, str) else str(identity)


def _is_older(record: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of a version whose hashes of data left out labels and weights."""
    major, minor = str(record.get("likejax", "0.0")).split(".")[:2]
    return (int(major), int(minor)) < (0, 6)


def warn_of_other_plans(
    optimizer: object, *, workdir: Path | None, done: int, planned: int, steps: int
) -> None:
    """Warns if fewer steps are asked for than are done, or if the learning rate jumps.

    Args:
      optimizer: Optimizer of the run; of one of the user's own nothing is known.
      workdir: Directory of the run.
      done: Number of steps done.
      planned: Number of steps that the run was planned for.
      steps: Number of steps that are asked for now.
    """
    if steps < done:
        warn(
            f"{workdir} holds a run that has done {done} steps, and {steps} are asked for: nothing "
            f"is trained, the weights are those of step {done}, and the record of the run stays as "
            "it is"
        )
    if steps <= done or not isinstance(optimizer, Optimizer):
        return
    jump = rate_that_jumps(optimizer, planned=planned, steps=steps, done=done)
    if jump is None:
        return
    before, now = jump
    warn(
        f"the run was planned for {planned} steps and goes on to {steps}: the {optimizer.decay} "
        f"decay of its learning rate stood at {before:.3g} after step {done}, goes on at "
        f"{now:.3g} and falls from there; a new run of all steps would end elsewhere"
    )

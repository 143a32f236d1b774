"""Going on with a run from its last checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from likejax.data.batches import Position
from likejax.experiment import Optimizer
from likejax.storage.store import CheckpointError
from likejax.train.checkpoint import RunCheckpoints
from likejax.train.optimizer import rate_that_jumps
from likejax.train.side_products import tell
from likejax.train.state import Best, TrainState


@dataclasses.dataclass(frozen=True)
class Stand:
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


def resume(
    checkpoints: RunCheckpoints,
    begun: Stand,
    *,
    provenance: Mapping[str, Any],
    known_as: Sequence[str | None],
    workdir: Path | None,
) -> tuple[Stand, int]:
    """Returns where the newest intact checkpoint of a run stands, and the steps it was planned for.

    Args:
      checkpoints: Checkpoints of the run.
      begun: Stand of a new run, which gives the structure.
      provenance: Key and data of this call.
      known_as: Hashes of the training data, in the form of this version and of older ones.
      workdir: Directory of the run, for messages.

    Raises:
      CheckpointError: If the run was begun with another key, other data or other weights.
    """
    state, record = checkpoints.load(begun.state)
    data_hashes = known_as if _is_older(record) else known_as[:1]
    wanted = [
        ("key", "another key", [provenance["key"]]),
        ("data", "other training data", data_hashes),
    ]
    if "initial" in record:  # versions before 0.7 had no initial weights
        wanted.append(("initial", "other initial weights", [provenance["initial"]]))
    for name, what, known in wanted:
        if record[name] not in known:
            raise CheckpointError(
                f"{workdir} holds a run that was begun with {what} ({record[name]}, now "
                f"{provenance[name]}): resume it with those, or choose another workdir"
            )
    best = checkpoints.load_best(record, begun.state)
    stand = Stand(state, Position(*record["position"]), best, record["window"])
    return stand, record["experiment"]["steps"]


def _is_older(record: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of a version whose hashes of data left out labels and weights."""
    major, minor = str(record.get("likejax", "0.0")).split(".")[:2]
    return (int(major), int(minor)) < (0, 6)


def warn_of_other_plans(
    optimizer: Any, *, workdir: Path | None, done: int, planned: int, steps: int
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
        tell(
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
    tell(
        f"the run was planned for {planned} steps and goes on to {steps}: the {optimizer.decay} "
        f"decay of its learning rate stood at {before:.3g} after step {done}, goes on at "
        f"{now:.3g} and falls from there; a new run of all steps would end elsewhere"
    )

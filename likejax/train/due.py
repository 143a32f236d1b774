"""Work that is due after a step."""

from __future__ import annotations

from typing import NamedTuple

from likejax.experiment import Experiment


class Due(NamedTuple):
    """Work that is due after a step.

    Attributes:
      log: Whether a record of the log is due.
      validation: Whether a validation is due.
      checkpoint: Whether a checkpoint is due.
      sheet: Whether a sheet of samples is due.
    """

    log: bool
    validation: bool
    checkpoint: bool
    sheet: bool


def due_after(number: int, experiment: Experiment) -> Due:
    """Returns what is due after a step; after the last one all is, but for a sheet.

    Args:
      number: Number of the step, from 1.
      experiment: Experiment that is run.

    Example:
      >>> import likejax as lj
      >>> from likejax.train.due import due_after
      >>> due_after(100, lj.preset("glow/digits").override({"steps": 200, "log_every": 50}))
      Due(log=True, validation=True, checkpoint=False, sheet=False)
    """
    is_last = number == experiment.steps
    every = experiment.samples_every
    return Due(
        log=is_last or number % experiment.log_every == 0,
        validation=is_last or number % experiment.validate_every == 0,
        checkpoint=is_last or number % experiment.checkpoint_every == 0,
        sheet=every is not None and number % every == 0,
    )

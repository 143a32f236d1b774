"""The log of a run: its records, the loggers that receive them, and the line on the screen."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from likejax.density import Density, bits_per_dim
from likejax.storage.files import write_atomically
from likejax.train.best_effort import BestEffort
from likejax.train.progress import TrainingProgress
from likejax.train.window import Window

METRICS = "metrics.jsonl"
Record = Mapping[str, Any]
"""Numbers of a step by name; ``step`` is one of them, and ``None`` marks a missing number."""


@runtime_checkable
class Logger(Protocol):
    """Receiver of the records of a run. If it fails, there is a warning and training goes on.

    A logger is any object with the methods ``log(record)`` and ``close()``. This one sends the
    records to Weights & Biases::

        import wandb

        class WandB:
            def __init__(self, **options):
                self._run = wandb.init(**options)

            def log(self, record):
                self._run.log(dict(record), step=record["step"])

            def close(self):
                self._run.finish()

        lj.fit(experiment, train, key=key, loggers=[WandB(project="flows")])

    Example:
      >>> import likejax as lj
      >>> class Printed:
      ...     def log(self, record):
      ...         print("step", record["step"])
      ...
      ...     def close(self):
      ...         print("done")
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2, log_every=1)
      >>> run = lj.fit(experiment, lj.load("moons"), key=0, loggers=[Printed()])
      step 1
      step 2
      done
    """

    def log(self, record: Record) -> None:
        """Takes the record of a logged step, or of a validation (``step``, ``validation``).

        Args:
          record: Numbers by name; ``step`` is the number of steps done, and ``None`` marks a
            missing number.
        """

    def close(self) -> None:
        """Ends the log; called once, also after an error."""


@runtime_checkable
class PictureLogger(Protocol):
    """Logger that also takes pictures."""

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Takes a picture ``(height, width, 3)`` of integers from 0 to 255.

        Args:
          name: Name of the picture.
          image: Integers ``(height, width, 3)`` from 0 to 255.
          step: Number of steps done.
        """


class JSONLines:
    """Logger that appends one JSON object a line to ``metrics.jsonl``.

    Args:
      directory: Directory of the run.
      start: Number of steps done; lines of later steps, left by a run that died, are dropped.

    Attributes:
      history: Records up to ``start``.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from likejax.train.log import JSONLines, read_metrics
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     JSONLines(Path(directory)).log({"step": 1, "loss": 0.5})
      ...     read_metrics(Path(directory) / "metrics.jsonl")
      [{'step': 1, 'loss': 0.5}]
    """

    def __init__(self, directory: Path, *, start: int = 0):
        self._path = directory / METRICS
        self._line_is_whole = True
        self.history: list[dict[str, Any]] = []
        if self._path.exists():
            records = read_metrics(self._path)
            self.history = [record for record in records if record["step"] <= start]
            lines = [json.dumps(record) + "\n" for record in self.history]
            write_atomically(self._path, "".join(lines))

    def log(self, record: Record) -> None:
        """Appends a record; numbers that JSON lacks become ``null``.

        Args:
          record: Numbers by name.
        """
        plain = {name: _finite_or_none(value) for name, value in record.items()}
        # what a full disk cut off stays a line of its own
        begin = "" if self._line_is_whole else "\n"
        self._line_is_whole = False
        with self._path.open("a") as file:
            file.write(begin + json.dumps(plain) + "\n")
        self._line_is_whole = True

    def close(self) -> None:
        """Does nothing: every line is on disk."""

    def __str__(self) -> str:
        return f"writing the log {self._path}"


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoard:
    """Logger that writes TensorBoard events, with pictures; needs tensorboardX.

    Args:
      directory: Directory of the events.
      start: Number of steps done; events of later steps are hidden.

    Example:
      >>> import pathlib, tempfile, likejax as lj
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     logger = lj.train.TensorBoard(pathlib.Path(directory))
      ...     logger.log({"step": 1, "nats": 2.5})
      ...     logger.close()
    """

    def __init__(self, directory: Path, *, start: int = 0):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(directory), purge_step=start + 1)

    def log(self, record: Record) -> None:
        """Writes a scalar for every number.

        Args:
          record: Numbers by name.
        """
        for name, value in record.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, record["step"])

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Writes a picture.

        Args:
          name: Tag of the picture.
          image: ``(height, width, 3)``.
          step: Number of steps done.
        """
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is buffered."""
        self._writer.close()

    def __str__(self) -> str:
        return "writing TensorBoard events"


def check_tensorboard() -> None:
    """Raises a ValueError if TensorBoard events cannot be written here."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "tensorboard=True needs tensorboardX: pip install 'likejax[tensorboard]'"
        ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a ``metrics.jsonl``; lines cut short by a crash are left out.

    Args:
      path: The file.
    """
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


class Unit:
    """Unit in which the likelihood of a density is shown: bits/dim, or nats of continuous data.

    Args:
      density: Density that is trained.

    Attributes:
      name: Name of the unit.
    """

    def __init__(self, density: Density):
        self._is_discrete = density.levels is not None
        self._event_shape = density.event_shape
        self.name = "bits/dim" if self._is_discrete else "nats"

    def of(self, log_prob: float) -> float:
        """Returns a mean log-probability in nats as a loss in this unit.

        Args:
          log_prob: Mean log-probability of an example in nats.
        """
        return float(bits_per_dim(log_prob, self._event_shape)) if self._is_discrete else -log_prob


class Log:
    """Records of a run, which go to the loggers and to the screen; a failure there is a warning.

    Only the first process logs. Use it as a context manager.

    Args:
      window: Metrics of the steps since the last record.
      unit: Unit of likelihoods on the screen.
      start: Number of steps done.
      steps: Number of steps in all.

    Attributes:
      history: All records, those of earlier calls included.
      unit: Unit of likelihoods on the screen.
      window: Metrics of the steps since the last record.
    """

    def __init__(self, window: Window, unit: Unit, *, start: int, steps: int):
        self.window = window
        self.unit = unit
        self._loggers: list[Logger] = []
        self._best_effort = BestEffort()
        self._is_first_process = jax.process_index() == 0
        self._progress = TrainingProgress(start, steps)
        self._since, self._since_step = time.monotonic(), start
        self._start = start
        self.history: list[dict[str, Any]] = []

    def open(self, workdir: Path | None, *, tensorboard: bool, loggers: Sequence[Logger]) -> Log:
        """Opens the files of the log.

        Args:
          workdir: Directory of the run, or ``None``.
          tensorboard: Whether to write TensorBoard events there.
          loggers: Loggers of the user.

        Returns:
          This log.
        """
        if not self._is_first_process:
            return self
        if workdir is not None:
            with self._best_effort.attempt(f"the log {workdir / METRICS}"):
                lines = JSONLines(workdir, start=self._start)
                self.history = [*lines.history]
                self._loggers.append(lines)
        if workdir is not None and tensorboard:
            with self._best_effort.attempt("writing TensorBoard events"):
                events = TensorBoard(workdir / "tensorboard", start=self._start)
                self._loggers.append(events)
        self._loggers += loggers
        return self

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.close()
        for logger in self._loggers:
            with self._best_effort.attempt(_title(logger)):
                logger.close()

    def add(self, number: int, metrics: Mapping[str, jax.Array]) -> None:
        """Adds the metrics of a step; they are read when the next step runs.

        Args:
          number: Number of the step.
          metrics: Scalars on the devices.

        Raises:
          NonFiniteError: If too many steps in a row could not be taken.
        """
        self.window.add(number, metrics)
        self._progress.advance(number)

    def catch_up(self) -> None:
        """Reads the metrics of the last step.

        Raises:
          NonFiniteError: If too many steps in a row could not be taken.
        """
        self.window.catch_up()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time does not count as training."""
        begin = time.monotonic()
        yield
        self._since += time.monotonic() - begin

    def write_steps(self, number: int, *, best: float | None) -> None:
        """Writes the record of the steps since the last one.

        Args:
          number: Number of the last step.
          best: Best validation loss so far.
        """
        elapsed = time.monotonic() - self._since
        rate = (number - self._since_step) / elapsed
        means = self.window.means()
        record = {**means, "step": number, "skipped": self.window.skipped()}
        record |= {"steps_per_second": rate, "seconds": elapsed}
        self.window.clear()
        self.write(record)
        self._progress.report(number, self._in_words(record, best), rate)
        self._since, self._since_step = time.monotonic(), number

    def _in_words(self, record: Mapping[str, Any], best: float | None) -> str:
        """The likelihood of a record, or the loss where the objective reports none."""
        if record["loss"] is None:
            words = "no step taken"
        elif "log_prob" in record:
            words = f"{self.unit.name} {self.unit.of(record['log_prob']):.3f}"
        else:
            words = f"loss {record['loss']:.3f}"
        if best is not None:
            words += f", best validation {best:.3f}"
        if record["skipped"]:
            words += f", {record['skipped']} skipped"
        return words

    def write_validation(self, number: int, loss: float, *, n: int) -> None:
        """Writes the record of a validation.

        Args:
          number: Number of steps done.
          loss: Validation loss of the moving average.
          n: Number of validation examples.
        """
        self.write({"step": number, "validation": loss})
        self.say(
            f"step {number}: validation {loss:.4f} {self.unit.name} of the moving average (n = {n})"
        )

    def write(self, record: dict[str, Any]) -> None:
        """Keeps a record and hands it to the loggers.

        Args:
          record: Numbers by name.
        """
        self.history.append(record)
        for logger in self._loggers:
            with self._best_effort.attempt(_title(logger)):
                logger.log(record)

    def say(self, line: str) -> None:
        """Prints a line for the person who watches.

        Args:
          line: Text without a line break.
        """
        self._progress.say(line)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Hands a picture to the loggers that take pictures.

        Args:
          name: Name of the picture.
          image: ``(height, width, 3)``.
          step: Number of steps done.
        """
        for logger in self._loggers:
            if isinstance(logger, PictureLogger):
                with self._best_effort.attempt(_title(logger)):
                    logger.picture(name, image, step)


def _title(logger: Logger) -> str:
    """A logger in a warning."""
    if isinstance(logger, JSONLines | TensorBoard):
        return str(logger)
    return f"the logger {type(logger).__name__}"

"""Progress of a training run: a bar in terminals and notebooks, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from likejax.progress import Bar, TextStream, is_shown, redraws
from likejax.train.best_effort import warn


class TrainingProgress:
    """Progress of a run on standard error. If showing it fails, a warning ends it, not the run.

    Args:
      start: Number of steps done before.
      steps: Number of steps in all.
      stream: Text stream to write to; standard error if not given.
    """

    def __init__(self, start: int, steps: int, *, stream: TextStream | None = None):
        self._done, self._steps = start, steps
        self._bar: Bar | None = None
        self._stream = stream or sys.stderr  # None in a program without a console
        if not is_shown():
            self._stream = None
        self._try(self._open)

    def _open(self) -> None:
        if self._stream is not None and redraws(self._stream):
            self._bar = Bar(
                what="training",
                total=self._steps,
                done=self._done,
                stream=self._stream,
                on_failure=self._fail,
            )
        if self._done < self._steps:
            self._announce_compiling()

    def _announce_compiling(self) -> None:
        """Says why the first step takes long."""
        if self._bar is not None:
            self._bar.describe("compiling the first step")
        else:
            self.say("compiling the first step")

    def _try(self, show: Callable[[], None]) -> None:
        try:
            show()
        except Exception as error:  # a closed stream, a pipe whose reader went away
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._stream = None
        warn(f"progress is not shown any more, training goes on: {type(error).__name__}: {error}")

    def advance(self, step: int) -> None:
        """Moves the bar.

        Args:
          step: Number of steps done.
        """
        if self._bar is not None:
            self._bar.advance(step - self._done)
        self._done = step

    def report(self, step: int, text: str, steps_per_second: float) -> None:
        """Shows the newest numbers.

        Args:
          step: Number of steps done.
          text: The numbers in words.
          steps_per_second: Speed since the last report.
        """
        speed = f"{steps_per_second:.2f} steps/s"
        if self._bar is not None:
            self._bar.describe(f"{text}, {speed}")
            return
        left = (self._steps - step) / steps_per_second if steps_per_second else math.inf
        self.say(f"step {step}/{self._steps}: {text}, {speed}, {duration(left)} left")

    def say(self, line: str) -> None:
        """Prints a line that stays.

        Args:
          line: Text without a line break.
        """
        if self._bar is not None:
            self._bar.write(line)
        elif self._stream is not None:
            self._try(lambda: self._print(line))

    def _print(self, line: str) -> None:
        assert self._stream is not None
        self._stream.write(f"{line}\n")
        flush = getattr(self._stream, "flush", None)
        if flush is not None:
            flush()

    def close(self) -> None:
        """Takes the bar down."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """Returns seconds as a clock shows them.

    Args:
      seconds: Any duration.

    Example:
      >>> from likejax.train.progress import duration
      >>> duration(3723.0)
      '1:02:03'
    """
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

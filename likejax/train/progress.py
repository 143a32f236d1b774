"""Progress for a person: a bar in terminals and notebooks, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import html
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from likejax.train.side_products import tell


@runtime_checkable
class Progress(Protocol):
    """Where a person follows a run."""

    def advance(self, step: int) -> None:
        """A step is done."""

    def report(self, step: int, text: str, steps_per_second: float) -> None:
        """What there is to say of the steps since the last report."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """The run is over, or broken off."""


def progress(start: int, steps: int, *, stream: Any = None) -> Progress:
    """What fits the place: a bar in a notebook or a terminal, lines in a log.

    Args:
      start: Steps done before.
      steps: Steps in all.
      stream: Where to write; standard error if not given.
    """
    stream = stream or sys.stderr
    if stream is None:  # a program without a console
        return Silence()
    if type(stream).__module__.startswith("ipykernel."):
        return NotebookBar(start, steps)
    return TerminalBar(start, steps, stream) if stream.isatty() else Lines(steps, stream)


class Silence:
    """Nothing to see: another process tells."""

    def advance(self, step: int) -> None:
        """Nothing."""

    def report(self, step: int, text: str, steps_per_second: float) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Unfailing:
    """A view whose failure ends no run: after the first error there is nothing to see.

    Args:
      open_view: Makes the view.
    """

    def __init__(self, open_view: Callable[[], Progress]):
        self._view: Progress = Silence()
        with self._failing_once():
            self._view = open_view()

    @contextlib.contextmanager
    def _failing_once(self) -> Iterator[None]:
        try:
            yield
        except (
            Exception
        ) as error:  # a closed standard error, a terminal that went away, a broken display
            self._view = Silence()
            tell(
                f"progress is not shown any more, training goes on: {type(error).__name__}: {error}"
            )

    def advance(self, step: int) -> None:
        """As the view does."""
        with self._failing_once():
            self._view.advance(step)

    def report(self, step: int, text: str, steps_per_second: float) -> None:
        """As the view does."""
        with self._failing_once():
            self._view.report(step, text, steps_per_second)

    def say(self, text: str) -> None:
        """As the view does."""
        with self._failing_once():
            self._view.say(text)

    def close(self) -> None:
        """As the view does."""
        with self._failing_once():
            self._view.close()


class Lines:
    """A line a report."""

    def __init__(self, steps: int, stream: Any):
        self._steps, self._stream = steps, stream

    def advance(self, step: int) -> None:
        """Nothing: a line a step would fill a log."""

    def report(self, step: int, text: str, steps_per_second: float) -> None:
        """One line."""
        left = (self._steps - step) / steps_per_second if steps_per_second else math.inf
        self.say(
            f"step {step}/{self._steps}: {text}, {steps_per_second:.2f} steps/s, {duration(left)} left"
        )

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to take down."""


class TerminalBar:
    """A bar that stays at the bottom of a terminal."""

    def __init__(self, start: int, steps: int, stream: Any):
        from rich import progress as rich_progress
        from rich.console import Console

        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.completed}/{task.total}"),
            rich_progress.TimeRemainingColumn(),
            console=Console(file=stream),
        )
        self._task = self._bar.add_task("training", total=steps, completed=start)
        self._bar.start()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def report(self, step: int, text: str, steps_per_second: float) -> None:
        """Changes the words beside the bar."""
        self._bar.update(
            self._task, completed=step, description=f"{text}, {steps_per_second:.2f} steps/s"
        )

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, highlight=False)

    def close(self) -> None:
        """Takes the bar down."""
        self._bar.stop()


class NotebookBar:
    """A bar in the output of a cell, in plain HTML: no widgets are needed."""

    def __init__(self, start: int, steps: int):
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        self._html, self._steps, self._text = HTML, steps, "training"
        self._shown = start
        self._every = max(1, steps // 500)
        self._display: Any = display(self._drawn(start), display_id=True)

    def _drawn(self, step: int) -> Any:
        bar = f'<progress value="{step}" max="{self._steps}" style="width:20em"></progress>'
        return self._html(f"{bar} {step}/{self._steps} <code>{html.escape(self._text)}</code>")

    def advance(self, step: int) -> None:
        """Moves the bar, a few hundred times in all."""
        if step - self._shown >= self._every or step == self._steps:
            self._shown = step
            self._display.update(self._drawn(step))

    def report(self, step: int, text: str, steps_per_second: float) -> None:
        """Changes the words beside the bar."""
        self._text = f"{text}, {steps_per_second:.2f} steps/s"
        self._display.update(self._drawn(step))

    def say(self, text: str) -> None:
        """A line below the bar."""
        print(text)

    def close(self) -> None:
        """The bar stays as it is."""


def duration(seconds: float) -> str:
    """Seconds as a clock shows them: ``1:02:03``."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

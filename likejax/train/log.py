"""What a person and a program see of a run: progress on the terminal, JSON lines on disk."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any


class MetricsFile:
    """Appends one JSON object a line to ``metrics.jsonl``; without a directory it writes nothing.

    Args:
      workdir: The run's directory, or ``None``.
      start: Step the run begins at; lines of later steps, left by a run that died, are dropped.
    """

    def __init__(self, workdir: Path | None, *, start: int):
        self._path = None if workdir is None else workdir / "metrics.jsonl"
        if self._path is not None and self._path.exists():
            kept = [line for line in read_metrics(self._path) if line["step"] <= start]
            self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record; numbers that JSON lacks become ``null``."""
        if self._path is None:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(clean) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; a last line cut short by a crash is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


class ProgressLine:
    """Progress for a person: a bar on a terminal, plain lines elsewhere.

    Args:
      start: First step.
      steps: Last step.
      unit: Of the loss: ``bits/dim`` or ``nats``.
      stream: Where to write.
    """

    def __init__(self, start: int, steps: int, *, unit: str, stream: Any = None):
        self._stream = stream or sys.stderr
        self._start, self._steps, self._unit = start, steps, unit
        self._began = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task("training", total=steps, completed=start)
            self._bar.start()

    def advance(self, step: int) -> None:
        """Moves the bar, if there is one."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, *, loss: float, steps_per_second: float, validation: float | None) -> None:
        """Shows the loss since the last report and the best validation so far."""
        left = (self._steps - step) / steps_per_second if steps_per_second else math.inf
        best = "" if validation is None else f", best validation {validation:.3f}"
        text = f"{self._unit} {loss:.3f}{best}, {steps_per_second:.2f} steps/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        else:
            print(f"step {step}/{self._steps}: {text}, {_duration(left)} left", file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Takes the bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""What a program reads of a run: JSON lines always, TensorBoard events if asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


class MetricsFile:
    """Appends one JSON object a line to ``metrics.jsonl``; without a directory it writes nothing.

    Args:
      workdir: The run's directory, or ``None``.
      start: Step the run begins at; lines of later steps, left by a run that died, are dropped.
      tensorboard: Whether to write TensorBoard events beside it.

    Attributes:
      history: All records, those from before ``start`` included.
    """

    def __init__(self, workdir: Path | None, *, start: int, tensorboard: bool = False):
        self._path = None if workdir is None else workdir / METRICS
        self.history: list[dict[str, Any]] = []
        if self._path is not None and self._path.exists():
            self.history = [record for record in read_metrics(self._path) if record["step"] <= start]
            draft = self._path.with_suffix(".tmp")
            draft.write_text("".join(json.dumps(record) + "\n" for record in self.history))
            draft.replace(self._path)
        self._events = _event_writer(workdir, start) if tensorboard and workdir is not None else None

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record; numbers that JSON lacks become ``null``."""
        self.history.append(record)
        if self._path is None:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(clean) + "\n")
        if self._events is not None:
            for name, value in record.items():
                if name != "step" and value is not None:
                    self._events.add_scalar(name, value, record["step"])

    def picture(self, name: str, image: Any, step: int) -> None:
        """A picture ``(height, width, 3)`` for TensorBoard, if it is written."""
        if self._events is not None:
            self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is buffered."""
        if self._events is not None:
            self._events.close()


def _event_writer(workdir: Path, start: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard=True needs tensorboardX: pip install 'likejax[tensorboard]'") from error
    return SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; lines cut short by a crash are left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records

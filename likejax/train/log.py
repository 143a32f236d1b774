"""What a program reads of a run: JSON lines always, TensorBoard events if asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from likejax.train.side_products import SideProducts

METRICS = "metrics.jsonl"


class MetricsFile:
    """Appends one JSON object a line to ``metrics.jsonl``; without a directory it writes nothing.

    A line that cannot be written is lost with a warning: a log ends no training.

    Args:
      workdir: The run's directory, or ``None``.
      start: Step the run begins at; lines of later steps, left by a run that died, are dropped.
      tensorboard: Whether to write TensorBoard events beside it.

    Attributes:
      history: All records, those from before ``start`` included.
    """

    def __init__(self, workdir: Path | None, *, start: int, tensorboard: bool = False):
        self._path = None if workdir is None else workdir / METRICS
        self._side = SideProducts()
        self._events: Any = None
        self._line_is_whole = True
        self.history: list[dict[str, Any]] = []
        with self._side.making(f"the log {self._path}"):
            self._drop_what_comes_after(start)
        if tensorboard and workdir is not None:
            with self._side.making("writing TensorBoard events"):
                self._events = _event_writer(workdir, start)

    def _drop_what_comes_after(self, start: int) -> None:
        if self._path is None or not self._path.exists():
            return
        self.history = [record for record in read_metrics(self._path) if record["step"] <= start]
        draft = self._path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(record) + "\n" for record in self.history))
        draft.replace(self._path)

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record; numbers that JSON lacks become ``null``."""
        self.history.append(record)
        if self._path is None:
            return
        clean = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in record.items()
        }
        with self._side.making(f"writing the log {self._path}"):
            self._append(json.dumps(clean) + "\n")
        if self._events is not None:
            with self._side.making("writing TensorBoard events"):
                for name, value in record.items():
                    if name != "step" and value is not None:
                        self._events.add_scalar(name, value, record["step"])

    def _append(self, line: str) -> None:
        assert self._path is not None
        begin = (
            "" if self._line_is_whole else "\n"
        )  # what a full disk cut off stays a line of its own
        self._line_is_whole = False
        with self._path.open("a") as file:
            file.write(begin + line)
        self._line_is_whole = True

    def picture(self, name: str, image: Any, step: int) -> None:
        """A picture ``(height, width, 3)`` for TensorBoard, if it is written."""
        if self._events is not None:
            with self._side.making("writing TensorBoard events"):
                self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is buffered."""
        if self._events is not None:
            with self._side.making("writing TensorBoard events"):
                self._events.close()


def check_tensorboard() -> None:
    """Raises a ValueError if TensorBoard events cannot be written here."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "tensorboard=True needs tensorboardX: pip install 'likejax[tensorboard]'"
        ) from error


def _event_writer(workdir: Path, start: int) -> Any:
    from tensorboardX import SummaryWriter

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

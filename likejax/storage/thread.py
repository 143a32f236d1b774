"""One thread of this process in which all checkpoints are written and read, one after the other.

orbax numbers its operations for the whole process and runs event loops of its own, so two of its
operations at once disturb each other: files that exist already, or two saves that wait for one
another for ever. Here they come one at a time, in the order in which they were asked for, in a
thread that has no event loop. A job never waits for another job, so no order of calls can lock:
jobs that a job asks for run at once, inside it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

PATIENCE = 1800.0
"""Seconds that anyone waits for one job, those before it included."""


class StorageTimeoutError(TimeoutError):
    """A job of the storage thread did not end in time."""


class Job(Generic[Result]):
    """Something that the storage thread will do, and what came of it.

    Args:
      what: What it does, for messages.
      work: The function to call.
    """

    def __init__(self, what: str, work: Callable[[], Result]):
        self.what = what
        self._work = work
        self._done = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Does it, in the calling thread."""
        try:
            self._result = self._work()
        except BaseException as error:  # handed to the thread that waits for the result
            self._error = error
        finally:
            self._done.set()

    def result(self, *, patience: float | None = None) -> Result:
        """What the job returned; blocks until it is done.

        Args:
          patience: Seconds to wait.

        Raises:
          StorageTimeoutError: If it is not done in time; the message says what the thread does
            instead.
        """
        patience = PATIENCE if patience is None else patience
        if not self._done.wait(patience):
            raise StorageTimeoutError(
                f"waited {patience:.0f} seconds for {self.what}, and it is not done; the storage "
                "thread stands at "
                f"{_thread.stands_at()}"
            )
        if self._error is not None:
            raise self._error
        return self._result


class _StorageThread:
    """The thread with its queue; it begins with the first job, and anew in a forked process."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job[Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, job: Job[Any]) -> None:
        if threading.current_thread() is self._thread:
            job.run()
            return
        with self._lock:
            if self._thread is None:
                # a daemon, so that a disk that hangs keeps no program from ending
                self._thread = threading.Thread(
                    target=self._work, name="likejax-storage", daemon=True
                )
                self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get().run()

    def stands_at(self) -> str:
        """The line of code that the thread is in."""
        frame = None if self._thread is None else sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return "no line: it has ended"
        last = traceback.extract_stack(frame)[-1]
        return f"{last.filename}:{last.lineno} ({last.name})"


_thread = _StorageThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        after_in_child=_thread.begin_anew
    )  # a child has the queue and not the thread


def ask(what: str, work: Callable[[], Result]) -> Job[Result]:
    """Asks the storage thread to call a function; ``result`` of the job waits for it.

    Args:
      what: What the function does, for messages ("the checkpoint of step 8 in runs/a to be
        written").
      work: The function to call.
    """
    job = Job(what, work)
    _thread.ask(job)
    return job

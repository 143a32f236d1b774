"""One thread of this process in which all checkpoints are written and read, one after the other.

Orbax numbers its operations for the whole process and runs event loops of its own. Two operations
at the same time disturb each other: they find files that exist already, or wait for each other for
ever. Therefore one thread, which has no event loop, runs all of them in the order in which they
were asked for. A job that asks for another job runs it at once, inside itself. So no job waits for
another one, and no order of calls leads to a deadlock.
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
"""Longest time in seconds to wait for a job and for the jobs before it."""


class StorageTimeoutError(TimeoutError):
    """A job of the storage thread did not end in time."""


class Job(Generic[Result]):
    """Function that the storage thread calls, and its result.

    Args:
      what: Work in words, for messages.
      work: The function to call.
    """

    def __init__(self, what: str, work: Callable[[], Result]):
        self.what = what
        self._work = work
        self._done = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Calls the function, in the calling thread."""
        try:
            self._result = self._work()
        except BaseException as error:  # handed to the thread that waits for the result
            self._error = error
        finally:
            self._done.set()

    def result(self, *, patience: float | None = None) -> Result:
        """Returns what the function returned; blocks until it is done.

        Args:
          patience: Longest time to wait, in seconds.

        Raises:
          StorageTimeoutError: If it is not done in time; the message names the line of code that
            the thread is in.
        """
        patience = PATIENCE if patience is None else patience
        if not self._done.wait(patience):
            raise StorageTimeoutError(
                f"waited {patience:.0f} seconds for {self.what}, and it is not done; the storage "
                f"thread stands at {_thread.current_line()}"
            )
        if self._error is not None:
            raise self._error
        return self._result


class _StorageThread:
    """Thread with its queue; it starts with the first job, and once more in a forked process."""

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

    def current_line(self) -> str:
        """Returns the line of code that the thread is in."""
        frame = None if self._thread is None else sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return "no line: it has ended"
        last = traceback.extract_stack(frame)[-1]
        return f"{last.filename}:{last.lineno} ({last.name})"


_thread = _StorageThread()
if hasattr(os, "register_at_fork"):
    # a child process has the queue, but not the thread
    os.register_at_fork(after_in_child=_thread.begin_anew)


def ask(what: str, work: Callable[[], Result]) -> Job[Result]:
    """Asks the storage thread to call a function; ``result`` of the job waits for it.

    Args:
      what: Work in words, for messages ("the checkpoint of step 8 in runs/a to be written").
      work: The function to call.
    """
    job = Job(what, work)
    _thread.ask(job)
    return job

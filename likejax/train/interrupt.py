"""Graceful shutdown: on the first Ctrl-C or SIGTERM, the step ends and the state is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import jax

from likejax import processes
from likejax.train.best_effort import warn
from likejax.train.log import Log


class Interruption:
    """Block in which the first SIGINT or SIGTERM is noted; a second one acts at once.

    Only Python's main thread can take signals: in another thread the block changes nothing.

    Args:
      saves: Whether the state is saved, for the message.
    """

    def __init__(self, *, saves: bool = True) -> None:
        self._what_follows = b"and saving" if saves else b"and returning what is trained"
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def is_agreed(self, *, asks: bool) -> bool:
        """Returns whether to stop after this step; the answer is the same in every process.

        Args:
          asks: Whether several processes ask each other now; otherwise they go on. All must pass
            the same value.
        """
        stops = self.received is not None
        if jax.process_count() == 1:
            return stops
        stops = asks and processes.agreed(stops)
        if stops and self.received is None:  # another process got the signal: this one ends too
            self.received = signal.SIGTERM
        return stops

    @property
    def is_keyboard(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.received == signal.SIGINT

    def _give_back(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            self._tell(
                b"\nlikejax: stopping after this step "
                + self._what_follows
                + b"; once more to stop at once\n"
            )
            return
        self._give_back()
        os.kill(os.getpid(), number)

    def _tell(self, words: bytes) -> None:
        with contextlib.suppress(OSError):  # standard error may be closed
            os.write(2, words)

    def end(self) -> None:
        """Ends the program as the signal asks, after what had to be saved.

        Raises:
          KeyboardInterrupt: For SIGINT, as without this block.
          SystemExit: For SIGTERM, with the code 143 that shells report for it.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)


def announce(
    interruption: Interruption, log: Log, step: int, *, workdir: Path | None, steps: int
) -> None:
    """Prints that a signal ended the run, if one did.

    Args:
      interruption: Block that noted the signal.
      log: Log of the run.
      step: Number of steps done.
      workdir: Directory in which the run is saved; ``None`` if it is not.
      steps: Number of steps of the experiment.
    """
    if interruption.received is None:
        return
    kept = "no workdir, not saved"
    if workdir is not None:
        kept = f"saved in {workdir}; the same call goes on from there"
    log.say(f"stopped by {interruption.received.name} after step {step}: {kept}")
    if workdir is None and interruption.is_keyboard:
        warn(
            f"training was interrupted after step {step} of {steps}: fit returns the run as it "
            "stands (Run.interrupted)"
        )

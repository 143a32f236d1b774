"""A polite end: the first Ctrl-C or SIGTERM lets the step finish and the state be saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any


class Interruption:
    """Notes the first SIGINT or SIGTERM inside a block; a second one acts at once, as it would have before.

    Only Python's main thread can take signals: in another thread the block changes nothing.

    Args:
      saves: Whether the state is saved, for the words that a person reads.
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

    def _give_back(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
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

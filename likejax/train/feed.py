"""Batches on their way to the devices, ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
from typing import Any

import jax

from likejax.data.batches import Batches, Position
from likejax.train import sharding


class Feed:
    """Draws batches in a thread and moves them to the devices while the step before runs.

    Use it as a context manager, so that the thread ends with the block.

    Args:
      batches: Stream of host batches.
      mesh: Devices that the batches are put on.
      ahead: Number of batches that are ready at most.
    """

    def __init__(self, batches: Batches, mesh: jax.sharding.Mesh, *, ahead: int = 2):
        self._batches = batches
        self._mesh = mesh
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="likejax-feed", daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        while not self._ready.empty():  # room for the thread, which then sees the event
            self._ready.get_nowait()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                batch = sharding.put_batch(next(self._batches), self._mesh)
                item = batch, self._batches.position, None
            except BaseException as error:  # handed to the thread that waits for the batch
                item = None, None, error
            self._hand_over(item)
            if item[2] is not None:
                return

    def _hand_over(self, item: tuple[Any, Position | None, BaseException | None]) -> None:
        """Waits for room in the queue, unless the feed is closed meanwhile."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def take(self) -> tuple[Any, Position]:
        """Returns the next batch on the devices, and the position of the stream after it.

        Raises:
          Exception: If the batch could not be made; the error of the thread.
        """
        batch, position, error = self._ready.get()
        if error is not None:
            raise error
        return batch, position

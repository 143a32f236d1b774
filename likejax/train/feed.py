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
      batches: Where batches come from.
      mesh: Where they go.
      ahead: How many to have ready.
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
        while not self._ready.empty():  # makes room, so that the thread sees that it is over
            self._ready.get_nowait()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                batch = next(self._batches)
                item = sharding.put_batch(batch, self._mesh), self._batches.position, None
            except BaseException as error:  # handed to the thread that waits for the batch
                item = None, None, error
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if item[2] is not None:
                return

    def take(self) -> tuple[Any, Position]:
        """The next batch on the devices, and where the stream stands after it."""
        batch, position, error = self._ready.get()
        if error is not None:
            raise error
        return batch, position

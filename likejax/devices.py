"""Data in chunks over the devices of this machine, with the numbers of one device.

Every device has a copy of the model and computes whole chunks, all of one shape. So the number of
an example comes from the same compiled program wherever it is computed.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import PyTree

from likejax.progress import track

Devices = Sequence[Any] | Mesh
"""Devices to compute on, in any order, or a mesh of them."""
Work = Callable[[Any, Any], Any]
"""Function of a model and of the arrays of a chunk, whose results are arrays of the chunk's rows.

It is called in several threads.
"""


def listed(devices: Devices) -> list[Any]:
    """Returns devices as a list.

    Args:
      devices: Devices, or a mesh of them.

    Raises:
      TypeError: If they are not devices.
      ValueError: If there are none, or one is named twice.

    Example:
      >>> import jax
      >>> from likejax.devices import listed
      >>> listed(jax.devices()[:1]) == jax.devices()[:1]
      True
    """
    if not isinstance(devices, Mesh | Sequence) or isinstance(devices, str):
        raise TypeError(
            f"expected devices such as jax.devices()[:1] or a mesh, got {type(devices).__name__}"
        )
    found = list(devices.devices.flat) if isinstance(devices, Mesh) else list(devices)
    wrong = [each for each in found if not isinstance(each, jax.Device)]
    if wrong:
        raise TypeError(
            f"expected devices such as jax.devices()[:1] or a mesh, got {type(wrong[0]).__name__}"
        )
    if not found or len(set(found)) < len(found):
        raise ValueError(f"expected at least one device, each named once, got {found}")
    return found


def in_chunks(
    work: Work,
    model: PyTree,
    arrays: PyTree,
    count: int,
    *,
    batch_size: int,
    devices: Devices | None = None,
    what: str = "computing",
) -> list[tuple[Any, int]]:
    """Computes chunk by chunk, on as many devices as there are chunks for.

    The last chunk is padded with copies of the last row to the shape of the others.

    Args:
      work: Function that is called as ``work(model, chunk)``.
      model: Tree of arrays, such as a density, that every device gets a copy of.
      arrays: Tree of arrays with a leading axis of ``count`` rows. Those of numpy stay on the host
        in a chunk, those of JAX are moved to the device that computes it.
      count: Number of rows, at least 1.
      batch_size: Rows of a chunk, on one device.
      devices: Devices of this process; all of them if not given. A model that lies on several
        devices already is then left as it lies, and computes one chunk at a time.
      what: Name of the computation beside its progress bar.

    Returns:
      For every chunk, in order, its result and the number of rows in it that are no padding.

    Raises:
      TypeError: If ``devices`` are not devices.
      ValueError: If there are none, one is named twice, or one belongs to another process.

    Example:
      >>> import numpy as np
      >>> from likejax.devices import in_chunks
      >>> in_chunks(lambda factor, x: (factor * x).tolist(), 2, np.arange(3), 3, batch_size=2)
      [([0, 2], 2), ([4, 4], 1)]
    """
    size = min(batch_size, count)
    starts = range(0, count, size)
    places = _places(model, devices)[: len(starts)]
    copies = {place: model if place is None else jax.device_put(model, place) for place in places}

    def compute(start: int, place: Any) -> tuple[Any, int]:
        rows = np.minimum(np.arange(start, start + size), count - 1)

        def cut(array: Any) -> Any:
            chosen = array[rows]
            is_moved = place is not None and isinstance(chosen, jax.Array)
            return jax.device_put(chosen, place) if is_moved else chosen

        return work(copies[place], jax.tree.map(cut, arrays)), min(size, count - start)

    if len(places) == 1:
        return [compute(start, places[0]) for start in track(starts, what=what)]
    with _threads(compute, places) as results:
        return list(track(results(starts), what=what, total=len(starts)))


def _places(model: PyTree, devices: Devices | None) -> list[Any]:
    """The devices to compute on; ``None`` for wherever the model lies."""
    if devices is not None:
        places = listed(devices)
        others = [place for place in places if place.process_index != jax.process_index()]
        if others:
            raise ValueError(
                f"expected devices of this process, {others[0]} belongs to another: "
                "jax.local_devices() lists them"
            )
        return places
    places = jax.local_devices()
    leaves = [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array)]
    is_fixed = any(isinstance(leaf, Tracer) or len(leaf.devices()) > 1 for leaf in leaves)
    return [None] if is_fixed or len(places) == 1 else places


@contextlib.contextmanager
def _threads(compute: Callable[[int, Any], Any], places: Sequence[Any]) -> Iterator[Any]:
    """A function from the starts of chunks to an iterator of their results, a thread a device."""
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for place in places:
        free.put(place)
    # settings that JAX keeps for each thread
    config: Any = jax.config
    is_wide, precision = config.jax_enable_x64, config.jax_default_matmul_precision

    def on_a_free_device(start: int) -> Any:
        place = free.get()
        try:
            with jax.enable_x64(is_wide), jax.default_matmul_precision(precision):
                return compute(start, place)
        finally:
            free.put(place)

    pool = ThreadPoolExecutor(len(places), thread_name_prefix="likejax-device")

    def results(starts: Sequence[int]) -> Iterator[Any]:
        # each thread works in the context of the caller, such as that of `own_shapes`
        contexts = [contextvars.copy_context() for _ in starts]
        tasks = [
            pool.submit(context.run, on_a_free_device, start)
            for context, start in zip(contexts, starts, strict=True)
        ]
        return (task.result() for task in tasks)

    try:
        yield results
    finally:
        pool.shutdown(cancel_futures=True)

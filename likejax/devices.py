"""Data in chunks over devices, of one process or of several, with the numbers of one device.

Every device has a copy of the model and computes whole chunks, all of one shape. So the number of
an example comes from the same compiled program wherever it is computed.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import PyTree

from likejax.processes import check_same, digest, shared, to_host
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
      devices: Devices; all of this process if not given. A model that lies on several devices
        already is then left as it lies, and computes one chunk at a time. Devices of several
        processes share the chunks: then every process must make the same call, and gets all
        results.
      what: Name of the computation beside its progress bar.

    Returns:
      For every chunk, in order, its result and the number of rows in it that are no padding.

    Raises:
      TypeError: If ``devices`` are not devices.
      ValueError: If there are none, one is named twice, or all belong to another process.

    Example:
      >>> import numpy as np
      >>> from likejax.devices import in_chunks
      >>> in_chunks(lambda factor, x: (factor * x).tolist(), 2, np.arange(3), 3, batch_size=2)
      [([0, 2], 2), ([4, 4], 1)]
    """
    size = min(batch_size, count)
    starts = range(0, count, size)
    share = _Share(starts, _places(model, devices), owners=None)
    if spans_processes(devices):
        check_same("rows", f"{count} rows ({digest(arrays)}) in chunks of {size}")
        share = _own_share(starts, share.places)
        model = jax.tree.map(_reachable, model)
    places = share.places[: len(share.starts)]
    copies = {place: model if place is None else jax.device_put(model, place) for place in places}

    def compute(start: int, place: Any) -> Any:
        rows = np.minimum(np.arange(start, start + size), count - 1)
        is_whole = size == count

        def cut(array: Any) -> Any:
            chosen = array if is_whole else _chosen(array, rows)
            is_moved = place is not None and isinstance(chosen, jax.Array)
            return jax.device_put(chosen, place) if is_moved else chosen

        return work(copies[place], jax.tree.map(cut, arrays))

    results = _computed(compute, share.starts, places, what)
    if share.owners is not None:
        results = shared(results, share.owners)
    return [(each, min(size, count - start)) for each, start in zip(results, starts, strict=True)]


def _chosen(array: Any, rows: np.ndarray) -> Any:
    """Rows of an array, of one of JAX by one program."""
    return _taken(array, rows) if isinstance(array, jax.Array) else array[rows]


@jax.jit
def _taken(array: Any, rows: Any) -> Any:
    return array[rows]


def check_shared(model: PyTree, devices: Devices | None) -> None:
    """Raises a ValueError if devices of several processes are to share the work of unequal models.

    Training does not ask, since its copies of a model may differ in their last digits.

    Args:
      model: Tree of arrays, such as a density.
      devices: Devices, or a mesh of them; ``None`` for those of this process.

    Example:
      >>> import jax, likejax as lj
      >>> from likejax.devices import check_shared
      >>> check_shared(lj.models.Uniform((2,)), jax.devices())
    """
    if spans_processes(devices):
        check_same("model", digest(model))


def spans_processes(devices: Devices | None) -> bool:
    """Returns whether devices belong to several processes, so that every process must use them.

    Args:
      devices: Devices, or a mesh of them; ``None`` for those of this process.

    Example:
      >>> import jax
      >>> from likejax.devices import spans_processes
      >>> spans_processes(jax.devices())
      False
    """
    if devices is None:
        return False
    return len({place.process_index for place in listed(devices)}) > 1


def _places(model: PyTree, devices: Devices | None) -> list[Any]:
    """The devices to compute on; ``None`` for wherever the model lies."""
    if devices is not None:
        places = listed(devices)
        elsewhere = places[0].process_index != jax.process_index()
        if elsewhere and not spans_processes(devices):
            raise ValueError(
                f"expected devices of this process, {places[0]} belongs to another: "
                "jax.local_devices() lists them"
            )
        return places
    places = jax.local_devices()
    leaves = [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array)]
    is_fixed = any(isinstance(leaf, Tracer) or len(leaf.devices()) > 1 for leaf in leaves)
    return [None] if is_fixed or len(places) == 1 else places


class _Share(NamedTuple):
    """What one process computes.

    Attributes:
      starts: First rows of its chunks.
      places: Its devices.
      owners: For every chunk of the data, the process that computes it; ``None`` if this one
        computes all of them.
    """

    starts: Sequence[int]
    places: list[Any]
    owners: list[int] | None


def _own_share(starts: Sequence[int], places: list[Any]) -> _Share:
    """The share of this process, where the devices of several take chunks in turn."""
    mine = jax.process_index()
    owners = [places[number % len(places)].process_index for number in range(len(starts))]
    own = [start for start, owner in zip(starts, owners, strict=True) if owner == mine]
    devices = [place for place in places if place.process_index == mine]
    # a process without a chunk learns the form of the results from the first one
    return _Share(own or [0], devices or [None], owners)


def _reachable(leaf: Any) -> Any:
    """An array that this process can copy to its devices."""
    is_divided = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    return to_host(leaf) if is_divided else leaf


def _computed(
    compute: Callable[[int, Any], Any], starts: Sequence[int], places: Sequence[Any], what: str
) -> list[Any]:
    """The results of chunks, by their starts, on devices of this process."""
    if len(places) == 1:
        return [compute(start, places[0]) for start in track(starts, what=what)]
    with _threads(compute, places) as results:
        return list(track(results(starts), what=what, total=len(starts)))


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

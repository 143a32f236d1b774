"""Placement of arrays: one mesh for one device, many devices and many processes.

One ``jax.jit`` runs the step on a mesh of all devices of all processes. A batch is cut over the
devices, and parameters are copied to each of them (data parallel) or divided over
``parameter_shards`` of them. The compiler averages the gradients. ``pmap`` is not used, because JAX
only keeps it in maintenance.
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import numpy as np
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    SingleDeviceSharding,
)
from jaxtyping import PyTree

from likejax.devices import Devices as Devices
from likejax.devices import listed

AXES = ("data", "shard")
"""Axes of the mesh."""
_DIVIDED_FROM = 1024
"""Entries below which an array is copied to every device, since dividing it would cost more."""


def device_mesh(parameter_shards: int = 1, devices: Devices | None = None) -> Mesh:
    """Returns devices as a mesh with the axes ``(data, shard)``.

    Args:
      parameter_shards: Size of the second axis, over which parameters are divided.
      devices: Devices to use, or a mesh of them; all devices of all processes if not given.

    Raises:
      TypeError: If ``devices`` are not devices.
      ValueError: If there are none, one is named twice, or they do not divide by
        ``parameter_shards``.
    """
    devices = listed(jax.devices() if devices is None else devices)
    if len(devices) % parameter_shards:
        raise ValueError(
            f"expected parameter_shards to divide the {len(devices)} devices, got "
            f"{parameter_shards}; 1 keeps a copy of the parameters on each"
        )
    shape = len(devices) // parameter_shards, parameter_shards
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def check_batch_size(batch_size: int, *, mesh: Mesh, accumulate: int) -> None:
    """Refuses batches that cannot be cut over the devices.

    Args:
      batch_size: Examples of a step.
      mesh: Devices.
      accumulate: Number of parts of a batch that are worked on one after the other.

    Raises:
      ValueError: If the size does not divide.
    """
    if batch_size % (mesh.size * accumulate):
        raise ValueError(
            f"expected a batch_size divisible by {mesh.size} devices times "
            f"accumulate={accumulate}, got {batch_size}"
        )


def own_devices(mesh: Mesh) -> list[Any]:
    """Returns the devices of a mesh that this process owns, or all of its own if it has none there.

    Args:
      mesh: Devices of all processes.
    """
    return list(mesh.local_devices or jax.local_devices())


def on_one_device(mesh: Mesh) -> SingleDeviceSharding:
    """Returns the sharding of arrays on the first device of a mesh that this process owns.

    Args:
      mesh: Devices of all processes.
    """
    return SingleDeviceSharding(own_devices(mesh)[0])


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of arrays of which every device has a copy.

    Args:
      mesh: Devices.
    """
    return NamedSharding(mesh, PartitionSpec())


def cut(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch, whose leading axis is divided over all devices.

    Args:
      mesh: Devices.
    """
    return NamedSharding(mesh, PartitionSpec(AXES))


def divided(mesh: Mesh | AbstractMesh, tree: PyTree) -> PyTree:
    """Returns the sharding of every array: its longest axis that divides, or a copy on each device.

    Args:
      mesh: Devices.
      tree: Tree of arrays.
    """
    shards = mesh.shape["shard"]

    def one(leaf: PyTree) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % shards == 0]
        if shards == 1 or not axes or np.prod(leaf.shape) < _DIVIDED_FROM:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "shard"))

    return jax.tree.map(one, tree)


def put_state(state: PyTree, shardings: PyTree) -> Any:
    """Puts a state of host arrays, the same in every process, on the devices, as copies.

    Args:
      state: Tree of host arrays.
      shardings: Tree of their shardings.
    """

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        array = np.array(leaf)
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index].copy()
        )

    return jax.tree.map(put, state, shardings)


def put_batch(batch: PyTree, mesh: Mesh) -> Any:
    """Puts a batch on the devices, the parts of all processes as one array.

    Args:
      batch: Tree of host arrays: this process's part of the batch.
      mesh: Devices.
    """
    sharding = cut(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), batch)


def to_host(tree: PyTree) -> Any:
    """Returns whole arrays in the memory of every process, wherever their parts are.

    With several processes every process must call it.

    Args:
      tree: Tree of arrays.
    """

    def one(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        from jax.experimental.multihost_utils import process_allgather

        return np.asarray(process_allgather(leaf, tiled=True))

    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, jax.device_get(tree))
    return jax.tree.map(one, tree)


def agreed(flag: bool) -> bool:
    """Returns whether the flag is set in any process; every process must call it.

    Args:
      flag: Flag of this process.
    """
    if jax.process_count() == 1:
        return flag
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.asarray(flag))))


def check_same(what: str, mine: str) -> None:
    """Raises a ValueError unless a text is the same in all processes; every process must call it.

    Args:
      what: Name of what the text describes.
      mine: The text of this process.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    number = np.asarray(zlib.crc32(mine.encode()), np.uint32)
    numbers = process_allgather(number)
    if len(np.unique(numbers)) > 1:
        raise ValueError(
            f"expected the same {what} in all {len(numbers)} processes, got {mine} in process "
            f"{jax.process_index()} and others elsewhere: only iterables of training examples may "
            "differ between processes"
        )


def of_first_process(tree: PyTree) -> Any:
    """Returns the arrays of the first process, in every process: initializations may differ.

    Args:
      tree: Tree of arrays.
    """
    if jax.process_count() == 1:
        return tree
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return broadcast_one_to_all(to_host(tree))

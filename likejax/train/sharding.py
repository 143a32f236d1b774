"""Placement of arrays: one mesh for one device, many devices and many processes.

One ``jax.jit`` runs the step on a mesh of all devices of all processes. A batch is cut over the
devices, and parameters are copied to each of them (data parallel) or divided over
``parameter_shards`` of them. The compiler averages the gradients. ``pmap`` is not used, because JAX
only keeps it in maintenance.
"""

from __future__ import annotations

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
from likejax.devices import listed, spans_processes

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


def validation_devices(mesh: Mesh) -> list[Any]:
    """Returns the devices that share the validation rows: all of a mesh of several processes.

    Args:
      mesh: Devices of all processes.
    """
    return list(mesh.devices.flat) if spans_processes(mesh) else own_devices(mesh)


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

"""Where arrays live: batches cut over all devices, parameters on each of them."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def data_mesh() -> Mesh:
    """A one-dimensional mesh of all local devices; what replaced ``pmap``."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def cut(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays of the host on the devices."""
    return jax.device_put(tree, sharding)

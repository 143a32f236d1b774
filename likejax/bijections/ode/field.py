"""The augmented field: the velocity of a state together with the integrands along its path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from likejax.bijections.ode.settings import Trace

Velocity = Callable[[Array], Array]
"""The field at one time, ``f(z)``, on any leading batch shape."""


class AugmentedState(NamedTuple):
    """The state of a solve, and integrals along its path, each of the batch shape.

    Attributes:
      z: State, ``(*batch, *event)``.
      log_det: ``integral of tr(df/dz)``, nats; ``None`` where it is not needed.
      kinetic_energy: ``integral of |f|^2 / (2 D)``; ``None`` where it is not needed.
      jacobian_norm: ``integral of |df/dz|_F^2 / D``, or its estimate from the probes.
    """

    z: Array
    log_det: Array | None = None
    kinetic_energy: Array | None = None
    jacobian_norm: Array | None = None


def augmented_field(
    velocity: Velocity,
    state: AugmentedState,
    *,
    trace: Trace,
    probes: Array | None,
    end_time: Float[ArrayLike, ""],
) -> AugmentedState:
    """Computes the derivative of an augmented state.

    Time runs over [0, 1] and the velocity is ``T f``. The integral of ``|f|^2`` over [0, T] is then
    that of ``|T f|^2 / T`` over [0, 1], which is why the energies are divided by the end time.

    Args:
      velocity: ``T f(z)`` at one time.
      state: State; what is ``None`` in it is not computed.
      trace: Settings of the trace.
      probes: Probes ``(probes, *batch, *event)``; ``None`` for the exact trace.
      end_time: ``T``.

    Returns:
      The derivative of every array of the state.
    """
    z = state.z
    if state.log_det is None:
        return AugmentedState(velocity(z))
    batch_axes = state.log_det.ndim
    event_axes = tuple(range(batch_axes, z.ndim))
    behind_directions = tuple(axis + 1 for axis in event_axes)
    dimensions = math.prod(z.shape[batch_axes:])
    dtype = state.log_det.dtype

    # the exact trace sums e^T J e over the unit vectors, the estimate averages it over the probes
    directions = unit_vectors(z, batch_axes) if probes is None else probes
    collect = jnp.sum if probes is None else jnp.mean
    value, products = jacobian_products(trace.product, velocity, z, directions)
    along = jnp.sum((products * directions).astype(dtype), behind_directions)
    log_det = collect(along, axis=0)
    if state.kinetic_energy is None:
        return AugmentedState(value, log_det)

    kinetic = jnp.sum(jnp.square(value).astype(dtype), event_axes)
    squares = jnp.sum(jnp.square(products).astype(dtype), behind_directions)
    return AugmentedState(
        value,
        log_det,
        kinetic_energy=kinetic / (2 * dimensions * end_time),
        jacobian_norm=collect(squares, axis=0) / (dimensions * end_time),
    )


def unit_vectors(z: Float[Array, "..."], batch_axes: int) -> Float[Array, "dimensions ..."]:
    """Returns the ``D`` unit vectors of the event for every example, ``(D, *batch, *event)``.

    Args:
      z: States ``(*batch, *event)``.
      batch_axes: Number of the leading axes that count examples.
    """
    event = z.shape[batch_axes:]
    dimensions = math.prod(event)
    units = jnp.eye(dimensions, dtype=z.dtype)
    units = units.reshape(dimensions, *(1,) * batch_axes, *event)
    return jnp.broadcast_to(units, (dimensions, *z.shape))


def jacobian_products(
    kind: str, field: Velocity, z: Array, directions: Array
) -> tuple[Array, Array]:
    """Computes ``f(z)``, and ``J e`` (``jvp``) or ``e^T J`` (``vjp``) for each direction.

    Args:
      kind: ``jvp`` or ``vjp``, the mode of ``Trace.product``.
      field: Velocity ``f(z)`` at one time.
      z: States ``(*batch, *event)``.
      directions: Vectors ``e``, ``(directions, *batch, *event)``.

    Returns:
      The velocity, of the shape of ``z``, and the products, of the shape of ``directions``.
    """
    if kind == "jvp":

        def push(direction: Array) -> tuple[Array, Array]:
            return jax.jvp(field, (z,), (direction,))

        if len(directions) == 1:
            value, product = push(directions[0])
            return value, product[None]
        return jax.vmap(push, out_axes=(None, 0))(directions)

    value, pull_back = jax.vjp(field, z)

    def pull(direction: Array) -> Array:
        return pull_back(direction)[0]

    if len(directions) == 1:
        return value, pull(directions[0])[None]
    return value, jax.vmap(pull)(directions)


def error_norm(error: AugmentedState) -> Float[Array, ""]:
    """Computes the root mean square over the state and the log-determinant.

    The energies do not count, so asking for them does not change the steps.

    Args:
      error: Error estimate of every array of an augmented state.
    """
    leaves = [error.z]
    if error.log_det is not None:
        leaves.append(error.log_det)
    total = sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)
    size = sum(leaf.size for leaf in leaves)
    return _square_root(jnp.asarray(total) / size)


def _square_root(x: Array) -> Array:
    """The root whose gradient at zero is zero and not infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)

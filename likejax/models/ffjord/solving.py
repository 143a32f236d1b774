"""The solves of a continuous flow: other settings for them, and how much they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike

from likejax.bijections.ode import ODE, Solver, Trace, field_given
from likejax.density import Density, check_density
from likejax.keys import KeyLike
from likejax.nn.modules import replace
from likejax.settings import checked

Module = TypeVar("Module", bound=nnx.Module)


def with_solver(
    module: Module,
    *,
    trace: Trace | None = None,
    training_trace: Trace | None = None,
    solver: Solver | None = None,
    training_solver: Solver | None = None,
) -> Module:
    """Returns ``module`` with other settings in every ``ODE`` inside it.

    The config of a density follows. A config that does not describe these settings is dropped,
    since it would no longer describe the density.

    Args:
      module: A bijection or a density.
      trace: Trace of the Jacobian in ``log_prob``.
      training_trace: Trace of the Jacobian in ``terms``.
      solver: Solver of ``log_prob``, ``sample``, ``encode`` and ``decode``.
      training_solver: Solver of ``terms``.

    Raises:
      TypeError: If there is no ``ODE`` in ``module``, or a setting is of another type.

    Example:
      >>> import likejax as lj
      >>> density = lj.build(lj.models.FFJORDConfig(hidden=(8,)), key=0)
      >>> lj.models.with_solver(density, trace=lj.bijections.Trace(probes=1)).kind
      <Kind.ESTIMATE: 'estimate'>
    """
    check_continuous(module)
    settings = {
        "trace": checked("trace", trace, Trace | None),
        "training_trace": checked("training_trace", training_trace, Trace | None),
        "solver": checked("solver", solver, Solver | None),
        "training_solver": checked("training_solver", training_solver, Solver | None),
    }
    changes = {name: value for name, value in settings.items() if value is not None}
    changed = _change_odes(module, lambda ode: replace(ode, **changes))
    config = getattr(module, "config", None)
    if config is None or not changes:
        return changed
    return replace(changed, config=_changed_config(config, changes))


def _changed_config(config: Any, changes: dict[str, Solver | Trace]) -> Any:
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **changes) if fields >= set(changes) else None


def check_continuous(module: object) -> None:
    """Raises a TypeError unless there is an ``ODE`` in a bijection or a density.

    Args:
      module: A bijection or a density.

    Raises:
      TypeError: If there is none.
    """
    nodes = jax.tree.leaves(module, is_leaf=_is_ode)
    if not any(map(_is_ode, nodes)):
        raise TypeError(f"expected a continuous flow, {type(module).__name__} solves no ODE")


class Evaluations(NamedTuple):
    """Evaluations of the fields, of all flows together, for one training gradient of a batch."""

    forward: int
    backward: int


def function_evaluations(
    density: Density,
    x: ArrayLike,
    *,
    key: KeyLike | None = None,
    condition: ArrayLike | None = None,
) -> Evaluations:
    """Counts the evaluations of the vector fields in ``terms`` and in the gradient of its mean.

    With the checkpointed adjoint ``backward`` repeats the steps that were taken; with the
    continuous one it is a solve of its own.

    Args:
      density: A continuous flow, dequantized or not.
      x: A batch.
      key: Key of the dequantization and the probes, as for ``terms``.
      condition: Condition of a conditional flow, as for ``terms``.

    Raises:
      TypeError: If the density solves no ODE.

    Example:
      >>> import likejax as lj
      >>> solver = lj.bijections.Solver(method="rk4", steps=2)
      >>> config = lj.models.FFJORDConfig(hidden=(8,), training_solver=solver)
      >>> density = lj.build(config, key=0)
      >>> lj.models.function_evaluations(density, lj.load("moons").examples[:4]).forward
      8
    """
    check_density(density)
    check_continuous(density)
    calls: list[None] = []

    def count(ode: ODE) -> ODE:
        return replace(ode, dynamics=_Counted(ode.dynamics, lambda: calls.append(None)))

    density = _change_odes(density, count)

    def loss(density: Density) -> jax.Array:
        return -jnp.mean(density.terms(x, key=key, condition=condition).log_prob)

    counts = []
    for work in (loss, jax.grad(loss)):
        jax.block_until_ready(jax.jit(work)(density))
        jax.effects_barrier()
        counts.append(len(calls))
        calls.clear()
    return Evaluations(counts[0], counts[1] - counts[0])


class _Counted(nnx.Module):
    """A field that notes each of its evaluations."""

    def __init__(self, dynamics: nnx.Module, note: Callable[[], None]):
        self.dynamics = dynamics
        self.note = note

    def __call__(self, t: ArrayLike, z: Array) -> Array:
        jax.debug.callback(self.note)
        return self.dynamics(t, z)  # type: ignore[operator]

    def given(self, condition: Array) -> _Counted:
        return _Counted(field_given(self.dynamics, condition), self.note)


def _is_ode(node: object) -> bool:
    return isinstance(node, ODE)


def _change_odes(module: Module, change: Callable[[ODE], ODE]) -> Module:
    def visit(node: object) -> object:
        return change(node) if isinstance(node, ODE) else node

    return jax.tree.map(visit, module, is_leaf=_is_ode)

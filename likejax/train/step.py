"""One update of the train state, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key

from likejax.data.batches import Batch
from likejax.experiment import Guard
from likejax.keys import example_keys
from likejax.nn.state import Arrays, Structure, merge
from likejax.train import sharding
from likejax.train.guard import update as guard_update
from likejax.train.state import OptimizerState, TrainState, ema_update

Metrics = dict[str, Any]
"""Scalars by name."""
StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
"""Function from a state and a batch to the next state and the metrics of the step."""


class Placement(NamedTuple):
    """Devices of a run and the place of its state on them.

    Attributes:
      mesh: Devices.
      state: Sharding of every array, as a tree like the train state.
    """

    mesh: jax.sharding.Mesh
    state: Any


def compile_step(
    objective: Callable[..., Any],
    transformation: optax.GradientTransformation,
    *,
    structure: Structure,
    guard: Guard,
    ema_decay: float,
    accumulate: int,
    key: Key[Array, ""],
    placement: Placement,
) -> StepFunction:
    """Returns the compiled function from a state and a batch to the next state and metrics.

    The memory of the old state is reused. A step that the guard rejects leaves parameters, moving
    average and optimizer as they were. The metric ``taken`` tells whether the step was taken,
    ``in_a_row`` how many steps in a row were rejected, and ``bad_array`` the index of the first
    parameter whose gradient is not finite (-1 if all are finite).

    Args:
      objective: Function ``(density, batch, keys, step) -> (loss, metrics)``.
      transformation: Optimizer.
      structure: Structure of the density.
      guard: Rule for steps that are not taken.
      ema_decay: Decay of the moving average of the parameters.
      accumulate: Number of parts of a batch that are computed one after the other.
      key: Key of the noise of all steps.
      placement: Devices and the place of the state on them.
    """
    mesh = placement.mesh
    is_divided = mesh.shape["shard"] > 1
    whole = sharding.replicated(mesh)
    # host constants, the same in every process
    key_data, impl = np.asarray(jax.random.key_data(key)), jax.random.key_impl(key)

    def gradient_of(
        params: Arrays, buffers: Arrays, batch: Batch, keys: Array, step: Array
    ) -> tuple[Metrics, Arrays]:
        def loss_of(params: Arrays) -> tuple[Array, Metrics]:
            density = merge(structure, params, buffers)
            return _checked(objective(density, batch, keys, step))

        (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        return {**metrics, "loss": loss}, gradient

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        run_key = jax.random.wrap_key_data(jnp.asarray(key_data), impl=impl)
        step_key = jax.random.fold_in(run_key, state.step)
        keys = example_keys(step_key, jnp.arange(len(batch.x)))
        params = state.params
        if is_divided:  # parameters are whole while they compute, divided where they are kept
            params = jax.lax.with_sharding_constraint(params, whole)

        def of_part(part: Batch, keys: Array) -> tuple[Metrics, Arrays]:
            return gradient_of(params, state.buffers, part, keys, state.step)

        if accumulate == 1:
            metrics, gradient = of_part(batch, keys)
        else:
            metrics, gradient = _accumulated(of_part, batch, keys, accumulate)
        squares = _squared_norms(gradient)
        norm = jnp.sqrt(jnp.sum(squares))
        finite = jnp.isfinite(norm) & _all_finite(metrics)
        taken, memory = guard_update(guard, state.guard, finite, norm)

        new = _updated(state, gradient, transformation, ema_decay)
        old = state.params, state.ema, state.optimizer
        params, ema, optimizer = optax.tree.where(taken, new, old)
        watched = {
            "gradient_norm": norm,
            "taken": taken,
            "in_a_row": memory.in_a_row,
            "bad_array": _first_not_finite(squares),
        }
        state = TrainState(state.step + 1, params, ema, state.buffers, optimizer, memory)
        return state, {**metrics, **watched}

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(placement.state, sharding.cut(mesh)),
        out_shardings=(placement.state, whole),
    )


def _updated(
    state: TrainState,
    gradient: Arrays,
    transformation: optax.GradientTransformation,
    ema_decay: float,
) -> tuple[Arrays, Arrays, OptimizerState]:
    """Parameters, moving average and optimizer state after a step that is taken."""
    with jax.numpy_dtype_promotion("standard"):  # optax mixes floats with its counter
        updates, optimizer = transformation.update(gradient, state.optimizer, state.params)
        params: Arrays = optax.apply_updates(state.params, updates)  # pyright: ignore
    return params, ema_update(state.ema, params, ema_decay, state.step), optimizer


def _squared_norms(gradient: Arrays) -> Float[Array, " arrays"]:
    """Squared norm of the gradient of every array, in float32."""
    norms = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in gradient.values()]
    return jnp.stack(norms)


def _all_finite(metrics: Metrics) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.isfinite(value) for value in metrics.values()]))


def _first_not_finite(values: Float[Array, " arrays"]) -> Array:
    """Index of the first entry that is not finite; -1 if all are finite."""
    bad = ~jnp.isfinite(values)
    return jnp.where(bad.any(), jnp.argmax(bad), -1)


_WATCHED = ("gradient_norm", "taken", "in_a_row", "bad_array")
"""Metrics that the step adds."""
RESERVED = (*_WATCHED, "step", "skipped", "steps_per_second", "seconds", "validation")
"""Names in the log that an objective's metrics must not take."""


def _checked(result: Any) -> tuple[Array, Metrics]:
    """Checks what an objective returned: a scalar loss and scalar metrics by name.

    Raises:
      TypeError: If it is something else.
      ValueError: If a loss or metric is no scalar, or a metric has a name that the log uses itself.
    """
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        raise TypeError(
            "expected the objective to return (loss, metrics), a scalar and a dictionary of "
            f"scalars, got {type(result).__name__}: return loss, {{}} if there is nothing to log"
        )
    loss, metrics = jnp.asarray(result[0]), dict(result[1])
    for name, value in {"loss": loss, **metrics}.items():
        if name in RESERVED:
            raise ValueError(
                f"expected another name than {name!r} for a metric of the objective: the log uses "
                "it"
            )
        if jnp.shape(value) != ():
            raise ValueError(
                f"expected the objective to return a scalar {name}, got shape {jnp.shape(value)}: "
                "take its mean"
            )
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        raise TypeError(f"expected the objective to return a floating-point loss, got {loss.dtype}")
    return loss, {name: jnp.asarray(value) for name, value in metrics.items()}


def _accumulated(
    gradient_of: Callable[[Batch, Array], tuple[Metrics, Arrays]],
    batch: Batch,
    keys: Array,
    parts: int,
) -> tuple[Metrics, Arrays]:
    """Means of metrics and gradient over ``parts`` parts of the batch, one after the other.

    Every part takes rows from every device, so that each device works on all parts. On CPU a loop
    of XLA runs its convolutions on one core: accumulation saves memory there, not time.
    """

    def cut(leaf: Array) -> Array:
        # (n, ...) -> (n / parts, parts, ...) -> (parts, n / parts, ...)
        rows = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    def shape_of_part(leaf: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    cut_batch, cut_keys = jax.tree.map(cut, batch), cut(keys)
    first = jax.tree.map(shape_of_part, (cut_batch, cut_keys))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(gradient_of, *first))

    def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient_of(*part)), None

    total, _ = jax.lax.scan(add, zeros, (cut_batch, cut_keys))
    return jax.tree.map(lambda sum_: sum_ / parts, total)

"""One update of the train state, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from likejax.data.batches import Batch
from likejax.experiment import Experiment
from likejax.keys import example_keys
from likejax.nn.state import Arrays, Structure, merge
from likejax.train import sharding
from likejax.train.guard import update as guard_update
from likejax.train.state import TrainState, ema_update

StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def compile_step(
    experiment: Experiment,
    structure: Structure,
    transformation: optax.GradientTransformation,
    key: Array,
    mesh: jax.sharding.Mesh,
    shardings: Any,
) -> StepFunction:
    """Returns the compiled function from a state and a batch to the next state and metrics.

    The memory of the old state is reused.

    A step that the guard rejects leaves parameters, moving average and optimizer as they were; the
    metric ``taken`` says so, ``in_a_row`` how many before it were rejected too, and ``bad_array``
    which parameter's gradient is the first that is not finite (-1 if all are).
    """
    key_data, impl = (
        np.asarray(jax.random.key_data(key)),
        jax.random.key_impl(key),
    )  # constants in every process
    whole = sharding.replicated(mesh)

    def gradient_of(params: Arrays, fixed: Arrays, batch: Batch, keys: Array, step: Array) -> Any:
        def loss_of(params: Arrays) -> Any:
            return _checked(
                experiment.objective(merge(structure, params, fixed), batch, keys, step)
            )

        (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        return {**metrics, "loss": loss}, gradient

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        run_key = jax.random.wrap_key_data(jnp.asarray(key_data), impl=impl)
        keys = example_keys(jax.random.fold_in(run_key, state.step), jnp.arange(len(batch.x)))
        params = state.params
        if experiment.parameter_shards > 1:  # whole while they compute, divided where they are kept
            params = jax.lax.with_sharding_constraint(params, whole)
        if experiment.accumulate == 1:
            metrics, gradient = gradient_of(params, state.fixed, batch, keys, state.step)
        else:
            metrics, gradient = _accumulated(
                lambda part, keys: gradient_of(params, state.fixed, part, keys, state.step),
                batch,
                keys,
                experiment.accumulate,
            )
        squares = jnp.stack(
            [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in gradient.values()]
        )
        norm = jnp.sqrt(jnp.sum(squares))
        finite = jnp.isfinite(norm) & jnp.all(
            jnp.stack([jnp.isfinite(value) for value in metrics.values()])
        )
        taken, guard = guard_update(experiment.guard, state.guard, finite, norm)

        with jax.numpy_dtype_promotion("standard"):  # optax mixes floats with its counter
            updates, optimizer = transformation.update(gradient, state.optimizer, state.params)
            new_params: Arrays = optax.apply_updates(state.params, updates)  # pyright: ignore
        ema = ema_update(state.ema, new_params, experiment.ema_decay, state.step)
        old = state.params, state.ema, state.optimizer
        new_params, ema, optimizer = optax.tree.where(taken, (new_params, ema, optimizer), old)
        infinite = ~jnp.isfinite(squares)
        bad_array = jnp.where(infinite.any(), jnp.argmax(infinite), -1)
        watch = {
            "gradient_norm": norm,
            "taken": taken,
            "in_a_row": guard.in_a_row,
            "bad_array": bad_array,
        }
        return TrainState(state.step + 1, new_params, ema, state.fixed, optimizer, guard), {
            **metrics,
            **watch,
        }

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, sharding.cut(mesh)),
        out_shardings=(shardings, whole),
    )


_WATCHED = ("gradient_norm", "taken", "in_a_row", "bad_array")
"""Metrics that the step adds."""
RESERVED = (*_WATCHED, "step", "skipped", "steps_per_second", "seconds", "validation")
"""Names in the log that an objective's metrics must not take."""


def _checked(result: Any) -> tuple[Array, dict[str, Array]]:
    """What an objective returned, a scalar loss and scalar metrics by name.

    Raises:
      TypeError: If it is something else.
      ValueError: If a loss or metric is no scalar, or a metric has a name that the log uses itself.
    """
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        raise TypeError(
            "expected the objective to return (loss, metrics), a scalar and a dictionary of "
            "scalars, got "
            f"{type(result).__name__}: return loss, {{}} if there is nothing to log"
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
    gradient_of: Callable[[Batch, Array], Any], batch: Batch, keys: Array, parts: int
) -> Any:
    """Means of metrics and gradient over ``parts`` parts of the batch, one after the other.

    Every part takes rows from every device, so that each device works on all parts. On CPU a loop
    of XLA runs its convolutions on one core: accumulation saves memory there, not time.
    """

    def cut(leaf: Array) -> Array:
        return jnp.swapaxes(leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]), 0, 1)

    cut_batch, cut_keys = jax.tree.map(cut, batch), cut(keys)
    first = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (cut_batch, cut_keys)
    )
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(gradient_of, *first))

    def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient_of(*part)), None

    total, _ = jax.lax.scan(add, zeros, (cut_batch, cut_keys))
    return jax.tree.map(lambda sum_: sum_ / parts, total)

"""Weights that a run starts from, of another run or density."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from likejax.density import Density
from likejax.experiment import Experiment
from likejax.nn.repeat import for_backend, stack
from likejax.nn.state import Arrays, merge, split
from likejax.records import to_record
from likejax.storage.density import RECORD, checksum_of, restore
from likejax.storage.files import directory_path
from likejax.train.run import Run, restore_run, stacked_model
from likejax.train.state import OptimizerState, TrainState

InitialWeights = Run | Density | str | os.PathLike[str]
"""A run, a density, or the directory of either."""


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights to start from.

    Attributes:
      density: Density of the raw weights, with the structure of the model that is trained.
      ema: Moving average of its trainable arrays.
      optimizer: State of the same optimizer; ``None`` to begin anew.
      checksum: Checksum of the weights.
    """

    density: Density
    ema: Arrays
    optimizer: OptimizerState
    checksum: str


def initial_weights(initial: InitialWeights, experiment: Experiment) -> Initial:
    """Returns the weights that a run starts from.

    Args:
      initial: Run, density, or directory of either. Of a run the raw weights and the moving average
        are taken, and the state of the optimizer if it has the same settings.
      experiment: Experiment that is run.

    Raises:
      TypeError: If ``initial`` is none of these.
      ValueError: If it has other parameters than the experiment's model.
    """
    if isinstance(initial, str | os.PathLike):
        initial = _read(initial, experiment)
    if isinstance(initial, Run):
        source, ema = initial.raw, initial.last
        optimizer = _same_optimizer(initial, experiment)
    elif isinstance(initial, Density):
        source = ema = initial
        optimizer = None
    else:
        raise TypeError(
            "expected initial to be a Run, a Density or the directory of one, got "
            f"{type(initial).__name__}"
        )
    density = _with_weights(experiment.model, source)
    average = split(_with_weights(experiment.model, ema))[1]
    return Initial(density, average, optimizer, checksum_of(source))


def _read(directory: str | os.PathLike[str], experiment: Experiment) -> Run | Density:
    """The run in a directory, or the density that was saved there."""
    template = experiment.model if isinstance(experiment.model, Density) else None
    place = directory_path(directory)
    if not (place / RECORD).exists():
        return restore(place, density=template)
    return restore_run(place, experiment=None if template is None else experiment)


def _same_optimizer(run: Run, experiment: Experiment) -> OptimizerState:
    """The state of a run's optimizer, if the new one is the same; its schedule begins anew."""
    if run.state is None or run.state.optimizer is None:
        return None
    if to_record(run.experiment.optimizer) != to_record(experiment.optimizer):
        return None

    def begun(node: Any) -> Any:
        if not _is_schedule(node):
            return node
        return optax.ScaleByScheduleState(count=np.zeros_like(node.count))

    return jax.tree.map(begun, run.state.optimizer, is_leaf=_is_schedule)


def _is_schedule(node: object) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def _with_weights(model: Any, source: Density) -> Density:
    """The density of a model with the arrays of another density."""
    structure, params, fixed = split(stacked_model(model))
    _, own_params, own_fixed = split(stack(source))
    wanted, there = _shapes({**params, **fixed}), _shapes({**own_params, **own_fixed})
    different = [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]
    if different:
        name = different[0]
        raise ValueError(
            f"expected initial weights of the experiment's model; of {len(different)} arrays that "
            f"differ the first is {name}: the model has {wanted.get(name, 'none')}, the initial "
            f"weights have {there.get(name, 'none')}"
        )
    filled = for_backend(merge(structure, own_params, own_fixed))
    return jax.tree.map(jnp.array, filled)  # copies: the first step reuses their memory


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def begin_from(initial: Initial, state: TrainState) -> TrainState:
    """Returns the state of a new run with the moving average and the optimizer of another.

    Args:
      initial: Weights to start from.
      state: State of a new run with these weights.
    """
    same = initial.optimizer is not None and _fits(initial.optimizer, state.optimizer)
    optimizer = initial.optimizer if same else state.optimizer
    return state._replace(ema=initial.ema, optimizer=optimizer)


def _fits(ours: OptimizerState, theirs: OptimizerState) -> bool:
    if jax.tree.structure(ours) != jax.tree.structure(theirs):
        return False
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(np.shape(a) == np.shape(b) for a, b in pairs)

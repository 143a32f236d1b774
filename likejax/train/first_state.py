"""The density and the state that a new run begins with."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from likejax import processes
from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.evaluation import check_fit
from likejax.experiment import Experiment
from likejax.models import build
from likejax.nn.repeat import for_backend
from likejax.nn.state import Structure, split
from likejax.train import guard
from likejax.train.initial import Initial, begin_from
from likejax.train.members import optimizer_of
from likejax.train.state import TrainState


class NewRun(NamedTuple):
    """A run before its first step.

    Attributes:
      density: Density that is trained.
      structure: Its structure.
      transformation: Optimizer.
      state: State before the first step, the same in every process.
    """

    density: Density
    structure: Structure
    transformation: optax.GradientTransformation
    state: TrainState


def new_run(
    experiment: Experiment, examples: Dataset, *, key: Key[Array, ""], initial: Initial | None
) -> NewRun:
    """Returns a run before its first step.

    Args:
      experiment: Experiment that is run.
      examples: Training examples as the density sees them.
      key: Key of initialization.
      initial: Weights to start from; ``None`` for new ones.

    Raises:
      ValueError: If the density does not fit the examples.
    """
    density = _first_density(experiment, examples, key, initial)
    check_fit(density, examples)
    transformation = optimizer_of(experiment, density)
    structure, params, buffers = split(density)
    params, buffers = processes.of_first_process((params, buffers))
    optimizer = jax.jit(transformation.init)(params)
    step = jnp.zeros((), jnp.int32)
    state = TrainState(step, params, params, buffers, optimizer, guard.begin())
    if initial is not None:
        state = begin_from(initial, state)
    return NewRun(density, structure, transformation, state)


def _first_density(
    experiment: Experiment, examples: Dataset, key: Key[Array, ""], initial: Initial | None
) -> Density:
    """The density that training begins with: given, or built and initialized from data."""
    if initial is not None:
        return initial.density
    if isinstance(experiment.model, Density):
        return for_backend(experiment.model)
    build_key, rows_key, initialize_key = jax.random.split(key, 3)
    density = build(experiment.model, key=build_key)
    n = len(examples)
    count = min(experiment.rows_to_initialize(examples.event_shape), n)
    rows = np.asarray(jax.random.permutation(rows_key, n))[:count]
    density = density.initialize(examples.examples[np.sort(rows)], initialize_key)
    return for_backend(density)  # an ensemble has more entries than its members

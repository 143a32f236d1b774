"""Training state: everything that changes while training, as plain dictionaries of arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from likejax import processes
from likejax.density import Density
from likejax.nn.state import Arrays, Structure, merge, split
from likejax.train.guard import GuardState

OptimizerState = Any
"""Tree of arrays that an optax transformation makes."""


class TrainState(NamedTuple):
    """Everything that changes while training, and the buffers that go with it.

    Attributes:
      step: Number of steps done.
      params: Trainable arrays, as the optimizer left them.
      ema: Moving average of the trainable arrays.
      buffers: Arrays that are not trained.
      optimizer: State of the optax transformation.
      guard: Memory of the guard.

    Example:
      >>> import likejax as lj
      >>> lj.train.TrainState._fields
      ('step', 'params', 'ema', 'buffers', 'optimizer', 'guard')
    """

    step: Int[Array, ""]
    params: Arrays
    ema: Arrays
    buffers: Arrays
    optimizer: OptimizerState
    guard: GuardState


def ema_update(ema: Arrays, params: Arrays, decay: float, step: Array) -> Arrays:
    """Returns ``ema + (1 - d) (params - ema)`` with ``d = min(decay, (1 + step) / (10 + step))``.

    The average follows quickly at first, when ``d`` is small.

    Args:
      ema: Moving average so far.
      params: New arrays.
      decay: Largest decay of the average.
      step: Number of steps done before this one.
    """
    done = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1.0 + done) / (10.0 + done))

    def update(average: Array, new: Array) -> Array:  # leaves an average that is reached as it is
        return average + rate.astype(new.dtype) * (new - average)

    return jax.tree.map(update, ema, params)


@dataclasses.dataclass
class Best:
    """Best validation so far.

    Attributes:
      step: Step of the best weights; 0 if there are none.
      loss: Their validation loss.
      ema: Their moving average; ``None`` if there is none.
      since: Number of validations after it.
      measured_on: Identity of the rows that it was measured on.
    """

    step: int = 0
    loss: float = math.inf
    ema: Arrays | None = None
    since: int = 0
    measured_on: Mapping[str, Any] | None = None


class Weights:
    """Puts the arrays of a train state together to a density.

    Args:
      structure: Structure of the density.
      place: Sharding of the density: one device of this process.

    Attributes:
      structure: Structure of the density.
    """

    def __init__(self, structure: Structure, place: jax.sharding.Sharding):
        self.structure = structure
        self._place = place

    def density(self, params: Arrays, buffers: Arrays) -> Density:
        """Returns the density of arrays that may be divided over devices or processes.

        Args:
          params: Trainable arrays, such as ``state.ema``.
          buffers: All other arrays.
        """
        host = processes.to_host((params, buffers))
        return jax.device_put(merge(self.structure, *host), self._place)


def convert_blocks(
    form: Callable[[Any], Any], structure: Structure, state: TrainState
) -> TrainState:
    """Returns the state with repeated blocks in another form.

    The optimizer's state follows: every dictionary in it with the parameters' names is converted
    like them.

    Args:
      form: Conversion of a density: ``stack``, ``unstack`` or ``for_backend``.
      structure: Structure that the state belongs to.
      state: State of host arrays.
    """

    def in_form(params: Arrays) -> tuple[Arrays, Arrays]:
        density = merge(structure, params, state.buffers)
        return split(form(density))[1:]

    def is_params(tree: object) -> bool:
        if not isinstance(tree, dict) or tree.keys() != state.params.keys():
            return False
        # a masked optimizer has no array for some of the parameters
        return all(hasattr(leaf, "shape") for leaf in tree.values())

    def convert(tree: Any) -> Any:
        return in_form(tree)[0] if is_params(tree) else tree

    params, buffers = in_form(state.params)
    return state._replace(
        params=params,
        ema=in_form(state.ema)[0],
        buffers=buffers,
        optimizer=jax.tree.map(convert, state.optimizer, is_leaf=is_params),
    )

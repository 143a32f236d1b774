"""Training state: everything that changes while training, as plain dictionaries of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from likejax.nn.state import Arrays, Structure, merge, split
from likejax.train.guard import GuardState


class TrainState(NamedTuple):
    """Everything that changes while training, and the fixed arrays that go with it."""

    step: Int[Array, ""]
    params: Arrays
    ema: Arrays
    fixed: Arrays
    optimizer: Any
    guard: GuardState


def moving_average(ema: Arrays, params: Arrays, decay: float, step: Array) -> Arrays:
    """``ema + (1 - d) (params - ema)`` with ``d = min(decay, (1 + step) / (10 + step))``: quick at first."""
    done = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    return jax.tree.map(
        lambda average, new: average + rate.astype(new.dtype) * (new - average), ema, params
    )


def in_form(form: Callable[[Any], Any], structure: Structure, state: TrainState) -> TrainState:
    """The state after ``form`` (``stack``, ``unstack`` or ``for_backend``) of the density it belongs to.

    The optimizer's state follows: every dictionary in it with the parameters' names is converted like them.
    """

    def convert(params: Arrays) -> Arrays:
        return split(form(merge(structure, params, state.fixed)))[1]

    def is_params(tree: Any) -> bool:
        if not isinstance(tree, dict) or tree.keys() != state.params.keys():
            return False
        return all(
            hasattr(leaf, "shape") for leaf in tree.values()
        )  # a masked optimizer has none for some

    return state._replace(
        params=convert(state.params),
        ema=convert(state.ema),
        fixed=split(form(merge(structure, state.params, state.fixed)))[2],
        optimizer=jax.tree.map(
            lambda t: convert(t) if is_params(t) else t, state.optimizer, is_leaf=is_params
        ),
    )

"""What benchmarks of densities with a bound share: our side, and the programs compared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
import speed_record
from side_by_side import compare

import likejax as lj
from likejax.nn.state import merge, split

Work = Callable[[], object]
Side = tuple[Work, Work, Work]
"""A training step, a bound and samples."""

PROGRAMS = {"training step": "training step", "bound": "bound", "sample": "samples"}


def our_side(density: lj.Density, x: np.ndarray, learning_rate: float) -> Side:
    """A step of Adam, a bound and samples in likejax; a step gives up its old weights."""
    structure, params, fixed = split(density)
    rule = optax.adam(learning_rate)

    @functools.partial(jax.jit, donate_argnums=0)  # as in training
    def compiled_step(state, x, key):
        def loss(params):
            return -merge(structure, params, fixed).terms(x, key=key).log_prob.mean()

        params, moments = state
        updates, moments = rule.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    state = jax.tree.map(jnp.copy, params), rule.init(params)
    key = jax.random.key(3)

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled_step(state, x, key))

    def bound() -> None:
        jax.block_until_ready(density.log_prob(x, key=key))

    def sample() -> None:
        jax.block_until_ready(density.sample(key, len(x)))

    return step, bound, sample


def compared(
    network: str, sides: Mapping[str, Side], rounds: int, *, in_a_row: int = 5
) -> dict[str, speed_record.Timing]:
    """Times every program of all sides, by its name in the table."""
    return {
        f"{network}: {title}": compare(
            what, {name: side[i] for name, side in sides.items()}, rounds, in_a_row=in_a_row
        )
        for i, (what, title) in enumerate(PROGRAMS.items())
    }

"""The train state: plain dictionaries of arrays, the one place where modules are taken apart and put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int

from likejax.nn.modules import Unread
from likejax.train.guard import GuardState

Arrays = dict[str, Any]
"""Arrays by the dotted name of their place in the density."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """A density without its arrays: enough to put it together again."""

    treedef: Any
    names: tuple[str, ...]
    trainable: tuple[bool, ...]


class TrainState(NamedTuple):
    """Everything that changes while training, and the fixed arrays that go with it."""

    step: Int[Array, ""]
    params: Arrays
    ema: Arrays
    fixed: Arrays
    optimiser: Any
    guard: GuardState


def take_apart(density: nnx.Module) -> tuple[Structure, Arrays, Arrays]:
    """The structure, the trainable arrays (every ``nnx.Param``) and the fixed ones."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(density)
    variables = jax.tree.leaves(density, is_leaf=lambda node: isinstance(node, nnx.Variable))
    trainable = tuple(isinstance(variable, nnx.Param) for variable in variables)
    names = tuple(_name(path) for path, _ in leaves)
    structure = Structure(treedef, names, trainable)
    arrays = dict(zip(names, (leaf for _, leaf in leaves), strict=True))
    params = {name: arrays[name] for name, is_param in zip(names, trainable, strict=True) if is_param}
    return structure, params, {name: array for name, array in arrays.items() if name not in params}


def unread(density: nnx.Module) -> set[str]:
    """Names of the parameters that nothing reads: a checkpoint may lack them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(density, is_leaf=lambda node: isinstance(node, Unread))
    return {_name(path) for path, leaf in leaves if isinstance(leaf, Unread)}


def _name(path: tuple[Any, ...]) -> str:
    words = [str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry)))) for entry in path]
    return ".".join(words[:-1] if words[-1] == "value" else words)


def put_together(structure: Structure, params: Mapping[str, Any], fixed: Mapping[str, Any]) -> Any:
    """The density of these arrays."""
    arrays = {**params, **fixed}
    return jax.tree.unflatten(structure.treedef, [arrays[name] for name in structure.names])


def moving_average(ema: Arrays, params: Arrays, decay: float, step: Array) -> Arrays:
    """``ema + (1 - d) (params - ema)`` with ``d = min(decay, (1 + step) / (10 + step))``: quick at first."""
    done = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    return jax.tree.map(lambda average, new: average + rate.astype(new.dtype) * (new - average), ema, params)


def in_form(form: Callable[[Any], Any], structure: Structure, state: TrainState) -> TrainState:
    """The state after ``form`` (``stack``, ``unstack`` or ``for_backend``) of the density it belongs to.

    The optimiser's state follows: every dictionary in it with the parameters' names is converted like them.
    """

    def convert(params: Arrays) -> Arrays:
        return take_apart(form(put_together(structure, params, state.fixed)))[1]

    def is_params(tree: Any) -> bool:
        if not isinstance(tree, dict) or tree.keys() != state.params.keys():
            return False
        return all(hasattr(leaf, "shape") for leaf in tree.values())  # a masked optimiser has none for some

    return state._replace(
        params=convert(state.params),
        ema=convert(state.ema),
        fixed=take_apart(form(put_together(structure, state.params, state.fixed)))[2],
        optimiser=jax.tree.map(lambda t: convert(t) if is_params(t) else t, state.optimiser, is_leaf=is_params),
    )

"""State of a module: its arrays as plain dictionaries, split off and merged back in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from likejax.nn.modules import Unread

Arrays = dict[str, Any]
"""Arrays by the dotted name of their place in the density."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """A density without its arrays: enough to put it together again."""

    treedef: Any
    names: tuple[str, ...]
    trainable: tuple[bool, ...]


def split(density: nnx.Module) -> tuple[Structure, Arrays, Arrays]:
    """The structure, the trainable arrays (every ``nnx.Param``) and the fixed ones."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(density)
    variables = jax.tree.leaves(density, is_leaf=lambda node: isinstance(node, nnx.Variable))
    trainable = tuple(isinstance(variable, nnx.Param) for variable in variables)
    names = tuple(_name(path) for path, _ in leaves)
    structure = Structure(treedef, names, trainable)
    arrays = dict(zip(names, (leaf for _, leaf in leaves), strict=True))
    params = {
        name: arrays[name] for name, is_param in zip(names, trainable, strict=True) if is_param
    }
    return structure, params, {name: array for name, array in arrays.items() if name not in params}


def unread(density: nnx.Module) -> set[str]:
    """Names of the parameters that nothing reads: a checkpoint may lack them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        density, is_leaf=lambda node: isinstance(node, Unread)
    )
    return {_name(path) for path, leaf in leaves if isinstance(leaf, Unread)}


def _name(path: tuple[Any, ...]) -> str:
    words = [
        str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry))))
        for entry in path
    ]
    return ".".join(words[:-1] if words[-1] == "value" else words)


def merge(structure: Structure, params: Mapping[str, Any], fixed: Mapping[str, Any]) -> Any:
    """The density of these arrays."""
    arrays = {**params, **fixed}
    return jax.tree.unflatten(structure.treedef, [arrays[name] for name in structure.names])

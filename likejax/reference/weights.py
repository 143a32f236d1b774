"""How official arrays get into a density: by the names of both sides, each array with its shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from likejax.nn.state import merge, split

Module = TypeVar("Module", bound=nnx.Module)


def places(module: nnx.Module, kind: type | tuple[type, ...]) -> list[str]:
    """Returns the dotted names of the parts of a module that are of a kind, in order.

    Importers find maps by their type, so that a map inserted beside them does not shift them.

    Args:
      module: Density or part of one.
      kind: Class, or several, of the parts; parts inside of a found part are not searched.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        module, is_leaf=lambda node: isinstance(node, kind)
    )
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, node in leaves
        if isinstance(node, kind)
    ]


def part_at(module: nnx.Module, place: str) -> nnx.Module:
    """Returns the part of a module at a dotted name.

    Args:
      module: Density or part of one.
      place: Dotted name, as ``places`` returns it; numbers are places in lists.
    """
    node = module
    for word in place.split("."):
        node = node[int(word)] if word.isdigit() else getattr(node, word)  # type: ignore[index]
    return node


def layer_parts(layers: Iterable[str]) -> list[str]:
    """Returns the official names of direction ``V``, scale ``g`` and bias ``b`` of layers.

    Args:
      layers: Official names of the layers.
    """
    return [f"{layer}.{part}" for layer in layers for part in "Vgb"]


def layer_names(ours: str, official: str) -> dict[str, str]:
    """Returns the official names of the parameters of a weight-normalized layer.

    Args:
      ours: Dotted name of the layer.
      official: Official name of the layer.
    """
    parts = {"direction": "V", "scale": "g", "bias": "b"}
    return {f"{ours}.{part}": f"{official}.{theirs}" for part, theirs in parts.items()}


def check_names(
    arrays: Iterable[str], wanted: Iterable[str], *, config: object, optional: Iterable[str] = ()
) -> None:
    """Raises a ValueError if official arrays are missing or left over.

    Args:
      arrays: Official names that are there.
      wanted: Official names that the config asks for.
      config: Config, for the message.
      optional: Official names that may be there as well.
    """
    there, wanted = set(arrays), set(wanted)
    missing = sorted(wanted - there)
    left_over = sorted(there - wanted - set(optional))
    if missing or left_over:
        raise ValueError(
            f"expected the variables of {config}; missing {missing[:5]}, left over {left_over[:5]}"
        )


def fill(
    density: Module,
    arrays: Mapping[str, ArrayLike],
    names: Mapping[str, str],
    *,
    kept: Iterable[str] = (),
) -> Module:
    """Returns the density with arrays in the places of its own.

    Args:
      density: Density of the right sizes.
      arrays: Arrays in the layout of likejax by official name; axes of size 1 do not count.
        Floating numbers become float64 if JAX has 64 bits enabled, else float32.
      names: From the dotted name of every parameter to the official name of its array; buffers may
        be among them.
      kept: Parameters that keep the values they have.

    Raises:
      ValueError: If an array has another shape than its place, or a parameter has no array.
    """
    structure, params, fixed = split(density)
    ours = {**params, **fixed}
    without = sorted(params.keys() - names.keys() - set(kept))
    if without:
        raise ValueError(f"expected official arrays for all parameters, none are for {without[:5]}")
    for name, official in names.items():
        array = np.asarray(arrays[official])
        place = ours[name]
        if _without_ones(array.shape) != _without_ones(place.shape):
            raise ValueError(
                f"expected {official} of shape {place.shape}, in the layout of likejax, "
                f"got {array.shape}"
            )
        is_integer = jnp.issubdtype(place.dtype, jnp.integer)
        dtype = place.dtype if is_integer else float
        ours[name] = jnp.asarray(array.reshape(place.shape), dtype)
    return merge(
        structure,
        {name: ours[name] for name in params},
        {name: ours[name] for name in fixed},
    )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)

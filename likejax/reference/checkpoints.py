"""Names in the checkpoints of official codes, as TensorFlow 1 and PyTorch write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from likejax.settings import checked

Weights = Literal["last", "averaged"]
"""Weights of the last step, or their exponential moving average, if a checkpoint has both."""

_SCOPE = "model/"
_AVERAGE = "/ExponentialMovingAverage"


def tensorflow_variables(checkpoint: Mapping[str, Any], weights: Weights) -> dict[str, np.ndarray]:
    """Returns the variables of the model in a TensorFlow 1 checkpoint, without ``model/``.

    What the optimizer keeps lies outside of that scope and is left out.

    Args:
      checkpoint: Arrays by variable name, for example ``model/0/0/invconv/W``.
      weights: Name of the one to take. A variable that is not averaged, such as a permutation, is
        taken as it is.

    Raises:
      ValueError: If there are no variables of a model, or not the ones asked for.
    """
    weights = checked("weights", weights, Weights)
    last: dict[str, np.ndarray] = {}
    averaged: dict[str, np.ndarray] = {}
    for name, value in checkpoint.items():
        if not name.startswith(_SCOPE):
            continue
        own, average, rest = name.removeprefix(_SCOPE).partition(_AVERAGE)
        if not average:
            last[own] = np.asarray(value)
        elif not rest:  # the rest are counts and sums that an average is made of
            averaged[own] = np.asarray(value)
    if not last and not averaged:
        raise ValueError(
            f"expected variables under {_SCOPE!r} in the checkpoint, got {_some(checkpoint)}"
        )
    if weights == "averaged":
        if not averaged:
            raise ValueError(
                "expected moving averages in the checkpoint, got none; "
                "weights='last' takes the others"
            )
        return last | averaged
    if averaged.keys() - last.keys():
        raise ValueError(
            "expected the weights of the last step, got moving averages only: "
            "pass weights='averaged'"
        )
    return last


def state_dict_arrays(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays of a PyTorch ``state_dict`` under the names of the official codes.

    The prefix ``module.`` of ``DataParallel`` is left out, and newer PyTorch's names of a weight
    normalization are replaced by the older ones.

    Args:
      state_dict: Tensors or arrays by name.
    """
    arrays = {}
    for name, value in state_dict.items():
        name = name.removeprefix("module.")
        name = name.replace(".parametrizations.weight.original0", ".weight_g")
        name = name.replace(".parametrizations.weight.original1", ".weight_v")
        arrays[name] = np.asarray(value)
    return arrays


def weight_normalized(
    arrays: Mapping[str, np.ndarray], layer: str, official: str, parts: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Returns direction, scale and bias of one layer, under the names that the importers take.

    Args:
      arrays: Arrays of a checkpoint.
      layer: Name of the layer in the checkpoint.
      official: Name of the layer in the importer.
      parts: From the importer's ``V``, ``g`` and ``b`` to what follows the layer's name in the
        checkpoint.

    Raises:
      ValueError: If one of the arrays is missing.
    """
    missing = [layer + theirs for theirs in parts.values() if layer + theirs not in arrays]
    if missing:
        raise ValueError(
            f"expected {missing[0]!r} in the checkpoint ({official}): "
            "config and checkpoint do not fit; there are "
            f"{_some(arrays)}"
        )
    return {f"{official}.{ours}": arrays[layer + theirs] for ours, theirs in parts.items()}


def refuse_left_over(names: Iterable[str], taken: Iterable[str]) -> None:
    """Raises a ValueError if the model has arrays that were not taken.

    Args:
      names: Names of all arrays of the model.
      taken: Names of those that were taken.

    Raises:
      ValueError: If there are others.
    """
    if left_over := sorted(set(names) - set(taken)):
        raise ValueError(
            f"expected no other arrays in the checkpoint, got {_some(left_over)}: "
            "likejax has no place for them"
        )


def _some(names: Iterable[str]) -> str:
    """The first names of many."""
    names = sorted(names)
    return (
        ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        or "nothing"
    )

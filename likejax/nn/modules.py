"""How frozen modules are changed and how their parts are marked."""

from __future__ import annotations

import copy
from typing import TypeVar

from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


class Buffer(nnx.Variable):
    """An array of a module that is not trained: a permutation, a mask, fixed statistics."""


class Unread(nnx.Param):
    """A parameter that an official model has and nothing reads: it counts, and gets no gradient."""


def replace(module: Module, **attributes: object) -> Module:
    """Returns a copy of ``module`` with some attributes replaced; the original keeps its own.

    Args:
      module: Any module, which is copied but not what it holds.
      **attributes: New values by the names of the attributes.
    """
    clone = copy.copy(module)
    for name, value in attributes.items():
        setattr(clone, name, value)
    return clone

"""Names of older versions, in British spelling, that records, datasets and command lines may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = {
    "optimiser": "optimizer",
    "initialise_with": "initialize_with",
    "binarise": "binarize",
    "binarisation": "binarization",
    "grey": "gray",
    "colour": "color",
}


def modern(name: str) -> str:
    """The present spelling of a name, such as ``optimizer.learning_rate`` for ``optimiser.learning_rate``.

    Only whole words are replaced, so ``greyhounds`` stays as it is.

    Args:
      name: A setting, a step behind a dataset's name, or an augmentation.
    """
    return re.sub(r"[a-z_]+", lambda word: _WORDS.get(word[0], word[0]), name)


def modern_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A saved record with the present names of its settings and augmentations."""
    renamed = {modern(name): value for name, value in record.items()}
    if "augment" in renamed:
        renamed["augment"] = [modern(spec) for spec in renamed["augment"]]
    return renamed


_PARTS = {
    "class_weight": ("class_log_prob", -1.0),
    "kinetic_weight": ("kinetic_energy", 1.0),
    "jacobian_weight": ("jacobian_norm", 1.0),
}
"""Old setting of ``NLL`` to the part that it weighted, and the sign of its weight."""


def modern_objective(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of an objective with old settings of ``NLL`` as weights of named parts.

    Args:
      record: Name and settings of the objective.
    """
    kept = {name: value for name, value in record.items() if name not in _PARTS}
    weights = []
    for old, (part, sign) in _PARTS.items():
        if record.get(old):
            weights.append([part, sign * record[old]])
    return kept | {"weights": weights} if weights else kept

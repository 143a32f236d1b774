"""Small trained densities that ship with the package, each with the record of its number."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from likejax.density import Density
from likejax.names import meant
from likejax.storage.density import restore
from likejax.storage.store import CheckpointError

FOLDER = Path(__file__).parent
"""Folder of the files: one of weights and one record for each name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Facts about one density that ships with the package; ``pretrained(name)`` returns it.

    Example:
      >>> import likejax as lj
      >>> lj.PRETRAINED["glow/digits"].dataset
      'digits'
    """

    name: str
    """Family and dataset."""
    preset: str
    """Preset of the training; ``command`` has what was changed in it."""
    command: str
    """Command of the training."""
    likejax: str
    """Version of likejax that wrote the file."""
    seed: int
    """Random seed of the training."""
    steps: int
    """Steps of the training; the weights are those that its validation part selected."""
    dataset: str
    """Name of the data, for ``lj.load``."""
    split: str
    """Part of the data that was evaluated."""
    parameters: int
    """Number of trained numbers."""
    evaluation_seed: int
    """Random seed of the evaluation: its key is ``jax.random.key(evaluation_seed)``."""
    evaluation: dict[str, Any]
    """``Evaluation.to_dict()`` of the whole part: the number, its kind, draws and errors."""
    first: dict[str, Any]
    """The same of the first examples alone with few draws, which a test computes anew."""
    sha256: str
    """SHA-256 of the file."""

    @property
    def path(self) -> Path:
        """File of the weights."""
        return FOLDER / f"{file_name(self.name)}.safetensors"


def file_name(name: str) -> str:
    """Returns the name of a file without its end: ``glow-digits`` for ``glow/digits``.

    Args:
      name: Name of a density that ships with the package.

    Example:
      >>> from likejax.weights import file_name
      >>> file_name("glow/digits")
      'glow-digits'
    """
    return name.replace("/", "-")


def _all() -> dict[str, Weights]:
    """The records of all files, by name."""
    records = [json.loads(path.read_text()) for path in FOLDER.glob("*.json")]
    by_name = {record["name"]: Weights(**record) for record in records}
    return dict(sorted(by_name.items()))


PRETRAINED: dict[str, Weights] = _all()
"""Records of all densities that ship with the package, by name."""


def pretrained(name: str) -> Density:
    """Returns a small trained density that ships with the package; nothing is downloaded.

    ``lj.PRETRAINED`` lists the names; ``lj.PRETRAINED[name]`` says how each was trained, on which
    data, and what it reached on their test part.

    Args:
      name: Family and dataset, for example ``glow/digits``.

    Returns:
      The density, ready to use.

    Raises:
      TypeError: If the name is not a string.
      ValueError: If there is none of that name; the message has a similar one.
      CheckpointError: If the file is missing or is not the one that was measured.
      ImportError: If the package safetensors is not installed.

    Example:
      >>> import likejax as lj
      >>> lj.pretrained("glow/digits").event_shape
      (8, 8, 1)
    """
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a density, got {type(name).__name__}")
    if name not in PRETRAINED:
        raise ValueError(
            f"no density {name!r} ships with likejax{meant(name, PRETRAINED)}; there are "
            f"{', '.join(PRETRAINED)}. Others are trained from their presets (lj.PRESETS)"
        )
    weights = PRETRAINED[name]
    _check_file(weights)
    return restore(weights.path)


def _check_file(weights: Weights) -> None:
    """Raises a CheckpointError unless the file is the one that was measured."""
    try:
        content = weights.path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{weights.path}, the weights of {weights.name}, cannot be read: {error.strerror}; "
            "install likejax anew"
        ) from error
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise CheckpointError(
            f"{weights.path} does not have the SHA-256 of the weights of {weights.name} that "
            "were measured: install likejax anew"
        )

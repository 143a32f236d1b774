"""Features on disk: a benchmark that was stopped goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from likejax.data.dataset import Dataset
from likejax.ood.features import Compute, Densities, Feature, OfExamples
from likejax.records import to_record
from likejax.storage.density import checksum_of


class KeptFeatures:
    """Files of features, each named by everything that its numbers depend on.

    That is the version of likejax, the examples, the feature with its settings, and, unless it
    comes from the examples alone, the weights of all densities and the keys of the examples. So
    nothing has to be declared the same for a benchmark to go on, and nothing stale is ever read. A
    feature whose settings hold a function, of which only the name is known, is not kept.

    Args:
      directory: Directory of the files; created if absent.
      densities: Densities that features are computed with.

    Example:
      >>> import tempfile, likejax as lj
      >>> from likejax.ood.kept import KeptFeatures
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     kept = KeptFeatures(directory, {"density": lj.models.Uniform((2,))})
    """

    def __init__(self, directory: str | os.PathLike[str], densities: Densities):
        self._place = Path(directory).expanduser()
        self._place.mkdir(parents=True, exist_ok=True)
        self._checksums = {name: checksum_of(each) for name, each in densities.items()}

    def of(self, compute: Compute, dataset: Dataset, keys: Key[Array, " n"]) -> Compute:
        """Returns a function that reads a feature if it is kept, and else computes and keeps it.

        Args:
          compute: Function that computes a feature of the examples.
          dataset: The examples.
          keys: Key of each example.
        """
        draws = hashlib.sha256(np.asarray(jax.random.key_data(keys)).tobytes()).hexdigest()
        of_examples = {
            "version": importlib.metadata.version("likejax"),
            "examples": dataset.fingerprint(),
        }
        of_all = {**of_examples, "densities": self._checksums, "keys": draws}
        known: dict[Feature, Float[np.ndarray, "n ..."]] = {}

        def kept(feature: Feature) -> Float[np.ndarray, "n ..."]:
            if feature not in known:
                identity = of_examples if isinstance(feature, OfExamples) else of_all
                known[feature] = self._read_or_compute(compute, feature, identity)
            return known[feature]

        return kept

    def _read_or_compute(
        self, compute: Compute, feature: Feature, identity: Mapping[str, Any]
    ) -> Float[np.ndarray, "n ..."]:
        if not _is_plain(feature):
            return np.asarray(compute(feature))
        record = json.dumps({**identity, "feature": to_record(feature)}, sort_keys=True)
        path = self._place / f"{hashlib.sha256(record.encode()).hexdigest()[:32]}.npy"
        if path.exists():
            try:
                return np.load(path, allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                warnings.warn(f"{path} is damaged and computed anew: {error}", stacklevel=2)
        values = np.asarray(compute(feature))
        partial = path.with_suffix(".part.npy")
        np.save(partial, values, allow_pickle=False)
        partial.replace(path)
        return values


def _is_plain(value: object) -> bool:
    """Whether settings are numbers, words and such settings alone, all of which a record holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return all(_is_plain(getattr(value, field.name)) for field in fields)
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)

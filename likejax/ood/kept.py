"""Features on disk: a benchmark that was stopped goes on where it was."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from likejax.data.dataset import Dataset
from likejax.devices import Devices, spans_processes
from likejax.ood.features import Compute, Densities, Feature, OfExamples
from likejax.processes import bytes_of_first_process
from likejax.records import to_record
from likejax.storage.density import checksum_of


class KeptFeatures:
    """Files of features, each named by everything that its numbers depend on.

    That is the code of likejax, the examples, the feature with its settings and the file of code
    that its class is from, and, unless it comes from the examples alone, the weights of all
    densities and the keys of the examples. So nothing has to be declared the same for a benchmark
    to go on, and a feature whose file was edited is computed anew. What that file imports from
    elsewhere is not looked at. A feature whose settings hold a function, of which only the name is
    known, is not kept, and neither is one whose class comes from no file.

    Args:
      directory: Directory of the files; created if absent.
      densities: Densities that features are computed with.
      devices: Devices that compute features. If they belong to several processes, the first of
        them reads and writes the files.

    Example:
      >>> import tempfile, likejax as lj
      >>> from likejax.ood.kept import KeptFeatures
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     kept = KeptFeatures(directory, {"density": lj.models.Uniform((2,))})
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        densities: Densities,
        *,
        devices: Devices | None = None,
    ):
        self._is_shared = spans_processes(devices)
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
            "likejax": _code_of_likejax(),
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
        try:
            code = {name: _digest_of(path) for name, path in _files_of(feature).items()}
        except (OSError, TypeError):  # a class of a notebook, or of an interactive session
            return np.asarray(compute(feature))
        named = {**identity, "feature": to_record(feature), "code": code}
        record = json.dumps(named, sort_keys=True)
        path = self._place / f"{hashlib.sha256(record.encode()).hexdigest()[:32]}.npy"
        values = self._read(path)
        if values is None:
            values = np.asarray(compute(feature))
            self._write(path, values)
        return values

    def _read(self, path: Path) -> Float[np.ndarray, "n ..."] | None:
        """The numbers in a file; ``None`` if there is none, or it is damaged."""
        if not self._is_shared:
            return _numbers_in(path)
        found = _numbers_in(path) if jax.process_index() == 0 else None
        data = bytes_of_first_process(b"" if found is None else _npy(found))
        return np.load(io.BytesIO(data), allow_pickle=False) if data else None

    def _write(self, path: Path, values: Float[np.ndarray, "n ..."]) -> None:
        if self._is_shared and jax.process_index() != 0:
            return
        partial = path.with_suffix(".part.npy")
        np.save(partial, values, allow_pickle=False)
        partial.replace(path)


def _numbers_in(path: Path) -> Float[np.ndarray, "n ..."] | None:
    """The numbers in a file; ``None`` if there is none, or, with a warning, if it is damaged."""
    if not path.exists():
        return None
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        warnings.warn(f"{path} is damaged and computed anew: {error}", stacklevel=2)
        return None


def _npy(values: np.ndarray) -> bytes:
    """What a file of an array holds."""
    written = io.BytesIO()
    np.save(written, values, allow_pickle=False)
    return written.getvalue()


def _files_of(feature: Feature) -> dict[str, Path]:
    """The files that the classes of a feature and of its settings are from, but for likejax's.

    Raises:
      OSError: If a class comes from no file.
      TypeError: If a class comes from no file.
    """
    classes = {type(feature), *map(type, _settings_in(feature))}
    outside = [kind for kind in classes if kind.__module__.partition(".")[0] != "likejax"]
    return {kind.__module__: Path(inspect.getfile(kind)) for kind in outside}


def _settings_in(value: object) -> Iterator[object]:
    """Every dataclass in settings, however deep."""
    if isinstance(value, tuple):
        for each in value:
            yield from _settings_in(each)
    if dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from _settings_in(getattr(value, field.name))


@functools.cache
def _code_of_likejax() -> str:
    """A digest of all Python files of the package: its version stays the same between releases."""
    root = Path(__file__).resolve().parents[1]
    digests = [f"{path.relative_to(root)} {_digest_of(path)}" for path in root.rglob("*.py")]
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_plain(value: object) -> bool:
    """Whether settings are numbers, words and such settings alone, all of which a record holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return all(_is_plain(getattr(value, field.name)) for field in fields)
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)

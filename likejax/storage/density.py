"""Saving and restoring one density, and the record of its model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from likejax.density import Density, check_density
from likejax.legacy import modern_model
from likejax.models import build
from likejax.nn.repeat import for_backend, stack
from likejax.nn.state import Arrays, Structure, merge, split, unread
from likejax.records import from_record, to_record
from likejax.storage.files import directory_path
from likejax.storage.single_file import checksum, is_single_file, read_file, write_file
from likejax.storage.store import CheckpointError, Store, manifest

RECORD = "experiment.json"
"""File in a run's directory that holds the run's experiment."""
_SAVED = "density"
Which = Literal["last", "best"]


def model_record(model: object) -> dict[str, Any]:
    """Returns what JSON keeps of a config or of a ready density.

    Args:
      model: A config, or a density, of which the class and the config are kept.
    """
    if isinstance(model, Density):
        config = None if model.config is None else model_record(model.config)
        return {"density": f"{type(model).__module__}.{type(model).__qualname__}", "config": config}
    return json.loads(json.dumps(to_record(model)))


def config_of(record: Any) -> Any:
    """Returns the config in a ``model_record``, of a config or of the density built from one.

    Args:
      record: Object of any version.

    Raises:
      ValueError: If the model was a density without a config, the class is not imported, or the
        record is damaged.
    """
    try:
        record = modern_model(record)
        if "density" in record:
            if record.get("config") is None:
                raise ValueError(
                    f"the model was a ready density, {record['density']}: pass it as density="
                )
            record = record["config"]
        return _config(record)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"not the record of a model of this version of likejax: {error!r}"
        ) from error


def _config(record: Any) -> Any:
    config = from_record(record)
    if not hasattr(config, "build"):
        name = record.get("class") or record.get("name")
        raise ValueError(
            f"not the record of a model of this version of likejax: {name} has no method build"
        )
    return config


def density_items(params: Arrays, fixed: Arrays) -> dict[str, Any]:
    """Returns the tree in which a usable density is stored.

    Args:
      params: Trainable arrays, with repeated blocks stacked.
      fixed: All other arrays.
    """
    return {"density": {"params": params, "fixed": fixed}}


def _items_of(density: Density) -> dict[str, Any]:
    _, params, fixed = split(stack(density))
    return jax.tree.map(np.asarray, jax.device_get(density_items(params, fixed)))


def save(density: Density, directory: str | os.PathLike[str]) -> None:
    """Writes a density: its arrays with their checksums, and the config it was built from as JSON.

    A density that is there already is replaced once the new one is complete. ``restore`` reads it.
    A name that ends in ``.safetensors`` means one file of that format, which other programs read
    too and ``lj.hub`` shares: its arrays have the names ``density/params/...`` and
    ``density/fixed/...``, and its metadata hold the config, the version and the checksums.

    Args:
      density: Any density; one without a ``config`` needs ``restore(..., density=...)``.
      directory: Directory to write to, created if absent; or a file ``NAME.safetensors``.

    Raises:
      CheckpointError: If the directory holds a run, or the place cannot be written.
      ImportError: If the name ends in ``.safetensors`` and that package is not installed.

    References:
      The safetensors format, https://github.com/huggingface/safetensors

    Example:
      >>> import tempfile, likejax as lj
      >>> density = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     lj.save(density, directory)
      ...     bool(lj.restore(directory).sample(0).shape == density.sample(0).shape)
      True
    """
    check_density(density)
    place = directory_path(directory)
    if is_single_file(place):
        write_file(place, _items_of(density), model_record(density))
        return
    if (place / RECORD).exists():
        raise CheckpointError(f"{place} holds a run: save the density to a directory of its own")
    store = Store(place / _SAVED, writes=True)
    store.replace(_items_of(density), {"model": model_record(density)})


def holds_density(directory: Path) -> bool:
    """Returns whether ``save`` wrote to a directory.

    Args:
      directory: Any path.
    """
    return (directory / _SAVED).is_dir()


def checksum_of(density: Density) -> str:
    """Returns the SHA-256 of all arrays of a density, whatever form its repeated blocks have.

    Args:
      density: Any density.
    """
    return checksum(manifest(_items_of(density)))


def restore(
    directory: str | os.PathLike[str], *, which: Which = "best", density: Density | None = None
) -> Density:
    """Returns a density from disk: moving-average weights of a run, or what ``save`` wrote.

    Checksums are verified; of damaged checkpoints the newest intact one is taken, with a warning.
    Classes of your own are found if the module that defines them is imported.

    Args:
      directory: A run's ``workdir``, or the directory or the file ``NAME.safetensors`` given to
        ``save``.
      which: Weights of a run: ``best`` on validation, or ``last``.
      density: A density of the same structure, for densities that have no config.

    Returns:
      The density, ready to use.

    Raises:
      CheckpointError: If there is nothing to restore, or no intact checkpoint.
      ValueError: If the class of the model is not imported; the message names the import.
      ImportError: If it is a safetensors file and that package is not installed.

    Example:
      >>> import tempfile, likejax as lj
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     lj.save(lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0), directory)
      ...     lj.restore(directory).event_shape
      (2,)
    """
    place = directory_path(directory)
    if which not in ("best", "last"):
        raise ValueError(f"expected which to be 'best' or 'last', got {which!r}")
    template = _Template(place, density)
    if is_single_file(place):
        items = read_file(place, template.wanted)
    else:
        items = _read_first(_folders(place, which), template)
    arrays = jax.device_put(items["density"])
    return for_backend(template.filled(arrays["params"], arrays["fixed"]))


def _folders(place: Path, which: Which) -> list[Path]:
    """Folders of checkpoints, in the order in which they are tried."""
    is_run = (place / RECORD).exists()
    names = [which, "last"] if is_run else [_SAVED]
    folders = [place / name for name in dict.fromkeys(names)]
    folders = [folder for folder in folders if folder.is_dir()]
    if not folders:
        if not place.exists():
            raise CheckpointError(f"expected the directory of a run, {place} does not exist")
        raise CheckpointError(
            f"expected the directory of a run, with {RECORD}, or of a saved density, with "
            f"{_SAVED}/: {place} has neither"
        )
    return folders


def _read_first(folders: list[Path], template: _Template) -> dict[str, Any]:
    """The trees of the first folder that has an intact checkpoint."""
    *others, last = folders
    for folder in others:
        store = Store(folder)
        if not store.steps():
            continue
        try:
            return store.read(template.wanted)[1]
        except CheckpointError:
            continue
    return Store(last).read(template.wanted)[1]


class _Template:
    """Structure of a density that is read, from a record of a checkpoint or from a density."""

    def __init__(self, place: Path, density: Density | None):
        self._place = place
        self._density = density
        self._structure: Structure | None = None
        self._absent: Arrays = {}

    def wanted(self, record: dict[str, Any]) -> Mapping[str, Any]:
        """The trees to read."""
        template = self._stacked(record)
        self._structure, params, fixed = split(template)
        there = record.get("arrays", {})
        # parameters that nothing reads may be missing
        absent = {name for name in unread(template) if f"density/params/{name}" not in there}
        self._absent = {name: params[name] for name in absent}
        kept = {name: leaf for name, leaf in params.items() if name not in absent}
        return density_items(kept, fixed)

    def _stacked(self, record: dict[str, Any]) -> Any:
        if self._density is not None:
            return stack(self._density)
        config = _config_in(self._place, record)
        return jax.eval_shape(lambda: build(config, key=jax.random.key(0)))

    def filled(self, params: Arrays, fixed: Arrays) -> Density:
        """The density of these arrays; those that were missing are zero."""
        assert self._structure is not None
        zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in self._absent.items()}
        return merge(self._structure, params | zeros, fixed)


def _config_in(place: Path, record: Mapping[str, Any]) -> Any:
    """The config in a checkpoint's record; of a run in layout 1, in the run's own record."""
    if "model" in record:
        return config_of(record["model"])
    if "experiment" in record:
        return config_of(record["experiment"]["model"])
    try:
        return config_of(json.loads((place / RECORD).read_text())["model"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{place / RECORD} cannot be read: {error}") from error

"""One density in one file of the safetensors format, which other programs read too."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from likejax.storage.files import digest, write_atomically
from likejax.storage.store import (
    CheckpointError,
    check_structure,
    in_this_precision,
    manifest,
    named,
    reason,
)

SUFFIX = ".safetensors"
"""End of a name that means one file instead of a directory."""
_FORMAT = "likejax"
_LAYOUT = "1"
_ENTRIES = ("format", "layout", "likejax", "model", "sha256", "digest")
"""Names in the metadata of a file, whose values are strings."""


def is_single_file(place: Path) -> bool:
    """Returns whether a path means a safetensors file, which need not exist.

    Args:
      place: Any path.
    """
    return place.suffix.lower() == SUFFIX and not place.is_dir()


def checksum(arrays: Mapping[str, Any]) -> str:
    """Returns the SHA-256 over a manifest: names, shapes, types and contents of all arrays.

    Args:
      arrays: Result of ``manifest``.
    """
    return hashlib.sha256(json.dumps(arrays, sort_keys=True).encode()).hexdigest()


def write_file(path: Path, items: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Writes trees of host arrays and the record of their model to a safetensors file.

    The metadata of the file has the record as JSON, the version of likejax, the SHA-256 of the
    arrays, and the SHA-256 of the metadata themselves. The file is written whole or not at all.

    Args:
      path: File to write; its folder is made.
      items: Trees of dictionaries of numpy arrays, by name.
      model: Record of the model, for JSON.

    Raises:
      CheckpointError: If the file cannot be written, or the format has no such type of numbers.
      ImportError: If the package safetensors is not installed.
    """
    safetensors = _safetensors()
    metadata = {
        "format": _FORMAT,
        "layout": _LAYOUT,
        "likejax": importlib.metadata.version("likejax"),
        "model": json.dumps(model),
        "sha256": checksum(manifest(items)),
    }
    metadata["digest"] = digest(metadata)
    # the package writes the memory of an array as it lies there
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named(items).items()}
    try:
        content = safetensors.numpy.save(arrays, metadata=metadata)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be written: the safetensors format does not hold these arrays "
            f"({reason(error)}); save the density to a directory instead"
        ) from error
    if jax.process_index() != 0:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {reason(error)}") from error


def read_file(
    path: Path, templates: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the trees in a file that ``write_file`` wrote, after its checksums were verified.

    Args:
      path: The file.
      templates: Function from a record to the trees to read, whose leaves are arrays or
        ``jax.ShapeDtypeStruct``.

    Raises:
      CheckpointError: If there is no such file, likejax did not write it, it is damaged, or it
        holds other arrays than the templates.
      ImportError: If the package safetensors is not installed.
    """
    metadata, arrays = _content(path)
    _check_metadata(path, metadata)
    written = manifest(arrays)
    if checksum(written) != metadata["sha256"]:
        raise CheckpointError(
            f"{path} is damaged: its arrays do not have the SHA-256 that was written; copy or "
            "download the file again"
        )
    record = {"model": _model(path, metadata["model"]), "arrays": written}
    wanted = dict(templates(record))
    check_structure(str(path), record, wanted)
    tree = jax.tree.structure(wanted)
    items = jax.tree.unflatten(tree, [arrays[name] for name in named(wanted)])
    return in_this_precision(str(path), items, wanted)


def _content(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the arrays of any safetensors file."""
    safetensors = _safetensors()
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: expected a file that lj.save wrote")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    except Exception as error:  # the parser has an error of its own, numpy others
        raise CheckpointError(
            f"{path} is no whole safetensors file, as lj.save writes it: {reason(error)}; it may "
            "have been cut off, copy or download it again"
        ) from error
    return metadata, arrays


def _check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Raises a CheckpointError unless likejax wrote the metadata, in a layout that is known."""
    missing = [name for name in _ENTRIES if name not in metadata]
    if missing or metadata["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file that lj.save did not write: expected metadata with "
            f"{', '.join(_ENTRIES)}, got {', '.join(sorted(metadata)) or 'none'}; for weights of "
            "other programs there are importers in likejax.reference"
        )
    if digest(metadata) != metadata["digest"]:
        raise CheckpointError(
            f"{path} is damaged: its metadata do not have the SHA-256 that was written; copy or "
            "download the file again"
        )
    if metadata["layout"] != _LAYOUT:
        raise CheckpointError(
            f"{path} has layout {metadata['layout']}, written by likejax {metadata['likejax']}; "
            f"this version reads layout {_LAYOUT}: install that one or a newer one"
        )


def _model(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has no readable record of its model: {error}") from error


def _safetensors() -> ModuleType:
    """The package, or an error that says how it is installed."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"a file that ends in {SUFFIX} needs the package safetensors: "
            "pip install 'likejax[hub]'"
        ) from error
    return safetensors

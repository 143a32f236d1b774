"""Small files that are written whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file; whoever reads it meanwhile sees the former content or the new one, whole.

    Args:
      path: File to write; its folder exists.
      content: Text, or bytes.

    Raises:
      OSError: If it cannot be written; the former content stays.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from likejax.storage.files import write_atomically
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_atomically(Path(folder) / "note.txt", "whole")
      ...     (Path(folder) / "note.txt").read_text()
      'whole'
    """
    draft = path.with_name(path.name + ".tmp")
    if isinstance(content, str):
        draft.write_text(content)
    else:
        draft.write_bytes(content)
    draft.replace(path)


def digest(record: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a record as JSON, without its own entry ``digest``.

    Args:
      record: Object of plain values.

    Example:
      >>> from likejax.storage.files import digest
      >>> digest({"a": 1}) == digest({"digest": "old", "a": 1})
      True
    """
    rest = {name: value for name, value in record.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def directory_path(directory: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of a directory; ``~`` is the user's home.

    Args:
      directory: Path of a directory, which may not exist yet.

    Raises:
      TypeError: If it is no path.
    """
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"expected the path of a directory, got {type(directory).__name__}")
    return Path(directory).expanduser().absolute()

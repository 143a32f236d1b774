"""The cache of compiled programs on disk, which is on by default."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax

SWITCH = "LIKEJAX_COMPILATION_CACHE"
"""Environment variable that turns the cache off if it is ``0``."""


def use_persistent_cache() -> None:
    """Keeps compiled programs on disk, so that a second start takes seconds instead of a minute.

    JAX's own settings come first: a process that has named a folder, by
    ``JAX_COMPILATION_CACHE_DIR`` or ``jax.config``, keeps it with its threshold.
    ``LIKEJAX_COMPILATION_CACHE=0`` turns the cache off.
    """
    folder = cache_folder()
    users_own = jax.config.jax_compilation_cache_dir  # pyright: ignore
    if os.environ.get(SWITCH) == "0" or users_own is not None:
        return
    if folder is None or not _is_writable(folder):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cache_folder() -> Path | None:
    """The folder of compiled programs in the platform's cache folder; ``None`` without a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    folders = {
        "darwin": home / "Library" / "Caches",
        "win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
    }
    default = folders.get(sys.platform, home / ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "likejax" / "xla"


def _is_writable(folder: Path) -> bool:
    """Whether the folder, or the nearest parent that exists, can be written to."""
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK)

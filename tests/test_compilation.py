"""Compiled programs are kept between processes, unless the user has other wishes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.untyped

_SHOW = (
    "import jax; print(jax.config.jax_compilation_cache_dir,"
    " jax.config.jax_persistent_cache_min_compile_time_secs)"
)


def settings_of(code: str, **variables: str) -> list[str]:
    """Folder and threshold of the cache in a fresh process."""
    kept = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {_SHOW}"],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_cache_is_on_in_the_platforms_folder(tmp_path):
    folder, threshold = settings_of("import likejax", XDG_CACHE_HOME=str(tmp_path))
    assert folder == str(tmp_path / "likejax" / "xla")
    assert threshold == "0.0"


def test_the_users_folder_and_threshold_stay(tmp_path):
    own = str(tmp_path / "own")
    assert settings_of("import likejax", JAX_COMPILATION_CACHE_DIR=own) == [own, "1.0"]
    set_before = f"import jax; jax.config.update('jax_compilation_cache_dir', {own!r})"
    assert settings_of(f"{set_before}; import likejax") == [own, "1.0"]


def test_the_cache_can_be_turned_off():
    assert settings_of("import likejax", LIKEJAX_COMPILATION_CACHE="0")[0] == "None"


def test_without_a_place_to_write_there_is_no_cache():
    assert settings_of("import likejax", XDG_CACHE_HOME="/dev/null/cache")[0] == "None"

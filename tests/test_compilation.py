"""Compiled programs are kept between processes, unless the user has other wishes."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

from likejax.compilation import SWITCH, use_persistent_cache

FOLDER, THRESHOLD = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A process whose user has set nothing; the platform's cache folder is ``tmp_path``."""
    before = {name: getattr(jax.config, name) for name in (FOLDER, THRESHOLD)}
    monkeypatch.delenv(THRESHOLD.upper(), raising=False)
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(FOLDER, None)
    jax.config.update(THRESHOLD, 1.0)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def settings() -> tuple[str | None, float]:
    """Folder and threshold of the cache in this process."""
    return getattr(jax.config, FOLDER), getattr(jax.config, THRESHOLD)


def test_importing_turns_the_cache_on(tmp_path):
    kept = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    code = f"import likejax, jax; print(jax.config.{FOLDER})"
    environment = {**kept, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    shown = subprocess.check_output(command, env=environment, text=True)
    assert shown.strip() == str(tmp_path / "likejax" / "xla")


def test_every_program_is_kept(fresh):
    use_persistent_cache()
    assert settings() == (str(fresh / "likejax" / "xla"), 0.0)


def test_the_users_threshold_stays(fresh, monkeypatch):
    monkeypatch.setenv(THRESHOLD.upper(), "1.0")
    use_persistent_cache()
    assert settings() == (str(fresh / "likejax" / "xla"), 1.0)


def test_the_users_folder_stays(fresh):
    own = str(fresh / "own")
    jax.config.update(FOLDER, own)
    use_persistent_cache()
    assert settings() == (own, 1.0)


def test_the_cache_can_be_turned_off(fresh, monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    use_persistent_cache()
    assert settings() == (None, 1.0)


def test_without_a_place_to_write_there_is_no_cache(fresh, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    use_persistent_cache()
    assert settings() == (None, 1.0)

"""Strict JAX for every test: no silent rank promotion, a compilation cache shared by all runs."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
_CACHE = {
    "jax_compilation_cache_dir": os.environ.get("JAX_COMPILATION_CACHE_DIR")
    or str(Path(__file__).resolve().parents[1] / ".cache" / "xla"),
    "jax_persistent_cache_min_compile_time_secs": "0",
}
for _name, _value in _CACHE.items():  # for this process, and for those that tests start
    os.environ[_name.upper()] = _value
    jax.config.update(_name, _value if "dir" in _name else float(_value))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run what is marked slow")


def _skip_untyped(config, items):
    """Skips tests of what users see, who have no type checker, in the suite under beartype."""
    if not config.getoption("jaxtyping_packages", None):
        return
    for item in items:
        if "untyped" in item.keywords:
            item.add_marker(
                pytest.mark.skip(reason="untyped: run by `make test` in a process without beartype")
            )


def pytest_collection_modifyitems(config, items):
    _skip_untyped(config, items)
    if config.getoption("--slow") or os.environ.get("SLOW") == "1":
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with SLOW=1"))


@pytest.fixture(scope="module", autouse=True)
def _release_compiled_programs():
    """Programs compiled for CPU hold memory maps, and the kernel allows 65,530 of them."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > 30_000:
        jax.clear_caches()

"""Strict JAX for every test: no silent rank promotion, a compilation cache shared by all runs.

Most of the suite's time is XLA compiling, so programs are compiled without its costly
optimizations, but for tests marked ``optimized``, whose programs run for long; in one piece each,
since dividing a program among threads costs a tenth of the processor time and the other test
process has the other core; and with XLA's older emitters of CPU code, which take two thirds of the
time of the newer ones.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
_CACHE_DIRECTORY = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(HERE.parent / ".cache/xla")
_SETTINGS: dict[str, Any] = {
    "jax_compilation_cache_dir": _CACHE_DIRECTORY,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_disable_most_optimizations": True,
}

_flags = [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):  # XLA ends the process at a flag that it does not know
    _flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(_flags)

# Python looks for garbage after every 700 new objects. Tracing makes millions that live on: it
# found next to none in a tenth of the time of imports and a twentieth of that of tests.
gc.set_threshold(50_000, 10, 10)

jax.config.update("jax_numpy_rank_promotion", "raise")
for _name, _value in _SETTINGS.items():  # for this process, and for those that tests start
    os.environ[_name.upper()] = str(_value)
    jax.config.update(_name, _value)


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


def slow_tests() -> set[str]:
    """Returns the names of the tests that only ``make test SLOW=1`` runs."""
    lines = (HERE / "slow.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def _mark_slow(config, items):
    """Marks the tests of the list as slow, and skips them unless they are asked for."""
    slow = slow_tests()
    is_asked = config.getoption("--slow") or os.environ.get("SLOW") == "1"
    for item in items:
        if item.nodeid in slow:
            item.add_marker("slow")
            if not is_asked:
                item.add_marker(pytest.mark.skip(reason="slow: run with SLOW=1"))


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config, items):
    _skip_untyped(config, items)
    _mark_slow(config, items)


def pytest_collection_finish(session):
    """Modules and tests stay to the end: what looks for garbage need not pass them again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _optimized_programs(request, monkeypatch):
    """Lets XLA optimize the programs of a test that is marked so, here and in its processes."""
    if not request.node.get_closest_marker("optimized"):
        yield
        return
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "False")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session", autouse=True)
def _small_draws():
    """Lets small arrays of initial weights be cut from draws of 4,096 values, not of 65,536.

    The weights are the same. A larger draw is for users, whose processes compile one program less;
    without XLA's optimizations it takes 8 ms, and the networks of tests have thousands of arrays.
    """
    from likejax.nn import initial  # not before the type checker is at work

    initial.SMALLEST_DRAW = 12


@pytest.fixture(autouse=True)
def _own_random_numbers(request, monkeypatch):
    """Starts the generator of a test's file anew: a test draws the same, whatever ran before it."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))


@pytest.fixture(scope="module", autouse=True)
def _release_compiled_programs():
    """Programs compiled for CPU hold memory maps, and the kernel allows 65,530 of them."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > 30_000:
        jax.clear_caches()
        gc.collect()

"""The golden files: numbers of the official implementations, several models in a file."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from likejax.nn.repeat import unstack
from likejax.nn.state import split
from tests.paths import GOLDEN


def golden_files(pattern: str) -> list[Path]:
    """Every golden file of a form, of whatever sizes."""
    return sorted(GOLDEN.glob(pattern)) if GOLDEN.is_dir() else []


@functools.cache
def read(path: Path, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays whose name begins with ``prefix``, named without it."""
    with np.load(path) as file:
        return {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}


def groups(files: list[Path]) -> list:
    """Every model in those files, as a parameter of a test: its arrays by name."""
    return [
        pytest.param(read(path, f"{group}."), id=f"{path.stem}-{group}")
        for path in files
        for group in sorted({name.split(".")[0] for name in np.load(path).files})
    ]


def weights(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The official weights of a model."""
    return {k.removeprefix("w."): v for k, v in golden.items() if k.startswith("w.")}


def all_arrays(density: Any) -> dict[str, Any]:
    """Every array of a density by name, trainable or not."""
    _, params, fixed = split(unstack(density))
    return {**params, **fixed}


def assert_same_arrays(density: Any, other: Any, *, but: Iterable[str] = ()) -> None:
    """Two densities with bitwise the same arrays are one and the same, and so are their
    log-probabilities."""
    ours, theirs = all_arrays(density), all_arrays(other)
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - set(but):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)

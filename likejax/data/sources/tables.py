"""Five tables on which density estimators are compared, with their published preprocessing.

The preprocessing is part of these datasets: nats of them refer to the preprocessed rows.

References:
  Papamakarios, Pavlakou and Murray, 2017, Masked autoregressive flow for density estimation,
  arXiv:1705.07057, appendix D, with its official code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset
from likejax.data.readers.files import FileError
from likejax.data.readers.numpy_files import read_npy

Rows = Float[np.ndarray, "_ _"]
_SEED = 42


class _Table(NamedTuple):
    """A dataset's raw files, any of which is enough, and what makes parts of them."""

    files: tuple[tuple[str, ...], ...]
    prepare: Callable[[Mapping[str, Path]], dict[str, Rows]]
    steps: str


def _three_parts(rows: Rows) -> dict[str, Rows]:
    """The last tenth is the test part, the last tenth of the rest validation."""
    rest = len(rows) - len(rows) // 10
    train = rest - rest // 10
    return {"train": rows[:train], "validation": rows[train:rest], "test": rows[rest:]}


def _standardized(parts: Mapping[str, Rows], *by: str, ddof: int = 0) -> dict[str, Rows]:
    """All parts by the mean and standard deviation of some of them together."""
    rows = np.concatenate([parts[name] for name in by])
    mean, std = rows.mean(0), rows.std(0, ddof=ddof)
    return {name: (part - mean) / std for name, part in parts.items()}


def _columns(path: Path, rows: np.ndarray, count: int) -> Rows:
    if rows.ndim != 2 or rows.shape[1] != count:
        raise FileError(path, f"expected rows of {count} columns, got shape {rows.shape}")
    return rows.astype(np.float64)


def _power(paths: Mapping[str, Path]) -> dict[str, Rows]:
    """Columns: active power, reactive power, voltage, intensity, three sub-meterings, time."""
    rows = _columns(paths["data.npy"], read_npy(paths["data.npy"]), 8)
    rng = np.random.RandomState(_SEED)  # the published order of rows is this generator's
    rng.shuffle(rows)
    voltage, active, metering = (rng.rand(len(rows), n) for n in (1, 1, 3))
    noise = np.hstack([0.001 * active, 0.01 * voltage, metering, np.zeros((len(rows), 1))])
    return _standardized(_three_parts(rows[:, [0, 2, 4, 5, 6, 7]] + noise), "train", "validation")


def _gas(paths: Mapping[str, Path]) -> dict[str, Rows]:
    """Columns: time, two concentrations, sixteen sensors, of which similar ones are dropped."""
    path = paths["ethylene_CO.txt"]
    rows = _columns(path, _text(path, skip=1), 19)[:, 3:]
    while rows.shape[1] > 1:
        alike = (np.corrcoef(rows, rowvar=False) > 0.98).sum(0)
        if alike.max() <= 1:
            break
        rows = np.delete(rows, np.flatnonzero(alike > 1)[0], axis=1)
    return _three_parts((rows - rows.mean(0)) / rows.std(0, ddof=1))


def _hepmass(paths: Mapping[str, Path]) -> dict[str, Rows]:
    """Columns: class, 27 features, the mass, which the test file has twice."""
    train = _text(_either(paths, "1000_train.csv"), skip=1, delimiter=",")
    test = _text(_either(paths, "1000_test.csv"), skip=1, delimiter=",")[:, : train.shape[1]]
    signal = {name: rows[rows[:, 0] == 1, 1:] for name, rows in (("train", train), ("test", test))}
    signal = _standardized(signal, "train", ddof=1)
    kept = [i for i, column in enumerate(signal["train"].T) if _smallest_repeats(column) <= 5]
    rows = signal["train"][:, kept]
    middle = len(rows) - len(rows) // 10
    return {"train": rows[:middle], "validation": rows[middle:], "test": signal["test"][:, kept]}


def _smallest_repeats(column: np.ndarray) -> int:
    """Number of times that the smallest value occurs: thousands where a feature is cut off."""
    return int((column == column.min()).sum())


def _miniboone(paths: Mapping[str, Path]) -> dict[str, Rows]:
    rows = _columns(paths["data.npy"], read_npy(paths["data.npy"]), 43)
    return _standardized(_three_parts(rows), "train", "validation")


def _bsds300(paths: Mapping[str, Path]) -> dict[str, Rows]:
    path = paths["BSDS300.hdf5"]
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path.name} is an HDF5 file: pip install 'likejax[tables]'") from error
    try:
        with h5py.File(path) as file:
            return {
                name: _columns(path, np.asarray(file[name]), 63)
                for name in ("train", "validation", "test")
            }
    except (OSError, KeyError) as error:
        raise FileError(
            path, f"not a readable HDF5 file with train, validation and test: {error}"
        ) from error


def _text(path: Path, *, skip: int, delimiter: str | None = None) -> np.ndarray:
    try:
        return np.loadtxt(path, ndmin=2, skiprows=skip, delimiter=delimiter)
    except (ValueError, OSError, EOFError) as error:
        raise FileError(path, f"not a readable table of numbers: {error}") from error


def _either(paths: Mapping[str, Path], name: str) -> Path:
    return paths[name] if name in paths else paths[f"{name}.gz"]


TABLES: dict[str, _Table] = {
    "power": _Table(
        (("data.npy",),),
        _power,
        "shuffled, reactive power and intensity dropped, uniform noise added, standardized by "
        "train and validation",
    ),
    "gas": _Table(
        (("ethylene_CO.txt",),),
        _gas,
        "concentrations and time dropped, sensors correlated above 0.98 thinned out, standardized "
        "by all rows",
    ),
    "hepmass": _Table(
        (("1000_train.csv", "1000_test.csv"), ("1000_train.csv.gz", "1000_test.csv.gz")),
        _hepmass,
        "signal of mass 1000 only, standardized by train, features whose smallest value repeats "
        "dropped",
    ),
    "miniboone": _Table((("data.npy",),), _miniboone, "standardized by train and validation"),
    "bsds300": _Table(
        (("BSDS300.hdf5",),),
        _bsds300,
        "as distributed: 8x8 patches without their mean and last pixel",
    ),
}
"""Name to what is done with the files of the folder of that name."""


def load_table(folder: Path, name: str) -> dict[str, Dataset] | None:
    """Reads the parts of one of ``TABLES`` from raw files; ``None`` if they are not there.

    Files that somebody has preprocessed (``train.npy``, ``validation.npy``, ``test.npy``, or an
    ``.npz``) are read as any other.

    Args:
      folder: Folder of the raw files.
      name: One of ``TABLES``.

    Returns:
      The dataset of each part, by split, in float32.

    Raises:
      FileError: If a file is damaged or not what it is called.
    """
    table = TABLES[name]
    for files in table.files:
        paths = {file: folder / file for file in files}
        if all(path.is_file() for path in paths.values()):
            parts = table.prepare(paths)
            return {
                split: Dataset.from_array(
                    rows.astype(np.float32),
                    name=name,
                    split=split,
                    provenance=[f"files of {name}", table.steps],
                )
                for split, rows in parts.items()
            }
    return None

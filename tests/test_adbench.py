"""The benchmark of ADBench's tables: it goes on where it was stopped, and ranks the methods."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import adbench

RNG = np.random.default_rng(0)
METHODS = ("NSF", "Gaussian", "LOF")


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Two tables and one that is too small, and methods without code."""
    (tmp_path / "adbench").mkdir()
    for name, rows in (("2_wide", 400), ("1_narrow", 300), ("3_small", 299)):
        x = RNG.normal(size=(rows, 3))
        x[:, 1] = 7.0
        y = np.arange(rows) % 10 == 0
        x[y] += 4.0
        np.savez(tmp_path / "adbench" / f"{name}.npz", X=x, y=y)
    monkeypatch.setattr(adbench, "DENSITIES", {"NSF": None, "Gaussian": None})
    monkeypatch.setattr(adbench, "DETECTORS", {"LOF": None})
    monkeypatch.setattr(adbench.jax, "clear_caches", lambda: None)  # other tests share programs
    return tmp_path


def record(auroc):
    return {"auroc": [auroc, auroc - 0.1, auroc], "aupr_out": [auroc / 2, 0.0, 1.0]}


def test_what_is_measured_is_kept(tables, monkeypatch, tmp_path):
    """A second start measures what the first one did not finish, and nothing else."""
    paths, out = adbench.tables(tables, []), tmp_path / "out"
    assert [path.stem for path in paths] == ["1_narrow", "2_wide"]
    assert adbench.tables(tables, ["2_wide"]) == paths[1:]
    out.mkdir()
    every = [(path, name) for path in paths for name in ("LOF", "NSF", "Gaussian")]
    measured = []

    def measure(path, name):
        if len(measured) == stop_after:
            raise KeyboardInterrupt
        measured.append((path, name))
        return record(0.5)

    monkeypatch.setattr(adbench, "measure", measure)
    stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        adbench.work(paths, out)
    (out / "1_narrow.Gaussian.part").write_text("{")  # as a killed process leaves it
    stop_after = 99
    adbench.work(paths, out)
    assert measured == every
    assert len(list(out.glob("*.json"))) == 6
    assert not list(out.glob("*.part"))
    adbench.work(paths, out)
    assert measured == every


def test_the_table_has_mean_ranks_and_their_spread(tables):
    paths = adbench.tables(tables, [])
    aurocs = {"1_narrow": (0.9, 0.8, 0.7), "2_wide": (0.6, 0.8, 0.6)}
    for table, values in aurocs.items():
        for name, value in zip(METHODS, values, strict=True):
            (tables / f"{table}.{name}.json").write_text(json.dumps(record(value)))
    text = adbench.summary(paths, tables)
    assert "| table | NSF | Gaussian | LOF |" in text
    assert "| 1_narrow | 0.900 [0.800, 0.900] | 0.800 [0.700, 0.800] |" in text
    # ranks 1, 2, 3 and 2.5, 1, 2.5: half their difference is the standard error of two
    ranks = "| mean rank ± standard error | 1.75 ± 0.75 | 1.50 ± 0.50 | 2.75 ± 0.25 |"
    assert text.count(ranks) == 2
    assert "| median | 0.750 | 0.800 | 0.650 |" in text
    assert "| mean rank ± standard error | 1.00 | 2.00 | 3.00 |" in adbench.summary(
        paths[:1], tables
    )


def test_the_record_of_one_method(tables, monkeypatch):
    """A detector of training rows alone; a score that is NaN counts as the largest."""
    path = adbench.tables(tables, [])[0]
    parts = adbench.parts_of(path)
    rows = np.concatenate([parts[name] for name in ("train", "validation", "test")])
    assert rows.shape == (270, 2)  # the column of one value is left out
    assert len(np.unique(rows, axis=0)) == 270

    def distance(parts):
        inside, outside = (np.abs(parts[name]).sum(1) for name in ("test", "anomalies"))
        return inside, np.where(np.arange(len(outside)) == 0, np.nan, outside)

    monkeypatch.setattr(adbench, "DETECTORS", {"distance": distance})
    found = adbench.measure(path, "distance")
    assert found["scores that are NaN"] == 1
    assert found["rows"] == {name: len(part) for name, part in parts.items()}
    assert found["columns"] == 2
    value, low, high = found["auroc"]
    assert low <= value <= high
    assert value > 0.9

"""The five benchmark tables: raw files in their published form, preprocessed as published."""

from __future__ import annotations

import gzip

import h5py
import numpy as np
import pytest

import likejax as lj


def write(folder, name, array) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / name, array)


def write_gas(folder, sensors) -> None:
    rows = np.hstack([np.arange(len(sensors))[:, None], np.ones((len(sensors), 2)), sensors])
    folder.mkdir()
    header = "Time (seconds), CO (ppm)"
    np.savetxt(folder / "ethylene_CO.txt", rows, header=header, comments="")


def write_hepmass(folder, train, test, suffix="") -> None:
    folder.mkdir()
    for name, rows in (("train", train), ("test", test)):
        path = folder / f"1000_{name}.csv{suffix}"
        with gzip.open(path, "wt") if suffix else path.open("w") as file:
            np.savetxt(file, rows, delimiter=",", header="label,f0,f1", comments="# ")


def write_bsds300(folder, raw) -> None:
    folder.mkdir()
    with h5py.File(folder / "BSDS300.hdf5", "w") as file:
        for name, rows in raw.items():
            file[name] = rows


def parts(name, tmp_path) -> list[np.ndarray]:
    splits = ("train", "validation", "test")
    return [lj.load(name, split=split, data_dir=tmp_path).examples for split in splits]


def test_power(tmp_path):
    """Six columns, noise within its bounds, statistics of train and validation together, the
    published shuffle.
    """
    rng = np.random.default_rng(0)
    raw = np.round(rng.normal(size=(1000, 8)) * 10, 2)
    raw[:, 7] = np.arange(1000)  # time: no noise is added to it
    write(tmp_path / "power", "data.npy", raw)
    train, validation, test = parts("power", tmp_path)
    assert [len(part) for part in (train, validation, test)] == [810, 90, 100]
    assert train.shape[1] == 6
    assert train.dtype == np.float32
    both = np.concatenate([train, validation])
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(both.std(0), 1, atol=1e-5)
    rows = raw.copy()
    np.random.RandomState(42).shuffle(rows)
    time = rows[:, 7]
    np.testing.assert_allclose(
        test[:, 5], (time[900:] - time[:900].mean()) / time[:900].std(), rtol=1e-4, atol=1e-5
    )
    # undo the standardization by two points of a column without knowing the noise: it is at most
    # 0.01 in the voltage
    spread = rows[:900, 2].std()
    gap = np.abs((both[:, 1] - both[0, 1]) * spread - (rows[:900, 2] - rows[0, 2]))
    assert 1e-4 < gap.max() < 0.02


def test_gas(tmp_path):
    """Time and concentrations go, of two sensors alike one goes, and all rows standardize."""
    rng = np.random.default_rng(0)
    sensors = rng.normal(size=(400, 16))
    sensors[:, 9] = sensors[:, 2] + 0.01 * rng.normal(size=400)
    write_gas(tmp_path / "gas", sensors)
    train, validation, test = parts("gas", tmp_path)
    assert [len(part) for part in (train, validation, test)] == [324, 36, 40]
    together = np.concatenate([train, validation, test])
    assert together.shape[1] == 15
    expected = np.delete(sensors, 2, axis=1)
    expected = (expected - expected.mean(0)) / expected.std(0, ddof=1)
    np.testing.assert_allclose(together, expected, atol=1e-5)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_hepmass(tmp_path, suffix):
    """Signal only, without class and the test file's extra column; features that are cut off below
    are dropped.
    """
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(300, 29)), rng.normal(size=(100, 30))
    for rows in (train, test):
        rows[:, 0] = np.arange(len(rows)) % 2
        rows[:, 4] = np.maximum(rows[:, 4], 0.0)
    write_hepmass(tmp_path / "hepmass", train, test, suffix)
    got = parts("hepmass", tmp_path)
    assert [len(part) for part in got] == [135, 15, 50]
    assert got[0].shape[1] == 27
    signal = train[train[:, 0] == 1, 1:]
    expected = (test[test[:, 0] == 1, 1:29] - signal.mean(0)) / signal.std(0, ddof=1)
    np.testing.assert_allclose(got[2], np.delete(expected, 3, axis=1), atol=1e-4)


def test_miniboone(tmp_path):
    raw = np.random.default_rng(0).normal(size=(200, 43)) * 5 + 2
    write(tmp_path / "miniboone", "data.npy", raw)
    train, validation, test = parts("miniboone", tmp_path)
    assert [len(part) for part in (train, validation, test)] == [162, 18, 20]
    np.testing.assert_allclose(test, (raw[180:] - raw[:180].mean(0)) / raw[:180].std(0), atol=1e-5)


def test_bsds300(tmp_path):
    """As distributed, not standardized."""
    rng = np.random.default_rng(0)
    raw = {
        name: rng.normal(size=(n, 63))
        for name, n in (("train", 30), ("validation", 5), ("test", 10))
    }
    write_bsds300(tmp_path / "bsds300", raw)
    for got, wanted in zip(parts("bsds300", tmp_path), raw.values(), strict=True):
        np.testing.assert_array_equal(got, wanted.astype(np.float32))
    assert "as distributed" in str(lj.load("bsds300", data_dir=tmp_path).provenance)
    assert "bsds300" in lj.data.datasets(tmp_path)


def test_preprocessed_files_are_read_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    raw = {
        name: rng.normal(size=(n, 6))
        for name, n in (("train", 30), ("validation", 5), ("test", 10))
    }
    for name, rows in raw.items():
        write(tmp_path / "power", f"{name}.npy", rows)
    for got, wanted in zip(parts("power", tmp_path), raw.values(), strict=True):
        np.testing.assert_array_equal(got, wanted.astype(got.dtype))


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("power", "data.npy", np.zeros((20, 5)), "expected rows of 8 columns"),
        ("miniboone", "data.npy", np.zeros((20, 50)), "expected rows of 43 columns"),
        ("gas", "ethylene_CO.txt", b"Time\n1 2 x\n", "not a readable table"),
        ("bsds300", "BSDS300.hdf5", b"not HDF5", "not a readable HDF5 file"),
    ],
)
def test_damaged_files(tmp_path, name, file, content, message):
    (tmp_path / name).mkdir()
    if isinstance(content, bytes):
        (tmp_path / name / file).write_bytes(content)
    else:
        np.save(tmp_path / name / file, content)
    with pytest.raises(ValueError, match=message):
        lj.load(name, data_dir=tmp_path)


def write_published(folder, name) -> None:
    """Random rows in the published form of a table, of which its usual columns are kept."""
    rng = np.random.default_rng(0)
    match name:
        case "power":
            write(folder, "data.npy", rng.normal(size=(200, 8)))
        case "gas":  # sixteen sensors, of which eight are like the other eight
            sensors = rng.normal(size=(200, 8))
            write_gas(folder, np.hstack([sensors, sensors + 0.01 * rng.normal(size=(200, 8))]))
        case "hepmass":  # 28 columns, of which seven are cut off below
            rows = rng.normal(size=(300, 29))
            rows[:, 0] = np.arange(300) % 2
            rows[:, 1:8] = np.maximum(rows[:, 1:8], 0.0)
            write_hepmass(folder, rows[:200], np.hstack([rows[200:], rows[200:, -1:]]))
        case "miniboone":
            write(folder, "data.npy", rng.lognormal(size=(200, 43)))
        case "bsds300":
            sizes = {"train": 100, "validation": 20, "test": 20}
            write_bsds300(folder, {part: rng.normal(size=(n, 63)) for part, n in sizes.items()})


SMALL = {"steps": 2, "batch_size": 16, "validate_every": 2, "model.depth": 2}


def test_a_preset_trains_from_published_files(tmp_path):
    """A file of MINIBOONE's form is preprocessed, and the preset of its flow takes it."""
    write_published(tmp_path / "miniboone", "miniboone")
    train, validation = (
        lj.load("miniboone", split=split, data_dir=tmp_path) for split in ("train", "validation")
    )
    experiment = lj.preset("nsf/miniboone").override(SMALL)
    run = lj.fit(experiment, train, validation=validation, key=0)
    assert run.validation is not None
    assert np.isfinite(run.validation)


@pytest.mark.parametrize(
    "preset", ["nsf/power-autoregressive", "maf/gas", "maf/hepmass-coupling", "maf/bsds300"]
)
def test_the_other_tables_train_too(preset, tmp_path):
    """Each by another kind of flow, with networks that compile fast. A standardized column has 1.4
    nats by a normal, and a flow that begins near the identity little more."""
    experiment = lj.preset(preset).override(SMALL | {"model.width": 64, "model.blocks": 0})
    write_published(tmp_path / experiment.dataset, experiment.dataset)
    train = lj.load(experiment.dataset, data_dir=tmp_path)
    run = lj.fit(experiment, train, key=0)
    (columns,) = run.density.event_shape
    assert train.examples.shape[1:] == (columns,)
    assert 1 < -run.history[-1]["log_prob"] / columns < 2

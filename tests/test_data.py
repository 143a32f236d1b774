"""Datasets: built in, from files, from TFDS; and files that are not what they claim."""

from __future__ import annotations

import gzip
import pickle
import struct
import zipfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

import likejax as lj
from likejax.data import readers
from likejax.data.augment import flip, shift
from likejax.data.batches import DatasetBatches, Position
from likejax.data.sources.toys import TOYS, toy
from tests.paths import DATA

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA"
)
RNG = np.random.default_rng(0)


def images(n: int = 10, height: int = 4, width: int = 4, channels: int | None = None) -> np.ndarray:
    return RNG.integers(
        0, 256, (n, height, width) if channels is None else (n, height, width, channels), np.uint8
    )


def idx(array: np.ndarray) -> bytes:
    kind = {"uint8": 8, "int32": 12}[array.dtype.name]
    return (
        struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
        + array.astype(">i4" if kind == 12 else "u1").tobytes()
    )


# --- Dataset


@pytest.mark.parametrize("levels", [1, 65537])
def test_numbers_of_levels_that_cannot_be(levels):
    with pytest.raises(ValueError, match="levels to be an integer of at least 2 and at most 65536"):
        lj.Dataset.from_array(np.zeros((3, 2, 2), np.int64), levels=levels)


def test_from_array():
    dataset = lj.Dataset.from_array(images(), labels=np.arange(10))
    assert (len(dataset), dataset.event_shape, dataset.levels) == (10, (4, 4, 1), 256)
    with pytest.raises(ValueError, match="read-only"):
        dataset.examples[0] = 0
    assert lj.Dataset.from_array(np.zeros((3, 2))).levels is None
    assert lj.Dataset.from_array(np.ones((3, 4, 4), bool)).levels == 2
    assert dataset.examples_fingerprint() == lj.Dataset.from_array(dataset.examples).fingerprint()
    assert dataset.fingerprint() != dataset.invert().fingerprint()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: lj.Dataset.from_array(np.array([["a"]])), TypeError, "numeric"),
        (lambda: lj.Dataset.from_array(np.zeros(3)), ValueError, r"\(n, \*event_shape\)"),
        (lambda: lj.Dataset.from_array(np.zeros((0, 3))), ValueError, "n > 0"),
        (lambda: lj.Dataset.from_array(np.array([[1.0, np.nan]])), ValueError, "1 NaN or infinite"),
        (lambda: lj.Dataset.from_array(images(), levels=16), ValueError, r"0\.\.15 for 16 levels"),
        (lambda: lj.Dataset.from_array(images() / 255.0, levels=256), TypeError, "unscaled"),
        (
            lambda: lj.Dataset.from_array(images(), labels=np.arange(9)),
            ValueError,
            r"shape \(10,\)",
        ),
        (lambda: lj.Dataset.from_array(np.zeros((3, 2))).invert(), ValueError, "integer images"),
        (lambda: lj.Dataset.from_array(images()).gray(), ValueError, "3 channels"),
        (lambda: lj.Dataset.from_array(images()).pad(3, 8), ValueError, "at least 4"),
        (
            lambda: lj.Dataset.from_array(images()).resize(8, 8, filter="cubic"),
            ValueError,
            "unknown filter",
        ),
        (lambda: lj.Dataset.from_array(images()).reduce_levels(300), ValueError, "2 to 256"),
    ],
)
def test_wrong_arrays(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_steps_are_noted():
    dataset = lj.Dataset.from_array(images(3, channels=3))
    stepped = (
        dataset.gray()
        .resize(8, 8)
        .invert()
        .pad(10, 12, value=7)
        .transpose()
        .reduce_levels(32)
        .color()
    )
    assert (stepped.event_shape, stepped.levels) == ((12, 10, 3), 32)
    assert len(stepped.provenance) == len(dataset.provenance) + 7
    assert stepped.examples.max() < 32
    np.testing.assert_array_equal(dataset.invert().invert().examples, dataset.examples)
    np.testing.assert_array_equal(
        dataset.resize(8, 8, filter="nearest").examples[:, ::2, ::2], dataset.examples
    )
    assert (dataset.pad(6, 6).examples[:, 0] == 0).all()


# --- built in


def test_digits():
    parts = {split: lj.load("digits", split=split) for split in ("train", "validation", "test")}
    assert [len(p) for p in parts.values()] == [1258, 180, 359]
    assert all(p.levels == 17 and p.labels is not None for p in parts.values())
    everything = np.concatenate([p.examples for p in parts.values()]).reshape(1797, -1)
    from sklearn import datasets

    theirs = datasets.load_digits().data
    np.testing.assert_array_equal(
        everything[np.lexsort(everything.T)], theirs[np.lexsort(theirs.T)]
    )
    again = lj.load("digits", split="test")
    assert again.fingerprint() == parts["test"].fingerprint()


def test_photographs_do_not_overlap():
    parts = [lj.load("photographs", split=split) for split in ("train", "validation", "test")]
    assert all(p.event_shape == (32, 32, 3) for p in parts)
    rows = [{image.tobytes() for image in p.examples} for p in parts]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


@pytest.mark.parametrize("name", TOYS)
def test_toys(name):
    """Reproducible, finite, new for every seed, and spread as the generators of FFJORD are."""
    points = toy(name, 4000, seed=3)
    np.testing.assert_array_equal(points, toy(name, 4000, seed=3))
    assert np.isfinite(points).all()
    assert not np.array_equal(points, toy(name, 4000, seed=4))
    assert 1 < np.abs(points).max() < 6
    assert len(lj.load(name)) == 20_000


def test_toy_checkerboard_is_uniform_on_eight_squares():
    points = toy("checkerboard", 20_000, seed=0)
    assert np.abs(points).max() <= 4
    counts = np.histogram2d(*points.T, bins=4, range=[[-4, 4]] * 2)[0]
    assert (np.sort(counts.reshape(-1))[:8] == 0).all()
    assert np.abs(np.sort(counts.reshape(-1))[8:] / 2500 - 1).max() < 0.1


# --- files


def test_idx_pairs(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    x, y = images(20), np.arange(20, dtype=np.uint8)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(x))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y)))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x[:5])))
    train, valid, test = (
        lj.load("mine", split=s, data_dir=tmp_path) for s in ("train", "validation", "test")
    )
    assert (len(train), len(valid), len(test)) == (18, 2, 5)
    np.testing.assert_array_equal(train.examples[..., 0], x[train.labels])
    assert test.labels is None
    assert "mine" in lj.data.datasets(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-3], "truncated: shape"),
        (lambda b: b + b"\0", "too long"),
        (lambda b: b[:6], "header ends early"),
        (lambda b: b"", "expected the magic number"),
        (lambda b: b"\x89PNG" + b[4:], "expected the magic number"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "too large"),
        (lambda b: idx(np.arange(20, dtype=np.uint8)), "mislabeled"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx(tmp_path, damage, message, suffix):
    (tmp_path / "d").mkdir()
    data = damage(idx(images(20)))
    (tmp_path / "d" / f"train-images-idx3-ubyte{suffix}").write_bytes(
        gzip.compress(data) if suffix else data
    )
    with pytest.raises(ValueError, match=message):
        lj.load("d", data_dir=tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:40] + b"\0\0\0" + b[43:], lambda b: b"plain"]
)
def test_damaged_gzip(tmp_path, damage):
    (tmp_path / "d").mkdir()
    data = gzip.compress(idx(images(200, 8, 8)))
    (tmp_path / "d" / "train-images-idx3-ubyte.gz").write_bytes(damage(data))
    with pytest.raises(ValueError, match="gzip"):
        lj.load("d", data_dir=tmp_path)


def test_labels_must_fit(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train-images-idx3-ubyte").write_bytes(idx(images(20)))
    (tmp_path / "d" / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(19, dtype=np.uint8)))
    with pytest.raises(ValueError, match="expected 20 labels"):
        lj.load("d", data_dir=tmp_path)


def test_npz_and_npy(tmp_path):
    for name in ("a", "b", "c", "bad", "objects"):
        (tmp_path / name).mkdir()
    x = images(30, 4, 4, 3)
    np.savez(
        tmp_path / "a" / "a.npz",
        x_train=x,
        x_test=x[:4],
        y_train=np.arange(30),
        y_test=np.arange(4),
    )
    np.save(tmp_path / "b" / "only.npy", x)
    np.save(tmp_path / "c" / "data.npy", RNG.normal(size=(100, 3)))
    assert lj.load("a", data_dir=tmp_path).event_shape == (4, 4, 3)
    assert [
        len(lj.load("b", split=s, data_dir=tmp_path)) for s in ("train", "validation", "test")
    ] == [24, 3, 3]
    parts = [lj.load("c", split=s, data_dir=tmp_path) for s in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [80, 10, 10]
    assert parts[0].levels is None

    (tmp_path / "bad" / "x.npz").write_bytes((tmp_path / "a" / "a.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"not a readable \.npz"):
        lj.load("bad", data_dir=tmp_path)
    np.save(tmp_path / "objects" / "x.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"expected a numeric array"):
        lj.load("objects", data_dir=tmp_path)


def test_matlab(tmp_path):
    (tmp_path / "binarized_mnist").mkdir()
    x = RNG.integers(0, 2, (6, 784)).astype(np.uint8)
    for part in ("train", "valid", "test"):
        scipy.io.savemat(tmp_path / "binarized_mnist" / f"binarized_mnist_{part}.mat", {"X": x})
    dataset = lj.load("binarized_mnist", split="validation", data_dir=tmp_path)
    assert (dataset.event_shape, dataset.levels) == ((28, 28, 1), 2)
    (tmp_path / "binarized_mnist" / "binarized_mnist_test.mat").write_bytes(
        b"\x89HDF\r\n\x1a\n" + bytes(300)
    )
    with pytest.raises(ValueError, match=r"MATLAB 7\.3"):
        readers.read_mat(tmp_path / "binarized_mnist" / "binarized_mnist_test.mat")
    (tmp_path / "binarized_mnist" / "binarized_mnist_test.mat").write_bytes(bytes(range(256)) * 3)
    with pytest.raises(ValueError, match="not a readable MATLAB"):
        readers.read_mat(tmp_path / "binarized_mnist" / "binarized_mnist_test.mat")


def cifar_rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    return RNG.integers(0, 256, (n, 3072)).astype(np.uint8), np.arange(n) % 10


def test_cifar_binary(tmp_path):
    folder = tmp_path / "cifar10"
    folder.mkdir()
    rows, labels = cifar_rows(7)
    record = np.concatenate([labels[:, None].astype(np.uint8), rows], 1).tobytes()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (folder / f"{name}.bin").write_bytes(record)
    test = lj.load("cifar10", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples[2, 3, 5], rows[2].reshape(3, 32, 32)[:, 3, 5])
    np.testing.assert_array_equal(test.labels, labels)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3\.bin missing"):
        lj.load("cifar10", split="test", data_dir=tmp_path)
    (folder / "data_batch_3.bin").write_bytes(record[:-1])
    with pytest.raises(ValueError, match="records of 3073 bytes"):
        readers.read_cifar_binary(folder / "data_batch_3.bin")


def test_cifar_python(tmp_path):
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rows, labels = cifar_rows(7)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        for protocol in (2, 4):
            record = {b"data": rows, b"labels": labels.tolist(), b"filenames": [b"a.png"] * 7}
            (folder / name).write_bytes(pickle.dumps(record, protocol=protocol))
    test = lj.load("cifar10", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples[2, 3, 5], rows[2].reshape(3, 32, 32)[:, 3, 5])
    np.testing.assert_array_equal(test.labels, labels)


class _Evil:
    def __reduce__(self):
        return print, ("owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": _Evil(), b"labels": []}), "refused to build builtins.print"),
        (pickle.dumps({b"data": np.array([{}], dtype=object), b"labels": []}), "refused"),
        (pickle.dumps([1, 2]), "expected a dictionary"),
        (pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}), "3072 columns"),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
            "expected 2 labels",
        ),
        (b"\x80\x04garbage", "not a readable CIFAR python batch"),
    ],
)
def test_python_batches_build_only_data(tmp_path, content, message, capsys):
    path = tmp_path / "test_batch"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        readers.read_cifar_pickle(path)
    assert "owned" not in capsys.readouterr().out


def test_folders_of_images(tmp_path):
    x = images(6, 5, 4, 3)
    for i, image in enumerate(x):
        place = tmp_path / "pictures" / ("train" if i < 4 else "test") / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    test = lj.load("pictures", split="test", data_dir=tmp_path)
    assert {image.tobytes() for image in test.examples} == {image.tobytes() for image in x[4:]}
    np.testing.assert_array_equal(np.sort(test.labels), [0, 1])
    Image.fromarray(images(1, 3, 3, 3)[0]).save(
        tmp_path / "pictures" / "test" / "class0" / "odd.png"
    )
    with pytest.raises(ValueError, match="bring all to one size"):
        lj.load("pictures", split="test", data_dir=tmp_path)
    (tmp_path / "pictures" / "test" / "class0" / "odd.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not a readable image"):
        lj.load("pictures", split="test", data_dir=tmp_path)


def test_zips_of_images_once_each(tmp_path):
    (tmp_path / "z").mkdir()
    for n in (1, 2):
        with zipfile.ZipFile(tmp_path / "z" / f"{n}.zip", "w") as archive:
            for i in range(3):
                Image.fromarray(np.full((4, 4), 10 * (i + n), np.uint8)).save(tmp_path / "i.png")
                archive.write(tmp_path / "i.png", f"{i}.png")
    assert (
        sum(len(lj.load("z", split=s, data_dir=tmp_path)) for s in ("train", "validation", "test"))
        == 4
    )
    (tmp_path / "z" / "2.zip").write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match="damaged zip"):
        readers.images_in_zip(tmp_path / "z" / "2.zip")


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match=r"no dataset 'nothing'.*Tried reading it from"):
        lj.load("nothing", data_dir=tmp_path)
    with pytest.raises(ValueError, match="expected data_dir to be a folder"):
        lj.load("mnist", data_dir=tmp_path / "absent")
    with pytest.raises(ValueError, match="expected a split"):
        lj.load("digits", split="valid")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file of a known form"):
        lj.load("empty", data_dir=tmp_path)


# --- TFDS


@pytest.mark.filterwarnings("ignore")
def test_tfds_reads_without_tensorflow(tmp_path):
    """A dataset that TFDS itself wrote comes back: parts, order, labels, provenance."""
    import sys

    import tensorflow_datasets as tfds

    x, y = images(12, 28, 28), np.arange(12) % 10

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")
        name = "mnist"

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._rows(0, 8), "test": self._rows(8, 12)}

        def _rows(self, start, stop):
            for i in range(start, stop):
                yield i, {"image": Image.fromarray(x[i]), "label": int(y[i])}

        def _generate_examples(self):
            raise AssertionError

    Mnist(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    parts = {
        s: lj.load("tfds/mnist", split=s, data_dir=tmp_path)
        for s in ("train", "validation", "test")
    }
    assert {s: len(p) for s, p in parts.items()} == {"train": 7, "validation": 1, "test": 4}
    everything = {
        image.tobytes(): label
        for p in parts.values()
        for image, label in zip(p.examples, p.labels, strict=True)
    }
    assert everything == {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    assert "TFDS mnist" in parts["test"].provenance[0]
    assert "tensorflow" not in sys.modules


def test_tfds_offline_says_what_to_do(tmp_path, monkeypatch):
    from likejax.data.sources import tfds as adapter

    def offline():
        raise ConnectionError("no network")

    monkeypatch.setattr(adapter, "_check_online", offline)
    with pytest.raises(
        ValueError, match=r"not prepared there.*no network.*pip install tensorflow-cpu"
    ):
        adapter.load_tfds("cifar10", tmp_path)


@needs_data
def test_tfds_reads_what_is_prepared():
    by_tfds, by_files = (
        lj.load("tfds/mnist", split="test", data_dir=DATA),
        lj.load("mnist", split="test", data_dir=DATA),
    )
    rows = [sorted(image.tobytes() for image in d.examples) for d in (by_tfds, by_files)]
    assert rows[0] == rows[1]


# --- real files


@needs_data
@pytest.mark.parametrize(
    ("name", "sizes", "shape", "levels"),
    [
        ("mnist", (55_000, 5_000, 10_000), (28, 28, 1), 256),
        ("fashion_mnist", (55_000, 5_000, 10_000), (28, 28, 1), 256),
        ("notmnist", (None, None, 10_000), (28, 28, 1), 256),
        ("emnist_letters", (None, None, 20_800), (28, 28, 1), 256),
        ("omniglot", (None, None, 4_840), (105, 105, 1), 256),
        ("binarized_mnist", (50_000, 10_000, 10_000), (28, 28, 1), 2),
        ("cifar10_partial", (7_107, 790, 932), (32, 32, 3), 256),
        ("natural32", (5_400, 600, 1_500), (32, 32, 3), 256),
        ("svhn_prefix", (230, 29, 29), (32, 32, 3), 256),
        ("uci/redwine", (1_263, 173, 163), (11,), None),
        ("uci/parkinsons", (4_699, 588, 588), (15,), None),
        ("adbench/45_wine", (103, 13, 13), (13,), None),
    ],
)
def test_real_files(name, sizes, shape, levels):
    assert name in lj.data.datasets(DATA)
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        if size is None:
            with pytest.raises(ValueError, match="test part"):
                lj.load(name, split=split, data_dir=DATA)
        else:
            dataset = lj.load(name, split=split, data_dir=DATA)
            assert (len(dataset), dataset.event_shape, dataset.levels) == (size, shape, levels)
            assert dataset.provenance


@needs_data
def test_histogram_reference_points():
    """Per-pixel histograms score 4.588 on Fashion-MNIST and 1.690 on MNIST: README of the data."""
    for name, expected in (("fashion_mnist", 4.588), ("mnist", 1.690)):
        parts = [lj.load(name, split=s, data_dir=DATA) for s in ("train", "validation", "test")]
        both = lj.Dataset.from_array(np.concatenate([parts[0].examples, parts[1].examples]))
        evaluation = lj.evaluate(lj.models.PixelHistogram.fit(both), parts[2], batch_size=1000)
        assert abs(evaluation.bits_per_dim - expected) < 1e-3


# --- batches


def test_batches_visit_everything_and_resume():
    dataset = lj.Dataset.from_array(
        np.arange(10, dtype=np.uint8).reshape(10, 1, 1), labels=np.arange(10)
    )
    batches = DatasetBatches(dataset, 4, position=Position(5, 0, 0), condition_shape=())
    seen = [next(batches) for _ in range(5)]
    rows = np.concatenate([b.x.reshape(-1) for b in seen])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert not np.array_equal(rows[:10], rows[10:])
    for batch in seen:
        np.testing.assert_array_equal(batch.x.reshape(-1), batch.condition)
    assert batches.position == Position(5, 2, 0)

    resumed = DatasetBatches(dataset, 4, position=Position(5, 0, 0), condition_shape=())
    for _ in range(2):
        next(resumed)
    again = DatasetBatches(dataset, 4, position=resumed.position, condition_shape=())
    for expected in seen[2:]:
        np.testing.assert_array_equal(next(again).x, expected.x)


def test_batches_refuse():
    dataset = lj.Dataset.from_array(images())
    with pytest.raises(ValueError, match="expected a labeled dataset"):
        DatasetBatches(dataset, 4, position=Position(0, 0, 0), condition_shape=())
    with pytest.raises(ValueError, match="unknown augmentation 'rotate'"):
        DatasetBatches(dataset, 4, position=Position(0, 0, 0), augment=("rotate",))


def test_augmentations():
    x = images(50, 20, 20, 1)
    flipped = flip(x, np.random.default_rng(0))
    same = (flipped == x).all((1, 2, 3))
    assert 10 < same.sum() < 40
    np.testing.assert_array_equal(flipped[~same], x[~same][:, :, ::-1])
    shifted = shift(x, np.random.default_rng(0))
    assert shifted.shape == x.shape
    assert set(np.unique(shifted)) <= set(np.unique(x))
    moves = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    for after, before in zip(shifted[:, 2:-2, 2:-2], x, strict=True):
        assert any((after == np.roll(before, move, (0, 1))[2:-2, 2:-2]).all() for move in moves)
    named = DatasetBatches(
        lj.Dataset.from_array(x), 8, position=Position(1, 0, 0), augment=("flip", "shift")
    )
    repeated = DatasetBatches(
        lj.Dataset.from_array(x), 8, position=Position(1, 0, 0), augment=("flip", "shift")
    )
    np.testing.assert_array_equal(next(named).x, next(repeated).x)


# --- MATLAB


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, compressed):
    """Every numeric class, stored small or large, plain or compressed; others are passed over."""
    import scipy.io

    rng = np.random.default_rng(0)
    kinds = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    arrays = {f"a_{kind}": rng.integers(0, 100, (3, 4, 2)).astype(kind) for kind in kinds}
    arrays |= {
        "flags": rng.random((5, 2)) < 0.5,
        "real": rng.normal(size=(2, 30)),
        "one": np.float64(3),
        "empty": np.ones((0, 3)),
    }
    others = {
        "text": "words",
        "cells": np.array([1, "a"], object),
        "record": {"x": 1},
        "z": np.ones(3) * 1j,
    }
    scipy.io.savemat(tmp_path / "x.mat", arrays | others, do_compression=compressed)
    found, expected = readers.read_mat(tmp_path / "x.mat"), scipy.io.loadmat(tmp_path / "x.mat")
    assert set(found) == set(arrays)
    for name in arrays:
        np.testing.assert_array_equal(found[name], expected[name])
        assert found[name].dtype == (bool if name == "flags" else expected[name].dtype), name


# --- slices, parts, notebooks


def test_slices_are_datasets():
    dataset = lj.Dataset.from_array(images(), labels=np.arange(10), weights=np.arange(1, 11))
    first = dataset[:3]
    assert (len(first), first.labels.tolist(), first.weights.tolist()) == (3, [0, 1, 2], [1, 2, 3])
    np.testing.assert_array_equal(first.examples, dataset.examples[:3])
    assert dataset[[7, 2]].labels.tolist() == [7, 2]
    assert dataset[dataset.labels > 7].labels.tolist() == [8, 9]
    assert first.provenance[-1] == "3 of 10 rows"
    for one in (lambda: dataset[3], lambda: dataset.take(3)):
        with pytest.raises(TypeError, match=r"dataset\.examples\[i\] is an example"):
            one()
    with pytest.raises(ValueError, match=r"rows of 0\.\.9"):
        dataset[[10]]


def test_concatenate():
    x = images(7)
    first = lj.Dataset.from_array(x[:4], labels=[0, 1, 2, 0], name="a")
    second = lj.Dataset.from_array(x[4:], labels=[2, 1, 0], name="b", split="test")
    both = lj.data.concatenate([first, second])
    np.testing.assert_array_equal(both.examples[..., 0], x)
    assert both.labels.tolist() == [0, 1, 2, 0, 2, 1, 0]
    assert (both.name, both.split) == ("a", "train")
    assert both.provenance == (
        "4 rows of a train (from an array in memory)",
        "3 rows of b test (from an array in memory)",
    )
    unlabeled = lj.data.concatenate([first, lj.Dataset.from_array(x)], name="c")
    assert (unlabeled.name, unlabeled.labels) == ("c", None)
    assert unlabeled.provenance[-1] == "labels left out, which not all parts have"
    with pytest.raises(ValueError, match=r"differ in event_shape .* and "):
        lj.data.concatenate([first, first.pad(9, 9)])
    with pytest.raises(ValueError, match="levels 256 and 2; binarization"):
        lj.data.concatenate([first, first.binarize(0)])
    with pytest.raises(ValueError, match="got none"):
        lj.data.concatenate([])


def test_split():
    data = lj.Dataset.from_array(np.arange(200.0)[:, None], name="numbers")
    parts = lj.data.split(data, validation=0.25, test=0.5)
    assert [(part.split, len(part)) for part in parts] == [
        ("train", 50),
        ("validation", 50),
        ("test", 100),
    ]
    together = np.concatenate([part.examples for part in parts])
    np.testing.assert_array_equal(np.sort(together, 0), data.examples)
    other = lj.data.split(data, validation=0.25, test=0.5, seed=1)
    assert other[2].fingerprint() != parts[2].fingerprint()
    with pytest.raises(ValueError, match="leave rows to train on"):
        lj.data.split(data, validation=0.5, test=0.5)
    with pytest.raises(ValueError, match="a different example for each of three parts"):
        lj.data.split(data[:2])


def test_a_part_of_its_own_can_be_cut(tmp_path):
    """A source with a test part alone names the call that makes three parts of it."""
    place = tmp_path / "shots" / "test"
    place.mkdir(parents=True)
    for number, image in enumerate(images(30)):
        Image.fromarray(image).save(place / f"{number}.png")
    with pytest.raises(ValueError, match=r"lj\.data\.split\(lj\.load\('shots', split='test'\)\)"):
        lj.load("shots", data_dir=tmp_path)
    whole = lj.load("shots", split="test", data_dir=tmp_path)
    assert [len(part) for part in lj.data.split(whole)] == [24, 3, 3]


def test_datasets_in_notebooks():
    dataset = lj.Dataset.from_array(
        images(20, channels=3), labels=np.arange(20) % 2, class_names=["<cat>", "dog"]
    )
    shown = dataset._repr_html_()
    assert shown.count("<img") == 12
    assert "&lt;cat&gt;, dog" in shown
    table = lj.Dataset.from_array(np.zeros((3, 2)))._repr_html_()
    assert "<img" not in table
    assert "(2,) float64, continuous" in table
    assert "<img" not in lj.Dataset.from_array(images(3, channels=2))._repr_html_()


# --- transforms and steps


def test_transforms_are_functions_methods_and_steps():
    photographs = lj.load("photographs", split="test")[:5]
    function = lj.data.reduce_levels(lj.data.resize(lj.data.gray(photographs), 8, 6), 32)
    method = photographs.gray().resize(8, 6).reduce_levels(32)
    step = lj.data.apply_steps(photographs, "gray+resize:8x6+levels:32")
    assert function.fingerprint() == method.fingerprint() == step.fingerprint()
    assert function.provenance == method.provenance == step.provenance


@pytest.mark.parametrize(
    ("step", "same"),
    [
        ("pad:9x10:3", lambda data: data.pad(9, 10, value=3)),
        ("resize:8x8:nearest", lambda data: data.resize(8, 8, filter="nearest")),
        ("mutate:0.25:4", lambda data: data.mutate(0.25, 4)),
        ("binarise:3", lambda data: data.binarize(3)),
        ("colour+grey", lambda data: data.color().gray()),
    ],
)
def test_arguments_of_steps(step, same):
    """In the order of the transform's parameters; the British names of version 0.5 are kept."""
    data = lj.Dataset.from_array(images())
    assert lj.data.apply_steps(data, step).fingerprint() == same(data).fingerprint()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("resize:a", r"step 'resize:a' \(expected resize:HEIGHTxWIDTH\[:FILTER\]\): got 'a' for"),
        ("resize", r"expected resize:HEIGHTxWIDTH\[:FILTER\]\): got no argument"),
        ("levels:x", r"expected levels:LEVELS\): got 'x' for LEVELS"),
        ("invert:3", r"expected invert\): got 1 argument"),
        ("pad:9x9:1:2", r"expected pad:HEIGHTxWIDTH\[:VALUE\]\): got 3 arguments"),
        ("resize:8x8:cubic", "unknown filter 'cubic'"),
        ("flip", "there are invert, gray, .*mutate:RATE:SEED, continuous"),
    ],
)
def test_usage_of_steps(step, message):
    with pytest.raises(ValueError, match=message):
        lj.data.apply_steps(lj.Dataset.from_array(images()), step)


def test_channels_first_datasets_are_advised():
    turned = lj.Dataset.from_array(images(4, 3, 8, 8))
    with pytest.raises(ValueError, match=r"np\.moveaxis\(dataset\.examples, -3, -1\)"):
        lj.data.as_dataset(turned, levels=256, event_shape=(8, 8, 3))
    assert lj.data.as_dataset(turned, levels=256, event_shape=(3, 8, 8)) is turned


# --- pictures


def test_a_dozen_lines_differ():
    """In color or dashes: reports have more sets than matplotlib has colors."""
    rates = [0.0, 0.5, 1.0]
    names = [str(number) for number in range(12)]
    figures = [
        lj.plot.roc({"a": dict.fromkeys(names, (rates, rates))}),
        lj.plot.curves(dict.fromkeys(names, (rates, rates)), x_label="x", y_label="y"),
    ]
    for figure in figures:
        lines = [line for line in figure.axes[0].lines if line.get_label() in names]
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (
            lambda plot: plot.sheet(images(channels=1), levels=16),
            ValueError,
            r"0\.\.15 for a sheet",
        ),
        (lambda plot: plot.sheet(images(channels=1), columns=0), ValueError, "at least one column"),
        (lambda plot: plot.curves({}, x_label="x", y_label="y"), ValueError, "expected lines"),
        (
            lambda plot: plot.curves({"a": ([1.0, 2.0], [3.0])}, x_label="x", y_label="y"),
            ValueError,
            "as many x as y for 'a', got 2 and 1",
        ),
        (lambda plot: plot.histograms({}), ValueError, "expected panels"),
        (
            lambda plot: plot.histograms({"a": {"b": np.full(3, np.nan)}}),
            ValueError,
            "finite values",
        ),
        (
            lambda plot: plot.plane({"a": {"b": np.zeros((3, 2))}, "c": {}}, side=1.0),
            ValueError,
            "expected the pictures",
        ),
    ],
)
def test_pictures_refuse(draw, error, message):
    with pytest.raises(error, match=message):
        draw(lj.plot)


def test_sheets_keep_the_edges_of_light_images():
    """Between white images there are gray lines, in color too."""
    white = np.full((3, 4, 4, 3), 255, np.uint8)
    canvas = lj.plot.sheet(white).axes[0].images[0].get_array()
    assert canvas.shape == (6, 16, 3)
    np.testing.assert_array_equal(canvas[1:5, 1:5], 1)
    np.testing.assert_allclose(canvas[0], 0.8)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lj.plot.sheet(images(channels=1) / 255), "expected integers"),
        (lambda: lj.plot.maps(np.zeros((3, 4)), label="bits"), "expected maps of shape"),
        (lambda: lj.data.concatenate([images()]), r"expected a lj\.Dataset, got ndarray"),
        (lambda: lj.data.split(images()), r"expected a lj\.Dataset, got ndarray"),
    ],
)
def test_what_is_no_dataset_or_picture(call, message):
    """The messages of a user's process, where no type checker runs."""
    with pytest.raises((TypeError, ValueError), match=message):
        call()

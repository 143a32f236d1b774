"""What users hold in memory: types, masks, frames, labels; and what becomes of them."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import likejax as lj
from likejax.data import as_dataset
from likejax.data.augment import augmentation
from likejax.data.steps import apply_steps

RNG = np.random.default_rng(0)


class Missing:
    """Stands for the missing value of pandas, whose class has this name."""


Missing.__name__ = "NAType"


class Frame:
    """As much of a data frame as is read: names of columns, and a column by its name."""

    def __init__(self, **columns):
        self.columns = list(columns)
        self._columns = columns

    def __getitem__(self, name):
        return self._columns[name]


# --- types


@pytest.mark.parametrize(
    ("values", "dtype", "levels"),
    [
        (np.zeros((3, 2), "f2"), "float32", None),
        (np.zeros((3, 2), "f4"), "float32", None),
        (np.zeros((3, 2), ">f4"), "float32", None),
        (np.zeros((3, 2), "f8"), "float64", None),
        (np.zeros((3, 2), ">f8"), "float64", None),
        (np.zeros((3, 2), np.longdouble), "float64", None),
        (np.full((3, 2), 2**24), "float32", None),
        (np.full((3, 2), 2**24 + 1), "float64", None),
        (np.full((3, 2), -(2**24) - 1), "float64", None),
        (jnp.zeros((3, 2)), "float32", None),
        ([[0.5, 1], [2, 3]], "float64", None),
        ([[1, 2], [3, 4]], "float32", None),
        (np.zeros((3, 2), np.uint8), "uint8", 256),
        (np.zeros((3, 2), bool), "uint8", 2),
        (np.full((3, 2, 2), 9), "uint8", 256),
        (np.ma.masked_array(np.ones((3, 2)), False), "float64", None),
        (np.array([[1, 2.5], [3, 4]], object), "float64", None),
    ],
)
def test_types(values, dtype, levels):
    """Values keep their precision, whatever the byte order; integers without levels are what they
    must be."""
    dataset = lj.Dataset.from_array(values)
    assert (dataset.examples.dtype, dataset.levels) == (np.dtype(dtype), levels)
    assert dataset.examples.dtype.isnative
    np.testing.assert_array_equal(
        dataset.examples.reshape(np.shape(values)), np.asarray(values, float)
    )


def test_integer_tables_say_what_they_are_taken_for():
    assert (
        "int64 taken as continuous values"
        in lj.Dataset.from_array(np.ones((3, 2), np.int64)).provenance
    )
    assert (
        "int64 within 0..255 taken as 256 levels"
        in lj.Dataset.from_array(np.ones((3, 2, 2), int)).provenance
    )


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (
            np.ma.masked_array(np.ones((3, 2)), [[0, 0], [0, 1], [0, 0]]),
            ValueError,
            "without masked entries, got 1",
        ),
        (
            np.array([[1.0, 2.0], [3.0, np.inf]]),
            ValueError,
            "1 NaN or infinite entries, the first at row 1, column 1",
        ),
        (
            np.full((3, 2), 2**53 + 1),
            ValueError,
            r"up to 2\*\*53.*at row 0, column 0; subtract an offset",
        ),
        (np.full((3, 2, 2), 300), ValueError, "pass levels=N"),
        (np.full((3, 2, 2), -1), ValueError, "pass levels=N"),
        (np.zeros((3, 2), complex), TypeError, "real and imaginary parts"),
        (np.zeros((3, 2), "datetime64[s]"), TypeError, "turn times into numbers"),
        ([["a", "b"]], TypeError, "numeric"),
        ([[1.0], [2.0, 3.0]], ValueError, "expected examples that form one array, got list"),
        (np.array([[1.0, None]], object), ValueError, "lack one at row 0, column 1"),
        (np.array([[1.0, "x"]], object), TypeError, "the text 'x' at row 0, column 1"),
        (np.zeros(3), ValueError, r"a table with one column has shape \(n, 1\)"),
        (np.zeros((3, 0)), ValueError, "with entries"),
        (scipy.sparse.csr_matrix(np.eye(3)), TypeError, r"x\.toarray\(\)"),
        (5.0, ValueError, r"shape \(\)"),
    ],
)
def test_refused(values, error, message):
    with pytest.raises(error, match=message):
        lj.Dataset.from_array(values)


@pytest.mark.parametrize(
    ("values", "levels", "advice"),
    [
        (RNG.random((3, 4, 4)), 256, r"np\.rint\(x \* 255\)\.astype\('uint8'\)"),
        (RNG.random((3, 4, 4)) * 2 - 1, 32, r"np\.rint\(\(x \+ 1\) / 2 \* 31\)"),
        (np.full((3, 4, 4), 17.0), 256, r"unscaled: x\.astype\('uint8'\)"),
    ],
)
def test_floats_where_integers_are_due(values, levels, advice):
    with pytest.raises(TypeError, match=advice):
        lj.Dataset.from_array(values, levels=levels)


# --- frames


def test_frames():
    """Columns of different types, nullable ones too, side by side, with their names."""
    nullable = np.array([1, 2, 3], object)
    frame = Frame(a=nullable, b=np.array([0.5, 1.5, 2.5], "f4"), c=np.array([True, False, True]))
    dataset = lj.Dataset.from_array(frame)
    np.testing.assert_array_equal(dataset.examples, [[1, 0.5, 1], [2, 1.5, 0], [3, 2.5, 1]])
    assert dataset.columns == ("a", "b", "c")
    assert dataset.take(slice(0, 1)).columns == ("a", "b", "c")


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (
            Frame(a=np.array([1, Missing()], object)),
            ValueError,
            "column 'a' lack one at row 1; fill or drop",
        ),
        (Frame(a=np.array([1.0, np.nan])), ValueError, r"row 1, column 0 \('a'\)"),
        (Frame(a=np.array(["x", "y"], object)), TypeError, "column 'a' hold the text 'x' at row 0"),
        (
            Frame(a=np.array(["2020"], "datetime64[Y]")),
            TypeError,
            "column 'a' has dtype datetime64",
        ),
        (Frame(), ValueError, "got none"),
    ],
)
def test_frames_refused(frame, error, message):
    with pytest.raises(error, match=message):
        lj.Dataset.from_array(frame)


# --- labels, weights


@pytest.mark.parametrize(
    "labels", [[0, 1, 2], (0, 1, 2), np.array([[0], [1], [2]]), np.array([0.0, 1, 2], "f4")]
)
def test_labels(labels):
    dataset = lj.Dataset.from_array(np.zeros((3, 2)), labels=labels)
    assert dataset.labels.dtype.kind in "iu"
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2])
    assert (dataset.num_classes, dataset.class_names) == (3, None)
    named = lj.Dataset.from_array(np.zeros((3, 2)), labels=labels, class_names=["a", "b", "c", "d"])
    assert (named.num_classes, named.class_names) == (4, ("a", "b", "c", "d"))
    assert lj.Dataset.from_array(np.zeros((3, 2))).num_classes is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 1]}, r"shape \(3,\)"),
        ({"labels": [0, 1, -1]}, r"labels in 0\.\.C-1, got -1\.\.1"),
        ({"labels": [0, 1, 2], "class_names": ["a", "b"]}, r"labels in 0\.\.1, got 0\.\.2"),
        ({"labels": [0.0, 0.5, 1.0]}, r"got 0\.5 at row 1"),
        ({"labels": [0.0, np.nan, 1.0]}, "got nan at row 1"),
        ({"labels": ["a", "b", "a"]}, "return_inverse"),
        ({"labels": np.eye(3)}, r"argmax\(1\)"),
        (
            {"labels": np.ma.masked_array([0, 1, 2], [0, 1, 0])},
            "labels without masked entries, got 1",
        ),
        ({"weights": [1, 2]}, r"shape \(2,\)"),
        ({"weights": [1, 0, 2]}, "got 0.0 at row 1"),
    ],
)
def test_labels_and_weights_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lj.Dataset.from_array(np.zeros((3, 2)), **options)


def test_fingerprint_sees_labels_and_weights():
    """And without them it is what it was, so that records of earlier versions can be compared."""
    x = RNG.normal(size=(6, 2)).astype("f4")
    labels = np.array([0, 1, 0, 1, 0, 1])
    plain = lj.Dataset.from_array(x)
    forms = [
        plain,
        lj.Dataset.from_array(x, labels=labels),
        lj.Dataset.from_array(x, labels=1 - labels),
        lj.Dataset.from_array(x, weights=labels + 1),
        lj.Dataset.from_array(x, labels=labels, weights=labels + 1),
    ]
    assert len({data.fingerprint() for data in forms}) == 5
    assert {data.examples_fingerprint() for data in forms} == {plain.fingerprint()}
    narrow = dataclasses.replace(forms[1], labels=labels.astype(np.uint8))
    assert narrow.fingerprint() == forms[1].fingerprint()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda data: lj.Dataset.from_array(data.examples, split="val"),
            "expected a split.*got 'val'",
        ),
        (lambda data: lj.Dataset.from_array(data.examples, split="tests"), "did you mean 'test'"),
        (lambda data: data.resize(8, 8, filter="bilinaer"), "did you mean 'bilinear'"),
        (lambda data: data.pad(8, 8, value=256), r"a value in 0\.\.255 to pad with, got 256"),
        (lambda data: apply_steps(data, ["invrt"]), "did you mean 'invert'"),
        (lambda data: augmentation("flp", levels=256), "did you mean 'flip'"),
    ],
)
def test_words_almost_right(make, message):
    with pytest.raises(ValueError, match=message):
        make(lj.Dataset.from_array(np.zeros((3, 4, 4), np.uint8)))


# --- as_dataset


def test_as_dataset():
    data = lj.Dataset.from_array(np.zeros((3, 4, 4), np.uint8))
    assert as_dataset(data, levels=256, name="train") is data
    made = as_dataset(np.zeros((3, 4, 4), np.int64), levels=17, name="train")
    assert (made.levels, made.event_shape, made.name) == (17, (4, 4, 1), "train")
    assert as_dataset([[0.5, 1.0]], levels=None, name="x").event_shape == (2,)
    assert as_dataset(jnp.zeros((3, 2)), levels=None, name="x").levels is None
    assert as_dataset(Frame(a=np.zeros(3)), levels=None, name="x").columns == ("a",)
    transposed = np.zeros((2, 3, 32, 32), np.uint8)
    assert as_dataset(transposed, levels=256, event_shape=(3, 32, 32)).event_shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("data", "levels", "error", "message"),
    [
        (RNG.random((2, 32, 32, 3)), 256, TypeError, r"np\.rint\(x \* 255\)\.astype\('uint8'\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), 256, ValueError, r"np\.moveaxis\(x, -3, -1\)"),
        (np.zeros((2, 1, 28, 28), np.uint8), 256, ValueError, r"np\.moveaxis\(x, -3, -1\)"),
        (
            np.zeros((2, 3), np.uint8),
            None,
            TypeError,
            r"floating-point examples.*x\.astype\('float32'\)",
        ),
        (np.zeros((4, 4, 1), np.uint8), 256, ValueError, r"got one example: pass x\[None\]"),
        ("mnist", 256, TypeError, r"lj\.load"),
        ((np.zeros((2, 2)), np.zeros(2)), None, TypeError, r"from_array\(x, labels=y\)"),
        (iter([np.zeros((2, 2))]), None, TypeError, "got list_iterator"),
        (None, None, TypeError, "got NoneType"),
    ],
)
def test_as_dataset_refuses(data, levels, error, message):
    shape = (4, 4, 1) if getattr(data, "shape", None) == (4, 4, 1) else None
    with pytest.raises(error, match=message):
        as_dataset(data, levels=levels, name="x", event_shape=shape)

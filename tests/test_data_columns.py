"""Columns that never vary, lie far from zero, or leave the range of single precision."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax.bijections import ActNorm, Standardize
from likejax.data.constant_columns import warning_of_constant_columns
from likejax.nn.normalization import channel_statistics
from likejax.nn.weight_norm import WeightNormConvolution

RNG = np.random.default_rng(0)
CONSTANTS = [0.0, 0.1, 3.3, 1e4 + 0.1, 1234.567, 1e-20, -1e30]
SMALL = lj.models.VectorGlowConfig(dimensions=3, depth=1, width=4)


def with_constant(value, rows=200, dtype="f4"):
    x = RNG.normal(size=(rows, 3)).astype(dtype)
    x[:, 1] = value
    return x


# --- columns that never vary


@pytest.mark.parametrize(
    "make", [lambda: Standardize(3), lambda: ActNorm(3)], ids=["Standardize", "ActNorm"]
)
@pytest.mark.parametrize("value", CONSTANTS)
def test_a_constant_column_keeps_its_scale(make, value):
    """It adds log N(0; 0, 1) to log p, whatever it is; the other columns are standardized."""
    x = with_constant(value)
    bijection = make().initialize(jnp.asarray(x), jax.random.key(0))
    z, log_det = jax.vmap(bijection.forward)(x)
    np.testing.assert_array_equal(z[:, 1], 0)
    np.testing.assert_allclose(np.std(z[:, [0, 2]], axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(log_det[0], -np.log(x[:, [0, 2]].std(0)).sum(), atol=1e-4)
    np.testing.assert_allclose(jax.vmap(bijection.inverse)(z), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda: Standardize(3), lambda: ActNorm(3)], ids=["Standardize", "ActNorm"]
)
def test_rounding_is_no_variation(make):
    """A column of 0.1 computed in several ways differs in its last bits; nothing is divided by
    those."""
    x = with_constant(0.1)
    x[::2, 1] = np.nextafter(np.float32(0.1), np.float32(1))
    x[::3, 1] = np.nextafter(np.float32(0.1), np.float32(0))
    bijection = make().initialize(jnp.asarray(x), jax.random.key(0))
    z, log_det = jax.vmap(bijection.forward)(x)
    assert np.abs(z[:, 1]).max() < 1e-6
    np.testing.assert_allclose(log_det[0], -np.log(x[:, [0, 2]].std(0)).sum(), atol=1e-4)


@pytest.mark.parametrize(
    ("offset", "std"), [(0.0, 1e-3), (1e4, 1.0), (-300.0, 0.1), (0.0, 1e25), (0, 1e-25)]
)
def test_variation_far_from_zero_is_kept(offset, std):
    x = (offset + std * RNG.normal(size=(500, 2))).astype("f4")
    statistics = channel_statistics(jnp.asarray(x))
    assert statistics.varies.all()
    np.testing.assert_allclose(statistics.mean, x.astype("f8").mean(0), rtol=1e-6, atol=1e-3 * std)
    np.testing.assert_allclose(statistics.std, x.astype("f8").std(0), rtol=1e-3)


def test_statistics_of_one_row_and_of_half_precision():
    one = Standardize(3).initialize(jnp.asarray([[1.0, 2.0, 3.0]]), jax.random.key(0))
    np.testing.assert_array_equal(one.std[...], 1)
    half = jnp.asarray(5 + RNG.normal(size=(1000, 2)), jnp.bfloat16)
    statistics = channel_statistics(half)
    assert statistics.std.dtype == jnp.float32
    assert statistics.varies.all()


def test_weight_normalization_of_a_dead_feature():
    """An output that does not vary is not blown up by the inverse of its rounding."""
    layer = WeightNormConvolution(3, 2, initial_scale=0.5, rngs=nnx.Rngs(0))
    still = jnp.full((20, 4, 4, 3), 0.7)
    made, y = layer.initialize(still)
    np.testing.assert_allclose(y, 0, atol=1e-6)
    np.testing.assert_allclose(made.scale[...], 0.5, rtol=1e-5)
    moving = jnp.asarray(RNG.normal(size=(20, 4, 4, 3)), jnp.float32)
    made, y = layer.initialize(moving)
    np.testing.assert_allclose(np.std(y, axis=(0, 1, 2)), 0.5, rtol=1e-4)
    np.testing.assert_allclose(made(moving), y, atol=1e-5)


def test_density_of_a_table_with_constant_columns():
    """Neither sign of a huge log p comes of columns that say nothing: each adds log N(0; 0, 1)."""
    config = lj.models.FFJORDConfig(dimensions=3, hidden=(4,), zero_last=True, standardize=True)
    values = []
    for value in CONSTANTS[1:4]:
        x = with_constant(value)
        density = lj.build(config, key=0).initialize(x, jax.random.key(0))
        values.append(float(np.mean(density.log_prob(x[:50]))))
    assert np.ptp(values) < 0.6
    assert np.mean(values) == pytest.approx(-3 * 0.5 * np.log(2 * np.pi) - 1.0, abs=0.5)


def test_fitting_warns_of_constant_columns():
    """Whatever the arrays are called, and only where there is a density to grow."""
    x = with_constant(3.0, rows=20)
    experiment = lj.Experiment(model=SMALL, batch_size=4, steps=1)
    with pytest.raises(UserWarning, match="column 1 of 'array' is 3 in all 20 rows: a density"):
        lj.fit(experiment, x, key=0)  # warnings are errors here, and nothing is compiled
    both = lj.Dataset.from_array(x[:, [0, 1, 1]], name="frame")
    both = dataclasses.replace(both, columns=("a", "b", "c"))
    named = r"2 columns of 'frame' hold .* in all 20 rows \(column 1 \('b'\), column 2 \('c'\)\)"
    with pytest.warns(UserWarning, match=named):
        lj.models.FullGaussian.fit(both)
    declared = {"a": lj.data.Continuous(), "b": lj.data.Continuous(), "c": lj.data.Integer()}
    table = lj.Dataset.from_table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 1]}, columns=declared)
    assert "column 1 ('b') of 'table' is 3" in warning_of_constant_columns(table)
    images = lj.Dataset.from_array(np.zeros((3, 4, 4, 1), np.float32))
    integers = lj.Dataset.from_array(np.zeros((3, 4), np.uint8))
    of_conditions = lj.Dataset.from_array(x[:, ::2], conditions=np.ones((20, 2)))
    for data in (both[:1], images, integers, of_conditions):
        assert warning_of_constant_columns(data) is None


# --- what single precision cannot hold


def far(offset, rows=100, std=1.0):
    x = RNG.normal(size=(rows, 2))
    x[:, 1] = offset + std * x[:, 1]
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            far(1.7e9),
            r"column 1 has the mean 1\.?7?\d* and the standard deviation .*subtract\(offset\)",
        ),
        (far(1.7e9).astype(">f8"), "column 1 has the mean"),
        (far(1.7e9).astype(np.longdouble), "column 1 has the mean"),
        (np.rint(far(1.7e9, std=20.0)).astype(np.int64), "column 1 has the mean"),
        (far(1e39), r"got 1e\+39 at row 0, column 1"),
        (far(0.0, std=1e-44), "column 1.*another unit"),
    ],
)
def test_refused_before_training_and_evaluation(x, message):
    data = lj.Dataset.from_array(x, name="times")
    with pytest.raises(ValueError, match=f"dataset 'times', train: .*{message}"):
        data.check_precision()
    density = lj.build(lj.models.VectorGlowConfig(dimensions=2, depth=1, width=4), key=0)
    with pytest.raises(ValueError, match=message):
        lj.evaluate(density, data)
    with pytest.raises(ValueError, match=message):
        lj.fit(lj.Experiment(model=density, batch_size=4, steps=1), data, key=0)


@pytest.mark.parametrize(
    "x",
    [
        far(1e4),
        far(1.7e9, std=1e8),  # times over years: seconds do not matter
        far(0.1, std=0.0),
        RNG.integers(0, 2**24, (50, 2)),
        np.array([[1e-3], [1e9], [5.0]]),
    ],
)
def test_held(x):
    lj.Dataset.from_array(x).check_precision()


def test_precision_depends_on_the_type():
    data = lj.Dataset.from_array(far(1.7e9))
    data.check_precision(np.float64)
    data.check_precision("float64")
    with pytest.raises(ValueError, match="float32"):
        data.check_precision(np.float32)
    with pytest.raises(ValueError, match="bfloat16"):
        lj.Dataset.from_array(far(1e4)).check_precision(jnp.bfloat16)
    lj.Dataset.from_array(np.zeros((3, 4, 4), np.uint8)).check_precision(np.float32)


def test_columns_are_named():
    class Frame:
        columns = ("height", "time")

        def __getitem__(self, name):
            return far(1.7e9)[:, self.columns.index(name)]

    with pytest.raises(ValueError, match=r"column 1 \('time'\)"):
        lj.Dataset.from_array(Frame()).check_precision()
    images = np.zeros((20, 2, 2, 1))
    images[:, 1, 0, 0] = far(1.7e9, rows=20)[:, 1]
    with pytest.raises(ValueError, match=r"entry \(1, 0, 0\) has the mean"):
        lj.Dataset.from_array(images).check_precision()


def test_subtracting_an_offset_changes_no_likelihood():
    """And it is in the provenance; afterwards single precision holds the data."""
    x = far(1.7e9)
    train, test = lj.Dataset.from_array(x[:80]), lj.Dataset.from_array(x[80:], split="test")
    offset = train.column_means()
    moved = train.subtract(offset), test.subtract(offset)
    for part in moved:
        part.check_precision()
        assert "subtracted" in part.provenance[-1]
    assert moved[0].provenance[-1] == moved[1].provenance[-1]
    np.testing.assert_array_equal(moved[1].examples, x[80:] - x[:80].mean(0))
    near = lj.Dataset.from_array((RNG.normal(size=(60, 2))).astype("f4"))
    gaussian = lj.models.FullGaussian.fit(near)
    shifted = lj.models.FullGaussian.fit(near.subtract([2.0, -1.0]))
    log_p = gaussian.log_prob(near.examples)
    np.testing.assert_allclose(
        shifted.log_prob(near.subtract([2.0, -1.0]).examples), log_p, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda data: data.subtract([1.0, 2.0]), r"offset of shape \(\) or \(3,\)"),
        (lambda data: data.subtract(np.nan), "finite offset"),
        (
            lambda data: lj.Dataset.from_array(np.zeros((2, 3), np.uint8)).subtract(1),
            "continuous data for subtract",
        ),
        (
            lambda data: lj.Dataset.from_array(np.zeros((2, 3), np.uint8)).column_means(),
            "continuous data",
        ),
    ],
)
def test_subtract_refuses(step, message):
    with pytest.raises(ValueError, match=message):
        step(lj.Dataset.from_array(np.zeros((4, 3))))

"""What a user sees at the boundary of a density, without a type checker: a right number or an error
that helps."""

from __future__ import annotations

import functools
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax.density import combine_draws
from likejax.evaluation import log_prob_in_chunks
from tests.registry import DENSITIES, Laplace, examples_of
from tests.test_densities import density_and_labels, test_bad_input  # noqa: F401  # the contract, once more untyped

pytestmark = pytest.mark.untyped

KEY = jax.random.key(3)


@functools.cache
def made(name: str) -> lj.Density:
    return DENSITIES[name].make()


def vector() -> lj.Density:
    return made("vector glow")


def with_nan(density: lj.Density) -> lj.Density:
    """The density with every parameter NaN."""
    leaves, treedef = jax.tree.flatten(density)
    variables = jax.tree.leaves(density, is_leaf=lambda node: isinstance(node, nnx.Variable))
    pairs = zip(leaves, variables, strict=True)
    bad = [
        jnp.asarray(np.full_like(leaf, np.nan)) if isinstance(variable, nnx.Param) else leaf
        for leaf, variable in pairs
    ]
    return jax.tree.unflatten(treedef, bad)


@pytest.mark.parametrize(
    "density", ["glow conditional", "pixelcnn conditional"], ids=["glow", "pixelcnn"], indirect=True
)
class TestLabels:
    @pytest.fixture
    def density(self, request) -> lj.Density:
        return made(request.param)

    @pytest.mark.parametrize("label", [3, 99, -1])
    def test_out_of_range(self, density, label):
        x = examples_of(density, 2)
        condition = np.array([label, 0])
        with pytest.raises(
            ValueError, match=r"expected class labels 0\.\.2 for a model of 3 classes"
        ):
            density.log_prob(x, key=KEY, condition=condition)
        with pytest.raises(ValueError, match=r"expected class labels 0\.\.2"):
            density.sample(KEY, condition=condition)
        with pytest.raises(ValueError, match=r"expected class labels 0\.\.2"):
            density.terms(x, key=KEY, condition=condition)

    def test_that_begin_at_one(self, density):
        with pytest.raises(ValueError, match="subtract 1 from labels that begin at 1"):
            density.log_prob(examples_of(density, 3), key=KEY, condition=np.array([1, 2, 3]))

    @pytest.mark.parametrize(
        "condition", [np.array([0.0, 1.0]), np.array([True, False]), ["a", "b"]]
    )
    def test_of_another_type(self, density, condition):
        with pytest.raises(TypeError, match="expected"):
            density.log_prob(examples_of(density, 2), key=KEY, condition=condition)

    def test_that_are_traced_give_nan(self, density):
        """A compiled function cannot look at a label, so one that no class has gives NaN and not
        another class."""
        x = examples_of(density, 4)
        values = jax.jit(lambda y: density.log_prob(x, key=KEY, condition=y))(
            jnp.array([0, 3, -1, 2])
        )
        np.testing.assert_array_equal(np.isnan(values), [False, True, True, False])
        known = density.log_prob(x, key=KEY, condition=np.array([0, 0, 0, 2]))
        np.testing.assert_allclose(values[3], known[3], rtol=5e-6)

    def test_of_a_dataset(self, density):
        data = lj.Dataset.from_array(
            examples_of(density, 4), levels=17, labels=np.array([0, 1, 2, 3]), name="four"
        )
        with pytest.raises(
            ValueError, match=r"dataset 'four', train: expected class labels 0\.\.2"
        ):
            lj.evaluate(density, data, key=KEY)


@pytest.mark.parametrize("name", ["glow", "pixelcnn", "vae", "ffjord image"])
def test_samples_of_integers_from_nan_are_an_error(name):
    """Rounding turns NaN into a black image, so the model says that it was NaN."""
    with pytest.raises(
        ValueError, match="expected finite numbers behind the samples, got none for any of 2"
    ):
        with_nan(DENSITIES[name].make()).sample(KEY, 2)


@pytest.mark.parametrize("sampler", ["fixed_point", "naive"])
def test_every_sampler_of_a_pixelcnn_tells(sampler):
    density = with_nan(DENSITIES["pixelcnn"].make()).with_sampler(sampler)
    with pytest.raises(ValueError, match="expected finite numbers"):
        density.sample(KEY, 2)
    with pytest.raises(ValueError, match="expected finite numbers"):
        density.inpaint(examples_of(density, 2), 3, key=KEY)


def wait_for(function, *arguments):
    """Calls a compiled function, and waits for what it tells the host."""
    jax.block_until_ready(function(*arguments))
    jax.effects_barrier()


class HalfLost(lj.Density):
    """Samples of which some are infinite, as an overflow makes them."""

    event_shape = (2,)
    kind = lj.Kind.EXACT

    def _log_prob(self, x, key, condition):
        return jnp.zeros(())

    def _sample(self, key, condition, temperature):
        value = jax.random.uniform(key, (2,))
        return jnp.where(temperature * value[0] < 0.5, value, jnp.inf)


def test_lost_samples_are_counted_and_drawn_again():
    density = lj.models.Dequantized(HalfLost(), 4)
    continuous = np.isfinite(HalfLost().sample(KEY, 8)).all(1)
    lost = np.flatnonzero(~continuous)
    assert 0 < len(lost) < 8
    with pytest.warns(
        RuntimeWarning,
        match=rf"{len(lost)} of 8 samples were rounded from numbers that are not finite",
    ) as warned:
        density.sample(KEY, 8)
    again = str(warned[0].message).split("overflowed. ")[1].split(", or one")[0]
    found = eval(again.replace("0.9", "0.5"), {"density": density, "lj": lj, "key": KEY})
    assert found.shape == (len(lost), 2)
    with pytest.raises(ValueError, match=f"got none for any of {len(lost)}"):
        density.sample(lj.example_keys(KEY, lost), len(lost))
    sample = jax.jit(lambda key: density.sample(key, 8))
    with pytest.warns(RuntimeWarning, match="not finite"):
        wait_for(sample, KEY)


def test_a_failed_solve_is_no_black_image():
    config = lj.models.ImageFFJORDConfig(
        event_shape=(4, 4, 1),
        levels=17,
        hidden=(4,),
        flows=1,
        solver=lj.bijections.Solver(max_steps=1),
    )
    density = lj.build(config, key=0)
    with pytest.raises(ValueError, match="expected finite numbers behind the samples"):
        density.sample(KEY, 2)
    z = jax.tree.map(
        lambda shape: np.zeros((2, *shape.shape), np.float32), density.flow.latent_shapes()
    )
    with pytest.raises(ValueError, match="expected finite numbers behind the decoded images"):
        density.decode(z)
    assert np.isnan(density.flow.decode(z)).all()


def test_finite_samples_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DENSITIES["glow"].make().sample(KEY, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((KEY, -1), ValueError, r"sample_shape\[0\] to be an integer of at least 0, got -1"),
        ((KEY, 2.5), TypeError, r"sample_shape\[0\] to be an integer"),
        ((KEY, "2"), TypeError, "sample_shape"),
        ((2, KEY), TypeError, r"after the key, got a second key: density.sample\(key, 16\)"),
        ((KEY, 2, None, -1.0), ValueError, "temperature to be a number of at least 0"),
        ((KEY, 2, None, np.nan), ValueError, "temperature to be a number of at least 0"),
        ((KEY, 2, None, "hot"), TypeError, "temperature to be a number"),
        ((lj.example_keys(KEY, [1, 2, 3]), 2), ValueError, "keys of the batch shape"),
        ((KEY, 2, np.array([0])), ValueError, "is unconditional"),
    ],
)
def test_arguments_of_sample(arguments, error, message):
    with pytest.raises(error, match=message):
        vector().sample(*arguments)


def test_an_experiment_is_no_density():
    with pytest.raises(
        TypeError, match=r"got Experiment: lj\.fit\(experiment, train, key=\.\.\.\)"
    ):
        lj.evaluate(lj.preset("glow/digits"), np.zeros((3, 8, 8, 1), np.uint8))


def test_small_habits():
    assert vector().sample(KEY, np.int64(3)).shape == (3, 3)
    assert vector().sample(KEY, [2, 3]).shape == (2, 3, 3)
    assert vector().sample(jnp.int32(3), 0).shape == (0, 3)
    np.testing.assert_array_equal(vector().sample(jnp.int32(3), 2), vector().sample(3, 2))
    assert (
        lj.bits_per_dim(-784 * np.log(2.0), 784)
        == lj.bits_per_dim(-784 * np.log(2.0), [28, 28, 1])
        == 1
    )
    np.testing.assert_allclose(lj.bits_per_dim([-np.log(2.0)], (1,)), [1.0])
    density = vector()
    x = examples_of(density, 3)
    np.testing.assert_array_equal(density.log_prob(x.tolist()), density.log_prob(x))
    np.testing.assert_array_equal(density.log_prob(x.astype(">f4")), density.log_prob(x))
    np.testing.assert_array_equal(density.log_prob(x.astype(np.longdouble)), density.log_prob(x))
    half = x.astype(np.float16)
    np.testing.assert_array_equal(density.log_prob(half), density.log_prob(half.astype(np.float32)))
    ink = np.array([[[[True], [False]], [[False], [True]]]])
    uniform = lj.models.Dequantized(lj.models.Uniform((2, 2, 1)), 2)
    np.testing.assert_array_equal(
        uniform.log_prob(ink, key=0), uniform.log_prob(ink.astype(np.uint8), key=0)
    )


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.array([[0.0, 1e39, 0.0]]),
            ValueError,
            r"within the range of float32, got 1e\+39 at \(0, 1\)",
        ),
        (
            np.ma.masked_array(np.zeros((2, 3)), np.eye(2, 3)),
            ValueError,
            "without masked entries, got 2",
        ),
        ([[0.0, 1.0], [2.0]], ValueError, "array of one shape"),
        ([["a", "b", "c"]], TypeError, "array of numbers"),
        (np.zeros((2, 3), complex), TypeError, "array of numbers"),
        (None, TypeError, "array of numbers"),
        (np.zeros((2, 3), int), TypeError, "expected floating-point x"),
        (np.zeros((2, 4)), ValueError, "expected x of shape"),
    ],
)
def test_what_is_no_example(x, error, message):
    with pytest.raises(error, match=message):
        vector().log_prob(x)


@pytest.mark.parametrize(
    ("shape", "levels", "advice"),
    [
        ((8, 8, 1), 256, r"\+levels:32 and \+binarize"),
        ((8, 8, 3), 17, r"\+gray in the name of a dataset"),
        ((9, 8, 1), 17, r"\+resize:8x8 in the name of a dataset"),
        ((32, 32, 3), 17, r"\+gray\+resize:8x8 in the name of a dataset"),
        ((64,), 17, "the examples need the density's shape"),
    ],
)
def test_a_dataset_of_another_form_gets_advice(shape, levels, advice):
    density = lj.models.Dequantized(lj.models.Uniform((8, 8, 1)), 17)
    dataset = lj.Dataset.from_array(np.zeros((3, *shape), np.uint8), levels=levels)
    with pytest.raises(ValueError, match=advice):
        lj.evaluate(density, dataset)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((5, 4, 6), r"; add the axis of channels, x\[..., None\]"),
        ((5, 1, 4, 6), r"; channels come last, np.moveaxis\(x, -3, -1\)"),
        ((5, 6, 4, 1), r"got \(5, 6, 4, 1\)$"),
    ],
)
def test_images_of_another_layout_get_advice(shape, advice):
    images = np.zeros(shape, np.float32)
    density = lj.models.Uniform((4, 6, 1))
    score = lj.ood.NegativeLogProb().fit(density, np.zeros((5, 4, 6, 1), np.float32))
    for ask in (density.log_prob, lambda x: log_prob_in_chunks(density, x), score):
        with pytest.raises(ValueError, match=advice):
            ask(images)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: combine_draws(jnp.zeros((2, 3)), "bound"),
            TypeError,
            "expected a kind of Kind.EXACT",
        ),
        (
            lambda: combine_draws(jnp.zeros((0, 3)), lj.Kind.BOUND),
            ValueError,
            "expected draws on the first axis",
        ),
        (lambda: lj.bits_per_dim(-1.0, (28, 0)), ValueError, "at least 1"),
        (lambda: lj.bits_per_dim(-1.0, 2.5), TypeError, "an integer"),
        (lambda: lj.example_keys(0, [0.5]), TypeError, "expected integers as indices"),
        (lambda: lj.example_keys(0, [-1]), ValueError, "from 0 to 2"),
        (lambda: lj.example_keys(lj.example_keys(0, [1, 2]), [1]), ValueError, "expected one key"),
        (
            lambda: vector().log_prob(np.zeros((1, 3), np.float32), key=2**70, draws=0),
            ValueError,
            "draws",
        ),
        (lambda: vector().sample(2**70), ValueError, "at most 64 bits"),
        (
            lambda: log_prob_in_chunks(vector(), np.zeros((4, 3)), batch_size=0),
            ValueError,
            "batch_size",
        ),
        (
            lambda: log_prob_in_chunks(vector(), np.zeros((4, 2))),
            ValueError,
            "expected x of shape",
        ),
        (lambda: lj.build("glow/digits", key=0), TypeError, "expected the config of a model"),
        (lambda: lj.build(lj.models.VectorGlowConfig(), key="seed"), TypeError, "expected a key"),
        (lambda: lj.models.Uniform((2, 0)), ValueError, "at least 1"),
        (
            lambda: lj.models.Dequantized(vector(), 1),
            ValueError,
            "levels to be an integer of at least 2",
        ),
        (
            lambda: lj.models.Dequantized(lj.models.VectorGlowConfig(), 4),
            TypeError,
            "build one with lj.build",
        ),
        (lambda: lj.export(lj.models.VectorGlowConfig()), TypeError, "build one with lj.build"),
        (
            lambda: vector().decode(np.zeros((2, 5), np.float32)),
            ValueError,
            "expected a latent of shape",
        ),
        (lambda: vector().decode(np.float32(0)), ValueError, "expected a latent of shape"),
        (
            lambda: vector().initialize(np.zeros((0, 3), np.float32), 0),
            ValueError,
            "at least one example",
        ),
        (
            lambda: made("pixelcnn").inpaint(
                np.zeros((1, 4, 4, 1), np.uint8), np.ones((4, 4), bool), key=0
            ),
            TypeError,
            "prefix",
        ),
        (lambda: made("pixelcnn").with_sampler("cache"), ValueError, "did you mean 'cached'"),
        (
            lambda: lj.models.FullGaussian.fit(lj.Dataset.from_array(np.ones((9, 2)))),
            ValueError,
            "constant or linearly",
        ),
        (lambda: lj.compare(1.0, 2.0), TypeError, "expected two evaluations"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


class TestDensitiesOfUsers:
    def test_without_a_shape(self):
        class Shapeless(Laplace):
            event_shape: tuple[int, ...]

            def __getattribute__(self, name):
                if name == "event_shape":
                    raise AttributeError(name)
                return super().__getattribute__(name)

        with pytest.raises(TypeError, match="sets no event_shape"):
            Shapeless().log_prob(np.zeros((1, 2), np.float32))

    def test_without_a_kind(self):
        class Kindless(lj.Density):
            event_shape = (2,)

            def _log_prob(self, x, key, condition):
                return -x.sum()

            def _sample(self, key, condition, temperature):
                return jnp.zeros(2)

        for use in (lambda d: d.log_prob(np.zeros((1, 2), np.float32)), lambda d: d.sample(0)):
            with pytest.raises(TypeError, match="Kindless sets no kind"):
                use(Kindless())
        Kindless.kind = "exact"
        with pytest.raises(TypeError, match=r"expected Kindless\.kind to be a lj.Kind"):
            Kindless().sample(0)

    def test_that_return_more_than_one_number(self):
        class Elementwise(Laplace):
            def _log_prob(self, x, key, condition):
                return -jnp.abs(x)

        with pytest.raises(TypeError, match="to return one number for an example, got shape"):
            Elementwise().log_prob(np.zeros((1, 2), np.float32))

    def test_that_draw_another_shape(self):
        class Long(Laplace):
            def _sample(self, key, condition, temperature):
                return jnp.zeros(3)

        with pytest.raises(TypeError, match="to return an example of shape"):
            Long().sample(0, 2)


_RBG = """
import jax
jax.config.update("jax_default_prng_impl", "{impl}")
import numpy as np
import likejax as lj
from tests.registry import DENSITIES, examples_of
for name in ("glow", "vae"):
    density = DENSITIES[name].make()
    x = examples_of(density, 3)
    for key in (jax.random.key(5), jax.random.PRNGKey(5)):
        keys = lj.example_keys(key, range(3))
        together = density.log_prob(x, key=keys)
        alone = [density.log_prob(x[i], key=keys[i]) for i in range(3)]
        np.testing.assert_allclose(together, alone, rtol=5e-6)
        assert len(set(np.asarray(jax.random.key_data(keys)).ravel().tolist())) > 3
threefry = jax.random.key(5, impl="threefry2x32")
np.testing.assert_array_equal(density.log_prob(x, key=5), density.log_prob(x, key=threefry))
"""


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_the_hardware_generator_keeps_examples_apart(impl):
    """Draws of rbg under vmap depend on batch-mates, so its keys become threefry keys (design law
    1)."""
    result = subprocess.run(
        [sys.executable, "-c", _RBG.format(impl=impl)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: lj.models.with_solver(vector(), solver=lj.bijections.Solver()),
            TypeError,
            "Flow solves no ODE",
        ),
        (
            lambda: lj.models.function_evaluations(vector(), np.zeros((1, 3))),
            TypeError,
            "expected a continuous flow",
        ),
        (
            lambda: lj.bijections.Chain([lj.bijections.ActNorm]),
            TypeError,
            "expected a bijection.*got ActNorm",
        ),
        (lambda: lj.bijections.Chain([]), ValueError, "at least one map"),
        (lambda: lj.bijections.Inverse(lj.bijections.Split(4)), ValueError, "one array"),
        (lambda: lj.bijections.Affine(0.0, [1.0, 0.0]), ValueError, "scale without zeros"),
        (lambda: lj.bijections.Affine(np.nan), ValueError, "finite location"),
        (
            lambda: lj.bijections.Logit(0.5),
            ValueError,
            "alpha to be a number of at least 0 and below 0.5",
        ),
        (lambda: lj.bijections.TopPrior(2, num_classes=-1), ValueError, "num_classes"),
        (lambda: lj.bijections.FactorOut(1), ValueError, "at least 2 channels"),
        (lambda: lj.models.Flow(lj.bijections.ActNorm(2), (2, 0)), ValueError, "event_shape"),
        (lambda: lj.models.Flow("actnorm", (2,)), TypeError, "expected a bijection"),
        (lambda: lj.preset("glow/digit"), ValueError, "did you mean 'glow/digits'"),
    ],
)
def test_parts_of_flows(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["vae", "glow", "pixelcnn", "pixel histogram"])
def test_integers_outside_the_levels_have_no_mass_where_they_cannot_be_refused(name):
    """A compiled function cannot look at its values, so an impossible image is impossible and no
    other image."""
    density = DENSITIES[name].make()
    x = examples_of(density, 2)
    bad = x.copy()
    bad[1, 0, 0, 0] = density.levels
    values = jax.jit(lambda x: density.log_prob(x, key=KEY))(bad)
    np.testing.assert_array_equal(np.isinf(values), [False, True])
    np.testing.assert_allclose(values[0], density.log_prob(x, key=KEY)[0], rtol=5e-6)


@pytest.mark.parametrize("offset", [1.7e9, 1e8])
def test_offsets_that_float32_cannot_hold_are_refused_before_they_are_cast(offset):
    rows = np.random.default_rng(0).normal(size=(100, 3))
    rows[:, 1] += offset
    with pytest.raises(ValueError, match=r"variation float32 holds: column 1.*Subtract an offset"):
        lj.models.FullGaussian.fit(lj.Dataset.from_array(rows))
    with pytest.raises(ValueError, match=r"variation float32 holds: column 1"):
        vector().initialize(rows, 0)


def test_a_large_constant_column_adds_no_noise():
    """Against the same rows with zeros there: the Gaussian of the other columns is the same."""
    rows = np.random.default_rng(0).normal(size=(500, 3))
    values = []
    for constant in (0.0, 1.7e18):
        rows[:, 1] = constant
        with pytest.warns(UserWarning, match="in all 500 rows: a density grows there"):
            gaussian = lj.models.FullGaussian.fit(rows)
        values.append(np.asarray(gaussian.log_prob(rows[:20].astype(np.float32))))
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: lj.models.Flow(lj.bijections.ActNorm(1), (3,)).log_prob(
                np.zeros((1, 3), np.float32)
            ),
            ValueError,
            "1 channels",
        ),
        (
            lambda: lj.models.Flow(lj.bijections.Standardize(1), (3,)).sample(0),
            ValueError,
            "input of 1 channels",
        ),
        (
            lambda: lj.bijections.Permutation(np.array([0, 0, 1])),
            ValueError,
            r"each of 0\.\.2 once",
        ),
        (lambda: lj.bijections.ActNorm(0), ValueError, "channels to be an integer of at least 1"),
        (lambda: lj.bijections.ODE(None), TypeError, "expected dynamics"),
        (lambda: lj.bijections.ODE(lambda t, z: z, solver="rk4"), TypeError, "expected solver"),
        (lambda: lj.save(lj.models.VectorGlowConfig(), "x"), TypeError, "expected a density"),
        (lambda: lj.save(vector(), 3), TypeError, "expected the path of a directory"),
        (lambda: lj.restore(3), TypeError, "expected the path of a directory"),
        (lambda: lj.data.hold_out(np.zeros((4, 2))), TypeError, "expected a lj.Dataset"),
        (
            lambda: lj.data.check_disjoint(np.zeros((4, 2)), np.zeros((4, 2))),
            TypeError,
            "expected a lj.Dataset",
        ),
        (lambda: lj.load(3), TypeError, "expected the name of a dataset"),
        (lambda: lj.preset(None), TypeError, "expected the name of a preset"),
        (lambda: lj.load("digits").take([9999]), ValueError, "expected rows of 0"),
        (lambda: lj.load("digits").reduce_levels(2.5), TypeError, "levels to be an integer"),
        (lambda: lj.load("digits").mutate(-1, 0), ValueError, "rate to be a number above 0"),
        (
            lambda: lj.Dataset.from_array(np.zeros((2, 2), int), levels=2.5),
            TypeError,
            "levels to be an integer",
        ),
        (
            lambda: lj.Dataset.from_array([np.ma.array([1.0, 2.0], mask=[0, 1])] * 2),
            ValueError,
            "masked entries",
        ),
        (lambda: lj.bits_per_dim("a", 4), TypeError, "array of numbers"),
        (
            lambda: lj.build(lj.models.GlowConfig, key=0),
            TypeError,
            "expected the config of a model",
        ),
        (lambda: DENSITIES["vae"].make().decode(3), ValueError, "latents in a tuple"),
        (
            lambda: lj.models.FullGaussian(jnp.zeros(3), jnp.eye(2), (3,)),
            ValueError,
            "expected a mean of shape",
        ),
        (lambda: lj.Optimizer(name="adamax", eps_root=1e-8), ValueError, "eps_root=0 for adamax"),
        (lambda: lj.Optimizer(decay="cosine", decay_rate=0.9), ValueError, "does not use it"),
    ],
)
def test_what_gave_a_raw_exception_or_a_wrong_number(call, error, message):
    with pytest.raises(error, match=message):
        call()

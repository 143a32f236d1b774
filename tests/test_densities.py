"""The contract of design law 1 on every density of the registry, and the kinds."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

import likejax as lj
from likejax.batching import own_shapes
from likejax.density import combine_draws
from likejax.evaluation import log_prob_in_chunks
from tests.registry import DENSITIES, DensityCase, NoisyStandardNormal, examples_of, perturbed

KEY = jax.random.key(3)


def _params():
    """The names of all densities.

    Unoptimized code of a sum over classes computes its last lanes in another way than the others,
    and the bits of an example then depend on its place.
    """
    for name in DENSITIES:
        marks = [pytest.mark.optimized] if name == "class mixture" else []
        yield pytest.param(name, marks=marks)


@pytest.fixture(
    scope="module", params=_params(), ids=lambda name: name.replace(" ", "-").replace("'", "")
)
def density_and_labels(request):
    case: DensityCase = DENSITIES[request.param]
    density = perturbed(case.make(), scale=0.05)
    return density, case.conditions


def test_contract(density_and_labels):
    """Shapes, dtype, keys by position or given, draws as prefixes, pieces as the whole, jit of vmap
    as eager."""
    density, labels = density_and_labels
    x, y = examples_of(density, 8), labels(8)
    whole = density.log_prob(x, key=KEY, condition=y)
    assert whole.shape == (8,)
    assert whole.dtype == jnp.float32
    assert np.isfinite(whole).all()

    given = density.log_prob(x, key=lj.example_keys(KEY, range(8)), condition=y)
    np.testing.assert_array_equal(given, whole)
    nested = density.log_prob(
        x.reshape(2, 4, *x.shape[1:]),
        key=KEY,
        condition=None if y is None else y.reshape(2, 4, *y.shape[1:]),
    )
    np.testing.assert_array_equal(nested, whole.reshape(2, 4))

    one = density.log_prob(x[4], key=lj.example_keys(KEY, 4), condition=None if y is None else y[4])
    assert one.shape == ()
    np.testing.assert_allclose(one, whole[4], rtol=5e-6)

    pair, batches = lj.example_keys(KEY, range(2)), np.stack([x, examples_of(density, 8, seed=1)])
    compiled = jax.jit(
        lambda d, x, k: jax.vmap(lambda x, k: d.log_prob(x, key=k, condition=y, draws=3))(x, k)
    )(density, batches, pair)
    expected = [
        density.log_prob(batch, key=key, condition=y, draws=3)
        for batch, key in zip(batches, pair, strict=True)
    ]
    np.testing.assert_allclose(compiled, np.stack(expected), rtol=5e-6)

    draws = density.log_prob_draws(x, key=KEY, condition=y, draws=4)
    assert draws.shape == (4, 8)
    np.testing.assert_array_equal(
        draws[:2], density.log_prob_draws(x, key=KEY, condition=y, draws=2)
    )
    np.testing.assert_array_equal(draws[0], whole)
    np.testing.assert_allclose(
        combine_draws(np.asarray(draws), density.kind),
        density.log_prob(x, key=KEY, condition=y, draws=4),
    )
    if density.kind is lj.Kind.EXACT:
        np.testing.assert_array_equal(
            density.log_prob(x, condition=y), density.log_prob(x, key=9, condition=y)
        )


def test_no_influence_of_batch_mates(density_and_labels):
    """At one compiled shape a value depends on neither batch-mates, position nor padding: not by
    one bit."""
    density, labels = density_and_labels
    x, other, y = examples_of(density, 8), examples_of(density, 8, seed=1), labels(8)
    keys = lj.example_keys(KEY, range(8))
    whole = density.log_prob(x, key=keys, condition=y)
    mixed = density.log_prob(np.concatenate([x[:4], other[4:]]), key=keys, condition=y)
    np.testing.assert_array_equal(mixed[:4], whole[:4])
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    permuted = density.log_prob(
        x[order], key=keys[order], condition=None if y is None else y[order]
    )
    np.testing.assert_array_equal(permuted, whole[order])


def test_chunks(density_and_labels):
    """Scoring in chunks does not depend on their size: bitwise at one shape, 5e-6 relative across
    shapes."""
    density, labels = density_and_labels
    x, y = examples_of(density, 11), labels(11)
    by_eight = log_prob_in_chunks(density, x, key=KEY, condition=y, batch_size=8)
    assert by_eight.shape == (11,)
    first = density.log_prob(x[:8], key=KEY, condition=None if y is None else y[:8])
    np.testing.assert_allclose(by_eight[:8], first, rtol=5e-6)
    np.testing.assert_allclose(
        log_prob_in_chunks(density, x, key=KEY, condition=y, batch_size=1), by_eight, rtol=5e-6
    )
    fewer = log_prob_in_chunks(
        density, x[:9], key=KEY, condition=None if y is None else y[:9], batch_size=8
    )
    np.testing.assert_array_equal(fewer, by_eight[:9])


@pytest.mark.parametrize("name", ["noisy normal", "ensemble of estimates", "glow, floats"])
def test_jit_or_vmap_alone(name):
    """The one without the other; the condition known or traced, the density traced or not."""
    case = DENSITIES[name]
    density = case.make()
    x, y, keys = examples_of(density, 8), case.conditions(8), lj.example_keys(KEY, range(8))
    expected = density.log_prob(x, key=KEY, condition=y, draws=3)
    jitted = jax.jit(lambda d, x, k: d.log_prob(x, key=k, condition=y, draws=3))(density, x, KEY)
    np.testing.assert_allclose(jitted, expected, rtol=1e-5)
    vmapped = jax.vmap(lambda x, k, y: density.log_prob(x, key=k, condition=y))(
        jnp.asarray(x), keys, None if y is None else jnp.asarray(y)
    )
    np.testing.assert_allclose(vmapped, density.log_prob(x, key=KEY, condition=y), rtol=5e-6)


def test_odd_batches_share_a_program(caplog):
    """An odd batch size runs at a size that is compiled already, if that is at most twice as
    large."""
    density = lj.models.Dequantized(NoisyStandardNormal(), 11)  # levels of no other test
    x = examples_of(density, 12)
    whole = np.asarray(density.log_prob(x, key=KEY))
    density.sample(KEY, 12)
    density.log_prob(x[:11], key=KEY)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for n in (7, 10, 6):
            values = density.log_prob(x[:n], key=KEY)
            assert values.shape == (n,)
            np.testing.assert_allclose(values, whole[:n], rtol=5e-6)
            assert density.sample(KEY, n).shape == (n, 3)
        assert "Compiling" not in caplog.text
        alone = density.log_prob(x[:5], key=KEY)
        assert "Compiling" in caplog.text
    with own_shapes():
        np.testing.assert_allclose(density.log_prob(x[:7], key=KEY), whole[:7], rtol=5e-6)
    np.testing.assert_allclose(alone, whole[:5], rtol=5e-6)


def test_batches_take_the_program_of_an_evaluation(caplog):
    """Fewer examples are padded to its size, and their draws are combined without a program."""
    density = lj.models.Dequantized(NoisyStandardNormal(), 13)  # levels of no other test
    x = examples_of(density, 12)
    evaluated = lj.evaluate(density, x, key=KEY, draws=3).log_prob
    with jax.log_compiles(), caplog.at_level("WARNING"):
        values = density.log_prob(x[:7], key=KEY, draws=3)
        assert "Compiling" not in caplog.text
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, evaluated[:7], rtol=5e-6)


def test_a_density_is_shown_in_a_few_lines():
    density = DENSITIES["vector glow"].make()
    assert str(density) == repr(density)
    assert repr(density).splitlines()[0] == "Flow, built from VectorGlowConfig"
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(density, nnx.Param)))
    assert lj.count_parameters(density) == count
    assert f"parameters: {count:,}" in repr(density)
    assert f">{count:,}</td>" in density._repr_html_()


def test_names_that_moved():
    with pytest.raises(AttributeError, match=r"it is lj\.models\.GlowConfig now"):
        lj.GlowConfig  # noqa: B018
    with pytest.raises(AttributeError, match=r"likejax\.density\.combine_draws"):
        lj.combine_draws  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        lj.nothing  # noqa: B018


def test_terms_and_gradients(density_and_labels, request):
    """Training terms hold the one-draw log_prob, and every parameter receives a finite gradient,
    not all zero."""
    density, labels = density_and_labels
    x, y = examples_of(density, 4), labels(4)
    graph, params, rest = nnx.split(density, nnx.Param, ...)

    def loss(params):
        terms = nnx.merge(graph, params, rest).terms(x, key=KEY, condition=y)
        # twice: log_prob is the difference of some parts, which must not cancel
        parts = sum((2 * part.sum() for part in terms.parts.values()), terms.log_prob.sum())
        return parts, terms.log_prob

    gradient, training_value = jax.jit(jax.grad(loss, has_aux=True))(params)
    if DENSITIES[request.node.callspec.params["density_and_labels"]].spreads_draws:
        assert np.isfinite(training_value).all()
    else:
        value = density.log_prob(x, key=KEY, condition=y)
        np.testing.assert_allclose(training_value, value, rtol=5e-6)
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_samples(density_and_labels):
    density, labels = density_and_labels
    y = labels(2)
    shape = (3, 2) if y is None else 3
    samples = density.sample(KEY, shape, y, 0.8)
    assert samples.shape == (3, 2, *density.event_shape)
    np.testing.assert_array_equal(samples, density.sample(KEY, shape, y, 0.8))
    assert (np.asarray(samples) != np.asarray(density.sample(1, shape, y, 0.8))).any()
    log_prob = density.log_prob(
        samples, key=KEY, condition=None if y is None else np.broadcast_to(y, (3, *y.shape))
    )
    assert np.isfinite(log_prob).all()
    if density.kind is lj.Kind.EXACT:
        x, value = density.sample_and_log_prob(KEY, 5, None if y is None else y[:1])
        condition = None if y is None else np.broadcast_to(y[:1], (5, *y[:1].shape))
        np.testing.assert_allclose(value, density.log_prob(x, condition=condition), rtol=1e-6)
    else:
        with pytest.raises(TypeError, match="no exact log-probability"):
            density.sample_and_log_prob(KEY, 5)


def test_samples_in_chunks():
    """Many samples at once, in chunks or by their keys are the same; conditions go with them."""
    density = DENSITIES["glow conditional"].make()
    labels = np.arange(6) % density.num_classes
    whole = density.sample(KEY, (), labels)
    for key in (KEY, lj.example_keys(KEY, range(6))):
        chunks = density.sample(key, (), labels, batch_size=4)
        np.testing.assert_array_equal(chunks, density.sample(key, (), labels, batch_size=4))
        assert chunks.dtype == whole.dtype
        # float sums of another shape may round an integer the other way
        assert np.abs(np.asarray(chunks, int) - np.asarray(whole, int)).max() <= 1
    repeated = density.sample(KEY, 2, labels[:3], batch_size=4)
    assert repeated.shape == (2, 3, *density.event_shape)
    assert density.sample(KEY, 0, labels[:1], batch_size=4).shape == (0, 1, *density.event_shape)
    traced = jax.jit(lambda k: density.sample(k, (), labels, batch_size=4))(KEY)
    assert traced.shape == whole.shape
    with pytest.raises(ValueError, match="expected a batch_size with devices"):
        density.sample(KEY, 2, 0, devices=jax.devices())
    with pytest.raises(ValueError, match="expected batch_size to be an integer of at least 1"):
        density.sample(KEY, 2, 0, batch_size=0)


def test_lost_samples_are_counted_over_all_chunks():
    """The warning names the rows of the whole, not those of a chunk."""

    class Overflows(NoisyStandardNormal):
        def _sample(self, key, condition, temperature):
            x = super()._sample(key, condition, temperature)
            return jnp.where(x > 1.5, jnp.nan, x)

    density = lj.models.Dequantized(Overflows(), 4)
    with pytest.warns(RuntimeWarning) as whole:
        density.sample(KEY, 20)
    with pytest.warns(RuntimeWarning) as chunks:
        density.sample(KEY, 20, batch_size=3)
    assert len(chunks) == 1
    assert str(chunks[0].message) == str(whole[0].message)


def test_bad_input(density_and_labels):
    density, labels = density_and_labels
    x, y = examples_of(density, 4), labels(4)
    with pytest.raises(ValueError, match="expected x of shape"):
        density.log_prob(x[:, :-1], key=KEY, condition=y)
    with pytest.raises(
        TypeError, match="floating-point" if density.levels is None else "expected integers"
    ):
        density.log_prob(
            x.astype(np.float32) if density.levels else x.astype(np.int32), key=KEY, condition=y
        )
    with pytest.raises(ValueError, match="expected draws to be an integer of at least 1"):
        density.log_prob(x, key=KEY, condition=y, draws=0)
    if density.levels is not None and density.levels < 256:
        with pytest.raises(ValueError, match=rf"expected integers 0\.\.{density.levels - 1}"):
            density.log_prob(np.full_like(x, density.levels), key=KEY, condition=y)
    if density.kind is not lj.Kind.EXACT:
        with pytest.raises(ValueError, match=r"needs a key: pass key=jax\.random\.key"):
            density.log_prob(x, condition=y)
        with pytest.raises(ValueError, match="keys of the batch shape"):
            density.log_prob(x, key=lj.example_keys(KEY, range(3)), condition=y)
    if y is None:
        with pytest.raises(ValueError, match="unconditional"):
            density.log_prob(x, key=KEY, condition=np.zeros(4, int))
    else:
        with pytest.raises(ValueError, match="pass condition="):
            density.log_prob(x, key=KEY)
        with pytest.raises(ValueError, match="expected a condition of shape"):
            density.log_prob(x, key=KEY, condition=y[:3])
        wrong = np.int64 if y.dtype == np.float32 else np.float32
        with pytest.raises(TypeError, match=r"expected (floats|integers)"):
            density.log_prob(x, key=KEY, condition=y.astype(wrong))
        if y.dtype == np.float32:
            with pytest.raises(ValueError, match="expected finite conditions"):
                density.log_prob(x, key=KEY, condition=np.where(y == y.max(), np.nan, y))


def test_condition_matters(density_and_labels):
    """Another condition gives another log-probability and another sample, for every example."""
    density, labels = density_and_labels
    y = labels(8)
    if y is None:
        return
    x = examples_of(density, 8)
    other = np.roll(y, 1, axis=0)
    first, second = (np.asarray(density.log_prob(x, key=KEY, condition=c)) for c in (y, other))
    assert (np.abs(first - second) > 1e-6 * np.abs(first)).all()


@pytest.mark.parametrize(
    "seed", [7, np.int64(7), jax.random.PRNGKey(7), np.asarray(jax.random.PRNGKey(7))]
)
def test_all_forms_of_keys(seed):
    density = lj.models.Dequantized(NoisyStandardNormal(), 8)
    x = examples_of(density, 3)
    np.testing.assert_array_equal(
        density.log_prob(x, key=seed), density.log_prob(x, key=jax.random.key(7))
    )
    np.testing.assert_array_equal(density.sample(seed, 2), density.sample(jax.random.key(7), 2))


def test_legacy_keys_of_the_batch_shape():
    density = lj.models.Dequantized(NoisyStandardNormal(), 8)
    x, keys = examples_of(density, 3), jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(
        density.log_prob(x, key=jax.random.key_data(keys)), density.log_prob(x, key=keys)
    )


@pytest.mark.parametrize("key", ["seed", 1.5, np.zeros(3, np.float32), True])
def test_what_is_no_key(key):
    with pytest.raises(TypeError, match="expected a key"):
        lj.models.Dequantized(lj.models.Uniform((2,)), 4).log_prob(
            np.zeros((1, 2), np.uint8), key=key
        )


def test_uniform_scores_the_number_of_bits():
    density = lj.models.Dequantized(lj.models.Uniform((28, 28, 1)), 256)
    x = examples_of(density, 5)
    bits = lj.bits_per_dim(
        np.asarray(density.log_prob(x, key=KEY), np.float64), density.event_shape
    )
    np.testing.assert_allclose(bits, 8.0, rtol=1e-7)


def test_masses_sum_to_one():
    """E_u[exp log_prob] over all integers of a tiny alphabet is 1: of a Glow, and exactly of a
    histogram."""
    histogram = DENSITIES["pixel histogram"].make()
    grid = np.indices((4,) * 4).reshape(4, -1).T.astype(np.uint8)
    few = lj.models.PixelHistogram(histogram.log_probs[...][:2, :2])
    np.testing.assert_allclose(np.exp(few.log_prob(grid.reshape(-1, 2, 2, 1))).sum(), 1, rtol=1e-5)

    glow = lj.build(
        lj.models.GlowConfig(event_shape=(2, 2, 1), levels=2, scales=1, depth=2, width=4), key=0
    )
    x = np.indices((2,) * 4).reshape(4, -1).T.astype(np.uint8).reshape(-1, 2, 2, 1)
    glow = perturbed(glow.initialize(np.repeat(x, 8, 0), 1), scale=0.05)
    # mass outside the cube is no integer's, so the 16 masses sum to the flow's probability of the
    # cube
    inside = np.asarray(glow.density.sample(jax.random.key(5), 20_000))
    share = ((inside >= 0) & (inside < 1)).all((1, 2, 3)).mean()
    draws = np.asarray(glow.log_prob(np.broadcast_to(x, (1500, *x.shape)), key=KEY), np.float64)
    weights = np.exp(draws).sum(1)
    error = math.hypot(
        weights.std() / math.sqrt(len(weights)), math.sqrt(share * (1 - share) / len(inside))
    )
    assert 0.05 < share < 0.99
    assert abs(weights.mean() - share) < 4 * error


def test_two_dimensional_density_integrates_to_one():
    density = perturbed(lj.build(lj.models.VectorGlowConfig(depth=3, width=8), key=0), scale=0.1)
    side = np.linspace(-9, 9, 721)
    grid = np.stack(np.meshgrid(side, side), -1).astype(np.float32)
    total = np.exp(np.asarray(density.log_prob(grid), np.float64)).sum() * (side[1] - side[0]) ** 2
    np.testing.assert_allclose(total, 1, rtol=2e-3)


def test_dequantized_gaussian_rises_to_the_oracle():
    """The bound of a dequantized normal rises with draws toward the exact difference of cdfs."""
    levels = 5
    mean, std = 0.45, 0.15
    gaussian = lj.models.FullGaussian(jnp.array([mean]), jnp.array([[std]]), (1,))
    density = lj.models.Dequantized(gaussian, levels)
    assert density.kind is lj.Kind.BOUND
    x = np.arange(levels, dtype=np.uint8)[:, None]
    edges = scipy.stats.norm.cdf(np.arange(levels + 1) / levels, mean, std)
    exact = np.log(np.diff(edges))
    draws = np.asarray(
        density.log_prob(np.broadcast_to(x, (20_000, *x.shape)), key=KEY), np.float64
    )
    weights = np.exp(draws)
    assert (
        np.abs(weights.mean(0) - np.exp(exact)) < 5 * weights.std(0) / math.sqrt(len(draws))
    ).all()
    many = np.broadcast_to(x, (2_000, *x.shape))
    bounds = [
        np.asarray(density.log_prob(many, key=KEY, draws=draws)).mean(0) for draws in (1, 4, 32)
    ]
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < bounds[2]).all()
    assert (bounds[2] < exact + 0.01).all()


def test_estimates_combine_by_the_mean():
    density = NoisyStandardNormal()
    x = examples_of(density, 2)
    exact = scipy.stats.norm.logpdf(x).sum(-1)
    assert lj.models.Dequantized(density, 4).kind is lj.Kind.ESTIMATE
    np.testing.assert_allclose(
        density.log_prob(x, key=KEY, draws=400), exact, atol=5 / math.sqrt(400)
    )


def test_full_gaussian_against_scipy():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + 2
    density = lj.models.FullGaussian.fit(lj.Dataset.from_array(rows), ridge=0.0)
    expected = scipy.stats.multivariate_normal(rows.mean(0), np.cov(rows.T, bias=True)).logpdf(
        rows[:5]
    )
    np.testing.assert_allclose(density.log_prob(rows[:5].astype(np.float32)), expected, rtol=2e-5)


def test_a_flow_of_an_estimating_map_is_an_estimate():
    class Guess(lj.bijections.Bijection):
        estimates = True

        def forward(self, x, key=None, condition=None):
            return x, jax.random.normal(key)

        def inverse(self, z, condition=None):
            return z

    chain = lj.bijections.Chain([lj.bijections.ActNorm(2), Guess()])
    assert lj.models.Flow(chain, (2,)).kind is lj.Kind.ESTIMATE
    assert lj.models.Dequantized(lj.models.Flow(chain, (2,)), 4).kind is lj.Kind.ESTIMATE


def test_dequantized_refuses_nonsense():
    with pytest.raises(TypeError, match="expected a continuous density"):
        lj.models.Dequantized(lj.models.Dequantized(lj.models.Uniform((2,)), 4), 4)
    with pytest.raises(ValueError, match="expected levels to be an integer of at least 2"):
        lj.models.Dequantized(lj.models.Uniform((2,)), 1)
    with pytest.raises(TypeError, match="no latents"):
        lj.models.Dequantized(lj.models.Uniform((2,)), 4).encode(np.zeros((1, 2), np.uint8), key=0)

"""Scores of diffusion models against closed forms of the best denoisers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax import ood
from likejax.models import VDM
from likejax.models.diffusion import process
from likejax.models.diffusion.embedding import RealEmbedding
from likejax.models.diffusion.schedule import FixedSchedule, ImportanceSchedule
from likejax.nn.modules import replace
from likejax.ood.diffusion_scores import posterior_eigenvalues
from likejax.ood.features import features_of
from likejax.ood.kept import KeptFeatures
from tests.registry import _diffusion_flow, _gaussian, _vdm, _vector_vdm, perturbed
from tests.test_diffusion import ENDS, BestOfNormal, of_levels, of_normal

RNG = np.random.default_rng(0)


class BestOfCovariance(nnx.Module):
    """The best denoiser of normal data with a covariance, given by its eigenvectors."""

    def __init__(self, variances, directions):
        self.variances = np.asarray(variances)
        self.directions = np.asarray(directions)

    def __call__(self, z, gamma, condition):
        a, s = (process.over_event(f(gamma), z) for f in (process.alpha, process.sigma))
        along = z @ jnp.asarray(self.directions, z.dtype)
        variances = jnp.asarray(self.variances, z.dtype)
        return (s * along / (a**2 * variances + s**2)) @ jnp.asarray(self.directions.T, z.dtype)


def of_covariance(variances) -> VDM:
    d = len(variances)
    directions = np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0]
    denoiser = BestOfCovariance(variances, directions)
    return VDM((d,), RealEmbedding(d), FixedSchedule(*ENDS), denoiser)


def points_of(density: VDM, n: int) -> np.ndarray:
    """Data that the denoiser of ``of_covariance`` is the best one for."""
    denoiser = density.denoiser.function
    noise = np.random.default_rng(2).normal(size=(n, len(denoiser.variances)))
    return ((noise * np.sqrt(denoiser.variances)) @ denoiser.directions.T).astype(np.float32)


def test_mixtures_of_diffusion_models_say_why_they_have_no_diffusion():
    """The score of a mixture weighs by posteriors of the noisy point, which denoisers lack."""
    vdm = _vector_vdm()
    ensemble = lj.models.Ensemble([vdm, vdm])
    config = lj.models.VectorVDMConfig(width=8, blocks=1, num_classes=3)
    classes = lj.models.ClassMixture(lj.build(config, key=0))
    points = np.zeros((4, *vdm.event_shape), np.float32)
    advice = {ensemble: r"ensemble\.member\(0\)", classes: r"lj\.condition\(density, label\)"}
    for density, one in advice.items():
        assert not density.offers("diffusion")
        with pytest.raises(ValueError, match=f"components by their posteriors.*{one}"):
            ood.multiscale_norms().fit(density, points, key=0)
        with pytest.raises(TypeError, match=f"with diffusion, .* has none: the noise.*{one}"):
            density.diffusion(points, key=0)
    assert ensemble.member(0).offers("diffusion")
    flows = lj.models.Ensemble([_gaussian()])
    assert flows.why_not("diffusion") == ""


def computed(feature: ood.Feature, density: lj.Density, x: np.ndarray, seed: int = 0) -> np.ndarray:
    keys = lj.example_keys(seed, np.arange(len(x)))
    return np.asarray(feature({"density": density}, x, keys), np.float64)


def alpha_and_sigma(gamma):
    return np.sqrt(1 / (1 + np.exp(gamma))), np.sqrt(1 / (1 + np.exp(-gamma)))


# --- what diffusion models offer


def test_a_diffusion_is_that_of_the_model():
    """Points, ends and noise of a batch of any shape; of a condition that is fixed, too."""
    density = perturbed(_vector_vdm(num_classes=3))
    x = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    labels = np.array([[0, 1, 2, 0], [1, 1, 2, 2]])
    found = density.diffusion(x, key=0, condition=labels)
    np.testing.assert_array_equal(found.point, x)
    z, gamma = jnp.asarray(x + 1), jnp.full((2, 4), -0.7)
    expected = density.predict(z, gamma, jnp.asarray(labels)).noise
    np.testing.assert_allclose(found.noise_at(z, gamma), expected, rtol=1e-4, atol=1e-5)
    start, end = density.ends()
    np.testing.assert_allclose(found.ends[0], np.full((2, 4), start))
    np.testing.assert_allclose(found.ends[1], np.full((2, 4), end))
    second = lj.condition(density, 1)
    assert second.offers("diffusion")
    alone = second.diffusion(x, key=0).noise_at(z, -0.7)
    same = density.diffusion(x, key=0, condition=1).noise_at(z, gamma)
    np.testing.assert_allclose(alone, same, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"points z of shape \(2, 4, 3\), got \(2, 3\)"):
        found.noise_at(z[:, 0], gamma)


def test_a_diffusion_through_what_is_around_the_model():
    """Integers are the points that the density inside gets; columns, too."""
    inside = perturbed(_vector_vdm())
    dequantized = lj.models.Dequantized(inside, 4)
    x = np.array([[0, 1, 3]], np.uint8)
    point = np.asarray(dequantized.diffusion(x, key=0).point)
    assert (np.floor(4 * point) == x).all()
    columns = (lj.data.Continuous(), lj.data.Continuous(), lj.data.Positive())
    rows = np.exp(RNG.normal(size=(60, 3))).astype(np.float32)
    table = lj.models.Tabular(inside, columns).initialize(rows, 0)
    points = np.asarray(table.diffusion(rows, key=0).point)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(points.std(0), 1, atol=1e-4)
    flow = perturbed(_diffusion_flow())
    assert ood.NoiseNorms()({"density": flow}, rows[:2], None).shape == (2, 10)  # exact: no key
    with pytest.raises(ValueError, match="by which noises and probes are drawn: pass key="):
        ood.intrinsic_dimension().fit(flow, rows)(rows[:2])


def test_a_flow_has_the_diffusion_of_its_model():
    vdm = perturbed(_vdm(blocks=0))
    x = np.random.default_rng(0).integers(0, 17, (3, 4, 4, 1), np.uint8)
    own, of_flow = vdm.diffusion(x, key=0), vdm.as_flow("uniform").diffusion(x, key=0)
    np.testing.assert_array_equal(own.point, of_flow.point)
    z = jnp.ones((3, 4, 4, 1))
    found = of_flow.noise_at(z, jnp.asarray(0.3))
    np.testing.assert_allclose(own.noise_at(z, jnp.asarray(0.3)), found, rtol=1e-4, atol=1e-5)


def test_who_offers_a_diffusion():
    assert not _gaussian().offers("diffusion")
    assert _gaussian().why_not("diffusion") == ""
    with pytest.raises(TypeError, match=r"diffusion, FullGaussian has none: .* such as a VDM"):
        _gaussian().diffusion(np.zeros((2, 3), np.float32))
    labels = {score.label for score in ood.standard(_vector_vdm())}
    own = (
        ood.multiscale_norms(),
        ood.diffusion_path(),
        ood.intrinsic_dimension(),
        ood.PosteriorSpread(),
    )
    assert {score.label for score in own} <= labels
    assert not {score.label for score in own} & {s.label for s in ood.standard(_gaussian())}
    for score in own:
        with pytest.raises(ValueError, match=r"such as a VDM, got FullGaussian: lj\.ood\.Density"):
            score.fit(_gaussian(), np.zeros((9, 3), np.float32))


# --- norms


def test_norms_of_normal_data():
    """``eps_hat = sigma z / (alpha^2 v + sigma^2)``, at equal steps of ``gamma``."""
    std, x = 0.7, RNG.normal(size=(6, 2)).astype(np.float32)
    density = of_normal(std)
    a, s = alpha_and_sigma(np.linspace(*ENDS, 10))
    expected = np.linalg.norm(x, axis=1)[:, None] * s * a / (a**2 * std**2 + s**2)
    np.testing.assert_allclose(computed(ood.NoiseNorms(), density, x), expected, rtol=1e-4)
    other = replace(density, schedule=ImportanceSchedule(*ENDS))  # another course, the same ends
    np.testing.assert_allclose(computed(ood.NoiseNorms(), other, x), expected, rtol=1e-2)


def test_norms_tell_far_examples():
    density = of_normal(1.0)
    inside = RNG.normal(size=(300, 2)).astype(np.float32)
    fitted = ood.multiscale_norms(backend="gaussian").fit(density, inside, key=0)
    scores = fitted(np.array([[0.8, -0.9], [5.0, 5.0]], np.float32), key=1)
    assert scores[1] > scores[0] + 10


# --- the path


def moments_of_normal(y, std, steps):
    """The six moments by the recursion of DDIM for a linear denoiser, in double precision."""
    gammas = np.linspace(*ENDS, steps + 1)
    a, s = alpha_and_sigma(gammas)
    z, noises = a[0] * y, []
    for i in range(steps):
        noise = s[i] * z / (a[i] ** 2 * std**2 + s[i] ** 2)
        z = a[i + 1] * (z - s[i] * noise) / a[i] + s[i + 1] * noise
        noises.append(noise)
    rates = steps * np.diff(np.stack(noises), axis=0)
    parts = (np.stack(noises), rates)
    sums = [(part**p).mean(-1).sum(0) for part in parts for p in (1, 2, 3)]
    return np.stack(sums, axis=-1), z


@pytest.mark.parametrize("steps", [1, 10])
def test_moments_of_the_path_of_normal_data(steps):
    std, x = 0.7, RNG.normal(size=(5, 2)).astype(np.float32)
    expected, _ = moments_of_normal(x.astype(np.float64), std, steps)
    found = computed(ood.NoiseMoments(steps=steps), of_normal(std), x)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


def test_many_steps_are_the_path_of_the_equation():
    """The path of the ODE is ``y`` times the standard deviations' ratio; its noise is known."""
    std, steps = 0.7, 2_000
    x = RNG.normal(size=(3, 2)).astype(np.float32)
    a, s = alpha_and_sigma(np.linspace(*ENDS, steps + 1)[:-1])
    deviation = np.sqrt(a**2 * std**2 + s**2)
    start = a[0] / deviation[0]
    noises = start * x[:, None, :] * (s / deviation)[None, :, None]
    found = computed(ood.NoiseMoments(steps=steps), of_normal(std), x) / steps
    for p in (1, 2, 3):
        expected = (noises**p).mean((1, 2))
        np.testing.assert_allclose(found[:, p - 1], expected, rtol=1e-2, atol=1e-4)
    rates = steps * np.diff(noises, axis=1)
    np.testing.assert_allclose(found[:, 4], (rates**2).mean((1, 2)), rtol=2e-2)


# --- the dimension


@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_dimension_of_a_plane(k):
    """Normal data in a plane of ``k`` of 6 dimensions: ``k + sigma^2 (alpha^2 |y|^2 - k)``.

    Exactly so at every level, hence ``k`` in the limit, here within 0.01.
    """
    density = of_covariance([1.0] * k + [0.0] * (6 - k))
    x = points_of(density, 8)
    for gamma in (-3.5, -1.0):
        a, s = alpha_and_sigma(gamma)
        expected = k + s**2 * (a**2 * (x**2).sum(1) - k)
        found = computed(ood.DimensionEstimate(gamma=gamma), density, x)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    near = computed(ood.DimensionEstimate(gamma=-9.0), density, x)
    np.testing.assert_allclose(near, k, atol=0.01)


def test_the_dimension_by_probes():
    """Vectors of signs have the trace in their mean, with the known variance; by the key alone."""
    density = of_covariance([1.0] * 3 + [0.0] * 5)
    one = points_of(density, 1)
    exact = computed(ood.DimensionEstimate(), density, one)[0]
    feature = ood.DimensionEstimate(probes=4)
    found = computed(feature, density, np.repeat(one, 600, axis=0))
    directions = density.denoiser.function.directions
    _, s = alpha_and_sigma(-3.5)
    jacobian = directions @ np.diag([s] * 3 + [1 / s] * 5) @ directions.T
    apart = jacobian - np.diag(np.diag(jacobian))
    std = s * math.sqrt(2 * (apart**2).sum() / 4)
    assert found.mean() == pytest.approx(exact, abs=4 * std / math.sqrt(600))
    assert found.std() == pytest.approx(std, rel=0.15)
    np.testing.assert_allclose(computed(feature, density, one), found[:1], rtol=1e-5)


def test_simple_and_complex_examples_have_unusual_dimensions():
    """Inside data fill a plane; an example outside of it has a norm that no dimension has."""
    density = of_covariance([1.0] * 3 + [1e-4] * 5)
    x = points_of(density, 400)
    fitted = ood.intrinsic_dimension().fit(density, x[:200], key=0)
    outside = x[200:] + 0.5 * density.denoiser.function.directions[:, -1].astype(np.float32)
    assert ood.auroc(fitted(x[200:], key=1), fitted(outside, key=1)) > 0.99


def test_levels_outside_of_the_process_are_its_ends():
    density = of_covariance([1.0, 1.0, 0.2])
    x = points_of(density, 3)
    first, last = (computed(ood.DimensionEstimate(gamma=gamma), density, x) for gamma in ENDS)
    assert not np.allclose(first, last)
    below = computed(ood.DimensionEstimate(gamma=ENDS[0] - 4), density, x)
    above = computed(ood.DimensionEstimate(gamma=ENDS[1] + 4), density, x)
    np.testing.assert_allclose(below, first)
    np.testing.assert_allclose(above, last)


# --- posteriors


def test_posteriors_of_normal_data():
    """The posterior of variance ``v`` has variance ``v sigma^2 / (alpha^2 v + sigma^2)``."""
    variances = np.array([4.0, 1.0, 0.3, 0.1, 0.03, 0.01])
    density = of_covariance(variances)
    gammas = (-2.14, -0.65, 0.43)
    feature = ood.PosteriorEigenvalues(gammas, draws=2, iterations=12)
    found = computed(feature, density, points_of(density, 4))
    assert found.shape == (4, 3, 3)
    for level, gamma in enumerate(gammas):
        a, s = alpha_and_sigma(gamma)
        expected = variances * s**2 / (a**2 * variances + s**2)
        np.testing.assert_allclose(found[:, level], np.tile(expected[:3], (4, 1)), rtol=1e-3)
    few = ood.PosteriorEigenvalues(gammas, eigenvalues=9, draws=1, iterations=1)
    assert computed(few, density, points_of(density, 2)).shape == (2, 3, 6)
    with pytest.raises(ValueError, match="denoiser is linear, as before training"):
        ood.PosteriorSpread(feature).fit(density, points_of(density, 9), key=0)


def test_posteriors_of_levels():
    """Independent entries: the eigenvalues are the variances of single entries, by Bayes' rule."""
    pmf = np.array([0.4, 0.1, 0.2, 0.3])
    density = of_levels(pmf, shape=(5,))
    gamma = -1.5
    a, s = alpha_and_sigma(gamma)
    z = RNG.normal(size=5)
    centers = 2 * (np.arange(4) + 0.5) / 4 - 1
    weights = pmf * np.exp(-((z[:, None] - a * centers) ** 2) / (2 * s**2))
    weights /= weights.sum(1, keepdims=True)
    mean = weights @ centers
    variances = weights @ centers**2 - mean**2
    diffusion = density.diffusion(np.zeros(5, np.uint8), key=0)
    start = jnp.asarray(RNG.normal(size=(5, 2)), jnp.float32)
    found = posterior_eigenvalues(
        diffusion, jnp.asarray(z, jnp.float32), jnp.asarray(gamma), start, 60
    )
    np.testing.assert_allclose(found, np.sort(variances)[:-3:-1], rtol=1e-3)


def test_the_spread_is_a_sum_of_standardized_levels():
    """Of data at the ends of a line, what lies in the middle is what the model is unsure of."""
    density = of_levels((0.495, 0.005, 0.005, 0.495), shape=(4,))
    eigenvalues = ood.PosteriorEigenvalues((-2.0, -1.0), draws=4, iterations=2)
    recipe = ood.PosteriorSpread(eigenvalues)
    assert recipe.label == "posterior spread (4 draws)"
    inside = RNG.choice([0, 3], (300, 4)).astype(np.uint8)
    fitted = recipe.fit(density, inside[:200], key=0)
    sums = computed(eigenvalues, density, inside[:200], seed=0).sum(-1)
    own = computed(eigenvalues, density, inside[200:], seed=1).sum(-1)
    expected = ((own - sums.mean(0)) / sums.std(0)).sum(1)
    scores = fitted(inside[200:], key=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
    outside = RNG.choice([1, 2], (100, 4)).astype(np.uint8)
    assert ood.auroc(scores, fitted(outside, key=1)) > 0.95
    with pytest.raises(ValueError, match="gammas to have a level, got none"):
        ood.PosteriorEigenvalues(gammas=())


def test_a_level_that_tells_nothing_is_left_out():
    values = np.stack([RNG.normal(size=50), np.full(50, 3.0)], axis=1)
    score = ood.PosteriorSpread()
    state = score.learn(values)
    np.testing.assert_array_equal(state["levels"], [0])
    found = score.group_score(state, values[:, None])
    np.testing.assert_allclose(found, (values[:, 0] - values[:, 0].mean()) / values[:, 0].std())


@pytest.mark.parametrize(
    "feature",
    [
        ood.NoiseNorms(),
        ood.NoiseMoments(),
        ood.DimensionEstimate(probes=1),
        ood.PosteriorEigenvalues(eigenvalues=1, draws=1, iterations=1),
    ],
    ids=lambda feature: type(feature).__name__,
)
def test_features_are_kept(feature, tmp_path):
    """What is computed once is read again; by other keys it is computed anew."""
    density, data = of_normal(0.7), lj.Dataset.from_array(RNG.normal(size=(4, 2)))
    keys = lj.example_keys(0, np.arange(4))
    compute = features_of({"density": density}, data.examples.astype(np.float32), keys)

    def nothing(feature):
        raise AssertionError(f"{feature} is computed anew")

    kept = KeptFeatures(tmp_path, {"density": density})
    values = kept.of(compute, data, keys)(feature)
    assert values.dtype == np.float64
    again = KeptFeatures(tmp_path, {"density": density})
    np.testing.assert_array_equal(again.of(nothing, data, keys)(feature), values)
    other_keys = lj.example_keys(1, np.arange(4))
    with pytest.raises(AssertionError, match="computed anew"):
        again.of(nothing, data, other_keys)(feature)


def test_what_comes_from_examples_alone_is_kept_for_all_densities(tmp_path):
    """Another training and other keys read the same file; other examples do not."""
    images = lj.Dataset.from_array(RNG.integers(0, 9, (4, 4, 4, 1), dtype=np.uint8))
    keys = lj.example_keys(0, np.arange(4))
    first = KeptFeatures(tmp_path, {"density": of_normal(0.7)})
    other = KeptFeatures(tmp_path, {"density": of_normal(0.2)})
    computed = []

    def compute(feature):
        computed.append(feature)
        return feature({}, images.examples, None)

    feature = ood.CodeLength()
    values = first.of(compute, images, keys)(feature)
    again = other.of(compute, images, lj.example_keys(1, np.arange(4)))(feature)
    np.testing.assert_array_equal(again, values)
    assert computed == [feature]
    other.of(compute, images.take([0, 1]), keys[:2])(feature)
    assert computed == [feature, feature]


def test_in_double_precision():
    """Weights in single precision and noise in double: the features are the same numbers."""
    density = perturbed(_vector_vdm(schedule="learned_linear"))
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    features = (
        ood.NoiseMoments(),
        ood.DimensionEstimate(),
        ood.PosteriorEigenvalues(eigenvalues=3, iterations=1),
    )
    single = [computed(feature, density, x) for feature in features]
    with jax.enable_x64(True):
        double = [computed(feature, density, x) for feature in features]
    for a, b in zip(single[:2], double[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert np.isfinite(double[2]).all()


def test_nan_stays():
    """A denoiser that gives NaN gives scores that are NaN, and no score can be fitted to it."""

    class Broken(BestOfNormal):
        def __call__(self, z, gamma, condition):
            noise = super().__call__(z, gamma, condition)
            return noise * (1 + z**2) * jnp.where(z[..., :1] > 3, jnp.nan, 1)

    density = VDM((2,), RealEmbedding(2), FixedSchedule(*ENDS), Broken(1.0))
    inside = np.clip(RNG.normal(size=(60, 2)), -2, 2).astype(np.float32)
    x = np.array([[0.1, 0.2], [9.0, 0.0]], np.float32)
    quick = ood.PosteriorEigenvalues((-6.0,), eigenvalues=1, draws=1, iterations=1)
    for score in (
        ood.multiscale_norms(backend="gaussian"),
        ood.intrinsic_dimension(),
        ood.PosteriorSpread(quick),
    ):
        values = score.fit(density, inside, key=0)(x, key=jax.random.key(1))
        assert np.isfinite(values[0])
        assert np.isnan(values[1])
    with pytest.raises(ValueError, match="multiscale norms, gaussian is finite, it is"):
        ood.multiscale_norms(backend="gaussian").fit(density, x, key=0)

"""Scores of vectors, gradients, latents and embeddings against closed forms and other packages."""

from __future__ import annotations

import functools
import importlib.util
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from scipy import stats
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture
from sklearn.svm import OneClassSVM

import likejax as lj
from likejax import ood
from likejax.nn.repeat import unstack
from likejax.ood.codecs import encoder
from likejax.ood.embeddings import shrunk_covariance
from tests.registry import _glow, _pixelcnn, _vae, perturbed
from tests.test_vae import S1, VARIANCE, A, B, S, linear

RNG = np.random.default_rng(0)
DIGITS = lj.load("digits", split="test").examples[:6]


@functools.cache
def glow() -> lj.Density:
    return perturbed(_glow(scales=2, depth=1), scale=0.02)


def vectors(n: int = 300) -> np.ndarray:
    """Correlated vectors, with a column that is a sum of others and one that is constant."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 3)) + 5
    return np.concatenate([x, x.sum(1, keepdims=True), np.full((n, 1), 2.0)], axis=1)


# --- what densities offer


def test_statistics_add_up():
    """A flow: latents and determinants, level by level, are the log-probability."""
    values = {name: np.asarray(v) for name, v in glow().statistics(DIGITS, key=1).items()}
    assert tuple(values) == glow().statistic_names
    np.testing.assert_allclose(values["log_prob"], glow().log_prob(DIGITS, key=1), rtol=1e-6)
    whole = values["latent_log_prob"] + values["log_det"] - 64 * math.log(glow().levels)
    np.testing.assert_allclose(whole, values["log_prob"], rtol=1e-5)
    for name in ("latent_log_prob", "log_det"):
        levels = values[f"{name}_1"] + values[f"{name}_2"]
        np.testing.assert_allclose(levels, values[name], rtol=1e-4, atol=1e-3)
    latents = glow().white_latents(DIGITS, key=1)
    norm = sum((np.asarray(part) ** 2).reshape(6, -1).sum(1) for part in latents)
    gaussian = -0.5 * norm - 32 * math.log(2 * math.pi)
    np.testing.assert_allclose(gaussian, values["latent_log_prob"], rtol=1e-4)
    draws = [glow().log_prob_draws(DIGITS, key=1, draws=3)[i] for i in range(3)]
    mean = glow().statistics(DIGITS, key=1, draws=3)["log_prob"]
    np.testing.assert_allclose(mean, np.mean(draws, axis=0), rtol=1e-6)


def test_statistics_of_a_pixelcnn():
    density = _pixelcnn()
    x = np.asarray(density.sample(0, 3))
    values = density.statistics(x)
    pixels = np.sort(np.asarray(density.log_prob_map(x)).reshape(3, -1), axis=1)
    np.testing.assert_allclose(values["log_prob"], pixels.sum(1), rtol=1e-5)
    np.testing.assert_allclose(values["pixel_log_prob_std"], pixels.std(1), rtol=1e-4)
    lowest = pixels[:, : pixels.shape[1] // 5].mean(1)
    np.testing.assert_allclose(values["pixel_log_prob_lowest_20"], lowest, rtol=1e-5)


def test_statistics_of_a_vae():
    stage = lj.models.StageConfig(channels=(4,), strides=(2,), latent=2, dense=False)
    density = _vae(event_shape=(8, 8, 1), stages=(stage,))
    values = {name: np.asarray(v) for name, v in density.statistics(DIGITS, key=1).items()}
    terms = density.terms(DIGITS, key=1)
    np.testing.assert_allclose(values["kl_1"], terms.per_example()["kl_1"], rtol=1e-5)
    np.testing.assert_allclose(values["reconstruction"], terms.parts["reconstruction"], rtol=1e-5)
    expected = np.asarray(density.reconstruct(DIGITS, key=1))
    error = np.linalg.norm((expected - DIGITS).reshape(6, -1), axis=1)
    np.testing.assert_allclose(values["reconstruction_error"], error, rtol=1e-4)
    assert ood.PathNorms()(
        {"density": density}, DIGITS, lj.example_keys(0, np.arange(6))
    ).shape == (
        6,
        3,
    )


def test_what_is_not_offered_is_refused():
    density = _pixelcnn()
    inside = np.asarray(density.sample(0, 8))
    assert not density.offers("embed")
    with pytest.raises(TypeError, match=r"white latents, PixelCNN has none: .* such as a flow"):
        density.white_latents(inside)
    with pytest.raises(ValueError, match=r"query to be 'white_latents' or 'embed' .* did you mean"):
        density.offers("embet")
    for score, message in (
        (ood.LatentFit(), "DensityOfStates"),
        (ood.LocalDimension(), "DensityOfStates"),
        (ood.LastScale(), "NegativeLogProb"),
        (ood.LikelihoodRegret(), "Typicality"),
        (ood.WhitenedEmbedding(), "expected a function embed="),
        (ood.NearestNeighbors(), "expected a function embed="),
        (ood.likelihood_path(), "DensityOfStates"),
    ):
        with pytest.raises(ValueError, match=message):
            score.fit(density, inside)
    with pytest.raises(ValueError, match=r"one of log_prob, .*got 'kl_1'"):
        ood.DensityOfStates(features=(ood.Statistics(("kl_1",)),)).fit(density, inside)
    histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
    with pytest.raises(ValueError, match="PixelHistogram is constant between integers"):
        ood.InputGradient().fit(histogram, DIGITS)
    with pytest.raises(ValueError, match=r"that the score has, density, got 'background'.*field"):
        ood.DensityOfStates((ood.LogProb("background"),)).fit(density, inside)
    with pytest.raises(TypeError, match=r"a number: groups=\[5\]"):
        ood.standard(density, groups=5)  # type: ignore[arg-type]
    student = lj.models.Flow(lj.bijections.ActNorm(2), (2,), base=lj.models.StudentT(2))
    assert not student.offers("white_latents")


# --- densities of vectors


def test_gaussian_backend():
    x = vectors()
    learned = ood.fit_backend("gaussian", x)
    y = x[:5] + 0.3
    ranks = stats.rankdata(ood.backend_score("gaussian", learned, x))
    first = x[:, :3]  # the directions that vary
    distance = np.einsum(
        "ni,ij,nj->n", first - first.mean(0), np.linalg.inv(np.cov(first.T)), first - first.mean(0)
    )
    np.testing.assert_array_equal(ranks, stats.rankdata(distance))
    independent = RNG.normal(size=(4000, 2))
    learned = ood.fit_backend("gaussian", independent)
    scores = ood.backend_score("gaussian", learned, independent[:9])
    z = (independent[:9] - independent.mean(0)) / independent.std(0)
    expected = -stats.multivariate_normal(cov=np.corrcoef(independent.T)).logpdf(z)
    log_det = np.log(np.linalg.det(np.corrcoef(independent.T))) / 2
    np.testing.assert_allclose(scores, expected - log_det, rtol=1e-6)
    assert y.shape == (5, 5)


def test_mixture_backend_is_scikit_learns():
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=(200, 2)) - 4, rng.normal(size=(200, 2)) + 4])
    learned = ood.fit_backend("mixture", x)
    assert len(learned["means"]) == 2  # BIC finds the two
    white = ((x - learned["shift"]) / learned["scale"]) @ learned["whiten"]
    model = GaussianMixture(2, reg_covar=1e-3, random_state=0, n_init=2).fit(white)
    np.testing.assert_allclose(
        ood.backend_score("mixture", learned, x), -model.score_samples(white), rtol=1e-8
    )


def test_kde_backend_is_scipys():
    x = vectors()[:, :3]
    learned = ood.fit_backend("kde", x)
    y, z = x[:7] * 1.1, (x - x.mean(0)) / x.std(0)
    w = (y - x.mean(0)) / x.std(0)
    expected = np.zeros(7)
    for column in range(3):
        # scipy's factor multiplies the deviation with n - 1, ours is 1
        factor = len(x) ** -0.2 / z[:, column].std(ddof=1)
        expected -= np.log(stats.gaussian_kde(z[:, column], factor)(w[:, column]))
    np.testing.assert_allclose(ood.backend_score("kde", learned, y), expected, rtol=1e-9)


def test_copod_backend_by_counting():
    x = np.exp(RNG.normal(size=(50, 2)))
    x[:, 1] *= -1  # the second column is skewed to the left
    learned = ood.fit_backend("copod", x)
    y = np.array([[x[:, 0].max() + 1, x[:, 1].min() - 1], [1.0, -1.0]])
    left = -np.log(((x[None] <= y[:, None]).sum(1) + 1) / 51)
    right = -np.log(((x[None] >= y[:, None]).sum(1) + 1) / 51)
    skewed = right[:, 0] + left[:, 1]
    expected = np.max([left.sum(1), right.sum(1), skewed], axis=0)
    np.testing.assert_allclose(ood.backend_score("copod", learned, y), expected)


def test_svm_backend_is_scikit_learns():
    x = vectors()
    learned = ood.fit_backend("one_class_svm", x)
    columns = learned["columns"]
    white = ((x[:, columns] - learned["shift"]) / learned["scale"]) @ learned["whiten"]
    assert white.shape == (300, 3)  # neither the constant nor the sum is a direction
    model = OneClassSVM(gamma=1 / 3, nu=0.05).fit(white)
    np.testing.assert_allclose(
        ood.backend_score("one_class_svm", learned, x), -model.decision_function(white), atol=1e-9
    )


@pytest.mark.parametrize("name", ["gaussian", "mixture", "kde", "copod", "one_class_svm"])
def test_every_backend(name):
    """No batch-mates; infinite, missing and constant entries; the same under jit."""
    x = vectors()
    learned = ood.fit_backend(name, x)
    y = x[:4] + 0.1
    whole = ood.backend_score(name, learned, y)
    alone = [ood.backend_score(name, learned, y[i : i + 1])[0] for i in range(4)]
    np.testing.assert_allclose(alone, whole, rtol=1e-12)
    y[1, 0], y[2, 1] = -np.inf, np.nan
    marked = ood.backend_score(name, learned, y)
    assert np.isposinf(marked[1])
    assert np.isnan(marked[2])
    np.testing.assert_allclose(marked[[0, 3]], whole[[0, 3]], rtol=1e-12)
    outlier = x[:1] + 40 * x.std(0)
    assert ood.backend_score(name, learned, outlier)[0] >= ood.backend_score(name, learned, x).max()
    with pytest.raises(ValueError, match="all 2 columns are constant"):
        ood.fit_backend(name, np.ones((9, 2)))
    with pytest.raises(ValueError, match="at least two examples"):
        ood.fit_backend(name, x[:1])


# --- gradients


class Mean(lj.Density):
    """``N(theta, I)`` with the trainable mean theta."""

    kind = lj.Kind.EXACT

    def __init__(self, theta):
        self.theta = nnx.Param(jnp.asarray(theta, jnp.float32))
        self.event_shape = self.theta.shape

    def _log_prob(self, x, key, condition):
        return -0.5 * jnp.sum((x - self.theta[...]) ** 2 + math.log(2 * math.pi))

    def _sample(self, key, condition, temperature):
        return self.theta[...] + temperature * jax.random.normal(key, self.event_shape)


def test_gradient_of_a_mean():
    """``d log p / d theta = x - theta``, whose squared norm is chi-square (ood.md, oracle 8)."""
    density = Mean(np.arange(20.0))
    x = np.asarray(density.sample(0, 2000))
    norms = np.asarray(ood.GradientNorms()({"density": density}, x, None))
    squares = ((x - np.arange(20.0)) ** 2).sum(1)
    np.testing.assert_allclose(norms[:, 0], np.log(squares), rtol=1e-5)
    assert np.exp(norms[:, 0]).mean() == pytest.approx(20, abs=4 * math.sqrt(2 * 20 / 2000))
    fitted = ood.ParameterGradient().fit(density, x[:1000])
    logs = np.log(squares)
    expected = -stats.norm(logs[:1000].mean(), logs[:1000].std()).logpdf(logs[1000:])
    np.testing.assert_allclose(fitted(x[1000:]), expected, rtol=1e-3, atol=1e-3)
    gradient = ood.InputGradient().fit(density, x[:100])
    np.testing.assert_allclose(gradient(x[:9]), np.sqrt(squares[:9]), rtol=1e-5)


def test_gradients_do_not_depend_on_the_form_of_blocks():
    """Blocks that are stacked have the norms of those that are apart, in a traced function too."""
    glow = _glow(scales=1, depth=2)
    keys = lj.example_keys(0, np.arange(6))
    norms = ood.GradientNorms()
    stacked = np.asarray(jax.jit(lambda x: norms({"density": glow}, x, keys))(DIGITS))
    apart = np.asarray(norms({"density": unstack(glow)}, DIGITS, keys))
    assert stacked.shape == apart.shape
    np.testing.assert_allclose(np.sort(stacked, 1), np.sort(apart, 1), rtol=1e-3, atol=1e-3)


def test_early_weights():
    """The gradient is that of the early density; both must be over the same examples."""
    density, early = Mean(np.zeros(3)), Mean(np.full(3, 2.0))
    x = np.asarray(density.sample(0, 60))
    score = ood.ParameterGradient(early).fit(density, x)
    assert score.recipe.label == "parameter gradient, early weights"
    plain = ood.ParameterGradient().fit(early, x)
    np.testing.assert_allclose(score(x[:5]), plain(x[:5]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected examples of shape \(4,\)"):
        ood.ParameterGradient(Mean(np.zeros(4))).fit(density, x)
    with pytest.raises(ValueError, match="expected a density with parameters that are trained"):
        ood.ParameterGradient().fit(lj.models.Uniform((2,)), np.full((9, 2), 0.5, np.float32))


# --- latents of flows


def _scaled(scales: np.ndarray) -> lj.models.Flow:
    """The flow ``x = scales z``."""
    return lj.models.Flow(
        lj.bijections.Affine(jnp.zeros(len(scales)), jnp.asarray(scales, jnp.float32)),
        (len(scales),),
    )


def test_local_dimension_of_a_linear_flow():
    """``x = diag(1, ..., e^-6, ...) z`` with the threshold e^-3 has as many dimensions as ones."""
    scales = np.concatenate([np.ones(3), np.full(5, math.exp(-6))])
    flow = _scaled(scales)
    x = np.asarray(flow.sample(0, 40))
    spectra = np.asarray(ood.JacobianSpectrum()({"density": flow}, x[:2], None))
    np.testing.assert_allclose(np.sort(spectra[0]), np.log(np.sort(scales)), atol=1e-4)
    state = ood.LocalDimension(log_threshold=-3.0).fit(flow, x).state
    np.testing.assert_array_equal(state["dimension"], np.full(40, 3.0))
    fitted = ood.LocalDimension(log_threshold=-3.0).fit(flow, x)
    far = fitted(np.full((1, 8), 9.0, np.float32))
    assert far[0] == pytest.approx(math.log(41))  # less likely than all inside examples


def test_a_spectrum_of_more_dimensions_than_are_derived_at_a_time():
    scales = np.geomspace(0.1, 10, 300)
    flow = _scaled(np.random.default_rng(0).permutation(scales))
    spectra = np.asarray(ood.JacobianSpectrum()({"density": flow}, np.ones((2, 300)), None))
    np.testing.assert_allclose(spectra, np.tile(np.log(scales), (2, 1)), atol=1e-4)


def test_latent_tests_of_noise():
    """Statistics of noise have their known laws, and see structure that the norm does not show."""
    noise = jax.random.normal(jax.random.key(0), (600, 16, 16, 2))
    values = np.asarray(ood.latent_tests((noise,)))
    for column in (0, 1, 2, 5, 6, 7, 8):
        assert stats.kstest(values[:, column], "norm").pvalue > 1e-3, column
    assert stats.kstest(values[:, 3], stats.kstwobign.cdf).pvalue > 1e-3
    anderson = np.mean(values[:, 4])
    assert anderson == pytest.approx(1.0, abs=4 * 0.7 / math.sqrt(600))  # its mean is 1
    flow = lj.models.Flow(lj.bijections.Affine(0.0), (16, 16, 2))
    inside = np.asarray(noise, np.float32)
    fitted = ood.LatentFit().fit(flow, inside[:300])
    smooth = inside[300:340] + np.roll(inside[300:340], 1, axis=1)
    norms = np.linalg.norm(inside[300:340].reshape(40, -1), axis=1)
    smooth *= (norms / np.linalg.norm(smooth.reshape(40, -1), axis=1))[:, None, None, None]
    np.testing.assert_allclose(flow.log_prob(smooth), flow.log_prob(inside[300:340]), rtol=1e-5)
    assert ood.auroc(fitted(inside[340:]), fitted(smooth)) == 1.0
    ordered = np.sort(inside[300:340].reshape(40, -1), axis=1).reshape(40, 16, 16, 2)
    assert ood.auroc(fitted(inside[340:]), fitted(ordered)) == 1.0
    calibrated = fitted.calibrate(inside[340:])
    assert (
        stats.kstest(calibrated.p_value(np.asarray(flow.sample(1, 200))), "uniform").pvalue > 1e-3
    )


# --- embeddings


def test_shrunk_covariance_is_scikit_learns():
    x = RNG.normal(size=(60, 12)) @ RNG.normal(size=(12, 12))
    centered = x - x.mean(0)
    expected, _ = ledoit_wolf(centered, assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(centered), expected, rtol=1e-9)


def test_whitened_embedding_is_mahalanobis():
    """With many examples the shrinkage is small; the score is that of ``np.cov``."""
    density = Mean(np.zeros(3))
    x = (RNG.normal(size=(20_000, 3)) @ RNG.normal(size=(3, 3))).astype(np.float32)

    def identity(x):
        return x

    fitted = ood.WhitenedEmbedding(identity).fit(density, x)
    centered = x[:5] - x.mean(0, dtype=np.float64)
    inverse = np.linalg.inv(np.cov(x.T.astype(np.float64)))
    distance = np.einsum("ni,ij,nj->n", centered, inverse, centered)
    np.testing.assert_allclose(fitted(x[:5]), distance, rtol=5e-3)


def test_an_embedding_looks_at_one_example_at_a_time():
    """A network that normalizes by its batch would score an example by its company."""
    density, x = Mean(np.zeros(3)), RNG.normal(size=(100, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="another one beside other examples: switch a network to"):
        ood.WhitenedEmbedding(lambda x: (x - x.mean(0)) / (x.std(0) + 1)).fit(density, x)
    with pytest.raises(ValueError, match="expected finite vectors from"):
        ood.NearestNeighbors(lambda x: np.full_like(x, np.nan)).fit(density, x)


def test_few_examples_for_many_numbers_are_told():
    """Where examples do not vary, a shift is not seen, and a warning says so."""
    x = RNG.normal(size=(8, 10))
    with pytest.warns(UserWarning, match="8 examples are few to fit a density of 10 numbers"):
        ood.fit_backend("gaussian", x)
    ood.fit_backend("copod", x)


def test_nearest_neighbors_by_hand():
    """The four numbers of a point, and what is refused."""

    def identity(x):
        return x

    density = Mean(np.zeros(1))
    references = np.arange(10.0)
    x = np.stack([references, references + 0.3], axis=1).reshape(-1, 1).astype(np.float32)
    fitted = ood.NearestNeighbors(identity, k=2).fit(density, x)
    numbers = fitted.recipe._numbers(fitted.state, np.array([[4.25]]))[0]
    # the references 4 and 5 are nearest, at 0.25 and 0.75; both have their second neighbor at 1
    expected = [math.log(0.75), math.log(0.75), 1.0, 1.0]
    np.testing.assert_allclose(numbers, expected, atol=1e-6)
    with pytest.raises(ValueError, match="at least 12 examples"):
        ood.NearestNeighbors(identity).fit(density, x[:8])
    with pytest.raises(TypeError, match="expected a function from examples"):
        ood.NearestNeighbors(embed=3)
    with pytest.raises(ValueError, match="one vector for each of 20 examples"):
        ood.WhitenedEmbedding(lambda x: x[:1]).fit(density, x)


# --- likelihood regret


def _divergence(mean, variances, precision, center) -> float:
    """KL from independent normals to ``N(center, precision^-1)``."""
    away = mean - center
    trace = np.diag(precision) @ variances
    log_dets = np.log(variances).sum() + np.linalg.slogdet(precision)[1]
    return 0.5 * (trace + away @ precision @ away - len(mean) - log_dets)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_regret_of_the_linear_model(shift):
    """It is the gain of the divergence from the posterior, known for the linear-Gaussian model."""
    x = 1.0
    precision = np.array([[1 / S1**2 + B**2 / S**2, -A / S1**2], [-A / S1**2, 1 + A**2 / S1**2]])
    center = np.linalg.solve(precision, [B * x / S**2, 0.0])
    gain = A * B / VARIANCE
    top = gain * x + shift
    bottom = (A * top / S1**2 + B * x / S**2) / precision[0, 0]
    inferred = np.array([1 / precision[0, 0], 1 - gain * A * B])
    before = _divergence(np.array([bottom, top]), inferred, precision, center)
    after = _divergence(center, 1 / np.diag(precision), precision, center)
    options = {"key": 0, "steps": 600, "learning_rate": 0.02, "draws": 20_000}
    found = linear(shift).regret(np.full((1, 1), x, np.float32), **options)
    assert float(found[0]) == pytest.approx(before - after, abs=0.03)


# --- ensembles


def test_waic():
    """Equal members have no variance; two that differ by c have c^2/4 (ood.md, oracle 6)."""
    density = Mean(np.zeros(4))
    x = np.asarray(density.sample(0, 30))
    same = lj.Ensemble([density, density])
    plain = ood.NegativeLogProb().fit(density, x)
    np.testing.assert_allclose(ood.EnsembleScore(same).fit(density, x)(x), plain(x), rtol=1e-6)
    other = Mean(np.full(4, 0.5))
    two = lj.Ensemble([density, other])
    first, second = (np.asarray(each.log_prob(x), np.float64) for each in (density, other))
    variance = (first - second) ** 2 / 4
    options = {"quantity": "variance"}
    np.testing.assert_allclose(
        ood.EnsembleScore(two, **options).fit(density, x)(x), variance, rtol=1e-3, atol=1e-5
    )
    per_dimension = ood.EnsembleScore(two, per_dimension=True).fit(density, x)(x)
    expected = variance / 16 - (first + second) / 8
    np.testing.assert_allclose(per_dimension, expected, rtol=1e-4)
    labels = [score.label for score in ood.standard(density, ensemble=two)]
    assert {"WAIC", "variance of members"} <= set(labels)
    with pytest.raises(TypeError, match=r"expected an ensemble, got Mean"):
        ood.EnsembleScore(density)


# --- codecs


@pytest.mark.parametrize("codec", ["png", "jpeg2000", "webp"])
def test_codecs_are_lossless(codec):
    """Decoded by Pillow, the image is the same; the length is that of the code."""
    rng = np.random.default_rng(0)
    for image in (rng.integers(0, 256, (16, 12, 3), dtype=np.uint8), DIGITS[0]):
        code = encoder(codec)(image)
        decoded = np.asarray(Image.open(io.BytesIO(code)))
        if image.shape[2] == 1 and decoded.ndim == 3:
            decoded = decoded[..., 0]  # WebP has no gray
        np.testing.assert_array_equal(decoded.reshape(image.shape), image)
        assert ood.code_lengths(image[None], codec=codec)[0] == 8 * len(code)


def test_scores_of_other_codecs():
    """The shortest code is chosen image by image; labels tell codecs apart; what is refused."""
    histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
    inside = lj.load("digits", split="validation")
    names = ("built-in", "png", "jpeg2000")
    lengths = [ood.code_lengths(DIGITS, codec=name) for name in names]
    np.testing.assert_array_equal(ood.code_lengths(DIGITS, codec="smallest"), np.min(lengths, 0))
    score = ood.InputComplexity(codec="png").fit(histogram, inside)
    assert score.recipe.label == "input complexity, png"
    assert ood.ComplexityOnly(codec="smallest").label == "complexity only, smallest"
    bits = -np.asarray(histogram.log_prob(DIGITS), np.float64) / math.log(2)
    np.testing.assert_allclose(score(DIGITS), (bits - lengths[1]) / 64, rtol=1e-6)
    with pytest.raises(ValueError, match="built-in codec for a map, got png"):
        score.score_map(DIGITS)
    wide = ood.code_lengths(DIGITS.astype(np.uint16), codec="png")
    np.testing.assert_array_equal(wide, lengths[1])
    refused = (
        np.zeros((1, 4, 4, 2), np.uint8),
        np.full((1, 4, 4, 1), 256, np.uint16),
        np.zeros((1, 4, 4, 1), np.int32),
    )
    for images in refused:
        with pytest.raises(
            ValueError, match="up to 255 of one or three channels for the codec png"
        ):
            ood.code_lengths(images, codec="png")
    if importlib.util.find_spec("pillow_jxl") is None:
        with pytest.raises(ImportError, match="pip install pillow-jxl-plugin"):
            ood.code_lengths(DIGITS, codec="jpeg-xl")


# --- combinations


def test_combinations_by_hand():
    """Shares of inside scores, and both rules."""
    density = Mean(np.zeros(2))
    x = np.asarray(density.sample(0, 99))
    scores = (ood.NegativeLogProb(), ood.InputGradient())
    for rule in ("fisher", "simes"):
        fitted = ood.Combined(scores=scores, rule=rule).fit(density, x)
        y = np.asarray(density.sample(1, 7))
        p = []
        for score in scores:
            own = score.fit(density, x)
            p.append((1 + (own(x)[None] >= own(y)[:, None]).sum(1)) / 100)
        p = np.sort(np.stack(p, 1), axis=1)
        fisher, simes = -2 * np.log(p).sum(1), -np.log(np.minimum(2 * p[:, 0], p[:, 1]))
        np.testing.assert_allclose(fitted(y), fisher if rule == "fisher" else simes, rtol=1e-9)
    with pytest.raises(ValueError, match="at least two scores"):
        ood.Combined(scores=(ood.Typicality(),))
    with pytest.raises(ValueError, match="scores of single examples"):
        ood.Combined(scores=(ood.Typicality(), ood.Typicality(group=3)))


# --- lists


def test_standard_scores_of_every_family():
    """Every score in the list can be fitted to its density; labels are distinct."""
    labels = {}
    for name, density in {
        "glow": glow(),
        "pixelcnn": _pixelcnn(),
        "mean": Mean(np.zeros(2)),
    }.items():
        scores = ood.standard(density, groups=(5,))
        labels[name] = [score.label for score in scores]
        assert len(set(labels[name])) == len(scores)
        for score in scores:
            score.check(density)
    assert {"last scale", "latent fit", "local dimension", "contrast"} <= set(labels["glow"])
    assert "last scale" not in labels["pixelcnn"]
    assert "contrast" not in labels["mean"]

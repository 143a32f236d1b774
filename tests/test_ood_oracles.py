"""Closed forms of scores: the exact values of reference/ood.md, section 7, by public scores alone.

Those of metrics, typicality, mutation, ensembles, gradients, dimensions and Min-K are beside the
other tests of these.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import LedoitWolf

import likejax as lj
from likejax import ood
from likejax.models.vae.network import Moments
from tests.test_vae import (
    LOG_PROBS,
    POINTS,
    RATIOS,
    B,
    S,
    _NoUp,
    _Observed,
    _Top,
    linear,
)

RNG = np.random.default_rng(0)


# --- 3: the ratio of a linear-Gaussian hierarchy


def expectation(values: np.ndarray, noise: np.ndarray) -> float:
    """The mean over standard normal noise of a quadratic function of it, from its values.

    The Hermite polynomials have mean zero, so what is left is the constant. The fit to more values
    than there are polynomials is exact for the quadratic alone.
    """
    first, second = noise.T
    pairs = [first**2 - 1, second**2 - 1, first * second]
    design = np.stack([np.ones(len(noise)), first, second, *pairs], axis=1)
    coefficients = np.linalg.lstsq(design, values)[0]
    np.testing.assert_allclose(design @ coefficients, values, rtol=1e-9, atol=1e-9)
    return float(coefficients[0])


@pytest.mark.parametrize(("replacement", "less"), [("sample", 0.0), ("mean", 2.0)])
def test_hierarchy_ratio_of_the_linear_model(replacement, less):
    """``LLR^{>1}`` of three points; by means it is less by ``b^2 s1^2 / (2 s^2) = 2`` exactly."""
    with jax.enable_x64(True):
        density, key, rows = linear(), jax.random.key(3), 24
        points = np.repeat(POINTS, rows)[:, None]
        keys = lj.example_keys(key, np.arange(len(points)))
        noise = jax.vmap(lambda key: density.draw_noise(jax.random.fold_in(key, 0)))(keys)
        # the upper latent is inferred, the lower one comes from its prior
        drawn = np.stack([noise.posterior[1].ravel(), noise.prior[0].ravel()], axis=1)
        raw = ood.NegativeLogProb().fit(density, points, key=0)
        np.testing.assert_allclose(raw(points, key=key), -np.repeat(LOG_PROBS, rows), atol=1e-6)
        ratio = ood.HierarchyRatio(k=1, replacement=replacement).fit(density, points, key=0)
        scores = ratio(points, key=key)
        for i, known in enumerate(RATIOS):
            own = slice(i * rows, (i + 1) * rows)
            assert expectation(scores[own], drawn[own]) == pytest.approx(known - less, abs=1e-6)


# --- 5: input complexity


@dataclasses.dataclass(frozen=True)
class LengthWithHeader(ood.CodeLength):
    """Length of a code that begins with a header."""

    header: int = 0

    def __call__(self, densities, x, keys):
        return super().__call__(densities, x, keys) + self.header


@dataclasses.dataclass(frozen=True)
class ComplexityWithHeader(ood.InputComplexity):
    """Input complexity by a code that begins with a header."""

    header: int = 0

    @property
    def features(self):
        log_prob, length = super().features
        return log_prob, LengthWithHeader(length.codec, self.header)


def test_header_bits_do_not_change_the_ranking():
    """The same bits for every image move all scores alike; the AUROC is the same number."""
    train, valid = lj.load("digits"), lj.load("digits", split="validation")
    histogram = lj.models.PixelHistogram.fit(train)
    fit, inside, outside = valid[:40], valid[40:140].examples, valid[40:140].mutate(0.3, 0).examples
    plain = ood.InputComplexity().fit(histogram, fit)
    scores = plain(inside), plain(outside)
    known = ood.auroc(*scores)
    assert 0.55 < known < 0.95  # an AUROC at its end would not show a change
    for header in (8, 80_000):
        other = ComplexityWithHeader(header=header).fit(histogram, fit)
        moved = other(inside), other(outside)
        for shifted, score in zip(moved, scores, strict=True):
            np.testing.assert_allclose(shifted, score - header / 64, rtol=1e-9)
        assert ood.auroc(*moved) == known


@pytest.mark.parametrize("levels", [16, 64, 256])
def test_input_complexity_is_in_bits(levels):
    """The uniform distribution on 2^b values takes b bits for each, ``S = b - C / D``."""
    shape = (32, 32, 3)
    uniform = lj.models.PixelHistogram(jnp.full((*shape, levels), -math.log(levels)))
    images = RNG.integers(0, levels, (4, *shape)).astype(np.uint8)
    images[0] = 1
    score = ood.InputComplexity().fit(uniform, images)
    bits = math.log2(levels)
    found = score(images)
    np.testing.assert_allclose(found, bits - ood.code_lengths(images) / 3072, rtol=1e-5)
    assert found[0] > 0.9 * bits  # a constant image has next to no code of its own
    assert (abs(found[1:]) < 0.1 * bits).all()  # that of noise is as long as its entropy


# --- 7: the regret of a linear-Gaussian model with one latent


class _Only(_Top):
    """``z ~ N(0, 1)`` with the exact posterior given ``x ~ N(b z, s^2)``, or a shifted one."""

    def posterior_down(self, h, d):
        variance = B**2 + S**2
        return Moments(B * h / variance + self.shift, jnp.full_like(h, S / math.sqrt(variance)))


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_regret_is_the_divergence_from_the_exact_posterior(shift):
    """It is 0 for the exact posterior, and ``KL(q || posterior)`` for a shifted one."""
    stages = [_NoUp()], [_Only(shift)]
    density = lj.models.VAE(*stages, _Observed(), (1,), levels=None, flatten=True)
    x = np.array([[-1.0], [0.0], [0.5], [2.0]], np.float32)
    score = ood.LikelihoodRegret(steps=150, learning_rate=0.02, draws=4_000).fit(density, x, key=0)
    divergence = shift**2 / (2 * S**2 / (B**2 + S**2))
    # both bounds have the same draws: the error is the slope of their difference in the noise,
    # which is the shift in standard deviations; the last steps of Adam leave a little noise
    slope = shift * math.sqrt(B**2 + S**2) / S
    tolerance = 4 * slope / math.sqrt(4_000) + 0.02
    np.testing.assert_allclose(score(x, key=1), divergence, atol=tolerance)
    assert shift == 0 or divergence > 5 * tolerance  # the test can fail


# --- 10: the laws of latents


def test_p_values_of_normal_latents_are_uniform():
    """Over 2000 draws of 512 normal entries each, at .01 of Kolmogorov's and Smirnov's test.

    Two laws are normal in the limit alone: with skewness ``g`` they are ``g / (6 sqrt(2 pi))`` from
    the normal one, by the first term of Edgeworth's series.
    """
    noise = jax.random.normal(jax.random.key(4), (2000, 16, 16, 2))
    values = np.asarray(ood.latent_tests((noise,)))
    # of z^4, whose third central moment is 9504, and of the power of 81 slow waves
    skewness = {2: 9504 / 96**1.5 / math.sqrt(512), 8: 2 / math.sqrt(81)}
    critical = stats.kstwobign.isf(0.01) / math.sqrt(2000)
    for column in (0, 1, 2, 5, 6, 7, 8):
        distance = stats.kstest(values[:, column], "norm").statistic
        allowed = critical + skewness.get(column, 0) / (6 * math.sqrt(2 * math.pi))
        assert distance < allowed, column
    assert stats.kstest(values[:, 3], stats.kstwobign.cdf).pvalue > 0.01


# --- 11: conformal calibration


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(200, 0.027, 0.077), (1000, 0.039, 0.062), (5000, 0.045, 0.055), (10_000, 0.0465, 0.0536)],
)
def test_ranges_of_true_rates(n, low, high):
    """The central 90 % of ``Beta(k, n + 1 - k)`` at a rate of .05, in as many digits as stated."""
    k = ood.rank_of_threshold(n, 0.05)
    found = stats.beta(k, n + 1 - k).ppf([0.05, 0.95])
    np.testing.assert_allclose(found, [low, high], atol=5e-4 if n < 10_000 else 5e-5)


def test_exchangeable_scores_are_called_at_the_rate():
    """2000 times a calibration set and one more example: ``P(p <= j / (n + 1)) = j / (n + 1)``."""
    n, repeats = 19, 2000
    found = []
    for scores in RNG.gumbel(size=(repeats, n + 1)):
        found.append(ood.p_values(scores[:n], scores[n:])[0])
    for rank in (1, 2, 10, 19):  # a rank that is wrong by one is 10 standard errors off at .05
        alpha = rank / (n + 1)
        error = math.sqrt(alpha * (1 - alpha) / repeats)
        assert abs(np.mean(np.array(found) <= alpha) - alpha) < 4 * error


# --- 12: whitening


def _itself(x):
    return x


def _squared_distances(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    centered = x - mean
    return np.einsum("ni,ij,nj->n", centered, np.linalg.inv(covariance), centered)


POINTS_OF_5 = (RNG.normal(size=(90, 5)) @ RNG.normal(size=(5, 5)) + 3).astype(np.float32)
FLOW_OF_5 = lj.models.Flow(lj.bijections.ActNorm(5), (5,))


def test_whitened_embedding_is_mahalanobis_of_its_covariance():
    """That of Ledoit and Wolf by scikit-learn, to 1e-6; the whitened covariance is the identity."""
    inside, new = POINTS_OF_5[:60], POINTS_OF_5[60:]
    fitted = ood.WhitenedEmbedding(_itself).fit(FLOW_OF_5, inside)
    expected = LedoitWolf().fit(inside.astype(np.float64))
    np.testing.assert_allclose(fitted(new), expected.mahalanobis(new), rtol=1e-6)
    whiten = np.asarray(fitted.state["whiten"])
    np.testing.assert_allclose(whiten.T @ expected.covariance_ @ whiten, np.eye(5), atol=1e-6)


def test_mahalanobis_of_the_plain_covariance():
    """A normal density of an embedding is not shrunk: it is that of ``np.cov`` to 1e-6.

    The covariance of the whitened inside vectors is the identity.
    """
    inside, new = POINTS_OF_5[:60], POINTS_OF_5[60:]
    features = (ood.Embedding(_itself),)
    score = ood.DensityOfStates(features=features, backend="gaussian").fit(FLOW_OF_5, inside)
    wide = inside.astype(np.float64)
    mean, covariance = wide.mean(0), np.cov(wide.T, bias=True)
    constant = 5 * math.log(2 * math.pi)
    expected = _squared_distances(new.astype(np.float64), mean, covariance)
    np.testing.assert_allclose(2 * score(new) - constant, expected, rtol=1e-6)
    learned = ood.fit_backend("gaussian", wide)
    white = (wide - learned["shift"]) / learned["scale"] @ learned["whiten"]
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-9)


def test_shrinkage_of_an_isotropic_covariance_is_nothing():
    """Towards a multiple of the identity there is nothing to shrink: that of ``np.cov`` to 1e-6."""
    centered = POINTS_OF_5[:60] - POINTS_OF_5[:60].mean(0, dtype=np.float64)
    directions, _, _ = np.linalg.svd(centered, full_matrices=False)
    inside = (7 * directions).astype(np.float32)  # its covariance is 49 / 60 of the identity
    fitted = ood.WhitenedEmbedding(_itself).fit(FLOW_OF_5, inside)
    wide, new = inside.astype(np.float64), POINTS_OF_5[60:]
    expected = _squared_distances(new, wide.mean(0), np.cov(wide.T, bias=True))
    np.testing.assert_allclose(fitted(new), expected, rtol=1e-6)
    white = (wide - fitted.state["mean"]) @ fitted.state["whiten"]
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-6)


# --- 14: other representations of the data

MATRIX = np.array([[2.0, 0.3, -0.5], [0.0, -1.5, 0.4], [0.7, 0.2, 3.0]])


class Represented(lj.bijections.Bijection):
    """The map from another representation of the data to the first."""

    def __init__(self, back):
        self.back = back

    def forward(self, x, key=None, condition=None):
        return self.back(x), jnp.linalg.slogdet(jax.jacfwd(self.back)(x))[1]

    def inverse(self, z, condition=None):
        raise NotImplementedError


def _from_linear(x):
    return jnp.asarray(np.linalg.inv(MATRIX), x.dtype) @ x


def _from_hue(x):
    """Red, green and blue of hue, saturation and value."""
    hue, saturation, value = x
    place = (jnp.asarray([5, 3, 1], x.dtype) + 6 * hue) % 6
    return value - value * saturation * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)


def _to_linear(colors: np.ndarray) -> np.ndarray:
    return (colors @ MATRIX.T).astype(np.float32)


def _to_hue(colors: np.ndarray) -> np.ndarray:
    return np.array([colorsys.rgb_to_hsv(*color) for color in colors.tolist()], np.float32)


def _loss_of_linear(x: np.ndarray) -> np.ndarray:
    return np.full(len(x), math.log(abs(np.linalg.det(MATRIX))))


def _loss_of_hue(x: np.ndarray) -> np.ndarray:
    """``-log |d rgb / d hsv|``, with the determinant ``6 S V^2``."""
    _, saturation, value = x.astype(np.float64).T
    return -np.log(6 * saturation * value**2)


def _of_colors(colors: np.ndarray) -> lj.models.Flow:
    return lj.models.Flow(lj.bijections.ActNorm(3), (3,)).initialize(colors, 0)


def _in_other_form(flow: lj.models.Flow, back) -> lj.models.Flow:
    return lj.models.Flow(lj.bijections.Chain([Represented(back), flow.bijection]), (3,))


@pytest.mark.parametrize(
    ("to", "back", "loss"),
    [(_to_linear, _from_linear, _loss_of_linear), (_to_hue, _from_hue, _loss_of_hue)],
    ids=["linear", "hue"],
)
def test_scores_in_another_representation(to, back, loss):
    """``log p`` changes by the volume; the ratio and the score by gradients do not.

    A linear map changes ``log p`` by ``-log |det A|`` for all, another one may turn the ranking.
    """
    colors = np.random.default_rng(1).beta(1.2, 2.8, size=(160, 3)).astype(np.float32)
    density, background = _of_colors(colors), _of_colors(colors[:30] ** 0.5)
    dull, bright = [0.3, 0.27, 0.25], [0.7, 0.1, 0.1]
    inside, new = colors[:80], np.concatenate([np.float32([dull, bright]), colors[82:]])
    other = _in_other_form(density, back)

    def both(score, of_other):
        plain = score.fit(density, inside)(new)
        return plain, of_other.fit(other, to(inside))(to(new))

    raw, changed = both(ood.NegativeLogProb(), ood.NegativeLogProb())
    np.testing.assert_allclose(changed, raw + loss(to(new)), rtol=1e-4, atol=1e-4)
    assert raw[0] < raw[1]
    is_linear = back is _from_linear
    assert (changed[0] < changed[1]) == is_linear
    ratio = ood.LikelihoodRatio(background)
    plain, same = both(ratio, ood.LikelihoodRatio(_in_other_form(background, back)))
    np.testing.assert_allclose(same, plain, rtol=1e-4, atol=1e-4)
    assert plain.std() > 0.1
    plain, same = both(ood.ParameterGradient(), ood.ParameterGradient())
    np.testing.assert_allclose(same, plain, rtol=1e-3, atol=1e-3)
    assert plain.std() > 0.1

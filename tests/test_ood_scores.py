"""Scores: what each computes, and the properties that all share."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

import likejax as lj
from likejax import ood
from likejax.nn.modules import replace
from likejax.ood.lossless import decode, encode
from likejax.ood.saved import Saved, write_folder
from tests.registry import _glow, _vae, perturbed
from tests.test_diffusion import of_levels

RNG = np.random.default_rng(0)
DIGITS = {split: lj.load("digits", split=split) for split in ("train", "validation", "test")}
HISTOGRAM = lj.models.PixelHistogram.fit(DIGITS["train"])
BACKGROUND = lj.models.PixelHistogram.fit(DIGITS["train"].mutate(0.3, 0))
ENSEMBLE = lj.Ensemble([HISTOGRAM, BACKGROUND])


@functools.cache
def glow(scales: int = 1) -> lj.Density:
    return perturbed(_glow(scales=scales, depth=1), scale=0.02)


@functools.cache
def vae() -> lj.models.VAE:
    lower = lj.models.StageConfig(channels=(4,), strides=(2,), latent=2, dense=False)
    upper = lj.models.StageConfig(channels=(4,), strides=(1,), latent=2)
    return _vae(event_shape=(8, 8, 1), stages=(lower, upper))


@functools.cache
def vdm() -> lj.Density:
    """A diffusion of one and the same distribution of every pixel, in the precision of files."""
    pmf = np.exp(-np.arange(17) / 6)
    return jax.tree.map(jnp.asarray, of_levels(pmf / pmf.sum(), shape=(8, 8, 1)))


SCORES = {
    "negative log-likelihood": ood.NegativeLogProb(),
    "negative log-likelihood, 3 draws": ood.NegativeLogProb(draws=3),
    "typicality": ood.Typicality(),
    "typicality of 3": ood.Typicality(group=3),
    "likelihood ratio": ood.LikelihoodRatio(BACKGROUND),
    "input complexity": ood.InputComplexity(),
    "complexity only": ood.ComplexityOnly(),
    "hierarchy ratio": ood.HierarchyRatio(),
    "hierarchy ratio by draws": ood.HierarchyRatio(
        draws=2, replacement="sample", shared_noise=False
    ),
    "density of states": ood.DensityOfStates(features=(ood.Statistics(), ood.CodeLength())),
    "density of states, copod": ood.DensityOfStates(backend="copod"),
    "likelihood path": ood.likelihood_path(backend="gaussian"),
    "likelihood regret": ood.LikelihoodRegret(steps=3, draws=2),
    "last scale": ood.LastScale(),
    "latent fit": ood.LatentFit(),
    "local dimension": ood.LocalDimension(),
    "multiscale norms": ood.multiscale_norms(levels=3),
    "diffusion path": ood.diffusion_path(steps=3),
    "intrinsic dimension": ood.intrinsic_dimension(probes=2),
    "posterior spread": ood.PosteriorSpread(
        ood.PosteriorEigenvalues(gammas=(-2.0, 0.0), eigenvalues=2, draws=1, iterations=1)
    ),
    "parameter gradient": ood.ParameterGradient(),
    "input gradient": ood.InputGradient(),
    "curvature": ood.Curvature(scale=1.0, draws=2),
    "combined": ood.Combined(scores=(ood.Typicality(), ood.InputGradient())),
    "combined, simes": ood.Combined(scores=(ood.Typicality(), ood.LatentFit()), rule="simes"),
    "whitened embedding": ood.WhitenedEmbedding(),
    "nearest neighbors": ood.NearestNeighbors(),
    "Min-K": ood.MinK(),
    "Min-K++": ood.MinKPlus(),
    "WAIC": ood.EnsembleScore(ENSEMBLE),
    "mean intensity": ood.MeanIntensity(),
    "contrast": ood.Contrast(),
}
"""One line adds a score to every property below."""
OF_DIFFUSIONS = ("multiscale norms", "diffusion path", "intrinsic dimension", "posterior spread")
OF_VAES = ("hierarchy ratio", "likelihood path", "likelihood regret")
OF_HISTOGRAMS = ("Min-K", "Min-K++", "WAIC")
WITHOUT_DRAWS = ("complexity only", "mean intensity", "contrast", *OF_HISTOGRAMS)


def density_of(name: str) -> lj.Density:
    """The density that a score is tried on."""
    if name == "last scale":
        return glow(scales=2)
    if name in OF_DIFFUSIONS:
        return vdm()
    if name in OF_HISTOGRAMS:
        return HISTOGRAM
    return vae() if name.startswith(OF_VAES) else glow()


ROWS = 20
"""Rows of the batches that are computed, so that a score has one program for most of its tests."""


@pytest.fixture(scope="module")
def fitted():
    known = {}

    def get(name):
        if name not in known:
            first, second = (
                DIGITS["validation"].take(slice(start, start + 60)) for start in (0, 60)
            )
            score = SCORES[name].fit(density_of(name), first, key=1, batch_size=ROWS)
            known[name] = score.calibrate(second, key=2, batch_size=ROWS)
        return known[name]

    return get


def grouped(x: np.ndarray, group: int) -> np.ndarray:
    return x.reshape(-1, group, *x.shape[1:]) if group > 1 else x


def examples(score: ood.Score, n: int) -> np.ndarray:
    return grouped(DIGITS["test"].examples[: n * score.group], score.group)


# --- properties of every score


def test_every_public_score_has_a_line():
    kinds = [each for each in vars(ood).values() if isinstance(each, type)]
    public = {kind for kind in kinds if issubclass(kind, ood.Score)} - {ood.Score}
    assert public <= {type(score) for score in SCORES.values()}


@pytest.mark.parametrize("name", SCORES)
def test_shape_type_and_batches(name, fitted):
    """Any batch shape, float64; a batch is its pieces, in any order and with any neighbors."""
    score, x = fitted(name), examples(SCORES[name], ROWS)
    group = SCORES[name].group
    keys = lj.example_keys(3, np.arange(ROWS * group))
    keys = keys if group == 1 else keys.reshape(ROWS, group)
    whole = score(x, key=keys)
    assert whole.dtype == np.float64
    assert whole.shape == (ROWS,)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(score(x, key=3), whole, rtol=1e-12)
    square = score(x.reshape(4, 5, *x.shape[1:]), key=keys.reshape(4, 5, *keys.shape[1:]))
    np.testing.assert_array_equal(square.reshape(-1), whole)
    # typicality is a small difference of log-probabilities, which law 1 holds to 5e-6 of their size
    other_shapes = {"rtol": 1e-4, "atol": 2e-5}
    pieces = [score(x[i : i + 1], key=keys[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(pieces, whole[:6], **other_shapes)
    order = np.random.default_rng(0).permutation(ROWS)
    np.testing.assert_array_equal(score(x[order], key=keys[order]), whole[order])
    neighbors = x.copy()
    neighbors[1:] = 16 - neighbors[1:]
    assert score(neighbors, key=keys)[0] == whole[0]
    np.testing.assert_allclose(score(x, key=keys, batch_size=12), whole, **other_shapes)
    assert score(x[:0], key=keys[:0]).shape == (0,)


@pytest.mark.parametrize("name", SCORES)
def test_compiled_whole(name, fitted):
    """``jax.jit`` of a call, with the score as an argument, is the call."""
    score, x = fitted(name), examples(SCORES[name], ROWS)
    key = jax.random.key(3)
    compiled = jax.jit(lambda score, x, key: score(x, key=key))(score, x, key)
    np.testing.assert_allclose(compiled, score(x, key=key), rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_saved_and_restored(name, fitted, tmp_path):
    score, x = fitted(name), examples(SCORES[name], ROWS)
    score.save(tmp_path / "score")
    hand_made = {"background": BACKGROUND} if "background" in score.densities else {}
    if name in (*OF_DIFFUSIONS, *OF_HISTOGRAMS):
        hand_made["density"] = density_of(name)
    hand_made |= {"ensemble": ENSEMBLE} if "ensemble" in score.densities else {}
    again = ood.restore(tmp_path / "score", **hand_made)
    np.testing.assert_array_equal(again(x, key=3), score(x, key=3))
    np.testing.assert_array_equal(again.p_value(x, key=3), score.p_value(x, key=3))
    assert again.threshold(0.2) == score.threshold(0.2)
    assert again.recipe.label == score.recipe.label
    with pytest.raises(ValueError, match="share no examples"):
        again.calibrate(DIGITS["validation"].take(slice(0, 60)), key=0)
    moved = jax.tree.map(lambda leaf: leaf, score)
    np.testing.assert_array_equal(moved.calibration, score.calibration)
    moved.save(tmp_path / "moved")
    with pytest.raises(ValueError, match="share no examples"):
        moved.calibrate(DIGITS["validation"].take(slice(0, 60)), key=0)
    record = tmp_path / "score" / "score.json"
    text = record.read_text()
    record.write_text(text.replace('"class": "', '"class": " ', 1))
    with pytest.raises(lj.train.CheckpointError, match=r"score\.json does not have the checksum"):
        ood.restore(tmp_path / "score", **hand_made)
    record.write_text(text)
    (tmp_path / "score" / "score.npz").write_bytes(b"PK")
    with pytest.raises(lj.train.CheckpointError, match="checksum"):
        ood.restore(tmp_path / "score", **hand_made)
    with pytest.raises(lj.train.CheckpointError, match="holds no intact score"):
        ood.restore(tmp_path)


@pytest.mark.parametrize("name", SCORES)
def test_calibration(name, fitted):
    score = fitted(name)
    n = 60 // SCORES[name].group
    assert len(score.calibration) == n
    assert score.threshold(0.25) == score.calibration[-math.floor(0.25 * (n + 1))]
    own = grouped(DIGITS["validation"].examples[60:120], SCORES[name].group)
    np.testing.assert_array_equal(np.sort(score(own, key=2, batch_size=ROWS)), score.calibration)
    p = score.p_value(examples(SCORES[name], ROWS), key=3)
    assert ((p > 0) & (p <= 1)).all()
    fit_on = DIGITS["validation"].take(slice(0, 60))
    raw = SCORES[name].fit(density_of(name), fit_on, key=1, batch_size=ROWS)
    with pytest.raises(ValueError, match=r"call score = score\.calibrate"):
        raw.threshold(0.1)
    with pytest.raises(ValueError, match=r"60 of the 60 of .* the rows the score was fitted on"):
        raw.calibrate(fit_on, key=2)


@pytest.mark.parametrize("name", SCORES)
def test_false_alarms_follow_their_law(name, fitted):
    """Of 200 cuts of 400 inside scores into 99 to calibrate with and 301 new ones.

    Random cuts are exchangeable, whatever the scores are. So the number of false alarms at .05 is
    beta-binomial with ``k = .05 (99 + 1) = 5``, exactly so without ties. Randomized p-values keep
    its mean with ties, and spread no more; plain ones only lower the rate.
    """
    n, m, cuts, fpr, group = 99, 301, 200, 0.05, SCORES[name].group
    pool = grouped(DIGITS["train"].examples[: (n + m) * group], group)
    scores = fitted(name)(pool, key=6, batch_size=ROWS)
    assert np.isfinite(scores).all()
    law = stats.betabinom(m, 5, n + 1 - 5)
    low, high = law.ppf([0.025, 0.975])
    inside = law.cdf(high) - law.cdf(low - 1)  # .95 or a little more: the law has steps
    # cuts are independent: 4 standard errors of the mean of 200 rates, and of the share of those
    # in the interval. They are .007, less than the .01 of a wrong rank, and .06
    error = law.std() / m / math.sqrt(cuts)
    least = inside - 4 * math.sqrt(inside * (1 - inside) / cuts)

    def assert_lawful(alarms: np.ndarray) -> None:
        assert abs(alarms.mean() / m - fpr) < 4 * error
        assert np.mean((alarms >= low) & (alarms <= high)) >= least

    rng = np.random.default_rng(0)
    alarms = []
    for cut in range(cuts):
        calibration, new = np.split(rng.permutation(scores), [n])
        alarms.append(np.sum(ood.p_values(calibration, new, seed=cut) <= fpr))
    assert_lawful(np.array(alarms))
    plain = m * ood.false_alarm_rates(scores, calibration=n, test=m, fpr=fpr, repeats=cuts, seed=1)
    if len(np.unique(scores)) == len(scores):
        assert_lawful(plain)
    assert plain.mean() / m < fpr + 4 * error


@pytest.mark.parametrize("name", SCORES)
def test_wrong_input(name, fitted):
    score = fitted(name)
    with pytest.raises(
        ValueError, match=r"expected x of shape \(\*batch, .*8, 8, 1\), got \(2, 7, 8, 1\)"
    ):
        score(np.zeros((2, 7, 8, 1), np.uint8), key=0)
    if name not in WITHOUT_DRAWS:
        with pytest.raises(ValueError, match="random draws: pass key="):
            score(examples(SCORES[name], 2))
    with pytest.raises(ValueError, match="expected examples of shape"):
        SCORES[name].fit(density_of(name), lj.load("photographs", split="test"), key=0)


# --- what each computes


def test_hierarchy_ratio(fitted):
    """The difference of the bounds, with shared or independent noise; what it needs."""
    x, key = DIGITS["test"].examples[:20], jax.random.key(5)
    above = np.asarray(vae().log_prob_above(x, key=key, replacement="mean"), np.float64)
    np.testing.assert_allclose(
        fitted("hierarchy ratio")(x, key=key), above[0] - above[1], rtol=1e-4, atol=1e-3
    )
    drawn = np.asarray(vae().log_prob_above(x, 1, key=key, draws=2), np.float64)
    independent = fitted("hierarchy ratio by draws")(x, key=key)
    shared = np.asarray(vae().log_prob(x, key=key, draws=2), np.float64) - drawn
    assert not np.allclose(independent, shared, rtol=1e-3)
    inside = DIGITS["validation"].take(slice(0, 40))
    with pytest.raises(ValueError, match="more than k=2 latents, got 2"):
        ood.HierarchyRatio(k=2).fit(vae(), inside, key=0)
    with pytest.raises(ValueError, match="expected a VAE for a ratio"):
        ood.HierarchyRatio().fit(glow(), inside, key=0)
    with pytest.raises(ValueError, match="k to be an integer of at least 1"):
        ood.HierarchyRatio(k=0)
    assert ood.choose_k(vae(), inside, key=0) == 1


def test_choice_of_k():
    """The largest k that costs inside data little: all where nothing is lost, else 1."""
    stages = tuple(
        lj.models.StageConfig(channels=(4,), strides=(1,), latent=2, dense=False) for _ in range(3)
    )
    density = _vae(event_shape=(8, 8, 1), stages=stages)
    inside = DIGITS["validation"].take(slice(0, 40))
    bounds = np.asarray(density.log_prob_above(inside.examples, key=0, replacement="mean")).mean(1)
    lost = (bounds[0] - bounds) / abs(bounds[0])
    assert ood.choose_k(density, inside, key=0, loss=float(lost.max()) + 1e-3) == 2
    assert ood.choose_k(density, inside, key=0, loss=float(lost[1:].min()) - 1e-3) == 1


def test_collapsed_latents():
    """Posteriors equal to the prior: the ratio warns, and no k can be chosen."""
    top = vae().inference[1].posterior.layer
    dead = replace(top, scale=nnx.Param(0 * top.scale[...]), bias=nnx.Param(0 * top.bias[...]))
    stage = replace(vae().inference[1], posterior=replace(vae().inference[1].posterior, layer=dead))
    density = replace(vae(), inference=nnx.List([vae().inference[0], stage]))
    inside = DIGITS["validation"].take(slice(0, 40))
    with pytest.warns(
        UserWarning, match=r"collapsed, .* latent 2 \(0\.00 nats\)\. .* rests on no latent at all"
    ):
        ood.HierarchyRatio().fit(density, inside, key=0)
    with pytest.raises(ValueError, match="upper latents are alive"):
        ood.choose_k(density, inside, key=0)


def test_a_dead_latent_beside_a_live_one():
    """A live latent hides no dead one beside it, and k may not rest on dead ones alone."""
    stages = tuple(
        lj.models.StageConfig(channels=(4,), strides=(1,), latent=2, dense=False) for _ in range(3)
    )
    density = _vae(event_shape=(8, 8, 1), stages=stages)
    inside = DIGITS["validation"].take(slice(0, 40))
    keys = lj.example_keys(jax.random.key(0), np.arange(40))
    divergences = ood.LatentKL()({"density": density}, inside.examples, keys)
    assert divergences.shape == (40, 3)
    parts = density.terms(inside.examples, key=0).parts
    summed = np.asarray(parts["kl_2"]).reshape(40, -1).sum(1)
    np.testing.assert_allclose(divergences[:, 1], summed, rtol=1e-5)
    assert np.asarray(divergences).mean(0).min() > 1  # alive before the top is killed
    stage = density.inference[2]
    layer = stage.posterior.layer
    dead = replace(
        layer, scale=nnx.Param(0 * layer.scale[...]), bias=nnx.Param(0 * layer.bias[...])
    )
    top = replace(stage, posterior=replace(stage.posterior, layer=dead))
    half_dead = replace(density, inference=nnx.List([*density.inference[:2], top]))
    with pytest.warns(
        UserWarning, match=r"latent 3 \(0\.00 nats\)\. .* rests on the other latents above k"
    ):
        ood.HierarchyRatio(k=1).fit(half_dead, inside, key=0)
    with pytest.warns(UserWarning, match="rests on no latent at all"):
        ood.HierarchyRatio(k=2).fit(half_dead, inside, key=0)
    assert ood.choose_k(half_dead, inside, key=0, loss=0.99) == 1  # 2 would rest on the dead one


def test_each_from_its_definition(fitted):
    x, key = DIGITS["test"].examples[:20], jax.random.key(5)
    log_prob = np.asarray(glow().log_prob(x, key=key), np.float64)
    np.testing.assert_allclose(fitted("negative log-likelihood")(x, key=key), -log_prob, rtol=1e-6)
    three = np.asarray(glow().log_prob(x, key=key, draws=3))
    np.testing.assert_allclose(
        fitted("negative log-likelihood, 3 draws")(x, key=key), -three, rtol=1e-6
    )
    entropy = -np.mean(
        np.asarray(glow().log_prob(DIGITS["validation"].examples[:60], key=1), np.float64)
    )
    assert fitted("typicality").state["entropy"] == pytest.approx(entropy, rel=1e-6)
    np.testing.assert_allclose(
        fitted("typicality")(x, key=key), np.abs(-log_prob - entropy), rtol=1e-4, atol=1e-3
    )
    ratio = np.asarray(BACKGROUND.log_prob(x), np.float64) - log_prob
    np.testing.assert_allclose(fitted("likelihood ratio")(x, key=key), ratio, rtol=1e-5, atol=1e-3)
    bits = np.array([8.0 * len(encode(image)) for image in x])
    np.testing.assert_allclose(fitted("complexity only")(x), bits / 64)
    expected = (-log_prob / np.log(2) - bits) / 64  # in bits: nats divided by ln 2
    np.testing.assert_allclose(
        fitted("input complexity")(x, key=key), expected, rtol=1e-5, atol=1e-5
    )
    groups = np.abs(
        (-log_prob[:18]).reshape(6, 3).mean(1) - fitted("typicality of 3").state["entropy"]
    )
    np.testing.assert_allclose(
        fitted("typicality of 3")(x[:18].reshape(6, 3, 8, 8, 1), key=key),
        groups,
        rtol=1e-4,
        atol=1e-3,
    )


class StandardNormal(lj.Density):
    """N(0, I) in many dimensions."""

    kind = lj.Kind.EXACT

    def __init__(self, dimensions: int, mean: float = 0.0):
        self.event_shape = (dimensions,)
        self.mean = mean

    def _log_prob(self, x, key, condition):
        return -0.5 * jnp.sum((x - self.mean) ** 2 + math.log(2 * math.pi))

    def _sample(self, key, condition, temperature):
        return self.mean + temperature * jax.random.normal(key, self.event_shape)


def test_gaussian_typicality_oracle():
    """N(0, I_3072): log p(0) = -2822.979, E log p = -4358.979, gap D/2 = 1536 nats.

    See reference/ood.md, section 7.
    """
    density = StandardNormal(3072)
    inside = lj.Dataset.from_array(np.asarray(density.sample(0, 2000)))
    origin = np.zeros((1, 3072), np.float32)
    assert float(density.log_prob(origin)[0]) == pytest.approx(-2822.979, abs=2e-3)
    raw = ood.NegativeLogProb().fit(density, inside)
    typical = ood.Typicality().fit(density, inside)
    assert typical.state["entropy"] == pytest.approx(4358.979, abs=4 * 39.192 / math.sqrt(2000))
    assert typical(origin)[0] == pytest.approx(1536, abs=4 * 39.192 / math.sqrt(2000))
    samples = np.asarray(density.sample(1, 500))
    assert raw(samples).std() == pytest.approx(39.192, rel=4 / math.sqrt(2 * 500))  # sqrt(D / 2)
    assert raw(origin)[0] < raw(samples).min()  # the raw score prefers the origin
    assert typical(origin)[0] > typical(samples).max()
    shifted = np.asarray(StandardNormal(3072, mean=0.05).sample(2, 500)).reshape(50, 10, 3072)
    group = ood.Typicality(group=10).fit(density, inside)
    single = ood.auroc(typical(samples), typical(shifted.reshape(500, 3072)))
    grouped = ood.auroc(group(samples.reshape(50, 10, 3072)), group(shifted))
    assert grouped > single


def test_ratio_oracles():
    """Against itself the ratio is 0, bitwise; of two Gaussians it is the known line."""
    inside = DIGITS["validation"]
    same = ood.LikelihoodRatio(glow()).fit(glow(), inside, key=0)
    np.testing.assert_array_equal(same(DIGITS["test"].examples[:5], key=1), np.zeros(5))
    points = lj.Dataset.from_array(RNG.normal(size=(20, 4)).astype(np.float32))
    ratio = ood.LikelihoodRatio(StandardNormal(4, mean=1.0)).fit(StandardNormal(4), points)
    np.testing.assert_allclose(
        ratio(points.examples), points.examples.sum(1) - 2, rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="expected examples of shape"):
        ood.LikelihoodRatio(StandardNormal(3)).fit(StandardNormal(4), points)


def test_a_conditional_density_is_refused():
    conditional = _glow(scales=1, depth=1, num_classes=10)
    with pytest.raises(ValueError, match="expected an unconditional density"):
        ood.NegativeLogProb().fit(conditional, DIGITS["validation"], key=0)


def test_draws_of_a_bound_tighten_the_score(fitted):
    x = DIGITS["test"].examples[:100]
    one, three = (
        fitted(n)(x, key=9).mean()
        for n in ("negative log-likelihood", "negative log-likelihood, 3 draws")
    )
    assert three < one


# --- the code


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (1, 1, 1), (28, 28, 1), (2, 9, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_code_is_lossless(shape, dtype):
    top = np.iinfo(dtype).max
    smooth = np.cumsum(RNG.integers(0, 5, shape), axis=1).astype(dtype)
    for image in (
        RNG.integers(0, top, shape, dtype, endpoint=True),
        smooth,
        np.full(shape, 7, dtype),
    ):
        code = encode(image)
        np.testing.assert_array_equal(decode(code, shape, dtype), image)


def test_code_lengths_are_bits_and_order_images():
    """Constant is far shorter than smooth, smooth than noise; noise costs little over 8 bits."""
    constant, noise = (
        np.full((1, 32, 32, 3), 9, np.uint8),
        RNG.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8),
    )
    photograph = lj.load("photographs").examples[:1]
    lengths = [ood.code_lengths(image)[0] for image in (constant, photograph, noise)]
    assert lengths[0] < 0.05 * lengths[1] < 0.05 * lengths[2]
    assert 8 * 3072 <= lengths[2] < 8 * 3072 * 1.03
    assert all(length % 8 == 0 for length in lengths)
    with pytest.raises(ValueError, match="unsigned integers"):
        encode(np.zeros((4, 4, 1), np.int32))


def test_mutation_changes_the_expected_share():
    """At rate .2 with offsets in 0..255 a share of .19921875 changes, uniformly."""
    data = lj.Dataset.from_array(np.full((400, 28, 28), 200, np.uint8))
    mutated = data.mutate(0.2, 0)
    changed = mutated.examples != 200
    assert abs(changed.mean() - 0.2 * 255 / 256) < 4 * math.sqrt(0.16 / changed.size)
    values = np.bincount(mutated.examples[changed], minlength=256)
    assert values[200] == 0
    assert abs(values[:200].mean() / values[201:].mean() - 1) < 0.1
    np.testing.assert_array_equal(mutated.examples, data.mutate(0.2, 0).examples)
    assert mutated.provenance[-1] == "mutated at rate 0.2 with seed 0"
    assert dataclasses.replace(mutated, examples=data.examples).fingerprint() == data.fingerprint()


# --- saved scores


@dataclasses.dataclass(frozen=True, eq=False)
class Contrast(ood.Score):
    """A user's score: how far a log-ratio lies from its median."""

    other: lj.Density
    weights: tuple[float, ...] = (1.0,)

    @property
    def features(self):
        return ood.LogProb(), ood.LogProb(density="other")

    def statistic(self, compute, event_shape):
        return self.weights[0] * (compute(self.features[1]) - compute(self.features[0]))

    def learn(self, statistics):
        return {"median": float(np.median(statistics))}

    def group_score(self, state, statistics):
        return abs(statistics[:, 0] - state["median"])


GAUSSIANS = [
    lj.models.FullGaussian.fit(lj.Dataset.from_array(RNG.normal(size=(50, 2)).astype(np.float32)))
    for _ in range(2)
]


@dataclasses.dataclass(frozen=True)
class OfAFunction(ood.Score):
    """A user's score that takes a function for a feature."""

    features = (np.mean,)


def test_a_function_is_no_feature():
    points = np.zeros((4, 2), np.float32)
    with pytest.raises(TypeError, match=r"OfAFunction\.features to hold likejax\.ood\.Feature"):
        OfAFunction().fit(GAUSSIANS[0], points)


def test_a_score_from_outside_is_saved_and_restored(tmp_path):
    """Its settings, a density in a field and what it learned come back, the class by its path."""
    points = RNG.normal(size=(60, 2)).astype(np.float32)
    recipe = Contrast(GAUSSIANS[1], weights=[2.0, 3.0])
    score = recipe.fit(GAUSSIANS[0], points[:30]).calibrate(points[30:])
    assert (
        repr(score) == "FittedScore('Contrast' of FullGaussian, fitted on 30, calibrated with 30)"
    )
    score.save(tmp_path)
    record = json.loads((tmp_path / "score.json").read_text())
    assert record["score"] == {"class": f"{__name__}:Contrast", "weights": [2.0, 3.0]}
    assert record["companions"] == {"other": "other"}
    given = dict(zip(("density", "other"), GAUSSIANS, strict=True))
    again = ood.restore(tmp_path, **given)
    np.testing.assert_array_equal(again.p_value(points), score.p_value(points))
    assert (again.state, again.recipe.weights) == (score.state, (2.0, 3.0))


def test_a_score_of_a_module_that_is_not_imported(tmp_path, monkeypatch):
    """The error names the import that helps; a record does not choose what is imported."""
    module = types.ModuleType("somebodys_scores")
    kind = type("Mine", (ood.NegativeLogProb,), {"__module__": module.__name__})
    module.Mine = dataclasses.dataclass(frozen=True)(kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    score = module.Mine().fit(GAUSSIANS[0], RNG.normal(size=(9, 2)).astype(np.float32))
    score.save(tmp_path)
    assert isinstance(ood.restore(tmp_path, density=GAUSSIANS[0]).recipe, module.Mine)
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(ValueError, match="import somebodys_scores"):
        ood.restore(tmp_path, density=GAUSSIANS[0])


def test_a_ratio_of_layout_2_is_read(tmp_path):
    """Records of version 0.6 name a score in words, and the background by its folder."""
    points = RNG.normal(size=(9, 2)).astype(np.float32)
    score = ood.LikelihoodRatio(GAUSSIANS[1], title="broad").fit(GAUSSIANS[0], points)
    record = {
        "score": "likelihood ratio",
        "settings": {"draws": 1, "title": "broad"},
        "state": {},
    }
    write_folder(tmp_path, Saved(record, {}, dict(score.densities)))
    given = {"density": GAUSSIANS[0], "background-broad": GAUSSIANS[1]}
    again = ood.restore(tmp_path, **given)
    assert again.recipe.label == "likelihood ratio (broad)"
    np.testing.assert_array_equal(again(points), score(points))


# --- what scores refuse


class Exclusive(lj.Density):
    """A density on points that gives those on one side no probability."""

    event_shape = (2,)
    kind = lj.Kind.EXACT

    def __init__(self, sign: float = 1.0):
        self.sign = sign

    def _log_prob(self, x, key, condition):
        return jnp.where(self.sign * x[0] > 0, -jnp.sum(x * x), -jnp.inf)

    def _sample(self, key, condition, temperature):
        return jnp.abs(jax.random.normal(key, self.event_shape)) * self.sign


POINTS = lj.Dataset.from_array(np.abs(RNG.normal(size=(60, 2))).astype(np.float32), name="points")


def test_impossible_examples():
    """One excluded by a density ranks highest; one excluded by both of a ratio has no score."""
    density, impossible = Exclusive(), np.array([[-1.0, 1.0], [2.0, 1.0]], np.float32)
    raw = (
        ood.NegativeLogProb()
        .fit(density, POINTS.take(slice(0, 30)))
        .calibrate(POINTS.take(slice(30, 60)))
    )
    np.testing.assert_array_equal(raw(impossible), [np.inf, 5.0])
    assert raw.p_value(impossible)[0] == 1 / 31
    typical = ood.Typicality().fit(density, POINTS)
    assert typical(impossible)[0] == np.inf
    ratio = (
        ood.LikelihoodRatio(Exclusive())
        .fit(density, POINTS.take(slice(0, 30)))
        .calibrate(POINTS.take(slice(30, 60)))
    )
    np.testing.assert_array_equal(np.isnan(ratio(impossible)), [True, False])
    with pytest.raises(ValueError, match="likelihood ratio is NaN for row 0"):
        ratio.p_value(impossible)
    options = {
        "inside": dataclasses.replace(POINTS.take(slice(0, 20)), split="test"),
        "held_out": POINTS.take(slice(20, 60)),
    }
    outside = lj.Dataset.from_array(impossible, name="left")
    scores = [ood.NegativeLogProb(), ood.LikelihoodRatio(Exclusive())]
    with pytest.raises(ValueError, match="likelihood ratio is NaN for row 0 of the set left"):
        ood.benchmark(density, outside=[outside], scores=scores, key=0, resamples=2, **options)
    report = ood.benchmark(
        density, outside=[outside], scores=scores[:1], key=0, resamples=2, **options
    )
    assert (report.sets[1].mean, np.isnan(report.sets[1].deviation)) == (np.inf, True)
    assert "inf" in report.to_markdown()


def test_an_evaluation_says_that_examples_are_impossible():
    """Infinite bits and no error bar, without a numpy warning; two of them do not compare."""
    mixed = lj.Dataset.from_array(np.array([[-1.0, 1.0], [2.0, 1.0]], np.float32), name="mixed")
    evaluation = lj.evaluate(Exclusive(), mixed)
    assert (evaluation.mean, evaluation.impossible) == (-np.inf, 1)
    assert (
        str(evaluation) == "log p = -inf ± nan nats (exact, n = 2, 1 of probability 0, mixed train)"
    )
    with pytest.raises(
        ValueError, match="1 have probability 0 under the first and 1 under the second"
    ):
        lj.compare(evaluation, evaluation)


@pytest.mark.parametrize(
    "score", [ood.Typicality(), ood.NegativeLogProb(), ood.LikelihoodRatio(Exclusive())]
)
def test_infinities_are_not_fitted(score):
    """The error says which score, which rows and what; no numpy warning, no infinite entropy."""
    left = lj.Dataset.from_array(
        np.concatenate([POINTS.examples[:3], -POINTS.examples[:2]]), name="both sides"
    )
    with pytest.raises(
        ValueError,
        match=rf"{score.label} is finite, it is (inf|nan) for 2 rows \(3, 4\) of the 5 to fit",
    ):
        score.fit(Exclusive(), left)


class Nameless(lj.Density):
    """A density of a user who forgot to say what its number is."""

    event_shape = (2,)

    def _log_prob(self, x, key, condition):
        return -jnp.sum(x * x)

    def _sample(self, key, condition, temperature):
        return jnp.zeros(self.event_shape)


BACKGROUND_EXPERIMENT = lj.Experiment(model=lj.models.VectorGlowConfig(depth=1, width=4), steps=1)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ood.HierarchyRatio(replacement="mode"),
            ValueError,
            "HierarchyRatio.replacement to be 'sample' or",
        ),
        (
            lambda: ood.HierarchyRatio(shared_noise="no"),
            TypeError,
            "shared_noise to be True or False",
        ),
        (
            lambda: ood.Typicality(group=-1),
            ValueError,
            "Typicality.group to be an integer of at least 1",
        ),
        (
            lambda: ood.NegativeLogProb(draws=0),
            ValueError,
            "NegativeLogProb.draws to be an integer of at least 1",
        ),
        (lambda: ood.InputComplexity(drawz=2), TypeError, "did you mean 'draws'"),
        (
            lambda: ood.LikelihoodRatio("background"),
            TypeError,
            r"LikelihoodRatio\.background to be of type Density",
        ),
        (
            lambda: ood.LikelihoodRatio(Nameless()).fit(Exclusive(), POINTS),
            TypeError,
            "Nameless sets no kind",
        ),
        (
            lambda: ood.choose_k(vae(), DIGITS["validation"], key=0, replacement="mode"),
            ValueError,
            "replacement to be",
        ),
        (
            lambda: ood.choose_k(vae(), DIGITS["validation"], key=0, loss=math.nan),
            ValueError,
            "expected loss to be",
        ),
        (lambda: ood.choose_k(vae(), "digits", key=0), TypeError, "Dataset"),
        (
            lambda: ood.choose_k(HISTOGRAM, DIGITS["validation"], key=0),
            ValueError,
            "expected a VAE",
        ),
        (lambda: ood.Typicality().fit(Nameless(), POINTS), TypeError, "Nameless sets no kind"),
        (lambda: ood.Typicality().fit(Exclusive, POINTS), TypeError, "expected a density"),
        (lambda: ood.Typicality().fit(Exclusive(), "points"), TypeError, "Dataset"),
        (
            lambda: ood.Typicality().fit(Exclusive(), POINTS, batch_size=0),
            ValueError,
            "batch_size to be an integer",
        ),
        (
            lambda: ood.Typicality().fit(Exclusive(), POINTS)(POINTS),
            TypeError,
            r"pass its \.examples",
        ),
        (
            lambda: ood.Typicality().fit(Exclusive(), POINTS)(POINTS.examples, batch_size=-1),
            ValueError,
            "batch_size",
        ),
        (
            lambda: ood.Typicality().fit(Exclusive(), POINTS).threshold(0.1),
            ValueError,
            r"call score = score\.calibrate",
        ),
        (
            lambda: ood.code_lengths(DIGITS["test"]),
            TypeError,
            "expected images to be an array of numbers, got Dataset",
        ),
        (
            lambda: ood.code_lengths(DIGITS["test"].examples[0]),
            ValueError,
            "expected images of shape",
        ),
        (
            lambda: ood.code_lengths(np.zeros((2, 4, 4, 1))),
            ValueError,
            "expected unsigned integers",
        ),
        (lambda: ood.restore("nowhere", density="glow"), TypeError, "expected a density, got str"),
        (
            lambda: ood.fit_background(BACKGROUND_EXPERIMENT, POINTS, key=0),
            ValueError,
            "integer images as train",
        ),
        (
            lambda: ood.fit_background(BACKGROUND_EXPERIMENT, POINTS.examples, key=0),
            ValueError,
            "integer images as train",
        ),
        (
            lambda: ood.fit_background("glow/digits", DIGITS["train"], key=0),
            TypeError,
            "expected experiment to be of type",
        ),
    ],
)
def test_mistakes_get_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()

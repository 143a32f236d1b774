"""Forensics: per-dimension terms, curvature, conditional discrepancy, and the order of training."""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import likejax as lj
from likejax import ood
from likejax.ood.lossless import code_length_maps
from likejax.train import feed
from tests.registry import _gaussian, _pixelcnn, perturbed

RNG = np.random.default_rng(0)
DIGITS = {split: lj.load("digits", split=split) for split in ("train", "validation", "test")}
HISTOGRAM = lj.models.PixelHistogram.fit(DIGITS["train"])
OF_LABELS = lj.models.NaiveBayes.fit(DIGITS["train"])


@functools.cache
def pixelcnn() -> lj.models.PixelCNN:
    return perturbed(_pixelcnn(event_shape=(2, 2, 3), levels=5, resolutions=1))


@functools.cache
def colors() -> np.ndarray:
    return np.asarray(pixelcnn().sample(0, 5))


def even(shape=(2, 2, 1), levels: int = 4) -> lj.models.PixelHistogram:
    """The uniform distribution on integers."""
    return lj.models.PixelHistogram(jnp.full((*shape, levels), -math.log(levels)))


@functools.cache
def all_values() -> np.ndarray:
    """``log p(v | those before)`` of every value of every sub-pixel of five images."""
    tables = []
    for place in range(12):
        for value in range(5):
            changed = colors().reshape(5, 12).copy()
            changed[:, place] = value
            maps = np.asarray(pixelcnn().log_prob_map(changed.reshape(5, 2, 2, 3)))
            tables.append(maps.reshape(5, 12)[:, place])
    return np.stack(tables, -1).reshape(5, 12, 5).astype(np.float64)


# --- per-dimension terms of densities


def test_moments_are_those_of_all_values():
    """Brute force over the levels of every sub-pixel, which sum to 1."""
    x, table = colors(), all_values()
    mass = np.exp(table)
    np.testing.assert_allclose(mass.sum(-1), 1, atol=1e-5)
    mean = (mass * table).sum(-1)
    std = np.sqrt((mass * (table - mean[..., None]) ** 2).sum(-1))
    found = [np.asarray(each).reshape(5, -1) for each in pixelcnn().token_moments(x)]
    np.testing.assert_allclose(found[0], mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], std, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [HISTOGRAM, lj.condition(OF_LABELS, 3)])
def test_maps_of_independent_entries(density):
    x = DIGITS["test"].examples[:4]
    maps = np.asarray(density.log_prob_map(x))
    assert maps.shape == x.shape
    np.testing.assert_allclose(maps.sum((1, 2, 3)), density.log_prob(x), rtol=1e-5)
    table = getattr(density, "density", density).log_probs[...]
    table = np.asarray(table[3] if table.ndim == 5 else table, np.float64)
    mean, std = (np.asarray(each) for each in density.token_moments(x))
    expected = (np.exp(table) * table).sum(-1)
    np.testing.assert_allclose(mean, np.broadcast_to(expected, x.shape), rtol=1e-5, atol=1e-6)
    square = (np.exp(table) * table**2).sum(-1) - expected**2
    np.testing.assert_allclose(std**2, np.broadcast_to(square, x.shape), rtol=1e-3, atol=1e-5)


def test_a_value_of_mass_zero_adds_nothing():
    table = jnp.log(jnp.array([[0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0], [0.7, 0.0, 0.3, 0.0]]))
    density = lj.models.PixelHistogram(table)
    mean, std = density.token_moments(np.array([1, 0, 0], np.uint8))
    h = 0.7 * math.log(0.7) + 0.3 * math.log(0.3)
    spread = math.sqrt(0.7 * 0.3) * math.log(0.7 / 0.3)
    np.testing.assert_allclose(mean, [math.log(0.5), 0, h], atol=1e-6)
    np.testing.assert_allclose(std, [0, 0, spread], atol=1e-6)


def test_who_offers_them():
    dequantized = lj.models.Dequantized(lj.models.Uniform((2, 2, 1)), 4)
    for query in ("log_prob_map", "token_moments"):
        assert pixelcnn().offers(query)
        assert lj.condition(OF_LABELS, 1).offers(query)
        assert not dequantized.offers(query)
        assert not _gaussian().offers(query)
    x = np.zeros((2, 2, 2, 1), np.uint8)
    with pytest.raises(TypeError, match=r"log prob map, Dequantized has none: .* log_prob\(x\)"):
        dequantized.log_prob_map(x)
    with pytest.raises(TypeError, match="token moments, Dequantized has none"):
        dequantized.token_moments(x)
    for score in (ood.MinK(), ood.MinKPlus()):
        with pytest.raises(ValueError, match=r"Curvature\(scale\) takes any density"):
            score.fit(dequantized, x, key=0)


# --- Min-K% and Min-K%++


def test_min_k_from_its_definition():
    density = pixelcnn()
    x = colors()
    maps = np.sort(np.asarray(density.log_prob_map(x), np.float64).reshape(5, 12), axis=1)
    for percent, count in ((1, 1), (20, 2), (50, 6), (100, 12)):
        score = ood.MinK(percent=percent).fit(density, x)
        np.testing.assert_allclose(score(x), -maps[:, :count].mean(1), rtol=1e-5)
    assert ood.MinK(percent=7).label == "Min-K, 7 %"
    table = all_values()
    mean = (np.exp(table) * table).sum(-1)
    std = np.sqrt((np.exp(table) * (table - mean[..., None]) ** 2).sum(-1))
    own = np.take_along_axis(table, x.reshape(5, 12, 1).astype(int), 2)[..., 0]
    expected = -np.sort((own - mean) / std, axis=1)[:, :2].mean(1)
    score = ood.MinKPlus().fit(density, x)
    np.testing.assert_allclose(score(x), expected, rtol=1e-4)


def test_standardized_terms_of_samples_have_mean_0_and_variance_1():
    """reference/ood.md, section 7, oracle 13."""
    x = np.asarray(pixelcnn().sample(1, 400))
    terms = np.asarray(ood.StandardizedMap()({"density": pixelcnn()}, x, None), np.float64)
    count = terms.size
    assert abs(terms.mean()) < 4 / math.sqrt(count)
    # the terms are a martingale with variance 1 each; the fourth moment gives the error
    error = (terms**2).std() / math.sqrt(count)
    assert abs((terms**2).mean() - 1) < 4 * error


@pytest.mark.parametrize("levels", [3, 4, 17, 256])
def test_a_uniform_distribution_has_no_standard_deviation(levels):
    """All values are equally likely: 0 / 0 is 0."""
    density = even(levels=levels)
    x = RNG.integers(0, levels, (6, 2, 2, 1)).astype(np.uint8)
    score = ood.MinKPlus().fit(density, x)
    np.testing.assert_allclose(score(x), 0, atol=0.02)
    np.testing.assert_allclose(ood.MinK().fit(density, x)(x), math.log(levels), rtol=1e-6)


def test_tokens_are_checked():
    for bad in (0, 101):
        with pytest.raises(ValueError, match="percent to be an integer"):
            ood.MinK(percent=bad)


# --- maps


@pytest.mark.parametrize(
    "recipe",
    [
        ood.NegativeLogProb(),
        ood.LikelihoodRatio(lj.models.PixelHistogram.fit(DIGITS["train"].mutate(0.3, 0))),
        ood.LikelihoodRatio(HISTOGRAM, title="mean", form="mean"),
        ood.InputComplexity(),
        ood.MinK(percent=10),
        ood.MinKPlus(percent=30),
    ],
    ids=lambda recipe: recipe.label,
)
def test_the_parts_of_a_map_sum_to_the_score(recipe):
    density = lj.condition(OF_LABELS, 3)
    score = recipe.fit(density, DIGITS["validation"].take(slice(0, 50)))
    x = DIGITS["test"].examples[:6].reshape(2, 3, 8, 8, 1)
    maps = score.score_map(x)
    assert maps.shape == x.shape
    assert maps.dtype == np.float64
    np.testing.assert_allclose(maps.sum((2, 3, 4)), score(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(score.score_map(x[1, 2]), maps[1, 2])
    assert score.score_map(x[:0]).shape == (0, 3, 8, 8, 1)


def test_maps_show_where():
    """The one changed pixel has the largest part."""
    score = ood.NegativeLogProb().fit(HISTOGRAM, DIGITS["validation"])
    x = DIGITS["test"].examples[:1].copy()
    x[0, 0, 0] = 16  # a corner that is never ink
    assert score.score_map(x).argmax() == 0
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[1, 3, 4] = 9
    maps = code_length_maps(images)
    np.testing.assert_allclose(maps.sum((1, 2, 3)), ood.code_lengths(images))
    assert len(np.unique(maps[0])) == 1
    assert maps[1].argmax() == 3 * 8 + 4


@pytest.mark.untyped
def test_scores_without_parts_have_no_map():
    x = DIGITS["validation"].examples[:20]
    with pytest.raises(ValueError, match=r"typicality is none: .*NegativeLogProb"):
        ood.Typicality().fit(HISTOGRAM, x).score_map(x)
    fitted = ood.NegativeLogProb().fit(HISTOGRAM, x)
    with pytest.raises(TypeError, match=r"pass its \.examples"):
        fitted.score_map(DIGITS["test"])
    with pytest.raises(ValueError, match="expected x of shape"):
        fitted.score_map(x[..., 0])
    continuous = _gaussian()
    points = np.zeros((4, *continuous.event_shape), np.float32)
    with pytest.raises(TypeError, match="FullGaussian has none"):
        ood.NegativeLogProb().fit(continuous, points).score_map(points)


# --- curvature


def test_curvature_of_a_normal():
    """``E d = scale^2 tr(S^-1) / 2`` everywhere; at the mean the spread is known too."""
    root = np.array([[1.0, 0, 0], [0.5, 0.4, 0], [-0.3, 0.2, 0.7]])
    inverse = np.linalg.inv(root @ root.T)
    mean = np.array([1.0, -2.0, 0.5])
    density = lj.models.FullGaussian(jnp.asarray(mean), jnp.asarray(root), (3,))
    scale, draws, rows = 0.3, 64, 60
    x = np.tile(mean, (rows, 1)).astype(np.float32)
    score = ood.Curvature(scale=scale, draws=draws).fit(density, x, key=0)
    expected = scale**2 * np.trace(inverse) / 2
    spread = scale**2 * np.sqrt((inverse**2).sum() / 2)  # of one draw at the mean
    found = -score(x, key=1)
    assert abs(found.mean() - expected) < 4 * spread / math.sqrt(rows * draws)
    away = x + np.array([0.5, 0.2, -0.4], np.float32)
    slope = scale * np.linalg.norm(inverse @ [0.5, 0.2, -0.4])
    error = math.hypot(spread, slope) / math.sqrt(rows * draws)
    assert abs(-score(away, key=2).mean() - expected) < 4 * error
    assert expected > 8 * error  # the test can fail
    assert (score(x, key=1) != score(x, key=2)).all()


def test_standardized_curvature():
    density = even((2, 2, 1), 4)
    x = np.zeros((3, 2, 2, 1), np.uint8)
    score = ood.Curvature(scale=1.0, draws=4, standardize=True).fit(density, x, key=0)
    np.testing.assert_array_equal(score(x, key=1), 0)  # flat: 0 / 0 is 0
    recipe = ood.Curvature(scale=1.0, draws=8)
    plain = recipe.fit(pixelcnn(), colors(), key=0)
    standard = ood.Curvature(scale=1.0, draws=8, standardize=True).fit(pixelcnn(), colors(), key=0)
    keys = lj.example_keys(1, np.arange(5))
    moved = np.asarray(recipe.features[1]({"density": pixelcnn()}, colors(), keys), np.float64)
    drop = np.asarray(pixelcnn().log_prob(colors()), np.float64) - moved.mean(1)
    np.testing.assert_allclose(plain(colors(), key=keys), -drop, rtol=1e-4, atol=1e-4)
    expected = -drop / moved.std(1, ddof=1)
    np.testing.assert_allclose(standard(colors(), key=keys), expected, rtol=1e-4, atol=1e-4)


def test_perturbed_integers_stay_on_their_levels():
    """Log-probability is minus the value, so that the values themselves are seen."""
    levels = 9
    table = -jnp.arange(levels, dtype=jnp.float32)
    density = lj.models.PixelHistogram(jnp.broadcast_to(table, (1, levels)))
    x = np.repeat(np.array([0, 4, 8], np.uint8), 200)[:, None]
    keys = lj.example_keys(0, np.arange(600))
    moved = -ood.PerturbedLogProbs(scale=2.0, draws=3)({"density": density}, x, keys)
    moved = np.asarray(moved).reshape(3, 600)
    assert moved.min() == 0
    assert moved.max() == levels - 1
    np.testing.assert_array_equal(moved, np.rint(moved))
    share = (moved[1] != 4).mean()
    expected = 2 * stats.norm.sf(0.5 / 2.0)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 600)


@pytest.mark.untyped
def test_curvature_is_checked():
    x = np.zeros((3, 2, 2, 1), np.uint8)
    with pytest.raises(ValueError, match=r"at least 0\.5 levels"):
        ood.Curvature(scale=0.1).fit(even(), x, key=0)
    with pytest.raises(ValueError, match="at least 2 draws"):
        ood.Curvature(scale=1.0, draws=1, standardize=True)
    with pytest.raises(ValueError, match="scale to be a number above 0"):
        ood.Curvature(scale=0.0)
    with pytest.raises(ValueError, match="key"):
        ood.Curvature(scale=1.0).fit(even(), x)


# --- conditional discrepancy


@pytest.mark.parametrize("label", [0, 7])
def test_conditional_discrepancy_by_bayes(label):
    """``log p(x | c) - log p(x) = log p(c | x) - log p(c)``."""
    prior = np.log(np.arange(1, 11) / 55).astype(np.float32)
    classifier = lj.Classifier(OF_LABELS, log_prior=prior)
    x = DIGITS["test"].examples[:30]
    recipe = ood.LikelihoodRatio(classifier.mixture, title=f"class {label}")
    score = recipe.fit(lj.condition(OF_LABELS, label), DIGITS["validation"])
    expected = np.asarray(classifier.log_posterior(x))[:, label] - prior[label]
    np.testing.assert_allclose(-score(x), expected, rtol=1e-4, atol=1e-3)
    assert (-score(x) <= -prior[label] + 1e-3).all()


def test_the_discrepancy_of_each_row_with_its_own_label():
    """By Bayes' rule it is the classifier's posterior over the prior."""
    classifier, members = lj.Classifier(OF_LABELS), DIGITS["test"][:30]
    assert members.labels is not None
    said = lj.evaluate(OF_LABELS, members).log_prob
    said = said - lj.evaluate(classifier.mixture, members).log_prob
    posterior = np.asarray(classifier.log_posterior(members.examples))
    own = posterior[np.arange(30), members.labels]
    np.testing.assert_allclose(said, own + np.log(10), rtol=1e-4, atol=1e-3)


@pytest.mark.untyped
def test_a_ratio_per_dimension():
    summed = ood.LikelihoodRatio(OF_UNIFORM).fit(HISTOGRAM, DIGITS["validation"])
    mean = ood.LikelihoodRatio(OF_UNIFORM, form="mean").fit(HISTOGRAM, DIGITS["validation"])
    x = DIGITS["test"].examples[:5]
    np.testing.assert_allclose(mean(x), summed(x) / 64)
    assert mean.recipe.label == "likelihood ratio per dimension"
    with pytest.raises(ValueError, match="form to be 'sum' or 'mean'"):
        ood.LikelihoodRatio(OF_UNIFORM, form="total")  # pyright: ignore[reportArgumentType]


OF_UNIFORM = even((8, 8, 1), 17)


# --- the order of training


def test_the_statistic_is_spearmans():
    values, order = RNG.normal(size=50).round(1), RNG.permutation(50)
    found = ood.order_test(values, order, permutations=20)
    assert found.statistic == pytest.approx(stats.spearmanr(values, order).statistic)
    assert (found.n, found.permutations) == (50, 20)
    assert "n = 50, 20 permutations" in str(found)
    assert ood.order_test(values, order, permutations=20) == found


def test_the_p_value_of_all_permutations_of_few_rows():
    """Among the 24 orders of four rows, one correlates as much as the best, two in size."""
    values = np.array([0.1, 0.2, 0.4, 0.8])
    one_sided = ood.order_test(values, np.arange(4), permutations=4_000)
    two_sided = ood.order_test(values, np.arange(4), permutations=4_000, alternative="two_sided")
    assert one_sided.statistic == pytest.approx(1)
    for found, truth in ((one_sided, 1 / 24), (two_sided, 2 / 24)):
        assert abs(found.p_value - truth) < 4 * math.sqrt(truth / 4_000)
    backwards = ood.order_test(values, -np.arange(4), permutations=100)
    assert backwards.p_value == 1


def test_p_values_of_independent_models_are_uniform():
    rng = np.random.default_rng(1)
    found = [
        ood.order_test(rng.normal(size=20), rng.permutation(20), permutations=99, seed=i).p_value
        for i in range(300)
    ]
    assert stats.kstest(np.array(found) - 0.005, "uniform").pvalue > 0.01
    assert abs(np.mean(np.array(found) <= 0.1) - 0.1) < 4 * math.sqrt(0.09 / 300)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ood.order_test([1.0, 2.0, 3.0], [1, 2]), ValueError, "order of at least 3 rows"),
        (lambda: ood.order_test([1.0, 2.0, 3.0], [1, 2, 3, 4]), ValueError, "got 4"),
        (lambda: ood.order_test([1.0, math.nan, 3.0], [1, 2, 3]), ValueError, "without NaN, 1"),
        (lambda: ood.order_test([1.0, 1.0, 1.0], [1, 2, 3]), ValueError, "all are 1"),
        (lambda: ood.order_test(["a", "b", "c"], [1, 2, 3]), TypeError, "differences has dtype"),
        (
            lambda: ood.order_test([1.0, 2.0, 3.0], [1, 2, 3], alternative="less"),
            ValueError,
            "alternative to be 'greater' or 'two_sided'",
        ),
    ],
)
def test_order_tests_are_checked(call, error, message):
    with pytest.raises(error, match=message):
        call()


MODEL = lj.models.VectorGlowConfig(dimensions=2, depth=1, width=2)
NUMBERED = np.stack([np.arange(10), np.arange(10) * 7 % 10], axis=1).astype(np.float32)


@pytest.fixture
def consumed(monkeypatch):
    """Examples of every batch that ``fit`` draws, in order."""
    seen = []
    put_batch = feed.sharding.put_batch

    def note(batch, mesh):
        seen.append(np.asarray(batch.x)[:, 0].astype(int))
        return put_batch(batch, mesh)

    monkeypatch.setattr(feed.sharding, "put_batch", note)
    return seen


def test_the_order_is_what_fit_trained_on(consumed, tmp_path):
    """Row ``i`` holds the number ``i``; batches of 4 go over the ends of epochs of 10."""
    data = lj.Dataset.from_array(NUMBERED, name="numbered")
    experiment = lj.Experiment(model=MODEL, batch_size=4, steps=8)
    lj.fit(experiment, data, key=5, workdir=tmp_path / "run")
    order = lj.train.order_of(experiment, data, key=5)
    assert order.shape == (8, 4)
    np.testing.assert_array_equal(np.stack(consumed[:8]), order)
    np.testing.assert_array_equal(lj.train.recorded_order(tmp_path / "run", data), order)
    for epoch in order.reshape(-1)[:30].reshape(3, 10):
        assert sorted(epoch) == list(range(10))
    assert (order != lj.train.order_of(experiment, data, key=6)).any()
    longer = lj.train.order_of(experiment, NUMBERED, key=5, steps=11)
    np.testing.assert_array_equal(longer[:8], order)
    other = lj.Dataset.from_array(NUMBERED + 1, name="other")
    with pytest.raises(lj.train.CheckpointError, match="trained on other data than 'other'"):
        lj.train.recorded_order(tmp_path / "run", other)


def test_the_order_of_a_run_that_was_resumed(consumed, tmp_path):
    data = lj.Dataset.from_array(NUMBERED, name="numbered")
    for steps in (3, 6):
        experiment = lj.Experiment(model=MODEL, batch_size=4, steps=steps)
        before = len(consumed)
        lj.fit(experiment, data, key=5, workdir=tmp_path / "run")
        order = lj.train.recorded_order(tmp_path / "run", data)
        assert len(order) == steps
        done = 0 if steps == 3 else 3
        now = np.stack(consumed[before : before + 3])
        np.testing.assert_array_equal(now, order[done : done + 3])


def test_orders_that_are_not_known(tmp_path):
    experiment = lj.Experiment(model=MODEL, batch_size=4, steps=8)
    with pytest.raises(TypeError, match="an iterable is trained on in its own order"):
        lj.train.order_of(experiment, iter([NUMBERED]), key=0)
    with pytest.raises(lj.train.CheckpointError, match="expected the directory of a run"):
        lj.train.recorded_order(tmp_path, lj.Dataset.from_array(NUMBERED))


def test_a_model_that_remembers_its_order_is_found():
    """A frequency count that forgets: later rows weigh more, so they are more likely."""
    rows = 400
    experiment = lj.Experiment(model=MODEL, batch_size=rows, steps=1)
    values = RNG.integers(0, 100, (rows, 2))
    order = lj.train.order_of(experiment, values.astype(np.float32), key=1).reshape(-1)
    weights = np.exp(np.arange(rows) / 100)
    counts = np.bincount(values[order, 0], weights=weights, minlength=100) + 1.0
    model = lj.models.PixelHistogram(jnp.log(jnp.asarray(counts / counts.sum()))[None])
    x = values[order, :1].astype(np.uint8)
    found = ood.order_test(model.log_prob(x), np.arange(rows), permutations=999)
    assert found.p_value == 0.001
    elsewhere = ood.order_test(model.log_prob(x), RNG.permutation(rows), permutations=999)
    assert elsewhere.p_value > 0.01


# --- the true-positive rate at a small false-positive rate


def test_tpr_at_fpr_by_hand():
    inside = np.arange(100.0)
    outside = [99.5, 98.5, 97.5, 10.5]
    assert ood.tpr_at_fpr(inside, outside, 0.001) == 0.25
    assert ood.tpr_at_fpr(inside, outside, 0.01) == 0.5
    assert ood.tpr_at_fpr(inside, outside, 0.02) == 0.75
    assert ood.tpr_at_fpr(inside, outside, 1.0) == 1.0
    assert ood.tpr_at_fpr(inside, inside, 0.01) == 0.01  # ties are flagged together
    assert ood.tpr_at_fpr([1.0, 1.0], [1.0, 1.0], 0.5) == 0
    for rate in (0, 1.5):
        with pytest.raises(ValueError, match="expected fpr to be a number above 0"):
            ood.tpr_at_fpr(inside, outside, rate)


def test_tpr_and_fpr_are_inverse():
    """The TPR at the FPR of a TPR is at least that TPR, and grows with the FPR."""
    inside, outside = RNG.normal(size=200), RNG.normal(1, size=150)
    rates = [ood.tpr_at_fpr(inside, outside, fpr) for fpr in np.linspace(0.005, 1, 50)]
    assert all(low <= high for low, high in pairwise(rates))
    for tpr in (0.1, 0.5, 0.95):
        fpr = ood.fpr_at_tpr(inside, outside, tpr)
        if fpr > 0:
            assert ood.tpr_at_fpr(inside, outside, fpr) >= tpr
    table = ood.evaluate_scores(inside, outside, resamples=5)
    assert table["tpr_at_1"].value == ood.tpr_at_fpr(inside, outside, 0.01)
    assert table["tpr_at_01"].value == ood.tpr_at_fpr(inside, outside, 0.001)


def test_the_interval_of_a_tpr_holds_the_truth():
    """At least 95 % of 60; resamples alone hold it in 68 % for an FPR of 0.1 %."""
    rng = np.random.default_rng(3)
    truth = {
        "tpr_at_1": stats.norm.sf(stats.norm.isf(0.01), loc=1),
        "tpr_at_01": stats.norm.sf(stats.norm.isf(0.001), loc=1),
    }
    hits = dict.fromkeys(truth, 0)
    for i in range(60):
        found = ood.evaluate_scores(
            rng.normal(size=300), rng.normal(1, size=100), resamples=2, seed=i
        )
        for name, value in truth.items():
            hits[name] += found[name].low <= value <= found[name].high
            assert found[name].high - found[name].low < 0.5
    assert min(hits.values()) >= 54

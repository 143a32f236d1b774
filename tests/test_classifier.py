"""Fixed conditions, mixtures over classes, and Bayes' rule."""

from __future__ import annotations

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
import sklearn.naive_bayes

import likejax as lj
from likejax.classification import Classification
from likejax.density import Terms
from likejax.models import ClassMixture, GaussianNaiveBayes, NaiveBayes
from tests.registry import DENSITIES, NoisyByClass, examples_of

KEY = jax.random.key(3)
DIGITS, TEST = lj.load("digits"), lj.load("digits", split="test")
PRIOR = np.log([0.2, 0.3, 0.5])


@functools.cache
def maf() -> lj.Density:
    return DENSITIES["class mixture"].make().density


class Boxes(lj.Density):
    """Uniform on [y, y + 1] given the class y of three: the rest of the line has no class."""

    event_shape = (1,)
    kind = lj.Kind.EXACT
    condition_shape = ()
    num_classes = 3

    def _log_prob(self, x, key, condition):
        return jnp.where((x[0] >= condition) & (x[0] < condition + 1), 0.0, -jnp.inf)

    def _sample(self, key, condition, temperature):
        return condition + jax.random.uniform(key, (1,))


class WithParts(Boxes):
    """The same, with a part of the terms that is the label."""

    def _terms(self, x, key, condition):
        return Terms(self._log_prob(x, key, condition), {"label": 1.0 * condition})


def normals(levels: int | None = None) -> lj.Density:
    """Three normals on the line; with levels, on the unit interval and dequantized."""
    mean, std = np.array([[-1.0], [0.5], [2.0]]), np.array([[1.0], [0.5], [1.5]])
    if levels is None:
        return GaussianNaiveBayes(jnp.asarray(mean), jnp.asarray(std))
    density = GaussianNaiveBayes(jnp.asarray(0.4 + 0.1 * mean), jnp.asarray(0.1 * std))
    return lj.models.Dequantized(density, levels)


# --- conditioned


def test_a_fixed_label_gives_the_numbers_of_the_conditional_density():
    density = lj.models.Dequantized(maf(), 8)
    fixed = lj.condition(density, 2)
    x = examples_of(density, 5)
    np.testing.assert_array_equal(
        fixed.log_prob(x, key=KEY, draws=2), density.log_prob(x, key=KEY, draws=2, condition=2)
    )
    np.testing.assert_array_equal(
        fixed.sample(KEY, 5, temperature=0.7), density.sample(KEY, 5, np.array(2), 0.7)
    )
    np.testing.assert_array_equal(fixed.decode(fixed.encode(x, key=KEY)), x)
    assert (fixed.kind, fixed.levels) == (density.kind, density.levels)


def test_a_fixed_condition_passes_on_the_parts_of_the_terms():
    fixed = lj.condition(WithParts(), 2)
    terms = fixed.terms(np.zeros((4, 1), np.float32))
    np.testing.assert_array_equal(terms.parts["label"], np.full(4, 2.0))


def test_fixed_floats_give_the_numbers_of_the_conditional_density():
    fixed = DENSITIES["conditioned maf"].make()
    x = examples_of(fixed, 5)
    value = np.array([0.5, -1.0], np.float32)
    expected = fixed.density.log_prob(x, condition=value)
    np.testing.assert_array_equal(fixed.log_prob(x), expected)
    np.testing.assert_allclose(fixed.decode(fixed.encode(x)), x, atol=1e-5)
    assert "condition: [ 0.5 -1. ]" in repr(fixed)


def test_what_cannot_be_fixed():
    with pytest.raises(ValueError, match="Uniform is unconditional: use it as it is"):
        lj.condition(lj.models.Uniform((2,)), 0)
    with pytest.raises(ValueError, match=r"expected class labels 0\.\.2"):
        lj.condition(maf(), 3)
    with pytest.raises(TypeError, match=r"expected integers 0\.\.2 as class labels"):
        lj.condition(maf(), 1.0)
    with pytest.raises(ValueError, match="expected a condition of shape"):
        lj.condition(maf(), np.array([0, 1]))
    with pytest.raises(ValueError, match="expected finite conditions"):
        lj.condition(DENSITIES["conditioned maf"].make().density, np.array([0.0, np.nan]))
    with pytest.raises(TypeError, match="NaiveBayes, which has none"):
        lj.condition(NaiveBayes.fit(DIGITS), 0).encode(TEST.examples[:2])


@pytest.mark.untyped
def test_only_a_density_can_be_conditioned():
    with pytest.raises(TypeError, match="expected a density, got MAFConfig"):
        lj.condition(lj.models.MAFConfig(num_classes=3), 0)


def test_a_fixed_condition_is_saved_and_restored(tmp_path):
    fixed = lj.condition(maf(), 2)
    lj.save(fixed, tmp_path)
    restored = lj.restore(tmp_path, density=lj.condition(maf(), 0))
    x = examples_of(maf(), 3)
    np.testing.assert_array_equal(restored.log_prob(x), fixed.log_prob(x))
    with pytest.raises(ValueError, match=r"Conditioned: pass it as density="):
        lj.restore(tmp_path)


def test_a_fixed_condition_is_trained(tmp_path):
    """Parameters move, and the condition stays."""
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    experiment = lj.Experiment(model=lj.condition(maf(), 2), steps=2, batch_size=8)
    density = lj.fit(experiment, rows, key=0).density
    assert isinstance(density, lj.models.Conditioned)
    assert int(density.value[...]) == 2
    assert (
        np.asarray(density.log_prob(rows)) != np.asarray(maf().log_prob(rows, condition=2))
    ).all()


def test_scores_take_a_fixed_condition_and_a_mixture():
    density = NaiveBayes.fit(DIGITS)
    inside, held_out = TEST[:40], lj.load("digits", split="validation")[:60]
    scores = [lj.ood.NegativeLogProb()]
    for each in (lj.condition(density, 3), lj.Classifier(density).mixture):
        report = lj.ood.benchmark(
            each,
            inside=inside,
            outside=[inside.invert()],
            scores=scores,
            held_out=held_out,
            key=0,
            resamples=20,
        )
        assert "digits" in report.to_markdown()
    with pytest.raises(ValueError, match=r"lj\.condition\(density, value\) fixes a condition"):
        lj.ood.NegativeLogProb().fit(density, held_out)


# --- mixtures


def test_a_mixture_integrates_to_one():
    mixture = ClassMixture(normals(), PRIOR)
    assert mixture.kind is lj.Kind.EXACT
    side = np.linspace(-8, 12, 4001, dtype=np.float32)
    values = np.asarray(mixture.log_prob(side[:, None]), np.float64)
    np.testing.assert_allclose(np.exp(values).sum() * 0.005, 1, rtol=1e-5)
    means, stds = [-1, 0.5, 2], [1, 0.5, 1.5]
    expected = scipy.special.logsumexp(
        scipy.stats.norm.logpdf(side[:, None], means, stds) + PRIOR, axis=1
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_masses_of_a_mixture_sum_to_one():
    few = NaiveBayes(DENSITIES["naive bayes"].make().log_probs[...][:, :2, :2])
    grid = np.indices((4,) * 4).reshape(4, -1).T.astype(np.uint8).reshape(-1, 2, 2, 1)
    mixture = ClassMixture(few, PRIOR)
    masses = np.exp(np.asarray(mixture.log_prob(grid), np.float64))
    np.testing.assert_allclose(masses.sum(), 1, rtol=1e-5)


def test_a_mixture_of_bounds_is_an_importance_weight():
    """E exp is the mixture's mass, from the differences of the normals' cdfs."""
    levels = 5
    mixture = ClassMixture(normals(levels), PRIOR)
    assert mixture.kind is lj.Kind.BOUND
    x = np.arange(levels, dtype=np.uint8)[:, None]
    edges = np.arange(levels + 1)[:, None] / levels
    cells = np.diff(scipy.stats.norm.cdf(edges, [0.3, 0.45, 0.6], [0.1, 0.05, 0.15]), axis=0)
    exact = cells @ np.exp(PRIOR)
    many = np.broadcast_to(x, (20_000, *x.shape))
    weights = np.exp(np.asarray(mixture.log_prob(many, key=KEY), np.float64))
    error = weights.std(0) / math.sqrt(len(weights))
    assert (np.abs(weights.mean(0) - exact) < 5 * error).all()


def test_a_mixture_of_estimates_is_an_estimate():
    """The mean is at most the exact value, where the log of a sum of noisy terms is too high."""
    density = NoisyByClass(noise=1.0)
    mixture = ClassMixture(density, PRIOR)
    assert mixture.kind is lj.Kind.ESTIMATE
    x = jnp.array([0.8, 1.1, 0.9])
    exact = float(
        scipy.special.logsumexp(np.array([density.exact(x, y) for y in range(3)]) + PRIOR)
    )
    draws = 10_000
    values = np.asarray(mixture.log_prob(jnp.broadcast_to(x, (draws, 3)), key=KEY), np.float64)
    error = values.std() / math.sqrt(draws)
    assert exact - 0.5 < values.mean() < exact + 4 * error
    keys = lj.example_keys(KEY, range(draws))
    each = mixture.class_log_prob(jnp.broadcast_to(x, (draws, 3)), key=keys)
    naive = scipy.special.logsumexp(np.asarray(each) + PRIOR, axis=1)
    assert naive.mean() > exact + 4 * naive.std() / math.sqrt(draws)
    quiet = ClassMixture(NoisyByClass(noise=0.0), PRIOR)
    np.testing.assert_allclose(quiet.log_prob(x, key=KEY), exact, rtol=1e-6)


def test_log_probabilities_of_classes_are_those_of_the_density():
    density = normals(5)
    mixture = ClassMixture(density)
    x = np.arange(5, dtype=np.uint8)[:, None]
    values = mixture.class_log_prob(x, key=KEY, draws=3)
    assert values.shape == (5, 3)
    for label in range(3):
        expected = density.log_prob(x, key=KEY, condition=label, draws=3)
        np.testing.assert_allclose(values[:, label], expected, rtol=5e-6)


def test_samples_of_a_mixture_have_the_classes_of_the_prior():
    mixture = ClassMixture(Boxes(), PRIOR)
    x = np.asarray(mixture.sample(KEY, 4000, temperature=0.5))
    counts = np.bincount(np.floor(x[:, 0]).astype(int), minlength=3)
    assert scipy.stats.chisquare(counts, 4000 * np.exp(PRIOR)).pvalue > 1e-3
    impossible = np.array([-np.inf, 0.0, -np.inf])
    alone = ClassMixture(Boxes(), impossible)
    assert ((np.asarray(alone.sample(KEY, 50)) // 1) == 1).all()
    assert alone.log_prob(jnp.array([1.5])) == 0
    assert alone.log_prob(jnp.array([0.5])) == -jnp.inf


def test_what_is_no_prior():
    with pytest.raises(ValueError, match=r"expected log_prior of shape \(3,\)"):
        ClassMixture(Boxes(), np.log([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"sum to 4\.\d+: these are probabilities, pass their log"):
        ClassMixture(Boxes(), np.array([0.2, 0.3, 0.5]))
    with pytest.raises(ValueError, match=r"exponentials sum to 0\.9"):
        ClassMixture(Boxes(), np.log([0.2, 0.3, 0.4]))
    with pytest.raises(ValueError, match="exponentials sum to nan"):
        ClassMixture(Boxes(), np.array([0.0, np.nan, -1.0]))
    with pytest.raises(TypeError, match="expected floats as log_prior"):
        ClassMixture(Boxes(), np.array([0, 0, 0]))
    with pytest.raises(ValueError, match="whose condition is a class label"):
        lj.Classifier(DENSITIES["conditioned maf"].make().density)
    with pytest.raises(ValueError, match="whose condition is a class label"):
        lj.Classifier(lj.models.Uniform((2,)))


# --- Bayes' rule


def test_two_normals_of_one_variance_make_a_logistic_function():
    mean, std = np.array([[-1.0, 0.5], [1.0, 2.0]]), np.array([1.5, 0.5])
    density = GaussianNaiveBayes(jnp.asarray(mean), jnp.asarray(np.stack([std, std])))
    prior = np.array([0.3, 0.7])
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    slope = (mean[1] - mean[0]) / std**2
    offset = -0.5 * ((mean[1] ** 2 - mean[0] ** 2) / std**2).sum() + math.log(0.7 / 0.3)
    expected = scipy.special.log_expit(x @ slope + offset)
    classifier = lj.Classifier(density, np.log(prior))
    log_posterior = classifier.log_posterior(x.astype(np.float32))
    assert log_posterior.shape == (4, 3, 2)
    np.testing.assert_allclose(log_posterior[..., 1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(classifier.predict(x.astype(np.float32)), x @ slope + offset > 0)


def test_naive_bayes_against_scikit_learn():
    train, test = DIGITS[:300], TEST[:100]
    prior = lj.Classifier.log_prior_of(train)
    rows, others = (each.examples.reshape(len(each), -1) for each in (train, test))
    counted = sklearn.naive_bayes.CategoricalNB(
        alpha=1.0, min_categories=17, class_prior=np.exp(prior), force_alpha=True
    ).fit(rows, train.labels)
    ours = lj.Classifier(NaiveBayes.fit(train), prior).log_posterior(test.examples)
    np.testing.assert_allclose(ours, counted.predict_log_proba(others), atol=2e-3)

    noise = np.random.default_rng(0).normal(size=(400, 64))
    rows, others = rows + noise[:300], others + noise[300:]
    table = lj.Dataset.from_array(rows, labels=train.labels, class_names=train.class_names)
    normal = sklearn.naive_bayes.GaussianNB(priors=np.exp(prior), var_smoothing=0.0)
    density = GaussianNaiveBayes.fit(table, floor=0.0)
    ours = lj.Classifier(density, prior).log_posterior(others.astype(np.float32))
    theirs = normal.fit(rows, train.labels).predict_log_proba(others)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-3)


def test_shared_variances_are_those_within_the_classes():
    points = np.array([[0.0], [2.0], [5.0], [9.0]], np.float32)
    data = lj.Dataset.from_array(points, labels=[0, 0, 1, 1], class_names=["a", "b", "c"])
    density = GaussianNaiveBayes.fit(data, variance="shared", floor=0.0)
    np.testing.assert_allclose(density.std[...], np.full((3, 1), math.sqrt(2.5)), rtol=1e-6)
    np.testing.assert_allclose(density.mean[...].reshape(-1), [1, 7, 4])  # the last has no example


@pytest.mark.parametrize("kind", [NaiveBayes, GaussianNaiveBayes])
def test_what_naive_bayes_is_not_fitted_to(kind):
    rows = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="expected a labeled dataset"):
        kind.fit(lj.Dataset.from_array(rows))
    labels = [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"is continuous: GaussianNaiveBayes takes|that vary"):
        kind.fit(lj.Dataset.from_array(rows, labels=labels))
    with pytest.raises(ValueError, match="NaiveBayes takes integers"):
        GaussianNaiveBayes.fit(DIGITS)


def test_the_prior_of_labels():
    data = lj.Dataset.from_array(np.zeros((4, 2)), labels=[0, 2, 2, 2])
    np.testing.assert_allclose(np.exp(lj.Classifier.log_prior_of(data)), np.array([2, 1, 4]) / 7)
    more = lj.Classifier.log_prior_of(data, num_classes=4)
    np.testing.assert_allclose(np.exp(more), np.array([2, 1, 4, 1]) / 8)
    with pytest.raises(ValueError, match="expected labels below num_classes=2"):
        lj.Classifier.log_prior_of(data, num_classes=2)
    with pytest.raises(ValueError, match="has no labels"):
        lj.Classifier.log_prior_of(lj.Dataset.from_array(np.zeros((4, 2))))


@pytest.mark.untyped
def test_arguments_that_are_no_datasets():
    with pytest.raises(TypeError, match=r"expected a lj\.Dataset with labels, got ndarray"):
        lj.Classifier.log_prior_of(np.zeros(3))
    with pytest.raises(TypeError, match=r"expected a lj\.Dataset"):
        lj.Classifier(Boxes()).evaluate(np.zeros((3, 1), np.float32))
    with pytest.raises(TypeError, match=r"expected a lj\.Dataset with labels"):
        NaiveBayes.fit(np.zeros((3, 1), np.uint8))


def result_of(posterior: list[list[float]], labels: list[int]) -> Classification:
    return Classification(
        np.log(np.array(posterior)), np.array(labels), lj.Kind.EXACT, 1, "made up", "0"
    )


def test_numbers_against_scikit_learn_and_by_hand():
    posterior = [[0.7, 0.2, 0.1], [0.62, 0.3, 0.08], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]]
    labels = [0, 1, 2, 1]
    result = result_of(posterior, labels)
    assert result.accuracy == 0.75
    expected = sklearn.metrics.log_loss(labels, np.array(posterior))
    np.testing.assert_allclose(result.log_loss, expected)
    squares = [0.09 + 0.04 + 0.01, 0.62**2 + 0.49 + 0.0064, 0.01 + 0.01 + 0.04, 0.04 + 0.25 + 0.09]
    np.testing.assert_allclose(result.brier, np.mean(squares))
    # bins of 1/15: 0.7 and 0.62 in (9/15, 10/15] and (10/15, 11/15], so all four are alone
    np.testing.assert_allclose(result.calibration_error, (0.3 + 0.62 + 0.2 + 0.5) / 4)
    together = result_of([[0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3]], [0, 0, 0, 1])
    np.testing.assert_allclose(together.calibration_error, 0.05)
    error = np.std([1, 1, 0, 1][::-1], ddof=1) / 2
    np.testing.assert_allclose(result.standard_errors["accuracy"], error)
    record = json.loads(json.dumps(result.to_dict()))
    assert record["log_loss"] == result.log_loss
    assert record["log_loss_error"] == result.standard_errors["log_loss"]
    assert str(result).startswith("accuracy 0.7500 ± 0.2500, log loss 0.6")
    assert "made up" in result._repr_html_()


def test_calibrated_posteriors_have_no_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    labels = (rng.uniform(size=20_000) > confidence).astype(int)
    result = result_of(np.stack([confidence, 1 - confidence], 1).tolist(), labels.tolist())
    assert result.calibration_error < 0.02


def test_evaluation_of_a_classifier():
    """Keys come from the position, whatever the batch size, and draws combine by class."""
    density = normals(5)
    classifier = lj.Classifier(density, PRIOR)
    x = np.random.default_rng(0).integers(0, 5, (11, 1)).astype(np.uint8)
    data = lj.Dataset.from_array(x, levels=5, labels=np.arange(11) % 3)
    result = classifier.evaluate(data, key=KEY, draws=2, batch_size=4)
    keys = lj.example_keys(KEY, range(11))
    expected = classifier.log_posterior(x, key=keys, draws=2)
    np.testing.assert_allclose(result.log_posterior, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(result.log_posterior).sum(1), 1, rtol=1e-12)
    whole = classifier.evaluate(data, key=KEY, draws=2)
    np.testing.assert_allclose(result.log_posterior, whole.log_posterior, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.predicted, classifier.predict(x, key=KEY, draws=2))
    assert "bound log-likelihoods, 2 draws, n = 11" in str(result)
    with pytest.raises(ValueError, match=r"pass key=jax\.random\.key\(seed\)"):
        classifier.evaluate(data)
    with pytest.raises(ValueError, match="has no labels"):
        classifier.evaluate(lj.Dataset.from_array(x, levels=5), key=KEY)


def test_an_example_of_no_class_has_no_posterior():
    classifier = lj.Classifier(Boxes())
    x = np.array([[0.5], [7.0], [2.5]], np.float32)
    np.testing.assert_array_equal(
        np.isnan(classifier.log_posterior(x)).all(1), [False, True, False]
    )
    with pytest.raises(ValueError, match="1 of the 3 examples of x have no posterior"):
        classifier.predict(x)
    np.testing.assert_array_equal(jax.jit(classifier.predict)(x), [0, -1, 2])
    data = lj.Dataset.from_array(x, labels=[0, 1, 2])
    with pytest.raises(ValueError, match="the first at row 1"):
        classifier.evaluate(data)
    certain = classifier.evaluate(data[[0, 2]])
    assert (certain.accuracy, certain.log_loss, certain.brier) == (1, 0, 0)
    wrong = lj.Dataset.from_array(x[[0, 2]], labels=[1, 2])
    assert math.isinf(classifier.evaluate(wrong).log_loss)
    assert math.isnan(classifier.evaluate(wrong).standard_errors["log_loss"])

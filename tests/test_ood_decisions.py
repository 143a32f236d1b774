"""Decisions from scores and p-values, against exact values, other code and known laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

import likejax as lj
from likejax import ood


def uniformity(p: np.ndarray) -> float:
    """The p-value of a Kolmogorov-Smirnov test that numbers are uniform."""
    return float(stats.kstest(p, "uniform").pvalue)


# --- randomized ties


def test_ties_by_hand():
    """Two of five are above 1 and two tie with it: p = (2 + 3 U) / 6, with the numbers U drawn."""
    calibration, scores = np.array([0.0, 1.0, 1.0, 2.0, 3.0]), np.ones((2, 3))
    u = 1 - np.random.default_rng(7).random((2, 3))
    np.testing.assert_array_equal(ood.p_values(calibration, scores, seed=7), (2 + 3 * u) / 6)
    np.testing.assert_array_equal(ood.p_values(calibration, scores), np.full((2, 3), 5 / 6))
    unseen = ood.p_values(calibration, np.full(1000, 9.0), seed=0)
    assert ((unseen > 0) & (unseen <= 1 / 6)).all()


def p_values_of_discrete_scores(seed: int | None) -> np.ndarray:
    """One p-value for each of 1500 calibration sets of 19 counts."""
    rng = np.random.default_rng(1)
    found = []
    for repeat in range(1500):
        counts = rng.poisson(1.0, size=20).astype(float)
        own = None if seed is None else seed + repeat
        found.append(ood.p_values(counts[:19], counts[19:], seed=own)[0])
    return np.array(found)


def test_randomized_ties_are_exact_and_others_conservative():
    exact = p_values_of_discrete_scores(seed=0)
    assert uniformity(exact) > 0.01
    plain = p_values_of_discrete_scores(seed=None)
    assert uniformity(plain) < 1e-6
    for alpha in (0.05, 0.1, 0.2, 0.5):
        error = math.sqrt(alpha * (1 - alpha) / 1500)
        assert abs(np.mean(exact <= alpha) - alpha) < 4 * error
        assert np.mean(plain <= alpha) < alpha + 3 * error
    assert np.mean(plain <= 0.1) < 0.07  # power that counting ties against the example costs


@pytest.mark.parametrize(("n", "low", "high"), [(200, 0.027, 0.077), (1000, 0.039, 0.062)])
def test_true_rates_follow_the_beta_law(n, low, high):
    """The true rate given one calibration set; its 90 % ranges as in reference/ood.md, 2.19."""
    k = ood.rank_of_threshold(n, 0.05)
    law = stats.beta(k, n + 1 - k)
    np.testing.assert_allclose(law.ppf([0.05, 0.95]), [low, high], atol=5e-4)
    rng = np.random.default_rng(n)
    limits = [ood.threshold(rng.normal(size=n), 0.05) for _ in range(800)]
    assert stats.kstest(stats.norm.sf(limits), law.cdf).pvalue > 0.01


def test_a_score_passes_its_ties_on():
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:20]))
    score = ood.NegativeLogProb().fit(gaussian, points[20:40]).calibrate(points[40:])
    p = score.p_value(points[40:43], ties_seed=5)
    np.testing.assert_array_equal(p, ood.p_values(score.calibration, score(points[40:43]), seed=5))
    assert (p < score.p_value(points[40:43])).all()


# --- the false-discovery rate


def test_benjamini_hochberg_by_hand():
    """The fifteen p-values of Benjamini and Hochberg's section 3.1: four fall at a rate of .05."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262]
    p = np.array([*p, 0.5719, 0.6528, 0.7590, 1.0])
    assert ood.benjamini_hochberg(p, 0.05).sum() == 4
    order = np.random.default_rng(0).permutation(15)
    np.testing.assert_array_equal(ood.benjamini_hochberg(p[order], 0.05), p[order] <= 0.0095)
    # the third exceeds its own bound, and is called by that of the fourth
    stepped = np.array([0.01, 0.02, 0.039, 0.04])
    assert ood.benjamini_hochberg(stepped, 0.04).all()
    assert not ood.benjamini_hochberg(stepped, 0.0399).any()
    assert ood.benjamini_hochberg(np.array([]), 0.1).shape == (0,)


@pytest.mark.parametrize("n", [1, 3, 10, 49, 1000])
def test_a_p_value_on_its_bound_is_called(n):
    """Conformal p-values are fractions, which lie on the bound exactly but for rounding."""
    ranks = np.arange(1, n + 1)
    for fdr in (0.1, 0.3, 0.7):
        assert ood.benjamini_hochberg(fdr * ranks / n, fdr).all()
        assert not ood.benjamini_hochberg(1.000001 * fdr * ranks / n, fdr).any()


def test_adjusted_p_values_against_scipy():
    rng = np.random.default_rng(0)
    for n in (1, 2, 17, 500):
        p = rng.beta(0.4, 1, size=n)
        p[: n // 3] = p[: n // 3].round(2)  # ties
        adjusted = ood.adjusted_p_values(p)
        np.testing.assert_allclose(adjusted, stats.false_discovery_control(p), rtol=1e-13)
        for fdr in (0.05, 0.2):
            np.testing.assert_array_equal(ood.benjamini_hochberg(p, fdr), adjusted <= fdr)


@pytest.mark.parametrize("seeded", [False, True])
def test_false_discoveries_under_one_calibration_set(seeded):
    """The expected share of false calls is at most the rate times the share of inside examples.

    Benjamini and Hochberg's is equal to it for exact p-values, and near it for 1000 calibration
    scores.
    """
    rng = np.random.default_rng(2)
    fdr, inside, outside = 0.2, 150, 50
    shares, found = [], []
    for repeat in range(600):
        scores = np.concatenate([rng.normal(size=inside), rng.normal(3.0, size=outside)])
        seed = repeat if seeded else None
        p = ood.p_values(rng.normal(size=1000), scores, seed=seed)
        called = ood.benjamini_hochberg(p, fdr)
        shares.append(called[:inside].sum() / max(called.sum(), 1))
        found.append(called[inside:].mean())
    expected = fdr * inside / (inside + outside)
    error = np.std(shares) / math.sqrt(len(shares))
    assert np.mean(shares) < expected + 3 * error
    assert np.mean(shares) > 0.9 * expected
    assert np.mean(found) > 0.8  # it calls most outside examples
    plain = np.mean(rng.normal(size=10_000) > stats.norm.isf(fdr))
    assert plain > 0.15  # each example by itself would be called at this rate


# --- combinations


def test_combinations_by_hand():
    """Two p-values: Fisher's is q (1 - log q) with their product q."""
    p = np.array([[0.05, 0.2], [1.0, 1.0], [0.0, 0.5], [0.3, 0.01]])
    q = p.prod(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(q > 0, q * (1 - np.log(q)), 0.0)
    np.testing.assert_allclose(ood.fisher(p), expected, rtol=1e-12)
    np.testing.assert_allclose(ood.simes(p), [0.1, 1.0, 0.0, 0.02], rtol=1e-15)
    np.testing.assert_allclose(ood.fisher(p.T, axis=0), ood.fisher(p), rtol=0)
    np.testing.assert_allclose(ood.simes(p.T, axis=0), ood.simes(p), rtol=0)
    assert ood.fisher(p[:, None], axis=-2).shape == (4, 2)


def test_combinations_against_other_code():
    rng = np.random.default_rng(0)
    for k in (1, 2, 5, 40):
        p = rng.random((20, k)) ** 3
        expected = [stats.combine_pvalues(row, method="fisher").pvalue for row in p]
        np.testing.assert_allclose(ood.fisher(p), expected, rtol=1e-10)
        smallest = [ood.adjusted_p_values(row).min() for row in p]
        np.testing.assert_allclose(ood.simes(p), smallest, rtol=1e-13)
    assert 0 < ood.fisher(np.full(30, 1e-8)) < 1e-150  # no underflow of the product's tail


@pytest.mark.parametrize("combine", [ood.fisher, ood.simes])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_combinations_are_uniform_under_independence(combine, k):
    """Adding p-values, where Fisher adds logarithms, fails this by far."""
    p = combine(np.random.default_rng(k).random((20_000, k)))
    assert uniformity(p) > 0.01


def test_combinations_of_dependent_p_values():
    """Under one calibration set Simes' is conservative, and Fisher's far too small."""
    rng = np.random.default_rng(3)
    p = np.array(
        [ood.p_values(rng.normal(size=20), rng.normal(size=40), seed=i) for i in range(1500)]
    )
    for alpha in (0.05, 0.2):
        error = math.sqrt(alpha * (1 - alpha) / 1500)
        assert np.mean(ood.simes(p) <= alpha) < alpha + 3 * error
    assert np.mean(ood.fisher(p) <= 0.05) > 0.1


def test_fisher_as_a_score_is_calibrated_anew():
    """Two dependent p-values combined give a score, whose own conformal p-values are exact."""
    rng = np.random.default_rng(4)
    first = rng.normal(size=20_000)
    second = 0.9 * first + math.sqrt(1 - 0.9**2) * rng.normal(size=20_000)
    p = np.stack([stats.norm.sf(first), stats.norm.sf(second)], axis=1)
    combined = ood.fisher(p)
    assert np.mean(combined <= 0.05) > 0.07
    again = ood.p_values(-np.log(combined[:10_000]), -np.log(combined[10_000:]))
    assert np.mean(again <= 0.05) == pytest.approx(0.05, abs=0.012)


# --- weighted p-values


def test_weighted_p_values_by_hand():
    calibration, weights = np.array([3.0, 1.0, 2.0]), np.array([6.0, 1.0, 1.0])
    scores = np.array([0.0, 2.0, 2.5, 9.0])
    expected = [1.0, 9 / 10, 8 / 10, 2 / 10]
    found = ood.weighted_p_values(calibration, scores, weights, np.full(4, 2.0))
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    u = 1 - np.random.default_rng(5).random(4)
    np.testing.assert_allclose(
        ood.weighted_p_values(calibration, scores, weights, np.full(4, 2.0), seed=5),
        (np.array([8.0, 6.0, 6.0, 0.0]) + u * (np.array([0.0, 1.0, 0.0, 0.0]) + 2)) / 10,
        rtol=1e-15,
    )
    assert ood.weighted_p_values(calibration, scores[3:], weights, np.zeros(1))[0] == 0


@pytest.mark.parametrize("weight", [1.0, 0.3, 1e300, 1e-300])
@pytest.mark.parametrize("seed", [None, 3])
def test_equal_weights_give_plain_p_values(weight, seed):
    rng = np.random.default_rng(6)
    calibration, scores = rng.normal(size=99).round(1), rng.normal(size=(40, 3)).round(1)
    found = ood.weighted_p_values(
        calibration, scores, np.full(99, weight), np.full((40, 3), weight), seed=seed
    )
    plain = ood.p_values(calibration, scores, seed=seed)
    np.testing.assert_allclose(found, plain, rtol=1e-14)
    assert (found <= 1).all()


def test_weights_of_a_shift():
    """They are exp of the difference where that is no more than the largest, and never overflow."""
    source = np.array([0.0, -5.0, -1e5, -3.0, -math.inf])
    target = np.array([-1.0, -3.0, -1e3, -math.inf, -2.0])
    found = ood.shift_weights(source, target, largest=20.0)
    np.testing.assert_allclose(found, [math.exp(-1), math.exp(2), 20, 0, 20], rtol=1e-14)
    shifted = ood.shift_weights(source, target + 900.0, largest=20.0, offset=900.0)
    np.testing.assert_allclose(shifted, found, rtol=1e-12)
    assert ood.shift_weights(np.zeros(1), np.full(1, 1e6))[0] == pytest.approx(100)
    assert ood.effective_size(np.full(7, 1e300)) == pytest.approx(7, rel=1e-14)
    assert ood.effective_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / 14, rel=1e-14)


def shifted_scores(rng, n: int, d: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features, moved along the first axis, and scores: that feature plus noise."""
    x = rng.normal(size=(n, d))
    x[:, 0] += shift
    return x, x[:, 0] + rng.normal(size=n)


def weights_of(x: np.ndarray, shift: float) -> np.ndarray:
    """True weights, from two Gaussian log-probabilities less the constant that they share."""
    source = -np.square(x).sum(1) / 2
    target = source + shift * x[:, 0] - shift**2 / 2
    return ood.shift_weights(source, target, largest=1e6)


def test_weighted_p_values_are_exact_under_shift():
    """One target example for each calibration set: uniform with draws, conservative without."""
    rng = np.random.default_rng(7)
    exact, upper, plain = [], [], []
    for repeat in range(800):
        x, s = shifted_scores(rng, 50, 2, 0.0)
        new_x, new_s = shifted_scores(rng, 1, 2, 1.0)
        arguments = s, new_s, weights_of(x, 1.0), weights_of(new_x, 1.0).reshape(1)
        exact.append(ood.weighted_p_values(*arguments, seed=repeat)[0])
        upper.append(ood.weighted_p_values(*arguments)[0])
        plain.append(ood.p_values(s, new_s)[0])
    assert uniformity(np.array(exact)) > 0.01
    for alpha in (0.1, 0.3):
        assert np.mean(np.array(upper) <= alpha) < alpha
    assert np.mean(np.array(plain) <= 0.1) > 0.25  # far more false alarms than the wanted tenth


# --- a threshold that depends on the example


def linear_quantile(x: np.ndarray, s: np.ndarray, q: float) -> float:
    """The smallest mean pinball loss of a linear quantile, by a linear program."""
    n, d = x.shape
    design = np.concatenate([np.ones((n, 1)), x], axis=1)
    costs = np.concatenate([np.zeros(d + 1), np.full(n, q / n), np.full(n, (1 - q) / n)])
    equal = np.concatenate([design, np.eye(n), -np.eye(n)], axis=1)
    bounds = [(None, None)] * (d + 1) + [(0, None)] * (2 * n)
    return optimize.linprog(costs, A_eq=equal, b_eq=s, bounds=bounds).fun


def pinball(h: np.ndarray, s: np.ndarray, q: float) -> float:
    return float(np.mean(np.maximum(q * (s - h), (1 - q) * (h - s))))


def test_strength_zero_is_quantile_regression():
    rng = np.random.default_rng(8)
    x, s = shifted_scores(rng, 300, 4, 0.0)
    limit = ood.ShiftedThreshold(fpr=0.1, strength=0.0).fit(x, s, x + 5)
    best = linear_quantile(x, s, 0.9)
    assert best <= pinball(limit(x), s, 0.9) < best * (1 + 1e-4)
    without = ood.ShiftedThreshold(fpr=0.1, strength=0.0).fit(x[:, :0], s, x[:, :0])
    assert np.mean(s > without(x[:, :0])) == pytest.approx(0.1, abs=1 / 300)


def objective(limit, x, s, target, fpr: float, strength: float) -> float:
    """The objective as its docstring has it, with the best beta, from thresholds alone."""
    center = np.median(s)
    scale = np.quantile(s, 1 - fpr) - center
    h, h_target = (limit(x) - center) / scale, (limit(target) - center) / scale
    betas = np.mean(h_target) / np.mean(h**2) * np.array([1.0, 0.99, 1.01])
    penalties = betas**2 * np.mean(h**2) - 2 * betas * np.mean(h_target)
    assert penalties.argmin() == 0
    return pinball(h, (s - center) / scale, 1 - fpr) + strength * penalties[0]


def test_the_threshold_minimizes_its_objective():
    """No step in any direction of the weights lowers the exact objective, but for the smoothing."""
    rng = np.random.default_rng(9)
    (x, s), (target, _) = shifted_scores(rng, 400, 3, 0.0), shifted_scores(rng, 300, 3, 1.0)
    for strength in (0.05, 1.0):
        limit = ood.ShiftedThreshold(fpr=0.1, strength=strength).fit(x, s, target)
        least = objective(limit, x, s, target, 0.1, strength)
        gains = []
        for size in (0.01, 0.1, 1.0):
            for _ in range(50):
                step = size * rng.normal(size=4)
                other = ood.FittedThreshold(limit.weights + step[1:], limit.intercept + step[0])
                gains.append(objective(other, x, s, target, 0.1, strength) - least)
        assert min(gains) > -2e-4
        assert max(gains) > 0.1


def test_a_strong_threshold_is_the_linear_ratio():
    """Then h is a multiple of the best linear ratio, ``E_2[phi]' E_1[phi phi']^-1 phi(x)``."""
    rng = np.random.default_rng(10)
    (x, s), (target, _) = shifted_scores(rng, 400, 3, 0.0), shifted_scores(rng, 300, 3, 1.0)
    phi, phi_target = (np.concatenate([np.ones((len(a), 1)), a], 1) for a in (x, target))
    ratio = phi @ np.linalg.solve(phi.T @ phi / len(phi), phi_target.mean(0))
    limit = ood.ShiftedThreshold(fpr=0.1, strength=100.0).fit(x, s, target)
    h = limit(x) - np.median(s)
    assert np.mean(h * ratio) ** 2 == pytest.approx(np.mean(h**2) * np.mean(ratio**2), rel=1e-4)


def test_thresholds_follow_scores_and_ignore_linear_maps_of_features():
    rng = np.random.default_rng(11)
    (x, s), (target, _) = shifted_scores(rng, 300, 3, 0.0), shifted_scores(rng, 300, 3, 1.0)
    recipe = ood.ShiftedThreshold(fpr=0.1)
    expected = recipe.fit(x, s, target)(target)
    shifted = recipe.fit(x, 50 * s - 7000, target)(target)
    np.testing.assert_allclose(shifted, 50 * expected - 7000, rtol=0, atol=50 * 1e-3)
    mix = rng.normal(size=(3, 3))
    mixed = recipe.fit(1000 + x @ mix, s, 1000 + target @ mix)(1000 + target @ mix)
    np.testing.assert_allclose(mixed, expected, atol=1e-3)
    doubled, new = np.tile(x, 2), np.tile(target, 2)
    doubled, new = (np.concatenate([a, np.full((300, 1), 0.1)], axis=1) for a in (doubled, new))
    fitted = recipe.fit(doubled, s, new)
    np.testing.assert_allclose(fitted(new), expected, atol=1e-3)
    assert fitted.weights[-1] == 0
    assert fitted(new.reshape(3, 100, 7)).shape == (3, 100)


def false_positives(limits, s: np.ndarray, shifted) -> np.ndarray:
    """The rate of one threshold for all on the target, and of those that depend on the example."""
    new, scores = shifted
    common = ood.threshold(s, 0.1)
    return np.array([np.mean(scores > common), *(np.mean(scores > h(new)) for h in limits)])


def mean_rates(d: int, n: int, repeats: int) -> np.ndarray:
    """Mean rates on the target where .1 is wanted: one threshold, unregularized, regularized."""
    recipes = [ood.ShiftedThreshold(fpr=0.1, strength=strength) for strength in (0.0, 0.01)]
    rates = []
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        x, s = shifted_scores(rng, n, d, 0.0)
        target, _ = shifted_scores(rng, n, d, 1.0)
        limits = [recipe.fit(x, s, target) for recipe in recipes]
        rates.append(false_positives(limits, s, shifted_scores(rng, 5000, d, 1.0)))
    return np.mean(rates, axis=0)


RATE_OF_ONE_THRESHOLD = stats.norm.sf(stats.norm.isf(0.1) - 1 / math.sqrt(2))
"""The scores have variance 2 and move by 1, so that .283 lie above the quantile of .9."""


def test_false_positives_under_shift():
    plain, _, regularized = mean_rates(d=3, n=1000, repeats=20)
    assert plain == pytest.approx(RATE_OF_ONE_THRESHOLD, abs=0.02)
    assert regularized == pytest.approx(0.1, abs=0.015)


def test_a_strength_that_is_too_large_is_conservative():
    """The score does not depend on the shifted feature, so that .1 is right without any care."""
    rates = []
    for repeat in range(10):
        rng = np.random.default_rng(repeat)
        (x, s), (target, _) = shifted_scores(rng, 1000, 4, 0.0), shifted_scores(rng, 1000, 4, 0.0)
        new, scores = shifted_scores(rng, 5000, 4, 0.0)
        target[:, 1] += 1
        new[:, 1] += 1
        limits = [
            ood.ShiftedThreshold(fpr=0.1, strength=strength).fit(x, s, target)
            for strength in (0.0, 0.01, 0.05)
        ]
        rates.append(false_positives(limits, s, (new, scores)))
    plain, unregularized, default, strong = np.mean(rates, axis=0)
    assert plain == pytest.approx(0.1, abs=0.015)
    assert unregularized == pytest.approx(0.1, abs=0.015)
    assert 0.07 < default < 0.1
    assert 0.03 < strong < 0.065


def test_weights_reach_the_rate_under_shift():
    rates = []
    for repeat in range(20):
        rng = np.random.default_rng(repeat)
        x, s = shifted_scores(rng, 1000, 3, 0.0)
        new, t = shifted_scores(rng, 5000, 3, 1.0)
        p = ood.weighted_p_values(s, t, weights_of(x, 1.0), weights_of(new, 1.0))
        rates.append(np.mean(p <= 0.1))
    assert np.mean(rates) == pytest.approx(0.1, abs=0.02)
    # n / E[r^2] of the true ratio r, whose second moment is exp(1)
    assert ood.effective_size(weights_of(x, 1.0)) == pytest.approx(1000 / math.e, rel=0.25)


def test_regularization_helps_where_features_are_many():
    plain, unregularized, regularized = mean_rates(d=30, n=150, repeats=12)
    assert plain == pytest.approx(RATE_OF_ONE_THRESHOLD, abs=0.03)
    assert unregularized > 0.16
    assert 0.1 < regularized < unregularized - 0.02


# --- bad input


ONES = np.ones(3)
FEATURES = np.arange(20.0).reshape(10, 2) ** 1.5
SCORES = np.arange(10.0)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ood.p_values(ONES, ONES, seed=-1), "seed to be an integer of at least 0"),
        (
            lambda: ood.adjusted_p_values(np.array([0.5, 1.5])),
            "p_values from 0 to 1, 1 are not, such as 1.5: likejax.ood.p_values computes",
        ),
        (lambda: ood.simes(np.array([-0.1])), "p_values from 0 to 1"),
        (lambda: ood.fisher(np.array([math.nan])), "expected p_values without NaN, got 1"),
        (lambda: ood.adjusted_p_values(np.ones((2, 2))), r"p_values of shape \(n,\)"),
        (lambda: ood.benjamini_hochberg(ONES, 1.0), "fdr to be a number above 0 and below 1"),
        (lambda: ood.fisher(ONES, axis=1), r"an axis of p_values, which have shape \(3,\), got 1"),
        (lambda: ood.fisher(np.array(0.5)), "an axis of p_values"),
        (lambda: ood.simes(np.ones((2, 0))), "none along axis -1"),
        (
            lambda: ood.weighted_p_values(ONES, ONES, np.ones(2), ONES),
            r"calibration_weights have shape \(2,\) and the scores \(3,\)",
        ),
        (
            lambda: ood.weighted_p_values(ONES, ONES, ONES, np.ones(4)),
            r"weights have shape \(4,\) and the scores \(3,\)",
        ),
        (
            lambda: ood.weighted_p_values(ONES, ONES, -ONES, ONES),
            "calibration_weights of at least 0, 3 are negative, such as -1: weights are ratios",
        ),
        (
            lambda: ood.weighted_p_values(ONES, ONES, ONES, np.array([1, 1, math.inf])),
            "expected weights to be finite, 1 of 3 are not",
        ),
        (lambda: ood.weighted_p_values(ONES, ONES, ONES, math.nan * ONES), "weights without NaN"),
        (lambda: ood.weighted_p_values(ONES, ONES, 0 * ONES, ONES), "weights above 0, all 3 are 0"),
        (lambda: ood.weighted_p_values(math.nan * ONES, ONES, ONES, ONES), "scores without NaN"),
        (lambda: ood.weighted_p_values(ONES[:0], ONES, ONES, ONES), "with n > 0"),
        (lambda: ood.effective_size(0 * ONES), "expected weights above 0, all 3 are 0"),
        (lambda: ood.effective_size(ONES[:0]), "expected weights above 0, all 0 are 0"),
        (lambda: ood.shift_weights(ONES, np.ones(2)), r"got shapes \(3,\) and \(2,\)"),
        (lambda: ood.shift_weights(ONES, math.nan * ONES), "target_log_prob without NaN, got 3"),
        (
            lambda: ood.shift_weights(-math.inf * ONES, -math.inf * ONES),
            "3 have infinite log-probabilities of the same sign",
        ),
        (lambda: ood.shift_weights(ONES, ONES, largest=0.0), "largest to be a number above 0"),
        (lambda: ood.shift_weights(ONES, ONES, offset=math.nan), "offset to be a number"),
        (lambda: ood.ShiftedThreshold(fpr=0.5), "fpr to be a number above 0 and below 0.5"),
        (
            lambda: ood.ShiftedThreshold().fit(FEATURES, SCORES, FEATURES[:, :1]),
            "the same features of source and target, got 2 and 1",
        ),
        (
            lambda: ood.ShiftedThreshold().fit(FEATURES, SCORES[:9], FEATURES),
            r"got 10 examples and scores of shape \(9,\)",
        ),
        (
            lambda: ood.ShiftedThreshold().fit(FEATURES[:3], SCORES[:3], FEATURES),
            "more source examples than the 2 features and a constant, got 3",
        ),
        (
            lambda: ood.ShiftedThreshold().fit(FEATURES, 0 * SCORES, FEATURES),
            "source_scores that differ, all 10 are 0",
        ),
        (
            lambda: ood.ShiftedThreshold().fit(FEATURES, math.inf + SCORES, FEATURES),
            "source_scores to be finite, 10 of 10 are not",
        ),
        (
            lambda: ood.ShiftedThreshold().fit(FEATURES, SCORES, FEATURES[:0]),
            r"target_features of shape \(n, features\) with n > 0",
        ),
        (
            lambda: ood.ShiftedThreshold().fit(math.nan * FEATURES, SCORES, FEATURES),
            "source_features without NaN",
        ),
        (
            lambda: ood.FittedThreshold(ONES, 0.0)(np.ones(2)),
            r"features \(\*batch, 3\), got \(2,\)",
        ),
    ],
)
def test_values_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ood.fisher(["a"]), "expected p_values to be real numbers, got dtype <U1"),
        (lambda: ood.simes([True]), "expected p_values to be real numbers, got dtype bool"),
        (lambda: ood.fisher(ONES, axis=None), "expected axis to be an integer"),
        (lambda: ood.p_values(ONES, ONES, seed=0.5), "expected seed to be an integer"),
        (lambda: ood.effective_size([1j]), "expected weights to be real numbers"),
        (lambda: ood.shift_weights(["a"], [1.0]), "source_log_prob to be real numbers"),
        (lambda: ood.ShiftedThreshold().fit([["a"]], [1.0], [[1.0]]), "source_features to be real"),
    ],
)
def test_types_are_checked(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.untyped
def test_lists_are_numbers_too():
    assert ood.fisher([0.05, 0.2]) == ood.fisher(np.array([0.05, 0.2]))
    assert ood.benjamini_hochberg([0, 1], 0.1).tolist() == [True, False]
    assert ood.effective_size([1, 1]) == 2
    with pytest.raises(ValueError, match="p_values to form one array"):
        ood.simes([[0.1], [0.1, 0.2]])

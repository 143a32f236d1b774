"""Metrics, their intervals, and conformal calibration, against exact values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from likejax import ood

RNG = np.random.default_rng(0)


def test_the_mean_of_several_auroc_by_brute_force():
    """Value and error from the placements of every pair; inside examples are shared."""
    rng = np.random.default_rng(5)
    inside = rng.normal(size=40).round(1)
    outside = [rng.normal(0.5, size=30).round(1), rng.normal(1.5, size=20).round(1)]
    wins = [(each[:, None] > inside) + 0.5 * (each[:, None] == inside) for each in outside]
    shared = np.mean([won.mean(0) for won in wins], axis=0)
    own = [won.mean(1) for won in wins]
    variance = shared.var(ddof=1) / 40
    variance += sum(each.var(ddof=1) / len(each) for each in own) / 4
    found = ood.mean_auroc_interval(inside, outside)
    np.testing.assert_allclose(found.value, np.mean([won.mean() for won in wins]), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance), rtol=1e-12)
    assert found.low < found.value < found.high
    assert ood.mean_auroc_interval(inside, outside[:1]) == ood.auroc_interval(inside, outside[0])
    with pytest.raises(ValueError, match="at least one outside set"):
        ood.mean_auroc_interval(inside, [])


def test_the_toy_by_hand():
    """Labels 0 0 0 1 0 with scores .1 .3 .6 .9 1.3 (reference/ood.md, section 7)."""
    inside, outside = [0.1, 0.3, 0.6, 1.3], [0.9]
    assert ood.auroc(inside, outside) == 0.75
    assert ood.aupr(inside, outside) == 0.5
    assert ood.aupr(inside, outside, estimator="trapezoid") == 0.25
    assert ood.aupr(inside, outside, positive="inside") == pytest.approx(0.95)
    assert ood.aupr(inside, outside, positive="inside", estimator="trapezoid") == pytest.approx(
        0.94375
    )
    assert ood.fpr_at_tpr(inside, outside, 0.95) == 0.25
    negated = [-s for s in outside], [-s for s in inside]  # inside positive
    assert ood.fpr_at_tpr(*negated, 0.95) == 1.0
    assert ood.detection_error(inside, outside) == 0.125


def test_against_scikit_learn_with_ties():
    for decimals in (0, 1, 6):
        inside, outside = (
            RNG.normal(size=300).round(decimals),
            RNG.normal(0.7, size=200).round(decimals),
        )
        labels, scores = np.repeat([0, 1], [300, 200]), np.concatenate([inside, outside])
        assert ood.auroc(inside, outside) == pytest.approx(
            sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12
        )
        expected = sklearn_metrics.average_precision_score(labels, scores)
        assert ood.aupr(inside, outside) == pytest.approx(expected, abs=1e-12)
        expected = sklearn_metrics.average_precision_score(1 - labels, -scores)
        assert ood.aupr(inside, outside, positive="inside") == pytest.approx(expected, abs=1e-12)
        for full, ours in ((False, False), (True, True)):
            rates = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=full)[:2]
            np.testing.assert_allclose(
                ood.roc_curve(inside, outside, drop_collinear=ours), rates, atol=1e-12
            )


def test_ranks_are_float64():
    """Scores that float32 cannot tell apart are told apart."""
    inside, outside = 1e6 + np.arange(50) * 1e-6, 1e6 + np.arange(50) * 1e-6 + 5e-7
    assert len(np.unique(np.float32(inside))) == 1
    assert ood.auroc(inside, outside) == pytest.approx(0.51)


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        ([0.1, math.nan], [1.0], "inside has 1"),
        ([0.1], [math.nan, math.nan], "outside has 2"),
        ([], [1.0], r"n > 0 of both classes, inside has shape \(0,\)"),
        ([1.0], [], "of both classes, outside"),
        ([[1.0]], [1.0], "inside has shape"),
    ],
)
def test_nan_and_one_class_are_refused(inside, outside, message):
    for metric in (
        ood.auroc,
        ood.aupr,
        ood.detection_error,
        ood.evaluate_scores,
        ood.auroc_interval,
    ):
        with pytest.raises(ValueError, match=message):
            metric(inside, outside)


def test_infinite_scores_have_a_rank():
    assert ood.auroc([0.0, 1.0], [math.inf, math.inf]) == 1.0
    assert ood.evaluate_scores([0.0, 1.0], [math.inf], resamples=3)["auroc"].value == 1.0


# --- intervals


def test_delong_is_the_formula_from_all_pairs():
    inside, outside = RNG.normal(size=40).round(1), RNG.normal(1, size=30).round(1)
    kernel = (outside[:, None] > inside) + 0.5 * (outside[:, None] == inside)
    variance = kernel.mean(1).var(ddof=1) / 30 + kernel.mean(0).var(ddof=1) / 40
    found = ood.auroc_interval(inside, outside)
    assert found.value == pytest.approx(kernel.mean())
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    second = RNG.normal(size=40), RNG.normal(0.5, size=30)
    kernel_2 = (second[1][:, None] > second[0]).astype(float)
    difference = kernel.mean(1) - kernel_2.mean(1), kernel.mean(0) - kernel_2.mean(0)
    variance = difference[0].var(ddof=1) / 30 + difference[1].var(ddof=1) / 40
    paired = ood.auroc_difference((inside, outside), second)
    assert paired.standard_error == pytest.approx(math.sqrt(variance))
    assert paired.value == pytest.approx(kernel.mean() - kernel_2.mean())
    same = ood.auroc_difference((inside, outside), (inside, outside))
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_delong_is_the_standard_error_of_two_normals():
    """The estimate is near the exact value: .0130 for 500 and .0029 for 10,000, at AUROC .82."""
    shift = math.sqrt(2) * stats.norm.ppf(0.82)
    outside_above = stats.norm(0).expect(lambda x: stats.norm.cdf(shift - x) ** 2)
    inside_below = stats.norm(shift).expect(lambda y: stats.norm.cdf(y) ** 2)
    variance = outside_above + inside_below - 2 * 0.82**2  # of one pair's two parts
    for n, tolerance in ((500, 0.15), (10_000, 0.04)):
        found = ood.auroc_interval(RNG.normal(size=n), RNG.normal(shift, size=n))
        assert found.standard_error == pytest.approx(math.sqrt(variance / n), rel=tolerance)


def _changed(rng, correlation: float, n: int = 150):
    """Inside scores, and scores of the same examples changed, of that correlation, by 1 higher."""
    inside, noise = rng.normal(size=(2, n))
    return inside, 1 + correlation * inside + math.sqrt(1 - correlation**2) * noise


@pytest.mark.untyped  # thousands of small calls
@pytest.mark.parametrize("correlation", [0.9, -0.5])
def test_errors_of_changed_examples(correlation):
    """They are the spread over 400 samples; those for independent classes are far from it."""
    rng = np.random.default_rng(0)
    values, errors, independent = [], [], []
    for _ in range(400):
        inside, changed = _changed(rng, correlation)
        other = rng.normal(size=150)
        of_two = ood.mean_auroc_interval(inside, [other], changed=[changed])
        against_other = (inside, _changed(rng, correlation)[1])
        scores = (inside, changed), against_other
        found = [
            ood.mean_auroc_interval(inside, changed=[changed]),
            of_two,
            ood.auroc_difference_of_changed(*scores),
        ]
        apart = [
            ood.auroc_interval(inside, changed),
            ood.mean_auroc_interval(inside, [other, changed]),
            ood.auroc_difference(*scores),
        ]
        values.append([each.value for each in found])
        errors.append([each.standard_error for each in found])
        independent.append([each.standard_error for each in apart])
        assert [each.value for each in apart] == pytest.approx(values[-1], rel=1e-12)
    spread = np.std(values, axis=0, ddof=1)
    # the spread of 400 numbers is known to 3.5 %
    np.testing.assert_allclose(np.mean(errors, axis=0), spread, rtol=0.14)
    assert (np.abs(np.mean(independent, axis=0) / spread - 1) > 0.05).all()


def test_metrics_of_changed_examples():
    """The bootstrap draws an example with its changed form: its errors are the spread."""
    rng = np.random.default_rng(0)
    names = ("aupr_out", "aupr_in", "fpr80")
    values, errors = [], []
    for seed in range(60):
        found = ood.evaluate_changed(*_changed(rng, 0.9), resamples=40, seed=seed)
        values.append([found[name].value for name in names])
        errors.append([found[name].standard_error for name in names])
    # the spread of 60 numbers is known to 9 %
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(values, axis=0, ddof=1), rtol=0.3)
    inside = rng.normal(size=30)
    unchanged = ood.evaluate_changed(inside, inside, resamples=3)["auroc"]
    assert unchanged.value == pytest.approx(0.5)
    assert unchanged.standard_error == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="each of the 30 inside examples in its changed form"):
        ood.evaluate_changed(inside, inside[:9])


@pytest.mark.untyped  # thousands of small calls
def test_intervals_cover():
    """About 95 % of 300 intervals of every metric hold the truth, within 4 standard errors."""
    rng = np.random.default_rng(0)
    scores = np.linspace(-8, 9, 20_001)  # a fine grid of thresholds
    found, alarms = stats.norm.sf(scores, loc=1), stats.norm.sf(scores)
    average_precision = -np.trapezoid(
        found / (found + alarms), found
    )  # equal classes; the mirrored one is as large
    truth = {
        "auroc": stats.norm.cdf(1 / math.sqrt(2)),
        "aupr_out": average_precision,
        "aupr_in": average_precision,
        "fpr95": stats.norm.sf(stats.norm.isf(0.95, loc=1)),
        "fpr80": stats.norm.sf(stats.norm.isf(0.8, loc=1)),
        "tpr_at_1": stats.norm.sf(stats.norm.isf(0.01), loc=1),
        "tpr_at_01": stats.norm.sf(stats.norm.isf(0.001), loc=1),
        "detection_error": stats.norm.sf(0.5),
    }
    assert set(truth) == set(ood.METRICS)
    hits = dict.fromkeys(truth, 0)
    for i in range(300):
        intervals = ood.evaluate_scores(
            rng.normal(size=80), rng.normal(1, size=80), resamples=100, seed=i
        )
        for name, value in truth.items():
            hits[name] += intervals[name].low <= value <= intervals[name].high
    for name, count in hits.items():
        assert abs(count - 285) < 4 * math.sqrt(0.95 * 0.05 * 300), (name, count)


def test_intervals_stay_within_what_a_metric_can_be():
    """Few examples, classes nearly or wholly apart: ends in range and order, around the value."""
    rng = np.random.default_rng(1)
    for inside, outside in (
        (rng.normal(size=6), rng.normal(3, size=5)),
        (rng.normal(size=6), rng.normal(size=4)),
        (np.arange(20), np.arange(20) + 100),
        (np.arange(20) + 100, np.arange(20)),
        (np.zeros(5), np.zeros(5)),
    ):
        for name, interval in ood.evaluate_scores(inside, outside, resamples=30).items():
            top = 0.5 if name == "detection_error" else 1.0
            assert 0 <= interval.low <= interval.value <= interval.high <= top, (name, interval)
    apart = ood.evaluate_scores(np.arange(20), np.arange(30) + 100, resamples=30)["detection_error"]
    assert (apart.value, apart.low, apart.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 20)))


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ood.aupr([0.0], [1.0], positive="outsde"), ValueError, "did you mean 'outside'"),
        (
            lambda: ood.aupr([0.0], [1.0], estimator="average precision"),
            ValueError,
            "did you mean 'average_precision'",
        ),
        (
            lambda: ood.aupr([0.0], [1.0], positive="in", estimator="ap"),
            ValueError,
            "expected positive to be",
        ),
        (
            lambda: ood.fpr_at_tpr([0.0], [1.0], 95),
            ValueError,
            "expected tpr to be a number above 0 and at most 1",
        ),
        (lambda: ood.fpr_at_tpr([0.0], [1.0], 0), ValueError, "expected tpr to be"),
        (lambda: ood.fpr_at_tpr([0.0], [1.0], "0.95"), TypeError, "expected tpr to be"),
        (
            lambda: ood.evaluate_scores([0.0], [1.0], resamples=-1),
            ValueError,
            "resamples to be an integer of at least",
        ),
        (
            lambda: ood.evaluate_scores([0.0], [1.0], confidence=0),
            ValueError,
            "expected confidence to be",
        ),
        (
            lambda: ood.auroc_difference(([0.0], [1.0]), ([0.0], [1.0]), confidence=2),
            ValueError,
            "confidence to be",
        ),
        (
            lambda: ood.auroc_difference([0.0, 1.0], [2.0, 3.0]),
            TypeError,
            r"first to be a pair \(inside scores, outside scores\), got list",
        ),
        (
            lambda: ood.auroc_difference(np.zeros((2, 3)), np.zeros((2, 3))),
            TypeError,
            "first to be a pair .*, got ndarray",
        ),
        (
            lambda: ood.auroc_difference(([0.0], [1.0]), ([0.0, 1.0], [1.0])),
            ValueError,
            "got 1 inside and 1 outside scores of the first, 2 and 1 of the second",
        ),
        (
            lambda: ood.evaluate_scores([0.0], [1.0], seed="q"),
            TypeError,
            "expected seed to be an integer",
        ),
        (lambda: ood.auroc([[0.0], [1.0, 2.0]], [1.0]), ValueError, "that form one array"),
        (lambda: ood.auroc(["a"], [1.0]), TypeError, "inside has dtype"),
        (lambda: ood.auroc([0.0], [1j]), TypeError, "outside has dtype complex128"),
        (lambda: ood.auroc([0.0], [True]), TypeError, "outside has dtype bool"),
        (
            lambda: ood.threshold(np.zeros(3), -0.1),
            ValueError,
            "expected fpr to be a number above 0 and below 1",
        ),
        (lambda: ood.threshold(np.zeros(3), 0.1, delta=1.0), ValueError, "expected delta to be"),
        (
            lambda: ood.threshold(np.zeros((3, 1)), 0.1),
            ValueError,
            r"calibration scores \(n,\) with n > 0",
        ),
        (
            lambda: ood.p_values(np.zeros(3), np.array(["a"])),
            TypeError,
            "expected real numbers as scores",
        ),
        (
            lambda: ood.rank_of_threshold(0, 0.1),
            ValueError,
            "expected n to be an integer of at least 1",
        ),
        (
            lambda: ood.false_alarm_rates(
                np.zeros(9), calibration=0, test=2, fpr=0.1, repeats=1, seed=0
            ),
            ValueError,
            "expected calibration to be an integer of at least 1",
        ),
    ],
)
def test_arguments_are_checked(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_classes_that_do_not_overlap_have_an_interval():
    found = ood.auroc_interval(np.arange(20), np.arange(20) + 100)
    assert (found.value, found.high, found.standard_error) == (1, 1, 0)
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    reverse = ood.auroc_interval(np.arange(20) + 100, np.arange(20))
    assert (reverse.low, reverse.high) == (0, pytest.approx(1 - found.low))


def test_one_example_of_a_class_says_nothing():
    found = ood.evaluate_scores(RNG.normal(size=1000), [2.0], resamples=5)
    assert all((interval.low, interval.high) == (0, 1) for interval in found.values())
    assert math.isnan(found["auroc"].standard_error)
    separated = ood.evaluate_scores(np.zeros(30), np.ones(40), resamples=5)["fpr95"]
    assert (separated.value, separated.high) == (0, pytest.approx(1 - 0.025 ** (1 / 30)))
    with pytest.raises(ValueError, match="confidence to be a number above 0 and below 1"):
        ood.auroc_interval([0.0, 1.0], [1.0, 2.0], confidence=95.0)


def test_the_bootstrap_is_stratified_and_keyed():
    inside, outside = RNG.normal(size=100), RNG.normal(1, size=20)
    first, again, other = (
        ood.evaluate_scores(inside, outside, resamples=50, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first["aupr_out"] != other["aupr_out"]
    assert list(first) == list(ood.METRICS)
    for name in ood.METRICS:
        assert first[name].low <= first[name].value <= first[name].high, name


# --- calibration


def test_ranks_of_thresholds():
    """reference/ood.md, section 2.19: alpha .05, delta .1."""
    assert [ood.rank_of_threshold(n, 0.05, 0.1) for n in (200, 1000, 5000, 10_000)] == [
        6,
        41,
        230,
        472,
    ]
    assert [ood.rank_of_threshold(n, 0.05) for n in (19, 18, 200, 1000)] == [1, 0, 10, 50]
    for n in (50, 137, 1000):
        k = ood.rank_of_threshold(n, 0.05, 0.1)
        if k:
            assert stats.beta.sf(0.05, k, n + 1 - k) <= 0.1
        assert stats.beta.sf(0.05, k + 1, n - k) > 0.1
    for wrong in ({"fpr": 0.0}, {"fpr": 1.0}, {"fpr": 0.1, "delta": 0.0}):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            ood.rank_of_threshold(100, **wrong)


def test_p_values_and_thresholds_agree():
    calibration = RNG.permutation(np.arange(99.0))
    np.testing.assert_allclose(
        ood.p_values(calibration, np.array([-1.0, 98.0, 98.5, 50.0])), [1, 0.02, 0.01, 0.5]
    )
    t = ood.threshold(calibration, 0.05)
    scores = np.linspace(-5, 105, 1000)
    np.testing.assert_array_equal(scores > t, ood.p_values(calibration, scores) <= 0.05)
    assert ood.threshold(calibration[:10], 0.05) == math.inf
    assert ood.p_values(np.zeros(9), np.zeros(1))[0] == 1.0  # ties count against
    with pytest.raises(ValueError, match="without NaN"):
        ood.p_values(calibration, np.array([math.nan]))
    with pytest.raises(ValueError, match="without NaN"):
        ood.threshold(np.array([math.nan]), 0.05)


def assert_calibrated(scores: np.ndarray, calibration: int, test: int) -> None:
    """Mean rate within 4 standard errors of k / (n + 1), 82 % of rates in the 90 % interval."""
    rates = ood.false_alarm_rates(
        scores, calibration=calibration, test=test, fpr=0.05, repeats=200, seed=0
    )
    k = ood.rank_of_threshold(calibration, 0.05)
    law = stats.betabinom(test, k, calibration + 1 - k)
    assert abs(rates.mean() - k / (calibration + 1)) < 4 * law.std() / test / math.sqrt(200)
    low, high = law.ppf([0.05, 0.95]) / test
    assert np.mean((rates >= low) & (rates <= high)) >= 0.82


@pytest.mark.parametrize(("calibration", "test"), [(200, 500), (1000, 1000)])
def test_false_alarms_follow_the_beta_binomial(calibration, test):
    assert_calibrated(RNG.gumbel(size=20_000), calibration, test)
    with pytest.raises(ValueError, match="at least 30 scores"):
        ood.false_alarm_rates(np.zeros(29), calibration=10, test=20, fpr=0.05, repeats=1, seed=0)


def test_pac_thresholds_hold_their_promise():
    """With delta = .1 at most a tenth of calibration sets has a true rate above .05."""
    rates = [
        1 - stats.norm.cdf(ood.threshold(RNG.normal(size=500), 0.05, delta=0.1))
        for _ in range(2000)
    ]
    share = np.mean(np.array(rates) > 0.05)
    exact = stats.beta.sf(0.05, k := ood.rank_of_threshold(500, 0.05, delta=0.1), 501 - k)
    assert exact <= 0.1
    assert abs(share - exact) < 4 * math.sqrt(0.09 / 2000)
    marginal = [1 - stats.norm.cdf(ood.threshold(RNG.normal(size=500), 0.05)) for _ in range(500)]
    assert np.mean(np.array(marginal) > 0.05) > 0.3

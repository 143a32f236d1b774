"""Pictures of densities, runs and classifiers, the landscape, what notebooks show."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import likejax as lj
from likejax.classification import Classification
from likejax.settings import changed

DIGITS = lj.load("digits", split="test")
HISTOGRAM = lj.models.PixelHistogram.fit(DIGITS)
COVARIANCE = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 2.0]])
GAUSSIAN = lj.models.FullGaussian(
    jnp.array([1.0, -2.0, 0.5]), jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32), (3,)
)
MEAN = np.array([1.0, -2.0, 0.5])
ORIGIN = np.zeros(3)


def picture(figure, panel: int = 0) -> np.ndarray:
    """The array that a panel shows as an image."""
    return np.asarray(figure.axes[panel].images[0].get_array())


# --- the landscape


@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_the_flatness_of_a_normal_is_known(radius):
    """At the mean ``r^2 / 4 tr(D' P D)``: flatness and fall. Elsewhere the fall stays the same."""
    at_mean = lj.ood.landscape(GAUSSIAN, MEAN, radius=radius, key=0, points=3)
    d1, d2 = at_mean.directions
    precision = np.linalg.inv(COVARIANCE)
    wanted = radius**2 / 4 * (d1 @ precision @ d1 + d2 @ precision @ d2)
    assert at_mean.flatness == pytest.approx(wanted, rel=1e-5)
    assert at_mean.fall == pytest.approx(wanted, rel=1e-5)
    away = lj.ood.landscape(GAUSSIAN, MEAN + 1.5, radius=radius, key=0, points=3)
    assert away.fall == pytest.approx(wanted, rel=1e-4)
    assert away.flatness >= away.fall


def test_the_flatness_of_a_slope_and_of_a_plain():
    """On a slope of gradient ``g`` the change is ``r g cos``: flatness ``2 r g / pi``, no fall."""

    class Slope(lj.Density):
        event_shape = (2,)
        kind = lj.Kind.EXACT

        def _log_prob(self, x, key, condition):
            return 3.0 * x[0]

        def _sample(self, key, condition, temperature):
            return jnp.zeros(2)

    slope = lj.ood.landscape(Slope(), np.zeros(2), radius=2.0, directions=np.eye(2), points=5)
    assert slope.flatness == pytest.approx(2 * 2.0 * 3.0 / np.pi, rel=1e-3)
    assert slope.fall == pytest.approx(0.0, abs=1e-6)
    plain = lj.ood.landscape(lj.models.Uniform((2,)), np.full(2, 0.5), radius=0.4, key=0)
    assert (plain.flatness, plain.fall) == (0.0, 0.0)


def test_the_grid_of_a_landscape_is_the_density():
    """Values on the slice are those of scipy's normal, ``b`` along the first axis."""
    directions = [np.array([2.0, 0.0, 0.0]), np.array([5.0, 0.0, 3.0])]
    found = lj.ood.landscape(GAUSSIAN, ORIGIN, radius=1.5, directions=directions, points=7)
    np.testing.assert_allclose(found.directions, [[1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(found.axis, np.linspace(-1.5, 1.5, 7))
    a, b = np.meshgrid(found.axis, found.axis)
    points = np.stack([a, np.zeros_like(a), b], axis=-1)
    normal = multivariate_normal(MEAN, COVARIANCE)
    np.testing.assert_allclose(found.log_prob, normal.logpdf(points), rtol=1e-5)
    assert found.center_log_prob == pytest.approx(normal.logpdf(np.zeros(3)), rel=1e-6)
    assert found.heights[3, 3] == 0
    assert found.coordinates(np.array([1.0, 9.0, -0.5])) == (1.0, -0.5)


def test_random_directions_are_orthonormal_and_follow_the_key():
    first, again, other = (
        lj.ood.landscape(HISTOGRAM, DIGITS.examples[0], radius=9.0, key=key, points=2).directions
        for key in (0, 0, 1)
    )
    flat = first.reshape(2, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(2), atol=1e-6)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_a_landscape_of_images_holds_masses_of_images():
    """Points are rounded and clipped, so that images on the slice are met exactly."""
    x, other = DIGITS.examples[0], DIGITS.examples[1]
    away = other - x.astype(float)
    aside = np.zeros_like(away)
    aside[0, 0] = 1
    distance = float(np.linalg.norm(away))
    options = {"radius": distance, "directions": [away, aside], "points": 3}
    found = lj.ood.landscape(HISTOGRAM, x, **options)
    wanted = np.asarray(HISTOGRAM.log_prob(np.stack([x, other])), np.float64)
    assert found.log_prob[1, 1] == found.center_log_prob == pytest.approx(wanted[0], rel=1e-6)
    assert found.log_prob[1, 2] == pytest.approx(wanted[1], rel=1e-6)
    assert found.coordinates(other) == pytest.approx((distance, 0.0), abs=1e-9)
    assert np.isfinite(found.log_prob).all()


def test_the_noise_of_a_landscape_is_the_same_everywhere():
    """Of a density whose draws depend on the key alone the landscape is flat."""

    class Noisy(lj.Density):
        event_shape = (2,)
        kind = lj.Kind.ESTIMATE

        def _log_prob(self, x, key, condition):
            return jax.random.normal(key)

        def _sample(self, key, condition, temperature):
            return jnp.zeros(2)

    found = lj.ood.landscape(Noisy(), np.zeros(2), radius=1.0, key=3, draws=4, points=5)
    assert np.ptp(found.log_prob) == 0
    assert found.flatness == 0
    with pytest.raises(ValueError, match="expected a key for the draws of this density"):
        lj.ood.landscape(Noisy(), np.zeros(2), radius=1.0, directions=np.eye(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected a key for random directions"),
        ({"directions": np.eye(3)}, "expected two directions, got 3"),
        ({"directions": [np.ones(3), -2 * np.ones(3)]}, "that are not parallel"),
        ({"directions": [np.ones(3), np.zeros(3)]}, "directions that are not 0"),
        ({"directions": np.eye(2)}, r"a direction of shape \(3,\), got \(2,\)"),
        ({"directions": [np.ones(3), np.full(3, np.inf)]}, "a direction to be finite, got inf"),
        ({"key": 0, "radius": 0.0}, "expected radius to be a number above 0"),
    ],
)
def test_landscapes_refuse(options, message):
    with pytest.raises(ValueError, match=message):
        lj.ood.landscape(GAUSSIAN, ORIGIN, **({"radius": 1.0} | options))


def test_the_picture_of_a_landscape():
    found = lj.ood.landscape(GAUSSIAN, ORIGIN, radius=2.0, directions=np.eye(3)[:2], points=9)
    figure = found.plot(lowest=-1.0, marks={"beside": np.array([1.0, -0.5, 0.0])})
    axes, bar = figure.axes
    np.testing.assert_allclose(picture(figure), found.heights)
    assert axes.images[0].get_clim()[0] == -1.0
    assert f"flatness {found.flatness:.1f} nats" in axes.get_title()
    assert bar.get_ylabel().endswith("nats")
    assert {text.get_text(): text.xy for text in axes.texts} == {
        "center": (0.0, 0.0),
        "beside": (1.0, -0.5),
    }
    with pytest.raises(ValueError, match="expected finite heights"):
        lj.plot.landscape(np.full((3, 3), np.nan), radius=1.0)


# --- pictures of densities


def test_samples_and_temperatures_show_the_samples():
    key = jax.random.key(4)
    sheet = picture(lj.plot.samples(HISTOGRAM, key=key, n=3))
    drawn = np.asarray(HISTOGRAM.sample(key, 3))
    np.testing.assert_array_equal(sheet[1:9, 10:18], drawn[1, ..., 0])
    figure = lj.plot.temperatures(HISTOGRAM, key=key, values=(0.5, 1.0), n=3)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["temperature 0.5", "temperature 1"]
    for panel, temperature in enumerate((0.5, 1.0)):
        drawn = np.asarray(HISTOGRAM.sample(key, 3, temperature=temperature)) / 16
        np.testing.assert_allclose(picture(figure, panel)[1:9, 1:9], drawn[0, ..., 0])


def test_interpolations_begin_and_end_with_their_images():
    """Decoded latents of dequantized images are the images; a row for each pair."""
    config = lj.preset("glow/digits").override({"model.depth": 1, "model.width": 4}).model
    density = lj.build(config, key=0)
    first, second = DIGITS.examples[:2], DIGITS.examples[2:4]
    canvas = picture(lj.plot.interpolation(density, first, second, key=1, steps=3))
    for row in range(2):
        place = slice(1 + 9 * row, 9 + 9 * row)
        np.testing.assert_array_equal(canvas[place, 1:9], first[row, ..., 0])
        np.testing.assert_array_equal(canvas[place, 19:27], second[row, ..., 0])


def test_reconstructions_have_a_row_for_each_level():
    stages = (lj.models.StageConfig(channels=(4,), strides=(2,), latent=2, dense=False),)
    stages += (lj.models.StageConfig(channels=(4,), strides=(1,), latent=2),)
    vae = lj.build(lj.preset("hvae/digits").override({"model.stages": stages}).model, key=0)
    x = DIGITS.examples[:2]
    figure = lj.plot.reconstructions(vae, x, key=1)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["images", "from level 0", "from level 1", "from level 2"]
    np.testing.assert_allclose(picture(figure)[1:9, 1:9], x[0, ..., 0] / 16)
    again = vae.reconstruct(x, key=jax.random.key(1), from_level=1, replacement="mean")
    shown = picture(figure, 2)[1:9, 10:18]
    np.testing.assert_allclose(shown, np.clip(np.asarray(again)[1, ..., 0] / 16, 0, 1), atol=1e-6)


def test_a_density_in_the_plane_is_drawn_with_its_points():
    gaussian = lj.models.FullGaussian(jnp.array([1.0, 0.0]), jnp.eye(2), (2,))
    points = np.zeros((5, 2), np.float32)
    figure = lj.plot.density_2d(gaussian, side=3.0, pictures={"data": points})
    values = picture(figure)
    row, column = np.unravel_index(values.argmax(), values.shape)
    axis = np.linspace(-3, 3, len(values))
    assert abs(axis[column] - 1.0) < 0.05
    assert abs(axis[row]) < 0.05
    assert values.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(0.975, abs=0.01)
    assert [axes.get_title() for axes in figure.axes] == ["density", "data"]


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: lj.plot.samples(GAUSSIAN, key=0), ValueError, "a density of integer images"),
        (
            lambda: lj.plot.interpolation(HISTOGRAM, *DIGITS.examples[:2], key=0),
            TypeError,
            "expected a density with encode, PixelHistogram has none",
        ),
        (
            lambda: lj.plot.reconstructions(HISTOGRAM, DIGITS.examples[:2], key=0),
            TypeError,
            "expected a density with reconstruct",
        ),
        (lambda: lj.plot.density_2d(GAUSSIAN, side=1.0), ValueError, "points in the plane"),
        (lambda: lj.plot.temperatures(HISTOGRAM, key=0, values=()), ValueError, "expected rows"),
        (
            lambda: lj.plot.posteriors(np.full((1, 2), 0.5), names=["a"]),
            ValueError,
            "expected 2 names, got 1",
        ),
        (lambda: lj.plot.posteriors(np.zeros((0, 2)), names=["a", "b"]), ValueError, "got none"),
    ],
)
def test_pictures_of_densities_refuse(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


# --- pictures of results


def test_the_curves_of_a_run_are_those_of_its_records():
    """Bits/dim of integer data, minus ``log p`` of others; losses of skipped steps are left out."""
    history = [
        {"step": 1, "loss": 3.0, "log_prob": -64 * np.log(2.0)},
        {"step": 2, "loss": None, "log_prob": None},
        {"step": 2, "validation": 0.75},
    ]
    run = lj.train.Run(
        density=HISTOGRAM,
        last=HISTOGRAM,
        experiment=lj.Experiment(HISTOGRAM, steps=2),
        steps=2,
        best_step=2,
        validation=0.75,
        history=history,
        workdir=None,
    )
    curves = run.curves()
    assert curves == {"training batches": ([1], [pytest.approx(1.0)]), "validation": ([2], [0.75])}
    axes = run.plot(title="digits").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (
        "step",
        "bits/dim",
        "digits",
    )
    assert [line.get_label() for line in axes.lines] == list(curves)
    nats = dataclasses.replace(run, density=GAUSSIAN, history=[{"step": 1, "log_prob": -4.0}])
    assert nats.curves() == {"training batches": ([1], [4.0])}
    assert nats.plot().axes[0].get_ylabel() == "-log p, nats"
    with pytest.raises(ValueError, match="expected a run that logged a likelihood"):
        dataclasses.replace(run, history=[{"step": 1, "loss": 2.0}]).plot()


def test_the_mean_posterior_of_a_classification():
    posterior = np.array([[0.9, 0.1, 0.0], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    with np.errstate(divide="ignore"):
        log_posterior = np.log(posterior)
    result = Classification(
        log_posterior=log_posterior,
        labels=np.array([0, 0, 2]),
        kind=lj.Kind.EXACT,
        draws=1,
        dataset="three test",
        fingerprint="",
        class_names=("cat", "dog", "owl"),
    )
    np.testing.assert_allclose(result.mean_posterior[0], [0.7, 0.175, 0.125])
    np.testing.assert_allclose(result.mean_posterior[2], [0.1, 0.1, 0.8])
    assert np.isnan(result.mean_posterior[1]).all()
    axes = result.plot().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "cat (n = 2)",
        "dog (n = 0)",
        "owl (n = 1)",
    ]
    assert "three test" in axes.get_title()


def test_the_posterior_of_examples_stands_below_their_images():
    classifier = lj.Classifier(lj.models.NaiveBayes.fit(lj.load("digits")))
    x = DIGITS.examples[:2]
    figure = classifier.plot(x, titles=["a", "b"])
    bars = [axes for axes in figure.axes if axes.patches]
    images = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in images] == ["a", "b"]
    wanted = np.exp(np.asarray(classifier.log_posterior(x)))
    for axes, values in zip(bars, wanted, strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], values, rtol=1e-6)
    names = [label.get_text() for label in bars[0].get_yticklabels()]
    assert names == [str(label) for label in range(10)]
    with pytest.raises(ValueError, match="expected 10 names of classes, got 1"):
        classifier.plot(x, class_names=["one"])


def test_the_histograms_of_a_score():
    score = lj.ood.NegativeLogProb().fit(GAUSSIAN, np.zeros((3, 3), np.float32))
    near = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    axes = score.plot({"near": near, "far": near + 9}).axes[0]
    assert axes.get_title() == score.recipe.label
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["near", "far"]


# --- what notebooks show


def test_settings_show_what_differs_from_the_defaults():
    experiment = lj.preset("glow/digits").override({"optimizer.b1": 0.5, "steps": 7})
    facts = changed(experiment)
    assert facts["steps"] == "7"
    assert facts["optimizer.b1"] == "0.5"
    assert facts["model"] == "GlowConfig"
    assert "keep_checkpoints" not in facts
    assert ">Experiment</caption>" in experiment._repr_html_()
    assert changed(lj.Optimizer()) == {}
    assert "all at their defaults" in lj.Optimizer()._repr_html_()
    assert changed(lj.Experiment(HISTOGRAM))["model"] == "PixelHistogram"


def test_objects_show_tables_in_notebooks():
    classifier = lj.Classifier(lj.models.NaiveBayes.fit(lj.load("digits")))
    assert repr(classifier) == "Classifier(NaiveBayes, 10 classes)"
    assert ">10</td>" in classifier._repr_html_()
    preset = lj.PRESETS["glow/cifar10"]
    assert "likejax train glow/cifar10" in preset._repr_html_()
    fit_rows, calibration_rows = np.split(np.arange(12.0, dtype=np.float32).reshape(4, 3), 2)
    score = lj.ood.Typicality().fit(GAUSSIAN, fit_rows).calibrate(calibration_rows)
    shown = score._repr_html_()
    assert "2 rows" in shown
    assert "2 scores, " in shown
    assert "photographs" in lj.ood.suite("digits")._repr_html_()
    evaluation = lj.evaluate(HISTOGRAM, DIGITS)
    assert "+0.0000 ± 0.0000 nats" in lj.compare(evaluation, evaluation)._repr_html_()
    ensemble = lj.Ensemble([HISTOGRAM, HISTOGRAM])
    assert "PixelHistogram" in ensemble._repr_html_()

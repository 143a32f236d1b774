"""The benchmark: what it refuses, what it reports, the background recipe, the command."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import likejax as lj
from likejax import ood
from likejax.cli import main
from likejax.data.synthetic import constants_like, noise_like
from tests.paths import DATA

TRAIN, VALID, TEST = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
HISTOGRAM = lj.PixelHistogram.fit(TRAIN)
SCORES = [ood.NegativeLogProb(), ood.Typicality(), ood.Typicality(group=4), ood.InputComplexity(), ood.ComplexityOnly()]


def benchmark(**changes):
    options = {
        "inside": TEST,
        "outside": [TEST.invert(), noise_like(TEST, 100, seed=0), constants_like(TEST, 100, seed=0)],
        "scores": SCORES,
        "fit": VALID,
        "train": TRAIN,
        "key": 0,
        "resamples": 20,
    }
    return ood.benchmark(HISTOGRAM, **(options | changes))


@pytest.fixture(scope="module")
def report():
    return benchmark()


def test_numbers_are_those_of_the_parts(report):
    """Every score is that of fit and calibrate by hand, every metric that of its scores."""
    cut, *_ = jax.random.split(jax.random.key(0), 5)
    order = np.asarray(jax.random.permutation(cut, len(VALID)))
    halves = [VALID.take(np.sort(rows)) for rows in (order[: len(VALID) // 2], order[len(VALID) // 2 :])]
    score = ood.Typicality().fit(HISTOGRAM, halves[0]).calibrate(halves[1])
    result = report.scores[1]
    np.testing.assert_array_equal(result.values["digits"], score(TEST.examples))
    assert result.threshold == score.threshold(0.05)
    assert result.flagged("digits") == np.mean(score.p_value(TEST.examples) <= 0.05)
    noise = report.metric("typicality", "noise", "auroc")
    assert noise.value == ood.auroc(result.values["digits"], result.values["noise"])
    evaluation = lj.evaluate(HISTOGRAM, TEST)
    assert report.sets[0].mean == pytest.approx(evaluation.bits_per_dim, rel=1e-6)
    assert report.sets[0].standard_error == pytest.approx(evaluation.bits_per_dim_error, rel=1e-6)
    assert len(report.scores[2].values["digits"]) == len(TEST) // 4
    again = benchmark(scores=[ood.Typicality()])
    np.testing.assert_array_equal(again.scores[0].values["noise"], result.values["noise"])


def test_markdown_says_what_one_must_know(report):
    text = report.to_markdown()
    for expected in (
        "# digits against digits (inverted), noise, constants",
        "kind exact",
        "event_shape [8, 8, 1], dtype uint8, levels 17",
        f"Representation {report.representation_hash()}",
        "; inverted |",
        "uniform noise, 100 examples, seed 0",
        "OOD is the positive class",
        "AUPR is average precision",
        "fitted on 90 of digits validation; calibrated with 90 of digits validation; trained on 1,258 of digits train",
        "| typicality of 4 |",
        "= 2.439",
    ):
        assert expected in text, expected
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    assert len(tables) == 2 + 3 + 1
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_files(report, tmp_path):
    place = report.write(tmp_path / "report")
    record = json.loads((place / "report.json").read_text())
    assert record["representation_hash"] == report.representation_hash()
    values = record["scores"][0]["values"]["noise"]
    np.testing.assert_array_equal(values, report.scores[0].values["noise"])
    assert record["scores"][0]["metrics"]["noise"]["auroc"]["low"] <= 1
    for name in ("histograms", "roc"):
        with Image.open(place / f"{name}.png") as picture:
            assert min(picture.size) > 400
        assert f"]({name}.png)" in (place / "report.md").read_text()
    with pytest.raises(ValueError, match="a metric of auroc, aupr_out"):
        report.metric("typicality", "noise", "accuracy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit": TEST}, "359 of the 359 different examples of digits test are in digits test"),
        ({"fit": TRAIN}, "are in digits train"),
        (
            {"outside": [dataclasses.replace(VALID, name="other")]},
            "180 of the 180 different examples of .* validation are in",
        ),
        ({"fit": TEST.take(slice(0, 40))}, "40 of the 40 different examples of digits test"),
        (
            {"train": lj.Dataset.from_array(np.repeat(VALID.examples, 2, 0), levels=17)},
            "180 of the 180 different examples",
        ),
        ({"confidence": 95.0}, "confidence to be a number above 0 and below 1"),
        (
            {"inside": TEST.take(slice(0, 100)), "fit": TEST.take(slice(95, 359))},
            "5 of the 100 different examples",
        ),
        ({"outside": [lj.load("photographs", split="test").grey().resize(8, 8)]}, "levels 17 and 256"),
        ({"outside": [TEST.invert().pad(10, 10)]}, r"event_shape \[8, 8, 1\] and \[10, 10, 1\]"),
        ({"outside": []}, "at least one outside set"),
        ({"outside": [noise_like(TEST, 9, seed=0), noise_like(TEST, 9, seed=1)]}, "comes twice"),
        ({"scores": [ood.Typicality(), ood.Typicality()]}, "scores with different labels"),
        ({"scores": []}, "scores with different labels, got none"),
        (
            {"scores": [ood.LikelihoodRatio(lj.PixelHistogram.fit(VALID)), ood.LikelihoodRatio(HISTOGRAM)]},
            "scores with different labels, got likelihood ratio, likelihood ratio",
        ),
        ({"outside": [TEST.take(slice(0, 3)).invert()], "scores": [ood.Typicality(group=4)]}, "at least 4 examples"),
    ],
)
def test_what_does_not_compare_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        benchmark(**changes)


def test_the_representation_knows_binarisation_and_colour_order():
    """Sets that differ only in how zeros and ones were made, or in the order of colours, do not compare."""
    grey = lj.Dataset.from_array(np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8))
    drawn, other = grey.binarise(0), grey.binarise(1)
    assert set(np.unique(drawn.examples)) == {0, 1}
    assert drawn.representation() != other.representation()
    assert abs(drawn.examples.mean() - grey.examples.mean() / 255) < 0.05
    given = lj.Dataset.from_array(drawn.examples, levels=2)
    histogram = lj.PixelHistogram.fit(drawn)
    options = {"fit": drawn.take(slice(0, 20)), "scores": [ood.NegativeLogProb()], "key": 0}
    with pytest.raises(ValueError, match=r"binarisation 'drawn from the grey values with seed 0' and ''"):
        ood.benchmark(histogram, inside=drawn.take(slice(20, 35)), outside=[given.take(slice(35, 50))], **options)
    rgb = lj.Dataset.from_array(np.zeros((3, 4, 4, 3), np.uint8))
    bgr = lj.Dataset.from_array(np.zeros((3, 4, 4, 3), np.uint8), colour_order="BGR")
    assert rgb.representation() != bgr.representation()
    assert rgb.grey().representation() == bgr.grey().representation()
    colours = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3), np.uint8)
    reversed_order = lj.Dataset.from_array(colours[..., ::-1], colour_order="BGR")
    np.testing.assert_array_equal(reversed_order.grey().examples, lj.Dataset.from_array(colours).grey().examples)


def test_twins_in_the_rows_to_fit_are_no_overlap():
    """Copies of a row land in one half: data that repeat themselves are cut for any key."""
    twins = lj.Dataset.from_array(np.repeat(VALID.examples[:60], 2, axis=0), levels=17, name="digits")
    for key in range(5):
        report = benchmark(fit=twins, key=key, scores=[ood.NegativeLogProb()], train=None, resamples=2)
        assert sum(part["n"] for part in report.parts.values()) == 120
        assert min(part["n"] for part in report.parts.values()) >= 58


def test_several_ratios_by_title():
    backgrounds = {f"rate {rate}": lj.PixelHistogram.fit(TRAIN.mutate(rate, 0)) for rate in (0.1, 0.5)}
    scores = [ood.LikelihoodRatio(background, title=title) for title, background in backgrounds.items()]
    report = benchmark(scores=scores)
    assert [r.label for r in report.scores] == ["likelihood ratio (rate 0.1)", "likelihood ratio (rate 0.5)"]
    expected = backgrounds["rate 0.5"].log_prob(TEST.examples) - HISTOGRAM.log_prob(TEST.examples)
    np.testing.assert_allclose(report.scores[1].values["digits"], expected, rtol=1e-4, atol=1e-4)


def test_the_background_recipe_trains_on_mutated_inputs(tmp_path):
    model = lj.GlowConfig(event_shape=(8, 8, 1), levels=17, scales=1, depth=1, width=4)
    experiment = lj.Experiment(model=model, dataset="digits", batch_size=32, steps=3, log_every=1)
    run = ood.fit_background(experiment, TRAIN, validation=VALID, key=0, workdir=tmp_path, mutation_rate=0.3)
    assert run.experiment.augment == ("mutate:0.3",)
    assert json.loads((tmp_path / "experiment.json").read_text())["augment"] == ["mutate:0.3"]
    fit_key, mutation_key = jax.random.split(jax.random.key(0))
    mutated = VALID.mutate(0.3, int(jax.random.randint(mutation_key, (), 0, 2**31 - 1)))
    plain = lj.fit(dataclasses.replace(experiment, augment=("mutate:0.3",)), TRAIN, validation=mutated, key=fit_key)
    assert plain.validation == run.validation  # selected on mutated images too
    for a, b in zip(jax.tree.leaves(plain.last), jax.tree.leaves(run.last), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="mutation_rate between 0 and 1"):
        ood.fit_background(experiment, TRAIN, key=0, mutation_rate=1.5)
    with pytest.raises(ValueError, match="share no examples"):
        ood.fit_background(experiment, TRAIN, validation=TRAIN, key=0)


def test_steps_behind_a_name():
    patches = lj.load("photographs+grey+resize:8x8+levels:17+invert", split="test")
    assert (patches.event_shape, patches.levels) == ((8, 8, 1), 17)
    assert patches.provenance[1:] == (
        "grey (BT.601)",
        "resized to 8x8 (box)",
        "256 levels reduced to 17",
        "inverted",
    )
    assert lj.load("digits+pad:10x12+transpose", split="test").event_shape == (12, 10, 1)
    for name, message in (
        ("digits+rotate", "unknown step 'rotate' .* there are invert, grey"),
        ("digits+resize:8", r"step 'resize:8' \(expected resize:HEIGHTxWIDTH"),
        ("digits+levels", r"step 'levels' \(expected levels:N\)"),
        ("digits+invert:3", r"step 'invert:3'"),
    ):
        with pytest.raises(ValueError, match=message):
            lj.load(name)


def test_the_command(tmp_path, capsys):
    """train, train --background, ood: a report from the command line alone."""
    tiny = ["--steps", "3", "--model.depth", "1", "--model.width", "8", "--validate-every", "3", "--draws", "1"]
    run, background = tmp_path / "run", tmp_path / "background"
    assert main(["train", "glow/digits", "--workdir", str(run), *tiny]) == 0
    assert main(["train", "glow/digits", "--workdir", str(background), "--background", "0.2", *tiny]) == 0
    outside = ["photographs+grey+resize:8x8+levels:17", "noise", "constants"]
    arguments = ["--outside", *outside, "--background", str(background), "--limit", "60", "--resamples", "10"]
    assert main(["ood", str(run), *arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "# digits against photographs, noise, constants" in printed
    for label in (
        "negative log-likelihood",
        "typicality of 5",
        "likelihood ratio",
        "input complexity",
        "complexity only",
    ):
        assert f"| {label} |" in printed
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "histograms.png",
        "report.json",
        "report.md",
        "roc.png",
    ]
    assert main(["ood", str(run)]) == 2
    assert "expected outside datasets" in capsys.readouterr().err
    assert main(["ood", str(run), "--outside", "photographs"]) == 1
    assert (
        "expected sets in one representation, digits and photographs differ in event_shape" in capsys.readouterr().err
    )


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA")
def test_real_false_alarms_follow_the_beta_binomial():
    """The criterion of calibration on Fashion-MNIST's own test scores, under a per-pixel histogram."""
    from tests.test_ood_metrics import assert_calibrated

    train, test = (lj.load("fashion_mnist", split=split, data_dir=DATA) for split in ("train", "test"))
    density = lj.PixelHistogram.fit(train.take(slice(0, 5000)))
    score = ood.NegativeLogProb().fit(density, train.take(slice(50_000, 50_500)))
    assert_calibrated(score(test.examples), 1000, 1000)

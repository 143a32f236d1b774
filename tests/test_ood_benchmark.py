"""The benchmark: what it refuses, what it reports, the background recipe, the command."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import likejax as lj
from likejax import ood
from likejax.cli import main
from likejax.data.sources.synthetic import constants_like, noise_like
from likejax.data.splits import row_hashes
from likejax.train.record import SELECTION, note_selection, selection_of
from tests.forks import START
from tests.paths import DATA

TRAIN, VALID, TEST = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
HISTOGRAM = lj.models.PixelHistogram.fit(TRAIN)
SCORES = [
    ood.NegativeLogProb(),
    ood.Typicality(),
    ood.Typicality(group=4),
    ood.InputComplexity(),
    ood.ComplexityOnly(),
]


def benchmark(**changes):
    options = {
        "inside": TEST,
        "outside": [
            TEST.invert(),
            noise_like(TEST, 100, seed=0),
            constants_like(TEST, 100, seed=0),
        ],
        "scores": SCORES,
        "held_out": VALID,
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
    halves = [
        VALID.take(np.sort(rows)) for rows in (order[: len(VALID) // 2], order[len(VALID) // 2 :])
    ]
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
        "fitted on 90 of digits validation; calibrated with 90 of digits validation; trained on",
        "trained on 1,258 of digits train",
        "| typicality of 4 |",
        "= 2.439",
    ):
        assert expected in text, expected
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    assert len(tables) == 2 + 1 + 3 + 1
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_files(report, tmp_path):
    place = report.write(tmp_path / "report")
    record = json.loads((place / "report.json").read_text())
    assert record["representation_hash"] == report.representation_hash()
    values = record["scores"][0]["values"]["noise"]
    np.testing.assert_array_equal(values, report.scores[0].values["noise"])
    found = report.metric(report.scores[0].label, "noise", "auroc")
    assert record["scores"][0]["metrics"]["noise"]["auroc"] == dataclasses.asdict(found)
    for name in ("histograms", "roc"):
        with Image.open(place / f"{name}.png") as picture:
            assert min(picture.size) > 400
        assert f"]({name}.png)" in (place / "report.md").read_text()
    with pytest.raises(ValueError, match="a metric of auroc, aupr_out"):
        report.metric("typicality", "noise", "accuracy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": TEST}, "359 of the 359 of digits test are in digits test"),
        ({"held_out": TRAIN}, "are in digits train"),
        (
            {"outside": [dataclasses.replace(VALID, name="other")]},
            "180 of the 180 of .* validation are in",
        ),
        ({"held_out": TEST.take(slice(0, 40))}, "40 of the 40 of digits test"),
        (
            {"train": lj.Dataset.from_array(np.repeat(VALID.examples, 2, 0), levels=17)},
            "180 of the 180 of",
        ),
        ({"confidence": 95.0}, "confidence to be a number above 0 and below 1"),
        (
            {"inside": TEST.take(slice(0, 100)), "held_out": TEST.take(slice(95, 359))},
            "5 of the 100 of digits test",
        ),
        (
            {"outside": [lj.load("photographs", split="test").gray().resize(8, 8)]},
            "levels 17 and 256",
        ),
        ({"outside": [TEST.invert().pad(10, 10)]}, r"event_shape \[8, 8, 1\] and \[10, 10, 1\]"),
        ({"outside": []}, "at least one outside set"),
        ({"outside": [noise_like(TEST, 9, seed=0), noise_like(TEST, 9, seed=1)]}, "comes twice"),
        ({"scores": [ood.Typicality(), ood.Typicality()]}, "scores with different labels"),
        ({"scores": []}, "scores with different labels, got none"),
        (
            {
                "scores": [
                    ood.LikelihoodRatio(lj.models.PixelHistogram.fit(VALID)),
                    ood.LikelihoodRatio(HISTOGRAM),
                ]
            },
            "scores with different labels, got likelihood ratio, likelihood ratio",
        ),
        (
            {"outside": [TEST.take(slice(0, 3)).invert()], "scores": [ood.Typicality(group=4)]},
            "at least 4 examples",
        ),
    ],
)
def test_what_does_not_compare_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        benchmark(**changes)


class Nameless(lj.Density):
    """A density of a user who forgot to say what its number is."""

    event_shape, levels = (8, 8, 1), 17

    def _log_prob(self, x, key, condition):
        return x.sum()

    def _sample(self, key, condition, temperature):
        return np.zeros((8, 8, 1))


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scores": ood.Typicality()}, TypeError, "expected a list of scores"),
        ({"scores": [ood.Typicality]}, TypeError, r"the class Typicality: call it, Typicality\(\)"),
        ({"scores": ["typicality"]}, TypeError, "expected scores, such as .* got str"),
        (
            {"scores": [ood.Typicality().fit(HISTOGRAM, VALID)]},
            TypeError,
            r"a fitted 'typicality': pass its \.recipe",
        ),
        ({"outside": "digits"}, TypeError, "expected outside sets as a list"),
        ({"outside": 3}, TypeError, "expected outside sets as a list"),
        ({"outside": ["digits"]}, TypeError, "Dataset"),
        ({"held_out": "digits"}, TypeError, "Dataset"),
        ({"inside": None}, TypeError, "Dataset"),
        ({"fit": VALID}, TypeError, "pass these rows as held_out="),
        ({"inside": TEST.examples / 16}, TypeError, r"inside: .*np\.rint\(x \* 16\)"),
        ({"train": VALID.examples[:, 0]}, (TypeError, ValueError), "expected"),
        ({"fpr": -0.1}, ValueError, "expected fpr to be"),
        ({"resamples": -1}, ValueError, "expected resamples to be an integer of at least 0"),
        ({"batch_size": 0}, ValueError, "expected batch_size to be an integer of at least 1"),
        (
            {"overlap_tolerance": 2},
            ValueError,
            "tolerance to be a number of at least 0 and at most 1",
        ),
        ({"key": "seed"}, TypeError, "expected a key"),
        ({"held_out": VALID[:1]}, ValueError, "at least two held-out rows"),
    ],
)
def test_mistakes_get_a_sentence(changes, error, message):
    with pytest.raises(error, match=message):
        benchmark(**changes)


def test_infinite_scores_are_in_the_json(tmp_path):
    """An example that a density excludes has an infinite score, which counts in an AUROC."""
    uniform = lj.models.Uniform((2,))
    points = np.random.default_rng(0).uniform(size=(90, 2)).astype(np.float32)
    options = {"inside": points[:30], "outside": {"beyond": points[30:50] + 2}, "key": 0}
    report = ood.benchmark(
        uniform, scores=[ood.NegativeLogProb()], held_out=points[50:], resamples=2, **options
    )
    written = json.loads((report.write(tmp_path) / "report.json").read_text())
    (score,) = written["scores"]
    assert score["values"]["beyond"] == ["Infinity"] * 20
    values = {name: np.asarray(each, float) for name, each in score["values"].items()}
    assert ood.auroc(values["inside"], values["beyond"]) == 1
    assert score["metrics"]["beyond"]["auroc"]["value"] == 1


@pytest.mark.untyped
def test_a_density_must_say_what_it_is():
    options = {
        "inside": TEST,
        "outside": [TEST.invert()],
        "scores": SCORES,
        "held_out": VALID,
        "key": 0,
    }
    with pytest.raises(TypeError, match="Nameless sets no kind"):
        ood.benchmark(Nameless(), **options)
    with pytest.raises(TypeError, match="expected a density, got str"):
        ood.benchmark("runs/glow", **options)


@pytest.mark.untyped  # the built-in code is thousands of small calls
def test_several_trainings():
    """Each is scored by itself; tables have the spread; other scores for one are refused."""
    halves = [lj.models.PixelHistogram.fit(TRAIN.take(slice(i, None, 3))) for i in range(3)]
    options = {
        "inside": TEST,
        "outside": [TEST.invert(), TEST.shuffled(0).invert().mutate(0.5, 0)],
        "held_out": VALID,
        "key": 0,
        "resamples": 2,
    }
    options["outside"][1] = dataclasses.replace(options["outside"][1], name="mutated")
    whole = ood.benchmark(halves, scores=lambda density: [ood.Typicality()], **options)
    alone = [ood.benchmark(each, scores=[ood.Typicality()], **options) for each in halves]
    values = [each.metric("typicality", "mutated", "auroc").value for each in alone]
    spread = whole.spread("typicality", "mutated", "auroc")
    assert spread == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)), 3)
    assert whole.metric("typicality", "mutated", "auroc").value == values[0]
    cell = f"| {spread.mean:.3f} ± {spread.deviation:.3f}; {values[0]:.3f} ["
    assert cell in whole.auroc_table()
    text = whole.to_markdown()
    assert "]: mean ± standard deviation over 3 trainings; then the first one's" in text
    at_95 = whole.spread("typicality", "mutated", "fpr95")
    assert f"| {at_95.mean:.3f} ± {at_95.deviation:.3f}; " in text.split("## mutated")[1]
    same = ood.benchmark(halves, scores=[ood.ComplexityOnly()], **options)
    assert "±" not in same.auroc_table()  # one number, of no training
    records = whole.to_records()
    assert len(records) == 3 * 2 * len(ood.METRICS)
    found = [r["value"] for r in records if (r["outside"], r["metric"]) == ("mutated", "auroc")]
    assert found == values
    assert len(json.loads(json.dumps(whole.to_dict()))["trainings"]) == 2
    kinds = iter([[ood.Typicality()], [ood.ComplexityOnly()]])
    with pytest.raises(ValueError, match="numbers 0 and 2 have the same weights"):
        ood.benchmark([*halves[:2], halves[0]], scores=[ood.Typicality()], **options)
    with pytest.raises(ValueError, match="the same scores for all trainings"):
        ood.benchmark(halves[:2], scores=lambda density: next(kinds), **options)


def test_features_are_kept(tmp_path, monkeypatch):
    """A second call reads every feature; other weights, examples, keys or draws do not find it."""
    options = {"scores": [ood.Typicality()], "resamples": 2, "workdir": tmp_path}
    first = benchmark(**options)
    files = set(tmp_path.iterdir())
    assert len(files) == 2 + len(first.sets)  # the two halves to fit and calibrate, and the sets
    computed = []

    def counted(feature, densities, x, keys):
        computed.append(len(x))
        return original(feature, densities, x, keys)

    original = ood.LogProb.__call__
    monkeypatch.setattr(ood.LogProb, "__call__", counted)
    again = benchmark(**options)
    assert not computed
    assert again.to_dict() == first.to_dict()
    (tmp_path / sorted(files)[0].name).unlink()
    assert benchmark(**options).to_dict() == first.to_dict()
    assert computed
    computed.clear()
    benchmark(**{**options, "scores": [ood.Typicality(draws=2)]})
    assert len(computed) >= 5
    computed.clear()
    benchmark(**options, key=1)
    assert computed


def test_an_edited_feature_is_computed_anew(tmp_path, monkeypatch):
    """A feature of a user's module is kept by its file's code too; without a file, not at all."""
    folder, kept = tmp_path / "code", tmp_path / "kept"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files of one second look the same
    code = """
import dataclasses
import numpy as np
from likejax import ood
@dataclasses.dataclass(frozen=True)
class Sum(ood.Feature):
    def __call__(self, densities, x, keys):
        return {sign}np.asarray(x, float).reshape(len(x), -1).sum(1)
"""

    def scores_of(sign):
        path = folder / "edited_feature.py"
        path.write_text(code.format(sign=sign))
        monkeypatch.delitem(sys.modules, "edited_feature", raising=False)
        importlib.invalidate_caches()
        feature = importlib.import_module("edited_feature").Sum()
        score = ood.DensityOfStates((feature,), "copod")
        return benchmark(scores=[score], resamples=2, workdir=kept).to_dict()["scores"]

    first = scores_of("")
    files = set(kept.iterdir())
    assert scores_of("") == first
    assert set(kept.iterdir()) == files
    scores_of("100 * ")
    assert len(set(kept.iterdir())) > len(files)
    monkeypatch.setattr("likejax.ood.kept.inspect.getfile", of_no_file)
    files = set(kept.iterdir())
    scores_of("3 * ")
    assert set(kept.iterdir()) == files


def of_no_file(kind):
    """What Python does for a class of an interactive session."""
    raise TypeError(f"{kind} is built in")


def test_a_damaged_feature_is_computed_anew(tmp_path):
    options = {"scores": [ood.Typicality()], "resamples": 2, "workdir": tmp_path}
    first = benchmark(**options)
    damaged = sorted(tmp_path.iterdir())[0]
    os.truncate(damaged, damaged.stat().st_size // 2)
    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged and computed anew"):
        again = benchmark(**options)
    assert again.to_dict() == first.to_dict()


MANY = {"scores": [ood.Typicality(draws=n) for n in range(1, 7)], "resamples": 2}


def benchmark_slowly(workdir):
    """A benchmark each of whose features takes a twentieth of a second, in a process of its own."""
    original = ood.LogProb.__call__

    def slow(feature, densities, x, keys):
        time.sleep(0.05)
        return original(feature, densities, x, keys)

    ood.LogProb.__call__ = slow  # this process ends with the benchmark
    benchmark(**MANY, workdir=workdir)


def test_killed_benchmarks_lose_one_feature(tmp_path):
    """kill -9 at random moments: what was computed stays, and the report is that of no fault."""
    rng = random.Random(0)

    def computed() -> int:
        return len([path for path in tmp_path.iterdir() if ".part" not in path.name])

    for _ in range(6):
        before = computed()
        process = START.Process(target=benchmark_slowly, args=(tmp_path,), daemon=True)
        process.start()
        while computed() <= before:
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        assert process.is_alive()
        process.kill()
        process.join(60)
        assert computed() > before
    assert benchmark(**MANY, workdir=tmp_path).to_dict() == benchmark(**MANY).to_dict()


def test_functions_are_not_kept(tmp_path):
    """Only the name of a function is known, so that its numbers might be another function's."""

    def rows(x):
        return np.asarray(x, float).reshape(len(x), 8, 8).sum(1)

    benchmark(scores=[ood.WhitenedEmbedding(rows)], resamples=2, workdir=tmp_path)
    kept = [np.load(path) for path in tmp_path.iterdir()]
    assert all(values.ndim == 1 for values in kept)


def test_pictures_of_another_format(report, tmp_path):
    report.write(tmp_path, picture_format="pdf")
    assert (tmp_path / "auroc.pdf").read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.glob("*.png"))
    assert "](auroc.pdf)" in (tmp_path / "report.md").read_text()


def test_differences_records_and_latex(report):
    """Paired differences from the best score; rows for a data frame; a table for a paper."""
    best = report.best("noise")
    text = report.to_markdown()
    section = text.split("AUROC minus that of the best")[1].split("##")[0]
    assert "typicality of 4" not in section  # groups are no pairs with single examples
    other = "negative log-likelihood" if best != "negative log-likelihood" else "typicality"
    values = {score.label: score.values for score in report.scores}
    pairs = [(values[label]["digits"], values[label]["noise"]) for label in (other, best)]
    expected = ood.auroc_difference(*pairs)
    assert report.difference(other, best, "noise") == expected
    assert str(expected) in section
    of_noise = report.to_dict()["differences"]["noise"]
    assert of_noise[best] is None
    assert of_noise[other] == dataclasses.asdict(expected)
    records = report.to_records()
    assert {record["n_inside"] for record in records} == {len(TEST), len(TEST) // 4}
    assert set(records[0]) == {
        *("inside", "outside", "score", "metric", "training", "value", "low", "high"),
        *("standard_error", "n_inside", "n_outside", "distance", "kind", "draws"),
    }
    latex = report.to_latex()
    assert latex.startswith("\\begin{tabular}{lrrr}")
    assert "digits (inverted)" in latex
    fpr = report.metric(report.scores[0].label, "noise", "fpr95")
    assert str(fpr) in report.to_latex("fpr95")
    with pytest.raises(ValueError, match=r"expected a metric of auroc, .*, got 'fpr'"):
        report.to_latex("fpr")
    assert (
        r"100 \%"
        in dataclasses.replace(
            report, scores=(dataclasses.replace(report.scores[0], label="100 %"),)
        ).to_latex()
    )


def test_changed_inside_examples_are_taken_with_their_changed_forms():
    """By the steps that made them: a turned set of as many rows, but no part of it."""
    turned = TEST.transpose()
    outside = {"turned": turned, "part": turned.take(slice(0, 100))}
    distances = dict.fromkeys(outside, "near")
    scores = [ood.NegativeLogProb(), ood.Contrast()]
    report = benchmark(outside=outside, scores=scores, distances=distances)
    assert [each.name for each in report.sets if each.is_changed] == ["turned"]
    assert report.to_dict()["sets"][1]["is_changed"]
    (label, first), (other, second) = ((score.label, score.values) for score in report.scores)
    pair = first["digits"], first["turned"]
    expected = ood.evaluate_changed(*pair)["auroc"]
    assert report.metric(label, "turned", "auroc") == expected
    assert expected != ood.auroc_interval(*pair)
    of_part = ood.auroc_interval(first["digits"], first["part"])
    assert report.metric(label, "part", "auroc") == of_part
    average = ood.mean_auroc_interval(pair[0], [first["part"]], changed=[pair[1]])
    assert report.average(label, "near") == average
    pairs = pair, (second["digits"], second["turned"])
    difference = ood.auroc_difference_of_changed(*pairs)
    assert report.difference(label, other, "turned") == difference
    assert difference != ood.auroc_difference(*pairs)


def test_averages_over_near_and_far_sets():
    """Means of AUROC over the sets of a distance, in every form; other sets do not count."""
    distances = {"noise": "far", "constants": "far"}
    report = benchmark(distances=distances, scores=SCORES[:3])
    label = "typicality of 4"
    values = {score.label: score.values for score in report.scores}[label]
    far = [values["noise"], values["constants"]]
    expected = ood.mean_auroc_interval(values["digits"], far)
    assert report.average(label, "far") == expected
    of_sets = [report.metric(label, name, "auroc").value for name in distances]
    np.testing.assert_allclose(expected.value, np.mean(of_sets), rtol=1e-12)
    cell = f"| {expected.value:.3f} ± {expected.standard_error:.3f} ["
    assert report.averages_table().startswith("| score | mean of far sets |")
    assert cell in report.averages_table()
    assert "far are noise, constants" in report.to_markdown()
    assert report.to_latex().count(r"\begin{tabular}") == 2
    rows = [row for row in report.to_records() if row["metric"] == "mean auroc"]
    assert [(row["outside"], row["distance"], row["n_outside"]) for row in rows] == [
        ("far sets", "far", 200),
        ("far sets", "far", 200),
        ("far sets", "far", 50),
    ]
    assert rows[2]["standard_error"] == expected.standard_error
    others = {row["outside"]: row["distance"] for row in report.to_records()}
    assert others["digits (inverted)"] == ""
    assert others["noise"] == "far"
    assert report.to_dict()["scores"][2]["averages"]["far"]["value"] == expected.value
    with pytest.raises(ValueError, match="sets have, got 'typicality', 'near'"):
        report.average("typicality", "near")
    trained = dataclasses.replace(report, trainings=(report,))
    assert "± 0.000 over trainings; " in trained.averages_table()


def test_no_averages_without_distances(report):
    assert report.averages_table() == ""
    assert "Mean AUROC" not in report.to_markdown()
    assert {row["distance"] for row in report.to_records()} == {""}


@pytest.mark.parametrize(
    ("distances", "error", "message"),
    [
        ({"nois": "far"}, ValueError, "got one of 'nois'.*did you mean 'noise'"),
        ({"noise": "close"}, ValueError, r"distances\['noise'\] to be 'near' or 'far'"),
        pytest.param(
            *(["noise"], TypeError, "expected distances by the names"), marks=pytest.mark.untyped
        ),
    ],
    ids=str,
)
def test_distances_of_no_set_are_refused(distances, error, message):
    with pytest.raises(error, match=message):
        benchmark(distances=distances)


def test_extremes(report):
    """The most and the least likely and typical images of every set, in order."""
    log_prob = np.asarray(HISTOGRAM.log_prob(TEST.examples))
    order = np.argsort(log_prob, kind="stable")
    extremes = report.sets[0].extremes
    np.testing.assert_allclose(extremes.least.images[0] * 16, TEST.examples[order[0]])
    np.testing.assert_allclose(extremes.most.images[1] * 16, TEST.examples[order[-2]])
    distance = np.abs(log_prob - log_prob.mean())
    order = np.argsort(distance)
    np.testing.assert_allclose(extremes.most_typical.images[0] * 16, TEST.examples[order[0]])
    np.testing.assert_allclose(extremes.least_typical.images[1] * 16, TEST.examples[order[-2]])
    noise = report.sets[2]
    assert noise.name == "noise"
    rows = noise_like(TEST, 100, seed=0).examples
    farthest = np.argmax(np.abs(np.asarray(HISTOGRAM.log_prob(rows)) - log_prob.mean()))
    np.testing.assert_allclose(noise.extremes.least_typical.images[0] * 16, rows[farthest])
    assert {"extremes", "typical"} <= set(report.plot())


def test_outside_sets_by_name_or_alone():
    options = {"scores": [ood.ComplexityOnly()], "resamples": 2}
    by_name = benchmark(
        outside={"negatives": TEST.invert(), "static": noise_like(TEST, 20, seed=0)}, **options
    )
    assert [each.name for each in by_name.sets] == ["digits", "negatives", "static"]
    alone = benchmark(outside=noise_like(TEST, 20, seed=0), **options)
    np.testing.assert_array_equal(
        alone.scores[0].values["noise"], by_name.scores[0].values["static"]
    )


@pytest.mark.untyped  # the built-in code is thousands of small calls
def test_arrays_as_they_are():
    """Plain arrays for every part give the numbers of datasets."""
    options = {"scores": [ood.Typicality(), ood.ComplexityOnly()], "resamples": 2}
    negatives = lj.Dataset.from_array(TEST.invert().examples, levels=17)
    expected = benchmark(outside={"negatives": negatives}, **options)
    arrays = {"inside": TEST.examples, "held_out": VALID.examples, "train": TRAIN.examples}
    found = benchmark(outside={"negatives": 16 - TEST.examples}, **arrays, **options)
    assert [each.name for each in found.sets] == ["inside", "negatives"]
    for a, b in zip(found.scores, expected.scores, strict=True):
        np.testing.assert_array_equal(a.values["inside"], b.values["digits"])
        assert a.metrics["negatives"] == b.metrics["negatives"]
    alone = benchmark(outside=16 - TEST.examples, **options)
    assert alone.title == "digits against outside"


def test_standard_scores_by_what_a_density_offers():
    image = [score.label for score in ood.standard(HISTOGRAM, draws=2, groups=[3])]
    states = "density of states, gaussian (2 draws)"
    assert image == [
        "negative log-likelihood (2 draws)",
        "typicality (2 draws)",
        "typicality of 3 (2 draws)",
        "Min-K, 20 %",
        "Min-K++, 20 %",
        states,
        "density of states, mixture (2 draws)",
        "density of states, kde (2 draws)",
        "density of states, copod (2 draws)",
        "density of states, one class svm (2 draws)",
        "input complexity (2 draws)",
        "input complexity, png (2 draws)",
        "input complexity, webp (2 draws)",
        f"fisher of {states} and input complexity (2 draws)",
        f"fisher of {states} and input complexity, png (2 draws)",
        f"fisher of {states} and input complexity, webp (2 draws)",
        "complexity only",
        "mean intensity",
        "contrast",
    ]
    with_background = ood.standard(lj.models.Uniform((2,)), background=lj.models.Uniform((2,)))
    assert [score.name for score in with_background][2:] == ["likelihood ratio"]


def test_a_report_in_a_notebook(report):
    html = report._repr_html_()
    assert html.count("<tr>") == 1 + len(report.scores)
    assert "<th>digits (inverted)</th>" in html
    assert repr(report).startswith("Report(digits against digits (inverted), noise, constants; neg")


# --- which rows were which


def test_rows_that_chose_the_weights_calibrate_nothing():
    """They are left out of fitting and calibration by their content, and the report notes it."""
    selecting, held_out = lj.data.hold_out(VALID)
    options = {"scores": [ood.Typicality()], "resamples": 2}
    whole = benchmark(held_out=VALID, selected_on=selecting, **options)
    assert whole.parts["selected on"]["n"] == 90
    assert whole.parts["fitted on"]["n"] + whole.parts["calibrated with"]["n"] == 90
    assert whole.notes == (
        "90 rows that chose the weights were left out of fitting and calibration.",
    )
    same = benchmark(held_out=held_out, selected_on=selecting, **options)
    assert same.scores[0].threshold == whole.scores[0].threshold
    assert same.notes == ()
    text = same.to_markdown()
    assert (
        "fitted on 45 of digits validation; calibrated with 45 of digits validation; "
        "selected on 90 of" in text
    )
    assert "Allowed overlap of parts: 0 of the smaller" in text
    unsaid = benchmark(held_out=held_out, **options)
    assert unsaid.notes == (ood.NOT_SAID,)
    assert ood.NOT_SAID in unsaid.to_markdown()
    with pytest.raises(
        ValueError, match=r"90 of the 90 of digits validation did: likejax\.data\.hold_out"
    ):
        benchmark(held_out=selecting, selected_on=VALID, **options)
    with pytest.raises(
        ValueError, match="share no examples"
    ):  # selection never touches the test set
        benchmark(held_out=held_out, selected_on=TEST.take(slice(0, 50)), **options)


def test_the_directory_of_a_run_says_which_rows_chose_its_weights(tmp_path):
    selecting, held_out = lj.data.hold_out(VALID)
    options = {"scores": [ood.NegativeLogProb()], "resamples": 2}
    note_selection(tmp_path, selecting)
    by_rows = benchmark(held_out=VALID, selected_on=selecting, **options)
    assert benchmark(held_out=VALID, selected_on=tmp_path, **options).notes == by_rows.notes
    (note,) = benchmark(held_out=held_out, selected_on=str(tmp_path), **options).notes
    assert note.startswith("None of the rows is among those that chose the weights")
    with pytest.raises(ValueError, match="share no examples"):
        benchmark(held_out=held_out, inside=selecting, selected_on=tmp_path, **options)
    with pytest.raises(ValueError, match="has no note of the rows that chose its weights"):
        benchmark(held_out=held_out, selected_on=tmp_path / "none", **options)


def test_halves_of_a_validation_part():
    """Disjoint, whole, the same whatever ran before, and copies of a row on one side."""
    selecting, held_out = lj.data.hold_out(VALID)
    assert set(row_hashes(selecting)).isdisjoint(row_hashes(held_out))
    assert {*row_hashes(selecting), *row_hashes(held_out)} == set(row_hashes(VALID))
    np.testing.assert_array_equal(lj.data.hold_out(VALID)[0].examples, selecting.examples)
    assert held_out.provenance[-1] == "the held-out half, 90 of 180 rows"
    by_class = [np.bincount(part.labels, minlength=10) for part in (selecting, held_out)]
    assert min(map(min, by_class)) > 0  # no cut along the order of a file
    twins = lj.Dataset.from_array(np.repeat(VALID.examples[:20], 2, axis=0), levels=17)
    first, second = lj.data.hold_out(twins)
    assert set(row_hashes(first)).isdisjoint(row_hashes(second))
    with pytest.raises(ValueError, match="at least two different examples"):
        lj.data.hold_out(VALID.take(slice(0, 1)))


def test_an_allowed_overlap_is_printed():
    shared = lj.Dataset.from_array(
        np.concatenate([VALID.examples, TEST.examples[:4]]), levels=17, name="digits"
    )
    options = {
        "held_out": shared,
        "scores": [ood.Typicality()],
        "resamples": 2,
        "selected_on": TRAIN.take(slice(0, 9)),
    }
    options |= {"train": None}
    with pytest.raises(ValueError, match="4 of the 184 of digits"):
        benchmark(**options)
    report = benchmark(overlap_tolerance=0.03, **options)
    assert any(note.startswith("Allowed overlap: 4 of the 184 of digits") for note in report.notes)
    assert "Allowed overlap of parts: 0.03 of the smaller" in report.to_markdown()


def test_what_a_run_notes_of_the_rows_that_chose_its_weights(tmp_path):
    run = tmp_path / "run"
    assert selection_of(run) is None
    note_selection(run, None)
    assert len(selection_of(run)) == 0
    note_selection(run, VALID.take(slice(0, 60)))
    (run / "experiment.json").write_text("{}")
    note_selection(
        run, VALID.take(slice(40, 90))
    )  # the run went on with other rows: both had their say
    assert set(selection_of(run)) == set(row_hashes(VALID.take(slice(0, 90))))
    (run / SELECTION).unlink()  # as if an older version had made the run
    note_selection(run, VALID)
    assert selection_of(run) is None
    (run / SELECTION).write_bytes(b"damaged")
    with pytest.raises(lj.train.CheckpointError, match=r"selection\.npy is damaged"):
        selection_of(run)
    (tmp_path / "file").write_text("")
    with pytest.raises(lj.train.CheckpointError, match="cannot write"):
        note_selection(tmp_path / "file" / "run", VALID)


def test_the_representation_knows_binarization_and_color_order():
    """Sets whose zeros and ones were made differently, or whose colors are in another order."""
    gray = lj.Dataset.from_array(np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8))
    drawn, other = gray.binarize(0), gray.binarize(1)
    assert set(np.unique(drawn.examples)) == {0, 1}
    assert drawn.representation() != other.representation()
    assert abs(drawn.examples.mean() - gray.examples.mean() / 255) < 0.05
    given = lj.Dataset.from_array(drawn.examples, levels=2)
    histogram = lj.models.PixelHistogram.fit(drawn)
    options = {"held_out": drawn.take(slice(0, 20)), "scores": [ood.NegativeLogProb()], "key": 0}
    with pytest.raises(
        ValueError, match=r"binarization 'drawn from the gray values with seed 0' and ''"
    ):
        ood.benchmark(
            histogram,
            inside=drawn.take(slice(20, 35)),
            outside=[given.take(slice(35, 50))],
            **options,
        )
    rgb = lj.Dataset.from_array(np.zeros((3, 4, 4, 3), np.uint8))
    bgr = lj.Dataset.from_array(np.zeros((3, 4, 4, 3), np.uint8), color_order="BGR")
    assert rgb.representation() != bgr.representation()
    assert rgb.gray().representation() == bgr.gray().representation()
    colors = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3), np.uint8)
    reversed_order = lj.Dataset.from_array(colors[..., ::-1], color_order="BGR")
    np.testing.assert_array_equal(
        reversed_order.gray().examples, lj.Dataset.from_array(colors).gray().examples
    )


def test_twins_in_the_rows_to_fit_are_no_overlap():
    """Copies of a row land in one half: data that repeat themselves are cut for any key."""
    twins = lj.Dataset.from_array(
        np.repeat(VALID.examples[:60], 2, axis=0), levels=17, name="digits"
    )
    for key in range(5):
        report = benchmark(
            held_out=twins, key=key, scores=[ood.NegativeLogProb()], train=None, resamples=2
        )
        assert sum(part["n"] for part in report.parts.values()) == 120
        assert min(part["n"] for part in report.parts.values()) >= 58


def test_several_ratios_by_title():
    backgrounds = {
        f"rate {rate}": lj.models.PixelHistogram.fit(TRAIN.mutate(rate, 0)) for rate in (0.1, 0.5)
    }
    scores = [
        ood.LikelihoodRatio(background, title=title) for title, background in backgrounds.items()
    ]
    report = benchmark(scores=scores)
    assert [r.label for r in report.scores] == [
        "likelihood ratio (rate 0.1)",
        "likelihood ratio (rate 0.5)",
    ]
    expected = backgrounds["rate 0.5"].log_prob(TEST.examples) - HISTOGRAM.log_prob(TEST.examples)
    np.testing.assert_allclose(report.scores[1].values["digits"], expected, rtol=1e-4, atol=1e-4)


def test_the_background_recipe_trains_on_mutated_inputs(tmp_path):
    model = lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, scales=1, depth=1, width=4)
    experiment = lj.Experiment(model=model, dataset="digits", batch_size=32, steps=3, log_every=1)
    run = ood.fit_background(
        experiment, TRAIN, validation=VALID, key=0, workdir=tmp_path, mutation_rate=0.3
    )
    assert run.experiment.augment == ("mutate:0.3",)
    assert json.loads((tmp_path / "experiment.json").read_text())["augment"] == ["mutate:0.3"]
    fit_key, mutation_key = jax.random.split(jax.random.key(0))
    mutated = VALID.mutate(0.3, int(jax.random.randint(mutation_key, (), 0, 2**31 - 1)))
    plain = lj.fit(
        dataclasses.replace(experiment, augment=("mutate:0.3",)),
        TRAIN,
        validation=mutated,
        key=fit_key,
    )
    assert plain.validation == run.validation  # selected on mutated images too
    for a, b in zip(jax.tree.leaves(plain.last), jax.tree.leaves(run.last), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="mutation_rate to be a number above 0 and below 1"):
        ood.fit_background(experiment, TRAIN, key=0, mutation_rate=1.5)
    with pytest.raises(ValueError, match="share no examples"):
        ood.fit_background(experiment, TRAIN, validation=TRAIN, key=0)


def test_steps_behind_a_name():
    patches = lj.load("photographs+gray+resize:8x8+levels:17+invert", split="test")
    assert (patches.event_shape, patches.levels) == ((8, 8, 1), 17)
    assert patches.provenance[1:] == (
        "gray (BT.601)",
        "resized to 8x8 (box)",
        "256 levels reduced to 17",
        "inverted",
    )
    assert lj.load("digits+pad:10x12+transpose", split="test").event_shape == (12, 10, 1)
    for name, message in (
        ("digits+rotat:90", "unknown step 'rotat:90' .* there are invert, gray.*mean 'rotate'"),
        ("digits+resize:8", r"step 'resize:8' \(expected resize:HEIGHTxWIDTH"),
        ("digits+levels", r"step 'levels' \(expected levels:LEVELS\)"),
        ("digits+invert:3", r"step 'invert:3'"),
    ):
        with pytest.raises(ValueError, match=message):
            lj.load(name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run and its background, from the command line."""
    tiny = [
        "--steps",
        "3",
        "--model.depth",
        "1",
        "--model.width",
        "8",
        "--validate-every",
        "3",
        "--draws",
        "1",
    ]
    place = tmp_path_factory.mktemp("runs")
    run, background = place / "run", place / "background"
    assert main(["train", "glow/digits", "--workdir", str(run), *tiny]) == 0
    assert (
        main(["train", "glow/digits", "--workdir", str(background), "--background", "0.2", *tiny])
        == 0
    )
    return run, background


OWN_SCORES = """
import dataclasses
import numpy as np
import likejax as lj

class Brightness(lj.ood.Feature):
    def __call__(self, densities, x, keys):
        return np.asarray(x, np.float64).reshape(len(x), -1).mean(1)

@dataclasses.dataclass(frozen=True)
class Darkness(lj.ood.Score):
    name = "darkness"
    features = (Brightness(),)

    def statistic(self, compute, event_shape):
        return -compute(self.features[0])
"""


def test_the_command(runs, tmp_path, capsys, monkeypatch):
    """train, train --background, ood: a report from the command line alone."""
    run, background = runs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    Path("darkness.py").write_text(OWN_SCORES)
    outside = ["photographs+gray+resize:8x8+levels:17", "noise", "constants"]
    arguments = [
        "--outside",
        *outside,
        "--background",
        str(background),
        "--trainings",
        str(background),
        "--ensemble",
        "--own-scores",
        "darkness:Darkness",
        "--limit",
        "45",  # as many as the scores are fitted on: each is compiled once
        "--resamples",
        "10",
    ]
    assert main(["ood", str(run), *arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "# digits against photographs, noise, constants" in printed
    for label in (
        "negative log-likelihood",
        "typicality of 5",
        "likelihood ratio",
        "input complexity",
        "complexity only",
        "fisher of density of states, gaussian and input complexity",
        "density of states, gaussian",
        "parameter gradient",
        "fisher of typicality and parameter gradient",
        "latent fit",
        "local dimension",
        "nearest neighbors",
        "WAIC",
        "contrast",
        "darkness",
    ):
        assert f"| {label} |" in printed
    assert "mean ± standard deviation over 2" in printed
    assert (
        "fitted on 45 of digits validation; calibrated with 45 of digits validation; "
        "selected on 90 of" in printed
    )
    assert "90 rows that chose the weights were left out" in printed
    for place in (run, background):
        chose = selection_of(place)
        assert set(row_hashes(lj.data.hold_out(VALID)[0])) <= set(chose)
        assert not np.isin(row_hashes(lj.data.hold_out(VALID)[1]), chose).any()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "auroc.png",
        "auroc.tex",
        "extremes.png",
        "features",
        "histograms.png",
        "records.csv",
        "report.json",
        "report.md",
        "roc.png",
        "typical.png",
    ]
    wrong = ["--outside", "noise", "--scores", "typicalty"]
    assert main(["ood", str(run), *wrong]) == 2
    assert "got 'typicalty'; did you mean 'typicality'?" in capsys.readouterr().err
    assert main(["ood", str(run), "--outside", "noise", "--ensemble"]) == 2
    assert "expected further runs for an ensemble" in capsys.readouterr().err
    assert main(["ood", str(run)]) == 2
    assert "expected outside datasets" in capsys.readouterr().err
    assert main(["ood", str(run), "--outside", "photographs"]) == 1
    assert (
        "expected sets in one representation, digits and photographs differ in event_shape"
        in capsys.readouterr().err
    )


def test_the_command_says_when_calibration_rows_chose_the_weights(runs, tmp_path, capsys):
    """A run that selected on all validation rows, and one without a note, still get a report."""
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    note_selection(run, VALID)
    arguments = [
        "ood",
        str(run),
        "--outside",
        "noise",
        "--limit",
        "30",
        "--resamples",
        "2",
        "--groups",
        "2",
        "--scores",
        "typicality",
    ]
    assert main(arguments) == 0
    found = capsys.readouterr()
    for text in (found.out, found.err):
        assert (
            "180 of the 180 validation rows chose the weights, and scores were fitted on and "
            "calibrated" in text
        )
    assert "warning" in found.err
    (run / SELECTION).unlink()
    assert main(arguments) == 0
    found = capsys.readouterr()
    for text in (found.out, found.err):
        assert "Which rows chose its weights is not noted in" in text
    assert "selected on" not in found.out
    record = json.loads((run / "ood" / "report.json").read_text())
    assert record["overlap_tolerance"] == 0
    assert len(record["notes"]) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA")
def test_real_false_alarms_follow_the_beta_binomial():
    """The criterion of calibration on Fashion-MNIST's test scores under a per-pixel histogram."""
    from tests.test_ood_metrics import assert_calibrated

    train, test = (
        lj.load("fashion_mnist", split=split, data_dir=DATA) for split in ("train", "test")
    )
    density = lj.models.PixelHistogram.fit(train.take(slice(0, 5000)))
    score = ood.NegativeLogProb().fit(density, train.take(slice(50_000, 50_500)))
    assert_calibrated(score(test.examples), 1000, 1000)

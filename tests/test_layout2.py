"""Runs, densities and scores that version 0.6 wrote (layout 2) are read, give the same numbers, and
can go on.

``tests/data/layout2.tar.gz`` holds small runs of each family, made by version 0.6.0 on CPU: models
of a few hundred
weights on random images and points, trained for four steps, and the log-probabilities of their
validation rows.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import likejax as lj
from likejax import ood
from likejax.experiment import from_json

ARCHIVE = Path(__file__).parent / "data" / "layout2.tar.gz"
RUNS = ("glow", "vector_glow", "ffjord", "image_ffjord", "pixelcnn", "vae", "vae_binarised")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    place = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    return place / "layout2"


@pytest.fixture(scope="module")
def expected(old):
    return json.loads((old / "expected.json").read_text())


def data_of(old, name):
    """All rows that a run saw: 16 for training, then 8 for validation."""
    arrays = np.load(old / "examples.npz")
    if name in ("vector_glow", "ffjord"):
        return lj.Dataset.from_array(arrays["points"], name="small points")
    images, labels = arrays["images"], arrays["labels"]
    return lj.Dataset.from_array(images, levels=17, labels=labels, name="small images")


def parts_of(old, name):
    """The rows that a run was trained on, and those that selected its weights."""
    data = data_of(old, name)
    train, valid = data.take(slice(0, 16)), data.take(slice(16, 24))
    return train, valid.binarize(0) if name == "vae_binarised" else valid


@pytest.mark.parametrize("name", RUNS)
def test_densities_of_runs_give_the_same_numbers(old, expected, name):
    _, valid = parts_of(old, name)
    for which in ("best", "last"):
        density = lj.restore(old / name, which=which)
        condition = valid.labels if density.condition_shape is not None else None
        got = density.log_prob(valid.examples, key=2, condition=condition)
        np.testing.assert_allclose(got, expected[f"{name}/{which}"], rtol=5e-5)


@pytest.mark.parametrize("name", RUNS)
def test_runs_go_on(old, expected, name):
    """With the experiment of their record, two steps further; the best so far is known."""
    train, valid = parts_of(old, name)
    experiment = from_json((old / name / "experiment.json").read_text())
    experiment = dataclasses.replace(experiment, steps=6)
    run = lj.fit(experiment, train, validation=valid, workdir=old / name, key=1)
    assert run.steps == 6
    assert run.history[0]["step"] == 2
    assert run.validation is not None
    assert run.validation <= expected[f"{name}/validation"] + 1e-6


OFF_IN_ALL = ("levels", "early_stopping", "samples_every", "optimizer.clip_adaptive")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pixelcnn", ("optimizer.clip_norm", "model.num_classes")),
        ("ffjord", ("model.trace.probes", "model.training_trace.probes")),
        ("image_ffjord", ("model.strides",)),
        ("vae", ("objective.free_steps",)),
    ],
)
def test_the_zeros_of_old_records_are_none(name, settings):
    """Where a setting was turned off by 0, or by a tuple without entries, ``None`` does it now."""
    with tarfile.open(ARCHIVE) as archive:  # a run that went on has a new record
        text = archive.extractfile(f"layout2/{name}/experiment.json").read().decode()
    experiment, record = from_json(text), json.loads(text)
    record["optimizer"] = record.pop("optimiser")
    for path in (*OFF_IN_ALL, *settings):
        written = functools.reduce(lambda inside, word: inside[word], path.split("."), record)
        read = functools.reduce(getattr, path.split("."), experiment)
        assert (written in (0, []), read) == (True, None), path


def test_saved_density_and_score(old, expected):
    points = data_of(old, "vector_glow").take(slice(16, 24)).examples
    density = lj.restore(old / "saved_density")
    np.testing.assert_allclose(density.log_prob(points), expected["saved_density"], rtol=5e-5)
    fitted = ood.restore(old / "saved_score")
    np.testing.assert_allclose(fitted(points, key=5), expected["saved_score"], rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(
        fitted.p_value(points, key=5), expected["saved_score/p_value"], rtol=1e-6
    )

"""Suites of outside sets: what is in them, what is here, and their use in a benchmark."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

import likejax as lj
from likejax.data.steps import apply_steps
from likejax.ood.inputs import _by_name
from tests.paths import DATA


def distances(inside: str) -> dict[str, str]:
    return {each.name: each.distance for each in lj.ood.SUITES[inside]}


def test_both_directions():
    """Every outside dataset of a family has a suite with the other one in it, equally near."""
    for inside, sets in lj.ood.SUITES.items():
        for each in sets:
            if each.name in lj.ood.SUITES:
                assert distances(each.name)[inside] == each.distance
        assert inside not in distances(inside)
        assert {"noise", "constants", f"{inside}+hflip"} <= set(distances(inside))


def test_classic_pairs():
    assert distances("fashion_mnist")["mnist"] == "far"
    assert distances("mnist")["kmnist"] == "near"
    assert distances("mnist")["omniglot"] == "near"
    assert distances("mnist")["omniglot_on_paper"] == "far"
    assert distances("cifar10")["cifar100"] == "near"
    assert distances("cifar10")["tiny_imagenet"] == "near"
    for name in ("svhn", "celeba", "gtsrb", "noise", "constants"):
        assert distances("cifar10")[name] == "far"
    assert distances("svhn")["cifar10"] == "far"
    assert distances("fashion_mnist")["fashion_mnist+vflip"] == "near"


def save(folder, name: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    np.savez(folder / f"{name}.npz", x_test=rng.integers(0, 256, shape, dtype=np.uint8))


def test_what_is_here_and_what_is_not(tmp_path):
    """Sets are brought to one form; absent ones are named, and nothing is fetched."""
    save(tmp_path, "cifar10", (9, 32, 32, 3))
    save(tmp_path, "svhn", (12, 32, 32, 3))
    save(tmp_path, "tiny_imagenet", (5, 64, 64, 3))
    suite = lj.ood.suite("cifar10", data_dir=tmp_path)
    changes = tuple(f"cifar10+{s}" for s in ("hflip", "vflip", "rotate:90", "contrast:0.5"))
    assert suite.names("near") == ("tiny_imagenet", *changes, "cifar10+noise:0.1")
    assert suite.names("far") == ("svhn", "noise", "constants")
    assert suite.distances == {name: distances("cifar10")[name] for name in suite.names()}
    assert suite.names() == (*suite.names("near"), *suite.names("far"))
    assert [each.name for each in suite.absent] == ["cifar100", "celeba", "gtsrb"]
    assert str(suite).count("- not here") == 3
    assert "svhn                  far   svhn\n" in str(suite)
    sets = suite.load(limit=8)
    assert tuple(sets) == suite.names()
    assert {len(data) for data in sets.values()} == {8, 5}
    inside = lj.load("cifar10", split="test", data_dir=tmp_path)
    for name, data in sets.items():
        assert data.representation() == inside.representation()
        assert data.name == name
    assert sets["tiny_imagenet"].provenance[-1] == "resized to 32x32 (box)"


def test_preparing_and_seeds():
    suite = lj.ood.suite("digits")
    sets = suite.load(prepare=lambda data: data.binarize(0), limit=20)
    assert {(data.levels, len(data)) for data in sets.values()} == {(2, 20)}
    again, other = suite.load(seed=0), suite.load(seed=1)
    for name in ("noise", "constants"):
        assert suite.load()[name].fingerprint() == again[name].fingerprint()
        assert again[name].fingerprint() != other[name].fingerprint()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lj.ood.suite("cifar"), "no suite of 'cifar'.*did you mean 'cifar10'"),
        (lambda: lj.ood.suite("mnist", data_dir="/not/there"), "expected data_dir to be a folder"),
        (
            lambda: lj.ood.suite("digits").names("close"),
            "distance to be 'near' or 'far', got 'close'",
        ),
        (lambda: lj.ood.suite("digits").load(limit=0), "expected limit to be an integer"),
    ],
)
def test_suites_that_are_not_there(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_changed_inside_sets_are_named_by_their_change():
    """Also where the first step of two changes is the same."""
    inside = lj.load("digits", split="test")
    steps = ("hflip", "hflip+vflip", "rotate:90", "noise:0.1")
    names = list(_by_name(inside, [apply_steps(inside, step) for step in steps]))
    assert names == [
        "digits",
        "digits (left and right exchanged)",
        "digits (left and right exchanged, top and bottom exchanged)",
        "digits (rotated by 90 degrees counterclockwise)",
        "digits (Gaussian noise of 0.1 of the range with seed 0)",
    ]


def test_a_suite_in_a_benchmark():
    """A histogram of every pixel finds noise and photographs, and hardly finds mirrored digits."""
    train, held_out, inside = (
        lj.load("digits", split=split) for split in ("train", "validation", "test")
    )
    density = lj.models.PixelHistogram.fit(train)
    sets = lj.ood.suite("digits").load(limit=100)
    report = lj.ood.benchmark(
        density,
        inside=inside,
        outside=sets,
        scores=[lj.ood.NegativeLogProb()],
        held_out=held_out,
        key=jax.random.key(0),
        resamples=20,
    )
    assert report.title == f"digits against {', '.join(sets)}"
    found = {name: report.metric("negative log-likelihood", name, "auroc").value for name in sets}
    assert found["noise"] > 0.99
    assert found["photographs"] > 0.9
    assert 0.5 < found["digits+hflip"] < found["digits+rotate:90"]


def test_the_word_suite_on_the_command_line(capsys):
    """It stands for the sets that are here; the others are named on the error stream."""
    from likejax.cli.ood import Ood

    command = Ood(run=Path("run"), outside=("moons", "suite"))
    distances = command._distances(lj.preset("glow/digits"))
    names = command._names(distances)
    assert names == ["moons", *(each.source for each in lj.ood.SUITES["digits"])]
    assert "digits against" in capsys.readouterr().err
    assert distances["digits+hflip"] == "near"
    assert distances["noise"] == "far"
    alone = Ood(run=Path("run"), outside=("moons",))
    assert alone._distances(lj.preset("glow/digits")) == {}
    assert alone._names({}) == ["moons"]
    with pytest.raises(ValueError, match="no suite of 'moons'"):
        command._distances(lj.preset("ffjord/moons"))


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA")
def test_real_suites():
    suite = lj.ood.suite("fashion_mnist", data_dir=DATA)
    assert {"mnist", "notmnist", "emnist_letters", "omniglot"} <= set(suite.names("far"))
    assert [each.name for each in suite.absent] == ["kmnist"]
    assert lj.data.source_of("tfds/mnist", data_dir=DATA) == "TFDS, prepared"
    assert lj.data.source_of("fashion_mnist+hflip", data_dir=DATA) == "files"
    assert lj.data.source_of("kmnist", data_dir=DATA) == ""

"""The command line as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import likejax as lj
from likejax.cli import main
from tests.paths import DATA

SIZES = {"steps": 4, "model.depth": 1, "model.width": 8}
EVERY = {"validate-every": 2, "checkpoint-every": 2, "log-every": 2}
TINY = [word for name, value in (SIZES | EVERY).items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "glow/digits", "--workdir", str(workdir), "--draws", "1", *TINY]) == 0
    return workdir


def test_train_writes_everything(run, capsys):
    record = json.loads((run / "experiment.json").read_text())
    assert (record["model"]["depth"], record["steps"]) == (1, 4)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert (evaluation["kind"], evaluation["n"]) == ("bound", 359)
    with Image.open(run / "samples.png") as picture:
        assert picture.size[0] > 200
    assert (
        main(["train", "glow/digits", "--workdir", str(run), "--draws", "1", *TINY]) == 0
    )  # finished: goes on at once
    assert "bits/dim <=" in capsys.readouterr().out


def test_evaluate(run, capsys, tmp_path):
    assert main(["evaluate", str(run), "--draws", "2", "--json", str(tmp_path / "e.json")]) == 0
    assert "2 draws, n = 359, digits test" in capsys.readouterr().out
    assert json.loads((tmp_path / "e.json").read_text())["draws"] == 2
    assert main(["evaluate", str(run), "--dataset", "moons"]) == 1
    assert "expected examples of shape (8, 8, 1)" in capsys.readouterr().err


def test_sample(run, tmp_path, capsys):
    assert main(["sample", str(run), "--count", "5", "--out", str(tmp_path / "s.npy"), "--temperature", "0.7"]) == 0
    assert np.load(tmp_path / "s.npy").shape == (5, 8, 8, 1)
    assert main(["sample", str(run), "--count", "5", "--out", str(tmp_path / "s.png")]) == 0
    assert "5 samples" in capsys.readouterr().out


def test_what_is_no_picture_is_said_before_sampling(tmp_path, capsys):
    """Points have no sheet, and a conditional model needs a class; arrays are written all the same."""
    experiment = lj.Experiment(model=lj.VectorGlowConfig(dimensions=2, depth=1, width=4), batch_size=20, steps=1)
    lj.fit(experiment, lj.load("moons"), key=0, workdir=tmp_path / "points")
    assert main(["sample", str(tmp_path / "points")]) == 2
    assert "(2,) and continuous values are no images: give --out a name ending in .npy" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "points"), "--count", "3", "--out", str(tmp_path / "points.npy")]) == 0
    assert np.load(tmp_path / "points.npy").shape == (3, 2)
    config = lj.GlowConfig(event_shape=(4, 4, 1), levels=4, scales=1, depth=1, width=4, num_classes=3)
    lj.save(lj.build(config, key=0), tmp_path / "classes")
    assert main(["sample", str(tmp_path / "classes"), "--out", str(tmp_path / "classes.png")]) == 2
    assert "give the class of its samples with --label" in capsys.readouterr().err


def test_lists(capsys):
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    assert "glow/celeba_hq256" in out
    assert "175,099,620" in out
    assert main(["datasets"]) == 0
    assert "checkerboard" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "usage: likejax COMMAND"),
        (["--help"], 0, "usage: likejax COMMAND"),
        (["trian"], 2, "did you mean train?"),
        (["train"], 2, "expected `likejax train PRESET`"),
        (["train", "--steps", "3"], 2, "right after `likejax train`"),
        (["train", "glow/digit"], 1, "did you mean glow/digits"),
        (["train", "glow/imagenet32"], 1, "no dataset 'imagenet32'"),
        (["evaluate", "nowhere"], 1, "nowhere is no run"),
        (["sample", "nowhere"], 1, "is no run"),
        (["presets", "extra"], 2, "takes no arguments"),
        (["datasets", "--data-dir", "/nowhere"], 1, "expected data_dir to be a folder"),
    ],
)
def test_mistakes_get_a_sentence(args, code, message, capsys, monkeypatch):
    monkeypatch.delenv("LIKEJAX_DATA", raising=False)
    assert main(args) == code
    captured = capsys.readouterr()
    assert message in captured.out + captured.err
    assert "Traceback" not in captured.err


def test_unknown_override_names_the_near_one(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["train", "glow/digits", "--optimiser.learning_rat", "1"])
    assert exit.value.code == 2
    assert "--optimiser.learning-rate" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "datasets", "demo", "presets"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert "usage: likejax" in capsys.readouterr().out


def test_as_a_program():
    """The installed program: version, exit code, and no traceback for a user's mistake."""
    version = subprocess.run([sys.executable, "-m", "likejax.cli", "--version"], capture_output=True, text=True)
    assert version.returncode == 0
    assert version.stdout[0].isdigit()
    mistake = subprocess.run([sys.executable, "-m", "likejax.cli", "train", "x"], capture_output=True, text=True)
    assert mistake.returncode == 1
    assert mistake.stderr.startswith("likejax: no preset 'x'")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA")
def test_fashion_mnist_by_one_command(tmp_path):
    """The whole way on real files: train for a few steps, better than uniform, pictures written."""
    command = f"train glow/fashion_mnist-small --data-dir {DATA} --workdir {tmp_path / 'run'} --steps 30 --draws 1"
    arguments = [*command.split(), "--model.depth", "2", "--model.width", "16", "--validate-every", "30"]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["bits_per_dim"] < 8
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000

"""The command line as a person meets it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import chex
import numpy as np
import pytest
from PIL import Image

import likejax as lj
from likejax.cli import COMMANDS, _parsed, main
from likejax.cli.ood import Ood
from likejax.cli.train import Train
from likejax.data.splits import row_hashes
from likejax.train.record import selection_of
from tests.paths import DATA

SIZES = {"steps": 4, "model.depth": 1, "model.width": 8}
EVERY = {"validate-every": 2, "checkpoint-every": 2, "log-every": 2}
TINY = [word for name, value in (SIZES | EVERY).items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("cli") / "run"
    arguments = ["--workdir", str(workdir), "--draws", "1", "--select-on", "all", *TINY]
    assert main(["train", "glow/digits", *arguments]) == 0
    return workdir


def test_train_writes_everything(run, capsys):
    record = json.loads((run / "experiment.json").read_text())
    assert (record["model"]["depth"], record["steps"]) == (1, 4)
    every_row = row_hashes(lj.load("digits", split="validation"))
    assert set(selection_of(run)) == set(every_row)  # asked for: half of them otherwise
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert (evaluation["kind"], evaluation["n"]) == ("bound", 359)
    with Image.open(run / "samples.png") as picture:
        assert picture.size[0] > 200
    arguments = ["--workdir", str(run), "--draws", "1", "--select-on", "all", *TINY]
    assert main(["train", "glow/digits", *arguments]) == 0  # finished: goes on at once
    assert "bits/dim <=" in capsys.readouterr().out


def test_training_begins_with_the_weights_of_another_run(run, tmp_path):
    """With a tiny step they stay what they were."""
    arguments = ["--workdir", str(tmp_path / "tuned"), "--draws", "1", "--initial", str(run), *TINY]
    assert main(["train", "glow/digits", *arguments, "--optimizer.learning-rate", "1e-9"]) == 0
    before, after = (lj.train.restore_run(place).state for place in (run, tmp_path / "tuned"))
    chex.assert_trees_all_close(after.params, before.params, atol=1e-7)


def test_evaluate(run, capsys, tmp_path):
    assert main(["evaluate", str(run), "--draws", "2", "--json", str(tmp_path / "e.json")]) == 0
    assert "2 draws, n = 359, digits test" in capsys.readouterr().out
    assert json.loads((tmp_path / "e.json").read_text())["draws"] == 2
    assert main(["evaluate", str(run), "--dataset", "moons"]) == 1
    assert "expected examples of shape (8, 8, 1)" in capsys.readouterr().err


def test_sample(run, tmp_path, capsys):
    assert (
        main(
            [
                "sample",
                str(run),
                "--count",
                "5",
                "--out",
                str(tmp_path / "s.npy"),
                "--temperature",
                "0.7",
                "--batch-size",
                "3",
                "--devices",
                "1",
            ]
        )
        == 0
    )
    assert np.load(tmp_path / "s.npy").shape == (5, 8, 8, 1)
    assert main(["sample", str(run), "--count", "5", "--out", str(tmp_path / "s.png")]) == 0
    assert "5 samples" in capsys.readouterr().out


OWN_SCORES = [
    (["--own-scores", "edges"], "expected a score as MODULE:CLASS"),
    (["--own-scores", "no_such_module:Edges"], "there is no module 'no_such_module'"),
    (["--own-scores", "likejax.ood:Typicallity"], "did you mean 'Typicality'?"),
    (["--own-scores", "likejax.ood:LikelihoodRatio"], "called without arguments; calling it: "),
    (["--own-scores", "likejax:Optimizer"], "calling it gave Optimizer"),
]


def test_what_cannot_end_well_ends_at_once(run, tmp_path, capsys, monkeypatch):
    """Wrong options, unwritable files and missing labels are named before any work."""

    def work(*args, **options):
        raise AssertionError("the work began")

    for name in ("evaluate", "fit", "restore"):
        monkeypatch.setattr(lj, name, work)
    monkeypatch.setattr(lj.ood, "benchmark", work)
    a_folder, a_file = tmp_path / "folder", tmp_path / "file"
    a_folder.mkdir()
    a_file.write_text("")
    here = str(run)
    for args, code, message in (
        (["evaluate", here, "--draws", "0"], 2, "draws to be an integer of at least 1, got 0"),
        (
            ["evaluate", here, "--batch-size", "-1"],
            2,
            "--batch-size to be an integer of at least 1",
        ),
        (["evaluate", here, "--json", str(a_folder)], 1, "which --json names: "),
        (["evaluate", here, "--json", str(a_file / "e.json")], 1, "which --json names: "),
        (["evaluate", here, "--devices", "0"], 2, "devices to be an integer of at least 1"),
        (["train", "glow/digits", "--distributed", "--devices", "1"], 2, "expected no --devices"),
        (
            ["train", "glow/digits", "--background", "0.2", "--initial", here],
            2,
            "expected no --initial with --background",
        ),
        (["sample", here, "--devices", "99"], 2, "expected --devices of at most 1, got 99"),
        (["sample", here, "--count", "0"], 2, "count to be an integer of at least 1"),
        (["sample", here, "--temperature", "-1"], 2, "temperature to be a number of at least 0"),
        (["sample", here, "--out", str(a_file / "s.png")], 1, "which --out names: "),
        (["ood", here], 2, "expected outside datasets"),
        (
            ["ood", here, "--outside", "noise", "--fpr", "2"],
            2,
            "fpr to be a number above 0 and below 1",
        ),
        (
            ["ood", here, "--outside", "noise", "--groups", "0"],
            2,
            "groups[0] to be an integer of at least 1",
        ),
        (
            ["ood", here, "--outside", "noise", "--out", str(a_file / "ood")],
            1,
            "which --out names: ",
        ),
        *((["ood", here, "--outside", "noise", *words], 2, said) for words, said in OWN_SCORES),
        (["train", "glow/digits", "--draws", "0"], 2, "draws to be an integer of at least 1"),
        (["train", "glow/digits", "--steps", "0"], 2, "steps to be an integer of at least 1"),
        (
            ["train", "glow/digits", "--optimizer.learning-rate", "-1"],
            2,
            "expected --optimizer.learning-rate to be a number above 0",
        ),
    ):
        assert main(args) == code, args
        said = " ".join(capsys.readouterr().err.split())  # the parser breaks lines
        assert message in said, args


def test_samples_are_asked_for_in_the_words_of_the_command_line(run, tmp_path, capsys):
    place = str(tmp_path / "s")
    assert main(["sample", str(run), "--label", "3", "--out", place + ".png"]) == 2
    assert "expected no --label" in capsys.readouterr().err
    for name in (place, place + ".mp3"):
        assert main(["sample", str(run), "--out", name]) == 2
        assert "expected --out to end in .png, .npy" in capsys.readouterr().err
    conditional = tmp_path / "conditional"
    config = lj.models.GlowConfig(
        event_shape=(8, 8, 1), levels=17, scales=1, depth=1, width=4, num_classes=10
    )
    lj.save(lj.build(config, key=0), conditional)
    assert main(["sample", str(conditional), "--out", place + ".png"]) == 2
    assert "the model is conditional: give a class with --label" in capsys.readouterr().err
    assert main(["sample", str(conditional), "--label", "10", "--out", place + ".png"]) == 2
    assert "--label: expected class labels 0..9" in capsys.readouterr().err
    assert (
        main(["sample", str(conditional), "--label", "3", "--count", "2", "--out", place + ".png"])
        == 0
    )


def test_a_reader_that_has_had_enough():
    """As `likejax presets | head -1`: no traceback and no sentence about a pipe."""
    program = subprocess.Popen(
        [sys.executable, "-m", "likejax.cli", "presets"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait() == 141


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
        ([], 2, "usage: likejax [-h] {train,evaluate"),
        (["--help"], 0, "usage: likejax [-h] {train,evaluate"),
        (["trian"], 2, "did you mean 'train'?"),
        (["train"], 2, "Name of the preset, right after `likejax train`. (required)"),
        (["evaluate"], 2, "Directory of the run. (required)"),
        (["train", "--steps", "3"], 2, "right after `likejax train`"),
        (["train", "glow/digit"], 2, "did you mean 'glow/digits'"),
        (["train", "glow/imagenet32"], 1, "no dataset 'imagenet32'"),
        (["evaluate", "nowhere"], 1, "nowhere is not the directory of a run"),
        (["sample", "nowhere"], 1, "nowhere"),
        (["presets", "extra"], 2, "Unrecognized options: extra"),
        (
            ["train", "glow/digits", "--stepz", "3"],
            2,
            "`likejax train glow/digits --help` lists the options",
        ),
        (["evaluate", "run", "--draws", "0"], 2, "expected --draws to be an integer of at least 1"),
        (
            ["train", "ffjord/digits", "--model.solver.rtol", "-1"],
            2,
            "expected --model.solver.rtol or --model.training-solver.rtol to be a number",
        ),
        (["train", "glow/digits", "--model.scales", "4"], 2, "divisible by 2^scales = 16, got 8x8"),
        (["datasets", "--data-dir", "/nowhere"], 1, "expected data_dir to be a folder"),
    ],
)
def test_mistakes_get_a_sentence(args, code, message, capsys, monkeypatch):
    monkeypatch.delenv("LIKEJAX_DATA", raising=False)
    assert main(args) == code
    captured = capsys.readouterr()
    assert message in captured.out + captured.err
    assert "Traceback" not in captured.err
    assert "tyro" not in captured.err


def test_unknown_override_names_the_near_one(capsys):
    assert main(["train", "glow/digits", "--optimizer.learning_rat", "1"]) == 2
    assert "--optimizer.learning-rate" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: likejax {command}" in out
    first_line = COMMANDS[command].__doc__.splitlines()[0]
    assert first_line in out
    assert "``" not in out


def test_help_of_a_preset_has_its_card_and_settings(capsys):
    assert main(["train", "glow/digits", "--help"]) == 0
    out = capsys.readouterr().out
    assert lj.PRESETS["glow/digits"].summary in out
    assert "--model.depth INT" in out
    assert "(default: 8)" in out
    words = " ".join(out.replace("│", " ").split())
    assert "name in `density.terms`. Negative for" in words
    assert "`loss = mean(-log_prob) / (D ln 2)" in words
    assert "``" not in words


def test_older_spelling_of_an_option(tmp_path, capsys):
    """An override by a name that had British spelling reaches the setting."""
    assert main(["train", "glow/digits", "--optimiser.learning_rate", "-1"]) == 2
    assert "expected --optimizer.learning-rate to be a number above 0" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("preset", "options", "weights"),
    [
        ("glow/cifar10", ["--objective.class-weight", "0.02"], {"class_log_prob": -0.02}),
        (
            "ffjord/digits",
            ["--objective.jacobian_weight=0.5", "--steps", "7"],
            {"kinetic_energy": 0.01, "jacobian_norm": 0.5},
        ),
        ("ffjord/digits", ["--objective.weights", "kinetic_energy", "1"], {"kinetic_energy": 1.0}),
    ],
)
def test_weights_of_the_objective(preset, options, weights):
    """By the names that parts have, and by the three options of likejax 0.6."""
    command = _parsed(["train", preset, *options])
    assert isinstance(command, Train)
    assert dict(command.experiment.objective.weights) == weights
    assert command.experiment.steps in (7, lj.preset(preset).steps)


def test_a_weight_that_is_no_number(capsys):
    assert main(["train", "glow/cifar10", "--objective.class-weight", "much"]) == 2
    assert "a number after --objective.class-weight, got 'much'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (["--optimizer.clip-norm", "0"], "experiment.optimizer.clip_norm"),
        (["--optimizer.clip_norm=0.0"], "experiment.optimizer.clip_norm"),
        (["--guard.spike-factor", "None"], "experiment.guard.spike_factor"),
        (["--guard.spike-factor", "0"], "experiment.guard.spike_factor"),
        (["--samples-every", "0"], "experiment.samples_every"),
        (["--model.num-classes", "0"], "experiment.model.num_classes"),
        (["--background", "0"], "background"),
    ],
)
def test_none_and_the_0_of_older_versions_turn_a_setting_off(options, setting):
    """Other zeros stay."""
    command = _parsed(["train", "glow/digits", *options, "--seed", "0", "--ema-decay", "0"])
    assert functools.reduce(getattr, setting.split("."), command) is None
    assert isinstance(command, Train)
    assert (command.seed, command.experiment.ema_decay) == (0, 0.0)


def test_a_limit_of_0_is_none():
    command = _parsed(["ood", "runs/glow", "--outside", "mnist", "--limit", "0"])
    assert isinstance(command, Ood)
    assert command.limit is None
    limited = _parsed(["ood", "runs/glow", "--outside", "mnist", "--limit", "384"])
    assert isinstance(limited, Ood)
    assert limited.limit == 384


def test_as_a_program():
    """The installed program: version, exit code, and no traceback for a user's mistake."""
    version = subprocess.run(
        [sys.executable, "-m", "likejax.cli", "--version"], capture_output=True, text=True
    )
    assert version.returncode == 0
    assert version.stdout[0].isdigit()
    mistake = subprocess.run(
        [sys.executable, "-m", "likejax.cli", "train", "x"], capture_output=True, text=True
    )
    assert mistake.returncode == 2
    assert mistake.stderr.startswith("likejax: no preset 'x'")


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA")
def test_fashion_mnist_by_one_command(tmp_path):
    """The whole way on real files: train for a few steps, better than uniform, pictures written."""
    places = f"--data-dir {DATA} --workdir {tmp_path / 'run'}"
    command = f"train glow/fashion_mnist-small {places} --steps 30 --draws 1"
    arguments = [
        *command.split(),
        "--model.depth",
        "2",
        "--model.width",
        "16",
        "--validate-every",
        "30",
    ]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["bits_per_dim"] < 8
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000

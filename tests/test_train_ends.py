"""How a run ends: side products never end it, Ctrl-C loses nothing, records that cannot be written
are said."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax import plot
from likejax.train.log import Log, Unit, read_metrics
from likejax.train.progress import TrainingProgress
from likejax.train.window import Window
from tests.registry import Laplace

POINTS = lj.Dataset.from_array(
    np.random.default_rng(0).laplace(scale=3, size=(240, 2)).astype(np.float32)
)
PLAIN = lj.Experiment(
    model=Laplace(),
    optimizer=lj.Optimizer(learning_rate=0.05),
    batch_size=24,
    steps=6,
    log_every=2,
    checkpoint_every=3,
)


class Dice(lj.Density):
    """Images whose entries are throws of one die."""

    event_shape = (4, 4, 2)
    levels = 4
    kind = lj.Kind.EXACT

    def __init__(self):
        self.logits = nnx.Param(jnp.zeros(4))

    def _log_prob(self, x, key, condition):
        return jax.nn.log_softmax(self.logits[...])[x].sum()

    def _sample(self, key, condition, temperature):
        return jax.random.categorical(key, self.logits[...], shape=self.event_shape).astype(
            jnp.uint8
        )


def fit(workdir=None, train=POINTS, **settings) -> lj.train.Run:
    return lj.fit(dataclasses.replace(PLAIN, **settings), train, key=0, workdir=workdir)


def scale(run: lj.train.Run) -> np.ndarray:
    return np.asarray(run.last.log_scale[...])


# --- sheets


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_sheets_of_any_number_of_channels(channels):
    """One and three channels are pictures; of others every channel is a gray plane beside those of
    its image."""
    images = np.zeros((3, 4, 6, channels), np.uint8)
    images[1] = 1 + np.arange(channels)
    drawn = plot.sheet(images, levels=8, columns=8).axes[0].images[0].get_array()
    planes = channels if channels not in (1, 3) else 1
    columns = {1: 3, 2: 6, 3: 3, 5: 5}[channels]
    rows = 3 * planes // columns
    assert drawn.shape[:2] == (rows * 5 + 1, columns * 7 + 1)
    if planes > 1:
        tiles = [(i // columns, i % columns) for i in range(3 * planes)]
        values = [int(drawn[1 + 5 * row, 1 + 7 * column]) for row, column in tiles]
        assert values == [0] * planes + [1 + i for i in range(planes)] + [0] * planes
    with pytest.raises(
        ValueError,
        match=r"shape \(n, height, width, channels\) with n > 0 for a sheet, got \(0, 4, 6",
    ):
        plot.sheet(images[:0])


def test_a_picture_that_cannot_be_drawn_ends_no_training(tmp_path, monkeypatch):
    """One warning for all of them, and the weights are those of a run without pictures."""
    images = np.random.default_rng(0).integers(0, 4, (40, 4, 4, 2)).astype(np.uint8)
    data = lj.Dataset.from_array(images, levels=4)
    run = fit(tmp_path / "drawn", data, model=Dice(), samples_every=2, steps=4)
    assert len(list((run.workdir / "samples").glob("*.png"))) == 2

    def broken(*args, **options):
        raise RuntimeError("no fonts here")

    monkeypatch.setattr(plot, "sheet", broken)
    with pytest.warns(
        UserWarning,
        match="sheet of samples failed, training goes on without: RuntimeError: no fonts",
    ) as told:
        again = fit(tmp_path / "broken", data, model=Dice(), samples_every=2, steps=4)
    assert len(told) == 1
    assert again.steps == 4
    assert not list((tmp_path / "broken").glob("samples/*.png"))


# --- logs and progress


class FullDisk:
    """Writing fails between two moments, half a line at first, as on a disk that fills and is
    cleared."""

    def __init__(self, monkeypatch):
        self.full = False
        original = Path.open

        def opened(path, mode="r", *args, **options):
            file = original(path, mode, *args, **options)
            if self.full and path.name == "metrics.jsonl" and "a" in mode:
                file.write('{"step": 9')
                file.close()
                raise OSError(28, "No space left on device")
            return file

        monkeypatch.setattr(Path, "open", opened)


def test_a_full_disk_at_a_log_line_is_a_warning(tmp_path, monkeypatch):
    """The line is lost, once with a warning; the history is whole, and later lines are readable."""
    disk, path = FullDisk(monkeypatch), tmp_path / "metrics.jsonl"
    log = Log(Window((), 10), Unit(Laplace()), start=0, steps=9)
    log.open(tmp_path, tensorboard=False, loggers=())
    log.write({"step": 1, "loss": 1.0})
    disk.full = True
    with pytest.warns(
        UserWarning, match=r"writing the log .*metrics.jsonl failed, training goes on.*No space"
    ) as told:
        log.write({"step": 2, "loss": 2.0})
    with warnings.catch_warnings():  # once is enough
        warnings.simplefilter("error")
        log.write({"step": 3, "loss": 3.0})
    assert len(told) == 1
    disk.full = False
    log.write({"step": 4, "loss": 4.0})
    assert [record["step"] for record in log.history] == [1, 2, 3, 4]
    assert [record["step"] for record in read_metrics(path)] == [1, 4]


def test_a_full_disk_at_a_log_line_leaves_the_checkpoints_intact(tmp_path, monkeypatch):
    disk = FullDisk(monkeypatch)
    disk.full = True
    with pytest.warns(UserWarning, match="No space left"):
        run = fit(tmp_path)
    np.testing.assert_array_equal(scale(run), scale(fit()))
    np.testing.assert_array_equal(
        lj.restore(tmp_path, density=Laplace()).log_scale[...], run.last.log_scale[...]
    )


def test_tensorboard_that_fails_ends_no_training(tmp_path, monkeypatch):
    from tensorboardX import SummaryWriter

    def broken(self, *args, **options):
        raise OSError("the event file is gone")

    monkeypatch.setattr(SummaryWriter, "add_scalar", broken)
    with pytest.warns(
        UserWarning, match="TensorBoard events failed, training goes on without"
    ) as told:
        assert fit(tmp_path, tensorboard=True).steps == 6
    assert len(told) == 1


def test_without_tensorboard_it_is_said_before_training(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install 'likejax\[tensorboard\]'"):
        fit(tensorboard=True, workdir=tmp_path)


class Gone:
    """A pipe whose reader went away."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.untyped
def test_progress_on_a_closed_stream_ends_no_training(monkeypatch):
    """A notebook that was closed, a pipe whose reader went away, a program without a console."""
    closed = io.StringIO()
    closed.close()
    with pytest.warns(UserWarning, match="progress is not shown any more"):
        view = TrainingProgress(0, 10, stream=Gone())
    with warnings.catch_warnings():  # once is enough
        warnings.simplefilter("error")
        view.say("nobody hears this")
        view.report(1, "nor this", 1.0)
        view.advance(2)
        view.close()
    with pytest.warns(UserWarning, match="progress is not shown any more"):
        TrainingProgress(0, 10, stream=closed)
    monkeypatch.setattr(sys, "stderr", None)
    TrainingProgress(0, 10).say("nobody hears this")
    assert fit().steps == 6


def test_standard_streams_that_are_closed_end_no_training():
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.test_train_ends import fit
sys.stdout.close()
sys.stderr.close()
run = fit()
import os
os.write(1, b"%d" % run.steps)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "6", result.stderr


# --- records


def test_a_record_that_cannot_be_written_is_a_checkpoint_error(tmp_path, monkeypatch):
    """No bare OSError; what was there stays."""
    fit(tmp_path / "run")
    before = (tmp_path / "run" / "experiment.json").read_text()

    def full(self, *args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        with (
            pytest.raises(
                lj.train.CheckpointError,
                match=r"could not write .*experiment.json: No space left on device",
            ),
            warnings.catch_warnings(),
        ):
            fit(tmp_path / "run", steps=8)
    assert (tmp_path / "run" / "experiment.json").read_text() == before
    assert fit(tmp_path / "run", steps=8).steps == 8
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(lj.train.CheckpointError, match="cannot be written"):
        fit(tmp_path / "file" / "run")
    with pytest.raises(lj.train.CheckpointError, match="cannot be written"):
        lj.save(Laplace(), tmp_path / "file" / "density")


# --- Ctrl-C


def interrupted_after(steps: int):
    """Batches that send the signal of Ctrl-C while that step is drawn."""
    for number in range(1, 10_000):
        if number == steps:
            os.kill(os.getpid(), signal.SIGINT)
        yield POINTS.examples[:24]


@pytest.fixture
def default_handler():
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_ctrl_c_without_a_workdir_returns_what_is_trained(capfd):
    with pytest.warns(
        UserWarning, match=r"interrupted after step \d+ of 2000: fit returns the run as it stands"
    ):
        run = fit(train=interrupted_after(5), steps=2000)
    assert run.interrupted
    assert 1 <= run.steps < 2000
    assert run.history[-1]["step"] <= run.steps
    straight = fit(train=[POINTS.examples[:24]], steps=run.steps)
    assert not straight.interrupted
    np.testing.assert_array_equal(scale(run), scale(straight))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "after this step and returning what is trained; once more" in capfd.readouterr().err


@pytest.mark.usefixtures("default_handler")
def test_ctrl_c_with_a_workdir_saves_and_raises(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, train=interrupted_after(5), steps=2000)
    saved = max(
        int(place.name) for place in (tmp_path / "last").iterdir() if place.name.isdecimal()
    )
    assert 1 <= saved < 2000
    assert json.loads((tmp_path / "experiment.json").read_text())["steps"] == 2000

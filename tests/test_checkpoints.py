"""What is on disk is whole, verified, and fits, or a sentence says why not."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import likejax as lj
from likejax.experiment import from_json, to_json
from likejax.nn.repeat import unstack
from likejax.storage.store import Store
from likejax.train.checkpoint import Checkpoints
from tests.registry import Laplace

MODEL = lj.models.VectorGlowConfig(depth=2, width=4)
SMALL = lj.Experiment(
    model=MODEL,
    dataset="moons",
    batch_size=20,
    steps=8,
    validate_every=2,
    checkpoint_every=4,
    log_every=3,
)
TRAIN, VALID = (
    lj.load("moons").take(slice(0, 400)),
    lj.load("moons", split="validation").take(slice(0, 50)),
)


def fit(workdir, experiment=SMALL, train=TRAIN, key=0):
    return lj.fit(experiment, train, validation=VALID, workdir=workdir, key=key)


def leaves(density):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(density)]


def assert_same(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, to be damaged."""
    place = tmp_path / "run"
    shutil.copytree(finished.workdir, place)
    return place


def arrays_of(workdir: Path, which: str, step: int) -> list[Path]:
    """The files of a checkpoint that hold array data."""
    return sorted(
        p for p in (workdir / which / str(step)).rglob("*") if p.is_file() and "/d/" in str(p)
    )


def flip_a_byte(path: Path, place: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


# --- damage


def test_the_last_two_and_the_best_are_kept(finished):
    assert Store(finished.workdir / "last").steps() == [4, 8]
    best = Store(finished.workdir / "best").steps()
    assert finished.best_step in best
    assert len(best) <= 3
    record = Store(finished.workdir / "last").record(8)
    assert record["experiment"] == json.loads(to_json(SMALL))
    assert record["likejax"]
    assert record["key"] == [0, 0]
    assert record["position"][1:] == [0, 160]
    assert record["data"] == TRAIN.fingerprint()


def test_a_flipped_bit_that_orbax_reads_without_an_error_is_noticed(tmp_path):
    """The data of a large array lie in a file of their own; only the manifest knows that they
    changed."""
    arrays = {"x": {"a": np.random.default_rng(0).normal(size=3000).astype(np.float32)}}
    store = Store(tmp_path, writes=True)
    for step in (1, 2):
        store.save(step, arrays, {})
    store.wait()
    largest = max((tmp_path / "2").rglob("*"), key=lambda path: path.stat().st_size)
    assert largest.stat().st_size > 10_000
    flip_a_byte(largest, largest.stat().st_size // 2)
    store = Store(tmp_path)
    with pytest.warns(
        UserWarning, match="step 2 .*the array x/a does not have the checksum that was written"
    ):
        step, read, _ = store.read(lambda record: arrays)
    assert step == 1
    np.testing.assert_array_equal(read["x"]["a"], arrays["x"]["a"])


# orbax leaves tasks of a closed event loop behind when a file cannot be read
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_flipped_bits_in_an_array_are_noticed_and_the_one_before_is_taken(run, finished):
    """orbax reads them without an error; the manifest does not."""
    for path in arrays_of(run, "last", 8):
        flip_a_byte(path)
    with pytest.warns(
        UserWarning, match="step 8 .* damaged and passed over: .*(checksum|cannot be read)"
    ):
        earlier = lj.restore(run, which="last")
    assert not all(
        np.array_equal(a, b) for a, b in zip(leaves(earlier), leaves(finished.last), strict=True)
    )
    with pytest.warns(UserWarning, match="passed over"):
        resumed = fit(run)
    assert_same(resumed.last, finished.last)
    assert_same(resumed.density, finished.density)
    assert_same(lj.restore(run, which="last"), finished.last)  # step 8 was written anew


def test_a_damaged_record_is_noticed(run):
    (record,) = (run / "last" / "8" / "record").glob("metadata")
    text = record.read_text()
    assert '"best_step"' in text
    record.write_text(text.replace('"best_step":', '"best_step" : 1, "x":', 1))
    with pytest.warns(UserWarning, match="record does not have the checksum"):
        lj.restore(run, which="last")
    record.write_text(text[: len(text) // 2])
    with pytest.warns(UserWarning, match="record cannot be read"):
        lj.restore(run, which="last")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_any_intact_checkpoint_a_sentence(run):
    for step in (4, 8):
        shutil.rmtree(run / "last" / str(step) / "density")
    shutil.rmtree(run / "best")
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(
            lj.train.CheckpointError,
            match=r"no complete checkpoint in .*last; those of steps 8, 4 are damaged",
        ),
    ):
        lj.restore(run)


def test_a_lost_best_falls_back_to_the_last(run, finished):
    shutil.rmtree(run / "best")
    assert_same(lj.restore(run), finished.last)


def test_what_a_crash_leaves_is_ignored_and_removed(run, finished):
    (run / "last" / "100").mkdir()
    shutil.copytree(run / "last" / "8", run / "last" / "12")
    for marker in (run / "last" / "12").glob("*commit_success*"):
        marker.unlink()
    assert Store(run / "last").steps() == [4, 8]
    assert (run / "last" / "100").exists()  # reading changes nothing
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    again = fit(run)
    assert_same(again.last, finished.last)
    assert sorted(p.name for p in (run / "last").iterdir() if p.is_dir()) == ["4", "8"]


# --- another run


def test_another_run_is_refused(run):
    with pytest.raises(
        lj.train.CheckpointError,
        match=r"other settings: batch_size: 20 in the run, 40 now\. Resume",
    ):
        fit(run, dataclasses.replace(SMALL, batch_size=40))
    with pytest.raises(lj.train.CheckpointError, match="begun with another key"):
        fit(run, key=1)
    with pytest.raises(lj.train.CheckpointError, match="begun with other training data"):
        fit(run, train=TRAIN.take(slice(0, 300)))
    with pytest.raises(lj.train.CheckpointError, match="holds a run"):
        lj.save(lj.build(MODEL, key=0), run)


def test_a_density_of_another_structure_is_refused(run):
    other = lj.build(lj.models.VectorGlowConfig(depth=2, width=6), key=0)
    with pytest.raises(
        lj.train.CheckpointError,
        match=r"does not fit: .* first is density/params/.*expected .*there is",
    ):
        lj.restore(run, density=other)


def test_more_steps_go_on(run):
    longer = dataclasses.replace(SMALL, steps=10, log_every=5, keep_checkpoints=1)
    assert fit(run, longer).steps == 10
    assert Store(run / "last").steps() == [10]


def with_zeros(record: Any) -> Any:
    """The record of an experiment as older versions wrote it, with 0 where ``None`` is off now."""
    if not isinstance(record, dict):
        return record
    off = {"levels", "early_stopping", "samples_every", "clip_norm", "clip_adaptive", "num_classes"}
    return {
        name: 0 if name in off and value is None else with_zeros(value)
        for name, value in record.items()
    }


@pytest.mark.parametrize("form", ["config", "density"])
def test_a_run_whose_record_has_zeros_goes_on(finished, tmp_path, form):
    """They mean the same settings, of a config and of the config of a ready density."""
    model = MODEL if form == "config" else finished.density
    short = dataclasses.replace(SMALL, model=model, steps=4)
    fit(tmp_path, short)
    path = tmp_path / "experiment.json"
    old = with_zeros(json.loads(path.read_text()))
    config = old["model"] if form == "config" else old["model"]["config"]
    assert (old["optimizer"]["clip_norm"], old["levels"], config["num_classes"]) == (0, 0, 0)
    path.write_text(json.dumps(old))
    assert fit(tmp_path, dataclasses.replace(short, steps=6)).steps == 6
    assert json.loads(path.read_text())["optimizer"]["clip_norm"] is None
    path.write_text(json.dumps(old))
    clipped = dataclasses.replace(short, optimizer=lj.Optimizer(clip_norm=1.0))
    with pytest.raises(lj.train.CheckpointError, match=r"clip_norm: None in the run, 1\.0 now"):
        fit(tmp_path, clipped)


def _holds(workdir: str, ready, done) -> None:
    with Checkpoints(Path(workdir)):
        ready.set()
        done.wait(30)


def test_two_processes_cannot_train_in_one_directory(run):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_holds, args=(str(run), ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(
            lj.train.CheckpointError, match="another process or thread is training in"
        ):
            fit(run)
        assert lj.restore(run).event_shape == (2,)  # reading is free
    finally:
        done.set()
        other.join()
    assert fit(run).steps == 8


def layout_1(run: Path) -> None:
    """Turns a run into what likejax 0.1.0 wrote: no manifest, no guard, fewer settings."""
    for record in run.rglob("record/metadata"):
        old = json.loads(record.read_text())
        kept = {
            k: v
            for k, v in old.items()
            if k in ("position", "best_step", "best_loss", "validation")
        }
        record.write_text(json.dumps({"layout": 1, "likejax": "0.1.0", **kept}))
    experiment = json.loads((run / "experiment.json").read_text())
    for new in (
        "guard",
        "accumulate",
        "early_stopping",
        "keep_checkpoints",
        "samples_every",
        "parameter_shards",
    ):
        del experiment[new]
    (run / "experiment.json").write_text(json.dumps(experiment))


def test_an_older_layout_is_read_and_not_resumed(run, finished):
    layout_1(run)
    assert from_json((run / "experiment.json").read_text()) == SMALL
    with pytest.warns(UserWarning, match="layout 1, without checksums"):
        density = lj.restore(run, which="last")
    assert_same(density, finished.last)
    with pytest.raises(
        lj.train.CheckpointError, match="layout 1, which lacks what an exact resume needs"
    ):
        fit(run)
    tuned = lj.fit(dataclasses.replace(SMALL, model=density, steps=1), TRAIN, key=0)
    assert tuned.steps == 1


def test_a_newer_layout_is_refused(run, monkeypatch):
    monkeypatch.setattr("likejax.storage.store.LAYOUT", 1)
    with pytest.raises(
        lj.train.CheckpointError,
        match=r"has layout 2, written by .* install that one or a newer one",
    ):
        lj.restore(run)


def test_a_damaged_experiment_file(run, finished):
    (run / "experiment.json").write_text('{"model": {"fam')
    with pytest.raises(lj.train.CheckpointError, match=r"experiment.json is damaged"):
        fit(run)
    assert_same(lj.restore(run), finished.density)  # what it says is in every checkpoint too


# --- no room


def test_a_full_disk_stops_the_run_and_leaves_the_old_checkpoints(tmp_path):
    """Writing fails as on a full disk once files may not grow: a sentence, and the run goes on
    later."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import resource, signal
from tests.test_checkpoints import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
original = Store.save
def filling(self, step, items, record):
    if step == 8:
        self.wait()  # what was written in the background before is on disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    original(self, step, items, record)
Store.save = filling
try:
    lj.fit(SMALL, TRAIN, workdir={str(tmp_path / "run")!r}, key=0)
except lj.train.CheckpointError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("MESSAGE", error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "MESSAGE could not write the checkpoint of step 8" in result.stdout, (
        result.stdout + result.stderr[-2000:]
    )
    assert (
        "last: file too large. The complete checkpoints there are intact (steps: 4); make room"
        in result.stdout
    )
    assert Store(tmp_path / "run" / "last").steps() == [4]
    resumed = lj.fit(SMALL, TRAIN, workdir=tmp_path / "run", key=0)
    undisturbed = lj.fit(SMALL, TRAIN, key=0)
    assert_same(resumed.last, undisturbed.last)


# --- densities by themselves


def test_a_saved_density_comes_back(tmp_path):
    density = lj.build(
        lj.models.GlowConfig(event_shape=(4, 4, 1), levels=4, scales=1, depth=2, width=4), key=3
    )
    lj.save(density, tmp_path / "model")
    again = lj.restore(tmp_path / "model")
    assert_same(density, again)
    assert again.config == density.config
    other = lj.build(density.config, key=4)
    lj.save(other, tmp_path / "model")  # replaces it
    assert_same(lj.restore(tmp_path / "model"), other)
    assert not list(tmp_path.rglob("*.pkl"))
    with pytest.raises(lj.train.CheckpointError, match="holds a saved density"):
        fit(tmp_path / "model")


def test_a_density_merge_by_hand_needs_its_structure(tmp_path):
    lj.save(Laplace(), tmp_path / "laplace")
    with pytest.raises(
        ValueError, match=r"ready density, tests.registry.Laplace: pass it as density="
    ):
        lj.restore(tmp_path / "laplace")
    assert_same(lj.restore(tmp_path / "laplace", density=Laplace()), Laplace())
    with pytest.raises(lj.train.CheckpointError, match=r"saved density, with density/: .* neither"):
        lj.restore(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(lj.train.CheckpointError, match="missing does not exist"):
        lj.restore(tmp_path / "missing")


def test_a_run_from_a_built_density_restores_by_itself(tmp_path):
    density = lj.build(MODEL, key=1)
    run = fit(tmp_path, dataclasses.replace(SMALL, model=density, steps=2))
    assert_same(lj.restore(tmp_path), run.density)


def test_export_runs_without_likejax(tmp_path):
    """The program gives the nats of ``log_prob`` for the same key, in a process that does not
    import likejax."""
    config = lj.models.GlowConfig(
        event_shape=(4, 4, 1), levels=4, scales=1, depth=1, width=4, num_classes=3
    )
    density = lj.build(config, key=3)
    x = np.random.default_rng(0).integers(0, 4, (5, 4, 4, 1)).astype(np.uint8)
    labels = np.array([0, 1, 2, 1, 0], np.int32)
    expected = density.log_prob(x, key=jax.random.key(7), condition=labels, draws=3)
    (tmp_path / "program").write_bytes(
        lj.export(density, draws=3, platforms=["cpu", "cuda", "tpu"])
    )
    np.savez(tmp_path / "data.npz", x=x, labels=labels, expected=expected)
    script = """
import sys, jax, numpy as np
data = np.load(sys.argv[1] + "/data.npz")
program = jax.export.deserialize(bytearray(open(sys.argv[1] + "/program", "rb").read()))
key = np.asarray(jax.random.key_data(jax.random.key(7)))
values = program.call(data["x"], data["labels"], key)
np.testing.assert_allclose(values, data["expected"], rtol=5e-6)
assert program.call(data["x"][:2], data["labels"][:2], key).shape == (2,)
assert not any(name.split(".")[0] in ("likejax", "flax") for name in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    exact = lj.export(Laplace())
    points = np.array([[1.0, 2.0]], np.float32)
    called = jax.export.deserialize(bytearray(exact)).call(points)
    np.testing.assert_allclose(called, Laplace().log_prob(points), rtol=1e-6)
    with pytest.raises(ValueError, match="expected draws"):
        lj.export(density, draws=0)


def test_exports_for_other_platforms_have_no_calls():
    """Programs that stay calls are a form for CPUs."""
    flow = unstack(lj.build(lj.models.VectorGlowConfig(dimensions=2, depth=6, width=2), key=0))
    for platforms, has_calls in (["cpu"], True), (["cpu", "cuda"], False):
        program = jax.export.deserialize(bytearray(lj.export(flow, platforms=platforms)))
        assert ('inlineable = "false"' in program.mlir_module()) is has_calls


# --- other precisions, other samplers


def test_densities_and_runs_are_read_in_another_precision(tmp_path):
    """From 32 bits to 64 nothing is lost and nothing said; from 64 to 32 the rounding is said."""
    run = fit(tmp_path / "run", dataclasses.replace(SMALL, steps=2))
    with jax.enable_x64(True):
        wide = lj.restore(tmp_path / "run")
        assert {leaf.dtype for leaf in leaves(wide) if leaf.dtype.kind == "f"} == {
            np.dtype(np.float64)
        }
        assert_same(wide, run.density)
        lj.save(
            jax.tree.map(lambda leaf: leaf + 1e-12 if leaf.dtype == np.float64 else leaf, wide),
            tmp_path / "wide",
        )
    with pytest.warns(
        UserWarning, match=r"written in 64 bits \(jax_enable_x64\) and is read in 32: \d+ arrays"
    ) as told:
        narrow = lj.restore(tmp_path / "wide")
    assert len(told) == 1
    for a, b in zip(leaves(narrow), leaves(run.density), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-11)
    other = lj.build(dataclasses.replace(MODEL, width=6), key=0)
    with jax.enable_x64(True), pytest.raises(lj.train.CheckpointError, match="does not fit"):
        lj.restore(tmp_path / "run", density=other)


def test_a_sampler_is_saved_and_restored(tmp_path):
    config = lj.models.PixelCNNConfig(
        event_shape=(4, 4, 1), levels=4, filters=4, blocks=1, resolutions=1, mixtures=1
    )
    density = lj.build(config, key=0).with_sampler("naive")
    lj.save(density, tmp_path)
    again = lj.restore(tmp_path)
    assert (again.sampler, again.config.sampler) == ("naive", "naive")
    assert lj.build(config, key=0).sampler == "cached"
    assert (
        lj.build(dataclasses.replace(config, sampler="fixed_point"), key=0).sampler == "fixed_point"
    )

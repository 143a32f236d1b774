"""What ``tests/outside.py`` defines goes through fit, save, restore, evaluate and ood, in other
processes too."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import optax
import pytest

import likejax as lj
from likejax.experiment import from_json, to_json
from likejax.records import Recorded
from tests import outside

ROOT = Path(__file__).resolve().parents[1]
POINTS = np.random.default_rng(0).laplace(scale=3, size=(240, 2)).astype(np.float32)
EXPERIMENT = lj.Experiment(
    model=outside.LaplaceConfig(dimensions=2, scale=1.5),
    objective=outside.Clipped(largest=50.0),
    optimizer=outside.OPTIMIZER,
    batch_size=24,
    steps=8,
    log_every=2,
    validate_every=4,
    checkpoint_every=4,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("doors") / "run"
    logger = outside.Kept()
    run = lj.fit(
        EXPERIMENT, POINTS[:200], validation=POINTS[200:], workdir=workdir, key=0, loggers=[logger]
    )
    assert logger.is_closed
    assert logger.records == run.history
    assert "clipped" in logger.records[0]
    return run


def in_a_fresh_process(code: str, *arguments: str) -> subprocess.CompletedProcess:
    begin = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    command = [sys.executable, "-c", begin + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_record_names_classes_and_restores_them(run):
    record = json.loads((run.workdir / "experiment.json").read_text())
    assert record["model"] == {
        "class": "tests.outside:LaplaceConfig",
        "dimensions": 2,
        "scale": 1.5,
    }
    assert record["objective"] == {"class": "tests.outside:Clipped", "largest": 50.0}
    read = from_json(to_json(EXPERIMENT))
    assert (read.model, read.objective) == (EXPERIMENT.model, EXPERIMENT.objective)
    assert isinstance(read.optimizer, Recorded)


def test_a_process_that_imported_the_module_restores_and_evaluates(run):
    code = """
import likejax as lj, numpy as np, tests.outside
density = lj.restore(sys.argv[1])
assert type(density) is tests.outside.Laplace
points = np.linspace(-2, 2, 20, dtype=np.float32).reshape(10, 2)
print(lj.evaluate(density, points).mean)
lj.save(density, sys.argv[2])
assert (lj.restore(sys.argv[2]).log_prob(points) == density.log_prob(points)).all()
"""
    result = in_a_fresh_process(code, str(run.workdir), str(run.workdir.parent / "saved"))
    assert result.returncode == 0, result.stderr
    points = np.linspace(-2, 2, 20, dtype=np.float32).reshape(10, 2)
    assert float(result.stdout) == lj.evaluate(run.density, points).mean


def test_a_process_that_did_not_is_told_what_to_import(run):
    code = "import likejax as lj; lj.restore(sys.argv[1])"
    result = in_a_fresh_process(code, str(run.workdir))
    assert result.returncode != 0
    assert "the record names the class tests.outside:LaplaceConfig" in result.stderr
    assert "run `import tests.outside` first" in result.stderr


def test_a_score_is_fitted_saved_restored_and_reported(run, tmp_path):
    score = outside.Surprise(scale=2.0)
    fitted = score.fit(run.density, POINTS[100:150]).calibrate(POINTS[150:200])
    fitted.save(tmp_path / "score")
    code = """
import likejax as lj, numpy as np, tests.outside
points = np.linspace(-2, 2, 20, dtype=np.float32).reshape(10, 2)
print(lj.ood.restore(sys.argv[1])(points).sum())
"""
    result = in_a_fresh_process(code, str(tmp_path / "score"))
    assert result.returncode == 0, result.stderr
    points = np.linspace(-2, 2, 20, dtype=np.float32).reshape(10, 2)
    assert float(result.stdout) == fitted(points).sum()
    unknown = in_a_fresh_process(code.replace(", tests.outside", ""), str(tmp_path / "score"))
    assert "tests.outside" in unknown.stderr
    report = lj.ood.benchmark(
        run.density,
        inside=POINTS[200:],
        outside=[lj.Dataset.from_array(POINTS[:40] + 9, name="far")],
        scores=[score],
        held_out=POINTS[:100],
        key=jax.random.key(0),
        resamples=50,
    )
    assert "Surprise" in report.to_markdown()


def test_the_run_goes_on(run):
    longer = dataclasses.replace(EXPERIMENT, steps=10)
    again = lj.fit(longer, POINTS[:200], validation=POINTS[200:], workdir=run.workdir, key=0)
    straight = lj.fit(longer, POINTS[:200], validation=POINTS[200:], key=0)
    chex.assert_trees_all_equal(again.state, straight.state)


# --- starting from other weights


def test_a_run_can_be_read_with_its_raw_weights_and_optimizer(run):
    read = lj.train.restore_run(run.workdir, experiment=EXPERIMENT)
    step = int(read.state.step)
    assert read.steps == step
    assert read.validated_on is not None
    chex.assert_trees_all_equal(read.raw.log_scale[...], read.state.params["log_scale"])
    if step == run.steps:
        chex.assert_trees_all_equal(read.state, run.state)
    named_only = lj.train.restore_run(run.workdir)
    assert named_only.state.optimizer is None


PLAIN = lj.Experiment(
    model=lj.models.VectorGlowConfig(dimensions=2, depth=2, width=4),
    batch_size=24,
    steps=3,
    log_every=1,
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return lj.fit(PLAIN, POINTS, key=0, workdir=tmp_path_factory.mktemp("first"))


def test_fine_tuning_starts_from_the_weights_of_a_run(first):
    """With a rate of almost zero nothing moves, whatever the weights are taken from."""
    slow = PLAIN.override({"optimizer.learning_rate": 1e-12, "steps": 1})
    for initial in (first, str(first.workdir), first.raw):
        tuned = lj.fit(slow, POINTS, key=1, initial=initial)
        chex.assert_trees_all_close(tuned.state.params, first.state.params, rtol=1e-6, atol=1e-9)


def test_the_same_optimizer_goes_on_with_its_moments(first):
    same = lj.fit(PLAIN.override({"steps": 1}), POINTS, key=1, initial=first)
    other = lj.fit(PLAIN.override({"steps": 1, "optimizer.b1": 0.8}), POINTS, key=1, initial=first)
    adam, schedule = same.state.optimizer
    assert (int(adam.count), int(schedule.count)) == (4, 1)
    assert int(other.state.optimizer[0].count) == 1
    read = lj.train.restore_run(first.workdir)
    chex.assert_trees_all_equal(read.state, first.state)


def test_initial_weights_are_checked(first, tmp_path):
    wider = PLAIN.override({"model.width": 8})
    with pytest.raises(
        ValueError, match=r"initial weights of the experiment's model; of .* arrays"
    ):
        lj.fit(wider, POINTS, key=0, initial=first)
    one = PLAIN.override({"steps": 1})
    lj.fit(one, POINTS, key=0, initial=first, workdir=tmp_path)
    with pytest.raises(lj.train.CheckpointError, match="other initial weights"):
        lj.fit(PLAIN, POINTS, key=0, workdir=tmp_path)


@pytest.mark.untyped
def test_arguments_of_other_types_are_refused():
    with pytest.raises(TypeError, match="initial to be a Run, a Density or the directory"):
        lj.fit(PLAIN, POINTS, key=0, initial=3)
    with pytest.raises(TypeError, match=r"loggers with the methods log\(record\) and close"):
        lj.fit(PLAIN, POINTS, key=0, loggers=[print])


# --- devices, loggers, overrides


def test_devices_can_be_chosen():
    one = PLAIN.override({"steps": 1})
    run = lj.fit(one, POINTS, key=0, devices=jax.devices()[:1])
    assert {leaf.device for leaf in jax.tree.leaves(run.density)} == {jax.devices()[0]}
    with pytest.raises(TypeError, match="expected devices such as"):
        lj.fit(one, POINTS, key=0, devices=["cpu"])
    with pytest.raises(ValueError, match="at least one device"):
        lj.fit(one, POINTS, key=0, devices=[])


def test_a_logger_that_fails_ends_no_training():
    class Broken(outside.Kept):
        def log(self, record):
            raise ConnectionError("no network")

    with pytest.warns(UserWarning, match="the logger Broken failed, training goes on.*no network"):
        run = lj.fit(PLAIN, POINTS, key=0, loggers=[Broken()])
    assert run.steps == 3


def test_overrides_name_nested_settings():
    changed = PLAIN.override({"optimizer.learning_rate": 1e-4, "model.width": 8, "steps": 5})
    assert (changed.optimizer.learning_rate, changed.model.width, changed.steps) == (1e-4, 8, 5)
    together = PLAIN.override({"batch_size": 30, "accumulate": 5})
    assert (together.batch_size, together.accumulate) == (30, 5)
    with pytest.raises(ValueError, match=r"did you mean 'optimizer\.learning_rate'"):
        PLAIN.override({"optimizer.learning_rat": 1e-4})
    with pytest.raises(ValueError, match=r"did you mean 'optimizer\.learning_rate'"):
        PLAIN.override({"learning_rate": 1e-4})
    with pytest.raises(TypeError, match=r"steps to be an integer of at least 1, got 'many'"):
        PLAIN.override({"steps": "many"})


def test_decay_of_matrices_leaves_biases_alone():
    """Weights shrink by the same rule, vectors stay where the gradient leaves them."""
    settings = {"optimizer.name": "adamw", "optimizer.weight_decay": 0.5, "steps": 1}
    settings["optimizer.learning_rate"] = 0.1
    everywhere = lj.fit(PLAIN.override(settings), POINTS, key=0).state.params
    masked = PLAIN.override({**settings, "optimizer.decay_mask": "matrices"})
    matrices = lj.fit(masked, POINTS, key=0).state.params
    none = PLAIN.override({**settings, "optimizer.weight_decay": 0.0})
    without = lj.fit(none, POINTS, key=0).state.params
    for name, array in matrices.items():
        same_as = everywhere if array.ndim > 1 else without
        np.testing.assert_allclose(array, same_as[name], rtol=1e-6, atol=1e-8)


def test_a_schedule_of_optax():
    """Our cosine decay and the same schedule from optax train alike."""
    ours = PLAIN.override({"optimizer.decay": "cosine", "optimizer.learning_rate": 0.01})
    schedule = optax.cosine_decay_schedule(0.01, 3)
    theirs = PLAIN.override({"optimizer": lj.Optimizer(schedule=schedule)})
    runs = [lj.fit(each, POINTS, key=0) for each in (ours, theirs)]
    chex.assert_trees_all_equal(runs[0].state.params, runs[1].state.params)
    with pytest.raises(ValueError, match=r"expected Optimizer\.schedule=None for decay='cosine'"):
        lj.Optimizer(schedule=schedule, decay="cosine")

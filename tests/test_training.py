"""Fitting, resuming, several devices, selection, failure."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import likejax as lj
from likejax.experiment import from_json, to_json
from likejax.nn.repeat import for_backend, stack
from likejax.nn.state import merge, split
from likejax.storage.density import density_items
from likejax.storage.store import Store
from likejax.train import guard
from likejax.train.optimizer import build_optimizer, schedule
from likejax.train.state import TrainState, convert_blocks
from tests.registry import Laplace

TINY = lj.Experiment(
    model=lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, scales=2, depth=2, width=8),
    dataset="digits",
    optimizer=lj.Optimizer(learning_rate=2e-3, warmup_steps=3, decay="cosine", clip_norm=10.0),
    batch_size=16,
    steps=12,
    validate_every=4,
    checkpoint_every=4,
    log_every=2,
    initialize_with=64,
    validation_examples=40,
)
TRAIN, VALID = lj.load("digits"), lj.load("digits", split="validation")


def leaves(density):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(density)]


def assert_same(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return lj.fit(TINY, TRAIN, validation=VALID, workdir=tmp_path_factory.mktemp("run"), key=1)


def test_training_lowers_the_loss(finished):
    losses = [record["loss"] for record in finished.history if "loss" in record]
    assert losses[-1] < losses[0]
    assert finished.steps == 12
    assert finished.density.kind is lj.Kind.BOUND


def test_the_best_on_validation_is_returned_and_restored(finished):
    checks = {r["step"]: r["validation"] for r in finished.history if "validation" in r}
    assert sorted(checks) == [4, 8, 12]
    assert finished.best_step == min(checks, key=checks.get)
    assert finished.validation == checks[finished.best_step]
    assert_same(lj.restore(finished.workdir), finished.density)
    assert_same(lj.restore(finished.workdir, which="last"), finished.last)


def test_files_of_a_run(finished):
    lines = [
        json.loads(line) for line in (finished.workdir / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines == finished.history
    assert {"loss", "log_prob", "gradient_norm", "steps_per_second", "step"} <= set(lines[0])
    assert from_json((finished.workdir / "experiment.json").read_text()) == TINY
    assert not list(finished.workdir.glob("**/*.tmp"))


def test_checkpoints_are_stacked(finished):
    """What is stored does not depend on the backend: repeated blocks have a leading axis."""
    structure, params, fixed = split(stack(finished.density))
    assert any(".blocks.block." in name for name in structure.names)
    step, items, record = Store(finished.workdir / "last").read(
        lambda record: density_items(params, fixed)
    )
    assert (step, record["layout"], record["experiment"]["steps"]) == (12, 2, 12)
    assert set(items["density"]["params"]) == set(params)


def test_resume_is_bitwise(finished, tmp_path):
    """Stopped after 8 of 12 steps and begun again: parameters, moving average and metrics as if
    never stopped."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import jax
jax.config.update("jax_numpy_rank_promotion", "raise")
from tests.test_training import *
import likejax.train.source as source
original = source.DatasetBatches.__next__
count = 0
def dying(self):
    global count
    count += 1
    if count == 10: raise KeyboardInterrupt
    return original(self)
source.DatasetBatches.__next__ = dying
try:
    lj.fit(TINY, TRAIN, validation=VALID, workdir={str(tmp_path / "run")!r}, key=1)
except KeyboardInterrupt:
    pass
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    # what a crash in the middle of writing leaves behind must not be taken for a checkpoint
    (tmp_path / "run" / "last" / "100").mkdir()
    resumed = lj.fit(TINY, TRAIN, validation=VALID, workdir=tmp_path / "run", key=1)
    assert_same(resumed.last, finished.last)
    assert_same(resumed.density, finished.density)
    times = {"steps_per_second", "seconds"}
    ours, theirs = (
        [{k: v for k, v in r.items() if k not in times} for r in run.history]
        for run in (resumed, finished)
    )
    assert ours == theirs


def test_a_finished_run_is_returned_as_it_is(finished):
    again = lj.fit(TINY, TRAIN, validation=VALID, workdir=finished.workdir, key=1)
    assert_same(again.density, finished.density)
    assert again.steps == 12
    assert again.validation == finished.validation


def test_another_experiment_is_refused(finished):
    other = dataclasses.replace(TINY, batch_size=8)
    with pytest.raises(
        lj.train.CheckpointError, match=r"other settings: batch_size: 16 in the run, 8 now\."
    ):
        lj.fit(other, TRAIN, workdir=finished.workdir, key=1)


def test_no_recompilation():
    import likejax.train.loop as loop

    traced = []

    class Counting(lj.NLL):
        def __call__(self, density, batch, key, step):
            traced.append(step)
            return super().__call__(density, batch, key, step)

    experiment = dataclasses.replace(TINY, model=Laplace(), objective=Counting(), steps=5)
    loop.fit(experiment, _points(), key=0)
    assert len(traced) == 1


def _points() -> lj.Dataset:
    return lj.Dataset.from_array(
        np.random.default_rng(0).laplace(scale=3, size=(500, 2)).astype(np.float32)
    )


def test_a_users_density_and_array():
    """A ready density of two methods, any array: the scale of a Laplace is found; nats, not
    bits."""
    optimizer = lj.Optimizer(learning_rate=0.05)
    experiment = lj.Experiment(
        model=Laplace(), optimizer=optimizer, steps=200, batch_size=50, ema_decay=0.9
    )
    run = lj.fit(
        experiment, _points(), validation=lj.Dataset.from_array(np.ones((4, 2), np.float32)), key=0
    )
    np.testing.assert_allclose(np.exp(run.last.log_scale[...]), 3, rtol=0.1)
    evaluation = lj.evaluate(run.last, _points())
    assert evaluation.bits_per_dim is None
    assert "nats (exact" in str(evaluation)


def test_restore_of_a_ready_density(tmp_path):
    experiment = lj.Experiment(model=Laplace(), steps=2, batch_size=50)
    run = lj.fit(experiment, _points(), workdir=tmp_path, key=0)
    assert_same(lj.restore(tmp_path, density=Laplace()), run.density)
    with pytest.raises(ValueError, match="pass it as density="):
        lj.restore(tmp_path)


def test_not_finite_stops_with_step_and_term(tmp_path):
    class Breaks(lj.NLL):
        def __call__(self, density, batch, key, step):
            loss, metrics = super().__call__(density, batch, key, step)
            return loss, metrics | {"kl_0": jnp.where(step >= 5, jnp.nan, 0.0)}

    experiment = lj.Experiment(
        model=Laplace(),
        objective=Breaks(),
        steps=20,
        batch_size=50,
        checkpoint_every=2,
        guard=lj.train.Guard(patience=1),
    )
    with pytest.raises(lj.train.NonFiniteError, match="step 6: kl_0 is nan; 1 steps in a row"):
        lj.fit(experiment, _points(), workdir=tmp_path, key=0)
    assert lj.restore(tmp_path, density=Laplace(), which="last") is not None
    assert max(int(p.name) for p in (tmp_path / "last").iterdir() if p.name.isdigit()) == 4


def test_conditional_training():
    model = lj.models.GlowConfig(
        event_shape=(8, 8, 1), levels=17, scales=1, depth=1, width=8, num_classes=10
    )
    experiment = dataclasses.replace(
        TINY, model=model, objective=lj.NLL(weights={"class_log_prob": -0.01}), steps=4, log_every=1
    )
    run = lj.fit(experiment, TRAIN, validation=VALID, key=0)
    first = run.history[0]
    expected = lj.bits_per_dim(first["log_prob"], (8, 8, 1)) - 0.01 * first[
        "class_log_prob"
    ] / np.log(2)
    np.testing.assert_allclose(first["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(first["class_log_prob"], -np.log(10), rtol=1e-3)
    unlabeled = lj.Dataset.from_array(TRAIN.examples, levels=17)
    with pytest.raises(ValueError, match="expected a labeled dataset"):
        lj.fit(experiment, unlabeled, key=0)


def test_wrong_data():
    with pytest.raises(ValueError, match="1258 of the 1258 of digits train are in digits train"):
        lj.fit(TINY, TRAIN, validation=TRAIN, key=0)
    with pytest.raises(ValueError, match="90 of the 90"):
        lj.fit(TINY, TRAIN, validation=TRAIN.take(slice(10, 100)), key=0)
    with pytest.raises(ValueError, match=r"expected examples of shape \(8, 8, 1\) with levels=17"):
        lj.fit(TINY, lj.Dataset.from_array(np.zeros((5, 8, 8), np.uint8)), key=0)
    with pytest.raises(ValueError, match=r"Experiment\.batch_size to be an integer of at least 1"):
        dataclasses.replace(TINY, batch_size=0)


def test_experiments_survive_json():
    for name in lj.PRESETS:
        experiment = lj.preset(name)
        assert from_json(to_json(experiment)) == experiment
    with pytest.raises(ValueError, match="not the record"):
        from_json('{"model": {"family": "glow", "wdth": 3}}')
    with pytest.raises(ValueError, match="unknown family"):
        from_json('{"model": {"family": "glwo"}}')


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax"])
def test_optimizers_are_optax(name):
    """One step equals optax's own rule; warm-up and decay follow the schedule."""
    optimizer = lj.Optimizer(
        name=name, learning_rate=0.1, weight_decay=0.5 if name == "adamw" else 0.0
    )
    params, gradient = {"a": jnp.array([1.0, -2.0])}, {"a": jnp.array([0.3, 0.1])}
    rule = getattr(optax, name)(0.1, **({"weight_decay": 0.5} if name == "adamw" else {}))
    (ours, _), (theirs, _) = (
        r.update(gradient, r.init(params), params) for r in (build_optimizer(optimizer, 10), rule)
    )
    np.testing.assert_allclose(ours["a"], theirs["a"])
    rate = schedule(lj.Optimizer(learning_rate=1.0, warmup_steps=10, decay="cosine"), 110)
    np.testing.assert_allclose(
        [rate(s) for s in (0, 9, 10, 60, 110)], [0.1, 0.91, 1, 0.5, 0], atol=1e-6
    )


def test_states_change_form_and_back():
    """Stacked and apart again: every array of parameters, moving average and optimizer returns."""
    density = for_backend(lj.build(TINY.model, key=0))
    structure, params, fixed = split(density)
    transformation = build_optimizer(TINY.optimizer, 10)
    state = TrainState(
        jnp.zeros((), jnp.int32), params, params, fixed, transformation.init(params), guard.begin()
    )
    stored = convert_blocks(stack, structure, state)
    assert len(stored.params) < len(state.params)
    stored_structure = split(stack(density))[0]
    back = convert_blocks(for_backend, stored_structure, stored)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same(merge(structure, back.params, back.buffers), density)

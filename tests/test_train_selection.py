"""Which rows select the weights, and what happens to the selection when a run goes on with
something changed."""

from __future__ import annotations

import dataclasses
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax.train.optimizer import rate_that_jumps, schedule
from likejax.train.selection import Validation
from tests.registry import Laplace

RNG = np.random.default_rng(0)
TRAIN = lj.Dataset.from_array(RNG.laplace(scale=3, size=(240, 2)).astype(np.float32))
EASY, HARD = (
    lj.Dataset.from_array(
        RNG.laplace(scale=scale, size=(60, 2)).astype(np.float32), split="validation", name=name
    )
    for name, scale in (("easy", 0.3), ("hard", 3.0))
)
PLAIN = lj.Experiment(
    model=Laplace(),
    optimizer=lj.Optimizer(learning_rate=0.05),
    batch_size=24,
    steps=10,
    log_every=5,
    validate_every=5,
    checkpoint_every=5,
    ema_decay=0.0,
)


def fit(validation=None, workdir=None, **settings) -> lj.train.Run:
    return lj.fit(
        dataclasses.replace(PLAIN, **settings), TRAIN, validation=validation, workdir=workdir, key=0
    )


def losses(run: lj.train.Run) -> dict[int, float]:
    return {
        record["step"]: record["validation"] for record in run.history if "validation" in record
    }


# --- the rows


def test_rows_are_drawn_from_data_sorted_by_class():
    """Ten classes in order, 100 rows each: a hundred drawn rows have all of them, by the key and in
    order."""
    labels = np.repeat(np.arange(10), 100)
    data = lj.Dataset.from_array(
        RNG.normal(size=(1000, 2)).astype(np.float32), labels=labels, split="validation"
    )
    chosen = Validation(data, 100, jax.random.key(3)).examples
    assert np.array_equal(np.unique(chosen.labels), np.arange(10))
    again, other = (Validation(data, 100, jax.random.key(seed)).examples for seed in (3, 4))
    np.testing.assert_array_equal(chosen.examples, again.examples)
    assert not np.array_equal(chosen.examples, other.examples)
    assert np.array_equal(chosen.labels, np.sort(chosen.labels))
    assert Validation(data, 1000, jax.random.key(3)).examples is data
    assert Validation(data, 2000, jax.random.key(3)).examples is data


def test_the_validation_loss_is_that_of_the_drawn_rows():
    """What is logged is the mean over the rows that ``Validation`` draws with the run's own key."""
    run = fit(HARD, validation_examples=20, steps=5)
    validation_key = jax.random.split(jax.random.key(0), 5)[3]
    rows = Validation(HARD, 20, validation_key).examples
    np.testing.assert_allclose(losses(run)[5], -lj.evaluate(run.last, rows).mean, rtol=1e-6)
    assert run.validated_on is not None
    assert run.validated_on.startswith("20 of 60 rows of hard validation (")
    assert (
        fit(EASY, steps=5).validated_on == f"all 60 rows of easy validation ({EASY.fingerprint()})"
    )
    assert fit(steps=5).validated_on is None


def test_weights_of_validation_rows_count():
    weights = np.arange(60) % 3 + 1.0
    weighted = lj.Dataset.from_array(HARD.examples, weights=weights, split="validation")
    repeated = lj.Dataset.from_array(
        np.repeat(HARD.examples, np.arange(60) % 3 + 1, axis=0), split="validation"
    )
    np.testing.assert_allclose(
        losses(fit(weighted, steps=5))[5], losses(fit(repeated, steps=5))[5], rtol=1e-6
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_validation_row_without_a_finite_log_prob_is_named(value):
    class Gap(Laplace):
        """No number for what lies far to the right."""

        def _log_prob(self, x, key, condition):
            return jnp.where(x[0] > 90, value, super()._log_prob(x, key, condition))

    rows = HARD.examples.copy()
    rows[[17, 41]] = 100.0
    bad = lj.Dataset.from_array(rows, split="validation", name="bad")
    text = (
        rf"step 5: log_prob is {value} for 2 of the 60 validation examples, "
        "the first is row 17 of bad validation"
    )
    with pytest.raises(lj.train.NonFiniteError, match=text):
        fit(bad, model=Gap(), early_stopping=1)


# --- going on with other rows


def test_a_best_on_other_rows_does_not_count(tmp_path):
    """The old best was measured on easier rows and would stay for ever: selection and patience
    begin anew."""
    first = fit(EASY, workdir=tmp_path, early_stopping=3)
    assert first.best_step == 5
    assert first.validation is not None
    with pytest.warns(
        UserWarning, match=r"easy validation \(.*validates on all 60 rows of hard.*begin anew"
    ):
        second = fit(HARD, workdir=tmp_path, early_stopping=3, steps=20)
    assert second.steps == 20
    assert second.validation == min(loss for step, loss in losses(second).items() if step > 10)
    assert second.validation > first.validation
    assert "hard" in str(second.validated_on)
    assert np.array_equal(
        lj.restore(tmp_path, density=Laplace()).log_scale[...], second.density.log_scale[...]
    )
    with warnings.catch_warnings():  # the same rows as the time before
        warnings.simplefilter("error")
        third = fit(HARD, workdir=tmp_path, early_stopping=3, steps=25)
    assert third.best_step >= second.best_step


def test_another_number_of_rows_does_not_compare(tmp_path):
    fit(HARD, workdir=tmp_path, validation_examples=20)
    with pytest.warns(
        UserWarning, match=r"20 of 60 rows of hard .*validates on 30 of 60 rows .*begin anew"
    ):
        fit(HARD, workdir=tmp_path, validation_examples=30, steps=15)


def test_without_validation_the_stored_best_stays_and_says_what_it_was_measured_on(tmp_path):
    first = fit(EASY, workdir=tmp_path)
    with pytest.warns(
        UserWarning, match=f"no validation set: the best weights .* those of step {first.best_step}"
    ):
        second = fit(None, workdir=tmp_path, steps=15)
    assert (second.best_step, second.validation) == (first.best_step, first.validation)
    assert second.validated_on == first.validated_on
    assert np.array_equal(second.density.log_scale[...], first.density.log_scale[...])
    assert second.steps == 15


def test_a_finished_run_keeps_its_best_and_says_so(tmp_path):
    first = fit(EASY, workdir=tmp_path)
    with pytest.warns(UserWarning, match="No step is left to train, so the old best stays"):
        again = fit(HARD, workdir=tmp_path)
    assert (again.best_step, again.validation, again.validated_on) == (
        5,
        first.validation,
        first.validated_on,
    )


def test_a_run_of_a_version_that_kept_no_rows_is_resumed(tmp_path, monkeypatch):
    """Whole sets compare, as before; of parts only the first rows were looked at, so they do
    not."""
    from likejax.train.checkpoint import Checkpoints

    def without_rows(self, step, items, record, save=Checkpoints.save_last):
        save(self, step, items, record | {"best_on": None})

    with monkeypatch.context() as older:
        older.setattr(Checkpoints, "save_last", without_rows)
        whole = fit(EASY, workdir=tmp_path / "whole")
        fit(EASY, workdir=tmp_path / "part", validation_examples=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(EASY, workdir=tmp_path / "whole", steps=15).validation == whole.validation
    with pytest.warns(UserWarning, match="rows that an older version did not note"):
        fit(EASY, workdir=tmp_path / "part", validation_examples=20, steps=15)


# --- going on with other settings


def test_fewer_steps_than_done_are_said_and_change_nothing(tmp_path):
    fit(workdir=tmp_path)
    before = (tmp_path / "experiment.json").read_text()
    with pytest.warns(
        UserWarning, match="has done 10 steps, and 6 are asked for: nothing is trained"
    ):
        run = fit(workdir=tmp_path, steps=6)
    assert run.steps == 10
    assert (tmp_path / "experiment.json").read_text() == before


def test_a_refused_call_leaves_the_record_as_it_is(tmp_path):
    fit(workdir=tmp_path)
    before = (tmp_path / "experiment.json").read_text()
    with pytest.raises(lj.train.CheckpointError, match="begun with another key"):
        lj.fit(dataclasses.replace(PLAIN, steps=20), TRAIN, workdir=tmp_path, key=1)
    assert (tmp_path / "experiment.json").read_text() == before


def test_a_rate_that_jumps_back_up_is_said(tmp_path):
    """A cosine that has reached 0 after 10 steps stands at half its peak when the run is to have
    20."""
    cosine = lj.Optimizer(learning_rate=0.05, decay="cosine")
    fit(workdir=tmp_path, optimizer=cosine)
    rate = float(schedule(cosine, 20)(10))
    text = (
        "planned for 10 steps and goes on to 20: the cosine decay .* stood at 0 after step 10, "
        rf"goes on at {rate:.3g}"
    )
    with pytest.warns(UserWarning, match=text):
        fit(workdir=tmp_path, optimizer=cosine, steps=20)
    assert rate_that_jumps(cosine, planned=1000, steps=1001, done=3) is None
    assert rate_that_jumps(lj.Optimizer(decay="constant"), planned=10, steps=1000, done=10) is None
    assert (
        rate_that_jumps(lj.Optimizer(decay="exponential"), planned=10, steps=1000, done=10) is None
    )
    before, now = (
        rate_that_jumps(
            lj.Optimizer(learning_rate=1.0, decay="linear"), planned=10, steps=40, done=10
        )
        or ()
    )
    np.testing.assert_allclose((before, now), (0, 0.75), atol=1e-6)


def test_a_setting_that_differs_is_named(tmp_path):
    fit(workdir=tmp_path)
    text = r"other settings: optimizer\.learning_rate: 0\.05 in the run, 0\.01 now\. Resume"
    with pytest.raises(lj.train.CheckpointError, match=text):
        fit(workdir=tmp_path, optimizer=lj.Optimizer(learning_rate=0.01))
    with pytest.raises(
        lj.train.CheckpointError,
        match=r"settings: objective\.class: 'likejax:NLL' in the run, 'likejax:ELBO' now\. Re",
    ):
        fit(workdir=tmp_path, objective=lj.ELBO())


def test_a_run_begun_with_a_hash_of_the_examples_alone_is_resumed(tmp_path, monkeypatch):
    """Versions before 0.6 did not hash labels and weights: their hash is accepted too, and no
    other."""
    weighted, unweighted, otherwise = (
        lj.Dataset.from_array(TRAIN.examples, weights=weights)
        for weights in (np.ones(240), None, np.arange(240) + 1.0)
    )
    assert weighted.fingerprint() != weighted.examples_fingerprint() == unweighted.fingerprint()
    with monkeypatch.context() as older:
        older.setattr(lj.Dataset, "fingerprint", lj.Dataset.examples_fingerprint)
        older.setattr("importlib.metadata.version", lambda name: "0.5.0")
        lj.fit(PLAIN, weighted, key=0, workdir=tmp_path / "older")
    longer = dataclasses.replace(PLAIN, steps=12)
    assert lj.fit(longer, weighted, key=0, workdir=tmp_path / "older").steps == 12
    lj.fit(PLAIN, weighted, key=0, workdir=tmp_path / "newer")
    with pytest.raises(lj.train.CheckpointError, match="begun with other training data"):
        lj.fit(longer, otherwise, key=0, workdir=tmp_path / "newer")

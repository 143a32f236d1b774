"""Steps that are not taken: skipped, counted, and never for ever."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax.train import guard
from tests.registry import Laplace


def points(n: int = 200) -> lj.Dataset:
    return lj.Dataset.from_array(
        np.random.default_rng(0).laplace(scale=3, size=(n, 2)).astype(np.float32)
    )


def fit(objective=None, **settings):
    experiment = lj.Experiment(
        model=Laplace(),
        objective=objective or lj.NLL(),
        optimizer=lj.Optimizer(learning_rate=0.05),
        batch_size=20,
        log_every=1,
        **settings,
    )
    return lj.fit(experiment, points(), key=0)


@dataclasses.dataclass(frozen=True)
class Broken(lj.NLL):
    """Not finite, or exploding, at chosen steps."""

    steps: tuple[int, ...] = ()
    factor: Any = math.nan

    def __call__(self, density, batch, key, step):
        loss, metrics = super().__call__(density, batch, key, step)
        broken = jnp.isin(step, jnp.array(self.steps, jnp.int32))
        return loss * jnp.where(broken, self.factor, 1.0), metrics


def test_a_step_that_is_not_finite_changes_nothing_but_the_step():
    run = fit(Broken(steps=(3,)), steps=6)
    assert [record["skipped"] for record in run.history] == [0, 0, 0, 1, 0, 0]
    assert run.history[3]["loss"] is None
    assert all(math.isfinite(record["loss"]) for i, record in enumerate(run.history) if i != 3)
    assert run.steps == 6
    shorter = fit(Broken(steps=(3,)), steps=3)
    stopped = fit(Broken(steps=(3,)), steps=4)
    np.testing.assert_array_equal(shorter.last.log_scale[...], stopped.last.log_scale[...])


def test_a_gradient_of_zero_does_not_lower_the_reference():
    rule, state = lj.train.Guard(after=3, spike_factor=10.0), guard.begin()
    for norm in (2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 4.0):
        taken, state = guard.update(rule, state, jnp.asarray(True), jnp.asarray(norm))
        assert taken
    assert int(state.seen) == 4
    np.testing.assert_allclose(state.log_norm, np.mean(np.log([2.0, 2.0, 2.0, 4.0])), rtol=1e-6)


def test_a_gradient_of_zero_is_no_spike_and_does_not_hide_one():
    """Dead steps between others change nothing: the same norms are spikes with them and without."""
    rule = lj.train.Guard(after=3, spike_factor=10.0)
    verdicts = []
    for norms in (
        (2.0, 3.0, 2.0, 25.0, 15.0),
        (0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 2.0, 0.0, 25.0, 0.0, 15.0),
    ):
        state, judged = guard.begin(), []
        for norm in norms:
            taken, state = guard.update(rule, state, jnp.asarray(True), jnp.asarray(norm))
            assert taken or norm > 0
            judged += [bool(taken)] if norm > 0 else []
        verdicts.append((judged, float(state.log_norm)))
    assert verdicts[0] == verdicts[1]
    assert verdicts[0][0] == [True, True, True, False, True]


def test_so_many_in_a_row_stop_the_run_and_name_step_and_term():
    with pytest.raises(
        lj.train.NonFiniteError,
        match=r"step 7: loss is nan, gradient_norm is nan \(the gradient of log_scale",
    ):
        fit(Broken(steps=tuple(range(4, 20))), steps=20, guard=lj.train.Guard(patience=3))
    assert fit(Broken(steps=(4, 5, 7, 8)), steps=12, guard=lj.train.Guard(patience=3)).steps == 12


def test_a_spike_is_skipped():
    """One step with a gradient 1e6 times the others is not taken; without the guard it is."""
    settings = {"steps": 14, "guard": lj.train.Guard(after=5)}
    run = fit(Broken(steps=(10,), factor=1e6), **settings)
    assert [record["skipped"] for record in run.history] == [0] * 10 + [1] + [0] * 3
    off = fit(Broken(steps=(10,), factor=1e6), steps=14, guard=lj.train.Guard(spike_factor=None))
    assert sum(record["skipped"] for record in off.history) == 0


def test_a_new_regime_is_accepted_after_a_few_steps():
    """Gradients 10,000 times larger for good: log2(10000 / 20) = 9 steps are skipped, then training
    goes on."""
    run = fit(
        Broken(steps=tuple(range(20, 60)), factor=1e4),
        steps=60,
        guard=lj.train.Guard(after=10, patience=30),
    )
    skipped = [record["skipped"] for record in run.history]
    assert 7 <= sum(skipped) <= 11
    assert sum(skipped[35:]) == 0


def test_judge_against_the_rule_in_numpy():
    """The reference is the geometric mean of the norms seen, for the first twenty."""
    rule, state = lj.train.Guard(after=3, spike_factor=10.0), guard.begin()
    norms = [1.0, 2.0, 4.0, 1.0, 25.0, 1.0]
    verdicts = []
    for norm in norms:
        taken, state = guard.update(rule, state, jnp.asarray(True), jnp.asarray(norm))
        verdicts.append(bool(taken))
    assert verdicts == [True, True, True, True, False, True]
    mean = np.log(8.0) / 4 + np.log(2)
    np.testing.assert_allclose(state.log_norm, mean + (0 - mean) / 6, rtol=1e-6)
    assert (int(state.skipped), int(state.in_a_row), int(state.seen)) == (1, 0, 6)
    taken, state = guard.update(rule, state, jnp.asarray(False), jnp.asarray(jnp.nan))
    assert not taken
    assert (int(state.skipped), int(state.in_a_row), int(state.seen)) == (2, 1, 6)
    assert np.isfinite(state.log_norm)


def test_wrong_rules_are_refused():
    with pytest.raises(ValueError, match="spike_factor to be a number above 1"):
        lj.train.Guard(spike_factor=0.5)
    with pytest.raises(ValueError, match=r"Guard\.patience to be an integer of at least 1"):
        lj.train.Guard(patience=0)

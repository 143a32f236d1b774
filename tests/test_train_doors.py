"""An objective and an optimizer of a user's own go through fit, save, restore, resume and
evaluate."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import likejax as lj
from likejax.cli import main
from likejax.experiment import Recorded, from_json, to_json
from likejax.nn.repeat import stack
from likejax.nn.state import split
from tests.registry import Laplace

POINTS = lj.Dataset.from_array(
    np.random.default_rng(0).laplace(scale=3, size=(240, 2)).astype(np.float32)
)
MODEL = lj.models.VectorGlowConfig(dimensions=2, depth=1, width=4)
PLAIN = lj.Experiment(
    model=Laplace(), batch_size=24, steps=6, log_every=1, checkpoint_every=3, ema_decay=0.0
)


def robust(density, batch, key, step, clip=100.0):
    """A mean of clipped terms, and nothing to log that is called log_prob."""
    del step
    nats = jnp.minimum(-density.terms(batch.x, key=key).log_prob, clip)
    return jnp.mean(nats), {"largest": jnp.max(nats), "rows": len(batch.x)}


def another(density, batch, key, step):
    return robust(density, batch, key, step)


def fit(workdir=None, train=POINTS, **settings) -> lj.train.Run:
    return lj.fit(dataclasses.replace(PLAIN, **settings), train, key=0, workdir=workdir)


def scale(run: lj.train.Run) -> np.ndarray:
    return np.asarray(run.last.log_scale[...])


def test_a_function_is_an_objective():
    """With no clipping it is the mean negative log-likelihood in nats, so the weights are those of
    one rule."""
    run = fit(objective=robust, optimizer=optax.sgd(0.1))
    assert set(run.history[0]) >= {"loss", "largest", "rows", "gradient_norm"}
    assert run.history[0]["rows"] == 24
    assert "log_prob" not in run.history[0]
    per_dim = 2 * np.log(2.0)  # NLL is in bits per dimension
    theirs = fit(objective=lj.NLL(), optimizer=optax.sgd(0.1 * per_dim))
    np.testing.assert_allclose(scale(run), scale(theirs), rtol=1e-5)


def test_the_loss_is_shown_where_there_is_no_log_likelihood(capsys):
    run = fit(objective=robust)
    assert f"step 1/6: loss {run.history[0]['loss']:.3f}, " in capsys.readouterr().err


def test_an_own_optimizer_is_the_rule_of_optax():
    """The same numbers as the library's own adam with the same settings."""
    ours = fit(optimizer=lj.Optimizer(learning_rate=0.05, clip_norm=1.0))
    theirs = fit(optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05)))
    np.testing.assert_array_equal(scale(ours), scale(theirs))


def test_own_parts_are_saved_resumed_restored_and_evaluated(tmp_path):
    settings = {
        "objective": functools.partial(robust, clip=50.0),
        "optimizer": optax.adamw(0.05),
        "model": MODEL,
    }
    valid = lj.Dataset.from_array(POINTS.examples[:20] + 1, split="validation")
    experiment = dataclasses.replace(PLAIN, **settings, validate_every=3)
    lj.fit(
        dataclasses.replace(experiment, steps=3), POINTS, validation=valid, key=0, workdir=tmp_path
    )
    resumed = lj.fit(experiment, POINTS, validation=valid, key=0, workdir=tmp_path)
    straight = lj.fit(experiment, POINTS, validation=valid, key=0)
    for a, b in zip(jax.tree.leaves(resumed.last), jax.tree.leaves(straight.last), strict=True):
        np.testing.assert_array_equal(a, b)
    restored = lj.restore(tmp_path)
    assert lj.evaluate(restored, POINTS).mean == lj.evaluate(straight.density, POINTS).mean
    assert "6 of 6" in resumed.summary()
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["objective"] == {
        "name": "tests.test_train_doors.robust",
        "settings": {"args": [], "clip": 50.0},
    }
    assert record["optimizer"]["name"].startswith("optax.")
    with pytest.raises(
        lj.train.CheckpointError, match=r"objective\.settings\.clip: 50\.0 in the run, 10\.0 now"
    ):
        fit(tmp_path, **(settings | {"objective": functools.partial(robust, clip=10.0)}))
    there, now = (rf"'tests\.test_train_doors\.{name}'" for name in ("robust", "another"))
    text = rf"objective\.name: {there} in the run, {now} now"
    with pytest.raises(lj.train.CheckpointError, match=text):
        fit(tmp_path, **(settings | {"objective": another}))
    with pytest.raises(
        lj.train.CheckpointError, match=r"optimizer\.name: 'optax\..* in the run, 'adam' now"
    ):
        fit(tmp_path, **(settings | {"optimizer": lj.Optimizer()}))


def test_a_record_names_code_and_imports_none(tmp_path):
    """Where the user's module cannot be imported, the run is read all the same; only training asks
    for it."""
    experiment = dataclasses.replace(
        PLAIN, model=MODEL, objective=robust, optimizer=optax.sgd(0.1), steps=1
    )
    lj.fit(experiment, POINTS, key=0, workdir=tmp_path)
    read = from_json(to_json(experiment))
    assert read.objective == Recorded("tests.test_train_doors.robust")
    assert isinstance(read.optimizer, Recorded)
    assert to_json(from_json(to_json(experiment))) == to_json(experiment)
    with pytest.raises(
        ValueError,
        match=r"trained with tests\.test_train_doors\.robust, which its record only names",
    ):
        lj.fit(read, POINTS, key=0)
    with pytest.raises(ValueError, match=r"trained with optax\."):
        lj.fit(dataclasses.replace(read, objective=lj.NLL()), POINTS, key=0)
    code = """
import sys
import likejax as lj
lj.restore(sys.argv[1])
from likejax.experiment import from_json
from_json(open(sys.argv[1] + "/experiment.json").read())
assert not any(name.startswith("tests") for name in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert main(["summary", str(tmp_path)]) == 0
    assert main(["evaluate", str(tmp_path), "--dataset", "moons"]) == 0


@dataclasses.dataclass(frozen=True)
class Own:
    """An objective with settings."""

    weight: float = 2.0
    places: tuple[int, ...] = (1, 2)

    def __call__(self, density, batch, key, step):
        loss, metrics = robust(density, batch, key, step)
        return self.weight * loss, metrics


def test_settings_of_an_own_objective_are_recorded(tmp_path):
    run = fit(tmp_path, objective=Own(weight=3.0), model=MODEL)
    record = json.loads(to_json(run.experiment))["objective"]
    assert record == {"class": "tests.test_train_doors:Own", "weight": 3.0, "places": [1, 2]}
    assert from_json(to_json(run.experiment)).objective == Own(weight=3.0)
    with pytest.raises(
        lj.train.CheckpointError, match=r"objective\.weight: 3\.0 in the run, 2\.0 now"
    ):
        fit(tmp_path, objective=Own(), model=MODEL)


@pytest.mark.parametrize(
    ("returns", "kind", "text"),
    [
        (lambda loss: loss, TypeError, r"expected the objective to return \(loss, metrics\)"),
        (
            lambda loss: (loss, {"taken": loss}),
            ValueError,
            "another name than 'taken' for a metric",
        ),
        (
            lambda loss: (loss, {"each": jnp.zeros(3)}),
            ValueError,
            r"a scalar each, got shape \(3,\): take its mean",
        ),
        (lambda loss: (loss[None], {}), ValueError, r"a scalar loss, got shape \(1,\)"),
        (lambda loss: (3, {}), TypeError, "floating-point loss, got int32"),
    ],
)
def test_what_an_objective_returns_is_checked(returns, kind, text):
    def objective(density, batch, key, step):
        return returns(robust(density, batch, key, step)[0])

    with pytest.raises(kind, match=text):
        fit(objective=objective)


def test_a_masked_optimizer_trains_what_it_is_given(tmp_path):
    """Part of the parameters has no state in it: stacked models are stored and resumed all the
    same."""
    model = dataclasses.replace(MODEL, depth=2)

    def kernels(params):
        return {name: leaf.ndim > 1 for name, leaf in params.items()}

    optimizer = optax.masked(optax.adam(1e-2), kernels)
    one, two = (
        dataclasses.replace(PLAIN, model=model, optimizer=optimizer, steps=steps)
        for steps in (1, 2)
    )
    lj.fit(one, POINTS, key=0, workdir=tmp_path)
    resumed = lj.fit(two, POINTS, key=0, workdir=tmp_path)
    straight = lj.fit(two, POINTS, key=0)
    assert any(".blocks." in name for name in split(stack(straight.last))[0].names)
    for a, b in zip(jax.tree.leaves(resumed.last), jax.tree.leaves(straight.last), strict=True):
        np.testing.assert_array_equal(a, b)

"""Conditions of floats: in data, training, gradients, every query and the command line."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax.cli import main
from likejax.data.batches import DatasetBatches, IterableBatches, Position
from likejax.data.conditions import condition_of
from likejax.models.ffjord.dynamics import Dynamics
from likejax.nn.modules import replace
from likejax.records import from_record, to_record
from tests.registry import DENSITIES, _ffjord, examples_of, perturbed, rngs

SHAPE = (1, 3)
_DRAWS = np.random.default_rng(0)
CONDITIONS = _DRAWS.normal(size=(40, *SHAPE)).astype(np.float32)
POINTS = (CONDITIONS[:, 0] + 0.1 * _DRAWS.normal(size=(40, 3))).astype(np.float32)
DATA = lj.Dataset.from_array(POINTS, conditions=CONDITIONS, labels=np.arange(40) % 3, name="pairs")
CONFIG = lj.models.VectorGlowConfig(dimensions=3, depth=2, width=8, condition_shape=SHAPE)
KEY = jax.random.key(0)


# --- data


def test_datasets_carry_conditions():
    assert "conditions (1, 3)" in repr(DATA)
    assert "conditions (1, 3)" in DATA._repr_html_()
    assert not DATA.conditions.flags.writeable
    rows = np.array([3, 1])
    np.testing.assert_array_equal(DATA[rows].conditions, CONDITIONS[rows])
    moved = DATA.subtract(1.0).shuffled(0)
    order = [np.flatnonzero((c == CONDITIONS).all((1, 2)))[0] for c in moved.conditions]
    np.testing.assert_allclose(moved.examples, POINTS[order] - 1.0)
    both = lj.data.concatenate([DATA[:3], DATA[7:9]])
    np.testing.assert_array_equal(both.conditions, CONDITIONS[[0, 1, 2, 7, 8]])
    for part in (*lj.data.split(DATA), *lj.data.hold_out(DATA)):
        order = [np.flatnonzero((x == POINTS).all(1))[0] for x in part.examples]
        np.testing.assert_array_equal(part.conditions, CONDITIONS[order])
    without = dataclasses.replace(DATA, conditions=None)
    assert DATA.fingerprint() != without.fingerprint() != without.examples_fingerprint()
    assert lj.data.concatenate([DATA, without]).conditions is None
    whole = lj.Dataset.from_array(POINTS, conditions=np.ones((40, 2), int))
    assert whole.conditions.dtype == np.float32
    with pytest.raises(ValueError, match=r"shape of conditions \(1, 3\) and \(2,\)"):
        lj.data.concatenate([DATA, whole])


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("conditions", "error", "message"),
    [
        (np.zeros((39, 2)), ValueError, r"conditions of shape \(40, \*condition_shape\)"),
        (np.zeros(40), ValueError, r"pass conditions\[:, None\], or labels="),
        (np.full((40, 2), np.nan), ValueError, "finite conditions, got 80 NaN"),
        (np.full((40, 2), "a"), TypeError, "expected numbers as conditions"),
    ],
)
def test_what_are_no_conditions(conditions, error, message):
    with pytest.raises(error, match=message):
        lj.Dataset.from_array(POINTS, conditions=conditions)


@pytest.mark.untyped
def test_a_density_takes_labels_or_conditions():
    assert condition_of(DATA, None) is None
    np.testing.assert_array_equal(condition_of(DATA, ()), DATA.labels)
    np.testing.assert_array_equal(condition_of(DATA, SHAPE), CONDITIONS)
    bare = lj.Dataset.from_array(POINTS)
    with pytest.raises(ValueError, match=r"conditions of shape \(1, 3\) .* pass conditions="):
        condition_of(bare, SHAPE)
    with pytest.raises(ValueError, match=r"conditions of shape \(2,\) for this density, 'pairs'"):
        condition_of(DATA, (2,))
    with pytest.raises(ValueError, match=r"no labels: pass labels="):
        condition_of(bare, ())
    with pytest.raises(ValueError, match=r"class labels 0\.\.1 .* got 0\.\.2"):
        condition_of(DATA, (), num_classes=2)


def test_batches_carry_conditions():
    start = Position(0, 0, 0)
    batch = next(DatasetBatches(DATA, 4, position=start, condition_shape=SHAPE))
    rows = [np.flatnonzero((x == POINTS).all(1))[0] for x in batch.x]
    np.testing.assert_array_equal(batch.condition, CONDITIONS[rows])

    def stream(items):
        return IterableBatches(items, 4, like=DATA, position=start, condition_shape=SHAPE)

    items = [{"x": POINTS[i : i + 3], "conditions": CONDITIONS[i : i + 3]} for i in (0, 3, 6)]
    np.testing.assert_array_equal(next(stream(items)).condition, CONDITIONS[:4])
    with pytest.raises(ValueError, match="mappings with the keys x and conditions"):
        next(stream([POINTS]))
    with pytest.raises(ValueError, match=r"conditions of shape \(1, 3\) for this density"):
        next(stream([{"x": POINTS, "conditions": CONDITIONS[:, 0]}]))


# --- configs


@pytest.mark.untyped
@pytest.mark.parametrize(
    "kind",
    [
        lj.models.GlowConfig,
        lj.models.VectorGlowConfig,
        lj.models.NSFConfig,
        lj.models.MAFConfig,
        lj.models.FFJORDConfig,
        lj.models.ImageFFJORDConfig,
        lj.models.PixelCNNConfig,
        lj.models.VAEConfig,
    ],
)
def test_a_config_has_classes_or_floats(kind):
    assert kind(condition_shape=[2, 3]).condition_size == 6
    assert kind(num_classes=4).shape_of_condition == ()
    with pytest.raises(ValueError, match="num_classes or condition_shape, got both"):
        kind(num_classes=2, condition_shape=(2,))
    with pytest.raises(ValueError, match=r"a single number has the shape \(1,\)"):
        kind(condition_shape=())
    record = to_record(kind())
    older = {
        name: value
        for name, value in record.items()
        if name not in ("num_classes", "condition_shape")
    }
    assert from_record(older) == kind()


# --- training, evaluation, export


def test_a_run_on_conditions(tmp_path):
    experiment = lj.Experiment(CONFIG, batch_size=8, steps=3, validate_every=2, ema_decay=0.0)
    train, valid = DATA[:30], DATA[30:]
    run = lj.fit(experiment, train, validation=valid, workdir=tmp_path, key=0)
    restored = lj.restore(tmp_path)
    assert restored.condition_shape == SHAPE
    values = restored.log_prob(valid.examples, condition=valid.conditions)
    np.testing.assert_array_equal(
        values, run.density.log_prob(valid.examples, condition=valid.conditions)
    )
    evaluation = lj.evaluate(restored, valid)
    np.testing.assert_allclose(evaluation.log_prob, values, rtol=5e-6)
    z = restored.encode(valid.examples, condition=valid.conditions)
    back = restored.decode(z, condition=valid.conditions)
    np.testing.assert_allclose(back, valid.examples, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="pass conditions= to"):
        lj.evaluate(restored, POINTS)
    items = [{"x": train.examples, "conditions": train.conditions}]
    assert np.isfinite(lj.fit(experiment, items, key=0).history[0]["loss"])


def test_initialization_is_that_of_the_unconditional_model():
    """The weights of conditions start at zero, so a new model does not depend on them."""
    plain = lj.build(dataclasses.replace(CONFIG, condition_shape=None), key=0)
    expected = plain.initialize(POINTS, 1).log_prob(POINTS)
    density = lj.build(CONFIG, key=0).initialize(POINTS, 1)
    np.testing.assert_allclose(density.log_prob(POINTS, condition=CONDITIONS), expected, rtol=1e-6)
    coupling = lj.bijections.AffineCoupling(4, width=3, condition_size=2, rngs=rngs())
    with pytest.raises(ValueError, match="this coupling is conditional"):
        coupling.forward(jnp.ones((2, 2, 4)))


def test_sheets_of_samples(tmp_path):
    config = lj.models.GlowConfig(
        event_shape=(4, 4, 1), levels=4, scales=1, depth=1, width=4, condition_shape=(2,)
    )
    images = np.random.default_rng(0).integers(0, 4, (12, 4, 4, 1)).astype(np.uint8)
    data = lj.Dataset.from_array(images, levels=4, conditions=np.ones((12, 2)))
    lj.fit(
        lj.Experiment(config, batch_size=4, steps=1, samples_every=1),
        data,
        workdir=tmp_path,
        key=0,
    )
    assert list((tmp_path / "samples").glob("*.png"))


def test_export():
    pytest.importorskip("flatbuffers")
    density = perturbed(lj.build(CONFIG, key=0), scale=0.1)
    program = jax.export.deserialize(bytearray(lj.export(density)))
    np.testing.assert_allclose(
        program.call(POINTS, CONDITIONS), density.log_prob(POINTS, condition=CONDITIONS), rtol=1e-5
    )


# --- continuous flows


@pytest.mark.parametrize("adjoint", ["checkpointed", "continuous"])
def test_gradients_of_a_conditional_field(adjoint):
    """The gradient of a joint solve is that of midpoint steps written out, for every parameter.

    Each example has its own condition.
    """
    steps = 4 if adjoint == "checkpointed" else 64
    with jax.enable_x64(True):
        field = perturbed(Dynamics(2, (3,), condition_size=3, rngs=rngs()), scale=0.5)
        field = jax.tree.map(lambda leaf: leaf.astype(float), field)
        x, c = jnp.asarray(POINTS[:3, :2], float), jnp.asarray(CONDITIONS[:3, 0], float)
        solver = lj.bijections.Solver("midpoint", steps=steps, adjoint=adjoint)
        ode = lj.bijections.ODE(field, training_solver=solver, learn_end_time=False)

        def loss(field):
            whole = replace(jax.tree.map(lambda leaf: leaf, ode), dynamics=field)
            z, log_det, _ = jax.vmap(lambda x, c: whole.terms(x, None, c))(x, c)
            return jnp.sum(jnp.cos(z)) + jnp.sum(jnp.sin(log_det))

        def by_hand(field):
            def one(x, c):
                def step(carry, i):
                    z, total = carry
                    offsets = [each.offsets(c) for each in field.layers]
                    half = z + field(i / steps, z, offsets) / (2 * steps)

                    def f(z):
                        return field((i + 0.5) / steps, z, offsets)

                    trace = jnp.trace(jax.jacfwd(f)(half))
                    return (z + f(half) / steps, total + trace / steps), None

                return jax.lax.scan(step, (x, jnp.zeros(())), jnp.arange(steps))[0]

            z, log_det = jax.vmap(one)(x, c)
            return jnp.sum(jnp.cos(z)) + jnp.sum(jnp.sin(log_det))

        (value, gradient), (expected, right) = (
            jax.jit(jax.value_and_grad(each))(field) for each in (loss, by_hand)
        )
        np.testing.assert_allclose(value, expected, rtol=1e-9)
        tolerance = 1e-8 if adjoint == "checkpointed" else 1e-3
        for name in ("condition_shift", "condition_gate"):
            for layer, wanted in zip(gradient.layers, right.layers, strict=True):
                got, one = getattr(layer, name)[...], getattr(wanted, name)[...]
                assert np.abs(one).max() > 1e-3
                np.testing.assert_allclose(got, one, rtol=tolerance, atol=tolerance)


def test_evaluations_of_a_conditional_flow_are_counted():
    density = _ffjord(condition_shape=(1, 3))
    counted = lj.models.function_evaluations(density, POINTS[:2], condition=CONDITIONS[:2])
    assert counted.forward == 2 * 8 * 2  # flows, steps, stages


# --- autoregressive images and VAEs


def test_every_sampler_of_a_conditional_pixelcnn():
    density = perturbed(DENSITIES["pixelcnn, floats"].make(), scale=0.1)
    x, c = examples_of(density, 3), CONDITIONS[:3]
    whole = density.log_prob(x, condition=c)
    pixels = density.log_prob_map(x, condition=c)
    np.testing.assert_allclose(pixels.sum((1, 2, 3)), whole, rtol=1e-5)
    batched = density.mixture(jnp.asarray(x), jnp.asarray(c))
    single = density.mixture(jnp.asarray(x[1]), jnp.asarray(c[1]))
    np.testing.assert_allclose(batched.means[1], single.means, rtol=1e-4, atol=1e-4)
    drawn = [
        np.asarray(density.with_sampler(name).sample(KEY, (), c))
        for name in ("cached", "fixed_point", "naive")
    ]
    np.testing.assert_array_equal(drawn[1], drawn[2])
    assert (drawn[0] == drawn[2]).mean() > 0.97  # equal up to rounding at ties
    kept = density.inpaint(x, 4, key=KEY, condition=c)
    np.testing.assert_array_equal(kept[:, 0], x[:, 0])


def test_all_of_a_vae_depends_on_the_condition():
    density = perturbed(DENSITIES["vae, floats"].make(), scale=0.1)
    x, c = examples_of(density, 3), CONDITIONS[:3]
    noise = density.draw_noise(KEY)
    run = jax.jit(lambda density, c: density.run(jnp.asarray(x[0]), noise, condition=c))
    first, second = run(density, jnp.asarray(c[0])), run(density, jnp.asarray(c[1]))
    for name in ("priors", "posteriors", "outputs"):
        for a, b in zip(
            jax.tree.leaves(getattr(first, name)),
            jax.tree.leaves(getattr(second, name)),
            strict=True,
        ):
            assert np.abs(a - b).max() > 1e-5, name
    latents = density.encode(x, key=KEY, condition=c)
    assert density.decode(latents, condition=c).shape == x.shape
    assert density.reconstruct(x, key=KEY, condition=c, from_level=1).shape == x.shape
    assert density.log_prob_above(x, key=KEY, condition=c).shape == (2, 3)
    assert density.impute(x, x == 0, key=KEY, condition=c, sweeps=2).shape == x.shape
    with pytest.raises(ValueError, match="pass condition="):
        density.decode(latents)


def test_scores_of_latents_of_a_vae_at_one_condition():
    """Bounds and regrets are those of the conditional density at the condition."""
    density = perturbed(DENSITIES["vae, floats"].make(), scale=0.1)
    x, c = examples_of(density, 3), CONDITIONS[0]
    fixed = lj.condition(density, c)
    assert fixed.offers("log_prob_above")
    assert fixed.depth == density.depth
    bounds = density.log_prob_above(x, key=KEY, condition=c, replacement="mean")
    np.testing.assert_array_equal(fixed.log_prob_above(x, key=KEY, replacement="mean"), bounds)
    options = {"key": KEY, "steps": 2, "draws": 1}
    regrets = density.regret(x, condition=c, **options)
    np.testing.assert_array_equal(fixed.regret(x, **options), regrets)
    score = lj.ood.HierarchyRatio()
    features = dict(zip(score.features, [np.asarray(bounds, np.float64).T], strict=True))
    expected = score.statistic(features.__getitem__, density.event_shape)
    keys = lj.example_keys(KEY, np.arange(3))
    fitted = score.fit(fixed, examples_of(density, 8), key=1)
    np.testing.assert_allclose(fitted(x, key=keys), expected, rtol=1e-4, atol=1e-4)
    labels = [each.label for each in lj.ood.standard(fixed)]
    assert {"hierarchy ratio >1", "likelihood regret"} <= set(labels)


def test_what_has_no_latents_has_no_bounds_at_one_condition():
    flow = lj.condition(lj.build(lj.models.MAFConfig(2, depth=1, width=4, num_classes=3), key=0), 1)
    assert not flow.offers("log_prob_above")
    assert flow.depth == 0
    x = np.zeros((1, 2), np.float32)
    with pytest.raises(TypeError, match="with log prob above, Conditioned has none"):
        flow.log_prob_above(x, key=0)
    with pytest.raises(TypeError, match="with regret, Conditioned has none"):
        flow.regret(x, key=0)
    with pytest.raises(ValueError, match="expected a VAE for a ratio of its latents"):
        lj.ood.HierarchyRatio().fit(flow, np.zeros((4, 2), np.float32), key=0)


# --- the command line


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = {}
    for part, rows in {"train": slice(0, 30), "test": slice(30, 40)}.items():
        arrays |= {f"x_{part}": POINTS[rows], f"conditions_{part}": CONDITIONS[rows]}
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "pairs.npz", **arrays)
    test = lj.load("pairs", split="test", data_dir=tmp_path / "data")
    np.testing.assert_array_equal(test.conditions, CONDITIONS[30:])

    run = tmp_path / "run"
    experiment = lj.Experiment(CONFIG, dataset="pairs", batch_size=8, steps=1)
    lj.fit(experiment, lj.load("pairs", data_dir=tmp_path / "data"), workdir=run, key=0)
    assert main(["evaluate", str(run), "--data-dir", str(tmp_path / "data")]) == 0
    assert "n = 10" in capsys.readouterr().out

    place = ["sample", str(run), "--count", "2", "--out", str(tmp_path / "samples.npy")]
    assert main([*place, "--condition", "0.5", "-1", "2"]) == 0
    drawn = np.load(tmp_path / "samples.npy")
    expected = lj.restore(run).sample(KEY, 2, np.array([[0.5, -1, 2]], np.float32))
    np.testing.assert_array_equal(drawn, expected)
    outside = ["ood", str(run), "--outside", "noise"]
    for words, message in {
        (): "give 3 numbers with --condition, got none",
        ("--condition", "0.5"): "give 3 numbers with --condition, got 1",
        ("--condition", "0.5", "1e39", "2"): "--condition: expected condition within the range of",
        ("--label", "1"): "no --label",
        ("--label", "1", "--condition", "2"): "expected --label or --condition, got both",
    }.items():
        for command in (place, outside):
            assert main([*command, *words]) == 2
            assert message in " ".join(capsys.readouterr().err.split())  # the parser breaks lines

    fixed = lj.condition(lj.restore(run), np.array([[0.5, -1, 2]], np.float32))
    under = "under condition (0.5, -1, 2)"
    values = ["--data-dir", str(tmp_path / "data"), "--condition", "0.5", "-1", "2"]
    assert main(["evaluate", str(run), *values]) == 0
    expected = lj.evaluate(fixed, dataclasses.replace(test, split=f"test, all {under}"))
    assert capsys.readouterr().out == f"{expected}\n"
    np.savez(tmp_path / "data" / "moved.npz", x_test=POINTS[30:] + 9, x_train=POINTS)
    options = ["--scores", "negative", "--resamples", "10", "--outside", "moved", *values]
    assert main(["ood", str(run), *options]) == 0
    assert f"All examples are scored {under}." in capsys.readouterr().out
    (score,) = json.loads((run / "ood" / "report.json").read_text())["scores"]
    of_fixed = np.asarray(fixed.log_prob(test.examples))
    np.testing.assert_allclose(score["values"]["pairs"], -of_fixed, rtol=1e-5)

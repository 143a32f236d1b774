"""Ensembles: the mixture, the members' own values, storage, training and noise on weights."""

from __future__ import annotations

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from flax import nnx

import likejax as lj
from likejax.data.batches import Batch
from likejax.keys import example_keys
from likejax.models import Ensemble, EnsembleConfig
from likejax.nn.copies import together
from likejax.nn.repeat import stack, unstack
from likejax.nn.state import merge, split
from likejax.storage.density import checksum_of
from likejax.train.members import EachMember
from likejax.train.optimizer import build_optimizer
from likejax.train.run_keys import RunKeys
from likejax.train.weight_noise import weight_noise_ensemble
from tests.registry import DENSITIES, NoisyByClass, examples_of, perturbed

KEY = jax.random.key(3)
MEANS = (-1.0, 0.5, 2.0)
GLOW = lj.models.VectorGlowConfig(depth=2, width=4)
EXPERIMENT = lj.Experiment(model=GLOW, batch_size=24, steps=3)


class Normal(lj.Density):
    """A standard normal around a trained mean, times exp(offset), beside a trained zero."""

    event_shape = (2,)
    kind = lj.Kind.EXACT

    def __init__(self, mean=(0.0, 0.0), offset: float = 0.0):
        self.mean = nnx.Param(jnp.asarray(mean))
        self.zero = nnx.Param(jnp.zeros(3))
        self.offset = nnx.Variable(jnp.asarray(offset))

    def _log_prob(self, x, key, condition):
        distance = x - self.mean[...] - self.zero[...].sum()
        return -0.5 * jnp.sum(distance**2 + jnp.log(2 * jnp.pi)) + self.offset[...]

    def _sample(self, key, condition, temperature):
        return self.mean[...] + temperature * jax.random.normal(key, (2,))


class NotRead(Normal):
    """A normal that does not read what is trained."""

    def _log_prob(self, x, key, condition):
        return -0.5 * jnp.sum(x**2 + jnp.log(2 * jnp.pi))


def line(mean: float) -> lj.Density:
    return lj.models.FullGaussian(jnp.full(1, mean), jnp.eye(1), (1,))


def noisy(density: lj.Density, members: int = 3) -> list[lj.Density]:
    return [perturbed(density, seed, scale=0.1) for seed in range(members)]


# --- the numbers


@pytest.mark.parametrize("name", ["vae vector", "naive bayes"])
def test_identical_members_agree_to_the_last_bit(name):
    case = DENSITIES[name]
    density = case.make()
    x, y = examples_of(density, 5), case.conditions(5)
    ensemble = Ensemble([density] * 3)
    values = np.asarray(ensemble.log_prob_members(x, key=KEY, condition=y, draws=2), np.float64)
    assert (values == values[0]).all()
    assert (values.var(0) == 0).all()
    one = density.log_prob(x, key=KEY, condition=y, draws=2)
    np.testing.assert_allclose(ensemble.log_prob(x, key=KEY, condition=y, draws=2), one, rtol=2e-6)


def test_members_that_differ_by_a_constant():
    """Their variance is ``c^2 / 4``; the mixture is ``log((1 + e^c) / 2)`` above the lower one."""
    c = 3.0
    ensemble = Ensemble([Normal(), Normal(offset=c)])
    x = examples_of(ensemble, 4)
    values = np.asarray(ensemble.log_prob_members(x), np.float64)
    np.testing.assert_allclose(values.var(0), c**2 / 4, rtol=1e-5)
    mixture = values[0] + math.log((1 + math.exp(c)) / 2)
    np.testing.assert_allclose(ensemble.log_prob(x), mixture, rtol=1e-6)


def test_the_mixture_of_normals():
    ensemble = Ensemble([line(mean) for mean in MEANS])
    x = np.linspace(-9, 10, 2001, dtype=np.float32)[:, None]
    log_prob = np.asarray(ensemble.log_prob(x), np.float64)
    each = scipy.stats.norm(np.array(MEANS)).pdf(x)
    np.testing.assert_allclose(log_prob, np.log(each.mean(1)), rtol=1e-5)
    assert np.trapezoid(np.exp(log_prob), x[:, 0]) == pytest.approx(1, abs=1e-6)
    assert lj.evaluate(ensemble, x).kind is lj.Kind.EXACT


@pytest.mark.parametrize("name", ["glow, floats", "vae vector, labels", "tabular", "noisy normal"])
def test_members_together_are_the_members_one_by_one(name):
    case = DENSITIES[name]
    members = noisy(case.make(), members=2)
    ensemble = Ensemble(members)
    x, y = examples_of(ensemble, 4), case.conditions(4)
    x, y = x.reshape(2, 2, *x.shape[1:]), None if y is None else y.reshape(2, 2, *y.shape[1:])
    arguments = {"key": KEY, "condition": y, "draws": 2}
    each = np.stack([member.log_prob(x, **arguments) for member in members])
    values = ensemble.log_prob_members(x, **arguments)
    assert values.shape == (2, 2, 2)
    np.testing.assert_allclose(values, each, rtol=5e-6)
    for number in range(2):
        chex.assert_trees_all_equal(ensemble.member(number), members[number])
    if ensemble.kind is lj.Kind.BOUND:
        mixture = scipy.special.logsumexp(each, axis=0) - math.log(2)
        np.testing.assert_allclose(ensemble.log_prob(x, **arguments), mixture, rtol=5e-6)


def test_a_bound_is_an_importance_weight_of_the_mixture():
    """The mean of ``exp log_prob`` over the noise is the mass of the integer."""
    spread = jnp.full((1, 1), 0.3)
    members = [lj.models.FullGaussian(jnp.full(1, m), spread, (1,)) for m in (0.2, 0.9)]
    ensemble = Ensemble([lj.models.Dequantized(member, 4) for member in members])
    assert ensemble.kind is lj.Kind.BOUND
    draws = ensemble.log_prob_draws(np.array([1], np.uint8), key=KEY, draws=4000)
    weights = np.exp(np.asarray(draws, np.float64))
    exact = np.diff(scipy.stats.norm([[0.2], [0.9]], 0.3).cdf([0.25, 0.5])).mean()
    assert abs(weights.mean() - exact) < 4 * weights.std() / math.sqrt(len(weights))


def test_estimates_are_not_too_high_on_average():
    members = [lj.condition(NoisyByClass(noise=1.0), label) for label in range(3)]
    ensemble = Ensemble(members)
    assert ensemble.kind is lj.Kind.ESTIMATE
    x = np.full((3,), 0.7, np.float32)
    exact = scipy.special.logsumexp([NoisyByClass().exact(x, y) for y in range(3)]) - math.log(3)
    draws = np.asarray(ensemble.log_prob_draws(x, key=KEY, draws=4000), np.float64)
    error = draws.std() / math.sqrt(len(draws))
    assert exact - 1 < draws.mean() < exact + 3 * error
    quiet = Ensemble([lj.condition(NoisyByClass(noise=0.0), label) for label in range(3)])
    np.testing.assert_allclose(quiet.log_prob(x, key=KEY), exact, rtol=1e-6)


def test_the_gradient_reaches_every_member():
    ensemble = Ensemble(noisy(DENSITIES["maf, labels"].make()))
    x, y = examples_of(ensemble, 6), np.arange(6) % 3
    structure, params, fixed = split(ensemble)

    def loss(params):
        return -merge(structure, params, fixed).log_prob(x, condition=y).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    chex.assert_tree_all_finite(gradient)
    weights = gradient[max(gradient, key=lambda name: gradient[name].size)]
    assert (abs(np.asarray(weights)).reshape(3, -1).max(1) > 1e-4).all()


def test_samples_come_from_all_members():
    ensemble = Ensemble([line(-30.0), line(30.0)])
    x = np.asarray(ensemble.sample(KEY, 1000))
    assert abs((x > 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(1000)
    assert abs(np.abs(x).mean() - 30) < 0.2
    still = np.asarray(ensemble.sample(KEY, 1000, temperature=0.0))
    np.testing.assert_array_equal(still, 30 * np.sign(x))
    integers = Ensemble([DENSITIES["pixel histogram"].make()] * 2).sample(KEY, 3)
    assert integers.dtype == jnp.uint8


# --- one structure


def test_blocks_of_members_are_stacked_and_taken_apart():
    """The axis of the members comes behind that of blocks, so both forms are the same numbers."""
    ensemble = Ensemble(noisy(lj.build(GLOW, key=0)))
    x = examples_of(ensemble, 5)
    stacked = stack(ensemble)
    chex.assert_trees_all_equal(unstack(stacked), unstack(ensemble))
    np.testing.assert_allclose(
        stacked.log_prob_members(x), ensemble.log_prob_members(x), rtol=1e-5, atol=1e-6
    )
    chex.assert_trees_all_equal(unstack(stacked.member(1)), unstack(ensemble.member(1)))
    members = [stack(member) for member in noisy(lj.build(GLOW, key=0))]
    chex.assert_trees_all_equal(unstack(together(members)), unstack(ensemble.density))


def test_saved_and_restored_to_the_last_bit(tmp_path):
    ensemble = Ensemble(noisy(lj.build(GLOW, key=0)))
    assert ensemble.config == EnsembleConfig(GLOW, 3)
    lj.save(ensemble, tmp_path / "built")
    restored = lj.restore(tmp_path / "built")
    assert isinstance(restored, Ensemble)
    chex.assert_trees_all_equal(restored, ensemble)
    assert checksum_of(restored) == checksum_of(ensemble)

    by_hand = Ensemble([Normal((1.0, 2.0)), Normal((3.0, 4.0))])
    lj.save(by_hand, tmp_path / "by hand")
    like = Ensemble([Normal()] * 2)
    again = lj.restore(tmp_path / "by hand", density=like)
    chex.assert_trees_all_equal(again, by_hand)
    with pytest.raises(ValueError, match="pass it as density="):
        lj.restore(tmp_path / "by hand")


def test_the_config_trains_the_mixture():
    config = EnsembleConfig(GLOW, members=2)
    assert config.levels is None
    assert EnsembleConfig(lj.models.GlowConfig()).event_shape == (32, 32, 3)
    run = lj.fit(lj.Experiment(model=config, batch_size=24, steps=2), lj.load("moons"), key=0)
    assert isinstance(run.density, Ensemble)
    assert math.isfinite(lj.evaluate(run.density, lj.load("moons", split="test")).mean)


def test_what_an_ensemble_says_of_itself():
    ensemble = Ensemble([lj.build(GLOW, key=seed) for seed in range(3)])
    assert len(ensemble) == 3
    assert "members: 3" in repr(ensemble)
    assert "built from EnsembleConfig" in repr(ensemble)
    assert lj.count_parameters(ensemble) == 3 * lj.count_parameters(ensemble.member(0))
    assert lj.Ensemble is Ensemble


def test_the_log_of_the_scale_is_that_of_all_members():
    def standardized(std: float) -> lj.Density:
        points = std * jnp.array([[1.0, -1.0], [-1.0, 1.0]])
        return lj.models.Flow(lj.bijections.Standardize(2).initialize(points, KEY), (2,))

    same = Ensemble([standardized(2.0)] * 2)
    assert same.sum_log_std == pytest.approx(2 * math.log(2.0))
    assert Ensemble([standardized(2.0), standardized(3.0)]).sum_log_std is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: [], ValueError, "at least one density"),
        (lambda: [Normal(), NotRead()], ValueError, "class 'Normal' and member 1 with 'NotRead'"),
        (
            lambda: [line(0.0), lj.models.FullGaussian(jnp.zeros(2), jnp.eye(2), (2,))],
            ValueError,
            "event_sh",
        ),
        (lambda: [lj.build(GLOW, key=0), Normal()], ValueError, "class 'Flow' and member 1"),
        (
            lambda: [lj.models.Dequantized(line(0.0), levels) for levels in (4, 8)],
            ValueError,
            "levels 4 and member 1 with 8",
        ),
        (
            lambda: [lj.build(lj.models.VectorGlowConfig(depth=1, width=w), key=0) for w in (4, 8)],
            ValueError,
            "config VectorGlowConfig",
        ),
        (
            lambda: [
                lj.models.Flow(lj.bijections.ActNorm(2), (2,)),
                lj.models.Flow(lj.bijections.Chain([lj.bijections.ActNorm(2)]), (2,)),
            ],
            ValueError,
            r"the array bijection\.\S+ \(\(2,\), 'float32'\) and member 1 with 'none'",
        ),
        (
            lambda: [NoisyByClass(1.0), NoisyByClass(2.0)],
            ValueError,
            "same arrays and different settings",
        ),
    ],
)
def test_members_of_different_structure(make, error, message):
    members = make()
    with pytest.raises(error, match=message):
        Ensemble(members)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: line(0.0), "expected a sequence of densities"),
        (lambda: [GLOW], "build one with lj.build"),
    ],
)
def test_members_that_are_no_densities(make, message):
    members = make()
    with pytest.raises(TypeError, match=message):
        Ensemble(members)


def test_what_is_asked_wrongly():
    ensemble = Ensemble([line(0.0)] * 2)
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        ensemble.member(2)
    with pytest.raises(ValueError, match="expected draws to be"):
        ensemble.log_prob_members(np.zeros((3, 1), np.float32), draws=0)
    bound = Ensemble([lj.models.Dequantized(line(0.0), 4)] * 2)
    with pytest.raises(ValueError, match="needs a key"):
        bound.log_prob_members(np.zeros((3, 1), np.uint8))
    with pytest.raises(ValueError, match="is unconditional"):
        ensemble.log_prob_members(np.zeros((3, 1), np.float32), condition=1)
    with pytest.raises(TypeError, match=r"expected EnsembleConfig\.member to be the config"):
        EnsembleConfig(lj.models.GlowConfig)


# --- trained


def test_members_are_trained_and_taken_up(tmp_path):
    moons = lj.load("moons")
    first = lj.train.fit_ensemble(EXPERIMENT, moons, members=2, key=0, workdir=tmp_path)
    assert [run.workdir for run in first.runs] == [tmp_path / "member-0", tmp_path / "member-1"]
    assert checksum_of(first.density.member(0)) != checksum_of(first.density.member(1))
    assert not first.interrupted
    alone = lj.fit(EXPERIMENT, moons, key=jax.random.fold_in(jax.random.key(0), 1))
    chex.assert_trees_all_equal(first.density.member(1), alone.density)
    assert checksum_of(lj.restore(tmp_path)) == checksum_of(first.density)

    log = (tmp_path / "member-0" / "metrics.jsonl").read_bytes()
    more = lj.train.fit_ensemble(EXPERIMENT, moons, members=3, key=0, workdir=tmp_path)
    assert (tmp_path / "member-0" / "metrics.jsonl").read_bytes() == log  # no step was done again
    assert repr(more) == "EnsembleRun(3 of VectorGlowConfig)"
    for number in range(2):
        chex.assert_trees_all_equal(more.density.member(number), first.density.member(number))
    assert checksum_of(lj.restore(tmp_path)) == checksum_of(more.density)


def test_an_ensemble_is_not_trained_on_an_iterator_nor_in_a_run(tmp_path):
    moons = lj.load("moons")
    with pytest.raises(TypeError, match="got an iterator, list_iterator"):
        lj.train.fit_ensemble(EXPERIMENT, iter([moons.examples]), key=0)
    with pytest.raises(ValueError, match="expected members to be"):
        lj.train.fit_ensemble(EXPERIMENT, moons, key=0, members=0)
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(lj.train.CheckpointError, match="holds a run"):
        lj.train.fit_ensemble(EXPERIMENT, moons, key=0, workdir=tmp_path)


# --- trained together


def jittered(density, batch, keys, step):
    """Loss of a batch with noise by its keys, so that members need noise of their own."""
    noise = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    loss = -density.log_prob(batch.x + 0.1 * noise).mean()
    return loss, {"log_prob": -loss}


def batches() -> list[np.ndarray]:
    return list(np.asarray(lj.load("moons").examples)[:96].reshape(4, 24, 2))


def trained_alone(member: lj.Density, number: int, rule) -> lj.Density:
    """A member after a step on each batch, by a loop that knows of no other member."""
    structure, params, fixed = split(member)
    state = rule.init(params)

    @jax.jit
    def gradient_of(params, x, keys):
        def loss(params):
            return jittered(merge(structure, params, fixed), Batch(x, None), keys, 0)[0]

        return jax.grad(loss)(params)

    for step, x in enumerate(batches()):
        shared = example_keys(jax.random.fold_in(RunKeys.of(0).noise, step), jnp.arange(24))
        keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(shared)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = rule.update(gradient_of(params, x, keys), state, params)
        params = optax.apply_updates(params, updates)
    return merge(structure, params, fixed)


CLIPPED = lj.Optimizer(
    name="adamax",
    learning_rate=0.01,
    weight_decay=0.1,
    decay_mask="matrices",
    clip_norm=0.5,
    clip_adaptive=0.05,
)


@pytest.mark.parametrize(
    ("depth", "optimizer"),
    [
        (1, CLIPPED),
        (6, optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.5, momentum=0.9))),
    ],
    ids=["settings, blocks apart", "optax, stacked blocks"],
)
def test_members_trained_together_are_members_trained_alone(depth, optimizer):
    """Also where the norm of the whole gradient is clipped, and matrices alone decay."""
    config = lj.models.VectorGlowConfig(depth=depth, width=4)
    members = noisy(lj.build(config, key=0), members=2)
    experiment = lj.Experiment(
        model=Ensemble(members),
        objective=EachMember(jittered),
        optimizer=optimizer,
        batch_size=24,
        steps=4,
    )
    run = lj.fit(experiment, batches(), key=0)
    rule = build_optimizer(optimizer, 4)
    for number, member in enumerate(members):
        alone = trained_alone(member, number, rule)
        found, wanted = (split(unstack(each))[1] for each in (run.raw.member(number), alone))
        start = split(unstack(member))[1]
        chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=2e-6)
        moved = max(float(abs(wanted[name] - start[name]).max()) for name in wanted)
        assert moved > 0.01


def test_an_optimizer_sees_one_member_under_its_own_names():
    labels = {"mean": "trained", "zero": "still"}
    rules = {"trained": optax.normalize_by_update_norm(), "still": optax.set_to_zero()}
    rule = optax.chain(optax.multi_transform(rules, labels), optax.sgd(1.0))
    members = [Normal((3.0, 0.0)), Normal((0.0, -30.0))]
    experiment = lj.Experiment(
        model=Ensemble(members), objective=EachMember(lj.NLL()), optimizer=rule, batch_size=4
    ).override({"steps": 1, "log_every": 1})
    rows = np.array([[-1, 2], [1, -2], [2, 1], [-2, -1]], np.float32)  # whose mean is zero
    run = lj.fit(experiment, rows, key=0)
    means = [run.raw.member(number).mean[...] for number in range(2)]
    np.testing.assert_allclose(means, [[2.0, 0.0], [0.0, -29.0]], atol=1e-6)  # steps of length one
    assert (run.raw.member(1).zero[...] == 0).all()
    batch = Batch(rows, None)
    losses = [lj.NLL()(member, batch, KEY, jnp.zeros(()))[0] for member in members]
    assert run.history[-1]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_members_trained_together_are_kept_and_taken_up(tmp_path):
    moons, valid = lj.load("moons"), lj.load("moons", split="validation")
    experiment = EXPERIMENT.override({"steps": 4, "validate_every": 2, "log_every": 1})
    arguments = {"members": 2, "key": 0, "together": True, "validation": valid}
    first = lj.train.fit_ensemble(experiment, moons, **arguments, workdir=tmp_path / "whole")
    (run,) = first.runs
    assert repr(first) == "EnsembleRun(2 of VectorGlowConfig, trained together)"
    assert not first.interrupted
    ours, theirs = first.density.member(0), first.density.member(1)
    names = [name for name, leaf in split(ours)[1].items() if np.ptp(leaf) > 0]
    assert any((split(ours)[1][name] != split(theirs)[1][name]).all() for name in names)
    restored = lj.restore(tmp_path / "whole")
    assert isinstance(restored, Ensemble)
    assert checksum_of(restored) == checksum_of(first.density)
    chex.assert_trees_all_equal(lj.train.restore_run(tmp_path / "whole").state, run.state)

    half = experiment.override({"steps": 2})
    lj.train.fit_ensemble(half, moons, **arguments, workdir=tmp_path / "parts")
    again = lj.train.fit_ensemble(experiment, moons, **arguments, workdir=tmp_path / "parts")
    assert checksum_of(again.density) == checksum_of(first.density)
    chex.assert_trees_all_equal(again.runs[0].state, run.state)
    with pytest.raises(lj.train.CheckpointError, match="together=True if they were trained so"):
        lj.train.fit_ensemble(experiment, moons, members=2, key=0, workdir=tmp_path / "parts")


def test_a_ready_density_with_noise_is_trained_together():
    density = lj.models.Dequantized(Normal(), 4)
    experiment = lj.Experiment(model=density, batch_size=4, steps=2)
    data = iter([np.array([[0, 1], [1, 2], [3, 1], [2, 0]], np.uint8)] * 3)
    result = lj.train.fit_ensemble(experiment, data, members=2, key=0, together=True)
    assert repr(result) == "EnsembleRun(2 of Dequantized, trained together)"
    assert checksum_of(result.density.member(0)) != checksum_of(result.density.member(1))


def test_what_cannot_be_trained_together(tmp_path):
    data = np.arange(8, dtype=np.float32).reshape(4, 2)
    arguments = {"members": 2, "key": 0, "together": True}
    ready = lj.Experiment(model=Normal(), batch_size=4, steps=1)
    with pytest.raises(ValueError, match=r"ready density without noise, Normal.*together=False"):
        lj.train.fit_ensemble(ready, data, **arguments)
    (tmp_path / "member-0").mkdir()
    with pytest.raises(lj.train.CheckpointError, match="one after the other: choose another"):
        lj.train.fit_ensemble(EXPERIMENT, data, **arguments, workdir=tmp_path)
    alone = dataclasses.replace(EXPERIMENT, objective=EachMember(lj.NLL()))
    with pytest.raises(TypeError, match="expected an ensemble for the objective EachMember, got"):
        lj.fit(alone, data, key=0)
    weighted = dataclasses.replace(EXPERIMENT, objective=lj.NLL(weights={"speed": 1.0}))
    with pytest.raises(ValueError, match="no part speed"):
        lj.train.fit_ensemble(weighted, data, **arguments)

    def of_each_example(density, batch, key, step):
        return -density.log_prob(batch.x), {}

    vector = dataclasses.replace(EXPERIMENT, objective=of_each_example)
    with pytest.raises(ValueError, match="return a scalar loss, got shape"):
        lj.train.fit_ensemble(vector, data, **arguments)


# --- noise on weights


def test_noise_on_the_mean_of_a_normal():
    """Around the mean of the examples the rise is ``scale^2 rms^2 |eps|^2 / 2``."""
    mean, rise = np.array([3.0, -4.0]), 0.1
    deviations = np.random.default_rng(0).normal(size=(50, 2))
    inside = np.concatenate([mean + deviations, mean - deviations]).astype(np.float32)
    normal = Normal(mean)
    result = weight_noise_ensemble(normal, members=4, key=KEY, inside=inside, rise=rise)
    members = [result.density.member(number) for number in range(4)]
    shifts = np.stack([np.asarray(member.mean[...]) - mean for member in members])
    rms = math.sqrt(np.square(mean).mean())
    eps = shifts / (result.scale * rms)
    rises = np.square(shifts).sum(1) / 2 / 2  # per dimension
    np.testing.assert_allclose(result.rises, rises, atol=2e-6)
    assert rise * 0.995 < max(result.rises) <= rise
    wanted = math.sqrt(2 * 2 * rise) / (rms * np.linalg.norm(eps, axis=1).max())
    assert result.scale == pytest.approx(wanted, rel=2e-3)
    assert all((member.zero[...] == 0).all() for member in members)
    assert len({float(member.mean[...][0]) for member in members}) == 4

    again = weight_noise_ensemble(normal, members=2, key=KEY, inside=inside, rise=rise)
    np.testing.assert_allclose(
        np.asarray(again.density.member(1).mean[...] - mean) / again.scale, rms * eps[1], rtol=1e-4
    )
    repeated = weight_noise_ensemble(normal, members=4, key=KEY, inside=inside, rise=rise)
    chex.assert_trees_all_equal(repeated.density, result.density)


def test_noise_on_a_bound_with_labels_and_blocks():
    density = lj.build(
        lj.models.GlowConfig(
            event_shape=(4, 4, 1), levels=17, scales=1, depth=2, width=4, num_classes=3
        ),
        key=0,
    )
    images = lj.Dataset.from_array(examples_of(density, 20), levels=17, labels=np.arange(20) % 3)
    result = lj.train.weight_noise_ensemble(density, members=2, key=0, inside=images, rise=0.02)
    assert 0.5 * 0.02 < max(result.rises) <= 0.02
    assert result.density.config == EnsembleConfig(density.config, 2)
    values = result.density.log_prob_members(images.examples, key=1, condition=images.labels)
    assert (values[0] != values[1]).all()


@pytest.mark.parametrize(
    ("density", "inside", "message"),
    [
        (line(0.0), np.zeros((3, 1), np.float32), "FullGaussian has none"),
        (NotRead(), np.zeros((3, 2), np.float32), "got no such rise"),
        (Normal((math.nan, 0.0)), np.zeros((3, 2), np.float32), "expected finite log-prob"),
        (Normal(), np.zeros((3, 5), np.float32), "expected"),
    ],
)
def test_noise_that_cannot_be_scaled(density, inside, message):
    with pytest.raises(ValueError, match=message):
        weight_noise_ensemble(density, members=2, key=0, inside=inside)

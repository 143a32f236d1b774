"""Diffusion models against closed forms: the bound, the probability-flow ODE, the samplers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp
from scipy.stats import norm

import likejax as lj
from likejax.bijections.ode import Solver, Trace
from likejax.models import VDM, BoundSettings, DiffusionSampler, VDMConfig, VectorVDMConfig
from likejax.models.diffusion import process
from likejax.models.diffusion.denoiser import NO_HINTS, Denoiser, Hints
from likejax.models.diffusion.density import BoundNoises
from likejax.models.diffusion.embedding import LevelEmbedding, RealEmbedding
from likejax.models.diffusion.network import fading_features, fourier_features
from likejax.models.diffusion.orientations import reoriented
from likejax.models.diffusion.schedule import (
    FixedSchedule,
    ImportanceSchedule,
    LinearSchedule,
    MonotoneSchedule,
    Schedule,
)
from likejax.models.diffusion.times import evaluation_times, training_time
from likejax.nn.modules import replace

ENDS = (-13.3, 5.0)
EXACT = Trace()
PMFS = {  # entropy, diffusion, prior and bound of the best denoiser, families.md 2.9
    (0.1, 0.2, 0.3, 0.4): (1.27985423, 1.27901269, 0.00105701, 1.28006970),
    (0.7, 0.1, 0.1, 0.1): (0.94044799, 0.93957282, 0.00155897, 0.94113179),
    (0.5, 0.5): (0.69314718, 0.69230565, 0.00084786, 0.69315351),
}


class BestOfLevels(nnx.Module):
    """The best denoiser of independent entries with known probabilities of their levels."""

    def __init__(self, pmf):
        self.log_pmf = np.log(pmf)

    def __call__(self, z, gamma, condition):
        centers = jnp.asarray(2 * (np.arange(len(self.log_pmf)) + 0.5) / len(self.log_pmf) - 1)
        a, s = (process.over_event(f(gamma), z) for f in (process.alpha, process.sigma))
        shape = (1,) * z.ndim + (-1,)
        centers = centers.reshape(shape)
        squares = jnp.square((z - 0.0)[..., None] - a[..., None] * centers)
        logits = jnp.asarray(self.log_pmf).reshape(shape) - squares / (2 * s[..., None] ** 2)
        mean = jnp.sum(jax.nn.softmax(logits, axis=-1) * centers, -1)
        return (z - a * mean) / s


class BestOfNormal(nnx.Module):
    """The best denoiser of normal data of standard deviation ``std``."""

    def __init__(self, std):
        self.std = std

    def __call__(self, z, gamma, condition):
        a, s = (process.over_event(f(gamma), z) for f in (process.alpha, process.sigma))
        return s * z / (a**2 * self.std**2 + s**2)


class AsVelocity(nnx.Module):
    """What another denoiser sees, told as a velocity."""

    def __init__(self, denoiser):
        self.denoiser = denoiser

    def __call__(self, z, gamma, condition):
        a, s = (process.over_event(f(gamma), z) for f in (process.alpha, process.sigma))
        return (self.denoiser(z, gamma, condition) - s * z) / a


def of_levels(pmf, shape=(1,), **options) -> VDM:
    embedding = LevelEmbedding(len(pmf))
    return VDM(shape, embedding, FixedSchedule(*ENDS), BestOfLevels(pmf), **options)


def of_normal(std, dimensions=2, **options) -> VDM:
    embedding = RealEmbedding(dimensions)
    return VDM((dimensions,), embedding, FixedSchedule(*ENDS), BestOfNormal(std), **options)


@pytest.mark.parametrize("pmf", PMFS, ids=str)
def test_the_bound_of_the_best_denoiser_by_quadrature(pmf):
    """The terms of one entry, integrated over noise and time, in all digits of the table."""
    entropy, diffusion, prior, bound = PMFS[pmf]
    with jax.enable_x64(True):
        density = of_levels(pmf)
        noise = np.linspace(-8, 8, 401)
        weight = np.exp(-0.5 * noise**2) / np.exp(-0.5 * noise**2).sum()
        times = (np.arange(1200) + 0.5) / 1200

        @jax.jit
        @jax.vmap
        def parts(x):
            def of_noise(eps):
                each = jnp.broadcast_to(eps, (len(times), 1))
                noises = BoundNoises(eps[None], each, jnp.asarray(times))
                return density.bound_of_noises(x[None], noises).parts

            over_noise = jax.vmap(of_noise)(jnp.asarray(noise))
            return {name: value @ jnp.asarray(weight) for name, value in over_noise.items()}

        found = {
            name: np.asarray(pmf) @ value for name, value in parts(np.arange(len(pmf))).items()
        }
    assert found["diffusion"] == pytest.approx(diffusion, abs=2e-7)
    assert found["prior"] == pytest.approx(prior, abs=1e-8)
    total = found["diffusion"] + found["prior"] - found["reconstruction"]
    assert total == pytest.approx(bound, abs=2e-7)
    assert -np.dot(pmf, np.log(pmf)) == pytest.approx(entropy, abs=1e-8)


def test_draws_average_to_the_bound_and_are_no_importance_weights():
    """The mean of 10^5 draws is the bound; the log of their mean lies far above log p."""
    pmf = (0.5, 0.5)
    density = of_levels(pmf, settings=BoundSettings(time_points=1))
    draws = np.asarray(density.log_prob(np.zeros((100_000, 1), np.uint8), key=0), np.float64)
    bound = -PMFS[pmf][3]
    assert abs(draws.mean() - bound) < 4 * draws.std() / np.sqrt(len(draws))
    assert density.kind is lj.Kind.ESTIMATE
    assert logsumexp(draws) - np.log(len(draws)) > np.log(0.5) + 0.1
    combined = density.log_prob(np.zeros((50, 1), np.uint8), key=1, draws=64)
    assert np.asarray(combined).mean() == pytest.approx(bound, abs=0.2)


def test_times_in_parts_vary_less():
    """Of many entries the noise averages, and what is left is the place of the times."""
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32) * 0.7
    x = np.broadcast_to(x, (1_000, 64))
    spread = {}
    for points in (1, 8):
        density = of_normal(0.7, 64, settings=BoundSettings(time_points=points))
        spread[points] = float(density.log_prob(x, key=0).std())
    assert spread[8] < 0.5 * spread[1] / np.sqrt(8)
    times = np.sort(evaluation_times(jax.random.key(0), 4))
    np.testing.assert_allclose(np.diff(times), 0.25, atol=1e-6)


def test_training_times_are_spread_over_the_batch():
    keys = jax.random.split(jax.random.key(3), 8)
    times = np.asarray(jax.vmap(training_time)(keys))
    assert times.min() >= 0
    assert times.max() < 1
    np.testing.assert_allclose(np.diff(np.sort(times)), 1 / 8, atol=1e-6)
    assert 0 <= float(training_time(keys[0])) < 1


@pytest.mark.parametrize("dequantization", ["truncated_normal", "variational"])
def test_the_flow_of_the_best_denoiser_has_the_masses(dequantization):
    """The probability-flow ODE with its exact trace: the masses, up to the prior's mismatch."""
    pmf = (0.1, 0.2, 0.3, 0.4)
    flow = of_levels(pmf).as_flow(dequantization, trace=EXACT)
    assert flow.kind is lj.Kind.BOUND
    draws = np.asarray(flow.log_prob(levels_of(100), key=0), np.float64).reshape(4, 100)
    masses = np.exp(logsumexp(draws, axis=1) - np.log(100))
    assert masses.sum() == pytest.approx(0.9997, abs=0.002)
    if dequantization == "truncated_normal":
        expected = [-2.2623, -1.5930, -1.2042, -0.9355]
        np.testing.assert_allclose(draws.mean(1), expected, atol=0.004)


def levels_of(count: int) -> np.ndarray:
    """Each of four levels so many times."""
    return np.repeat(np.arange(4, dtype=np.uint8), count)[:, None]


def test_uniform_points_integrate_the_density_of_a_cell():
    """At a noise as wide as a cell the mass of a cell is known: that of a mixture of normals."""
    pmf = np.array([0.1, 0.2, 0.3, 0.4])
    gamma = -3.0
    density = VDM((1,), LevelEmbedding(4), FixedSchedule(gamma, 9.0), BestOfLevels(pmf))
    flow = density.as_flow("uniform", trace=EXACT)
    draws = np.asarray(flow.log_prob(levels_of(400), key=0), np.float64).reshape(4, 400)
    centers, edges = np.linspace(-0.75, 0.75, 4), np.linspace(-1, 1, 5)
    cumulative = norm.cdf(edges[:, None], centers, np.exp(gamma / 2)) @ pmf
    masses = np.exp(logsumexp(draws, axis=1) - np.log(400))
    np.testing.assert_allclose(masses, np.diff(cumulative), rtol=0.03)


@pytest.mark.parametrize("as_velocity", [False, True])
def test_the_flow_of_normal_data_in_closed_form(as_velocity):
    """A linear ODE: the density is normal, with the variance that the prior has there."""
    std = 0.7
    density = of_normal(std)
    if as_velocity:
        settings = BoundSettings(prediction="velocity")
        denoiser = AsVelocity(BestOfNormal(std))
        density = VDM((2,), RealEmbedding(2), FixedSchedule(*ENDS), denoiser, settings=settings)
    flow = density.as_flow(trace=EXACT)
    assert flow.kind is lj.Kind.EXACT
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    start, end = (1 / (1 + np.exp(-gamma)) for gamma in ENDS)
    at_start = (1 - start) * std**2 + start
    at_end = (1 - end) * std**2 + end
    z = x * np.sqrt((1 - start) * at_end / at_start)
    scale = np.log((1 - start) * at_end / at_start)  # two dimensions, half of each
    expected = -0.5 * (z**2).sum(1) - np.log(2 * np.pi) + scale
    np.testing.assert_allclose(flow.log_prob(x), expected, atol=2e-4)
    hutchinson = density.as_flow(trace=Trace(probes=1))
    assert hutchinson.kind is lj.Kind.ESTIMATE
    # the Jacobian is a multiple of the identity, of which one probe of signs sees all
    np.testing.assert_allclose(hutchinson.log_prob(x, key=0), expected, atol=2e-4)


def test_a_velocity_and_its_noise_have_one_bound():
    pmf = (0.7, 0.1, 0.1, 0.1)
    noise = of_levels(pmf, shape=(3,))
    velocity = VDM(
        (3,),
        LevelEmbedding(4),
        FixedSchedule(*ENDS),
        AsVelocity(BestOfLevels(pmf)),
        settings=BoundSettings(prediction="velocity"),
    )
    x = np.arange(12, dtype=np.uint8).reshape(4, 3) % 4
    a, b = noise.log_prob(x, key=0), velocity.log_prob(x, key=0)
    np.testing.assert_allclose(a, b, rtol=2e-3)


def test_the_bound_does_not_depend_on_the_schedule_in_between():
    pmf = (0.5, 0.5)
    density = of_levels(pmf, settings=BoundSettings(time_points=64))
    other = replace(density, schedule=ImportanceSchedule(*ENDS))
    x = np.zeros((400, 1), np.uint8)
    a, b = density.log_prob(x, key=0), other.log_prob(x, key=1)
    assert float(a.mean()) == pytest.approx(float(b.mean()), abs=0.02)


@pytest.mark.parametrize(
    "schedule",
    [
        FixedSchedule(*ENDS),
        LinearSchedule(*ENDS),
        MonotoneSchedule(*ENDS, rngs=nnx.Rngs(0)),
        ImportanceSchedule(*ENDS),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_rise_between_their_ends(schedule):
    t = jnp.linspace(0, 1, 200)
    gamma, rate = schedule.with_rate(t)
    assert float(gamma[0]) == pytest.approx(ENDS[0], abs=0.02)
    assert float(gamma[-1]) == pytest.approx(ENDS[1], abs=0.02)
    assert (np.diff(gamma) > 0).all()
    assert (np.asarray(rate) > 0).all()
    if isinstance(schedule, ImportanceSchedule):
        weights = rate * jax.nn.sigmoid(-gamma)
        np.testing.assert_allclose(weights, float(weights[0]), rtol=1e-3)


def test_schedules_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="expected a gamma that rises, got 5"):
        FixedSchedule(5.0, -13.0)
    with pytest.raises(ValueError, match="at most 8"):
        ImportanceSchedule(-13.0, 15.0)


@pytest.mark.parametrize(("levels", "level", "nats"), [(256, 100, 0.007246), (2, 1, 0.003623)])
def test_the_reconstruction_of_an_inner_level(levels, level, nats):
    """Half a level is 3.02 standard deviations of the noise, whatever the number of levels."""
    gamma = jnp.asarray(process.smallest_gamma(levels))
    embedding = LevelEmbedding(levels)
    with jax.enable_x64(True):
        noise = np.linspace(-8, 8, 4001)
        weight = np.exp(-0.5 * noise**2) / np.exp(-0.5 * noise**2).sum()
        center = float(embedding.embed(jnp.asarray(level)))
        u = center + np.exp(float(gamma) / 2) * noise
        x = jnp.asarray(level)
        log_prob = jax.vmap(lambda u: embedding.log_prob(x, u, jnp.asarray(float(gamma))))(u)
    assert -float(weight @ np.asarray(log_prob)) == pytest.approx(nats, abs=2e-6)


class Between(Schedule):
    """The ends of one schedule and the course of another in between."""

    def __init__(self, ends, course):
        self.ends, self.course = ends, course

    def __call__(self, t):
        start, end = self.ends(jnp.zeros(())), self.ends(jnp.ones(()))
        low, high = self.course(jnp.zeros(())), self.course(jnp.ones(()))
        return start + (end - start) * (self.course(t) - low) / (high - low)


def bent_schedule() -> MonotoneSchedule:
    """A learned schedule that is far from a line."""
    schedule = MonotoneSchedule(*ENDS, rngs=nnx.Rngs(0))
    leaves = jax.random.normal(jax.random.key(1), (3, 1024))
    inner, bias, outer = 3 * leaves[0], leaves[1], 30 * leaves[2]
    return replace(
        schedule, inner=nnx.Param(inner), inner_bias=nnx.Param(bias), outer=nnx.Param(outer)
    )


def test_a_schedule_can_reduce_the_variance():
    """Between the ends it gets the gradient of the squared loss, at the ends that of the bound."""
    pmf = (0.1, 0.2, 0.3, 0.4)
    x = jnp.asarray([0, 3])
    keys = jax.random.split(jax.random.key(2), 2)
    times = jnp.asarray([0.55, 0.65, 0.75])
    noises = BoundNoises(
        jax.random.normal(keys[0], (2,)), jax.random.normal(keys[1], (3, 2)), times
    )
    variance = BoundSettings(schedule_gradient="variance")

    def terms(schedule, noises, settings=None):
        embedding = LevelEmbedding(4)
        density = VDM((2,), embedding, schedule, BestOfLevels(pmf), settings=settings)
        return density.bound_of_noises(x, noises)

    def loss(schedule):
        return -terms(schedule, noises, variance).log_prob

    def of_the_ends(ends):
        return -terms(Between(ends, schedule), noises).log_prob

    def of_the_course(course):
        total = 0.0
        for i in range(3):
            one = BoundNoises(noises[0], noises.noise[i : i + 1], times[i : i + 1])
            total += jnp.square(terms(Between(schedule, course), one).parts["diffusion"]) / 3
        return total / x.size

    schedule = bent_schedule()
    found = jax.jit(jax.grad(loss))(schedule)
    by_ends, by_course = (jax.jit(jax.grad(f))(schedule) for f in (of_the_ends, of_the_course))
    wanted = jax.tree.map(jnp.add, by_ends, by_course)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(by_course))
    assert largest > 1e-3
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * float(np.abs(b).max()))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "flow", "drawn"])
def test_samples_of_the_best_denoiser(sampler):
    pmf = (0.1, 0.2, 0.3, 0.4)
    density = of_levels(pmf, shape=(2,))
    if sampler == "flow":
        density = density.as_flow(trace=EXACT)
    else:
        method = "ddim" if sampler == "ddim" else "ancestral"
        last = "drawn" if sampler == "drawn" else "nearest"
        density = density.with_sampler(DiffusionSampler(method=method, steps=100, last=last))
    x = np.asarray(density.sample(jax.random.key(0), 2_000))
    assert x.dtype == np.uint8
    frequencies = np.bincount(x.reshape(-1), minlength=4) / x.size
    np.testing.assert_allclose(frequencies, pmf, atol=0.035)
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.08


def test_long_sampling_shows_progress_and_draws_the_same(monkeypatch, capsys):
    """Some steps at a time, 100 + 30, are the steps of one program."""
    monkeypatch.setattr("likejax.progress._DELAY", 0.0)
    sampler = DiffusionSampler(steps=130)
    density = of_normal(0.5, sampler=sampler)
    x = density.sample(jax.random.key(0), (2, 3))
    assert "sampling" in capsys.readouterr().err
    at_once = jax.jit(lambda density: density.sample(jax.random.key(0), (2, 3)))(density)
    np.testing.assert_allclose(x, at_once, atol=1e-5)


def test_temperature_and_guidance():
    std = 0.5
    density = of_normal(std, sampler=DiffusionSampler(method="ddim", steps=60))
    narrow = density.sample(jax.random.key(0), 500, temperature=0.5)
    wide = density.sample(jax.random.key(0), 500)
    np.testing.assert_allclose(narrow, 0.5 * np.asarray(wide), atol=1e-4)
    config = VectorVDMConfig(width=8, blocks=1, num_classes=2, standardize=False)
    labeled = lj.build(config, key=0)
    labeled = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), labeled
    )
    z, gamma, label = jnp.ones(2), jnp.asarray(0.3), jnp.asarray(1)
    plain, without = labeled.predict(z, gamma, label), labeled.predict(z, gamma)
    assert np.abs(plain.noise - without.noise).max() > 1e-3
    guided = labeled.with_sampler(DiffusionSampler(guidance=2.0))._guided(z, gamma, label)
    np.testing.assert_allclose(guided.noise, 3 * plain.noise - 2 * without.noise, rtol=1e-5)


def test_orientations_are_flagged():
    x = jnp.arange(9).reshape(3, 3, 1)
    seen = set()
    for i in range(60):
        moved, flag = reoriented(x, jax.random.key(i), "orientations")
        assert flag is not None
        assert bool((moved == x).all()) == (float(flag) == 0)
        seen.add(tuple(np.asarray(moved).reshape(-1).tolist()))
    assert len(seen) == 8
    wide, _ = reoriented(x[:2], jax.random.key(0), "orientations")
    assert wide.shape == (2, 3, 1)
    assert reoriented(x, jax.random.key(0), "none")[1] is None


def shaken(density: lj.Density, scale: float = 0.1) -> lj.Density:
    """The density with parameters that are not zero where they start at zero."""

    def moved(leaf):
        return leaf + scale * jnp.asarray(
            np.cos(np.arange(leaf.size)).reshape(leaf.shape), leaf.dtype
        )

    return jax.tree.map(moved, density)


def test_a_network_is_told_of_flags_dropout_and_conditions():
    """In training the augmentation, the dropout and the left-out conditions matter."""
    config = VDMConfig(
        event_shape=(4, 4, 1), levels=17, width=8, blocks=0, groups=2, dropout=0.5, num_classes=3
    )
    denoiser = shaken(lj.build(config, key=0)).denoiser
    z, gamma, label = jnp.ones((1, 4, 4, 1)), jnp.zeros(1), jnp.zeros(1, int)
    network = jax.jit(lambda condition, hints: denoiser(z, gamma, condition, hints))
    plain = network(label, Hints())
    hints = {
        "flag": Hints(flag=jnp.ones(1)),
        "present": Hints(present=jnp.zeros(1, bool)),
        "key": Hints(key=jax.random.key(0)),
    }
    for name, hint in hints.items():
        assert np.abs(network(label, hint) - plain).max() > 1e-4, name
    without = network(None, Hints())
    np.testing.assert_allclose(network(label, hints["present"]), without, atol=1e-6)


class Told(Denoiser):
    """A denoiser that returns what it is told, so that the bound shows it."""

    def __call__(self, z, gamma, condition=None, hints=NO_HINTS):
        told = jnp.zeros_like(gamma)
        if hints.flag is not None:
            told = told + 100 * hints.flag
        if hints.present is not None:
            told = told + 10_000 * hints.present
        return z * 0 + process.over_event(told, z)


def test_training_tells_of_turned_images_and_left_out_conditions():
    """Half of the images are turned and half of the conditions left out; log_prob tells nothing."""
    settings = BoundSettings(augmentation="orientations", condition_dropout=0.5)
    embedding, schedule = LevelEmbedding(4), FixedSchedule(*ENDS)
    conditions = {"condition_shape": (), "num_classes": 2}
    density = VDM((2, 2, 1), embedding, schedule, Told(), settings=settings, **conditions)
    x = np.zeros((400, 2, 2, 1), np.uint8)
    labels = np.zeros(400, int)
    losses = np.asarray(density.terms(x, key=0, condition=labels).parts["diffusion"])
    present, flagged = losses > 1e8, (losses > 1e5) & (losses < 1e8)
    assert 0.4 < present.mean() < 0.6
    assert 0.15 < flagged.mean() < 0.35
    assert density.statistics(x[:2], key=0, condition=labels[:2])["diffusion"].max() < 1e4


def test_resolutions_and_patches_keep_the_shape():
    config = VDMConfig(event_shape=(8, 4, 2), levels=8, width=8, blocks=1, resolutions=2, patch=2)
    density = lj.build(config, key=0)
    z = jnp.zeros((3, 8, 4, 2))
    denoised = jax.jit(density.denoiser)(z, jnp.zeros(3))
    np.testing.assert_array_equal(denoised, z)  # untrained: the input
    with pytest.raises(ValueError, match="divisible by 4"):
        VDMConfig(event_shape=(6, 4, 2), resolutions=2, patch=2)


def test_recomputing_blocks_changes_no_gradient():
    def gradient(remat):
        config = VDMConfig(
            event_shape=(2, 2, 1), levels=4, width=8, groups=2, blocks=1, dropout=0.0, remat=remat
        )
        network = shaken(lj.build(config, key=0)).denoiser
        z = jnp.ones((1, 2, 2, 1))
        return jax.jit(jax.grad(lambda network: network(z, jnp.zeros(1)).sum()))(network)

    kept, anew = (jax.tree.leaves(gradient(remat)) for remat in (False, True))
    for a, b in zip(kept, anew, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_diffusion_and_its_flow_are_saved_and_restored(tmp_path):
    vdm = lj.build(VectorVDMConfig(width=8, blocks=1), key=0)
    solver = Solver("midpoint", steps=2)
    x = np.ones((2, 2), np.float32)
    for name, density in (("vdm", vdm), ("flow", vdm.as_flow(solver=solver))):
        lj.save(density, tmp_path / name)
        again = lj.restore(tmp_path / name)
        np.testing.assert_array_equal(again.log_prob(x, key=0), density.log_prob(x, key=0))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="condition_dropout=0 for a model without a condition"):
        VDMConfig(bound=BoundSettings(condition_dropout=0.1))
    with pytest.raises(ValueError, match="learned for schedule_gradient='variance'"):
        VDMConfig(schedule="fixed", bound=BoundSettings(schedule_gradient="variance"))
    with pytest.raises(ValueError, match="gamma_min below gamma_max"):
        VDMConfig(gamma_max=-20.0)
    with pytest.raises(ValueError, match="groups that divide the width 24, got 7"):
        VDMConfig(width=24, groups=7)
    with pytest.raises(ValueError, match="vectors have no orientations"):
        VectorVDMConfig(bound=BoundSettings(augmentation="orientations"))
    with pytest.raises(TypeError, match="expected a denoiser"):
        VDM((2,), RealEmbedding(2), FixedSchedule(*ENDS), 3)


def test_more_blocks_make_no_longer_program():
    """On accelerators blocks are a scan: the program of the network does not grow with them."""

    def length_of_program(blocks):
        config = VDMConfig(event_shape=(4, 4, 1), levels=4, width=8, groups=2, blocks=blocks)

        def output(key):
            denoiser = config.build(nnx.Rngs(key)).denoiser
            return denoiser(jnp.zeros((1, 4, 4, 1)), jnp.zeros(1))

        return str(jax.make_jaxpr(output)(jax.random.key(0))).count("\n")

    assert length_of_program(8) == length_of_program(2)


def test_a_diffusion_of_a_table():
    """A diffusion inside a table's density: nats of the raw rows, with a mass for whole numbers."""
    frame = {"size": [0.5, 1.2, 0.9, 0.7] * 5, "rooms": [1, 3, 2, 2] * 5}
    table = lj.Dataset.from_table(frame, columns={"size": "positive"})
    model = VectorVDMConfig(width=8, blocks=0, standardize=False)
    density = lj.build(lj.models.TabularConfig(table.column_kinds, model), key=0)
    density = density.initialize(table.examples, 0)
    assert density.kind is lj.Kind.ESTIMATE
    assert np.isfinite(density.log_prob(table.examples, key=1)).all()
    assert density.log_prob(np.array([[-1.0, 2.0]], np.float32), key=1) == -np.inf


def test_a_network_in_bfloat16_has_nearly_the_same_output():
    """Only the network is in bfloat16: what it returns, and the bound, are in float32."""
    sizes = {"event_shape": (4, 4, 1), "levels": 17, "width": 8, "blocks": 0, "dropout": 0.0}
    z, gamma = jnp.linspace(-2, 2, 32).reshape(2, 4, 4, 1), jnp.asarray([-3.0, 1.0])
    outputs = []
    for dtype in ("float32", "bfloat16"):
        config = VDMConfig(**sizes, compute_dtype=dtype)
        network = shaken(lj.build(config, key=0)).denoiser
        outputs.append(jax.jit(lambda network: network(z, gamma))(network))
    assert outputs[1].dtype == jnp.float32
    np.testing.assert_allclose(*outputs, atol=0.1 * float(jnp.abs(outputs[0]).max()))
    assert np.abs(outputs[0] - outputs[1]).max() > 0


def test_fading_features_are_means_of_sines_of_the_data():
    """``E[sin(2 pi f y) | z]`` and the cosine by quadrature over ``y ~ N(z / alpha, r^2)``."""
    frequencies, gammas = (2.0, 4.0), np.array([-6.0, -3.0, -1.0])
    z = np.array([0.3, -0.7, 1.1]).reshape(3, 1, 1, 1)
    with jax.enable_x64(True):
        found = fading_features(jnp.asarray(z), jnp.asarray(gammas), frequencies)
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    a, s = np.sqrt(1 / (1 + np.exp(gammas))), np.sqrt(1 / (1 + np.exp(-gammas)))
    y = (z[:, 0, 0, 0] / a)[:, None] + (s / a)[:, None] * nodes
    sines, cosines = (
        [np.sum(weights * wave(2 * np.pi * f * y), -1) / weights.sum() for f in frequencies]
        for wave in (np.sin, np.cos)
    )
    expected = np.stack([z[:, 0, 0, 0], *sines, *cosines], -1)
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-12)


def test_fading_features_are_smooth_where_plain_ones_are_not():
    """By the noise's own length, the slope of a feature is at most ``exp(-1/2)`` at any noise."""
    z = jnp.linspace(-1, 1, 2001)
    for gamma in (-9.0, -5.0, 0.0, 5.0):
        of_z = jax.vmap(
            lambda z, gamma=gamma: fading_features(
                z.reshape(1, 1, 1), jnp.asarray(gamma), (64.0, 128.0)
            )[0, 0, 1:]
        )
        slopes = jax.jvp(of_z, (z,), (jnp.ones_like(z),))[1]
        # the derivative by z / alpha, times sigma / alpha
        steepest = np.abs(slopes).max() * process.sigma(gamma)
        assert steepest <= np.exp(-0.5) + 1e-5
    plain = jax.jvp(lambda z: fourier_features(z[:, None], (128.0,)), (z,), (jnp.ones_like(z),))
    assert np.abs(plain[1]).max() * process.sigma(0.0) > 500

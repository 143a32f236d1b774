"""Diffusion models against closed forms: the bound, the probability-flow ODE, the samplers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp

import likejax as lj
from likejax.bijections.ode import Solver, Trace
from likejax.models import VDM, BoundSettings, DiffusionSampler, VDMConfig, VectorVDMConfig
from likejax.models.diffusion import process
from likejax.models.diffusion.density import BoundNoises
from likejax.models.diffusion.embedding import LevelEmbedding, RealEmbedding
from likejax.models.diffusion.orientations import reoriented
from likejax.models.diffusion.schedule import (
    FixedSchedule,
    ImportanceSchedule,
    LinearSchedule,
    MonotoneSchedule,
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
    pmf = (0.1, 0.2, 0.3, 0.4)
    x = np.ones((2_000, 1), np.uint8)
    spread = {}
    for points in (1, 8):
        density = of_levels(pmf, settings=BoundSettings(time_points=points))
        spread[points] = float(density.log_prob(x, key=0).std())
    assert spread[8] < 0.7 * spread[1] / np.sqrt(8)
    times = np.sort(evaluation_times(jax.random.key(0), 4))
    np.testing.assert_allclose(np.diff(times), 0.25, atol=1e-6)


def test_training_times_are_spread_over_the_batch():
    keys = jax.random.split(jax.random.key(3), 8)
    times = np.asarray(jax.vmap(training_time)(keys))
    assert times.min() >= 0
    assert times.max() < 1
    np.testing.assert_allclose(np.diff(np.sort(times)), 1 / 8, atol=1e-6)
    assert 0 <= float(training_time(keys[0])) < 1


@pytest.mark.parametrize("dequantization", ["truncated_normal", "uniform", "variational"])
def test_the_flow_of_the_best_denoiser_has_the_masses(dequantization):
    """The probability-flow ODE with its exact trace: the masses, up to the prior's mismatch."""
    pmf = (0.1, 0.2, 0.3, 0.4)
    flow = of_levels(pmf).as_flow(dequantization, trace=EXACT)
    assert flow.kind is lj.Kind.BOUND
    x = np.repeat(np.arange(4, dtype=np.uint8), 100)[:, None]
    draws = np.asarray(flow.log_prob(x, key=0), np.float64).reshape(4, 100)
    masses = np.exp(logsumexp(draws, axis=1) - np.log(100))
    assert masses.sum() == pytest.approx(0.9997, abs=0.002)
    if dequantization == "truncated_normal":
        expected = [-2.2623, -1.5930, -1.2042, -0.9355]
        np.testing.assert_allclose(draws.mean(1), expected, atol=0.004)


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


def test_a_schedule_can_reduce_the_variance():
    """Between the ends it gets the gradient of the squared loss, at the ends that of the bound."""
    config = VDMConfig(
        event_shape=(2, 2, 1), levels=4, width=8, blocks=0, schedule="learned_network"
    )
    settings = BoundSettings(schedule_gradient="variance")
    density = lj.build(config, key=0)
    schedule = density.schedule
    leaves = jax.random.normal(jax.random.key(1), (3, 1024))
    schedule = replace(
        schedule,
        inner=nnx.Param(3 * leaves[0]),
        inner_bias=nnx.Param(leaves[1]),
        outer=nnx.Param(30 * leaves[2]),
    )
    density = replace(density, schedule=schedule)
    noises = BoundNoises(
        *(
            jax.random.normal(jax.random.key(i), shape)
            for i, shape in [(2, (2, 2, 1)), (3, (3, 2, 2, 1))]
        ),
        jnp.asarray([0.2, 0.5, 0.8]),
    )
    x = jnp.asarray([[[0], [3]], [[1], [2]]])

    def loss(schedule):
        return (
            -replace(density, schedule=schedule, settings=settings)
            .bound_of_noises(x, noises)
            .log_prob
        )

    class Between(nnx.Module):
        """The schedule with one of its two parts held fixed."""

        def __init__(self, ends, course):
            self.ends, self.course = ends, course

        def __call__(self, t):
            start, end = self.ends(jnp.zeros(())), self.ends(jnp.ones(()))
            low, high = self.course(jnp.zeros(())), self.course(jnp.ones(()))
            return start + (end - start) * (self.course(t) - low) / (high - low)

        def with_rate(self, t):
            return jax.jvp(self, (t,), (jnp.ones_like(t),))

    def expected(part):
        def total(moved):
            ends = moved if part == "ends" else schedule
            course = moved if part == "course" else schedule
            terms = []
            for i in range(3):
                one = BoundNoises(
                    noises.reconstruction, noises.noise[i : i + 1], noises.times[i : i + 1]
                )
                terms.append(
                    replace(density, schedule=Between(ends, course)).bound_of_noises(x, one)
                )
            diffusion = jnp.stack([term.parts["diffusion"] for term in terms])
            if part == "course":
                return jnp.mean(diffusion**2) / x.size
            return jnp.mean(diffusion) - terms[0].parts["reconstruction"] + terms[0].parts["prior"]

        return jax.grad(total)(schedule)

    found = jax.grad(loss)(schedule)
    wanted = jax.tree.map(jnp.add, expected("ends"), expected("course"))
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


def test_a_network_is_told_of_flags_dropout_and_conditions():
    """In training the augmentation, the dropout and the left-out conditions matter."""
    config = VDMConfig(
        event_shape=(4, 4, 1),
        levels=17,
        width=8,
        blocks=1,
        dropout=0.5,
        num_classes=3,
        bound=BoundSettings(augmentation="orientations", condition_dropout=0.5),
    )
    density = lj.build(config, key=0)
    density = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), density
    )
    x = np.random.default_rng(0).integers(0, 17, (4, 4, 4, 1), np.uint8)
    terms = density.terms(x, key=0, condition=np.array([0, 1, 2, 0]))
    assert np.isfinite(terms.log_prob).all()
    z, gamma = jnp.ones((1, 4, 4, 1)), jnp.zeros(1)
    from likejax.models.diffusion.denoiser import Hints

    label = jnp.zeros(1, int)
    plain = density.denoiser(z, gamma, label)
    hints = {
        "flag": Hints(flag=jnp.ones(1)),
        "present": Hints(present=jnp.zeros(1, bool)),
        "key": Hints(key=jax.random.key(0)),
    }
    for name, hint in hints.items():
        assert np.abs(density.denoiser(z, gamma, label, hint) - plain).max() > 1e-4, name
    none = density.denoiser(z, gamma, None)
    np.testing.assert_allclose(density.denoiser(z, gamma, label, hints["present"]), none, atol=1e-6)


def test_resolutions_and_patches_keep_the_shape():
    config = VDMConfig(event_shape=(8, 4, 2), levels=8, width=8, blocks=1, resolutions=2, patch=2)
    density = lj.build(config, key=0)
    z = jnp.zeros((3, 8, 4, 2))
    np.testing.assert_array_equal(density.denoiser(z, jnp.zeros(3)), z)  # untrained: the input
    with pytest.raises(ValueError, match="divisible by 4"):
        VDMConfig(event_shape=(6, 4, 2), resolutions=2, patch=2)


def test_recomputing_blocks_changes_no_gradient():
    def gradient(remat):
        config = VDMConfig(event_shape=(4, 4, 1), levels=4, width=8, blocks=1, remat=remat)
        density = lj.build(config, key=0)
        x = np.ones((2, 4, 4, 1), np.uint8)
        return jax.jit(jax.grad(lambda d: d.terms(x, key=0).log_prob.sum()))(density)

    kept, anew = (jax.tree.leaves(gradient(remat)) for remat in (False, True))
    for a, b in zip(kept, anew, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_diffusion_and_its_flow_are_saved_and_restored(tmp_path):
    config = VDMConfig(event_shape=(4, 4, 1), levels=17, width=8, blocks=0)
    solver = Solver("midpoint", steps=2)
    x = np.ones((2, 4, 4, 1), np.uint8)
    vdm = lj.build(config, key=0)
    for name, density in (("vdm", vdm), ("flow", vdm.as_flow("uniform", solver=solver))):
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

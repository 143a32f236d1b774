"""Hierarchical VAEs: closed forms, bounds, latents, objectives; what all densities share is in
test_densities."""

from __future__ import annotations

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import likejax as lj
from likejax.data.batches import Batch
from likejax.density import combine_draws
from likejax.distributions import normal_log_prob
from likejax.experiment import from_json, to_json
from likejax.models.vae.inference import Noise
from likejax.models.vae.likelihood import Likelihood
from likejax.models.vae.network import GenerativeStage, InferenceStage, Moments
from likejax.models.vae.stage import Options
from likejax.nn.modules import Buffer
from likejax.nn.state import merge, split
from tests.registry import _vae, perturbed

# --- the linear-Gaussian hierarchy: z2 ~ N(0, 1), z1 ~ N(0.9 z2, 0.5^2), x ~ N(1.2 z1, 0.3^2)

A, S1, B, S = 0.9, 0.5, 1.2, 0.3
VARIANCE = B * B * (A * A + S1 * S1) + S * S
POINTS = np.array([1.0, 3.0, 6.0])
LOG_PROBS = np.array([-1.468369, -3.943004, -12.294897])
RATIOS = np.array([2.982953, 5.738671, 15.039220])


class _NoUp(InferenceStage):
    """Inference that hands the data on: everything is inferred on the way down."""

    def __init__(self):
        self.features, self.posterior = 0, None

    def __call__(self, x, a, condition):
        return x

    def upwards(self, h, z):
        return h, None


class _Top(GenerativeStage):
    def __init__(self, shift: float):
        self.latent_shape = (1, 1, 1)
        self.top_prior = Buffer(jnp.zeros((1, 1, 2), float))
        self.posterior = True
        self.shift = shift

    def prior(self, d, condition):
        return Moments(jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)))

    def posterior_down(self, h, d):
        gain = A * B / VARIANCE
        return Moments(gain * h + self.shift, jnp.full_like(h, np.sqrt(1 - gain * A * B)))

    def __call__(self, z, skips, condition, *, top):
        return z, ()


class _Bottom(GenerativeStage):
    def __init__(self):
        self.latent_shape = (1, 1, 1)
        self.posterior = True

    def prior(self, d, condition):
        return Moments(A * d, jnp.full_like(d, S1))

    def posterior_down(self, h, d):
        precision = 1 / S1**2 + B**2 / S**2
        return Moments(
            (A * d / S1**2 + B * h / S**2) / precision, jnp.full_like(h, precision**-0.5)
        )

    def __call__(self, z, skips, condition, *, top):
        return z, ()


class _Observed(Likelihood):
    def __init__(self):
        pass

    def outputs(self, d):
        return d

    def log_prob(self, outputs, x):
        return normal_log_prob(x, B * outputs, jnp.asarray(S))

    def mean(self, outputs):
        return B * outputs

    def sample(self, outputs, key):
        return B * outputs + S * jax.random.normal(key, outputs.shape)


def linear(shift: float = 0.0) -> lj.models.VAE:
    """With exact posteriors, or that of the top latent shifted."""
    return lj.models.VAE(
        [_NoUp(), _NoUp()], [_Bottom(), _Top(shift)], _Observed(), (1,), levels=None, flatten=True
    )


def expected(density, x: float, above: int, replacement: str) -> float:
    """The mean log weight by Gauss-Hermite quadrature, exact for the quadratic that it is."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    grid = np.array(
        list(itertools.product(nodes, repeat=3))
    )  # of both posteriors and the lower prior
    total = np.array([np.prod(w) for w in itertools.product(weights, repeat=3)])
    eps = [jnp.asarray(grid[:, i].reshape(-1, 1, 1, 1)) for i in range(3)]
    points = jnp.full((len(grid), 1), x)
    noise = Noise((eps[0], eps[1]), (eps[2], eps[2]))
    log_weights = density.weights(
        density.run(points, noise, above=above, replacement=replacement), points
    )
    return float(total @ np.asarray(log_weights))


def test_linear_gaussian():
    """log p, L^{>1} and the ratio, by draws and by means, to the digits of the closed form."""
    with jax.enable_x64(True):
        density = linear()
        for x, log_prob, ratio in zip(POINTS, LOG_PROBS, RATIOS, strict=True):
            bound = expected(density, x, 0, "sample")
            assert bound == pytest.approx(log_prob, abs=1e-6)
            assert bound - expected(density, x, 1, "sample") == pytest.approx(ratio, abs=1e-6)
            assert bound - expected(density, x, 1, "mean") == pytest.approx(ratio - 2.0, abs=1e-6)


def test_every_draw_is_exact_with_exact_posteriors():
    draws = linear().log_prob_draws(jnp.asarray(POINTS, jnp.float32)[:, None], key=0, draws=5)
    np.testing.assert_allclose(draws, np.tile(LOG_PROBS, (5, 1)), rtol=2e-5)


def test_bounds_rise_to_the_truth():
    """With a wrong posterior: ELBO < importance-weighted bounds < log p, rising; the gap of one
    draw is the KL."""
    x = jnp.full((4_000, 1), 1.0)
    density = linear(shift=0.7)
    draws = np.asarray(density.log_prob_draws(x, key=1, draws=64))
    bounds = [
        float(np.mean(combine_draws(jnp.asarray(draws[:k]), lj.Kind.BOUND))) for k in (1, 4, 16, 64)
    ]
    assert bounds == sorted(bounds)
    assert bounds[-1] < LOG_PROBS[0]
    assert bounds[-1] == pytest.approx(LOG_PROBS[0], abs=0.05)
    kl = 0.7**2 / (2 * (1 - (A * B) ** 2 / VARIANCE))
    assert bounds[0] == pytest.approx(LOG_PROBS[0] - kl, abs=4 * draws[0].std() / np.sqrt(len(x)))


# --- the networks

BERNOULLI = {"event_shape": (2, 2, 1), "levels": 2, "likelihood": "bernoulli"}


def tiny(**options) -> lj.models.VAE:
    stages = (
        lj.models.StageConfig(channels=(4,), strides=(2,), latent=2, dense=False),
        lj.models.StageConfig(channels=(4,), strides=(1,), latent=2),
    )
    return perturbed(_vae(**BERNOULLI | {"stages": stages} | options))


def test_masses_sum_to_one():
    """Over all 16 images, within the error of the importance weights."""
    density = tiny()
    images = np.array(list(itertools.product([0, 1], repeat=4)), np.uint8).reshape(-1, 2, 2, 1)
    draws = np.asarray(density.log_prob_draws(images, key=0, draws=400), np.float64)
    weights = np.exp(draws)
    error = np.sqrt((weights.var(0, ddof=1) / len(weights)).sum())
    assert abs(weights.mean(0).sum() - 1) < 4 * error
    assert error < 0.05


@pytest.mark.parametrize("inference", ["bottom_up", "top_down", "bidirectional"])
def test_bounds_above(inference):
    """L^{>0} is the bound itself; all k at once are each."""
    density = tiny(inference=inference)
    x = np.random.default_rng(0).integers(0, 2, (64, 2, 2, 1)).astype(np.uint8)
    bound = density.log_prob(x, key=3, draws=2)
    for replacement in ("sample", "mean"):
        above = density.log_prob_above(x, key=3, draws=2, replacement=replacement)
        assert above.shape == (2, 64)
        np.testing.assert_allclose(above[0], bound, rtol=1e-5)
        one = density.log_prob_above(x, 1, key=3, draws=2, replacement=replacement)
        np.testing.assert_allclose(above[1], one, rtol=1e-5)


@pytest.mark.parametrize(("replacement", "passes"), [("sample", 3), ("mean", 6)])
def test_bounds_above_share_what_they_can(monkeypatch, replacement, passes):
    """By draws all k share one way up; by means the stages up to the first drawn latent: 3 + 2 + 1
    instead of 9."""
    stages = tuple(
        lj.models.StageConfig(channels=(3,), strides=(1,), latent=2, dense=False) for _ in range(3)
    )
    density = tiny(stages=stages)
    calls = []
    call = InferenceStage.__call__
    monkeypatch.setattr(InferenceStage, "__call__", lambda *args: calls.append(1) or call(*args))
    x, noise = jnp.zeros((2, 2, 1)), density.draw_noise(jax.random.key(0))
    jax.eval_shape(lambda: density.weights_above(x, noise, (0, 1, 2), replacement))
    assert len(calls) == passes


def test_replacements_that_are_misspelt():
    """The released code's word for means is no silent draw here."""
    density = tiny()
    x = np.zeros((2, 2, 2, 1), np.uint8)
    for call in (
        lambda: density.log_prob_above(x, key=0, replacement="mode"),
        lambda: density.reconstruct(x, key=0, from_level=1, replacement="mode"),
        lambda: density.run(
            jnp.asarray(x[0]), density.draw_noise(jax.random.key(0)), replacement="mode"
        ),
    ):
        with pytest.raises(
            (ValueError, TypeCheckError), match=r"to be 'sample' or 'mean'|parameter 'replacement'"
        ):
            call()


def test_arguments():
    density = tiny()
    x = np.zeros((2, 2, 2, 1), np.uint8)
    with pytest.raises(ValueError, match="k between 0 and 1, got 2"):
        density.log_prob_above(x, 2, key=0)
    with pytest.raises(ValueError, match="draws to be an integer of at least 1"):
        density.log_prob_above(x, key=0, draws=0)
    lower, upper = density.encode(x, key=0)
    with pytest.raises(ValueError, match="one batch shape"):
        density.decode((lower, upper[:1]))
    with pytest.raises(ValueError, match="from_level between 0 and 2"):
        density.reconstruct(x, key=0, from_level=3)
    with pytest.raises(ValueError, match="expected 2 latents"):
        density.decode(density.encode(x, key=0)[:1])
    with pytest.raises(ValueError, match="expected a latent of shape"):
        density.decode(density.encode(x, key=0)[::-1])
    with pytest.raises(ValueError, match="mask of shape"):
        density.impute(x, np.ones((3, 3, 1), bool), key=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"levels": 17}, "2 levels for the bernoulli"),
        ({"levels": None}, "levels=None for the gaussian"),
        ({"stages": ()}, "at least one stage"),
        ({"flatten": True}, "kernel 1"),
        ({"event_shape": (4,)}, "flatten=True"),
        ({"event_shape": (3, 3, 1)}, "divide the image"),
    ],
)
def test_configs_that_make_no_sense(options, match):
    with pytest.raises((ValueError, TypeCheckError), match=match):
        tiny(**options)


def test_stage_configs():
    for options in ({"channels": (4,), "strides": (1, 1)}, {"strides": (3, 1, 1)}, {"latent": 0}):
        with pytest.raises(ValueError, match="expected"):
            lj.models.StageConfig(**options)


def test_stages_of_different_blocks():
    """One kernel or one for each block; a record of either comes back, also one from before there
    were gates."""
    stage = lj.models.StageConfig(
        channels=(4, 4), strides=(2, 1), kernel=(5, 1), latent=2, gated=(True, False)
    )
    assert [tuple(block) for block in stage.blocks(Options(gated=False))] == [
        (4, 5, 2, True),
        (4, 1, 1, False),
    ]
    assert lj.models.StageConfig(kernel=5).kernels == (5, 5, 5)
    assert [block.gated for block in lj.models.StageConfig().blocks(Options(gated=True))] == [
        True
    ] * 3
    experiment = lj.Experiment(
        model=lj.models.VAEConfig(event_shape=(4, 4, 1), stages=(stage,), activation="leaky_relu")
    )
    assert from_json(to_json(experiment)) == experiment
    record = json.loads(to_json(lj.Experiment(model=lj.models.VAEConfig())))
    for each in record["model"]["stages"]:
        del each["gated"]
    assert from_json(json.dumps(record)).model == lj.models.VAEConfig()
    with pytest.raises(ValueError, match="one kernel, or one for each of 2 blocks"):
        dataclasses.replace(stage, kernel=(3, 3, 3))
    with pytest.raises(ValueError, match="gated for each of 2 blocks"):
        dataclasses.replace(stage, gated=(True,))
    with pytest.raises(
        ValueError, match=r"StageConfig.kernel\[0\] to be an integer of at least 1, got 0"
    ):
        dataclasses.replace(stage, kernel=(0, 3))


def test_released_projection(monkeypatch, tmp_path):
    """The parameters that nothing reads are kept; a density that was saved without them is restored
    as it was."""
    density = tiny(skips="as_released")
    lj.save(density, tmp_path / "now")
    names = {name for name in split(density)[1] if ".unread." in name}
    assert len(names) == 3
    assert split(lj.restore(tmp_path / "now"))[1].keys() == split(density)[1].keys()

    def without(density):
        structure, params, fixed = split(density)
        return structure, {name: leaf for name, leaf in params.items() if name not in names}, fixed

    with monkeypatch.context() as patched:
        patched.setattr("likejax.storage.density.split", without)
        lj.save(density, tmp_path / "before")
    restored = split(lj.restore(tmp_path / "before"))[1]
    for name, leaf in split(density)[1].items():
        np.testing.assert_array_equal(
            restored[name], jnp.zeros_like(leaf) if name in names else leaf
        )
    assert not any(
        ".unread." in name for name in split(tiny(skips="as_released", inference="top_down"))[1]
    )


def test_latents_and_reconstructions():
    """Decoding the encoding is the reconstruction from all latents; from none it knows nothing of
    the image."""
    density = tiny()
    x = np.random.default_rng(0).integers(0, 2, (3, 2, 2, 2, 1)).astype(np.uint8)
    latents = density.encode(x, key=5)
    assert [z.shape for z in latents] == [(3, 2, 1, 1, 2), (3, 2, 2)]
    full = density.reconstruct(x, key=5)
    np.testing.assert_allclose(density.decode(latents), full, rtol=1e-5, atol=1e-6)
    assert full.shape == x.shape
    nothing = density.reconstruct(x, key=5, from_level=2)
    np.testing.assert_array_equal(nothing, density.reconstruct(1 - x, key=5, from_level=2))
    some = density.reconstruct(x, key=5, from_level=1)
    assert not np.allclose(some, full)
    assert not np.allclose(some, nothing)


def test_imputation():
    """Known entries stay; the others are expected values, and do not depend on what stood there."""
    density = tiny()
    x = np.random.default_rng(0).integers(0, 2, (5, 2, 2, 1)).astype(np.uint8)
    known = np.array([[1, 0], [1, 1]], bool)[..., None]
    filled = density.impute(x, known, key=1, sweeps=4)
    np.testing.assert_array_equal(np.asarray(filled)[:, known], x[:, known])
    np.testing.assert_array_equal(
        filled, density.impute(np.where(known, x, 1 - x), known, key=1, sweeps=4)
    )
    assert (np.asarray(filled)[:, 0, 1] % 1 > 0).all()


def test_initialize():
    """Every layer standardizes its output on the batch: that of the likelihood too, whatever was
    drawn before it."""
    config = dataclasses.replace(tiny().config, event_shape=(4, 4, 1), gated=True)
    density = lj.build(config, key=0)
    x = np.random.default_rng(0).integers(0, 2, (256, 4, 4, 1)).astype(np.uint8)
    new = density.initialize(x, 1)
    keys = jax.random.split(jax.random.key(2), len(x))
    run = jax.jit(jax.vmap(lambda x, key: new.run(x, new.draw_noise(key)).outputs))
    outputs = run(jnp.asarray(x), keys)
    assert float(outputs.mean()) == pytest.approx(0, abs=0.3)
    assert float(outputs.std()) == pytest.approx(1, abs=0.3)
    assert not np.allclose(density.log_prob(x[:8], key=0), new.log_prob(x[:8], key=0))


def test_skips_that_work():
    """As released, skips between maps of one shape are left out; otherwise they carry what the
    hidden maps know."""
    stages = tuple(
        lj.models.StageConfig(channels=(4, 4), strides=(1, 1), latent=2, dense=False)
        for _ in range(2)
    )
    working, released = (tiny(stages=stages, skips=skips) for skips in ("working", "as_released"))
    leaves, others = jax.tree.leaves(working), jax.tree.leaves(released)
    assert all(np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))
    x = np.random.default_rng(0).integers(0, 2, (4, 2, 2, 1)).astype(np.uint8)
    assert not np.allclose(working.log_prob(x, key=0), released.log_prob(x, key=0))
    assert [block.adds_aux for block in working.inference[1].blocks] == [True, True]
    assert [block.adds_aux for block in released.inference[1].blocks] == [False, False]


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic", "gaussian"])
def test_samples_and_means(likelihood):
    """The mean of samples is the mean that ``decode`` gives."""
    levels = {"bernoulli": 2, "logistic": 5, "gaussian": None}[likelihood]
    density = tiny(likelihood=likelihood, levels=levels)
    outputs = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 2, 1 if levels == 2 else 2)), jnp.float32
    )
    keys = jax.random.split(jax.random.key(0), 4_000)
    samples = jax.vmap(lambda key: density.likelihood.sample(outputs, key))(keys)
    error = np.abs(samples.mean(0) - density.likelihood.mean(outputs))
    assert np.all(error < 5 * samples.std(0) / np.sqrt(len(keys)) + 1e-6)
    if levels:
        assert set(np.unique(samples)) <= set(range(levels))


def test_temperature_of_likelihoods():
    """It scales normals and logistics, divides logits, and at 0 leaves the mode; at 1 the draws are
    the plain ones."""
    key = jax.random.key(0)
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(50, 50, 2)), jnp.float32)
    gaussian = tiny(likelihood="gaussian", levels=None).likelihood
    mean = gaussian.mean(outputs)
    deviations = [gaussian.sample(outputs, key, t) - mean for t in (1.0, 0.25)]
    np.testing.assert_allclose(0.25 * deviations[0], deviations[1], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(gaussian.sample(outputs, key, 0.0), mean)
    logistic = tiny(likelihood="logistic", levels=5).likelihood
    center, _ = logistic.parameters(outputs)
    np.testing.assert_array_equal(
        logistic.sample(outputs, key, 0.0), np.clip(np.floor(5 * center), 0, 4)
    )
    bernoulli = tiny().likelihood
    np.testing.assert_array_equal(bernoulli.sample(outputs, key, 0.0), outputs > 0)
    logits = jnp.full((100, 200, 1), 1.5)
    for temperature in (1.0, 3.0):
        ones = float(bernoulli.sample(logits, key, temperature).mean())
        assert ones == pytest.approx(1 / (1 + np.exp(-1.5 / temperature)), abs=0.015)
    np.testing.assert_array_equal(
        bernoulli.sample(logits, key), jax.random.bernoulli(key, jax.nn.sigmoid(logits))
    )
    mixture = tiny(
        likelihood="logistic_mixture", levels=5, mixtures=2, event_shape=(2, 2, 1)
    ).likelihood
    parameters = jnp.array(
        [[[0.1, 0.0, -1.0, 1.0, 0.0, 0.0]]]
    )  # the first component is the larger, its mean level 0
    assert float(mixture.sample(parameters, key, 0.0).squeeze()) == 0
    assert all(
        jnp.isnan(each.sample(outputs * jnp.nan, key)).all()
        for each in (gaussian, logistic, bernoulli)
    )


def test_temperature_of_samples():
    """At 0 a sample is the most likely image at the means of the priors, whatever the key."""
    density = tiny()
    cold = density.sample(0, 4, None, 0.0)
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[:1], cold.shape))
    np.testing.assert_array_equal(cold, density.sample(1, 4, None, 0.0))
    noise = jax.tree.map(jnp.zeros_like, density.draw_noise(jax.random.key(0)))
    outputs = density.prior_pass(noise).outputs
    np.testing.assert_array_equal(cold[0], outputs > 0)
    warm = density.sample(0, 4)
    assert (np.asarray(warm) != np.asarray(warm[:1])).any()


def test_samples_say_whether_they_are_finite():
    """Integers cannot hold a NaN: the draw says that the network gave one."""
    density = tiny()
    draw = jax.jit(lambda density, temperature: density._draw(jax.random.key(0), None, temperature))
    x, finite = draw(density, 1.0)
    assert bool(finite)
    np.testing.assert_array_equal(x, density._sample(jax.random.key(0), None, 1.0))
    structure, params, fixed = split(density)
    for name in ("generation.1.to_map.bias", "likelihood.layer.bias"):
        broken = merge(structure, params | {name: params[name] * jnp.nan}, fixed)
        x, finite = draw(broken, 1.0)
        assert not bool(finite)
        assert x.dtype == jnp.uint8


def test_mixture_mean():
    """A mixture of very narrow logistics has its mean at the components' means, and samples on the
    levels there."""
    density = tiny(likelihood="logistic_mixture", levels=5, mixtures=2, event_shape=(2, 2, 3))
    outputs = np.zeros((2, 2, 20), np.float32)
    outputs[..., 2:8] = 0.5  # means of three channels, two components: level 3
    outputs[..., 8:14] = -6.0
    outputs = jnp.asarray(outputs)
    np.testing.assert_allclose(density.likelihood.mean(outputs), 3.0, atol=1e-5)
    assert np.all(density.likelihood.sample(outputs, jax.random.key(0)) == 3)


@pytest.mark.parametrize("form", ["exact", "reference"])
def test_logistic_bins(form):
    """The masses of the single logistic sum to 1; with the released code's 1e-7 on each to that
    much more."""
    density = tiny(likelihood="logistic", levels=256, likelihood_form=form)
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(256, 2, 2, 2)), jnp.float32)
    x = jnp.broadcast_to(jnp.arange(256.0)[:, None, None, None], (256, 2, 2, 1))
    outputs = jnp.broadcast_to(outputs[:1], outputs.shape)
    total = np.exp(np.asarray(density.likelihood.log_prob(outputs, x), np.float64)).sum(0)
    np.testing.assert_allclose(total, 1.0 if form == "exact" else 1 + 256e-7, atol=1e-5)


# --- the objective


def batch_of(density, n: int = 8) -> Batch:
    x = np.random.default_rng(0).integers(0, 2, (n, *density.event_shape)).astype(np.uint8)
    return Batch(jnp.asarray(x), None, None)


def test_elbo_is_the_bound():
    """With sampled divergences and full weight the loss is minus the mean log weight; analytic ones
    agree."""
    density = tiny()
    batch = batch_of(density, 2_000)
    sampled, metrics = lj.ELBO(kl="sampled")(density, batch, jax.random.key(0), jnp.asarray(5))
    analytic, _ = lj.ELBO()(density, batch, jax.random.key(0), jnp.asarray(5))
    assert float(sampled) == pytest.approx(-float(metrics["log_prob"]), rel=1e-5)
    assert float(analytic) == pytest.approx(float(sampled), rel=0.05)
    assert set(metrics) == {"log_prob", "reconstruction", "kl_1", "kl_2"}


def test_warm_up_and_free_nats():
    """The weight rises linearly; a floor hides divergences below it, and sinks; at step 0 only data
    count."""
    density = tiny()
    batch, key = batch_of(density), jax.random.key(0)

    def loss(step, **options):
        return float(lj.ELBO(**options)(density, batch, key, jnp.asarray(step))[0])

    _, metrics = lj.ELBO()(density, batch, key, jnp.asarray(0))
    reconstruction, kls = (
        float(metrics["reconstruction"]),
        [float(metrics[f"kl_{i}"]) for i in (1, 2)],
    )
    assert loss(0, warmup_steps=10) == pytest.approx(-reconstruction, rel=1e-5)
    assert loss(5, warmup_steps=10) == pytest.approx(-reconstruction + 0.5 * sum(kls), rel=1e-5)
    assert loss(50, warmup_steps=10, beta=2.0) == pytest.approx(
        -reconstruction + 2 * sum(kls), rel=1e-5
    )
    high = 10 * max(kls)
    free = {"free_nats": high, "free_steps": 10, "free_fade_steps": 10}
    assert loss(10, **free) == pytest.approx(-reconstruction + 2 * high, rel=1e-5)
    assert loss(15, **free) == pytest.approx(-reconstruction + high, rel=1e-5)
    assert loss(20, **free) == pytest.approx(loss(0), rel=1e-5)
    low = min(kls) / 2
    assert loss(0, free_nats=low) == pytest.approx(loss(0), rel=1e-5)
    assert loss(0, free_nats=low, free_nats_per="element") >= loss(0)


def test_objectives_that_do_not_fit():
    glow = lj.build(
        lj.models.GlowConfig(event_shape=(4, 4, 1), levels=2, scales=1, depth=1, width=4), key=0
    )
    with pytest.raises(TypeError, match="parts kl_1, reconstruction for the ELBO"):
        lj.ELBO()(glow, batch_of(glow), jax.random.key(0), jnp.asarray(0))
    with pytest.raises(ValueError, match="at least 0"):
        lj.ELBO(free_nats=-1.0)


def test_training_on_binarized_batches():
    """Gray images are binarized anew in every batch, the validation part once; the record says it
    all."""
    stages = (lj.models.StageConfig(channels=(8,), strides=(1,), kernel=1, latent=4),)
    experiment = lj.Experiment(
        model=lj.models.VAEConfig(event_shape=(8, 8, 1), stages=stages, flatten=True),
        augment=("binarize",),
        objective=lj.ELBO(warmup_steps=20),
        optimizer=lj.Optimizer(learning_rate=3e-3),
        steps=60,
        validate_every=30,
        ema_decay=0.9,
    )
    train, validation, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
    run = lj.fit(experiment, train, validation=validation, key=0)
    assert run.density.levels == 2
    binary = experiment.as_evaluated(test)
    assert binary.levels == 2
    assert "seed 0" in binary.binarization
    trained = lj.evaluate(run.density, binary, key=0, draws=4)
    untrained = lj.evaluate(lj.build(experiment.model, key=0), binary, key=0, draws=4)
    assert trained.mean > untrained.mean + 3 * trained.standard_error
    assert lj.experiment.from_json(lj.experiment.to_json(experiment)) == experiment
    with pytest.raises(ValueError, match="expected a Dataset to binarize"):
        lj.fit(experiment, [train.examples[:64]], key=0)
    with pytest.raises(ValueError, match="binarize as the last"):
        dataclasses.replace(experiment, augment=("binarize", "flip"))
    with pytest.raises(ValueError, match=r"dataset.binarize\(seed\)"):
        lj.evaluate(run.density, test, key=0)

"""Parity with the official hierarchical VAE (hvae-oodd): its weights and noise in, its numbers out, in float64."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax.models.vae import Noise
from likejax.reference.hvae import hvae, official_names
from likejax.reference.pixelcnn import parameter_order
from likejax.train.state import put_together, take_apart
from tests.golden import golden_files, groups, weights

FILES = golden_files("hvae_*.npz")
pytestmark = pytest.mark.skipif(not FILES, reason="no hvae_*.npz in LIKEJAX_GOLDEN or ../shared/golden")

LIKELIHOODS = {
    "BernoulliLikelihoodDense": "bernoulli",
    "BernoulliLikelihoodConv2d": "bernoulli",
    "DiscretizedLogisticMixLikelihoodConv2d": "logistic_mixture",
    "DiscretizedLogisticLikelihoodConv2d": "logistic",
}
TOLERANCE = {"rtol": 1e-9, "atol": 1e-7}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def density_of(golden) -> lj.VAE:
    """Half of the number of blocks, and the order of stages, from the file."""
    blocks = golden["cfg_latent_blocks"]
    stages = []
    for i, (block, features) in enumerate(zip(blocks, golden["cfg_latent_features"], strict=True)):
        rows = golden[f"cfg_det.stage{i}"]
        stages.append(
            lj.StageConfig(
                channels=tuple(map(int, rows[:, 0])),
                kernel=int(rows[0, 1]),
                strides=tuple(map(int, rows[:, 2])),
                latent=int(features),
                dense=str(block) == "GaussianDense",
            )
        )
    channels, height, width = golden["x"].shape[1:]
    likelihood = LIKELIHOODS[str(golden["cfg_likelihood"])]
    config = lj.VAEConfig(
        event_shape=(height, width, channels),
        levels=2 if likelihood == "bernoulli" else 256,
        stages=tuple(stages),
        likelihood=likelihood,
        likelihood_form="reference",
        skips="as_released",
        gated=bool(golden["cfg_det.stage0"][0, 3]),
        activation={"ReLU": "relu", "Swish": "swish", "ELU": "elu"}[str(golden["cfg_activation"])],
    )
    config = flat(config) if (height, width) == (1, 1) else config
    return hvae(weights(golden), config)


def flat(config: lj.VAEConfig) -> lj.VAEConfig:
    """Of vectors: they come as maps of one position."""
    return dataclasses.replace(config, flatten=True)


def last(array: np.ndarray, batch_axes: int) -> np.ndarray:
    """Channels last, of maps; vectors as they are."""
    return np.moveaxis(array, batch_axes, -1) if array.ndim == batch_axes + 3 else array


def examples(golden, density) -> jax.Array:
    x = last(golden["x"], 1)
    return jnp.asarray(np.rint(x * (density.levels - 1)).astype(np.uint8))


def noise_of(golden, density, samples=slice(None)) -> Noise:
    """(S, B, latent) each."""
    parts = []
    for name in ("eps_q", "eps_p"):
        eps = [golden[f"{name}.z{i + 1}"][samples] for i in range(density.depth)]
        parts.append(tuple(jnp.asarray(last(e, 2)) for e in eps))
    return Noise(*parts)


@jax.jit
def first_pass(density, x, noise):
    passed = jax.vmap(lambda x, noise: density.run(x, noise))(x, jax.tree.map(lambda eps: eps[0], noise))
    return passed, density.weights(passed, x)


@functools.partial(jax.jit, static_argnums=3)
def all_weights(density, x, noise, replacement):
    """(S, L, B): of every draw and every number of lowest latents from their priors."""

    def one(x, noise):
        return density._above(x, noise, tuple(range(density.depth)), replacement)

    return jax.vmap(lambda noise: jax.vmap(one, out_axes=1)(x, noise))(noise)


@pytest.mark.parametrize("golden", groups(FILES))
def test_pass(golden):
    """Moments, latents, likelihood and divergences of one draw."""
    density = density_of(golden)
    x = examples(golden, density)
    passed, log_weight = first_pass(density, x, noise_of(golden, density))
    for i in range(density.depth):
        name = f"z{i + 1}"
        np.testing.assert_allclose(passed.latents[i], last(golden[name], 1), **TOLERANCE)
        for ours, theirs in ((passed.posteriors[i], "q"), (passed.priors[i], "p")):
            np.testing.assert_allclose(ours.mean, last(golden[f"{theirs}_mean.{name}"], 1), **TOLERANCE)
            np.testing.assert_allclose(ours.std, last(golden[f"{theirs}_std.{name}"], 1), **TOLERANCE)
        kl = passed.kl[i].reshape(len(x), -1).sum(1)
        np.testing.assert_allclose(kl, golden[f"kl.{name}"], **TOLERANCE)
    kls = sum(golden[f"kl.z{i + 1}"] for i in range(density.depth))
    np.testing.assert_allclose(log_weight + kls, golden["lik"], **TOLERANCE)
    np.testing.assert_allclose(log_weight, golden["elbo"], **TOLERANCE)
    check_parameters(golden, density, passed.outputs, "lik_param")


def check_parameters(golden, density, outputs, prefix: str) -> None:
    name = density.config.likelihood
    if name == "bernoulli":
        np.testing.assert_allclose(outputs, last(golden[f"{prefix}.logits"], 1), **TOLERANCE)
    elif name == "logistic":
        mean, log_scale = density.likelihood.parameters(outputs)
        np.testing.assert_allclose(mean, last(golden[f"{prefix}.mean"], 1), **TOLERANCE)
        np.testing.assert_allclose(log_scale, last(golden[f"{prefix}.logscale"], 1), **TOLERANCE)
    else:
        theirs = golden[f"{prefix}.all_params"]
        theirs = theirs if theirs.shape[-1] == outputs.shape[-1] else last(theirs, 1)
        order = parameter_order(density.event_shape[2], density.config.mixtures)
        np.testing.assert_allclose(outputs, theirs[..., order], **TOLERANCE)


@pytest.mark.parametrize("golden", groups(FILES))
def test_bounds(golden):
    """Log weights of every draw, importance-weighted bounds, L^{>k} and ratios by samples and by means."""
    density = density_of(golden)
    x, noise = examples(golden, density), noise_of(golden, density)
    for replacement, name in (("sample", "sample"), ("mean", "mode")):
        each = all_weights(density, x, noise, replacement)
        log_weights = each[:, 0]
        np.testing.assert_allclose(log_weights, golden["elbo_samples"], **TOLERANCE)
        bound = lj.combine_draws(log_weights, lj.Kind.BOUND)
        np.testing.assert_allclose(bound, golden["iw_bound_exact"], **TOLERANCE)
        np.testing.assert_allclose(their_bound(log_weights), golden["iw_bound"], **TOLERANCE)
        for k in range(density.depth):
            above = each[:, k]
            np.testing.assert_allclose(above, golden[f"Lgtk_{name}.samples"][k], **TOLERANCE)
            np.testing.assert_allclose(their_bound(above), golden[f"Lgtk_{name}.iw_bound"][k], **TOLERANCE)
            np.testing.assert_allclose(log_weights[0] - above[0], golden[f"LLRgtk_{name}.s1"][k], **TOLERANCE)
            ratio = their_bound(log_weights) - their_bound(above)
            np.testing.assert_allclose(ratio, golden[f"LLRgtk_{name}.iw"][k], **TOLERANCE)


def their_bound(log_weights):
    """With 1e-8 inside the logarithm, as the official code has it."""
    log_weights = np.asarray(log_weights)
    top = log_weights.max(0)
    return np.log(np.exp(log_weights - top).mean(0) + 1e-8) + top


@pytest.mark.parametrize("golden", groups(FILES))
def test_gradient(golden):
    """Of the mean negative ELBO; the official gradients go through the importer, whose reordering is linear."""
    density = density_of(golden)
    x, noise = examples(golden, density), jax.tree.map(lambda eps: eps[0], noise_of(golden, density))
    structure, params, fixed = take_apart(density)

    def loss(params):
        density = put_together(structure, params, fixed)
        return -density.weights(density.run(x, noise), x).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    prefix = "grad_mean_neg_elbo.w."
    theirs = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    zeros = {name: np.zeros_like(array) for name, array in weights(golden).items()}
    _, expected, _ = take_apart(hvae(zeros | theirs, density.config))
    ours_of = {official: ours for ours, official in official_names(density)}
    parts = {"V": "direction", "g": "scale", "b": "bias"}
    assert len(theirs) >= 5
    for name in theirs:
        layer, part = name.rsplit(".", 1)
        ours = f"{ours_of[layer]}.{parts[part]}"
        np.testing.assert_allclose(gradient[ours], expected[ours], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("golden", groups(FILES))
def test_training_loss(golden):
    """With the official free nats: a floor on every element of the sampled divergence, shared by the channels only."""
    density = density_of(golden)
    x, noise = examples(golden, density), jax.tree.map(lambda eps: eps[0], noise_of(golden, density))
    objective = lj.ELBO(
        beta=float(golden["cfg_beta"]),
        free_nats=float(golden["cfg_free_nats"]),
        free_nats_per="element",
        kl="sampled",
    )
    terms = jax.jit(lambda density, x, noise: density.latent_terms_with(x, noise))(density, x, noise)
    loss = objective.loss(terms, jnp.zeros((), jnp.int32))
    np.testing.assert_allclose(loss, golden["train_loss"].mean(), **TOLERANCE)


@pytest.mark.parametrize("golden", groups(FILES))
def test_ancestral_samples(golden):
    density = density_of(golden)
    eps = tuple(jnp.asarray(last(golden[f"prior.eps.z{i + 1}"], 1)) for i in range(density.depth))
    passed = jax.jit(lambda density, noise: density._down(None, noise, density.depth, "sample"))(
        density, Noise(eps, eps)
    )
    for i in range(density.depth):
        np.testing.assert_allclose(passed.latents[i], last(golden[f"prior.z{i + 1}"], 1), **TOLERANCE)
    check_parameters(golden, density, passed.outputs, "prior.lik_param")

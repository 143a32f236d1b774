"""Parity with the official PixelCNN++ code and its PyTorch port: weights and noise in, their numbers out."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from likejax.distributions import LogisticMixture, logistic_mixture_log_probs, logistic_mixture_sample
from likejax.models.pixelcnn import PixelCNNConfig
from likejax.nn.depth import unstack
from likejax.reference.pixelcnn import official_names, parameter_order, pixelcnn
from likejax.train.state import put_together, take_apart
from tests.golden import golden_files, read

NETWORKS = golden_files("pixelcnnpp_net_*.npz")
MIXTURES = golden_files("pixelcnnpp_dmol_*.npz")
pytestmark = pytest.mark.skipif(
    not (NETWORKS and MIXTURES), reason="no pixelcnnpp_*.npz in LIKEJAX_GOLDEN or ../shared/golden"
)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


# The likelihood alone


def mixture_of(params, channels: int) -> LogisticMixture:
    """From numbers in the official order."""
    mixtures = params.shape[-1] // {1: 3, 3: 10}[channels]
    return LogisticMixture.of(params[..., parameter_order(channels, mixtures)], channels, mixtures)


@functools.partial(jax.jit, static_argnames="form")
def log_prob(x, params, form: str):
    """Of every pixel: values on [-1, 1] as the official code takes them, off the grid too."""
    return logistic_mixture_log_probs((x + 1) * 127.5, mixture_of(params, x.shape[-1]), 256, form).sum(-1)


@functools.partial(jax.jit, static_argnames="form")
def nll_gradient(x, params, form: str):
    return jax.grad(lambda params: -log_prob(x, params, form).sum())(params)


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", ["rgb", "gray", "px"])
def test_golden_pixelcnn_likelihood(path, kind):
    """The reference form gives the official values and gradients; the exact form gives the true ones."""
    golden = read(path)
    x, params, nll = (golden[f"{kind}_{name}"] for name in ("x", "params", "nll"))

    def per_example(values):
        return values if kind == "px" else values.sum((-2, -1))

    atol = 1e-6 if kind == "px" else 1e-8
    np.testing.assert_allclose(-per_example(log_prob(x, params, "reference")), nll, rtol=1e-9, atol=atol)
    gradient = nll_gradient(x, params, "reference")
    np.testing.assert_allclose(gradient, golden[f"{kind}_grad"], rtol=1e-6, atol=1e-8)
    if f"{kind}_logp_exact" in golden:
        np.testing.assert_allclose(
            per_example(log_prob(x, params, "exact")), golden[f"{kind}_logp_exact"], rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", ["rgb", "px"])
def test_golden_pixelcnn_likelihood_in_float32(path, kind):
    """In single precision the exact form stays within 2e-5 of the true values, the reference form near the official."""
    golden = read(path)
    x, params = (golden[f"{kind}_{name}"].astype(np.float32) for name in ("x", "params"))
    with jax.enable_x64(False):
        exact, reference = (np.asarray(log_prob(x, params, form)) for form in ("exact", "reference"))
    assert exact.dtype == np.float32
    if kind == "rgb":
        exact, reference = exact.sum((-2, -1)), reference.sum((-2, -1))
        np.testing.assert_allclose(exact, golden["rgb_logp_exact"], rtol=2e-5)
        np.testing.assert_allclose(-reference, golden["rgb_nll"], rtol=2e-5)
        return
    on_grid = golden["px_tag"] != 3
    np.testing.assert_allclose(exact[on_grid], golden["px_logp_exact"][on_grid], rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", ["", "gray_"])
def test_golden_pixelcnn_sampling(path, kind):
    """The recorded noise gives the recorded values, without rounding to levels as the official code."""
    golden = read(path)
    u_mix, u_log, x = (golden[f"{kind}samp_{name}"] for name in ("u_mix", "u_log", "x"))
    mixture = mixture_of(jnp.asarray(golden[f"{kind}samp_params"]), x.shape[-1])
    gumbel, logistic = -np.log(-np.log(u_mix)), np.log(u_log) - np.log1p(-u_log)
    ours = logistic_mixture_sample(mixture, jnp.asarray(gumbel), jnp.asarray(logistic), None)
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-9)


# The whole network


def groups() -> list:
    """Every network of every file; those of the PyTorch port have the prefixes ``rgb`` and ``gray``."""
    return [
        pytest.param((path, prefix), id=f"{path.stem}-{prefix or 'all'}".removesuffix("."))
        for path in NETWORKS
        for prefix in sorted({re.sub(r"(cfg_|w\.|x$|params_out|nll|grad_).*", "", n) for n in np.load(path).files})
    ]


@functools.cache
def network(path, prefix: str):
    """The density of a network's weights, its arrays, and the integer images."""
    arrays = read(path, prefix)
    cfg = {k.removeprefix("cfg_"): int(v) for k, v in arrays.items() if k.startswith("cfg_")}
    config = PixelCNNConfig(
        event_shape=arrays["x"].shape[1:],
        filters=cfg["nr_filters"],
        blocks=cfg["nr_resnet"],
        mixtures=cfg["nr_logistic_mix"],
        likelihood="reference",
    )
    weights = {k.removeprefix("w."): v for k, v in arrays.items() if k.startswith("w.")}
    return pixelcnn(weights, config), config, arrays, np.round((arrays["x"] + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("case", groups())
def test_golden_pixelcnn_network(case):
    """Outputs, likelihood, and the gradient that goes back through everything."""
    density, config, arrays, x = network(*case)
    order = parameter_order(config.event_shape[2], config.mixtures)
    image = jnp.asarray(arrays["x"])
    outputs = jax.jit(density.network)(image)
    np.testing.assert_allclose(outputs, arrays["params_out"][..., order], rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(-density.log_prob(x), arrays["nll"], rtol=1e-9, atol=1e-8)

    structure, params, fixed = take_apart(density)
    name = "network.above_first.direction"

    @jax.jit
    @jax.grad
    def gradient(direction):
        density = put_together(structure, params | {name: direction}, fixed)
        values = logistic_mixture_log_probs(
            (image + 1) * 127.5,
            LogisticMixture.of(density.network(image), config.event_shape[2], config.mixtures),
            256,
            "reference",
        )
        return -values.sum()

    theirs = arrays["grad_sumnll_u_init_V"]
    theirs = theirs if arrays["w.u_init.g"].ndim == 1 else theirs.transpose(2, 3, 1, 0)
    np.testing.assert_allclose(gradient(params[name]), theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", [c for c in groups() if "openai" in c.id])
def test_golden_pixelcnn_in_float32(case):
    density, _, arrays, x = network(*case)
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), density)
        values = single.log_prob(x)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(-values, arrays["nll"], rtol=2e-5)


def test_golden_pixelcnn_weights_that_do_not_fit():
    path = next(p for p in NETWORKS if "openai" in p.stem)
    _, config, arrays, _ = network(path, "")
    weights = {k.removeprefix("w."): v for k, v in arrays.items() if k.startswith("w.")}
    names = dict(official_names(config))
    assert {f"{layer}.{part}" for layer in names.values() for part in "Vgb"} == set(weights)
    with pytest.raises(ValueError, match="missing"):
        pixelcnn({k: v for k, v in weights.items() if k != "out.b"}, config)
    with pytest.raises(ValueError, match="left over"):
        pixelcnn({**weights, "more": np.zeros(3)}, config)
    with pytest.raises(ValueError, match="to fill direction of shape"):
        pixelcnn({**weights, "u_init.V": np.zeros((2, 3, 4, 9))}, config)
    with pytest.raises(ValueError, match="unconditional"):
        pixelcnn(weights, PixelCNNConfig(num_classes=3))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        parameter_order(2, 10)
    assert unstack(pixelcnn(weights, config)).kind.value == "exact"

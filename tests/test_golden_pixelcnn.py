"""Parity with the official PixelCNN++ code and its PyTorch port: weights and noise in, their
numbers out."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from likejax.distributions import (
    LogisticMixture,
    logistic_mixture_log_probs,
    logistic_mixture_sample,
)
from likejax.models.pixelcnn import PixelCNNConfig
from likejax.nn.repeat import unstack
from likejax.nn.state import merge, split
from likejax.reference.pixelcnn_weights import (
    label_names,
    official_names,
    parameter_order,
    pixelcnn,
    pixelcnn_arrays,
    pixelcnn_port_arrays,
)
from tests.golden import assert_same_arrays, golden_files, read

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
    return logistic_mixture_log_probs(
        (x + 1) * 127.5, mixture_of(params, x.shape[-1]), 256, form
    ).sum(-1)


@functools.partial(jax.jit, static_argnames="form")
def nll_gradient(x, params, form: str):
    return jax.grad(lambda params: -log_prob(x, params, form).sum())(params)


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", ["rgb", "gray", "px"])
def test_golden_pixelcnn_likelihood(path, kind):
    """The reference form gives the official values and gradients; the exact form gives the true
    ones."""
    golden = read(path)
    x, params, nll = (golden[f"{kind}_{name}"] for name in ("x", "params", "nll"))

    def per_example(values):
        return values if kind == "px" else values.sum((-2, -1))

    atol = 1e-6 if kind == "px" else 1e-8
    np.testing.assert_allclose(
        -per_example(log_prob(x, params, "reference")), nll, rtol=1e-9, atol=atol
    )
    gradient = nll_gradient(x, params, "reference")
    np.testing.assert_allclose(gradient, golden[f"{kind}_grad"], rtol=1e-6, atol=1e-8)
    if f"{kind}_logp_exact" in golden:
        np.testing.assert_allclose(
            per_example(log_prob(x, params, "exact")),
            golden[f"{kind}_logp_exact"],
            rtol=1e-10,
            atol=1e-10,
        )


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", ["rgb", "px"])
def test_golden_pixelcnn_likelihood_in_float32(path, kind):
    """In single precision the exact form stays within 2e-5 of the true values, the reference form
    near the official."""
    golden = read(path)
    x, params = (golden[f"{kind}_{name}"].astype(np.float32) for name in ("x", "params"))
    with jax.enable_x64(False):
        exact, reference = (
            np.asarray(log_prob(x, params, form)) for form in ("exact", "reference")
        )
    assert exact.dtype == np.float32
    if kind == "rgb":
        exact, reference = exact.sum((-2, -1)), reference.sum((-2, -1))
        np.testing.assert_allclose(exact, golden["rgb_logp_exact"], rtol=2e-5)
        np.testing.assert_allclose(-reference, golden["rgb_nll"], rtol=2e-5)
        return
    on_grid = golden["px_tag"] != 3
    np.testing.assert_allclose(
        exact[on_grid], golden["px_logp_exact"][on_grid], rtol=2e-5, atol=1e-4
    )


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", ["", "gray_"])
def test_golden_pixelcnn_sampling(path, kind):
    """The recorded noise gives the recorded values, without rounding to levels as the official
    code."""
    golden = read(path)
    u_mix, u_log, x = (golden[f"{kind}samp_{name}"] for name in ("u_mix", "u_log", "x"))
    mixture = mixture_of(jnp.asarray(golden[f"{kind}samp_params"]), x.shape[-1])
    gumbel, logistic = -np.log(-np.log(u_mix)), np.log(u_log) - np.log1p(-u_log)
    ours = logistic_mixture_sample(mixture, jnp.asarray(gumbel), jnp.asarray(logistic), None)
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-9)


# The whole network


def groups() -> list:
    """Every network of every file; those of the PyTorch port have the prefixes ``rgb`` and
    ``gray``."""
    return [
        pytest.param((path, prefix), id=f"{path.stem}-{prefix or 'all'}".removesuffix("."))
        for path in NETWORKS
        for prefix in sorted(
            {re.sub(r"(cfg_|w\.|x$|params_out|nll|grad_).*", "", n) for n in np.load(path).files}
        )
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
    return (
        pixelcnn(weights, config),
        config,
        arrays,
        np.round((arrays["x"] + 1) * 127.5).astype(np.uint8),
    )


@pytest.mark.parametrize("case", groups())
def test_golden_pixelcnn_network(case):
    """Outputs, likelihood, and the gradient that goes back through everything."""
    density, config, arrays, x = network(*case)
    order = parameter_order(config.event_shape[2], config.mixtures)
    image = jnp.asarray(arrays["x"])
    np.testing.assert_allclose(-density.log_prob(x), arrays["nll"], rtol=1e-9, atol=1e-8)

    structure, params, fixed = split(density)
    name = "network.above_first.direction"

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_outputs(direction):
        density = merge(structure, params | {name: direction}, fixed)
        outputs = density.network(image)
        values = logistic_mixture_log_probs(
            (image + 1) * 127.5,
            LogisticMixture.of(outputs, config.event_shape[2], config.mixtures),
            256,
            "reference",
        )
        return -values.sum(), outputs

    gradient, outputs = gradient_and_outputs(params[name])
    np.testing.assert_allclose(outputs, arrays["params_out"][..., order], rtol=1e-9, atol=1e-8)
    theirs = arrays["grad_sumnll_u_init_V"]
    theirs = theirs if arrays["w.u_init.g"].ndim == 1 else theirs.transpose(2, 3, 1, 0)
    np.testing.assert_allclose(gradient, theirs, rtol=1e-6, atol=1e-8)


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
    with pytest.raises(ValueError, match=r"expected u_init.V of shape"):
        pixelcnn({**weights, "u_init.V": np.zeros((2, 3, 4, 9))}, config)
    with pytest.raises(ValueError, match="unconditional"):
        pixelcnn(weights, PixelCNNConfig(num_classes=3))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        parameter_order(2, 10)
    assert unstack(pixelcnn(weights, config)).kind.value == "exact"


# Labels, and checkpoints


def with_labels(arrays, config, classes: int):
    """The official weights of a conditional model: those of a file and random ones for the
    labels."""
    rng = np.random.default_rng(0)
    conditional = dataclasses.replace(config, num_classes=classes)
    rows = {
        official: rng.normal(size=(classes, 2 * config.filters))
        for _, official in label_names(conditional)
    }
    return arrays | rows, conditional


def test_golden_pixelcnn_conditional():
    """The row of a label is what the bias of every block's second convolution has more."""
    path = next(p for p in NETWORKS if "openai" in p.stem)
    _, config, arrays, x = network(path, "")
    plain = {k.removeprefix("w."): v for k, v in arrays.items() if k.startswith("w.")}
    labeled, conditional = with_labels(plain, config, classes=3)
    density = pixelcnn(labeled, conditional)
    labels = np.array([2, 0])
    got = density.log_prob(x[:2], condition=labels)
    for i, label in enumerate(labels):
        moved = dict(plain)
        for name, rows in labeled.items():
            if name.endswith(".hw"):
                bias = name.removesuffix("hw") + "conv2.b"
                moved[bias] = plain[bias] + rows[label]
        np.testing.assert_allclose(got[i], pixelcnn(moved, config).log_prob(x[:2])[i], rtol=1e-10)
    with pytest.raises(ValueError, match=r"missing \['dn0.u0.hw'\]"):
        pixelcnn({k: v for k, v in labeled.items() if k != "dn0.u0.hw"}, conditional)
    with pytest.raises(ValueError, match=r"up0.u0.hw of shape \(3, "):
        pixelcnn(labeled | {"up0.u0.hw": np.zeros((4, 2))}, conditional)


# One block on a level, in the order of the official graph: up the levels, and down again
IN_ORDER = {
    "conv2d": """
        u_init ul_init_a ul_init_b
        up0.u0.conv1 up0.u0.conv2 up0.ul0.conv1 up0.ul0.conv2 down_u0 down_ul0
        up1.u0.conv1 up1.u0.conv2 up1.ul0.conv1 up1.ul0.conv2 down_u1 down_ul1
        up2.u0.conv1 up2.u0.conv2 up2.ul0.conv1 up2.ul0.conv2
        dn0.u0.conv1 dn0.u0.conv2 dn0.ul0.conv1 dn0.ul0.conv2
        dn1.u0.conv1 dn1.u0.conv2 dn1.ul0.conv1 dn1.ul0.conv2
        dn1.u1.conv1 dn1.u1.conv2 dn1.ul1.conv1 dn1.ul1.conv2
        dn2.u0.conv1 dn2.u0.conv2 dn2.ul0.conv1 dn2.ul0.conv2
        dn2.u1.conv1 dn2.u1.conv2 dn2.ul1.conv1 dn2.ul1.conv2
    """,
    "dense": """
        up0.ul0.skip up1.ul0.skip up2.ul0.skip dn0.u0.skip dn0.ul0.skip
        dn1.u0.skip dn1.ul0.skip dn1.u1.skip dn1.ul1.skip
        dn2.u0.skip dn2.ul0.skip dn2.u1.skip dn2.ul1.skip out
    """,
    "deconv2d": "up_u0 up_ul0 up_u1 up_ul1",
    "conditional_weights": """
        up0.u0 up0.ul0 up1.u0 up1.ul0 up2.u0 up2.ul0 dn0.u0 dn0.ul0
        dn1.u0 dn1.ul0 dn1.u1 dn1.ul1 dn2.u0 dn2.ul0 dn2.u1 dn2.ul1
    """,
}


def as_checkpoint(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays as variables of a TensorFlow checkpoint: averages, and other weights of the
    last step."""
    checkpoint = {"Variable": np.ones(()), "Variable_1": np.zeros((2, 3, 4, 8))}
    for kind, officials in IN_ORDER.items():
        for number, official in enumerate(officials.split()):
            for part in ("hw",) if kind == "conditional_weights" else ("V", "g", "b"):
                if f"{official}.{part}" in arrays:
                    variable = f"model/{kind}_{number}/{part}"
                    checkpoint[variable] = arrays[f"{official}.{part}"] + 1
                    checkpoint[f"{variable}/ExponentialMovingAverage"] = arrays[
                        f"{official}.{part}"
                    ]
    return checkpoint


@pytest.mark.parametrize("classes", [0, 3])
def test_golden_pixelcnn_checkpoint(tmp_path, classes):
    """A small file with the official variable names gives what the arrays themselves give."""
    path = next(p for p in NETWORKS if "openai" in p.stem)
    _, config, arrays, _ = network(path, "")
    if config.blocks != 1:
        pytest.skip("the names are written down for one block on a level")
    arrays = {k.removeprefix("w."): v for k, v in arrays.items() if k.startswith("w.")}
    arrays, config = with_labels(arrays, config, classes) if classes else (arrays, config)
    np.savez(tmp_path / "checkpoint.npz", **as_checkpoint(arrays))
    with np.load(tmp_path / "checkpoint.npz") as checkpoint:
        read = pixelcnn_arrays(checkpoint, config)
        last = pixelcnn_arrays(checkpoint, config, weights="last")
        with pytest.raises(ValueError, match=r"expected 'conv2d_39/V' in the checkpoint"):
            pixelcnn_arrays(checkpoint, dataclasses.replace(config, blocks=2))
    assert_same_arrays(pixelcnn(read, config), pixelcnn(arrays, config))
    np.testing.assert_array_equal(last["dn2.ul1.conv2.V"], arrays["dn2.ul1.conv2.V"] + 1)


def as_state_dict(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays under the names of the PyTorch port."""
    layers = {"conv1": "conv_input.conv", "conv2": "conv_out.conv", "skip": "nin_skip.lin_a"}
    names = {"u_init": "u_init.conv", "ul_init_a": "ul_init.0.conv", "ul_init_b": "ul_init.1.conv"}
    names["out"] = "nin_out.lin_a"
    for stream in ("u", "ul"):
        for i in range(2):
            names[f"down_{stream}{i}"] = f"downsize_{stream}_stream.{i}.conv"
            names[f"up_{stream}{i}"] = f"upsize_{stream}_stream.{i}.deconv"
        for way, official in (("up", "up"), ("down", "dn")):
            for s in range(3):
                for r in range(9):
                    for ours, theirs in layers.items():
                        name = f"{way}_layers.{s}.{stream}_stream.{r}.{theirs}"
                        names[f"{official}{s}.{stream}{r}.{ours}"] = name
    parts = {"V": "weight_v", "g": "weight_g", "b": "bias"}
    state = {}
    for name, value in arrays.items():
        layer, part = name.rsplit(".", 1)
        state[f"{names[layer]}.{parts[part]}"] = value
    return state


@pytest.mark.parametrize("case", [c for c in groups() if "torchport" in c.id])
def test_golden_pixelcnn_port_checkpoint(tmp_path, case):
    """The names of the PyTorch port, with and without what DataParallel puts in front."""
    _, config, arrays, _ = network(*case)
    arrays = {k.removeprefix("w."): v for k, v in arrays.items() if k.startswith("w.")}
    state = as_state_dict(arrays)
    np.savez(
        tmp_path / "state_dict.npz", **{f"module.{name}": value for name, value in state.items()}
    )
    with np.load(tmp_path / "state_dict.npz") as saved:
        read = pixelcnn_port_arrays(saved, config)
    assert_same_arrays(pixelcnn(read, config), pixelcnn(arrays, config))
    assert pixelcnn_port_arrays(state, config).keys() == read.keys()
    with pytest.raises(ValueError, match=r"no other arrays in the checkpoint, got more\.weight"):
        pixelcnn_port_arrays(state | {"more.weight": np.zeros(3)}, config)
    with pytest.raises(ValueError, match="the PyTorch port has no labels"):
        pixelcnn_port_arrays(state, dataclasses.replace(config, num_classes=3))

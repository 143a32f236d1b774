"""Parity with the official FFJORD code: its weights and noise in, its numbers out, in float64."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax.bijections import ODE, BatchNorm, Chain, Repeat
from likejax.bijections.ode import Solver, Trace
from likejax.density import bits_per_dim
from likejax.nn.repeat import unstack
from likejax.nn.state import split
from likejax.reference.ffjord_weights import ffjord, ffjord_arrays
from tests.golden import assert_same_arrays, golden_files, groups, read, weights

VECTORS = golden_files("ffjord_t*.npz")
IMAGES = golden_files("ffjord_image*.npz")
pytestmark = pytest.mark.skipif(
    not (VECTORS and IMAGES), reason="no ffjord_*.npz in LIKEJAX_GOLDEN or ../shared/golden"
)

TIGHT = Solver(rtol=1e-9, atol=1e-9)
PAPER = Solver(rtol=1e-5, atol=1e-5)
NOISES = ("gauss", "rademacher")


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def vectors(golden, solver: Solver = TIGHT, training: Solver = PAPER) -> lj.Density:
    config = lj.models.FFJORDConfig(
        dimensions=int(golden["cfg_dim"]),
        hidden=tuple(map(int, golden["cfg_hidden"])),
        flows=int(golden["cfg_num_blocks"]),
        activation=str(golden["cfg_nonlinearity"]),
        solver=solver,
        training_solver=training,
    )
    return unstack(ffjord(weights(golden), config))


def images(golden, solver: Solver = TIGHT, probes: int | None = 1) -> lj.models.Dequantized:
    channels, height, width = map(int, golden["cfg_shape"])
    config = lj.models.ImageFFJORDConfig(
        event_shape=(height, width, channels),
        hidden=tuple(map(int, golden["cfg_hidden"])),
        flows=int(golden["cfg_n_blocks"]),
        alpha=float(golden["cfg_alpha"]),
        trace=Trace(probes=probes),
        training_trace=Trace(probes=1),
        solver=solver,
        training_solver=PAPER,
    )
    return unstack(ffjord(weights(golden), config))


def maps(bijection) -> list:
    """The single maps of a chain, in order."""
    if isinstance(bijection, Chain):
        return [one for part in bijection.bijections for one in maps(part)]
    if isinstance(bijection, Repeat):
        return [one for block in bijection.blocks.blocks for one in maps(block)]
    return [bijection]


def with_noise(bijection, x, noise):
    """Latents and log-determinant of a batch, the i-th continuous flow with the i-th noise."""
    noise, factored, total = iter(noise), (), jnp.zeros(len(x))
    for one in maps(bijection):
        if isinstance(one, ODE):
            e = next(noise)
            z, log_det = jax.vmap(lambda x, e, one=one: one.forward_with_probes(x, e[None]))(x, e)
        else:
            z, log_det = jax.vmap(one.forward)(x)
        x, *rest = z if isinstance(z, tuple) else (z,)
        factored, total = (*rest, *factored), total + log_det
    return (x, *factored), total


def standard_normal(z) -> jax.Array:
    return sum(-0.5 * (part**2 + np.log(2 * np.pi)).reshape(len(part), -1).sum(1) for part in z)


def last_channels(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def flat_latents(z) -> np.ndarray:
    """As the official code joins them: factored parts in order, then the last; channels first."""
    top, *factored = z
    return np.concatenate(
        [np.moveaxis(np.asarray(p), -1, 1).reshape(len(p), -1) for p in (*factored[::-1], top)], 1
    )


@pytest.mark.parametrize("golden", groups(VECTORS))
def test_golden_ffjord_vectors(golden):
    """Latents, exact log-density, Hutchinson's with the recorded noise, and decoded latents."""
    density = vectors(golden)
    x = jnp.asarray(golden["x"])
    assert ("bn0.shift" in weights(golden)) == any(
        isinstance(one, BatchNorm) for one in maps(density.bijection)
    )
    np.testing.assert_allclose(density.log_prob(x), golden["logp"], atol=2e-6)
    np.testing.assert_allclose(density.encode(x), golden["z"], atol=2e-6)
    back = density.decode(jnp.asarray(golden["z_base"]))
    np.testing.assert_allclose(back, golden["x_from_z_base"], atol=2e-6)
    np.testing.assert_allclose(density.log_prob(back), golden["logp_of_x_from_z_base"], atol=2e-6)
    run = jax.jit(lambda x, noise: with_noise(density.bijection, x, noise))
    for noise in NOISES:
        z, log_det = run(x, golden[f"noise_{noise}"])
        np.testing.assert_allclose(
            standard_normal(z) + log_det, golden[f"logp_hutch_{noise}"], atol=2e-6
        )


@pytest.mark.parametrize("golden", groups(VECTORS))
def test_golden_ffjord_effort(golden):
    """At the paper's tolerance one solve of the batch takes about the recorded evaluations, to the
    recorded numbers.
    """
    density = vectors(golden)
    terms = density.terms(jnp.asarray(golden["x"]))
    for name in ("tde001", "tde025"):
        recorded = golden[f"nfe_1e-5_exact_{name}"]
        assert abs(float(terms.parts["evaluations"][0]) - recorded.sum()) <= 12 * len(recorded)
        np.testing.assert_allclose(terms.log_prob, golden[f"logp_1e-5_exact_{name}"], atol=2e-3)


ADJOINTS = {
    "ffjord_toy2d_public-plain": ["checkpointed"],
    "ffjord_tabular_public-plain": ["continuous"],
}
"""Of single flows, one each; of the others, with normalizations between flows, both."""


def adjoints() -> list:
    return [
        pytest.param(*case.values, adjoint, id=f"{case.id}-{adjoint}")
        for case in groups(VECTORS)
        for adjoint in ADJOINTS.get(str(case.id), ["checkpointed", "continuous"])
    ]


@pytest.mark.parametrize(("golden", "adjoint"), adjoints())
def test_golden_ffjord_gradients(golden, adjoint):
    """Gradients of the mean negative log-density, by both adjoints."""
    density = vectors(golden, training=Solver(rtol=1e-8, atol=1e-8, adjoint=adjoint))
    x = jnp.asarray(golden["x"])
    gradient = jax.jit(jax.grad(lambda density: -jnp.mean(density.terms(x).log_prob)))(density)
    # the reference names its own arrays: the same importer, run on gradients, must give these
    # gradients
    names = [k.removeprefix("grad.") for k in golden if k.startswith("grad.")]
    official = weights(golden) | {name: golden[f"grad.{name}"] for name in names}
    expected = unstack(ffjord(official, density_config(golden)))
    got, want = split(gradient)[1], split(expected)[1]
    compared = 0
    for name, value in want.items():
        if "dynamics" in name:
            np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
            compared += 1
    assert compared == len(names)


def density_config(golden) -> lj.models.FFJORDConfig:
    return lj.models.FFJORDConfig(
        dimensions=int(golden["cfg_dim"]),
        hidden=tuple(map(int, golden["cfg_hidden"])),
        flows=int(golden["cfg_num_blocks"]),
    )


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
def test_golden_ffjord_images(path):
    """Latents, log-density and bits per dimension with the recorded noise; decoded latents."""
    golden = read(path)
    density = images(golden)
    y = jnp.asarray(last_channels((golden["pixels"] + golden["dequant_u"]) / 256))
    np.testing.assert_allclose(y, last_channels(golden["x"]), atol=1e-12)
    count = sum(name.startswith("order.") for name in golden)
    run = jax.jit(lambda x, noise: with_noise(density.flow.bijection, x, noise))
    for noise in NOISES:
        recorded = [last_channels(golden[f"noise_{noise}.{i}"]) for i in range(count)]
        z, log_det = run(y, recorded)
        log_prob = standard_normal(z) + log_det
        np.testing.assert_allclose(flat_latents(z), golden["z"], atol=1e-6)
        np.testing.assert_allclose(log_prob, golden[f"logp_hutch_{noise}"], atol=5e-6)
        mass = log_prob - y[0].size * np.log(256)
        np.testing.assert_allclose(
            bits_per_dim(mass, y.shape[1:]), golden[f"bpd_hutch_{noise}"], atol=1e-7
        )
    shapes = jax.tree.leaves(density.flow.latent_shapes())
    parts, rest = [], golden["z_base"]
    for shape in (*shapes[:0:-1], shapes[0]):
        height, width, channels = shape.shape
        part, rest = rest[:, : height * width * channels], rest[:, height * width * channels :]
        parts.append(jnp.asarray(last_channels(part.reshape(-1, channels, height, width))))
    back = density.flow.decode((parts[-1], *parts[-2::-1]))
    np.testing.assert_allclose(back, last_channels(golden["x_from_z_base"]), atol=1e-6)


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
def test_golden_ffjord_images_exactly(path):
    """With the exact trace; and the effort of the joint solve at the paper's tolerance, near the
    recorded.
    """
    golden = read(path)
    density = images(golden, probes=None)
    y = jnp.asarray(last_channels((golden["pixels"] + golden["dequant_u"]) / 256))
    log_prob = density.flow.log_prob(y)
    np.testing.assert_allclose(log_prob, golden["logp_exact"], atol=5e-6)
    mass = log_prob - y[0].size * np.log(256)
    np.testing.assert_allclose(bits_per_dim(mass, y.shape[1:]), golden["bpd_exact"], atol=1e-7)
    effort = density.flow.terms(y, key=0).parts["evaluations"]
    for name in ("tde001", "tde025"):
        recorded = golden[f"nfe_1e-5_hutch_rademacher_{name}"]
        assert abs(float(effort[0]) - recorded.sum()) <= 12 * len(recorded)


def test_golden_ffjord_weights_that_do_not_fit():
    golden = groups(VECTORS)[0].values[0]
    config = density_config(golden)
    arrays = weights(golden)
    with pytest.raises(ValueError, match=r"left over \['cnf0.layer9.W'\]"):
        ffjord(arrays | {"cnf0.layer9.W": np.zeros(2)}, config)
    with pytest.raises(ValueError, match=r"missing \['cnf0.layer0.b'\]"):
        ffjord({k: v for k, v in arrays.items() if k != "cnf0.layer0.b"}, config)
    with pytest.raises(ValueError, match=r"expected cnf0.layer0.b of shape"):
        ffjord(arrays | {"cnf0.layer0.b": np.zeros(3)}, config)


LAYER_PARTS = {
    "W": "_layer.weight",
    "b": "_layer.bias",
    "gate_w": "_hyper_gate.weight",
    "gate_b": "_hyper_gate.bias",
    "tbias_w": "_hyper_bias.weight",
}
NORM_PARTS = {
    "log_scale": "weight",
    "shift": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
}


def as_state_dict(arrays: dict[str, np.ndarray], places: dict[str, str]) -> dict[str, np.ndarray]:
    """The same arrays under the names of the official code, given where flows and normalizations
    stand in it.
    """
    state = {}
    for name, value in arrays.items():
        part = next(part for part in places if name.startswith(f"{part}."))
        rest = name.removeprefix(f"{part}.")
        place = places[part]
        if rest == "sqrt_T":
            state[f"{place}.sqrt_end_time"] = value
            state[f"{place}.odefunc._num_evals"] = np.zeros(())
        elif rest in NORM_PARTS:
            state[f"{place}.{NORM_PARTS[rest]}"] = value
            state[f"{place}.step"] = np.zeros(1)
        else:
            layer, kind = rest.split(".")
            column = value[:, None] if kind in ("gate_w", "tbias_w") else value
            number = layer.removeprefix("layer")
            state[f"{place}.odefunc.diffeq.layers.{number}.{LAYER_PARTS[kind]}"] = column
    return state


def round_trip(path, state: dict[str, np.ndarray], arrays: dict[str, np.ndarray], config) -> None:
    np.savez(path, **state)
    with np.load(path) as saved:
        read = ffjord_arrays(saved, config)
    assert_same_arrays(ffjord(read, config), ffjord(arrays, config))


@pytest.mark.parametrize("golden", groups(VECTORS))
def test_golden_ffjord_vector_checkpoint(tmp_path, golden):
    """A small file with the official names, and normalizations between the flows if any."""
    arrays, config = weights(golden), density_config(golden)
    flows = int(golden["cfg_num_blocks"])
    places = {f"cnf{i}": f"chain.{i}" for i in range(flows)}
    if int(golden["cfg_batch_norm"]):
        places = {f"cnf{i}": f"chain.{2 * i + 1}" for i in range(flows)}
        places |= {f"bn{i}": f"chain.{2 * i}" for i in range(flows + 1)}
    state = as_state_dict(arrays, places)
    round_trip(tmp_path / "state_dict.npz", state, arrays, config)
    regularized = {
        name.replace(".odefunc.", ".odefunc.odefunc."): value for name, value in state.items()
    }
    assert ffjord_arrays(regularized, config).keys() == arrays.keys()
    with pytest.raises(ValueError, match=r"no other arrays in the checkpoint, got chain\.0\.more"):
        ffjord_arrays(state | {"chain.0.more": np.zeros(2)}, config)
    with pytest.raises(
        ValueError, match=f"expected {flows + 1} flows, as the config says, got {flows}"
    ):
        ffjord_arrays(state, dataclasses.replace(config, flows=flows + 1))


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
def test_golden_ffjord_image_checkpoint(tmp_path, path):
    """A chain for each scale: the logit in front of the first, a squeeze between the flows of all
    but the last.
    """
    golden = read(path)
    arrays, config = weights(golden), images(golden).config
    scales, flows = int(golden["cfg_n_scale"]), int(golden["cfg_n_blocks"])
    places = {}
    for scale in range(scales):
        first = 1 if scale == 0 else 0
        for i in range(flows):
            if scale == scales - 1:
                places[f"scale{scale}.last{i}"] = f"transforms.{scale}.chain.{first + i}"
                continue
            places[f"scale{scale}.pre{i}"] = f"transforms.{scale}.chain.{first + i}"
            places[f"scale{scale}.post{i}"] = f"transforms.{scale}.chain.{first + flows + 1 + i}"
    round_trip(tmp_path / "state_dict.npz", as_state_dict(arrays, places), arrays, config)


def test_golden_ffjord_swish():
    """The learned factor of swish is read, and is no default where it is missing."""
    golden = groups(VECTORS)[0].values[0]
    config = dataclasses.replace(density_config(golden), activation="swish")
    flows = range(config.flows)
    arrays = weights(golden)
    state = as_state_dict(arrays, {f"cnf{i}": f"chain.{i}" for i in flows})
    fields = [f"chain.{i}.odefunc.diffeq" for i in flows]
    hidden = range(len(config.hidden))
    factors = {
        f"{field}.activation_fns.{number}.beta": np.array(1.7)
        for field in fields
        for number in hidden
    }
    density = ffjord(ffjord_arrays(state | factors, config), config)
    betas = [value for name, value in split(density)[1].items() if name.endswith("dynamics.beta")]
    assert betas
    for beta in betas:
        np.testing.assert_array_equal(beta, 1.7)
    with pytest.raises(ValueError, match=r"missing \['cnf0\.beta'\]"):
        ffjord(arrays, config)

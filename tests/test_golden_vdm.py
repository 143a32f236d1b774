"""Parity with the official variational diffusion models: their weights in, their numbers out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax.density import Terms
from likejax.models.diffusion.denoiser import Hints
from likejax.models.diffusion.density import BoundNoises
from likejax.models.diffusion.process import alpha
from likejax.nn.repeat import stack, unstack
from likejax.nn.state import split
from likejax.reference import vdm
from tests.golden import golden_files, groups, weights

FILES = golden_files("vdm_*.npz")
pytestmark = pytest.mark.skipif(
    not FILES, reason="no vdm_*.npz in LIKEJAX_GOLDEN or ../shared/golden"
)
Arrays = dict[str, np.ndarray]
SCHEDULES = {
    "fixed": "fixed",
    "learnable_scalar": "learned_linear",
    "learnable_nnet": "learned_network",
}


def models() -> list:
    return [case for case in groups(FILES) if "cfg_width" in case.values[0]]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def config_of(golden: Arrays) -> lj.models.VDMConfig:
    """The config that a group of a golden file describes; the official code has 32 groups."""
    cfg = {
        name.removeprefix("cfg_"): value.tolist()
        for name, value in golden.items()
        if name.startswith("cfg_")
    }
    sampler = lj.models.DiffusionSampler(steps=int(golden["samp_T"]))
    return lj.models.VDMConfig(
        event_shape=(*cfg["image_size"], cfg["channels"]),
        levels=cfg["levels"],
        width=cfg["width"],
        blocks=cfg["layers"],
        groups=32,
        attention=bool(cfg["attention"]),
        fourier=bool(cfg["fourier"]),
        schedule=SCHEDULES[cfg["gamma_type"]],
        gamma_min=cfg["gamma_min"],
        gamma_max=cfg["gamma_max"],
        bound=lj.models.BoundSettings(steps=cfg["T"] or None),
        sampler=sampler,
    )


def density_of(golden: Arrays) -> lj.models.VDM:
    return unstack(vdm(weights(golden), config_of(golden)))


def terms_of(density: lj.models.VDM, golden: Arrays) -> Terms:
    """The terms of every example for the recorded noises and times."""

    def one(x, reconstruction, noise, time, flag):
        noises = BoundNoises(reconstruction, noise[None], time[None])
        return density.bound_of_noises(x, noises, hints=Hints(flag=flag[None]))

    names = ("x", "eps_0", "eps", "t_raw", "conditioning")
    return jax.vmap(one)(*(jnp.asarray(golden[name]) for name in names))


@pytest.mark.parametrize("golden", models())
def test_golden_vdm_terms(golden):
    terms = jax.jit(lambda density: terms_of(density, golden))(density_of(golden))
    expected = {
        "reconstruction": -golden["loss_recon"],
        "prior": golden["loss_klz"],
        "diffusion": golden["loss_diff"],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(terms.parts[name], values, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(terms.log_prob, -golden["loss"], rtol=1e-9, atol=1e-9)
    bits = lj.bits_per_dim(terms.log_prob, golden["x"].shape[1:])
    np.testing.assert_allclose(bits, golden["bits_per_dim"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("golden", models())
def test_golden_vdm_schedule(golden):
    density = density_of(golden)
    gamma, rate = density.schedule.with_rate(jnp.asarray(golden["sched_t"]))
    np.testing.assert_allclose(gamma, golden["sched_gamma"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(rate, golden["sched_dgamma"], rtol=1e-9, atol=1e-9)
    variances = [jax.nn.sigmoid(end) for end in density.ends()]
    np.testing.assert_allclose(variances, [golden["var_0"], golden["var_1"]], rtol=1e-9)


@pytest.mark.parametrize("golden", models())
def test_golden_vdm_network(golden):
    """The network alone, also in the form for loops and with its blocks as a scan."""
    density = density_of(golden)
    z, gammas = jnp.asarray(golden["score_z"]), jnp.asarray(golden["score_gamma"])
    hints = Hints(flag=jnp.asarray(golden["conditioning"]))

    @jax.jit
    def output(denoiser, gamma):
        return denoiser(z, jnp.broadcast_to(gamma, z.shape[:1]), None, hints)

    for gamma, expected in zip(gammas, golden["score_out"], strict=True):
        found = output(density.denoiser, gamma)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    found = output(stack(density.denoiser.in_loops()), gammas[0])
    np.testing.assert_allclose(found, golden["score_out"][0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("golden", models())
def test_golden_vdm_gradients(golden):
    density = density_of(golden)

    def mean_loss(density):
        return -terms_of(density, golden).log_prob.mean()

    ours = split(jax.jit(jax.grad(mean_loss, allow_int=True))(density))[1]
    official = {}
    for name, array in weights(golden).items():
        missing = np.full_like(array, np.nan)
        official[name] = golden.get(f"grad_mean_loss.{name}", missing)
    expected = split(unstack(vdm(official, config_of(golden))))[1]
    stored = {name: value for name, value in expected.items() if not np.isnan(value).any()}
    assert len(stored) >= 3
    for name, gradient in stored.items():
        largest = max(np.abs(gradient).max(), 1e-12)
        # entries at zero are on the kink of the absolute value
        kept = np.asarray(split(density)[1][name]) != 0 if "schedule" in name else True
        difference = np.where(kept, np.asarray(ours[name]) - gradient, 0)
        assert np.abs(difference).max() <= 1e-6 * largest, name


@pytest.mark.parametrize("golden", models())
@pytest.mark.parametrize("which", ["samp", "samp_last"])
def test_golden_vdm_sampling(golden, which):
    """One ancestral step, in the middle and the last; the images' flag is that of the terms."""
    density = density_of(golden)
    sampler = lj.models.DiffusionSampler(steps=int(golden[f"{which}_T"]))
    density = density.with_sampler(sampler)
    noise, z = jnp.asarray(golden[f"{which}_eps"]), jnp.asarray(golden[f"{which}_z_t"])
    step = jax.vmap(lambda z, noise: density.step(z, golden[f"{which}_i"], noise))
    plain = golden["conditioning"] == 0
    found = np.asarray(jax.jit(step)(z, noise))[plain]
    expected = golden[f"{which}_z_s"][plain]
    assert len(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("golden", models())
def test_golden_vdm_decoder(golden):
    density = density_of(golden)
    u = golden["dec_z_0"] / alpha(density.ends()[0])
    np.testing.assert_array_equal(density.embedding.nearest(u), golden["dec_x"])


@pytest.mark.parametrize("golden", models()[:1])
def test_golden_vdm_refuses_other_arrays(golden):
    arrays, config = weights(golden), config_of(golden)
    with pytest.raises(ValueError, match=r"left over .*extra"):
        vdm({**arrays, "extra": np.zeros(1)}, config)
    name, *_ = arrays
    with pytest.raises(ValueError, match=f"missing .*{name}"):
        vdm({k: v for k, v in arrays.items() if k != name}, config)

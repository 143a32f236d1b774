"""Parity with the official neural spline flows: their weights in, their numbers out, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from likejax import bijections as bj
from likejax.bijections.autoregressive import Autoregressive
from likejax.bijections.feature_coupling import FeatureCoupling
from likejax.models.vector_flows import MAFConfig, NSFConfig, VectorFlowConfig
from likejax.nn.repeat import unstack
from likejax.nn.state import split
from likejax.reference import nsf
from likejax.reference.weights import fill, part_at, places
from tests.golden import golden_files, groups, weights

FILES = golden_files("nsf_*.npz")
pytestmark = pytest.mark.skipif(
    not FILES, reason="no nsf_*.npz in LIKEJAX_GOLDEN or ../shared/golden"
)
Arrays = dict[str, np.ndarray]


def groups_with(name: str) -> list:
    return [case for case in groups(FILES) if name in case.values[0]]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def config_of(golden: Arrays) -> VectorFlowConfig:
    """The config that a group of a golden file describes."""
    cfg = {
        name.removeprefix("cfg_"): value.item() for name, value in golden.items() if "cfg_" in name
    }
    kind = str(cfg["kind"])
    condition = (cfg["condition_features"],) if cfg["condition_features"] else None
    sizes = {
        "dimensions": cfg["features"],
        "depth": cfg["steps"],
        "width": cfg["hidden"],
        "blocks": cfg["blocks"],
        "linear": bool(cfg["linear"]),
        "condition_shape": condition,
        "form": "coupling" if kind.endswith("coupling") else "autoregressive",
    }
    if kind.startswith("affine"):
        return MAFConfig(**sizes)
    return NSFConfig(
        **sizes,
        bins=cfg["num_bins"],
        bound=cfg["tail_bound"],
        kept_splines=bool(cfg["unconditional"]),
        identity_init=False,
    )


def density_of(golden: Arrays) -> lj.models.Flow:
    return unstack(nsf(weights(golden), config_of(golden)))


def of_each(golden: Arrays, query, name: str):
    """A query of one example over the rows of an array, with their conditions."""
    rows = jnp.asarray(golden[name])
    if "condition" not in golden:
        return jax.jit(jax.vmap(lambda row: query(row, None)))(rows)
    return jax.jit(jax.vmap(query))(rows, jnp.asarray(golden["condition"]))


@pytest.mark.parametrize("golden", groups_with("cfg_kind"))
def test_golden_nsf_log_prob(golden):
    """Every permutation, linear map and coupling, their composition, and the log-probability."""
    density = density_of(golden)
    names = places(density, (bj.Permutation, bj.LULinear, FeatureCoupling, Autoregressive))
    order = [str(name) for name in golden["order"]]

    def map_through(x, condition):
        found = {}
        for place, name in zip(names, order, strict=True):
            x, log_det = part_at(density, place).forward(x, None, condition)
            found[f"z.{name}"], found[f"logdet.{name}"] = x, log_det
        return found

    found = of_each(golden, map_through, "x")
    found["z"], found["logdet"] = (
        found[f"z.{order[-1]}"],
        sum(found[f"logdet.{name}"] for name in order),
    )
    found["logp"] = density.log_prob(golden["x"], condition=golden.get("condition"))
    for name, values in found.items():
        np.testing.assert_allclose(values, golden[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("golden", groups_with("cfg_kind"))
def test_golden_nsf_inverse(golden):
    density = density_of(golden)
    x = of_each(golden, density.bijection.inverse, "z_base")
    tolerance = 1e-7 if str(golden["cfg_kind"]) == "rq_autoregressive" else 1e-8
    np.testing.assert_allclose(x, golden["x_from_z_base"], rtol=1e-9, atol=tolerance)
    rows = {**golden, "found": np.asarray(x)}
    _, log_det = of_each(rows, lambda x, c: density.bijection.forward(x, None, c), "found")
    np.testing.assert_allclose(-log_det, golden["inv_logdet"], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("golden", groups_with("cfg_kind"))
def test_golden_nsf_gradients(golden):
    """Gradients of the mean log-probability, in the official layout turned into ours."""
    density = density_of(golden)
    mask = golden["grad_mask"]

    def mean_of(density):
        log_prob = of_each(golden, lambda x, c: density._log_prob(x, None, c), "x")
        return jnp.sum(mask * log_prob) / mask.sum()

    ours = split(jax.jit(jax.grad(mean_of, allow_int=True))(density))[1]
    official = dict(weights(golden))
    for name, array in official.items():
        if not name.endswith(".perm"):
            not_stored = np.full_like(array, np.nan)
            official[name] = golden.get(f"grad_mean_logp.{name}", not_stored)
        if name.endswith("autoregressive_net.context_layer.bias"):
            official[name] = np.zeros_like(array)  # two biases of theirs are one of ours
    expected = split(unstack(nsf(official, config_of(golden))))[1]
    assert ours.keys() == expected.keys()
    stored = {name: gradient for name, gradient in expected.items() if not np.isnan(gradient).any()}
    assert len(stored) >= 3
    for name, gradient in stored.items():
        largest = max(np.abs(gradient).max(), 1e-12)
        np.testing.assert_allclose(ours[name], gradient, rtol=0, atol=1e-7 * largest, err_msg=name)


@pytest.mark.parametrize("golden", groups_with("width_logits"))
def test_golden_nsf_splines(golden):
    """Single splines, with points outside, at the bounds, at knots, and steep bins."""
    spline = bj.RationalQuadratic(
        bins=int(golden["cfg_num_bins"]),
        bound=float(golden["cfg_tail_bound"]),
        identity_init=False,
    )
    logits = [golden[f"{part}_logits"] for part in ("width", "height", "slope")]
    parameters = jnp.concatenate(logits, -1)
    z, log_derivative = spline.forward(jnp.asarray(golden["x"]), parameters)
    np.testing.assert_allclose(z, golden["y"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_derivative, golden["logdet"], rtol=1e-9, atol=1e-9)
    x = spline.inverse(jnp.asarray(golden["inv_y"]), parameters)
    np.testing.assert_allclose(x, golden["inv_x"], rtol=1e-9, atol=1e-8)

    def total(parameters):
        z, log_derivative = spline.forward(jnp.asarray(golden["x"]), parameters)
        return jnp.sum(golden["grad_mask"] * (z + log_derivative))

    gradient = jax.grad(total)(parameters)
    parts = [golden[f"grad_{part}_logits"] for part in ("width", "height", "slope")]
    expected = np.concatenate(parts, -1)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("golden", groups_with("w.lower_entries"))
def test_golden_nsf_linear(golden):
    names = {
        "lower": "lower_entries",
        "upper": "upper_entries",
        "diagonal": "unconstrained_upper_diag",
        "bias": "bias",
    }
    linear = fill(bj.LULinear(int(golden["cfg_features"])), weights(golden), names)
    z, log_det = of_each(golden, lambda x, c: linear.forward(x, None, c), "x")
    np.testing.assert_allclose(z, golden["y"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_det, golden["logdet"], rtol=1e-9, atol=1e-9)
    x = of_each(golden, linear.inverse, "inv_y")
    np.testing.assert_allclose(x, golden["inv_x"], rtol=1e-9, atol=1e-8)

    def mean_of(linear):
        z, log_det = of_each(golden, lambda x, c: linear.forward(x, None, c), "x")
        return jnp.mean(log_det - 0.5 * jnp.sum(z**2, -1))

    gradients = split(jax.grad(mean_of)(linear))[1]
    for ours, official in names.items():
        expected = golden[f"grad_mean_logp.{official}"]
        np.testing.assert_allclose(
            gradients[ours], expected, rtol=0, atol=1e-7 * np.abs(expected).max()
        )


@pytest.mark.parametrize("golden", groups_with("cfg_kind")[:1])
def test_golden_nsf_refuses_other_arrays(golden):
    arrays, config = weights(golden), config_of(golden)
    with pytest.raises(ValueError, match=r"left over .*extra"):
        nsf({**arrays, "extra": np.zeros(1)}, config)
    name, *_ = arrays
    with pytest.raises(ValueError, match=f"expected the official array {name}"):
        nsf({k: v for k, v in arrays.items() if k != name}, config)

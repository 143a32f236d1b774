"""Weights of the official neural spline flows, and of their MAF, as a likejax density."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from likejax.bijections.autoregressive import Autoregressive
from likejax.bijections.conv1x1 import Permutation
from likejax.bijections.feature_coupling import FeatureCoupling
from likejax.bijections.linear import LULinear
from likejax.models.building import build
from likejax.models.flow import Flow
from likejax.models.vector_flows import NSFConfig, VectorFlowConfig
from likejax.nn.repeat import for_backend, unstack
from likejax.reference.weights import check_names, fill, places

Named = Iterator[tuple[str, np.ndarray]]
"""Arrays in the layout of likejax, by their name in the density."""


def nsf(arrays: Mapping[str, np.ndarray], config: VectorFlowConfig) -> Flow:
    """Makes a density of the weights of bayesiains/nsf.

    Args:
      arrays: Arrays by ``step{i}.perm``, ``step{i}.lu.NAME`` and ``step{i}.base.NAME``, with the
        names that the classes ``LULinear`` and those of couplings and autoregressive transforms
        give their parameters; matrices are ``(out, in)``.
      config: ``NSFConfig`` or ``MAFConfig`` of the same sizes.

    Returns:
      The density, of the same log-probabilities.

    Raises:
      ValueError: If arrays are missing, left over or of other shapes.

    References:
      Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows, arXiv:1906.04032,
      official code.
    """
    density = unstack(build(config, key=jax.random.key(0)))
    taken = _Taken(arrays)
    ours: dict[str, np.ndarray] = {}
    for i, place in enumerate(places(density, Permutation)):
        ours[f"{place}.order"] = taken[f"step{i}.perm"]
    for i, place in enumerate(places(density, LULinear)):
        ours.update(_linear(taken, f"step{i}.lu", place))
    for i, place in enumerate(places(density, (FeatureCoupling, Autoregressive))):
        ours.update(_base(taken, f"step{i}.base", place, config))
    check_names(arrays, taken.names, config=config)
    return for_backend(fill(density, ours, {name: name for name in ours}))


class _Taken:
    """Arrays, and the names of those that were asked for."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = arrays
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise ValueError(f"expected the official array {name}, which is not there")
        self.names.add(name)
        return np.asarray(self._arrays[name])


def _linear(arrays: _Taken, official: str, place: str) -> Named:
    names = {
        "lower": "lower_entries",
        "upper": "upper_entries",
        "diagonal": "unconstrained_upper_diag",
        "bias": "bias",
    }
    for ours, theirs in names.items():
        yield f"{place}.{ours}", arrays[f"{official}.{theirs}"]


def _base(arrays: _Taken, official: str, place: str, config: VectorFlowConfig) -> Named:
    """Yields the arrays of a coupling or of an autoregressive map."""
    if config.form == "autoregressive":
        yield from _masked_network(arrays, f"{official}.autoregressive_net", place, config)
        yield from _blocks(arrays, f"{official}.autoregressive_net", place, config)
        yield from _last(arrays, f"{official}.autoregressive_net", place, affine_halves=False)
        return
    yield from _network(arrays, f"{official}.transform_net", place, config)
    yield from _blocks(arrays, f"{official}.transform_net", place, config)
    is_affine = not isinstance(config, NSFConfig)
    yield from _last(arrays, f"{official}.transform_net", place, affine_halves=is_affine)
    if isinstance(config, NSFConfig) and config.kept_splines:
        parts = ("unnormalized_widths", "unnormalized_heights", "unnormalized_derivatives")
        splines = [arrays[f"{official}.unconditional_transform.{part}"] for part in parts]
        yield f"{place}.kept_map.parameters", np.concatenate(splines, -1)


def _network(arrays: _Taken, official: str, place: str, config: VectorFlowConfig) -> Named:
    """Yields the first layer of a coupling's network, which reads features and condition."""
    kernel = arrays[f"{official}.initial_layer.weight"].T
    features = len(kernel) - (config.condition_size or 0)
    yield f"{place}.network.first.kernel", kernel[:features]
    yield f"{place}.network.first.bias", arrays[f"{official}.initial_layer.bias"]
    if config.condition_size is not None:
        yield f"{place}.network.first_condition", kernel[features:]


def _masked_network(arrays: _Taken, official: str, place: str, config: VectorFlowConfig) -> Named:
    """Yields the first layer of a masked network; that of the condition has its own bias."""
    bias = arrays[f"{official}.initial_layer.bias"]
    yield f"{place}.network.first.kernel", arrays[f"{official}.initial_layer.weight"].T
    if config.condition_size is not None:
        yield f"{place}.network.first_condition", arrays[f"{official}.context_layer.weight"].T
        bias = bias + arrays[f"{official}.context_layer.bias"]
    yield f"{place}.network.first.bias", bias


def _blocks(arrays: _Taken, official: str, place: str, config: VectorFlowConfig) -> Named:
    for i in range(config.blocks):
        ours, theirs = f"{place}.network.blocks.{i}", f"{official}.blocks.{i}"
        for k, layer in enumerate(("first", "second")):
            yield f"{ours}.{layer}.kernel", arrays[f"{theirs}.linear_layers.{k}.weight"].T
            yield f"{ours}.{layer}.bias", arrays[f"{theirs}.linear_layers.{k}.bias"]
        if config.condition_size is not None:
            yield f"{ours}.gate", arrays[f"{theirs}.context_layer.weight"].T
            yield f"{ours}.gate_bias", arrays[f"{theirs}.context_layer.bias"]


def _last(arrays: _Taken, official: str, place: str, *, affine_halves: bool) -> Named:
    """Yields the last layer; an affine coupling of the official code has all shifts, then all a."""
    kernel = arrays[f"{official}.final_layer.weight"].T
    bias = arrays[f"{official}.final_layer.bias"]
    order = np.arange(len(bias))
    if affine_halves:
        shift, a = np.split(order, 2)
        order = np.stack([a, shift], -1).reshape(-1)
    yield f"{place}.network.last.kernel", kernel[:, order]
    yield f"{place}.network.last.bias", bias[order]

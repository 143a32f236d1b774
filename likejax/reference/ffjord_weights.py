"""Weights of the official FFJORD code as a likejax density."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from likejax.bijections.chain import Chain
from likejax.bijections.ode import ODE
from likejax.bijections.standardize import BatchNorm
from likejax.density import Density
from likejax.models import build
from likejax.models.ffjord import FFJORDConfig, ImageFFJORDConfig
from likejax.models.flow import Flow
from likejax.nn.repeat import for_backend, unstack
from likejax.nn.state import split
from likejax.reference.checkpoints import refuse_left_over, state_dict_arrays
from likejax.reference.weights import check_names, fill, part_at, places

_LAYER = {
    "kernel": "W",
    "bias": "b",
    "gate_weight": "gate_w",
    "gate_bias": "gate_b",
    "shift": "tbias_w",
}
_STATE_LAYER = {
    "_layer.weight": "W",
    "_layer.bias": "b",
    "_hyper_gate.weight": "gate_w",
    "_hyper_gate.bias": "gate_b",
    "_hyper_bias.weight": "tbias_w",
}
_STATE_NORM = {
    "weight": "log_scale",
    "bias": "shift",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
_COUNTERS = re.compile(r"(.*\.)?(_num_evals|step)")


def ffjord_arrays(
    state_dict: Mapping[str, Any], config: FFJORDConfig | ImageFFJORDConfig
) -> dict[str, np.ndarray]:
    """Returns the arrays for ``ffjord`` from the ``state_dict`` of an official checkpoint.

    PyTorch reads such a checkpoint, ``SAVE/checkpt.pth`` for example::

        saved = torch.load(path, map_location="cpu")["state_dict"]
        state_dict = {name: value.numpy() for name, value in saved.items()}
        arrays = likejax.reference.ffjord_arrays(state_dict, config)
        density = likejax.reference.ffjord(arrays, config)

    Its names are ``chain.0.sqrt_end_time``, ``chain.0.odefunc.diffeq.layers.0._layer.weight`` and
    so on for vectors, with ``transforms.SCALE.`` in front for images, and ``chain.0.running_mean``
    for a batch normalization. A regularized flow has one more ``odefunc.``.

    Args:
      state_dict: Arrays by name.
      config: The config of the same sizes.

    Raises:
      ValueError: If arrays are left over, or there are more or fewer flows than the config says.
    """
    theirs = state_dict_arrays(state_dict)
    suffix = ".sqrt_end_time"
    places = sorted(
        (name.removesuffix(suffix) for name in theirs if name.endswith(suffix)), key=_numbers
    )
    flows = _official_flows(config)
    if len(places) != len(flows):
        raise ValueError(
            f"expected {len(flows)} flows, as the config says, got {len(places)} in the checkpoint"
        )
    official_of = dict(zip(places, flows, strict=True))
    suffix = ".running_mean"
    norms = sorted(
        (name.removesuffix(suffix) for name in theirs if name.endswith(suffix)), key=_numbers
    )
    official_of |= {place: f"bn{i}" for i, place in enumerate(norms)}
    arrays: dict[str, np.ndarray] = {}
    taken = [name for name in theirs if _COUNTERS.fullmatch(name)]
    for name, value in theirs.items():
        place = next((place for place in official_of if name.startswith(place + ".")), None)
        if place is None or name in taken:
            continue
        part = _official_part(name.removeprefix(place + "."))
        if part is None:
            continue
        if part.endswith(("gate_w", "tbias_w")):
            value = value.reshape(-1)  # from one input, the time
        arrays[f"{official_of[place]}.{part}"] = value
        taken.append(name)
    refuse_left_over(theirs, taken)
    return arrays


def _numbers(name: str) -> list[int]:
    """Returns the numbers in a name, by which ``chain.10`` comes after ``chain.9``."""
    return [int(word) for word in name.split(".") if word.isdigit()]


def _official_part(name: str) -> str | None:
    """Returns the name of an array of a flow or normalization here; ``None`` if it has none."""
    if name == "sqrt_end_time":
        return "sqrt_T"
    if name in _STATE_NORM:
        return _STATE_NORM[name]
    if re.fullmatch(r"odefunc\.(?:odefunc\.)?diffeq\.activation_fns\.\d+\.beta", name):
        return "beta"  # of all layers: the official code shares it
    layer = re.fullmatch(r"odefunc\.(?:odefunc\.)?diffeq\.layers\.(\d+)\.(.+)", name)
    if layer is None or layer.group(2) not in _STATE_LAYER:
        return None
    return f"layer{layer.group(1)}.{_STATE_LAYER[layer.group(2)]}"


def ffjord(arrays: Mapping[str, Any], config: FFJORDConfig | ImageFFJORDConfig) -> Density:
    """Returns the density of the official weights.

    Names are ``FLOW.sqrt_T`` and ``FLOW.layerL.W|b|gate_w|gate_b|tbias_w``, where ``FLOW`` is
    ``cnf0``, ``cnf1``, ... for vectors and ``scale0.pre0``, ``scale0.post0``, ...,
    ``scaleS.last0``, ... for images; ``W`` is (out, in) for vectors and (out, in, rows, columns)
    for images. A field whose activation is swish has its ``FLOW.beta``. With ``bn0.log_scale``,
    ``bn0.shift``, ``bn0.running_mean`` and ``bn0.running_var``, ``bn1.`` ... a batch normalization
    stands before every flow and after the last.

    Args:
      arrays: Weights by official name; ``ffjord_arrays`` reads them from a checkpoint.
      config: Sizes, solvers and traces of the density; of a float64 computation if JAX's x64 mode
        is on.

    Returns:
      A density ready to evaluate or to train further.

    Raises:
      ValueError: If an array is missing, left over, or of another shape.
    """
    flows = _official_flows(config)
    density = unstack(build(config, key=0))
    odes = places(density, ODE)
    names = dict(_names(density, odes, flows, swish=config.activation == "swish"))
    matched = (re.match(r"bn(\d+)\.", name) for name in arrays)
    norms = sorted({int(match.group(1)) for match in matched if match})
    of_norms = [f"bn{i}.{part}" for i in norms for part in _STATE_NORM.values()]
    check_names(arrays, [*names.values(), *of_norms], config=config)
    values = {official: _in_our_layout(arrays[official], official) for official in names.values()}
    density = fill(density, values, names)
    if not norms:
        return for_backend(density)
    if norms != list(range(len(flows) + 1)):
        raise ValueError(
            f"expected batch normalizations bn0 to bn{len(flows)}, one more than flows, got {norms}"
        )
    first, *others = (_batch_norm(arrays, i) for i in norms)
    chain = [first]
    for place, norm in zip(odes, others, strict=True):
        chain += [part_at(density, place), norm]
    return Flow(Chain(chain), density.event_shape)


def _names(
    density: Density, odes: Sequence[str], flows: Sequence[str], *, swish: bool
) -> Iterator[tuple[str, str]]:
    """Yields the dotted name of every array of the flows and its official name."""
    structure, _, _ = split(density)
    for ode, flow in zip(odes, flows, strict=True):
        yield f"{ode}.sqrt_end_time", f"{flow}.sqrt_T"
        if swish:
            yield f"{ode}.dynamics.beta", f"{flow}.beta"
        layers = f"{ode}.dynamics.layers."
        for name in structure.names:
            if name.startswith(layers):
                number, part = name.removeprefix(layers).split(".")
                yield name, f"{flow}.layer{number}.{_LAYER[part]}"


def _in_our_layout(array: object, official: str) -> np.ndarray:
    """Returns a kernel as (rows, columns, in, out), other arrays as they are."""
    value = np.asarray(array)
    if not official.endswith(".W"):
        return value
    if value.ndim not in (2, 4):
        raise ValueError(f"expected {official} of 2 or 4 axes, got shape {value.shape}")
    kernel = value.reshape(*value.shape, *(1,) * (4 - value.ndim))
    return kernel.transpose(2, 3, 1, 0)


def _official_flows(config: FFJORDConfig | ImageFFJORDConfig) -> list[str]:
    if isinstance(config, FFJORDConfig):
        return [f"cnf{i}" for i in range(config.flows)]
    names = []
    for scale in range(config.scales):
        places = ("last",) if scale == config.scales - 1 else ("pre", "post")
        names += [f"scale{scale}.{place}{i}" for place in places for i in range(config.flows)]
    return names


def _batch_norm(arrays: Mapping[str, Any], number: int) -> BatchNorm:
    parts = ("running_mean", "running_var", "log_scale", "shift")
    mean, variance, log_scale, shift = (
        jnp.asarray(arrays[f"bn{number}.{part}"], float) for part in parts
    )
    return BatchNorm(mean, variance, log_scale, shift)

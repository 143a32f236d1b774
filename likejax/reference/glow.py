"""Weights of the official Glow code as a likejax density."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from likejax.models import build
from likejax.models.dequantise import Dequantised
from likejax.models.glow import GlowConfig
from likejax.nn.depth import for_backend, unstack
from likejax.train.state import put_together, take_apart

_FLOW = "density.bijection.bijections"


def official_names(config: GlowConfig) -> Iterator[tuple[str, str]]:
    """Pairs of a parameter's name in an unstacked likejax Glow and in the official checkpoint.

    The official names are ``LEVEL.STEP.actnorm_center.b``, ``LEVEL.STEP.f1.l_1.W``, ``poolLEVEL.conv.W``,
    ``prior.p.W``, ``prior.y_emb.W`` and so on.
    """
    for level in range(config.scales):
        for step in range(config.depth):
            ours = f"{_FLOW}.{3 * level + 2}.blocks.blocks.{step}.bijections"
            theirs = f"{level}.{step}"
            yield f"{ours}.0.affine.bias", f"{theirs}.actnorm_center.b"
            yield f"{ours}.0.affine.log_scale", f"{theirs}.actnorm_scale.logs"
            for name, official in _PERMUTATION[config.permutation].items():
                yield f"{ours}.1.{name}", f"{theirs}.invconv.{official}"
            network = f"{ours}.2.network"
            for layer, official in (("first", "l_1"), ("second", "l_2")):
                yield f"{network}.{layer}.kernel", f"{theirs}.f1.{official}.W"
                yield f"{network}.{layer}_affine.bias", f"{theirs}.f1.{official}.actnorm_center.b"
                yield f"{network}.{layer}_affine.log_scale", f"{theirs}.f1.{official}.actnorm_scale.logs"
            yield from _zeros(f"{network}.last", f"{theirs}.f1.l_last")
        if level < config.scales - 1:
            yield from _zeros(f"{_FLOW}.{3 * level + 3}.prior", f"pool{level}.conv")
    prior = f"{_FLOW}.{3 * config.scales}"
    if config.learned_prior:
        yield from _zeros(f"{prior}.prior", "prior.p")
    if config.num_classes:
        yield from _zeros(f"{prior}.embedding.linear", "prior.y_emb")


_PERMUTATION: dict[str, dict[str, str]] = {
    "conv1x1": {"weight": "W"},
    "conv1x1_lu": {"permutation": "P", "lower": "L", "upper": "U", "log_scale": "log_S", "sign": "sign_S"},
    "reverse": {},
}


def _zeros(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.linear.kernel", f"{theirs}.W"
    yield f"{ours}.bias", f"{theirs}.b"
    yield f"{ours}.log_scale", f"{theirs}.logs"


def glow(arrays: Mapping[str, Any], config: GlowConfig) -> Dequantised:
    """The density of the official implementation's weights.

    Args:
      arrays: The official variables by name, as ``official_names`` lists them. In float64 if JAX has 64 bits
        enabled, else in float32.
      config: Of the same sizes; ``permutation="shuffle"`` is not stored by the official code and is refused.

    Returns:
      A ``Dequantised`` flow. The classifier of a conditional model, which the likelihood does not use, is as
      initialised.

    Raises:
      ValueError: If an array is missing, left over, or of another shape than the config says.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039; its official code in TensorFlow 1.
    """
    if config.permutation not in _PERMUTATION:
        raise ValueError(f"expected permutation {' or '.join(_PERMUTATION)}, got {config.permutation!r}")
    structure, params, fixed = take_apart(unstack(build(config, key=0)))
    ours = {**params, **fixed}
    pairs = dict(official_names(config))
    missing = sorted(set(pairs.values()) - set(arrays))
    left_over = sorted(set(arrays) - set(pairs.values()))
    if missing or left_over:
        raise ValueError(f"expected the variables of {config}; missing {missing[:5]}, left over {left_over[:5]}")
    for name, official in pairs.items():
        array = np.asarray(arrays[official])
        if array.size != ours[name].size:
            raise ValueError(f"expected {official} to fill shape {ours[name].shape}, got {array.shape}")
        ours[name] = jnp.asarray(array.reshape(ours[name].shape))
    density = put_together(structure, {n: ours[n] for n in params}, {n: ours[n] for n in fixed})
    return for_backend(density)

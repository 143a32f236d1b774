"""Weights of the official hierarchical VAE for OOD detection (hvae-oodd), as a likejax density."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from likejax.models import build
from likejax.models.vae import VAE, VAEConfig
from likejax.nn.weight_norm import WeightNormConvolution
from likejax.reference.pixelcnn import parameter_order
from likejax.train.state import put_together, take_apart


def official_names(density: VAE) -> Iterator[tuple[str, str]]:
    """Pairs of a layer's name in a likejax VAE and in the official code, whose stages count from the data upwards."""
    for i in range(density.depth):
        up, down = density.inference[i], density.generation[i]
        for ours, official, stage in ((f"inference.{i}", f"stage{i}.q", up), (f"generation.{i}", f"stage{i}.p", down)):
            for j, block in enumerate(stage.blocks):
                for name in ("conv1", "conv2") if block.aux is None else ("conv1", "aux", "conv2"):
                    yield f"{ours}.blocks.{j}.{name}", f"{official}.block{j}.{name}"
        yield f"inference.{i}.posterior.layer", f"stage{i}.latent_q"
        top = i == density.depth - 1
        if not top:
            yield f"generation.{i}.prior_layer.layer", f"stage{i}.latent_p"
        if up.to_map is not None:
            yield f"inference.{i}.to_map", f"stage{i}.proj_q"
        if down.to_map is not None:
            yield f"generation.{i}.to_map", f"stage{i}.proj_p"
    yield "likelihood.layer", "lik"


def hvae(arrays: Mapping[str, Any], config: VAEConfig) -> VAE:
    """The density of the official implementation's weights.

    Layers are direction ``V``, scale ``g`` and bias ``b``; maps of dense layers are flattened with channels first
    there, with channels last here.

    Args:
      arrays: The variables by name, ``LAYER.V``, ``LAYER.g``, ``LAYER.b`` for the layers of ``official_names``, and
        ``stageN.prior_logits`` of the top. In float64 if JAX has 64 bits enabled, else in float32.
      config: Of the same sizes, bottom-up, with ``skips="as_released"``.

    Raises:
      ValueError: If an array is missing, left over or of another shape than the config says.

    References:
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know, arXiv:2102.08248, and
      its code.
    """
    if config.inference != "bottom_up" or config.skips != "as_released":
        raise ValueError(f"expected a bottom_up config with skips='as_released', got {config}")
    density = cast(VAE, build(config, key=0))
    structure, params, fixed = take_apart(density)
    names = dict(official_names(density))
    prior = f"stage{density.depth - 1}.prior_logits"
    wanted = {f"{official}.{part}" for official in names.values() for part in "Vgb"} | {prior}
    missing, left_over = sorted(wanted - set(arrays)), sorted(set(arrays) - wanted)
    if missing or left_over:
        raise ValueError(f"expected the variables of {config}; missing {missing[:5]}, left over {left_over[:5]}")
    logits = np.asarray(arrays[prior])
    logits = np.moveaxis(logits, 0, -1) if logits.ndim == 3 else logits
    top = f"generation.{density.depth - 1}.top_prior"
    if logits.shape != fixed[top].shape:
        raise ValueError(f"expected {prior} of shape {fixed[top].shape}, got {logits.shape}")
    fixed = {**fixed, top: jnp.asarray(logits)}
    ours = {}
    for name, official in names.items():
        layer = {part: np.asarray(arrays[f"{official}.{part}"]) for part in "Vgb"}
        grows = _layer(density, name).geometry.crop is not None
        direction, scale = _converted(layer["V"], layer["g"], grows=grows)
        parts = {"direction": direction, "scale": scale, "bias": layer["b"]}
        parts = _channels_last(parts, name, density)
        if name == "likelihood.layer" and config.likelihood == "logistic_mixture":
            order = parameter_order(config.event_shape[2], config.mixtures)
            parts = {part: array[..., order] for part, array in parts.items()}
        for part, array in parts.items():
            shape = params[f"{name}.{part}"].shape
            if array.shape != shape:
                raise ValueError(f"expected {official} to fill {part} of shape {shape}, got {array.shape}")
            ours[f"{name}.{part}"] = jnp.asarray(array)
    return put_together(structure, ours, fixed)


def _converted(direction: np.ndarray, scale: np.ndarray, *, grows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Direction (rows, columns, in, out) and scale (out,); theirs has (out, in) first, (in, out) if a map grows."""
    if direction.ndim == 2:
        return direction.T[None, None], scale.reshape(-1)
    return direction.transpose(2, 3, 0, 1) if grows else direction.transpose(2, 3, 1, 0), scale.reshape(-1)


def _layer(density: VAE, name: str) -> WeightNormConvolution:
    node: Any = density
    for word in name.split("."):
        node = node[int(word)] if word.isdigit() else getattr(node, word)
    return node


def _channels_last(parts: dict[str, np.ndarray], name: str, density: VAE) -> dict[str, np.ndarray]:
    """The parts of a dense layer with the flattened map on its side in our order."""
    half, index, *rest = name.split(".")
    if half == "likelihood":
        return parts
    direction = parts["direction"]
    stage = getattr(density, half)[int(index)]
    if rest[-1] == "to_map":
        order = _order(density.inference[int(index)].shape)
        return {"direction": direction[..., order], "scale": parts["scale"][order], "bias": parts["bias"][order]}
    if rest[0] in ("posterior", "prior_layer") and getattr(stage, rest[0]).dense:
        above = density.inference[int(index)].shape if half == "inference" else density.generation[int(index) + 1].shape
        return parts | {"direction": direction[:, :, _order(above)]}
    return parts


def _order(shape: tuple[int, int, int]) -> np.ndarray:
    """Where our flattened map (height, width, channels) is in theirs (channels, height, width)."""
    height, width, channels = shape
    return np.arange(math.prod(shape)).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)

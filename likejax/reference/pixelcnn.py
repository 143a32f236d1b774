"""Weights of the official PixelCNN++ code, or of its PyTorch port, as a likejax density."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from likejax.models import build
from likejax.models.pixelcnn import PixelCNN, PixelCNNConfig
from likejax.nn.depth import for_backend, unstack
from likejax.train.state import put_together, take_apart


def parameter_order(channels: int, mixtures: int) -> np.ndarray:
    """Where likejax's numbers of a pixel are in the official order: ``official[..., order]`` is ours.

    The official code has the logits, then for each of three channels means, log-scales and one coefficient of every
    component; likejax has all means, all log-scales, all coefficients. For one channel the two are the same.

    Raises:
      ValueError: Unless there are one or three channels: the official code knows no others.
    """
    if channels not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, as the official code has them, got {channels}")
    if channels == 1:
        return np.arange(3 * mixtures)
    blocks = mixtures + np.arange(9 * mixtures).reshape(channels, 3, mixtures)
    return np.concatenate([np.arange(mixtures), blocks.transpose(1, 0, 2).reshape(-1)])


def official_names(config: PixelCNNConfig) -> Iterator[tuple[str, str]]:
    """Pairs of a layer's name in an unstacked likejax PixelCNN and in the official order of layers.

    The official layers are called ``u_init``, ``ul_init_a``, ``ul_init_b``, ``upS.uR`` and ``upS.ulR`` on the way to
    small resolutions, ``down_uS``, ``dnS.uR``, ``up_uS`` on the way back, and ``out``; S counts resolutions as they
    are visited, R blocks.
    """
    yield "network.above_first", "u_init"
    yield "network.row_first", "ul_init_a"
    yield "network.left_first", "ul_init_b"
    yield "network.out", "out"
    last = config.resolutions - 1
    for stream, official in (("above", "u"), ("left", "ul")):
        for level in range(config.resolutions):
            ours = f"network.{stream}.scales.{level}"
            back = last - level  # the official count of the way back begins at the smallest resolution
            extra = 0 if level == last else 1  # its first block there is our merge
            blocks = [(f"{ours}.up.blocks.{r}", f"up{level}.{official}{r}") for r in range(config.blocks)]
            blocks += [
                (f"{ours}.down.blocks.{r}", f"dn{back}.{official}{config.blocks - 1 - r + extra}")
                for r in range(config.blocks)
            ]
            if level < last:
                blocks.append((f"{ours}.merge", f"dn{back}.{official}0"))
                yield f"{ours}.shrink", f"down_{official}{level}"
                yield f"{ours}.grow", f"up_{official}{last - 1 - level}"
            for block, official_block in blocks:
                yield f"{block}.first", f"{official_block}.conv1"
                if stream == "left" or ".up." not in block:
                    yield f"{block}.skip", f"{official_block}.skip"
                yield f"{block}.second", f"{official_block}.conv2"


def pixelcnn(arrays: Mapping[str, Any], config: PixelCNNConfig) -> PixelCNN:
    """The density of the official implementation's weights.

    Layers are direction ``V``, scale ``g`` and bias ``b``. TensorFlow's layout is told from the PyTorch port's by the
    scale of the layers, a vector in the one and as many axes as the direction in the other. The port normalises its
    transposed convolutions per input channel: their kernels are kept, and normalised anew per output channel.

    Args:
      arrays: The variables by name, ``LAYER.V``, ``LAYER.g``, ``LAYER.b`` for the layers of ``official_names``. In
        float64 if JAX has 64 bits enabled, else in float32.
      config: Of the same sizes, unconditional.

    Returns:
      The density; set ``likelihood="reference"`` in the config for the official form of it.

    Raises:
      ValueError: If an array is missing, left over, or of another shape than the config says.

    References:
      Salimans, Karpathy, Chen and Kingma, 2017, PixelCNN++, arXiv:1701.05517; its official code in TensorFlow 1.
    """
    if config.num_classes:
        raise ValueError("expected an unconditional config: the labels' weights of the official code are not read")
    structure, params, fixed = take_apart(unstack(build(config, key=0)))
    names = dict(official_names(config))
    wanted = {f"{official}.{part}" for official in names.values() for part in "Vgb"}
    missing, left_over = sorted(wanted - set(arrays)), sorted(set(arrays) - wanted)
    if missing or left_over:
        raise ValueError(f"expected the variables of {config}; missing {missing[:5]}, left over {left_over[:5]}")
    order = parameter_order(config.event_shape[2], config.mixtures)
    ours = {}
    for name, official in names.items():
        layer = {part: np.asarray(arrays[f"{official}.{part}"]) for part in "Vgb"}
        direction, scale = _converted(layer["V"], layer["g"], grows=name.endswith(".grow"))
        columns = order if name == "network.out" else slice(None)
        for part, array in (("direction", direction), ("scale", scale), ("bias", layer["b"].reshape(-1))):
            shape = params[f"{name}.{part}"].shape
            if array.shape != shape:
                raise ValueError(f"expected {official} to fill {part} of shape {shape}, got {array.shape}")
            ours[f"{name}.{part}"] = jnp.asarray(array[..., columns])
    return for_backend(put_together(structure, ours, fixed))


def _converted(direction: np.ndarray, scale: np.ndarray, *, grows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Direction (rows, columns, in, out) and scale (out,) of a layer in either layout."""
    if scale.ndim == 1:  # TensorFlow: (rows, columns, in, out), of transposed convolutions (rows, columns, out, in)
        if direction.ndim == 2:
            return direction[None, None], scale
        return (direction.transpose(0, 1, 3, 2) if grows else direction), scale
    if direction.ndim == 2:
        return direction.T[None, None], scale.reshape(-1)
    if not grows:
        return direction.transpose(2, 3, 1, 0), scale.reshape(-1)
    norm = np.sqrt(np.square(direction).sum(axis=(1, 2, 3), keepdims=True))
    kernel = (scale.reshape(-1, 1, 1, 1) * direction / norm).transpose(2, 3, 0, 1)
    return kernel, np.sqrt(np.square(kernel).sum(axis=(0, 1, 2)))

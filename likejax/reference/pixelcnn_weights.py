"""Weights of the official PixelCNN++ code, or of its PyTorch port, as a likejax density."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from likejax.models import build
from likejax.models.pixelcnn import PixelCNN, PixelCNNConfig
from likejax.nn.repeat import for_backend, unstack
from likejax.reference.checkpoints import (
    Weights,
    refuse_left_over,
    state_dict_arrays,
    tensorflow_variables,
    weight_normalized,
)
from likejax.reference.weights import check_names, fill, layer_names, layer_parts


def parameter_order(channels: int, mixtures: int) -> np.ndarray:
    """Returns the order of a pixel's numbers: ``official[..., order]`` is ours.

    The official code has the logits, then for each of three channels means, log-scales and one
    coefficient of every component; likejax has all means, all log-scales, all coefficients. For one
    channel the two are the same.

    Args:
      channels: Number of channels of the images, 1 or 3.
      mixtures: Number of components of a pixel's mixture.

    Raises:
      ValueError: Unless there are one or three channels: the official code knows no others.
    """
    if channels not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, as the official code has them, got {channels}")
    if channels == 1:
        return np.arange(3 * mixtures)
    blocks = mixtures + np.arange(9 * mixtures).reshape(channels, 3, mixtures)
    return np.concatenate([np.arange(mixtures), blocks.transpose(1, 0, 2).reshape(-1)])


class _BlockName(NamedTuple):
    ours: str
    official: str
    has_skip: bool


def _blocks(config: PixelCNNConfig) -> Iterator[_BlockName]:
    """Yields every gated block."""
    last = config.resolutions - 1
    for stream, official in (("above", "u"), ("left", "ul")):
        for level in range(config.resolutions):
            ours = f"network.{stream}.scales.{level}"
            back = (
                last - level
            )  # the official count of the way back begins at the smallest resolution
            extra = 0 if level == last else 1  # its first block there is our merge
            for r in range(config.blocks):
                yield _BlockName(
                    f"{ours}.up.blocks.{r}", f"up{level}.{official}{r}", stream == "left"
                )
            for r in range(config.blocks):
                number = config.blocks - 1 - r + extra
                yield _BlockName(f"{ours}.down.blocks.{r}", f"dn{back}.{official}{number}", True)
            if level < last:
                yield _BlockName(f"{ours}.merge", f"dn{back}.{official}0", True)


def official_names(config: PixelCNNConfig) -> Iterator[tuple[str, str]]:
    """Yields the name of every layer of an unstacked PixelCNN, and its official name.

    The official layers are called ``u_init``, ``ul_init_a``, ``ul_init_b``, ``upS.uR`` and
    ``upS.ulR`` on the way to small resolutions, ``down_uS``, ``dnS.uR``, ``up_uS`` on the way back,
    and ``out``; S counts resolutions as they are visited, R blocks.

    Args:
      config: Config of the PixelCNN.
    """
    yield "network.above_first", "u_init"
    yield "network.row_first", "ul_init_a"
    yield "network.left_first", "ul_init_b"
    yield "network.out", "out"
    last = config.resolutions - 1
    for stream, official in (("above", "u"), ("left", "ul")):
        for level in range(last):
            ours = f"network.{stream}.scales.{level}"
            yield f"{ours}.shrink", f"down_{official}{level}"
            yield f"{ours}.grow", f"up_{official}{last - 1 - level}"
    for block in _blocks(config):
        yield f"{block.ours}.first", f"{block.official}.conv1"
        if block.has_skip:
            yield f"{block.ours}.skip", f"{block.official}.skip"
        yield f"{block.ours}.second", f"{block.official}.conv2"


def label_names(config: PixelCNNConfig) -> Iterator[tuple[str, str]]:
    """Yields the names of the labels' weights here and there: ``upS.uR.hw``, ``dnS.ulR.hw``, ...

    Args:
      config: Config of the PixelCNN; one without classes has no such weights.
    """
    if config.num_classes is not None:
        for block in _blocks(config):
            yield f"{block.ours}.label", f"{block.official}.hw"


def _in_order(config: PixelCNNConfig) -> Iterator[tuple[str, str]]:
    """Yields kind and name of every official layer, in the order of their making."""
    yield "conv2d", "u_init"
    yield "conv2d", "ul_init_a"
    yield "conv2d", "ul_init_b"
    last = config.resolutions - 1
    for way, resize in (("up", "down"), ("dn", "up")):
        for s in range(config.resolutions):
            number = config.blocks + (1 if way == "dn" and s > 0 else 0)
            for r in range(number):
                for stream in ("u", "ul"):
                    block = f"{way}{s}.{stream}{r}"
                    yield "conv2d", f"{block}.conv1"
                    if way == "dn" or stream == "ul":
                        yield "dense", f"{block}.skip"
                    yield "conv2d", f"{block}.conv2"
                    if config.num_classes is not None:
                        yield "conditional_weights", f"{block}.hw"
            if s < last:
                for stream in ("u", "ul"):
                    yield "conv2d" if resize == "down" else "deconv2d", f"{resize}_{stream}{s}"
    yield "dense", "out"


def pixelcnn_arrays(
    checkpoint: Mapping[str, Any], config: PixelCNNConfig, *, weights: Weights = "averaged"
) -> dict[str, np.ndarray]:
    """Returns the arrays for ``pixelcnn`` from the variables of an official checkpoint.

    TensorFlow reads such a checkpoint, ``SAVE_DIR/params_cifar.ckpt`` for example::

        reader = tf.train.load_checkpoint(path)
        checkpoint = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        arrays = likejax.reference.pixelcnn_arrays(checkpoint, config)
        density = likejax.reference.pixelcnn(arrays, config)

    The official code numbers its layers as it makes them, ``model/conv2d_0/V``,
    ``model/dense_0/g``, ``model/deconv2d_0/b``, and the labels' weights
    ``model/conditional_weights_0/hw``; the config says what they are.

    Args:
      checkpoint: Arrays by variable name.
      config: The config of the same sizes, with ``num_classes`` for a conditional model.
      weights: The moving average, which the official code evaluates and samples with, or the
        weights of the last step.

    Raises:
      ValueError: If variables are missing or left over.
    """
    variables = tensorflow_variables(checkpoint, weights)
    counts: Counter[str] = Counter()
    arrays: dict[str, np.ndarray] = {}
    taken: list[str] = []
    for kind, official in _in_order(config):
        layer = f"{kind}_{counts[kind]}"
        counts[kind] += 1
        if kind == "conditional_weights":
            prefix, parts = official.removesuffix(".hw"), {"hw": "/hw"}
        else:
            prefix, parts = official, {"V": "/V", "g": "/g", "b": "/b"}
        arrays |= weight_normalized(variables, layer, prefix, parts)
        taken += [layer + part for part in parts.values()]
    refuse_left_over(variables, taken)
    return arrays


def pixelcnn_port_arrays(
    state_dict: Mapping[str, Any], config: PixelCNNConfig
) -> dict[str, np.ndarray]:
    """Returns the arrays for ``pixelcnn`` from the PyTorch port (pclucas14/pixel-cnn-pp).

    PyTorch reads it from the port's ``.pth`` files::

        saved = torch.load(path, map_location="cpu")
        state_dict = {name: value.numpy() for name, value in saved.items()}
        arrays = likejax.reference.pixelcnn_port_arrays(state_dict, config)

    Args:
      state_dict: Arrays by name: ``u_init.conv.weight_v``,
        ``up_layers.0.ul_stream.0.nin_skip.lin_a.bias``, ...
      config: The config of the same sizes, unconditional and of three resolutions.

    Raises:
      ValueError: If arrays are missing or left over.
    """
    if config.num_classes is not None:
        raise ValueError("expected an unconditional config: the PyTorch port has no labels")
    theirs = state_dict_arrays(state_dict)
    parts = {"V": ".weight_v", "g": ".weight_g", "b": ".bias"}
    arrays: dict[str, np.ndarray] = {}
    taken: list[str] = []
    for _, official in _in_order(config):
        layer = _port_name(official)
        arrays |= weight_normalized(theirs, layer, official, parts)
        taken += [layer + part for part in parts.values()]
    refuse_left_over(theirs, taken)
    return arrays


_PORT_FIRST = {
    "u_init": "u_init.conv",
    "ul_init_a": "ul_init.0.conv",
    "ul_init_b": "ul_init.1.conv",
}
_PORT_LAYERS = {"conv1": "conv_input.conv", "skip": "nin_skip.lin_a", "conv2": "conv_out.conv"}


def _port_name(official: str) -> str:
    """Returns the port's name of an official layer."""
    if official == "out":
        return "nin_out.lin_a"
    if official in _PORT_FIRST:
        return _PORT_FIRST[official]
    if "." not in official:
        way, stream_and_number = official.split("_")
        stream, number = stream_and_number.rstrip("0123456789"), stream_and_number.lstrip("ul")
        return f"{way}size_{stream}_stream.{number}." + ("conv" if way == "down" else "deconv")
    level, block, layer = official.split(".")
    way = "up" if level.startswith("up") else "down"
    stream, number = block.rstrip("0123456789"), block.lstrip("ul")
    return f"{way}_layers.{level[2:]}.{stream}_stream.{number}.{_PORT_LAYERS[layer]}"


def pixelcnn(arrays: Mapping[str, Any], config: PixelCNNConfig) -> PixelCNN:
    """Returns the density of the official weights.

    Layers are direction ``V``, scale ``g`` and bias ``b``. TensorFlow's layout is told from the
    PyTorch port's by the scale of the layers, a vector in the one and as many axes as the direction
    in the other. The port normalizes its transposed convolutions per input channel: their kernels
    are kept, and normalized anew per output channel.

    A conditional model has an array ``BLOCK.hw`` of shape (classes, 2 filters) for every gated
    block: the row of the label is added before the gate.

    Args:
      arrays: The variables by name, ``LAYER.V``, ``LAYER.g``, ``LAYER.b`` for the layers of
        ``official_names``, and those of ``label_names``; ``pixelcnn_arrays`` and
        ``pixelcnn_port_arrays`` read them from checkpoints. In float64 if JAX has 64 bits enabled,
        else in float32.
      config: The config of the same sizes.

    Returns:
      The density; set ``likelihood="reference"`` in the config for the official form of it.

    Raises:
      ValueError: If an array is missing, left over, or of another shape than the config says.

    References:
      Salimans, Karpathy, Chen and Kingma, 2017, PixelCNN++, arXiv:1701.05517; its official code in
      TensorFlow 1.
    """
    if config.num_classes is not None and not any(name.endswith(".hw") for name in arrays):
        raise ValueError(
            f"expected labels' weights BLOCK.hw for num_classes={config.num_classes}, "
            "got the arrays of an unconditional model"
        )
    layers, labels = dict(official_names(config)), dict(label_names(config))
    check_names(arrays, [*layer_parts(layers.values()), *labels.values()], config=config)
    order = parameter_order(config.event_shape[2], config.mixtures)
    names, values = dict(labels), {official: arrays[official] for official in labels.values()}
    for ours, official in layers.items():
        direction, scale, bias = (np.asarray(arrays[f"{official}.{part}"]) for part in "Vgb")
        direction, scale = _converted(direction, scale, grows=ours.endswith(".grow"))
        parts = {"V": direction, "g": scale, "b": bias.reshape(-1)}
        if ours == "network.out":
            parts = {part: array[..., order] for part, array in parts.items()}
        values |= {f"{official}.{part}": array for part, array in parts.items()}
        names |= layer_names(ours, official)
    return for_backend(fill(unstack(build(config, key=0)), values, names))


def _converted(
    direction: np.ndarray, scale: np.ndarray, *, grows: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns direction (rows, columns, in, out) and scale (out,) of a layer in either layout."""
    if (
        scale.ndim == 1
    ):  # TensorFlow: (rows, columns, in, out), of transposed convolutions (rows, columns, out, in)
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

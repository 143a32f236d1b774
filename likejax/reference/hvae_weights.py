"""Weights of the official hierarchical VAE for OOD detection (hvae-oodd), as a likejax density."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from likejax.models import build
from likejax.models.vae import VAE, StageConfig, VAEConfig
from likejax.models.vae.likelihood import LikelihoodName
from likejax.models.vae.network import Framed
from likejax.models.vae.stage import Activation
from likejax.nn.state import merge, split, unread
from likejax.nn.weight_norm import WeightNormConvolution
from likejax.reference.checkpoints import refuse_left_over, state_dict_arrays
from likejax.reference.pixelcnn_weights import parameter_order
from likejax.reference.weights import check_names, fill, layer_names, layer_parts, part_at

Known = TypeVar("Known")


def official_names(density: VAE) -> Iterator[tuple[str, str]]:
    """Yields the name of every layer of a VAE and its official name; stage 0 is at the data.

    Args:
      density: VAE whose stages are named.
    """
    for i in range(density.depth):
        up, down = density.inference[i], density.generation[i]
        for ours, official, stage in (
            (f"inference.{i}", f"stage{i}.q", up),
            (f"generation.{i}", f"stage{i}.p", down),
        ):
            for j, block in enumerate(stage.blocks):
                for name in ("conv1", "conv2") if block.aux is None else ("conv1", "aux", "conv2"):
                    inner = ".layer" if isinstance(getattr(block, name), Framed) else ""
                    yield f"{ours}.blocks.{j}.{name}{inner}", f"{official}.block{j}.{name}"
        yield f"inference.{i}.posterior.layer", f"stage{i}.latent_q"
        top = i == density.depth - 1
        if not top:
            yield f"generation.{i}.prior_layer.layer", f"stage{i}.latent_p"
        if up.to_map is not None:
            yield f"inference.{i}.to_map", f"stage{i}.proj_q"
        if down.to_map is not None:
            yield f"generation.{i}.to_map", f"stage{i}.proj_p"
    yield "likelihood.layer", "lik"


_ACTIVATIONS: dict[str, Activation] = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "Swish": "swish",
    "ELU": "elu",
    "SELU": "selu",
    "SoftPlus": "softplus",
    "Tanh": "tanh",
}
_LIKELIHOODS: dict[str, LikelihoodName] = {
    "BernoulliLikelihoodConv2d": "bernoulli",
    "GaussianLikelihoodConv2d": "gaussian",
    "DiscretizedLogisticLikelihoodConv2d": "logistic",
    "DiscretizedLogisticMixLikelihoodConv2d": "logistic_mixture",
}
_LEVELS = {"bernoulli": 2, "gaussian": None, "logistic": 256, "logistic_mixture": 256}


def hvae_config(model_kwargs: Mapping[str, Any]) -> VAEConfig:
    """Returns the config of an official model, from the arguments saved beside its weights.

    PyTorch reads them from ``models/NAME/model_kwargs.pt``, whose model class is ``VAE``::

        config = likejax.reference.hvae_config(torch.load("models/NAME/model_kwargs.pt"))

    Args:
      model_kwargs: Arguments of the official class: ``input_shape``, ``config_deterministic``,
        ``config_stochastic``, ``likelihood_module``, ``activation``, or a mapping that has these
        under ``kwargs``.

    Raises:
      ValueError: If the model has a part that likejax lacks.

    Example:
      >>> from likejax.reference import hvae_config
      >>> block = {"block": "ResBlockConv2d", "out_channels": 4, "kernel_size": 3, "stride": 2}
      >>> latent = {"block": "GaussianDense", "latent_features": 2}
      >>> stages = {"config_deterministic": [[block]], "config_stochastic": [latent]}
      >>> kind = {"likelihood_module": "BernoulliLikelihoodConv2d", "activation": "ReLU"}
      >>> hvae_config({"input_shape": (1, 8, 8)} | stages | kind).stages[0].strides
      (2,)
    """
    kwargs = model_kwargs.get("kwargs", model_kwargs)
    if kwargs.get("padded_shape") is not None or not kwargs.get("skip_stochastic", True):
        raise ValueError(
            "expected a model without padding and with skips over latents, as the released ones are"
        )
    channels, height, width = (int(size) for size in kwargs["input_shape"])
    likelihood = _known("likelihood_module", kwargs["likelihood_module"], _LIKELIHOODS)
    pairs = zip(kwargs["config_deterministic"], kwargs["config_stochastic"], strict=True)
    return VAEConfig(
        event_shape=(height, width, channels),
        levels=_LEVELS[likelihood],
        stages=tuple(_stage(blocks, latent) for blocks, latent in pairs),
        likelihood=likelihood,
        likelihood_form="reference",
        skips="as_released",
        activation=_known("activation", kwargs["activation"], _ACTIVATIONS),
    )


def _stage(blocks: Sequence[Mapping[str, Any]], latent: Mapping[str, Any]) -> StageConfig:
    for block in blocks:
        _refuse_unless(block, {"block": "ResBlockConv2d", "weightnorm": True}, "block")
        _refuse_unless(
            block,
            {"downsampling_mode": "convolutional", "upsampling_mode": "convolutional"},
            "block",
        )
    _refuse_unless(latent, {"weightnorm": True, "kernel_size": 3}, "latent")
    is_dense = _known(
        "block of a latent", latent["block"], {"GaussianDense": True, "GaussianConv2d": False}
    )
    return StageConfig(
        channels=tuple(block["out_channels"] for block in blocks),
        kernel=tuple(block["kernel_size"] for block in blocks),
        strides=tuple(block.get("stride", 1) for block in blocks),
        gated=tuple(block.get("gated", True) for block in blocks),
        latent=latent["latent_features"],
        dense=is_dense,
    )


def _refuse_unless(settings: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Raises a ValueError where a setting is there and is not as wanted."""
    for name, value in wanted.items():
        if settings.get(name, value) != value:
            raise ValueError(
                f"expected a {what} with {name}={value!r}, got {settings[name]!r}: "
                "likejax has no other"
            )


def _known(name: str, word: str, known: Mapping[str, Known]) -> Known:
    if word not in known:
        raise ValueError(
            f"expected {name} to be {' or '.join(known)}, got {word!r}: likejax has no other"
        )
    return known[word]


def hvae_arrays(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays for ``hvae`` from the ``state_dict`` of an official checkpoint.

    PyTorch reads it from the directory that the official code saves a model to::

        saved = torch.load("models/NAME/model_state_dict.pt", map_location="cpu")
        state_dict = {name: value.numpy() for name, value in saved.items()}
        density = likejax.reference.hvae(likejax.reference.hvae_arrays(state_dict), config)

    Its names are ``stages.0.q_deterministic.layers.0.conv1.conv.weight_v``,
    ``stages.0.stochastic.in_transform_q.conv`` or ``linear``,
    ``stages.1.q_projection.transform.linear``, ``likelihood.parameter_net.conv`` and so on.
    ``hvae_config`` makes the config from the ``model_kwargs.pt`` beside it.

    Args:
      state_dict: Arrays by name.

    Raises:
      ValueError: If an array has another name, for example because the model is not of the class
        ``VAE``.
    """
    theirs = state_dict_arrays(state_dict)
    arrays: dict[str, np.ndarray] = {}
    taken = [name for name in theirs if name.endswith(_NO_WEIGHTS)]
    for name, value in theirs.items():
        official = _official_name(name)
        if official is not None:
            arrays[official] = value
            taken.append(name)
    refuse_left_over(theirs, taken)
    return arrays


_NO_WEIGHTS = (".initialized", ".std_activation_inverse.beta", ".std_activation_inverse.threshold")
_STATE_PARTS = {"weight_v": "V", "weight_g": "g", "bias": "b"}
_STATE_LAYERS = {
    "stochastic.in_transform_q": "latent_q",
    "stochastic.in_transform_p": "latent_p",
    "q_projection.transform": "proj_q",
    "p_projection.transform": "proj_p",
}


def _official_name(name: str) -> str | None:
    """Returns the name here of an array of a ``state_dict``; ``None`` if it has none."""
    if prior := re.fullmatch(r"stages\.(\d+)\.stochastic\.prior_logits", name):
        return f"stage{prior.group(1)}.prior_logits"
    match = re.fullmatch(r"(.+)\.(?:conv|linear)\.(weight_v|weight_g|bias)", name)
    if match is None:
        return None
    layer, part = match.group(1), _STATE_PARTS[match.group(2)]
    if layer == "likelihood.parameter_net":
        return f"lik.{part}"
    if block := re.fullmatch(
        r"stages\.(\d+)\.(q|p)_deterministic\.layers\.(\d+)\.(conv1|conv2|aux_op)", layer
    ):
        stage, way, number, kind = block.groups()
        return f"stage{stage}.{way}.block{number}.{kind.removesuffix('_op')}.{part}"
    stage = re.fullmatch(r"stages\.(\d+)\.(.+)", layer)
    if stage is None or stage.group(2) not in _STATE_LAYERS:
        return None
    return f"stage{stage.group(1)}.{_STATE_LAYERS[stage.group(2)]}.{part}"


def hvae(arrays: Mapping[str, Any], config: VAEConfig) -> VAE:
    """Returns the density of the official weights.

    Layers are direction ``V``, scale ``g`` and bias ``b``; maps of dense layers are flattened with
    channels first there, with channels last here. The projection above a dense top latent,
    ``stageN.proj_q``, which nothing reads, may be absent; its parameters are then zero.

    Args:
      arrays: The variables by name, ``LAYER.V``, ``LAYER.g``, ``LAYER.b`` for the layers of
        ``official_names``, and ``stageN.prior_logits`` of the top; ``hvae_arrays`` reads them from
        a checkpoint. In float64 if JAX has 64 bits enabled, else in float32.
      config: The config of the same sizes, bottom-up, with ``skips="as_released"``.

    Raises:
      ValueError: If an array is missing, left over or of another shape than the config says.

    References:
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know,
      arXiv:2102.08248, and its code.
    """
    if config.inference != "bottom_up" or config.skips != "as_released":
        raise ValueError(f"expected a bottom_up config with skips='as_released', got {config}")
    density = build(config, key=0)
    assert isinstance(density, VAE)
    top = density.depth - 1
    layers = dict(official_names(density))
    projection, prior = f"stage{top}.proj_q", f"stage{top}.prior_logits"
    has_unread = density.inference[top].unread is not None
    if has_unread and f"{projection}.V" in arrays:
        layers[f"inference.{top}.unread"] = projection
    check_names(arrays, [*layer_parts(layers.values()), prior], config=config)
    names, values = {f"generation.{top}.top_prior": prior}, {prior: _channels_behind(arrays[prior])}
    for ours, official in layers.items():
        parts = _layer_in_our_layout(density, ours, official, arrays)
        values |= {f"{official}.{part}": array for part, array in parts.items()}
        names |= layer_names(ours, official)
    unset = unread(density) - names.keys()
    return fill(_with_zeros(density, unset), values, names, kept=unset)


def _channels_behind(logits: object) -> np.ndarray:
    logits = np.asarray(logits)
    return np.moveaxis(logits, 0, -1) if logits.ndim == 3 else logits


def _with_zeros(density: VAE, names: set[str]) -> VAE:
    structure, params, fixed = split(density)
    zeros = {name: jnp.zeros_like(params[name]) for name in names}
    return merge(structure, {**params, **zeros}, fixed)


def _layer_in_our_layout(
    density: VAE, ours: str, official: str, arrays: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns direction ``V``, scale ``g`` and bias ``b`` of a layer, in our layout."""
    direction, scale, bias = (np.asarray(arrays[f"{official}.{part}"]) for part in "Vgb")
    module = part_at(density, ours)
    grows = isinstance(module, WeightNormConvolution) and module.geometry.crop is not None
    direction, scale = _converted(direction, scale, grows=grows)
    parts = _channels_last({"V": direction, "g": scale, "b": bias}, ours, density)
    config = density.config
    assert isinstance(config, VAEConfig)
    if ours == "likelihood.layer" and config.likelihood == "logistic_mixture":
        order = parameter_order(config.event_shape[2], config.mixtures)
        parts = {part: array[..., order] for part, array in parts.items()}
    return parts


def _converted(
    direction: np.ndarray, scale: np.ndarray, *, grows: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns direction (rows, columns, in, out) and scale (out,).

    The official direction has (out, in) first, or (in, out) if the map grows.
    """
    scale = scale.reshape(-1)
    if direction.ndim == 2:
        return direction.T[None, None], scale
    if grows:
        return direction.transpose(2, 3, 0, 1), scale
    return direction.transpose(2, 3, 1, 0), scale


def _channels_last(parts: dict[str, np.ndarray], name: str, density: VAE) -> dict[str, np.ndarray]:
    """Returns the parts of a dense layer with the flattened map beside it in our order."""
    half, index, *rest = name.split(".")
    if half == "likelihood":
        return parts
    i = int(index)
    stage = getattr(density, half)[i]
    if rest[-1] in ("to_map", "unread"):  # the map is the output
        order = _order(density.inference[i].shape)
        return {part: array[..., order] for part, array in parts.items()}
    if rest[0] in ("posterior", "prior_layer") and getattr(stage, rest[0]).dense:
        is_inference = half == "inference"
        shape = density.inference[i].shape if is_inference else density.generation[i + 1].shape
        return parts | {"V": parts["V"][:, :, _order(shape)]}  # the map is the input
    return parts


def _order(shape: tuple[int, int, int]) -> np.ndarray:
    """Returns where our flattened map (height, width, channels) is in (channels, height, width)."""
    height, width, channels = shape
    theirs = np.arange(math.prod(shape)).reshape(channels, height, width)
    return theirs.transpose(1, 2, 0).reshape(-1)

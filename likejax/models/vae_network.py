"""The parts of a hierarchical VAE: residual blocks with skips, Gaussian layers, stages of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from likejax.nn.convolutions import Padding, relu
from likejax.nn.modules import Buffer
from likejax.nn.weight_norm import WeightNormConvolution

Activation = Literal["relu", "swish", "elu"]
"""Between layers."""
Skips = Literal["working", "as_released"]
"""Whether a skip between maps of one shape is added, or, as in the released code, left out without a word."""
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": relu, "swish": jax.nn.silu, "elu": jax.nn.elu}
MapShape = tuple[int, int, int]
"""Height, width, channels."""
Map = Float[Array, "*batch _ _ _"]

MIN_STD = 1e-6


class Options(NamedTuple):
    """What all layers of a network have in common."""

    activation: Activation = "relu"
    gated: bool = False
    skips: Skips = "working"
    latent_scale: float = 1.0
    dtype: str = "float32"


def _same(shape: MapShape, kernel: int, stride: int) -> Padding:
    """The padding that leaves ``ceil(size / stride)`` positions, the smaller half of it in front."""
    totals = [max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in shape[:2]]
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    return rows, columns


def layer(
    shape: MapShape,
    features: int,
    *,
    kernel: int,
    rngs: nnx.Rngs,
    stride: int = 1,
    grows: bool = False,
    initial_scale: float = 1.0,
    dtype: str = "float32",
) -> WeightNormConvolution:
    """A convolution that keeps the size of its map, halves it (``stride=2``) or doubles it (``grows``)."""
    cut = (kernel - 2) // 2
    if grows and kernel < 2:
        raise ValueError(f"expected a kernel of at least 2 to double a map with, got {kernel}")
    return WeightNormConvolution(
        shape[2],
        features,
        kernel_size=(kernel, kernel),
        padding=_same(shape, kernel, stride),
        stride=stride,
        crop=(cut, cut) if grows else None,
        initial_scale=initial_scale,
        direction_scale=math.sqrt(2.0 / (kernel * kernel * shape[2])),
        rngs=rngs,
        dtype=dtype,
        native=True,  # these networks run outside of loops
    )


class ResidualBlock(nnx.Module):
    """``y = x + conv2(act(conv1(act(x)) + skip(act(a))))`` with an auxiliary map ``a``.

    ``conv2`` keeps the size of the map, halves or doubles it. The residual is cut or filled with zeros to the channels
    of the output, pooled where the map is halved and absent where it is doubled. The skip is a convolution where ``a``
    has another shape than the hidden map; where it has the same, the identity, or nothing (``as_released``).

    Args:
      shape: Of the input.
      channels: Of hidden map and output.
      kernel: Rows and columns of the kernels.
      stride: 2 to halve the map, or to double it if ``grows``.
      grows: Whether a stride doubles the map.
      residual: Whether the input is added to the output, and goes through the activation first.
      aux: Shape of ``a``, if there is one.
      options: Of the network.
      rngs: Source of the initial weights.

    Raises:
      ValueError: If ``a`` is neither of the size of the input nor half nor twice as large.

    References:
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know, arXiv:2102.08248, and
      its code.
    """

    def __init__(
        self,
        shape: MapShape,
        channels: int,
        *,
        kernel: int,
        stride: int,
        grows: bool,
        residual: bool,
        aux: MapShape | None,
        options: Options,
        rngs: nnx.Rngs,
    ):
        hidden = (shape[0], shape[1], channels)
        grows = grows and stride > 1
        self.activation = options.activation
        self.conv1 = layer(shape, channels, kernel=kernel, rngs=rngs, dtype=options.dtype)
        self.aux = None if aux is None else _skip(aux, hidden, kernel, options, rngs)
        self.adds_aux = aux is not None and (self.aux is not None or options.skips == "working")
        self.conv2 = layer(
            hidden,
            2 * channels if options.gated else channels,
            kernel=kernel,
            rngs=rngs,
            stride=1 if grows else stride,
            grows=grows,
            dtype=options.dtype,
        )
        self.gated = options.gated
        self.first = not residual
        self.residual = residual and not grows
        self.stride = stride
        self.channels = channels
        self.pooling = _same(shape, 3, stride)
        rows, columns = shape[:2]
        self.out_shape = (
            (2 * rows, 2 * columns, channels) if grows else (-(-rows // stride), -(-columns // stride), channels)
        )

    def __call__(self, x: Map, a: Map | None) -> Map:
        act = ACTIVATIONS[self.activation]
        y = self.conv1(x if self.first else act(x))
        if self.adds_aux:
            assert a is not None
            y = y + (act(a) if self.aux is None else self.aux(act(a)))
        y = self.conv2(act(y))
        if self.gated:
            value, gate = jnp.split(y, 2, axis=-1)
            y = value * jax.nn.sigmoid(gate)
        return y + self._shortcut(x).astype(y.dtype) if self.residual else y

    def _shortcut(self, x: Map) -> Map:
        missing = self.channels - x.shape[-1]
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing > 0 else x[..., : self.channels]
        return x if self.stride == 1 else _pool(x, self.pooling)


def _skip(aux: MapShape, hidden: MapShape, kernel: int, options: Options, rngs: nnx.Rngs) -> Any:
    """The convolution from an auxiliary map to the hidden map; ``None`` where they have one shape."""
    make = {"features": hidden[2], "rngs": rngs, "dtype": options.dtype}
    if aux[:2] == hidden[:2]:
        return None if aux == hidden else layer(aux, kernel=1, **make)
    if (2 * aux[0], 2 * aux[1]) == hidden[:2]:
        return layer(aux, kernel=kernel, grows=True, **make)
    if (-(-aux[0] // 2), -(-aux[1] // 2)) == hidden[:2]:
        return layer(aux, kernel=kernel, stride=2, **make)
    raise ValueError(
        f"expected a skip between maps of which one is at most twice as large, got {aux} to {hidden}: give the stages "
        "strides in which the sizes follow each other"
    )


def _pool(x: Map, padding: Padding) -> Map:
    """The mean over 3x3 positions at stride 2; zeros outside count."""
    edges = [(0, 0)] * (x.ndim - 3) + [*padding, (0, 0)]
    padded = jnp.pad(x, edges)
    rows, columns = padded.shape[-3] - 2, padded.shape[-2] - 2
    taps = [padded[..., i : i + rows : 2, j : j + columns : 2, :] for i in range(3) for j in range(3)]
    return sum(taps[1:], taps[0]) / 9.0


class Moments(NamedTuple):
    """Mean and standard deviation of a diagonal Gaussian over a latent."""

    mean: Float[Array, "..."]
    std: Float[Array, "..."]

    @classmethod
    def of(cls, logits: Float[Array, "..."]) -> Moments:
        """From a layer's output: ``std = log2(1 + 2^raw)``, which is 1 at 0, and at least 1e-6."""
        mean, raw = jnp.split(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), 2, axis=-1)
        return cls(mean, jnp.maximum(jnp.logaddexp2(raw, 0.0), MIN_STD))

    def at(self, eps: Float[Array, "..."]) -> Float[Array, "..."]:
        """``mean + std * eps``."""
        return self.mean + self.std * eps

    def joined(self, other: Moments) -> Moments:
        """Of both latents, one behind the other on the last axis."""
        return Moments(*(jnp.concatenate(pair, axis=-1) for pair in zip(self, other, strict=True)))


class GaussianLayer(nnx.Module):
    """The moments of a latent from a map: a 3x3 convolution, or a dense layer of the flattened map."""

    def __init__(self, shape: MapShape, features: int, *, dense: bool, options: Options, rngs: nnx.Rngs):
        flat = (1, 1, math.prod(shape))
        make = {"rngs": rngs, "initial_scale": options.latent_scale, "dtype": options.dtype}
        self.layer = layer(flat if dense else shape, 2 * features, kernel=1 if dense else 3, **make)
        self.dense = dense
        self.activation = options.activation

    def __call__(self, h: Map) -> Moments:
        h = ACTIVATIONS[self.activation](h)
        return Moments.of(self.layer(flatten(h) if self.dense else h))


def flatten(h: Map) -> Float[Array, "*batch size"]:
    """The three axes of a map as one."""
    return h.reshape(*h.shape[:-3], math.prod(h.shape[-3:]))


class InferenceStage(nnx.Module):
    """What leads up to one latent: blocks, and the posterior of the features that are inferred on the way up.

    Args:
      shape: Of the map from below: the image, or what ``upwards`` of the stage below gives.
      below: Shape of the hidden map of the stage below, for skips, where there is one.
      bottom: Whether the map is the image.
      top: Whether no stage is above.
      channels: Of each block.
      kernel: Of the blocks.
      strides: Of each block.
      features: Of the latent, inferred here; may be none.
      dense: Whether the latent is a vector; otherwise a map.
      options: Of the network.
      rngs: Source of the initial weights.
    """

    def __init__(
        self,
        shape: MapShape,
        below: MapShape | None,
        *,
        bottom: bool,
        top: bool,
        channels: tuple[int, ...],
        kernel: int,
        strides: tuple[int, ...],
        features: int,
        dense: bool,
        options: Options,
        rngs: nnx.Rngs,
    ):
        blocks = []
        for i, (width, stride) in enumerate(zip(channels, strides, strict=True)):
            make = {"kernel": kernel, "stride": stride, "residual": i > 0 or not bottom, "aux": below}
            blocks.append(ResidualBlock(shape, width, grows=False, options=options, rngs=rngs, **make))
            shape = blocks[-1].out_shape
        self.blocks = nnx.List(blocks)
        self.shape = shape
        self.features = features
        self.posterior = GaussianLayer(shape, features, dense=dense, options=options, rngs=rngs) if features else None
        to_map = dense and features > 0 and not top
        self.to_map = (
            layer((1, 1, features), math.prod(shape), kernel=1, rngs=rngs, dtype=options.dtype) if to_map else None
        )
        self.next_shape: MapShape = shape if to_map or not features else (shape[0], shape[1], features)

    def __call__(self, x: Map, a: Map | None) -> Map:
        """The hidden map, from the map from below and the hidden map of the stage below."""
        for block in self.blocks:
            x = block(x, a)
        return x

    def upwards(self, h: Map, z: Float[Array, "..."] | None) -> tuple[Map, Map | None]:
        """What the stage above starts from, and its skip: the latent and the hidden map, or the hidden map alone."""
        if z is None:
            return h, None
        return (z if self.to_map is None else self.to_map(z).reshape(h.shape)), h


class GenerativeStage(nnx.Module):
    """What leads down from one latent: its prior, the posterior of features inferred on the way down, and blocks.

    Args:
      shape: Of the hidden map of the inference stage beside it.
      above: Shape of the map that comes from the stage above; ``None`` at the top, whose prior is fixed, N(0, 1).
      skips: Shapes of the maps that earlier blocks put out and nobody took yet.
      channels: Of each block.
      kernel: Of the blocks.
      strides: Of each block, by which it enlarges the map.
      up: Features inferred on the way up.
      down: Features inferred on the way down, behind the others.
      dense: Whether the latent is a vector; otherwise a map.
      options: Of the network.
      rngs: Source of the initial weights.
    """

    def __init__(
        self,
        shape: MapShape,
        above: MapShape | None,
        skips: tuple[MapShape, ...],
        *,
        channels: tuple[int, ...],
        kernel: int,
        strides: tuple[int, ...],
        up: int,
        down: int,
        dense: bool,
        options: Options,
        rngs: nnx.Rngs,
    ):
        features = up + down
        make = {"dense": dense, "options": options, "rngs": rngs}
        self.prior_layer = None if above is None else GaussianLayer(above, features, **make)
        joined = shape if above is None else (*shape[:2], shape[2] + above[2])
        self.posterior = GaussianLayer(joined, down, **make) if down else None
        self.latent_shape = (features,) if dense else (*shape[:2], features)
        self.top_prior = Buffer(jnp.zeros((*self.latent_shape[:-1], 2 * features))) if above is None else None
        self.map_shape = shape
        self.to_map = (
            layer((1, 1, features), math.prod(shape), kernel=1, rngs=rngs, dtype=options.dtype) if dense else None
        )
        shape = shape if dense else (shape[0], shape[1], features)
        queue, blocks = list(skips), []
        for i, (width, stride) in enumerate(zip(channels, strides, strict=True)):
            make = {"kernel": kernel, "stride": stride, "residual": i > 0}
            aux = queue.pop(0) if queue and above is not None else None
            if aux is not None and options.skips == "as_released":
                aux = above  # every skip is built for the last map from above, and dropped where it has its shape
            blocks.append(ResidualBlock(shape, width, grows=True, aux=aux, options=options, rngs=rngs, **make))
            shape = blocks[-1].out_shape
            queue.append(shape)
        self.blocks = nnx.List(blocks)
        self.shape = shape
        self.skip_shapes = tuple(queue)

    def prior(self, d: Map | None) -> Moments:
        """The conditional prior given the map from above; at the top its own, without batch axes."""
        if self.top_prior is not None:
            return Moments.of(self.top_prior[...])
        assert self.prior_layer is not None
        assert d is not None
        return self.prior_layer(d)

    def posterior_down(self, h: Map, d: Map | None) -> Moments:
        """Of the features inferred on the way down, given the hidden map of the inference and the map from above."""
        assert self.posterior is not None
        return self.posterior(h if d is None else jnp.concatenate([h, d], axis=-1))

    def __call__(self, z: Float[Array, "..."], skips: tuple[Map, ...], *, top: bool) -> tuple[Map, tuple[Map, ...]]:
        """The map for the stage below and the maps that are left for skips: each block takes the oldest."""
        d = z if self.to_map is None else self.to_map(z).reshape(*z.shape[:-1], *self.map_shape)
        queue = list(skips)
        for block in self.blocks:
            d = block(d, queue.pop(0) if queue and not top else None)
            queue.append(d)
        return d, tuple(queue)

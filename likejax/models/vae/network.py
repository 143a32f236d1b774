"""The parts of a hierarchical VAE: residual blocks with skips, Gaussian layers, stages of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from likejax.nn.convolution import Padding, convolve_outside_loops
from likejax.nn.edge_convolution import relu
from likejax.nn.modules import Buffer, Unread
from likejax.nn.weight_norm import WeightNormConvolution

Activation = Literal["relu", "leaky_relu", "swish", "elu", "selu", "softplus", "tanh"]
"""Between layers; ``leaky_relu`` has the slope 0.01 below zero."""
Skips = Literal["working", "as_released"]
"""Whether a skip between maps of one shape is added, or silently omitted as in the released code."""
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "leaky_relu": jax.nn.leaky_relu,
    "swish": jax.nn.silu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
MapShape = tuple[int, int, int]
"""Height, width, channels."""
Map = Float[Array, "*batch _ _ _"]

MIN_STD = 1e-6


class Options(NamedTuple):
    """What all layers of a network have in common."""

    activation: Activation = "relu"
    skips: Skips = "working"
    latent_scale: float = 1.0
    dtype: DTypeLike | None = None
    unread_projection: bool = False


class Block(NamedTuple):
    """The form of one residual block.

    Attributes:
      channels: Channels of the hidden map and of the output.
      kernel: Rows and columns of the kernels.
      stride: 2 to halve the map on the way up, and to double it on the way down; otherwise 1.
      gated: Whether the output goes through a gate.
    """

    channels: int
    kernel: int
    stride: int
    gated: bool


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
    initial_scale: float = 1.0,
    dtype: DTypeLike | None = None,
) -> WeightNormConvolution:
    """A convolution that keeps the size of its map, or divides it by ``stride``."""
    return WeightNormConvolution(
        shape[2],
        features,
        kernel_size=(kernel, kernel),
        padding=_same(shape, kernel, stride),
        stride=stride,
        initial_scale=initial_scale,
        direction_scale=_direction_scale(shape, kernel),
        rngs=rngs,
        dtype=dtype,
        convolution=convolve_outside_loops,
    )


def _direction_scale(shape: MapShape, kernel: int) -> float:
    return math.sqrt(2.0 / (kernel * kernel * shape[2]))


def enlargement(
    shape: MapShape,
    features: int,
    *,
    kernel: int,
    stride: int,
    rngs: nnx.Rngs,
    dtype: DTypeLike | None = None,
) -> WeightNormConvolution | Framed:
    """A transposed convolution that makes a map ``stride`` times larger.

    The full output has ``(size - 1) stride + kernel`` positions, of which the middle is kept. A kernel that is smaller
    than the stride gives too few, and a frame of zeros makes up for them, as in the official code.
    """
    surplus = kernel - stride
    cut = surplus // 2  # rounds down, also below zero
    convolution = WeightNormConvolution(
        shape[2],
        features,
        kernel_size=(kernel, kernel),
        stride=stride,
        crop=(cut, cut),
        direction_scale=_direction_scale(shape, kernel),
        rngs=rngs,
        dtype=dtype,
        convolution=convolve_outside_loops,
    )
    return convolution if surplus >= 0 else Framed(convolution, -cut, cut - surplus)


class Framed(nnx.Module):
    """A layer whose output is zero in its outermost rows and columns.

    Args:
      layer: From a map to a map.
      before: Rows at the top, and columns at the left, that are zero.
      after: Rows at the bottom, and columns at the right, that are zero.
    """

    def __init__(self, layer: WeightNormConvolution, before: int, after: int):
        self.layer = layer
        self.before = before
        self.after = after

    def __call__(self, x: Map) -> Map:
        y = self.layer(x)
        rows, columns = y.shape[-3:-1]
        inside = y[..., self.before : rows - self.after, self.before : columns - self.after, :]
        frame = (self.before, self.after)
        return jnp.pad(inside, [(0, 0)] * (y.ndim - 3) + [frame, frame, (0, 0)])


class ResidualBlock(nnx.Module):
    """``y = x + conv2(act(conv1(act(x)) + skip(act(a))))`` with an auxiliary map ``a``.

    ``conv2`` keeps the size of the map, halves or doubles it. The residual is cut or filled with zeros to the channels
    of the output, pooled where the map is halved and absent where it is doubled. The skip is a convolution where ``a``
    has another shape than the hidden map; where it has the same, the identity, or nothing (``as_released``).

    Args:
      shape: Shape of the input.
      block: Channels, kernel, stride and gate.
      grows: Whether a stride doubles the map; otherwise it halves it.
      residual: Whether the input is added to the output, and goes through the activation first.
      aux: Shape of ``a``, if there is one.
      options: What all layers have in common.
      rngs: Source of the initial weights.

    Raises:
      ValueError: If no convolution takes ``a`` to the size of the input.

    References:
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know, arXiv:2102.08248, and
      its code.
    """

    def __init__(
        self,
        shape: MapShape,
        block: Block,
        *,
        grows: bool,
        residual: bool,
        aux: MapShape | None,
        options: Options,
        rngs: nnx.Rngs,
    ):
        rows, columns = shape[:2]
        channels, kernel, stride, gated = block
        hidden = (rows, columns, channels)
        grows = grows and stride > 1
        self.activation = options.activation
        make = {"kernel": kernel, "rngs": rngs, "dtype": options.dtype}
        self.conv1 = layer(shape, channels, **make)
        self.aux = None if aux is None else _skip(aux, hidden, kernel, options, rngs)
        self.adds_aux = aux is not None and (self.aux is not None or options.skips == "working")
        resize = enlargement if grows else layer
        self.conv2: Any = resize(hidden, 2 * channels if gated else channels, stride=stride, **make)
        self.gated = gated
        self.first = not residual
        self.residual = residual and not grows
        self.stride = stride
        self.channels = channels
        self.pooling = _same(shape, 3, stride)
        if grows:
            self.out_shape: MapShape = (stride * rows, stride * columns, channels)
        else:
            self.out_shape = (-(-rows // stride), -(-columns // stride), channels)

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
        x = (
            jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
            if missing > 0
            else x[..., : self.channels]
        )
        return x if self.stride == 1 else _pool(x, self.pooling)


def _skip(aux: MapShape, hidden: MapShape, kernel: int, options: Options, rngs: nnx.Rngs) -> Any:
    """The convolution from an auxiliary map to the hidden map; ``None`` where they have one shape."""
    make = {"features": hidden[2], "rngs": rngs, "dtype": options.dtype}
    if aux[:2] == hidden[:2]:
        return None if aux == hidden else layer(aux, kernel=1, **make)
    for stride in range(2, max(*aux[:2], *hidden[:2]) + 1):
        if (stride * aux[0], stride * aux[1]) == hidden[:2]:
            return enlargement(aux, kernel=kernel, stride=stride, **make)
        if (-(-aux[0] // stride), -(-aux[1] // stride)) == hidden[:2]:
            return layer(aux, kernel=kernel, stride=stride, **make)
    raise ValueError(
        f"expected a skip between maps whose sizes are multiples of each other, got {aux} to {hidden}: give the stages "
        "strides in which the sizes follow each other"
    )


def _pool(x: Map, padding: Padding) -> Map:
    """The mean over 3x3 positions at stride 2; zeros outside count."""
    edges = [(0, 0)] * (x.ndim - 3) + [*padding, (0, 0)]
    padded = jnp.pad(x, edges)
    rows, columns = padded.shape[-3] - 2, padded.shape[-2] - 2
    taps = [
        padded[..., i : i + rows : 2, j : j + columns : 2, :] for i in range(3) for j in range(3)
    ]
    return sum(taps[1:], taps[0]) / 9.0


class Moments(NamedTuple):
    """Mean and standard deviation of a diagonal Gaussian over a latent."""

    mean: Float[Array, "..."]
    std: Float[Array, "..."]

    @classmethod
    def of(cls, logits: Float[Array, "..."]) -> Moments:
        """From a layer's output: ``std = log2(1 + 2^raw)``, which is 1 at 0, and at least 1e-6."""
        mean, raw = jnp.split(
            logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), 2, axis=-1
        )
        return cls(mean, jnp.maximum(jnp.logaddexp2(raw, 0.0), MIN_STD))

    def at(self, eps: Float[Array, "..."]) -> Float[Array, "..."]:
        """``mean + std * eps``."""
        return self.mean + self.std * eps

    def joined(self, other: Moments) -> Moments:
        """Of both latents, one behind the other on the last axis."""
        return Moments(*(jnp.concatenate(pair, axis=-1) for pair in zip(self, other, strict=True)))


class GaussianLayer(nnx.Module):
    """The moments of a latent from a map: a 3x3 convolution, or a dense layer of the flattened map."""

    def __init__(
        self, shape: MapShape, features: int, *, dense: bool, options: Options, rngs: nnx.Rngs
    ):
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
      blocks: Form of each block.
      features: Features of the latent that are inferred here; may be none.
      dense: Whether the latent is a vector; otherwise a map.
      options: What all layers have in common.
      rngs: Source of the initial weights.
    """

    def __init__(
        self,
        shape: MapShape,
        below: MapShape | None,
        *,
        bottom: bool,
        top: bool,
        blocks: tuple[Block, ...],
        features: int,
        dense: bool,
        options: Options,
        rngs: nnx.Rngs,
    ):
        built = []
        for i, block in enumerate(blocks):
            residual = i > 0 or not bottom
            built.append(
                ResidualBlock(
                    shape,
                    block,
                    grows=False,
                    residual=residual,
                    aux=below,
                    options=options,
                    rngs=rngs,
                )
            )
            shape = built[-1].out_shape
        self.blocks = nnx.List(built)
        self.shape = shape
        self.features = features
        self.posterior = (
            GaussianLayer(shape, features, dense=dense, options=options, rngs=rngs)
            if features
            else None
        )
        to_map = dense and features > 0 and not top
        self.to_map = (
            layer((1, 1, features), math.prod(shape), kernel=1, rngs=rngs, dtype=options.dtype)
            if to_map
            else None
        )
        unread = top and dense and options.unread_projection
        self.unread = nnx.data(UnreadProjection(features, math.prod(shape)) if unread else None)
        self.next_shape: MapShape = (
            shape if to_map or not features else (shape[0], shape[1], features)
        )

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


class UnreadProjection(nnx.Module):
    """The dense layer above the top latent that the official code has, counts and never reads.

    Args:
      features: Features of the latent.
      outputs: Entries of the hidden map.
    """

    def __init__(self, features: int, outputs: int):
        self.direction = Unread(jnp.zeros((1, 1, features, outputs)))
        self.scale = Unread(jnp.zeros(outputs))
        self.bias = Unread(jnp.zeros(outputs))


class GenerativeStage(nnx.Module):
    """What leads down from one latent: its prior, the posterior of features inferred on the way down, and blocks.

    Args:
      shape: Of the hidden map of the inference stage beside it.
      above: Shape of the map that comes from the stage above; ``None`` at the top, whose prior is fixed, N(0, 1).
      skips: Shapes of the maps that earlier blocks put out and nobody took yet.
      blocks: Form of each block; its stride enlarges the map.
      up: Features inferred on the way up.
      down: Features inferred on the way down, behind the others.
      dense: Whether the latent is a vector; otherwise a map.
      options: What all layers have in common.
      rngs: Source of the initial weights.

    Raises:
      ValueError: If a skip has another shape than the released code can take.
    """

    def __init__(
        self,
        shape: MapShape,
        above: MapShape | None,
        skips: tuple[MapShape, ...],
        *,
        blocks: tuple[Block, ...],
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
        self.top_prior = (
            Buffer(jnp.zeros((*self.latent_shape[:-1], 2 * features))) if above is None else None
        )
        self.map_shape = shape
        self.to_map = (
            layer((1, 1, features), math.prod(shape), kernel=1, rngs=rngs, dtype=options.dtype)
            if dense
            else None
        )
        shape = shape if dense else (shape[0], shape[1], features)
        queue, built = list(skips), []
        for i, block in enumerate(blocks):
            taken = queue.pop(0) if queue and above is not None else None
            # every skip of the released code is built for the last map from above, and dropped where it has its shape
            aux = above if taken is not None and options.skips == "as_released" else taken
            made = ResidualBlock(
                shape, block, grows=True, residual=i > 0, aux=aux, options=options, rngs=rngs
            )
            if made.aux is not None and taken != aux:
                raise ValueError(
                    f"expected a skip of shape {aux}, for which the released code builds its layer, got {taken}: the "
                    "released code cannot run these stages either; change their strides, or use skips='working'"
                )
            built.append(made)
            shape = made.out_shape
            queue.append(shape)
        self.blocks = nnx.List(built)
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

    def __call__(
        self, z: Float[Array, "..."], skips: tuple[Map, ...], *, top: bool
    ) -> tuple[Map, tuple[Map, ...]]:
        """The map for the stage below and the maps that are left for skips: each block takes the oldest."""
        d = z if self.to_map is None else self.to_map(z).reshape(*z.shape[:-1], *self.map_shape)
        queue = list(skips)
        for block in self.blocks:
            d = block(d, queue.pop(0) if queue and not top else None)
            queue.append(d)
        return d, tuple(queue)

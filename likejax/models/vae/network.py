"""The parts of a hierarchical VAE: residual blocks with skips, Gaussian layers, stages of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float
from typing_extensions import override

from likejax.models.vae.stage import Block, Options, StagePlan
from likejax.nn.calls import recomputed
from likejax.nn.condition import over_positions, project
from likejax.nn.convolution import Padding
from likejax.nn.edge_convolution import relu
from likejax.nn.modules import Buffer, Unread
from likejax.nn.weight_norm import WeightNormConvolution

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


def _same(shape: MapShape, kernel: int, stride: int) -> Padding:
    """Returns the padding that leaves ``ceil(size / stride)`` positions, the smaller half first."""
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
    """A convolution that keeps the size of its map, or divides it by ``stride``.

    Args:
      shape: Shape of the map, its height, width and channels.
      features: Channels of the output.
      kernel: Rows and columns of the kernel.
      rngs: Source of the initial weights.
      stride: Stride of both axes.
      initial_scale: Standard deviation of the outputs after initialization.
      dtype: Type to compute in; ``None`` for that of inputs and parameters.
    """
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

    The full output has ``(size - 1) stride + kernel`` positions, of which the middle is kept. A
    kernel that is smaller than the stride gives too few, and a frame of zeros makes up for them, as
    in the official code.

    Args:
      shape: Shape of the map, its height, width and channels.
      features: Channels of the output.
      kernel: Rows and columns of the kernel.
      stride: Factor of both sizes.
      rngs: Source of the initial weights.
      dtype: Type to compute in; ``None`` for that of inputs and parameters.
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

    @override
    def __call__(self, x: Map) -> Map:
        y = self.layer(x)
        rows, columns = y.shape[-3:-1]
        inside = y[..., self.before : rows - self.after, self.before : columns - self.after, :]
        frame = (self.before, self.after)
        return jnp.pad(inside, [(0, 0)] * (y.ndim - 3) + [frame, frame, (0, 0)])


class ResidualBlock(nnx.Module):
    """``y = x + conv2(act(conv1(act(x)) + skip(act(a))))`` with an auxiliary map ``a``.

    ``conv2`` keeps the size of the map, halves or doubles it. The residual is cut or filled with
    zeros to the channels of the output, pooled where the map is halved and absent where it is
    doubled. The skip is a convolution where ``a`` has another shape than the hidden map; where it
    has the same, it is the identity, or nothing (``as_released``). The first block of a stage adds
    a linear function of the condition, which starts at zero, to the output of ``conv1``.

    Args:
      shape: Shape of the input.
      block: Channels, kernel, stride and gate.
      grows: Whether a stride doubles the map; otherwise it halves it.
      residual: Whether the input is added to the output, and goes through the activation first.
      aux: Shape of ``a``, if there is one.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      options: Settings that all layers share.
      rngs: Source of the initial weights.

    Raises:
      ValueError: If no convolution takes ``a`` to the size of the input.

    References:
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know,
      arXiv:2102.08248, and its code.
    """

    def __init__(
        self,
        shape: MapShape,
        block: Block,
        *,
        grows: bool,
        residual: bool,
        aux: MapShape | None,
        condition_size: int | None,
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
        self.condition = condition_table(condition_size, channels)
        self.aux = None if aux is None else _skip(aux, hidden, kernel, options, rngs)
        self.adds_aux = aux is not None and (self.aux is not None or options.skips == "working")
        resize = enlargement if grows else layer
        self.conv2: Any = resize(hidden, 2 * channels if gated else channels, stride=stride, **make)
        self.gated = gated
        self.remat = options.remat
        self.first = not residual
        self.residual = residual and not grows
        self.stride = stride
        self.channels = channels
        self.pooling = _same(shape, 3, stride)
        if grows:
            self.out_shape: MapShape = (stride * rows, stride * columns, channels)
        else:
            self.out_shape = (-(-rows // stride), -(-columns // stride), channels)

    @override
    def __call__(self, x: Map, a: Map | None, condition: Array | None) -> Map:
        run = recomputed(ResidualBlock.run) if self.remat else ResidualBlock.run
        return run(self, x, a, condition)

    def run(self, x: Map, a: Map | None, condition: Array | None) -> Map:
        """Computes the block; all that it computes on the way is kept for gradients.

        Args:
          x: Input map ``(*batch, height, width, channels)``.
          a: Auxiliary map of a skip; ``None`` for a block without one.
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)`` of a conditional model.

        Returns:
          Map of the block's ``out_shape``.

        Raises:
          ValueError: If the block is conditional and there is no condition.
        """
        act = ACTIVATIONS[self.activation]
        y = self.conv1(x if self.first else act(x))
        if self.condition is not None:
            part = _projected(self.condition, condition)
            y = y + over_positions(part, y).astype(y.dtype)
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


def condition_table(condition_size: int | None, features: int) -> nnx.Param | None:
    """Returns the weights of a condition, which start at zero; ``None`` if there is none.

    Args:
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      features: Size of the output.
    """
    return None if condition_size is None else nnx.Param(jnp.zeros((condition_size, features)))


def _projected(table: nnx.Param, condition: Array | None) -> Float[Array, "..."]:
    """The contribution of a condition, which a conditional network cannot be without."""
    if condition is None:
        raise ValueError("expected a condition: this VAE is conditional")
    return project(table[...], condition)


def _skip(aux: MapShape, hidden: MapShape, kernel: int, options: Options, rngs: nnx.Rngs) -> Any:
    """Returns the convolution from an auxiliary map to the hidden map; ``None`` for one shape."""
    make = {"features": hidden[2], "rngs": rngs, "dtype": options.dtype}
    if aux[:2] == hidden[:2]:
        return None if aux == hidden else layer(aux, kernel=1, **make)
    for stride in range(2, max(*aux[:2], *hidden[:2]) + 1):
        if (stride * aux[0], stride * aux[1]) == hidden[:2]:
            return enlargement(aux, kernel=kernel, stride=stride, **make)
        if (-(-aux[0] // stride), -(-aux[1] // stride)) == hidden[:2]:
            return layer(aux, kernel=kernel, stride=stride, **make)
    raise ValueError(
        f"expected a skip between maps whose sizes are multiples of each other, got {aux} to "
        f"{hidden}: give the stages strides in which the sizes follow each other"
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
        """Splits a layer's output: ``std = log2(1 + 2^raw)``, which is 1 at 0, at least 1e-6.

        Args:
          logits: Output of a layer, means and ``raw`` one behind the other on the last axis.

        Returns:
          Moments of half the size of the last axis, in float32 or better.
        """
        mean, raw = jnp.split(
            logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), 2, axis=-1
        )
        return cls(mean, jnp.maximum(jnp.logaddexp2(raw, 0.0), MIN_STD))

    def at(self, eps: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns ``mean + std * eps``.

        Args:
          eps: Standard normal noise of the shape of the mean, or with leading axes of its own.
        """
        return self.mean + self.std * eps

    def joined(self, other: Moments) -> Moments:
        """Returns the moments of both latents, one behind the other on the last axis.

        Args:
          other: Moments of the other latent, with the same leading axes.
        """
        return Moments(*(jnp.concatenate(pair, axis=-1) for pair in zip(self, other, strict=True)))


class GaussianLayer(nnx.Module):
    """The moments of a latent, by a 3x3 convolution of a map, or a dense layer if flattened."""

    def __init__(
        self, shape: MapShape, features: int, *, dense: bool, options: Options, rngs: nnx.Rngs
    ):
        flat = (1, 1, math.prod(shape))
        make = {"rngs": rngs, "initial_scale": options.latent_scale, "dtype": options.dtype}
        self.layer = layer(flat if dense else shape, 2 * features, kernel=1 if dense else 3, **make)
        self.dense = dense
        self.activation = options.activation

    @override
    def __call__(self, h: Map) -> Moments:
        h = ACTIVATIONS[self.activation](h)
        return Moments.of(self.layer(flatten(h) if self.dense else h))


def flatten(h: Map) -> Float[Array, "*batch size"]:
    """Flattens the three axes of a map.

    Args:
      h: Map ``(*batch, height, width, channels)``.

    Returns:
      Array ``(*batch, height * width * channels)``.
    """
    return h.reshape(*h.shape[:-3], math.prod(h.shape[-3:]))


class InferenceStage(nnx.Module):
    """The way up to one latent: blocks, and the posterior of features inferred on the way up.

    Args:
      plan: The stage and its place.
      shape: Shape of the map from below: the image, or what ``upwards`` of the stage below gives.
      below: Shape of the hidden map of the stage below, for skips, where there is one.
      options: Settings that all layers share.
      rngs: Source of the initial weights.
    """

    def __init__(
        self,
        plan: StagePlan,
        shape: MapShape,
        below: MapShape | None,
        *,
        options: Options,
        rngs: nnx.Rngs,
    ):
        dense, features = plan.config.dense, plan.up
        self.blocks = nnx.List([])
        for i, block in enumerate(plan.config.blocks(options)):
            takes_image = plan.bottom and i == 0
            made = ResidualBlock(
                shape,
                block,
                grows=False,
                residual=not takes_image,
                aux=below,
                condition_size=None if i else options.condition_size,
                options=options,
                rngs=rngs,
            )
            self.blocks.append(made)
            shape = made.out_shape
        self.shape = shape
        self.features = features
        # One assignment per attribute: NNX fixes with the first whether it holds arrays.
        posterior = to_map = None
        if features:
            posterior = GaussianLayer(shape, features, dense=dense, options=options, rngs=rngs)
        if dense and features > 0 and not plan.top:
            to_map = map_of_vector(features, shape, options, rngs)
        self.posterior = posterior
        self.to_map = to_map
        unread = None
        if plan.top and dense and options.unread_projection:
            unread = UnreadProjection(features, math.prod(shape))
        self.unread = nnx.data(unread)
        is_map = features > 0 and self.to_map is None
        self.next_shape: MapShape = (shape[0], shape[1], features) if is_map else shape

    def __call__(self, x: Map, a: Map | None, condition: Array | None) -> Map:
        """Returns the hidden map.

        Args:
          x: Map from below.
          a: Hidden map of the stage below, for skips.
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)`` of a conditional model.
        """
        for block in self.blocks:
            x = block(x, a, condition)
        return x

    def upwards(self, h: Map, z: Float[Array, "..."] | None) -> tuple[Map, Map | None]:
        """Returns the map that the stage above starts from, and its skip.

        Args:
          h: Hidden map.
          z: Value of the features that are inferred here; without them the hidden map goes up.
        """
        if z is None:
            return h, None
        if self.to_map is None:
            return z, h
        return self.to_map(z).reshape(h.shape), h


def map_of_vector(
    features: int, shape: MapShape, options: Options, rngs: nnx.Rngs
) -> WeightNormConvolution:
    """Returns a dense layer from a vector to the entries of a map.

    Args:
      features: Entries of the vector.
      shape: Shape of the map.
      options: Settings that all layers share.
      rngs: Source of the initial weights.
    """
    return layer((1, 1, features), math.prod(shape), kernel=1, rngs=rngs, dtype=options.dtype)


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
    """The way down from one latent: its prior, the posterior of features inferred here, and blocks.

    Args:
      plan: The stage and its place.
      shape: Shape of the hidden map of the inference stage beside it.
      above: Stage above; ``None`` at the top, whose prior is fixed, N(0, 1), but for the condition.
      options: Settings that all layers share.
      rngs: Source of the initial weights.

    Raises:
      ValueError: If a skip has another shape than the released code can take.
    """

    def __init__(
        self,
        plan: StagePlan,
        shape: MapShape,
        above: GenerativeStage | None,
        *,
        options: Options,
        rngs: nnx.Rngs,
    ):
        dense, features = plan.config.dense, plan.features
        prior_layer = posterior = top_prior = top_condition = None
        joined = shape
        if above is not None:
            prior_layer = GaussianLayer(
                above.shape, features, dense=dense, options=options, rngs=rngs
            )
            joined = (*shape[:2], shape[2] + above.shape[2])
        if plan.down:
            posterior = GaussianLayer(joined, plan.down, dense=dense, options=options, rngs=rngs)
        self.latent_shape = (features,) if dense else (*shape[:2], features)
        if above is None:
            top_prior = Buffer(jnp.zeros((*self.latent_shape[:-1], 2 * features)))
            top_condition = condition_table(options.condition_size, 2 * features)
        # One assignment per attribute: NNX fixes with the first whether it holds arrays.
        self.prior_layer = prior_layer
        self.posterior = posterior
        self.top_prior = top_prior
        self.top_condition = nnx.data(top_condition)
        self.map_shape = shape
        self.to_map = map_of_vector(features, shape, options, rngs) if dense else None
        self.shape = shape if dense else (shape[0], shape[1], features)
        self.skip_shapes: tuple[MapShape, ...] = ()
        self.blocks = nnx.List([])
        self._add_blocks(plan.config.blocks(options)[::-1], above, options, rngs)

    def _add_blocks(
        self,
        blocks: tuple[Block, ...],
        above: GenerativeStage | None,
        options: Options,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the blocks; each takes the oldest map that no block has taken as a skip yet."""
        queue = [] if above is None else list(above.skip_shapes)
        for i, block in enumerate(blocks):
            taken = queue.pop(0) if queue and above is not None else None
            aux = taken
            if above is not None and taken is not None and options.skips == "as_released":
                # Every skip of the released code is built for the last map from above, and dropped
                # where it has its shape.
                aux = above.shape
            made = ResidualBlock(
                self.shape,
                block,
                grows=True,
                residual=i > 0,
                aux=aux,
                condition_size=None if i else options.condition_size,
                options=options,
                rngs=rngs,
            )
            if made.aux is not None and taken != aux:
                raise ValueError(
                    f"expected a skip of shape {aux}, for which the released code builds its "
                    f"layer, got {taken}: the released code cannot run these stages either; "
                    "change their strides, or use skips='working'"
                )
            self.blocks.append(made)
            self.shape = made.out_shape
            queue.append(made.out_shape)
        self.skip_shapes = tuple(queue)

    def prior(self, d: Map | None, condition: Array | None) -> Moments:
        """Returns the conditional prior given the map from above.

        Args:
          d: Map from above; ``None`` at the top, whose prior has no batch axes without a condition.
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)`` of a conditional model.
        """
        if self.top_prior is not None:
            return Moments.of(self._top_logits(self.top_prior[...], condition))
        assert self.prior_layer is not None
        assert d is not None
        return self.prior_layer(d)

    def _top_logits(self, fixed: Array, condition: Array | None) -> Array:
        """Logits of the moments of the top latent: zeros, and what a condition adds."""
        if self.top_condition is None:
            return fixed
        part = _projected(self.top_condition, condition)
        logits = jnp.broadcast_to(fixed, (*part.shape[:-1], *fixed.shape))
        return logits + over_positions(part, logits)

    def posterior_down(self, h: Map, d: Map | None) -> Moments:
        """Returns the moments of the features that are inferred on the way down.

        Args:
          h: Hidden map of the inference stage beside.
          d: Map from above; ``None`` at the top.
        """
        assert self.posterior is not None
        return self.posterior(h if d is None else jnp.concatenate([h, d], axis=-1))

    def __call__(
        self,
        z: Float[Array, "..."],
        skips: tuple[Map, ...],
        condition: Array | None,
        *,
        top: bool,
    ) -> tuple[Map, tuple[Map, ...]]:
        """Returns the map for the stage below, and the maps that are left for skips.

        Args:
          z: Value of the latent.
          skips: Maps that no block has taken yet; each block takes the oldest.
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)`` of a conditional model.
          top: Whether this is the top stage, whose blocks take no skips.
        """
        d = z
        if self.to_map is not None:
            d = self.to_map(z).reshape(*z.shape[:-1], *self.map_shape)
        queue = list(skips)
        for block in self.blocks:
            skip = queue.pop(0) if queue and not top else None
            d = block(d, skip, condition)
            queue.append(d)
        return d, tuple(queue)

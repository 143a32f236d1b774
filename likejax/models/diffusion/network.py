r"""The denoiser of images: a U-net that needs no smaller resolution, but can have some.

The paper's network keeps the resolution of the image throughout. On small machines ``resolutions``
halves it, each time inside the blocks of the level above:

    level 0   h -> block -> ... -> block ------- skips -------> merge -> block -> ... -> block
                                        \                     /
                                       shrink               grow
                                          \                 /
    level 1                                blocks ... blocks

The blocks of a level are repeated parts of one structure, so their number does not change the time
to compile on accelerators.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, DTypeLike, Float
from typing_extensions import override

from likejax.models.diffusion.denoiser import NO_HINTS, Denoiser, Hints
from likejax.models.diffusion.process import alpha, over_event
from likejax.nn.attention import attend
from likejax.nn.calls import recomputed
from likejax.nn.channels import per_channel
from likejax.nn.condition import as_vector, over_positions, project
from likejax.nn.convolution import convolve
from likejax.nn.dropout import dropout
from likejax.nn.dtypes import promote
from likejax.nn.group_norm import GroupNorm
from likejax.nn.initial import normal_weights
from likejax.nn.repeat import Blocks, repeat, stack

_TIME_SCALE = 1000.0
"""Factor on the time in [0, 1] before its sines, as in the official code."""
_LONGEST = 10_000.0
"""Ratio of the shortest to the longest period of the time's sines."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes and settings that all parts of a network share."""

    width: int
    """Channels throughout."""
    groups: int
    """Groups of the normalizations."""
    attention: bool
    """Whether every block is followed by attention."""
    dropout: float
    """Probability of dropping a hidden value in training."""
    dtype: DTypeLike | None
    """Type to compute in; ``None`` for that of inputs and parameters."""
    remat: bool
    """Whether gradients compute the inside of each block anew instead of keeping it."""


class Context(NamedTuple):
    """What the blocks take besides the image.

    Attributes:
      embedding: Embedding of time, flag and condition, ``(*batch, 4 width)``.
      key: Key of the dropout; ``None`` for none.
    """

    embedding: Array
    key: Array | None

    def of(self, name: int | Array) -> Context:
        """The context of a part, with a key of its own.

        Args:
          name: Number of the part, folded into the key.
        """
        key = None if self.key is None else jax.random.fold_in(self.key, name)
        return Context(self.embedding, key)


class Layer(nnx.Module):
    """``y = convolve(x, kernel) + bias``; a kernel of size 1 is a dense layer on the last axis.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      size: Odd size of the kernel.
      stride: Stride of both axes.
      bias: Whether there is a bias.
      zero: Whether the kernel starts at zero; otherwise its outputs have the variance of its input.
      dtype: Type to compute in; ``None`` for that of input and parameters.
      rngs: Source of the weights.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        size: int = 1,
        stride: int = 1,
        bias: bool = True,
        zero: bool = False,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (size, size, channels, features)
        scale = 1 / math.sqrt(size * size * channels)
        kernel = jnp.zeros(shape) if zero else normal_weights(rngs.params(), shape, scale=scale)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.data(nnx.Param(jnp.zeros(features)) if bias else None)
        self.stride = stride
        self.dtype = dtype

    @override
    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*out features"]:
        """Computes the layer."""
        x, kernel = promote(x, self.kernel[...], dtype=self.dtype)
        out = convolve(x, kernel, stride=self.stride)
        if self.bias is None:
            return out
        return out + per_channel(self.bias[...], out).astype(out.dtype)


class ResidualBlock(nnx.Module):
    """``skip(h) + conv2(drop(swish(norm(conv1(swish(norm(h))) + project(embedding)))))``.

    Args:
      channels: Channels of the input; where it is not the width, the skip is a dense layer.
      sizes: Sizes of the network.
      rngs: Source of the weights.
    """

    def __init__(self, channels: int, sizes: Sizes, *, rngs: nnx.Rngs):
        width, dtype = sizes.width, sizes.dtype
        self.norm1 = GroupNorm(channels, sizes.groups)
        self.conv1 = Layer(channels, width, size=3, dtype=dtype, rngs=rngs)
        self.project = Layer(4 * width, width, bias=False, zero=True, dtype=dtype, rngs=rngs)
        self.norm2 = GroupNorm(width, sizes.groups)
        self.conv2 = Layer(width, width, size=3, zero=True, dtype=dtype, rngs=rngs)
        skip = None if channels == width else Layer(channels, width, dtype=dtype, rngs=rngs)
        self.skip = nnx.data(skip)
        self.dropout_rate = sizes.dropout

    @override
    def __call__(self, h: Array, context: Context) -> Array:
        """Computes the block for images ``(*batch, height, width, channels)``."""
        change = self.conv1(jax.nn.silu(self.norm1(h)))
        change = change + over_positions(self.project(context.embedding), change)
        change = dropout(jax.nn.silu(self.norm2(change)), self.dropout_rate, context.key)
        skip = h if self.skip is None else self.skip(h)
        return skip + self.conv2(change)


class Attention(nnx.Module):
    """``h + project(softmax(q k^T / sqrt(width)) v)`` over all positions, with one head.

    Args:
      sizes: Sizes of the network.
      rngs: Source of the weights.
    """

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
        width, dtype = sizes.width, sizes.dtype
        self.norm = GroupNorm(width, sizes.groups)
        self.query = Layer(width, width, dtype=dtype, rngs=rngs)
        self.key = Layer(width, width, dtype=dtype, rngs=rngs)
        self.value = Layer(width, width, dtype=dtype, rngs=rngs)
        self.project = Layer(width, width, zero=True, dtype=dtype, rngs=rngs)

    @override
    def __call__(self, h: Array) -> Array:
        """Computes the attention of images ``(*batch, height, width, channels)``."""
        normed = self.norm(h)
        *batch, height, width, channels = h.shape
        one_head = (*batch, height * width, 1, channels)
        parts = [layer(normed).reshape(one_head) for layer in (self.query, self.key, self.value)]
        seen = attend(*parts)
        return h + self.project(seen.reshape(h.shape))


class Block(nnx.Module):
    """A residual block, and attention behind it where the network has it everywhere.

    Args:
      channels: Channels of the input.
      sizes: Sizes of the network.
      attention: Whether attention follows; by default as the network has it.
      rngs: Source of the weights.
    """

    def __init__(
        self, channels: int, sizes: Sizes, *, attention: bool | None = None, rngs: nnx.Rngs
    ):
        self.residual = ResidualBlock(channels, sizes, rngs=rngs)
        follows = sizes.attention if attention is None else attention
        self.attention = nnx.data(Attention(sizes, rngs=rngs) if follows else None)

    @override
    def __call__(self, h: Array, context: Context) -> Array:
        """Computes the block."""
        h = self.residual(h, context)
        return h if self.attention is None else self.attention(h)


class Level(nnx.Module):
    """The blocks of one resolution on both ways, and what lies between them.

    Each block on the way up takes the input of its mirror image on the way down; the first, the
    ``merge``, takes the output of the last one.

    Args:
      blocks: Blocks each way; on the way up there is one more.
      sizes: Sizes of the network.
      resolutions: Resolutions from this one on.
      rngs: Source of the weights.
    """

    def __init__(self, blocks: int, sizes: Sizes, resolutions: int, *, rngs: nnx.Rngs):
        width, dtype = sizes.width, sizes.dtype
        self.down = nnx.data(_repeated(width, blocks, sizes, rngs=rngs))
        shrink = grow = below = first = last = None
        if resolutions > 1:
            shrink = Layer(width, width, size=3, stride=2, dtype=dtype, rngs=rngs)
            below = Level(blocks, sizes, resolutions - 1, rngs=rngs)
            grow = Layer(width, width, size=3, dtype=dtype, rngs=rngs)
        else:
            first = Block(width, sizes, attention=True, rngs=rngs)
            last = Block(width, sizes, attention=False, rngs=rngs)
        self.shrink, self.grow = nnx.data(shrink), nnx.data(grow)
        self.below = nnx.data(below)
        self.first, self.last = nnx.data(first), nnx.data(last)
        self.merge = Block(2 * width, sizes, rngs=rngs)
        self.up = nnx.data(_repeated(2 * width, blocks, sizes, rngs=rngs))
        self.remat = sizes.remat

    @override
    def __call__(self, h: Array, context: Context) -> Array:
        """Computes the level and those below it."""
        run = recomputed(_run) if self.remat else _run

        def down(
            carry: tuple[Array, Context], block: Block
        ) -> tuple[tuple[Array, Context], tuple[Array, ...]]:
            h, context = carry
            context = context.of(0)
            return (run(block, h, context), context), (h,)

        def up(
            carry: tuple[Array, Context], block: Block, skip: Array
        ) -> tuple[tuple[Array, Context], tuple[Array, ...]]:
            h, context = carry
            context = context.of(1)
            return (run(block, jnp.concatenate([h, skip], -1), context), context), (h,)

        skips = None
        if self.down is not None:
            (h, _), (skips,) = self.down.fold(down, (h, context.of(0)))
        inside = self._between(h, context.of(1))
        h = self.merge(jnp.concatenate([inside, h], -1), context.of(2))
        if self.up is not None:
            # the blocks are stored by the skip that they take, so the last goes first
            (h, _), _ = self.up.fold(up, (h, context.of(3)), skips, reverse=True)
        return h

    def _between(self, h: Array, context: Context) -> Array:
        """What lies between the two ways: a smaller resolution, or the two blocks of the middle."""
        if self.below is None:
            assert self.first is not None
            assert self.last is not None
            return self.last(self.first(h, context.of(0)), context.of(1))
        assert self.shrink is not None
        assert self.grow is not None
        small = self.below(self.shrink(h), context.of(0))
        larger = jnp.repeat(jnp.repeat(small, 2, axis=-3), 2, axis=-2)
        return self.grow(larger)


def _run(block: Block, h: Array, context: Context) -> Array:
    return block(h, context)


def _repeated(channels: int, blocks: int, sizes: Sizes, *, rngs: nnx.Rngs) -> Blocks | None:
    if not blocks:
        return None
    return repeat(lambda rngs: Block(channels, sizes, rngs=rngs), blocks, rngs=rngs)


class ScoreNetwork(Denoiser):
    """``prediction(z, gamma, condition)``: the network of variational diffusion models.

    Its input has Fourier features of ``z``, its output has ``z`` added, and time, flag and
    condition enter every block. Dropout needs a key; without one there is none.

    Args:
      channels: Channels of the images.
      sizes: Width, groups and other sizes.
      blocks: Residual blocks each way on a resolution.
      resolutions: Number of resolutions; 1 in the paper.
      patch: Side of the squares of pixels that become one position, with all their channels; 1 in
        the paper.
      frequencies: Frequencies ``f`` of the Fourier features.
      fading: Whether the features are those of ``fading_features``, else of ``fourier_features``,
        as in the paper.
      ends: ``gamma`` at both ends, by which the time in the embedding is measured.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      rngs: Source of the weights.

    References:
      Kingma et al., 2021, Variational diffusion models, arXiv:2107.00630, appendix B; official
      code.
    """

    def __init__(
        self,
        channels: int,
        sizes: Sizes,
        *,
        blocks: int,
        resolutions: int,
        patch: int,
        frequencies: tuple[float, ...],
        fading: bool,
        ends: tuple[float, float],
        condition_size: int | None,
        rngs: nnx.Rngs,
    ):
        width, dtype = sizes.width, sizes.dtype
        self.frequencies = frequencies
        self.fading = fading
        self.ends = ends
        self.time = TimeEmbedding(width, condition_size=condition_size, dtype=dtype, rngs=rngs)
        self.patch = patch
        seen = channels * (1 + 2 * len(frequencies)) * patch**2
        self.first = Layer(seen, width, size=3, dtype=dtype, rngs=rngs)
        self.level = Level(blocks, sizes, resolutions, rngs=rngs)
        self.norm = GroupNorm(width, sizes.groups)
        self.last = Layer(width, channels * patch**2, size=3, zero=True, rngs=rngs)

    @override
    def __call__(
        self,
        z: Float[Array, "*batch height width channels"],
        gamma: Float[Array, "*batch"],
        condition: Array | None = None,
        hints: Hints = NO_HINTS,
    ) -> Float[Array, "*batch height width channels"]:
        """Computes the prediction; see ``Denoiser``."""
        start, end = self.ends
        embedding = self.time((gamma - start) / (end - start), condition, hints)
        context = Context(embedding, hints.key)
        if self.fading:
            features = fading_features(z, gamma, self.frequencies)
        else:
            features = fourier_features(z, self.frequencies)
        h = self.first(into_patches(features, self.patch))
        h = jax.nn.silu(self.norm(self.level(h, context)))
        out = out_of_patches(self.last(h), self.patch)
        return z + out.astype(z.dtype)

    @override
    def in_loops(self) -> ScoreNetwork:
        """Returns the network with its blocks as a scan.

        In a loop of XLA, blocks one by one gain nothing over a scan, and they compile many times,
        once for every stage of a Runge-Kutta step.
        """
        return stack(self)


class TimeEmbedding(nnx.Module):
    """Sines and cosines of the time, a flag and a condition, after two dense layers.

    ``swish(W_2 swish(W_1 [sin(1000 t w), cos(1000 t w), flag] + project(condition)))`` with
    ``w_k = 10000^(-k / (width / 2 - 1))``.

    Args:
      width: Number of sines and cosines; even, at least 4.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      dtype: Type to compute in; ``None`` for that of input and parameters.
      rngs: Source of the weights.
    """

    def __init__(
        self,
        width: int,
        *,
        condition_size: int | None,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        self.width = width
        self.first = Layer(width + 1, 4 * width, dtype=dtype, rngs=rngs)
        self.second = Layer(4 * width, 4 * width, dtype=dtype, rngs=rngs)
        table = None
        if condition_size is not None:
            shape = (condition_size, 4 * width)
            scale = 1 / math.sqrt(width)
            table = nnx.Param(normal_weights(rngs.params(), shape, scale=scale))
        self.condition = nnx.data(table)

    @override
    def __call__(
        self, t: Float[Array, "*batch"], condition: Array | None, hints: Hints
    ) -> Float[Array, "*batch embedding"]:
        """Computes the embedding.

        Args:
          t: Times in [0, 1], or a little outside where their ends are learned.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``; ``None`` adds
            nothing.
          hints: Flag, and whether the condition is there.
        """
        half = self.width // 2
        periods = np.exp(-math.log(_LONGEST) * np.arange(half) / (half - 1))
        times = _TIME_SCALE * t[..., None]
        angles = times * per_channel(jnp.asarray(periods, t.dtype), times)
        flag = jnp.zeros_like(t) if hints.flag is None else hints.flag.astype(t.dtype)
        seen = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), flag[..., None]], -1)
        h = self.first(seen)
        if self.condition is not None and condition is not None:
            vector = as_vector(condition, condition.ndim - t.ndim)
            of_condition = project(self.condition[...], vector)
            if hints.present is not None:
                of_condition = jnp.where(hints.present[..., None], of_condition, 0)
            h = h + of_condition
        return jax.nn.silu(self.second(jax.nn.silu(h)))


def fourier_features(
    z: Float[Array, "*shape channels"], frequencies: tuple[float, ...]
) -> Float[Array, "*shape more"]:
    """``z`` with ``sin(2 pi f z)`` and then ``cos(2 pi f z)`` of every channel and frequency.

    Args:
      z: Any array.
      frequencies: Frequencies ``f``.
    """
    if not frequencies:
        return z
    factors = jnp.asarray(2 * np.pi * np.asarray(frequencies), z.dtype)
    each = z[..., None]
    angles = (each * per_channel(factors, each)).reshape(*z.shape[:-1], -1)
    return jnp.concatenate([z, jnp.sin(angles), jnp.cos(angles)], -1)


def fading_features(
    z: Float[Array, "*batch height width channels"],
    gamma: Float[Array, "*batch"],
    frequencies: tuple[float, ...],
) -> Float[Array, "*batch height width more"]:
    """``z`` with what the noise leaves of the sine and cosine of the data at each frequency.

    With ``z = alpha y + sigma eps`` and ``r = sigma / alpha``, the feature of a frequency ``f`` is

        E[sin(2 pi f y) | z] = exp(-(2 pi f r)^2 / 2) sin(2 pi f z / alpha)

    under a flat prior of ``y``, and so for the cosine. Without the factor the features are sines of
    pure noise wherever ``r`` exceeds a period. A network that has learned to overlook those still
    has large derivatives by ``z``, and the flow of such a field loses likelihood. With it, ``r``
    times the derivative of a feature by ``z / alpha`` is at most ``exp(-1/2)``.

    Args:
      z: Images.
      gamma: Negative log signal-to-noise ratio of each.
      frequencies: Frequencies ``f``.

    References:
      The expectation is that of Barron et al., 2021, Mip-NeRF, arXiv:2103.13415; its
      use for diffusion models is ours.
    """
    if not frequencies:
        return z
    factors = jnp.asarray(2 * np.pi * np.asarray(frequencies), z.dtype)
    gamma = over_event(gamma, z)[..., None].astype(z.dtype)
    angles = per_channel(factors, gamma) * z[..., None] / alpha(gamma)
    remains = jnp.exp(-0.5 * per_channel(factors**2, gamma) * jnp.exp(gamma))
    sines, cosines = jnp.sin(angles) * remains, jnp.cos(angles) * remains
    shape = (*z.shape[:-1], -1)
    return jnp.concatenate([z, sines.reshape(shape), cosines.reshape(shape)], -1)


def into_patches(
    x: Float[Array, "*batch height width channels"], side: int
) -> Float[Array, "*batch rows columns more"]:
    """Puts squares of pixels together, ``side`` times smaller with ``side^2`` times the channels.

    Args:
      x: Images whose height and width the side divides.
      side: Side of a square.
    """
    *batch, height, width, channels = x.shape
    rows, columns = height // side, width // side
    x = x.reshape(*batch, rows, side, columns, side, channels)
    return jnp.moveaxis(x, -4, -3).reshape(*batch, rows, columns, side * side * channels)


def out_of_patches(
    x: Float[Array, "*batch rows columns more"], side: int
) -> Float[Array, "*batch height width channels"]:
    """Takes squares of pixels apart, the inverse of ``into_patches``.

    Args:
      x: Patches.
      side: Side of a square.
    """
    *batch, rows, columns, more = x.shape
    x = x.reshape(*batch, rows, columns, side, side, more // side**2)
    return jnp.moveaxis(x, -3, -4).reshape(*batch, rows * side, columns * side, -1)


def largest_groups(width: int) -> int:
    """The default number of groups: at most 32, and at least four channels to a group.

    Args:
      width: Channels.

    Example:
      >>> [largest_groups(width) for width in (128, 48, 32)]
      [32, 12, 8]
    """
    limit = max(1, min(32, width // 4))
    return max(groups for groups in range(1, limit + 1) if width % groups == 0)

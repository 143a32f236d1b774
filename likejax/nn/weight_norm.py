"""Convolutions with weight normalization, initialized from data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from likejax.nn.convolutions import Padding, convolve, convolve_transposed
from likejax.nn.initial import normal_weights
from likejax.nn.modules import Buffer, replace
from likejax.nn.normalization import channel_statistics

NO_PADDING: Padding = ((0, 0), (0, 0))


class Geometry(nnx.Module):
    """What a convolution does with its kernel: everything but the weights.

    Args:
      padding: Zeros around the image.
      stride: Of both axes.
      crop: Makes it a transposed convolution, whose output is ``stride`` times the size of its input: rows and columns
        cut off at the top and at the left.
      dtype: Type to compute in; parameters stay in float32.
      native: As for ``convolve``.
    """

    def __init__(
        self, padding: Padding, stride: int, crop: tuple[int, int] | None, dtype: str, native: bool
    ):
        self.padding = padding
        self.stride = stride
        self.crop = crop
        self.dtype = dtype
        self.native = native

    def __call__(self, x: Array, kernel: Array, *, padding: Padding | None = None) -> Array:
        """The convolution, with the padding in the image or another."""
        x, kernel = self.cast(x, kernel)
        if self.crop is not None:
            rows, columns = self.crop
            return convolve_transposed(
                x, kernel, crop_rows=rows, crop=columns, stride=self.stride, native=self.native
            )
        padding = self.padding if padding is None else padding
        return convolve(x, kernel, padding=padding, stride=self.stride, native=self.native)

    def cast(self, x: Array, kernel: Array) -> tuple[Array, Array]:
        """Both in the type to compute in."""
        dtype = (
            jnp.promote_types(x.dtype, kernel.dtype)
            if self.dtype == "float32"
            else jnp.dtype(self.dtype)
        )
        return x.astype(dtype), kernel.astype(dtype)


class Convolution(nnx.Module):
    """``y = convolve(x, kernel) + bias`` with given weights; what a trained ``WeightNormConvolution`` amounts to."""

    def __init__(self, kernel: Array, bias: Array, geometry: Geometry):
        self.kernel = Buffer(kernel)
        self.bias = Buffer(bias)
        self.geometry = geometry

    def __call__(
        self, x: Float[Array, "*shape channels"], *, padding: Padding | None = None
    ) -> Float[Array, "*out features"]:
        return add_bias(self.geometry(x, self.kernel[...], padding=padding), self.bias[...])

    def at(
        self, patch: Float[Array, "*batch rows columns channels"]
    ) -> Float[Array, "*batch features"]:
        """The output at the one position whose kernel covers ``patch``."""
        patch, kernel = self.geometry.cast(patch, self.kernel[...])
        flat = patch.reshape(*patch.shape[:-3], math.prod(kernel.shape[:3]))
        return add_bias(convolve(flat, kernel.reshape(1, 1, -1, kernel.shape[-1])), self.bias[...])


class WeightNormConvolution(nnx.Module):
    """``y = scale * convolve(x, direction / |direction|) + bias``, the norm over all axes but the output's.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      kernel_size: Rows and columns; (1, 1) is a matrix product on the last axis.
      padding: Zeros around the image.
      stride: Of both axes; by default 1, and 2 for a transposed convolution.
      crop: Makes it a transposed convolution: rows and columns cut off at the top and at the left.
      initial_scale: Standard deviation of the output after ``initialize``.
      direction_scale: Standard deviation of the initial directions. Their length does not matter to the output, but
        it does to how far a step of Adam turns them.
      rngs: Source of the initial directions.
      dtype: Type to compute in.
      native: As for ``convolve``.

    References:
      Salimans and Kingma, 2016, Weight normalization, arXiv:1602.07868; the official PixelCNN++ code.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel_size: tuple[int, int] = (1, 1),
        padding: Padding = NO_PADDING,
        stride: int | None = None,
        crop: tuple[int, int] | None = None,
        initial_scale: float = 1.0,
        direction_scale: float = 0.05,
        rngs: nnx.Rngs,
        dtype: str = "float32",
        native: bool = False,
    ):
        shape = (*kernel_size, channels, features)
        self.direction = nnx.Param(normal_weights(rngs.params(), shape, scale=direction_scale))
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.initial_scale = initial_scale
        if stride is None:
            stride = 1 if crop is None else 2
        self.geometry = Geometry(padding, stride, crop, dtype, native)

    def kernel(self) -> Float[Array, "*stack rows columns channels features"]:
        """``scale * direction / |direction|``; of a stack of layers, of each."""
        direction = self.direction[...]
        norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=(-4, -3, -2), keepdims=True))
        return direction * (self.scale[...][..., None, None, None, :] / norm)

    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*out features"]:
        return add_bias(self.geometry(x, self.kernel()), self.bias[...])

    def initialize(self, x: Float[Array, "*batch channels"]) -> tuple[WeightNormConvolution, Array]:
        """The layer whose output on ``x`` has mean 0 and standard deviation ``initial_scale``, and that output.

        An output that varies by no more than its rounding is scaled as if its standard deviation were 1.
        """
        y = self(x)
        statistics = channel_statistics(y)
        variance = jnp.where(statistics.varies, jnp.square(statistics.std), 1.0)
        factor = self.initial_scale / jnp.sqrt(variance + 1e-10)
        scale, bias = self.scale[...] * factor, (self.bias[...] - statistics.mean) * factor
        layer = replace(self, scale=nnx.Param(scale), bias=nnx.Param(bias))
        last = (1,) * (y.ndim - 1) + (-1,)
        return layer, ((y - statistics.mean.reshape(last)) * factor.reshape(last)).astype(y.dtype)


def add_bias(
    y: Float[Array, "*shape features"], bias: Float[Array, " features"]
) -> Float[Array, "*shape features"]:
    """``y + bias`` in the type of ``y``."""
    return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape).astype(y.dtype)


def fold_weights(module: Any) -> Any:
    """``module`` with the kernel of every weight-normalized convolution in it computed once and for all."""

    def fold(node: Any) -> Any:
        if not isinstance(node, WeightNormConvolution):
            return node
        return Convolution(node.kernel(), node.bias[...], node.geometry)

    return jax.tree.map(fold, module, is_leaf=lambda node: isinstance(node, WeightNormConvolution))


def initialize_by_running(module: Any, run: Callable[[Any], Any]) -> Any:
    """``module`` with every weight-normalized convolution initialized on the input that ``run`` first gives it.

    Each layer sees the output of layers that are initialized already. ``run`` works on a whole batch, without loops
    of XLA around the layers; a layer that it does not reach stays as it is.

    Args:
      module: Any module.
      run: Calls what is to be initialized, ``run(module)``.
    """
    pending = jax.tree.map(
        lambda node: _Pending(node) if _is_layer(node) else node, module, is_leaf=_is_layer
    )
    run(pending)
    return jax.tree.map(
        lambda node: node.state[0] if isinstance(node, _Pending) else node,
        pending,
        is_leaf=lambda node: isinstance(node, _Pending),
    )


def _is_layer(node: Any) -> bool:
    return isinstance(node, WeightNormConvolution)


class _Pending:
    """Stands for a layer while ``initialize_by_running`` runs: its first call initializes it."""

    def __init__(self, layer: WeightNormConvolution):
        self.state: list[Any] = [layer, False]

    def __call__(self, x: Array) -> Array:
        layer, done = self.state
        if done:
            return layer(x)
        layer, y = layer.initialize(x)
        self.state = [layer, True]
        return y

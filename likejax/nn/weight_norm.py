"""Convolutions with weight normalization, initialized from data.

``initialize_by_running`` initializes all layers of a network in one pass, each on the output of
layers that are initialized already. For that pass alone every layer of a copy of the network is
replaced by a ``_Pending``, an object that changes when it is called. The network that comes back
is frozen again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, PyTree
from typing_extensions import override

from likejax.nn.channels import per_channel
from likejax.nn.convolution import Padding, convolve, convolve_transposed
from likejax.nn.dtypes import promote
from likejax.nn.initial import normal_weights
from likejax.nn.modules import Buffer, replace
from likejax.nn.normalization import channel_statistics

NO_PADDING: Padding = ((0, 0), (0, 0))


class Geometry(nnx.Module):
    """What a convolution needs besides its weights.

    Args:
      padding: Zeros around the image.
      stride: Stride of both axes.
      crop: Rows and columns cut off at the top and at the left of a transposed convolution, whose
        output is ``stride`` times the size of its input; ``None`` for a convolution.
      dtype: Type to compute in, ``None`` for that of the input and the parameters.
    """

    def __init__(
        self,
        padding: Padding,
        stride: int,
        *,
        crop: tuple[int, int] | None,
        dtype: DTypeLike | None,
    ):
        self.padding = padding
        self.stride = stride
        self.crop = crop
        self.dtype = dtype

    def __call__(self, x: Array, kernel: Array, *, padding: Padding | None = None) -> Array:
        """Convolves, with the padding of the geometry or another."""
        x, kernel = self.cast(x, kernel)
        if self.crop is None:
            padding = self.padding if padding is None else padding
            return convolve(x, kernel, padding=padding, stride=self.stride)
        rows, columns = self.crop
        return convolve_transposed(x, kernel, crop_rows=rows, crop=columns, stride=self.stride)

    def cast(self, x: Array, kernel: Array) -> tuple[Array, Array]:
        """Converts both to the type to compute in.

        Args:
          x: Input.
          kernel: Kernel.

        Returns:
          The input and the kernel, in their shapes.
        """
        return promote(x, kernel, dtype=self.dtype)


class Convolution(nnx.Module):
    """``y = convolve(x, kernel) + bias``, what a trained ``WeightNormConvolution`` amounts to."""

    def __init__(self, kernel: Array, bias: Array, geometry: Geometry):
        self.kernel = Buffer(kernel)
        self.bias = Buffer(bias)
        self.geometry = geometry

    @override
    def __call__(
        self, x: Float[Array, "*shape channels"], *, padding: Padding | None = None
    ) -> Float[Array, "*out features"]:
        """Convolves ``x`` with the kernel and adds the bias."""
        return add_bias(self.geometry(x, self.kernel[...], padding=padding), self.bias[...])

    def at(
        self, patch: Float[Array, "*batch rows columns channels"]
    ) -> Float[Array, "*batch features"]:
        """Computes the output at the one position whose kernel covers ``patch``.

        Args:
          patch: Input ``(*batch, rows, columns, channels)``, of the kernel's size.

        Returns:
          Output ``(*batch, features)``.
        """
        patch, kernel = self.geometry.cast(patch, self.kernel[...])
        flat = patch.reshape(*patch.shape[:-3], math.prod(kernel.shape[:3]))
        return add_bias(convolve(flat, kernel.reshape(1, 1, -1, kernel.shape[-1])), self.bias[...])


class WeightNormConvolution(nnx.Module):
    """``y = scale * convolve(x, direction / |direction|) + bias``.

    The norm runs over all axes but that of the outputs. It is no ``nnx.Conv`` in an
    ``nnx.WeightNorm``, because that writes the normalized kernel into its layer whenever it is
    called, and modules here are frozen: the kernel is a function of the parameters.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      kernel_size: Rows and columns of the kernel; (1, 1) is a matrix product on the last axis.
      padding: Zeros around the image.
      stride: Stride of both axes; by default 1, and 2 for a transposed convolution.
      crop: Rows and columns cut off at the top and at the left of a transposed convolution;
        ``None`` for a convolution.
      initial_scale: Standard deviation of the output after ``initialize``.
      direction_scale: Standard deviation of the initial directions. Their length does not matter
        to the output, but it does to how far a step of Adam turns them.
      rngs: Source of the initial directions.
      dtype: Type to compute in, ``None`` for that of the input and the parameters.

    References:
      Salimans and Kingma, 2016, Weight normalization, arXiv:1602.07868; the official PixelCNN++
      code.
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
        dtype: DTypeLike | None = None,
    ):
        shape = (*kernel_size, channels, features)
        self.direction = nnx.Param(normal_weights(rngs.params(), shape, scale=direction_scale))
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.initial_scale = initial_scale
        if stride is None:
            stride = 1 if crop is None else 2
        self.geometry = Geometry(padding, stride, crop=crop, dtype=dtype)

    def kernel(self) -> Float[Array, "*stack rows columns channels features"]:
        """Computes ``scale * direction / |direction|``; for a stack of layers, of each layer."""
        direction = self.direction[...]
        norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=(-4, -3, -2), keepdims=True))
        return direction * (self.scale[...][..., None, None, None, :] / norm)

    @override
    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*out features"]:
        """Convolves ``x`` with the normalized kernel and adds the bias."""
        return add_bias(self.geometry(x, self.kernel()), self.bias[...])

    def initialize(self, x: Float[Array, "*batch channels"]) -> tuple[WeightNormConvolution, Array]:
        """Initializes the layer on its first input.

        An output that varies by no more than its rounding is scaled as if its standard deviation
        were 1.

        Args:
          x: Input ``(*batch, height, width, channels)``; ``(*batch, channels)`` for a 1x1 kernel.

        Returns:
          The layer whose output on ``x`` has mean 0 and standard deviation ``initial_scale``, and
          that output.
        """
        y = self(x)
        statistics = channel_statistics(y)
        variance = jnp.where(statistics.varies, jnp.square(statistics.std), 1.0)
        factor = self.initial_scale / jnp.sqrt(variance + 1e-10)
        scale, bias = self.scale[...] * factor, (self.bias[...] - statistics.mean) * factor
        layer = replace(self, scale=nnx.Param(scale), bias=nnx.Param(bias))
        normalized = (y - per_channel(statistics.mean, y)) * per_channel(factor, y)
        return layer, normalized.astype(y.dtype)


def add_bias(
    y: Float[Array, "*shape features"], bias: Float[Array, " features"]
) -> Float[Array, "*shape features"]:
    """Adds a bias per channel in the type of ``y``.

    Args:
      y: Array ``(*shape, features)``.
      bias: Bias ``(features,)``.

    Returns:
      Array of the shape of ``y``.
    """
    return y + per_channel(bias, y).astype(y.dtype)


def fold_weights(module: PyTree) -> Any:
    """Returns ``module`` with the kernel of every weight-normalized convolution computed once.

    Args:
      module: Any module, or another pytree with modules in it.
    """

    def fold(node: object) -> object:
        if not isinstance(node, WeightNormConvolution):
            return node
        return Convolution(node.kernel(), node.bias[...], node.geometry)

    return jax.tree.map(fold, module, is_leaf=_is_layer)


def initialize_by_running(module: PyTree, run: Callable[[Any], Any]) -> Any:
    """Returns ``module`` with its weight-normalized convolutions initialized in one pass.

    Each layer is initialized on the input that ``run`` first gives it, the output of layers that
    are initialized already. ``run`` works on a whole batch, without loops of XLA around the
    layers; a layer that it does not reach stays as it is.

    Args:
      module: Any module.
      run: Function that calls the module that it is given.
    """

    def suspend(node: object) -> object:
        return _Pending(node) if isinstance(node, WeightNormConvolution) else node

    def resume(node: object) -> object:
        return node.layer if isinstance(node, _Pending) else node

    pending = jax.tree.map(suspend, module, is_leaf=_is_layer)
    run(pending)
    return jax.tree.map(resume, pending, is_leaf=_is_pending)


def _is_layer(node: object) -> bool:
    return isinstance(node, WeightNormConvolution)


def _is_pending(node: object) -> bool:
    return isinstance(node, _Pending)


class _Pending:
    """A layer whose first call initializes it, in place of it during ``initialize_by_running``."""

    def __init__(self, layer: WeightNormConvolution):
        self.state: list[Any] = [layer, False]  # a list, which copies of the module share

    @property
    def layer(self) -> WeightNormConvolution:
        return self.state[0]

    def __call__(self, x: Array) -> Array:
        layer, is_initialized = self.state
        if is_initialized:
            return layer(x)
        layer, y = layer.initialize(x)
        self.state[:] = [layer, True]
        return y

"""Glow's convolutions: a kernel with a learned response to the image border."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float
from typing_extensions import override

from likejax.nn.channels import per_channel
from likejax.nn.convolution import convolve
from likejax.nn.dtypes import promote
from likejax.nn.initial import normal_weights


def edge_map(
    height: int, width: int, kernel: Float[Array, "rows columns features"]
) -> Float[Array, "height width features"]:
    """Convolves a plane that is 1 on the padding ring and 0 inside with ``kernel``.

    The official Glow appends this plane to the input of every 3x3 convolution. It does not depend
    on the data, so its part of the output is a learned bias per position, computed once for all
    examples.

    Args:
      height: Height of the image.
      width: Width of the image.
      kernel: Kernel of the plane, ``(rows, columns, features)``.

    Returns:
      Array ``(height, width, features)``.
    """
    inside = jnp.ones((height, width, 1), kernel.dtype)
    total = kernel.sum((0, 1)).reshape(1, 1, -1)
    return total - convolve(inside, kernel[:, :, None, :])


class EdgeConvolution(nnx.Module):
    """A convolution with a learned response to the image border, or a dense layer on the last axis.

    It is no ``nnx.Conv``, because the kernel has an input channel for the border, and the scale of
    the layer behind is folded into it, which costs no pass over the output.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      kernel_size: Odd kernel size; 1 is a matrix product on the last axis and works on vectors
        too. A larger kernel has an extra input channel that is 1 on the zero padding and 0 inside.
      scale: Standard deviation of the initial weights.
      rngs: Source of the initial weights; ``None`` starts them at zero.
      dtype: Type to compute in, ``None`` for that of the input and the parameters, which stay
        float32.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, official code (``add_edge_padding``).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel_size: int,
        scale: float = 0.05,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike | None = None,
    ):
        edge_channels = int(kernel_size > 1)
        shape = (kernel_size, kernel_size, channels + edge_channels, features)
        if rngs is None:
            self.kernel = nnx.Param(jnp.zeros(shape))
        else:
            self.kernel = nnx.Param(normal_weights(rngs.params(), shape, scale=scale))
        self.channels = channels
        self.dtype = dtype

    def __call__(
        self,
        x: Float[Array, "*shape channels"],
        *,
        bias: Float[Array, " features"] | None = None,
        scale: Float[Array, " features"] | None = None,
    ) -> Float[Array, "*shape features"]:
        """Computes ``(convolution(x) + bias) * scale``, the scale folded into the weights."""
        kernel = self.kernel[...]
        features = kernel.shape[-1]
        constant = jnp.zeros(features, kernel.dtype) if bias is None else bias
        if scale is not None:
            kernel = kernel * per_channel(scale, kernel)
            constant = constant * scale
        x, inner = promote(x, kernel[:, :, : self.channels], dtype=self.dtype)
        out = convolve(x, inner)
        if kernel.shape[0] > 1:
            border = edge_map(x.shape[-3], x.shape[-2], kernel[:, :, self.channels])
            constant = border + per_channel(constant, border)
        return out + per_channel(constant, out).astype(out.dtype)


class ZeroConvolution(nnx.Module):
    """``(EdgeConvolution(x) + bias) * exp(factor * log_scale)``.

    Everything that is learned starts at zero.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      kernel_size: Odd kernel size, as for ``EdgeConvolution``.
      factor: Constant on the stored log-scale; 3 in the official Glow code.
      dtype: Type to compute in, as for ``EdgeConvolution``; the output is float32 or better.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.3 and official code
      (``conv2d_zeros``).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel_size: int,
        factor: float = 3.0,
        dtype: DTypeLike | None = None,
    ):
        self.linear = EdgeConvolution(
            channels, features, kernel_size=kernel_size, rngs=None, dtype=dtype
        )
        self.bias = nnx.Param(jnp.zeros(features))
        self.log_scale = nnx.Param(jnp.zeros(features))
        self.factor = factor

    @override
    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*shape features"]:
        """Computes the convolution, in float32 or better."""
        scale = jnp.exp(self.factor * self.log_scale[...])
        out = self.linear(x, bias=self.bias[...], scale=scale)
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))


@jax.custom_jvp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes ``max(x, 0)``; its gradient reads the output, so the input need not be kept.

    Args:
      x: Numbers of any shape.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], jnp.zeros((), y.dtype))

"""Vector fields that depend on time: the networks of continuous flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from likejax.nn.convolutions import convolve, convolve_transposed
from likejax.settings import checked

TimeInjection = Literal["concat", "concatsquash", "ignore"]
"""How a layer sees the time."""
Activation = Literal["tanh", "softplus", "swish"]
"""Smooth functions between layers; swish is ``h sigmoid(beta h)`` with a learned beta for the whole network."""


class TimeLayer(nnx.Module):
    """A dense layer or convolution ``W`` with bias that depends on the time ``t``.

    * ``concat``: ``W [t, h] + b``, the time as one more input channel, the first.
    * ``concatsquash``: ``(W h + b) sigmoid(w t + c) + v t`` with ``w``, ``c`` and ``v`` per output channel.
    * ``ignore``: ``W h + b``.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      images: Whether ``h`` is an image and ``W`` a convolution.
      stride: 1 for a 3x3 kernel that keeps the size; 2 for a 4x4 kernel that halves it; -2 for a transposed 4x4
        kernel that doubles it.
      time: How the time enters.
      scale: Factor on the initial ``W``; with 0 all weights start at zero.
      rngs: Source of the weights, uniform within ``1 / sqrt(fan_in)``.

    References:
      Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, 2019, FFJORD, arXiv:1810.01367, official code.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        images: bool,
        stride: int = 1,
        time: TimeInjection = "concatsquash",
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        if stride not in (1, 2, -2):
            raise ValueError(
                f"expected a stride of 1, 2 or -2 (a transposed convolution), got {stride}"
            )
        size = (3 if stride == 1 else 4) if images else 1
        inputs = channels + (time == "concat")
        bound = 1 / math.sqrt(size * size * (features if stride < 0 else inputs))

        def uniform(shape: tuple[int, ...], bound: float) -> nnx.Param:
            if not scale:
                return nnx.Param(jnp.zeros(shape))
            # drawn flat: XLA takes seconds to compile a vectorized draw of four axes
            draw = jax.random.uniform(
                rngs.params(), (math.prod(shape),), minval=-bound, maxval=bound
            )
            return nnx.Param(draw.reshape(shape))

        self.kernel = uniform((size, size, inputs, features), scale * bound)
        self.bias = uniform((features,), bound)
        if time == "concatsquash":
            self.gate_weight, self.gate_bias, self.shift = (
                uniform((features,), 1.0) for _ in range(3)
            )
        self.time = time
        self.stride = stride

    def __call__(
        self, t: ArrayLike, h: Float[Array, "*shape channels"]
    ) -> Float[Array, "*out features"]:
        """The layer at time ``t``."""
        kernel, constant = self.kernel[...], self.bias[...]
        if self.time == "concat":
            seen = jnp.ones((*h.shape[-3:-1], 1) if kernel.shape[0] > 1 else (1,), h.dtype)
            constant = t * self._linear(seen, kernel[:, :, :1]) + constant.reshape(
                (1,) * (seen.ndim - 1) + (-1,)
            )
            kernel = kernel[:, :, 1:]
        out = self._linear(h, kernel)
        if self.time == "concatsquash":
            gate = jax.nn.sigmoid(self.gate_weight[...] * t + self.gate_bias[...])
            out = out * gate.reshape((1,) * (out.ndim - 1) + gate.shape)
            constant = constant * gate + self.shift[...] * t
        return out + constant.reshape((1,) * (out.ndim - constant.ndim) + constant.shape)

    def _linear(self, h: Array, kernel: Array) -> Array:
        if self.stride == -2:
            return convolve_transposed(h, kernel, crop=1, crop_rows=1)
        if self.stride == 2:
            return convolve(h, kernel, padding=((1, 1), (1, 1)), stride=2)
        return convolve(h, kernel)


class Dynamics(nnx.Module):
    """The field ``dz/dt = f(t, z)``: layers with an activation between them, none after the last.

    Works on any leading batch shape.

    Args:
      channels: Channels of ``z``, and of ``f``.
      hidden: Channels of the hidden layers.
      images: Whether ``z`` is an image; a vector otherwise.
      strides: Of every layer, one more than ``hidden``, for images; empty for 1 everywhere.
      time: How the time enters each layer.
      activation: Between layers.
      zero_last: Whether the last layer starts at zero, so that the flow starts as the identity (RNODE).
      initial_scale: Factor on the initial weight matrices.
      rngs: Source of the weights.
    """

    def __init__(
        self,
        channels: int,
        hidden: Sequence[int],
        *,
        images: bool = False,
        strides: Sequence[int] = (),
        time: TimeInjection = "concatsquash",
        activation: Activation = "tanh",
        zero_last: bool = False,
        initial_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        sizes = (channels, *hidden, channels)
        time, activation = (
            checked("time", time, TimeInjection),
            checked("activation", activation, Activation),
        )
        strides = tuple(strides) or (1,) * (len(sizes) - 1)
        if len(strides) != len(sizes) - 1:
            raise ValueError(
                f"expected {len(sizes) - 1} strides, one for every layer, got {len(strides)}"
            )
        self.layers = nnx.List(
            TimeLayer(
                before,
                after,
                images=images,
                stride=stride,
                time=time,
                scale=0.0 if zero_last and number == len(strides) - 1 else initial_scale,
                rngs=rngs,
            )
            for number, (before, after, stride) in enumerate(
                zip(sizes[:-1], sizes[1:], strides, strict=True)
            )
        )
        self.activation = activation
        self.beta = nnx.data(nnx.Param(jnp.ones(())) if activation == "swish" else None)

    def __call__(
        self, t: ArrayLike, z: Float[Array, "*shape channels"]
    ) -> Float[Array, "*shape channels"]:
        """The velocity at time ``t``."""
        activate = _ACTIVATIONS.get(self.activation, self._swish)
        *hidden, last = self.layers
        h = z
        for layer in hidden:
            h = activate(layer(t, h))
        return last(t, h)

    def _swish(self, h: Array) -> Array:
        assert self.beta is not None
        return h * jax.nn.sigmoid(self.beta[...] * h)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": jnp.tanh, "softplus": jax.nn.softplus}

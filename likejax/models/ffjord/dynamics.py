"""Vector fields that depend on time: the networks of continuous flows."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float
from typing_extensions import override

from likejax.nn.channels import per_channel
from likejax.nn.condition import over_positions, project
from likejax.nn.convolution import convolve, convolve_transposed
from likejax.settings import CountOrOff, NoneIsOff, Range, checked

TimeInjection = Literal["concat", "concatsquash", "ignore"]
"""Way in which the time enters a layer."""

Activation = Literal["tanh", "softplus", "swish"]
"""Smooth function between layers; swish is ``h sigmoid(beta h)`` with one learned beta."""

Strides = Annotated[tuple[Annotated[int, Range(at_least=-2, at_most=2)], ...] | None, NoneIsOff()]
"""Strides of layers: 1, 2 (halves), -2 (doubles, transposed); ``None`` for 1 everywhere."""

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": jnp.tanh, "softplus": jax.nn.softplus}


class Offsets(NamedTuple):
    """Contributions of conditions to a layer, for every output channel.

    Attributes:
      shift: Term of the output, ``(*batch, features)``.
      gate: Term inside the gate, ``(*batch, features)``; ``None`` in a layer without one.
    """

    shift: Array
    gate: Array | None


class TimeLayer(nnx.Module, abc.ABC):
    """A linear map ``W`` with bias that depends on the time ``t``.

    * ``concat``: ``W [t, h] + b``, the time as one more input channel, the first.
    * ``concatsquash``: ``(W h + b) sigmoid(w t + c) + v t`` with ``w``, ``c``, ``v`` per output
      channel.
    * ``ignore``: ``W h + b``.

    A condition adds a linear function of it to the output, and to ``w t + c``.

    It is no ``nnx.Linear`` or ``nnx.Conv``, because one input channel of the kernel is that of the
    time and is applied once for all examples.

    Args:
      size: Rows and columns of the kernel.
      channels: Channels of the input.
      features: Channels of the output.
      fan_in: Number of inputs of one output; the weights start within ``1 / sqrt(fan_in)``.
      time: Way in which the time enters.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      scale: Factor on the initial ``W``; with 0 all weights start at zero.
      rngs: Source of the weights.

    References:
      Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, 2019, FFJORD, arXiv:1810.01367,
      official code.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        features: int,
        *,
        fan_in: int,
        time: TimeInjection,
        condition_size: int | None,
        scale: float,
        rngs: nnx.Rngs,
    ):
        inputs = channels + _time_channels(time)
        bound = 1 / math.sqrt(fan_in)

        def uniform(shape: tuple[int, ...], bound: float) -> nnx.Param:
            if not scale:
                return nnx.Param(jnp.zeros(shape))
            # drawn flat: XLA takes seconds to compile a vectorized draw of four axes
            count = math.prod(shape)
            draw = jax.random.uniform(rngs.params(), (count,), minval=-bound, maxval=bound)
            return nnx.Param(draw.reshape(shape))

        self.kernel = uniform((size, size, inputs, features), scale * bound)
        self.bias = uniform((features,), bound)
        if time == "concatsquash":
            self.gate_weight = uniform((features,), 1.0)
            self.gate_bias = uniform((features,), 1.0)
            self.shift = uniform((features,), 1.0)
        shift_table = gate_table = None
        if condition_size is not None:
            table = (condition_size, features)
            shift_table = uniform(table, 1 / math.sqrt(condition_size))
            if time == "concatsquash":
                gate_table = uniform(table, 1 / math.sqrt(condition_size))
        self.condition_shift = nnx.data(shift_table)
        self.condition_gate = nnx.data(gate_table)
        self.time = time

    def offsets(self, condition: Array) -> Offsets | None:
        """Returns the contributions of conditions; ``None`` from an unconditional layer.

        Args:
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)``.
        """
        if self.condition_shift is None:
            return None
        gate = None
        if self.condition_gate is not None:
            gate = project(self.condition_gate[...], condition)
        return Offsets(project(self.condition_shift[...], condition), gate)

    def __call__(
        self, t: ArrayLike, h: Float[Array, "*shape channels"], offsets: Offsets | None = None
    ) -> Float[Array, "*out features"]:
        """Computes the layer at time ``t``.

        Args:
          t: Time.
          h: Input.
          offsets: Contributions of the condition to a conditional layer.
        """
        if self.condition_shift is not None and offsets is None:
            raise ValueError("expected a condition: this field is conditional")
        kernel, constant = self.kernel[...], self.bias[...]
        if self.time == "concat":
            # the first channel is t everywhere: its part is t times the answer to ones
            ones = self.ones(h)
            of_time = self.linear(ones, kernel[:, :, :1])
            constant = of_time * t + per_channel(constant, of_time)
            kernel = kernel[:, :, 1:]
        out = self.linear(h, kernel)
        if self.time == "concatsquash":
            logit = self.gate_weight[...] * t + self.gate_bias[...]
            if offsets is not None and offsets.gate is not None:
                logit = per_channel(logit, offsets.gate) + offsets.gate
            gate = over_positions(jax.nn.sigmoid(logit), out)
            out = out * gate
            constant = per_channel(constant, gate) * gate + per_channel(self.shift[...] * t, gate)
        if offsets is not None:
            out = out + over_positions(offsets.shift, out)
        return out + per_channel(constant, out)

    @abc.abstractmethod
    def linear(self, h: Array, kernel: Array) -> Array:
        """Applies the linear map with that kernel.

        Args:
          h: Array ``(*batch, *place, channels)``.
          kernel: Array ``(rows, columns, channels, features)``, with any number of channels.

        Returns:
          Array ``(*batch, *place, features)``, of the size of the output.
        """

    @abc.abstractmethod
    def ones(self, h: Array) -> Array:
        """Returns an example of one channel that is 1 everywhere, of the size of those in ``h``.

        Args:
          h: Array ``(*batch, *place, channels)``.
        """


class TimeDense(TimeLayer):
    """A dense layer on the last axis that depends on the time.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      time: Way in which the time enters.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      scale: Factor on the initial weight matrix; with 0 all weights start at zero.
      rngs: Source of the weights.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        time: TimeInjection = "concatsquash",
        condition_size: int | None = None,
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            1,
            channels,
            features,
            fan_in=channels + _time_channels(time),
            time=time,
            condition_size=condition_size,
            scale=scale,
            rngs=rngs,
        )

    @override
    def linear(self, h: Array, kernel: Array) -> Array:
        """Multiplies the last axis by the kernel."""
        return convolve(h, kernel)

    @override
    def ones(self, h: Array) -> Array:
        """Returns a vector of one entry, which is 1."""
        return jnp.ones((1,), h.dtype)


class TimeConvolution(TimeLayer):
    """A convolution that depends on the time.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      stride: 1 for a 3x3 kernel that keeps the size of the image, 2 for a 4x4 kernel that halves
        it, -2 for a transposed 4x4 kernel that doubles it.
      time: Way in which the time enters.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      scale: Factor on the initial kernel; with 0 all weights start at zero.
      rngs: Source of the weights.

    Raises:
      ValueError: For another stride.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        stride: int = 1,
        time: TimeInjection = "concatsquash",
        condition_size: int | None = None,
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        if stride not in (1, 2, -2):
            raise ValueError(
                f"expected a stride of 1, 2 or -2 (a transposed convolution), got {stride}"
            )
        size = 3 if stride == 1 else 4
        # of a transposed kernel PyTorch, and so the official code, takes the outputs for the inputs
        seen = features if stride < 0 else channels + _time_channels(time)
        super().__init__(
            size,
            channels,
            features,
            fan_in=size * size * seen,
            time=time,
            condition_size=condition_size,
            scale=scale,
            rngs=rngs,
        )
        self.stride = stride

    @override
    def linear(self, h: Array, kernel: Array) -> Array:
        """Convolves images with the kernel, at the stride of the layer."""
        if self.stride == -2:
            return convolve_transposed(h, kernel, crop=1, crop_rows=1)
        if self.stride == 2:
            return convolve(h, kernel, padding=((1, 1), (1, 1)), stride=2)
        return convolve(h, kernel)

    @override
    def ones(self, h: Array) -> Array:
        """Returns an image of one channel that is 1 everywhere."""
        return jnp.ones((*h.shape[-3:-1], 1), h.dtype)


def _time_channels(time: TimeInjection) -> int:
    return 1 if time == "concat" else 0


class LayeredField(nnx.Module):
    """The field ``dz/dt = f(t, z)``: layers with an activation between them, none after the last.

    Works on any leading batch shape.

    Args:
      layers: Layers, first to last.
      activation: Function between the layers.
    """

    def __init__(self, layers: Iterable[TimeLayer], activation: Activation):
        self.layers = nnx.List(list(layers))
        self.activation = activation
        beta = nnx.Param(jnp.ones(())) if activation == "swish" else None
        self.beta = nnx.data(beta)

    def __call__(
        self,
        t: ArrayLike,
        z: Float[Array, "*shape channels"],
        offsets: Sequence[Offsets | None] = (),
    ) -> Float[Array, "*shape channels"]:
        """Computes the velocity at time ``t``.

        Args:
          t: Time.
          z: State.
          offsets: Contributions of the condition to each layer of a conditional field.
        """
        activate = _ACTIVATIONS.get(self.activation, self._swish)
        offsets = offsets or [None] * len(self.layers)
        *hidden, last = zip(self.layers, offsets, strict=True)
        h = z
        for layer, own in hidden:
            h = activate(layer(t, h, own))
        layer, own = last
        return layer(t, h, own)

    def given(self, condition: Array) -> LayeredField | GivenField:
        """Returns the field ``f(t, z)`` for given conditions.

        Args:
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)``, with the leading axes of the
            states.
        """
        offsets = [layer.offsets(condition) for layer in self.layers]
        return self if offsets[0] is None else GivenField(self, offsets)

    def _swish(self, h: Array) -> Array:
        assert self.beta is not None
        return h * jax.nn.sigmoid(self.beta[...] * h)


class GivenField(nnx.Module):
    """A field for given conditions, whose contributions are computed once for a whole solve.

    Args:
      field: Conditional field.
      offsets: Contributions of the conditions to each of its layers.
    """

    def __init__(self, field: LayeredField, offsets: Sequence[Offsets | None]):
        self.field = field
        self.offsets = nnx.data(tuple(offsets))

    def __call__(
        self, t: ArrayLike, z: Float[Array, "*shape channels"]
    ) -> Float[Array, "*shape channels"]:
        """Computes the velocity at time ``t``."""
        return self.field(t, z, self.offsets)


class Dynamics(LayeredField):
    """The field of vectors: dense layers.

    Args:
      channels: Entries of ``z``, and of ``f``.
      hidden: Widths of the hidden layers.
      time: Way in which the time enters each layer.
      activation: Function between the layers.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      zero_last: Whether the last layer starts at zero, so that the flow starts as the identity
        (RNODE).
      initial_scale: Factor on the initial weight matrices.
      rngs: Source of the weights.
    """

    def __init__(
        self,
        channels: int,
        hidden: Sequence[int],
        *,
        time: TimeInjection = "concatsquash",
        activation: Activation = "tanh",
        condition_size: int | None = None,
        zero_last: bool = False,
        initial_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        shared = {
            "time": checked("time", time, TimeInjection),
            "condition_size": checked("condition_size", condition_size, CountOrOff),
            "rngs": rngs,
        }
        sizes = (channels, *hidden, channels)
        scales = _scales(len(hidden), initial_scale, zero_last)
        layers = [
            TimeDense(before, after, scale=scale, **shared)
            for before, after, scale in zip(sizes[:-1], sizes[1:], scales, strict=True)
        ]
        super().__init__(layers, checked("activation", activation, Activation))


class ImageDynamics(LayeredField):
    """The field of images: convolutions.

    Args:
      channels: Channels of ``z``, and of ``f``.
      hidden: Channels of the hidden layers.
      strides: Stride of every layer, one more than ``hidden``; ``None`` for 1 everywhere.
      time: Way in which the time enters each layer.
      activation: Function between the layers.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      zero_last: Whether the last layer starts at zero, so that the flow starts as the identity
        (RNODE).
      initial_scale: Factor on the initial kernels.
      rngs: Source of the weights.

    Raises:
      ValueError: If there is not one stride for every layer.
    """

    def __init__(
        self,
        channels: int,
        hidden: Sequence[int],
        *,
        strides: Sequence[int] | None = None,
        time: TimeInjection = "concatsquash",
        activation: Activation = "tanh",
        condition_size: int | None = None,
        zero_last: bool = False,
        initial_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        shared = {
            "time": checked("time", time, TimeInjection),
            "condition_size": checked("condition_size", condition_size, CountOrOff),
            "rngs": rngs,
        }
        sizes = (channels, *hidden, channels)
        count = len(hidden) + 1
        strides = checked("strides", strides, Strides)
        strides = (1,) * count if strides is None else strides
        if len(strides) != count:
            raise ValueError(f"expected {count} strides, one for every layer, got {len(strides)}")
        scales = _scales(len(hidden), initial_scale, zero_last)
        layers = [
            TimeConvolution(before, after, stride=stride, scale=scale, **shared)
            for before, after, stride, scale in zip(
                sizes[:-1], sizes[1:], strides, scales, strict=True
            )
        ]
        super().__init__(layers, checked("activation", activation, Activation))


def _scales(hidden: int, initial_scale: float, zero_last: bool) -> tuple[float, ...]:
    """The factor on the initial weights of each of ``hidden`` layers and of the last."""
    last = 0.0 if zero_last else initial_scale
    return (*(initial_scale,) * hidden, last)

"""The network inside a coupling, with two hidden layers whose scales depend on data."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float
from typing_extensions import override

from likejax.nn.condition import as_vector, project
from likejax.nn.edge_convolution import EdgeConvolution, ZeroConvolution, relu
from likejax.nn.modules import replace
from likejax.nn.normalization import ChannelAffine


class CouplingNetwork(nnx.Module):
    """Glow's ``NN()``: convolution, affine, ReLU, twice, and a convolution that starts at zero.

    A condition adds to the bias of the first affine layer. Its weights start at zero, so that an
    untrained network, and its initialization from data, do not depend on it.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      width: Channels of both hidden layers.
      kernel_sizes: Kernel sizes of the three convolutions: (3, 1, 3) for images, (1, 1, 1) for
        vectors.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      rngs: Source of the initial weights of the hidden layers, N(0, 0.05^2).
      dtype: Type to compute in, ``None`` for that of the input and the parameters; the output is
        float32 or better.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.3 and official code.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        width: int,
        kernel_sizes: tuple[int, int, int],
        condition_size: int | None = None,
        rngs: nnx.Rngs,
        dtype: DTypeLike | None = None,
    ):
        first, second, last = kernel_sizes
        self.first = EdgeConvolution(channels, width, kernel_size=first, rngs=rngs, dtype=dtype)
        self.first_affine = ChannelAffine(width)
        self.second = EdgeConvolution(width, width, kernel_size=second, rngs=rngs, dtype=dtype)
        self.second_affine = ChannelAffine(width)
        self.last = ZeroConvolution(width, features, kernel_size=last, dtype=dtype)
        table = None
        if condition_size is not None:
            table = nnx.Param(jnp.zeros((condition_size, width)))
        self.condition = nnx.data(table)

    @override
    def __call__(
        self, x: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape features"]:
        """Computes the output of the three convolutions.

        Args:
          x: Input.
          condition: Label or floats of a conditional network.
        """
        bias = self.first_affine.bias[...]
        if self.condition is not None:
            if condition is None:
                raise ValueError("expected a condition: this coupling is conditional")
            bias = bias + project(self.condition[...], as_vector(condition))
        h = relu(self.first(x, bias=bias, scale=self.first_affine.scale()))
        h = _affine_relu(self.second, self.second_affine, h)
        return self.last(h)

    def no_condition(self) -> Float[Array, " size"] | None:
        """Returns floats that add nothing, in place of a condition; ``None`` if unconditional."""
        return None if self.condition is None else jnp.zeros(len(self.condition[...]))

    def initialize(self, batch: Float[Array, "batch *shape channels"]) -> CouplingNetwork:
        """Returns a new network whose hidden affine layers whiten their channels on ``batch``.

        Args:
          batch: Inputs ``(n, *shape, channels)``.
        """
        first = self.first_affine.initialize(self.first(batch))
        h = _affine_relu(self.first, first, batch)
        second = self.second_affine.initialize(self.second(h))
        return replace(self, first_affine=first, second_affine=second)


def _affine_relu(linear: EdgeConvolution, affine: ChannelAffine, x: Array) -> Array:
    return relu(linear(x, bias=affine.bias[...], scale=affine.scale()))

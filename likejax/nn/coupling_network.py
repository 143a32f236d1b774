"""The network inside a coupling: two hidden layers with data-dependent scales, then one that starts at zero."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from likejax.nn.convolutions import Linear, ZeroLinear, relu
from likejax.nn.modules import replace
from likejax.nn.normalization import ChannelAffine


class CouplingNetwork(nnx.Module):
    """Linear, affine, ReLU, linear, affine, ReLU, zero-initialized linear; Glow's ``NN()``.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      width: Channels of both hidden layers.
      kernel_sizes: Of the three linear layers: (3, 1, 3) for images, (1, 1, 1) for vectors.
      rngs: Source of the initial weights of the hidden layers, N(0, 0.05^2); the affine layers set their scale.
      dtype: Type to compute in; the output is float32.

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
        rngs: nnx.Rngs,
        dtype: str = "float32",
    ):
        first, second, last = kernel_sizes
        self.first = Linear(channels, width, kernel_size=first, scale=0.05, rngs=rngs, dtype=dtype)
        self.first_affine = ChannelAffine(width)
        self.second = Linear(width, width, kernel_size=second, scale=0.05, rngs=rngs, dtype=dtype)
        self.second_affine = ChannelAffine(width)
        self.last = ZeroLinear(width, features, kernel_size=last, dtype=dtype)

    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*shape features"]:
        h = _affine_relu(self.first, self.first_affine, x)
        h = _affine_relu(self.second, self.second_affine, h)
        return self.last(h)

    def initialize(self, batch: Float[Array, "batch *shape channels"]) -> CouplingNetwork:
        """A new network whose hidden affine layers whiten their channels on ``batch``, one after the other."""
        first = self.first_affine.initialize(self.first(batch))
        h = _affine_relu(self.first, first, batch)
        return replace(
            self, first_affine=first, second_affine=self.second_affine.initialize(self.second(h))
        )


def _affine_relu(linear: Linear, affine: ChannelAffine, x: Array) -> Array:
    return relu(linear(x, bias=affine.bias[...], scale=affine.scale()))

"""Gated residual blocks of causal convolutions: outputs never see later pixels in raster order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from likejax.nn.calls import recomputed
from likejax.nn.condition import over_positions, project
from likejax.nn.dropout import dropout
from likejax.nn.modules import replace
from likejax.nn.weight_norm import WeightNormConvolution

Call = Callable[[str, Array], Array]
"""Runs the layer of a name."""


@jax.custom_jvp
def concat_elu(x: Float[Array, "*shape channels"]) -> Float[Array, "*shape doubled"]:
    """``elu`` of ``x`` and of ``-x``, side by side on the channels.

    One exponential serves both halves. The gradient reads only the output, so that the input need
    not be kept.

    Args:
      x: Array ``(*shape, channels)``.

    Returns:
      Array ``(*shape, 2 channels)``.
    """
    negative = jnp.expm1(-jnp.abs(x))
    return jnp.concatenate([jnp.where(x > 0, x, negative), jnp.where(x > 0, negative, -x)], axis=-1)


@concat_elu.defjvp
def _concat_elu_jvp(primals, tangents):
    y = concat_elu(*primals)
    slope = jnp.where(y > 0, jnp.ones((), y.dtype), y + 1)
    plus, minus = jnp.split(slope, 2, axis=-1)
    return y, jnp.concatenate([tangents[0] * plus, -tangents[0] * minus], axis=-1)


class Shift(NamedTuple):
    """The causal convolutions of a stream: those whose kernel ends at the pixel itself."""

    kernel_size: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]


SHIFTS = {"above": Shift((2, 3), ((1, 0), (1, 1))), "left": Shift((2, 2), ((1, 0), (1, 0)))}


class BlockOptions(NamedTuple):
    """Settings that all blocks and layers of a network share.

    Attributes:
      dropout: Rate of dropout in training.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      dtype: Type to compute in.
      remat: Whether the inside of a block is computed anew for gradients, which saves memory.
    """

    dropout: float
    condition_size: int | None
    dtype: DTypeLike | None
    remat: bool = False


class GatedBlock(nnx.Module):
    """``x + a * sigmoid(b)`` with ``a, b`` from two causal convolutions of ``concat_elu``.

    ``h = first(concat_elu(x)) + skip(concat_elu(side))`` and
    ``a, b = second(dropout(concat_elu(h))) + c``. The bias ``c`` is a linear function of the
    condition.

    Args:
      filters: Channels of ``x``.
      side: Channels of the side input; ``None`` for none.
      stream: Stream whose causal convolutions the block has.
      options: Settings that all blocks share.
      rngs: Source of the initial weights.

    References:
      Salimans, Karpathy, Chen and Kingma, 2017, PixelCNN++, arXiv:1701.05517, with official code.
    """

    def __init__(
        self,
        filters: int,
        side: int | None,
        *,
        stream: Literal["above", "left"],
        options: BlockOptions,
        rngs: nnx.Rngs,
    ):
        size, padding = SHIFTS[stream]
        dtype, condition_size = options.dtype, options.condition_size
        self.first = WeightNormConvolution(
            2 * filters, filters, kernel_size=size, padding=padding, rngs=rngs, dtype=dtype
        )
        skip = None
        if side is not None:
            skip = WeightNormConvolution(2 * side, filters, rngs=rngs, dtype=dtype)
        self.skip = skip
        self.second = WeightNormConvolution(
            2 * filters,
            2 * filters,
            kernel_size=size,
            padding=padding,
            initial_scale=0.1,
            rngs=rngs,
            dtype=dtype,
        )
        table = None
        if condition_size is not None:
            shape = (condition_size, 2 * filters)
            table = nnx.Param(0.05 * jax.random.normal(rngs.params(), shape))
        self.label = table  # named when labels were the only conditions; checkpoints have the name
        self.dropout = options.dropout
        self.remat = options.remat

    def __call__(
        self, x: Array, side: Array | None, condition: Array | None, key: Array | None
    ) -> Array:
        """Returns the block's output.

        Args:
          x: Input.
          side: Side input; ``None`` for a block without one.
          condition: Label ``(*batch,)`` or floats ``(*batch, size)`` of a conditional model.
          key: Key for dropout; ``None`` for none.
        """
        run = recomputed(_run) if self.remat else _run
        return run(self, x, side, condition, key)

    def run(
        self, call: Call, x: Array, side: Array | None, condition: Array | None, key: Array | None
    ) -> Array:
        """Runs the block with its layers run by ``call``.

        Args:
          call: Runs the layer of a name on its input.
          x: Input.
          side: Side input.
          condition: Condition.
          key: Key for dropout.
        """
        h = call("first", concat_elu(x))
        if side is not None:
            h = h + call("skip", concat_elu(side))
        h = call("second", dropout(concat_elu(h), self.dropout, key))
        if self.label is not None and condition is not None:
            bias = project(self.label[...], condition).astype(h.dtype)
            # By itself: in one loop with the gate, XLA's CPU code (JAX 0.12) rounds by position in
            # the batch.
            h = jax.lax.optimization_barrier(h)
            h = h + over_positions(bias, h)
            h = jax.lax.optimization_barrier(h)
        value, gate = jnp.split(h, 2, axis=-1)
        return x + value * jax.nn.sigmoid(gate)

    def initialize(
        self, x: Array, side: Array | None, condition: Array | None, key: Array | None
    ) -> tuple[GatedBlock, Array]:
        """Initializes the layers one after the other on a batch.

        Args:
          x: Input.
          side: Side input.
          condition: Condition.
          key: Key for dropout.

        Returns:
          The initialized block, and its output.
        """
        layers: dict[str, Any] = {}

        def call(name: str, h: Array) -> Array:
            layers[name], out = getattr(self, name).initialize(h)
            return out

        out = self.run(call, x, side, condition, key)
        return replace(self, **layers), out


def _run(
    block: GatedBlock, x: Array, side: Array | None, condition: Array | None, key: Array | None
) -> Array:
    """Runs a block with its layers as they are."""
    return block.run(lambda name, h: getattr(block, name)(h), x, side, condition, key)

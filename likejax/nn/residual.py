"""Residual networks of vectors, plain or with the masks of autoregressive models."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from typing_extensions import override

from likejax.nn.condition import as_vector, project
from likejax.nn.dropout import dropout
from likejax.nn.initial import uniform_weights
from likejax.nn.modules import Buffer
from likejax.nn.product import dense_in_rows, product
from likejax.settings import Count, CountOrOff, CountOrZero, Fraction, checked

_SMALL = 1e-3
"""Bound of the initial weights of a block's last layer: a block begins near the identity."""


class Degrees(NamedTuple):
    """The degrees of an autoregressive network: a unit sees the units of lower or equal degree.

    Attributes:
      inputs: Degree of every input, a permutation of ``1..D``: the place of its feature.
      hidden: Degree of every hidden unit, in ``1..D-1``.
      outputs: Degree of every output, one less than that of its feature, which it must not see.
    """

    inputs: Int[Array, " channels"]
    hidden: Int[Array, " width"]
    outputs: Int[Array, " features"]


class MaskedDense(nnx.Module):
    """``y = x W + b``; with a mask, a matrix some of whose entries are zero.

    Args:
      channels: Size of the input.
      features: Size of the output.
      bound: Bound of the uniform initial weights.
      mask: Booleans of the entries that count, or ``None`` for all.
      rngs: Source of the weights.

    References:
      Germain, Gregor, Murray and Larochelle, 2015, MADE, arXiv:1502.03509.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        bound: float,
        mask: Bool[Array, "channels features"] | None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(uniform_weights(rngs.params(), (channels, features), bound))
        self.bias = nnx.Param(uniform_weights(rngs.params(), (features,), bound))
        self.mask = nnx.data(None if mask is None else Buffer(mask))

    @override
    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch features"]:
        """Computes the layer."""
        return product(x, self._masked()) + self.bias[...]

    def in_rows(self, x: Float[Array, " channels"], rows: int) -> Float[Array, "rows columns"]:
        """Computes the layer for one example, dealt to rows (``dense_in_rows``).

        Args:
          x: Vector ``(channels,)``.
          rows: Number of rows, a divisor of the number of features.

        Returns:
          Array ``(rows, features / rows)``, feature ``i`` in row ``i % rows``.
        """
        return dense_in_rows(x, self._masked(), self.bias[...], rows)

    def _masked(self) -> Float[Array, "channels features"]:
        kernel = self.kernel[...]
        return kernel if self.mask is None else jnp.where(self.mask[...], kernel, 0)


class ResidualBlock(nnx.Module):
    """``h + gate(condition) * second(dropout(relu(first(relu(h)))))`` with a sigmoid gate.

    Args:
      width: Hidden units.
      condition_size: Entries of a float condition or number of classes; ``None`` for no gate.
      mask: Mask of both layers, or ``None``.
      rngs: Source of the weights.
    """

    def __init__(
        self,
        width: int,
        *,
        condition_size: int | None,
        mask: Bool[Array, "width width"] | None,
        rngs: nnx.Rngs,
    ):
        bound = 1 / math.sqrt(width)
        self.first = MaskedDense(width, width, bound=bound, mask=mask, rngs=rngs)
        self.second = MaskedDense(width, width, bound=_SMALL, mask=mask, rngs=rngs)
        gate, gate_bias = None, None
        if condition_size is not None:
            bound = 1 / math.sqrt(condition_size)
            gate = nnx.Param(uniform_weights(rngs.params(), (condition_size, width), bound))
            gate_bias = nnx.Param(uniform_weights(rngs.params(), (width,), bound))
        self.gate = nnx.data(gate)
        self.gate_bias = nnx.data(gate_bias)

    @override
    def __call__(
        self, h: Float[Array, " width"], condition: Array | None, key: Array | None, rate: float
    ) -> Float[Array, " width"]:
        """Computes the block, with dropout if there is a key."""
        change = jax.nn.relu(self.first(jax.nn.relu(h)))
        change = self.second(dropout(change, rate, key))
        if self.gate is not None and self.gate_bias is not None:
            assert condition is not None
            change = change * jax.nn.sigmoid(
                project(self.gate[...], condition) + self.gate_bias[...]
            )
        return h + change


class ResidualNetwork(nnx.Module):
    """A linear layer, residual blocks, a linear layer; the condition enters the first and blocks.

    Args:
      channels: Size of the input.
      features: Size of the output.
      width: Hidden units.
      blocks: Number of residual blocks.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      dropout_rate: Probability of dropping a hidden unit, where a key is given.
      degrees: Degrees of an autoregressive network, or ``None`` for a plain one.
      rngs: Source of the weights.

    References:
      Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows, arXiv:1906.04032,
      official code. Nash and Durkan, 2019, Autoregressive energy machines, arXiv:1904.05626 (the
      masked form).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        width: int,
        blocks: int = 2,
        condition_size: int | None = None,
        dropout_rate: float = 0.0,
        degrees: Degrees | None = None,
        rngs: nnx.Rngs,
    ):
        width = checked("width", width, Count)
        condition_size = checked("condition_size", condition_size, CountOrOff)
        first, hidden, last = _masks(degrees)
        bound = 1 / math.sqrt(channels + (condition_size or 0))
        self.first = MaskedDense(channels, width, bound=bound, mask=first, rngs=rngs)
        first_condition = None
        if condition_size is not None:
            first_condition = nnx.Param(
                uniform_weights(rngs.params(), (condition_size, width), bound)
            )
        self.first_condition = nnx.data(first_condition)
        self.blocks = nnx.List(
            [
                ResidualBlock(width, condition_size=condition_size, mask=hidden, rngs=rngs)
                for _ in range(checked("blocks", blocks, CountOrZero))
            ]
        )
        self.last = MaskedDense(width, features, bound=1 / math.sqrt(width), mask=last, rngs=rngs)
        self.dropout_rate = checked("dropout_rate", dropout_rate, Fraction)

    @override
    def __call__(
        self,
        x: Float[Array, " channels"],
        condition: Array | None = None,
        key: Array | None = None,
        *,
        rows: int = 1,
    ) -> Float[Array, "rows columns"]:
        """Computes the output for one example, feature ``i`` in row ``i % rows``.

        Args:
          x: Input.
          condition: Label or floats of a conditional network.
          key: Key for dropout; ``None`` for none.
          rows: Number of rows.
        """
        h = self.first(x)
        if self.first_condition is not None:
            if condition is None:
                raise ValueError("expected a condition: this network is conditional")
            condition = as_vector(condition)
            h = h + project(self.first_condition[...], condition)
        for i, block in enumerate(self.blocks):
            own_key = None if key is None else jax.random.fold_in(key, i)
            h = block(h, condition, own_key, self.dropout_rate)
        return self.last.in_rows(h, rows)


def _masks(degrees: Degrees | None) -> tuple[Array | None, Array | None, Array | None]:
    """Returns the masks of the first layer, of those between hidden units, and of the last."""
    if degrees is None:
        return None, None, None
    inputs, hidden, outputs = degrees
    return (
        hidden[None, :] >= inputs[:, None],
        hidden[None, :] >= hidden[:, None],
        outputs[None, :] >= hidden[:, None],
    )


def degrees_in_turn(dimensions: int, width: int, outputs_each: int) -> Degrees:
    """Returns degrees for the features in their own order; hidden units take turns.

    Args:
      dimensions: Number of features.
      width: Number of hidden units.
      outputs_each: Number of outputs of every feature.
    """
    order = np.arange(1, dimensions + 1)
    hidden = np.arange(width) % max(1, dimensions - 1) + min(1, dimensions - 1)
    return _degrees(order, hidden, outputs_each)


def random_degrees(dimensions: int, width: int, outputs_each: int, *, key: Array) -> Degrees:
    """Returns degrees for the features in a random order, those of hidden units random too.

    Args:
      dimensions: Number of features.
      width: Number of hidden units.
      outputs_each: Number of outputs of every feature.
      key: Key of the order and of the hidden degrees.
    """
    order_key, hidden_key = jax.random.split(key)
    order = jax.random.permutation(order_key, jnp.arange(1, dimensions + 1))
    lowest = min(1, dimensions - 1)
    hidden = jax.random.randint(hidden_key, (width,), lowest, dimensions)
    return _degrees(order, hidden, outputs_each)


def _degrees(order: Array | np.ndarray, hidden: Array | np.ndarray, outputs_each: int) -> Degrees:
    order = jnp.asarray(order)
    return Degrees(order, jnp.asarray(hidden), jnp.repeat(order - 1, outputs_each))

"""The denoiser of vectors: residual dense blocks."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.models.diffusion.denoiser import NO_HINTS, Denoiser, Hints
from likejax.models.diffusion.network import Layer, TimeEmbedding, fourier_features
from likejax.nn.dropout import dropout
from likejax.nn.repeat import repeat


class VectorBlock(nnx.Module):
    """``h + second(drop(swish(first(swish(h)) + project(embedding))))``.

    Args:
      width: Hidden units.
      dropout_rate: Probability of dropping a hidden unit in training.
      rngs: Source of the weights.
    """

    def __init__(self, width: int, dropout_rate: float, *, rngs: nnx.Rngs):
        self.first = Layer(width, width, rngs=rngs)
        self.project = Layer(4 * width, width, bias=False, rngs=rngs)
        self.second = Layer(width, width, zero=True, rngs=rngs)
        self.dropout_rate = dropout_rate

    @override
    def __call__(self, h: Array, embedding: Array, key: Array | None) -> Array:
        """Computes the block."""
        change = self.first(jax.nn.silu(h)) + self.project(embedding)
        return h + self.second(dropout(jax.nn.silu(change), self.dropout_rate, key))


class VectorNetwork(Denoiser):
    """``prediction(z, gamma, condition)`` for vectors.

    A dense layer on ``z`` and its Fourier features, residual blocks that all see the time and the
    condition, and a dense layer that starts at zero, whose output is added to ``z``.

    Args:
      dimensions: Number of entries of a vector.
      width: Hidden units; even.
      blocks: Residual blocks.
      frequencies: Frequencies of the Fourier features.
      ends: ``gamma`` at both ends, by which the time in the embedding is measured.
      dropout_rate: Probability of dropping a hidden unit in training.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      rngs: Source of the weights.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        width: int,
        blocks: int,
        frequencies: tuple[float, ...],
        ends: tuple[float, float],
        dropout_rate: float,
        condition_size: int | None,
        rngs: nnx.Rngs,
    ):
        self.frequencies = frequencies
        self.ends = ends
        self.time = TimeEmbedding(width, condition_size=condition_size, dtype=None, rngs=rngs)
        self.first = Layer(dimensions * (1 + 2 * len(frequencies)), width, rngs=rngs)
        repeated = None
        if blocks:
            repeated = repeat(
                lambda rngs: VectorBlock(width, dropout_rate, rngs=rngs), blocks, rngs=rngs
            )
        self.blocks = nnx.data(repeated)
        self.last = Layer(width, dimensions, zero=True, rngs=rngs)

    @override
    def __call__(
        self,
        z: Float[Array, "*batch dimensions"],
        gamma: Float[Array, "*batch"],
        condition: Array | None = None,
        hints: Hints = NO_HINTS,
    ) -> Float[Array, "*batch dimensions"]:
        """Computes the prediction; see ``Denoiser``."""
        start, end = self.ends
        embedding = self.time((gamma - start) / (end - start), condition, hints)
        h = self.first(fourier_features(z, self.frequencies))

        def one(carry: tuple[Array, Array | None], block: VectorBlock) -> tuple[Any, tuple]:
            h, key = carry
            own, key = (None, None) if key is None else jax.random.split(key)
            return (block(h, embedding, own), key), ()

        if self.blocks is not None:
            (h, _), _ = self.blocks.fold(one, (h, hints.key))
        return z + self.last(jax.nn.silu(h))

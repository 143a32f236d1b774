"""The denoiser of sequences of tokens: a transformer that sees its own first estimate."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.models.diffusion.denoiser import NO_HINTS, Denoiser, Hints
from likejax.models.diffusion.network import Context, Layer, TimeEmbedding
from likejax.nn.attention import attend
from likejax.nn.channels import per_channel
from likejax.nn.condition import over_positions
from likejax.nn.dropout import dropout
from likejax.nn.repeat import repeat, stack

SELF_CONDITIONED = 0.25
"""Probability that a training example gets the estimate of a first pass, as in Plaid."""
_LONGEST = 1_000.0
"""Ratio of the longest to the shortest wave of the positions at the start."""
_EPSILON = 1e-5
"""Least variance of a normalization."""


@dataclasses.dataclass(frozen=True)
class SequenceSizes:
    """The sizes and settings that all parts of a network of sequences share."""

    width: int
    """Channels of a position."""
    heads: int
    """Heads of the attention, which divide the width."""
    dropout: float
    """Probability of dropping an entry of a block's change in training."""


class Modulated(nnx.Module):
    """``norm(h) (1 + scale) + shift``; time and condition choose the scale and the shift.

    Args:
      width: Channels of a position.
      rngs: Source of the weights.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.project = Layer(4 * width, 2 * width, zero=True, rngs=rngs)

    @override
    def __call__(
        self, h: Float[Array, "*batch length width"], embedding: Float[Array, "*batch four_widths"]
    ) -> Float[Array, "*batch length width"]:
        """Normalizes every position over its channels, and moves them."""
        centered = h - h.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        normed = centered * jax.lax.rsqrt(variance + _EPSILON)
        scale, shift = jnp.split(self.project(embedding), 2, axis=-1)
        return normed * (1 + over_positions(scale, h)) + over_positions(shift, h)


class SelfAttention(nnx.Module):
    """Attention of every position to all positions, with several heads.

    Args:
      sizes: Sizes of the network.
      rngs: Source of the weights.
    """

    def __init__(self, sizes: SequenceSizes, *, rngs: nnx.Rngs):
        self.heads = sizes.heads
        self.inputs = Layer(sizes.width, 3 * sizes.width, bias=False, rngs=rngs)
        self.project = Layer(sizes.width, sizes.width, zero=True, rngs=rngs)

    @override
    def __call__(
        self, h: Float[Array, "*batch length width"]
    ) -> Float[Array, "*batch length width"]:
        """Computes the attention."""
        parts = jnp.split(self.inputs(h), 3, axis=-1)
        by_head = (*h.shape[:-1], self.heads, h.shape[-1] // self.heads)
        seen = attend(*(part.reshape(by_head) for part in parts))
        return self.project(seen.reshape(h.shape))


class SequenceBlock(nnx.Module):
    """``h + drop(attend(norm(h)))``, then ``h + drop(W_2 gelu(W_1 norm(h)))``.

    Args:
      sizes: Sizes of the network.
      rngs: Source of the weights.
    """

    def __init__(self, sizes: SequenceSizes, *, rngs: nnx.Rngs):
        width = sizes.width
        self.attention_norm = Modulated(width, rngs=rngs)
        self.attention = SelfAttention(sizes, rngs=rngs)
        self.dense_norm = Modulated(width, rngs=rngs)
        self.first = Layer(width, 4 * width, rngs=rngs)
        self.second = Layer(4 * width, width, zero=True, rngs=rngs)
        self.dropout_rate = sizes.dropout

    @override
    def __call__(self, h: Array, context: Context) -> Array:
        """Computes the block for positions ``(*batch, length, width)``."""
        change = self.attention(self.attention_norm(h, context.embedding))
        h = h + dropout(change, self.dropout_rate, context.of(0).key)
        change = self.first(self.dense_norm(h, context.embedding))
        change = self.second(jax.nn.gelu(change))
        return h + dropout(change, self.dropout_rate, context.of(1).key)


class SequenceNetwork(Denoiser):
    """Logits of the tokens of a sequence: a transformer that attends in both directions.

    It conditions on itself. A first pass gives probabilities of the tokens, which a second pass
    takes as a further input, so the network remains one function of ``z`` and ``gamma``. In
    training, which is where there is a key, an example keeps these probabilities with the
    probability 0.25, no gradient goes through them, and the others see zeros as the first pass
    does.

    Args:
      length: Number of tokens of a sequence.
      vocabulary: Number of tokens that there are.
      channels: Numbers of a token's vector.
      sizes: Sizes of the network.
      blocks: Number of blocks.
      ends: ``gamma`` at both ends, by which the time in the embedding is measured.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      rngs: Source of the weights.

    References:
      Gulrajani and Hashimoto, 2023, Likelihood-based diffusion language models, arXiv:2305.18619,
      section 3.4. Chen, Zhang and Hinton, 2022, Analog bits, arXiv:2208.04202 (self-conditioning).
    """

    def __init__(
        self,
        length: int,
        vocabulary: int,
        channels: int,
        sizes: SequenceSizes,
        *,
        blocks: int,
        ends: tuple[float, float],
        condition_size: int | None,
        rngs: nnx.Rngs,
    ):
        width = sizes.width
        self.ends = ends
        self.time = TimeEmbedding(width, condition_size=condition_size, dtype=None, rngs=rngs)
        self.first = Layer(channels, width, rngs=rngs)
        self.estimate = Layer(vocabulary, width, bias=False, rngs=rngs)
        self.positions = nnx.Param(_waves(length, width))
        self.blocks = nnx.data(
            repeat(lambda rngs: SequenceBlock(sizes, rngs=rngs), blocks, rngs=rngs)
        )
        self.norm = Modulated(width, rngs=rngs)
        self.last = Layer(width, vocabulary, zero=True, rngs=rngs)

    @override
    def __call__(
        self,
        z: Float[Array, "*batch length channels"],
        gamma: Float[Array, "*batch"],
        condition: Array | None = None,
        hints: Hints = NO_HINTS,
    ) -> Float[Array, "*batch length vocabulary"]:
        """Computes the logits; see ``Denoiser``.

        Raises:
          ValueError: If the hints lack the evidence.
        """
        if hints.evidence is None:
            raise ValueError(
                "expected hints with the evidence of the noisy point: "
                "`density.predict(z, gamma)` gives it"
            )
        start, end = self.ends
        embedding = self.time((gamma - start) / (end - start), condition, hints)
        h = self.first(z) + per_channel(self.positions[...], z)
        logits = self._pass(h, Context(embedding, None))
        seen = jax.nn.softmax(logits + hints.evidence, axis=-1)
        if hints.key is not None:
            kept = jax.random.bernoulli(hints.key, SELF_CONDITIONED, gamma.shape)
            seen = jax.lax.stop_gradient(jnp.where(kept[..., None, None], seen, 0))
        # a certain token counts as much as its vector does
        seen = self.estimate(math.sqrt(seen.shape[-1]) * seen)
        return self._pass(h + seen, Context(embedding, hints.key).of(0))

    def _pass(self, h: Array, context: Context) -> Float[Array, "*batch length vocabulary"]:
        """The blocks and the last layer."""

        def step(carry: tuple[Array, Context], block: SequenceBlock) -> tuple[tuple, None]:
            h, context = carry
            context = context.of(0)
            return (block(h, context.of(1)), context), None

        (h, context), _ = self.blocks.fold(step, (h, context))
        return self.last(self.norm(h, context.embedding))

    @override
    def in_loops(self) -> SequenceNetwork:
        """Returns the network with its blocks as a scan, which compile once."""
        return stack(self)


def _waves(length: int, width: int) -> Float[Array, "length width"]:
    """Sines and cosines of the positions, from which learned ones start.

    What lies so many positions apart is then related by one linear map wherever it is.
    """
    half = width // 2
    angles = np.arange(length)[:, None] * _LONGEST ** (-np.arange(half) / half)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    return jnp.asarray(waves, jnp.result_type(float))

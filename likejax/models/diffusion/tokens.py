"""Tokens as learned vectors of equal length."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer, Num
from typing_extensions import override

from likejax.density import integer_dtype
from likejax.inputs import inside_levels
from likejax.models.diffusion.embedding import DiscreteEmbedding
from likejax.nn.initial import normal_weights
from likejax.nn.product import product
from likejax.settings import Count, Levels, checked


class TokenEmbedding(DiscreteEmbedding):
    """Tokens ``0..V-1`` as learned vectors ``e_v`` of ``E`` numbers, all of the norm ``sqrt(E)``.

    ``p(x | u)`` is proportional to ``exp(-|u - e_x|^2 / (2 exp(gamma)))`` over the vocabulary, for
    every token by itself. Norms are equal, so that is the softmax of ``exp(-gamma) u . e_v``.

    Args:
      vocabulary: Number of tokens, ``V``.
      size: Numbers of a vector, ``E``.
      rngs: Source of the vectors.

    References:
      Gulrajani and Hashimoto, 2023, Likelihood-based diffusion language models, arXiv:2305.18619,
      section 3.1.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from likejax.models.diffusion.tokens import TokenEmbedding
      >>> embedding = TokenEmbedding(27, 8, rngs=nnx.Rngs(0))
      >>> y = embedding.embed(jnp.asarray([3, 1, 4]))
      >>> y.shape, embedding.nearest(y).tolist()
      ((3, 8), [3, 1, 4])
    """

    def __init__(self, vocabulary: int, size: int, *, rngs: nnx.Rngs):
        self.levels: int = checked("vocabulary", vocabulary, Levels)
        self.size: int = checked("size", size, Count)
        self.table = nnx.Param(normal_weights(rngs.params(), (self.levels, self.size)))

    def vectors(self) -> Float[Array, "levels size"]:
        """The vectors of all tokens, of norm ``sqrt(E)``."""
        table = self.table[...]
        return table * (math.sqrt(self.size) / jnp.linalg.norm(table, axis=-1, keepdims=True))

    @override
    def embed(self, x: Num[Array, "*event"]) -> Float[Array, "*event size"]:
        """Looks up the vectors of tokens."""
        return jnp.take(self.vectors(), self._inside(x), axis=0)

    @override
    def logits(
        self, u: Float[Array, "*batch_and_event size"], gamma: Float[Array, "..."]
    ) -> Float[Array, "*batch_and_event levels"]:
        """``exp(-gamma) u . e_v`` for every token ``v``."""
        scaled = jnp.exp(-gamma) * u
        return product(scaled, self.vectors().T)

    @override
    def mean(
        self, probabilities: Float[Array, "*batch_and_event levels"]
    ) -> Float[Array, "*batch_and_event size"]:
        """The mean of the vectors."""
        return product(probabilities, self.vectors())

    @override
    def log_prob(
        self, x: Num[Array, "*event"], u: Float[Array, "*event size"], gamma: Float[Array, ""]
    ) -> Float[Array, ""]:
        """``log p(x | u)`` in nats; minus infinity if an entry is no token."""
        each = jax.nn.log_softmax(self.logits(u, gamma), axis=-1)
        own = jnp.take_along_axis(each, self._inside(x)[..., None], axis=-1)
        return jnp.where(inside_levels(x, self.levels).all(), own.sum(), -jnp.inf)

    @override
    def nearest(self, u: Float[Array, "*event size"]) -> Num[Array, "*event"]:
        """The token whose vector is nearest."""
        nearest = self.logits(u, jnp.zeros((), u.dtype)).argmax(-1)
        return nearest.astype(integer_dtype(self.levels))

    def _inside(self, x: Num[Array, "*event"]) -> Integer[Array, "*event"]:
        """Tokens as indices; what is no token becomes the nearest one."""
        return jnp.clip(x.astype(jnp.int32), 0, self.levels - 1)

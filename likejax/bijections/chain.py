"""Maps made of maps: one after the other, the same one many times, the other way round."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from likejax.bijections.bijection import Bijection, Latent, forward_batch
from likejax.nn.depth import Blocks
from likejax.nn.modules import replace


class Chain(Bijection):
    """``forward`` applies the maps in order.

    After a map that returns a tuple (``Split``) the next map continues with its first entry and the rest is
    put in front of what was factored out before; so a chain with two splits returns
    ``(top, second_factored, first_factored)``.

    Args:
      bijections: The maps, data side first.
    """

    def __init__(self, bijections: Iterable[Bijection]):
        self.bijections = nnx.List(list(bijections))
        self.estimates = any(b.estimates for b in self.bijections)
        self.factored = sum(b.factored for b in self.bijections)

    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, Float[Array, ""]]:
        total = jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))
        factored: tuple[Array, ...] = ()
        for i, bijection in enumerate(self.bijections):
            own_key = None if key is None else jax.random.fold_in(key, i)
            z, log_det = bijection.forward(x, own_key, condition)
            x, *rest = z if isinstance(z, tuple) else (z,)
            factored = (*rest, *factored)
            total = total + log_det
        return ((x, *factored) if factored else x), total

    def inverse(self, z: Latent, condition: Array | None = None) -> Array:
        x, *factored = z if isinstance(z, tuple) else (z,)
        if len(factored) != self.factored:
            raise ValueError(f"expected {self.factored} factored-out latents besides the top one, got {len(factored)}")
        for bijection in reversed(self.bijections):
            own, factored = factored[: bijection.factored], factored[bijection.factored :]
            x = bijection.inverse((x, *own) if own else x, condition)
        return x

    def initialise(self, batch: Float[Array, "batch ..."], key: Array) -> Chain:
        done = []
        for i, bijection in enumerate(self.bijections):
            done.append(bijection.initialise(batch, jax.random.fold_in(key, i)))
            if len(done) < len(self.bijections):
                z = forward_batch(done[-1], batch)
                batch = z[0] if isinstance(z, tuple) else z
        return replace(self, bijections=nnx.List(done))


class Repeat(Bijection):
    """``length`` maps of one structure in a row, each with its own parameters.

    Args:
      blocks: The maps, from ``likejax.nn.depth.repeat``; stacked or apart, the values are the same.
    """

    def __init__(self, blocks: Blocks):
        self.blocks = blocks

    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, Float[Array, ""]]:
        def step(carry, block):
            x, total = carry
            z, log_det = block.forward(x, None, condition)
            return (z, total + log_det), None

        zero = jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))
        return self.blocks.fold(step, (x, zero))[0]

    def inverse(self, z: Array, condition: Array | None = None) -> Array:
        return self.blocks.fold(lambda x, block: (block.inverse(x, condition), None), z, reverse=True)[0]

    def initialise(self, batch: Float[Array, "batch ..."], key: Array) -> Repeat:
        def step(carry, block):
            batch, key = carry
            key, own_key = jax.random.split(key)
            block = block.initialise(batch, own_key)
            return (forward_batch(block, batch), key), block

        _, blocks = self.blocks.fold(step, (batch, key))
        return Repeat(self.blocks.with_blocks(blocks))


class Inverse(Bijection):
    """A map the other way round: ``forward`` is the inverse of ``bijection``.

    Args:
      bijection: A map whose latent is a single array.
    """

    def __init__(self, bijection: Bijection):
        self.bijection = bijection
        self.estimates = bijection.estimates

    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, Float[Array, ""]]:
        z = self.bijection.inverse(x, condition)
        return z, -self.bijection.forward(z, key, condition)[1]

    def inverse(self, z: Array, condition: Array | None = None) -> Array:
        return self.bijection.forward(z, None, condition)[0]

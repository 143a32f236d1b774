"""Maps made of maps: one after the other, the same one many times, the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from likejax.bijections.bijection import Bijection, Latent, Parts, check_bijection, forward_batch
from likejax.keys import example_keys
from likejax.nn.modules import replace
from likejax.nn.repeat import Blocks

Method = Callable[
    [Bijection, Array, Array | None, Array | None], tuple[Latent, Float[Array, ""], Parts]
]
"""How a composition applies one of its maps: by ``forward``, without parts, or by ``terms``."""


def _forward(
    bijection: Bijection, x: Array, key: Array | None, condition: Array | None
) -> tuple[Latent, Float[Array, ""], Parts]:
    z, log_det = bijection.forward(x, key, condition)
    return z, log_det, {}


def _terms(
    bijection: Bijection, x: Array, key: Array | None, condition: Array | None
) -> tuple[Latent, Float[Array, ""], Parts]:
    return bijection.terms(x, key, condition)


class Chain(Bijection):
    """``forward`` applies the maps in order.

    After a map that returns a tuple (``Split``) the next map continues with its first entry and the rest is
    put in front of what was factored out before; so a chain with two splits returns
    ``(top, second_factored, first_factored)``.

    Args:
      bijections: The maps, data side first.
    """

    def __init__(self, bijections: Iterable[Bijection]):
        maps = list(bijections)
        for each in maps:
            check_bijection(each)
        if not maps:
            raise ValueError("expected at least one map in a chain")
        self.bijections = nnx.List(maps)
        self.factored = sum(b.factored for b in self.bijections)

    @property
    def estimates(self) -> bool:  # type: ignore[override]
        return any(b.estimates for b in self.bijections)

    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, Float[Array, ""]]:
        z, log_det, _ = self._apply(_forward, x, key, condition)
        return z, log_det

    def terms(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, Float[Array, ""], Parts]:
        return self._apply(_terms, x, key, condition)

    def _apply(
        self, method: Method, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Latent, Float[Array, ""], Parts]:
        total = jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))
        factored: tuple[Array, ...] = ()
        parts: Parts = {}
        for i, bijection in enumerate(self.bijections):
            own_key = None if key is None else jax.random.fold_in(key, i)
            z, log_det, own_parts = method(bijection, x, own_key, condition)
            x, *rest = z if isinstance(z, tuple) else (z,)
            factored = (*rest, *factored)
            total = total + log_det
            parts = _add(parts, own_parts)
        z = (x, *factored) if factored else x
        return z, total, parts

    def inverse(self, z: Latent, condition: Array | None = None) -> Array:
        x, *factored = z if isinstance(z, tuple) else (z,)
        if len(factored) != self.factored:
            raise ValueError(
                f"expected {self.factored} factored-out latents besides the top one, got {len(factored)}"
            )
        for bijection in reversed(self.bijections):
            own, factored = factored[: bijection.factored], factored[bijection.factored :]
            x = bijection.inverse((x, *own) if own else x, condition)
        return x

    def initialize(self, batch: Float[Array, "batch ..."], key: Array) -> Chain:
        done = []
        for i, bijection in enumerate(self.bijections):
            done.append(bijection.initialize(batch, jax.random.fold_in(key, i)))
            if len(done) < len(self.bijections):
                z = forward_batch(done[-1], batch)
                batch = z[0] if isinstance(z, tuple) else z
        return replace(self, bijections=nnx.List(done))


class Repeat(Bijection):
    """``length`` maps of one structure in a row, each with its own parameters.

    Args:
      blocks: The maps, from ``likejax.nn.repeat.repeat``; stacked or apart, the values are the same.
    """

    def __init__(self, blocks: Blocks):
        if not isinstance(blocks, Blocks):
            raise TypeError(
                f"expected blocks from likejax.nn.repeat.repeat, got {type(blocks).__name__}"
            )
        self.blocks = blocks

    @property
    def estimates(self) -> bool:  # type: ignore[override]
        return self.blocks.first().estimates

    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, Float[Array, ""]]:
        z, log_det, _ = self._apply(_forward, x, key, condition)
        return z, log_det

    def terms(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, Float[Array, ""], Parts]:
        return self._apply(_terms, x, key, condition)

    def _apply(
        self, method: Method, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, Float[Array, ""], Parts]:
        def step(carry, block, key):
            x, total = carry
            z, log_det, parts = method(block, x, key, condition)
            return (z, total + log_det), parts

        keys = None if key is None else example_keys(key, jnp.arange(self.blocks.length))
        zero = jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))
        (z, total), parts = self.blocks.fold(step, (x, zero), keys)
        return z, total, self.blocks.sum(parts)

    def inverse(self, z: Array, condition: Array | None = None) -> Array:
        return self.blocks.fold(
            lambda x, block: (block.inverse(x, condition), None), z, reverse=True
        )[0]

    def initialize(self, batch: Float[Array, "batch ..."], key: Array) -> Repeat:
        def step(carry, block):
            batch, key = carry
            key, own_key = jax.random.split(key)
            block = block.initialize(batch, own_key)
            return (forward_batch(block, batch), key), block

        _, blocks = self.blocks.fold(step, (batch, key))
        return Repeat(self.blocks.with_blocks(blocks))


def _add(first: Parts, second: Parts) -> Parts:
    """Parts of both, those of one name added."""
    return {
        **first,
        **{name: first[name] + part if name in first else part for name, part in second.items()},
    }


class Inverse(Bijection):
    """A map the other way round: ``forward`` is the inverse of ``bijection``.

    Args:
      bijection: A map whose latent is a single array.
    """

    def __init__(self, bijection: Bijection):
        check_bijection(bijection)
        if bijection.factored:
            raise ValueError(
                "expected a map whose latent is one array to turn round, got one that factors out"
            )
        self.bijection = bijection

    @property
    def estimates(self) -> bool:  # type: ignore[override]
        return self.bijection.estimates

    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, Float[Array, ""]]:
        z = self.bijection.inverse(x, condition)
        return z, -self.bijection.forward(z, key, condition)[1]

    def inverse(self, z: Array, condition: Array | None = None) -> Array:
        return self.bijection.forward(z, None, condition)[0]

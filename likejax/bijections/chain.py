"""Maps made of maps: one after the other, the same one many times, the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import (
    Bijection,
    Latent,
    LogDet,
    Parts,
    check_bijection,
    dry_run,
    forward_batch,
    no_volume,
)
from likejax.keys import example_keys
from likejax.nn.modules import replace
from likejax.nn.repeat import Blocks, Stacked

Step = Callable[[Bijection, Array, Array | None, Array | None], tuple[Latent, LogDet, Parts]]
"""One map of a composition, applied by ``forward`` (without parts) or by ``terms``."""


def _forward(
    bijection: Bijection, x: Array, key: Array | None, condition: Array | None
) -> tuple[Latent, LogDet, Parts]:
    z, log_det = bijection.forward(x, key, condition)
    return z, log_det, {}


def _terms(
    bijection: Bijection, x: Array, key: Array | None, condition: Array | None
) -> tuple[Latent, LogDet, Parts]:
    return bijection.terms(x, key, condition)


def _inverse(bijection: Bijection, z: Array, condition: Array | None) -> Array:
    return bijection.inverse(z, condition)


class Chain(Bijection):
    """Maps one after the other.

    After a map that returns a tuple (``Split``) the next map continues with its first entry, and
    the rest is put in front of what was factored out before. So a chain with two splits returns
    ``(top, second_factored, first_factored)``.

    Args:
      bijections: Maps, data side first.

    Raises:
      TypeError: If one of them is not a bijection.
      ValueError: If there is none.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> chain = lj.bijections.Chain([lj.bijections.Affine(1.0), lj.bijections.Affine(0.0, 2.0)])
      >>> z, log_det = chain.forward(jnp.full(3, 5.0))
      >>> z.tolist()
      [2.0, 2.0, 2.0]
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
    @override
    def estimates(self) -> bool:  # type: ignore[override]
        """Whether the log-determinant is an estimate that needs a key."""
        return any(b.estimates for b in self.bijections)

    @override
    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, Float[Array, ""]]:
        """Maps one example through all maps, and adds their log-determinants."""
        z, log_det, _ = self._apply(_forward, x, key, condition)
        return z, log_det

    @override
    def terms(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, Float[Array, ""], Parts]:
        """Maps one example for training; parts of one name are added."""
        return self._apply(_terms, x, key, condition)

    @override
    def dry_run(self, x: Array, key: Array, condition: Array | None) -> Latent:
        """Checks map after map that each takes what the one before puts out."""
        factored: tuple[Array, ...] = ()
        for i, bijection in enumerate(self.bijections):
            z = dry_run(bijection, x, key, condition, place=f"map {i}, ")
            x, *rest = z if isinstance(z, tuple) else (z,)
            factored = (*rest, *factored)
        return (x, *factored) if factored else x

    def _apply(
        self, step: Step, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Latent, LogDet, Parts]:
        total = no_volume(x)
        factored: tuple[Array, ...] = ()
        parts: Parts = {}
        for i, bijection in enumerate(self.bijections):
            own_key = None if key is None else jax.random.fold_in(key, i)
            z, log_det, own_parts = step(bijection, x, own_key, condition)
            x, *rest = z if isinstance(z, tuple) else (z,)
            factored = (*rest, *factored)
            total = total + log_det
            parts = _add(parts, own_parts)
        z = (x, *factored) if factored else x
        return z, total, parts

    def forward_in_levels(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, list[LogDet]]:
        """Maps one example as ``forward`` does, with one log-determinant for each level.

        A level ends with a map that factors out a part of the latent, as ``Split`` does. Its
        log-determinant is the sum of those of its maps, and the last level has the rest.

        Args:
          x: One example.
          key: Random key, of which map ``i`` gets ``fold_in(key, i)``; ``None`` if none needs one.
          condition: Condition of one example, given to all maps.

        Returns:
          The latent, and the log-determinants in nats, data side first; their sum is that of
          ``forward``.
        """
        factored: tuple[Array, ...] = ()
        levels = [no_volume(x)]
        for i, bijection in enumerate(self.bijections):
            own_key = None if key is None else jax.random.fold_in(key, i)
            z, log_det = bijection.forward(x, own_key, condition)
            x, *rest = z if isinstance(z, tuple) else (z,)
            factored = (*rest, *factored)
            levels[-1] = levels[-1] + log_det
            if rest:
                levels.append(no_volume(x))
        return ((x, *factored) if factored else x), levels

    @override
    def inverse(self, z: Latent, condition: Array | None = None) -> Array:
        """Maps a latent back through all maps, last to first."""
        x, *factored = z if isinstance(z, tuple) else (z,)
        if len(factored) != self.factored:
            raise ValueError(
                f"expected {self.factored} factored-out latents besides the top one, "
                f"got {len(factored)}"
            )
        for bijection in reversed(self.bijections):
            own, factored = factored[: bijection.factored], factored[bijection.factored :]
            x = bijection.inverse((x, *own) if own else x, condition)
        return x

    def initialize(self, batch: Float[Array, "batch ..."], key: Array) -> Chain:
        """Fits the maps one after the other, each to what those before it make of ``batch``.

        Args:
          batch: Examples ``(n, ...)`` of the first map's input.
          key: Random key, of which map ``i`` gets ``fold_in(key, i)``.

        Returns:
          A new chain; maps behind the last one that fits data are as before.
        """
        fitted = [i for i, each in enumerate(self.bijections) if each.fits_data]
        return self._fit(batch, key, count=max(fitted, default=-1) + 1)[0]

    def _fit(self, batch: Array, key: Array, *, count: int) -> tuple[Chain, Array]:
        """The chain with its first ``count`` maps fitted, and what these make of ``batch``."""
        maps = list(self.bijections)
        for i in range(count):
            maps[i], batch = _fit_map(maps[i], batch, jax.random.fold_in(key, i))
        return replace(self, bijections=nnx.List(maps)), batch

    @property
    @override
    def fits_data(self) -> bool:
        """Whether ``initialize`` fits anything to data."""
        return any(each.fits_data for each in self.bijections)


class Repeat(Bijection):
    """``length`` maps of one structure in a row, each with its own parameters.

    Args:
      blocks: Maps from ``likejax.nn.repeat.repeat``; stacked or apart, the values are the same.

    Raises:
      TypeError: If they are something else.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> from likejax.nn.repeat import repeat
      >>> blocks = repeat(lambda rngs: lj.bijections.Conv1x1(3, rngs=rngs), 4, rngs=nnx.Rngs(0))
      >>> lj.bijections.Repeat(blocks).forward(jnp.ones(3))[0].shape
      (3,)
    """

    def __init__(self, blocks: Blocks):
        if not isinstance(blocks, Blocks):
            raise TypeError(
                f"expected blocks from likejax.nn.repeat.repeat, got {type(blocks).__name__}"
            )
        self.blocks = blocks

    @property
    @override
    def estimates(self) -> bool:  # type: ignore[override]
        """Whether the log-determinant is an estimate that needs a key."""
        return self.blocks.first().estimates

    @override
    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, LogDet]:
        """Maps one example through all blocks, and adds their log-determinants."""
        z, log_det, _ = self._apply(_forward, x, key, condition)
        return z, log_det

    @override
    def terms(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, LogDet, Parts]:
        """Maps one example for training; the parts of the blocks are added."""
        return self._apply(_terms, x, key, condition)

    @override
    def dry_run(self, x: Array, key: Array, condition: Array | None) -> Array:
        """Checks that a block keeps the shape of its input."""
        z = dry_run(self.blocks.at(0), x, key, condition, place="repeated map, ")
        shape = None if isinstance(z, tuple) else z.shape
        if isinstance(z, tuple) or shape != x.shape:
            raise ValueError(f"expected a repeated map that keeps the shape, got {shape}")
        return z

    def _apply(
        self, step: Step, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, LogDet, Parts]:
        apply = self.blocks.shared(step)

        def apply_block(carry, block, key):
            x, total = carry
            z, log_det, parts = apply(block, x, key, condition)
            return (z, total + log_det), parts

        keys = None if key is None else example_keys(key, jnp.arange(self.blocks.length))
        (z, total), parts = self.blocks.fold(apply_block, (x, no_volume(x)), keys)
        return z, total, self.blocks.sum(parts)

    @override
    def inverse(self, z: Array, condition: Array | None = None) -> Array:
        """Maps a latent back through all blocks, last to first."""
        apply = self.blocks.shared(_inverse)

        def invert(z, block):
            return apply(block, z, condition), None

        x, _ = self.blocks.fold(invert, z, reverse=True)
        return x

    def initialize(self, batch: Float[Array, "batch ..."], key: Array) -> Repeat:
        """Fits the blocks one after the other, each to what those before it make of ``batch``.

        Args:
          batch: Examples ``(n, ...)`` of the first block's input.
          key: Random key, from which every block gets its own.

        Returns:
          A new map; this one if its blocks have nothing to fit.
        """
        return self._fit(batch, key)[0] if self.fits_data else self

    def _fit(self, batch: Array, key: Array) -> tuple[Repeat, Array]:
        """The fitted blocks, and what they make of ``batch``; one program serves all blocks."""
        if isinstance(self.blocks, Stacked):  # a scan alone would compile anew at each call
            return _compiled_scan(self, batch, key)
        return _fit_blocks(self, batch, key)

    @property
    @override
    def fits_data(self) -> bool:
        """Whether ``initialize`` fits anything to data."""
        return self.blocks.first().fits_data


def _fit_map(bijection: Bijection, batch: Array, key: Array) -> tuple[Bijection, Array]:
    """The map fitted to ``batch``, and what it makes of it.

    A chain is taken map by map and a repetition block by block, so that nothing is compiled twice.
    """
    if isinstance(bijection, Chain):
        return bijection._fit(batch, key, count=len(bijection.bijections))
    if isinstance(bijection, Repeat):
        return bijection._fit(batch, key)
    return _compiled_fit_one(bijection, batch, key)


def _fit_blocks(repeat: Repeat, batch: Array, key: Array) -> tuple[Repeat, Array]:
    def step(carry, block):
        batch, key = carry
        key, own_key = jax.random.split(key)
        block, batch = _compiled_fit(block, batch, own_key)
        return (batch, key), block

    (batch, _), blocks = repeat.blocks.fold(step, (batch, key))
    return replace(repeat, blocks=repeat.blocks.with_blocks(blocks)), batch


_compiled_scan = jax.jit(_fit_blocks)


@jax.jit
def _compiled_fit(bijection: Bijection, batch: Array, key: Array) -> tuple[Bijection, Array]:
    return _fit_map(bijection, batch, key)


@jax.jit
def _compiled_fit_one(bijection: Bijection, batch: Array, key: Array) -> tuple[Bijection, Array]:
    fitted = bijection.initialize(batch, key)
    z = forward_batch(fitted, batch)
    return fitted, z[0] if isinstance(z, tuple) else z


def _add(first: Parts, second: Parts) -> Parts:
    """The parts of both, those of one name added."""
    total = dict(first)
    for name, part in second.items():
        total[name] = total[name] + part if name in total else part
    return total


class Inverse(Bijection):
    """A map turned round: its ``forward`` is the inverse of ``bijection``.

    Args:
      bijection: Map whose latent is a single array.

    Raises:
      TypeError: If it is not a bijection.
      ValueError: If it factors out arrays.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> undo = lj.bijections.Inverse(lj.bijections.Affine(1.0, 2.0))
      >>> undo.forward(jnp.full(2, 3.0))[0].tolist()
      [7.0, 7.0]
    """

    def __init__(self, bijection: Bijection):
        check_bijection(bijection)
        if bijection.factored:
            raise ValueError(
                "expected a map whose latent is one array to turn round, got one that factors out"
            )
        self.bijection = bijection

    @property
    @override
    def estimates(self) -> bool:  # type: ignore[override]
        """Whether the log-determinant is an estimate that needs a key."""
        return self.bijection.estimates

    @override
    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Array, LogDet]:
        """Maps one example by the inverse of the inner map."""
        z = self.bijection.inverse(x, condition)
        _, log_det = self.bijection.forward(z, key, condition)
        return z, -log_det

    @override
    def inverse(self, z: Array, condition: Array | None = None) -> Array:
        """Maps a latent by the inner map itself."""
        x, _ = self.bijection.forward(z, None, condition)
        return x

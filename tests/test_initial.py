"""Initial weights, and blocks that are taken apart and put together again."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from likejax.nn import initial
from likejax.nn.edge_convolution import ZeroConvolution
from likejax.nn.initial import normal_weights
from likejax.nn.repeat import repeat, stack, unstack


@pytest.mark.parametrize("smallest", [12, 16])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (300, 300)])
def test_weights_are_a_draw_of_their_own_size(shape, smallest, monkeypatch):
    """A larger draw is cut: its first values are those of a smaller one, compiled or not."""
    monkeypatch.setattr(initial, "SMALLEST_DRAW", smallest)
    key = jax.random.key(3)
    wanted = jax.random.normal(key, shape)
    chex.assert_trees_all_equal(normal_weights(key, shape), wanted)
    traced = jax.jit(lambda key: normal_weights(key, shape, scale=0.5))(key)
    chex.assert_trees_all_close(traced, 0.5 * wanted, rtol=1e-6)


def test_blocks_apart_and_together_are_the_same():
    def make(rngs: nnx.Rngs) -> nnx.Module:
        layer = ZeroConvolution(2, 3, kernel_size=1)
        layer.noise = nnx.Param(normal_weights(rngs.params(), (2, 3)))
        return layer

    blocks = repeat(make, 4, rngs=nnx.Rngs(0))
    apart = unstack(blocks)
    assert apart.length == 4
    chex.assert_trees_all_equal(stack(apart), blocks)
    chex.assert_trees_all_equal(jax.jit(unstack)(blocks), apart)
    noise = jnp.stack([block.noise[...] for block in apart.blocks])
    chex.assert_trees_all_equal(noise, blocks.block.noise[...])

"""Gradients that recompute what others keep: reversible flows, and ``remat`` of networks."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax import bijections as bj
from likejax.nn.repeat import repeat, stack, unstack
from tests.registry import examples_of, perturbed, rngs

BATCH, CHANNELS = 3, 4


def _step(rngs: nnx.Rngs) -> bj.Bijection:
    """A step with parameters of all kinds: of floats, of integers, and of a condition."""
    maps = [
        bj.ActNorm(CHANNELS),
        bj.Conv1x1(CHANNELS, rngs=rngs),
        bj.Permutation(jnp.array([1, 0, 3, 2])),
        bj.AffineCoupling(CHANNELS, width=5, rngs=rngs, condition_size=2),
    ]
    return bj.Chain(maps)


def _wide(module):
    """The module in float64."""
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        module,
    )


@pytest.mark.parametrize(
    ("form", "length"), [(stack, 3), (unstack, 3), (unstack, 6)], ids=["scan", "apart", "called"]
)
def test_gradients_are_those_of_a_repeat(form, length):
    """By parameters, examples and conditions, in float64; so are the values."""
    with jax.enable_x64(True):
        blocks = form(_wide(perturbed(repeat(_step, length, rngs=rngs()), scale=0.1)))
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(BATCH, 2, 2, CHANNELS)))
        conditions = jnp.asarray(rng.normal(size=(BATCH, 2)))
        keys = jax.random.split(jax.random.key(0), BATCH)

        def loss(bijection, x, conditions):
            z, log_det, parts = jax.vmap(bijection.terms)(x, keys, conditions)
            assert parts == {}
            return jnp.cos(z).sum() + jnp.sin(log_det).sum()

        differentiate = jax.value_and_grad(loss, argnums=(0, 1, 2), allow_int=True)
        expected = jax.jit(differentiate)(bj.Repeat(blocks), x, conditions)
        got = jax.jit(differentiate)(bj.ReversibleRepeat(blocks), x, conditions)
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
            if one.dtype != jax.dtypes.float0:
                np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-10)


def _glow(depth: int, *, reversible: bool) -> lj.Density:
    config = lj.models.GlowConfig(
        event_shape=(4, 4, 1), levels=8, scales=1, depth=depth, width=8, reversible=reversible
    )
    return stack(perturbed(lj.build(config, key=0), scale=0.05))


def _gradient(density: lj.Density, x: np.ndarray):
    """The compiled gradient of the training loss, and its arguments."""
    graph, params, rest = nnx.split(density, nnx.Param, ...)

    def loss(params, rest):
        terms = nnx.merge(graph, params, rest).terms(x, key=jax.random.key(1))
        return -terms.log_prob.mean()

    return jax.jit(jax.grad(loss)).lower(params, rest).compile(), (params, rest)


def test_memory_of_training_does_not_grow_with_the_depth():
    temporary = {}
    gradients = {}
    for depth in (4, 16):
        for reversible in (False, True):
            density = _glow(depth, reversible=reversible)
            compiled, arguments = _gradient(density, examples_of(density, 32))
            temporary[depth, reversible] = compiled.memory_analysis().temp_size_in_bytes
            gradients[depth, reversible] = compiled(*arguments)
    assert temporary[16, True] < 1.05 * temporary[4, True]
    assert temporary[16, False] > 2 * temporary[4, False]
    assert temporary[16, True] < temporary[16, False] / 3
    for depth in (4, 16):
        kept, recomputed = (jax.tree.leaves(gradients[depth, each]) for each in (False, True))
        for one, other in zip(kept, recomputed, strict=True):
            np.testing.assert_allclose(other, one, atol=2e-5 * float(np.abs(one).max()))


def test_initialization_keeps_the_kind_of_repetition():
    density = _glow(2, reversible=True)
    fitted = density.initialize(examples_of(density, 8), 0)
    repeats = [each for _, each in nnx.iter_modules(fitted) if isinstance(each, bj.Repeat)]
    assert [type(each) for each in repeats] == [bj.ReversibleRepeat]


def test_gradients_of_log_prob_can_be_taken_in_any_way():
    """Only training recomputes: gradients of single examples and forward mode are as ever."""
    density = _glow(2, reversible=True)
    plain = _glow(2, reversible=False)
    x = examples_of(density, 2)

    def tangent(density, scale):
        def value(scale):
            scaled = jax.tree.map(lambda leaf: leaf * scale, nnx.state(density, nnx.Param))
            graph, _, rest = nnx.split(density, nnx.Param, ...)
            return nnx.merge(graph, scaled, rest).log_prob(x, key=0).sum()

        return jax.jvp(value, (scale,), (1.0,))

    np.testing.assert_allclose(tangent(density, 1.0), tangent(plain, 1.0), rtol=1e-5)


def test_what_cannot_be_reversed_is_refused():
    ffjord = lj.build(lj.models.FFJORDConfig(hidden=(4,)), key=0)
    modules = (module for _, module in nnx.iter_modules(ffjord))
    odes = next(module for module in modules if isinstance(module, bj.Repeat))
    with pytest.raises(ValueError, match=r"without parts .* kinetic_energy"):
        bj.ReversibleRepeat(odes.blocks).terms(jnp.zeros(2), jax.random.key(0))
    config = lj.models.FFJORDConfig(hidden=(4,), trace=bj.Trace(probes=1))
    modules = (module for _, module in nnx.iter_modules(lj.build(config, key=0)))
    estimated = next(module for module in modules if isinstance(module, bj.Repeat))
    with pytest.raises(ValueError, match="exact log-determinant"):
        bj.ReversibleRepeat(estimated.blocks)
    flow = bj.ReversibleRepeat(repeat(_step, 2, rngs=rngs()))
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), flow)
    x, condition = jnp.zeros((2, 2, CHANNELS)), jnp.zeros(2)
    with pytest.raises(ValueError, match="map over an ensemble outside of terms"):
        jax.vmap(lambda flow: flow.terms(x, None, condition)[1])(several)


REMAT = {
    "pixelcnn": lj.models.PixelCNNConfig(
        event_shape=(4, 4, 1), levels=8, filters=4, blocks=2, resolutions=1, mixtures=2
    ),
    "vae": lj.models.VAEConfig(
        event_shape=(4, 4, 1),
        levels=2,
        stages=(lj.models.StageConfig(channels=(8, 8), strides=(1, 1), latent=2),),
    ),
    "vdm": lj.models.VDMConfig(event_shape=(4, 4, 1), levels=8, width=8, blocks=2, groups=2),
}


REMAT_SHARE = {"pixelcnn": 0.85, "vae": 0.95}
"""Limits of the temporary memory with ``remat``, as a share of that without.

Centered convolutions are called by the program, and so keep little without ``remat`` too. In the
tiny diffusion model other arrays than those of the blocks take the most.
"""


@pytest.mark.parametrize("name", REMAT)
def test_remat_keeps_less_and_changes_no_gradient(name):
    plain = REMAT[name]
    kept, temporary, gradients = [], [], []
    for config in (plain, dataclasses.replace(plain, remat=True)):
        density = perturbed(lj.build(config, key=0), scale=0.05)
        x = examples_of(density, 16)
        graph, params, rest = nnx.split(density, nnx.Param, ...)

        def loss(params, graph=graph, rest=rest, x=x):
            terms = nnx.merge(graph, params, rest).terms(x, key=jax.random.key(1))
            return -terms.log_prob.mean()

        leaves = jax.tree.leaves(jax.eval_shape(lambda p, loss=loss: jax.vjp(loss, p)[1], params))
        kept.append(sum(leaf.size for leaf in leaves))
        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
        gradients.append(compiled(params))
    assert kept[1] < 0.8 * kept[0]
    if name in REMAT_SHARE:
        assert temporary[1] < REMAT_SHARE[name] * temporary[0]
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)

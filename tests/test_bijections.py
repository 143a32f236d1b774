"""Properties of every map of the registry."""

from __future__ import annotations

import functools
import inspect
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax import bijections as bj
from likejax.nn.calls import called, written_out
from likejax.nn.repeat import Stacked, Unstacked, for_backend, repeat, stack, unstack
from tests import registry
from tests.registry import BIJECTIONS, BijectionCase, perturbed, rngs


@pytest.fixture(params=BIJECTIONS, ids=lambda name: name.replace(" ", "-"))
def case(request) -> BijectionCase:
    return BIJECTIONS[request.param]


def _input(case: BijectionCase, n: int = 4) -> jax.Array:
    rng = np.random.default_rng(1)
    draw = (
        rng.uniform(0.02, 0.98, (n, *case.shape))
        if case.unit_interval
        else rng.normal(size=(n, *case.shape))
    )
    if case.bound is not None and n > 1:  # the ends of the box, and both sides of it
        draw[-1] = np.resize([case.bound, -case.bound], case.shape)
        draw[-2] = np.resize([10 * case.bound, -10 * case.bound], case.shape)
    return jnp.asarray(draw)


def _flat(z) -> jax.Array:
    return jnp.concatenate([part.reshape(-1) for part in jax.tree.leaves(z)])


def test_round_trip_and_log_det(case):
    """The inverse undoes forward, and log_det is the log-determinant of the autodiff Jacobian, in
    float64.
    """
    with jax.enable_x64(True):
        bijection = perturbed(case.make())
        bijection = jax.tree.map(
            lambda a: a.astype(float) if jnp.issubdtype(a.dtype, jnp.floating) else a, bijection
        )
        x = _input(case, 1)[0]

        @jax.jit
        def values(bijection, x):
            z, log_det = bijection.forward(x, None, case.label)
            jacobian = jax.jacrev(lambda x: _flat(bijection.forward(x, None, case.label)[0]))(x)
            expected = jnp.linalg.slogdet(jacobian.reshape(x.size, x.size)).logabsdet
            return z, log_det, expected, bijection.inverse(z, case.label)

        z, log_det, expected, back = values(bijection, x)
        assert _flat(z).size == x.size
        assert log_det.shape == ()
        np.testing.assert_allclose(log_det, expected, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(back, x, rtol=1e-7, atol=1e-8)


def test_float32_round_trip_and_gradients(case):
    """In float32 the round trip holds to 1e-4, log_det stays float32, and every parameter gets a
    gradient.
    """
    bijection = perturbed(case.make(), scale=0.1)
    x = _input(case).astype(jnp.float32)

    graph, params, rest = nnx.split(bijection, nnx.Param, ...)

    def loss(params):
        model = nnx.merge(graph, params, rest)
        z, log_det = jax.vmap(lambda x: model.forward(x, None, case.label))(x)
        latents = sum(jnp.sum(jnp.cos(part)) for part in jax.tree.leaves(z))
        return latents + jnp.sum(jnp.sin(log_det)), (z, log_det)

    @jax.jit
    def gradient_and_values(params):
        gradient, (z, log_det) = jax.grad(loss, has_aux=True)(params)
        back = jax.vmap(lambda z: bijection.inverse(z, case.label))(z)
        return gradient, z, log_det, back

    gradient, z, log_det, back = gradient_and_values(params)
    assert log_det.dtype == jnp.float32
    assert np.isfinite(_flat(z)).all()
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4)
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert np.isfinite(leaf).all(), path
        if leaf.size:
            assert np.abs(leaf).max() > 0, path


def test_every_public_map_is_in_the_registry():
    """By its name; the reversible repetition maps as the plain one, and trains in its own test."""
    assert bj.ReversibleRepeat.forward is bj.Repeat.forward
    assert bj.ReversibleRepeat.inverse is bj.Repeat.inverse
    named = set(re.findall(r"\bbj\.(\w+)", inspect.getsource(registry)))
    for name, value in vars(bj).items():
        is_scalar = isinstance(value, type) and issubclass(value, bj.ScalarMap)
        is_map = isinstance(value, type) and issubclass(value, bj.Bijection)
        if is_map or is_scalar:
            assert name in named | {"ReversibleRepeat"}, name


def test_actnorm_standardizes_after_initialize():
    """Every ActNorm of a chain, and the hidden layers of couplings, whiten the batch they were
    initialized on.
    """
    batch = jax.random.normal(jax.random.key(0), (64, 4, 4, 3)) * 5 + 2
    actnorm = bj.ActNorm(3).initialize(batch, jax.random.key(1))
    z = jax.vmap(lambda x: actnorm.forward(x)[0])(batch)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.square(z).mean((0, 1, 2)), 1, rtol=1e-4)
    np.testing.assert_allclose(bj.ActNorm(3).affine.bias[...], 0)  # the original is left alone


def test_initialization_is_sequential():
    """Statistics of a later block come from the initialized earlier ones, stacked or apart."""

    def step(rngs):
        coupling = bj.AffineCoupling(4, width=6, rngs=rngs)
        return bj.Chain([bj.ActNorm(4), bj.Conv1x1(4, rngs=rngs), coupling])

    stacked = bj.Repeat(repeat(step, 3, rngs=rngs()))
    batch = jax.random.normal(jax.random.key(0), (128, 4, 4, 4)) ** 3
    forward = jax.jit(lambda b, x: jax.vmap(lambda x: b.forward(x)[0])(x))
    first = jax.jit(lambda b, x: b.initialize(x, jax.random.key(1)))(stacked, batch)
    second = jax.jit(lambda b, x: b.initialize(x, jax.random.key(1)))(unstack(stacked), batch)
    for a, b in zip(jax.tree.leaves(unstack(first)), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)
    x = batch
    for block in second.blocks.blocks:
        actnorm, *others = block.bijections
        x = forward(actnorm, x)
        np.testing.assert_allclose(jnp.square(x).mean((0, 1, 2)), 1, rtol=1e-3)
        hidden = others[1].network
        h = hidden.first(
            forward(others[0], x)[..., :2],
            bias=hidden.first_affine.bias[...],
            scale=hidden.first_affine.scale(),
        )
        np.testing.assert_allclose(h.mean((0, 1, 2)), 0, atol=1e-3)
        np.testing.assert_allclose(jnp.square(h).mean((0, 1, 2)), 1, rtol=1e-3)
        for other in others:
            x = forward(other, x)


def test_a_second_initialization_compiles_nothing(caplog):
    """So the members of an ensemble share the programs of the first."""
    blocks = repeat(lambda rngs: bj.ActNorm(4), 3, rngs=rngs())
    batch = jax.random.normal(jax.random.key(0), (64, 4))
    for apart in (bj.Repeat(blocks), unstack(bj.Repeat(blocks))):
        apart.initialize(batch, jax.random.key(1))
        with jax.log_compiles(), caplog.at_level("WARNING"):
            apart.initialize(batch, jax.random.key(2))
        assert "Compiling" not in caplog.text


def test_stacked_and_unstacked_blocks_agree():
    bijection = perturbed(BIJECTIONS["repeat"].make())
    x = jax.random.normal(jax.random.key(0), (2, 2, 3))
    (z, log_det), (z2, log_det2) = (
        jax.jit(lambda b, x: b.forward(x))(b, x) for b in (bijection, unstack(bijection))
    )
    np.testing.assert_allclose(z, z2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, log_det2, rtol=1e-5)
    again = stack(unstack(bijection))
    assert jax.tree.structure(again) == jax.tree.structure(bijection)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(bijection), strict=True):
        np.testing.assert_array_equal(a, b)


def test_many_blocks_apart_call_one_program():
    """Values, inverse and derivatives, forward over reverse, are those of a scan. Twice as many
    blocks give no larger program.
    """

    def couplings(length):
        make = functools.partial(bj.AffineCoupling, 2, width=3)
        blocks = repeat(lambda rngs: make(rngs=rngs), length, rngs=rngs())
        return perturbed(bj.Repeat(blocks), scale=0.3)

    def squares(bijection, x):
        z, log_det = bijection.forward(x)
        return jnp.square(z).sum() + jnp.square(log_det)

    def queries(bijection, x):
        z, _ = bijection.forward(x)
        return z, bijection.inverse(z), jax.hessian(squares, argnums=1)(bijection, x)

    bijection = couplings(6)
    x = jax.random.normal(jax.random.key(0), (3, 1, 2, 2))
    expected, got = (
        jax.jit(jax.vmap(queries, (None, 0)))(each, x) for each in (bijection, unstack(bijection))
    )
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[1], x, rtol=1e-4, atol=1e-5)

    def program(length: int) -> str:
        return jax.jit(jax.grad(squares)).lower(unstack(couplings(length)), x[0]).as_text()

    six, twelve = program(6), program(12)
    assert twelve.count("stablehlo.") < 1.1 * six.count("stablehlo.")
    with written_out():  # as in a program for GPU
        assert "inlineable" not in program(6)
    assert "inlineable" in six


def test_a_program_written_out_takes_no_trace_with_calls():
    """JAX keeps the trace of a function inside of others, and that one may call."""
    inner = jax.jit(lambda x: called(jnp.sin)(x))

    def program() -> str:
        return jax.jit(lambda x: inner(x) + 1).lower(jnp.ones(3)).as_text()

    assert "inlineable" in program()
    with written_out():
        assert "inlineable" not in program()
    assert "inlineable" in program()


def test_cpus_run_many_small_blocks_as_a_scan():
    """Few or large blocks are run one by one; so is what was loaded."""

    def form(length: int, channels: int) -> type:
        make = functools.partial(bj.Conv1x1, channels)
        blocks = repeat(lambda rngs: make(rngs=rngs), length, rngs=nnx.Rngs(0))
        chosen = for_backend(blocks)
        assert type(for_backend(unstack(blocks))) is type(for_backend(chosen)) is type(chosen)
        chex.assert_trees_all_equal(stack(chosen), blocks)
        return type(chosen)

    assert form(8, 3) is Stacked
    assert form(2, 3) is Unstacked
    assert form(8, 200) is Unstacked


def test_squeeze_channel_order():
    """Output channel is 4 c + 2 dy + dx, the order of the official code."""
    x = jnp.arange(2 * 2 * 3, dtype=float).reshape(2, 2, 3)
    z, _ = bj.Squeeze().forward(x)
    for c in range(3):
        for dy in range(2):
            for dx in range(2):
                assert z[0, 0, 4 * c + 2 * dy + dx] == x[dy, dx, c]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bj.Squeeze().forward(jnp.zeros((3, 4, 1))), "even height and width"),
        (lambda: bj.AffineCoupling(1, width=4, rngs=rngs()), "at least 2 channels"),
        (lambda: bj.Split(1), "at least 2 channels"),
        (lambda: bj.Logit(0.5), "alpha to be a number of at least 0 and below 0.5"),
        (lambda: _chain().inverse(jnp.zeros((1, 1, 4))), "expected 2 factored-out latents"),
    ],
)
def test_wrong_use_says_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Cut(bj.Bijection):
    """A user's map that loses an entry."""

    def forward(self, x, key=None, condition=None):
        return x[1:], jnp.zeros(())

    def inverse(self, z, condition=None):
        return z


@pytest.mark.untyped  # the type checker would raise first
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: bj.Chain([bj.ActNorm(3), bj.Squeeze()]),
            r"map 1, Squeeze cannot map an input of shape \(3,\): expected an image",
        ),
        (lambda: bj.Chain([bj.Affine(0.5), Cut()]), r"map 1, Cut maps .* has as many outputs"),
        (lambda: bj.Affine(jnp.ones((5, 1))), "Affine cannot map an input of shape"),
        (lambda: bj.Chain([bj.ActNorm(4)]), "map 0, ActNorm .* expected an input of 4 channels"),
    ],
)
def test_shapes_that_do_not_fit_are_named_when_a_flow_is_built(make, message):
    with pytest.raises(ValueError, match=message):
        lj.models.Flow(make(), (3,))


def _chain() -> bj.Bijection:
    return BIJECTIONS["chain with splits"].make()

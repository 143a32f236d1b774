"""Scalar maps, masked networks, and flows of vectors made of them."""

from __future__ import annotations

import itertools
import re
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate, special, stats

import likejax as lj
from likejax import bijections as bj
from likejax.models import MAFConfig, NSFConfig
from likejax.nn.product import dense_in_rows
from likejax.settings import override
from tests.registry import perturbed

RNG = np.random.default_rng(0)

ANCHOR_LOGITS = [0.3, -0.7, 1.1, 0.2, -0.4, 0.9, 0.1, -1.2, 0.5, -1, 2]
"""Widths, heights and slopes of a spline of four bins (reference/families.md, section 1.3)."""
ANCHORS = [
    (-3.5, -3.5, 0),
    (-3, -3, 0),
    (-2.2, -2.4804227069, -0.6020832296),
    (-0.1, 1.3767638098, -1.4942767176),
    (0.7, 1.6094338833, -0.9310806809),
    (1.9, 2.7300084767, -0.3392969238),
    (2.999, 2.9990066165, -0.0132756743),
    (3, 3, 0),
]
AS_OFFICIAL = bj.RationalQuadratic(bins=4, identity_init=False)


def spline_of(logits):
    """The official spline of those parameters, as a function of numbers of one axis."""
    logits = jnp.asarray(logits)

    def map_numbers(x, inverse=False):
        parameters = jnp.broadcast_to(logits, (*jnp.shape(x), len(logits)))
        return (AS_OFFICIAL.inverse if inverse else AS_OFFICIAL.forward)(x, parameters)

    return map_numbers


# --- splines


def test_anchors():
    with jax.enable_x64(True):
        x, z, log_derivative = jnp.asarray(ANCHORS).T
        found, slope = spline_of(ANCHOR_LOGITS)(x)
        np.testing.assert_allclose(found, z, atol=1e-9)
        np.testing.assert_allclose(slope, log_derivative, atol=1e-9)


def test_anchors_of_zero_logits():
    """The official start: inner slopes of 0.694 between ends of slope 1."""
    spline = bj.RationalQuadratic(bins=8, identity_init=False)
    with jax.enable_x64(True):
        z, log_derivative = spline.forward(jnp.array([0, 0.4, 2.9]), jnp.zeros((3, 23)))
        np.testing.assert_allclose(z, [0, 0.4044897125, 2.8963362115], atol=1e-9)
        expected = [-0.3650712652, 0.1635608930, 0.0665131270]
        np.testing.assert_allclose(log_derivative, expected, atol=1e-9)


def test_zero_parameters_are_the_identity():
    x = jnp.linspace(-4, 4, 101)
    z, log_derivative = bj.RationalQuadratic().forward(x, jnp.zeros((101, 23)))
    np.testing.assert_allclose(z, x, atol=2e-6)
    np.testing.assert_allclose(log_derivative, 0, atol=2e-6)


def test_mass_pushed_through_a_spline():
    """A standard normal latent gives a density of mass 1."""
    spline = spline_of(ANCHOR_LOGITS)

    def density(x):
        z, log_derivative = spline(x)
        return stats.norm.pdf(np.asarray(z)) * np.exp(np.asarray(log_derivative))

    with jax.enable_x64(True):
        grid = np.linspace(-9, 9, 180_001)
        assert integrate.simpson(density(jnp.asarray(grid)), x=grid) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_monotone_and_inverted(seed):
    logits = np.random.default_rng(seed).normal(scale=3, size=11)
    spline = spline_of(logits.astype("f4"))
    x = jnp.linspace(-3.2, 3.2, 10_001)
    z, log_derivative = spline(x)
    rounding = np.spacing(np.float32(3))
    assert (jnp.diff(z) >= -2 * rounding).all()
    # where the slope is 1/1000, one unit of the last place of z is a thousand in x
    error = jnp.abs(spline(z, inverse=True) - x)
    assert (error < 1e-5 * jnp.maximum(1, jnp.exp(-log_derivative))).all()
    with jax.enable_x64(True):
        z, _ = spline_of(logits)(jnp.linspace(-3.2, 3.2, 10_001))
        assert (jnp.diff(z) > 0).all()


def around_knots(logits):
    """The ends of bins with these logits, as computed here, and up to two roundings beside them."""
    parts = 1e-3 + (1 - 1e-3 * len(logits)) * special.softmax(np.asarray(logits, float))
    found = [np.float32(6 * np.concatenate([[0], np.cumsum(parts)]) - 3)]
    for side in (-9, 9):
        beside = np.nextafter(found[0], np.float32(side))
        found += [beside, np.nextafter(beside, np.float32(side))]
    return np.concatenate(found)


def test_gradients_are_finite_everywhere():
    """At every knot and roundings beside it, the bounds among them, and far outside."""
    steep = 6 * np.random.default_rng(1).normal(size=11)
    for logits in (ANCHOR_LOGITS, steep, np.zeros(11)):
        parameters = jnp.asarray(logits, jnp.float32)
        knots = [around_knots(logits[:4]), around_knots(logits[4:8])]
        points = jnp.concatenate([*knots, jnp.array([-3, 3, -1e6, 1e6])])
        rows = jnp.broadcast_to(parameters, (len(points), 11))

        def forward_sum(x, rows):
            z, log_derivative = AS_OFFICIAL.forward(x, rows)
            return z.sum() + log_derivative.sum()

        def inverse_sum(z, rows):
            return AS_OFFICIAL.inverse(z, rows).sum()

        for function in (forward_sum, inverse_sum):
            for gradient in jax.grad(function, (0, 1))(points, rows):
                assert jnp.isfinite(gradient).all(), function.__name__


@pytest.mark.parametrize(("scale", "steepest"), [("sigmoid", 1.001), ("exp", np.inf)])
def test_affine_maps_increase_with_finite_gradients(scale, steepest):
    """Whatever a network says, and far outside."""
    affine = bj.AffineScalar(scale)
    a, shift = jnp.array([-60.0, -2.0, 0.0, 3.0, 60.0]), jnp.linspace(-4, 4, 5)
    x = jnp.array([-1e6, 0.0, 1.0, 3.0, 1e6])

    @jax.jit
    @jax.vmap
    def values(x, parameters):
        z, log_derivative = affine.forward(x, parameters)
        slope, by_parameters = jax.grad(lambda x, p: affine.forward(x, p)[0], (0, 1))(x, parameters)
        of_derivative = jax.grad(lambda p: affine.forward(x, p)[1])(parameters)
        return z, log_derivative, slope, by_parameters, of_derivative

    z, log_derivative, slope, *gradients = values(x, jnp.stack([a, shift], 1))
    np.testing.assert_allclose(log_derivative, jnp.log(slope), rtol=1e-5, atol=1e-6)
    assert (slope > 0).all()
    assert (slope <= steepest).all()
    for each in (z, *gradients):
        assert np.isfinite(each).all()


def test_too_many_bins_are_refused():
    with pytest.raises(ValueError, match="expected at most 999 bins, got 1000"):
        bj.RationalQuadratic(bins=1000)


THREE_BINS = bj.RationalQuadratic(bins=3)
BATCH_AXES = [(0, 0), (0, None), (None, 0), (1, 2)]
"""Axes of the batch of numbers and of their parameters."""


def spline_by_examples(x, parameters, axes):
    """The spline of each example alone, out of ``vmap``: both outputs, stacked."""
    size = next(
        each.shape[axis]
        for each, axis in zip((x, parameters), axes, strict=True)
        if axis is not None
    )
    pick = [
        lambda each, i, axis=axis: each if axis is None else each.take(i, axis) for axis in axes
    ]
    alone = jax.jit(THREE_BINS.forward)
    rows = [alone(pick[0](x, i), pick[1](parameters, i)) for i in range(size)]
    return [jnp.stack(each) for each in zip(*rows, strict=True)]


@pytest.mark.parametrize("axes", BATCH_AXES)
def test_a_batch_of_splines_is_its_examples(axes):
    x, parameters = jnp.asarray(RNG.normal(size=(5, 2))), jnp.asarray(RNG.normal(size=(5, 2, 8)))
    x, parameters = (
        each[0] if axis is None else jnp.moveaxis(each, 0, axis)
        for each, axis in zip((x, parameters), axes, strict=True)
    )
    batch = jax.vmap(THREE_BINS.forward, axes)(x, parameters)
    chex.assert_trees_all_close(list(batch), spline_by_examples(x, parameters, axes), atol=1e-5)


def test_derivatives_of_splines_in_every_order_of_transformations():
    x, parameters = jnp.asarray(RNG.normal(size=(5, 2))), jnp.asarray(RNG.normal(size=(5, 2, 8)))

    def total(x, parameters):
        z, log_derivative = THREE_BINS.forward(x, parameters)
        return jnp.sum(z * jnp.arange(1.0, 3.0) + log_derivative)

    def total_of_batch(parameters):
        return jnp.sum(jax.vmap(total)(x, parameters))

    direction = jnp.ones_like(parameters)

    @jax.jit
    def derivatives(parameters):
        return {
            "of batch": jax.grad(total_of_batch)(parameters),
            "of examples": jax.vmap(jax.grad(total, argnums=1))(x, parameters),
            "forward": jax.vmap(jax.jacfwd(total, argnums=1))(x, parameters),
            "second": jax.jvp(jax.grad(total_of_batch), (parameters,), (direction,))[1],
            "hessians": jax.vmap(jax.hessian(total, argnums=1))(x, parameters),
        }

    found = derivatives(parameters)
    chex.assert_trees_all_close(found["of examples"], found["of batch"], atol=1e-5)
    chex.assert_trees_all_close(found["forward"], found["of batch"], atol=1e-5)
    summed = jnp.sum(found["hessians"], axis=(3, 4))
    chex.assert_trees_all_close(summed, found["second"], atol=1e-4)
    step = 1e-3
    above, below = (derivatives(parameters + s * direction)["of batch"] for s in (step, -step))
    chex.assert_trees_all_close((above - below) / (2 * step), found["second"], atol=2e-2)


def test_batches_of_batches_of_splines_and_of_weights():
    x, parameters = jnp.asarray(RNG.normal(size=(3, 2))), jnp.asarray(RNG.normal(size=(4, 2, 8)))
    pairs = jax.vmap(lambda p: jax.vmap(lambda x: THREE_BINS.forward(x, p))(x))(parameters)
    expected = [
        jnp.stack(each)
        for each in zip(*(spline_by_examples(x, p, (0, None)) for p in parameters), strict=True)
    ]
    chex.assert_trees_all_close(list(pairs), expected, atol=1e-5)

    weights, bias = jnp.asarray(RNG.normal(size=(4, 2, 6))), jnp.asarray(RNG.normal(size=(4, 6)))
    rows = jax.vmap(lambda w, b: jax.vmap(lambda x: dense_in_rows(x, w, b, 3))(x))(weights, bias)
    dealt = (jnp.einsum("ni,mij->mnj", x, weights) + bias[:, None]).reshape(4, 3, 2, 3)
    chex.assert_trees_all_close(rows, dealt.swapaxes(2, 3), atol=1e-5)


def test_splines_are_computed_with_the_batch_as_last_axis():
    """Numbers side by side make the fast loops: eight bins side by side are loops of eight."""
    density = lj.build(NSFConfig(dimensions=4, depth=2, width=8, bins=3), key=jax.random.key(0))
    traced = str(jax.make_jaxpr(density.log_prob)(jnp.zeros((50, 4))))
    exponentials = re.findall(r"f32\[([\d,]+)\] = exp ", traced)
    assert "3,2,50" in exponentials
    assert not any(shape.startswith("50,") for shape in exponentials)


def test_splines_of_rows_on_a_mesh_with_explicit_axes():
    density = lj.build(NSFConfig(dimensions=4, depth=2, width=8, bins=3), key=jax.random.key(0))
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    x = jax.device_put(RNG.normal(size=(8, 4)).astype(np.float32), rows)
    with jax.set_mesh(mesh):
        gradient = jax.eval_shape(jax.grad(lambda x: density.log_prob(x).sum()), x)
        latent = jax.eval_shape(lambda x: density.decode(density.encode(x)), x)
    assert gradient.sharding.spec == latent.sharding.spec == jax.typeof(x).sharding.spec


# --- masks


@pytest.mark.parametrize(
    ("dimensions", "random_order", "scalar"),
    [
        *itertools.product([1, 2, 5], [False, True], [bj.AffineScalar()]),
        (5, True, bj.RationalQuadratic(bins=3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, bj.ScalarMap) else None,
)
def test_masks_by_gradient(dimensions, random_order, scalar):
    """A feature's map depends on all features before it in the order, and on no other."""
    made = bj.Autoregressive(
        dimensions, scalar, width=12, random_order=random_order, rngs=nnx.Rngs(3)
    )
    made = perturbed(made)
    x = jnp.asarray(RNG.normal(size=dimensions), jnp.float32)
    jacobian = jax.jit(jax.jacobian(lambda x: made.parameters(x, None)))(x)
    depends = np.abs(jacobian).sum(1) > 0
    place = np.asarray(made.place[...])
    assert sorted(place) == list(range(1, dimensions + 1))
    np.testing.assert_array_equal(depends, place[None, :] < place[:, None])


def test_orders_are_seeded():
    def order(seed):
        options = {"width": 12, "random_order": True, "rngs": nnx.Rngs(seed)}
        return bj.Autoregressive(6, bj.AffineScalar(), **options).place[...].tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_narrow_masked_networks_are_warned_of():
    with pytest.warns(UserWarning, match="fewer than 8 some features are seen by no other"):
        bj.Autoregressive(9, bj.AffineScalar(), width=4, rngs=nnx.Rngs(0))


def test_inverse_autoregressive_flow_samples_in_one_pass():
    """Turned round, the loop over the features is in the density."""
    iaf = bj.Inverse(bj.Autoregressive(3, bj.AffineScalar(), width=8, rngs=nnx.Rngs(0)))
    density, sampling = (
        str(jax.make_jaxpr(way)(jnp.zeros(3))) for way in (iaf.forward, iaf.inverse)
    )
    assert " scan[" in density
    assert " scan[" not in sampling


def test_an_overflow_of_a_later_feature_does_not_spoil_earlier_ones():
    """The inverse finds feature after feature; what is not found yet is never read."""
    made = bj.Autoregressive(3, bj.AffineScalar("exp"), width=8, rngs=nnx.Rngs(0))
    made = perturbed(made, scale=3.0)
    z = jnp.array([0.5, -1.0, 2.0])
    x = made.inverse(z)
    is_finite = jnp.isfinite(x)
    assert is_finite[0]
    first_lost = int(jnp.argmin(is_finite)) if not is_finite.all() else 3
    assert is_finite[:first_lost].all()


# --- flows of vectors

SMALL = {"dimensions": 3, "depth": 2, "width": 8, "blocks": 1}
CONFIGS = {"nsf coupling": NSFConfig(**SMALL, bins=4), "maf": MAFConfig(**SMALL)}


@pytest.mark.parametrize("name", ["nsf coupling", "maf"])
def test_dropout_is_of_training_alone(name):
    config = override(CONFIGS[name], {"dropout": 0.5})
    density = perturbed(lj.build(config, key=jax.random.key(0)))
    x = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    keys = [jax.random.key(seed) for seed in (1, 2)]
    log_probs = [density.log_prob(x, key=key) for key in keys]
    np.testing.assert_array_equal(*log_probs)
    terms = [density.terms(x, key=key).log_prob for key in keys]
    assert (terms[0] != terms[1]).all()


@pytest.mark.parametrize("form", ["coupling", "autoregressive"])
@pytest.mark.parametrize("kind", [NSFConfig, MAFConfig])
def test_programs_do_not_grow_with_the_depth(kind, form):
    """Stacked steps, as accelerators run them, are one loop whatever their number: of density,
    training and sampling."""

    def equations(depth):
        config = kind(dimensions=4, form=form, depth=depth, width=8, blocks=1)
        density = nnx.eval_shape(lambda: lj.build(config, key=jax.random.key(0)))
        x = jax.ShapeDtypeStruct((4,), jnp.float32)

        def queries(density, x):
            gradient = jax.grad(lambda x: density._log_prob(x, None, None))(x)
            return gradient, density.bijection.inverse(x)

        program = str(jax.make_jaxpr(queries)(density, x))
        return program.count(" = ")

    assert equations(4) == equations(16)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 1}, "at least 2 dimensions"),
        ({"depth": 1}, "depth of at least 2"),
        (
            {"num_classes": 2, "condition_shape": (3,)},
            "expected NSFConfig.num_classes or condition_shape",
        ),
        ({"bins": 0}, "NSFConfig.bins"),
        ({"bound": 0.0}, "NSFConfig.bound"),
        ({"form": "coupled"}, "did you mean 'coupling'"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NSFConfig(**options)


@pytest.mark.parametrize(
    ("dimensions", "coupling", "autoregressive", "maf"),
    [
        (6, 2_820_402, 3_004_722, 2_680_902),
        (8, 2_882_632, 3_128_392, 2_696_632),
        (21, 3_289_272, 3_934_392, 2_801_022),
        (43, 3_985_902, 5_306_862, 2_986_152),
        (63, 4_628_442, 6_563_802, 3_163_692),
    ],
)
def test_parameters_of_the_official_defaults(dimensions, coupling, autoregressive, maf):
    """The counts of the official code for its five tables (reference/families.md, section 1.6)."""

    def count(config):
        return lj.count_parameters(jax.eval_shape(lambda: lj.build(config, key=jax.random.key(0))))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count(NSFConfig(dimensions=dimensions)) == coupling
        assert count(NSFConfig(dimensions=dimensions, form="autoregressive")) == autoregressive
        assert count(MAFConfig(dimensions=dimensions)) == maf


def test_a_program_has_a_spline_once():
    """It calls it at every place: a flow of many splines compiles in less time."""
    spline = bj.RationalQuadratic(bins=2)

    def three(x, parameters):
        for _ in range(3):
            x, _ = spline.forward(x, parameters)
        return x

    compiled = jax.jit(three).lower(jnp.zeros(4), jnp.zeros((4, 5))).compile()
    assert compiled.as_text().count(" call(") == 3

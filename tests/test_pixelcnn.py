"""PixelCNN++: masses, causality, initialization, and three ways to draw the same image."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import TypeCheckError

import likejax as lj
from likejax.distributions import (
    LogisticMixture,
    discretized_logistic_log_prob,
    logistic_mixture_log_probs,
    to_unit_scale,
)
from likejax.models.pixelcnn import sampling
from likejax.models.pixelcnn.causal import concat_elu
from likejax.models.pixelcnn.network import Apply, Level, shift_down, shift_right
from likejax.nn.dropout import dropout
from likejax.nn.modules import replace
from likejax.nn.repeat import stack, unstack
from likejax.nn.state import split
from likejax.nn.weight_norm import WeightNormConvolution, fold_weights
from tests.registry import perturbed, rngs

SIZES = {"filters": 4, "blocks": 1, "resolutions": 2, "mixtures": 3}
SMALL = {"event_shape": (8, 8, 1), "levels": 17, "dropout": 0.0} | SIZES
FLAT = SMALL | {"resolutions": 1}
"""Where nothing hangs on the U-nets: half the time to compile."""


def small(seed: int = 0, **options) -> lj.models.PixelCNN:
    return perturbed(lj.build(lj.models.PixelCNNConfig(**SMALL | options), key=seed), seed=seed + 1)


def flat(**options) -> lj.models.PixelCNN:
    return small(**FLAT | options)


def images(density: lj.Density, n: int, seed: int = 0) -> np.ndarray:
    return (
        np.random.default_rng(seed)
        .integers(0, density.levels, (n, *density.event_shape))
        .astype(np.uint8)
    )


def arrays(density: lj.Density) -> dict[str, np.ndarray]:
    return jax.tree.map(np.array, split(density)[1])


def on_unit_scale(x: np.ndarray, levels: int) -> jax.Array:
    return to_unit_scale(jnp.asarray(x), levels)


# The discretized logistic


@pytest.mark.parametrize(
    ("value", "mean", "log_scale", "reference", "exact"),
    [
        (0, 0, 0, -1.3103963, -1.3103963),
        (255, 0, 0, -1.3103963, -1.3103963),
        (255, 1.0, -7, -0.0134703, -0.0134703),
        (128, 0, 0, -6.2344159, -6.2344159),
        (10, 0.3, -2, -11.8745959, -11.8744561),
        (200, -0.5, -3, -23.3120725, -23.3110387),
        (64, 0.9, -5, -207.3355, -207.2797),
    ],
)
def test_table_of_single_logistics(value, mean, log_scale, reference, exact):
    """The values of specs.md section 3.1, those of the exact form from 40-digit arithmetic."""
    with jax.enable_x64(True):
        arguments = [jnp.asarray(a, float) for a in (value, mean, log_scale)]
        for form, expected in (("reference", reference), ("exact", exact)):
            got = discretized_logistic_log_prob(*arguments, 256, form)
            np.testing.assert_allclose(got, expected, atol=6e-8 if expected > -100 else 6e-5)


@pytest.mark.parametrize("levels", [2, 17, 256, 65536])
def test_masses_sum_to_one_in_float32(levels):
    """To 1e-6 at scales far beyond and below a level, means outside the range, on edges of levels,
    at both ends."""
    log_scales = np.array([-9.0, -7, -6, -4, -1.5, 0, 3, 12, 60, 150], np.float32)
    means = np.array([-3.0, -1, -0.999, -1 / 3, 0, 1 / 255, 2 / 255, 0.7, 1, 2.5, 40], np.float32)
    mean, log_scale = (a.reshape(-1, 1) for a in np.meshgrid(means, log_scales))
    k = jnp.arange(levels, dtype=jnp.float32)[None]
    mean, log_scale, k = jnp.broadcast_arrays(jnp.asarray(mean), jnp.asarray(log_scale), k)
    values = discretized_logistic_log_prob(k, mean, log_scale, levels)
    assert values.dtype == jnp.float32
    assert np.isfinite(values).all()
    masses = np.exp(np.asarray(values, np.float64)).sum(1)
    np.testing.assert_allclose(masses, 1, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("form", ["exact", "reference"])
def test_gradients_of_the_mixture_are_finite(channels, form):
    """For outputs of a network that has gone astray, in float32, at both ends of the range and
    between."""
    size = LogisticMixture.size(channels, 3)
    rng = np.random.default_rng(0)
    outputs = jnp.asarray(
        rng.normal(size=(60, size)) * np.geomspace(1e-3, 1e3, 60)[:, None], jnp.float32
    )
    k = jnp.asarray(rng.choice([0, 1, 128, 254, 255], (60, channels)))

    def total(outputs):
        return logistic_mixture_log_probs(
            k, LogisticMixture.of(outputs, channels, 3), 256, form
        ).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(outputs)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(1) > 0).mean() > 0.9  # a pixel may sit in the middle of a flat top


def test_exact_and_reference_differ_where_masses_are_small():
    density = lj.build(lj.models.PixelCNNConfig(**FLAT | {"levels": 256}), key=0)
    x = images(density, 4)
    exact, reference = (
        lj.build(
            lj.models.PixelCNNConfig(**FLAT | {"levels": 256, "likelihood": form}), key=0
        ).log_prob(x)
        for form in ("exact", "reference")
    )
    np.testing.assert_allclose(exact, reference, rtol=1e-3)
    assert np.abs(exact - reference).max() > 0


# Densities as a whole


@pytest.mark.parametrize(
    "options",
    [
        {"event_shape": (2, 2, 1), "levels": 3},
        {"event_shape": (1, 2, 2), "levels": 3},
        {"event_shape": (1, 1, 3), "levels": 5},
        {"event_shape": (2, 1, 2), "levels": 3, "num_classes": 2},
    ],
)
def test_masses_of_all_images_sum_to_one(options):
    density = small(**options)
    everything = np.array(
        list(itertools.product(range(density.levels), repeat=math.prod(density.event_shape)))
    )
    everything = everything.reshape(-1, *density.event_shape).astype(np.uint8)
    condition = 1 if options.get("num_classes") else None
    masses = np.exp(np.asarray(density.log_prob(everything, condition=condition), np.float64))
    np.testing.assert_allclose(masses.sum(), 1, atol=1e-5)


def test_samples_have_the_stated_probabilities():
    """Frequencies of all 81 images of 2x2 pixels with 3 levels, by a chi-square test."""
    density = small(event_shape=(2, 2, 1), levels=3)
    everything = (
        np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2, 1).astype(np.uint8)
    )
    masses = np.exp(np.asarray(density.log_prob(everything), np.float64))
    n = 20_000
    codes = np.asarray(density.sample(jax.random.key(0), n)).reshape(n, 4) @ [27, 9, 3, 1]
    counts = np.bincount(codes, minlength=81)
    often = masses * n > 5
    chi_square = ((counts - n * masses) ** 2 / (n * masses))[often].sum()
    degrees = often.sum() - 1
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


def test_log_prob_map():
    """It sums to log_prob; the rest given a prefix is its tail, by the chain rule, and needs no
    later pixels."""
    density = flat(event_shape=(5, 6, 3), levels=256)
    x = images(density, 3)
    each = density.log_prob_map(x)
    assert each.shape == x.shape
    np.testing.assert_allclose(each.sum((1, 2, 3)), density.log_prob(x), rtol=1e-5)
    rest = density.log_prob_rest(x, 13)
    np.testing.assert_allclose(rest, each.reshape(3, 30, 3)[:, 13:].sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(density.log_prob_rest(x, 0), density.log_prob(x), rtol=1e-5)
    np.testing.assert_array_equal(density.log_prob_rest(x, 30), 0)
    assert density.log_prob_map(x[0]).shape == x.shape[1:]
    changed = x.copy()
    changed.reshape(3, 30, 3)[:, 20:] ^= 255
    np.testing.assert_array_equal(density.log_prob_map(changed)[:, :3], each[:, :3])
    with pytest.raises(ValueError, match="known to be an integer of at least 0 and at most 30"):
        density.log_prob_rest(x, 31)


def test_values_outside_the_levels_have_no_mass():
    density = small(event_shape=(2, 2, 1), resolutions=1)
    x = np.full((1, 2, 2, 1), 17, np.uint8)
    assert jax.jit(lambda d, x: d.log_prob(x))(density, jnp.asarray(x))[0] == -math.inf
    with pytest.raises(ValueError, match=r"expected integers 0\.\.16"):
        density.log_prob(x)


@pytest.mark.parametrize(
    "options", [{"filters": 0}, {"dropout": 1.0}, {"levels": 1}, {"blocks": 0}]
)
def test_sizes_that_make_no_sense(options):
    with pytest.raises(ValueError, match="expected"):
        lj.models.PixelCNNConfig(**options)


# Causality


def depends_on(function, image: jax.Array) -> np.ndarray:
    """``[p, q]``: whether any output at pixel ``p`` has a gradient at pixel ``q`` that is not
    exactly zero."""
    rng = np.random.default_rng(0)
    height, width, _ = image.shape
    pixels = height * width
    shape = jax.eval_shape(function, image).shape
    at = jnp.eye(pixels).reshape(pixels, height, width, 1)

    @jax.jit
    def gradients(image, weight):
        backward = jax.vjp(function, image)[1]
        return jax.vmap(lambda mask: backward(mask * weight)[0])(at)

    found = np.zeros((pixels, pixels), bool)
    for _ in range(3):
        gradient = np.asarray(gradients(image, jnp.asarray(rng.normal(size=shape), image.dtype)))
        assert np.isfinite(gradient).all()
        found |= (np.abs(gradient).max(-1) > 0).reshape(pixels, pixels)
    return found


def sees(found: np.ndarray, width: int, down: int, right: int) -> bool:
    """Whether every pixel depends on the one at that offset, where there is one."""
    pixels = np.arange(len(found))
    row, column = pixels // width + down, pixels % width + right
    inside = (row >= 0) & (column >= 0) & (column < width)
    return bool(found[pixels[inside], (row * width + column)[inside]].all())


@pytest.mark.parametrize(
    "options",
    [
        {"resolutions": 3},
        {"event_shape": (7, 6, 3), "levels": 256},
        {"event_shape": (6, 9, 2), "blocks": 2},
    ],
    ids=["one channel", "padded", "two blocks"],
)
def test_causality(options):
    """No gradient at all from the pixel itself or a later one, through biases and the U-nets; some
    from earlier."""
    density = small(**options)
    height, width, channels = density.event_shape
    image = jnp.asarray(
        np.random.default_rng(1).uniform(-1, 1, (height, width, channels)), jnp.float32
    )
    found = depends_on(density.network, image)
    pixels = height * width
    later = np.arange(pixels)[None] >= np.arange(pixels)[:, None]
    assert not (found & later).any()
    assert all(sees(found, width, *offset) for offset in [(0, -1), (-1, -1), (-1, 0), (-1, 1)])
    assert found[~later].mean() > 0.7


def test_causality_of_both_streams():
    """The stream above sees the rows above only; the left stream alone, without it, none of the
    pixel's right."""
    density = small()
    network = density.network
    image = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (8, 8, 1)), jnp.float32)
    row = np.arange(64) // 8

    def above(image):
        nothing = [Level() for _ in range(2)]
        return network.above.walk(
            Apply(None), shift_down(network.above_first(network.framed(image))), nothing, nothing
        )[0]

    found = depends_on(above, image)
    assert not found[row[:, None] <= row[None]].any()
    assert all(sees(found, 8, *offset) for offset in [(-1, -1), (-1, 0), (-1, 1), (-2, 0)])

    def left(image):
        nothing = [Level() for _ in range(2)]
        sides = network.above.walk(Apply(None), jnp.ones((8, 8, 4)), nothing, nothing)[1]
        first = shift_right(network.left_first(network.framed(image)))
        return network.left.walk(Apply(None), first, sides, nothing)[0]

    found = depends_on(left, image)
    column = np.arange(64) % 8
    assert not found[(row[:, None] < row[None]) | (column[:, None] <= column[None])].any()
    assert all(sees(found, 8, *offset) for offset in [(0, -1), (-1, -1), (0, -2)])


# Layers and initialization


def test_concat_elu():
    x = jnp.asarray([-3.0, -1e-6, 0.0, 2e-7, 5.0, -200.0, 200.0])
    expected = jax.nn.elu(jnp.concatenate([x, -x]))
    np.testing.assert_allclose(concat_elu(x), expected, rtol=1e-6)
    ours, theirs = (
        jax.jit(jax.jacobian(f))(x)
        for f in (concat_elu, lambda x: jax.nn.elu(jnp.concatenate([x, -x])))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_dropout():
    x = jnp.ones((100, 100))
    y = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, np.float32(4 / 3)}
    assert abs(y.mean() - 1) < 0.02
    np.testing.assert_array_equal(dropout(x, 0.25, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, jax.random.key(0)), x)


@pytest.mark.parametrize("grows", [False, True])
def test_weight_norm(grows):
    """The kernel has norm ``scale`` per output; initialization standardizes the output; folded
    weights agree."""
    options = {"crop": (0, 1)} if grows else {"padding": ((1, 0), (1, 1))}
    layer = WeightNormConvolution(
        3, 5, kernel_size=(2, 3), initial_scale=0.1, rngs=rngs(), **options
    )
    layer = perturbed(layer)
    norms = np.sqrt(np.square(layer.kernel()).sum((0, 1, 2)))
    np.testing.assert_allclose(norms, np.abs(layer.scale[...]), rtol=1e-5)
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (4, 6, 6, 3)), jnp.float32)
    new, y = layer.initialize(x)
    np.testing.assert_allclose(new(x), y, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 0.1, rtol=1e-3)
    np.testing.assert_allclose(fold_weights(new)(x), y, rtol=1e-3, atol=1e-5)


def test_initialization():
    """Sequential, without a trace in the original; outputs of the last layer are standardized on
    the batch."""
    density = lj.build(
        lj.models.PixelCNNConfig(**SMALL | {"blocks": 2, "output_scale": 0.1}), key=0
    )
    x = images(density, 16)
    before = arrays(density)
    new = density.initialize(x, 1)
    jax.tree.map(np.testing.assert_array_equal, arrays(density), before)
    outputs = np.asarray(jax.jit(new.network)(on_unit_scale(x, 17)))
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 0.1, rtol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, arrays(density.initialize(x, 1)), arrays(new))
    stacked, apart = arrays(stack(density).initialize(x, 1)), arrays(stack(new))
    assert stacked.keys() == apart.keys()
    for name, value in stacked.items():
        np.testing.assert_allclose(value, apart[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_bits_of_a_head_that_says_nothing():
    """With all outputs zero natural patches need 8.788 bits/dim and uniform noise 9.053 (specs.md
    3.8)."""
    density = lj.build(lj.models.PixelCNNConfig(filters=2, blocks=1, resolutions=1), key=0)
    density.network.out.scale[...] = jnp.zeros_like(density.network.out.scale[...])
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    bits = lj.bits_per_dim(density.log_prob(noise).mean(), (32, 32, 3))
    assert abs(bits - 9.053) < 0.01


def test_bits_after_initialization():
    """Initialized and scored on the same patches with dropout: what the reference needs more than a
    silent head, for outputs of standard deviation 1 and, scaled, 0.1."""
    density = lj.build(lj.models.PixelCNNConfig(filters=16, blocks=1), key=0)
    x = lj.load("photographs").examples[::46][:24]
    zeros = LogisticMixture.of(jnp.zeros((*x.shape[:3], 100)), 3, 10)
    silent = jax.jit(logistic_mixture_log_probs, static_argnums=2)(x, zeros, 256).sum() / len(x)
    new = density.initialize(x, 1)
    for scale, excess in ((1.0, 0.40), (0.1, 0.00)):
        out = new.network.out
        last = replace(out, scale=nnx.Param(scale * out.scale), bias=nnx.Param(scale * out.bias))
        scaled = replace(new, network=replace(new.network, out=last))
        bits = lj.bits_per_dim(float(scaled.terms(x, key=2).log_prob.mean()), (32, 32, 3))
        assert abs(bits - lj.bits_per_dim(float(silent), (32, 32, 3)) - excess) < 0.1


def test_dropout_is_for_training_only():
    """``log_prob`` has none; ``terms`` has it with a key, another for every example and step, and
    none without."""
    density = flat(dropout=0.5)
    x = np.repeat(images(density, 1), 4, axis=0)
    plain = density.log_prob(x)
    np.testing.assert_array_equal(plain, density.log_prob(x, key=3))
    np.testing.assert_allclose(density.terms(x).log_prob, plain, rtol=1e-6)
    dropped = density.terms(x, key=3).log_prob
    assert len(np.unique(dropped)) == 4
    assert np.abs(dropped - plain[0]).min() > 0
    np.testing.assert_array_equal(dropped, density.terms(x, key=3).log_prob)


def test_bfloat16_networks_keep_the_likelihood_in_float32():
    density, half = (flat(levels=256, compute_dtype=dtype) for dtype in ("float32", "bfloat16"))
    x = images(density, 4)
    assert half.log_prob(x).dtype == jnp.float32
    np.testing.assert_allclose(half.log_prob(x), density.log_prob(x), rtol=2e-2)
    assert half.sample(0, 2).shape == (2, 8, 8, 1)


def test_labels_matter():
    density = flat(num_classes=3)
    x = np.repeat(images(density, 1), 3, axis=0)
    values = density.log_prob(x, condition=np.arange(3))
    assert len(np.unique(values)) == 3
    samples = density.sample(0, 2, np.arange(3))
    assert samples.shape == (2, 3, 8, 8, 1)
    np.testing.assert_array_equal(samples, density.with_sampler("naive").sample(0, 2, np.arange(3)))


# Sampling


COLOR = {"event_shape": (7, 6, 3), "levels": 256, "blocks": 2}


@pytest.mark.parametrize(
    ("options", "loops"),
    [
        ({}, True),
        (COLOR, True),
        ({"event_shape": (5, 4, 2), "resolutions": 1}, False),
        ({"event_shape": (6, 10, 1), "resolutions": 4}, False),
    ],
    ids=["one channel", "padded color", "one resolution", "four resolutions"],
)
def test_three_samplers_draw_the_same_images(options, loops):
    """In float64 bit for bit; naive and fixed-point, two loops around one network, in float32
    too."""
    keys = jax.random.key(5), jax.random.key(6)
    density = small(**options)
    for key in keys if loops else ():
        drawn = [density.with_sampler(name).sample(key, 3) for name in ("naive", "fixed_point")]
        np.testing.assert_array_equal(*drawn)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), density)
        names = ("naive", "cached", "fixed_point") if loops else ("cached", "fixed_point")
        for key in keys:
            first, *others = (double.with_sampler(name).sample(key, 3) for name in names)
            for other in others:
                np.testing.assert_array_equal(first, other)
        assert len(np.unique(np.asarray(first))) > 3


@pytest.mark.parametrize(("options", "forms"), [({}, [unstack]), (COLOR, [unstack, stack])])
def test_cached_outputs_in_float32(options, forms):
    """Teacher-forced, the cached computation gives the network's outputs to 1e-5; so does the
    stacked form."""
    density = small(**options)
    x = images(density, 3)
    expected = jax.jit(density.network)(on_unit_scale(x, density.levels))
    run = jax.jit(jax.vmap(sampling.cached_outputs, (None, 0)))
    for form in forms:
        outputs = run(form(density), x)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def first_difference_is_a_tie(
    density: lj.models.PixelCNN, first: np.ndarray, second: np.ndarray, key
) -> bool:
    """Whether two images agree up to a draw within 1e-5 of a boundary between levels or components,
    or altogether."""
    different = np.flatnonzero((first != second).reshape(-1))
    if not len(different):
        return True
    _, width, channels = density.event_shape
    pixel = different[0] // channels
    i, j = divmod(pixel, width)
    mixture = jax.tree.map(
        lambda leaf: np.asarray(leaf[i, j], np.float64), density.mixture(jnp.asarray(first))
    )
    gumbel, logistic = sampling.draw_noise(key, density.event_shape, density.mixtures)
    scores = np.sort(mixture.logits + np.asarray(gumbel[i, j], np.float64))
    if scores[-1] - scores[-2] < 1e-5:
        return True
    best = np.argmax(mixture.logits + np.asarray(gumbel[i, j], np.float64))
    channel = different[0] % channels
    half = (density.levels - 1) / 2
    before = jnp.asarray(first[i, j] / half - 1)
    mean = np.asarray(mixture.mean(channel, before))[best]
    value = (
        mean + np.exp(mixture.log_scales[channel, best]) * float(logistic[i, j, channel]) + 1
    ) * half
    return abs(value - np.floor(value) - 0.5) < 1e-5 * half


@pytest.mark.parametrize("seed", range(3))
def test_cached_and_naive_images_in_float32(seed):
    """They agree up to the first draw that lies within rounding of another outcome."""
    density = small(seed=seed, event_shape=(6, 6, 3), levels=256)
    keys = lj.example_keys(seed, range(8))
    naive, cached = (
        np.asarray(density.with_sampler(s).sample(seed, 8)) for s in ("naive", "cached")
    )
    for i in range(8):
        assert first_difference_is_a_tie(density, naive[i], cached[i], keys[i])
    assert (naive == cached).mean() > 0.9


def test_temperature():
    """At zero the image is the chain of the likeliest components' means; noise of any key changes
    nothing."""
    density = flat()
    cold = density.sample(0, 32, temperature=0.0)
    np.testing.assert_array_equal(cold, density.sample(9, 32, temperature=0.0))
    np.testing.assert_array_equal(cold[0], cold[1])
    np.testing.assert_array_equal(
        cold, density.with_sampler("fixed_point").sample(0, 32, temperature=0.0)
    )
    spread = [
        float(np.std(np.asarray(density.sample(0, 32, temperature=t), float), axis=0).mean())
        for t in (0.3, 1)
    ]
    assert spread[0] < spread[1]


@pytest.mark.parametrize("sampler", ["cached", "fixed_point", "naive"])
def test_inpaint(sampler):
    """The known prefix stays, the rest is drawn given it, and is that of any image with the same
    prefix."""
    density = small().with_sampler(sampler)
    x, key = images(density, 3), jax.random.key(2)
    whole = density.inpaint(x, 0, key=key)
    np.testing.assert_array_equal(whole, density.sample(key, 3))
    known = 27
    drawn = np.asarray(density.inpaint(x, known, key=key))
    np.testing.assert_array_equal(drawn.reshape(3, -1)[:, :known], x.reshape(3, -1)[:, :known])
    assert (drawn != x).any()
    other = x.copy()
    other.reshape(3, -1)[:, known:] = 0
    np.testing.assert_array_equal(density.inpaint(other, known, key=key), drawn)
    np.testing.assert_array_equal(density.inpaint(x, 64, key=key), x)
    again = density.inpaint(
        whole, known, key=key
    )  # a sample completed with its own noise is itself
    np.testing.assert_array_equal(again, whole)
    with pytest.raises(ValueError, match="known to be an integer of at least 0 and at most 64"):
        density.inpaint(x, 65, key=key)


def test_fixed_point_needs_fewer_rounds_than_pixels():
    """Counted in a host loop over the same rounds."""
    density = flat()
    noise = sampling.draw_noise(jax.random.key(0), density.event_shape, density.mixtures)
    x = jnp.zeros(density.event_shape, jnp.uint8)
    task = sampling.Task(x, 0, noise, None, 1.0)
    sweep = jax.jit(lambda x: sampling._sweep(density, density.network, task, x))
    rounds = 0
    while True:
        new, rounds = sweep(x).x, rounds + 1
        if (new == x).all():
            break
        x = new
    assert rounds < 64
    np.testing.assert_array_equal(x, jax.jit(lambda: sampling.fixed_point(density, task).x)())


def test_unknown_sampler():
    with pytest.raises((ValueError, TypeCheckError), match=r"'cached'.*'fixed_point'.*'naive'"):
        flat().with_sampler("quick")


# Training


def test_training_lowers_the_loss(tmp_path):
    """A few steps of a tiny model on digits, through ``fit`` with its initialization, then back
    from disk."""
    model = lj.models.PixelCNNConfig(**FLAT | {"filters": 8, "dropout": 0.2, "output_scale": 0.1})
    experiment = lj.Experiment(
        model=model,
        dataset="digits",
        batch_size=32,
        steps=40,
        log_every=10,
        ema_decay=0.9,
        validate_every=20,
    )
    train, validation = lj.load("digits"), lj.load("digits", split="validation")
    run = lj.fit(experiment, train, validation=validation, workdir=tmp_path / "run", key=0)
    losses = [record["loss"] for record in run.history if "loss" in record]
    assert losses[-1] < losses[0] - 0.3
    x = validation.examples[:4]
    np.testing.assert_array_equal(lj.restore(tmp_path / "run").log_prob(x), run.density.log_prob(x))


def test_export():
    """The program of ``log_prob`` needs no key, for any number of examples, here and on
    accelerators."""
    density = flat()
    x = images(density, 3)
    program = jax.export.deserialize(
        bytearray(lj.export(density, platforms=["cpu", "cuda", "tpu"]))
    )
    np.testing.assert_allclose(program.call(x), density.log_prob(x), rtol=1e-5)

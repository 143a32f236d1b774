"""Glow itself: sizes of the presets, values at initialization, encoding and decoding, the families'
builder.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax.evaluation import log_prob_in_chunks
from likejax.nn.edge_convolution import EdgeConvolution
from likejax.nn.repeat import unstack
from likejax.nn.state import split
from tests.registry import perturbed


def test_paper_ablation_size():
    """Without the 1x1 convolutions the CIFAR-10 model has 44,506,836 parameters."""
    config = lj.models.GlowConfig(permutation="reverse")
    density = nnx.eval_shape(lambda: lj.build(config, key=jax.random.key(0)))
    assert sum(math.prod(leaf.shape) for leaf in split(density)[1].values()) == 44_506_836


@pytest.fixture(scope="module")
def color():
    config = lj.models.GlowConfig(depth=2, width=16)
    photographs = lj.load("photographs")
    return lj.build(config, key=0).initialize(photographs.examples[::20], 1), photographs


def test_encode_and_decode(color):
    """All latents there and back at 32x32x3: to 1e-4 before quantization, exactly after."""
    density, photographs = color
    x = photographs.examples[:6]
    latents = density.encode(x, key=3)
    assert [part.shape[1:] for part in latents] == [(4, 4, 48), (8, 8, 12), (16, 16, 6)]
    assert sum(part[0].size for part in latents) == 32 * 32 * 3
    np.testing.assert_array_equal(density.decode(latents), x)
    y = (x + 0.5).astype(np.float32) / 256
    np.testing.assert_allclose(density.flow.decode(density.flow.encode(y)), y, atol=1e-4)
    with pytest.raises(ValueError, match="expected 3 latent arrays"):
        density.decode(latents[:2])


def test_latents_are_white_under_the_model():
    """Encoding samples of the flow returns the standard normal draws they were made of."""
    density = lj.build(
        lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, scales=2, depth=2, width=8), key=0
    )
    samples = density.flow.sample(jax.random.key(0), 200)
    for part in density.flow.encode(samples):
        assert abs(float(part.mean())) < 0.05
        assert abs(float(part.std()) - 1) < 0.05


def test_temperature_scales_the_latents(color):
    density, _ = color
    for temperature in (0.0, 0.5):
        hot, cold = (
            density.flow.encode(density.flow.sample(2, 3, None, t)) for t in (1.0, temperature)
        )
        for a, b in zip(hot, cold, strict=True):
            np.testing.assert_allclose(temperature * a, b, atol=2e-3)


def test_bits_per_dim_after_initialization():
    """K=32, L=3 on natural RGB patches, initialized and scored on the same batch: 5.87 +- 0.15.

    The last convolutions of the couplings are 0, so their width has no say: 8 does for 512. The
    steps stay stacked, so that one is compiled in place of 32.
    """
    rng = np.random.default_rng(0)
    everything = [lj.load("photographs", split=s).examples for s in ("train", "validation", "test")]
    patches = np.concatenate(everything)
    batch = patches[rng.permutation(len(patches))[:64]]
    density = lj.models.GlowConfig(width=8).build(nnx.Rngs(0)).initialize(batch, 1)
    bits = lj.bits_per_dim(
        log_prob_in_chunks(density, batch, key=2, batch_size=64).mean(), (32, 32, 3)
    )
    assert abs(bits - 5.87) < 0.15


def test_five_bits_and_eight_bits():
    """The same images with fewer levels need fewer bits, and the offset log(levels) is counted."""
    photographs = lj.load("photographs")
    few = photographs.reduce_levels(32)
    config = {"depth": 2, "width": 16, "scales": 2}
    bits = []
    for data, levels in ((photographs, 256), (few, 32)):
        density = lj.build(lj.models.GlowConfig(levels=levels, **config), key=0)
        density = density.initialize(data.examples[:200], 1)
        bits.append(
            lj.bits_per_dim(density.log_prob(data.examples[:200], key=2).mean(), (32, 32, 3))
        )
    assert 1.5 < bits[0] - bits[1] < 3


@pytest.mark.parametrize(
    "config", [{"event_shape": (30, 32, 3)}, {"event_shape": (28, 28, 1), "scales": 3}]
)
def test_sizes_that_do_not_divide(config):
    with pytest.raises(ValueError, match=r"divisible by 2\^scales"):
        lj.build(lj.models.GlowConfig(**config), key=0)


def test_a_glow_has_a_scale():
    with pytest.raises(
        ValueError, match=r"GlowConfig.scales to be an integer of at least 1, got 0"
    ):
        lj.models.GlowConfig(scales=0)


def test_bfloat16_networks_keep_the_likelihood_in_float32():
    x = lj.load("photographs").examples[:8]
    config = {"depth": 2, "width": 16, "scales": 2}
    densities = [
        lj.build(lj.models.GlowConfig(compute_dtype=t, **config), key=0)
        for t in ("float32", "bfloat16")
    ]
    values = [perturbed(d, scale=0.03).log_prob(x, key=2) for d in densities]
    assert values[1].dtype == jnp.float32
    np.testing.assert_allclose(values[1], values[0], rtol=5e-3)
    assert np.abs(values[1] - values[0]).max() > 0


def test_the_prior_sees_the_border():
    """Through the edge channel a learned prior differs at the border although its input is all
    zero.
    """
    linear = EdgeConvolution(2, 3, kernel_size=3, scale=0.5, rngs=nnx.Rngs(0))
    out = linear(jnp.zeros((5, 5, 2)))
    np.testing.assert_allclose(out[1:-1, 1:-1], 0, atol=1e-6)
    assert np.abs(out[0]).min() > 0
    padded = jnp.zeros((7, 7, 3)).at[..., 2].set(1).at[1:-1, 1:-1, 2].set(0)
    expected = jax.lax.conv_general_dilated(
        padded[None],
        linear.kernel[...],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(out, expected[0], atol=1e-5)


def test_accelerators_get_stacked_blocks(monkeypatch):
    """On a GPU or TPU repeated blocks stay stacked; their scan has the values of the loop."""
    config = lj.models.GlowConfig(event_shape=(4, 4, 1), scales=1, depth=5, width=3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    stacked = lj.build(config, key=0)
    apart = unstack(stacked)
    assert ".blocks.block." in str(split(stacked)[0].names)
    assert ".blocks.block." not in str(split(apart)[0].names)
    x = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    np.testing.assert_allclose(stacked.log_prob(x, key=1), apart.log_prob(x, key=1), rtol=1e-5)
    lowered = jax.jit(lambda d, x: d.log_prob(x, key=1)).lower(stacked, x)
    assert "while" in lowered.as_text()

"""Every preset: its size, its record, what it is trained on."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax.experiment import from_json, to_json
from likejax.train.optimiser import build_optimiser
from likejax.train.state import take_apart

PARAMETERS = {
    "glow/cifar10": 44_603_604,
    "glow/cifar10-additive": 38_395_668,
    "glow/imagenet32": 66_861_588,
    "glow/imagenet64": 112_377_540,
    "glow/celeba_hq256": 175_099_620,
    "ffjord/moons": 9_225,
    "ffjord/power": 43_325,
    "ffjord/gas": 278_565,
    "ffjord/hepmass": 546_850,
    "ffjord/miniboone": 820_613,
    "ffjord/bsds300": 6_698_666,
    "ffjord/mnist": 800_646,
    "ffjord/cifar10": 1_358_882,
    # the official counts less a projection above the top latent that nothing reads
    "hvae/fashion_mnist": 2_620_258 - 31_360,
    "hvae/fashion_mnist-released": 2_620_258 - 31_360,
    "hvae/mnist-released": 2_620_258 - 31_360,
    "hvae/cifar10-released": 37_013_064 - 139_264,
    "hvae/svhn-released": 37_013_064 - 139_264,
    "pixelcnn/cifar10": 53_659_080,
    "pixelcnn/cifar10-192": 77_244_104,
    "pixelcnn/cifar10-conditional": 53_863_880,
}


@pytest.mark.parametrize("name", lj.PRESETS)
def test_parameter_counts(name):
    """Of every preset, without allocating one; the paper's presets have the official code's numbers."""
    density = nnx.eval_shape(lambda: lj.build(lj.preset(name).model, key=jax.random.key(0)))
    structure, params, _ = take_apart(density)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in params.values())
    if density.config.family != "vae":  # whose blocks all differ
        assert any(".block." in n for n in structure.names), "repeated blocks are not stacked"
    count = sum(math.prod(leaf.shape) for leaf in params.values())
    assert count == PARAMETERS.get(name, count)
    if name in ("glow/mnist", "glow/fashion_mnist"):
        assert density.event_shape == (28, 28, 1)
        assert (lj.preset(name).model.scales, lj.preset(name).model.depth, lj.preset(name).model.width) == (2, 32, 512)


def test_one_channel_pixelcnn_of_the_reference():
    """The official sizes with one channel have 53,644,220 parameters."""
    config = lj.PixelCNNConfig(event_shape=(28, 28, 1))
    density = nnx.eval_shape(lambda: lj.build(config, key=jax.random.key(0)))
    assert sum(math.prod(leaf.shape) for leaf in take_apart(density)[1].values()) == 53_644_220


@pytest.mark.parametrize("name", lj.PRESETS)
def test_records(name):
    """A preset comes back from its JSON, and its optimiser can be built."""
    experiment = lj.preset(name)
    assert from_json(to_json(experiment)) == experiment
    build_optimiser(experiment.optimiser, experiment.steps)


def test_pixelcnn_trains_as_the_reference():
    """Adam with epsilon inside the root, of the size that belongs to a mean loss in bits, and slow decay."""
    experiment = lj.preset("pixelcnn/cifar10")
    optimiser = experiment.optimiser
    assert (optimiser.b1, optimiser.b2, optimiser.eps) == (0.95, 0.9995, 0.0)
    assert (experiment.batch_size, experiment.ema_decay, experiment.augment) == (128, 0.9995, ())
    nats = experiment.batch_size * 32 * 32 * 3 * math.log(2.0)  # the summed loss over ours
    assert optimiser.eps_root * nats**2 == pytest.approx(1e-8)
    gradient, rate = 3e-7, 1e-3
    rule = build_optimiser(optimiser, experiment.steps)
    with jax.enable_x64(True):
        update, _ = rule.update({"w": jnp.asarray(gradient)}, rule.init({"w": jnp.zeros(())}))
    theirs = -rate * gradient * nats / math.sqrt((gradient * nats) ** 2 + 1e-8)
    np.testing.assert_allclose(update["w"], theirs, rtol=1e-5)


@pytest.mark.parametrize("damage", [3, "x", [1], None, {"zz": 1}])
@pytest.mark.parametrize("place", ["objective", "solver"])
def test_damaged_records(damage, place):
    """A part that is no record of its kind is refused, at any depth."""
    record = json.loads(to_json(lj.preset("ffjord/moons")))
    (record if place == "objective" else record["model"])[place] = damage
    with pytest.raises(ValueError, match="not the record of"):
        from_json(json.dumps(record))

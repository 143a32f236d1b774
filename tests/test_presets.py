"""Every preset: its size, its record, what it is trained on."""

from __future__ import annotations

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax.experiment import from_json, to_json
from likejax.models.vae.stage import Options
from likejax.nn.state import split
from likejax.train.optimizer import build_optimizer

OFFICIAL = {
    "vdm/cifar10": 30_578_181,
    "vdm/cifar10_aug": 122_140_677,
    "vdm/cifar10_fast": 30_578_179,
    "vdm/imagenet32_old": 122_137_605,
    "vdm/imagenet64_old": 237_603_845,
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
    # with working skips less the projection above the top latent, which nothing reads
    "hvae/fashion_mnist": 2_620_258 - 31_360,
    "hvae/mnist": 2_620_258 - 31_360,
    "hvae/cifar10": 37_013_064 - 139_264,
    "hvae/svhn": 37_013_064 - 139_264,
    "hvae/fashion_mnist-released": 2_620_258,
    "hvae/mnist-released": 2_620_258,
    "hvae/cifar10-released": 37_013_064,
    "hvae/svhn-released": 37_013_064,
    "pixelcnn/cifar10": 53_659_080,
    "pixelcnn/cifar10-192": 77_244_104,
    "pixelcnn/cifar10-conditional": 53_863_880,
    "nsf/power": 2_820_402,
    "nsf/power-autoregressive": 3_004_722,
    "nsf/gas": 2_882_632,
    "nsf/gas-autoregressive": 3_128_392,
    "nsf/hepmass": 1_988_002,
    "nsf/hepmass-autoregressive": 2_633_122,
    "nsf/miniboone": 150_662,
    "nsf/miniboone-autoregressive": 233_222,
    "nsf/bsds300": 3_372_532,
    "nsf/bsds300-autoregressive": 5_307_892,
    "maf/power": 2_680_902,
    "maf/gas": 2_696_632,
}
"""What the official codes count, or what the papers print."""


def glow_parameters(config) -> int:
    """ActNorm, mixing of channels and coupling of every step, then the priors; 3x3 kernels see an
    edge channel."""
    width, channels, total = config.width, config.event_shape[-1], 0
    for scale in range(config.scales):
        channels *= 4
        half = channels // 2
        outputs = channels if config.coupling == "affine" else half
        mixing = {"conv1x1": channels**2, "reverse": 0}[config.permutation]
        network = (
            9 * (half + 1) * width
            + 2 * width
            + width**2
            + 2 * width
            + 9 * (width + 1) * outputs
            + 2 * outputs
        )
        total += config.depth * (2 * channels + mixing + network)
        if scale < config.scales - 1:
            total += 9 * (half + 1) * channels + 2 * channels
            channels = half
    top, classes = 2 * channels, config.num_classes or 0
    total += 9 * (top + 1) * top + 2 * top if config.learned_prior else 0
    labels = classes * top + 2 * top + channels * classes + 2 * classes  # embedding, classifier
    return total + (labels if classes else 0)


def vector_glow_parameters(config) -> int:
    """As for images, with dense layers, and a triangular factorization of the mixing."""
    size, width = config.dimensions, config.width
    kept = size - size // 2
    outputs = 2 * (size - kept) if config.coupling == "affine" else size - kept
    network = kept * width + 2 * width + width**2 + 2 * width + width * outputs + 2 * outputs
    return config.depth * (2 * size + 2 * size**2 + size + network) + 2 * size


def ffjord_parameters(config, channels: int, strides=None) -> int:
    """A field's layers, each with its way to see the time, and the end time if it is learned."""
    sizes = (channels, *config.hidden, channels)
    total = int(config.learn_end_time)
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        taps = 1 if strides is None else 9 if strides[i] == 1 else 16
        inputs = before + (config.time == "concat")
        total += taps * inputs * after + after + (3 * after if config.time == "concatsquash" else 0)
    return total


def vector_ffjord_parameters(config) -> int:
    return config.flows * ffjord_parameters(config, config.dimensions)


def image_ffjord_parameters(config) -> int:
    strides = config.strides or (1,) * (len(config.hidden) + 1)
    side, channels = min(config.event_shape[:2]), config.event_shape[-1]
    fields = []
    while config.multiscale and side >= 8:  # what is left has at least four positions in a row
        fields += [channels, 4 * channels]
        side, channels = side // 2, 2 * channels
    return config.flows * sum(
        ffjord_parameters(config, each, strides) for each in [*fields, channels]
    )


def pixelcnn_parameters(config) -> int:
    """Weight-normalized layers: direction, scale and bias."""
    filters, blocks, levels, channels = (
        config.filters,
        config.blocks,
        config.resolutions,
        config.event_shape[-1],
    )

    def layer(taps: int, before: int, after: int) -> int:
        return taps * before * after + 2 * after

    def block(taps: int, side: int) -> int:
        skip = layer(1, 2 * side, filters) if side else 0
        label = (config.num_classes or 0) * 2 * filters
        return (
            layer(taps, 2 * filters, filters) + skip + layer(taps, 2 * filters, 2 * filters) + label
        )

    total = sum(layer(taps, channels + 1, filters) for taps in (6, 3, 2))
    for taps, side in ((6, 0), (4, filters)):
        total += levels * blocks * (block(taps, side) + block(taps, side + filters))
        total += (levels - 1) * (2 * layer(taps, filters, filters) + block(taps, side + filters))
    outputs = config.mixtures * {1: 3, 3: 10}[channels]
    return total + layer(1, filters, outputs)


def vae_parameters(config) -> int:
    """The layers of both ways, each with direction, scale and bias; the shapes follow the maps."""

    def layer(kernel: int, before: int, after: int) -> int:
        return kernel**2 * before * after + 2 * after

    def block(shape, row, aux) -> tuple[int, tuple[int, int, int]]:
        """Parameters, and the shape without the stride."""
        channels, kernel, _, gated = row
        total = layer(kernel, shape[2], channels) + layer(
            kernel, channels, 2 * channels if gated else channels
        )
        if aux is not None and aux != (*shape[:2], channels):
            total += layer(1 if aux[:2] == shape[:2] else kernel, aux[2], channels)
        return total, (*shape[:2], channels)

    def moments(shape, features: int, dense: bool) -> int:
        return (
            layer(1, math.prod(shape), 2 * features) if dense else layer(3, shape[2], 2 * features)
        )

    stages = config.stages
    shape = (1, 1, math.prod(config.event_shape)) if config.flatten else config.event_shape
    data, aux, total, hidden, inferred = shape[2], None, 0, [], []
    for i, stage in enumerate(stages):
        top = i == len(stages) - 1
        both = {
            "bottom_up": stage.latent,
            "top_down": 0,
            "bidirectional": stage.latent - stage.latent // 2,
        }
        up = stage.latent if top else both[config.inference]
        for row in stage.blocks(Options(gated=config.gated)):
            count, shape = block(shape, row, aux)
            total += count
            shape = (-(-shape[0] // row.stride), -(-shape[1] // row.stride), shape[2])
        hidden.append(shape)
        inferred.append(up)
        total += moments(shape, up, stage.dense) if up else 0
        projected = layer(1, up, math.prod(shape)) if stage.dense else 0
        total += projected if up and (not top or config.skips == "as_released") else 0
        aux = shape if up else None
        shape = shape if stage.dense or not up else (*shape[:2], up)
    above, queue = None, []
    for stage, shape, up in reversed(list(zip(stages, hidden, inferred, strict=True))):
        total += moments(above, stage.latent, stage.dense) if above else 0
        joined = (*shape[:2], shape[2] + above[2]) if above else shape
        total += moments(joined, stage.latent - up, stage.dense) if up < stage.latent else 0
        total += layer(1, stage.latent, math.prod(shape)) if stage.dense else 0
        shape = shape if stage.dense else (*shape[:2], stage.latent)
        for row in stage.blocks(Options(gated=config.gated))[::-1]:
            skip = queue.pop(0) if above else None
            count, shape = block(shape, row, skip)
            total += count
            shape = (row.stride * shape[0], row.stride * shape[1], shape[2])
            queue.append(shape)
        above = shape
    names = {"bernoulli": 1, "gaussian": 2, "logistic": 2}
    if config.likelihood == "logistic_mixture":
        return total + layer(1, above[2], config.mixtures * 10)
    return total + layer(1 if config.flatten else 3, above[2], names[config.likelihood] * data)


def vector_flow_parameters(config) -> int:
    """Networks with masked entries counted, splines of kept features, and LU maps."""
    dimensions, width = config.dimensions, config.width
    each = 3 * config.bins - 1 if config.family == "nsf" else 2

    def network(inputs, outputs):
        blocks = config.blocks * 2 * (width + 1) * width
        return (inputs + 1) * width + blocks + (width + 1) * outputs

    total = (config.depth + 1) * (dimensions * (dimensions - 1) + 2 * dimensions)
    total += {"normal": 0, "student_t": dimensions}[config.base]  # degrees of freedom
    for step in range(config.depth):
        if config.form == "autoregressive":
            total += network(dimensions, dimensions * each)
            continue
        kept = (dimensions + step % 2) // 2
        total += network(kept, (dimensions - kept) * each)
        total += kept * each if config.family == "nsf" else 0
    return total


def schedule_parameters(config) -> int:
    return {"learned_linear": 2, "learned_network": 2 + 3 * 1024}.get(config.schedule, 0)


def vdm_parameters(config) -> int:
    """Dense layers of the time, blocks of both ways and of the middle, attention, both ends."""
    n, channels = config.width, config.event_shape[2] * config.patch**2

    def layer(size, inputs, outputs):
        return (size * size * inputs + 1) * outputs

    def block(inputs):
        norms = 2 * (inputs + n)
        skip = layer(1, inputs, n) if inputs != n else 0
        attention = 2 * n + 4 * layer(1, n, n) if config.attention else 0
        return norms + layer(3, inputs, n) + layer(3, n, n) + 4 * n * n + skip + attention

    seen = channels * (5 if config.fourier else 1)
    total = layer(1, n + 1, 4 * n) + layer(1, 4 * n, 4 * n) + layer(3, seen, n)
    total += config.resolutions * (config.blocks * block(n) + (config.blocks + 1) * block(2 * n))
    total += (config.resolutions - 1) * 2 * layer(3, n, n)  # to a smaller resolution and back
    own_attention = 0 if config.attention else 2 * n + 4 * layer(1, n, n)
    without = 2 * n + 4 * layer(1, n, n) if config.attention else 0  # the second has none
    total += 2 * block(n) + own_attention - without
    return total + 2 * n + layer(3, n, channels) + schedule_parameters(config)


def vector_vdm_parameters(config) -> int:
    n, d = config.width, config.dimensions
    total = (n + 2) * 4 * n + (4 * n + 1) * 4 * n
    total += (d * (1 + 2 * len(config.frequencies)) + 1) * n
    total += config.blocks * (2 * (n + 1) * n + 4 * n * n)
    return total + (n + 1) * d + schedule_parameters(config)


def text_vdm_parameters(config) -> int:
    """Vectors, positions, the embedding of the time, blocks with modulated norms, the schedule."""
    width, vocabulary = config.width, config.vocabulary
    moved = (4 * width + 1) * 2 * width
    block = 2 * moved + 3 * width**2 + (width + 1) * width
    block += (width + 1) * 4 * width + (4 * width + 1) * width
    time = (width + 2) * 4 * width + (4 * width + 1) * 4 * width
    inputs = (config.embedding + 1 + vocabulary + config.length) * width
    outputs = moved + (width + 1) * vocabulary
    table = vocabulary * config.embedding
    return table + time + inputs + config.blocks * block + outputs + schedule_parameters(config)


COUNTS = {
    "vdm": vdm_parameters,
    "vector_vdm": vector_vdm_parameters,
    "text_vdm": text_vdm_parameters,
    "nsf": vector_flow_parameters,
    "maf": vector_flow_parameters,
    "glow": glow_parameters,
    "vector_glow": vector_glow_parameters,
    "ffjord": vector_ffjord_parameters,
    "image_ffjord": image_ffjord_parameters,
    "pixelcnn": pixelcnn_parameters,
    "vae": vae_parameters,
}
"""From a config to its number of parameters, counted from the papers' text and not from a
density."""


@pytest.mark.filterwarnings("ignore:an autoregressive network of 32 hidden units")  # MINIBOONE's
@pytest.mark.parametrize("name", lj.PRESETS)
def test_parameter_counts(name):
    """Of every preset, without allocating one, by the count of its family; the official numbers
    where there are any."""
    density = nnx.eval_shape(lambda: lj.build(lj.preset(name).model, key=jax.random.key(0)))
    structure, params, _ = split(density)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in params.values())
    if density.config.family != "vae":  # whose blocks all differ
        assert any(".block." in n for n in structure.names), "repeated blocks are not stacked"
    count = sum(math.prod(leaf.shape) for leaf in params.values())
    assert count == COUNTS[density.config.family](density.config)
    if name in OFFICIAL:
        assert count == OFFICIAL[name]
    if name in ("glow/mnist", "glow/fashion_mnist"):
        assert density.event_shape == (28, 28, 1)
        assert (
            lj.preset(name).model.scales,
            lj.preset(name).model.depth,
            lj.preset(name).model.width,
        ) == (2, 32, 512)


def test_one_channel_pixelcnn_of_the_reference():
    """The official sizes with one channel have 53,644,220 parameters."""
    config = lj.models.PixelCNNConfig(event_shape=(28, 28, 1))
    density = nnx.eval_shape(lambda: lj.build(config, key=jax.random.key(0)))
    assert sum(math.prod(leaf.shape) for leaf in split(density)[1].values()) == 53_644_220


@pytest.mark.parametrize("name", lj.PRESETS)
def test_records(name):
    """A preset comes back from its JSON, and its optimizer can be built."""
    experiment = lj.preset(name)
    assert from_json(to_json(experiment)) == experiment
    build_optimizer(experiment.optimizer, experiment.steps)


def test_pixelcnn_trains_as_the_reference():
    """Adam with epsilon inside the root, of the size that belongs to a mean loss in bits, and slow
    decay."""
    experiment = lj.preset("pixelcnn/cifar10")
    optimizer = experiment.optimizer
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.95, 0.9995, 0.0)
    assert (experiment.batch_size, experiment.ema_decay, experiment.augment) == (128, 0.9995, ())
    nats = experiment.batch_size * 32 * 32 * 3 * math.log(2.0)  # the summed loss over ours
    assert optimizer.eps_root * nats**2 == pytest.approx(1e-8)
    gradient, rate = 3e-7, 1e-3
    rule = build_optimizer(optimizer, experiment.steps)
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

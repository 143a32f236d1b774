"""Presets of Glow, for images and for vectors."""

from __future__ import annotations

from dataclasses import replace

from likejax.experiment import Experiment, Optimizer
from likejax.models.glow import GlowConfig
from likejax.models.vector_glow import VectorGlowConfig
from likejax.objectives import NLL
from likejax.presets.card import Preset
from likejax.presets.optimizers import SMALL

_PAPER = Optimizer(name="adamax", learning_rate=1e-3, b2=1 - 1 / 98, warmup_steps=980)

_CIFAR10 = Experiment(
    model=GlowConfig(),
    dataset="cifar10",
    augment=("shift",),
    optimizer=_PAPER,
    batch_size=512,
    steps=180_000,
    ema_decay=0.999,
    validation_examples=5_000,
)

_MNIST = Experiment(
    model=GlowConfig(event_shape=(28, 28, 1), scales=2),
    dataset="mnist",
    augment=("shift",),
    optimizer=_PAPER,
    batch_size=256,
    steps=100_000,
)

PRESETS = [
    Preset(
        name="glow/cifar10",
        summary="Glow on CIFAR-10 with affine couplings, 44,603,604 parameters.",
        experiment=_CIFAR10,
        paper="3.35 bits/dim (Kingma and Dhariwal, 2018, table 2).",
        hardware="The authors used 8 GPUs.",
    ),
    Preset(
        name="glow/cifar10-additive",
        summary="Glow on CIFAR-10 with additive couplings, 38,395,668 parameters.",
        experiment=replace(_CIFAR10, model=GlowConfig(coupling="additive")),
        notes="The authors sampled from additive couplings, whose images look better.",
    ),
    Preset(
        name="glow/cifar10-conditional",
        summary="Class-conditional Glow on 5-bit CIFAR-10 with additive couplings.",
        experiment=replace(
            _CIFAR10,
            model=GlowConfig(levels=32, coupling="additive", num_classes=10),
            levels=32,
            objective=NLL(weights={"class_log_prob": -0.01}),
        ),
        notes="The settings are those of the official code.",
    ),
    Preset(
        name="glow/imagenet32",
        summary="Glow on 32x32 ImageNet, 66,861,588 parameters.",
        experiment=Experiment(
            model=GlowConfig(depth=48),
            dataset="imagenet32",
            optimizer=_PAPER,
            batch_size=512,
            steps=500_000,
        ),
        paper="4.09 bits/dim, on images down-sampled as by van den Oord et al. (2016); "
        "numbers on other down-samplings do not compare.",
    ),
    Preset(
        name="glow/imagenet64",
        summary="Glow on 64x64 ImageNet, 112,377,540 parameters.",
        experiment=Experiment(
            model=GlowConfig(event_shape=(64, 64, 3), scales=4, depth=48),
            dataset="imagenet64",
            optimizer=_PAPER,
            batch_size=128,
            steps=1_000_000,
            initialize_with=64,
        ),
        paper="3.81 bits/dim.",
    ),
    Preset(
        name="glow/celeba_hq256",
        summary="Glow on 5-bit CelebA-HQ at 256x256 with additive couplings, "
        "175,099,620 parameters.",
        experiment=Experiment(
            model=GlowConfig(event_shape=(256, 256, 3), levels=32, scales=6, coupling="additive"),
            dataset="celeba_hq256",
            levels=32,
            optimizer=_PAPER,
            batch_size=40,
            steps=1_000_000,
            initialize_with=40,
            validation_examples=500,
        ),
        paper="1.03 bits/dim of 5-bit images.",
        hardware="The authors used 40 GPUs for about a week.",
    ),
    Preset(
        name="glow/mnist",
        summary="Glow on MNIST at its own size 28x28x1: 2 scales, 32 steps each, width 512.",
        experiment=_MNIST,
        notes="The 1.05 bits/dim in the FFJORD paper are for images padded to 32x32.",
    ),
    Preset(
        name="glow/fashion_mnist",
        summary="Glow on Fashion-MNIST at its own size 28x28x1: 2 scales, 32 steps each, "
        "width 512.",
        experiment=replace(_MNIST, dataset="fashion_mnist", augment=()),
    ),
    Preset(
        name="glow/fashion_mnist-small",
        summary="Glow on Fashion-MNIST, ten minutes to half an hour on two CPU cores.",
        experiment=Experiment(
            model=GlowConfig(event_shape=(28, 28, 1), scales=2, depth=16, width=48),
            dataset="fashion_mnist",
            optimizer=SMALL,
            batch_size=16,
            steps=10_000,
            validate_every=1_000,
            checkpoint_every=1_000,
            log_every=200,
        ),
        trained="test bits/dim <= 3.241 ± 0.009 (bound, 4 draws, n = 10000), on two CPU cores in "
        "28 minutes, seed 0.",
        notes="No number was published for this size.",
    ),
    Preset(
        name="glow/digits",
        summary="Glow on scikit-learn's 8x8 digits, a minute on two CPU cores; "
        "part of `make demo`.",
        experiment=Experiment(
            model=GlowConfig(event_shape=(8, 8, 1), levels=17, scales=2, depth=8, width=64),
            dataset="digits",
            optimizer=replace(SMALL, warmup_steps=30),
            batch_size=64,
            steps=300,
            ema_decay=0.99,
            validate_every=50,
            checkpoint_every=150,
            log_every=25,
        ),
        trained="test bits/dim <= 2.256 ± 0.019 (bound, 16 draws, n = 359), by "
        "`likejax train glow/digits --seed 0` on two CPU cores.",
    ),
    Preset(
        name="glow/photographs",
        summary="Glow on 32x32 RGB patches of two photographs, a first look at color images.",
        experiment=Experiment(
            model=GlowConfig(depth=8, width=64),
            dataset="photographs",
            optimizer=SMALL,
            batch_size=32,
            steps=2_000,
            validation_examples=250,
            validate_every=500,
            checkpoint_every=500,
        ),
    ),
    Preset(
        name="vector_glow/moons",
        summary="Glow for vectors on the two moons, a minute on two CPU cores.",
        experiment=Experiment(
            model=VectorGlowConfig(),
            dataset="moons",
            optimizer=replace(SMALL, learning_rate=1e-3),
            batch_size=256,
            steps=4_000,
            initialize_with=256,  # the measured number used it; the default takes all rows
            validate_every=500,
            checkpoint_every=1_000,
        ),
        trained="test -log p = 2.407 ± 0.008 nats (exact, n = 10000), on two CPU cores, seed 0; "
        "the entropy of the distribution is about 2.40.",
    ),
    Preset(
        name="vector_glow/redwine",
        summary="Glow for vectors on the UCI red wine table (1,599 x 11), standardized inside; "
        "nats of the raw units.",
        experiment=Experiment(
            model=VectorGlowConfig(dimensions=11, depth=8, width=32),
            dataset="uci/redwine",
            optimizer=Optimizer(
                name="adamw",
                learning_rate=5e-4,
                weight_decay=0.01,
                warmup_steps=100,
                decay="cosine",
                clip_norm=50.0,
            ),
            batch_size=128,
            steps=600,
            ema_decay=0.99,
            validate_every=50,
            checkpoint_every=300,
        ),
    ),
]
"""Glow, from the paper's sizes down to digits; then Glow for vectors."""

"""Glow, of images and of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from likejax.experiment import Experiment, Optimizer
from likejax.models.glow import GlowConfig
from likejax.models.vector_glow import VectorGlowConfig
from likejax.objectives import NLL
from likejax.presets.optimizers import SMALL

_PAPER = Optimizer(name="adamax", learning_rate=1e-3, b2=1 - 1 / 98, warmup_steps=980)


def glow_cifar10() -> Experiment[GlowConfig]:
    """Glow on CIFAR-10, affine couplings, 44,603,604 parameters.

    Command: ``likejax train glow/cifar10 --data-dir DATA``; the paper used 8 GPUs. Paper: 3.35 bits/dim (Kingma and
    Dhariwal, 2018, table 2). Not trained to the end here.
    """
    return Experiment(
        model=GlowConfig(),
        dataset="cifar10",
        augment=("shift",),
        optimizer=_PAPER,
        batch_size=512,
        steps=180_000,
        ema_decay=0.999,
        validation_examples=5_000,
    )


def glow_cifar10_additive() -> Experiment[GlowConfig]:
    """Glow on CIFAR-10 with additive couplings, 38,395,668 parameters; the configuration that samples best.

    Command: ``likejax train glow/cifar10-additive --data-dir DATA``. Not trained to the end here.
    """
    return replace(glow_cifar10(), model=GlowConfig(coupling="additive"))


def glow_cifar10_conditional() -> Experiment[GlowConfig]:
    """Class-conditional Glow on 5-bit CIFAR-10 with additive couplings, after the official code.

    Command: ``likejax train glow/cifar10-conditional --data-dir DATA``. Not trained to the end here.
    """
    model = GlowConfig(levels=32, coupling="additive", num_classes=10)
    return replace(
        glow_cifar10(), model=model, levels=32, objective=NLL(weights={"class_log_prob": -0.01})
    )


def glow_imagenet32() -> Experiment[GlowConfig]:
    """Glow on 32x32 ImageNet, 66,861,588 parameters.

    Command: ``likejax train glow/imagenet32 --data-dir DATA``. Paper: 4.09 bits/dim, on the down-sampling of van den
    Oord et al. (2016); others do not compare. Not trained to the end here.
    """
    return Experiment(
        model=GlowConfig(depth=48),
        dataset="imagenet32",
        optimizer=_PAPER,
        batch_size=512,
        steps=500_000,
    )


def glow_imagenet64() -> Experiment[GlowConfig]:
    """Glow on 64x64 ImageNet, 112,377,540 parameters.

    Command: ``likejax train glow/imagenet64 --data-dir DATA``. Paper: 3.81 bits/dim. Not trained to the end here.
    """
    model = GlowConfig(event_shape=(64, 64, 3), scales=4, depth=48)
    return Experiment(
        model=model,
        dataset="imagenet64",
        optimizer=_PAPER,
        batch_size=128,
        steps=1_000_000,
        initialize_with=64,
    )


def glow_celeba_hq256() -> Experiment[GlowConfig]:
    """Glow on 5-bit CelebA-HQ at 256x256 with additive couplings, 175,099,620 parameters.

    Command: ``likejax train glow/celeba_hq256 --data-dir DATA``; the authors used 40 GPUs for about a week. Paper: 1.03
    bits/dim of 5-bit images. Not trained to the end here.
    """
    model = GlowConfig(event_shape=(256, 256, 3), levels=32, scales=6, coupling="additive")
    return Experiment(
        model=model,
        dataset="celeba_hq256",
        levels=32,
        optimizer=_PAPER,
        batch_size=40,
        steps=1_000_000,
        initialize_with=40,
        validation_examples=500,
    )


def glow_mnist() -> Experiment[GlowConfig]:
    """Glow on MNIST at its own 28x28x1, L=2, K=32, width 512.

    Command: ``likejax train glow/mnist --data-dir DATA``. Not trained to the end here. The 1.05 bits/dim reported in
    the FFJORD paper are for images padded to 32x32.
    """
    model = GlowConfig(event_shape=(28, 28, 1), scales=2)
    return Experiment(
        model=model,
        dataset="mnist",
        augment=("shift",),
        optimizer=_PAPER,
        batch_size=256,
        steps=100_000,
    )


def glow_fashion_mnist() -> Experiment[GlowConfig]:
    """Glow on Fashion-MNIST at its own 28x28x1, L=2, K=32, width 512.

    Command: ``likejax train glow/fashion_mnist --data-dir DATA``. Not trained to the end here.
    """
    return replace(glow_mnist(), dataset="fashion_mnist", augment=())


def glow_fashion_mnist_small() -> Experiment[GlowConfig]:
    """Glow on Fashion-MNIST for two CPU cores and twenty minutes.

    Command: ``likejax train glow/fashion_mnist-small --data-dir DATA``. Measured on two CPU cores in 28 minutes, seed
    0: test bits/dim <= 3.241 +- 0.009 (bound, 4 draws, n = 10000). No published number is of this size.
    """
    return Experiment(
        model=GlowConfig(event_shape=(28, 28, 1), scales=2, depth=16, width=48),
        dataset="fashion_mnist",
        optimizer=SMALL,
        batch_size=16,
        steps=10_000,
        validate_every=1_000,
        checkpoint_every=1_000,
        log_every=200,
    )


def glow_digits() -> Experiment[GlowConfig]:
    """Glow on scikit-learn's 8x8 digits, minutes on two CPU cores; what ``make demo`` trains.

    Command: ``likejax demo``. Measured on two CPU cores in under 2 minutes, seed 0: test bits/dim <= 2.228 +- 0.018
    (bound, 16 draws, n = 359).
    """
    return Experiment(
        model=GlowConfig(event_shape=(8, 8, 1), levels=17, scales=2, depth=8, width=64),
        dataset="digits",
        optimizer=SMALL,
        batch_size=64,
        steps=500,
        ema_decay=0.99,
        validate_every=50,
        checkpoint_every=250,
        log_every=25,
    )


def glow_photographs() -> Experiment[GlowConfig]:
    """Glow on natural 32x32 RGB patches of two photographs, K=8 and width 64, for a first look at color.

    Command: ``likejax train glow/photographs``.
    """
    return Experiment(
        model=GlowConfig(depth=8, width=64),
        dataset="photographs",
        optimizer=SMALL,
        batch_size=32,
        steps=2_000,
        validation_examples=250,
        validate_every=500,
        checkpoint_every=500,
    )


def vector_glow_moons() -> Experiment[VectorGlowConfig]:
    """Glow on vectors, on the two moons: a minute on two CPU cores.

    Command: ``likejax train vector_glow/moons``. Measured on two CPU cores, seed 0: test log p = -2.407 +- 0.008 nats
    (exact, n = 10000); minus the entropy of the distribution is about -2.40.
    """
    return Experiment(
        model=VectorGlowConfig(),
        dataset="moons",
        optimizer=replace(SMALL, learning_rate=1e-3),
        batch_size=256,
        steps=4_000,
        initialize_with=256,  # as it was measured; the default takes all rows
        validate_every=500,
        checkpoint_every=1_000,
    )


def vector_glow_redwine() -> Experiment[VectorGlowConfig]:
    """Glow on vectors, on the UCI red wine table (1,599 x 11): raw-unit nats, standardized inside.

    Command: ``likejax train vector_glow/redwine --data-dir DATA``.
    """
    return Experiment(
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
    )


PRESETS: dict[str, Callable[[], Experiment]] = {
    "glow/cifar10": glow_cifar10,
    "glow/cifar10-additive": glow_cifar10_additive,
    "glow/cifar10-conditional": glow_cifar10_conditional,
    "glow/imagenet32": glow_imagenet32,
    "glow/imagenet64": glow_imagenet64,
    "glow/celeba_hq256": glow_celeba_hq256,
    "glow/mnist": glow_mnist,
    "glow/fashion_mnist": glow_fashion_mnist,
    "glow/fashion_mnist-small": glow_fashion_mnist_small,
    "glow/digits": glow_digits,
    "glow/photographs": glow_photographs,
    "vector_glow/moons": vector_glow_moons,
    "vector_glow/redwine": vector_glow_redwine,
}

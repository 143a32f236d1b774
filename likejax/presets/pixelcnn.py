"""PixelCNN++."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from likejax.density import bits_per_dim
from likejax.experiment import Experiment, Optimizer
from likejax.models.pixelcnn import PixelCNNConfig
from likejax.presets.optimizers import SMALL

_BATCH_NATS = -1 / bits_per_dim(1.0, (128, 32, 32, 3))
"""Summed loss of a batch of the reference, in nats, per bit of ours."""
_PIXELCNN = Optimizer(
    name="adam",
    learning_rate=1e-3,
    b1=0.95,
    b2=0.9995,
    eps=0.0,
    # the official 1e-8 goes with the summed loss of a batch in nats; ours is bits per dimension
    eps_root=1e-8 / _BATCH_NATS**2,
    decay="exponential",
    decay_rate=0.999995,
)


def pixelcnn_cifar10() -> Experiment[PixelCNNConfig]:
    """PixelCNN++ on CIFAR-10 as the official code has it, 160 filters, 53,659,080 parameters.

    Command: ``likejax train pixelcnn/cifar10 --data-dir DATA``; the authors used 8 GPUs for about 5 days. Paper: 2.92
    bits/dim, for 192 filters by its text, by its code for these (Salimans et al., 2017, table 1). Not trained to the
    end here. 195,000 steps are 555 epochs; the official script goes on to 5,000.
    """
    return Experiment(
        model=PixelCNNConfig(),
        dataset="cifar10",
        optimizer=_PIXELCNN,
        batch_size=128,
        steps=195_000,
        initialize_with=128,
        ema_decay=0.9995,
        validation_examples=5_000,
    )


def pixelcnn_cifar10_192() -> Experiment[PixelCNNConfig]:
    """PixelCNN++ on CIFAR-10 with the 192 filters of the paper's text, 77,244,104 parameters.

    Command: ``likejax train pixelcnn/cifar10-192 --data-dir DATA``. Not trained to the end here.
    """
    return replace(pixelcnn_cifar10(), model=PixelCNNConfig(filters=192))


def pixelcnn_cifar10_conditional() -> Experiment[PixelCNNConfig]:
    """Class-conditional PixelCNN++ on CIFAR-10, 53,863,880 parameters.

    Command: ``likejax train pixelcnn/cifar10-conditional --data-dir DATA``. Paper: 2.94 bits/dim. Not trained to the
    end here.
    """
    return replace(pixelcnn_cifar10(), model=PixelCNNConfig(num_classes=10))


def pixelcnn_imagenet32() -> Experiment[PixelCNNConfig]:
    """PixelCNN++ on 32x32 ImageNet, the CIFAR-10 model without dropout; the paper has no number.

    Command: ``likejax train pixelcnn/imagenet32 --data-dir DATA``. Not trained to the end here.
    """
    model = PixelCNNConfig(dropout=0.0)
    return replace(pixelcnn_cifar10(), model=model, dataset="imagenet32", steps=500_000)


def pixelcnn_mnist() -> Experiment[PixelCNNConfig]:
    """PixelCNN++ on MNIST at its own 28x28x1, 96 filters, 3 blocks.

    Command: ``likejax train pixelcnn/mnist --data-dir DATA``. Not trained to the end here.
    """
    model = PixelCNNConfig(event_shape=(28, 28, 1), filters=96, blocks=3)
    return replace(pixelcnn_cifar10(), model=model, dataset="mnist", steps=100_000)


def pixelcnn_fashion_mnist() -> Experiment[PixelCNNConfig]:
    """PixelCNN++ on Fashion-MNIST at its own 28x28x1, 96 filters, 3 blocks.

    Command: ``likejax train pixelcnn/fashion_mnist --data-dir DATA``. Not trained to the end here.
    """
    return replace(pixelcnn_mnist(), dataset="fashion_mnist")


def pixelcnn_fashion_mnist_small() -> Experiment[PixelCNNConfig]:
    """PixelCNN++ on Fashion-MNIST for two CPU cores and less than an hour.

    Command: ``likejax train pixelcnn/fashion_mnist-small --data-dir DATA``. Measured on two CPU cores, seed 0: test
    bits/dim = 2.842 +- 0.008 (exact, n = 10000), in 54 minutes with tests beside it for a part. No published
    number is of this size.
    """
    return Experiment(
        model=PixelCNNConfig(
            event_shape=(28, 28, 1),
            filters=32,
            blocks=1,
            mixtures=10,
            dropout=0.0,
            output_scale=0.1,
        ),
        dataset="fashion_mnist",
        optimizer=replace(SMALL, b1=0.95, b2=0.999),
        batch_size=16,
        steps=6_000,
        initialize_with=128,
        ema_decay=0.998,
        validate_every=1_000,
        checkpoint_every=1_000,
        log_every=100,
    )


def pixelcnn_digits() -> Experiment[PixelCNNConfig]:
    """PixelCNN++ on scikit-learn's 8x8 digits, minutes on two CPU cores; part of ``make demo``.

    Command: ``likejax demo``. Measured on two CPU cores with other work beside it, seed 0, in 2 minutes of steps: test
    bits/dim = 1.802 +- 0.014 (exact, n = 359).
    """
    return Experiment(
        model=PixelCNNConfig(
            event_shape=(8, 8, 1),
            levels=17,
            filters=32,
            blocks=1,
            mixtures=5,
            dropout=0.5,
            output_scale=0.1,
        ),
        dataset="digits",
        optimizer=SMALL,
        batch_size=64,
        steps=600,
        ema_decay=0.99,
        validate_every=50,
        checkpoint_every=300,
        log_every=25,
    )


PRESETS: dict[str, Callable[[], Experiment]] = {
    "pixelcnn/cifar10": pixelcnn_cifar10,
    "pixelcnn/cifar10-192": pixelcnn_cifar10_192,
    "pixelcnn/cifar10-conditional": pixelcnn_cifar10_conditional,
    "pixelcnn/imagenet32": pixelcnn_imagenet32,
    "pixelcnn/mnist": pixelcnn_mnist,
    "pixelcnn/fashion_mnist": pixelcnn_fashion_mnist,
    "pixelcnn/fashion_mnist-small": pixelcnn_fashion_mnist_small,
    "pixelcnn/digits": pixelcnn_digits,
}

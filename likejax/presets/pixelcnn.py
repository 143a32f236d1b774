"""Presets of PixelCNN++."""

from __future__ import annotations

from dataclasses import replace

from likejax.density import bits_per_dim
from likejax.experiment import Experiment, Optimizer
from likejax.models.pixelcnn import PixelCNNConfig
from likejax.presets.card import Preset
from likejax.presets.optimizers import SMALL

_BATCH_NATS = -1 / bits_per_dim(1.0, (128, 32, 32, 3))
"""Nats of the official summed loss of a batch for each bit/dim of our mean loss."""

_PAPER = Optimizer(
    name="adam",
    learning_rate=1e-3,
    b1=0.95,
    b2=0.9995,
    eps=0.0,
    # the official 1e-8 belongs to the summed loss of a batch in nats; our loss is in bits/dim
    eps_root=1e-8 / _BATCH_NATS**2,
    decay="exponential",
    decay_rate=0.999995,
)

_CIFAR10 = Experiment(
    model=PixelCNNConfig(),
    dataset="cifar10",
    optimizer=_PAPER,
    batch_size=128,
    steps=195_000,
    initialize_with=128,
    ema_decay=0.9995,
    validation_examples=5_000,
)

_MNIST = replace(
    _CIFAR10,
    model=PixelCNNConfig(event_shape=(28, 28, 1), filters=96, blocks=3),
    dataset="mnist",
    steps=100_000,
)

PRESETS = [
    Preset(
        name="pixelcnn/cifar10",
        summary="PixelCNN++ on CIFAR-10 with the 160 filters of the official code, "
        "53,659,080 parameters.",
        experiment=_CIFAR10,
        paper="2.92 bits/dim (Salimans et al., 2017, table 1), for 192 filters by the text of the "
        "paper and for 160 by its code.",
        hardware="The authors used 8 GPUs for about 5 days.",
        notes="195,000 steps are 555 epochs; the official script goes on to 5,000.",
    ),
    Preset(
        name="pixelcnn/cifar10-192",
        summary="PixelCNN++ on CIFAR-10 with the 192 filters of the paper's text, "
        "77,244,104 parameters.",
        experiment=replace(_CIFAR10, model=PixelCNNConfig(filters=192)),
    ),
    Preset(
        name="pixelcnn/cifar10-conditional",
        summary="Class-conditional PixelCNN++ on CIFAR-10, 53,863,880 parameters.",
        experiment=replace(_CIFAR10, model=PixelCNNConfig(num_classes=10)),
        paper="2.94 bits/dim.",
    ),
    Preset(
        name="pixelcnn/imagenet32",
        summary="PixelCNN++ on 32x32 ImageNet: the CIFAR-10 model without dropout.",
        experiment=replace(
            _CIFAR10, model=PixelCNNConfig(dropout=0.0), dataset="imagenet32", steps=500_000
        ),
        notes="The paper has no number for it.",
    ),
    Preset(
        name="pixelcnn/mnist",
        summary="PixelCNN++ on MNIST at its own size 28x28x1: 96 filters, 3 blocks.",
        experiment=_MNIST,
    ),
    Preset(
        name="pixelcnn/fashion_mnist",
        summary="PixelCNN++ on Fashion-MNIST at its own size 28x28x1: 96 filters, 3 blocks.",
        experiment=replace(_MNIST, dataset="fashion_mnist"),
    ),
    Preset(
        name="pixelcnn/fashion_mnist-small",
        summary="PixelCNN++ on Fashion-MNIST, less than an hour on two CPU cores.",
        experiment=Experiment(
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
        ),
        trained="test bits/dim = 2.842 ± 0.008 (exact, n = 10000), on two CPU cores in 54 minutes, "
        "partly with tests beside it, seed 0.",
        notes="No number was published for this size.",
    ),
    Preset(
        name="pixelcnn/digits",
        summary="PixelCNN++ on scikit-learn's 8x8 digits, minutes on two CPU cores; "
        "part of `make demo`.",
        experiment=Experiment(
            model=PixelCNNConfig(
                event_shape=(8, 8, 1),
                levels=17,
                filters=32,
                blocks=1,
                resolutions=2,
                mixtures=5,
                dropout=0.5,
                output_scale=0.1,
            ),
            dataset="digits",
            optimizer=SMALL,
            batch_size=32,
            steps=400,
            ema_decay=0.99,
            validate_every=50,
            checkpoint_every=200,
            log_every=25,
        ),
        trained="test bits/dim = 1.881 ± 0.013 (exact, n = 359), by "
        "`likejax train pixelcnn/digits --seed 0` on two CPU cores.",
    ),
]
"""PixelCNN++, from the paper's sizes down to digits."""

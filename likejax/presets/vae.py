"""Presets of hierarchical VAEs: bottom-up, bidirectional, and their small members."""

from __future__ import annotations

from dataclasses import replace

from likejax.experiment import Experiment, Optimizer
from likejax.models.vae import StageConfig, VAEConfig
from likejax.objectives import ELBO
from likejax.presets.card import Preset
from likejax.presets.optimizers import SMALL

_HVAE = Optimizer(name="adam", learning_rate=3e-4)
_BIVA = Optimizer(name="adamax", learning_rate=2e-3, decay="exponential", decay_rate=0.999999)

_FASHION_EPOCH = 429
"""Steps for 55,000 training images in batches of 128."""
_CIFAR10_EPOCH = 351
"""Steps for 45,000 training images in batches of 128."""


def _released_objective(steps: int) -> ELBO:
    """Returns the objective of the released code.

    Args:
      steps: Steps of the warm-up, 200 epochs. Free nats stay for as many steps and then fade for
        as many.
    """
    return ELBO(
        warmup_steps=steps,
        free_nats_per="element",
        kl="sampled",
        free_nats=2.0,
        free_steps=steps,
        free_fade_steps=steps,
    )


_HVAE_FASHION = Experiment(
    model=VAEConfig(),
    dataset="fashion_mnist",
    augment=("binarize",),
    objective=_released_objective(200 * _FASHION_EPOCH),
    optimizer=_HVAE,
    batch_size=128,
    steps=1_000 * _FASHION_EPOCH,
    ema_decay=0.999,
    validate_every=10 * _FASHION_EPOCH,
    checkpoint_every=10 * _FASHION_EPOCH,
    validation_examples=5_000,
    log_every=_FASHION_EPOCH,
)

_WIDE = (256, 256, 256)
_HVAE_CIFAR10 = Experiment(
    model=VAEConfig(
        event_shape=(32, 32, 3),
        levels=256,
        stages=(
            StageConfig(channels=_WIDE, strides=(1, 1, 2), kernel=5, latent=128, dense=False),
            StageConfig(channels=_WIDE, strides=(1, 1, 2), latent=64, dense=False),
            StageConfig(channels=_WIDE, strides=(1, 1, 2), latent=32),
        ),
        likelihood="logistic_mixture",
    ),
    dataset="cifar10",
    objective=_released_objective(200 * _CIFAR10_EPOCH),
    optimizer=_HVAE,
    batch_size=128,
    steps=2_000 * _CIFAR10_EPOCH,
    ema_decay=0.999,
    validate_every=10 * _CIFAR10_EPOCH,
    checkpoint_every=10 * _CIFAR10_EPOCH,
    validation_examples=5_000,
    log_every=_CIFAR10_EPOCH,
)


def _released(experiment: Experiment[VAEConfig]) -> Experiment[VAEConfig]:
    """Returns the experiment as the official code runs it, without the skips that it leaves out."""
    model = replace(experiment.model, skips="as_released")
    return replace(experiment, model=model, ema_decay=0.0)


_SCHEDULE = "Model and schedule of Havtorn et al. (2021), 1,000 epochs."
_UNREAD = "of them in a projection above the top latent that nothing reads, there or here."

_HVAES = [
    Preset(
        name="hvae/fashion_mnist",
        summary="Hierarchical VAE of three latents on binarized Fashion-MNIST with working skips, "
        "2,588,898 parameters.",
        experiment=_HVAE_FASHION,
        notes=f"{_SCHEDULE} Their configuration leaves the skips out.",
    ),
    Preset(
        name="hvae/fashion_mnist-released",
        summary="Hierarchical VAE of three latents on binarized Fashion-MNIST as released, without "
        "the skips that the release leaves out.",
        experiment=_released(_HVAE_FASHION),
        notes=f"It has the 2,620,258 parameters of the official code, 31,360 {_UNREAD}",
    ),
    Preset(
        name="hvae/mnist",
        summary="Hierarchical VAE of three latents on dynamically binarized MNIST with working "
        "skips, 2,588,898 parameters.",
        experiment=replace(_HVAE_FASHION, dataset="mnist"),
        notes=_SCHEDULE,
    ),
    Preset(
        name="hvae/mnist-released",
        summary="Hierarchical VAE of three latents on dynamically binarized MNIST as released.",
        experiment=_released(replace(_HVAE_FASHION, dataset="mnist")),
    ),
    Preset(
        name="hvae/cifar10",
        summary="Hierarchical VAE of three latents on CIFAR-10 with working skips, "
        "36,873,800 parameters.",
        experiment=_HVAE_CIFAR10,
        notes="Model and schedule of Havtorn et al. (2021), 2,000 epochs, on the integers of the "
        "images: the official code puts dequantized pixels into the discretized likelihood.",
    ),
    Preset(
        name="hvae/cifar10-released",
        summary="Hierarchical VAE of three latents on CIFAR-10 as released, without the skips that "
        "the release leaves out.",
        experiment=_released(_HVAE_CIFAR10),
        notes=f"It has the 37,013,064 parameters of the official code, 139,264 {_UNREAD}",
    ),
    Preset(
        name="hvae/svhn",
        summary="Hierarchical VAE of three latents on SVHN with working skips; settings of "
        "CIFAR-10.",
        experiment=replace(_HVAE_CIFAR10, dataset="svhn"),
    ),
    Preset(
        name="hvae/svhn-released",
        summary="Hierarchical VAE of three latents on SVHN as released; settings of CIFAR-10.",
        experiment=_released(replace(_HVAE_CIFAR10, dataset="svhn")),
    ),
    Preset(
        name="hvae/fashion_mnist-small",
        summary="Hierarchical VAE of three latents on binarized Fashion-MNIST, under an hour on "
        "two CPU cores.",
        experiment=Experiment(
            model=VAEConfig(
                stages=(
                    StageConfig(channels=(16, 32), strides=(2, 1), latent=8, dense=False),
                    StageConfig(channels=(32, 32), strides=(2, 1), latent=8),
                    StageConfig(channels=(32,), strides=(1,), latent=4),
                ),
                latent_scale=0.1,
            ),
            dataset="fashion_mnist",
            augment=("binarize",),
            objective=ELBO(warmup_steps=500, free_nats=10.0),
            optimizer=Optimizer(name="adam", learning_rate=2e-3, clip_norm=200.0),
            batch_size=64,
            steps=12_000,
            ema_decay=0.999,
            validate_every=1_000,
            checkpoint_every=1_000,
            log_every=200,
        ),
        trained="benchmarks/README.md has its OOD table, from 33 minutes on one core with other "
        "work beside it, seed 0.",
        notes="The upper latents are small enough to encode the class of garment but not its "
        "outline; 10 free nats each keep them in use.",
    ),
    Preset(
        name="hvae/digits",
        summary="Hierarchical VAE of two latents on scikit-learn's 8x8 digits, a minute on two CPU "
        "cores; part of `make demo`.",
        experiment=Experiment(
            model=VAEConfig(
                event_shape=(8, 8, 1),
                levels=17,
                stages=(
                    StageConfig(channels=(32, 32), strides=(1, 2), latent=4, dense=False),
                    StageConfig(channels=(32,), strides=(1,), latent=8),
                ),
                likelihood="logistic",
            ),
            dataset="digits",
            objective=ELBO(warmup_steps=200, free_nats=1.0),
            optimizer=SMALL,
            batch_size=64,
            steps=600,
            ema_decay=0.99,
            validate_every=100,
            checkpoint_every=300,
            log_every=50,
        ),
        trained="test bits/dim <= 2.003 ± 0.014 (bound, 16 draws, n = 359), by "
        "`likejax train hvae/digits --seed 0` on two CPU cores.",
    ),
]


def _biva_mnist_stages() -> tuple[StageConfig, ...]:
    """Returns six stages with latents of 48, 40, 32, 24, 16 and 8 features."""
    kernels_strides_latents = (
        (5, 2, 48),
        (3, 2, 40),
        (3, 1, 32),
        (3, 1, 24),
        (3, 1, 16),
        (3, 1, 8),
    )
    return tuple(
        StageConfig(channels=(64, 64), strides=(1, stride), kernel=kernel, latent=latent)
        for kernel, stride, latent in kernels_strides_latents
    )


def _biva_cifar10_stages() -> tuple[StageConfig, ...]:
    """Returns fifteen stages with latent maps of 38, 36, ..., 10 features at 16x16, 8x8 and 4x4."""
    stages = []
    for i in range(15):
        stride = 2 if i in (0, 5, 10) else 1
        kernel = 5 if i == 0 else 3
        stages.append(
            StageConfig(
                channels=(96, 96),
                strides=(1, stride),
                kernel=kernel,
                latent=38 - 2 * i,
                dense=False,
            )
        )
    return tuple(stages)


_MAALOE = "Adamax and 2 free nats for each latent follow Maaloe et al. (2019); dropout is left out."

_BIVAS = [
    Preset(
        name="biva/fashion_mnist",
        summary="Bidirectional VAE with the latents and blocks of `hvae/fashion_mnist`.",
        experiment=replace(
            _HVAE_FASHION, model=replace(_HVAE_FASHION.model, inference="bidirectional")
        ),
    ),
    Preset(
        name="biva/mnist",
        summary="Bidirectional VAE of six latents on dynamically binarized MNIST, after BIVA.",
        experiment=replace(
            _HVAE_FASHION,
            model=VAEConfig(
                stages=_biva_mnist_stages(), inference="bidirectional", activation="elu"
            ),
            dataset="mnist",
            objective=ELBO(free_nats=2.0),
            optimizer=_BIVA,
        ),
        notes="Latents of 48, 40, 32, 24, 16 and 8 features: half of each is inferred on the way "
        f"up and half on the way down. {_MAALOE}",
    ),
    Preset(
        name="biva/cifar10",
        summary="Bidirectional VAE of fifteen latents on CIFAR-10, after BIVA.",
        experiment=replace(
            _HVAE_CIFAR10,
            model=replace(
                _HVAE_CIFAR10.model,
                stages=_biva_cifar10_stages(),
                inference="bidirectional",
                activation="elu",
            ),
            objective=ELBO(free_nats=2.0),
            optimizer=_BIVA,
            batch_size=48,
        ),
        notes=f"Latent maps of 38, 36, ..., 10 features at 16x16, 8x8 and 4x4. {_MAALOE}",
    ),
]

_VAE_MNIST = Experiment(
    model=VAEConfig(
        stages=(StageConfig(channels=(400, 400), strides=(1, 1), kernel=1, latent=50),),
        flatten=True,
    ),
    dataset="binarized_mnist",
    objective=ELBO(warmup_steps=2_000),
    optimizer=Optimizer(name="adam", learning_rate=1e-3, warmup_steps=100, decay="cosine"),
    batch_size=100,
    steps=20_000,
    ema_decay=0.999,
    validate_every=1_000,
    validation_examples=2_000,
    checkpoint_every=2_000,
    log_every=200,
)

_DENSE = [
    Preset(
        name="vae/mnist",
        summary="One-layer VAE with 50 latents on statically binarized MNIST, two dense blocks, "
        "minutes on two CPU cores.",
        experiment=_VAE_MNIST,
        trained="test bits/dim <= 0.1654 ± 0.0004 (bound, 500 draws, n = 10000), 89.9 nats; 95.3 "
        "with one draw; on one core with other work on it in 17 minutes, seed 0.",
        notes="Evaluate with `likejax evaluate RUN --draws 500`.",
    ),
    Preset(
        name="dlgm/mnist",
        summary="Deep latent Gaussian model of three dense latents on dynamically binarized MNIST, "
        "minutes on two CPU cores.",
        experiment=replace(
            _VAE_MNIST,
            model=VAEConfig(
                stages=tuple(
                    StageConfig(channels=(200,), strides=(1,), kernel=1, latent=latent)
                    for latent in (50, 25, 10)
                ),
                flatten=True,
            ),
            dataset="mnist",
            augment=("binarize",),
            steps=12_000,
        ),
        trained="test bits/dim <= 0.1812 ± 0.0005 (bound, one draw, n = 10000), 98.5 nats; on one "
        "core with other work on it in 6 minutes, seed 0.",
        notes="`benchmarks/imputation.py` fills in missing pixels with it.",
    ),
]

PRESETS = [*_HVAES, *_BIVAS, *_DENSE]
"""Hierarchical VAEs, bidirectional VAEs, and VAEs of dense layers."""

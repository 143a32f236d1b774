"""Presets of variational diffusion models: the paper's, a faster form, small ones, and text."""

from __future__ import annotations

from dataclasses import replace

from likejax.data.sources.toys import TOYS
from likejax.experiment import Experiment, Optimizer
from likejax.models.diffusion import (
    BoundSettings,
    DiffusionSampler,
    TextVDMConfig,
    VDMConfig,
    VectorVDMConfig,
)
from likejax.presets.card import Preset
from likejax.presets.optimizers import SMALL

_PAPER = Optimizer(
    name="adamw",
    learning_rate=2e-4,
    b2=0.99,
    weight_decay=0.01,
    decay_mask="matrices",
    warmup_steps=100,
)
_VELOCITY = BoundSettings(prediction="velocity")

_CIFAR10 = Experiment(
    model=VDMConfig(),
    dataset="cifar10",
    optimizer=_PAPER,
    batch_size=128,
    steps=10_000_000,
    ema_decay=0.9999,
    validate_every=10_000,
    checkpoint_every=10_000,
    validation_examples=5_000,
    log_every=1_000,
)
_AUGMENTED = BoundSettings(augmentation="orientations")
_CIFAR10_AUG = replace(
    _CIFAR10,
    model=VDMConfig(width=256, schedule="learned_network", dropout=0.05, bound=_AUGMENTED),
    optimizer=replace(_PAPER, learning_rate=1e-4),
    batch_size=1_024,
    steps=2_000_000,
)
_IMAGENET32 = replace(
    _CIFAR10,
    model=VDMConfig(width=256, dropout=0.0),
    dataset="imagenet32_old",
    batch_size=512,
    steps=2_000_000,
)
_MNIST = Experiment(
    model=VDMConfig(
        event_shape=(28, 28, 1), width=64, blocks=8, schedule="importance", bound=_VELOCITY
    ),
    dataset="mnist",
    optimizer=replace(_PAPER, learning_rate=5e-4),
    batch_size=128,
    steps=200_000,
    ema_decay=0.9995,
    validate_every=5_000,
    checkpoint_every=5_000,
    log_every=500,
)
_FASHION_SMALL = Experiment(
    model=VDMConfig(
        event_shape=(28, 28, 1),
        width=48,
        blocks=2,
        resolutions=2,
        patch=2,
        fading=True,
        dropout=0.0,
        schedule="importance",
        bound=_VELOCITY,
        sampler=DiffusionSampler(steps=250),
    ),
    dataset="fashion_mnist",
    optimizer=replace(SMALL, learning_rate=1.5e-3),
    batch_size=32,
    steps=8_000,
    ema_decay=0.998,
    validate_every=1_000,
    validation_examples=500,
    checkpoint_every=1_000,
    log_every=100,
)
_DIGITS = Experiment(
    model=VDMConfig(
        event_shape=(8, 8, 1),
        levels=17,
        width=32,
        blocks=2,
        fading=True,
        dropout=0.0,
        schedule="importance",
        bound=_VELOCITY,
        sampler=DiffusionSampler(steps=250),
    ),
    dataset="digits",
    optimizer=SMALL,
    batch_size=64,
    steps=800,
    ema_decay=0.99,
    validate_every=200,
    checkpoint_every=400,
    log_every=50,
)
_TINYSHAKESPEARE = Experiment(
    model=TextVDMConfig(length=64, vocabulary=65, width=96, blocks=3, gamma_min=-1.0),
    dataset="text/tinyshakespeare",
    optimizer=SMALL,
    batch_size=32,
    steps=3_000,
    ema_decay=0.995,
    validate_every=500,
    validation_examples=400,
    checkpoint_every=1_000,
    log_every=50,
)
_TOY = Experiment(
    model=VectorVDMConfig(schedule="importance", bound=_VELOCITY),
    dataset="moons",
    optimizer=replace(SMALL, learning_rate=1e-3),
    batch_size=256,
    steps=5_000,
    ema_decay=0.999,
    validate_every=1_000,
    checkpoint_every=1_000,
    log_every=200,
)

_SOURCE = "Kingma et al., 2021"
_OURS = "The number of steps and the batch size are ours."
_NUMBERS = (
    "The number is the variational bound, an estimate whose draws average; `density.as_flow()` has "
    "that of the probability-flow ODE."
)

PRESETS = [
    Preset(
        name="vdm/cifar10",
        summary="Variational diffusion model on CIFAR-10, 30,578,181 parameters.",
        experiment=_CIFAR10,
        paper=f"2.65 bits/dim ({_SOURCE}).",
        hardware="The authors trained for 10 million steps.",
        notes=_NUMBERS,
    ),
    Preset(
        name="vdm/cifar10_aug",
        summary="Variational diffusion model on CIFAR-10 with flips and quarter turns that it is "
        "told of, 122,140,677 parameters.",
        experiment=_CIFAR10_AUG,
        paper=f"2.49 bits/dim ({_SOURCE}).",
        notes="This is the configuration of the official code; the paper's has attention "
        f"everywhere (`--model.attention true`) and 139,279,877 parameters. {_OURS}",
    ),
    Preset(
        name="vdm/imagenet32_old",
        summary="Variational diffusion model on the older ImageNet 32x32, 122,137,605 parameters.",
        experiment=_IMAGENET32,
        paper=f"3.72 bits/dim ({_SOURCE}).",
        notes=f"{_OURS} {_NUMBERS}",
    ),
    Preset(
        name="vdm/imagenet64_old",
        summary="Variational diffusion model on the older ImageNet 64x64, 237,603,845 parameters.",
        experiment=replace(
            _IMAGENET32,
            model=VDMConfig(event_shape=(64, 64, 3), width=256, blocks=64, dropout=0.0, remat=True),
            dataset="imagenet64_old",
        ),
        paper=f"3.40 bits/dim ({_SOURCE}).",
        notes=f"{_OURS} {_NUMBERS}",
    ),
    Preset(
        name="vdm/cifar10_fast",
        summary="The CIFAR-10 model with velocities and importance sampling of the noise level.",
        experiment=replace(
            _CIFAR10,
            model=VDMConfig(schedule="importance", bound=_VELOCITY),
            steps=500_000,
        ),
        notes="After Zheng et al. (2023), who report 2.56 bits/dim by the ODE after 6 million "
        "steps; this schedule is shorter and has not been trained.",
    ),
    Preset(
        name="vdm/mnist",
        summary="Diffusion model with velocities on MNIST.",
        experiment=_MNIST,
        notes=_NUMBERS,
    ),
    Preset(
        name="vdm/fashion_mnist-small",
        summary="Diffusion model with velocities on Fashion-MNIST in patches of 2x2 pixels, an "
        "hour on two CPU cores.",
        experiment=_FASHION_SMALL,
        trained="test bits/dim ~ 3.166 ± 0.009 (estimate, 1 draw of 8 times, n = 10,000), from 62 "
        "minutes with other work beside it, seed 0.",
        notes=_NUMBERS,
    ),
    Preset(
        name="vdm/digits",
        summary="Diffusion model with velocities on scikit-learn's 8x8 digits, minutes on two CPU "
        "cores.",
        experiment=_DIGITS,
        trained="test bits/dim ~ 1.903 ± 0.013 (estimate, 4 draws of 8 times, n = 359), 2 min 36 s "
        "in all, seed 0.",
        notes=_NUMBERS,
    ),
    Preset(
        name="vdm/tinyshakespeare",
        summary="Diffusion model of 64 characters of Shakespeare with learned embeddings and "
        "self-conditioning.",
        experiment=_TINYSHAKESPEARE,
        notes="After Gulrajani and Hashimoto (2023). DATA holds the file "
        "`text/tinyshakespeare.txt`, and bits per dimension are bits per character. "
        "`lj.data.decode_text(density.sample(key, 4), dataset.alphabet)` prints samples, and "
        "`density.as_flow('variational')` has the number of the ODE.",
    ),
    *(
        Preset(
            name=f"vdm/{toy}",
            summary=f"Diffusion model with velocities on the points of {toy}, minutes on two CPU "
            "cores.",
            experiment=replace(_TOY, dataset=toy),
            notes="`density.as_flow(trace=lj.bijections.Trace())` is exact; the bound is of the "
            "density with a noise of exp(-5) standard deviations.",
        )
        for toy in TOYS
    ),
]

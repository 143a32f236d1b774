"""Named experiments. Paper-scale first, then small ones of the same code for two CPU cores.

Numbers printed here were measured by the command beside them; the papers' own are in the papers.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import replace

from likejax.bijections.ode import Solver, Trace
from likejax.experiment import Experiment, Optimiser
from likejax.models.ffjord import FFJORDConfig, ImageFFJORDConfig
from likejax.models.glow import GlowConfig
from likejax.models.pixelcnn import PixelCNNConfig
from likejax.models.vector_glow import VectorGlowConfig
from likejax.nn.dynamics import Activation
from likejax.objectives import NLL

_PAPER = Optimiser(name="adamax", learning_rate=1e-3, b2=1 - 1 / 98, warmup_steps=980)
_SMALL = Optimiser(name="adam", learning_rate=2e-3, b2=0.99, warmup_steps=100, decay="cosine", clip_norm=50.0)
_FFJORD_POINTS = Optimiser(
    name="adam", learning_rate=5e-3, weight_decay=1e-5, warmup_steps=100, decay="cosine", clip_norm=50.0
)
_RNODE = NLL(kinetic_weight=0.01, jacobian_weight=0.01)
_PIXELCNN = Optimiser(
    name="adam",
    learning_rate=1e-3,
    b1=0.95,
    b2=0.9995,
    eps=0.0,
    # the official 1e-8 goes with the summed loss of a batch in nats; ours is bits per dimension
    eps_root=1e-8 / (128 * 32 * 32 * 3 * math.log(2)) ** 2,
    decay="exponential",
    decay_rate=0.999995,
)


def glow_cifar10() -> Experiment[GlowConfig]:
    """Glow on CIFAR-10, affine couplings, 44,603,604 parameters.

    Command: ``likejax train glow/cifar10 --data-dir DATA``; the paper used 8 GPUs. Paper: 3.35 bits/dim (Kingma and
    Dhariwal, 2018, table 2). Not trained to the end here.
    """
    return Experiment(
        model=GlowConfig(),
        dataset="cifar10",
        augment=("shift",),
        optimiser=_PAPER,
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
    return replace(glow_cifar10(), model=model, levels=32, objective=NLL(class_weight=0.01))


def glow_imagenet32() -> Experiment[GlowConfig]:
    """Glow on 32x32 ImageNet, 66,861,588 parameters.

    Command: ``likejax train glow/imagenet32 --data-dir DATA``. Paper: 4.09 bits/dim, on the down-sampling of van den
    Oord et al. (2016); others do not compare. Not trained to the end here.
    """
    return Experiment(model=GlowConfig(depth=48), dataset="imagenet32", optimiser=_PAPER, batch_size=512, steps=500_000)


def glow_imagenet64() -> Experiment[GlowConfig]:
    """Glow on 64x64 ImageNet, 112,377,540 parameters.

    Command: ``likejax train glow/imagenet64 --data-dir DATA``. Paper: 3.81 bits/dim. Not trained to the end here.
    """
    model = GlowConfig(event_shape=(64, 64, 3), scales=4, depth=48)
    return Experiment(
        model=model, dataset="imagenet64", optimiser=_PAPER, batch_size=128, steps=1_000_000, initialise_with=64
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
        optimiser=_PAPER,
        batch_size=40,
        steps=1_000_000,
        initialise_with=40,
        validation_examples=500,
    )


def glow_mnist() -> Experiment[GlowConfig]:
    """Glow on MNIST at its own 28x28x1, L=2, K=32, width 512.

    Command: ``likejax train glow/mnist --data-dir DATA``. Not trained to the end here. The 1.05 bits/dim reported in
    the FFJORD paper are for images padded to 32x32.
    """
    model = GlowConfig(event_shape=(28, 28, 1), scales=2)
    return Experiment(model=model, dataset="mnist", augment=("shift",), optimiser=_PAPER, batch_size=256, steps=100_000)


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
        optimiser=_SMALL,
        batch_size=16,
        steps=10_000,
        validate_every=1_000,
        checkpoint_every=1_000,
        log_every=200,
    )


def glow_digits() -> Experiment[GlowConfig]:
    """Glow on scikit-learn's 8x8 digits, minutes on two CPU cores; what ``make demo`` trains.

    Command: ``likejax demo``. Measured on two CPU cores in under 2 minutes, seed 0: test bits/dim <= 2.227 +- 0.018
    (bound, 16 draws, n = 359).
    """
    return Experiment(
        model=GlowConfig(event_shape=(8, 8, 1), levels=17, scales=2, depth=8, width=64),
        dataset="digits",
        optimiser=_SMALL,
        batch_size=64,
        steps=500,
        ema_decay=0.99,
        validate_every=50,
        checkpoint_every=250,
        log_every=25,
    )


def glow_photographs() -> Experiment[GlowConfig]:
    """Glow on natural 32x32 RGB patches of two photographs, K=8 and width 64, for a first look at colour.

    Command: ``likejax train glow/photographs``.
    """
    return Experiment(
        model=GlowConfig(depth=8, width=64),
        dataset="photographs",
        optimiser=_SMALL,
        batch_size=32,
        steps=2_000,
        validation_examples=250,
        validate_every=500,
        checkpoint_every=500,
    )


def vector_glow_moons() -> Experiment[VectorGlowConfig]:
    """Glow on vectors, on the two moons: a minute on two CPU cores.

    Command: ``likejax train vector_glow/moons``. Measured on two CPU cores, seed 0: test log p = -2.407 +- 0.008 nats
    (exact, n = 10000); minus the entropy of the distribution is about -2.39.
    """
    return Experiment(
        model=VectorGlowConfig(),
        dataset="moons",
        optimiser=replace(_SMALL, learning_rate=1e-3),
        batch_size=256,
        steps=4_000,
        validate_every=500,
        checkpoint_every=1_000,
    )


def vector_glow_redwine() -> Experiment[VectorGlowConfig]:
    """Glow on vectors, on the UCI red wine table (1,599 x 11): raw-unit nats, standardised inside.

    Command: ``likejax train vector_glow/redwine --data-dir DATA``.
    """
    return Experiment(
        model=VectorGlowConfig(dimensions=11, depth=8, width=32),
        dataset="uci/redwine",
        optimiser=Optimiser(
            name="adamw", learning_rate=5e-4, weight_decay=0.01, warmup_steps=100, decay="cosine", clip_norm=50.0
        ),
        batch_size=128,
        steps=600,
        ema_decay=0.99,
        validate_every=50,
        checkpoint_every=300,
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
        optimiser=_PIXELCNN,
        batch_size=128,
        steps=195_000,
        initialise_with=128,
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
        model=PixelCNNConfig(event_shape=(28, 28, 1), filters=32, blocks=1, mixtures=10, dropout=0.0, output_scale=0.1),
        dataset="fashion_mnist",
        optimiser=replace(_SMALL, b1=0.95, b2=0.999),
        batch_size=16,
        steps=6_000,
        initialise_with=128,
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
            event_shape=(8, 8, 1), levels=17, filters=32, blocks=1, mixtures=5, dropout=0.5, output_scale=0.1
        ),
        dataset="digits",
        optimiser=_SMALL,
        batch_size=64,
        steps=600,
        ema_decay=0.99,
        validate_every=50,
        checkpoint_every=300,
        log_every=25,
    )


def _points(name: str) -> Experiment[FFJORDConfig]:
    return Experiment(
        model=FFJORDConfig(),
        dataset=name,
        optimiser=_FFJORD_POINTS,
        batch_size=100,
        steps=10_000,
        ema_decay=0.999,
        validate_every=1_000,
        validation_examples=2_000,
        log_every=500,
    )


def ffjord_swissroll() -> Experiment[FFJORDConfig]:
    """FFJORD with the paper's network for points (9,225 parameters) on the Swiss roll: minutes on two CPU cores.

    Command: ``likejax train ffjord/swissroll``.
    """
    return _points("swissroll")


def ffjord_8gaussians() -> Experiment[FFJORDConfig]:
    """FFJORD as for the Swiss roll, on eight Gaussians on a circle.

    Command: ``likejax train ffjord/8gaussians``.
    """
    return _points("8gaussians")


def ffjord_pinwheel() -> Experiment[FFJORDConfig]:
    """FFJORD as for the Swiss roll, on the pinwheel.

    Command: ``likejax train ffjord/pinwheel``.
    """
    return _points("pinwheel")


def ffjord_circles() -> Experiment[FFJORDConfig]:
    """FFJORD as for the Swiss roll, on two circles, one in the other.

    Command: ``likejax train ffjord/circles``.
    """
    return _points("circles")


def ffjord_moons() -> Experiment[FFJORDConfig]:
    """FFJORD as for the Swiss roll, on the two moons.

    Command: ``likejax train ffjord/moons``.
    """
    return _points("moons")


def ffjord_2spirals() -> Experiment[FFJORDConfig]:
    """FFJORD as for the Swiss roll, on two spirals.

    Command: ``likejax train ffjord/2spirals``.
    """
    return _points("2spirals")


def ffjord_checkerboard() -> Experiment[FFJORDConfig]:
    """FFJORD as for the Swiss roll, on the checkerboard, whose entropy is log 32.

    Command: ``likejax train ffjord/checkerboard``.
    """
    return _points("checkerboard")


def ffjord_rings() -> Experiment[FFJORDConfig]:
    """FFJORD as for the Swiss roll, on four rings.

    Command: ``likejax train ffjord/rings``.
    """
    return _points("rings")


def _table(
    name: str, dimensions: int, hidden: tuple[int, ...], flows: int, activation: Activation, batch: int
) -> Experiment[FFJORDConfig]:
    """The paper's flow of a benchmark table: exact trace in evaluation, one Gaussian probe in training."""
    solver = Solver(rtol=1e-6, atol=1e-8)
    model = FFJORDConfig(
        dimensions=dimensions,
        hidden=hidden,
        flows=flows,
        activation=activation,
        end_time=1.0,
        training_trace=Trace(probes=1, noise="gaussian"),
        solver=solver,
        training_solver=solver,
    )
    return Experiment(
        model=model,
        dataset=name,
        optimiser=Optimiser(name="adam", learning_rate=1e-3),
        batch_size=batch,
        steps=100_000,
        ema_decay=0.0,
        validate_every=200,
        validation_examples=10_000,
        early_stopping=30,
        checkpoint_every=1_000,
    )


def ffjord_power() -> Experiment[FFJORDConfig]:
    """FFJORD on POWER with the paper's sizes, 43,325 parameters.

    Command: ``likejax train ffjord/power --data-dir DATA``. Paper: -log p = -0.46 nats (Grathwohl et al., 2019, table
    2). Not trained here. The paper also lowers the rate when validation stalls, which ``--optimiser.decay`` replaces.
    """
    return _table("power", 6, (60, 60, 60), 5, "tanh", 10_000)


def ffjord_gas() -> Experiment[FFJORDConfig]:
    """FFJORD on GAS with the paper's sizes, 278,565 parameters.

    Command: ``likejax train ffjord/gas --data-dir DATA``. Paper: -log p = -8.59 nats. Not trained here.
    """
    return _table("gas", 8, (160, 160, 160), 5, "tanh", 1_000)


def ffjord_hepmass() -> Experiment[FFJORDConfig]:
    """FFJORD on HEPMASS with the paper's sizes, 546,850 parameters.

    Command: ``likejax train ffjord/hepmass --data-dir DATA``. Paper: -log p = 14.92 nats. Not trained here.
    """
    return _table("hepmass", 21, (210, 210), 10, "softplus", 10_000)


def ffjord_miniboone() -> Experiment[FFJORDConfig]:
    """FFJORD on MINIBOONE with the paper's sizes, 820,613 parameters.

    Command: ``likejax train ffjord/miniboone --data-dir DATA``. Paper: -log p = 10.43 nats. Not trained here.
    """
    return _table("miniboone", 43, (860, 860), 1, "softplus", 1_000)


def ffjord_bsds300() -> Experiment[FFJORDConfig]:
    """FFJORD on BSDS300 with the paper's sizes, 6,698,666 parameters.

    Command: ``likejax train ffjord/bsds300 --data-dir DATA``. Paper: -log p = -157.40 nats. Not trained here.
    """
    return _table("bsds300", 63, (1260, 1260, 1260), 2, "softplus", 10_000)


def _small_table(name: str, dimensions: int) -> Experiment[FFJORDConfig]:
    solver = Solver(rtol=1e-4, atol=1e-4)
    model = FFJORDConfig(
        dimensions=dimensions,
        hidden=(128, 128),
        end_time=1.0,
        standardise=True,
        training_trace=Trace(probes=1),
        training_solver=solver,
    )
    return Experiment(
        model=model,
        dataset=f"uci/{name}",
        optimiser=Optimiser(
            name="adamw", learning_rate=3e-3, weight_decay=0.03, warmup_steps=100, decay="cosine", clip_norm=50.0
        ),
        batch_size=128,
        steps=3_000,
        initialise_with=100_000,
        ema_decay=0.99,
        validate_every=100,
        checkpoint_every=500,
    )


def ffjord_redwine() -> Experiment[FFJORDConfig]:
    """FFJORD on the UCI red wine table (1,599 x 11), raw-unit nats, standardised inside.

    Command: ``likejax train ffjord/redwine --data-dir DATA``. Measured on one CPU core, seed 0: test
    log p = 0.132 +- 0.393 nats, -9.357 standardised (exact, n = 160).
    """
    return _small_table("redwine", 11)


def ffjord_whitewine() -> Experiment[FFJORDConfig]:
    """FFJORD on the UCI white wine table (4,898 x 11), raw-unit nats, standardised inside.

    Command: ``likejax train ffjord/whitewine --data-dir DATA``. Measured on one CPU core, seed 0: test
    log p = -1.163 +- 0.478 nats, -11.106 standardised (exact, n = 490).
    """
    return _small_table("whitewine", 11)


def ffjord_parkinsons() -> Experiment[FFJORDConfig]:
    """FFJORD on the UCI parkinsons table (5,875 x 15), raw-unit nats, standardised inside.

    Command: ``likejax train ffjord/parkinsons --data-dir DATA``. Measured on one CPU core, seed 0: test
    log p = 31.731 +- 0.250 nats, -1.753 standardised (exact, n = 588).
    """
    return _small_table("parkinsons", 15)


def ffjord_cifar10() -> Experiment[ImageFFJORDConfig]:
    """FFJORD on CIFAR-10, several scales, 1,358,882 parameters.

    Command: ``likejax train ffjord/cifar10 --data-dir DATA``; the authors used 6 GPUs for about 5 days. Paper: 3.40
    bits/dim (Grathwohl et al., 2019, table 2). Not trained to the end here.
    """
    return Experiment(
        model=ImageFFJORDConfig(),
        dataset="cifar10",
        augment=("flip",),
        optimiser=Optimiser(name="adam", learning_rate=1e-3, warmup_steps=1_000),
        batch_size=200,
        steps=125_000,
        ema_decay=0.0,
        validation_examples=1_000,
    )


def ffjord_mnist() -> Experiment[ImageFFJORDConfig]:
    """FFJORD on MNIST, several scales, 800,646 parameters.

    Command: ``likejax train ffjord/mnist --data-dir DATA``. Paper: 0.99 bits/dim. Not trained to the end here.
    """
    return replace(
        ffjord_cifar10(), model=ImageFFJORDConfig(event_shape=(28, 28, 1)), dataset="mnist", augment=(), steps=150_000
    )


def ffjord_mnist_single() -> Experiment[ImageFFJORDConfig]:
    """FFJORD on MNIST with one flow whose field is shaped like an autoencoder: two halvings, mirrored.

    Command: ``likejax train ffjord/mnist-single --data-dir DATA``. Paper: 1.05 bits/dim for a field of this shape. Not
    trained to the end here.
    """
    model = ImageFFJORDConfig(
        event_shape=(28, 28, 1),
        multiscale=False,
        flows=1,
        hidden=(64, 64, 128, 128, 128, 64, 64),
        strides=(1, 2, 1, 2, -2, 1, -2, 1),
    )
    return replace(ffjord_mnist(), model=model)


def ffjord_cifar10_rnode() -> Experiment[ImageFFJORDConfig]:
    """RNODE on CIFAR-10: FFJORD with straight paths, by its kinetic energy and the norm of its Jacobian.

    Command: ``likejax train ffjord/cifar10-rnode --data-dir DATA``. Not trained to the end here. RNODE's own numbers
    are of images at the centres of their bins, which bounds nothing, and do not compare.
    """
    base = ffjord_cifar10()
    model = replace(base.model, alpha=0.05, zero_last=True, learn_end_time=False)
    return replace(base, model=model, objective=_RNODE, steps=25_000)


def ffjord_mnist_rnode() -> Experiment[ImageFFJORDConfig]:
    """RNODE on MNIST, trained with four fixed steps of RK4 a flow.

    Command: ``likejax train ffjord/mnist-rnode --data-dir DATA``. Not trained to the end here.
    """
    base = ffjord_mnist()
    fixed = Solver(method="rk4", steps=4)
    model = replace(base.model, alpha=1e-5, zero_last=True, learn_end_time=False, training_solver=fixed)
    return replace(base, model=model, objective=_RNODE, steps=30_000)


def ffjord_digits() -> Experiment[ImageFFJORDConfig]:
    """FFJORD on scikit-learn's 8x8 digits with RNODE's energies, minutes on two CPU cores; part of ``make demo``.

    Command: ``likejax demo``. Measured on two CPU cores, seed 0: test bits/dim ~ 2.194 +- 0.011 (estimate, 16 draws,
    n = 359).
    """
    return Experiment(
        model=ImageFFJORDConfig(
            event_shape=(8, 8, 1),
            levels=17,
            alpha=0.05,
            hidden=(24, 24),
            flows=1,
            zero_last=True,
            # by its error: with a few fixed steps training finds fields whose steps, not flows, fit the data
            training_solver=Solver(method="bosh3", rtol=1e-3, atol=1e-3),
        ),
        dataset="digits",
        objective=_RNODE,
        optimiser=replace(_SMALL, learning_rate=3e-3),
        batch_size=64,
        steps=500,
        ema_decay=0.99,
        validate_every=100,
        checkpoint_every=300,
        log_every=25,
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
    "ffjord/swissroll": ffjord_swissroll,
    "ffjord/8gaussians": ffjord_8gaussians,
    "ffjord/pinwheel": ffjord_pinwheel,
    "ffjord/circles": ffjord_circles,
    "ffjord/moons": ffjord_moons,
    "ffjord/2spirals": ffjord_2spirals,
    "ffjord/checkerboard": ffjord_checkerboard,
    "ffjord/rings": ffjord_rings,
    "ffjord/power": ffjord_power,
    "ffjord/gas": ffjord_gas,
    "ffjord/hepmass": ffjord_hepmass,
    "ffjord/miniboone": ffjord_miniboone,
    "ffjord/bsds300": ffjord_bsds300,
    "ffjord/redwine": ffjord_redwine,
    "ffjord/whitewine": ffjord_whitewine,
    "ffjord/parkinsons": ffjord_parkinsons,
    "ffjord/cifar10": ffjord_cifar10,
    "ffjord/mnist": ffjord_mnist,
    "ffjord/mnist-single": ffjord_mnist_single,
    "ffjord/cifar10-rnode": ffjord_cifar10_rnode,
    "ffjord/mnist-rnode": ffjord_mnist_rnode,
    "ffjord/digits": ffjord_digits,
    "pixelcnn/cifar10": pixelcnn_cifar10,
    "pixelcnn/cifar10-192": pixelcnn_cifar10_192,
    "pixelcnn/cifar10-conditional": pixelcnn_cifar10_conditional,
    "pixelcnn/imagenet32": pixelcnn_imagenet32,
    "pixelcnn/mnist": pixelcnn_mnist,
    "pixelcnn/fashion_mnist": pixelcnn_fashion_mnist,
    "pixelcnn/fashion_mnist-small": pixelcnn_fashion_mnist_small,
    "pixelcnn/digits": pixelcnn_digits,
    "vector_glow/moons": vector_glow_moons,
    "vector_glow/redwine": vector_glow_redwine,
}
"""Name to the function that makes the experiment; its docstring is the preset's card."""


def preset(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
      ValueError: If there is none; the message names those that come near.

    Example:
      >>> import likejax as lj
      >>> lj.preset("glow/cifar10").model.depth
      32
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no preset {name!r}{hint} `likejax presets` lists them")
    return PRESETS[name]()

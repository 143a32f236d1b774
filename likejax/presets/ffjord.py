"""FFJORD, of points, tables and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from likejax.bijections.ode import Solver, Trace
from likejax.experiment import Experiment, Optimizer
from likejax.models.ffjord import FFJORDConfig, ImageFFJORDConfig
from likejax.models.ffjord.dynamics import Activation
from likejax.objectives import NLL
from likejax.presets.optimizers import SMALL

_FFJORD_POINTS = Optimizer(
    name="adam",
    learning_rate=5e-3,
    weight_decay=1e-5,
    warmup_steps=100,
    decay="cosine",
    clip_norm=50.0,
)
_RNODE = NLL(weights={"kinetic_energy": 0.01, "jacobian_norm": 0.01})


def _points(name: str, **model: Any) -> Experiment[FFJORDConfig]:
    return Experiment(
        model=FFJORDConfig(**model),
        dataset=name,
        optimizer=_FFJORD_POINTS,
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
    """FFJORD as for the Swiss roll, on four rings, with initial weights three times as large.

    From the usual ones a field bends too little to tell the outer rings apart in as many steps (0.38 nats above the
    entropy). Command: ``likejax train ffjord/rings``.
    """
    return _points("rings", initial_scale=3.0)


def _table(
    name: str,
    dimensions: int,
    hidden: tuple[int, ...],
    flows: int,
    activation: Activation,
    batch: int,
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
        optimizer=Optimizer(name="adam", learning_rate=1e-3),
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
    2). Not trained here. The paper also lowers the rate when validation stalls, which ``--optimizer.decay`` replaces.
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
        standardize=True,
        training_trace=Trace(probes=1),
        training_solver=solver,
    )
    return Experiment(
        model=model,
        dataset=f"uci/{name}",
        optimizer=Optimizer(
            name="adamw",
            learning_rate=3e-3,
            weight_decay=0.03,
            warmup_steps=100,
            decay="cosine",
            clip_norm=50.0,
        ),
        batch_size=128,
        steps=3_000,
        ema_decay=0.99,
        validate_every=100,
        checkpoint_every=500,
    )


def ffjord_redwine() -> Experiment[FFJORDConfig]:
    """FFJORD on the UCI red wine table (1,599 x 11), raw-unit nats, standardized inside.

    Command: ``likejax train ffjord/redwine --data-dir DATA``. Measured by ``python benchmarks/tables.py`` on one CPU
    core, seed 0: test log p = -0.333 +- 0.405 nats, -9.793 standardized (exact, n = 163).
    """
    return _small_table("redwine", 11)


def ffjord_whitewine() -> Experiment[FFJORDConfig]:
    """FFJORD on the UCI white wine table (4,898 x 11), raw-unit nats, standardized inside.

    Command: ``likejax train ffjord/whitewine --data-dir DATA``. Measured by ``python benchmarks/tables.py`` on one CPU
    core, seed 0: test log p = -1.294 +- 0.476 nats, -11.248 standardized (exact, n = 505).
    """
    return _small_table("whitewine", 11)


def ffjord_parkinsons() -> Experiment[FFJORDConfig]:
    """FFJORD on the UCI parkinsons table (5,875 x 15), raw-unit nats, standardized inside.

    Command: ``likejax train ffjord/parkinsons --data-dir DATA``. Measured by ``python benchmarks/tables.py`` on one CPU
    core, seed 0: test log p = 31.731 +- 0.250 nats, -1.753 standardized (exact, n = 588).
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
        optimizer=Optimizer(name="adam", learning_rate=1e-3, warmup_steps=1_000),
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
        ffjord_cifar10(),
        model=ImageFFJORDConfig(event_shape=(28, 28, 1)),
        dataset="mnist",
        augment=(),
        steps=150_000,
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
    are of images at the centers of their bins, which bounds nothing, and do not compare.
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
    model = replace(
        base.model, alpha=1e-5, zero_last=True, learn_end_time=False, training_solver=fixed
    )
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
        optimizer=replace(SMALL, learning_rate=3e-3),
        batch_size=64,
        steps=500,
        ema_decay=0.99,
        validate_every=100,
        checkpoint_every=300,
        log_every=25,
    )


PRESETS: dict[str, Callable[[], Experiment]] = {
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
}

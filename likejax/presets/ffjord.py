"""Presets of FFJORD, for points, tables and images."""

from __future__ import annotations

from dataclasses import replace

from likejax.bijections.ode import Solver, Trace
from likejax.experiment import Experiment, Optimizer
from likejax.models.ffjord import FFJORDConfig, ImageFFJORDConfig
from likejax.models.ffjord.dynamics import Activation
from likejax.objectives import NLL
from likejax.presets.card import Preset
from likejax.presets.optimizers import SMALL

_RNODE = NLL(weights={"kinetic_energy": 0.01, "jacobian_norm": 0.01})


def _points(name: str, *, initial_scale: float = 1.0) -> Experiment[FFJORDConfig]:
    """Returns the paper's network for points in the plane, 9,225 parameters."""
    return Experiment(
        model=FFJORDConfig(initial_scale=initial_scale),
        dataset=name,
        optimizer=Optimizer(
            name="adam",
            learning_rate=5e-3,
            weight_decay=1e-5,
            warmup_steps=100,
            decay="cosine",
            clip_norm=50.0,
        ),
        batch_size=100,
        steps=10_000,
        ema_decay=0.999,
        validate_every=1_000,
        validation_examples=2_000,
        log_every=500,
    )


def _measured_points(nats: str) -> str:
    """Returns the sentence about a measurement by ``benchmarks/toys.py``."""
    return (
        f"test -log p = {nats} nats (exact, n = 10000), by `python benchmarks/toys.py` on one CPU "
        "core with other work beside it, seed 0."
    )


_POINTS = [
    Preset(
        name="ffjord/swissroll",
        summary="FFJORD on the Swiss roll with the paper's network for points "
        "(9,225 parameters), minutes on two CPU cores.",
        experiment=_points("swissroll"),
        trained=_measured_points("2.674 ± 0.008"),
    ),
    Preset(
        name="ffjord/8gaussians",
        summary="FFJORD on eight Gaussians on a circle; settings of the Swiss roll.",
        experiment=_points("8gaussians"),
        trained=_measured_points("2.838 ± 0.010"),
    ),
    Preset(
        name="ffjord/pinwheel",
        summary="FFJORD on the pinwheel; settings of the Swiss roll.",
        experiment=_points("pinwheel"),
        trained=_measured_points("2.304 ± 0.010"),
    ),
    Preset(
        name="ffjord/circles",
        summary="FFJORD on two concentric circles; settings of the Swiss roll.",
        experiment=_points("circles"),
        trained=_measured_points("3.272 ± 0.008"),
    ),
    Preset(
        name="ffjord/moons",
        summary="FFJORD on the two moons; settings of the Swiss roll.",
        experiment=_points("moons"),
        trained=_measured_points("2.405 ± 0.008"),
    ),
    Preset(
        name="ffjord/2spirals",
        summary="FFJORD on two spirals; settings of the Swiss roll.",
        experiment=_points("2spirals"),
        trained=_measured_points("2.666 ± 0.007"),
    ),
    Preset(
        name="ffjord/checkerboard",
        summary="FFJORD on the checkerboard, whose entropy is log 32; settings of the Swiss roll.",
        experiment=_points("checkerboard"),
        trained=_measured_points("3.572 ± 0.003"),
    ),
    Preset(
        name="ffjord/rings",
        summary="FFJORD on four rings, with initial weights three times as large as for the "
        "Swiss roll.",
        experiment=_points("rings", initial_scale=3.0),
        trained=_measured_points("2.665 ± 0.009"),
        notes="From the usual initial weights the field bends too little to separate the outer "
        "rings in as many steps: 0.38 nats above the entropy.",
    ),
]


def _table(
    name: str,
    dimensions: int,
    *,
    hidden: tuple[int, ...],
    flows: int,
    activation: Activation,
    batch_size: int,
) -> Experiment[FFJORDConfig]:
    """Returns the paper's flow of a benchmark table.

    The trace is exact in evaluation and estimated with one Gaussian probe in training.
    """
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
        batch_size=batch_size,
        steps=100_000,
        ema_decay=0.0,
        validate_every=200,
        validation_examples=10_000,
        early_stopping=30,
        checkpoint_every=1_000,
    )


_TABLES = [
    Preset(
        name="ffjord/power",
        summary="FFJORD on POWER with the paper's sizes, 43,325 parameters.",
        experiment=_table(
            "power", 6, hidden=(60, 60, 60), flows=5, activation="tanh", batch_size=10_000
        ),
        paper="-log p = -0.46 nats (Grathwohl et al., 2019, table 2).",
        notes="The paper also lowers the rate when validation stalls; --optimizer.decay replaces "
        "that.",
    ),
    Preset(
        name="ffjord/gas",
        summary="FFJORD on GAS with the paper's sizes, 278,565 parameters.",
        experiment=_table(
            "gas", 8, hidden=(160, 160, 160), flows=5, activation="tanh", batch_size=1_000
        ),
        paper="-log p = -8.59 nats.",
    ),
    Preset(
        name="ffjord/hepmass",
        summary="FFJORD on HEPMASS with the paper's sizes, 546,850 parameters.",
        experiment=_table(
            "hepmass", 21, hidden=(210, 210), flows=10, activation="softplus", batch_size=10_000
        ),
        paper="-log p = 14.92 nats.",
    ),
    Preset(
        name="ffjord/miniboone",
        summary="FFJORD on MINIBOONE with the paper's sizes, 820,613 parameters.",
        experiment=_table(
            "miniboone", 43, hidden=(860, 860), flows=1, activation="softplus", batch_size=1_000
        ),
        paper="-log p = 10.43 nats.",
    ),
    Preset(
        name="ffjord/bsds300",
        summary="FFJORD on BSDS300 with the paper's sizes, 6,698,666 parameters.",
        experiment=_table(
            "bsds300",
            63,
            hidden=(1260, 1260, 1260),
            flows=2,
            activation="softplus",
            batch_size=10_000,
        ),
        paper="-log p = -157.40 nats.",
    ),
]


def _small_table(name: str, dimensions: int) -> Experiment[FFJORDConfig]:
    """Returns one flow for a small UCI table, standardized inside the density."""
    model = FFJORDConfig(
        dimensions=dimensions,
        hidden=(128, 128),
        end_time=1.0,
        standardize=True,
        training_trace=Trace(probes=1),
        training_solver=Solver(rtol=1e-4, atol=1e-4),
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


_SMALL_TABLES = [
    Preset(
        name="ffjord/redwine",
        summary="FFJORD on the UCI red wine table (1,599 x 11), nats of the raw units.",
        experiment=_small_table("redwine", 11),
        trained="test log p = -0.082 ± 0.387 nats, -9.542 standardized (exact, n = 163), the mean "
        "of seeds 0, 1 and 2, by `python benchmarks/tables.py` on two CPU cores.",
    ),
    Preset(
        name="ffjord/whitewine",
        summary="FFJORD on the UCI white wine table (4,898 x 11), nats of the raw units.",
        experiment=_small_table("whitewine", 11),
        trained="test log p = -1.294 ± 0.476 nats, -11.248 standardized (exact, n = 505), by "
        "`python benchmarks/tables.py` on one CPU core, seed 0.",
    ),
    Preset(
        name="ffjord/parkinsons",
        summary="FFJORD on the UCI parkinsons table (5,875 x 15), nats of the raw units.",
        experiment=_small_table("parkinsons", 15),
        trained="test log p = 31.731 ± 0.250 nats, -1.753 standardized (exact, n = 588), by "
        "`python benchmarks/tables.py` on one CPU core, seed 0.",
    ),
]

_CIFAR10 = Experiment(
    model=ImageFFJORDConfig(),
    dataset="cifar10",
    augment=("flip",),
    optimizer=Optimizer(name="adam", learning_rate=1e-3, warmup_steps=1_000),
    batch_size=200,
    steps=125_000,
    ema_decay=0.0,
    validation_examples=1_000,
)

_MNIST = replace(
    _CIFAR10,
    model=ImageFFJORDConfig(event_shape=(28, 28, 1)),
    dataset="mnist",
    augment=(),
    steps=150_000,
)

_IMAGES = [
    Preset(
        name="ffjord/cifar10",
        summary="FFJORD on CIFAR-10 on several scales, 1,358,882 parameters.",
        experiment=_CIFAR10,
        paper="3.40 bits/dim (Grathwohl et al., 2019, table 2).",
        hardware="The authors used 6 GPUs for about 5 days.",
    ),
    Preset(
        name="ffjord/mnist",
        summary="FFJORD on MNIST on several scales, 800,646 parameters.",
        experiment=_MNIST,
        paper="0.99 bits/dim.",
    ),
    Preset(
        name="ffjord/mnist-single",
        summary="FFJORD on MNIST with one flow whose field is shaped like an autoencoder.",
        experiment=replace(
            _MNIST,
            model=ImageFFJORDConfig(
                event_shape=(28, 28, 1),
                multiscale=False,
                flows=1,
                hidden=(64, 64, 128, 128, 128, 64, 64),
                strides=(1, 2, 1, 2, -2, 1, -2, 1),
            ),
        ),
        paper="1.05 bits/dim for a field of this shape.",
        notes="The field halves the image twice, and doubles it twice.",
    ),
    Preset(
        name="ffjord/cifar10-rnode",
        summary="RNODE on CIFAR-10: FFJORD with straight paths, by penalties on kinetic energy "
        "and Jacobian.",
        experiment=replace(
            _CIFAR10,
            model=ImageFFJORDConfig(alpha=0.05, zero_last=True, learn_end_time=False),
            objective=_RNODE,
            steps=25_000,
        ),
        notes="The numbers of the RNODE paper are for images at the centers of their bins; they "
        "bound nothing and do not compare.",
    ),
    Preset(
        name="ffjord/mnist-rnode",
        summary="RNODE on MNIST, trained with four fixed steps of RK4 for each flow.",
        experiment=replace(
            _MNIST,
            model=ImageFFJORDConfig(
                event_shape=(28, 28, 1),
                alpha=1e-5,
                zero_last=True,
                learn_end_time=False,
                training_solver=Solver(method="rk4", steps=4),
            ),
            objective=_RNODE,
            steps=30_000,
        ),
    ),
    Preset(
        name="ffjord/digits",
        summary="FFJORD on scikit-learn's 8x8 digits with RNODE's penalties, minutes on two CPU "
        "cores; part of `make demo`.",
        experiment=Experiment(
            model=ImageFFJORDConfig(
                event_shape=(8, 8, 1),
                levels=17,
                alpha=0.05,
                hidden=(24, 24),
                flows=1,
                zero_last=True,
                # adaptive: with a few fixed steps, training finds fields whose discretization
                # fits the data and whose flow does not
                training_solver=Solver(method="bosh3", rtol=1e-3, atol=1e-3),
            ),
            dataset="digits",
            objective=_RNODE,
            optimizer=replace(SMALL, learning_rate=5e-3, warmup_steps=30),
            batch_size=32,
            steps=600,
            ema_decay=0.99,
            validate_every=150,
            checkpoint_every=150,
            log_every=25,
        ),
        trained="test bits/dim ~ 2.112 ± 0.011 (estimate, 16 draws, n = 359), by "
        "`likejax train ffjord/digits --seed 0` on two CPU cores.",
    ),
]

PRESETS = [*_POINTS, *_TABLES, *_SMALL_TABLES, *_IMAGES]
"""FFJORD on points, on tables, and on images from the paper's sizes down to digits."""

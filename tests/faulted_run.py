"""The run that ``tests/test_faults.py`` disturbs, and a process that starts it at once."""

from __future__ import annotations

import jax

import likejax as lj
from tests.forks import write_to


def train(workdir: str, steps: int) -> None:
    """Says ``ready`` and trains, or goes on where the run in ``workdir`` stands."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
    experiment = lj.Experiment(
        model=lj.models.VectorGlowConfig(depth=1, width=4),
        batch_size=100,
        steps=steps,
        log_every=30,
        validate_every=40,
        checkpoint_every=25,
        validation_examples=100,
        optimizer=lj.Optimizer(learning_rate=5e-3, decay="cosine"),
    )
    validation = lj.load("moons", split="validation")
    print("ready", flush=True)
    lj.fit(experiment, lj.load("moons"), validation=validation, workdir=workdir, key=0)


def train_in_a_fork(workdir: str, steps: int, said: str) -> None:
    """Trains in a process of its own, which writes what it says to the file ``said``."""
    write_to(said, said)
    train(workdir, steps)

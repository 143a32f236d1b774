"""The run that ``tests/test_faults.py`` disturbs, and a process that starts it at once."""

from __future__ import annotations

import os

import jax

import likejax as lj


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
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    train(workdir, steps)

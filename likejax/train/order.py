"""The order in which a run trains on the rows of its dataset, reproduced."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from jaxtyping import Integer

from likejax.data.batches import Position, RowOrder
from likejax.data.dataset import Dataset
from likejax.experiment import Experiment
from likejax.keys import KeyLike
from likejax.settings import CountOrZero, checked
from likejax.storage.store import CheckpointError, Store
from likejax.train.record import run_directory
from likejax.train.run_keys import RunKeys
from likejax.train.source import array_dataset, fingerprints, is_array

Order = Integer[np.ndarray, "steps batch"]
"""Row numbers of the dataset, a line for each step."""


def order_of(
    experiment: Experiment, train: Any, *, key: KeyLike, steps: int | None = None
) -> Order:
    """Returns the rows that ``fit(experiment, train, key=key)`` trains on, step by step.

    Each epoch visits every row once, in an order that depends on the key, the epoch and the number
    of rows alone; a batch may end one epoch and begin the next. Nothing has to be recorded: the
    flattened order begins with the first epoch, ``order.reshape(-1)[:len(train)]``. Neither where a
    run was interrupted nor the number of processes matters. Steps that the guard skipped are
    listed as well.

    ``ood.order_test`` tests whether a model remembers this order.

    Args:
      experiment: Experiment that is run.
      train: Dataset or array that is trained on; an iterable has an order of its own.
      key: Key that ``fit`` is called with.
      steps: Number of steps; those of the experiment if not given.

    Returns:
      Row numbers ``(steps, batch_size)``.

    Raises:
      TypeError: If ``train`` is an iterable of batches.
      ValueError: If the number of steps is negative.

    Example:
      >>> import likejax as lj, numpy as np
      >>> experiment = lj.preset("vector_glow/moons").override({"batch_size": 50, "steps": 4})
      >>> points = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
      >>> order = lj.train.order_of(experiment, points, key=0)
      >>> order.shape, sorted(order[:2].ravel().tolist()) == list(range(100))
      ((4, 50), True)
    """
    if not is_array(train) and not isinstance(train, Dataset):
        raise TypeError(
            f"expected a dataset or an array, whose order fit draws, got {type(train).__name__}: "
            "an iterable is trained on in its own order"
        )
    count = experiment.steps if steps is None else checked("steps", steps, CountOrZero)
    rows = len(array_dataset(experiment, train))
    return _rows(RunKeys.of(key).order_seed, rows, batch_size=experiment.batch_size, steps=count)


def recorded_order(directory: str | os.PathLike[str], train: Dataset) -> Order:
    """Returns the rows that the run in a directory has trained on, by its last checkpoint.

    The checkpoint holds the seed of the order and the hash of the data, so neither the key nor the
    experiment is needed; see ``order_of``.

    Args:
      directory: The run's ``workdir``.
      train: Dataset that it was trained on.

    Returns:
      Row numbers ``(steps, batch_size)`` of the steps that are done.

    Raises:
      CheckpointError: If it is no run, no checkpoint is intact, or it was trained on other data.

    Example:
      >>> import tempfile, likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment, moons = lj.Experiment(model=model, batch_size=24, steps=2), lj.load("moons")
      >>> with tempfile.TemporaryDirectory() as workdir:
      ...     run = lj.fit(experiment, moons, key=0, workdir=workdir)
      ...     order = lj.train.recorded_order(workdir, moons)
      >>> bool((order == lj.train.order_of(experiment, moons, key=0)).all())
      True
    """
    place = run_directory(directory)
    store = Store(place / "last")
    steps = store.steps()[-1:]
    if not steps:
        raise CheckpointError(f"{place} holds a run without a checkpoint: nothing is trained yet")
    record = store.record(steps[0])
    if record["data"] not in fingerprints(train):
        raise CheckpointError(
            f"{place} holds a run that was trained on other data than {train.name!r} "
            f"({record['data']}, now {fingerprints(train)[0]}): pass the dataset of the run; that "
            "of a run on an iterable is not known"
        )
    seed = Position(*record["position"]).seed
    batch_size = record["experiment"]["batch_size"]
    return _rows(seed, len(train), batch_size=batch_size, steps=steps[0])


def _rows(seed: int, rows: int, *, batch_size: int, steps: int) -> Order:
    """The rows of so many batches from the beginning."""
    order = RowOrder(rows, batch_size, Position(seed, 0, 0))
    batches = [next(order) for _ in range(steps)]
    return np.array(batches, np.int64).reshape(steps, batch_size)

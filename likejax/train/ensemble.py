"""Training of an ensemble: runs of one experiment that differ in their keys."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from likejax.experiment import Experiment
from likejax.keys import KeyLike, as_key
from likejax.models.ensemble import Ensemble
from likejax.settings import Count, checked
from likejax.storage.density import RECORD, save
from likejax.storage.files import directory_path
from likejax.storage.store import CheckpointError
from likejax.train import sharding
from likejax.train.log import Logger
from likejax.train.loop import fit
from likejax.train.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleRun:
    """Result of ``fit_ensemble``.

    Attributes:
      density: Ensemble of the densities of all runs.
      runs: Run of each member, in order.

    Example:
      >>> import likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2)
      >>> result = lj.fit_ensemble(experiment, lj.load("moons"), members=2, key=0)
      >>> result
      EnsembleRun(2 of VectorGlowConfig)
      >>> [run.steps for run in result.runs]
      [2, 2]
    """

    density: Ensemble
    runs: tuple[Run, ...]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the last of these runs, so that members may be missing."""
        return self.runs[-1].interrupted

    def __repr__(self) -> str:
        model = type(self.runs[0].experiment.model).__name__
        return f"EnsembleRun({len(self.runs)} of {model})"


def fit_ensemble(
    experiment: Experiment,
    train: Any,
    *,
    key: KeyLike,
    members: int = 5,
    validation: Any = None,
    workdir: str | os.PathLike[str] | None = None,
    devices: sharding.Devices | None = None,
    loggers: Sequence[Logger] = (),
) -> EnsembleRun:
    """Trains members of an ensemble one after the other, each as ``fit`` does.

    Member ``k`` is the run of ``fit`` with the key ``fold_in(key, k)``. Its initialization, its
    order of the examples and its noise come from that key, so the members are independent given the
    data. If the model is a ready density, all start from its weights and differ in the rest alone.
    A call for more members has those of fewer as its first ones.

    With a ``workdir`` each run has a folder of its own in it, ``member-0`` and so on. A second call
    takes up a run that was interrupted and uses those that are finished. When all are done, the
    ensemble is saved beside them, and ``lj.restore(workdir)`` reads it. Without a ``workdir``
    Ctrl-C ends the member that is trained, and those so far are returned.

    Args:
      experiment: Experiment of every member.
      train: Training examples, as for ``fit``; no iterator, which one run would use up.
      key: Key of all members.
      members: Number of members.
      validation: Examples that select the best weights of each member.
      workdir: Directory of the folders of all runs; nothing is written without one.
      devices: Devices to train on, as for ``fit``.
      loggers: Loggers that get the records of one run after the other; ``close`` is called at the
        end of each.

    Returns:
      The ensemble in ``density``, and the runs.

    Raises:
      TypeError: If ``train`` is an iterator; otherwise as ``fit``.
      CheckpointError: If ``workdir`` holds a run itself; otherwise as ``fit``.
      ValueError: If the number of members is below 1; otherwise as ``fit``.

    References:
      Lakshminarayanan, Pritzel and Blundell, 2017, Simple and scalable predictive uncertainty
      estimation using deep ensembles, arXiv:1612.01474.

    Example:
      >>> import likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2)
      >>> moons = lj.load("moons")
      >>> ensemble = lj.fit_ensemble(experiment, moons, members=2, key=0).density
      >>> ensemble.log_prob_members(moons.examples[:3]).shape
      (2, 3)
    """
    members = checked("members", members, Count)
    key = as_key(key)
    if isinstance(train, Iterator):
        raise TypeError(
            "expected training examples that each member can read from their beginning, got an "
            f"iterator, {type(train).__name__}: pass a dataset, an array, a list of batches or an "
            "object whose __iter__ begins anew"
        )
    place = None if workdir is None else _place(workdir)
    runs: list[Run] = []
    for number in range(members):
        run = fit(
            experiment,
            train,
            key=jax.random.fold_in(key, number),
            validation=validation,
            workdir=None if place is None else place / f"member-{number}",
            devices=devices,
            loggers=loggers,
        )
        runs.append(run)
        if run.interrupted:
            break
    density = Ensemble([run.density for run in runs])
    if place is not None:
        save(density, place)
    return EnsembleRun(density, tuple(runs))


def _place(workdir: str | os.PathLike[str]) -> Path:
    """The directory of all runs.

    Raises:
      CheckpointError: If it is the directory of one run.
    """
    place = directory_path(workdir)
    if (place / RECORD).exists():
        raise CheckpointError(
            f"{place} holds a run: the members of an ensemble need a directory of their own"
        )
    return place

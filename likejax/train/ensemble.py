"""Training of an ensemble: runs of one experiment that differ in their keys."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from likejax.density import Density, Kind
from likejax.experiment import Experiment
from likejax.keys import KeyLike, as_key
from likejax.models.ensemble import Ensemble, EnsembleConfig
from likejax.settings import Count, checked
from likejax.storage.density import RECORD, save
from likejax.storage.files import directory_path
from likejax.storage.store import CheckpointError
from likejax.train import sharding
from likejax.train.log import Logger
from likejax.train.loop import fit
from likejax.train.members import EachMember
from likejax.train.run import Run
from likejax.train.start import check_experiment

_FOLDER = "member-{}"
"""Name of the folder of a member in the directory of all runs."""


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleRun:
    """Result of ``fit_ensemble``.

    Attributes:
      density: Ensemble of the trained members.
      runs: Run of each member, in order; of members that were trained together the one run of all.

    Example:
      >>> import likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2)
      >>> result = lj.train.fit_ensemble(experiment, lj.load("moons"), members=2, key=0)
      >>> result
      EnsembleRun(2 of VectorGlowConfig)
      >>> [run.steps for run in result.runs]
      [2, 2]
    """

    density: Ensemble
    runs: tuple[Run, ...]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the last run, so that members are missing or trained less."""
        return self.runs[-1].interrupted

    def __repr__(self) -> str:
        experiment = self.runs[0].experiment
        model, how = experiment.model, ""
        if isinstance(experiment.objective, EachMember):
            is_built = isinstance(model, EnsembleConfig)
            model, how = model.member if is_built else model.density, ", trained together"
        return f"EnsembleRun({self.density.size} of {type(model).__name__}{how})"


def fit_ensemble(
    experiment: Experiment,
    train: Any,
    *,
    key: KeyLike,
    members: int = 5,
    together: bool = False,
    validation: Any = None,
    workdir: str | os.PathLike[str] | None = None,
    devices: sharding.Devices | None = None,
    loggers: Sequence[Logger] = (),
) -> EnsembleRun:
    """Trains members of an ensemble, one after the other or together.

    One after the other, member ``k`` is the run of ``fit`` with the key ``fold_in(key, k)``. Its
    initialization, its order of the examples and its noise come from that key, so the members are
    independent given the data. If the model is a ready density, all start from its weights and
    differ in the rest alone. A call for more members has those of fewer as its first ones.

    With a ``workdir`` each run has a folder of its own in it, ``member-0`` and so on. A second call
    takes up a run that was interrupted and uses those that are finished. When all are done, the
    ensemble is saved beside them, and ``lj.restore(workdir)`` reads it. Without a ``workdir``
    Ctrl-C ends the member that is trained, and those so far are returned.

    With ``together=True`` one compiled program takes a step of all members. Each has its own
    initialization, noise, gradient, clipping and optimizer state, as in a training of its own. Four
    things are common to them:

    * All see the same batches in the same order. They begin with different weights, so a ready
      density is taken only if its log-probability has noise.
    * ``validation`` selects one step for all, by the loss of their mixture. That loss also stops
      them early.
    * The guard looks at the gradient of all members. A step that it rejects is rejected for all.
    * There is one run, and ``workdir`` is its directory. It is taken up where its last checkpoint
      stands, and ``lj.restore(workdir)`` reads the ensemble. The log has means over the members,
      and the norm of the gradient of all.

    Args:
      experiment: Experiment of every member.
      train: Training examples, as for ``fit``. An iterator is taken by members that are trained
        together alone; one run after the other would use it up.
      key: Key of all members.
      members: Number of members.
      together: Whether the members are trained together, in the memory of so many batches.
      validation: Examples that select the best weights of each member, or the step of all.
      workdir: Directory of the folders of all runs, or of the one run; nothing is written without
        one.
      devices: Devices to train on, as for ``fit``.
      loggers: Loggers that get the records of one run after the other; ``close`` is called at the
        end of each.

    Returns:
      The ensemble in ``density``, and the runs.

    Raises:
      TypeError: If ``train`` is an iterator and not ``together``; otherwise as ``fit``.
      CheckpointError: If ``workdir`` holds members that were trained the other way; otherwise as
        ``fit``.
      ValueError: If the number of members is below 1, or members that are trained together would be
        equal, since the model is a ready density without noise; otherwise as ``fit``.

    References:
      Lakshminarayanan, Pritzel and Blundell, 2017, Simple and scalable predictive uncertainty
      estimation using deep ensembles, arXiv:1612.01474.

    Example:
      >>> import likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2)
      >>> moons = lj.load("moons")
      >>> ensemble = lj.train.fit_ensemble(experiment, moons, members=2, key=0).density
      >>> ensemble.log_prob_members(moons.examples[:3]).shape
      (2, 3)
    """
    members = checked("members", members, Count)
    key = as_key(key)
    if together:
        check_experiment(experiment, validates=validation is not None, writes=workdir is not None)
        run = fit(
            _of_all(experiment, members),
            train,
            key=key,
            validation=validation,
            workdir=None if workdir is None else _place_of_all(workdir),
            devices=devices,
            loggers=loggers,
        )
        assert isinstance(run.density, Ensemble)
        return EnsembleRun(run.density, (run,))
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
            workdir=None if place is None else place / _FOLDER.format(number),
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


def _of_all(experiment: Experiment, members: int) -> Experiment:
    """The experiment that trains all members together.

    Raises:
      ValueError: If the members would be equal.
    """
    model = experiment.model
    is_ready = isinstance(model, Density)
    ensemble = Ensemble([model] * members) if is_ready else EnsembleConfig(model, members)
    if isinstance(ensemble, Ensemble) and ensemble.kind is Kind.EXACT:
        raise ValueError(
            "expected a config as Experiment.model for together=True, got a ready density without "
            f"noise, {type(model).__name__}: members with its weights that see the same batches "
            "stay equal. Pass a config, or together=False, which gives each member its own order "
            "of the examples"
        )
    objective = EachMember(experiment.objective)
    return dataclasses.replace(experiment, model=ensemble, objective=objective)


def _place_of_all(workdir: str | os.PathLike[str]) -> Path:
    """The directory of the run of all members.

    Raises:
      CheckpointError: If it holds members that were trained one after the other.
    """
    place = directory_path(workdir)
    if (place / _FOLDER.format(0)).exists():
        raise CheckpointError(
            f"{place} holds members that were trained one after the other: choose another workdir, "
            "or go on with together=False"
        )
    return place


def _place(workdir: str | os.PathLike[str]) -> Path:
    """The directory of all runs.

    Raises:
      CheckpointError: If it is the directory of one run.
    """
    place = directory_path(workdir)
    if (place / RECORD).exists():
        raise CheckpointError(
            f"{place} holds a run: the members of an ensemble need a directory of their own, or "
            "together=True if they were trained so"
        )
    return place

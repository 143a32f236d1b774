"""Checks before a run builds or compiles anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Key

from likejax import processes
from likejax.data.constant_columns import warning_of_constant_columns
from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint
from likejax.density import Density
from likejax.evaluation import check_fit
from likejax.experiment import Experiment
from likejax.models import build
from likejax.nn.state import split
from likejax.objectives import ELBO, NLL
from likejax.records import Recorded
from likejax.train.best_effort import warn
from likejax.train.log import Logger, check_tensorboard
from likejax.train.members import EachMember
from likejax.train.selection import Validation
from likejax.train.source import array_dataset, is_array


def check_experiment(experiment: Experiment, *, validates: bool, writes: bool) -> None:
    """Refuses what is no experiment, and settings that have no meaning in this call.

    Args:
      experiment: Argument of ``fit``.
      validates: Whether there is a validation set.
      writes: Whether there is a directory to write to.

    Raises:
      TypeError: If it is no experiment, or its model is neither a config nor a density.
      ValueError: If a setting cannot be used.
    """
    if not isinstance(experiment, Experiment):
        hint = "lj.Experiment(model=...) makes one of a config or a density"
        if isinstance(experiment, str):
            hint = f"lj.preset({experiment!r}) gives that of a preset"
        raise TypeError(f"expected an Experiment to fit, got {type(experiment).__name__}: {hint}")
    model = experiment.model
    if isinstance(model, type) or not (isinstance(model, Density) or hasattr(model, "build")):
        raise TypeError(
            "expected Experiment.model to be a config such as lj.models.GlowConfig() or a "
            f"Density, got {model!r:.100}"
        )
    for name in ("objective", "optimizer"):
        value = getattr(experiment, name)
        if isinstance(value, Recorded):
            value()  # says that only its name is known
    schedule = getattr(experiment.optimizer, "schedule", None)
    if isinstance(schedule, Recorded):
        schedule()
    if experiment.early_stopping is not None and not validates:
        raise ValueError(
            f"expected a validation set for early_stopping={experiment.early_stopping}: pass "
            "validation=, or set early_stopping to None"
        )
    for name in ("samples_every", "tensorboard"):
        if getattr(experiment, name) and not writes:
            raise ValueError(
                f"expected a workdir for {name}={getattr(experiment, name)}, whose files go there"
            )
    if experiment.tensorboard:
        check_tensorboard()


def check_model(experiment: Experiment, examples: Dataset) -> Density:
    """Refuses a model that these examples do not fit, or that cannot be trained.

    Args:
      experiment: Experiment to run; its model is looked at as a structure without arrays.
      examples: Training data.

    Returns:
      The density, or its structure without arrays if it is yet to be built.

    Raises:
      TypeError: If the density does not declare what every density does, or the objective needs
        another family.
      ValueError: If model and data do not fit, nothing can be trained, or a setting cannot be used.
    """
    model = experiment.model
    if isinstance(model, Density):
        density = model
    else:
        density = jax.eval_shape(lambda: build(model, key=jax.random.key(0)))
    if experiment.levels is not None and experiment.levels != density.levels:
        raise ValueError(
            f"expected a model of Experiment.levels={experiment.levels} levels, got one of "
            f"levels={density.levels}: set the two alike, and reduce the data with "
            "dataset.reduce_levels (the command line does)"
        )
    check_fit(density, examples)
    if not split(density)[1]:
        raise ValueError(
            f"expected a density with trainable parameters, {type(density).__name__} has none: "
            "training changes arrays in nnx.Param, all others stay as they are"
        )
    if isinstance(experiment.objective, NLL | ELBO | EachMember):
        experiment.objective.check(density)
    draws_sheets = experiment.samples_every is not None
    if draws_sheets and (len(density.event_shape) != 3 or density.levels is None):
        raise ValueError(
            "expected images for sheets of samples, integers of shape (height, width, channels), "
            f"got a density over {density.event_shape} with levels={density.levels}: set "
            "samples_every to None"
        )
    return density


def warn_of_constant_columns(train: Dataset | None) -> None:
    """Warns of continuous columns that hold one value, where training has no end.

    Args:
      train: Training data; ``None`` for an iterable, whose first rows do not tell.
    """
    text = None if train is None else warning_of_constant_columns(train)
    if text is not None:
        warn(text)


def check_loggers(loggers: Sequence[Logger]) -> None:
    """Refuses what is no logger.

    Args:
      loggers: Loggers that ``fit`` was given.

    Raises:
      TypeError: If one lacks ``log`` or ``close``.
    """
    for logger in loggers:
        if isinstance(logger, type) or not isinstance(logger, Logger):
            raise TypeError(
                f"expected loggers with the methods log(record) and close(), got {logger!r:.100}"
            )


def validation_rows(
    experiment: Experiment,
    validation: Any,
    density: Density,
    train: Dataset | None,
    key: Key[Array, ""],
) -> Validation | None:
    """Returns the rows that select the weights, checked against the model and the training data.

    Args:
      experiment: Experiment that is run.
      validation: A dataset or an array; ``None`` if nothing selects.
      density: Density that is trained, or its structure without arrays.
      train: Training data, which must not share rows with it; ``None`` for an iterable.
      key: Key of the choice of rows and of the noise.

    Raises:
      TypeError: If it is neither a dataset nor an array.
      ValueError: If it shares rows with the training data, does not fit the model, or is not the
        same in all processes.
    """
    rows = None
    if validation is not None:
        examples = _as_evaluated(experiment, validation, train)
        check_fit(density, examples)
        rows = Validation(examples, experiment.validation_examples, key)
    processes.check_same("validation rows", "none" if rows is None else str(rows.identity))
    return rows


def _as_evaluated(experiment: Experiment, validation: Any, train: Dataset | None) -> Dataset:
    """The validation examples as the density sees them."""
    if not isinstance(validation, Dataset) and not is_array(validation):
        raise TypeError(
            f"expected validation to be a Dataset or an array, got {type(validation).__name__}: "
            "an iterable cannot be looked at more than once in the same way"
        )
    examples = array_dataset(experiment, validation)
    if examples is not validation:
        examples = dataclasses.replace(examples, split="validation")
    if train is not None:
        _check_overlap(train, examples, tolerance=experiment.overlap_tolerance)
    return experiment.as_evaluated(examples) if experiment.binarizes else examples


def _check_overlap(train: Dataset, validation: Dataset, *, tolerance: float) -> None:
    """Refuses a validation set that shares too many rows with the training data; warns of some."""
    try:
        allowed = check_disjoint(train, validation, tolerance=tolerance)
    except ValueError as error:
        raise ValueError(f"{error} (Experiment.overlap_tolerance)") from error
    for overlap in allowed:
        warn(
            f"selection sees rows that are trained on: {overlap}, as "
            f"overlap_tolerance={tolerance} allows"
        )

"""Training of a background density: the same architecture on mutated inputs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax

from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint
from likejax.devices import Devices
from likejax.experiment import Experiment
from likejax.keys import KeyLike, as_key
from likejax.ood.checks import Examples
from likejax.settings import Probability, checked
from likejax.train.loop import fit
from likejax.train.record import check_record, note_selection
from likejax.train.run import Run
from likejax.train.source import array_dataset


def fit_background(
    experiment: Experiment,
    train: Examples,
    *,
    key: KeyLike,
    validation: Examples | None = None,
    workdir: str | os.PathLike[str] | None = None,
    mutation_rate: float = 0.2,
    devices: Devices | None = None,
) -> Run:
    """Trains an experiment's model on mutated inputs: the background for ``LikelihoodRatio``.

    Every entry of a training batch is replaced by ``(x + m u) mod levels``, with ``m`` Bernoulli of
    ``mutation_rate`` and ``u`` uniform, drawn anew each time. The validation set is mutated once.

    Ren et al. chose the rate of 0.1, 0.2 or 0.3 and a weight decay by AUROC on a validation set of
    outside examples. The default rate needs no such set.

    Args:
      experiment: Experiment of the density, or any other over the same examples.
      train: Inside examples, integer images: a dataset or an array.
      key: Key of initialization, shuffling, noise and the validation's mutation.
      validation: Examples that select the best weights.
      workdir: Directory of the run, as in ``fit``.
      mutation_rate: Probability that an entry is drawn anew, between 0 and 1.
      devices: Devices to train on, as in ``fit``.

    Returns:
      The run; its ``density`` is the background.

    Raises:
      TypeError: If there is no experiment or no dataset where one is due.
      ValueError: If the data are no integer images, or share rows; otherwise as ``fit``.

    References:
      Ren et al., 2019, Likelihood ratios for out-of-distribution detection, arXiv:1906.02845,
      section 3.2.

    Example:
      >>> import likejax as lj, numpy as np
      >>> experiment, images = lj.preset("glow/digits"), np.zeros((9, 8, 8, 1), np.uint8)
      >>> lj.ood.fit_background(experiment, images, key=0, mutation_rate=2.0)
      Traceback (most recent call last):
      ValueError: expected mutation_rate to be a number above 0 and below 1, got 2.0
    """
    mutation_rate = checked("mutation_rate", mutation_rate, Probability)
    experiment = checked("experiment", experiment, Experiment)
    images = _checked_images("train", train, experiment)
    selecting = None
    if validation is not None:
        selecting = _checked_images("validation", validation, experiment)
    fit_key, mutation_key = jax.random.split(as_key(key))
    mutated = _with_mutation(experiment, mutation_rate)
    if selecting is not None:
        # before the mutation: mutated rows would not be recognized, here and below
        check_disjoint(images, selecting, tolerance=experiment.overlap_tolerance)
        if workdir is not None:
            _note_rows(Path(workdir), mutated, selecting)
        seed = int(jax.random.randint(mutation_key, (), 0, 2**31 - 1))
        selecting = selecting.mutate(mutation_rate, seed)
    return fit(mutated, images, key=fit_key, validation=selecting, workdir=workdir, devices=devices)


def _with_mutation(experiment: Experiment, rate: float) -> Experiment:
    """Returns an experiment whose training batches are mutated, before they are binarized."""
    before = [name for name in experiment.augment if name != "binarize"]
    after = ["binarize"] if experiment.binarizes else []
    return dataclasses.replace(experiment, augment=(*before, f"mutate:{rate}", *after))


def _note_rows(workdir: Path, experiment: Experiment, validation: Dataset) -> None:
    """Notes the validation rows in the run's directory, as the density sees them."""
    path = workdir.expanduser().absolute()
    check_record(path, experiment)
    if jax.process_index() == 0:
        note_selection(path, experiment.as_evaluated(validation))


def _checked_images(name: str, data: Examples, experiment: Experiment) -> Dataset:
    """Returns integer images as a dataset.

    Raises:
      TypeError: If these are no examples.
      ValueError: If they are no integer images.
    """
    dataset = array_dataset(experiment, data)
    if dataset.levels is None or dataset.examples.ndim != 4:
        raise ValueError(
            f"expected integer images as {name}, whose entries can be mutated, got {dataset!r}"
        )
    return dataset

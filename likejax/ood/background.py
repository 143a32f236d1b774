"""The background model of a likelihood ratio: the same architecture on inputs whose meaning is mutated away."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax

from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint
from likejax.experiment import Experiment
from likejax.keys import KeyLike, as_key
from likejax.settings import Probability, checked
from likejax.train.loop import fit
from likejax.train.record import check_record, note_selection
from likejax.train.run import Run


def fit_background(
    experiment: Experiment,
    train: Dataset,
    *,
    key: KeyLike,
    validation: Dataset | None = None,
    workdir: str | os.PathLike[str] | None = None,
    mutation_rate: float = 0.2,
) -> Run:
    """Trains an experiment's model on mutated inputs: the background for ``LikelihoodRatio``.

    Every entry of a training batch is replaced by ``(x + m u) mod levels``, ``m`` Bernoulli(``mutation_rate``), ``u``
    uniform, anew each time; of the validation set one fixed draw of it is used. Ren et al. chose the rate of 0.1, 0.2
    or 0.3 and a weight decay by AUROC on a validation set of outside examples; 0.2 without one needs no such set.

    Args:
      experiment: Experiment of the density, or any other over the same examples.
      train: Inside examples, integers.
      key: Key of initialization, shuffling, noise and the validation's mutation.
      validation: Examples that select the best weights.
      workdir: Directory of the run, as in ``fit``.
      mutation_rate: Probability that an entry is drawn anew, between 0 and 1.

    Returns:
      The run; its ``density`` is the background.

    Raises:
      TypeError: If there is no experiment or no dataset where one is due.
      ValueError: If the data are no integer images, or share rows; otherwise as ``fit``.

    References:
      Ren et al., 2019, Likelihood ratios for out-of-distribution detection, arXiv:1906.02845, section 3.2.
    """
    mutation_rate = checked("mutation_rate", mutation_rate, Probability)
    experiment = checked("experiment", experiment, Experiment)
    for name, data in (("train", train), ("validation", validation)):
        _check_images(name, data)
    fit_key, mutation_key = jax.random.split(as_key(key))
    before = tuple(name for name in experiment.augment if name != "binarize")
    after = ("binarize",) if experiment.binarizes else ()
    mutated = dataclasses.replace(experiment, augment=(*before, f"mutate:{mutation_rate}", *after))
    if validation is not None:
        # before the mutation: mutated rows would not be recognized, here and below
        check_disjoint(train, validation, tolerance=experiment.overlap_tolerance)
        if workdir is not None:
            path = Path(workdir).expanduser().absolute()
            check_record(path, mutated)
            if jax.process_index() == 0:
                note_selection(path, experiment.as_evaluated(validation))
        seed = int(jax.random.randint(mutation_key, (), 0, 2**31 - 1))
        validation = validation.mutate(mutation_rate, seed)
    return fit(mutated, train, key=fit_key, validation=validation, workdir=workdir)


def _check_images(name: str, data: Any) -> None:
    """Raises unless these are integer images, or there are none where none are needed."""
    if data is None and name == "validation":
        return
    if not isinstance(data, Dataset):
        raise TypeError(f"expected a likejax.Dataset as {name}, got {type(data).__name__}")
    if data.levels is None or data.examples.ndim != 4:
        raise ValueError(
            f"expected integer images as {name}, whose entries can be mutated, got {data!r}"
        )

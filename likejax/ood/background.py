"""The background model of a likelihood ratio: the same architecture on inputs whose meaning is mutated away."""

from __future__ import annotations

import dataclasses
import os

import jax

from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint
from likejax.density import KeyLike, as_key
from likejax.experiment import Experiment
from likejax.train.loop import Run, fit


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
      experiment: That of the density, or any other over the same examples.
      train: Inside examples, integers.
      key: Of initialisation, shuffling, noise and the validation's mutation.
      validation: Examples that select the best weights.
      workdir: As in ``fit``.
      mutation_rate: Chance that an entry is drawn anew.

    Returns:
      The run; its ``density`` is the background.

    References:
      Ren et al., 2019, Likelihood ratios for out-of-distribution detection, arXiv:1906.02845, section 3.2.
    """
    if not 0 < mutation_rate < 1:
        raise ValueError(f"expected a mutation_rate between 0 and 1, got {mutation_rate}")
    fit_key, mutation_key = jax.random.split(as_key(key))
    before = tuple(name for name in experiment.augment if name != "binarise")
    after = ("binarise",) if experiment.binarises else ()
    mutated = dataclasses.replace(experiment, augment=(*before, f"mutate:{mutation_rate}", *after))
    if validation is not None:
        check_disjoint(train, validation)  # mutated rows would not be recognised
        seed = int(jax.random.randint(mutation_key, (), 0, 2**31 - 1))
        validation = validation.mutate(mutation_rate, seed)
    return fit(mutated, train, key=fit_key, validation=validation, workdir=workdir)

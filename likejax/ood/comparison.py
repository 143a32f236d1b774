"""The comparison of scores on one inside set and several outside sets: the table of a paper."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from likejax.data.dataset import Dataset
from likejax.data.splits import halves
from likejax.density import Density, check_density
from likejax.devices import Devices, check_shared, listed
from likejax.keys import KeyLike, as_key
from likejax.names import meant
from likejax.ood.checks import Examples
from likejax.ood.features import Compute, Densities, LogProb, features_of, keys_of
from likejax.ood.inputs import Inputs, Outside, changed_forms, check_inputs
from likejax.ood.intervals import (
    Interval,
    evaluate_changed,
    evaluate_scores,
    mean_auroc_interval,
)
from likejax.ood.kept import KeptFeatures
from likejax.ood.report import Report
from likejax.ood.results import Distance, ScoreResult, SetResult, describe
from likejax.ood.score import FittedScore, Score
from likejax.progress import track
from likejax.settings import Count, CountOrZero, Probability, checked
from likejax.storage.density import checksum_of

Scores = Sequence[Score] | Callable[[Density], Sequence[Score]]
"""Recipes of scores, or a function that makes them from a density."""
Values = dict[str, np.ndarray]
"""Scores of examples by the name of their set."""


def benchmark(
    density: Density | Sequence[Density],
    *,
    inside: Examples,
    outside: Outside,
    distances: Mapping[str, str] | None = None,
    scores: Scores,
    held_out: Examples,
    key: KeyLike,
    train: Examples | None = None,
    selected_on: Examples | os.PathLike[str] | str | None = None,
    overlap_tolerance: float = 0.0,
    fpr: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 1000,
    batch_size: int = 128,
    devices: Devices | None = None,
    workdir: str | os.PathLike[str] | None = None,
    fit: None = None,
) -> Report:
    """Fits, calibrates and compares scores; every example of every set is scored once.

    ``held_out`` is cut in two by a permutation of ``key``: scores are fitted on one half and
    calibrated with the other. Rows of it that chose the weights are left out before. What several
    scores need is computed once, with the same draws: example ``i`` of a set has the key of its
    index. All sets may be datasets or arrays ``(n, *event_shape)``.

    With several densities, which are trainings of one model with different seeds, each is scored by
    itself. The tables then have mean and standard deviation over the trainings beside the interval
    of the first: the deviation is often the larger one.

    Args:
      density: Density that is scored, or several trainings of one model.
      inside: Inside (in-distribution) examples that nothing was trained, selected or fitted on.
      outside: Outside (out-of-distribution) examples in the same representation as ``inside``: one
        set, several, or a mapping from the names that they have in the report.
      distances: ``near`` or ``far`` by the names of outside sets, such as ``suite.distances``; the
        report then has the averages over near and over far sets, in which sets without a distance
        do not count.
      scores: Recipes, such as ``Typicality()``; or a function that makes them from a density, such
        as ``standard``.
      held_out: Inside examples that the density was not trained on, disjoint from ``inside``.
      key: Key of the cut, the draws and the bootstrap.
      train: Examples that the density was trained on, to check that nothing overlaps.
      selected_on: Rows that chose the weights of the density or of a background, or the directory
        of the run, which notes them. Those that are in ``held_out`` are left out: the weights suit
        them, and a threshold from them is too low. ``data.hold_out`` cuts a validation part before
        training. If it is not given, the report notes that it is not known.
      overlap_tolerance: Largest share of the different rows of a part that another part may share;
        0 allows none.
      fpr: False-positive rate that thresholds are calibrated to.
      confidence: Probability that an interval holds the true value.
      resamples: Number of bootstrap resamples.
      batch_size: Number of examples at a time on each device.
      devices: Devices to compute on; all of this process if not given. Those of several
        processes share the rows, and every process must make the same call. The numbers are
        those of one device.
      workdir: Directory in which features are kept, so that the same call goes on after it was
        stopped: at most one feature of one set is lost. ``None`` to keep nothing.
      fit: Former name of ``held_out``; refused.

    Returns:
      The report.

    Raises:
      TypeError: If there is no density, dataset or score where one is due.
      ValueError: If two trainings have the same weights, if sets are represented differently
        (shape, type, levels, binarization, color order) or share rows, or if a score is NaN.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> report = lj.ood.benchmark(
      ...     gaussian,
      ...     inside=points[100:200],
      ...     outside={"shifted": points[200:300] + 9},
      ...     scores=lj.ood.standard(gaussian),
      ...     held_out=points[300:],
      ...     key=0,
      ...     resamples=10,
      ... )
      >>> report.metric("typicality", "shifted", "auroc").value
      1.0
    """
    if fit is not None:
        raise TypeError("benchmark has no argument fit any more: pass these rows as held_out=")
    options = _Options(
        overlap_tolerance=overlap_tolerance,
        fpr=checked("fpr", fpr, Probability),
        confidence=checked("confidence", confidence, Probability),
        resamples=checked("resamples", resamples, CountOrZero),
        batch_size=checked("batch_size", batch_size, Count),
        devices=None if devices is None else listed(devices),
    )
    distances = _checked_distances(distances)
    given = {"held_out": held_out, "train": train, "selected_on": selected_on}
    trainings = _trainings(density)
    _check_different(trainings)
    reports = []
    for each in trainings:
        recipes = scores(each) if callable(scores) else scores
        inputs = check_inputs(
            each, inside, outside, recipes, given, overlap_tolerance=overlap_tolerance
        )
        _check_distances(distances, inputs)
        reports.append(_report(inputs, as_key(key), distances, options, workdir))
    first, *others = reports
    _check_same_scores(reports)
    return dataclasses.replace(first, trainings=tuple(others))


def _trainings(density: Density | Sequence[Density]) -> Sequence[Density]:
    """Returns the trainings, one or several."""
    if isinstance(density, list | tuple) and len(density) > 0:
        return density
    return [density]  # pyright: ignore[reportReturnType] what is no density is refused later


def _checked_distances(distances: object) -> dict[str, Distance]:
    """Returns the distances of outside sets by their names, none if ``distances`` is ``None``."""
    if distances is None:
        return {}
    if not isinstance(distances, Mapping):
        raise TypeError(
            "expected distances by the names of outside sets, such as suite.distances or "
            f"{{'mnist': 'far'}}, got {type(distances).__name__}"
        )
    return {
        name: checked(f"distances[{name!r}]", each, Distance) for name, each in distances.items()
    }


def _check_distances(distances: Mapping[str, Distance], inputs: Inputs) -> None:
    """Raises a ValueError if a distance is that of no outside set."""
    _, *outside = inputs.sets
    for name in distances:
        if name not in outside:
            raise ValueError(
                f"expected distances of the outside sets {', '.join(outside)}, got one of {name!r}"
                f"{meant(name, outside)}"
            )


def _check_different(trainings: Sequence[Density]) -> None:
    """Raises a ValueError if two trainings have the same weights: no spread can be seen there.

    Raises:
      TypeError: If one of them is no density.
    """
    for each in trainings:
        check_density(each)
    if len(trainings) == 1:
        return
    checksums = list(map(checksum_of, trainings))
    for number, checksum in enumerate(checksums):
        first = checksums.index(checksum)
        if first < number:
            raise ValueError(
                f"expected different trainings of one model, numbers {first} and {number} have the "
                "same weights: train them with different keys or seeds"
            )


def _check_same_scores(reports: Sequence[Report]) -> None:
    """Raises a ValueError unless all trainings have the scores of the first."""
    labels = [[score.label for score in report.scores] for report in reports]
    for own in labels[1:]:
        if own != labels[0]:
            raise ValueError(
                f"expected the same scores for all trainings, got {', '.join(labels[0])} and "
                f"{', '.join(own)}"
            )


def _report(
    inputs: Inputs,
    key: Key[Array, ""],
    distances: Mapping[str, Distance],
    options: _Options,
    workdir: str | os.PathLike[str] | None,
) -> Report:
    """Returns the report of one training."""
    check_shared((dict(inputs.densities), key), options.devices)
    keys = _Keys.of(key)
    kept = None
    if workdir is not None:
        kept = KeptFeatures(workdir, inputs.densities, devices=options.devices)
    features = _Features(inputs.densities, options.batch_size, options.devices, kept)
    rows = _cut(inputs.held_out, keys)
    fitted = _fit_and_calibrate(inputs, rows, keys, features)
    sets, values = _score_sets(inputs, fitted, keys, features)
    changed = [each.name for each in sets if each.is_changed]
    results = _evaluate(fitted, values, changed, keys, distances, options)
    report = _assemble(inputs, rows, sets, results, key, options)
    return dataclasses.replace(report, distances=distances)


class _Options(NamedTuple):
    """Numbers that ``benchmark`` was called with."""

    overlap_tolerance: float
    fpr: float
    confidence: float
    resamples: int
    batch_size: int
    devices: Devices | None


class _Keys(NamedTuple):
    """The key of ``benchmark``, split once."""

    cut: Key[Array, ""]
    fit: Key[Array, ""]
    calibrate: Key[Array, ""]
    test: Key[Array, ""]
    seed: int

    @classmethod
    def of(cls, key: KeyLike) -> _Keys:
        cut, fit, calibrate, test, seed = jax.random.split(as_key(key), 5)
        return cls(cut, fit, calibrate, test, int(jax.random.randint(seed, (), 0, 2**31 - 1)))


class _Features(NamedTuple):
    """How features are computed, and where they are kept."""

    densities: Densities
    batch_size: int
    devices: Devices | None
    kept: KeptFeatures | None

    def of(self, dataset: Dataset, key: Key[Array, ""], what: str) -> Compute:
        """Returns a function that computes features of a set; every example has its own key."""
        keys = keys_of(key, (len(dataset),))
        assert keys is not None
        compute = features_of(
            self.densities,
            dataset.examples,
            keys,
            batch_size=self.batch_size,
            devices=self.devices,
            what=what,
        )
        return compute if self.kept is None else self.kept.of(compute, dataset, keys)


class _Rows(NamedTuple):
    """The halves of the held-out rows."""

    to_fit: Dataset
    to_calibrate: Dataset


def _cut(held_out: Dataset, keys: _Keys) -> _Rows:
    """Cuts the held-out rows in two at random, all copies of a row in the same half."""
    order = np.asarray(jax.random.permutation(keys.cut, len(held_out)))
    return _Rows(*halves(held_out, order))


def _fit_and_calibrate(
    inputs: Inputs, rows: _Rows, keys: _Keys, features: _Features
) -> list[FittedScore]:
    """Returns the scores, fitted on one half of the held-out rows and calibrated with the other."""
    to_fit, to_calibrate = rows
    of_fit = features.of(to_fit, keys.fit, "fitting scores")
    of_rest = features.of(to_calibrate, keys.calibrate, "calibrating scores")
    fitted = []
    for score in inputs.scores:
        densities = score.densities_of(inputs.density, to_fit)
        raw = score.fit_features(densities, of_fit, to_fit)
        grouped = _in_groups(of_rest, score.group, len(to_calibrate), keys.seed)
        fitted.append(raw.calibrate_features(grouped, to_calibrate))
    return fitted


def _score_sets(
    inputs: Inputs, fitted: Sequence[FittedScore], keys: _Keys, features: _Features
) -> tuple[list[SetResult], dict[str, Values]]:
    """Returns the likelihood of every set, and the scores of its examples by label and set."""
    likelihood = LogProb(draws=_draws_of(inputs.scores))
    sets, changed, center = [], changed_forms(inputs.sets), math.nan
    values: dict[str, Values] = {score.recipe.label: {} for score in fitted}
    for name, dataset in inputs.sets.items():
        compute = features.of(dataset, keys.test, f"scoring {name}")
        log_prob = np.asarray(compute(likelihood))
        finite = log_prob[np.isfinite(log_prob)]
        if not sets and len(finite):  # the first is the inside set
            center = float(finite.mean())
        is_changed = name in changed
        sets.append(
            SetResult.of(
                dataset, name, log_prob, inputs.density, center=center, is_changed=is_changed
            )
        )
        for score in fitted:
            grouped = _in_groups(compute, score.recipe.group, len(dataset), keys.seed)
            values[score.recipe.label][name] = score.scores_from(grouped, f"the set {name}")
    return sets, values


def _draws_of(scores: Sequence[Score]) -> int:
    """Returns the largest number of draws of the density's log-probability in any score."""
    draws = [1]
    for score in scores:
        for feature in score.features:
            if isinstance(feature, LogProb) and feature.density == "density":
                draws.append(feature.draws)
    return max(draws)


def _in_groups(compute: Compute, group: int, n: int, seed: int) -> Compute:
    """Returns features of whole groups of examples, in a random order."""
    if group == 1:
        return compute
    # neighbors in a file are often of one class, and would make groups that are too alike
    count = n // group * group
    if count == 0:
        raise ValueError(f"expected at least {group} examples to form a group, got {n}")
    order = np.random.default_rng([seed, n]).permutation(n)[:count]
    return lambda feature: compute(feature)[order]


def _evaluate(
    fitted: Sequence[FittedScore],
    values: Mapping[str, Values],
    changed: Sequence[str],
    keys: _Keys,
    distances: Mapping[str, Distance],
    options: _Options,
) -> tuple[ScoreResult, ...]:
    """Returns the record of every score: the first set is the inside set.

    Those of ``changed`` are the inside examples in a changed form.
    """
    results = []
    for score in track(fitted, what="intervals"):
        of_sets = values[score.recipe.label]
        inside, *outside = of_sets
        metrics = {}
        for name in outside:
            evaluate = evaluate_changed if name in changed else evaluate_scores
            metrics[name] = evaluate(
                of_sets[inside],
                of_sets[name],
                confidence=options.confidence,
                resamples=options.resamples,
                seed=keys.seed,
            )
        result = ScoreResult(
            label=score.recipe.label,
            settings=score.recipe.settings(),
            kinds={name: each.kind.value for name, each in score.densities.items()},
            values=of_sets,
            metrics=metrics,
            calibrated_with=len(score.calibration),
            threshold=score.threshold(options.fpr),
            averages=_averages(of_sets, changed, distances, options.confidence),
        )
        results.append(result)
    return tuple(results)


def _averages(
    values: Values, changed: Sequence[str], distances: Mapping[str, Distance], confidence: float
) -> dict[str, Interval]:
    """Returns mean AUROC over the near and over the far sets, as far as there are some."""
    inside, *outside = values
    found = {}
    for distance in ("near", "far"):
        names = [name for name in outside if distances.get(name) == distance]
        if names:
            found[distance] = mean_auroc_interval(
                values[inside],
                [values[name] for name in names if name not in changed],
                changed=[values[name] for name in names if name in changed],
                confidence=confidence,
            )
    return found


def _assemble(
    inputs: Inputs,
    rows: _Rows,
    sets: Sequence[SetResult],
    results: tuple[ScoreResult, ...],
    key: Key[Array, ""],
    options: _Options,
) -> Report:
    """Returns the report of everything that was found."""
    parts = {"fitted on": rows.to_fit, "calibrated with": rows.to_calibrate, **inputs.others}
    inside, *_ = inputs.sets.values()
    return Report(
        representation=inside.representation(),
        sets=tuple(sets),
        scores=results,
        parts={what: describe(part) for what, part in parts.items()},
        overlap_tolerance=options.overlap_tolerance,
        notes=inputs.notes,
        fpr=options.fpr,
        confidence=options.confidence,
        resamples=options.resamples,
        draws=_draws_of(inputs.scores),
        key=np.asarray(jax.random.key_data(key)).tolist(),
        versions={name: importlib.metadata.version(name) for name in ("likejax", "jax", "numpy")},
    )

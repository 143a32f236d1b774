"""The comparison of scores on one inside set and several outside sets: the table of a paper."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint, halves, row_hashes
from likejax.density import Density, check_density
from likejax.keys import KeyLike, as_key
from likejax.ood.checks import Examples, checked_dataset, title_of
from likejax.ood.complexity import ComplexityOnly, InputComplexity
from likejax.ood.features import Compute, LogProb, features_of, keys_of
from likejax.ood.hierarchy import Hierarchical, HierarchyRatio
from likejax.ood.intervals import evaluate_scores
from likejax.ood.likelihood_scores import LikelihoodRatio, NegativeLogProb, Typicality
from likejax.ood.report import Report
from likejax.ood.results import ScoreResult, SetResult, describe
from likejax.ood.score import FittedScore, Score
from likejax.progress import track
from likejax.settings import Count, CountOrZero, Probability, checked

NOT_SAID = (
    "It is not known which rows chose the weights (selected_on was not given): if some of them are "
    "among those that scores were fitted on and calibrated with, thresholds are too low and "
    "p-values too small."
)
Outside = Examples | Sequence[Examples] | Mapping[str, Examples]
"""Outside sets: one, several, or a mapping from names to sets."""
Values = dict[str, np.ndarray]
"""Scores of examples by the name of their set."""


def standard(
    density: Density,
    *,
    draws: int = 1,
    groups: Sequence[int] = (),
    background: Density | None = None,
) -> list[Score]:
    """Returns the standard scores for a density, by what it offers.

    They are the negative log-likelihood and typicality; for a density with a hierarchy of latents
    ``HierarchyRatio`` with every ``k``, since a table of outside data must not choose ``k``; and
    for a density of integer images ``InputComplexity`` with its baseline ``ComplexityOnly``.

    Args:
      density: Density that will be scored.
      draws: Number of draws per example, for every score.
      groups: Sizes of groups that typicality scores together, besides single examples.
      background: Density for a ``LikelihoodRatio``; ``None`` for no such score.

    Returns:
      Scores for ``benchmark``.

    Example:
      >>> import likejax as lj
      >>> [score.label for score in lj.ood.standard(lj.models.Uniform((2,)), groups=[5])]
      ['negative log-likelihood', 'typicality', 'typicality of 5']
    """
    check_density(density)
    scores: list[Score] = [NegativeLogProb(draws=draws), Typicality(draws=draws)]
    scores += [Typicality(group=group, draws=draws) for group in groups]
    if background is not None:
        scores.append(LikelihoodRatio(background, draws=draws))
    if isinstance(density, Hierarchical):
        scores += [HierarchyRatio(k=k, draws=draws) for k in range(1, density.depth)]
    is_image = density.levels is not None and len(density.event_shape) == 3
    if is_image:
        scores += [InputComplexity(draws=draws), ComplexityOnly()]
    return scores


def benchmark(
    density: Density,
    *,
    inside: Examples,
    outside: Outside,
    scores: Sequence[Score],
    held_out: Examples,
    key: KeyLike,
    train: Examples | None = None,
    selected_on: Examples | None = None,
    overlap_tolerance: float = 0.0,
    fpr: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 1000,
    batch_size: int = 128,
    fit: None = None,
) -> Report:
    """Fits, calibrates and compares scores; every example of every set is scored once.

    ``held_out`` is cut in two by a permutation of ``key``: scores are fitted on one half and
    calibrated with the other. Rows of it that chose the weights are left out before. What several
    scores need is computed once, with the same draws: example ``i`` of a set has the key of its
    index. All sets may be datasets or arrays ``(n, *event_shape)``.

    Args:
      density: Density that is scored.
      inside: Inside (in-distribution) examples that nothing was trained, selected or fitted on.
      outside: Outside (out-of-distribution) examples in the same representation as ``inside``: one
        set, several, or a mapping from the names that they have in the report.
      scores: Recipes, such as ``Typicality()``; ``standard(density)`` makes a list.
      held_out: Inside examples that the density was not trained on, disjoint from ``inside``.
      key: Key of the cut, the draws and the bootstrap.
      train: Examples that the density was trained on, to check that nothing overlaps.
      selected_on: Rows that chose the weights of the density or of a background. Those that are in
        ``held_out`` are left out: the weights suit them, and a threshold from them is too low.
        ``data.hold_out`` cuts a validation part before training. If it is not given, the report
        notes that it is not known.
      overlap_tolerance: Largest share of the different rows of a part that another part may share;
        0 allows none.
      fpr: False-positive rate that thresholds are calibrated to.
      confidence: Probability that an interval holds the true value.
      resamples: Number of bootstrap resamples.
      batch_size: Number of examples at a time.
      fit: Former name of ``held_out``; refused.

    Returns:
      The report.

    Raises:
      TypeError: If there is no density, dataset or score where one is due.
      ValueError: If sets are represented differently (shape, type, levels, binarization, color
        order), share rows, or a score is NaN.

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
    )
    given = {"held_out": held_out, "train": train, "selected_on": selected_on}
    inputs = _check_inputs(density, inside, outside, scores, given, options)
    keys = _Keys.of(key)
    rows = _cut(inputs.held_out, keys)
    fitted = _fit_and_calibrate(inputs, rows, keys, options)
    sets, values = _score_sets(inputs, fitted, keys, options)
    results = _evaluate(fitted, values, keys, options)
    return _assemble(inputs, rows, sets, results, as_key(key), options)


class _Options(NamedTuple):
    """Numbers that ``benchmark`` was called with."""

    overlap_tolerance: float
    fpr: float
    confidence: float
    resamples: int
    batch_size: int


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


class _Inputs(NamedTuple):
    """Arguments of ``benchmark`` that were found to fit each other.

    Attributes:
      density: Density that is scored.
      densities: All densities that the scores need, by the names that features use.
      scores: Recipes.
      sets: The inside set and then the outside sets, by the names that they have in the report.
      held_out: Rows to fit and calibrate on, none of which chose the weights.
      others: ``selected on`` and ``trained on``, as far as they are known.
      notes: Sentences for the report.
    """

    density: Density
    densities: Mapping[str, Density]
    scores: Sequence[Score]
    sets: Mapping[str, Dataset]
    held_out: Dataset
    others: Mapping[str, Dataset]
    notes: tuple[str, ...]

    def features(
        self, dataset: Dataset, key: Key[Array, ""], options: _Options, what: str
    ) -> Compute:
        """Returns a function that computes features of a set; every example has its own key."""
        keys = keys_of(key, (len(dataset),))
        size = options.batch_size
        return features_of(self.densities, dataset.examples, keys, batch_size=size, what=what)


# --- what came in


def _check_inputs(
    density: Density,
    inside: Examples,
    outside: Outside,
    scores: Sequence[Score],
    given: Mapping[str, Examples | None],
    options: _Options,
) -> _Inputs:
    """Returns what ``benchmark`` works on, if densities, scores and sets fit and share no rows."""
    check_density(density)
    inside_set = checked_dataset(inside, density, "inside")
    sets = _by_name(inside_set, _outside_sets(outside, density))
    held_out = checked_dataset(given["held_out"], density, "held_out")
    others = {}
    for name, title in (("selected_on", "selected on"), ("train", "trained on")):
        if given[name] is not None:
            others[title] = checked_dataset(given[name], density, name)
    _check_representations([*sets.values(), held_out, *others.values()])
    held_out, notes = _without_selecting_rows(held_out, others.get("selected on"))
    notes += _check_overlaps(sets, held_out, others, options.overlap_tolerance)
    _check_scores(scores, smallest=min(len(held_out) // 2, *map(len, sets.values())))
    densities = _densities_by_name(scores, density, inside_set)
    return _Inputs(density, densities, scores, sets, held_out, others, notes)


def _outside_sets(outside: Outside, density: Density) -> list[Dataset]:
    """Returns outside sets as a list; those of a mapping have its names."""
    if isinstance(outside, Dataset):
        return [outside]
    if isinstance(outside, Mapping):
        named = []
        for name, data in outside.items():
            dataset = checked_dataset(data, density, f"outside[{name!r}]")
            named.append(dataclasses.replace(dataset, name=str(name)))
        return named
    if hasattr(outside, "__array__") or hasattr(outside, "columns"):
        return [dataclasses.replace(checked_dataset(outside, density, "outside"), name="outside")]
    if not isinstance(outside, Sequence) or isinstance(outside, str):
        raise TypeError(
            "expected outside sets as a list of datasets or as a dictionary from names to "
            f"datasets, got {type(outside).__name__}"
        )
    return [checked_dataset(data, density, f"outside[{i}]") for i, data in enumerate(outside)]


def _by_name(inside: Dataset, outside: Sequence[Dataset]) -> dict[str, Dataset]:
    """Returns sets by distinct names; a changed form of the inside set is named by the change."""
    if not outside:
        raise ValueError("expected at least one outside set")
    sets = {inside.name: inside}
    for dataset in outside:
        name = dataset.name
        if name == inside.name and dataset.provenance != inside.provenance:
            name = f"{name} ({_first_difference(dataset.provenance, inside.provenance)})"
        if name in sets:
            raise ValueError(
                f"expected sets of different names, {name!r} comes twice: "
                "dataclasses.replace(dataset, name=...) gives another"
            )
        sets[name] = dataset
    return sets


def _first_difference(steps: Sequence[str], others: Sequence[str]) -> str:
    """Returns the first step that differs from another provenance, or the last step."""
    pairs = zip(steps, others, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), len(others))
    return steps[min(place, len(steps) - 1)]


def _check_representations(datasets: Sequence[Dataset]) -> None:
    """Raises a ValueError unless the density sees all sets in the same form."""
    first = datasets[0].representation()
    for dataset in datasets[1:]:
        other = dataset.representation()
        names = [name for name in first if first[name] != other[name]]
        if names:
            different = "; ".join(f"{name} {first[name]!r} and {other[name]!r}" for name in names)
            raise ValueError(
                f"expected sets in one representation, {datasets[0].name} and {dataset.name} "
                f"differ in {different}: the density would see another kind of data. Bring them to "
                "one form (invert, pad, resize, gray, reduce_levels, binarize)"
            )


def _without_selecting_rows(
    held_out: Dataset, selected_on: Dataset | None
) -> tuple[Dataset, tuple[str, ...]]:
    """Returns the rows that did not choose the weights, and what the report notes of the others.

    Raises:
      ValueError: If fewer than two are left.
    """
    if selected_on is None:
        return held_out, (NOT_SAID,)
    free = ~np.isin(row_hashes(held_out), row_hashes(selected_on))
    left_out = int((~free).sum())
    if free.sum() < 2:
        raise ValueError(
            "expected rows to fit and calibrate scores on that did not choose the weights, "
            f"{left_out} of the {len(held_out)} of {title_of(held_out)} did: "
            "likejax.data.hold_out(validation) cuts a validation part in two before training"
        )
    if left_out == 0:
        return held_out, ()
    note = f"{left_out:,} rows that chose the weights were left out of fitting and calibration."
    return held_out.take(free), (note,)


def _check_overlaps(
    sets: Mapping[str, Dataset], held_out: Dataset, others: Mapping[str, Dataset], tolerance: float
) -> tuple[str, ...]:
    """Returns a note for every overlap that the tolerance allows.

    The inside set and the parts must not overlap, and no outside set with one of them.

    Raises:
      ValueError: If there are other overlaps.
    """
    inside, *outside = sets.values()
    ours = [others[name] for name in ("trained on", "selected on") if name in others]
    ours += [held_out, inside]
    overlaps = list(check_disjoint(*ours, tolerance=tolerance))
    for dataset in outside:
        for part in ours:
            overlaps += check_disjoint(part, dataset, tolerance=tolerance)
    return tuple(f"Allowed overlap: {overlap}." for overlap in overlaps)


def _check_scores(scores: object, *, smallest: int) -> None:
    """Raises a TypeError or a ValueError unless these are recipes that a table can hold."""
    if isinstance(scores, Score | type) or not isinstance(scores, Sequence):
        raise TypeError(
            f"expected a list of scores, such as [likejax.ood.Typicality()], got {scores!r}"
        )
    for score in scores:
        _check_score(score)
        if score.group > smallest:
            raise ValueError(
                f"expected at least {score.group} examples of every set to form a group, "
                f"got {smallest}"
            )
    labels = [score.label for score in scores]
    if not labels or len(set(labels)) < len(labels):
        found = ", ".join(labels) or "none"
        raise ValueError(f"expected scores with different labels, got {found}")


def _check_score(score: object) -> None:
    """Raises a TypeError unless this is a recipe of a score."""
    if isinstance(score, type):
        name = score.__name__
        raise TypeError(f"expected scores, got the class {name}: call it, {name}()")
    if isinstance(score, FittedScore):
        label = score.recipe.label
        raise TypeError(f"expected recipes of scores, got a fitted {label!r}: pass its .recipe")
    if not isinstance(score, Score):
        name = type(score).__name__
        raise TypeError(f"expected scores, such as likejax.ood.Typicality(), got {name}")


def _densities_by_name(
    scores: Sequence[Score], density: Density, inside: Dataset
) -> dict[str, Density]:
    """Returns all densities that the scores need, by the names that features use."""
    densities: dict[str, Density] = {}
    for score in scores:
        for name, each in score.densities_of(density, inside).items():
            if densities.setdefault(name, each) is not each:
                raise ValueError(
                    f"expected one density called {name!r}: give the likelihood ratios different "
                    "titles"
                )
    return densities


# --- the work


class _Rows(NamedTuple):
    """The halves of the held-out rows."""

    to_fit: Dataset
    to_calibrate: Dataset


def _cut(held_out: Dataset, keys: _Keys) -> _Rows:
    """Cuts the held-out rows in two at random, all copies of a row in the same half."""
    order = np.asarray(jax.random.permutation(keys.cut, len(held_out)))
    return _Rows(*halves(held_out, order))


def _fit_and_calibrate(
    inputs: _Inputs, rows: _Rows, keys: _Keys, options: _Options
) -> list[FittedScore]:
    """Returns the scores, fitted on one half of the held-out rows and calibrated with the other."""
    to_fit, to_calibrate = rows
    of_fit = inputs.features(to_fit, keys.fit, options, "fitting scores")
    of_rest = inputs.features(to_calibrate, keys.calibrate, options, "calibrating scores")
    fitted = []
    for score in inputs.scores:
        densities = score.densities_of(inputs.density, to_fit)
        raw = score.fit_features(densities, of_fit, to_fit)
        grouped = _in_groups(of_rest, score.group, len(to_calibrate), keys.seed)
        fitted.append(raw.calibrate_features(grouped, to_calibrate))
    return fitted


def _score_sets(
    inputs: _Inputs, fitted: Sequence[FittedScore], keys: _Keys, options: _Options
) -> tuple[list[SetResult], dict[str, Values]]:
    """Returns the likelihood of every set, and the scores of its examples by label and set."""
    likelihood = LogProb(draws=_draws_of(inputs.scores))
    sets = []
    values: dict[str, Values] = {score.recipe.label: {} for score in fitted}
    for name, dataset in inputs.sets.items():
        compute = inputs.features(dataset, keys.test, options, f"scoring {name}")
        log_prob = np.asarray(compute(likelihood))
        sets.append(SetResult.of(dataset, name, log_prob, inputs.density))
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
    keys: _Keys,
    options: _Options,
) -> tuple[ScoreResult, ...]:
    """Returns the record of every score: the first set is the inside set."""
    results = []
    for score in track(fitted, what="intervals"):
        of_sets = values[score.recipe.label]
        inside, *outside = of_sets
        metrics = {}
        for name in outside:
            metrics[name] = evaluate_scores(
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
        )
        results.append(result)
    return tuple(results)


def _assemble(
    inputs: _Inputs,
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

"""All scores on one inside set and several outside sets: the table that a paper prints."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from likejax.data.dataset import Dataset
from likejax.data.splits import Overlap, check_disjoint, halves, row_hashes
from likejax.density import Density, check_density
from likejax.keys import KeyLike, as_key
from likejax.ood.calibrate import threshold
from likejax.ood.checks import checked_dataset
from likejax.ood.features import Compute, LogProb, features_of, keys_of
from likejax.ood.fitted import FittedScore
from likejax.ood.metrics import evaluate_scores
from likejax.ood.report import Report, ScoreResult, SetResult, describe
from likejax.ood.scores import Score
from likejax.settings import Count, CountOrZero, Probability, checked

NOT_SAID = (
    "Which rows chose the weights was not said (selected_on): if those that scores were fitted on and calibrated with "
    "did, thresholds and p-values promise too much."
)
Outside = Dataset | Sequence[Dataset] | Mapping[str, Dataset]


def benchmark(
    density: Density,
    *,
    inside: Dataset,
    outside: Outside,
    scores: Sequence[Score],
    fit: Dataset,
    key: KeyLike,
    train: Dataset | None = None,
    selected_on: Dataset | None = None,
    overlap_tolerance: float = 0.0,
    fpr: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 1000,
    batch_size: int = 128,
) -> Report:
    """Fits, calibrates and compares scores; every example of every set is scored once.

    ``fit`` is cut in two by a permutation of ``key``: one half to fit the scores on, one to calibrate them with. Rows
    of it that chose the weights are left out before. What several scores need is computed once, with the same draws:
    example ``i`` of a set has the key of its index.

    Args:
      density: The density that is scored.
      inside: Held-out inside examples.
      outside: Sets of outside examples, each in the same representation as ``inside``; one, several, or a dictionary
        of the names that they have in the report.
      scores: Recipes, such as ``Typicality()``.
      fit: Inside examples that the density was not trained on, disjoint from ``inside``.
      key: Key of the cut, the draws and the bootstrap.
      train: What the density was trained on, to check that nothing overlaps.
      selected_on: Rows that chose the weights of the density or of a background. Those that are in ``fit`` are left
        out: the weights suit them, and a threshold from them promises too much. ``data.hold_out`` cuts a validation
        part before training. If it is not given, the report says that it is not known.
      overlap_tolerance: Largest share of the different rows of a part that another part may share; 0 allows none.
      fpr: False-positive rate that thresholds are calibrated to.
      confidence: Probability that an interval holds the true value.
      resamples: Number of bootstrap resamples.
      batch_size: Examples at a time.

    Returns:
      A ``Report``.

    Raises:
      TypeError: If there is no density, dataset or score where one is due.
      ValueError: If sets are represented differently (shape, type, levels, binarization, color order), share rows, or
        a score is NaN.

    Example:
      >>> import likejax as lj
      >>> train, valid, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
      >>> histogram = lj.models.PixelHistogram.fit(train)
      >>> scores = [lj.ood.NegativeLogProb(), lj.ood.Typicality()]
      >>> report = lj.ood.benchmark(
      ...     histogram, inside=test, outside=[test.invert()], scores=scores, fit=valid, key=0, resamples=10
      ... )
      >>> report.metric("typicality", "digits (inverted)", "auroc").value > 0.99
      True
    """
    check_density(density)
    fpr, confidence = (
        checked("fpr", fpr, Probability),
        checked("confidence", confidence, Probability),
    )
    resamples, batch_size = (
        checked("resamples", resamples, CountOrZero),
        checked("batch_size", batch_size, Count),
    )
    inside = checked_dataset(inside, density, "inside")
    sets = _by_name(inside, _outside_sets(outside, density))
    parts = {"fit": checked_dataset(fit, density, "fit")}
    parts |= {} if train is None else {"train": checked_dataset(train, density, "train")}
    parts |= (
        {}
        if selected_on is None
        else {"selected_on": checked_dataset(selected_on, density, "selected_on")}
    )
    _check_representations([*sets.values(), *parts.values()])
    parts["fit"], left_out = _without_selecting_rows(parts["fit"], parts.get("selected_on"))
    overlaps = _check_overlaps(sets, parts, overlap_tolerance)
    _check_scores(scores, smallest=min(len(parts["fit"]) // 2, *map(len, sets.values())))
    densities = _densities_by_name(scores, density, inside)

    cut_key, fit_key, calibrate_key, test_key, seed_key = jax.random.split(as_key(key), 5)
    order = np.asarray(jax.random.permutation(cut_key, len(parts["fit"])))
    fitting, calibrating = halves(parts["fit"], order)
    seed = int(jax.random.randint(seed_key, (), 0, 2**31 - 1))

    def features(dataset: Dataset, set_key: jax.Array) -> Compute:
        return features_of(
            densities, dataset.examples, keys_of(set_key, (len(dataset),)), batch_size=batch_size
        )

    to_fit, to_calibrate = features(fitting, fit_key), features(calibrating, calibrate_key)
    fitted = []
    for score in scores:
        raw = score.fit_features(score.densities_of(density, fitting), to_fit, fitting)
        fitted.append(
            raw.calibrate_features(
                _in_groups(to_calibrate, score.group, len(calibrating), seed), calibrating
            )
        )
    draws = [
        f.draws
        for s in scores
        for f in s.features
        if isinstance(f, LogProb) and f.density == "density"
    ]
    likelihood = LogProb(draws=max(draws, default=1))
    results, values = [], {}
    for name, dataset in sets.items():
        compute = features(dataset, test_key)
        results.append(SetResult.of(dataset, name, np.asarray(compute(likelihood)), density))
        for score in fitted:
            grouped = _in_groups(compute, score.recipe.group, len(dataset), seed)
            values[score.recipe.label, name] = score.numbers_of(grouped, f"the set {name}")
    intervals = {"confidence": confidence, "resamples": resamples, "seed": seed}
    described = {"fitted on": fitting, "calibrated with": calibrating}
    described |= {"selected on": parts["selected_on"]} if selected_on is not None else {}
    described |= {"trained on": parts["train"]} if train is not None else {}
    return Report(
        representation=inside.representation(),
        sets=tuple(results),
        scores=tuple(_result(score, values, tuple(sets), fpr, intervals) for score in fitted),
        parts={what: describe(part) for what, part in described.items()},
        overlap_tolerance=overlap_tolerance,
        notes=(
            *_selection_note(selected_on, left_out),
            *(f"Allowed overlap: {each}." for each in overlaps),
        ),
        fpr=fpr,
        confidence=confidence,
        resamples=resamples,
        draws=likelihood.draws,
        key=np.asarray(jax.random.key_data(as_key(key))).tolist(),
        versions={name: importlib.metadata.version(name) for name in ("likejax", "jax", "numpy")},
    )


def _result(
    score: FittedScore,
    values: Mapping[tuple[str, str], np.ndarray],
    names: tuple[str, ...],
    fpr: float,
    intervals: Mapping[str, Any],
) -> ScoreResult:
    """The record of one score: the first name is the inside set, the others are outside sets."""
    label = score.recipe.label
    inside, *outside = names
    of_inside = values[label, inside]
    return ScoreResult(
        label=label,
        settings=score.recipe._settings(),
        kinds={name: each.kind.value for name, each in score.densities.items()},
        values={name: values[label, name] for name in names},
        metrics={
            name: evaluate_scores(of_inside, values[label, name], **intervals) for name in outside
        },
        calibrated_with=len(score._calibrated()),
        threshold=threshold(score._calibrated(), fpr),
    )


def _without_selecting_rows(fit: Dataset, selected_on: Dataset | None) -> tuple[Dataset, int]:
    """The rows that did not choose the weights, and how many did.

    Raises:
      ValueError: If fewer than two are left.
    """
    if selected_on is None:
        return fit, 0
    free = ~np.isin(row_hashes(fit), row_hashes(selected_on))
    left_out = int((~free).sum())
    if free.sum() < 2:
        raise ValueError(
            f"expected rows to fit and calibrate scores on that did not choose the weights, {left_out} of the "
            f"{len(fit)} of {fit.name} {fit.split} did: likejax.data.hold_out(validation) cuts a validation part in "
            "two before training"
        )
    return (fit.take(free) if left_out else fit), left_out


def _selection_note(selected_on: Dataset | None, left_out: int) -> tuple[str, ...]:
    if selected_on is None:
        return (NOT_SAID,)
    if left_out:
        return (
            f"{left_out:,} rows that chose the weights were left out of fitting and calibration.",
        )
    return ()


def _check_overlaps(
    sets: Mapping[str, Dataset], parts: Mapping[str, Dataset], tolerance: float
) -> tuple[Overlap, ...]:
    """The overlaps that the tolerance allows between the inside set and the parts, and of outside sets with each.

    Raises:
      ValueError: If there are others.
    """
    inside, *outside = sets.values()
    ours = [part for name, part in parts.items() if name != "fit"] + [parts["fit"], inside]
    overlaps = list(check_disjoint(*ours, tolerance=tolerance))
    for dataset in outside:
        for part in ours:
            overlaps += check_disjoint(part, dataset, tolerance=tolerance)
    return tuple(overlaps)


def _check_scores(scores: Any, *, smallest: int) -> None:
    """Raises a TypeError or a ValueError unless these are recipes that a table can hold."""
    if isinstance(scores, Score | type) or not isinstance(scores, Sequence):
        raise TypeError(
            f"expected a list of scores, such as [likejax.ood.Typicality()], got {scores!r}"
        )
    for score in scores:
        if isinstance(score, type):
            raise TypeError(
                f"expected scores, got the class {score.__name__}: call it, {score.__name__}()"
            )
        if isinstance(score, FittedScore):
            raise TypeError(
                f"expected recipes of scores, got a fitted {score.recipe.label!r}: pass its .recipe"
            )
        if not isinstance(score, Score):
            raise TypeError(
                f"expected scores, such as likejax.ood.Typicality(), got {type(score).__name__}"
            )
        if score.group > smallest:
            raise ValueError(
                f"expected at least {score.group} examples of every set to form a group, got {smallest}"
            )
    labels = [score.label for score in scores]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(
            f"expected scores with different labels, got {', '.join(labels) or 'none'}"
        )


def _densities_by_name(
    scores: Sequence[Score], density: Density, inside: Dataset
) -> dict[str, Density]:
    """All densities that the scores need, by the names that features use."""
    densities: dict[str, Density] = {}
    for score in scores:
        for name, each in score.densities_of(density, inside).items():
            if densities.setdefault(name, each) is not each:
                raise ValueError(
                    f"expected one density called {name!r}: give the likelihood ratios different titles"
                )
    return densities


def _outside_sets(outside: Any, density: Density) -> list[Dataset]:
    """Outside sets as a list; those of a dictionary have its names."""
    if isinstance(outside, Mapping):
        sets = [
            (name, checked_dataset(data, density, f"outside[{name!r}]"))
            for name, data in outside.items()
        ]
        return [dataclasses.replace(data, name=str(name)) for name, data in sets]
    if isinstance(outside, Dataset):
        return [outside]
    if not isinstance(outside, Sequence) or isinstance(outside, str):
        raise TypeError(
            "expected outside sets as a list of datasets or as a dictionary from names to datasets, got "
            f"{type(outside).__name__}"
        )
    return [checked_dataset(data, density, f"outside[{i}]") for i, data in enumerate(outside)]


def _by_name(inside: Dataset, outside: Sequence[Dataset]) -> dict[str, Dataset]:
    """Sets by the name that tells them apart; a changed form of the inside set is named by what changed it."""
    if not outside:
        raise ValueError("expected at least one outside set")
    sets = {inside.name: inside}
    for dataset in outside:
        name = dataset.name
        if name == inside.name and dataset.provenance != inside.provenance:
            pairs = zip(dataset.provenance, inside.provenance, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(inside.provenance))
            name = f"{name} ({dataset.provenance[min(same, len(dataset.provenance) - 1)]})"
        if name in sets:
            raise ValueError(
                f"expected sets of different names, {name!r} comes twice: dataclasses.replace(dataset, name=...) gives "
                "another"
            )
        sets[name] = dataset
    return sets


def _check_representations(datasets: Sequence[Dataset]) -> None:
    first = datasets[0].representation()
    for dataset in datasets[1:]:
        other = dataset.representation()
        different = [
            f"{name} {first[name]!r} and {other[name]!r}"
            for name in first
            if first[name] != other[name]
        ]
        if different:
            raise ValueError(
                f"expected sets in one representation, {datasets[0].name} and {dataset.name} differ in "
                f"{'; '.join(different)}: the density would see another kind of data. Bring them to one form "
                "(invert, pad, resize, gray, reduce_levels, binarize)"
            )


def _in_groups(compute: Compute, group: int, n: int, seed: int) -> Any:
    """Features of whole groups, formed at random: neighbors in a file are often of one class."""
    if group == 1:
        return compute
    count = n // group * group
    if count == 0:
        raise ValueError(f"expected at least {group} examples to form a group, got {n}")
    order = np.random.default_rng([seed, n]).permutation(n)[:count]
    return lambda feature: compute(feature)[order]

"""The input of a comparison: densities, sets and scores that fit each other and share no rows."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint, row_hashes
from likejax.density import Density, check_density
from likejax.ood.checks import Examples, checked_dataset, title_of
from likejax.ood.score import FittedScore, Score
from likejax.train.record import selection_of

NOT_SAID = (
    "It is not known which rows chose the weights (selected_on was not given): if some of them are "
    "among those that scores were fitted on and calibrated with, thresholds are too low and "
    "p-values too small."
)
NONE_SELECTED = (
    "None of the rows is among those that chose the weights, by the note of the run; rows that are "
    "read in another form than in training would not be found there."
)
Outside = Examples | Sequence[Examples] | Mapping[str, Examples]
"""Outside sets: one, several, or a mapping from names to sets."""


class Inputs(NamedTuple):
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


def check_inputs(
    density: Density,
    inside: Examples,
    outside: Outside,
    scores: Sequence[Score],
    given: Mapping[str, Examples | os.PathLike[str] | str | None],
    *,
    overlap_tolerance: float,
) -> Inputs:
    """Returns what ``benchmark`` works on, if densities, scores and sets fit and share no rows.

    Args:
      density: Density that is scored.
      inside: In-distribution examples.
      outside: Out-of-distribution sets.
      scores: Recipes of scores.
      given: Examples by the names ``held_out``, ``train`` and ``selected_on``; ``None`` for those
        that are not known. ``selected_on`` may be the directory of a run.
      overlap_tolerance: Largest share of rows that two parts may have in common.

    Raises:
      TypeError: If there is no density, dataset or score where one is due.
      ValueError: If sets are represented differently or share rows.
    """
    check_density(density)
    inside_set = checked_dataset(inside, density, "inside")
    sets = _by_name(inside_set, _outside_sets(outside, density))
    held_out = checked_dataset(given["held_out"], density, "held_out")
    if len(held_out) < 2:
        raise ValueError(
            "expected at least two held-out rows, half of them to fit scores on and half to "
            f"calibrate them with, got {len(held_out)}"
        )
    selected_on = given["selected_on"]
    if isinstance(selected_on, str | os.PathLike):
        selected_on = _rows_that_selected(selected_on, held_out, inside_set)
    others = {}
    for title, rows in (("selected on", selected_on), ("trained on", given["train"])):
        if rows is not None:
            others[title] = checked_dataset(rows, density, title)
    _check_representations([*sets.values(), held_out, *others.values()])
    if selected_on is None and given["selected_on"] is not None:
        notes = (NONE_SELECTED,)
    else:
        held_out, notes = _without_selecting_rows(held_out, others.get("selected on"))
    notes += _check_overlaps(sets, held_out, others, overlap_tolerance)
    _check_scores(scores, smallest=min(len(held_out) // 2, *map(len, sets.values())))
    densities = _densities_by_name(scores, density, inside_set)
    return Inputs(density, densities, scores, sets, held_out, others, notes)


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
    """Returns sets by distinct names; a changed form of the inside set is named by the change.

    The change is the first step that differs, or all of them where another set has that name.
    """
    if not outside:
        raise ValueError("expected at least one outside set")
    sets = {inside.name: inside}
    for dataset in outside:
        name = dataset.name
        if name == inside.name and dataset.provenance != inside.provenance:
            steps = _differences(dataset.provenance, inside.provenance)
            first = f"{name} ({steps[0]})"
            name = first if first not in sets else f"{name} ({', '.join(steps)})"
        if name in sets:
            raise ValueError(
                f"expected sets of different names, {name!r} comes twice: "
                "dataclasses.replace(dataset, name=...) gives another"
            )
        sets[name] = dataset
    return sets


def _differences(steps: Sequence[str], others: Sequence[str]) -> Sequence[str]:
    """Returns the steps from the first that differs from another provenance, or the last step."""
    pairs = zip(steps, others, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), len(others))
    return steps[min(place, len(steps) - 1) :]


def changed_forms(sets: Mapping[str, Dataset]) -> list[str]:
    """Returns the names of the outside sets that are the inside examples in a changed form.

    That is told by the steps that made them: those of the inside set are among them, in order, and
    others, and there are as many rows. Should the rows be others after all, intervals for changed
    forms are still right, since those of independent rows are a special case of them.

    Args:
      sets: Sets by name; the first is the inside set.
    """
    inside, *_ = sets.values()
    return [name for name, each in sets.items() if _is_changed_form(each, inside)]


def _is_changed_form(dataset: Dataset, inside: Dataset) -> bool:
    if len(dataset) != len(inside) or len(dataset.provenance) <= len(inside.provenance):
        return False
    steps = iter(dataset.provenance)
    return all(step in steps for step in inside.provenance)  # a subsequence


def _check_representations(datasets: Sequence[Dataset]) -> None:
    """Raises a ValueError unless the density sees all sets in the same form."""
    first = datasets[0].representation()
    for dataset in datasets[1:]:
        other = dataset.representation()
        names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if names:
            pairs = [f"{name} {first.get(name)!r} and {other.get(name)!r}" for name in names]
            different = "; ".join(pairs)
            raise ValueError(
                f"expected sets in one representation, {datasets[0].name} and {dataset.name} "
                f"differ in {different}: the density would see another kind of data. Bring them to "
                "one form (invert, pad, crop, resize, gray, reduce_levels, binarize, in names of "
                "datasets +invert, +resize:28x28, +levels:32 and so on; for tables "
                "lj.Dataset.from_table(..., columns=density.column_kinds); for arrays of another "
                "dtype x.astype(...))"
            )


def _rows_that_selected(
    run: str | os.PathLike[str], held_out: Dataset, inside: Dataset
) -> Dataset | None:
    """Returns the rows, of those that are given, that chose the weights of a run, if there are any.

    Raises:
      ValueError: If the run does not note its rows.
    """
    hashes = selection_of(run)
    if hashes is None:
        raise ValueError(
            f"expected the directory of a run as selected_on, {os.fspath(run)} has no note of the "
            "rows that chose its weights: pass these rows"
        )
    for part in (inside, held_out):  # the inside set must have none, which is checked later
        chosen = np.isin(row_hashes(part), hashes)
        if chosen.any():
            return part.take(chosen)
    return None


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

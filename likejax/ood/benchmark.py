"""All scores on one inside set and several outside sets: the table that a paper prints."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint, halves
from likejax.density import Density, KeyLike, as_key
from likejax.ood.calibrate import threshold
from likejax.ood.features import Compute, LogProb, features_of, keys_of
from likejax.ood.metrics import evaluate_scores
from likejax.ood.report import Report, ScoreResult, SetResult, describe
from likejax.ood.scores import Score


def benchmark(
    density: Density,
    *,
    inside: Dataset,
    outside: Sequence[Dataset],
    scores: Sequence[Score],
    fit: Dataset,
    key: KeyLike,
    train: Dataset | None = None,
    fpr: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 1000,
    batch_size: int = 128,
) -> Report:
    """Fits, calibrates and compares scores; every example of every set is scored once.

    ``fit`` is cut in two by a permutation of ``key``: one half to fit the scores on, one to calibrate them with. What
    several scores need is computed once, with the same draws: example ``i`` of a set has the key of its index.

    Args:
      density: The density that is scored.
      inside: Held-out inside examples.
      outside: Sets of outside examples, each in the same representation as ``inside``.
      scores: Recipes.
      fit: Inside examples that the density was not trained on, disjoint from ``inside``.
      key: Of the cut, the draws and the bootstrap.
      train: What the density was trained on, to check that nothing overlaps.
      fpr: False-positive rate that thresholds are calibrated to.
      confidence: Of the intervals.
      resamples: Of the bootstrap.
      batch_size: Examples at a time.

    Returns:
      A ``Report``.

    Raises:
      ValueError: If sets are represented differently (shape, type, levels, binarisation, colour order), share rows, or
        a score is NaN.

    Example:
      >>> import likejax as lj
      >>> train, valid, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
      >>> histogram = lj.PixelHistogram.fit(train)
      >>> scores = [lj.ood.NegativeLogProb(), lj.ood.Typicality()]
      >>> report = lj.ood.benchmark(
      ...     histogram, inside=test, outside=[test.invert()], scores=scores, fit=valid, key=0, resamples=10
      ... )
      >>> report.metric("typicality", "digits (inverted)", "auroc").value > 0.99
      True
    """
    _check_representations([inside, fit, *outside] + ([] if train is None else [train]))
    ours = [*([] if train is None else [train]), fit, inside]
    check_disjoint(*ours)
    for dataset in outside:
        for part in ours:
            check_disjoint(part, dataset)
    for name, value in (("fpr", fpr), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"expected {name} between 0 and 1, got {value}")
    smallest = min(len(fit) // 2, *map(len, (inside, *outside)))
    for score in scores:
        if score.group > smallest:
            raise ValueError(f"expected at least {score.group} examples of every set to form a group, got {smallest}")
    sets = _by_name(inside, outside)
    labels = [score.label for score in scores]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"expected scores with different labels, got {', '.join(labels) or 'none'}")
    densities: dict[str, Density] = {}
    for score in scores:
        for name, each in score.densities_of(density, inside).items():
            if densities.setdefault(name, each) is not each:
                raise ValueError(f"expected one density called {name!r}: give the likelihood ratios different titles")

    cut_key, fit_key, calibrate_key, test_key, seed_key = jax.random.split(as_key(key), 5)
    order = np.asarray(jax.random.permutation(cut_key, len(fit)))
    fitting, calibrating = halves(fit, order)
    seed = int(jax.random.randint(seed_key, (), 0, 2**31 - 1))

    def features(dataset: Dataset, set_key: jax.Array) -> Compute:
        return features_of(densities, dataset.examples, keys_of(set_key, (len(dataset),)), batch_size=batch_size)

    to_fit, to_calibrate = features(fitting, fit_key), features(calibrating, calibrate_key)
    fitted = []
    for score in scores:
        raw = score.fit_features(score.densities_of(density, fitting), to_fit, fitting)
        fitted.append(
            raw.calibrate_features(_in_groups(to_calibrate, score.group, len(calibrating), seed), calibrating)
        )
    draws = [f.draws for s in scores for f in s.features if isinstance(f, LogProb) and f.density == "density"]
    likelihood = LogProb(draws=max(draws, default=1))
    results, values = [], {}
    for name, dataset in sets.items():
        compute = features(dataset, test_key)
        results.append(SetResult.of(dataset, name, np.asarray(compute(likelihood)), density))
        for score in fitted:
            grouped = _in_groups(compute, score.recipe.group, len(dataset), seed)
            values[score.recipe.label, name] = np.asarray(score.of_features(grouped), np.float64)
    first, *others = sets
    tables = []
    for score in fitted:
        label = score.recipe.label
        inside_values = values[label, first]
        tables.append(
            ScoreResult(
                label=label,
                settings=score.recipe._settings(),
                kinds={name: each.kind.value for name, each in score.densities.items()},
                values={name: values[label, name] for name in sets},
                metrics={
                    name: evaluate_scores(
                        inside_values, values[label, name], confidence=confidence, resamples=resamples, seed=seed
                    )
                    for name in others
                },
                calibrated_with=len(score._calibrated()),
                threshold=threshold(score._calibrated(), fpr),
            )
        )
    return Report(
        representation=inside.representation(),
        sets=tuple(results),
        scores=tuple(tables),
        parts={"fitted on": describe(fitting), "calibrated with": describe(calibrating)}
        | ({} if train is None else {"trained on": describe(train)}),
        fpr=fpr,
        confidence=confidence,
        resamples=resamples,
        draws=likelihood.draws,
        key=np.asarray(jax.random.key_data(as_key(key))).tolist(),
        versions={name: importlib.metadata.version(name) for name in ("likejax", "jax", "numpy")},
    )


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
        different = [f"{name} {first[name]!r} and {other[name]!r}" for name in first if first[name] != other[name]]
        if different:
            raise ValueError(
                f"expected sets in one representation, {datasets[0].name} and {dataset.name} differ in "
                f"{'; '.join(different)}: the density would see another kind of data. Bring them to one form "
                "(invert, pad, resize, grey, reduce_levels, binarise)"
            )


def _in_groups(compute: Compute, group: int, n: int, seed: int) -> Any:
    """Features of whole groups, formed at random: neighbours in a file are often of one class."""
    if group == 1:
        return compute
    count = n // group * group
    if count == 0:
        raise ValueError(f"expected at least {group} examples to form a group, got {n}")
    order = np.random.default_rng([seed, n]).permutation(n)[:count]
    return lambda feature: compute(feature)[order]

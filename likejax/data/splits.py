"""Parts of a dataset: cut without common examples, put together, and compared."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Integer, UInt64

from likejax.data.dataset import SPLITS, Dataset, check_split
from likejax.settings import CountOrZero, Fraction, Range, checked

T = TypeVar("T")

_SEED = 20180709
"""Any fixed number: the rows of a part must be the same on every machine for ever."""
_FRACTIONS = {"train": 1.0, "validation": 0.1, "test": 0.1}
"""Sizes of the parts of a source that names none."""
_MOST_VALIDATION = 5000
"""Most rows of a validation part that is split off a training part."""


def split(
    dataset: Dataset, *, validation: float = 0.1, test: float = 0.1, seed: int = _SEED
) -> tuple[Dataset, Dataset, Dataset]:
    """Cuts a dataset into train, validation and test parts by a fixed permutation.

    All copies of an example lie in one part. The same rows give the same parts on every machine.

    Args:
      dataset: All examples.
      validation: Share of the rows for the validation part.
      test: Share of the rows for the test part.
      seed: Random seed of the permutation.

    Returns:
      The train, validation and test parts.

    Raises:
      ValueError: If the shares leave no row for a part, or there are too few different examples.

    Example:
      >>> import likejax as lj
      >>> pictures = lj.load("photographs", split="test")
      >>> [len(part) for part in lj.data.split(pictures, test=0.25)]
      [227, 35, 88]
    """
    _check_dataset(dataset)
    validation = checked("validation", validation, Fraction)
    test = checked("test", test, Fraction)
    seed = checked("seed", seed, CountOrZero)
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(
            f"expected shares above 0 that leave rows to train on, got validation={validation} and "
            f"test={test}"
        )
    fractions = {"train": 1.0, "validation": validation, "test": test}
    parts = split_by_fractions(dataset.name, dataset, fractions, seed=seed)
    if len(parts) < len(fractions):
        raise ValueError(f"expected a different example for each of three parts, got {dataset!r}")
    return parts["train"], parts["validation"], parts["test"]


def split_by_fractions(
    name: str, rows: Dataset, fractions: Mapping[str, float], *, seed: int = _SEED
) -> dict[str, Dataset]:
    """Cuts one array into disjoint parts by a fixed permutation; the first part takes what is left.

    All copies of an example lie in one part, that of the first of them; those of an example with
    more copies than the part has rows lie in the first part. Without different rows enough for
    every part, all rows are the first part.

    Args:
      name: Name of the dataset.
      rows: All examples.
      fractions: Size of every part but the first, which has the value 1 for the rest.
      seed: Random seed of the permutation.

    Returns:
      The parts by their splits.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    first, *others = fractions
    sizes = {split: max(1, round(fractions[split] * len(rows))) for split in others}
    part_of = np.zeros(len(rows), np.int64)
    end = len(rows)
    for number, split in reversed(list(enumerate(others, start=1))):
        part_of[order[max(end - sizes[split], 0) : end]] = number
        end -= sizes[split]
    together, moved = _copies_together(rows, part_of, [len(rows), *sizes.values()])
    if len(np.unique(together)) < len(fractions):
        return {first: dataclasses.replace(rows, name=name, split=first)}
    parts = {}
    for number, split in enumerate(fractions):
        taken = np.flatnonzero(together == number)
        step = f"{len(taken)} of {len(rows)} rows by the permutation of seed {seed}"
        if moved:
            step += f", rows that changed parts to lie with their copies: {moved}"
        parts[split] = dataclasses.replace(rows.take(taken, step=step), name=name, split=split)
    return _in_order(parts)


def _copies_together(
    rows: Dataset, part_of: Integer[np.ndarray, " n"], sizes: Sequence[int]
) -> tuple[Integer[np.ndarray, " n"], int]:
    """The part of each row, changed so that copies share one, and how many rows that moved."""
    _, first, group = np.unique(row_hashes(rows), return_index=True, return_inverse=True)
    copies = np.bincount(group)
    part_of_group = part_of[first]
    part_of_group[copies > np.asarray(sizes)[part_of_group]] = 0
    together = part_of_group[group]
    is_single = copies[group] == 1
    together[is_single] = part_of[is_single]
    return together, int((together != part_of).sum())


def _in_order(parts: Mapping[str, Dataset]) -> dict[str, Dataset]:
    return {split: parts[split] for split in SPLITS if split in parts}


def completed(parts: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Completes the parts of a source to train, validation and test, as far as its rows allow.

    * A source that names no parts (its one part is called ``""``), or only a training part, is cut
      in three, 80, 10 and 10 per cent.
    * Without a validation part, a tenth of train is split off, at most 5,000 rows.
    * A held-out part that is published as ``valid`` beside ``train``, without a test part, is the
      test part: that is what papers report, and selection must not touch it.
    * A source with a test part alone keeps it whole, and so does one of too few different rows, as
      its test part.

    Args:
      parts: Parts by their splits.
    """
    return _in_order(_completed(dict(parts)))


def _completed(parts: dict[str, Dataset]) -> dict[str, Dataset]:
    whole = parts.pop("", None)
    if whole is not None:
        cut = split_by_fractions(whole.name, whole, _FRACTIONS)
        return cut if len(cut) > 1 else {"test": dataclasses.replace(whole, split="test")}
    if "validation" in parts and "test" not in parts:
        held_out = parts.pop("validation")
        step = "published as the validation part, and the only held-out one: the test part here"
        provenance = (*held_out.provenance, step)
        parts["test"] = dataclasses.replace(held_out, split="test", provenance=provenance)
    if "train" not in parts or "validation" in parts:
        return parts
    train = parts.pop("train")
    if "test" not in parts:
        return split_by_fractions(train.name, train, _FRACTIONS)
    share = min(0.1, _MOST_VALIDATION / len(train))
    cut = split_by_fractions(train.name, train, {"train": 1.0, "validation": share})
    return {**cut, **parts}


def select_split(name: str, parts: Mapping[str, Dataset], split: str) -> Dataset:
    """The part called ``split``.

    Args:
      name: Name of the dataset.
      parts: Its parts by their splits.
      split: ``train``, ``validation`` or ``test``.

    Raises:
      ValueError: If there is no such part; the message names those there are.
    """
    check_split(split)
    if split in parts:
        return parts[split]
    if list(parts) == ["test"]:
        only = (
            "it has one part only, which is its test part; to train on it, cut it yourself: train, "
            "validation, test = "
            f"lj.data.split(lj.load({name!r}, split='test'))"
        )
    elif "train" in parts:
        only = f"it has too few different examples to split one off; it has {', '.join(parts)}"
    else:
        only = f"it has {', '.join(parts)}"
    raise ValueError(f"{name!r} has no {split!r} part: {only}")


def _check_dataset(dataset: object) -> None:
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"expected a lj.Dataset, got {type(dataset).__name__}: lj.Dataset.from_array(x) makes "
            "one"
        )


def row_hashes(dataset: Dataset) -> UInt64[np.ndarray, " n"]:
    """Hashes every example to 64 bits; floats in single precision.

    Args:
      dataset: Any examples.

    Returns:
      Hashes that are the same on every machine.

    Example:
      >>> import likejax as lj, numpy as np
      >>> twice = lj.data.row_hashes(lj.Dataset.from_array(np.ones((2, 3), np.float32)))
      >>> bool(twice[0] == twice[1])
      True
    """
    examples = dataset.examples
    if dataset.levels is None:
        with np.errstate(over="ignore"):
            # adding zero makes the zeros of both signs one
            examples = examples.astype(np.float32) + np.float32(0)
    rows = np.ascontiguousarray(examples).reshape(len(dataset), -1).view(np.uint8)
    digests = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, np.uint64)


class Overlap(NamedTuple):
    """Different examples that two parts share.

    Attributes:
      first: Title of a part.
      second: Title of the other.
      shared: Number of different examples that both have.
      smaller: Number of different examples of the part that has fewer.
    """

    first: str
    second: str
    shared: int
    smaller: int

    @property
    def share(self) -> float:
        """Share of the smaller part's different examples that are in the other too."""
        return self.shared / self.smaller

    def __str__(self) -> str:
        return f"{self.shared} of the {self.smaller} of {self.first} are in {self.second}"


def check_disjoint(*parts: Dataset, tolerance: float = 0.0) -> tuple[Overlap, ...]:
    """Checks that no two parts share more examples than is allowed.

    Args:
      *parts: Datasets.
      tolerance: Largest share of the different examples of the smaller part that may be in the
        other; 0 allows none, 1 allows any. Data of few different examples, such as 4x4 bars and
        stripes, need one.

    Returns:
      The overlaps that the tolerance allowed, to be reported; empty without any.

    Raises:
      ValueError: If two parts share more.

    Example:
      >>> import likejax as lj
      >>> lj.data.check_disjoint(lj.load("digits"), lj.load("digits", split="test"))
      ()
    """
    for part in parts:
        _check_dataset(part)
    titled = [(f"{part.name} {part.split}", row_hashes(part)) for part in parts]
    return check_disjoint_rows(*titled, tolerance=tolerance)


def check_disjoint_rows(
    *parts: tuple[str, UInt64[np.ndarray, " _"]], tolerance: float = 0.0
) -> tuple[Overlap, ...]:
    """Checks what ``check_disjoint`` does, of titles and ``row_hashes``.

    Different rows are counted, and compared with the smaller part, so that neither a large part nor
    repetition hides an overlap.

    Args:
      *parts: Title and hashes of each part.
      tolerance: Largest share that is allowed.

    Raises:
      ValueError: If two parts share more.
    """
    tolerance = checked(
        "the overlap tolerance", tolerance, Annotated[float, Range(at_least=0, at_most=1)]
    )
    distinct = [(title, np.unique(hashes)) for title, hashes in parts]
    allowed = []
    for one, other in itertools.combinations(distinct, 2):
        smaller, larger = sorted((other, one), key=lambda part: len(part[1]))
        shared = len(np.intersect1d(smaller[1], larger[1], assume_unique=True))
        if not shared:
            continue
        overlap = Overlap(smaller[0], larger[0], shared, len(smaller[1]))
        if overlap.share > tolerance:
            least = min(1.0, math.ceil(overlap.share * 1e4) / 1e4)
            raise ValueError(
                f"expected parts that share no examples: {overlap}; rows that a model was trained, "
                "selected or fitted "
                "on say nothing about new ones. load(name, split=...) gives parts that it splits "
                "off without overlap; "
                f"to allow this one, pass a tolerance of at least {least}"
            )
        allowed.append(overlap)
    return tuple(allowed)


def hold_out(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Cuts a part in two by a fixed permutation, all copies of a row in the same half.

    The first half of a validation part selects weights; the second is held out from that, so that
    OOD scores may be fitted and calibrated on it. The same rows give the same halves on every
    machine. For three parts of a whole dataset see ``split``.

    Args:
      dataset: At least two different examples, usually a validation part.

    Returns:
      The selecting half and the held-out half.

    Raises:
      ValueError: If there are not two different examples.

    Example:
      >>> import likejax as lj
      >>> selecting, held_out = lj.data.hold_out(lj.load("digits", split="validation"))
      >>> len(selecting), len(held_out)
      (90, 90)
    """
    _check_dataset(dataset)
    order = np.random.default_rng(_SEED).permutation(len(dataset))
    named = []
    for name, half in zip(("selecting", "held-out"), halves(dataset, order), strict=True):
        step = f"the {name} half, {len(half)} of {len(dataset)} rows"
        named.append(dataclasses.replace(half, provenance=(*dataset.provenance, step)))
    return named[0], named[1]


def halves(dataset: Dataset, order: Integer[np.ndarray, " n"]) -> tuple[Dataset, Dataset]:
    """Cuts a dataset into halves in a given order, all copies of a row in the same one.

    Args:
      dataset: At least two different examples.
      order: Permutation of the rows.

    Raises:
      ValueError: If there are not two different examples.
    """
    _, group = np.unique(row_hashes(dataset)[order], return_inverse=True)
    place = np.arange(len(order))
    first_seen = np.full(group.max() + 1, len(order))
    np.minimum.at(first_seen, group, place)
    by_group = np.argsort(first_seen[group], kind="stable")
    together = order[by_group]
    starts = first_seen[group][by_group]
    middle = len(order) // 2
    while 0 < middle < len(order) and starts[middle] == starts[middle - 1]:
        middle -= 1
    if not 0 < middle < len(order):
        raise ValueError(
            f"expected at least two different examples to cut in halves, got {dataset!r}"
        )
    return dataset.take(np.sort(together[:middle])), dataset.take(np.sort(together[middle:]))


def concatenate(datasets: Sequence[Dataset], *, name: str | None = None) -> Dataset:
    """Puts the examples of several datasets into one.

    Args:
      datasets: Datasets of one representation: shape, levels, and the same names of classes and
        columns if they have any.
      name: Name of the result; that of the first dataset if not given.

    Returns:
      All rows in order, as a part of the same split as the first. Labels, weights and conditions
      that a dataset lacks are left out of all, which the provenance says.

    Raises:
      TypeError: If something else than datasets is given.
      ValueError: If there are none, or they do not fit together.

    Example:
      >>> import likejax as lj
      >>> parts = [lj.load("digits"), lj.load("digits", split="validation")]
      >>> len(lj.data.concatenate(parts))
      1438
    """
    parts = list(datasets)
    if not parts:
        raise ValueError("expected datasets to concatenate, got none")
    for part in parts:
        _check_dataset(part)
        _check_alike(parts[0], part)
    provenance = [
        f"{len(part)} rows of {part.name} {part.split} ({'; '.join(part.provenance)})"
        for part in parts
    ]
    arrays = {}
    for attribute in ("labels", "weights", "conditions"):
        values = [getattr(part, attribute) for part in parts]
        if all(value is not None for value in values):
            arrays[attribute] = np.concatenate(values)
        elif any(value is not None for value in values):
            provenance.append(f"{attribute} left out, which not all parts have")
    first = parts[0]
    examples = np.concatenate([part.examples for part in parts])
    rows = Dataset.from_array(examples, levels=first.levels, **arrays)
    return dataclasses.replace(
        first,
        name=first.name if name is None else name,
        examples=rows.examples,
        labels=rows.labels,
        weights=rows.weights,
        conditions=rows.conditions,
        provenance=tuple(provenance),
        class_names=_shared([part.class_names for part in parts]),
        columns=_shared([part.columns for part in parts]),
        column_kinds=_shared([part.column_kinds for part in parts]),
        alphabet=first.alphabet if len({part.alphabet for part in parts}) == 1 else None,
    )


def _shared(names: Sequence[tuple[T, ...] | None]) -> tuple[T, ...] | None:
    """Names, or kinds, that all parts have, else ``None``."""
    return names[0] if len(set(names)) == 1 else None


def _check_alike(first: Dataset, other: Dataset) -> None:
    """Refuses two datasets whose rows do not belong into one array; floats may be of two types."""
    one, two = first.representation(), other.representation()
    compared = [name for name in one if name not in ("dtype", "columns", "alphabet")]
    different = [name for name in compared if one[name] != two[name]]
    found = [f"{name} {one[name]} and {two[name]}" for name in different]
    for name in ("class_names", "columns", "column_kinds", "alphabet"):
        mine, theirs = getattr(first, name), getattr(other, name)
        if mine is not None and theirs is not None and mine != theirs:
            found.append(f"{name} {mine} and {theirs}")
    if first.conditions is not None and other.conditions is not None:
        mine, theirs = first.conditions.shape[1:], other.conditions.shape[1:]
        if mine != theirs:
            found.append(f"the shape of conditions {mine} and {theirs}")
    if found:
        raise ValueError(
            f"expected datasets of one representation to concatenate, {first!r} and {other!r} "
            "differ in "
            f"{'; '.join(found)}"
        )

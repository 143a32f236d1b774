"""Parts of a dataset: what a source provides, and how a validation part is carved where it has none."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np

from likejax.data.dataset import SPLITS, Dataset, check_split
from likejax.settings import Range, checked

_CARVING_SEED = (
    20180709  # any fixed number: the carved rows must be the same on every machine for ever
)


_FRACTIONS = {"train": 1.0, "validation": 0.1, "test": 0.1}
"""How a source that names no parts is cut."""
_MOST_CARVED = 5000
"""Most rows of a validation part that is carved from a training part."""


def carve(
    name: str, rows: Dataset, fractions: Mapping[str, float], *, seed: int = _CARVING_SEED
) -> dict[str, Dataset]:
    """Cuts one array into disjoint parts by a fixed permutation; the first part takes what is left.

    All copies of an example lie in one part, that of the first of them; those of an example with more copies than the
    part has rows lie in the first part. Without different rows enough for every part, all rows are the first part.

    Args:
      name: Name of the dataset.
      rows: All examples.
      fractions: Size of every part but the first, which has the value 1 for the rest.
      seed: Seed of the permutation.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    first, *others = fractions
    part_of, end = np.zeros(len(rows), np.int64), len(rows)
    sizes = {split: max(1, round(fractions[split] * len(rows))) for split in others}
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
        step += f", rows that changed parts to lie with their copies: {moved}" if moved else ""
        parts[split] = dataclasses.replace(rows.take(taken, step=step), name=name, split=split)
    return {split: parts[split] for split in SPLITS if split in parts}


def _copies_together(
    rows: Dataset, part_of: np.ndarray, sizes: Sequence[int]
) -> tuple[np.ndarray, int]:
    """The part of each row, changed so that copies share one, and how many rows that moved."""
    _, first, group = np.unique(row_hashes(rows), return_index=True, return_inverse=True)
    copies = np.bincount(group)
    part_of_group = part_of[first]
    part_of_group[copies > np.asarray(sizes)[part_of_group]] = 0
    together = part_of_group[group]
    single = copies[group] == 1
    together[single] = part_of[single]
    return together, int((together != part_of).sum())


def completed(parts: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The parts of a source as train, validation and test, as far as its rows allow; each carving is noted.

    * A source that names no parts (its one part is called ``""``), or only a training part, is cut in three, 80, 10
      and 10 per cent.
    * Without a validation part, a tenth of train is carved off, at most 5,000 rows.
    * A held-out part that is published as ``valid`` beside ``train``, without a test part, is the test part: that is
      what papers report, and selection must not touch it.
    * A source with a test part alone keeps it whole, and so does one of too few different rows, as its test part.
    """
    found = _completed(dict(parts))
    return {split: found[split] for split in SPLITS if split in found}


def _completed(parts: dict[str, Dataset]) -> dict[str, Dataset]:
    whole = parts.pop("", None)
    if whole is not None:
        carved = carve(whole.name, whole, _FRACTIONS)
        return carved if len(carved) > 1 else {"test": dataclasses.replace(whole, split="test")}
    if "validation" in parts and "test" not in parts:
        held_out = parts.pop("validation")
        step = "published as the validation part, and the only held-out one: the test part here"
        provenance = (*held_out.provenance, step)
        parts["test"] = dataclasses.replace(held_out, split="test", provenance=provenance)
    if "train" not in parts or "validation" in parts:
        return parts
    train = parts.pop("train")
    if "test" not in parts:
        return carve(train.name, train, _FRACTIONS)
    carved = carve(
        train.name, train, {"train": 1.0, "validation": min(0.1, _MOST_CARVED / len(train))}
    )
    return {**carved, **parts}


def _check_dataset(dataset: object) -> None:
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"expected a lj.Dataset, got {type(dataset).__name__}: lj.Dataset.from_array(x) makes one"
        )


def row_hashes(dataset: Dataset) -> np.ndarray:
    """A stable 64-bit hash of every example, ``uint64`` of shape ``(n,)``; of floats in single precision."""
    examples = dataset.examples
    if dataset.levels is None:
        with np.errstate(over="ignore"):
            examples = examples.astype(np.float32) + np.float32(
                0
            )  # the zeros of both signs are one
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
    """Raises a ValueError if two parts share more examples than is allowed.

    Args:
      parts: Datasets.
      tolerance: Largest share of the different examples of the smaller part that may be in the other; 0 allows none,
        1 allows any. Data of few different examples, such as 4x4 bars and stripes, need one.

    Returns:
      The overlaps that the tolerance allowed, to be reported; empty without any.
    """
    for part in parts:
        _check_dataset(part)
    return check_disjoint_rows(
        *((f"{part.name} {part.split}", row_hashes(part)) for part in parts), tolerance=tolerance
    )


def check_disjoint_rows(
    *parts: tuple[str, np.ndarray], tolerance: float = 0.0
) -> tuple[Overlap, ...]:
    """``check_disjoint`` of titles and ``row_hashes``.

    Different rows are counted, and compared with the smaller part, so that neither a large part nor repetition hides
    an overlap.
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
            raise ValueError(
                f"expected parts that share no examples: {overlap}; rows that a model was trained, selected or fitted "
                "on say nothing about new ones. load(name, split=...) gives parts that it carves without overlap; to "
                f"allow this one, pass a tolerance of at least {_rounded_up(overlap.share)}"
            )
        allowed.append(overlap)
    return tuple(allowed)


def _rounded_up(share: float) -> float:
    return min(1.0, math.ceil(share * 1e4) / 1e4)


def halves(dataset: Dataset, order: np.ndarray) -> tuple[Dataset, Dataset]:
    """Two halves in the order of a permutation, all copies of a row in the same one."""
    _, group = np.unique(row_hashes(dataset)[order], return_inverse=True)
    first_seen = np.full(group.max() + 1, len(order))
    np.minimum.at(first_seen, group, np.arange(len(order)))
    together = order[np.argsort(first_seen[group], kind="stable")]
    starts = first_seen[group][np.argsort(first_seen[group], kind="stable")]
    middle = len(order) // 2
    while 0 < middle < len(order) and starts[middle] == starts[middle - 1]:
        middle -= 1
    if not 0 < middle < len(order):
        raise ValueError(
            f"expected at least two different examples to cut in halves, got {dataset!r}"
        )
    return dataset.take(np.sort(together[:middle])), dataset.take(np.sort(together[middle:]))


def hold_out(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Cuts a part in two by a fixed permutation, all copies of a row in the same half.

    Of a validation part: the first half selects weights, the second is held out from that, so that OOD scores may be
    fitted and calibrated on it. The same rows give the same halves on every machine.

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
    selecting, held_out = halves(
        dataset, np.random.default_rng(_CARVING_SEED).permutation(len(dataset))
    )

    def told(name: str, half: Dataset) -> Dataset:
        step = f"the {name} half, {len(half)} of {len(dataset)} rows"
        return dataclasses.replace(half, provenance=(*dataset.provenance, step))

    return told("selecting", selecting), told("held-out", held_out)


def pick(name: str, parts: Mapping[str, Dataset], split: str) -> Dataset:
    """The part called ``split``.

    Raises:
      ValueError: If there is no such part; the message says which there are.
    """
    check_split(split)
    if split in parts:
        return parts[split]
    if list(parts) == ["test"]:
        only = "it has one part only, which is its test part"
    elif "train" in parts:
        only = f"it has too few different examples to carve one; it has {', '.join(parts)}"
    else:
        only = f"it has {', '.join(parts)}"
    raise ValueError(f"{name!r} has no {split!r} part: {only}")

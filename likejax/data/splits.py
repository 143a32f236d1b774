"""Parts of a dataset: what a source provides, and how a validation part is carved where it has none."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from likejax.data.dataset import Dataset

SPLITS = ("train", "validation", "test")
_CARVING_SEED = 20180709  # any fixed number: the carved rows must be the same on every machine for ever


def carve(name: str, rows: Dataset, fractions: Mapping[str, float], *, seed: int = _CARVING_SEED) -> dict[str, Dataset]:
    """Cuts one array into disjoint parts by a fixed permutation; the first part takes what is left.

    Args:
      name: Of the dataset.
      rows: All examples.
      fractions: Size of every part but the first, which has the value 1 for the rest.
      seed: Of the permutation.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    parts, end = {}, len(rows)
    for split in reversed(list(fractions)):
        size = end if split == next(iter(fractions)) else round(fractions[split] * len(rows))
        taken = np.sort(order[end - size : end])
        step = f"{size} of {len(rows)} rows by the permutation of seed {seed}"
        parts[split] = dataclasses.replace(rows.take(taken, step=step), name=name, split=split)
        end -= size
    return {split: parts[split] for split in SPLITS if split in parts}


def with_validation(parts: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The parts with a validation part: the source's own, or a tenth of train, at most 5,000 rows."""
    if "train" not in parts or "validation" in parts:
        return dict(parts)
    train = parts["train"]
    carved = carve(train.name, train, {"train": 1.0, "validation": min(0.1, 5000 / len(train))})
    return {**carved, **{split: part for split, part in parts.items() if split != "train"}}


def row_hashes(dataset: Dataset) -> np.ndarray:
    """A stable 64-bit hash of every example, ``uint64`` of shape ``(n,)``."""
    rows = np.ascontiguousarray(dataset.examples).reshape(len(dataset), -1).view(np.uint8)
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
    return check_disjoint_rows(
        *((f"{part.name} {part.split}", row_hashes(part)) for part in parts), tolerance=tolerance
    )


def check_disjoint_rows(*parts: tuple[str, np.ndarray], tolerance: float = 0.0) -> tuple[Overlap, ...]:
    """``check_disjoint`` of titles and ``row_hashes``.

    Different rows are counted, and compared with the smaller part, so that neither a large part nor repetition hides
    an overlap.
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"expected an overlap tolerance between 0 and 1, got {tolerance}")
    distinct = [(title, np.unique(hashes)) for title, hashes in parts]
    allowed = []
    for one, other in itertools.combinations(distinct, 2):
        smaller, larger = sorted((one, other), key=lambda part: len(part[1]))
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
        raise ValueError(f"expected at least two different examples to cut in halves, got {dataset!r}")
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
    selecting, held_out = halves(dataset, np.random.default_rng(_CARVING_SEED).permutation(len(dataset)))

    def told(name: str, half: Dataset) -> Dataset:
        step = f"the {name} half, {len(half)} of {len(dataset)} rows"
        return dataclasses.replace(half, provenance=(*dataset.provenance, step))

    return told("selecting", selecting), told("held-out", held_out)


def pick(name: str, parts: Mapping[str, Dataset], split: str) -> Dataset:
    """The part called ``split``.

    Raises:
      ValueError: If there is no such part; the message says which there are.
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    if split not in parts:
        only = "it has one part only, which is its test part" if list(parts) == ["test"] else ", ".join(parts)
        raise ValueError(f"{name!r} has no {split!r} part: {only}")
    return parts[split]

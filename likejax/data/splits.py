"""Parts of a dataset: what a source provides, and how a validation part is carved where it has none."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping

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


def check_disjoint(*parts: Dataset) -> None:
    """Raises a ValueError if two parts share examples, beyond what repetition in the data explains."""
    check_disjoint_rows(*((f"{part.name} {part.split}", row_hashes(part)) for part in parts))


def check_disjoint_rows(*parts: tuple[str, np.ndarray]) -> None:
    """``check_disjoint`` of names and ``row_hashes``.

    Distinct rows are counted, and compared with the smaller part, so that neither a large part nor repetition hides
    an overlap. Exact repetitions are common in some data (blank pages, coarse tables): allowed are two per cent and
    twice the share of a part that repeats itself, at most half, and two rows between parts of at least twenty.
    """
    for (name, first), (other, second) in itertools.combinations(parts, 2):
        distinct = np.unique(first), np.unique(second)
        shared = len(np.intersect1d(*distinct, assume_unique=True))
        repeated = max(1 - len(d) / len(part) for d, part in zip(distinct, (first, second), strict=True))
        smaller, larger = (name, other) if len(distinct[0]) < len(distinct[1]) else (other, name)
        count = min(map(len, distinct))
        chance = 2 if min(len(first), len(second)) >= 20 else 0
        if shared > max(chance, min(0.5, 0.02 + 2 * repeated) * count):
            raise ValueError(
                f"expected parts that share no examples: {shared} of the {count} of {smaller} are in {larger}; "
                "rows that a model was trained, selected or fitted on say nothing about new ones. "
                "load(name, split=...) gives parts that do not overlap"
            )


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

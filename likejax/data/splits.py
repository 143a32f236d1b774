"""Parts of a dataset: what a source provides, and how a validation part is carved where it has none."""

from __future__ import annotations

import dataclasses
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

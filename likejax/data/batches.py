"""Endless shuffled batches whose position is three integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Num

from likejax.data.augment import AUGMENTATIONS
from likejax.data.dataset import Dataset


class Batch(NamedTuple):
    """Examples ``(n, *event_shape)`` and their labels as conditions, if the model is conditional."""

    x: Num[np.ndarray, "n ..."]
    condition: Integer[np.ndarray, " n"] | None


class Position(NamedTuple):
    """Where a stream of batches stands: everything that a resumed run needs."""

    seed: int
    epoch: int
    row: int


class Batches(Iterator[Batch]):
    """Batches of one size for ever; each epoch visits every example once, in an order of ``(seed, epoch)``.

    A batch may end one epoch and begin the next, so no example is ever dropped.

    Args:
      dataset: Source of the examples.
      batch_size: Examples per batch.
      position: Where to begin.
      labelled: Whether batches carry the labels as conditions.
      augment: Names of augmentations, applied in order.

    Raises:
      ValueError: If labels are asked for and there are none, or an augmentation is unknown.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        position: Position,
        labelled: bool = False,
        augment: Sequence[str] = (),
    ):
        if labelled and dataset.labels is None:
            raise ValueError(f"expected labels for a conditional model, dataset {dataset.name!r} has none")
        unknown = [name for name in augment if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(f"unknown augmentation {unknown[0]!r}; there are {', '.join(AUGMENTATIONS)}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.position = Position(*position)
        self._labels = dataset.labels if labelled else None
        self._augment = [AUGMENTATIONS[name] for name in augment]
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        return np.random.default_rng([self.position.seed, self.position.epoch]).permutation(len(self.dataset))

    def _rows(self) -> np.ndarray:
        taken: list[np.ndarray] = []
        missing = self.batch_size
        while missing:
            seed, epoch, row = self.position
            rows = self._order[row : row + missing]
            taken.append(rows)
            missing -= len(rows)
            self.position = Position(seed, epoch, row + len(rows))
            if row + len(rows) == len(self.dataset):
                self.position = Position(seed, epoch + 1, 0)
                self._order = self._shuffled()
        return np.concatenate(taken)

    def __next__(self) -> Batch:
        rng = np.random.default_rng([*self.position, 1])
        rows = self._rows()
        x = self.dataset.examples[rows]
        for augment in self._augment:
            x = augment(x, rng)
        return Batch(x, None if self._labels is None else self._labels[rows])

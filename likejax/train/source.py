"""Where a run's training batches come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from likejax.data.batches import Batches, DatasetBatches, IterableBatches, Position
from likejax.data.dataset import Dataset
from likejax.experiment import Experiment


class Source:
    """Where training examples come from: a dataset, or an iterable whose first item says what the others are."""

    def __init__(self, experiment: Experiment, train: Dataset | Iterable[Any]):
        self._experiment = experiment
        self._train = train
        if isinstance(train, Dataset):
            self.examples = train.binarise(0) if experiment.binarises and train.levels != 2 else train
            return
        if experiment.binarises:
            raise ValueError("expected a Dataset to binarise: an iterable gives zeros and ones itself, without augment")
        if not isinstance(train, Iterable):
            raise TypeError(f"expected a Dataset or an iterable of arrays to train on, got {type(train).__name__}")
        items = iter(train)
        first = next(items, None)
        if first is None:
            raise ValueError("expected training examples, the iterable gives none")
        if items is train:  # used up by looking: what was taken goes back to the front
            self._train = _Again(first, items)
        x, labels = first if isinstance(first, tuple | list) and len(first) == 2 else (first, None)
        levels = getattr(experiment.model, "levels", None)
        self.examples = Dataset.from_array(x, levels=levels, labels=labels, name="iterable")

    def fingerprint(self) -> str | None:
        """Of a dataset; an iterable has none."""
        return self._train.fingerprint() if isinstance(self._train, Dataset) else None

    def batches(self, position: Position, *, labelled: bool) -> Batches:
        """The stream of this process's parts of batches."""
        size, augment = self._experiment.batch_size, self._experiment.augment
        part = jax.process_index(), jax.process_count()
        options: dict[str, Any] = {"position": position, "labelled": labelled, "augment": augment, "part": part}
        if isinstance(self._train, Dataset):
            return DatasetBatches(self._train, size, **options)
        return IterableBatches(self._train, size, like=self.examples, **options)


class _Again:
    """An iterator with its first item put back."""

    def __init__(self, first: Any, rest: Any):
        self._first, self._rest = [first], rest

    def __iter__(self) -> _Again:
        return self

    def __next__(self) -> Any:
        return self._first.pop() if self._first else next(self._rest)

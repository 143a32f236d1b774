"""Source of a run's training batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from likejax.data.augment import augmentation
from likejax.data.batches import (
    Batches,
    DatasetBatches,
    IterableBatches,
    Position,
    as_examples,
)
from likejax.data.dataset import Dataset, as_dataset
from likejax.data.splits import concatenate
from likejax.density import Density
from likejax.experiment import Experiment


class Source:
    """Source of training examples: a dataset, an array or an iterable.

    Args:
      experiment: What is trained, and how batches are augmented.
      train: A dataset, an array or an iterable.

    Attributes:
      examples: The dataset; of an iterable its first rows, as many as initialization asks for.

    Raises:
      TypeError: If ``train`` is none of these.
      ValueError: If there are no examples, or they cannot be augmented as asked.
    """

    def __init__(self, experiment: Experiment, train: Any):
        self._experiment = experiment
        self._levels = levels_of(experiment.model)
        if is_array(train):
            train = array_dataset(experiment, train)
        if isinstance(train, Dataset):
            self._train: Any = train
            self._check_augmentation(train)
            self.examples = train.binarize(0) if experiment.binarizes else train
            return
        if experiment.binarizes:
            raise ValueError(
                "expected a Dataset to binarize: an iterable gives zeros and ones itself, without "
                "augment"
            )
        if isinstance(train, str | bytes) or not isinstance(train, Iterable):
            raise TypeError(
                "expected a Dataset or an iterable of arrays to train on, got "
                f"{type(train).__name__}; "
                "lj.load(name) gives a dataset by its name"
            )
        items = iter(train)
        taken = self._first_items(items)
        # what an iterator was used up by looking goes back to its front; others are iterated anew
        self._train = (
            itertools.chain([item for item, _ in taken], items) if items is train else train
        )
        self.examples = concatenate([examples for _, examples in taken])
        self._check_augmentation(self.examples)

    @property
    def dataset(self) -> Dataset | None:
        """The training data as a dataset; ``None`` for an iterable."""
        return self._train if isinstance(self._train, Dataset) else None

    def _first_items(self, items: Iterator[Any]) -> list[tuple[Any, Dataset]]:
        """Items with as many rows as initialization needs; a ready density needs one row."""
        model = self._experiment.model
        wanted = 1 if isinstance(model, Density) else self._experiment.initialize_with or 256
        shape = getattr(model, "event_shape", None)
        taken: list[tuple[Any, Dataset]] = []
        while sum(len(examples) for _, examples in taken) < wanted:
            item = next(items, None)
            if item is None:
                break
            taken.append((item, as_examples(item, levels=self._levels, event_shape=shape)))
            shape = taken[0][1].event_shape
        if not taken:
            raise ValueError("expected training examples, the iterable gives none")
        return taken

    def _check_augmentation(self, examples: Dataset) -> None:
        """Refuses what cannot be done to these examples, before anything is built."""
        for spec in self._experiment.augment:
            augmentation(spec, levels=examples.levels)
            name = spec.partition(":")[0]
            if name in ("flip", "shift") and len(examples.event_shape) != 3:
                raise ValueError(
                    f"expected images (height, width, channels) to augment by {name}, got "
                    "examples of shape "
                    f"{examples.event_shape}: leave {name} out of Experiment.augment"
                )
            if name == "binarize" and examples.levels == 2:
                raise ValueError(
                    f"expected gray images to binarize, {examples.name!r} has 2 levels already: "
                    "leave binarize out of "
                    "Experiment.augment"
                )

    def fingerprints(self) -> list[str | None]:
        """Returns hashes of the data: that of this version, then those of older ones."""
        if not isinstance(self._train, Dataset):
            return [None]
        return fingerprints(self._train)

    def batches(self, position: Position, *, labeled: bool, num_classes: int | None) -> Batches:
        """The stream of this process's parts of batches."""
        size, augment = self._experiment.batch_size, self._experiment.augment
        part = jax.process_index(), jax.process_count()
        options: dict[str, Any] = {
            "position": position,
            "labeled": labeled,
            "augment": augment,
            "part": part,
        }
        if isinstance(self._train, Dataset):
            return DatasetBatches(self._train, size, **options)
        return IterableBatches(
            self._train, size, like=self.examples, num_classes=num_classes, **options
        )


def array_dataset(experiment: Experiment, data: Any) -> Dataset:
    """A dataset as it is, or one of an array for the experiment's model."""
    if experiment.binarizes and not isinstance(data, Dataset):
        return Dataset.from_array(data)  # gray: the model has other levels
    shape = getattr(experiment.model, "event_shape", None)
    return as_dataset(data, levels=levels_of(experiment.model), event_shape=shape)


def is_array(data: Any) -> bool:
    """Whether the rows of ``data`` are examples, rather than items of many."""
    return hasattr(data, "__array__")


def fingerprints(dataset: Dataset) -> list[str | None]:
    """Hashes of a dataset that records of runs may hold, that of this version first."""
    return list(dict.fromkeys([dataset.fingerprint(), dataset.examples_fingerprint()]))


def levels_of(model: Any) -> int | None:
    """Returns the number of integer values of an entry; ``None`` for continuous data.

    Args:
      model: A config or a density.
    """
    return getattr(model, "levels", None) or None

"""Sources of a run's training batches: a dataset or an iterable."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax

from likejax.data.augment import augmentation
from likejax.data.batches import Batches, DatasetBatches, IterableBatches, Position, as_examples
from likejax.data.dataset import Dataset, as_dataset
from likejax.data.splits import concatenate
from likejax.density import Density
from likejax.experiment import Experiment


class DatasetSource:
    """Source of batches of a dataset.

    Args:
      dataset: Raw training examples.
      batch_size: Examples per batch, over all processes.
      augment: Names of augmentations, applied in order.

    Attributes:
      dataset: Raw training examples.
      examples: Examples as the density sees them: binarized once if the batches are binarized.

    Raises:
      ValueError: If the examples cannot be augmented as asked.
    """

    def __init__(self, dataset: Dataset, *, batch_size: int, augment: Sequence[str]):
        _check_augmentation(augment, dataset)
        self.dataset = dataset
        self.examples = dataset.binarize(0) if "binarize" in augment else dataset
        self._batch_size = batch_size
        self._augment = augment

    def fingerprints(self) -> list[str | None]:
        """Returns hashes of the data: that of this version, then those of older ones."""
        return fingerprints(self.dataset)

    def batches(self, position: Position, density: Density) -> Batches:
        """Returns the stream of this process's parts of batches.

        Args:
          position: Position to begin at.
          density: Density that is trained; if it is conditional, batches carry the labels or
            the conditions.
        """
        return DatasetBatches(
            self.dataset,
            self._batch_size,
            position=position,
            condition_shape=density.condition_shape,
            augment=self._augment,
            part=_part(),
        )


class IterableSource:
    """Source of batches of an iterable, whose first items are looked at.

    Args:
      items: Iterable of arrays, pairs, triples or mappings; see ``likejax.fit``.
      batch_size: Examples per batch, over all processes.
      augment: Names of augmentations, applied in order.
      rows: Number of rows to look at.
      levels: Number of integer values of an entry; ``None`` for continuous data.
      event_shape: Shape of every example; ``None`` for that of the first.

    Attributes:
      dataset: ``None``: the examples are not known as a whole.
      examples: The first rows as a dataset.

    Raises:
      ValueError: If there are no examples, or they cannot be augmented as asked.
    """

    dataset: Dataset | None = None

    def __init__(
        self,
        items: Iterable[Any],
        *,
        batch_size: int,
        augment: Sequence[str],
        rows: int,
        levels: int | None,
        event_shape: tuple[int, ...] | None,
    ):
        iterator = iter(items)
        seen, examples = _first_items(iterator, rows, levels=levels, event_shape=event_shape)
        # An iterator is used up by looking, so its items go back to its front. Any other iterable
        # is iterated anew.
        self._items = itertools.chain(seen, iterator) if iterator is items else items
        self.examples = concatenate(examples)
        _check_augmentation(augment, self.examples)
        self._batch_size = batch_size
        self._augment = augment

    def fingerprints(self) -> list[str | None]:
        """Returns ``[None]``: the data of an iterable are not known as a whole."""
        return [None]

    def batches(self, position: Position, density: Density) -> Batches:
        """Returns the stream of this process's parts of batches.

        Args:
          position: Position to begin at; the rows before it are drawn and dropped.
          density: Density that is trained; if it is conditional, batches carry the labels, which
            are checked against its number of classes, or the conditions.
        """
        return IterableBatches(
            self._items,
            self._batch_size,
            like=self.examples,
            num_classes=density.num_classes,
            position=position,
            condition_shape=density.condition_shape,
            augment=self._augment,
            part=_part(),
        )


Source = DatasetSource | IterableSource
"""Source of training batches."""


def open_source(experiment: Experiment, train: Any) -> Source:
    """Returns the source of training examples: of a dataset, an array or an iterable.

    Args:
      experiment: Experiment that is run.
      train: A dataset, an array or an iterable.

    Raises:
      TypeError: If ``train`` is none of these.
      ValueError: If there are no examples, or they cannot be augmented as asked.
    """
    if is_array(train):
        train = array_dataset(experiment, train)
    if isinstance(train, Dataset):
        return DatasetSource(train, batch_size=experiment.batch_size, augment=experiment.augment)
    if experiment.binarizes:
        raise ValueError(
            "expected a Dataset to binarize: an iterable gives zeros and ones itself, without "
            "augment"
        )
    if isinstance(train, str | bytes) or not isinstance(train, Iterable):
        raise TypeError(
            "expected a Dataset or an iterable of arrays to train on, got "
            f"{type(train).__name__}; lj.load(name) gives a dataset by its name"
        )
    model = experiment.model
    is_ready = isinstance(model, Density)  # one row is enough: nothing is initialized from data
    return IterableSource(
        train,
        batch_size=experiment.batch_size,
        augment=experiment.augment,
        rows=1 if is_ready else experiment.initialize_with or 256,
        levels=levels_of(model),
        event_shape=getattr(model, "event_shape", None),
    )


def _first_items(
    items: Iterator[Any], rows: int, *, levels: int | None, event_shape: tuple[int, ...] | None
) -> tuple[list[Any], list[Dataset]]:
    """Items from the front until they have so many rows, and their examples."""
    seen: list[Any] = []
    examples: list[Dataset] = []
    while sum(map(len, examples)) < rows:
        item = next(items, None)
        if item is None:
            break
        seen.append(item)
        examples.append(as_examples(item, levels=levels, event_shape=event_shape))
        event_shape = examples[0].event_shape
    if not examples:
        raise ValueError("expected training examples, the iterable gives none")
    return seen, examples


def _check_augmentation(augment: Sequence[str], examples: Dataset) -> None:
    """Refuses what cannot be done to these examples, before anything is built."""
    for spec in augment:
        augmentation(spec, levels=examples.levels)
        name = spec.partition(":")[0]
        if name in ("flip", "shift") and len(examples.event_shape) != 3:
            raise ValueError(
                f"expected images (height, width, channels) to augment by {name}, got examples of "
                f"shape {examples.event_shape}: leave {name} out of Experiment.augment"
            )
        if name == "binarize" and examples.levels == 2:
            raise ValueError(
                f"expected gray images to binarize, {examples.name!r} has 2 levels already: leave "
                "binarize out of Experiment.augment"
            )


def _part() -> tuple[int, int]:
    """Index of this process, and number of processes."""
    return jax.process_index(), jax.process_count()


def array_dataset(experiment: Experiment, data: Any) -> Dataset:
    """Returns a dataset as it is, or the dataset of an array for the experiment's model.

    Args:
      experiment: Experiment whose model gives levels and shape.
      data: A dataset or an array ``(n, *event_shape)``.

    Raises:
      TypeError: If the entries are of another type than the model needs.
      ValueError: If the examples have another shape or leave the levels.
    """
    if experiment.binarizes and not isinstance(data, Dataset):
        return Dataset.from_array(data)  # gray: the model has other levels
    shape = getattr(experiment.model, "event_shape", None)
    return as_dataset(data, levels=levels_of(experiment.model), event_shape=shape)


def is_array(data: object) -> bool:
    """Returns whether the rows of ``data`` are examples, rather than items of many.

    Args:
      data: Any object.
    """
    return hasattr(data, "__array__") or _are_nested_numbers(data)


def _are_nested_numbers(data: object) -> bool:
    """Whether these are lists of lists of numbers, told by the first of each."""
    depth = 0
    while isinstance(data, list) and data:
        data, depth = data[0], depth + 1
    return depth > 1 and isinstance(data, int | float)


def fingerprints(dataset: Dataset) -> list[str | None]:
    """Returns the hashes that records of runs may hold of a dataset, that of this version first.

    Args:
      dataset: Any dataset.
    """
    return list(dict.fromkeys([dataset.fingerprint(), dataset.examples_fingerprint()]))


def levels_of(model: object) -> int | None:
    """Returns the number of integer values of an entry; ``None`` for continuous data.

    Args:
      model: A config or a density.
    """
    return getattr(model, "levels", None) or None

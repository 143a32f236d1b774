"""Endless batches of a dataset or an iterable, whose position is three integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer, Num

from likejax.data.augment import augmentation
from likejax.data.conditions import condition_of
from likejax.data.dataset import Dataset
from likejax.data.splits import concatenate
from likejax.names import meant


class Batch(NamedTuple):
    """Examples of a training step.

    Attributes:
      x: Examples ``(n, *event_shape)``.
      condition: Labels or float conditions, for a conditional model.
      weight: Weights of the examples, if they have any.
    """

    x: Num[np.ndarray, "n ..."]
    condition: Num[np.ndarray, "n ..."] | None
    weight: Float[np.ndarray, " n"] | None = None


class Position(NamedTuple):
    """The place of a stream of batches: everything that a resumed run needs."""

    seed: int
    epoch: int
    row: int


@runtime_checkable
class Batches(Protocol):
    """A stream of batches of one size, for ever."""

    position: Position

    def __next__(self) -> Batch: ...


class RowOrder(Iterator[np.ndarray]):
    """Row numbers of the batches of a dataset, ``(batch_size,)`` each, for ever.

    Each epoch visits every row once, in an order of ``(seed, epoch)``. A batch may end one epoch
    and begin the next, so no row is ever dropped.

    Args:
      count: Number of rows of the dataset.
      batch_size: Rows per batch.
      position: Place to begin at.

    Attributes:
      position: Place of the next batch.

    Example:
      >>> from likejax.data.batches import Position, RowOrder
      >>> order = RowOrder(4, 2, Position(seed=0, epoch=0, row=0))
      >>> sorted([*next(order).tolist(), *next(order).tolist()]), order.position.epoch
      ([0, 1, 2, 3], 1)
    """

    def __init__(self, count: int, batch_size: int, position: Position):
        self.position = position
        self._count = count
        self._batch_size = batch_size
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        rng = np.random.default_rng([self.position.seed, self.position.epoch])
        return rng.permutation(self._count)

    def __next__(self) -> Integer[np.ndarray, " n"]:
        taken: list[np.ndarray] = []
        missing = self._batch_size
        while missing:
            seed, epoch, row = self.position
            rows = self._order[row : row + missing]
            taken.append(rows)
            missing -= len(rows)
            self.position = Position(seed, epoch, row + len(rows))
            if row + len(rows) == self._count:
                self.position = Position(seed, epoch + 1, 0)
                self._order = self._shuffled()
        return np.concatenate(taken)


class DatasetBatches(Iterator[Batch]):
    """Batches of a dataset; each epoch visits every example once, in an order of ``(seed, epoch)``.

    A batch may end one epoch and begin the next, so no example is ever dropped. Several processes
    each take their part of the same batch: what one process would train on, together they do.

    Args:
      dataset: Source of the examples.
      batch_size: Examples per batch, over all processes.
      position: Place to begin at.
      condition_shape: Shape of the conditions that batches carry: ``()`` for labels, another one
        for float conditions, ``None`` for none.
      augment: Names of augmentations, applied in order.
      part: Index of this process, and how many there are.

    Raises:
      ValueError: If conditions are asked for and there are none, or an augmentation is unknown.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        position: Position,
        condition_shape: tuple[int, ...] | None = None,
        augment: Sequence[str] = (),
        part: tuple[int, int] = (0, 1),
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.position = Position(*position)
        self._conditions = condition_of(dataset, condition_shape)
        # mean weight 1 over the dataset: integer weights then equal repetition, and no batch is
        # normalized by itself
        self._weights = None
        if dataset.weights is not None:
            self._weights = (dataset.weights / dataset.weights.mean()).astype("f4")
        self._augment = [augmentation(spec, levels=dataset.levels) for spec in augment]
        self._mine = _share(batch_size, part)
        self._order = RowOrder(len(dataset), batch_size, self.position)

    def __next__(self) -> Batch:
        rng = np.random.default_rng([*self.position, 1])
        rows = next(self._order)
        self.position = self._order.position
        mine = rows[self._mine]
        if self._augment:
            # all processes augment the whole batch, so they draw the same and their parts fit
            x = self.dataset.examples[rows]
            for augment in self._augment:
                x = augment(x, rng)
            x = x[self._mine]
        else:
            x = self.dataset.examples[mine]
        condition = None if self._conditions is None else self._conditions[mine]
        weight = None if self._weights is None else self._weights[mine]
        return Batch(x, condition, weight)


class IterableBatches(Iterator[Batch]):
    """Batches from any iterable of arrays: lists, data loaders, generators.

    Every item is an array of examples ``(k, *event_shape)``, a pair of examples and labels, a
    triple of examples, labels (or ``None``) and weights, or a mapping with the keys ``x``,
    ``labels``, ``weights`` and ``conditions``; ``k`` may vary, rows are put together to batches of
    one size. Weights are used as they are: those of all data should average 1. An iterable that can
    be iterated again begins a new epoch when it ends. To resume, the rows before the position are
    drawn and dropped. With several processes each passes its own iterable, and gets its part of the
    batch size from it.

    Args:
      source: The iterable.
      batch_size: Examples per batch, over all processes.
      like: Examples every item must resemble in shape, levels and labels: the first item, as a
        dataset.
      position: Place to begin at; its ``row`` counts the rows taken in this epoch.
      condition_shape: Shape of the conditions that batches carry: ``()`` for labels, another one
        for float conditions, ``None`` for none.
      num_classes: Number of classes that labels must stay below, or ``None`` if it is not known.
      augment: Names of augmentations, applied in order.
      part: Index of this process, and how many there are.
    """

    def __init__(
        self,
        source: Iterable[Any],
        batch_size: int,
        *,
        like: Dataset,
        position: Position,
        condition_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        augment: Sequence[str] = (),
        part: tuple[int, int] = (0, 1),
    ):
        share = _share(batch_size, part)
        self._size = share.stop - share.start
        self._part = part[0]
        self._source = source
        self._like = like
        self._condition_shape = condition_shape
        self._num_classes = num_classes
        self._augment = [augmentation(spec, levels=like.levels) for spec in augment]
        self.position = Position(position.seed, position.epoch, 0)
        self._items = iter(source)
        self._rest: Dataset | None = None
        self._skip(position.row)

    def _skip(self, rows: int) -> None:
        while rows:
            taken = min(rows, self._size)
            self._take(taken)
            rows -= taken

    def _next_item(self) -> Dataset:
        for item in self._items:
            return self._checked(item)
        seed, epoch, row = self.position
        self._items = iter(self._source)
        first = next(self._items, None)
        if first is None or row == 0:
            raise ValueError(
                f"the iterable of training data ended after {epoch} epochs and {row} more "
                "examples, and gives nothing "
                "when iterated again; pass one that can be repeated (a list, a data loader) or "
                "does not end"
            )
        self.position = Position(seed, epoch + 1, 0)
        return self._checked(first)

    def _checked(self, item: object) -> Dataset:
        """The examples of an item, like those of the first."""
        examples = as_examples(item, levels=self._like.levels, event_shape=self._like.event_shape)
        if (examples.weights is None) != (self._like.weights is None):
            raise ValueError("expected weights with every item of the iterable, or with none")
        if self._condition_shape == () and examples.labels is None:
            raise ValueError(
                "expected pairs of examples and labels from the iterable, for a conditional model"
            )
        if self._condition_shape and examples.conditions is None:
            raise ValueError(
                "expected conditions from the iterable, for a model that is conditioned on floats "
                f"of shape {self._condition_shape}: give mappings with the keys x and conditions"
            )
        condition_of(examples, self._condition_shape, num_classes=self._num_classes)
        return examples

    def _take(self, count: int) -> Dataset:
        """The next ``count`` rows."""
        taken: list[Dataset] = []
        while count:
            item = self._next_item() if self._rest is None else self._rest
            taken.append(item.take(slice(0, count)))
            self._rest = item.take(slice(count, None)) if len(item) > count else None
            count -= len(taken[-1])
            seed, epoch, row = self.position
            self.position = Position(seed, epoch, row + len(taken[-1]))
        return taken[0] if len(taken) == 1 else concatenate(taken)

    def __next__(self) -> Batch:
        rng = np.random.default_rng([*self.position, 1, self._part])
        rows = self._take(self._size)
        x = rows.examples
        for augment in self._augment:
            x = augment(x, rng)
        weight = None if rows.weights is None else rows.weights.astype(np.float32)
        return Batch(x, condition_of(rows, self._condition_shape), weight)


def as_examples(
    item: object, *, levels: int | None, event_shape: tuple[int, ...] | None = None
) -> Dataset:
    """Makes a dataset of one item of an iterable; ``IterableBatches`` lists its forms.

    Args:
      item: Examples, with labels, weights and conditions or without.
      levels: Integer values of an entry, or ``None`` for continuous data.
      event_shape: Shape that every example must have, or ``None`` for any.

    Raises:
      ValueError: If the examples are not of ``event_shape``, leave the levels, or a name of a
        mapping is unknown.
      TypeError: If they are floats where integers are due.
    """
    fields = _fields(item)
    shape = np.shape(fields.x)
    if event_shape is not None and shape == event_shape:
        raise ValueError(
            "expected every item of the iterable to hold examples of shape (k, "
            f"{', '.join(map(str, event_shape))}), "
            f"got one example of shape {shape}: give x[None] for each, or the array of all instead "
            "of an iterable"
        )
    examples = Dataset.from_array(
        fields.x,
        levels=levels,
        labels=fields.labels,
        weights=fields.weights,
        conditions=fields.conditions,
        name="iterable",
    )
    if event_shape is not None and examples.event_shape != event_shape:
        raise ValueError(
            "expected every item of the iterable to hold examples of shape (k, "
            f"{', '.join(map(str, event_shape))}), "
            f"got {shape}"
        )
    return examples


class _Fields(NamedTuple):
    """The arrays of an item, ``None`` where it has none."""

    x: Any
    labels: Any = None
    weights: Any = None
    conditions: Any = None


def _fields(item: object) -> _Fields:
    """The arrays of an item; a list of three rows is not a triple."""
    if isinstance(item, Mapping):
        for name in item:
            if name not in _Fields._fields:
                raise ValueError(
                    "expected the keys x, labels, weights and conditions in an item of the "
                    f"iterable, got {name!r}{meant(name, _Fields._fields)}"
                )
        if "x" not in item:
            raise ValueError(
                f"expected the key x in every item of the iterable, got {', '.join(item) or 'none'}"
            )
        return _Fields(**item)
    if not isinstance(item, tuple | list):
        return _Fields(item)
    if len(item) == 2:
        return _Fields(item[0], item[1])
    if len(item) == 3 and np.ndim(item[2]) == 1 and np.ndim(item[0]) > 1:
        return _Fields(item[0], item[1], item[2])
    return _Fields(item)


def _share(batch_size: int, part: tuple[int, int]) -> slice:
    """The rows of a batch that this process takes."""
    index, count = part
    if batch_size % count:
        raise ValueError(
            f"expected a batch_size divisible by the {count} processes, got {batch_size}"
        )
    size = batch_size // count
    return slice(index * size, (index + 1) * size)

"""Datasets: named, frozen arrays of raw examples, with all that their likelihoods depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike, Float, Integer, Num

from likejax.data import distortions, transforms
from likejax.data.arrays import as_conditions, as_labels, as_numbers
from likejax.data.columns import Column, Continuous, check_support, identified, summary
from likejax.data.declared import (
    Declarations,
    conditions_of,
    declared,
    labels_of,
    names_of_conditions,
)
from likejax.data.html import image_row
from likejax.data.text import alphabet_of, encoded, in_rows, read_text, recut
from likejax.facts import facts_table
from likejax.inputs import channels_last, refuse_masked
from likejax.names import meant
from likejax.precision import check_representable
from likejax.settings import CountOrZero, Levels, checked

SPLITS = ("train", "validation", "test")
"""Names of the parts of a dataset."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Raw examples with what one must know to interpret a likelihood of them.

    Images are ``uint8`` of shape ``(n, height, width, channels)``, tables and points are floats
    ``(n, d)``. Nothing is scaled and no noise is added here: that belongs inside a density.
    ``dataset[:10]`` is the dataset of the first ten examples.

    Attributes:
      name: Name of the data.
      split: ``train``, ``validation`` or ``test``.
      examples: Read-only array ``(n, *event_shape)``.
      levels: Number of integer values an entry can take; ``None`` for continuous data.
      labels: Read-only integers ``(n,)``, or ``None``.
      provenance: Source of the examples and every step done to them, in order.
      weights: Read-only positive weights ``(n,)`` of the examples in the training loss, or ``None``
        for equal ones.
      binarization: Way in which gray values became zeros and ones; empty if they did not.
      color_order: Meaning of three channels, in order.
      class_names: Name of each class, the same in all parts of a source; ``None`` if nothing is
        known of classes.
      columns: Names of the columns of a table, or ``None``.
      column_kinds: Kinds of the columns of a table that declares them, or ``None``.
      conditions: Read-only floats ``(n, *condition_shape)``, or ``None``. A dataset may have both
        labels and conditions; a density takes those that it is conditioned on.
      alphabet: The characters that the integers of a text stand for, in order, or ``None``.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits", split="test")
      >>> digits
      Dataset('digits', test, n=359, (8, 8, 1) uint8, 17 levels, 10 classes)
      >>> digits[:10].invert().examples.shape
      (10, 8, 8, 1)
    """

    name: str
    split: str
    examples: Num[np.ndarray, "n ..."]
    levels: int | None = None
    labels: Integer[np.ndarray, " n"] | None = None
    provenance: tuple[str, ...] = ()
    weights: Float[np.ndarray, " n"] | None = None
    binarization: str = ""
    color_order: str = "RGB"
    class_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    column_kinds: tuple[Column, ...] | None = None
    conditions: Float[np.ndarray, "n ..."] | None = None
    alphabet: str | None = None

    # The transforms are functions; here they are methods too.
    invert = transforms.invert
    pad = transforms.pad
    resize = transforms.resize
    gray = transforms.gray
    color = transforms.color
    transpose = transforms.transpose
    reduce_levels = transforms.reduce_levels
    binarize = transforms.binarize
    mutate = transforms.mutate
    continuous = transforms.continuous
    subtract = transforms.subtract
    crop = transforms.crop
    recut = recut
    hflip = distortions.hflip
    vflip = distortions.vflip
    rotate = distortions.rotate
    contrast = distortions.contrast
    brightness = distortions.brightness
    blur = distortions.blur
    add_noise = distortions.add_noise

    @classmethod
    def from_array(
        cls,
        examples: object,
        *,
        levels: int | None = None,
        labels: object = None,
        weights: object = None,
        name: str = "array",
        split: str = "train",
        provenance: Sequence[str] = ("from an array in memory",),
        color_order: str = "RGB",
        class_names: Sequence[str] | None = None,
        conditions: object = None,
    ) -> Dataset:
        """Makes a dataset of any array, data frame or nested list.

        Args:
          examples: Array ``(n, *event_shape)``. Integer images may lack the channel axis.
          levels: Number of integer values. If not given: 2 for booleans, 256 for ``uint8`` and for
            images of other integers within 0..255; tables of other integers, and floats, are
            continuous.
          labels: Class numbers from 0, ``(n,)``.
          weights: Positive numbers ``(n,)``: how much each example counts in training.
          name: Name of the data.
          split: ``train``, ``validation`` or ``test``.
          provenance: Source of the examples.
          color_order: Meaning of three channels, in order.
          class_names: Name of each class, in the order of the labels.
          conditions: Finite numbers ``(n, *condition_shape)`` that a density may be conditioned on.

        Returns:
          The dataset; its array is a read-only view where no conversion was needed.

        Raises:
          TypeError: If the array is not numeric.
          ValueError: If it is empty, holds masked, missing or infinite entries, leaves
            ``0..levels-1``, or labels, weights or conditions do not fit.

        Example:
          >>> import numpy as np, likejax as lj
          >>> lj.Dataset.from_array(np.zeros((5, 28, 28), np.uint8)).event_shape
          (28, 28, 1)
        """
        if isinstance(examples, Dataset):
            raise TypeError("expected an array of examples, got a Dataset: it can be used as it is")
        check_split(split)
        if levels is not None:
            levels = checked("levels", levels, Levels)
        (array, columns, notes), levels = as_numbers(examples, levels=levels)
        names = None
        if class_names is not None:
            names = tuple(str(each) for each in class_names)
        class_numbers = None
        if labels is not None:
            classes = None if names is None else len(names)
            class_numbers = _frozen(as_labels(labels, len(array), classes=classes))
        checked_weights = None
        if weights is not None:
            checked_weights = _frozen(_weights(weights, len(array)))
        checked_conditions = None
        if conditions is not None:
            checked_conditions = _frozen(as_conditions(conditions, len(array)))
        return cls(
            name,
            split,
            _frozen(array),
            levels=levels,
            labels=class_numbers,
            provenance=(*provenance, *notes),
            weights=checked_weights,
            color_order=color_order,
            class_names=names,
            columns=columns,
            conditions=checked_conditions,
        )

    @classmethod
    def from_table(
        cls,
        source: object,
        *,
        columns: Declarations | None = None,
        labels: object = None,
        weights: object = None,
        conditions: object = None,
        class_names: Sequence[str] | None = None,
        name: str = "table",
        split: str = "train",
    ) -> Dataset:
        """Makes a dataset of a table whose columns are declared: continuous, integer, categorical.

        The examples are the raw numbers; of a category they hold its number. A density that takes
        them is a ``lj.models.Tabular``. A validation or test part is read with the kinds of the
        training part: ``columns=train.column_kinds``.

        Args:
          source: A data frame of pandas or polars, an Arrow table, a mapping of column names to
            values, or the path of a text with a header (``.csv``) or a Parquet file.
          columns: Declarations by the names of columns: a kind such as ``lj.data.Positive()``; a
            word, ``"continuous"``, ``"positive"``, ``"integer"`` or ``"categorical"``, that leaves
            range and categories to the data; bounds ``(low, high)``; or ``None`` to leave the
            column out. Floats that are not named are continuous, integers integer, words and
            booleans categorical. Or the kinds of another table, which select its columns by name.
          labels: Name of a column of classes, or class numbers ``(n,)``; they are no part of an
            example.
          weights: Name of a column of positive numbers, or numbers ``(n,)``: how much each example
            counts in training.
          conditions: Names of columns of numbers that a density may be conditioned on, in the order
            of its condition; or numbers ``(n, *condition_shape)``. They are no part of an example.
          class_names: Name of each class, in the order of the labels; those of a training part.
          name: Name of the data.
          split: ``train``, ``validation`` or ``test``.

        Returns:
          The dataset, whose provenance notes every kind that was taken from the values.

        Raises:
          TypeError: If the source is no table, or a column holds values of another type.
          ValueError: If a name is unknown, or values are missing, not finite, or not of their
            column's kind; if a column never varies whose kind is left to the data.

        Example:
          >>> import likejax as lj
          >>> frame = {"size": [0.5, 1.2, 0.9], "rooms": [1, 3, 2], "city": ["Ulm", "Bonn", "Ulm"]}
          >>> lj.Dataset.from_table(frame, columns={"size": "positive"})
          Dataset('table', train, n=3, (3,) float64, 1 positive, 1 integer, 1 categorical)
        """
        if isinstance(source, Dataset):
            raise TypeError("expected a table, got a Dataset: it can be used as it is")
        given = names_of_conditions(conditions)
        taken = [each for each in (labels, weights) if isinstance(each, str)]
        table = declared(source, columns, [*taken, *given])
        if given:
            conditions = conditions_of(table.taken, given)
        if isinstance(labels, str):
            labels, class_names = labels_of(table.taken[labels], labels, class_names)
        if isinstance(weights, str):
            weights = table.taken[weights]
        where = f"file {source}" if isinstance(source, str | os.PathLike) else "a table in memory"
        dataset = cls.from_array(
            table.rows,
            labels=labels,
            weights=weights,
            conditions=conditions,
            class_names=class_names,
            name=name,
            split=split,
            provenance=(f"from {where}", *table.notes),
        )
        names = tuple(column.name for column in table.columns)
        return dataclasses.replace(dataset, columns=names, column_kinds=table.columns)

    @classmethod
    def from_text(
        cls,
        source: object,
        *,
        length: int,
        alphabet: str | None = None,
        name: str = "text",
        split: str = "train",
    ) -> Dataset:
        """Makes a dataset of a text, an integer for each character.

        The examples are stretches of the text, in order and without overlap; what is left at the
        end is left out. ``lj.data.text_parts`` cuts a text into three parts first, and
        ``lj.data.decode_text`` turns integers back into strings.

        Args:
          source: The text itself, a string, or the path of a file in UTF-8, a ``pathlib.Path``.
          length: Characters of an example.
          alphabet: The characters that there are; the place of one is its integer. Those of the
            text in the order of Unicode if not given.
          name: Name of the data.
          split: ``train``, ``validation`` or ``test``.

        Returns:
          The dataset, ``(n, length)`` with as many levels as there are characters.

        Raises:
          TypeError: If the source is neither a text nor a path.
          ValueError: If the text is shorter than an example or not in UTF-8, a character is not in
            the alphabet, or the alphabet has fewer than two characters.

        Example:
          >>> import likejax as lj
          >>> lj.Dataset.from_text("to be or not to be", length=6)
          Dataset('text', train, n=3, (6,) uint8, 7 levels, text)
        """
        check_split(split)
        text, where = read_text(source)
        alphabet = alphabet_of(text) if alphabet is None else alphabet
        tokens = encoded(text, alphabet)
        rows = in_rows(tokens, length)
        words = [f"from {where}, {len(text)} characters", f"rows of {length} characters"]
        if left := len(tokens) - rows.size:
            words.append(f"{left} left out at the end")
        words.append(f"alphabet of {len(alphabet)} characters: {alphabet!r}")
        dataset = cls.from_array(
            rows, levels=len(alphabet), name=name, split=split, provenance=words
        )
        return dataclasses.replace(dataset, alphabet=alphabet)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: object) -> Dataset:
        """The dataset of the examples at ``rows``: a slice, an array of row numbers, or a mask."""
        return self.take(rows)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {self.split}, n={len(self)}, {self._format()})"

    def _repr_html_(self) -> str:
        facts = {
            self.name: self.split,
            "examples": f"{len(self):,}",
            "format": self._format(),
        }
        if self.class_names is not None:
            facts["classes"] = ", ".join(self.class_names[:_MOST_NAMES])
            facts["classes"] += ", ..." if len(self.class_names) > _MOST_NAMES else ""
        if self.columns is not None:
            names = self.columns
            if self.column_kinds is not None:
                names = tuple(f"{kind.name} ({kind})" for kind in self.column_kinds)
            facts["columns"] = ", ".join(names[:_MOST_NAMES])
            facts["columns"] += ", ..." if len(names) > _MOST_NAMES else ""
        facts["provenance"] = "; ".join(self.provenance)
        images = ""
        if self.levels is not None and self.examples.ndim == 4:
            images = image_row(self.examples, self.levels)
        return facts_table(facts) + images

    def _format(self) -> str:
        """Shape, type, values, classes, conditions and weights in a few words."""
        words = [f"{self.event_shape} {self.examples.dtype.name}"]
        values = "continuous" if self.levels is None else f"{self.levels} levels"
        words.append(values if self.column_kinds is None else summary(self.column_kinds))
        if self.alphabet is not None:
            words.append("text")
        if self.labels is not None:
            words.append("1 class" if self.num_classes == 1 else f"{self.num_classes} classes")
        if self.conditions is not None:
            words.append(f"conditions {self.conditions.shape[1:]}")
        if self.weights is not None:
            words.append("weighted")
        return ", ".join(words)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.examples.shape[1:]

    @property
    def num_classes(self) -> int | None:
        """Number of classes in the source, or in these labels if that is unknown, or ``None``."""
        if self.class_names is not None:
            return len(self.class_names)
        if self.labels is None:
            return None
        return int(self.labels.max()) + 1

    def fingerprint(self) -> str:
        """Hashes examples, levels, labels, weights and conditions to 12 hexadecimal digits.

        Equal data have equal hashes.

        Without labels, weights and conditions it is ``examples_fingerprint()``.
        """
        digest = self._digest()
        if self.labels is not None:
            digest.update(b"labels" + self.labels.astype(np.int64).tobytes())
        if self.weights is not None:
            digest.update(b"weights" + self.weights.astype(np.float64).tobytes())
        if self.conditions is not None:
            shape = str(self.conditions.shape).encode()
            digest.update(b"conditions" + shape + self.conditions.astype(np.float64).tobytes())
        return digest.hexdigest()[:12]

    def examples_fingerprint(self) -> str:
        """Hashes examples and levels alone, as ``fingerprint`` did before version 0.6."""
        return self._digest().hexdigest()[:12]

    def _digest(self) -> Any:
        header = f"{self.examples.shape} {self.examples.dtype} {self.levels}"
        digest = hashlib.sha256(header.encode())
        digest.update(np.ascontiguousarray(self.examples).data)
        return digest

    def check_precision(self, dtype: DTypeLike | None = None) -> None:
        """Checks that a density can hold every column of continuous data in ``dtype``.

        Values beyond the range of the type are refused, and columns whose variation is lost in
        rounding, such as Unix times. The columns are examined in float64.

        Args:
          dtype: Floating-point type; JAX's own if not given, which is float32 unless x64 is
            enabled.

        Raises:
          ValueError: If the type cannot hold a column; the message names it and the remedy.

        Example:
          >>> import numpy as np, likejax as lj
          >>> times = 1.7e9 + np.random.default_rng(0).normal(size=(100, 1))
          >>> data = lj.Dataset.from_array(times)
          >>> data.subtract(data.column_means()).check_precision()
        """
        if self.levels is not None:
            return
        computed = jnp.result_type(float) if dtype is None else dtype
        try:
            check_representable(self.examples, computed, columns=self.columns)
            if self.column_kinds is not None:  # rounding may put a value on its bound
                check_support(self.examples.astype(computed), self.column_kinds)
        except ValueError as error:
            raise ValueError(f"dataset {self.name!r}, {self.split}: {error}") from error

    def column_means(self) -> Float[np.ndarray, "*event"]:
        """Mean of every entry of continuous examples, in float64: an offset for ``subtract``.

        It is 0 for the columns of a table that are declared to be of another kind.
        """
        if self.levels is not None:
            raise ValueError(f"expected continuous data for column_means, got {self!r}")
        means = self.examples.mean(0, dtype=np.float64)
        if self.column_kinds is None:
            return means
        are_free = [isinstance(kind, Continuous) for kind in self.column_kinds]
        return np.where(are_free, means, 0.0)

    def representation(self) -> dict[str, Any]:
        """The form in which a density sees an example; likelihoods compare where it is equal."""
        is_color = self.examples.ndim == 4 and self.event_shape[-1] == 3
        kinds = {} if self.column_kinds is None else {"columns": identified(self.column_kinds)}
        if self.alphabet is not None:
            kinds |= {"alphabet": self.alphabet}
        return kinds | {
            "event_shape": list(self.event_shape),
            "dtype": self.examples.dtype.name,
            "levels": self.levels,
            "binarization": self.binarization,
            "color_order": self.color_order if is_color else "",
        }

    def take(self, rows: object, *, step: str | None = None) -> Dataset:
        """Selects examples.

        Args:
          rows: A slice, an array of row numbers, or a mask ``(n,)``.
          step: Note for the provenance; the number of rows if not given.

        Returns:
          The dataset of these examples, with their labels, weights and conditions.

        Raises:
          ValueError: If there are no such rows.
          TypeError: If one row number is given.

        Example:
          >>> import likejax as lj
          >>> digits = lj.load("digits")
          >>> len(digits.take(digits.labels == 3))
          141
        """
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        if isinstance(index, np.ndarray) and index.ndim == 0:
            raise TypeError(
                f"expected a slice, an array of row numbers or a mask, got {rows!r}: "
                "dataset.examples[i] is an example, dataset[i:i + 1] the dataset of it, "
                "dataset[:i] the dataset of the first ones"
            )
        try:
            examples = self.examples[index]
        except (IndexError, TypeError) as error:
            last = len(self) - 1
            raise ValueError(
                f"expected rows of 0..{last}, a mask of them or a slice: {error}"
            ) from error
        labels, weights, conditions = self.labels, self.weights, self.conditions
        note = step or f"{len(examples)} of {len(self)} rows"
        return dataclasses.replace(
            self,
            examples=_frozen(examples),
            labels=None if labels is None else _frozen(labels[index]),
            weights=None if weights is None else _frozen(weights[index]),
            conditions=None if conditions is None else _frozen(conditions[index]),
            provenance=(*self.provenance, note),
        )

    def shuffled(self, seed: int) -> Dataset:
        """Permutes the examples.

        Args:
          seed: Random seed of the permutation.
        """
        rng = np.random.default_rng(checked("seed", seed, CountOrZero))
        return self.take(rng.permutation(len(self)), step=f"permuted with seed {seed}")

    def with_examples(
        self, examples: Num[np.ndarray, "n ..."], *, step: str, **changes: object
    ) -> Dataset:
        """Replaces the examples, one new example for each, and notes how in the provenance.

        Args:
          examples: New examples ``(n, *new_event_shape)``.
          step: Note for the provenance.
          **changes: New values of other attributes.
        """
        provenance = (*self.provenance, step)
        return dataclasses.replace(
            self,
            examples=_frozen(examples),
            provenance=provenance,
            **changes,  # type: ignore[arg-type]
        )


_MOST_NAMES = 20
"""Most names of classes or columns that a notebook shows."""


def as_dataset(
    data: object,
    *,
    levels: int | None = None,
    name: str = "array",
    event_shape: tuple[int, ...] | None = None,
) -> Dataset:
    """Makes a dataset of whatever a function that takes data was given.

    Args:
      data: A dataset, which is returned as it is, or an array, a data frame or nested lists of
        examples.
      levels: Levels of the density that the data are for; ``None`` for a continuous one.
      name: Name that an array gets.
      event_shape: Shape of the density's examples; it lets errors advise where an array has
        another.

    Returns:
      The dataset.

    Raises:
      TypeError: If the data are something else, or floats where integers are due.
      ValueError: If they make no dataset, or their axes are in another order.

    Example:
      >>> import numpy as np, likejax as lj
      >>> lj.data.as_dataset(np.zeros((3, 8, 8), np.uint8), levels=17)
      Dataset('array', train, n=3, (8, 8, 1) uint8, 17 levels)
    """
    if isinstance(data, Dataset):
        if event_shape is not None:
            _check_order_of_axes(data.examples.shape, event_shape, "dataset.examples")
        return data
    if isinstance(data, str | bytes | os.PathLike):
        raise TypeError(
            f"expected a Dataset or an array, got {data!r}: lj.load(name, data_dir=...) reads a "
            "dataset"
        )
    if isinstance(data, tuple):
        raise TypeError(
            "expected a Dataset or an array, got a tuple: lj.Dataset.from_array(x, labels=y) takes "
            "both"
        )
    if not (isinstance(data, list) or hasattr(data, "__array__") or hasattr(data, "columns")):
        raise TypeError(
            "expected a Dataset, an array (n, *event_shape), a data frame or lists, got "
            f"{type(data).__name__}: "
            "lj.Dataset.from_array makes a dataset of an array"
        )
    shape = _shape(data)
    if event_shape is not None and shape == event_shape:
        raise ValueError(
            f"expected examples of shape (n, *{event_shape}), got one example: pass x[None]"
        )
    if levels is not None:
        _check_order_of_axes(shape, event_shape, "x")
    dataset = Dataset.from_array(data, levels=levels, name=name)
    if levels is None and dataset.levels is not None:  # integers to a continuous density
        raise TypeError(
            "expected floating-point examples for a continuous density, got "
            f"{dataset.examples.dtype.name}; for "
            "integers build a density with levels, or convert with x.astype('float32')"
        )
    return dataset


def _shape(data: Any) -> tuple[int, ...]:
    """Shape of anything like an array; ``()`` of the rest, which ``from_array`` refuses."""
    try:
        return tuple(np.shape(data))
    except (TypeError, ValueError):
        return ()


def _check_order_of_axes(
    shape: tuple[int, ...], event_shape: tuple[int, ...] | None, name: str
) -> None:
    """Refuses images whose channels come first, with the call that turns them.

    Without an ``event_shape`` to compare with, only one or three channels are recognized.
    """
    if len(shape) != 4 or shape[1:] == event_shape:
        return
    turned = (shape[2], shape[3], shape[1])
    if event_shape is None:
        comes_first = shape[1] in (1, 3) and shape[3] not in (1, 3)
    else:
        comes_first = turned == event_shape
    if comes_first:
        raise ValueError(
            f"expected images of shape (n, height, width, channels), got {shape}, whose channels "
            f"seem to come first; {channels_last(name)}"
        )


def _weights(weights: object, count: int) -> Float[np.ndarray, " n"]:
    refuse_masked("weights", weights)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (count,):
        raise ValueError(f"expected {count} positive finite weights, got shape {weights.shape}")
    is_right = np.isfinite(weights) & (weights > 0)
    if not is_right.all():
        row = int(np.argmin(is_right))
        raise ValueError(
            f"expected {count} positive finite weights, got {weights[row]} at row {row}"
        )
    return weights


def check_split(split: str) -> None:
    """Raises a ValueError unless ``split`` is one of ``SPLITS``.

    Args:
      split: Name of a part.

    Raises:
      ValueError: If it is none of them; a near match is named.
    """
    if split not in SPLITS:
        known = ", ".join(SPLITS)
        raise ValueError(f"expected a split of {known}, got {split!r}{meant(split, SPLITS)}")


def _frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view: the owner of the original can write, users of the dataset cannot."""
    view = array.view()
    view.flags.writeable = False
    return view

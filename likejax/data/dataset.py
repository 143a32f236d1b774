"""A named, frozen array of raw examples, and the integer-to-integer steps that make new ones."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, Num

from likejax.data.arrays import as_labels, as_numbers
from likejax.data.augment import mutate
from likejax.data.names import meant
from likejax.inputs import refuse_masked
from likejax.precision import check_representable
from likejax.settings import Count, CountOrZero, Levels, Probability, checked

SPLITS = ("train", "validation", "test")
"""What the parts of a dataset are called."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Raw examples with what one must know to interpret a likelihood of them.

    Images are ``uint8`` of shape ``(n, height, width, channels)``, tables and points are floats ``(n, d)``.
    Nothing is scaled and no noise is added here: that belongs inside a density.

    Attributes:
      name: What the data are called.
      split: ``train``, ``validation`` or ``test``.
      examples: Read-only array ``(n, *event_shape)``.
      levels: Number of integer values an entry can take; ``None`` for continuous data.
      labels: Read-only integers ``(n,)``, or ``None``.
      provenance: Where the examples come from and every step done to them, in order.
      weights: Read-only positive weights ``(n,)`` of the examples in the training loss, or ``None`` for equal ones.
      binarization: How gray values became zeros and ones; empty if they did not.
      color_order: What three channels are, in order.
      class_names: Name of each class, the same in all parts of a source; ``None`` if nothing is known of classes.
      columns: Names of the columns of a table, or ``None``.
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

    @classmethod
    def from_array(
        cls,
        examples: Any,
        *,
        levels: int | None = None,
        labels: Any = None,
        weights: Any = None,
        name: str = "array",
        split: str = "train",
        provenance: Sequence[str] = ("from an array in memory",),
        color_order: str = "RGB",
        class_names: Sequence[str] | None = None,
    ) -> Dataset:
        """A dataset of any array, data frame or nested list.

        Args:
          examples: ``(n, *event_shape)``. Integer images may lack the channel axis.
          levels: Number of integer values. If not given: 2 for booleans, 256 for ``uint8`` and for images of other
            integers within 0..255; tables of other integers, and floats, are continuous.
          labels: Class numbers from 0, ``(n,)``.
          weights: Positive numbers ``(n,)``: how much each example counts in training.
          name: What the data are called.
          split: Which part they are.
          provenance: Where they come from.
          color_order: What three channels are, in order.
          class_names: Name of each class, in the order of the labels.

        Raises:
          TypeError: If the array is not numeric.
          ValueError: If it is empty, holds masked, missing or infinite entries, leaves ``0..levels-1``, or labels or
            weights do not fit.

        Example:
          >>> import numpy as np, likejax as lj
          >>> lj.Dataset.from_array(np.zeros((5, 28, 28), np.uint8)).event_shape
          (28, 28, 1)
        """
        check_split(split)
        levels = None if levels is None else checked("levels", levels, Levels)
        (array, columns, notes), levels = as_numbers(examples, levels=levels)
        names = None if class_names is None else tuple(str(each) for each in class_names)
        if labels is not None:
            labels = _frozen(
                as_labels(labels, len(array), classes=None if names is None else len(names))
            )
        if weights is not None:
            weights = _frozen(_weights(weights, len(array)))
        return cls(
            name,
            split,
            _frozen(array),
            levels=levels,
            labels=labels,
            provenance=(*provenance, *notes),
            weights=weights,
            color_order=color_order,
            class_names=names,
            columns=columns,
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __repr__(self) -> str:
        kind = f"{self.levels} levels" if self.levels else "continuous"
        what = f"{self.event_shape} {self.examples.dtype.name}, {kind}"
        if self.labels is not None:
            what += f", {self.num_classes} class{'' if self.num_classes == 1 else 'es'}"
        weighted = "" if self.weights is None else ", weighted"
        return f"Dataset({self.name!r}, {self.split}, n={len(self)}, {what}{weighted})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.examples.shape[1:]

    @property
    def num_classes(self) -> int | None:
        """Number of classes in all parts of the source, or in these labels if that is not known; ``None`` without."""
        if self.class_names is not None:
            return len(self.class_names)
        return None if self.labels is None else int(self.labels.max()) + 1

    def fingerprint(self) -> str:
        """A hash of examples, levels, labels and weights, 12 hexadecimal digits: the same data give the same.

        Without labels and weights it is ``examples_fingerprint()``.
        """
        digest = self._digest()
        for name, values in (("labels", self.labels), ("weights", self.weights)):
            if values is not None:
                wide = values.astype(np.int64 if name == "labels" else np.float64)
                digest.update(name.encode() + np.ascontiguousarray(wide).tobytes())
        return digest.hexdigest()[:12]

    def examples_fingerprint(self) -> str:
        """A hash of examples and levels alone, 12 hexadecimal digits: what ``fingerprint`` was before version 0.6."""
        return self._digest().hexdigest()[:12]

    def _digest(self) -> Any:
        digest = hashlib.sha256(
            f"{self.examples.shape} {self.examples.dtype} {self.levels}".encode()
        )
        digest.update(np.ascontiguousarray(self.examples).data)
        return digest

    def check_precision(self, dtype: Any = None) -> None:
        """Raises a ValueError if a density that computes in ``dtype`` cannot hold a column of continuous data.

        Looked at in float64: values beyond the range of the type, and columns whose variation is lost in rounding,
        such as Unix times. The message names the column and says how to mend it.

        Args:
          dtype: Floating-point type; JAX's own if not given, which is float32 unless x64 is enabled.

        Example:
          >>> import numpy as np, likejax as lj
          >>> times = 1.7e9 + np.random.default_rng(0).normal(size=(100, 1))
          >>> data = lj.Dataset.from_array(times)
          >>> data.subtract(data.column_means()).check_precision()
        """
        if self.levels is None:
            dtype = jnp.result_type(float) if dtype is None else dtype
            try:
                check_representable(self.examples, dtype, columns=self.columns)
            except ValueError as error:
                raise ValueError(f"dataset {self.name!r}, {self.split}: {error}") from error

    def column_means(self) -> Float[np.ndarray, "*event"]:
        """Mean of every entry of continuous examples, in float64: an offset for ``subtract``."""
        self._continuous("column_means")
        return self.examples.mean(0, dtype=np.float64)

    def subtract(self, offset: Any) -> Dataset:
        """Continuous examples less an offset, in float64; log-likelihoods stay as they are.

        A column far from zero, such as Unix times, loses its variation where a density computes in float32. Subtract
        the same offset from all parts of a dataset.

        Args:
          offset: A number, or one for every entry of an example.
        """
        self._continuous("subtract")
        offset = np.asarray(offset, np.float64)
        if offset.shape not in ((), self.event_shape) or not np.isfinite(offset).all():
            raise ValueError(
                f"expected a finite offset of shape () or {self.event_shape} to subtract, got shape {offset.shape}"
            )
        digest = hashlib.sha256(offset.tobytes()).hexdigest()[:8]
        told = f"{offset:.17g}" if offset.ndim == 0 else f"an offset per entry (hash {digest})"
        examples = self.examples.astype(np.float64) - offset
        return self._step(examples, f"{told} subtracted")

    def _continuous(self, step: str) -> None:
        if self.levels is not None:
            raise ValueError(f"expected continuous data for {step}, got {self!r}")

    def representation(self) -> dict[str, Any]:
        """What a density sees of an example, whatever it shows: likelihoods compare only where this is equal."""
        return {
            "event_shape": list(self.event_shape),
            "dtype": self.examples.dtype.name,
            "levels": self.levels,
            "binarization": self.binarization,
            "color_order": self.color_order
            if self.examples.ndim == 4 and self.event_shape[-1] == 3
            else "",
        }

    def take(self, rows: Any, *, step: str | None = None) -> Dataset:
        """The examples at ``rows`` (an index array or a slice), noted in the provenance."""
        try:
            examples = _frozen(self.examples[rows])
        except (IndexError, TypeError) as error:
            raise ValueError(
                f"expected rows of 0..{len(self) - 1}, a mask of them or a slice: {error}"
            ) from error
        labels, weights = (
            None if each is None else _frozen(each[rows]) for each in (self.labels, self.weights)
        )
        step = step or f"{len(examples)} of {len(self)} rows"
        return dataclasses.replace(
            self,
            examples=examples,
            labels=labels,
            weights=weights,
            provenance=(*self.provenance, step),
        )

    def shuffled(self, seed: int) -> Dataset:
        """The same examples in the order of a permutation by ``seed``."""
        order = np.random.default_rng(checked("seed", seed, CountOrZero)).permutation(len(self))
        return self.take(order, step=f"permuted with seed {seed}")

    def continuous(self) -> Dataset:
        """Rows of an integer table as continuous values, for densities without levels; no noise is added.

        Log-likelihoods are then densities in nats, which can grow without bound where values repeat.
        """
        if self.levels is None or self.examples.ndim != 2:
            raise ValueError(f"expected a table of integers to take as continuous, got {self!r}")
        values = dataclasses.replace(self, levels=None)
        return values._step(
            self.examples.astype(np.float32), f"{self.levels} levels taken as continuous values"
        )

    def invert(self) -> Dataset:
        """``levels - 1 - x``: ink becomes paper."""
        levels = self._levels()
        return self._step(
            (levels - 1 - self.examples.astype(np.int32)).astype(self.examples.dtype), "inverted"
        )

    def pad(self, height: int, width: int, *, value: int = 0) -> Dataset:
        """Images in the middle of a larger canvas of constant ``value``."""
        levels = self._levels()
        if not 0 <= value < levels:
            raise ValueError(f"expected a value in 0..{levels - 1} to pad with, got {value}")
        margins = [
            (0, 0),
            *(self._margin(axis, size) for axis, size in ((1, height), (2, width))),
            (0, 0),
        ]
        padded = np.pad(self.examples, margins, constant_values=value)
        return self._step(padded, f"padded to {height}x{width} with {value}")

    def resize(self, height: int, width: int, *, filter: str = "box") -> Dataset:
        """Images resampled by Pillow.

        Args:
          height: New height.
          width: New width.
          filter: ``nearest``, ``box``, ``bilinear``, ``hamming``, ``bicubic`` or ``lanczos``; likelihoods depend
            strongly on it, so it is part of the provenance.
        """
        from PIL import Image

        if self._levels() != 256:
            raise ValueError(f"expected 8-bit images to resize, got {self.levels} levels")
        filters = {f.name.lower(): f for f in Image.Resampling}
        if filter not in filters:
            raise ValueError(
                f"unknown filter {filter!r}; the filters are {', '.join(filters)}{meant(filter, filters)}"
            )

        def one(plane: np.ndarray) -> np.ndarray:
            return np.asarray(Image.fromarray(plane).resize((width, height), filters[filter]))

        planes = [
            np.stack([one(image[..., c]) for c in range(image.shape[-1])], -1)
            for image in self.examples
        ]
        return self._step(np.stack(planes), f"resized to {height}x{width} ({filter})")

    def gray(self) -> Dataset:
        """One channel: the luma of ITU-R BT.601, rounded."""
        self._levels()
        if self.event_shape[-1] != 3:
            raise ValueError(f"expected 3 channels to turn gray, got {self.event_shape[-1]}")
        weights = {"R": 0.299, "G": 0.587, "B": 0.114}
        if sorted(self.color_order) != sorted(weights):
            raise ValueError(
                f"expected red, green and blue in some order to turn gray, got {self.color_order!r}"
            )
        luma = np.rint(self.examples @ np.array([weights[color] for color in self.color_order]))[
            ..., None
        ]
        gray = dataclasses.replace(self, color_order="RGB")
        return gray._step(luma.astype(self.examples.dtype), "gray (BT.601)")

    def color(self) -> Dataset:
        """Three equal channels from one."""
        self._levels()
        if self.event_shape[-1] != 1:
            raise ValueError(f"expected 1 channel to repeat, got {self.event_shape[-1]}")
        return self._step(np.repeat(self.examples, 3, axis=-1), "gray repeated to 3 channels")

    def transpose(self) -> Dataset:
        """Rows and columns exchanged."""
        self._levels()
        return self._step(self.examples.transpose(0, 2, 1, 3), "rows and columns exchanged")

    def reduce_levels(self, levels: int) -> Dataset:
        """``floor(x levels / old_levels)``: 32 gives the 5-bit images of Glow.

        Bits per dimension of data with different levels do not compare. A number that is no divisor of the old one
        makes levels of unequal width, by one old level.
        """
        old, levels = self._levels(), checked("levels", levels, Count)
        if not 2 <= levels <= old:
            raise ValueError(f"expected 2 to {old} as the new number of levels, got {levels}")
        self._check_not_binary("reduce")
        reduced = dataclasses.replace(self, levels=levels)
        examples = (self.examples.astype(np.int64) * levels // old).astype(self.examples.dtype)
        return reduced._step(examples, f"{old} levels reduced to {levels}")

    def binarize(self, seed: int) -> Dataset:
        """Zeros and ones drawn once, each pixel 1 with the probability of its gray value ``x / (levels - 1)``.

        References:
          Salakhutdinov and Murray, 2008, On the quantitative analysis of deep belief networks.
        """
        levels = self._levels()
        self._check_not_binary("binarize")
        seed = checked("seed", seed, CountOrZero)
        draws = np.random.default_rng([seed, 2]).random(self.examples.shape)
        binary = (draws < self.examples / (levels - 1)).astype(np.uint8)
        made = f"drawn from the gray values with seed {seed}"
        return dataclasses.replace(self, levels=2, binarization=made)._step(
            binary, f"binarized, {made}"
        )

    def mutate(self, rate: float, seed: int) -> Dataset:
        """One fixed draw of the mutation that background models are trained on; see ``data.augment.mutate``."""
        levels, seed = self._levels(), checked("seed", seed, CountOrZero)
        rate = checked("rate", rate, Probability)
        examples = mutate(self.examples, np.random.default_rng([seed, 3]), levels=levels, rate=rate)
        return self._step(examples, f"mutated at rate {rate} with seed {seed}")

    def _check_not_binary(self, step: str) -> None:
        """Refuses images of zeros and ones that are called gray: nearly all of their ones would be lost."""
        if self.levels != 2 and self.examples.max() == 1:
            raise ValueError(
                f"expected gray values of {self.levels} levels to {step}, got only zeros and ones: make binary images "
                "with Dataset.from_array(examples, levels=2) or from booleans"
            )

    def _levels(self) -> int:
        if self.levels is None or self.examples.ndim != 4:
            raise ValueError(f"expected integer images for this step, got {self!r}")
        return self.levels

    def _margin(self, axis: int, size: int) -> tuple[int, int]:
        extra = size - self.examples.shape[axis]
        if extra < 0:
            raise ValueError(
                f"expected a canvas of at least {self.examples.shape[axis]}, got {size}"
            )
        return extra // 2, extra - extra // 2

    def _step(self, examples: np.ndarray, step: str) -> Dataset:
        return dataclasses.replace(
            self, examples=_frozen(examples), provenance=(*self.provenance, step)
        )


def as_dataset(
    data: Any,
    *,
    levels: int | None = None,
    name: str = "array",
    event_shape: tuple[int, ...] | None = None,
) -> Dataset:
    """A dataset of whatever a function that takes data was given.

    Args:
      data: A dataset, which is returned as it is, or an array, a data frame or nested lists of examples.
      levels: Levels of the density that the data are for; ``None`` for a continuous one.
      name: What an array is called.
      event_shape: Shape of the density's examples, to advise where an array has another.

    Raises:
      TypeError: If it is something else, or holds floats where integers are due.
      ValueError: If it makes no dataset, or its axes are in another order.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | bytes | os.PathLike):
        raise TypeError(
            f"expected a Dataset or an array, got {data!r}: lj.load(name, data_dir=...) reads a dataset"
        )
    if isinstance(data, tuple):
        raise TypeError(
            "expected a Dataset or an array, got a tuple: lj.Dataset.from_array(x, labels=y) takes both"
        )
    if not (isinstance(data, list) or hasattr(data, "__array__") or hasattr(data, "columns")):
        raise TypeError(
            f"expected a Dataset, an array (n, *event_shape), a data frame or lists, got {type(data).__name__}: "
            "lj.Dataset.from_array makes a dataset of an array"
        )
    shape = _shape(data)
    if event_shape is not None and shape == event_shape:
        raise ValueError(
            f"expected examples of shape (n, *{event_shape}), got one example: pass x[None]"
        )
    if levels is not None and len(shape) == 4 and shape[1:] != event_shape:
        _check_channels_last(shape)
    dataset = Dataset.from_array(data, levels=levels, name=name)
    if levels is None and dataset.levels is not None:  # integers to a continuous density
        raise TypeError(
            f"expected floating-point examples for a continuous density, got {dataset.examples.dtype.name}; for "
            "integers build a density with levels, or convert with x.astype('float32')"
        )
    return dataset


def _shape(data: Any) -> tuple[int, ...]:
    """Shape of anything like an array; ``()`` of what has none, which ``from_array`` refuses with the reason."""
    try:
        return tuple(np.shape(data))
    except (TypeError, ValueError):
        return ()


def _check_channels_last(shape: tuple[int, ...]) -> None:
    channels = 1, 3
    if shape[1] in channels and shape[3] not in channels:
        raise ValueError(
            f"expected images of shape (n, height, width, channels), got {shape}, whose channels seem to come first: "
            "pass x.transpose(0, 2, 3, 1)"
        )


def _weights(weights: Any, count: int) -> Float[np.ndarray, " n"]:
    refuse_masked("weights", weights)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (count,):
        raise ValueError(f"expected {count} positive finite weights, got shape {weights.shape}")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(wrong):
        raise ValueError(
            f"expected {count} positive finite weights, got {weights[wrong[0]]} at row {wrong[0]}"
        )
    return weights


def check_split(split: str) -> None:
    """Raises a ValueError unless ``split`` is one of ``SPLITS``."""
    if split not in SPLITS:
        raise ValueError(
            f"expected a split of {', '.join(SPLITS)}, got {split!r}{meant(split, SPLITS)}"
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view: whoever holds the original can still write, nobody can through the dataset."""
    view = array.view()
    view.flags.writeable = False
    return view

"""A named, frozen array of raw examples, and the integer-to-integer steps that make new ones."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Num

from likejax.data.augment import mutate
from likejax.density import integer_dtype


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
      binarisation: How grey values became zeros and ones; empty if they did not.
      colour_order: What three channels are, in order.
    """

    name: str
    split: str
    examples: Num[np.ndarray, "n ..."]
    levels: int | None = None
    labels: Integer[np.ndarray, " n"] | None = None
    provenance: tuple[str, ...] = ()
    weights: Float[np.ndarray, " n"] | None = None
    binarisation: str = ""
    colour_order: str = "RGB"

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
        colour_order: str = "RGB",
    ) -> Dataset:
        """A dataset of any array, or of anything that ``numpy.asarray`` turns into one.

        Args:
          examples: ``(n, *event_shape)``. Integer images may lack the channel axis.
          levels: Number of integer values; 256 if not given and the array is ``uint8``.
          labels: Integers ``(n,)``.
          weights: Positive numbers ``(n,)``: how much each example counts in training.
          name: What the data are called.
          split: Which part they are.
          provenance: Where they come from.
          colour_order: What three channels are, in order.

        Raises:
          TypeError: If the array is not numeric.
          ValueError: If it is empty, holds NaN or infinities, leaves ``0..levels-1``, or the labels do not fit.

        Example:
          >>> import numpy as np, likejax as lj
          >>> lj.Dataset.from_array(np.zeros((5, 28, 28), np.uint8)).event_shape
          (28, 28, 1)
        """
        array = np.asarray(examples)
        if array.dtype == np.bool_:
            array, levels = array.astype(np.uint8), levels or 2
        if array.dtype.kind not in "uif":
            raise TypeError(f"expected a numeric array of examples, got dtype {array.dtype}")
        if array.ndim < 2 or len(array) == 0:
            raise ValueError(f"expected examples of shape (n, *event_shape) with n > 0, got shape {array.shape}")
        if levels is None and array.dtype == np.uint8:
            levels = 256
        if levels is not None:
            array = _integers(array, levels)
            array = array[..., None] if array.ndim == 3 else array
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(
                f"expected finite examples, got {int((~np.isfinite(array)).sum())} NaN or infinite entries"
            )
        else:
            array = array.astype(np.float64 if array.dtype == np.float64 else np.float32)
        if labels is not None:
            labels = np.asarray(labels)
            if labels.shape != (len(array),) or labels.dtype.kind not in "ui":
                raise ValueError(
                    f"expected integer labels of shape ({len(array)},), got {labels.dtype} of shape {labels.shape}"
                )
            labels = _frozen(labels)
        if weights is not None:
            weights = np.asarray(weights, np.float64)
            if weights.shape != (len(array),) or not (np.isfinite(weights).all() and (weights > 0).all()):
                raise ValueError(f"expected {len(array)} positive finite weights, got shape {weights.shape}")
            weights = _frozen(weights)
        return cls(
            name,
            split,
            _frozen(array),
            levels=levels,
            labels=labels,
            provenance=tuple(provenance),
            weights=weights,
            colour_order=colour_order,
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __repr__(self) -> str:
        kind = f"{self.levels} levels" if self.levels else "continuous"
        labels = "" if self.labels is None else ", labelled"
        return f"Dataset({self.name!r}, {self.split}, n={len(self)}, {self.event_shape}, {kind}{labels})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.examples.shape[1:]

    def fingerprint(self) -> str:
        """A hash of examples, levels and shape, 12 hexadecimal digits: the same data give the same."""
        digest = hashlib.sha256(f"{self.examples.shape} {self.examples.dtype} {self.levels}".encode())
        digest.update(np.ascontiguousarray(self.examples).data)
        return digest.hexdigest()[:12]

    def representation(self) -> dict[str, Any]:
        """What a density sees of an example, whatever it shows: likelihoods compare only where this is equal."""
        return {
            "event_shape": list(self.event_shape),
            "dtype": self.examples.dtype.name,
            "levels": self.levels,
            "binarisation": self.binarisation,
            "colour_order": self.colour_order if self.examples.ndim == 4 and self.event_shape[-1] == 3 else "",
        }

    def take(self, rows: Any, *, step: str | None = None) -> Dataset:
        """The examples at ``rows`` (an index array or a slice), noted in the provenance."""
        labels, weights = (None if each is None else _frozen(each[rows]) for each in (self.labels, self.weights))
        examples = _frozen(self.examples[rows])
        step = step or f"{len(examples)} of {len(self)} rows"
        return dataclasses.replace(
            self, examples=examples, labels=labels, weights=weights, provenance=(*self.provenance, step)
        )

    def shuffled(self, seed: int) -> Dataset:
        """The same examples in the order of a permutation by ``seed``."""
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(order, step=f"permuted with seed {seed}")

    def invert(self) -> Dataset:
        """``levels - 1 - x``: ink becomes paper."""
        levels = self._levels()
        return self._step((levels - 1 - self.examples.astype(np.int32)).astype(self.examples.dtype), "inverted")

    def pad(self, height: int, width: int, *, value: int = 0) -> Dataset:
        """Images in the middle of a larger canvas of constant ``value``."""
        self._levels()
        margins = [(0, 0), *(self._margin(axis, size) for axis, size in ((1, height), (2, width))), (0, 0)]
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
            raise ValueError(f"unknown filter {filter!r}; the filters are {', '.join(filters)}")

        def one(plane: np.ndarray) -> np.ndarray:
            return np.asarray(Image.fromarray(plane).resize((width, height), filters[filter]))

        planes = [np.stack([one(image[..., c]) for c in range(image.shape[-1])], -1) for image in self.examples]
        return self._step(np.stack(planes), f"resized to {height}x{width} ({filter})")

    def grey(self) -> Dataset:
        """One channel: the luma of ITU-R BT.601, rounded."""
        self._levels()
        if self.event_shape[-1] != 3:
            raise ValueError(f"expected 3 channels to turn grey, got {self.event_shape[-1]}")
        weights = {"R": 0.299, "G": 0.587, "B": 0.114}
        if sorted(self.colour_order) != sorted(weights):
            raise ValueError(f"expected red, green and blue in some order to turn grey, got {self.colour_order!r}")
        luma = np.rint(self.examples @ np.array([weights[colour] for colour in self.colour_order]))[..., None]
        grey = dataclasses.replace(self, colour_order="RGB")
        return grey._step(luma.astype(self.examples.dtype), "grey (BT.601)")

    def colour(self) -> Dataset:
        """Three equal channels from one."""
        self._levels()
        if self.event_shape[-1] != 1:
            raise ValueError(f"expected 1 channel to repeat, got {self.event_shape[-1]}")
        return self._step(np.repeat(self.examples, 3, axis=-1), "grey repeated to 3 channels")

    def transpose(self) -> Dataset:
        """Rows and columns exchanged."""
        self._levels()
        return self._step(self.examples.transpose(0, 2, 1, 3), "rows and columns exchanged")

    def reduce_levels(self, levels: int) -> Dataset:
        """``floor(x levels / old_levels)``: 32 gives the 5-bit images of Glow.

        Bits per dimension of data with different levels do not compare. A number that is no divisor of the old one
        makes levels of unequal width, by one old level.
        """
        old = self._levels()
        if not 2 <= levels <= old:
            raise ValueError(f"expected 2 to {old} as the new number of levels, got {levels}")
        reduced = dataclasses.replace(self, levels=levels)
        examples = (self.examples.astype(np.int64) * levels // old).astype(self.examples.dtype)
        return reduced._step(examples, f"{old} levels reduced to {levels}")

    def binarise(self, seed: int) -> Dataset:
        """Zeros and ones drawn once, each pixel 1 with the probability of its grey value ``x / (levels - 1)``.

        References:
          Salakhutdinov and Murray, 2008, On the quantitative analysis of deep belief networks.
        """
        levels = self._levels()
        draws = np.random.default_rng([seed, 2]).random(self.examples.shape)
        binary = (draws < self.examples / (levels - 1)).astype(np.uint8)
        made = f"drawn from the grey values with seed {seed}"
        return dataclasses.replace(self, levels=2, binarisation=made)._step(binary, f"binarised, {made}")

    def mutate(self, rate: float, seed: int) -> Dataset:
        """One fixed draw of the mutation that background models are trained on; see ``data.augment.mutate``."""
        levels = self._levels()
        examples = mutate(self.examples, np.random.default_rng([seed, 3]), levels=levels, rate=rate)
        return self._step(examples, f"mutated at rate {rate} with seed {seed}")

    def _levels(self) -> int:
        if self.levels is None or self.examples.ndim != 4:
            raise ValueError(f"expected integer images for this step, got {self!r}")
        return self.levels

    def _margin(self, axis: int, size: int) -> tuple[int, int]:
        extra = size - self.examples.shape[axis]
        if extra < 0:
            raise ValueError(f"expected a canvas of at least {self.examples.shape[axis]}, got {size}")
        return extra // 2, extra - extra // 2

    def _step(self, examples: np.ndarray, step: str) -> Dataset:
        return dataclasses.replace(self, examples=_frozen(examples), provenance=(*self.provenance, step))


def _frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view: whoever holds the original can still write, nobody can through the dataset."""
    view = array.view()
    view.flags.writeable = False
    return view


def _integers(array: np.ndarray, levels: int) -> np.ndarray:
    if array.dtype.kind == "f":
        raise TypeError(
            f"expected integers for data with {levels} levels, got {array.dtype}; pass raw pixel values, unscaled"
        )
    if not 2 <= levels <= 65536:
        raise ValueError(f"expected 2 to 65536 levels, got {levels}; reduce finer data, or take them as continuous")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= levels:
        raise ValueError(f"expected values in 0..{levels - 1} for {levels} levels, got {low}..{high}")
    return array.astype(integer_dtype(levels), copy=False)

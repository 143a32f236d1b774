"""Scores that compare an image with the length of its lossless code."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from likejax.density import bits_per_dim
from likejax.ood.codecs import Codec, code_lengths
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    LogProb,
    LogProbMap,
    Numbers,
    OfExamples,
    Values,
)
from likejax.ood.lossless import code_length_maps
from likejax.ood.score import Score, with_draws
from likejax.settings import Count


@dataclasses.dataclass(frozen=True)
class CodeLength(OfExamples):
    """Length of the lossless code of an image, in bits; see ``likejax.ood.lossless``.

    Example:
      >>> import likejax as lj, numpy as np
      >>> images = np.zeros((2, 8, 8, 1), np.uint8)
      >>> lj.ood.CodeLength()({}, images, None).tolist() == lj.ood.code_lengths(images).tolist()
      True
    """

    codec: Codec = "built-in"
    """Name of the codec: ``built-in``, ``png``, ``jpeg2000``, ``webp``, ``jpeg-xl`` or the
    ``smallest`` of the first three."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Values:
        """Computes the length of the code of images.

        Args:
          densities: Densities by name; they do not matter.
          x: Unsigned integers ``(n, height, width, channels)``.
          keys: Keys; nothing is drawn.
        """
        del densities, keys
        return code_lengths(x if isinstance(x, Tracer) else np.asarray(x), codec=self.codec)


@dataclasses.dataclass(frozen=True)
class CodeLengthMap(OfExamples):
    """Length of the lossless code of an image, shared among its values, in bits.

    The code has no parts of single values. Its length is shared in proportion to
    ``log(n / count)`` with the ``count`` of a value's residual among the ``n`` of the image, the
    length of an ideal code of residuals; see ``likejax.ood.lossless.code_length_maps``.

    Example:
      >>> import likejax as lj, numpy as np
      >>> images = lj.load("digits").examples[:2]
      >>> maps = lj.ood.CodeLengthMap()({}, images, None)
      >>> bool(np.allclose(maps.sum((1, 2, 3)), lj.ood.code_lengths(images)))
      True
    """

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the share of every value of images on the host.

        Args:
          densities: Densities by name; they do not matter.
          x: Unsigned integers ``(n, height, width, channels)``.
          keys: Keys; nothing is drawn.
        """
        del densities, keys
        return code_length_maps(np.asarray(x))


def _with_codec(name: str, codec: Codec) -> str:
    return name if codec == "built-in" else f"{name}, {codec}"


@dataclasses.dataclass(frozen=True)
class InputComplexity(Score):
    """Score ``S = -log2 p(x) - C(x)`` in bits per dimension, with ``C`` the length of a code.

    It is what the density needs beyond a lossless code that has learned nothing. The code is
    ``likejax.ood.lossless.encode``, or that of another ``codec``.

    References:
      Serra et al., 2020, Input complexity and out-of-distribution detection with likelihood-based
      generative models, arXiv:1909.11480.

    Example:
      >>> import likejax as lj
      >>> train, valid, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
      >>> histogram = lj.models.PixelHistogram.fit(train)
      >>> score = lj.ood.InputComplexity().fit(histogram, valid)
      >>> score(test.examples[:5]).shape
      (5,)
    """

    name: ClassVar[str] = "input complexity"

    draws: Count = 1
    """Number of draws per example."""
    codec: Codec = "built-in"
    """Name of the codec; see ``CodeLength``."""

    @property
    def label(self) -> str:
        """Name in tables, with the codec of another package and the draws unless it is one."""
        return with_draws(_with_codec(self.name, self.codec), self.draws)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The log-probability and the length of the code."""
        return LogProb(draws=self.draws), CodeLength(self.codec)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns the difference of both code lengths in bits per dimension.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        log_prob, code_length = map(compute, self.features)
        return bits_per_dim(log_prob, event_shape) - code_length / math.prod(event_shape)

    def statistic_map(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns the difference of both codes for every value of the images.

        The length of the lossless code is shared among the values; see ``CodeLengthMap``.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        if self.codec != "built-in":
            raise ValueError(
                f"expected the built-in codec for a map, got {self.codec}: the code of another "
                "package has no known parts"
            )
        log_probs, code_lengths = compute(LogProbMap()), compute(CodeLengthMap())
        return bits_per_dim(log_probs, event_shape) - code_lengths / math.prod(event_shape)


@dataclasses.dataclass(frozen=True)
class ComplexityOnly(Score):
    """Score ``s = C(x)`` in bits per dimension: ``InputComplexity`` without a density.

    An AUROC near 0 shows that outside images are simpler than inside ones, one near 1 that they are
    more complex.

    Example:
      >>> import likejax as lj, numpy as np
      >>> test = lj.load("digits", split="test")
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> score = lj.ood.ComplexityOnly().fit(histogram, lj.load("digits", split="validation"))
      >>> blank, digit = score(np.stack([np.zeros((8, 8, 1), np.uint8), test.examples[0]]))
      >>> bool(blank < digit)
      True
    """

    name: ClassVar[str] = "complexity only"

    codec: Codec = "built-in"
    """Name of the codec; see ``CodeLength``."""

    @property
    def label(self) -> str:
        """Name in tables, with the codec of another package."""
        return _with_codec(self.name, self.codec)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The length of the code."""
        return (CodeLength(self.codec),)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns the length of the code in bits per dimension.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        return compute(self.features[0]) / math.prod(event_shape)

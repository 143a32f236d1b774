"""Records of a report: what was found for each set of examples and for each score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset
from likejax.density import Density, bits_per_dim
from likejax.ood.intervals import Interval

Distance = Literal["near", "far"]
"""Whether an outside set shows the same kind of thing as the inside set."""
PictureFormat = Literal["png", "pdf", "svg", "eps"]
"""Endings of the files of pictures."""
_SHOWN = 10
"""Number of images of each kind that a report shows."""


def describe(dataset: Dataset) -> dict[str, Any]:
    """Returns the entries of a report that describe a set of rows.

    Args:
      dataset: The rows.
    """
    return {
        "name": dataset.name,
        "split": dataset.split,
        "n": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "provenance": list(dataset.provenance),
    }


class Pictures(NamedTuple):
    """Images and what the density says of their pixels.

    Attributes:
      images: Images ``(n, height, width, channels)``.
      maps: Log-probabilities of the pixels in nats ``(n, height, width)``; ``None`` if the density
        has none.
    """

    images: np.ndarray
    maps: np.ndarray | None


class Extremes(NamedTuple):
    """The most and the least likely and typical images of a set, the extreme ones first.

    An image is the more typical, the nearer its log-probability is to the mean of the inside set.

    Attributes:
      most: The most likely ones.
      least: The least likely ones.
      most_typical: The most typical ones.
      least_typical: The least typical ones.
    """

    most: Pictures
    least: Pictures
    most_typical: Pictures
    least_typical: Pictures


@dataclasses.dataclass(frozen=True, eq=False)
class SetResult:
    """The likelihood of a set of examples.

    Attributes:
      name: Name in tables.
      record: Description of the rows; see ``describe``.
      mean: Mean of ``log_prob`` in bits per dimension, or of ``-log_prob`` in nats for continuous
        data.
      standard_error: Standard error of the mean.
      deviation: Standard deviation over examples.
      unit: ``bits/dim`` or ``nats``.
      kind: Kind of the log-probabilities.
      is_changed: Whether the examples are the inside ones in a changed form, in the same order.
      extremes: The most and least likely images; ``None`` for other data.
    """

    name: str
    record: dict[str, Any]
    mean: float
    standard_error: float
    deviation: float
    unit: str
    kind: str
    is_changed: bool = False
    extremes: Extremes | None = None

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        name: str,
        log_prob: Float[np.ndarray, " n"],
        density: Density,
        *,
        center: float,
        is_changed: bool = False,
    ) -> SetResult:
        """Returns the result of a set from the log-probabilities of its examples.

        Args:
          dataset: The set.
          name: Name in tables.
          log_prob: Log-probabilities of the examples in nats.
          density: Density that gave them.
          center: Mean log-probability of the inside set, by which examples are typical.
          is_changed: Whether the examples are the inside ones in a changed form.
        """
        if density.levels is None:
            values, unit = -log_prob, "nats"
        else:
            values, unit = bits_per_dim(log_prob, density.event_shape), "bits/dim"
        deviation = math.nan  # infinite values have no deviation
        if len(values) > 1 and np.isfinite(values).all():
            deviation = float(np.std(values, ddof=1))
        return cls(
            name=name,
            record=describe(dataset),
            mean=float(np.mean(values)),
            standard_error=deviation / len(values) ** 0.5,
            deviation=deviation,
            unit=unit,
            kind=density.kind.value,
            is_changed=is_changed,
            extremes=_extremes(dataset, log_prob, density, center),
        )


def _extremes(
    dataset: Dataset, log_prob: Float[np.ndarray, " n"], density: Density, center: float
) -> Extremes | None:
    """Returns the most and least likely and typical images of a set, if it is one of images."""
    if (
        density.levels is None
        or len(density.event_shape) != 3
        or density.event_shape[2] not in (1, 3)
    ):
        return None
    likely = np.argsort(log_prob, kind="stable")
    typical = np.argsort(-np.abs(log_prob - center), kind="stable")
    ends = likely[::-1], likely, typical[::-1], typical
    return Extremes(*(_pictures(dataset, rows[:_SHOWN], density) for rows in ends))


def _pictures(dataset: Dataset, rows: np.ndarray, density: Density) -> Pictures:
    """Returns images of a set, scaled to [0, 1], and the maps of the density."""
    x = dataset.examples[rows]
    assert density.levels is not None
    maps = None
    if density.offers("log_prob_map"):
        maps = np.asarray(density.log_prob_map(x)).sum(-1)
    return Pictures(x / (density.levels - 1), maps)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreResult:
    """One score on every set.

    Attributes:
      label: Name in tables.
      settings: Settings of the recipe.
      kinds: Kinds of the log-probabilities, by the name of the density.
      values: Scores of the examples, by the name of the set.
      metrics: Metrics of ``evaluate_scores``, by the name of the outside set.
      calibrated_with: Number of calibration scores.
      threshold: Calibrated threshold.
      averages: Mean AUROC over the near and over the far outside sets, by ``near`` and ``far``.
    """

    label: str
    settings: Mapping[str, Any]
    kinds: Mapping[str, str]
    values: Mapping[str, Float[np.ndarray, " n"]]
    metrics: Mapping[str, Mapping[str, Interval]]
    calibrated_with: int
    threshold: float
    averages: Mapping[str, Interval] = dataclasses.field(default_factory=dict)

    def flagged(self, name: str) -> float:
        """Returns the share of a set that lies above the threshold.

        Args:
          name: Name of the set.
        """
        return float(np.mean(self.values[name] > self.threshold))

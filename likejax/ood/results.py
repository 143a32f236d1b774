"""Records of a report: what was found for each set of examples and for each score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset
from likejax.density import Density, bits_per_dim
from likejax.ood.intervals import Interval


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


@dataclasses.dataclass(frozen=True)
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
    """

    name: str
    record: dict[str, Any]
    mean: float
    standard_error: float
    deviation: float
    unit: str
    kind: str

    @classmethod
    def of(
        cls, dataset: Dataset, name: str, log_prob: Float[np.ndarray, " n"], density: Density
    ) -> SetResult:
        """Returns the result of a set from the log-probabilities of its examples.

        Args:
          dataset: The set.
          name: Name in tables.
          log_prob: Log-probabilities of the examples in nats.
          density: Density that gave them.
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
        )


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
    """

    label: str
    settings: Mapping[str, Any]
    kinds: Mapping[str, str]
    values: Mapping[str, Float[np.ndarray, " n"]]
    metrics: Mapping[str, Mapping[str, Interval]]
    calibrated_with: int
    threshold: float

    def flagged(self, name: str) -> float:
        """Returns the share of a set that lies above the threshold.

        Args:
          name: Name of the set.
        """
        return float(np.mean(self.values[name] > self.threshold))

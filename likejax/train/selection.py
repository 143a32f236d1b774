"""Selection of the best weights: which validation rows are looked at, what they gave, and what compares with it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.evaluation import log_prob_in_chunks
from likejax.nn.state import Arrays
from likejax.train.guard import NonFiniteError
from likejax.train.source import fingerprints


@dataclasses.dataclass
class Best:
    """The best validation so far, how many came after it, and the identity of the rows it was measured on."""

    step: int = 0
    loss: float = math.inf
    ema: Arrays | None = None
    since: int = 0
    measured_on: Mapping[str, Any] | None = None


class Validation:
    """The rows that select the weights of a run: all, or so many drawn by the run's key, the same in every call.

    Args:
      dataset: Examples that are not trained on.
      count: How many rows to look at, at most.
      key: Key of the choice of rows and of the noise.

    Attributes:
      examples: The chosen rows, in the order of the dataset.
      identity: What a checkpoint remembers of them.
    """

    def __init__(self, dataset: Dataset, count: int, key: Array):
        n = len(dataset)
        self.key = key
        self._rows = np.arange(n)
        self.examples = dataset
        if count < n:
            # drawn, not the first: data may be sorted by class
            seed = [*np.asarray(jax.random.key_data(key)).ravel().tolist(), 4]
            self._rows = np.sort(np.random.default_rng(seed).permutation(n)[:count])
            self.examples = dataset.take(
                self._rows, step=f"{count} of {n} rows drawn by the run's key"
            )
        self._fingerprints = fingerprints(dataset)
        self.identity = {
            "name": f"{dataset.name} {dataset.split}",
            "data": self._fingerprints[0],
            "rows": hashlib.sha256(self._rows.astype(np.int64).tobytes()).hexdigest()[:12],
            "n": len(self.examples),
            "of": n,
        }

    def compares_with(self, identity: Mapping[str, Any] | None) -> bool:
        """Whether a loss that was measured on rows of this identity compares with a loss measured on these.

        Args:
          identity: From a checkpoint; ``None`` from a version that kept none and looked at the first rows.
        """
        if identity is None:
            return self.identity["n"] == self.identity["of"]
        return identity["rows"] == self.identity["rows"] and identity["data"] in self._fingerprints

    def log_prob(self, density: Density, *, batch_size: int, step: int) -> Float[np.ndarray, " n"]:
        """Log-probabilities of the rows in nats.

        Args:
          density: The moving average.
          batch_size: Examples at a time.
          step: Steps done, for messages.

        Raises:
          NonFiniteError: If one is NaN or infinite.
        """
        conditional = density.condition_shape is not None
        log_prob = log_prob_in_chunks(
            density,
            self.examples.examples,
            key=self.key,
            condition=self.examples.labels if conditional else None,
            batch_size=batch_size,
        )
        bad = np.flatnonzero(~np.isfinite(log_prob))
        if len(bad):
            raise NonFiniteError(
                f"step {step}: log_prob is {log_prob[bad[0]]} for {len(bad)} of the {len(log_prob)} validation "
                f"examples, the first is row {self._rows[bad[0]]} of {self.identity['name']}; a mean with it selects "
                "nothing. Look at that row: values far outside the training data overflow"
            )
        return log_prob

    def loss(self, log_prob: Float[np.ndarray, " n"]) -> float:
        """Mean of the rows in nats, by their weights if they have any, as a loss."""
        return -float(np.average(log_prob.astype(np.float64), weights=self.examples.weights))


def described(identity: Mapping[str, Any] | None) -> str:
    """The rows of an identity in words."""
    if identity is None:
        return "rows that an older version did not note"
    n, of = identity["n"], identity["of"]
    rows = f"all {n} rows" if n == of else f"{n} of {of} rows"
    return f"{rows} of {identity['name']} ({identity['data']})"

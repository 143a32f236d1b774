"""Selection of the best weights on validation rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from likejax import processes
from likejax.data.conditions import condition_of
from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.devices import Devices
from likejax.evaluation import log_prob_in_chunks
from likejax.train.best_effort import warn
from likejax.train.checkpoint import RunCheckpoints
from likejax.train.guard import NonFiniteError
from likejax.train.log import Log
from likejax.train.source import fingerprints
from likejax.train.state import Best, TrainState, Weights


class Validation:
    """Rows that select the weights of a run: all, or some drawn by the run's key.

    Args:
      dataset: Examples that are not trained on.
      count: Largest number of rows to look at.
      key: Key of the choice of rows and of the noise.

    Attributes:
      examples: The chosen rows, in the order of the dataset.
      identity: Entries of a checkpoint that tell these rows from others.
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
        """Returns whether a loss measured on other rows compares with one measured on these.

        Args:
          identity: From a checkpoint; ``None`` from a version that kept none and looked at the
            first rows.
        """
        if identity is None:
            return self.identity["n"] == self.identity["of"]
        return identity["rows"] == self.identity["rows"] and identity["data"] in self._fingerprints

    def log_prob(
        self, density: Density, *, batch_size: int, step: int, devices: Devices | None = None
    ) -> Float[np.ndarray, " n"]:
        """Log-probabilities of the rows in nats.

        Args:
          density: The moving average.
          batch_size: Examples at a time.
          step: Steps done, for messages.
          devices: Devices to compute on; all of this process if not given.

        Raises:
          NonFiniteError: If one is NaN or infinite.
        """
        shape, num_classes = density.condition_shape, density.num_classes
        log_prob = log_prob_in_chunks(
            density,
            self.examples.examples,
            key=self.key,
            condition=condition_of(self.examples, shape, num_classes=num_classes),
            batch_size=batch_size,
            devices=devices,
        )
        bad = np.flatnonzero(~np.isfinite(log_prob))
        if len(bad):
            raise NonFiniteError(
                f"step {step}: log_prob is {log_prob[bad[0]]} for {len(bad)} of the "
                f"{len(log_prob)} validation "
                f"examples, the first is row {self._rows[bad[0]]} of {self.identity['name']}; a "
                "mean with it selects "
                "nothing. Look at that row: values far outside the training data overflow"
            )
        return log_prob

    def loss(self, log_prob: Float[np.ndarray, " n"]) -> float:
        """Mean of the rows in nats, by their weights if they have any, as a loss.

        Args:
          log_prob: Log-probabilities of the rows in nats, ``(n,)``.

        Returns:
          The mean of ``-log_prob``, in nats.
        """
        return -float(np.average(log_prob.astype(np.float64), weights=self.examples.weights))


def described(identity: Mapping[str, Any] | None) -> str:
    """The rows of an identity in words.

    Args:
      identity: Identity of a ``Validation``; ``None`` from a version that kept none.
    """
    if identity is None:
        return "rows that an older version did not note"
    n, of = identity["n"], identity["of"]
    rows = f"all {n} rows" if n == of else f"{n} of {of} rows"
    return f"{rows} of {identity['name']} ({identity['data']})"


class Selection:
    """Selection of the best weights while training, and early stopping.

    Args:
      validation: Rows that select; ``None`` if there are none.
      weights: Maker of densities from a training state.
      log: Log of the run.
      checkpoints: Checkpoints of the run.
      batch_size: Validation examples at a time.
      patience: Number of validations without a new best that ends the run; ``None`` for no end.
      devices: Devices to validate on.

    Attributes:
      best: Best validation so far.
    """

    def __init__(
        self,
        validation: Validation | None,
        best: Best,
        *,
        weights: Weights,
        log: Log,
        checkpoints: RunCheckpoints,
        batch_size: int,
        patience: int | None,
        devices: Devices | None = None,
    ):
        self.best = best
        self._validation = validation
        self._unit = log.unit
        self._weights = weights
        self._log = log
        self._checkpoints = checkpoints
        self._batch_size = batch_size
        self._patience = patience
        self._devices = devices

    @property
    def is_exhausted(self) -> bool:
        """Whether validation has not improved for too long."""
        return self._patience is not None and self.best.since >= self._patience

    @property
    def best_loss(self) -> float | None:
        """Best validation loss so far, if there was one."""
        return self.best.loss if self.best.step else None

    def consider(self, number: int, state: TrainState) -> None:
        """Validates the moving average and keeps it if it is the best so far.

        Args:
          number: Number of steps done.
          state: State after that step.

        Raises:
          NonFiniteError: If the log-probability of an example is NaN or infinite.
        """
        if self._validation is None:
            return
        density = self._weights.density(state.ema, state.buffers)
        log_prob = self._validation.log_prob(
            density, batch_size=self._batch_size, step=number, devices=self._devices
        )
        loss = self._unit.of(-self._validation.loss(log_prob))
        self._log.write_validation(number, loss, n=len(log_prob))
        # one process decides: the last digits, and with them the order, may differ between them
        if not processes.of_first_process(np.asarray(loss < self.best.loss)):
            self.best.since += 1
            return
        ema, buffers = processes.to_host((state.ema, state.buffers))
        self.best = Best(number, loss, ema, measured_on=self._validation.identity)
        self._checkpoints.save_best(self.best, buffers)


def comparable_best(
    best: Best, validation: Validation | None, *, workdir: Path | None, unit: str, ended: bool
) -> Best:
    """Returns the best so far if what this call validates on compares with it; else none.

    Args:
      best: Best validation of the calls before.
      validation: Rows of this call.
      workdir: Directory of the run, for the warning.
      unit: Unit of the loss, for the warning.
      ended: Whether no step is left to train.
    """
    if best.step == 0:
        return best
    if validation is None:
        warn(
            f"this call has no validation set: the best weights of {workdir} stay those of step "
            f"{best.step}, measured on {described(best.measured_on)}; run.last has the newest"
        )
        return best
    if validation.compares_with(best.measured_on):
        return best
    change = (
        f"the best validation of {workdir} so far, {best.loss:.4f} {unit} at step {best.step}, was "
        f"measured on {described(best.measured_on)}; this call validates on "
        f"{described(validation.identity)}, and the two do not compare"
    )
    if ended:
        warn(f"{change}. No step is left to train, so the old best stays (Run.validated_on)")
        return best
    warn(f"{change}: selection and early stopping begin anew")
    return Best()

"""Metrics of the steps since the last record, read while the next step runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from likejax.train.guard import NonFiniteError


class Window:
    """Metrics of the last steps as numbers; ends the run after too many skipped steps in a row.

    Args:
      parameters: Names of the parameters, in the order of the gradient.
      patience: Number of skipped steps in a row that ends the run.
      values: Metrics of earlier steps, from a checkpoint.
    """

    def __init__(
        self,
        parameters: Sequence[str],
        patience: int,
        values: Sequence[Mapping[str, float]] = (),
    ):
        self._parameters = parameters
        self._patience = patience
        self._values = [dict(each) for each in values]
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None

    def add(self, number: int, metrics: Mapping[str, jax.Array]) -> None:
        """Keeps the metrics of a step and reads those of the step before.

        Args:
          number: Number of the step.
          metrics: Scalars on the devices.

        Raises:
          NonFiniteError: If too many steps in a row could not be taken.
        """
        self.catch_up()
        self._pending = number, metrics

    def catch_up(self) -> None:
        """Reads the metrics of the last step; waits until it is computed.

        Raises:
          NonFiniteError: If too many steps in a row could not be taken.
        """
        if self._pending is None:
            return
        number, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        in_a_row, bad_array = int(values.pop("in_a_row")), int(values.pop("bad_array"))
        self._values.append(values)
        if in_a_row >= self._patience:
            raise NonFiniteError(self._reason(number, values, in_a_row, bad_array))

    def _reason(
        self, number: int, values: Mapping[str, float], in_a_row: int, bad_array: int
    ) -> str:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        bad.sort(key=lambda name: name == "gradient_norm")  # the terms first: there it began
        terms = ", ".join(f"{name} is {values[name]}" for name in bad)
        terms = terms or f"gradient_norm is {values['gradient_norm']:.3g}, a spike"
        where = ""
        if bad_array >= 0:
            where = f" (the gradient of {self._parameters[bad_array]} first)"
        return (
            f"step {number}: {terms}{where}; {in_a_row} steps in a row could not be taken, so "
            "training stopped; the last good checkpoint is kept. A lower learning rate, warm-up or "
            "clip_norm usually helps"
        )

    def means(self) -> dict[str, Any]:
        """Returns the mean of every metric over the steps that were taken, ``None`` if none was."""
        accepted = [values for values in self._values if values["taken"]]
        names = [name for name in self._values[0] if name != "taken"]
        if not accepted:
            return dict.fromkeys(names)
        return {name: float(np.mean([values[name] for values in accepted])) for name in names}

    def skipped(self) -> int:
        """Returns the number of steps that were not taken."""
        return sum(not values["taken"] for values in self._values)

    def clear(self) -> None:
        """Forgets the metrics."""
        self._values = []

    def to_record(self) -> list[dict[str, float]]:
        """Returns the metrics as a checkpoint keeps them."""
        return self._values

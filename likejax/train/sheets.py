"""Sheets of samples that a run draws while it trains."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array

from likejax.data.conditions import condition_of
from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.train.best_effort import BestEffort
from likejax.train.log import Log
from likejax.train.state import TrainState, Weights

_COUNT = 64


class SampleSheets:
    """Pictures of samples of the moving average, in the run's directory and for the loggers.

    A picture that cannot be drawn is a warning. Only the first process draws.

    Args:
      examples: Training examples; a conditional density gets their classes, or the first of their
        conditions.
      weights: Maker of densities from a training state.
      log: Log of the run.
      workdir: Directory of the run.
      key: Key of all sheets.
    """

    def __init__(
        self, examples: Dataset, weights: Weights, log: Log, *, workdir: Path | None, key: Array
    ):
        self._examples = examples
        self._weights = weights
        self._log = log
        self._workdir = workdir
        self._key = key
        self._best_effort = BestEffort()

    def draw(self, number: int, state: TrainState) -> None:
        """Draws a sheet.

        Args:
          number: Number of steps done.
          state: State after that step.
        """
        density = self._weights.density(
            state.ema, state.buffers
        )  # gathers parameters: every process
        if self._workdir is None or jax.process_index() != 0:
            return
        with self._best_effort.attempt("drawing a sheet of samples"):
            self._draw(density, number, self._workdir / "samples")

    def _draw(self, density: Density, number: int, place: Path) -> None:
        from likejax import plot

        known = condition_of(self._examples, density.condition_shape)
        if known is None:
            samples = density.sample(self._key, _COUNT)
        else:
            known = np.unique(known) if density.condition_shape == () else known
            samples = density.sample(self._key, (), known[np.arange(_COUNT) % len(known)])
        title = f"step {number}"
        figure = plot.sheet(np.asarray(samples), levels=density.levels or 256, title=title)
        place.mkdir(exist_ok=True)
        figure.savefig(place / f"{number:08}.png", dpi=100)
        self._log.picture("samples", plot.pixels(figure), number)

"""The result of a training run, in memory or from its directory."""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from likejax import plot
from likejax.density import Density, count_parameters
from likejax.experiment import Experiment, from_json, record_of
from likejax.models import build
from likejax.nn.repeat import for_backend, stack
from likejax.nn.state import merge, split
from likejax.records import Recorded
from likejax.storage.density import RECORD, density_items, restore
from likejax.storage.store import Store
from likejax.train.checkpoint import optimizer_template, state_of
from likejax.train.guard import begin
from likejax.train.log import METRICS, Unit, read_metrics
from likejax.train.members import optimizer_of
from likejax.train.record import run_directory
from likejax.train.selection import described
from likejax.train.state import Best, TrainState, Weights, convert_blocks
from likejax.train.summary import summarize


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """Result of ``fit``.

    Attributes:
      density: Moving-average weights, those best on validation, of this call or of the ones before
        it that the run goes on from; the last if there never was a validation set.
      last: Moving-average weights after the last step.
      experiment: Experiment that was run.
      steps: Number of steps done; fewer than the experiment's if validation stopped the run.
      best_step: Step of ``density``.
      validation: Validation loss at ``best_step``, bits/dim or nats; ``None`` if there never was a
        validation set.
      history: One record per logged step and validation.
      workdir: Directory of the run, or ``None``.
      validated_on: Rows that ``validation`` was measured on, in words; ``None`` without a
        validation set.
      interrupted: Whether Ctrl-C ended the run before its last step.
      state: Raw weights, moving average and optimizer state after the last step, as host arrays by
        name.

    Example:
      >>> import likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2)
      >>> run = lj.fit(experiment, lj.load("moons"), key=0)
      >>> run
      Run(VectorGlowConfig, 2 of 2 steps)
      >>> run.state.params.keys() == run.state.ema.keys()
      True
    """

    density: Density
    last: Density
    experiment: Experiment
    steps: int
    best_step: int
    validation: float | None
    history: list[dict[str, Any]]
    workdir: Path | None
    validated_on: str | None = None
    interrupted: bool = False
    state: TrainState | None = None

    @property
    def raw(self) -> Density:
        """Density of the raw weights after the last step, without moving average."""
        if self.state is None:
            raise ValueError("expected a Run with its state, as fit and restore_run return it")
        structure, _, _ = split(self.last)
        arrays = merge(structure, self.state.params, self.state.buffers)
        return jax.tree.map(jnp.asarray, arrays)

    def summary(self) -> str:
        """Returns what was trained on what, how long it took and how it ended, in a few lines."""
        record = record_of(self.experiment)
        return summarize(record, self.history, parameters=count_parameters(self.density))

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Returns steps and losses: bits/dim of integer data, ``-log p`` in nats of others.

        ``training batches`` are means since the record before, of one draw and the raw weights;
        they are left out if the objective reports no ``log_prob``. ``validation`` is that of the
        moving average. Records without a number, such as those of skipped steps, are left out.

        Example:
          >>> import likejax as lj
          >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
          >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2, log_every=1)
          >>> run = lj.fit(experiment, lj.load("moons"), key=0)
          >>> run.curves()["training batches"][0]
          [1, 2]
        """
        unit = Unit(self.density)
        lines: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.history:
            if record.get("log_prob") is not None:
                steps, losses = lines.setdefault("training batches", ([], []))
                steps.append(record["step"])
                losses.append(unit.of(record["log_prob"]))
            if record.get("validation") is not None:
                steps, losses = lines.setdefault("validation", ([], []))
                steps.append(record["step"])
                losses.append(record["validation"])
        return lines

    def plot(self, *, title: str = "") -> Any:
        """Returns a figure of ``curves``: bits/dim, or nats, over the steps.

        Args:
          title: Title above the figure.

        Raises:
          ValueError: If no likelihood was logged.

        Example:
          >>> import likejax as lj
          >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
          >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2, log_every=1)
          >>> figure = lj.fit(experiment, lj.load("moons"), key=0).plot()
        """
        lines = self.curves()
        if not lines:
            raise ValueError(
                "expected a run that logged a likelihood, got none: log_every is at most the "
                "number of steps where a run logs"
            )
        label = "bits/dim" if self.density.levels is not None else "-log p, nats"
        return plot.curves(lines, x_label="step", y_label=label, title=title)

    def __repr__(self) -> str:
        words = [
            type(self.experiment.model).__name__,
            f"{self.steps} of {self.experiment.steps} steps",
        ]
        if self.validation is not None:
            words.append(f"validation {self.validation:.4f} at step {self.best_step}")
        if self.workdir is not None:
            words.append(str(self.workdir))
        return f"Run({', '.join(words)})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>"


def run_of(
    experiment: Experiment,
    state: TrainState,
    best: Best,
    weights: Weights,
    *,
    history: list[dict[str, Any]],
    workdir: Path | None,
) -> Run:
    """Returns the run that has trained to a state.

    Args:
      experiment: Experiment that was run.
      state: State after the last step, as host arrays.
      best: Best validation; without one the last weights are the density.
      weights: Maker of densities from a training state.
      history: Records of the log.
      workdir: Directory of the run, or ``None``.
    """
    density = last = weights.density(state.ema, state.buffers)
    best_step, validation, validated_on = int(state.step), None, None
    if best.ema is not None:
        density = weights.density(best.ema, state.buffers)
        best_step, validation = best.step, best.loss
        validated_on = described(best.measured_on)
    return Run(
        density=density,
        last=last,
        experiment=experiment,
        steps=int(state.step),
        best_step=best_step,
        validation=validation,
        history=history,
        workdir=workdir,
        validated_on=validated_on,
        state=state,
    )


def restore_run(directory: str | os.PathLike[str], *, experiment: Experiment | None = None) -> Run:
    """Returns a run from its directory, with raw weights, moving average and optimizer state.

    Args:
      directory: The run's ``workdir``.
      experiment: Experiment of the run. It is needed if the model was a density without a config;
        without it, the state of an optimizer that the record only names is ``None``.

    Returns:
      The run as its last checkpoint holds it.

    Raises:
      CheckpointError: If it is no run, or no checkpoint is intact.
      ValueError: If the class of the model is not imported.

    Example:
      >>> import tempfile, likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=24, steps=2)
      >>> with tempfile.TemporaryDirectory() as workdir:
      ...     run = lj.fit(experiment, lj.load("moons"), key=0, workdir=workdir)
      ...     lj.train.restore_run(workdir).steps
      2
    """
    place = run_directory(directory)
    experiment = experiment or from_json((place / RECORD).read_text())
    state, record = _read_state(place, experiment)
    template = experiment.model if isinstance(experiment.model, Density) else None
    best_loss, best_step = record["best_loss"], record["best_step"]
    history = read_metrics(place / METRICS) if (place / METRICS).exists() else []
    return Run(
        density=restore(place, which="best", density=template),
        last=restore(place, which="last", density=template),
        experiment=experiment,
        steps=int(state.step),
        best_step=best_step or int(state.step),
        validation=best_loss,
        history=history,
        workdir=place,
        validated_on=None if best_loss is None else described(record.get("best_on")),
        state=state,
    )


def _read_state(place: Path, experiment: Experiment) -> tuple[TrainState, dict[str, Any]]:
    """State and record of the newest intact checkpoint, blocks in the form that is fastest here."""
    stacked = stacked_model(experiment.model)
    structure, params, buffers = split(stacked)

    def wanted(record: dict[str, Any]) -> Mapping[str, Any]:
        return density_items(params, buffers) | optimizer_template(record, params)

    _, items, record = Store(place / "last").read(wanted)
    optimizer = None
    if not isinstance(experiment.optimizer, Recorded):
        optimizer = jax.eval_shape(optimizer_of(experiment, stacked).init, params)
    like = TrainState(jnp.zeros((), jnp.int32), params, params, buffers, optimizer, begin())
    state = state_of(items, like)
    return convert_blocks(for_backend, structure, state), record


def stacked_model(model: Any) -> Any:
    """Returns the density of a model with repeated blocks stacked; of a config its shapes only.

    Args:
      model: A config or a density.
    """
    if isinstance(model, Density):
        return stack(model)
    return jax.eval_shape(lambda: build(model, key=jax.random.key(0)))

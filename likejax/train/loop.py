"""``fit``: an experiment and data in, a trained density out, and a run directory that can be resumed."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from likejax.data.batches import Batch, Batches, Position
from likejax.data.dataset import Dataset
from likejax.density import Density, KeyLike, as_key, bits_per_dim, example_keys, log_prob_in_chunks
from likejax.evaluate import check_fit
from likejax.experiment import Experiment
from likejax.models import build
from likejax.nn.depth import for_backend, stack
from likejax.train import sharding
from likejax.train.checkpoint import (
    Checkpoints,
    check_record,
    density_items,
    state_of,
    training_items,
    write_record,
)
from likejax.train.log import MetricsFile, ProgressLine, read_metrics
from likejax.train.optimiser import build_optimiser
from likejax.train.state import Arrays, Structure, TrainState, in_form, moving_average, put_together, take_apart


class NonFiniteError(FloatingPointError):
    """Training met a loss or gradient that is not finite."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a call of ``fit`` leaves.

    Attributes:
      density: Moving-average weights, those best on validation, or the last without a validation set.
      last: Moving-average weights after the last step.
      experiment: What was run.
      steps: Steps done.
      best_step: Step of ``density``.
      validation: Validation loss at ``best_step``, bits/dim or nats; ``None`` without a validation set.
      history: One record per logged step and validation.
      workdir: The run's directory, or ``None``.
    """

    density: Density
    last: Density
    experiment: Experiment
    steps: int
    best_step: int
    validation: float | None
    history: list[dict[str, Any]]
    workdir: Path | None


@dataclasses.dataclass
class _Best:
    """The best validation so far."""

    step: int = 0
    loss: float = math.inf
    ema: Arrays | None = None


def fit(
    experiment: Experiment,
    train: Dataset,
    *,
    key: KeyLike,
    validation: Dataset | None = None,
    workdir: str | os.PathLike[str] | None = None,
) -> Run:
    """Trains the experiment's model.

    A model given as a config is built and initialised from data; a ready density is trained as it is. If
    ``workdir`` holds a run of the same experiment, training goes on where its last checkpoint stands, and ends
    where an uninterrupted run would.

    Args:
      experiment: Model, objective, optimiser and schedule.
      train: Training examples.
      key: Of initialisation, shuffling and noise.
      validation: Examples that select the best weights; disjoint from ``train``.
      workdir: Where checkpoints, ``metrics.jsonl`` and ``experiment.json`` go; nothing is written without one.

    Returns:
      A ``Run``; its ``density`` is what one evaluates.

    Raises:
      NonFiniteError: If a loss or gradient is not finite; the last good checkpoint stays.
      CheckpointError: If ``workdir`` holds a run of another experiment.
      ValueError: If data and model do not fit.

    Example:
      >>> import dataclasses, likejax as lj
      >>> model = lj.VectorGlowConfig(depth=2, width=8)
      >>> experiment = dataclasses.replace(lj.preset("vector_glow/moons"), model=model, steps=2)
      >>> lj.fit(experiment, lj.load("moons"), key=0).steps
      2
    """
    key = as_key(key)
    build_key, data_key, noise_key, validation_key = jax.random.split(key, 4)
    path = None if workdir is None else Path(workdir).expanduser().absolute()
    if path is not None:
        check_record(path, experiment)
        write_record(path, experiment)
    density = _begin(experiment, train, build_key)
    check_fit(density, train)
    if validation is not None:
        check_fit(density, validation)
        check_disjoint(train, validation)
        validation = validation.take(slice(0, experiment.validation_examples))

    mesh = sharding.data_mesh()
    if experiment.batch_size % mesh.size:
        raise ValueError(f"expected a batch_size divisible by the {mesh.size} devices, got {experiment.batch_size}")
    structure, params, fixed = take_apart(density)
    transformation = build_optimiser(experiment.optimiser, experiment.steps)
    state = TrainState(jnp.zeros((), jnp.int32), params, params, fixed, jax.jit(transformation.init)(params))
    position = Position(int(jax.random.randint(data_key, (), 0, 2**31 - 1)), 0, 0)
    best = _Best()
    with Checkpoints(path) as checkpoints:
        if checkpoints.latest("last") is not None:
            state, position, best = _resume(checkpoints, structure, state)
        # a copy of its own for every buffer: the step donates them, and params and ema begin as the same arrays
        state = sharding.put(jax.tree.map(np.array, state), sharding.replicated(mesh))
        step = _compile_step(experiment, structure, transformation, noise_key, mesh)
        batches = Batches(
            train,
            experiment.batch_size,
            position=position,
            labelled=density.condition_shape is not None,
            augment=experiment.augment,
        )
        loop = _Loop(experiment, structure, checkpoints, path, validation, validation_key, best, density.levels)
        state = loop.run(state, step, batches, mesh)
    last = put_together(structure, state.ema, state.fixed)
    best_density = last if loop.best.ema is None else put_together(structure, loop.best.ema, state.fixed)
    return Run(
        density=best_density,
        last=last,
        experiment=experiment,
        steps=int(state.step),
        best_step=loop.best.step if loop.best.ema is not None else int(state.step),
        validation=None if validation is None else loop.best.loss,
        history=loop.history,
        workdir=path,
    )


def _begin(experiment: Experiment, train: Dataset, key: jax.Array) -> Density:
    if isinstance(experiment.model, Density):
        return for_backend(experiment.model)
    build_key, rows_key, initialise_key = jax.random.split(key, 3)
    density = build(experiment.model, key=build_key)
    check_fit(density, train)
    count = min(experiment.initialise_with, len(train))
    rows = np.asarray(jax.random.permutation(rows_key, len(train)))[:count]
    return density.initialise(train.examples[np.sort(rows)], initialise_key)


def check_disjoint(train: Dataset, other: Dataset) -> None:
    """Raises a ValueError if ``other`` repeats ``train``: more than half of its examples are in it.

    Single repetitions are legitimate: blank pages, coarse tables (of UCI's red wine a seventh).
    """
    seen = {hash(row.tobytes()) for row in train.examples}
    repeated = sum(hash(row.tobytes()) in seen for row in other.examples)
    if 2 * repeated > len(other):
        raise ValueError(
            f"expected different examples to train and to select on: {repeated} of the {len(other)} of {other.name} "
            f"{other.split} are in {train.name} {train.split}; load(name, split='validation') gives rows that "
            "training does not see"
        )


def _resume(checkpoints: Checkpoints, structure: Structure, state: TrainState) -> tuple[TrainState, Position, _Best]:
    as_stored = in_form(stack, structure, state)
    templates = density_items(as_stored.ema, as_stored.fixed) | training_items(as_stored)
    items, record = checkpoints.restore("last", templates)
    stored_structure = take_apart(stack(put_together(structure, state.params, state.fixed)))[0]
    state = in_form(for_backend, stored_structure, state_of(items, as_stored))
    best = _Best(record["best_step"], math.inf if record["best_loss"] is None else record["best_loss"])
    if checkpoints.latest("best") is not None:
        best_items, _ = checkpoints.restore("best", density_items(as_stored.ema, as_stored.fixed))
        arrays = best_items["density"]
        best.ema = take_apart(for_backend(put_together(stored_structure, arrays["params"], arrays["fixed"])))[1]
    return state, Position(*record["position"]), best


StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def _compile_step(
    experiment: Experiment,
    structure: Structure,
    transformation: optax.GradientTransformation,
    key: jax.Array,
    mesh: jax.sharding.Mesh,
) -> StepFunction:
    """One update, compiled for the mesh, with the old state's memory reused."""

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        step_key = jax.random.fold_in(key, state.step)
        keys = example_keys(step_key, jnp.arange(len(batch.x)))

        def loss_of(params: Arrays) -> Any:
            return experiment.objective(put_together(structure, params, state.fixed), batch, keys, state.step)

        (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, optimiser = transformation.update(gradient, state.optimiser, state.params)
        params: Arrays = optax.apply_updates(state.params, updates)  # pyright: ignore
        ema = moving_average(state.ema, params, experiment.ema_decay, state.step)
        new = TrainState(state.step + 1, params, ema, state.fixed, optimiser)
        return new, {"loss": loss, **metrics, "gradient_norm": optax.tree.norm(gradient)}

    whole, parts = sharding.replicated(mesh), sharding.cut(mesh)
    return jax.jit(step, donate_argnums=0, in_shardings=(whole, parts), out_shardings=(whole, whole))


class _Loop:
    """One run of the training loop: what it logs, when it validates, what it saves."""

    def __init__(
        self,
        experiment: Experiment,
        structure: Structure,
        checkpoints: Checkpoints,
        workdir: Path | None,
        validation: Dataset | None,
        validation_key: jax.Array,
        best: _Best,
        levels: int | None,
    ):
        self.experiment = experiment
        self.structure = structure
        self.checkpoints = checkpoints
        self.workdir = workdir
        self.validation = validation
        self.validation_key = validation_key
        self.best = best
        self.unit = "nats" if levels is None else "bits/dim"
        self.history: list[dict[str, Any]] = []

    def run(self, state: TrainState, step: StepFunction, batches: Batches, mesh: jax.sharding.Mesh) -> TrainState:
        """Steps until the experiment's last, from where ``state`` stands."""
        experiment, first = self.experiment, int(state.step)
        metrics_file = MetricsFile(self.workdir, start=first)
        if self.workdir is not None and (self.workdir / "metrics.jsonl").exists():
            self.history = read_metrics(self.workdir / "metrics.jsonl")
        progress = ProgressLine(first, experiment.steps, unit=self.unit, stream=sys.stderr)
        since, pending, window = time.monotonic(), None, []
        try:
            for number in range(first + 1, experiment.steps + 1):
                state, metrics = step(state, sharding.put(next(batches), sharding.cut(mesh)))
                if pending is not None:  # read the step before only now, while this one runs
                    window.append(_finite(*pending))
                pending = number, metrics
                progress.advance(number)
                due = [number % n == 0 for n in _intervals(experiment)]
                last = number == experiment.steps
                if not (any(due) or last):
                    continue
                window.append(_finite(*pending))
                pending = None
                if due[0] or last:
                    record = _mean(window) | {
                        "step": number,
                        "steps_per_second": len(window) / (time.monotonic() - since),
                    }
                    since, window = time.monotonic(), []
                    self._note(metrics_file, record)
                    progress.report(
                        number,
                        loss=self._shown(record["log_prob"], batches.dataset.event_shape),
                        steps_per_second=record["steps_per_second"],
                        validation=self.best.loss if self.best.ema is not None else None,
                    )
                if (due[1] or last) and self.validation is not None:
                    paused = time.monotonic()
                    self._validate(state, number, metrics_file, progress)
                    since += time.monotonic() - paused
                if due[2] or last:
                    self._save(state, number, batches.position)
        finally:
            progress.close()
        return state

    def _shown(self, log_prob: float, event_shape: tuple[int, ...]) -> float:
        """A mean log-likelihood in the unit that is minimised: bits/dim, or nats of continuous data."""
        return -log_prob if self.unit == "nats" else float(bits_per_dim(log_prob, event_shape))

    def _note(self, metrics_file: MetricsFile, record: dict[str, Any]) -> None:
        self.history.append(record)
        metrics_file.write(record)

    def _validate(self, state: TrainState, number: int, metrics_file: MetricsFile, progress: ProgressLine) -> None:
        assert self.validation is not None
        density: Density = put_together(self.structure, state.ema, state.fixed)
        log_prob = log_prob_in_chunks(
            density,
            self.validation.examples,
            key=self.validation_key,
            condition=self.validation.labels if density.condition_shape is not None else None,
            batch_size=self.experiment.batch_size,
        )
        loss = self._shown(float(np.mean(log_prob, dtype=np.float64)), density.event_shape)
        self._note(metrics_file, {"step": number, "validation": loss})
        progress.say(f"step {number}: validation {loss:.4f} {self.unit} of the moving average (n = {len(log_prob)})")
        if loss < self.best.loss:
            self.best = _Best(number, loss, jax.tree.map(np.array, state.ema))
            self.checkpoints.save(
                "best", number, density_items(*self._stored(state)), {"validation": loss, "best_step": number}
            )

    def _stored(self, state: TrainState) -> tuple[Arrays, Arrays]:
        host = jax.tree.map(np.asarray, jax.device_get(state))
        _, ema, fixed = take_apart(stack(put_together(self.structure, host.ema, host.fixed)))
        return ema, fixed

    def _save(self, state: TrainState, number: int, position: Position) -> None:
        if self.workdir is None:
            return
        host = jax.tree.map(np.asarray, jax.device_get(state))
        stored = in_form(stack, self.structure, host)
        record = {
            "position": list(position),
            "best_step": self.best.step,
            "best_loss": self.best.loss if math.isfinite(self.best.loss) else None,
        }
        items = density_items(stored.ema, stored.fixed) | training_items(stored)
        self.checkpoints.save("last", number, items, record)


def _intervals(experiment: Experiment) -> tuple[int, int, int]:
    return experiment.log_every, experiment.validate_every, experiment.checkpoint_every


def _finite(number: int, metrics: dict[str, jax.Array]) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteError(
            f"step {number}: {', '.join(f'{name} is {values[name]}' for name in bad)}; training stopped and the last "
            "good checkpoint is kept. A lower learning rate, warm-up or clip_norm usually helps"
        )
    return values


def _mean(window: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([record[name] for record in window])) for name in window[0]}

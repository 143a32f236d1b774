"""``fit``: an experiment and data in, a trained density out, and a run directory that can be resumed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from likejax.data.batches import Batches, Position
from likejax.data.dataset import Dataset
from likejax.density import Density, bits_per_dim
from likejax.evaluation import check_fit
from likejax.experiment import Experiment, Optimizer, to_json
from likejax.keys import KeyLike, as_key
from likejax.models import build
from likejax.nn.repeat import for_backend, stack
from likejax.nn.state import Structure, merge, split
from likejax.train import guard, sharding
from likejax.train.checkpoint import (
    CheckpointError,
    Checkpoints,
    check_record,
    density_items,
    place_of,
    state_of,
    training_items,
    write_record,
)
from likejax.train.feed import Feed
from likejax.train.guard import NonFiniteError
from likejax.train.interrupt import Interruption
from likejax.train.log import MetricsFile
from likejax.train.optimizer import build_optimizer, rate_that_jumps
from likejax.train.progress import Progress, Silence, Unfailing, progress
from likejax.train.selecting_rows import note_selection
from likejax.train.selection import Best, Validation, described
from likejax.train.side_products import SideProducts, tell
from likejax.train.source import Source
from likejax.train.start import check_experiment, check_model, validation_examples
from likejax.train.state import TrainState, in_form
from likejax.train.step import StepFunction, compile_step
from likejax.train.summary import count_parameters, summarize


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a call of ``fit`` leaves.

    Attributes:
      density: Moving-average weights, those best on validation, of this call or of the ones before it that the run
        goes on from; the last if there never was a validation set.
      last: Moving-average weights after the last step.
      experiment: What was run.
      steps: Steps done; fewer than the experiment's if validation stopped the run.
      best_step: Step of ``density``.
      validation: Validation loss at ``best_step``, bits/dim or nats; ``None`` if there never was a validation set.
      validated_on: The rows that ``validation`` was measured on, in words; ``None`` without a validation set.
      interrupted: Whether Ctrl-C ended the run before its last step.
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
    validated_on: str | None = None
    interrupted: bool = False

    def summary(self) -> str:
        """What was trained on what, how long it took, how it ended: a few lines for a person."""
        experiment = json.loads(to_json(self.experiment))
        return summarize(experiment, self.history, parameters=count_parameters(self.density))


def fit(
    experiment: Experiment,
    train: Any,
    *,
    key: KeyLike,
    validation: Any = None,
    workdir: str | os.PathLike[str] | None = None,
) -> Run:
    """Trains the experiment's model, on every device of every process (no ``pmap``: see ``train.sharding``).

    A model given as a config is built and initialized from data; a ready density is trained as it is. If ``workdir``
    holds a run of the same experiment, training goes on where its last checkpoint stands, and ends where an
    uninterrupted run would: bitwise on CPU. Ctrl-C and SIGTERM save before they end the program; without a ``workdir``
    Ctrl-C returns the run as it stands. Steps that are not finite or whose gradient explodes are skipped and counted
    (``experiment.guard``). What a run makes besides its weights (log lines, pictures) never ends it: what fails there
    becomes a warning.

    Args:
      experiment: Model, objective, optimizer and schedule.
      train: Training examples: a dataset, an array ``(n, *event_shape)``, or any iterable of arrays, of pairs of
        examples and labels, of triples with weights, or of mappings with the keys ``x``, ``labels`` and ``weights``.
        The items of an iterable may have any number of rows; it is drawn again from its beginning when a run is
        resumed.
      key: Of initialization, shuffling and noise.
      validation: Examples that select the best weights, a dataset or an array; disjoint from ``train``. If there are
        more than ``experiment.validation_examples``, so many are drawn by ``key``, the same for the whole run.
      workdir: Where checkpoints, ``metrics.jsonl`` and ``experiment.json`` go; nothing is written without one.

    Returns:
      A ``Run``; its ``density`` is what one evaluates.

    Raises:
      NonFiniteError: If ``guard.patience`` steps in a row could not be taken, or the log-probability of a validation
        example is NaN or infinite; the last good checkpoint stays.
      CheckpointError: If ``workdir`` holds another run, or cannot be written.
      ValueError: If data and model do not fit, or the experiment asks for what its model cannot do.
      TypeError: If an argument is of another type.
      KeyboardInterrupt, SystemExit: After saving, for Ctrl-C with a ``workdir`` and for SIGTERM.

    Example:
      >>> import dataclasses, likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=2, width=8)
      >>> experiment = dataclasses.replace(lj.preset("vector_glow/moons"), model=model, steps=2)
      >>> lj.fit(experiment, lj.load("moons"), key=0).steps
      2
    """
    check_experiment(experiment, validates=validation is not None, writes=workdir is not None)
    key = as_key(key)
    build_key, data_key, noise_key, validation_key, sample_key = jax.random.split(key, 5)
    path = None if workdir is None else place_of(workdir)
    if path is not None:
        check_record(path, experiment)
    mesh = sharding.device_mesh(experiment.parameter_shards)
    if experiment.batch_size % (mesh.size * experiment.accumulate):
        raise ValueError(
            f"expected a batch_size divisible by {mesh.size} devices times accumulate={experiment.accumulate}, "
            f"got {experiment.batch_size}"
        )
    source = Source(experiment, train)
    check_model(experiment, source.examples)
    selects_by = None
    if validation is not None:
        examples = validation_examples(experiment, validation, source.dataset)
        check_model(experiment, examples)
        selects_by = Validation(examples, experiment.validation_examples, validation_key)

    density = _begin(experiment, source.examples, build_key)
    check_fit(density, source.examples)
    structure, params, fixed = split(density)
    params, fixed = sharding.of_first_process((params, fixed))
    transformation = build_optimizer(experiment.optimizer, experiment.steps)
    optimizer = jax.jit(transformation.init)(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, params, fixed, optimizer, guard.begin())
    origin = {
        "experiment": json.loads(to_json(experiment)),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "data": source.fingerprints()[0],
    }
    labels = source.examples.labels
    classes = np.unique(labels) if labels is not None else np.zeros(0, int)
    loop = _Loop(experiment, structure, origin, path, selects_by, sample_key, density, classes)
    position = Position(int(jax.random.randint(data_key, (), 0, 2**31 - 1)), 0, 0)
    with (
        Interruption(saves=path is not None) as interruption,
        Checkpoints(path, keep=experiment.keep_checkpoints) as checkpoints,
    ):
        if (
            path is not None and jax.process_index() == 0
        ):  # before the record, by which older runs are known
            note_selection(path, None if selects_by is None else selects_by.examples)
        if checkpoints.has_last():
            state, position = loop.resume(checkpoints, state, known_as=source.fingerprints())
        checkpoints.drop_best_after(int(state.step))
        if path is not None and jax.process_index() == 0 and int(state.step) <= experiment.steps:
            write_record(path, experiment)
        shardings = sharding.divided(mesh, state)
        state = sharding.put_state(sharding.to_host(state), shardings)
        step = compile_step(experiment, structure, transformation, noise_key, mesh, shardings)
        labeled = density.condition_shape is not None
        batches = source.batches(position, labeled=labeled, num_classes=density.num_classes)
        state = loop.run(state, step, batches, mesh, checkpoints, interruption)
        _all_written(checkpoints)
    host = sharding.to_host(state)  # in every process, before one may end
    interrupted = interruption.received == signal.SIGINT
    if path is not None or not interrupted:
        interruption.end()
    last = _on_device(merge(structure, host.ema, host.fixed))
    best = loop.best
    return Run(
        density=last if best.ema is None else _on_device(merge(structure, best.ema, host.fixed)),
        last=last,
        experiment=experiment,
        steps=int(host.step),
        best_step=best.step if best.ema is not None else int(host.step),
        validation=None if best.ema is None else best.loss,
        validated_on=None if best.ema is None else described(best.measured_on),
        interrupted=interrupted,
        history=loop.metrics.history,
        workdir=path,
    )


def _on_device(density: Density) -> Density:
    return jax.tree.map(jnp.asarray, density)


def _all_written(checkpoints: Checkpoints) -> None:
    """Waits until the last checkpoint is on disk, in every process: the first one writes for all.

    Raises:
      CheckpointError: In every process, if it could not be written.
    """
    failure = None
    try:
        checkpoints.wait()
    except CheckpointError as error:
        failure = error
    if sharding.agreed(failure is not None):
        raise failure or CheckpointError(
            "another process could not write its checkpoint: see there"
        )


def _is_older(record: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of a version whose hashes of data left out labels and weights."""
    major, minor = str(record.get("likejax", "0.0")).split(".")[:2]
    return (int(major), int(minor)) < (0, 6)


def _begin(experiment: Experiment, train: Dataset, key: Array) -> Density:
    if isinstance(experiment.model, Density):
        return for_backend(experiment.model)
    build_key, rows_key, initialize_key = jax.random.split(key, 3)
    density = build(experiment.model, key=build_key)
    count = min(experiment.rows_to_initialize(train.event_shape), len(train))
    rows = np.asarray(jax.random.permutation(rows_key, len(train)))[:count]
    return density.initialize(train.examples[np.sort(rows)], initialize_key)


class _Loop:
    """One run of the training loop: what it logs, when it validates, what it saves."""

    def __init__(
        self,
        experiment: Experiment,
        structure: Structure,
        origin: dict[str, Any],
        workdir: Path | None,
        validation: Validation | None,
        sample_key: Array,
        density: Density,
        classes: np.ndarray,
    ):
        self.experiment = experiment
        self.structure = structure
        self.origin = origin
        self.workdir = workdir
        self.validation = validation
        self.sample_key = sample_key
        self.classes = classes
        self.event_shape = density.event_shape
        self.conditional = density.condition_shape is not None
        self.levels = density.levels
        self.unit = "nats" if density.levels is None else "bits/dim"
        self.best = Best()
        self.window: list[dict[str, float]] = []
        self.side = SideProducts()
        self.speaks = jax.process_index() == 0
        self.metrics = MetricsFile(None, start=0)

    def resume(
        self, checkpoints: Checkpoints, state: TrainState, *, known_as: list[str | None]
    ) -> tuple[TrainState, Position]:
        """The state and the position of the newest intact checkpoint; the best so far comes with it.

        Args:
          checkpoints: Of the run.
          state: A state of the run's structure.
          known_as: Hashes of the training data, in the form of this version and of older ones.

        Raises:
          CheckpointError: If the run was begun with another key or other data.
        """
        as_stored = in_form(stack, self.structure, state)
        density = density_items(as_stored.ema, as_stored.fixed)
        items, record = checkpoints.read_last(density | training_items(as_stored))
        for name, what, known in (
            ("key", "another key", [self.origin["key"]]),
            ("data", "other training data", known_as if _is_older(record) else known_as[:1]),
        ):
            if record[name] not in known:
                raise CheckpointError(
                    f"{self.workdir} holds a run that was begun with {what} ({record[name]}, now {self.origin[name]}): "
                    "resume it with those, or choose another workdir"
                )
        stored_structure = split(stack(merge(self.structure, state.params, state.fixed)))[0]
        state = in_form(for_backend, stored_structure, state_of(items, as_stored))
        self.window = record["window"]
        self._say_what_changed(int(state.step), record["experiment"]["steps"])
        best = Best(
            step=record["best_step"],
            loss=math.inf if record["best_loss"] is None else record["best_loss"],
            since=record["validations_since_best"],
            measured_on=record.get("best_on"),
        )
        if best.step:
            stored = checkpoints.read_best(best.step, density)
            if stored is None:  # begin to select anew rather than name weights that are lost
                best = Best()
            else:
                arrays = stored["density"]
                best.ema = split(
                    for_backend(merge(stored_structure, arrays["params"], arrays["fixed"]))
                )[1]
        self.best = self._comparable(best, int(state.step))
        return state, Position(*record["position"])

    def _say_what_changed(self, done: int, planned: int) -> None:
        """Warns where a run is asked for fewer steps than it has done, or its learning rate jumps."""
        steps, optimizer = self.experiment.steps, self.experiment.optimizer
        if steps < done:
            tell(
                f"{self.workdir} holds a run that has done {done} steps, and {steps} are asked for: nothing is "
                f"trained, the weights are those of step {done}, and the record of the run stays as it is"
            )
        if steps <= done or not isinstance(
            optimizer, Optimizer
        ):  # of a schedule of the user's own nothing is known
            return
        jump = rate_that_jumps(optimizer, planned=planned, steps=steps, done=done)
        if jump is not None:
            tell(
                f"the run was planned for {planned} steps and goes on to {steps}: the {optimizer.decay} decay of its "
                f"learning rate stood at {jump[0]:.3g} after step {done}, goes on at {jump[1]:.3g} and falls from "
                "there; a new run of all steps would end elsewhere"
            )

    def _comparable(self, best: Best, done: int) -> Best:
        """The best so far, if what this call validates on compares with what it was measured on; else none."""
        if best.step == 0:
            return best
        if self.validation is None:
            tell(
                f"this call has no validation set: the best weights of {self.workdir} stay those of step {best.step}, "
                f"measured on {described(best.measured_on)}; run.last has the newest"
            )
            return best
        if self.validation.compares_with(best.measured_on):
            return best
        change = (
            f"the best validation of {self.workdir} so far, {best.loss:.4f} {self.unit} at step {best.step}, was "
            f"measured on {described(best.measured_on)}; this call validates on {described(self.validation.identity)}, "
            "and the two do not compare"
        )
        if done >= self.experiment.steps:
            tell(
                f"{change}. No step is left to train, so the old best stays (Run.validated_on says so)"
            )
            return best
        tell(f"{change}: selection and early stopping begin anew")
        return Best()

    def run(
        self,
        state: TrainState,
        step: StepFunction,
        batches: Batches,
        mesh: jax.sharding.Mesh,
        checkpoints: Checkpoints,
        interruption: Interruption,
    ) -> TrainState:
        """Steps until the experiment's last or until validation has not improved, from where ``state`` stands."""
        experiment, first = self.experiment, int(state.step)
        workdir = self.workdir if self.speaks else None
        self.metrics = MetricsFile(workdir, start=first, tensorboard=experiment.tensorboard)
        steps = experiment.steps
        view = Unfailing(lambda: progress(first, steps)) if self.speaks else Silence()
        since, since_step, pending = time.monotonic(), first, None
        saved, position = first, batches.position
        try:
            with Feed(batches, mesh) as feed:
                for number in range(first + 1, steps + 1):
                    if self._has_stopped_improving():
                        break
                    batch, position = feed.take()
                    state, metrics = step(state, batch)
                    if pending is not None:  # read the step before only now, while this one runs
                        self._note(*pending)
                    pending = number, metrics
                    view.advance(number)
                    logs, validates, saves, draws = (
                        every and number % every == 0 for every in _intervals(experiment)
                    )
                    last = number == steps
                    stops = interruption.received is not None
                    if (
                        jax.process_count() > 1
                    ):  # all processes stop at the same step; asked at log steps only
                        stops = (logs or last) and sharding.agreed(stops)
                        if stops and interruption.received is None:
                            interruption.received = (
                                signal.SIGTERM
                            )  # another process was asked: this one ends too
                    if not (logs or validates or saves or draws or last or stops):
                        continue
                    self._note(*pending)
                    pending = None
                    if logs or last:
                        elapsed, taken = time.monotonic() - since, number - since_step
                        self._log(number, taken / elapsed, elapsed, view)
                        since, since_step = time.monotonic(), number
                    paused = time.monotonic()
                    if (validates or last) and self.validation is not None:
                        self._validate(state, number, view, checkpoints)
                    if draws:
                        self._draw(state, number)
                    if saves or last or stops or self._has_stopped_improving():
                        self._save(state, number, position, checkpoints)
                        saved = number
                    since += time.monotonic() - paused
                    if stops:
                        self._say_goodbye(number, view, interruption)
                        break
            if saved < int(state.step):
                self._save(state, int(state.step), position, checkpoints)
        finally:
            view.close()
            self.metrics.close()
        return state

    def _has_stopped_improving(self) -> bool:
        limit = self.experiment.early_stopping
        return bool(limit) and self.best.since >= limit

    def _say_goodbye(self, number: int, view: Progress, interruption: Interruption) -> None:
        name = (
            interruption.received.name
            if interruption.received is not None
            else "a signal to another process"
        )
        kept = (
            f"saved in {self.workdir}; the same call goes on from there"
            if self.workdir
            else "no workdir, not saved"
        )
        view.say(f"stopped by {name} after step {number}: {kept}")
        if not self.workdir and interruption.received == signal.SIGINT:
            tell(
                f"training was interrupted after step {number} of {self.experiment.steps}: fit returns the run as it "
                "stands (Run.interrupted)"
            )

    def _note(self, number: int, metrics: dict[str, Array]) -> None:
        """Reads a step's metrics into the window, and ends the run after too many rejected steps."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        in_a_row, bad_array = int(values.pop("in_a_row")), int(values.pop("bad_array"))
        self.window.append(values)
        if in_a_row < self.experiment.guard.patience:
            return
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        bad.sort(
            key=lambda name: name == "gradient_norm"
        )  # the terms first: they say where it began
        terms = ", ".join(f"{name} is {values[name]}" for name in bad)
        terms = terms or f"gradient_norm is {values['gradient_norm']:.3g}, a spike"
        params = [
            name
            for name, trains in zip(self.structure.names, self.structure.trainable, strict=True)
            if trains
        ]
        where = f" (the gradient of {params[bad_array]} first)" if bad_array >= 0 else ""
        raise NonFiniteError(
            f"step {number}: {terms}{where}; {in_a_row} steps in a row could not be taken, so training stopped; the "
            "last good checkpoint is kept. A lower learning rate, warm-up or clip_norm usually helps"
        )

    def _log(self, number: int, steps_per_second: float, seconds: float, view: Progress) -> None:
        """One line of the means over the steps taken since the last."""
        taken = [values for values in self.window if values["taken"]]
        names = [name for name in self.window[0] if name != "taken"]
        record: dict[str, Any] = {
            name: float(np.mean([values[name] for values in taken])) if taken else None
            for name in names
        }
        record |= {"step": number, "skipped": len(self.window) - len(taken)}
        record |= {"steps_per_second": steps_per_second, "seconds": seconds}
        self.window = []
        self.metrics.write(record)
        words = self._in_words(record) if taken else "no step taken"
        if self.best.step:
            words += f", best validation {self.best.loss:.3f}"
        if record["skipped"]:
            words += f", {record['skipped']} skipped"
        view.report(number, words, steps_per_second)

    def _in_words(self, record: dict[str, Any]) -> str:
        """The likelihood of a record, or the loss where the objective reports none."""
        if "log_prob" in record:
            return f"{self.unit} {self._shown(record['log_prob']):.3f}"
        return f"loss {record['loss']:.3f}"

    def _shown(self, log_prob: float) -> float:
        """A mean log-likelihood in the unit that is minimized: bits/dim, or nats of continuous data."""
        return -log_prob if self.levels is None else float(bits_per_dim(log_prob, self.event_shape))

    def _density(self, state: TrainState) -> Density:
        """The moving average on one device of this process: every process computes the same with it."""
        host = sharding.to_host((state.ema, state.fixed))
        return _on_device(merge(self.structure, *host))

    def _validate(
        self, state: TrainState, number: int, view: Progress, checkpoints: Checkpoints
    ) -> None:
        assert self.validation is not None
        size = self.experiment.batch_size
        log_prob = self.validation.log_prob(self._density(state), batch_size=size, step=number)
        loss = self._shown(-self.validation.loss(log_prob))
        self.metrics.write({"step": number, "validation": loss})
        view.say(
            f"step {number}: validation {loss:.4f} {self.unit} of the moving average (n = {len(log_prob)})"
        )
        if not loss < self.best.loss:
            self.best.since += 1
            return
        ema, fixed = sharding.to_host((state.ema, state.fixed))
        self.best = Best(number, loss, ema, measured_on=self.validation.identity)
        _, ema, fixed = split(stack(merge(self.structure, ema, fixed)))
        record = {"experiment": self.origin["experiment"], "best_step": number, "validation": loss}
        record["best_on"] = self.validation.identity
        checkpoints.save_best(number, density_items(ema, fixed), record)

    def _save(
        self, state: TrainState, number: int, position: Position, checkpoints: Checkpoints
    ) -> None:
        if self.workdir is None:
            return
        stored = in_form(stack, self.structure, sharding.to_host(state))
        record = {
            **self.origin,
            "position": list(position),
            "best_step": self.best.step,
            "best_loss": self.best.loss if math.isfinite(self.best.loss) else None,
            "validations_since_best": self.best.since,
            "best_on": self.best.measured_on,
            "window": self.window,
        }
        checkpoints.save_last(
            number, density_items(stored.ema, stored.fixed) | training_items(stored), record
        )

    def _draw(self, state: TrainState, number: int) -> None:
        """A sheet of samples of the moving average, as a picture in the run's directory."""
        density = self._density(state)  # in every process: it may gather parameters
        if self.workdir is None or not self.speaks:
            return
        with self.side.making("drawing a sheet of samples"):
            self._draw_sheet(density, number)

    def _draw_sheet(self, density: Density, number: int) -> None:
        from likejax import plot

        assert self.workdir is not None
        labels = np.resize(self.classes, 64) if self.conditional else None
        shape = () if self.conditional else 64
        samples = np.asarray(density.sample(self.sample_key, shape, labels))
        figure = plot.sheet(samples, levels=self.levels or 256, title=f"step {number}")
        place = self.workdir / "samples"
        place.mkdir(exist_ok=True)
        figure.savefig(place / f"{number:08}.png", dpi=100)
        self.metrics.picture("samples", plot.pixels(figure), number)


def _intervals(experiment: Experiment) -> tuple[int, int, int, int]:
    return (
        experiment.log_every,
        experiment.validate_every,
        experiment.checkpoint_every,
        experiment.samples_every,
    )

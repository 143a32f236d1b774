"""``fit``: from an experiment and data to a trained density, in a run that can be resumed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from likejax.data.batches import Position
from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.evaluation import check_fit
from likejax.experiment import Experiment, record_of
from likejax.keys import KeyLike, as_key
from likejax.models import build
from likejax.nn.repeat import for_backend
from likejax.nn.state import Structure, split
from likejax.storage.files import directory_path
from likejax.train import guard, sharding
from likejax.train.checkpoint import Checkpoints, RunCheckpoints
from likejax.train.feed import Feed
from likejax.train.initial import Initial, InitialWeights, begin_from, initial_weights
from likejax.train.interrupt import Interruption
from likejax.train.log import Log, Logger, Unit
from likejax.train.optimizer import build_optimizer
from likejax.train.record import check_record, note_selection, write_record
from likejax.train.resume import Stand, resume, warn_of_other_plans
from likejax.train.run import Run
from likejax.train.selection import Selection, Validation, comparable_best, described
from likejax.train.sheets import SampleSheets
from likejax.train.side_products import tell
from likejax.train.source import Source
from likejax.train.start import check_experiment, check_model, validation_examples
from likejax.train.state import TrainState, Weights
from likejax.train.step import StepFunction, compile_step
from likejax.train.window import Window


def fit(
    experiment: Experiment,
    train: Any,
    *,
    key: KeyLike,
    validation: Any = None,
    workdir: str | os.PathLike[str] | None = None,
    initial: InitialWeights | None = None,
    devices: sharding.Devices | None = None,
    loggers: Sequence[Logger] = (),
) -> Run:
    """Trains the experiment's model, on every device of every process.

    A model given as a config is built and initialized from data; a ready density is trained as it
    is. If ``workdir`` holds a run of the same experiment, training goes on where its last
    checkpoint stands, and ends where an uninterrupted run would: bitwise on CPU. Ctrl-C and SIGTERM
    save before they end the program; without a ``workdir`` Ctrl-C returns the run as it stands.
    Steps that are not finite or whose gradient explodes are skipped and counted
    (``experiment.guard``). If a log line or a picture cannot be made, there is a warning and
    training goes on.

    Args:
      experiment: Model, objective, optimizer and schedule.
      train: Training examples: a dataset, an array ``(n, *event_shape)``, or any iterable of
        arrays, of pairs of examples and labels, of triples with weights, or of mappings with the
        keys ``x``, ``labels`` and ``weights``. The items of an iterable may have any number of
        rows; it is drawn again from its beginning when a run is resumed.
      key: Key of initialization, shuffling and noise.
      validation: Examples that select the best weights, a dataset or an array; disjoint from
        ``train``. If there are more than ``experiment.validation_examples``, so many are drawn by
        ``key``, the same for the whole run.
      workdir: Directory of checkpoints, ``metrics.jsonl`` and ``experiment.json``; nothing is
        written without one.
      initial: Weights to start from instead of new ones: a ``Run``, a density, or the directory of
        either. It is a new run of ``experiment.steps`` steps, whose schedule begins anew. Of a run
        the raw weights and the moving average are taken, and the state of the optimizer if its
        settings are the same. A run in ``workdir`` goes on from its own checkpoint.
      devices: Devices to train on, or a mesh of them; all devices of all processes if not given.
      loggers: Objects with the methods ``log(record)`` and ``close()``, such as a connection to
        Weights & Biases; see ``likejax.train.Logger``.

    Returns:
      A ``Run``; its ``density`` is what one evaluates.

    Raises:
      NonFiniteError: If ``guard.patience`` steps in a row could not be taken, or the
        log-probability of a validation example is NaN or infinite; the last good checkpoint stays.
      CheckpointError: If ``workdir`` holds another run, or cannot be written.
      ValueError: If data and model do not fit, or the experiment asks for what its model cannot do.
      TypeError: If an argument is of another type.
      KeyboardInterrupt, SystemExit: After saving, for Ctrl-C with a ``workdir`` and for SIGTERM.

    Example:
      >>> import likejax as lj
      >>> model = lj.models.VectorGlowConfig(depth=2, width=8)
      >>> experiment = lj.preset("vector_glow/moons").override({"model": model, "steps": 2})
      >>> lj.fit(experiment, lj.load("moons"), key=0).steps
      2
    """
    check_experiment(experiment, validates=validation is not None, writes=workdir is not None)
    check_loggers(loggers)
    keys = _Keys(*jax.random.split(as_key(key), 5))
    path = None if workdir is None else directory_path(workdir)
    if path is not None:
        check_record(path, experiment)
    mesh = sharding.device_mesh(experiment.parameter_shards, devices)
    sharding.check_batch_size(experiment.batch_size, mesh=mesh, accumulate=experiment.accumulate)
    source = Source(experiment, train)
    check_model(experiment, source.examples)
    rows = _validation(experiment, validation, source, keys.validation)
    start = None if initial is None else initial_weights(initial, experiment)

    density = _begin(experiment, source.examples, keys.build, start)
    check_fit(density, source.examples)
    transformation = build_optimizer(experiment.optimizer, experiment.steps)
    structure, state = _first_state(density, transformation, start)
    seed = int(jax.random.randint(keys.data, (), 0, 2**31 - 1))
    provenance = {
        "experiment": record_of(experiment),
        "key": np.asarray(jax.random.key_data(as_key(key))).tolist(),
        "data": source.fingerprints()[0],
        "initial": None if start is None else start.checksum,
    }
    unit, weights = Unit(density), Weights(structure, sharding.on_one_device(mesh))
    with (
        Interruption(saves=path is not None) as interruption,
        Checkpoints(path, keep=experiment.keep_checkpoints) as files,
    ):
        checkpoints = RunCheckpoints(files, structure, provenance)
        stand = Stand(state, Position(seed, 0, 0))
        if path is not None:  # before the record, by which older runs are known
            note_selection(path, None if rows is None else rows.examples)
        if files.has_last():
            stand = _resumed(checkpoints, stand, experiment, provenance, source, rows, path, unit)
        done = int(stand.state.step)
        files.drop_best_after(done)
        if path is not None and done <= experiment.steps:
            write_record(path, experiment)
        shardings = sharding.divided(mesh, stand.state)
        state = sharding.put_state(sharding.to_host(stand.state), shardings)
        update = compile_step(experiment, structure, transformation, keys.noise, mesh, shardings)
        batches = source.batches(
            stand.position,
            labeled=density.condition_shape is not None,
            num_classes=density.num_classes,
        )
        window = Window(_trainable(structure), experiment.guard.patience, stand.window)
        log = Log(window, unit, start=done, steps=experiment.steps)
        log.open(path, tensorboard=experiment.tensorboard, loggers=loggers)
        selection = Selection(
            rows,
            stand.best,
            unit=unit,
            weights=weights,
            log=log,
            checkpoints=checkpoints,
            batch_size=experiment.batch_size,
            patience=experiment.early_stopping,
        )
        sheets = SampleSheets(source.examples, weights, log, workdir=path, key=keys.sample)
        with log, Feed(batches, mesh) as feed:
            state = _loop(
                experiment, state, update, feed, log, selection, sheets, checkpoints, interruption
            )
            _say_interrupted(log, interruption, experiment, int(state.step), path)
        files.all_written()
    host = sharding.to_host(state)  # in every process, before one may end
    if path is not None or not interruption.is_keyboard:
        interruption.end()
    return _result(experiment, host, weights, selection, log, path, interruption)


def _loop(
    experiment: Experiment,
    state: TrainState,
    update: StepFunction,
    feed: Feed,
    log: Log,
    selection: Selection,
    sheets: SampleSheets,
    checkpoints: RunCheckpoints,
    interruption: Interruption,
) -> TrainState:
    """Steps until the experiment's last, until validation has not improved, or until a signal."""
    for number in range(int(state.step) + 1, experiment.steps + 1):
        if selection.is_exhausted:
            break
        batch, position = feed.take()
        state, metrics = update(state, batch)
        log.add(number, metrics)  # reads those of the step before, while this one runs
        due = _due(experiment, number)
        stops = interruption.is_agreed(asks=due.log)
        if not any(due) and not stops:
            continue
        log.catch_up()
        if due.log:
            log.write_steps(number, best=selection.best_loss)
        with log.paused():
            if due.validation:
                selection.consider(number, state)
            if due.sheet:
                sheets.draw(number, state)
            if due.checkpoint or stops or selection.is_exhausted:
                checkpoints.save(state, position, selection.best, log.window.to_record())
        if stops:
            break
    return state


def _say_interrupted(
    log: Log, interruption: Interruption, experiment: Experiment, number: int, workdir: Path | None
) -> None:
    """Prints that a signal ended the run, if one did."""
    if interruption.received is None:
        return
    kept = "no workdir, not saved"
    if workdir is not None:
        kept = f"saved in {workdir}; the same call goes on from there"
    log.say(f"stopped by {interruption.received.name} after step {number}: {kept}")
    if workdir is None and interruption.is_keyboard:
        tell(
            f"training was interrupted after step {number} of {experiment.steps}: fit returns the "
            "run as it stands (Run.interrupted)"
        )


class _Due(NamedTuple):
    """What there is to do after a step."""

    log: bool
    validation: bool
    checkpoint: bool
    sheet: bool


def _due(experiment: Experiment, number: int) -> _Due:
    is_last = number == experiment.steps
    every = experiment.samples_every
    return _Due(
        log=is_last or number % experiment.log_every == 0,
        validation=is_last or number % experiment.validate_every == 0,
        checkpoint=is_last or number % experiment.checkpoint_every == 0,
        sheet=bool(every) and number % every == 0,
    )


class _Keys(NamedTuple):
    """Keys of a run, one for each use."""

    build: Key[Array, ""]
    data: Key[Array, ""]
    noise: Key[Array, ""]
    validation: Key[Array, ""]
    sample: Key[Array, ""]


def check_loggers(loggers: Sequence[Logger]) -> None:
    """Refuses what is no logger.

    Args:
      loggers: Loggers that ``fit`` was given.

    Raises:
      TypeError: If one lacks ``log`` or ``close``.
    """
    for logger in loggers:
        if isinstance(logger, type) or not isinstance(logger, Logger):
            raise TypeError(
                f"expected loggers with the methods log(record) and close(), got {logger!r:.100}"
            )


def _validation(
    experiment: Experiment, validation: Any, source: Source, key: Key[Array, ""]
) -> Validation | None:
    """The rows that select, checked against model and training data."""
    if validation is None:
        return None
    examples = validation_examples(experiment, validation, source.dataset)
    check_model(experiment, examples)
    return Validation(examples, experiment.validation_examples, key)


def _begin(
    experiment: Experiment, train: Dataset, key: Key[Array, ""], initial: Initial | None
) -> Density:
    """The density that training begins with: given, or built and initialized from data."""
    if initial is not None:
        return initial.density
    if isinstance(experiment.model, Density):
        return for_backend(experiment.model)
    build_key, rows_key, initialize_key = jax.random.split(key, 3)
    density = build(experiment.model, key=build_key)
    count = min(experiment.rows_to_initialize(train.event_shape), len(train))
    rows = np.asarray(jax.random.permutation(rows_key, len(train)))[:count]
    return density.initialize(train.examples[np.sort(rows)], initialize_key)


def _first_state(
    density: Density, transformation: optax.GradientTransformation, initial: Initial | None
) -> tuple[Structure, TrainState]:
    """The structure of a density and the state before the first step, the same in every process."""
    structure, params, fixed = split(density)
    params, fixed = sharding.of_first_process((params, fixed))
    optimizer = jax.jit(transformation.init)(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, params, fixed, optimizer, guard.begin())
    return structure, state if initial is None else begin_from(initial, state)


def _resumed(
    checkpoints: RunCheckpoints,
    begun: Stand,
    experiment: Experiment,
    provenance: dict[str, Any],
    source: Source,
    rows: Validation | None,
    workdir: Path | None,
    unit: Unit,
) -> Stand:
    """Where the run in the directory stands; warns if this call has other plans."""
    stand, planned = resume(
        checkpoints,
        begun,
        provenance=provenance,
        known_as=source.fingerprints(),
        workdir=workdir,
    )
    done, steps = int(stand.state.step), experiment.steps
    warn_of_other_plans(
        experiment.optimizer, workdir=workdir, done=done, planned=planned, steps=steps
    )
    best = comparable_best(stand.best, rows, workdir=workdir, unit=unit.name, ended=done >= steps)
    return dataclasses.replace(stand, best=best)


def _trainable(structure: Structure) -> list[str]:
    """Names of the parameters, in the order of the gradient."""
    pairs = zip(structure.names, structure.trainable, strict=True)
    return [name for name, is_trained in pairs if is_trained]


def _result(
    experiment: Experiment,
    state: TrainState,
    weights: Weights,
    selection: Selection,
    log: Log,
    workdir: Path | None,
    interruption: Interruption,
) -> Run:
    best, last = selection.best, weights.density(state.ema, state.fixed)
    has_best = best.ema is not None
    return Run(
        density=weights.density(best.ema, state.fixed) if best.ema is not None else last,
        last=last,
        experiment=experiment,
        steps=int(state.step),
        best_step=best.step if has_best else int(state.step),
        validation=best.loss if has_best else None,
        validated_on=described(best.measured_on) if has_best else None,
        interrupted=interruption.is_keyboard,
        history=log.history,
        workdir=workdir,
        state=state,
    )

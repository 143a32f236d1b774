"""``fit``: from an experiment and data to a trained density, in a run that can be resumed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from likejax import processes
from likejax.data.batches import Position
from likejax.experiment import Experiment, record_of
from likejax.keys import KeyLike, as_key
from likejax.nn.state import Structure
from likejax.storage.files import directory_path
from likejax.train import sharding
from likejax.train.checkpoint import Checkpoints, RunCheckpoints
from likejax.train.due import due_after
from likejax.train.feed import Feed
from likejax.train.first_state import NewRun, new_run
from likejax.train.initial import InitialWeights, initial_weights
from likejax.train.interrupt import Interruption, announce
from likejax.train.log import Log, Logger, Unit
from likejax.train.record import check_record
from likejax.train.resume import RunState, resume_or_begin
from likejax.train.run import Run, run_of
from likejax.train.run_keys import RunKeys
from likejax.train.selection import Selection, Validation
from likejax.train.sheets import SampleSheets
from likejax.train.source import Source, open_source
from likejax.train.start import (
    check_experiment,
    check_loggers,
    check_model,
    validation_rows,
    warn_of_constant_columns,
)
from likejax.train.state import TrainState, Weights
from likejax.train.step import Placement, StepFunction, compile_step
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
    training goes on. There is one too for a continuous column of ``train`` that holds one value.

    Args:
      experiment: Model, objective, optimizer and schedule.
      train: Training examples: a dataset, an array ``(n, *event_shape)``, or any iterable of
        arrays, of pairs of examples and labels, of triples with weights, or of mappings with the
        keys ``x``, ``labels``, ``weights`` and ``conditions``. The items of an iterable may have
        any number of rows; it is drawn again from its beginning when a run is resumed.
      key: Key of initialization, shuffling and noise.
      validation: Examples that select the best weights, a dataset or an array; disjoint from
        ``train``. If there are more than ``experiment.validation_examples``, so many are drawn by
        ``key``, the same for the whole run.
      workdir: Directory of checkpoints, ``metrics.jsonl`` and ``experiment.json``; nothing is
        written without one.
      initial: Weights to start from, and so to fine-tune, instead of new ones: a ``Run``, a
        density, or the directory of either. It is a new run of ``experiment.steps`` steps, whose
        schedule begins anew. Of a run the raw weights and the moving average are taken, and the
        state of the optimizer if its settings are the same. A run in ``workdir`` goes on from its
        own checkpoint.
      devices: Devices to train on, or a mesh of them; all devices of all processes if not given.
      loggers: Objects with the methods ``log(record)`` and ``close()``; that of
        ``likejax.train.Logger`` is a connection to Weights & Biases.

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
    place = None if workdir is None else directory_path(workdir)
    if place is not None:
        check_record(place, experiment)
    mesh = sharding.device_mesh(experiment.parameter_shards, devices)
    sharding.check_batch_size(experiment.batch_size, mesh=mesh, accumulate=experiment.accumulate)

    keys = RunKeys.of(key)
    source = open_source(experiment, train)
    density = check_model(experiment, source.examples)
    warn_of_constant_columns(source.dataset)
    rows = validation_rows(experiment, validation, density, source.dataset, keys.validation)
    start = None if initial is None else initial_weights(initial, experiment)
    new = new_run(experiment, source.examples, key=keys.build, initial=start)
    provenance = {
        "experiment": record_of(experiment),
        "key": np.asarray(jax.random.key_data(as_key(key))).tolist(),
        "data": source.fingerprints()[0],
        "initial": None if start is None else start.checksum,
    }
    task = _Task(experiment, source, rows, new, keys, mesh, place, loggers)
    return _train(task, provenance)


class _Task(NamedTuple):
    """A call of ``fit`` that was checked, with the run before its first step."""

    experiment: Experiment
    source: Source
    rows: Validation | None
    new: NewRun
    keys: RunKeys
    mesh: jax.sharding.Mesh
    workdir: Path | None
    loggers: Sequence[Logger]


def _train(task: _Task, provenance: dict[str, Any]) -> Run:
    """Takes the run up where its directory has it, trains it, and saves it."""
    experiment, new, workdir = task.experiment, task.new, task.workdir
    weights = Weights(new.structure, sharding.on_one_device(task.mesh))
    with (
        Interruption(saves=workdir is not None) as interruption,
        Checkpoints(workdir, keep=experiment.keep_checkpoints) as files,
    ):
        checkpoints = RunCheckpoints(files, new.structure, provenance)
        run_state = _run_state(task, checkpoints)
        placement = Placement(task.mesh, sharding.divided(task.mesh, run_state.state))
        state = sharding.put_state(processes.to_host(run_state.state), placement.state)
        update = _step(task, placement)
        log = _log(task, run_state)
        selection = Selection(
            task.rows,
            run_state.best,
            weights=weights,
            log=log,
            checkpoints=checkpoints,
            batch_size=experiment.batch_size,
            patience=experiment.early_stopping,
            devices=sharding.validation_devices(task.mesh),
        )
        examples, key = task.source.examples, task.keys.sample
        sheets = SampleSheets(examples, weights, log, workdir=workdir, key=key)
        batches = task.source.batches(run_state.position, new.density)
        with log, Feed(batches, task.mesh) as feed:
            state = _loop(
                experiment, state, update, feed, log, selection, sheets, checkpoints, interruption
            )
            announce(interruption, log, int(state.step), workdir=workdir, steps=experiment.steps)
        files.all_written()
    host = processes.to_host(state)  # in every process, before one may end
    if workdir is not None or not interruption.is_keyboard:
        interruption.end()
    run = run_of(experiment, host, selection.best, weights, history=log.history, workdir=workdir)
    return dataclasses.replace(run, interrupted=interruption.is_keyboard)


def _run_state(task: _Task, checkpoints: RunCheckpoints) -> RunState:
    """Where the run goes on: at its beginning or at the last checkpoint of its directory."""
    return resume_or_begin(
        checkpoints,
        RunState(task.new.state, Position(task.keys.order_seed, 0, 0)),
        task.experiment,
        rows=task.rows,
        data_hashes=task.source.fingerprints(),
        unit=Unit(task.new.density).name,
    )


def _step(task: _Task, placement: Placement) -> StepFunction:
    experiment, new = task.experiment, task.new
    return compile_step(
        experiment.objective,
        new.transformation,
        structure=new.structure,
        guard=experiment.guard,
        ema_decay=experiment.ema_decay,
        accumulate=experiment.accumulate,
        key=task.keys.noise,
        placement=placement,
    )


def _log(task: _Task, run_state: RunState) -> Log:
    """The log of the run, with its files open."""
    experiment, new = task.experiment, task.new
    patience = experiment.guard.patience
    window = Window(_trainable(new.structure), patience, run_state.window)
    start = int(run_state.state.step)
    log = Log(window, Unit(new.density), start=start, steps=experiment.steps)
    return log.open(task.workdir, tensorboard=experiment.tensorboard, loggers=task.loggers)


def _trainable(structure: Structure) -> list[str]:
    """Names of the parameters, in the order of the gradient."""
    pairs = zip(structure.names, structure.trainable, strict=True)
    return [name for name, is_trained in pairs if is_trained]


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
        due = due_after(number, experiment)
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

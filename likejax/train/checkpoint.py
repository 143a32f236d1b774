"""What a run leaves on disk: what it needs to go on, the best density, and densities saved by themselves."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from likejax.density import Density, check_density
from likejax.experiment import (
    Experiment,
    config_of,
    from_json,
    model_record,
    to_json,
    with_defaults,
)
from likejax.models import build
from likejax.nn.repeat import for_backend, stack
from likejax.nn.state import Arrays, merge, split, unread
from likejax.storage.store import CheckpointError, Store, manifest
from likejax.train.guard import GuardState
from likejax.train.state import TrainState

RECORD = "experiment.json"
_SAVED = "density"
Which = Literal["last", "best"]
_OPTIMIZER = "optimiser"
"""Name of the optimizer's state on disk: the spelling of the first versions, whose runs stay readable."""
_FREE = {
    "steps",
    "validate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "samples_every",
    "tensorboard",
    "validation_examples",
    "overlap_tolerance",
    "early_stopping",
    "parameter_shards",
    "initialize_with",
    "model.sampler",
}
"""Settings that may change when a run goes on."""


class Checkpoints:
    """The checkpoints of one run: ``last/`` to resume from and ``best/`` to use.

    States are written with repeated blocks stacked, as host arrays, so they restore on any number of devices. Use it
    as a context manager: leaving it, however, waits for what is being written. A lock file keeps a second process
    from training in the same directory.

    Args:
      workdir: The run's directory, created if absent; with ``None`` nothing is written and nothing found.
      keep: How many of the last checkpoints to keep.

    Raises:
      CheckpointError: If another process or thread is training there, or the directory cannot be written.
    """

    def __init__(self, workdir: Path | None, *, keep: int = 2):
        self.workdir = workdir
        self._keep = keep
        self._best_of: dict[int, int] = {}
        if workdir is None:
            return
        self._lock = _lock(workdir) if jax.process_index() == 0 else None
        self._last, self._best = (Store(workdir / name, writes=True) for name in ("last", "best"))
        for step in self._last.steps():
            try:
                self._best_of[step] = self._last.record(step)["best_step"]
            except (CheckpointError, KeyError):
                continue

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        if self.workdir is None:
            return
        try:
            self.wait()
            self._tidy()
        finally:
            if self._lock is not None:
                self._lock.close()

    def wait(self) -> None:
        """Blocks until what is being written is on disk.

        Raises:
          CheckpointError: If it could not be written.
        """
        if self.workdir is not None:
            self._last.wait()
            self._best.wait()

    def save_last(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """What a resumed run needs; ``record["best_step"]`` names the best checkpoint it goes with."""
        if self.workdir is not None:
            self._tidy()
            self._best.wait()  # the best that the record names is on disk before it
            self._last.save(step, items, record)
            self._best_of[step] = record["best_step"]

    def save_best(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """The density that is best so far."""
        if self.workdir is not None:
            self._tidy()
            self._best.save(step, items, record)

    def _tidy(self) -> None:
        """Deletes what is not needed any more: only where what replaces it is on disk whole."""
        kept = self._last.steps()[-self._keep :]
        self._last.keep(kept)
        self._best.keep(
            [
                *self._best.steps()[-1:],
                *(self._best_of[step] for step in kept if step in self._best_of),
            ]
        )

    def has_last(self) -> bool:
        """Whether there is something to resume from."""
        return self.workdir is not None and bool(self._last.steps())

    def read_last(self, templates: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trees and record of the newest intact checkpoint.

        Raises:
          CheckpointError: If there is none, it was written with another model, or in an older layout.
        """

        def wanted(record: dict[str, Any]) -> Mapping[str, Any]:
            if record["layout"] < 2:
                raise CheckpointError(
                    f"{self.workdir} was written by likejax {record.get('likejax')} in layout {record['layout']}, "
                    "which lacks what an exact resume needs: choose another workdir. Its weights are not lost: "
                    "likejax.restore reads them, and an Experiment may start from them as its model"
                )
            return templates

        found, items, record = self._last.read(wanted)
        self._last.keep(
            [step for step in self._last.steps() if step <= found]
        )  # damaged ones are not worth a place
        return items, record

    def drop_best_after(self, step: int) -> None:
        """Forgets best checkpoints of steps that will be done again."""
        if self.workdir is not None:
            self._best.keep([kept for kept in self._best.steps() if kept <= step])

    def read_best(self, step: int, templates: Mapping[str, Any]) -> dict[str, Any] | None:
        """The trees of the best checkpoint of a step, or ``None`` if it is not there whole."""
        try:
            found, items, _ = self._best.read(lambda record: templates, newest=step)
        except CheckpointError:
            return None
        return items if found == step else None


def _lock(workdir: Path) -> Any:
    """An open file with a lock that the system takes back when the process ends, however it ends."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("w")
    except OSError as error:
        raise CheckpointError(f"{workdir} cannot be written: {error}") from error
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise CheckpointError(
            f"another process or thread is training in {workdir}: wait for it, or choose another workdir"
        ) from error
    return file


def density_items(params: Arrays, fixed: Arrays) -> dict[str, Any]:
    """What a usable density is stored as."""
    return {"density": {"params": params, "fixed": fixed}}


def training_items(state: TrainState) -> dict[str, Any]:
    """What a resumed run needs besides the density of its moving average."""
    leaves = jax.tree.leaves(state.optimizer)
    optimizer = {str(i): leaf for i, leaf in enumerate(leaves)}
    guard = state.guard._asdict()
    return {
        "training": {
            "step": state.step,
            "params": state.params,
            _OPTIMIZER: optimizer,
            "guard": guard,
        }
    }


def state_of(items: Mapping[str, Any], like: TrainState) -> TrainState:
    """The train state of ``density_items`` and ``training_items``, with the optimizer's structure of ``like``."""
    density, training = items["density"], items["training"]
    leaves = [training[_OPTIMIZER][str(i)] for i in range(len(training[_OPTIMIZER]))]
    return TrainState(
        step=training["step"],
        params=training["params"],
        ema=density["params"],
        fixed=density["fixed"],
        optimizer=jax.tree.unflatten(jax.tree.structure(like.optimizer), leaves),
        guard=GuardState(**training["guard"]),
    )


def write_record(workdir: Path, experiment: Experiment) -> None:
    """Notes the experiment in the run's directory, whole or not at all.

    Raises:
      CheckpointError: If it cannot be written.
    """
    draft = workdir / (RECORD + ".tmp")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        draft.write_text(to_json(experiment))
        draft.replace(workdir / RECORD)
    except OSError as error:
        raise CheckpointError(
            f"could not write {workdir / RECORD}: {error.strerror or error}; make room or choose another workdir. "
            "Complete checkpoints there are intact"
        ) from error


def check_record(workdir: Path, experiment: Experiment) -> None:
    """Refuses to go on with a run of another model, data or optimizer.

    Raises:
      CheckpointError: Saying which setting differs.
    """
    path = workdir / RECORD
    if not path.exists():
        if (workdir / _SAVED).is_dir():
            raise CheckpointError(
                f"{workdir} holds a saved density: choose another workdir for the run"
            )
        return
    before, now = with_defaults(json_of(path)), json.loads(to_json(experiment))
    different = _differences(before, now)
    if different:
        shown = "; ".join(different[:5])
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise CheckpointError(
            f"{workdir} holds a run with other settings: {shown}{more}. Resume it with those of the run, or choose "
            "another workdir"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ between two records of experiments and may not, by their dotted names."""
    were, are = _flat(before), _flat(now)
    names = [name for name in {**are, **were} if name not in _FREE]
    names = [name for name in names if were.get(name, _ABSENT) != are.get(name, _ABSENT)]
    # another objective or family has other settings altogether: its name says it
    other_kind = {
        name.rpartition(".")[0]
        for name in names
        if name.rpartition(".")[2] in ("name", "family", "density")
    }
    says_it = ("name", "family", "density")
    names = [
        name
        for name in names
        if name.rpartition(".")[0] not in other_kind
        or name in were.keys() & are.keys()
        or name.endswith(says_it)
    ]
    return [f"{name}: {_shown(were, name)} in the run, {_shown(are, name)} now" for name in names]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of a nested record by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return flat


_ABSENT = object()


def _shown(record: Mapping[str, Any], name: str) -> str:
    return repr(record[name]) if name in record else "not there"


def place_of(directory: Any) -> Path:
    """A folder of the user's as an absolute path.

    Raises:
      TypeError: If it is no path.
    """
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"expected the path of a directory, got {type(directory).__name__}")
    return Path(directory).expanduser().absolute()


def json_of(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run.

    Raises:
      CheckpointError: If the file is damaged.
    """
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise TypeError(f"expected an object, got {type(record).__name__}")
        return record
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): restore it, or choose another workdir"
        ) from error


def save(density: Density, directory: str | os.PathLike[str]) -> None:
    """Writes a density by itself: its arrays with their checksums, and the config it was built from, as JSON.

    A density that is there already is replaced once the new one is complete. ``restore`` reads it.

    Args:
      density: Any density; without a ``config`` its arrays are written, and ``restore`` needs ``density=``.
      directory: Where to; created if absent.

    Raises:
      CheckpointError: If the directory holds a run, or cannot be written.

    Example:
      >>> import tempfile, likejax as lj
      >>> density = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     lj.save(density, directory)
      ...     bool(lj.restore(directory).sample(0).shape == density.sample(0).shape)
      True
    """
    check_density(density)
    place = place_of(directory)
    if (place / RECORD).exists():
        raise CheckpointError(f"{place} holds a run: save the density to a directory of its own")
    _, params, fixed = split(stack(density))
    items = jax.tree.map(np.asarray, jax.device_get(density_items(params, fixed)))
    Store(place / _SAVED, writes=True).replace(items, {"model": model_record(density)})


def checksum_of(density: Density) -> str:
    """SHA-256 of all arrays of a density, whatever form its blocks are in."""
    _, params, fixed = split(stack(density))
    entries = manifest(jax.tree.map(np.asarray, jax.device_get(density_items(params, fixed))))
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def restore(
    directory: str | os.PathLike[str], *, which: Which = "best", density: Density | None = None
) -> Density:
    """A density from disk: of a run its moving-average weights, best on validation, or one that ``save`` wrote.

    Checksums are verified; of damaged checkpoints the newest intact one is taken, with a warning.

    Args:
      directory: A run's ``workdir``, or the directory given to ``save``.
      which: Of a run, ``best`` on validation, or ``last``.
      density: A density of the same structure, where it was put together by hand and so has no config.

    Raises:
      CheckpointError: If there is nothing to restore, or no intact checkpoint.
    """
    place = place_of(directory)
    if which not in ("best", "last"):
        raise ValueError(f"expected which to be 'best' or 'last', got {which!r}")
    run = (place / RECORD).exists()
    folders = [place / name for name in ((which, "last") if run else (_SAVED,))]
    folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    if not folders:
        raise CheckpointError(
            f"{place} is no run and holds no saved density: it has no {RECORD} and no {_SAVED}/"
        )
    structure: Any = None
    absent: Arrays = {}

    def wanted(record: dict[str, Any]) -> Mapping[str, Any]:
        nonlocal structure, absent
        if density is not None:
            template: Any = stack(density)
        else:
            model = _model_of(place, record)
            template = jax.eval_shape(lambda: build(model, key=jax.random.key(0)))
        structure, params, fixed = split(template)
        there = record.get("arrays", {})
        absent = {
            name: params[name] for name in unread(template) if f"density/params/{name}" not in there
        }
        return density_items(
            {name: leaf for name, leaf in params.items() if name not in absent}, fixed
        )

    for folder in folders:
        store = Store(folder)
        if not store.steps() and folder is not folders[-1]:
            continue
        try:
            _, items, _ = store.read(wanted)
            break
        except CheckpointError:
            if folder is folders[-1]:
                raise
    arrays = jax.tree.map(jnp.asarray, items["density"])  # pyright: ignore[reportPossiblyUnbound]
    zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in absent.items()}
    return for_backend(merge(structure, arrays["params"] | zeros, arrays["fixed"]))


def _model_of(place: Path, record: Mapping[str, Any]) -> Any:
    """The config in a checkpoint's record; of a run in layout 1, in the run's own."""
    try:
        if "model" in record:
            return config_of(record["model"])
        if "experiment" in record:
            return config_of(record["experiment"]["model"])
        return from_json((place / RECORD).read_text()).model
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{place / RECORD} cannot be read: {error}") from error

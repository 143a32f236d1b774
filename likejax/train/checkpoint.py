"""Checkpoints on disk: what a run needs to resume, and the best density to use."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from likejax.density import Density
from likejax.experiment import Experiment, from_json, to_json
from likejax.models import build
from likejax.nn.depth import for_backend, stack
from likejax.train.state import Arrays, TrainState, put_together, take_apart

RECORD = "experiment.json"
Which = Literal["last", "best"]
LAYOUT = 1
"""Version of the layout on disk."""


class CheckpointError(ValueError):
    """A run directory that cannot be used as asked."""


class Checkpoints:
    """The checkpoints of one run: ``last/`` to resume from and ``best/`` to use, both atomic.

    States are written with repeated blocks stacked, as numpy arrays, so they restore on any number of devices.
    Use it as a context manager: leaving it waits for what is being written.

    Args:
      workdir: The run's directory, created if absent; with ``None`` nothing is written and nothing found.
      keep: How many of the last checkpoints to keep.
    """

    def __init__(self, workdir: Path | None, *, keep: int = 2):
        self.workdir = workdir
        self._managers = {}
        if workdir is not None:
            self._managers = {name: _manager(workdir / name, n) for name, n in (("last", keep), ("best", 1))}

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        for manager in self._managers.values():
            manager.close()

    def save(self, which: Which, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Writes trees of arrays and a JSON record in the background; the copy to the host is made at once.

        Args:
          which: ``last`` or ``best``.
          step: Steps done.
          items: Trees of dictionaries of arrays, by name.
          record: What else to remember.
        """
        if self.workdir is None:
            return
        import orbax.checkpoint as ocp

        record = {"layout": LAYOUT, "likejax": importlib.metadata.version("likejax"), **record}
        trees = {k: ocp.args.StandardSave(jax.tree.map(np.asarray, jax.device_get(v))) for k, v in items.items()}
        self._managers[which].save(step, args=ocp.args.Composite(record=ocp.args.JsonSave(record), **trees), force=True)

    def latest(self, which: Which) -> int | None:
        """Step of the newest complete checkpoint, or ``None``."""
        return self._managers[which].latest_step() if self.workdir is not None else None

    def restore(self, which: Which, templates: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trees and record of the newest complete checkpoint.

        Args:
          which: ``last`` or ``best``.
          templates: The trees to read, with arrays or ``jax.ShapeDtypeStruct`` in them.

        Raises:
          CheckpointError: If there is none, or it is of another structure.
        """
        import orbax.checkpoint as ocp

        step = self.latest(which)
        if step is None or self.workdir is None:
            raise CheckpointError(f"no complete {which!r} checkpoint in {self.workdir}")
        targets = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), dict(templates))
        trees = {k: ocp.args.StandardRestore(v) for k, v in targets.items()}
        args = ocp.args.Composite(record=ocp.args.JsonRestore(), **trees)
        try:
            restored = self._managers[which].restore(step, args=args)
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self.workdir} does not fit this experiment: it was written with "
                f"another model or optimiser; use another workdir ({str(error).splitlines()[0][:200]})"
            ) from error
        return {k: restored[k] for k in templates}, restored["record"]


def _manager(directory: Path, keep: int) -> Any:
    import orbax.checkpoint as ocp
    from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            atomicity_options=AtomicityOptions(mode=AtomicityMode.COMMIT_FILE),
        ),
    )


def density_items(arrays: Arrays, fixed: Arrays) -> dict[str, Any]:
    """What a usable density is stored as."""
    return {"density": {"params": arrays, "fixed": fixed}}


def training_items(state: TrainState) -> dict[str, Any]:
    """What a resumed run needs besides the density of its moving average."""
    leaves = jax.tree.leaves(state.optimiser)
    optimiser = {str(i): leaf for i, leaf in enumerate(leaves)}
    return {"training": {"step": state.step, "params": state.params, "optimiser": optimiser}}


def state_of(items: Mapping[str, Any], like: TrainState) -> TrainState:
    """The train state of ``density_items`` and ``training_items``, with the optimiser's structure of ``like``."""
    density, training = items["density"], items["training"]
    leaves = [training["optimiser"][str(i)] for i in range(len(training["optimiser"]))]
    optimiser = jax.tree.unflatten(jax.tree.structure(like.optimiser), leaves)
    return TrainState(training["step"], training["params"], density["params"], density["fixed"], optimiser)


def write_record(workdir: Path, experiment: Experiment) -> None:
    """Notes the experiment in the run's directory, whole or not at all."""
    workdir.mkdir(parents=True, exist_ok=True)
    draft = workdir / (RECORD + ".tmp")
    draft.write_text(to_json(experiment))
    draft.replace(workdir / RECORD)


def check_record(workdir: Path, experiment: Experiment) -> None:
    """Refuses to go on with a run of another model, data or optimiser.

    Raises:
      CheckpointError: Saying which setting differs.
    """
    path = workdir / RECORD
    if not path.exists():
        return
    free = {"steps", "validate_every", "checkpoint_every", "log_every", "validation_examples"}
    before, now = json.loads(path.read_text()), json.loads(to_json(experiment))
    different = [k for k in now if k not in free and before.get(k) != now[k]]
    if different:
        was = {k: before.get(k) for k in different}
        raise CheckpointError(
            f"{workdir} holds a run with other settings: {was}; resume it with those, or choose another workdir"
        )


def restore(directory: str | os.PathLike[str], *, which: Which = "best", density: Density | None = None) -> Density:
    """The trained density of a run: its moving-average weights, best on validation.

    Args:
      directory: The run's ``workdir``.
      which: ``best`` on validation, or ``last``.
      density: A density of the same structure, where the run began from a ready density instead of a config.

    Raises:
      CheckpointError: If there is no such run or no complete checkpoint.
    """
    workdir = Path(directory).expanduser().absolute()
    if not (workdir / RECORD).exists():
        raise CheckpointError(f"{workdir} is no run: it has no {RECORD}")
    if density is None:
        model = from_json((workdir / RECORD).read_text()).model
        structure, params, fixed = take_apart(jax.eval_shape(lambda: build(model, key=jax.random.key(0))))
    else:
        structure, params, fixed = take_apart(stack(density))
    with Checkpoints(workdir) as checkpoints:
        source: Which = which if checkpoints.latest(which) is not None else "last"
        items, _ = checkpoints.restore(source, density_items(params, fixed))
    arrays = jax.tree.map(jnp.asarray, items["density"])
    return jax.jit(for_backend)(put_together(structure, arrays["params"], arrays["fixed"]))

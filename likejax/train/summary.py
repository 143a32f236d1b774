"""A finished or broken-off run in a few lines."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from likejax.models import build
from likejax.nn.state import split
from likejax.storage.density import RECORD, config_of
from likejax.storage.store import CheckpointError
from likejax.train.log import METRICS, read_metrics
from likejax.train.progress import duration
from likejax.train.record import read_json


def summarize(
    experiment: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, parameters: int | None
) -> str:
    """What was trained on what, how long it took, where it stands.

    Args:
      experiment: An experiment as a dictionary of its JSON.
      history: Its log records.
      parameters: Entries that are trained, if known.
    """
    model = dict(experiment["model"])
    name = str(model.pop("class", model.get("density", "density"))).rpartition(":")[2]
    settings = ", ".join(f"{k}={v}" for k, v in model.items() if k not in ("density", "config"))
    count = "" if parameters is None else f", {parameters:,} parameters"
    logged = [record for record in history if "seconds" in record]
    checks = [
        (record["validation"], record["step"]) for record in history if "validation" in record
    ]
    checks = [(loss, step) for loss, step in checks if loss is not None and math.isfinite(loss)]
    done = max((record["step"] for record in history), default=0)
    seconds = sum(record["seconds"] for record in logged)
    skipped = sum(record["skipped"] for record in logged)
    lines = [
        f"model       {name}({settings}){count}",
        f"data        {experiment['dataset'] or 'an array or iterable'}, {experiment['batch_size']} examples a step",
        f"steps       {done} of {experiment['steps']} in {duration(seconds)} without validation, {skipped} skipped",
    ]
    if logged and seconds:
        lines[-1] += f", {done / seconds:.2f} a second"
    if checks:
        loss, step = min(checks)
        lines.append(
            f"validation  {loss:.4f} at step {step}, the best of {len(checks)}; {checks[-1][0]:.4f} at the end"
        )
    losses = [record["loss"] for record in logged if record.get("loss") is not None]
    if losses:
        lines.append(f"training    loss {losses[0]:.4f} at first, {losses[-1]:.4f} at the end")
    return "\n".join(lines)


def summarize_run(directory: str | os.PathLike[str]) -> str:
    """The summary of a run's directory, with its test evaluation if it has one.

    Raises:
      CheckpointError: If it is no run.
    """
    place = Path(directory).expanduser()
    if not (place / RECORD).exists():
        raise CheckpointError(f"{place} is no run: it has no {RECORD}")
    experiment = read_json(place / RECORD)
    history = read_metrics(place / METRICS) if (place / METRICS).exists() else []
    lines = [summarize(experiment, history, parameters=_parameters(experiment["model"]))]
    if (place / "evaluation.json").exists():
        e = read_json(place / "evaluation.json")
        value, error, unit = e["bits_per_dim"], e["bits_per_dim_error"], "bits/dim"
        if value is None:
            value, error, unit = e["mean"], e["standard_error"], "nats"
        lines.append(
            f"evaluation  {value:.4f} ± {error:.4f} {unit} ({e['kind']}, n = {e['n']}, {e['dataset']})"
        )
    return "\n".join(lines)


def _parameters(model: Mapping[str, Any]) -> int | None:
    try:
        config = config_of(model)
    except ValueError:  # a user's own density: its structure is not on disk
        return None
    return count_parameters(jax.eval_shape(lambda: build(config, key=jax.random.key(0))))


def count_parameters(density: Any) -> int:
    """Entries of all trainable arrays of a density."""
    return sum(math.prod(array.shape) for array in split(density)[1].values())

"""A finished or broken-off run in a few lines."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from likejax.density import count_parameters
from likejax.legacy import modern_record
from likejax.models import build
from likejax.storage.density import RECORD, config_of
from likejax.train.log import METRICS, read_metrics
from likejax.train.progress import duration
from likejax.train.record import read_json, run_directory


def summarize(
    experiment: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, parameters: int | None
) -> str:
    """Returns what was trained on what, how long it took, and the losses.

    Args:
      experiment: Record of an experiment.
      history: Records of its log.
      parameters: Number of entries that are trained, if known.
    """
    lines = [
        f"model       {_model(experiment['model'], parameters)}",
        f"data        {_data(experiment)}",
        f"steps       {_steps(experiment, history)}",
    ]
    checks = _validations(history)
    if checks:
        loss, step = min(checks)
        count, end = len(checks), checks[-1][0]
        lines.append(
            f"validation  {loss:.4f} at step {step}, the best of {count}; {end:.4f} at the end"
        )
    losses = [record["loss"] for record in history if record.get("loss") is not None]
    if losses:
        lines.append(f"training    loss {losses[0]:.4f} at first, {losses[-1]:.4f} at the end")
    return "\n".join(lines)


def _model(record: Mapping[str, Any], parameters: int | None) -> str:
    kind = str(record.get("class") or record.get("density", "density"))
    name = kind.rpartition(":")[2]
    others = ("class", "density", "config")
    settings = [f"{key}={value}" for key, value in record.items() if key not in others]
    count = "" if parameters is None else f", {parameters:,} parameters"
    return f"{name}({', '.join(settings)}){count}"


def _data(experiment: Mapping[str, Any]) -> str:
    data = experiment["dataset"] or "an array or iterable"
    return f"{data}, {experiment['batch_size']} examples a step"


def _steps(experiment: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    logged = [record for record in history if "seconds" in record]
    done = max((record["step"] for record in history), default=0)
    seconds = sum(record["seconds"] for record in logged)
    skipped = sum(record["skipped"] for record in logged)
    words = (
        f"{done} of {experiment['steps']} in {duration(seconds)} without validation, "
        f"{skipped} skipped"
    )
    return f"{words}, {done / seconds:.2f} a second" if seconds else words


def _validations(history: Sequence[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """Losses that are numbers, with their steps."""
    checks = []
    for record in history:
        loss = record.get("validation")
        if loss is not None and math.isfinite(loss):
            checks.append((loss, record["step"]))
    return checks


def summarize_run(directory: str | os.PathLike[str]) -> str:
    """The summary of a run's directory, with its test evaluation if it has one.

    Args:
      directory: The run's ``workdir``.

    Returns:
      Lines of text.

    Raises:
      TypeError: If it is no path.
      CheckpointError: If it is no run.
    """
    place = run_directory(directory)
    experiment = modern_record(read_json(place / RECORD))
    history = read_metrics(place / METRICS) if (place / METRICS).exists() else []
    lines = [summarize(experiment, history, parameters=_parameters(experiment["model"]))]
    if (place / "evaluation.json").exists():
        e = read_json(place / "evaluation.json")
        value, error, unit = e["bits_per_dim"], e["bits_per_dim_error"], "bits/dim"
        if value is None:
            value, error, unit = e["mean"], e["standard_error"], "nats"
        lines.append(
            f"evaluation  {value:.4f} ± {error:.4f} {unit} ({e['kind']}, n = {e['n']}, "
            f"{e['dataset']})"
        )
    return "\n".join(lines)


def _parameters(model: Mapping[str, Any]) -> int | None:
    try:
        config = config_of(model)
    except ValueError:  # a user's own density: its structure is not on disk
        return None
    return count_parameters(jax.eval_shape(lambda: build(config, key=jax.random.key(0))))

"""The command line: train, evaluate, sample, list, and a demo."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

USAGE = """usage: likejax COMMAND ...

Likelihood-based generative density models: train, evaluate in bits/dim, sample.

commands:
  train PRESET [--workdir DIR] [--data-dir DIR] [--seed N] [--steps N] [--model.width N] ...
                      train a preset, with overrides; goes on where a run in DIR stopped
  evaluate RUN        bits/dim of a dataset, with its error and its kind
  sample RUN          a sheet of samples as a PNG
  presets             the presets, a line each
  datasets            the datasets found here
  demo                train a small Glow, compare it with baselines, write a report

`likejax COMMAND --help` shows a command's arguments, `likejax train PRESET --help` every setting of a preset.
"""


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Where a training run reads and writes."""

    workdir: Path | None = None
    """The run's directory; runs/PRESET if not given. A run that stands there is resumed."""
    data_dir: Path | None = None
    """Where dataset files lie; the variable LIKEJAX_DATA if not given."""
    seed: int = 0
    """Of initialisation, shuffling and noise."""
    draws: int = 4
    """Draws per example in the final evaluation."""


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Which data to score, and how."""

    dataset: str = ""
    """Name of the dataset; the one the run was trained on if not given."""
    split: str = "test"
    """train, validation or test."""
    draws: int = 1
    """Draws per example: more tighten a bound."""
    data_dir: Path | None = None
    """Where dataset files lie; the variable LIKEJAX_DATA if not given."""
    seed: int = 0
    """Of the draws."""
    batch_size: int = 128
    """Examples at a time; the result does not depend on it."""
    which: str = "best"
    """Weights: best on validation, or last."""
    json: Path | None = None
    """Also write the numbers to this file."""


@dataclasses.dataclass(frozen=True)
class SampleArguments:
    """How many samples, and where they go."""

    count: int = 64
    """Number of samples."""
    out: Path = Path("samples.png")
    """The picture; a name ending in .npy gets the array."""
    temperature: float = 1.0
    """Factor on the standard deviation of the latents."""
    label: int | None = None
    """Class of the samples, for a conditional model."""
    seed: int = 0
    """Of the samples."""
    which: str = "best"
    """Weights: best on validation, or last."""


@dataclasses.dataclass(frozen=True)
class DatasetsArguments:
    """Where to look."""

    data_dir: Path | None = None
    """Where dataset files lie; the variable LIKEJAX_DATA if not given."""


@dataclasses.dataclass(frozen=True)
class DemoArguments:
    """Where the report goes."""

    out: Path = Path("demo")
    """Directory of the report and the run."""
    seed: int = 0
    """Of everything."""


def _train(args: Sequence[str]) -> int:
    import jax

    import likejax as lj
    from likejax import presets
    from likejax.config import parse_with_experiment

    name, rest = _positional(args, "train", "PRESET")
    experiment = presets.preset(name)
    card = inspect.cleandoc(presets.PRESETS[name].__doc__ or "")
    arguments, experiment = parse_with_experiment(
        TrainArguments, experiment, rest, prog=f"likejax train {name}", description=card
    )
    workdir = arguments.workdir or Path("runs") / name.replace("/", "-")
    parts = {s: _data(experiment, experiment.dataset, s, arguments.data_dir) for s in ("train", "validation", "test")}
    print(f"{name} on {parts['train']!r}, writing to {workdir}", flush=True)
    train_key, evaluation_key = jax.random.split(jax.random.key(arguments.seed))
    run = lj.fit(experiment, parts["train"], validation=parts["validation"], workdir=workdir, key=train_key)
    print(f"best on validation at step {run.best_step} of {run.steps}")
    evaluation = lj.evaluate(run.density, parts["test"], key=evaluation_key, draws=arguments.draws)
    print(evaluation)
    (workdir / "evaluation.json").write_text(json.dumps(evaluation.to_dict(), indent=2))
    if len(run.density.event_shape) == 3 and run.density.condition_shape is None:
        _save_samples(run.density, workdir / "samples.png", count=64, temperature=1.0, label=None, seed=arguments.seed)
        print(f"samples: {workdir / 'samples.png'}")
    return 0


def _evaluate(args: Sequence[str]) -> int:
    import jax

    import likejax as lj
    from likejax.config import parse

    run, rest = _positional(args, "evaluate", "RUN")
    arguments = parse(
        EvaluateArguments, rest, prog="likejax evaluate RUN", description=inspect.cleandoc(_evaluate_help)
    )
    experiment = _record(run)
    name = arguments.dataset or experiment.dataset
    data = _data(experiment, name, arguments.split, arguments.data_dir)
    density = lj.restore(run, which=_which(arguments.which))
    evaluation = lj.evaluate(
        density, data, key=jax.random.key(arguments.seed), draws=arguments.draws, batch_size=arguments.batch_size
    )
    print(evaluation)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(evaluation.to_dict(), indent=2))
    return 0


_evaluate_help = "The log-likelihood of every example of a dataset under a trained run: mean, standard error, kind."


def _sample(args: Sequence[str]) -> int:
    import likejax as lj
    from likejax.config import parse

    run, rest = _positional(args, "sample", "RUN")
    arguments = parse(SampleArguments, rest, prog="likejax sample RUN", description="Samples of a trained run.")
    density = lj.restore(run, which=_which(arguments.which))
    _save_samples(
        density,
        arguments.out,
        count=arguments.count,
        temperature=arguments.temperature,
        label=arguments.label,
        seed=arguments.seed,
    )
    print(f"{arguments.count} samples: {arguments.out}")
    return 0


def _presets(args: Sequence[str]) -> int:
    from likejax.presets import PRESETS

    _no_arguments(args, "presets")
    width = max(map(len, PRESETS))
    for name, make in PRESETS.items():
        print(f"{name:<{width}}  {inspect.cleandoc(make.__doc__ or '').splitlines()[0]}")
    return 0


def _datasets(args: Sequence[str]) -> int:
    from likejax.config import parse
    from likejax.data.load import datasets

    description = "The datasets that can be loaded here by name."
    arguments = parse(DatasetsArguments, args, prog="likejax datasets", description=description)
    found = datasets(arguments.data_dir)
    width = max(map(len, found))
    for name, source in found.items():
        print(f"{name:<{width}}  {source}")
    if arguments.data_dir is None and "LIKEJAX_DATA" not in os.environ:
        print("\nFor files, pass --data-dir or set LIKEJAX_DATA; tfds/NAME asks TensorFlow Datasets.")
    return 0


def _demo(args: Sequence[str]) -> int:
    from likejax.config import parse
    from likejax.demo import run_demo

    description = "Trains glow/digits, compares it with two baselines and writes a report; minutes on two cores."
    arguments = parse(DemoArguments, args, prog="likejax demo", description=description)
    run_demo(arguments.out, seed=arguments.seed)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "sample": _sample,
    "presets": _presets,
    "datasets": _datasets,
    "demo": _demo,
}


class UsageError(ValueError):
    """A command line that asks for nothing the program can do."""


def _positional(args: Sequence[str], command: str, what: str) -> tuple[str, list[str]]:
    if not args:
        raise UsageError(f"expected `likejax {command} {what}`; `likejax presets` lists the presets")
    if args[0] in ("-h", "--help"):
        return ("glow/digits", ["--help"]) if what == "PRESET" else ("", ["--help"])
    if args[0].startswith("-"):
        raise UsageError(f"expected {what} right after `likejax {command}`, got {args[0]}")
    return args[0], list(args[1:])


def _no_arguments(args: Sequence[str], command: str) -> None:
    if any(arg in ("-h", "--help") for arg in args):
        print(USAGE)
        raise SystemExit(0)
    if args:
        raise UsageError(f"`likejax {command}` takes no arguments, got {' '.join(args)}")


def _which(name: str) -> Any:
    if name not in ("best", "last"):
        raise UsageError(f"expected --which best or last, got {name}")
    return name


def _record(run: str) -> Any:
    from likejax.experiment import from_json
    from likejax.train.checkpoint import RECORD, CheckpointError

    path = Path(run) / RECORD
    if not path.exists():
        raise CheckpointError(f"{run} is no run: it has no {RECORD}")
    return from_json(path.read_text())


def _data(experiment: Any, name: str, split: str, data_dir: Path | None) -> Any:
    from likejax.data.load import load

    data = load(name, split=split, data_dir=data_dir)
    return data.reduce_levels(experiment.levels) if experiment.levels else data


def _save_samples(density: Any, out: Path, *, count: int, temperature: float, label: int | None, seed: int) -> None:
    import jax
    import numpy as np

    from likejax.plot import sheet

    samples = np.asarray(density.sample(jax.random.key(seed), count, label, temperature))
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        np.save(out, samples)
    elif samples.ndim == 4:
        sheet(samples, levels=density.levels).savefig(out, dpi=150)
    else:
        raise UsageError(f"samples of shape {samples.shape[1:]} are no images: give --out a name ending in .npy")


def _use_compilation_cache() -> None:
    """Compiled programs are kept between runs: a second start takes seconds instead of a minute."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "likejax" / "xla"))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 for a failure, 2 for a wrong command line."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if args else 2
    if args[0] == "--version":
        print(importlib.metadata.version("likejax"))
        return 0
    if args[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        print(f"likejax: no command {args[0]!r}{f', did you mean {near[0]}?' if near else ''}", file=sys.stderr)
        return 2
    try:
        _use_compilation_cache()
        return COMMANDS[args[0]](args[1:])
    except KeyboardInterrupt:
        print("likejax: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FloatingPointError, OSError) as error:
        if os.environ.get("LIKEJAX_TRACEBACK"):
            raise
        print(f"likejax: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


if __name__ == "__main__":
    raise SystemExit(main())

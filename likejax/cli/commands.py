"""The commands: each parses its arguments, calls the library, prints, and returns an exit code."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likejax.cli.arguments import (
    USAGE,
    DatasetsArguments,
    DemoArguments,
    EvaluateArguments,
    OodArguments,
    SampleArguments,
    TrainArguments,
    UsageError,
)


def train(args: Sequence[str]) -> int:
    import jax

    import likejax as lj
    from likejax import presets
    from likejax.cli.overrides import parse_with_experiment
    from likejax.data.splits import hold_out
    from likejax.train.side_products import SideProducts

    name, rest = _positional(args, "train", "PRESET")
    try:
        experiment = presets.preset(name)
        card = inspect.cleandoc(presets.PRESETS[name].__doc__ or "")
        arguments, experiment = parse_with_experiment(
            TrainArguments, experiment, rest, prog=f"likejax train {name}", description=card
        )
    except (ValueError, TypeError) as error:  # a name or a setting that there is not
        raise UsageError(str(error)) from error
    if arguments.distributed:
        _join_processes()
    speaks = jax.process_index() == 0
    suffix = "-background" if arguments.background else ""
    workdir = arguments.workdir or Path("runs") / (name.replace("/", "-") + suffix)
    parts = {
        s: _data(experiment, experiment.dataset, s, arguments.data_dir)
        for s in ("validation", "test")
    }
    parts["train"] = _data(
        dataclasses.replace(experiment, augment=()), experiment.dataset, "train", arguments.data_dir
    )
    if speaks:
        print(f"{name} on {parts['train']!r}, writing to {workdir}", flush=True)
    train_key, evaluation_key = jax.random.split(jax.random.key(arguments.seed))
    selecting = parts["validation"]
    if arguments.select_on == "half":
        selecting, _ = hold_out(selecting)
    options: dict[str, Any] = {"validation": selecting, "workdir": workdir, "key": train_key}
    if arguments.background:
        run = lj.ood.fit_background(
            experiment, parts["train"], mutation_rate=arguments.background, **options
        )
    else:
        run = lj.fit(experiment, parts["train"], **options)
    if not speaks:
        return 0
    print(f"best on validation at step {run.best_step} of {run.steps}")
    evaluation = lj.evaluate(run.density, parts["test"], key=evaluation_key, draws=arguments.draws)
    (workdir / "evaluation.json").write_text(json.dumps(evaluation.to_dict(), indent=2))
    print(evaluation)
    if _is_pictured(run.density) and run.density.condition_shape is None:
        with SideProducts().making("drawing samples"):  # the run and its numbers are on disk
            picture = workdir / "samples.png"
            _save_samples(
                run.density, picture, count=64, temperature=1.0, label=None, seed=arguments.seed
            )
            print(f"samples: {picture}")
    return 0


def _join_processes() -> None:
    """Makes this process one of several, before any device is touched."""
    import jax

    given = os.environ.get("LIKEJAX_PROCESSES")
    if given is None:
        jax.distributed.initialize()  # the cluster's launcher says who is who
        return
    try:
        address, count, index = given.split(",")
        jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))
    except ValueError as error:
        raise UsageError(
            f"expected LIKEJAX_PROCESSES=HOST:PORT,COUNT,INDEX, got {given!r} ({error})"
        ) from error


def evaluate(args: Sequence[str]) -> int:
    import jax

    import likejax as lj
    from likejax.cli.overrides import parse

    run, rest = _positional(args, "evaluate", "RUN")
    description = "The log-likelihood of every example of a dataset under a trained run: mean, standard error, kind."
    arguments = parse(EvaluateArguments, rest, prog="likejax evaluate RUN", description=description)
    if arguments.json is not None:
        _check_writable(arguments.json, "--json")
    experiment = _record(run)
    name = arguments.dataset or experiment.dataset
    data = _data(experiment, name, arguments.split, arguments.data_dir)
    density = lj.restore(run, which=arguments.which)
    evaluation = lj.evaluate(
        density,
        data,
        key=jax.random.key(arguments.seed),
        draws=arguments.draws,
        batch_size=arguments.batch_size,
    )
    if (
        arguments.json is not None
    ):  # before the print, which fails where the output goes to a full disk
        arguments.json.write_text(json.dumps(evaluation.to_dict(), indent=2))
    print(evaluation)
    return 0


def sample(args: Sequence[str]) -> int:
    import likejax as lj
    from likejax.cli.overrides import parse

    run, rest = _positional(args, "sample", "RUN")
    arguments = parse(
        SampleArguments, rest, prog="likejax sample RUN", description="Samples of a trained run."
    )
    _check_writable(arguments.out, "--out")
    density = lj.restore(run, which=arguments.which)
    _check_label(density, arguments.label)
    _check_picture(density, arguments.out)
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


def ood(args: Sequence[str]) -> int:
    import jax

    import likejax as lj
    from likejax.cli.overrides import parse

    run, rest = _positional(args, "ood", "RUN")
    description = "How well scores of a trained run tell its own test data from outside data."
    arguments = parse(OodArguments, rest, prog="likejax ood RUN", description=description)
    if not arguments.outside:
        raise UsageError("expected outside datasets: likejax ood RUN --outside mnist noise")
    out = arguments.out or Path(run) / "ood"
    experiment = _record(run)
    _check_writable(out / "report.md", "--out")
    parts = {
        s: _data(experiment, experiment.dataset, s, arguments.data_dir)
        for s in ("train", "validation", "test")
    }
    inside = _limited(parts["test"], arguments)
    outside = [
        _limited(_outside(experiment, inside, name, arguments), arguments)
        for name in arguments.outside
    ]
    names = [data.name for data in outside]
    for i, typed in enumerate(arguments.outside):  # two forms of one dataset go by what was typed
        if names.count(names[i]) > 1 or names[i] == inside.name:
            outside[i] = dataclasses.replace(outside[i], name=typed)
    density = lj.restore(run, which=arguments.which)
    draws = arguments.draws
    scores: list[Any] = [lj.ood.NegativeLogProb(draws=draws), lj.ood.Typicality(draws=draws)]
    scores += [lj.ood.Typicality(group=group, draws=draws) for group in arguments.groups]
    if arguments.background is not None:
        scores.append(lj.ood.LikelihoodRatio(lj.restore(arguments.background), draws=draws))
    if isinstance(
        density, lj.models.VAE
    ):  # every k: which is best must not be chosen by these tables
        scores += [lj.ood.HierarchyRatio(k=k, draws=draws) for k in range(1, density.depth)]
    if inside.levels is not None and len(inside.event_shape) == 3:
        scores += [lj.ood.InputComplexity(draws=draws), lj.ood.ComplexityOnly()]
    selected_on, notes = _selected_on(parts["validation"], run, arguments)
    report = lj.ood.benchmark(
        density,
        inside=inside,
        outside=outside,
        scores=scores,
        held_out=parts["validation"],
        train=parts["train"],
        selected_on=selected_on,
        overlap_tolerance=arguments.overlap_tolerance,
        key=jax.random.key(arguments.seed),
        fpr=arguments.fpr,
        resamples=arguments.resamples,
        batch_size=arguments.batch_size,
    )
    said = tuple(note for note in report.notes if note != lj.ood.NOT_SAID)
    report = dataclasses.replace(report, notes=(*notes, *said))
    print(report.to_markdown())
    print(f"report: {report.write(out) / 'report.md'}")
    return 0


def _selected_on(validation: Any, run: str, arguments: OodArguments) -> tuple[Any, tuple[str, ...]]:
    """The validation rows that chose the weights, if enough others are left, and what the report must say of them.

    They are those that the run and its background noted; `likejax train` leaves half of the validation rows out.
    """
    import numpy as np

    from likejax.data.splits import row_hashes
    from likejax.train.selecting_rows import selection_of

    noted = {
        str(place): selection_of(place)
        for place in (run, arguments.background)
        if place is not None
    }
    silent = [place for place, rows in noted.items() if rows is None]
    known = [rows for rows in noted.values() if rows is not None]
    chose = np.isin(row_hashes(validation), np.concatenate([*known, np.zeros(0, np.uint64)]))
    are_left = (~chose).sum() >= 2 * max((1, *arguments.groups))
    notes = []
    if silent:
        notes.append(
            f"Which rows chose its weights is not noted in {' and '.join(silent)}, as in runs of likejax 0.5 and "
            "earlier: if they are among those that scores were fitted on and calibrated with, thresholds and p-values "
            "promise too much."
        )
    if not are_left:
        notes.append(
            f"{int(chose.sum()):,} of the {len(validation):,} validation rows chose the weights, and scores were "
            "fitted on and calibrated with all of them, since too few others are left: thresholds and p-values promise "
            "too much. Training with --select-on half leaves others."
        )
    for note in notes:
        print(f"likejax: warning: {note}", file=sys.stderr)
    if chose.any() and are_left:
        return validation.take(chose), tuple(notes)
    return None, tuple(notes) or (
        "None of the validation rows chose the weights, by the notes of the run.",
    )


def _limited(data: Any, arguments: OodArguments) -> Any:
    if not arguments.limit or len(data) <= arguments.limit:
        return data
    return data.shuffled(arguments.seed).take(slice(0, arguments.limit))


def _outside(experiment: Any, inside: Any, name: str, arguments: OodArguments) -> Any:
    from likejax.data.sources.synthetic import constants_like, noise_like

    made = {"noise": noise_like, "constants": constants_like}
    if name in made:
        return made[name](inside, len(inside), seed=arguments.seed)
    return _data(experiment, name, "test", arguments.data_dir)


def summary(args: Sequence[str]) -> int:
    from likejax.train.summary import summarize_run

    run, rest = _positional(args, "summary", "RUN")
    if rest:
        if rest == ["--help"]:
            print(
                "usage: likejax summary RUN\n\nWhat a run was trained on, how long it took, where it stands."
            )
            raise SystemExit(0)
        raise UsageError(f"`likejax summary RUN` takes no other arguments, got {' '.join(rest)}")
    print(summarize_run(run))
    return 0


def presets(args: Sequence[str]) -> int:
    from likejax.presets import PRESETS

    _no_arguments(args, "presets")
    width = max(map(len, PRESETS))
    for name, make in PRESETS.items():
        print(f"{name:<{width}}  {inspect.cleandoc(make.__doc__ or '').splitlines()[0]}")
    return 0


def datasets(args: Sequence[str]) -> int:
    from likejax.cli.overrides import parse
    from likejax.data.describe import described
    from likejax.data.loading import datasets, outline

    description = "The datasets that can be loaded here by name; with a NAME, all that was understood of this one."
    name = args[0] if args and not args[0].startswith("-") else None
    rest = list(args) if name is None else list(args[1:])
    arguments = parse(
        DatasetsArguments, rest, prog="likejax datasets [NAME]", description=description
    )
    if name is not None:
        print(described(name, data_dir=arguments.data_dir))
        return 0
    found = datasets(arguments.data_dir)
    width = max(map(len, found))
    for name, source in found.items():
        print(f"{name:<{width}}  {outline(name, data_dir=arguments.data_dir) or source}")
    print("\nlikejax datasets NAME tells the parts, classes and values of one.")
    if arguments.data_dir is None and "LIKEJAX_DATA" not in os.environ:
        print("For files, pass --data-dir or set LIKEJAX_DATA; tfds/NAME asks TensorFlow Datasets.")
    return 0


def demo(args: Sequence[str]) -> int:
    from likejax.cli.overrides import parse
    from likejax.demo import run_demo

    description = (
        "Trains four small models on digits, compares them with baselines, scores outside images, writes a report; "
        "minutes on two cores."
    )
    arguments = parse(DemoArguments, args, prog="likejax demo", description=description)
    run_demo(arguments.out, seed=arguments.seed)
    return 0


def _check_writable(path: Path, option: str) -> None:
    """Raises an OSError, before any work, where a file could not be written after it."""
    folder = path.expanduser().absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        handle, draft = tempfile.mkstemp(dir=folder, prefix=".likejax-")
        os.close(handle)
        os.unlink(draft)
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(f"{path} is write-protected")
    except OSError as error:
        raise OSError(
            f"cannot write {path}, which {option} names: {error.strerror or error}"
        ) from error


def _check_label(density: Any, label: int | None) -> None:
    """Raises a UsageError where a label is missing, or given to a density that has no classes."""
    if density.condition_shape is None and label is not None:
        raise UsageError("expected no --label: the model of this run has no classes")
    if density.condition_shape is not None and label is None:
        raise UsageError("the model is conditional: give the class of its samples with --label")


def _check_picture(density: Any, out: Path) -> None:
    """Raises a UsageError unless samples can be written under this name."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if out.suffix == ".npy":
        return
    if not _is_pictured(density):
        kind = "continuous values" if density.levels is None else "integers"
        raise UsageError(
            f"samples of shape {density.event_shape} and {kind} are no images: give --out a name ending in .npy"
        )
    if out.suffix.removeprefix(".") not in known:
        raise UsageError(
            f"expected --out to end in .png, .npy or another format for pictures, got {out}"
        )


def _positional(args: Sequence[str], command: str, what: str) -> tuple[str, list[str]]:
    if not args:
        raise UsageError(
            f"expected `likejax {command} {what}`; `likejax presets` lists the presets"
        )
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


def _record(run: str) -> Any:
    from likejax.experiment import from_json
    from likejax.train.checkpoint import RECORD, CheckpointError

    path = Path(run) / RECORD
    if not path.exists():
        raise CheckpointError(f"{run} is no run: it has no {RECORD}")
    return from_json(path.read_text())


def _data(experiment: Any, name: str, split: str, data_dir: Path | None) -> Any:
    from likejax.data.loading import load

    return experiment.as_evaluated(load(name, split=split, data_dir=data_dir))


def _save_samples(
    density: Any, out: Path, *, count: int, temperature: float, label: int | None, seed: int
) -> None:
    import jax
    import numpy as np

    from likejax.plot import sheet

    samples = np.asarray(density.sample(jax.random.key(seed), count, label, temperature))
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        np.save(out, samples)
    else:
        sheet(samples, levels=density.levels).savefig(out, dpi=150)


def _is_pictured(density: Any) -> bool:
    """Whether its samples are integer images, which a sheet shows."""
    return density.levels is not None and len(density.event_shape) == 3

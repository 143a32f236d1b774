"""``likejax train``: trains a preset, evaluates the result and draws samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from likejax.cli.options import DataOption, DevicesOption, SeedOption, UsageError
from likejax.cli.places import has_pictures, load_as_evaluated, save_samples
from likejax.keys import KeyLike
from likejax.legacy import modern_weights
from likejax.settings import Count, ProbabilityOrOff

if TYPE_CHECKING:
    from likejax.data.dataset import Dataset
    from likejax.experiment import Experiment
    from likejax.train.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(DataOption, SeedOption, DevicesOption):
    """Train a preset; every setting of it is an option.

    A run that stands in the directory is continued. `likejax train PRESET --help` lists the
    settings of a preset, `likejax presets` the presets.
    """

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """Name of the preset, right after `likejax train`."""
    workdir: Path | None = None
    """Directory of the run; runs/PRESET if not given."""
    draws: Count = 4
    """Draws for each example in the final evaluation."""
    background: ProbabilityOrOff = None
    """Probability that a training pixel is replaced, for example 0.2, to train a background model
    for likelihood ratios; none is trained if not given."""
    select_on: Literal["half", "all"] = "half"
    """Validation rows that select the weights: half of them, which leaves the others to
    `likejax ood`, or all."""
    initial: Path | None = None
    """Directory of a run, or a saved density, whose weights the training starts from, to fine-tune
    them; new weights if not given."""
    experiment: Annotated[Any, tyro.conf.Suppress] = None
    """Experiment of the preset, with the settings that the command line overrides."""

    def __post_init__(self) -> None:
        """Refuses settings that do not go together."""
        super().__post_init__()
        if self.background is not None and self.initial is not None:
            raise UsageError("expected no --initial with --background, which takes new weights")

    def __call__(self) -> int:
        """Trains, evaluates and draws samples; returns the exit code."""
        import jax

        workdir = self.workdir or Path("runs") / self._default_name()
        parts = self._parts()
        print(f"{self.preset} on {parts['train']!r}, writing to {workdir}", flush=True)
        train_key, evaluation_key = jax.random.split(jax.random.key(self.seed))
        run = self._fit(parts, workdir, key=train_key)
        self._report(run, parts["test"], workdir, key=evaluation_key)
        return 0

    def _default_name(self) -> str:
        name = self.preset.replace("/", "-")
        return name if self.background is None else f"{name}-background"

    def _parts(self) -> dict[str, Dataset]:
        """Returns the raw training part, which is augmented batch by batch, and the others."""
        experiment: Experiment = self.experiment
        raw = dataclasses.replace(experiment, augment=())
        readers = {"train": raw, "validation": experiment, "test": experiment}
        return {
            split: load_as_evaluated(
                reader, experiment.dataset, split=split, data_dir=self.data_dir
            )
            for split, reader in readers.items()
        }

    def _fit(self, parts: dict[str, Dataset], workdir: Path, *, key: KeyLike) -> Run:
        import likejax as lj

        selecting = parts["validation"]
        if self.select_on == "half":
            selecting, _ = lj.data.hold_out(selecting)
        places: dict[str, Any] = {
            "validation": selecting,
            "workdir": workdir,
            "key": key,
            "devices": self.chosen_devices(),
        }
        if self.background is not None:
            return lj.ood.fit_background(
                self.experiment, parts["train"], mutation_rate=self.background, **places
            )
        return lj.fit(self.experiment, parts["train"], initial=self.initial, **places)

    def _report(self, run: Run, test: Dataset, workdir: Path, *, key: KeyLike) -> None:
        import jax

        import likejax as lj
        from likejax.train.best_effort import BestEffort

        print(f"best on validation at step {run.best_step} of {run.steps}")
        devices = self.chosen_devices()
        evaluation = lj.evaluate(run.density, test, key=key, draws=self.draws, devices=devices)
        record = json.dumps(evaluation.to_dict(), indent=2)
        if jax.process_index() == 0:
            (workdir / "evaluation.json").write_text(record)
        print(evaluation)
        if has_pictures(run.density) and run.density.condition_shape is None:
            picture = workdir / "samples.png"
            with BestEffort().attempt("drawing samples"):  # the run and its numbers are on disk
                save_samples(run.density, picture, count=64, seed=self.seed, devices=devices)
                print(f"samples: {picture}")


def train_command(name: str) -> type[Train]:
    """Returns the command for one preset, whose settings are options with their defaults.

    Args:
      name: Name of a preset.

    Raises:
      UsageError: If there is no preset of that name.
    """
    from likejax import presets

    try:
        found = presets.find(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    default = found.experiment
    kind = Annotated[
        type(default)[type(default.model)],  # type: ignore[misc]
        tyro.conf.arg(name=""),
        tyro.conf.AvoidSubcommands,
    ]
    fields = [("experiment", kind, dataclasses.field(default=default))]
    return dataclasses.make_dataclass(
        "Train",
        fields,
        bases=(Train,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": found.card},
    )


def with_present_weights(args: Sequence[str]) -> list[str]:
    """Returns a command line of ``train`` without the former options for weights of the objective.

    Args:
      args: Words of the command line: ``train``, the name of a preset, and options.

    Raises:
      UsageError: If a weight is no number.
    """
    from likejax import NLL, presets

    objective = presets.find(args[1]).experiment.objective
    weights = objective.weights if isinstance(objective, NLL) else ()
    try:
        return modern_weights(args, dict(weights))
    except ValueError as error:
        raise UsageError(str(error)) from error

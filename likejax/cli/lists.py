"""``likejax summary``, ``presets``, ``datasets`` and ``demo``: short commands that print."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from pathlib import Path
from typing import Annotated

import tyro

from likejax.cli.options import DataOption, RunArgument, SeedOption
from likejax.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary(RunArgument):
    """What a run was trained on, how long it took, and how far it got."""

    def __call__(self) -> int:
        """Prints; returns the exit code."""
        from likejax.train.summary import summarize_run

        print(summarize_run(self.run))
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Presets(Settings):
    """The presets, one line each."""

    def __call__(self) -> int:
        """Prints; returns the exit code."""
        from likejax.presets import PRESETS

        width = max(map(len, PRESETS))
        for name, each in PRESETS.items():
            print(f"{name:<{width}}  {each.summary}")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Datasets(DataOption):
    """The datasets that can be loaded here, or a description of one."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """Dataset to describe: its parts, classes and values."""

    def __call__(self) -> int:
        """Prints; returns the exit code."""
        from likejax.data.describe import described

        if self.name is None:
            self._print_all()
        else:
            print(described(self.name, data_dir=self.data_dir))
        return 0

    def _print_all(self) -> None:
        from likejax.data.loading import datasets, outline
        from likejax.data.steps import STEPS, usage

        found = datasets(self.data_dir)
        width = max(map(len, found))
        for name, source in found.items():
            print(f"{name:<{width}}  {outline(name, data_dir=self.data_dir) or source}")
        print("\n`likejax datasets NAME` describes the parts, classes and values of one.")
        print("Steps may follow a name, NAME+STEP+STEP:")
        steps = ", ".join(usage(step) for step in STEPS)
        print(textwrap.fill(steps, 96, initial_indent="  ", subsequent_indent="  "))
        if self.data_dir is None and "LIKEJAX_DATA" not in os.environ:
            print("For files, pass --data-dir or set LIKEJAX_DATA.")
            print("`tfds/NAME` loads a dataset of TensorFlow Datasets.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(SeedOption):
    """Train four small models on digits, compare them with baselines, and write a report.

    Takes minutes on two cores. Out-of-distribution images are scored too.
    """

    out: Path = Path("demo")
    """Directory of the report and the runs; finished runs in it are used again."""

    def __call__(self) -> int:
        """Prints; returns the exit code."""
        from likejax.demo import run_demo

        run_demo(self.out, seed=self.seed)
        return 0

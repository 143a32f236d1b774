"""What each command takes, as frozen dataclasses; defaults are here and nowhere else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from likejax.settings import Count, CountOrZero, Fraction, NonNegative, Probability, Range, Settings

Which = Literal["best", "last"]
Share = Annotated[float, Range(at_least=0, at_most=1)]

USAGE = """usage: likejax COMMAND ...

Likelihood-based generative density models: train, evaluate in bits/dim, sample, tell inside from outside.

commands:
  train PRESET [--workdir DIR] [--data-dir DIR] [--seed N] [--steps N] [--model.width N] ...
                      train a preset, with overrides; goes on where a run in DIR stopped
  evaluate RUN        bits/dim of a dataset, with its error and its kind
  sample RUN          a sheet of samples as a PNG
  ood RUN --outside NAME ...
                      out-of-distribution scores: a table with intervals, pictures
  summary RUN         what a run was, and where it stands
  presets             the presets, a line each
  datasets [NAME]     the datasets found here, or all that was understood of one
  demo                train four small models, compare them with baselines, write a report

`likejax COMMAND --help` shows a command's arguments, `likejax train PRESET --help` every setting of a preset.
"""


@dataclasses.dataclass(frozen=True)
class TrainArguments(Settings):
    """Where a training run reads and writes."""

    workdir: Path | None = None
    """The run's directory; runs/PRESET if not given. A run that stands there is resumed."""
    data_dir: Path | None = None
    """Where dataset files lie; the variable LIKEJAX_DATA if not given."""
    seed: CountOrZero = 0
    """Of initialization, shuffling and noise."""
    draws: Count = 4
    """Draws per example in the final evaluation."""
    background: Fraction = 0.0
    """Train a background model for likelihood ratios: chance that a training pixel is replaced, 0.2 say."""
    select_on: Literal["half", "all"] = "half"
    """Validation rows that choose the weights: half of them, so that `likejax ood` can use the others, or all."""
    distributed: bool = False
    """Join the other processes of a cluster, or those of LIKEJAX_PROCESSES=ADDRESS,COUNT,INDEX."""


@dataclasses.dataclass(frozen=True)
class EvaluateArguments(Settings):
    """Which data to score, and how."""

    dataset: str = ""
    """Name of the dataset; the one the run was trained on if not given."""
    split: Literal["train", "validation", "test"] = "test"
    """Part of the dataset."""
    draws: Count = 1
    """Draws per example: more tighten a bound."""
    data_dir: Path | None = None
    """Where dataset files lie; the variable LIKEJAX_DATA if not given."""
    seed: CountOrZero = 0
    """Of the draws."""
    batch_size: Count = 128
    """Examples at a time; the result does not depend on it."""
    which: Which = "best"
    """Weights: best on validation, or last."""
    json: Path | None = None
    """Also write the numbers to this file."""


@dataclasses.dataclass(frozen=True)
class SampleArguments(Settings):
    """How many samples, and where they go."""

    count: Count = 64
    """Number of samples."""
    out: Path = Path("samples.png")
    """The picture; a name ending in .npy gets the array."""
    temperature: NonNegative = 1.0
    """Factor on the standard deviation of the latents."""
    label: CountOrZero | None = None
    """Class of the samples, for a conditional model."""
    seed: CountOrZero = 0
    """Of the samples."""
    which: Which = "best"
    """Weights: best on validation, or last."""


@dataclasses.dataclass(frozen=True)
class OodArguments(Settings):
    """What to score, against what, and how."""

    outside: tuple[str, ...] = ()
    """Outside datasets, with steps where needed (omniglot+invert+resize:28x28); noise and constants are made."""
    background: Path | None = None
    """A run trained with --background, for the likelihood ratio."""
    groups: tuple[Count, ...] = (5,)
    """Group sizes of typicality tests, besides single examples."""
    out: Path | None = None
    """Directory of the report; RUN/ood if not given."""
    data_dir: Path | None = None
    """Where dataset files lie; the variable LIKEJAX_DATA if not given."""
    limit: CountOrZero = 0
    """Most examples of a set, drawn at random; 0 for all."""
    draws: Count = 1
    """Draws per example."""
    fpr: Probability = 0.05
    """False-positive rate that thresholds are calibrated to, on validation rows that did not choose the weights."""
    overlap_tolerance: Share = 0.0
    """Largest share of a part's different rows that another part may share; 0 allows none."""
    resamples: Count = 1000
    """Number of bootstrap resamples."""
    seed: CountOrZero = 0
    """Random seed of the cut, the draws and the bootstrap."""
    batch_size: Count = 128
    """Examples at a time; the result does not depend on it."""
    which: Which = "best"
    """Weights: best on validation, or last."""


@dataclasses.dataclass(frozen=True)
class DatasetsArguments(Settings):
    """Where to look."""

    data_dir: Path | None = None
    """Where dataset files lie; the variable LIKEJAX_DATA if not given."""


@dataclasses.dataclass(frozen=True)
class DemoArguments(Settings):
    """Where the report goes."""

    out: Path = Path("demo")
    """Directory of the report and the run."""
    seed: CountOrZero = 0
    """Of everything."""


class UsageError(ValueError):
    """A command line that asks for nothing the program can do."""

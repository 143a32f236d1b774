"""``likejax ood``: out-of-distribution scores of a trained run."""

from __future__ import annotations

import collections
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from likejax.cli.options import ScoringOptions, UsageError, WeightsOption
from likejax.cli.places import check_writable, experiment_of, load_as_evaluated
from likejax.settings import Count, CountOrZero, Probability, Range

if TYPE_CHECKING:
    from likejax.data.dataset import Dataset
    from likejax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ood(WeightsOption, ScoringOptions):
    """How well scores of a trained run separate its own test data from other data.

    Prints a table of AUROC with intervals, and writes the report with all metrics and pictures.
    """

    outside: tuple[str, ...] = ()
    """Out-of-distribution datasets, with steps where needed (omniglot+invert+resize:28x28).
    `noise` and `constants` are made in the shape of the test data; `suite` stands for the classic
    sets of the run's dataset that are in the data folder."""
    background: Path | None = None
    """Directory of a run trained with --background, for the likelihood ratio."""
    groups: tuple[Count, ...] = (5,)
    """Group sizes of typicality tests, besides single examples."""
    out: Path | None = None
    """Directory of the report; RUN/ood if not given."""
    limit: CountOrZero = 0
    """Largest number of examples of a dataset, drawn at random; 0 for all."""
    fpr: Probability = 0.05
    """False-positive rate of the calibrated thresholds."""
    overlap_tolerance: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Largest share of a part's different rows that another part may contain; 0 allows none."""
    resamples: Count = 1000
    """Number of bootstrap resamples."""

    def __call__(self) -> int:
        """Scores, prints and writes the report; returns the exit code."""
        import jax

        import likejax as lj

        if not self.outside:
            raise UsageError("expected outside datasets: likejax ood RUN --outside mnist noise")
        out = self.out or self.run / "ood"
        check_writable(out / "report.md", option="--out")
        experiment = experiment_of(self.run)
        parts = {
            split: self._load(experiment, experiment.dataset, split)
            for split in ("train", "validation", "test")
        }
        inside = self._limited(parts["test"])
        outside = self._outside(experiment, inside)
        density = lj.restore(self.run, which=self.which)
        background = None if self.background is None else lj.restore(self.background)
        scores = lj.ood.standard(
            density, draws=self.draws, groups=self.groups, background=background
        )
        selected_on, notes = self._selecting_rows(parts["validation"])
        report = lj.ood.benchmark(
            density,
            inside=inside,
            outside=outside,
            scores=scores,
            held_out=parts["validation"],
            train=parts["train"],
            selected_on=selected_on,
            overlap_tolerance=self.overlap_tolerance,
            key=jax.random.key(self.seed),
            fpr=self.fpr,
            resamples=self.resamples,
            batch_size=self.batch_size,
        )
        of_benchmark = [note for note in report.notes if note != lj.ood.NOT_SAID]
        report = dataclasses.replace(report, notes=(*notes, *of_benchmark))
        print(report.to_markdown())
        print(f"report: {report.write(out) / 'report.md'}")
        return 0

    def _load(self, experiment: Experiment, name: str, split: str) -> Dataset:
        return load_as_evaluated(experiment, name, split=split, data_dir=self.data_dir)

    def _limited(self, data: Dataset) -> Dataset:
        if not self.limit or len(data) <= self.limit:
            return data
        return data.shuffled(self.seed).take(slice(0, self.limit))

    def _outside(self, experiment: Experiment, inside: Dataset) -> list[Dataset]:
        """Returns the outside datasets, each with a name of its own."""
        from likejax.data.sources.synthetic import constants_like, noise_like

        makers = {"noise": noise_like, "constants": constants_like}
        names = self._names(experiment)
        outside = []
        for typed in names:
            if typed in makers:
                data = makers[typed](inside, len(inside), seed=self.seed)
            else:
                data = self._load(experiment, typed, "test")
            outside.append(self._limited(data))
        # two forms of one dataset, or another form of the inside one, go by what was typed
        counts = collections.Counter([inside.name, *(data.name for data in outside)])
        for i, typed in enumerate(names):
            if counts[outside[i].name] > 1:
                outside[i] = dataclasses.replace(outside[i], name=typed)
        return outside

    def _names(self, experiment: Experiment) -> list[str]:
        """Returns what was typed for the outside sets, with the sets of a suite in its place."""
        if "suite" not in self.outside:
            return list(self.outside)
        from likejax.ood.suites import suite

        found = suite(experiment.dataset.removeprefix("tfds/"), data_dir=self.data_dir)
        print(found, file=sys.stderr)
        of_suite = [each.source for each in found.sets]
        names = [of_suite if typed == "suite" else [typed] for typed in self.outside]
        return [name for each in names for name in each]

    def _selecting_rows(self, validation: Dataset) -> tuple[Dataset | None, tuple[str, ...]]:
        """Returns the validation rows that selected the weights, and notes for the report.

        The rows are those that the run and its background recorded. They are ``None`` if there are
        none, or if too few other rows would be left to fit and calibrate scores with.
        """
        import numpy as np

        from likejax.data.splits import row_hashes
        from likejax.train.record import selection_of

        runs = [self.run] if self.background is None else [self.run, self.background]
        recorded = {str(run): selection_of(run) for run in runs}
        unknown = [run for run, rows in recorded.items() if rows is None]
        known = [rows for rows in recorded.values() if rows is not None]
        hashes = np.concatenate([*known, np.zeros(0, np.uint64)])
        is_selecting = np.isin(row_hashes(validation), hashes)
        left = int((~is_selecting).sum())
        enough_left = left >= 2 * max(1, *self.groups)
        notes = []
        if unknown:
            notes.append(
                f"Which rows chose its weights is not noted in {' and '.join(unknown)}, as in runs "
                "of likejax 0.5 and earlier. If they are among the rows that scores were fitted on "
                "and calibrated with, thresholds and p-values are too optimistic."
            )
        if not enough_left:
            notes.append(
                f"{int(is_selecting.sum()):,} of the {len(validation):,} validation rows chose the "
                "weights, and scores were fitted on and calibrated with all of them, since too few "
                "others are left: thresholds and p-values are too optimistic. Training with "
                "--select-on half leaves others."
            )
        for note in notes:
            print(f"likejax: warning: {note}", file=sys.stderr)
        if is_selecting.any() and enough_left:
            return validation.take(is_selecting), tuple(notes)
        if not notes:
            notes.append("None of the validation rows chose the weights, by the notes of the run.")
        return None, tuple(notes)

"""``likejax ood``: out-of-distribution scores of a trained run."""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from likejax.cli.options import ConditionOptions, ScoringOptions, UsageError, WeightsOption
from likejax.cli.own_scores import score_maker
from likejax.cli.places import check_writable, experiment_of, load_as_evaluated
from likejax.names import meant
from likejax.ood.results import PictureFormat
from likejax.settings import Count, CountOrOff, Probability, Range

if TYPE_CHECKING:
    from likejax.data.dataset import Dataset
    from likejax.density import Density
    from likejax.experiment import Experiment
    from likejax.ood.results import Distance
    from likejax.ood.score import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ood(WeightsOption, ConditionOptions, ScoringOptions):
    """How well scores of a trained run separate its own test data from other data.

    Prints a table of AUROC with intervals, and writes the report with all metrics and pictures. A
    conditional model scores all examples under the condition of --label or --condition.
    """

    outside: tuple[str, ...] = ()
    """Out-of-distribution datasets, with steps where needed (omniglot+invert+resize:28x28).
    `noise` and `constants` are made in the shape of the test data; `suite` stands for the classic
    sets of the run's dataset that are in the data folder."""
    scores: tuple[str, ...] = ()
    """Scores by their names in the table, or the beginning of them (typicality "parameter
    gradient"); all that apply if none is given."""
    own_scores: tuple[str, ...] = ()
    """Scores of your own besides, as MODULE:CLASS of a module in this folder or installed; the
    class is called without arguments."""
    trainings: tuple[Path, ...] = ()
    """Directories of further runs of the same model with other seeds: the table then has mean and
    standard deviation over all."""
    background: Path | None = None
    """Directory of a run trained with --background, for the likelihood ratio."""
    early: Path | None = None
    """Directory of a short run of the same model, for the gradient of early weights."""
    ensemble: bool = False
    """Also score by the ensemble of the run and its --trainings (WAIC)."""
    groups: tuple[Count, ...] = (5,)
    """Group sizes of typicality tests, besides single examples."""
    out: Path | None = None
    """Directory of the report; RUN/ood if not given."""
    limit: CountOrOff = None
    """Largest number of examples of a dataset, drawn at random, and twice as many of the rows that
    scores are fitted on and calibrated with; all if not given."""
    fpr: Probability = 0.05
    """False-positive rate of the calibrated thresholds."""
    overlap_tolerance: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Largest share of a part's different rows that another part may contain; 0 allows none."""
    resamples: Count = 1000
    """Number of bootstrap resamples."""
    picture_format: PictureFormat = "png"
    """Ending of the files of pictures, such as pdf for a paper."""

    def __call__(self) -> int:
        """Scores, prints and writes the report; returns the exit code."""
        import jax

        import likejax as lj

        if not self.outside:
            raise UsageError("expected outside datasets: likejax ood RUN --outside mnist noise")
        own = [score_maker(path) for path in self.own_scores]
        out = self.out or self.run / "ood"
        check_writable(out / "report.md", option="--out")
        experiment = experiment_of(self.run)
        runs = (self.run, *self.trainings)
        densities = [self.at_condition(lj.restore(run, which=self.which)) for run in runs]
        parts = {
            split: self._load(experiment, experiment.dataset, split)
            for split in ("train", "validation", "test")
        }
        inside = self._limited(parts["test"])
        outside, distances = self._outside(experiment, inside)
        selected_on, notes = self._selecting_rows(parts["validation"])
        report = lj.ood.benchmark(
            densities,
            inside=inside,
            outside=outside,
            distances=distances,
            scores=self._recipes_of(densities, own),
            held_out=self._held_out(parts["validation"], selected_on),
            train=parts["train"],
            selected_on=selected_on,
            overlap_tolerance=self.overlap_tolerance,
            key=jax.random.key(self.seed),
            fpr=self.fpr,
            resamples=self.resamples,
            batch_size=self.batch_size,
            devices=self.chosen_devices(),
            workdir=out / "features",
        )
        of_benchmark = [note for note in report.notes if note != lj.ood.NOT_SAID]
        if self.condition_in_words:
            notes = (f"All examples are scored under {self.condition_in_words}.", *notes)
        report = dataclasses.replace(report, notes=(*notes, *of_benchmark))
        if jax.process_index() != 0:
            return 0
        print(report.to_markdown())
        written = report.write(out, picture_format=self.picture_format)
        print(f"report: {written / 'report.md'}; beside it auroc.tex, records.csv and pictures")
        return 0

    def _recipes_of(
        self, densities: Sequence[Density], own: Sequence[Callable[[], Score]]
    ) -> Callable[[Density], list[Score]]:
        """Returns the function that makes the scores of a density."""
        import likejax as lj

        background, early = self._companion(self.background), self._companion(self.early)
        if self.ensemble and len(densities) == 1:
            raise UsageError("expected further runs for an ensemble: --trainings RUN2 RUN3")
        ensemble = lj.Ensemble(densities) if self.ensemble else None

        def recipes(density: Density) -> list[Score]:
            found = lj.ood.standard(
                density,
                draws=self.draws,
                groups=self.groups,
                background=background,
                early=early,
                ensemble=ensemble,
            )
            return [*self._chosen(found), *(make() for make in own)]

        return recipes

    def _companion(self, run: Path | None) -> Density | None:
        """Returns the density of another run, at the condition if it is conditional."""
        import likejax as lj

        if run is None:
            return None
        density = lj.restore(run)
        # a background may be unconditional where the model is not: a ratio is of the two
        return density if density.condition_shape is None else self.at_condition(density)

    def _chosen(self, scores: list[Score]) -> list[Score]:
        """Returns the scores that --scores names, in the order of the table.

        Raises:
          UsageError: If a name begins no score.
        """
        labels = [score.label for score in scores]
        for name in self.scores:
            if not any(label.startswith(name) for label in labels):
                near = meant(name, labels, otherwise=f"there are {'; '.join(labels)}")
                raise UsageError(f"expected the name of a score that applies, got {name!r}{near}")
        if not self.scores:
            return scores
        return [score for score in scores if score.label.startswith(self.scores)]

    def _load(self, experiment: Experiment, name: str, split: str) -> Dataset:
        return load_as_evaluated(experiment, name, split=split, data_dir=self.data_dir)

    def _limited(self, data: Dataset, times: int = 1) -> Dataset:
        if self.limit is None or len(data) <= times * self.limit:
            return data
        return data.shuffled(self.seed).take(slice(0, times * self.limit))

    def _held_out(self, validation: Dataset, selected_on: Dataset | None) -> Dataset:
        """Returns the validation part, with at most twice the limit of rows to fit and calibrate.

        Those that selected the weights stay in it: ``benchmark`` leaves them out and says so.
        """
        import numpy as np

        from likejax.data.splits import row_hashes

        is_selecting = np.zeros(len(validation), bool)
        if selected_on is not None:
            is_selecting = np.isin(row_hashes(validation), row_hashes(selected_on))
        free = validation.take(~is_selecting)
        limited = self._limited(free, times=2)
        if len(limited) == len(free):
            return validation
        kept = np.isin(row_hashes(validation), row_hashes(limited))
        return validation.take(kept | is_selecting)

    def _outside(
        self, experiment: Experiment, inside: Dataset
    ) -> tuple[list[Dataset], dict[str, Distance]]:
        """Returns outside datasets of distinct names, and the distances of those of a suite."""
        from likejax.data.sources.synthetic import constants_like, noise_like

        makers = {"noise": noise_like, "constants": constants_like}
        known = self._distances(experiment)
        names = self._names(known)
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
        pairs = zip(outside, names, strict=True)
        return outside, {data.name: known[typed] for data, typed in pairs if typed in known}

    def _distances(self, experiment: Experiment) -> dict[str, Distance]:
        """Returns near or far by the sources of the sets of the suite, if one was typed."""
        if "suite" not in self.outside:
            return {}
        from likejax.ood.suites import suite

        found = suite(experiment.dataset.removeprefix("tfds/"), data_dir=self.data_dir)
        print(found, file=sys.stderr)
        return {each.source: each.distance for each in found.sets}

    def _names(self, of_suite: Iterable[str]) -> list[str]:
        """Returns what was typed for the outside sets, with the sets of a suite in its place."""
        names = [list(of_suite) if typed == "suite" else [typed] for typed in self.outside]
        return [name for each in names for name in each]

    def _selecting_rows(self, validation: Dataset) -> tuple[Dataset | None, tuple[str, ...]]:
        """Returns the validation rows that selected the weights, and notes for the report.

        The rows are those that the run and its background recorded. They are ``None`` if there are
        none, or if too few other rows would be left to fit and calibrate scores with.
        """
        import numpy as np

        from likejax.data.splits import row_hashes
        from likejax.train.record import selection_of

        runs = [self.run, *self.trainings]
        runs += [run for run in (self.background, self.early) if run is not None]
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
                f"Which rows chose its weights is not noted in {' and '.join(unknown)}, as for a "
                "density that was saved without its run, and runs of likejax 0.5 and earlier. If "
                "they are among the rows that scores were fitted on and calibrated with, "
                "thresholds and p-values are too optimistic."
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

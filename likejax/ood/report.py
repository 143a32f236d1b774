"""The report of a benchmark: numbers, and the tables, files and figures that are made of them."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likejax import plot
from likejax.ood import render
from likejax.ood.intervals import (
    Interval,
    Spread,
    auroc_difference,
    auroc_difference_of_changed,
)
from likejax.ood.metrics import METRICS
from likejax.ood.results import Distance, PictureFormat, ScoreResult, SetResult
from likejax.settings import checked


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The result of ``benchmark``.

    Attributes:
      representation: Form in which the density saw the examples, the same for all sets.
      sets: Records of the inside set and then of the outside sets.
      scores: Records of the scores.
      parts: Rows that scores were fitted on and calibrated with, and those that the density was
        selected and trained on.
      overlap_tolerance: Largest share of a part that another was allowed to share.
      notes: Sentences that belong to the numbers: what the parts share, and what is not known of
        them.
      fpr: False-positive rate that thresholds were calibrated to.
      confidence: Probability that an interval holds the true value.
      resamples: Number of bootstrap resamples.
      draws: Number of draws per example, for the likelihoods of the sets.
      key: Data of the key.
      versions: Versions of the packages.
      trainings: Reports of further trainings of the same model, scored in the same way.
      distances: ``near`` or ``far`` by the names of the outside sets that were told to be one.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> report = lj.ood.benchmark(
      ...     gaussian,
      ...     inside=points[100:200],
      ...     outside={"shifted": points[200:300] + 9},
      ...     scores=[lj.ood.Typicality()],
      ...     held_out=points[300:],
      ...     key=0,
      ...     resamples=10,
      ... )
      >>> print(report.auroc_table())
      | score | shifted |
      | --- | --- |
      | typicality | 1.000 [0.964, 1.000] |
    """

    representation: dict[str, Any]
    sets: tuple[SetResult, ...]
    scores: tuple[ScoreResult, ...]
    parts: dict[str, dict[str, Any]]
    overlap_tolerance: float
    notes: tuple[str, ...]
    fpr: float
    confidence: float
    resamples: int
    draws: int
    key: list[int]
    versions: dict[str, str]
    trainings: tuple[Report, ...] = ()
    distances: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """Names of the inside set and of the outside sets."""
        inside, *outside = self._names
        return f"{inside} against {', '.join(outside)}"

    @property
    def _names(self) -> list[str]:
        return [each.name for each in self.sets]

    def __repr__(self) -> str:
        labels = ", ".join(score.label for score in self.scores)
        return f"Report({self.title}; {labels})"

    def _repr_html_(self) -> str:
        heading = f"<p>{html.escape(self.title)}, AUROC [{self._percent} interval]</p>"
        return heading + self._metric_table("auroc").to_html()

    def metric(self, score: str, outside: str, name: str) -> Interval:
        """Returns one number of the tables.

        Args:
          score: Label of the score.
          outside: Name of the outside set.
          name: Name of the metric, one of ``ood.METRICS``.

        Raises:
          ValueError: If there is no such number.
        """
        for result in self.scores:
            if result.label == score and outside in result.metrics and name in METRICS:
                return result.metrics[outside][name]
        labels = ", ".join(result.label for result in self.scores)
        sets = ", ".join(self._names[1:])
        raise ValueError(
            f"expected a score of {labels}, an outside set of {sets} and a metric of "
            f"{', '.join(METRICS)}; got {score!r}, {outside!r}, {name!r}"
        )

    def average(self, score: str, distance: str) -> Interval:
        """Returns mean AUROC over the near or over the far sets, with DeLong's standard error.

        Args:
          score: Label of the score.
          distance: ``near`` or ``far``.

        Raises:
          ValueError: If there is no such score, or no set of that distance.
        """
        distance = checked("distance", distance, Distance)
        for result in self.scores:
            if result.label == score and distance in result.averages:
                return result.averages[distance]
        labels = ", ".join(result.label for result in self.scores)
        raise ValueError(
            f"expected a score of {labels} and a distance that outside sets have, got {score!r}, "
            f"{distance!r}: ood.benchmark(..., distances=suite.distances) says which set is which"
        )

    def spread(self, score: str, outside: str, name: str) -> Spread:
        """Returns mean and standard deviation of one number over all trainings.

        Args:
          score: Label of the score.
          outside: Name of the outside set.
          name: Name of the metric, one of ``ood.METRICS``.

        Raises:
          ValueError: If there is no such number.
        """
        reports = (self, *self.trainings)
        return Spread.of([report.metric(score, outside, name).value for report in reports])

    def best(self, outside: str) -> str:
        """Returns the label of the score with the largest AUROC on a set, of the first training.

        Args:
          outside: Name of the outside set.
        """
        labels = [score.label for score in self.scores]
        return max(labels, key=lambda label: self.metric(label, outside, "auroc").value)

    def difference(self, score: str, other: str, outside: str) -> Interval:
        """Returns AUROC of a score minus that of another on the same examples, by paired DeLong.

        Args:
          score: Label of the score.
          other: Label of the other.
          outside: Name of the outside set.

        Raises:
          ValueError: If the scores are not of single examples both, or not in the report.
        """
        self.metric(score, outside, "auroc")
        self.metric(other, outside, "auroc")
        values = {result.label: result.values for result in self.scores}
        inside = self._names[0]
        pairs = [(values[label][inside], values[label][outside]) for label in (score, other)]
        changed = [each.name for each in self.sets if each.is_changed]
        difference = auroc_difference_of_changed if outside in changed else auroc_difference
        return difference(*pairs, confidence=self.confidence)

    def to_records(self) -> list[dict[str, Any]]:
        """Returns one row for every number of every training, as ``pandas.DataFrame`` takes them.

        The columns are ``inside``, ``outside``, ``score``, ``metric``, ``training``, ``value``,
        ``low``, ``high``, ``standard_error``, ``n_inside``, ``n_outside``, ``distance``, ``kind``
        and ``draws``. An average over sets has the metric ``mean auroc``, and ``near sets`` or
        ``far sets`` as ``outside``.
        """
        records = []
        for training, report in enumerate((self, *self.trainings)):
            for score in report.scores:
                records += report._records_of(score, training)
        return records

    def _records_of(self, score: ScoreResult, training: int) -> list[dict[str, Any]]:
        inside = self._names[0]
        common = {"inside": inside, "score": score.label, "training": training}
        source = {"kind": self.sets[0].kind, "draws": self.draws}
        n_inside = len(score.values[inside])
        records = []
        for outside, metrics in score.metrics.items():
            counts = {"n_inside": n_inside, "n_outside": len(score.values[outside])}
            about = {**counts, "distance": self.distances.get(outside, ""), **source}
            for name, interval in metrics.items():
                place = {"outside": outside, "metric": name}
                records.append({**common, **place, **dataclasses.asdict(interval), **about})
        for distance, interval in score.averages.items():
            count = sum(len(score.values[name]) for name in self._at(distance))
            counts = {"n_inside": n_inside, "n_outside": count, "distance": distance}
            place = {"outside": f"{distance} sets", "metric": "mean auroc"}
            records.append({**common, **place, **dataclasses.asdict(interval), **counts, **source})
        return records

    def _at(self, distance: str) -> list[str]:
        """Names of the outside sets of a distance."""
        return [name for name in self._names[1:] if self.distances.get(name) == distance]

    def representation_hash(self) -> str:
        """Returns twelve digits that are equal for reports on data in the same representation."""
        text = json.dumps(self.representation, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def auroc_table(self) -> str:
        """Returns AUROC with its interval, scores against outside sets, in Markdown.

        With several trainings, mean and standard deviation over them come before the value and
        interval of the first.
        """
        return self._metric_table("auroc").to_markdown()

    def to_latex(self, metric: str = "auroc") -> str:
        """Returns the table of a metric in LaTeX, for the package ``booktabs``.

        The table of averages follows that of AUROC where outside sets are told to be near or far.

        Args:
          metric: Name of the metric, one of ``likejax.ood.METRICS``.

        Raises:
          ValueError: If there is no such metric.
        """
        if metric not in METRICS:
            raise ValueError(f"expected a metric of {', '.join(METRICS)}, got {metric!r}")
        averages = [table.to_latex() for table in self._averages_tables()]
        table = self._metric_table(metric).to_latex()
        return "\n".join([table, *averages]) if metric == "auroc" else table

    def averages_table(self) -> str:
        """Returns mean AUROC of near and of far sets, ± standard error [interval], in Markdown.

        It is empty if no outside set was told to be near or far.
        """
        return "".join(table.to_markdown() for table in self._averages_tables())

    def _averages_tables(self) -> list[render.Table]:
        """The table of averages, if there are some."""
        if not self.scores[0].averages:
            return []
        return [render.averages_table(self.scores, [each.scores for each in self.trainings])]

    def _averages(self) -> list[str]:
        """The blocks of the averages, if there are some."""
        if not self.scores[0].averages:
            return []
        at = {distance: self._at(distance) for distance in self.scores[0].averages}
        named = [f"{distance} are {', '.join(names)}" for distance, names in at.items()]
        about = (
            f"All sets weigh the same; {'; '.join(named)}. The standard error is DeLong's, with "
            "the inside examples that the sets share."
        )
        heading = f"## Mean AUROC ± standard error [{self._percent} interval]"
        return [heading, self.averages_table(), about]

    def _metric_table(self, metric: str) -> render.Table:
        others = [report.scores for report in self.trainings]
        return render.metric_table(self.scores, self._names[1:], others, metric=metric)

    def to_markdown(self) -> str:
        """Returns all tables: likelihoods, AUROC, every metric per outside set, and calibration."""
        of_first = ", of the first training" if self.trainings else ""
        blocks = [
            f"# {self.title}",
            self._about_likelihoods(),
            render.likelihood_table(self.sets).to_markdown(),
            f"## AUROC [{self._percent} interval]{self._about_trainings()}",
            self.auroc_table(),
            *self._averages(),
            render.CONVENTIONS,
            *self._about_mixed_kinds(),
            *self._differences(),
        ]
        others = [report.scores for report in self.trainings]
        for name in self._names[1:]:
            table = render.metrics_table(self.scores, name, others)
            blocks += [f"## {name}{self._about_trainings()}", table.to_markdown()]
        blocks += [
            f"## Thresholds calibrated to a false-positive rate of {self.fpr:g}{of_first}",
            render.threshold_table(self.scores, self._names).to_markdown(),
            self._about_rows(),
            *self.notes,
        ]
        return "\n\n".join(blocks) + "\n"

    def _about_trainings(self) -> str:
        if not self.trainings:
            return ""
        count = len(self.trainings) + 1
        return f": mean ± standard deviation over {count} trainings; then the first one's"

    def _differences(self) -> list[str]:
        """Returns the table of what each score has less than the best one of a set."""
        found = self._differences_from_best()
        if not found:
            return []
        rows = []
        for score in filter(self._is_single, self.scores):
            of_sets = [differences[score.label] for differences in found.values()]
            rows.append([score.label, *("best" if each is None else str(each) for each in of_sets)])
        table = render.Table(["score", *found], rows)
        heading = "## AUROC minus that of the best score of the set, paired (DeLong)"
        return [f"{heading} [{self._percent} interval]", table.to_markdown()]

    def _differences_from_best(self) -> dict[str, dict[str, Interval | None]]:
        """The differences by set and score, ``None`` for the best; none with fewer than two scores.

        Only scores of single examples are compared.
        """
        single = [score.label for score in self.scores if self._is_single(score)]
        if len(single) < 2:
            return {}
        found: dict[str, dict[str, Interval | None]] = {}
        for name in self._names[1:]:
            best = max(single, key=lambda label: self.metric(label, name, "auroc").value)
            found[name] = dict.fromkeys(single)
            for label in set(single) - {best}:
                found[name][label] = self.difference(label, best, name)
        return found

    def _is_single(self, score: ScoreResult) -> bool:
        """Whether a score is of single examples, as the likelihoods are."""
        return len(score.values[self._names[0]]) == self.sets[0].record["n"]

    @property
    def _percent(self) -> str:
        return f"{100 * self.confidence:g} %"

    def _about_likelihoods(self) -> str:
        """Returns the kind of the likelihoods and the representation of the data."""
        kind, draws = self.sets[0].kind, ""
        if kind != "exact":
            draws = f", {self.draws} draw{'s' if self.draws > 1 else ''}"
        known = {k: v for k, v in self.representation.items() if v not in ("", None)}
        entries = ", ".join(f"{name} {value}" for name, value in known.items())
        of_first = ", of the first training" if self.trainings else ""
        return (
            f"Likelihoods of kind {kind}{draws}{of_first}. "
            f"Representation {self.representation_hash()}: {entries}."
        )

    def _about_mixed_kinds(self) -> list[str]:
        """Returns a sentence for every score that compares numbers of different kinds."""
        sentences = []
        for score in self.scores:
            kinds = ", ".join(f"{name} {kind}" for name, kind in score.kinds.items())
            if len(set(score.kinds.values())) > 1:
                sentences.append(f"{score.label} compares numbers of different kinds: {kinds}.")
        return sentences

    def _about_rows(self) -> str:
        """Returns which rows served for what, and everything that a repetition needs."""
        parts = []
        for what, part in self.parts.items():
            parts.append(f"{what} {part['n']:,} of {part['name']} {part['split']}")
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"Rows: {'; '.join(parts)}. "
            f"Allowed overlap of parts: {self.overlap_tolerance:g} of the smaller. "
            f"Bootstrap of {self.resamples}. Key {self.key}. {versions}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns everything for JSON, raw scores included.

        ``differences`` has, by the set and the score, AUROC minus that of the best score, ``None``
        for the best itself.

        NaN becomes ``None``, and infinite numbers the text ``Infinity`` or ``-Infinity``.
        """
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        record["representation_hash"] = self.representation_hash()
        record["conventions"] = render.CONVENTIONS
        record["sets"] = [render.set_record(each) for each in self.sets]
        record["scores"] = [render.score_record(score) for score in self.scores]
        record["differences"] = self._differences_record()
        record["trainings"] = [report.to_dict() for report in self.trainings]
        return render.for_json(record)

    def _differences_record(self) -> dict[str, Any]:
        """The differences from the best score, for JSON."""
        record = {}
        for name, differences in self._differences_from_best().items():
            plain = {}
            for label, interval in differences.items():
                plain[label] = None if interval is None else dataclasses.asdict(interval)
            record[name] = plain
        return record

    def plot(self) -> dict[str, Any]:
        """Returns the figures.

        ``auroc`` shows every score on every outside set in color, ``histograms`` the scores
        themselves, ``roc`` the curves of the best scores of every outside set, and ``extremes``,
        for images, the most and the least likely ones of every set, with maps of the
        log-probability of their pixels where the density has them, and ``typical`` the most and the
        least typical ones, by the distance of their log-probability from its mean inside.
        """
        figures = {
            "auroc": render.auroc_map(self.scores, self._names[1:]),
            "histograms": render.histograms(self.scores),
            "roc": render.roc_curves(self.scores, self._names),
        }
        for name, rows in render.galleries(self.sets).items():
            figures[name] = plot.galleries(rows)
        return figures

    def write(
        self, directory: str | os.PathLike[str], *, picture_format: PictureFormat = "png"
    ) -> Path:
        """Writes ``report.md``, ``report.json``, ``auroc.tex``, ``records.csv`` and the pictures.

        Args:
          directory: Directory to write to; created if absent.
          picture_format: Ending of the files of pictures: ``png``, or ``pdf``, ``svg`` or ``eps``
            for a paper. Pictures of other endings from before stay.

        Returns:
          The directory.

        Raises:
          ValueError: If the ending is another.
        """
        checked("picture_format", picture_format, PictureFormat)
        place = Path(directory).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        pictures = self.plot()
        for name, figure in pictures.items():
            figure.savefig(place / f"{name}.{picture_format}", dpi=130)
        shown = "\n".join(f"![{name}]({name}.{picture_format})" for name in pictures)
        (place / "report.md").write_text(self.to_markdown() + "\n" + shown + "\n")
        (place / "report.json").write_text(json.dumps(self.to_dict()))
        (place / "auroc.tex").write_text(self.to_latex())
        records = self.to_records()
        with (place / "records.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(records[0]))
            writer.writeheader()
            writer.writerows(records)
        return place

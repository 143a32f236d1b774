"""Scores: frozen recipes that are fitted to inside examples and then give one number per example.

A recipe names the features that it needs and how they combine. ``Score.fit`` makes a
``FittedScore``, which scores examples, is calibrated, and is saved. A higher score is more OOD.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Shaped

from likejax import plot
from likejax.data.dataset import Dataset
from likejax.data.splits import check_disjoint_rows, row_hashes
from likejax.density import Density, check_density
from likejax.devices import Devices
from likejax.evaluation import check_fit
from likejax.facts import facts_table
from likejax.inputs import shape_advice
from likejax.keys import KeyLike
from likejax.ood import calibrate
from likejax.ood.checks import Examples, checked_dataset, rows_named, title_of
from likejax.ood.features import (
    Compute,
    Densities,
    Feature,
    Numbers,
    Values,
    features_of,
    keys_of,
)
from likejax.ood.saved import Saved, read_folder, write_folder
from likejax.records import class_at, class_path, from_record, to_record
from likejax.settings import Settings, changed
from likejax.storage.store import CheckpointError

State = Mapping[str, Any]
"""Numbers and arrays that fitting has learned, by name; traced where a score is compiled."""
Groups = Float[Any, "n group ..."]
"""Statistics of examples, in groups that get one score each."""


class Score(Settings, abc.ABC):
    """A recipe for a score: a frozen dataclass of settings, which check themselves.

    A subclass names its ``features``. Unless the number or the vector of an example is a single
    feature as it is, it implements ``statistic``. One that learns from inside examples also
    implements ``learn`` and ``group_score``. A field that holds a density is one that the score
    compares with: its log-probability is the feature ``LogProb(density=...)`` of the field's name.

    Attributes:
      name: Name in tables; the name of the class if it is empty.
      group: Number of examples that get one score together.

    Example:
      >>> import dataclasses, likejax as lj, numpy as np
      >>> @dataclasses.dataclass(frozen=True)
      ... class Surprise(lj.ood.Score):
      ...     scale: float = 1.0
      ...
      ...     @property
      ...     def features(self):
      ...         return (lj.ood.LogProb(),)
      ...
      ...     def statistic(self, compute, event_shape):
      ...         return -self.scale * compute(self.features[0])
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> Surprise(scale=2.0).fit(gaussian, points[100:])(points[:3]).shape
      (3,)
    """

    name: ClassVar[str] = ""
    group: int = 1

    @property
    @abc.abstractmethod
    def features(self) -> tuple[Feature, ...]:
        """Features that the score is computed from."""

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns one number per example from its features, or one vector; by default a feature.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.

        Raises:
          TypeError: If there are several features and the score does not say what it makes of them.
        """
        del event_shape
        if len(self.features) != 1:
            raise TypeError(
                f"expected {type(self).__name__} to have one feature, or a method statistic that "
                f"makes one number of its {len(self.features)}"
            )
        return compute(self.features[0])

    def statistic_map(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns the part of every dimension in the score, ``(n, *event_shape)``.

        The parts of an example sum to its score. A score that is such a sum overrides it.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.

        Raises:
          ValueError: If the score is no sum over dimensions.
        """
        del compute, event_shape
        raise ValueError(
            f"expected a score that is a sum over dimensions, {self.label} is none: "
            "lj.ood.NegativeLogProb(), LikelihoodRatio, InputComplexity, MinK and MinKPlus are"
        )

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns the numbers and arrays that fitting keeps of the statistics of inside examples.

        Args:
          statistics: Statistics of the examples to fit on, ``(n,)`` or ``(n, k)``.
        """
        del statistics
        return {}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns the score of every group; of single examples it is the statistic itself.

        Args:
          state: Numbers that ``learn`` returned.
          statistics: Statistics of the examples of each group, ``(n, group)`` or
            ``(n, group, k)``.
        """
        del state
        return statistics[:, 0]

    @property
    def label(self) -> str:
        """Name in tables, with the settings that distinguish it from others of its kind."""
        return self.name or type(self).__name__

    def companions(self) -> dict[str, Density]:
        """Returns the densities that the score compares with, by the names that features use."""
        values = {field: getattr(self, field) for field in self._fields()}
        return {field: value for field, value in values.items() if isinstance(value, Density)}

    def settings(self) -> dict[str, Any]:
        """Returns the fields that hold no density as JSON keeps them, for a report or a record."""
        values = {field: getattr(self, field) for field in self._fields()}
        plain = {field: each for field, each in values.items() if not isinstance(each, Density)}
        return {field: to_record(value) for field, value in plain.items()}

    def _fields(self) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(self))  # type: ignore[arg-type]

    def check(self, density: Density) -> None:
        """Raises a ValueError if a density does not offer what the score needs.

        Args:
          density: Density that is scored.
        """

    def check_features(self, compute: Compute) -> None:
        """Warns of inside examples under which the score is not what it should be.

        Args:
          compute: Function that computes a feature of the examples to fit on.
        """

    def fit(
        self,
        density: Density,
        dataset: Examples,
        *,
        key: KeyLike | None = None,
        batch_size: int = 128,
        devices: Devices | None = None,
    ) -> FittedScore:
        """Fits the score of a density to inside examples that the density was not trained on.

        Args:
          density: Density that is scored; unconditional.
          dataset: Inside examples, a dataset or an array ``(n, *event_shape)``; not those that the
            density was trained on, which look better than new ones.
          key: Key of the draws, unless the densities are exact; example ``i`` uses
            ``fold_in(key, i)``.
          batch_size: Number of examples at a time on each device.
          devices: Devices to compute on; all of this process if not given. The numbers are
            those of one device.

        Returns:
          The fitted score; ``calibrate`` it on other rows for p-values and thresholds.

        Raises:
          TypeError: If there is no density or no dataset where one is due.
          ValueError: If density, companions and data do not fit, or the score of an example is not
            finite.
        """
        check_density(density)
        data = checked_dataset(dataset, density, "the examples to fit on")
        densities = self.densities_of(density, data)
        keys = keys_of(key, (len(data),))  # what is no key is refused, needed or not
        keys = keys if self.needs_key(densities) else None
        compute = features_of(
            densities, data.examples, keys, batch_size=batch_size, devices=devices
        )
        return self.fit_features(densities, compute, data)

    def densities_of(self, density: Density, dataset: Dataset) -> dict[str, Density]:
        """Returns the density that is scored and its companions, by the names that features use.

        Args:
          density: Density that is scored.
          dataset: Examples that all densities are over.

        Raises:
          TypeError: If a feature is none.
          ValueError: If one of them does not fit the data, or is conditional.
        """
        for feature in self.features:
            if not isinstance(feature, Feature):
                raise TypeError(
                    f"expected {type(self).__name__}.features to hold likejax.ood.Feature objects, "
                    f"got {feature!r}: derive a class from likejax.ood.Feature, whose __call__ "
                    "computes the number"
                )
        self.check(density)
        companions = self.companions()
        if "density" in companions:
            raise ValueError(
                f"expected another field than {type(self).__name__}.density for a density to "
                "compare with: features use the name density for the one that is scored"
            )
        densities = {"density": density, **companions}
        for name, each in densities.items():
            check_density(each)
            if each.condition_shape is not None:
                raise ValueError(
                    f"expected an unconditional {name} to score with: the class of an outside "
                    "example is not known; lj.condition(density, value) fixes a condition, and "
                    "lj.Classifier(density).mixture sums over class labels"
                )
            check_fit(each, dataset)
        return densities

    def fit_features(self, densities: Densities, compute: Compute, dataset: Dataset) -> FittedScore:
        """Fits the score from features that are computed already.

        Args:
          densities: Densities from ``densities_of``.
          compute: Function that computes a feature of the examples.
          dataset: Inside examples.
        """
        self.check_features(compute)
        state = self.learn_from(compute, dataset)
        return FittedScore(self, dict(densities), state, None, {"fit": row_hashes(dataset)})

    def learn_from(self, compute: Compute, dataset: Dataset) -> dict[str, Any]:
        """Returns what fitting keeps, from features of inside examples.

        Args:
          compute: Function that computes a feature of the examples.
          dataset: The examples.

        Raises:
          ValueError: If statistics have another shape than one number or one vector for each
            example, or are not finite.
        """
        statistics = np.asarray(self._statistics(compute, dataset.event_shape), np.float64)
        if statistics.shape[:1] != (len(dataset),) or statistics.ndim > 2:
            raise ValueError(
                f"expected {type(self).__name__}.statistic to give one number, or one vector, for "
                f"each of the {len(dataset)} examples, got shape {statistics.shape}"
            )
        finite = np.isfinite(statistics.reshape(len(dataset), -1))
        bad = np.flatnonzero(~finite.all(axis=1))
        if len(bad):
            first = statistics[bad[0]]
            raise ValueError(
                f"expected inside examples for which {self.label} is finite, it is {first} for "
                f"{rows_named(bad)} of the {len(dataset)} to fit on ({title_of(dataset)}): the "
                "density gives these examples no probability, or none that can be computed"
            )
        return self.learn(statistics)

    def scores_of(self, state: State, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns one score per group of examples from their features.

        Args:
          state: Numbers that ``learn`` returned.
          compute: Function that computes a feature of examples in a row, of whole groups.
          event_shape: Shape of one example.
        """
        statistics = self._statistics(compute, event_shape)
        return self.group_score(state, statistics.reshape(-1, self.group, *statistics.shape[1:]))

    def _statistics(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        # a difference of two infinities is NaN, without a warning from numpy: a ratio of densities
        # that both exclude an example has no value, and who needs a number refuses it with its row
        with np.errstate(invalid="ignore"):
            return self.statistic(compute, event_shape)

    def needs_key(self, densities: Densities) -> bool:
        """Returns whether a feature is computed with random draws.

        Args:
          densities: Densities from ``densities_of``.
        """
        return any(feature.needs_key(densities) for feature in self.features)


def with_draws(name: str, draws: int) -> str:
    """Returns the label of a score that averages over draws.

    Args:
      name: Name of the score.
      draws: Number of draws per example.
    """
    return name if draws == 1 else f"{name} ({draws} draws)"


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FittedScore:
    """A function from examples to scores, higher = more OOD; a pytree of its densities and numbers.

    Attributes:
      recipe: Score that it was fitted from.
      densities: The density that is scored, ``density``, and those that the recipe compares with.
      state: Numbers that fitting has learned.
      calibration: Sorted scores of calibration examples ``(n,)``; ``None`` before ``calibrate``.
      rows: Hashes of the rows that it was fitted on and calibrated with, to notice overlap.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> score = lj.ood.Typicality().fit(gaussian, points[100:200]).calibrate(points[200:])
      >>> score
      FittedScore('typicality' of FullGaussian, fitted on 100, calibrated with 100)
      >>> bool(score.p_value(np.array([[9, 9]], np.float32))[0] < 0.01)
      True
    """

    recipe: Score
    densities: Densities
    state: Mapping[str, Any]
    calibration: Any = None
    rows: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        density = type(self.densities["density"]).__name__
        text = f"FittedScore({self.recipe.label!r} of {density}"
        if "fit" in self.rows:
            text += f", fitted on {len(self.rows['fit'])}"
        if self.calibration is not None:
            text += f", calibrated with {len(self.calibration)}"
        return text + ")"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        facts = {"density": type(self.densities["density"]).__name__}
        for name, density in self.densities.items():
            if name != "density":
                facts[name] = type(density).__name__
        if "fit" in self.rows:
            facts["fitted on"] = f"{len(self.rows['fit'])} rows"
        if self.calibration is not None:
            low, high = float(self.calibration[0]), float(self.calibration[-1])
            facts["calibrated with"] = f"{len(self.calibration)} scores, {low:.4g} to {high:.4g}"
        facts |= changed(self.recipe)
        return facts_table(facts, caption=f"{self.recipe.label}, higher = more outside")

    def plot(
        self,
        sets: Mapping[str, ArrayLike],
        *,
        key: KeyLike | None = None,
        batch_size: int = 128,
    ) -> Any:
        """Draws the histograms of the scores of several sets, higher = more OOD.

        Args:
          sets: From a name to examples ``(n, *event_shape)``; the first is filled.
          key: Key of the draws, the same for all sets; not needed where all densities are exact.
          batch_size: Number of examples at a time.

        Returns:
          A matplotlib figure.

        Raises:
          ValueError: If there are no sets, or a key is missing.

        Example:
          >>> import likejax as lj, numpy as np
          >>> points = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
          >>> gaussian = lj.models.FullGaussian.fit(points[:100])
          >>> score = lj.ood.Typicality().fit(gaussian, points[100:200])
          >>> figure = score.plot({"inside": points[200:], "shifted": points[200:] + 3})
        """
        values = {}
        for name, x in sets.items():
            values[name] = np.asarray(self(x, key=key, batch_size=batch_size)).reshape(-1)
        return plot.histograms({self.recipe.label: values})

    def tree_flatten(self) -> tuple[Any, Any]:
        """Returns the densities and numbers as children, everything else as static data."""
        names = tuple(self.state)
        # float64 scores and hashes are not for devices
        same = _Same(self.recipe, self.calibration, self.rows)
        return (dict(self.densities), [self.state[name] for name in names]), (same, names)

    @classmethod
    def tree_unflatten(cls, static: Sequence[Any], children: Sequence[Any]) -> FittedScore:
        """Returns the score of ``tree_flatten``.

        Args:
          static: Static data.
          children: Densities and numbers.
        """
        same, names = static
        recipe, calibration, rows = same.values
        densities, values = children
        return cls(recipe, densities, dict(zip(names, values, strict=True)), calibration, rows)

    def __call__(
        self,
        x: ArrayLike,
        *,
        key: KeyLike | None = None,
        batch_size: int = 128,
        devices: Devices | None = None,
    ) -> Float[Any, "*batch"]:
        """Scores examples; each score depends on its example and its key alone.

        Arrays on the host are scored in chunks by compiled functions and give float64. Inside
        ``jax.jit`` the whole call is traced.

        Args:
          x: Examples ``(*batch, *event_shape)``, or ``(*batch, group, *event_shape)`` where the
            recipe scores groups.
          key: One key, folded by flat position, or keys of shape ``batch`` (``(*batch, group)``);
            not needed where all densities are exact.
          batch_size: Number of examples at a time on each device.
          devices: Devices to compute on; all of this process if not given. The numbers are
            those of one device.

        Returns:
          Scores ``(*batch,)``.

        Raises:
          ValueError: For a wrong shape, or a missing key.
        """
        if isinstance(x, Dataset):
            raise TypeError(f"expected an array of examples, got {x!r}: pass its .examples")
        examples: Any = x if hasattr(x, "dtype") else np.asarray(x)
        batch = self._batch_of(examples)
        flat = examples.reshape(-1, *self._event_shape)
        keys = self._keys(key, batch)
        if len(flat) == 0:
            return np.zeros(batch)
        compute = features_of(self.densities, flat, keys, batch_size=batch_size, devices=devices)
        return self._scores(compute).reshape(batch)

    def score_map(
        self, x: ArrayLike, *, batch_size: int = 128, devices: Devices | None = None
    ) -> Float[np.ndarray, "..."]:
        """Returns the part of every dimension in the score: where an example is unusual.

        The parts of an example sum to its score. Negative log-likelihoods have them, ratios, Min-K
        and, for images, input complexity, all under densities with ``log_prob_map``, such as a
        PixelCNN++.

        Args:
          x: Examples ``(*batch, *event_shape)``, on the host.
          batch_size: Number of examples at a time on each device.
          devices: Devices to compute on; all of this process if not given. The numbers are
            those of one device.

        Returns:
          ``(*batch, *event_shape)`` in float64, in the unit of the score.

        Raises:
          TypeError: If ``x`` is a dataset, or a density has no term for every dimension.
          ValueError: If the score is no sum over dimensions, or for a wrong shape.

        Example:
          >>> import likejax as lj, numpy as np
          >>> train, valid = lj.load("digits"), lj.load("digits", split="validation")
          >>> histogram = lj.models.PixelHistogram.fit(train)
          >>> score = lj.ood.NegativeLogProb().fit(histogram, valid)
          >>> x = valid.examples[:5]
          >>> maps = score.score_map(x)
          >>> maps.shape, bool(np.allclose(maps.sum((1, 2, 3)), score(x)))
          ((5, 8, 8, 1), True)
        """
        if isinstance(x, Dataset):
            raise TypeError(f"expected an array of examples, got {x!r}: pass its .examples")
        examples = np.asarray(x)
        batch = self._batch_of(examples)
        flat = examples.reshape(-1, *self._event_shape)
        if len(flat) == 0:
            return np.zeros((*batch, *self._event_shape))
        compute = features_of(self.densities, flat, None, batch_size=batch_size, devices=devices)
        with np.errstate(invalid="ignore"):  # as for scores: impossible under both densities
            parts = self.recipe.statistic_map(compute, self._event_shape)
        return np.asarray(parts, np.float64).reshape(*batch, *self._event_shape)

    @property
    def _event_shape(self) -> tuple[int, ...]:
        return self.densities["density"].event_shape

    def _scores(self, compute: Compute) -> Values:
        return self.recipe.scores_of(self.state, compute, self._event_shape)

    def scores_from(self, compute: Compute, what: str) -> Float[np.ndarray, " n"]:
        """Returns scores from features where every example needs a number, as in tables.

        Args:
          compute: Function that computes a feature of examples in a row, of whole groups.
          what: Name of the examples in an error message.

        Returns:
          Scores in float64; infinite ones are kept, they have a rank.

        Raises:
          ValueError: If a score is NaN; the message names the score and the row.
        """
        scores = np.asarray(self._scores(compute), np.float64)
        bad = np.flatnonzero(np.isnan(scores))
        if len(bad):
            group = self.recipe.group
            unit = "example" if group == 1 else f"group of {group}"
            raise ValueError(
                f"expected a number for every {unit}, {self.recipe.label} is NaN for "
                f"{rows_named(bad)} of {what}. A difference of two infinities is NaN: then both "
                "numbers that the score compares exclude the example. Leave these examples out, or "
                "use a score that does not compare"
            )
        return scores

    def _batch_of(self, x: Shaped[Array | np.ndarray, "..."]) -> tuple[int, ...]:
        """Returns the batch shape of examples."""
        wanted = self._event_shape
        if self.recipe.group > 1:
            wanted = (self.recipe.group, *wanted)
        leading = x.ndim - len(wanted)
        if leading < 0 or x.shape[leading:] != wanted:
            shape = ", ".join(map(str, wanted))
            advice = shape_advice("x", tuple(x.shape), self._event_shape)
            raise ValueError(f"expected x of shape (*batch, {shape}), got {tuple(x.shape)}{advice}")
        return tuple(x.shape[:leading])

    def _keys(self, key: KeyLike | None, batch: tuple[int, ...]) -> Key[Any, " n"] | None:
        if not self.recipe.needs_key(self.densities):
            return None
        if key is None:
            raise ValueError(
                f"{self.recipe.label} is computed with random draws: pass key=jax.random.key(seed)"
            )
        return keys_of(key, batch, self.recipe.group)

    def calibrate(
        self,
        dataset: Examples,
        *,
        key: KeyLike | None = None,
        overlap_tolerance: float = 0.0,
        batch_size: int = 128,
        devices: Devices | None = None,
    ) -> FittedScore:
        """Returns the score with ``threshold`` and ``p_value``, from inside examples of their own.

        Args:
          dataset: Held-out inside examples, a dataset or an array: exchangeable with those that
            will be scored, disjoint from those of ``fit``. Groups are formed in the order of the
            dataset. Rows that chose the weights of the density do not belong here either;
            ``data.hold_out`` keeps them apart.
          key: Key of the draws; example ``i`` uses ``fold_in(key, i)``.
          overlap_tolerance: Largest share of these different rows that may be among those of
            ``fit``; 0 allows none.
          batch_size: Number of examples at a time on each device.
          devices: Devices to compute on; all of this process if not given. The numbers are
            those of one device.

        Returns:
          The calibrated score; this one does not change.

        Raises:
          TypeError: If there is no dataset.
          ValueError: If rows were used in ``fit``, or a score is NaN.
        """
        density = self.densities["density"]
        data = checked_dataset(dataset, density, "the examples to calibrate with")
        check_fit(density, data)
        group = self.recipe.group
        groups = len(data) // group
        if groups == 0:
            raise ValueError(f"expected at least {group} examples to form a group, got {len(data)}")
        x = data.examples[: groups * group]
        keys = self._keys(key, (groups,))
        compute = features_of(self.densities, x, keys, batch_size=batch_size, devices=devices)
        return self.calibrate_features(compute, data, overlap_tolerance=overlap_tolerance)

    def calibrate_features(
        self, compute: Compute, dataset: Dataset, *, overlap_tolerance: float = 0.0
    ) -> FittedScore:
        """Calibrates from features that are computed already.

        Args:
          compute: Function that computes a feature of the examples, in whole groups.
          dataset: Held-out inside examples.
          overlap_tolerance: See ``calibrate``.
        """
        rows = row_hashes(dataset)
        if "fit" in self.rows:
            fitted_on = "the rows the score was fitted on", self.rows["fit"]
            these = title_of(dataset), rows
            check_disjoint_rows(fitted_on, these, tolerance=overlap_tolerance)
        scores = self.scores_from(compute, f"{title_of(dataset)}, which calibrates it")
        all_rows = {**self.rows, "calibration": rows}
        return dataclasses.replace(self, calibration=np.sort(scores), rows=all_rows)

    def threshold(self, fpr: float, delta: float | None = None) -> float:
        """Returns the score above which an example is called OOD, at a false-positive rate.

        Args:
          fpr: Wanted rate, which holds on average over calibration sets.
          delta: Probability, over calibration sets, that the true rate may exceed ``fpr``; ``None``
            for a rate that holds on average.

        Raises:
          ValueError: If the score is not calibrated.
        """
        return calibrate.threshold(self._calibration_scores(), fpr, delta)

    def p_value(
        self, x: ArrayLike, *, key: KeyLike | None = None, ties_seed: int | None = None
    ) -> Float[np.ndarray, "*batch"]:
        """Computes conformal p-values.

        At most a share ``alpha`` of new inside examples has a p-value of ``alpha`` or less.

        Args:
          x: Examples, as in a call.
          key: Key or keys, as in a call.
          ties_seed: Random seed that breaks ties, see ``p_values``; ``None`` where ties count
            against the example.

        Raises:
          ValueError: If the score is not calibrated, or NaN for an example.
        """
        calibration = self._calibration_scores()
        scores = np.asarray(self(x, key=key))
        bad = np.flatnonzero(np.isnan(scores))
        if len(bad):
            raise ValueError(
                f"expected examples that have a score, {self.recipe.label} is NaN for "
                f"{rows_named(bad)}"
            )
        return calibrate.p_values(calibration, scores, seed=ties_seed)

    def _calibration_scores(self) -> Float[np.ndarray, " n"]:
        if self.calibration is None:
            raise ValueError(
                "expected a calibrated score: call score = score.calibrate(dataset, key=key) first"
            )
        return self.calibration

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes recipe, numbers, calibration and densities; ``likejax.ood.restore`` reads them.

        The record comes last and has the checksums of the rest: an interrupted write is noticed.

        Args:
          directory: Directory to write to; created if absent.
        """
        arrays = {f"rows_{name}": rows for name, rows in self.rows.items()}
        learned = {name: np.asarray(value, np.float64) for name, value in self.state.items()}
        arrays |= {f"state_{name}": value for name, value in learned.items() if value.ndim}
        if self.calibration is not None:
            arrays["calibration"] = self.calibration
        recipe = self.recipe
        record = {
            "score": {"class": class_path(type(recipe)), **recipe.settings()},
            "companions": self._companion_fields(),
            "state": {name: float(value) for name, value in learned.items() if not value.ndim},
        }
        write_folder(directory, Saved(record, arrays, dict(self.densities)))

    def _companion_fields(self) -> dict[str, str]:
        """Returns, for every field of the recipe that holds a density, the density's name."""
        fields = {}
        for field in dataclasses.fields(self.recipe):  # type: ignore[arg-type]
            for name, density in self.recipe.companions().items():
                if getattr(self.recipe, field.name) is density:
                    fields[field.name] = name
        return fields


def restore(directory: str | os.PathLike[str], **densities: Density) -> FittedScore:
    """Reads a score that ``FittedScore.save`` wrote.

    The score's class may be one of the user's, in a module that is imported already.

    Args:
      directory: Directory of the score.
      **densities: ``density=``, ``background=`` (the name of its folder): densities of the same
        structure, where they were put together by hand and so have no config.

    Returns:
      The score, calibrated if it was.

    Raises:
      TypeError: If what is passed for a density is none.
      CheckpointError: If there is no score, or it is damaged.
      ValueError: If the module of its class is not imported; the message names the import.

    Example:
      >>> import tempfile, likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> score = lj.ood.NegativeLogProb().fit(gaussian, points[100:])
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     score.save(directory)
      ...     lj.ood.restore(directory, density=gaussian)  # made by hand: it has no config
      FittedScore('negative log-likelihood' of FullGaussian, fitted on 100)
    """
    for density in densities.values():
        check_density(density)
    try:
        record, arrays, found = read_folder(directory, densities)
        state: dict[str, Any] = {name: float(value) for name, value in record["state"].items()}
        state |= _named_after("state_", arrays)
        recipe = _recipe_of(record, found)
    except (
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{directory} holds no intact score: {reason}") from error
    rows = _named_after("rows_", arrays)
    return FittedScore(recipe, found, state, arrays.get("calibration"), rows)


def _named_after(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays whose names begin with the prefix, by the rest of their names."""
    chosen = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays[name] for name in chosen}


def _recipe_of(record: Mapping[str, Any], densities: Densities) -> Score:
    """Returns the recipe in a record, with the densities that it compares with."""
    settings = {name: from_record(value) for name, value in record["score"].items()}
    kind = class_at(settings.pop("class"))
    if not issubclass(kind, Score):
        raise CheckpointError(f"expected the record of a score, it names {kind.__name__}")
    companions = {field: densities[name] for field, name in record["companions"].items()}
    return kind(**settings, **companions)


class _Same:
    """Static data of a pytree that are equal to themselves only: recipes may hold densities."""

    def __init__(self, *values: object):
        self.values = values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same):
            return False
        return all(a is b for a, b in zip(self.values, other.values, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.values)))

"""OOD scores: frozen recipes that are fitted to inside data and then give one number per example.

A recipe says which features it needs and how they combine; ``fit`` makes a ``FittedScore``, which scores, calibrates
and is saved. Higher is more OOD, always.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset
from likejax.density import Density, bits_per_dim, check_density
from likejax.evaluation import check_fit
from likejax.keys import KeyLike
from likejax.ood.checks import checked_dataset, rows_named
from likejax.ood.features import CodeLength, Compute, Feature, LogProb, Values, features_of, keys_of
from likejax.ood.fitted import FittedScore
from likejax.settings import Count, Settings

State = Mapping[str, Any]


class Score(Settings, abc.ABC):
    """A recipe for a score.

    A subclass is a frozen dataclass of settings, which check themselves. It names its ``features`` and implements
    ``_statistic``, one number per example; one that learns from inside data also implements ``_state``.

    Attributes:
      group: Examples that are judged together; 1 for one at a time.
    """

    name: ClassVar[str]
    """In tables and on disk."""
    uses_density: ClassVar[bool] = True
    """Whether the density matters: not for baselines that look at the image alone."""
    group: int = 1

    @property
    @abc.abstractmethod
    def features(self) -> tuple[Feature, ...]:
        """What the score is computed from."""

    @abc.abstractmethod
    def _statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """One number per example, from its features; for a single example it is the score unless ``_judge`` says."""

    def _state(self, statistic: Float[np.ndarray, " n"]) -> dict[str, float]:
        """What fitting keeps of the statistics of inside examples."""
        return {}

    def _judge(self, state: State, statistics: Any) -> Any:
        """The score of groups of statistics ``(n, group)``."""
        return statistics[:, 0]

    def _companions(self) -> dict[str, Density]:
        """Densities besides the one that is scored, by the names that features use."""
        return {}

    def _settings(self) -> dict[str, Any]:
        """What JSON keeps of the recipe; densities are kept beside it."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def _from_settings(
        cls, settings: Mapping[str, Any], companions: Mapping[str, Density]
    ) -> Score:
        """The recipe of ``_settings`` and ``_companions``."""
        return cls(**settings)

    @property
    def label(self) -> str:
        """The name in tables, with the settings that tell it from others of its kind."""
        return self.name + self._draws_told()

    def _draws_told(self) -> str:
        draws = getattr(self, "draws", 1)
        return f" ({draws} draws)" if draws != 1 else ""

    def fit(
        self,
        density: Density,
        dataset: Dataset,
        *,
        key: KeyLike | None = None,
        batch_size: int = 128,
    ) -> FittedScore:
        """The score of a density, fitted to inside examples that it was not trained on.

        Args:
          density: The density that is scored; unconditional.
          dataset: Inside examples; not those it was trained on, which look better than new ones.
          key: Of the draws, unless the densities are exact; example ``i`` uses ``fold_in(key, i)``.
          batch_size: Examples at a time.

        Returns:
          The fitted score; ``calibrate`` it on other rows for p-values and thresholds.

        Raises:
          TypeError: If there is no density or no dataset where one is due.
          ValueError: If density, companions and data do not fit, or the score of an example is not finite.
        """
        check_density(density)
        dataset = checked_dataset(dataset, density, "the examples to fit on")
        densities = self.densities_of(density, dataset)
        keys = keys_of(key, (len(dataset),)) if self._needs_key(densities) else None
        compute = features_of(densities, dataset.examples, keys, batch_size=batch_size)
        return self.fit_features(densities, compute, dataset)

    def densities_of(self, density: Density, dataset: Dataset) -> dict[str, Density]:
        """The density that is scored and its companions, by the names that features use.

        Raises:
          ValueError: If one of them does not fit the data, or is conditional.
        """
        densities = {"density": density, **self._companions()}
        for name, each in densities.items():
            check_density(each)
            if each.condition_shape is not None:
                raise ValueError(
                    f"expected an unconditional {name} to score with: the class of an outside example is not known"
                )
            check_fit(each, dataset)
        return densities

    def fit_features(
        self, densities: Mapping[str, Density], compute: Compute, dataset: Dataset
    ) -> FittedScore:
        """``fit`` from features that are computed already."""
        statistic = np.asarray(self.statistic_of(compute, dataset.event_shape), np.float64)
        if statistic.shape != (len(dataset),):
            raise ValueError(
                f"expected {type(self).__name__}._statistic to give one number for each of the {len(dataset)} "
                f"examples, got shape {statistic.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(statistic))
        if len(bad):
            raise ValueError(
                f"expected inside examples for which {self.label} is finite, it is {statistic[bad[0]]} for "
                f"{rows_named(bad)} of the {len(dataset)} to fit on ({dataset.name} {dataset.split}): the density "
                "gives examples that it should know no probability, or none that can be computed"
            )
        return FittedScore.of(self, densities, self._state(statistic), dataset)

    def statistic_of(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """One number per example; of features on the host without numpy's warnings, NaN where there is no number.

        A difference of two infinities is NaN: a ratio of two densities that both exclude an example says nothing of
        it. Whoever needs a number refuses it with the row.
        """
        with np.errstate(invalid="ignore"):
            return self._statistic(compute, event_shape)

    def _needs_key(self, densities: Mapping[str, Density]) -> bool:
        return any(feature.needs_key(densities) for feature in self.features)


@dataclasses.dataclass(frozen=True)
class NegativeLogProb(Score):
    """``s = -log p(x)`` in nats: low likelihood is suspicious.

    It fails where outside data are simpler than inside data (Fashion-MNIST against MNIST): a correct implementation
    shows that failure.

    References:
      Bishop, 1994, Novelty detection and neural network validation. Nalisnick et al., 2019, Do deep generative models
      know what they don't know?, arXiv:1810.09136.
    """

    name: ClassVar[str] = "negative log-likelihood"

    draws: Count = 1
    """Draws per example."""

    @property
    def features(self) -> tuple[Feature, ...]:
        return (LogProb(draws=self.draws),)

    def _statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        return -compute(self.features[0])


@dataclasses.dataclass(frozen=True)
class Typicality(Score):
    """``s = |mean_m(-log p(x_m)) - H|``, with ``H`` the mean of ``-log p`` over the examples to fit.

    Too likely is as suspicious as too unlikely. For ``group`` above 1 examples are judged together, all from one
    source: then ``x`` has shape ``(*batch, group, *event_shape)``.

    References:
      Nalisnick, Matsukawa, Teh and Lakshminarayanan, 2019, Detecting out-of-distribution inputs to deep generative
      models using typicality, arXiv:1906.02994.
    """

    name: ClassVar[str] = "typicality"

    group: Count = 1
    """Examples judged together."""
    draws: Count = 1
    """Draws per example."""

    @property
    def features(self) -> tuple[Feature, ...]:
        return (LogProb(draws=self.draws),)

    def _statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        return -compute(self.features[0])

    def _state(self, statistic: Float[np.ndarray, " n"]) -> dict[str, float]:
        return {"entropy": float(statistic.mean())}

    @property
    def label(self) -> str:
        return (
            self.name if self.group == 1 else f"{self.name} of {self.group}"
        ) + self._draws_told()

    def _judge(self, state: State, statistics: Any) -> Any:
        return abs(statistics.mean(1) - state["entropy"])


@dataclasses.dataclass(frozen=True, eq=False)
class LikelihoodRatio(Score):
    """``s = log p_background(x) - log p(x)`` in nats: what is left when the background explains its part.

    Any density over the same examples can be the background: one trained on mutated inputs (``fit_background``), one
    trained on much broader data, or the one that ``p`` was fine-tuned from. Both see the same noise.

    References:
      Ren et al., 2019, Likelihood ratios for out-of-distribution detection, arXiv:1906.02845. Schirrmeister et al.,
      2020, Understanding anomaly detection with deep invertible networks through hierarchies of distributions and
      features, arXiv:2006.10848.
    """

    name: ClassVar[str] = "likelihood ratio"

    background: Density
    """The density to divide by."""
    draws: Count = 1
    """Draws per example of both."""
    title: str = ""
    """Tells several ratios in one table apart."""

    @property
    def features(self) -> tuple[Feature, ...]:
        return LogProb(self._background_name, self.draws), LogProb(draws=self.draws)

    @property
    def _background_name(self) -> str:
        return f"background-{self.title}" if self.title else "background"

    def _statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        background, density = map(compute, self.features)
        return background - density

    @property
    def label(self) -> str:
        return (f"{self.name} ({self.title})" if self.title else self.name) + self._draws_told()

    def _companions(self) -> dict[str, Density]:
        return {self._background_name: self.background}

    def _settings(self) -> dict[str, Any]:
        return {"draws": self.draws, "title": self.title}

    @classmethod
    def _from_settings(
        cls, settings: Mapping[str, Any], companions: Mapping[str, Density]
    ) -> LikelihoodRatio:
        (background,) = companions.values()
        return cls(background, **settings)


@dataclasses.dataclass(frozen=True)
class InputComplexity(Score):
    """``S = -log2 p(x) - C(x)`` in bits per dimension, with ``C`` the length of a lossless code of the image.

    What the model needs beyond a code that knows nothing of the data. The code is ``ood.complexity.encode``.

    References:
      Serra et al., 2020, Input complexity and out-of-distribution detection with likelihood-based generative models,
      arXiv:1909.11480.
    """

    name: ClassVar[str] = "input complexity"

    draws: Count = 1
    """Draws per example."""

    @property
    def features(self) -> tuple[Feature, ...]:
        return LogProb(draws=self.draws), CodeLength()

    def _statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        log_prob, code_length = map(compute, self.features)
        return bits_per_dim(log_prob, event_shape) - code_length / math.prod(event_shape)


@dataclasses.dataclass(frozen=True)
class ComplexityOnly(Score):
    """``s = C(x)`` in bits per dimension, without any model: what ``InputComplexity`` must beat.

    An AUROC near 0 says that outside images are simpler, near 1 that they are more complex.
    """

    name: ClassVar[str] = "complexity only"
    uses_density: ClassVar[bool] = False

    @property
    def features(self) -> tuple[Feature, ...]:
        return (CodeLength(),)

    def _statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        return compute(self.features[0]) / math.prod(event_shape)

"""Several scores in one, by their p-values."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from likejax.data.dataset import Dataset
from likejax.density import Density
from likejax.inputs import numpy_of
from likejax.ood.features import Compute, Feature, Values
from likejax.ood.gradients import ParameterGradient
from likejax.ood.likelihood_scores import Typicality
from likejax.ood.score import Score, State


@dataclasses.dataclass(frozen=True, eq=False)
class Combined(Score):
    """Combination of the p-values of several scores, by Fisher's or Simes' rule.

    The p-value of each score is the share of inside examples that score as high. Fisher's score is
    ``-2 sum_j log p_j``, large if many are small; Simes' is ``-log min_j (k / j) p_(j)``, large if
    some are. The scores of an example depend on each other, so that neither is a test by itself:
    the combination is calibrated like any other score. The default is the combination of Bergamin
    et al. of typicality and gradient.

    References:
      Fisher, 1925, Statistical methods for research workers. Simes, 1986, An improved Bonferroni
      procedure for multiple tests of significance. Bergamin et al., 2022, Model-agnostic
      out-of-distribution detection using combined statistical tests, arXiv:2203.01097.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> scores = (lj.ood.Typicality(), lj.ood.InputGradient())
      >>> score = lj.ood.Combined(scores=scores).fit(gaussian, points[100:])
      >>> near, far = score(np.array([[1, 1], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "combined"

    scores: tuple[Score, ...] = (Typicality(), ParameterGradient())
    """Scores of single examples whose p-values are combined."""
    rule: Literal["fisher", "simes"] = "fisher"
    """Rule of the combination."""

    def _check_together(self) -> None:
        if len(self.scores) < 2:
            raise ValueError(f"expected at least two scores to combine, got {len(self.scores)}")
        for score in self.scores:
            if score.group != 1:
                raise ValueError(f"expected scores of single examples to combine, got {score!r}")

    @property
    def label(self) -> str:
        """Name in tables, with the rule and the scores."""
        return f"{self.rule} of {' and '.join(score.label for score in self.scores)}"

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features of all scores."""
        return tuple(feature for score in self.scores for feature in score.features)

    def companions(self) -> dict[str, Density]:
        """Returns the densities that the scores compare with."""
        found: dict[str, Density] = {}
        for score in self.scores:
            found |= score.companions()
        return found

    def check(self, density: Density) -> None:
        """Raises a ValueError if a score cannot be had of the density.

        Args:
          density: Density that is scored.
        """
        for score in self.scores:
            score.check(density)

    def check_features(self, compute: Compute) -> None:
        """Warns as the scores do.

        Args:
          compute: Function that computes a feature of the examples to fit on.
        """
        for score in self.scores:
            score.check_features(compute)

    def learn_from(self, compute: Compute, dataset: Dataset) -> dict[str, Any]:
        """Returns what every score keeps, and its sorted values on inside examples.

        Args:
          compute: Function that computes a feature of the examples.
          dataset: The examples.
        """
        kept: dict[str, Any] = {}
        for i, score in enumerate(self.scores):
            own = score.learn_from(compute, dataset)
            values = score.scores_of(own, compute, dataset.event_shape)
            kept |= {f"{i}.{name}": value for name, value in own.items()}
            kept[f"{i}_ordered"] = np.sort(np.asarray(values))
        return kept

    def scores_of(self, state: State, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns the combined p-values of every example.

        Args:
          state: Result of ``learn_from``.
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        logs = []
        for i, score in enumerate(self.scores):
            prefix = f"{i}."
            names = [name for name in state if name.startswith(prefix)]
            own = {name.removeprefix(prefix): state[name] for name in names}
            values = score.scores_of(own, compute, event_shape)
            logs.append(_log_p_values(state[f"{i}_ordered"], values))
        numpy = numpy_of(logs[0])
        stacked = numpy.stack(logs, axis=1)
        if self.rule == "fisher":
            return -2 * stacked.sum(axis=1)
        count = len(self.scores)
        weights = np.log(count / np.arange(1, count + 1))
        return -(numpy.sort(stacked, axis=1) + weights[None]).min(axis=1)


def _log_p_values(ordered: Any, values: Values) -> Values:
    """Logs of the share of inside scores that are at least as high, themselves included."""
    numpy = numpy_of(values)
    n = len(ordered)
    at_least = n - numpy.searchsorted(ordered, values, side="left")
    logs = numpy.log((1 + at_least) / (n + 1))
    return numpy.where(numpy.isnan(values), numpy.nan, logs)

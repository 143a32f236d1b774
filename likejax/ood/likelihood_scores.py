"""Scores from log-probabilities alone: the likelihood, its typicality, and its ratio to another."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from likejax.density import Density
from likejax.ood.features import Compute, Feature, LogProb, LogProbMap, Numbers, Values
from likejax.ood.score import Groups, Score, State, with_draws
from likejax.settings import Count


class _OfLogProb:
    """Part of the scores whose statistic is ``-log p(x)``."""

    draws: int

    @property
    def features(self) -> tuple[Feature, ...]:
        """The log-probability."""
        return (LogProb(draws=self.draws),)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns ``-log p(x)`` in nats.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return -compute(self.features[0])


@dataclasses.dataclass(frozen=True)
class NegativeLogProb(_OfLogProb, Score):
    """Score ``s = -log p(x)`` in nats: low likelihood is suspicious.

    It fails where outside examples are simpler than inside ones, as with Fashion-MNIST inside and
    MNIST outside. A correct implementation shows that failure.

    References:
      Bishop, 1994, Novelty detection and neural network validation. Nalisnick et al., 2019, Do deep
      generative models know what they don't know?, arXiv:1810.09136.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> score = lj.ood.NegativeLogProb().fit(gaussian, points[100:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "negative log-likelihood"

    draws: Count = 1
    """Number of draws per example."""

    @property
    def label(self) -> str:
        """Name in tables, with the number of draws unless it is one."""
        return with_draws(self.name, self.draws)

    def statistic_map(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns minus the log-probability of every dimension given those before it, in nats.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return -compute(LogProbMap())


@dataclasses.dataclass(frozen=True)
class Typicality(_OfLogProb, Score):
    """Score ``s = |mean_m(-log p(x_m)) - H|``, with ``H`` the mean of ``-log p`` in fitting.

    Too likely is as suspicious as too unlikely. A ``group`` of more than one example, all from one
    source, gets one score. Then ``x`` has shape ``(*batch, group, *event_shape)``.

    References:
      Nalisnick, Matsukawa, Teh and Lakshminarayanan, 2019, Detecting out-of-distribution inputs to
      deep generative models using typicality, arXiv:1906.02994.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> score = lj.ood.Typicality().fit(gaussian, points[100:])
      >>> bool(score(np.zeros((2, 2), np.float32))[0] > 0.5)  # the mode is too likely
      True
    """

    name: ClassVar[str] = "typicality"

    group: Count = 1
    """Number of examples that get one score together."""
    draws: Count = 1
    """Number of draws per example."""

    @property
    def label(self) -> str:
        """Name in tables, with the size of groups and the number of draws unless they are one."""
        name = self.name if self.group == 1 else f"{self.name} of {self.group}"
        return with_draws(name, self.draws)

    def learn(self, statistics: Float[np.ndarray, " n"]) -> dict[str, float]:
        """Returns the entropy ``H``, estimated by the mean.

        Args:
          statistics: Values of ``-log p`` of inside examples, ``(n,)`` in nats.
        """
        return {"entropy": float(statistics.mean())}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns the distance of the mean of every group from the entropy.

        Args:
          state: Mapping with the ``entropy``.
          statistics: Values of ``-log p``, ``(n, group)`` in nats.
        """
        return abs(statistics.mean(1) - state["entropy"])


@dataclasses.dataclass(frozen=True, eq=False)
class LikelihoodRatio(Score):
    """Score ``s = log p_background(x) - log p(x)`` in nats, or the same over the dimensions.

    Any density over the same examples can be the background: one trained on mutated inputs
    (``fit_background``), one trained on much broader data, or the one that ``p`` was fine-tuned
    from. Both see the same noise.

    To fine-tune is to train with the weights of another run as the initial ones,
    ``lj.fit(..., initial=broad)``. The ratio then says what the fine-tuning has changed, and what
    both share, such as the preference for simple images, cancels. The broad data must hold what
    resembles the outside examples: the ratio of what neither has seen is no evidence.

    With ``p(x | c)`` and the mixture ``p(x) = sum_c p(c) p(x | c)`` as its background, ``-s`` is
    the conditional discrepancy ``log p(x | c) - log p(x)``: what the label says about the example.
    By Bayes' rule it is ``log p(c | x) - log p(c)``, at most ``-log p(c)``. The last example
    below computes it.

    References:
      Ren et al., 2019, Likelihood ratios for out-of-distribution detection, arXiv:1906.02845.
      Schirrmeister et al., 2020, Understanding anomaly detection with deep invertible networks
      through hierarchies of distributions and features, arXiv:2006.10848.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> broad = lj.models.FullGaussian.fit(lj.Dataset.from_array(5 * points[100:200]))
      >>> score = lj.ood.LikelihoodRatio(broad).fit(gaussian, points[200:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < 0 < far)
      True

      The background is the run that the density was fine-tuned from:

      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, batch_size=50, steps=40)
      >>> broad = lj.fit(experiment, 5 * points[:100], key=0)
      >>> tuned = lj.fit(experiment, points[:100], key=1, initial=broad)
      >>> score = lj.ood.LikelihoodRatio(broad.density).fit(tuned.density, points[200:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True

      The background is the mixture over labels:

      >>> digits, valid = lj.load("digits"), lj.load("digits", split="validation")
      >>> of_labels = lj.models.NaiveBayes.fit(digits)
      >>> classifier = lj.Classifier(of_labels)
      >>> three, x = lj.condition(of_labels, 3), valid.examples[:5]
      >>> score = lj.ood.LikelihoodRatio(classifier.mixture, title="is no 3").fit(three, valid)
      >>> by_bayes = classifier.log_posterior(x)[:, 3] - np.log(0.1)
      >>> bool(np.allclose(-score(x), by_bayes, atol=1e-3))
      True
    """

    name: ClassVar[str] = "likelihood ratio"

    background: Density
    """Density whose log-probability is compared."""
    draws: Count = 1
    """Number of draws per example, of both densities."""
    title: str = ""
    """Title that distinguishes several ratios in one table."""
    form: Literal["sum", "mean"] = "sum"
    """``sum`` for the ratio in nats; ``mean`` for the ratio over the number of dimensions."""

    @property
    def label(self) -> str:
        """Name in tables, with the title if there is one."""
        name = f"{self.name} ({self.title})" if self.title else self.name
        if self.form == "mean":
            name += " per dimension"
        return with_draws(name, self.draws)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The log-probabilities under the background and under the density."""
        (background,) = self.companions()
        return LogProb(density=background, draws=self.draws), LogProb(draws=self.draws)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns the log-ratio in nats, or in nats per dimension.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        background, density = map(compute, self.features)
        return (background - density) / self._divisor(event_shape)

    def statistic_map(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns the log-ratio of every dimension given those before it.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        (name,) = self.companions()
        background, density = compute(LogProbMap(name)), compute(LogProbMap())
        return (background - density) / self._divisor(event_shape)

    def _divisor(self, event_shape: tuple[int, ...]) -> int:
        return math.prod(event_shape) if self.form == "mean" else 1

    def companions(self) -> dict[str, Density]:
        """Returns the background by a name with the title, since one table may hold several."""
        name = f"background-{self.title}" if self.title else "background"
        return {name: self.background}

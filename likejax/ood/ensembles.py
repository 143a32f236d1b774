"""Scores of ensembles: where several trainings of a model do not agree."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from likejax.density import Density
from likejax.inputs import numpy_of
from likejax.models.ensemble import Ensemble
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    Numbers,
    OfDensity,
    Values,
    named_density,
)
from likejax.ood.score import Score, with_draws
from likejax.settings import Count


@dataclasses.dataclass(frozen=True)
class MemberLogProbs(OfDensity):
    """Log-probability of every member of an ensemble, ``(n, members)`` in nats.

    Example:
      >>> import likejax as lj
      >>> lj.ood.MemberLogProbs()
      MemberLogProbs(density='ensemble', draws=1)
    """

    density: str = "ensemble"
    """Name of the ensemble among the densities."""
    draws: Count = 1
    """Number of draws per example, the same for all members."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the log-probabilities of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the ensemble is exact.
        """
        ensemble = named_density(densities, self.density)
        assert isinstance(ensemble, Ensemble)
        members = ensemble.log_prob_members(x, key=keys, draws=self.draws)
        return members.T if isinstance(members, Tracer) else np.asarray(members, np.float64).T


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleScore(Score):
    """WAIC, ``s = var_k log p_k(x) - mean_k log p_k(x)``, or the variance alone, of an ensemble.

    Mean and variance, which is the biased one, are over members. The mean is in nats and the
    variance in their square, so that with thousands of dimensions the variance decides alone;
    ``per_dimension`` divides every log-probability by the number of dimensions first. Published
    numbers of WAIC contradict each other (1.00 and 0.14 of CIFAR-10 against SVHN): see both kinds.

    References:
      Choi, Jang and Alemi, 2018, WAIC, but why? Generative ensembles for robust anomaly detection,
      arXiv:1810.01392. Watanabe, 2010, Asymptotic equivalence of Bayes cross validation and widely
      applicable information criterion.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
      >>> members = [lj.models.Flow(lj.bijections.ActNorm(2), (2,)) for _ in range(3)]
      >>> halves = np.split(points[:300], 3)
      >>> fitted = [m.initialize(half, 0) for m, half in zip(members, halves)]
      >>> ensemble = lj.Ensemble(fitted)
      >>> score = lj.ood.EnsembleScore(ensemble).fit(fitted[0], points[300:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "WAIC"

    ensemble: Density
    """The ensemble, from ``lj.train.fit_ensemble`` or ``lj.train.weight_noise_ensemble``."""
    quantity: Literal["waic", "variance"] = "waic"
    """The whole sum, or the variance alone."""
    per_dimension: bool = False
    """Whether log-probabilities are divided by the number of dimensions."""
    draws: Count = 1
    """Number of draws per example."""

    def _check_together(self) -> None:
        if not isinstance(self.ensemble, Ensemble):
            raise TypeError(
                f"expected an ensemble, got {type(self.ensemble).__name__}: lj.Ensemble(members), "
                "lj.train.fit_ensemble(...).density and "
                "lj.train.weight_noise_ensemble(...).density are some"
            )

    @property
    def label(self) -> str:
        """Name in tables, with the quantity and its unit."""
        name = self.name if self.quantity == "waic" else "variance of members"
        name = f"{name} per dimension" if self.per_dimension else name
        return with_draws(name, self.draws)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The log-probabilities of all members."""
        return (MemberLogProbs(draws=self.draws),)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns the quantity of every example.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        members: Float[np.ndarray, "n members"] = compute(self.features[0])
        scale = math.prod(event_shape) if self.per_dimension else 1
        numpy = numpy_of(members)
        scaled = members / scale
        variance = numpy.var(scaled, axis=1)
        return variance if self.quantity == "variance" else variance - scaled.mean(axis=1)

"""Scores from a density of several numbers per example, fitted to inside examples."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from likejax.density import Density
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    Numbers,
    OfDensity,
    OfDraws,
    Values,
    named_density,
)
from likejax.ood.score import Groups, Score, State, with_draws
from likejax.ood.vectors import Backend, backend_score, fit_backend
from likejax.settings import Count


@dataclasses.dataclass(frozen=True)
class Statistics(OfDensity):
    """Numbers that a density offers by name, ``(n, k)``; see ``Density.statistics``.

    Example:
      >>> import likejax as lj, numpy as np
      >>> gaussian = lj.models.FullGaussian.fit(np.eye(3, dtype=np.float32))
      >>> gaussian.statistic_names
      ('log_prob',)
      >>> lj.ood.Statistics()({"density": gaussian}, np.zeros((5, 3), np.float32), None).shape
      (5, 1)
    """

    names: tuple[str, ...] = ()
    """Names of the numbers; all that the density offers if there are none."""
    density: str = "density"
    """Name of the density: ``density`` for the scored one, or one that it is compared with."""
    draws: Count = 1
    """Number of draws per example, of which each number is the mean."""

    def check(self, density: Density) -> None:
        """Raises a ValueError if the scored density does not offer a number that is named.

        Args:
          density: Density that is scored.
        """
        if self.density == "density":
            check_names(density, self.names)

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the numbers of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        density = named_density(densities, self.density)
        values = density.statistics(x, key=keys, draws=self.draws)
        columns = [values[name] for name in self.names or values]
        on_host = not any(isinstance(column, Tracer) for column in columns)
        return np.stack(columns, axis=-1) if on_host else jnp.stack(columns, axis=-1)


@dataclasses.dataclass(frozen=True)
class DensityOfStates(Score):
    """Score ``s = -log q(T_1(x), ..., T_k(x))``, with ``q`` fitted to inside examples.

    An outside example may have a plausible log-probability by implausible parts, such as a large
    latent density and a small determinant. Any numbers serve as ``T``: what the density offers by
    name (``Statistics``), code lengths, gradient norms, or features of a user's own. Each is a
    number or a vector per example. ``q`` is a normal, a mixture of normals, a product of kernel
    density estimates, COPOD's tail probabilities, or a one-class support vector machine. An
    example's score depends on no other example that is scored with it.

    References:
      Morningstar et al., 2021, Density of states estimation for out-of-distribution detection,
      arXiv:2006.09273 (kernel density estimates, support vector machines). Li et al., 2020, COPOD,
      arXiv:2009.09463. Osada et al., 2024 (mixtures).

    Example:
      >>> import likejax as lj
      >>> train, valid, test = (lj.load("digits", split=s) for s in ("train", "validation", "test"))
      >>> histogram = lj.models.PixelHistogram.fit(train)
      >>> features = (lj.ood.Statistics(), lj.ood.CodeLength())
      >>> score = lj.ood.DensityOfStates(features=features).fit(histogram, valid)
      >>> score(test.examples[:5]).shape
      (5,)
    """

    name: ClassVar[str] = "density of states"

    features: tuple[Feature, ...] = (Statistics(),)  # pyright: ignore
    """Features of which ``q`` is the density, numbers or vectors."""
    backend: Backend = "gaussian"
    """Form of ``q``."""
    title: str = ""
    """Title that distinguishes several of these scores in one table."""

    @property
    def label(self) -> str:
        """Name in tables, with the backend."""
        title = self.title or self.name
        return with_draws(f"{title}, {self.backend.replace('_', ' ')}", self._draws)

    @property
    def _draws(self) -> int:
        return max((getattr(feature, "draws", 1) for feature in self.features), default=1)

    def _check_together(self) -> None:
        if not self.features:
            raise ValueError("expected at least one feature of a density of states, got none")

    def check(self, density: Density) -> None:
        """Raises a ValueError if the density does not offer what a feature needs.

        Args:
          density: Density that is scored.
        """
        for feature in self.features:
            feature.check(density)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns all features as one vector per example, ``(n, k)``.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return as_vectors([compute(feature) for feature in self.features])

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns the arrays of ``q``.

        Args:
          statistics: Vectors of inside examples, ``(n, k)``.
        """
        return dict(fit_backend(self.backend, statistics))

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns ``-log q`` of every example.

        Args:
          state: Arrays of ``q``.
          statistics: Vectors, ``(n, 1, k)``.
        """
        return backend_score(self.backend, dict(state), statistics[:, 0])


def likelihood_path(*, backend: Backend = "copod", draws: int = 1) -> DensityOfStates:
    """Returns LPath: a density of states of three numbers of a VAE.

    They are the norm of the reconstruction's error, and the norms of mean and standard deviation of
    the posterior; of a VAE of several latents, of each of them.

    References:
      Huang, He, Singh, Zhang, Lim and Benson, 2024, Rethinking test-time likelihood: the likelihood
      path principle and its application to OOD detection, arXiv:2401.04933.

    Args:
      backend: Form of the density of the three numbers.
      draws: Number of draws per example.

    Example:
      >>> import likejax as lj
      >>> lj.ood.likelihood_path().label
      'likelihood path, copod'
    """
    return DensityOfStates(
        features=(PathNorms(draws=draws),), backend=backend, title="likelihood path"
    )


@dataclasses.dataclass(frozen=True)
class PathNorms(OfDraws):
    """Norms of a VAE's reconstruction error and of the moments of its posteriors.

    Example:
      >>> import likejax as lj
      >>> lj.ood.PathNorms(draws=4)
      PathNorms(draws=4)
    """

    draws: Count = 1
    """Number of draws per example, of which each norm is the mean."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the norms of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example.
        """
        names = path_names(densities["density"])
        return Statistics(names=names, draws=self.draws)(densities, x, keys)


def path_names(density: Density) -> tuple[str, ...]:
    """Returns the names of the norms that ``PathNorms`` takes.

    Args:
      density: A VAE.

    Raises:
      ValueError: If the density has no such numbers.
    """
    wanted = ("reconstruction_error", "posterior_mean_norm", "posterior_std_norm")
    names = tuple(name for name in density.statistic_names if name.startswith(wanted))
    if not names:
        raise ValueError(
            "expected a VAE, whose posteriors have norms, got "
            f"{type(density).__name__}: lj.ood.DensityOfStates() takes what any density offers"
        )
    return names


def check_names(density: Density, names: tuple[str, ...]) -> None:
    """Raises a ValueError if a density does not offer a number of that name.

    Args:
      density: Density that is scored.
      names: Names of ``Density.statistics``.
    """
    offered = density.statistic_names
    for name in names:
        if name not in offered:
            raise ValueError(
                f"expected a number that {type(density).__name__} offers, one of "
                f"{', '.join(offered)}, got {name!r}"
            )


def as_vectors(values: list[Numbers]) -> Float[Any, "n k"]:
    """Returns features as one vector per example.

    Args:
      values: Features ``(n,)`` or ``(n, ...)``.
    """
    columns = [value.reshape(len(value), math.prod(value.shape[1:])) for value in values]
    on_host = all(isinstance(column, np.ndarray) for column in columns)
    return (np if on_host else jnp).concatenate(columns, axis=-1)

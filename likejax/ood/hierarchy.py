"""Likelihood ratio ``LLR^{>k}`` of Havtorn et al. (2021) for hierarchies of latents."""

from __future__ import annotations

import dataclasses
import warnings
from typing import ClassVar, Literal, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from likejax.density import Density, check_density
from likejax.devices import Devices
from likejax.evaluation import check_fit
from likejax.keys import KeyLike
from likejax.ood.checks import Examples, checked_dataset
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    LogProb,
    Numbers,
    OfDraws,
    Values,
    features_of,
    keys_of,
)
from likejax.ood.score import Score, with_draws
from likejax.settings import Count, checked

COLLAPSED = 0.5
"""Divergence from the prior in nats below which a latent is taken to carry no information."""

Replacement = Literal["sample", "mean"]
"""Replacement of latents that are not inferred: draws or means of their conditional priors."""


@runtime_checkable
class Hierarchical(Protocol):
    """A density with a hierarchy of latents: it has these beside the methods of every density.

    ``density.offers("log_prob_above")`` asks for it.

    Attributes:
      depth: Number of latents.

    Example:
      >>> import likejax as lj
      >>> isinstance(lj.models.Uniform((2,)), lj.ood.Hierarchical)
      False
    """

    depth: int

    def log_prob_above(
        self,
        x: ArrayLike,
        k: int | None = None,
        *,
        key: KeyLike | None,
        draws: int = 1,
        replacement: str = "sample",
    ) -> Float[Array, "..."]:
        """Returns the bound with the ``k`` lowest latents from their conditional priors, nats.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          k: Number of latents that are not inferred; ``None`` for all numbers, ``(depth, *batch)``.
          key: Key or keys, as for ``log_prob``.
          draws: Number of draws per example.
          replacement: Replacement of the latents that are not inferred: ``sample`` or ``mean``.
        """
        ...


@dataclasses.dataclass(frozen=True)
class LogProbAbove(OfDraws):
    """Bounds ``L^{>k}`` for every number ``k`` of lowest latents, ``(n, L)`` in nats.

    Example:
      >>> import likejax as lj
      >>> lj.ood.LogProbAbove(draws=10)
      LogProbAbove(draws=10, replacement='mean')
    """

    draws: Count = 1
    """Number of draws per example, combined by the log of their mean."""
    replacement: Replacement = "mean"
    """Replacement of the latents that are not inferred: ``sample`` or ``mean``."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the bounds of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example.
        """
        density = cast(Hierarchical, densities["density"])
        bounds = density.log_prob_above(x, key=keys, draws=self.draws, replacement=self.replacement)
        return bounds.T


@dataclasses.dataclass(frozen=True)
class LatentKL(OfDraws):
    """Divergence of each latent's posterior from its prior, ``(n, L)`` in nats, of one draw.

    Example:
      >>> import likejax as lj
      >>> lj.ood.LatentKL().needs_key({})
      True
    """

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the divergences of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example.
        """
        density = densities["density"]
        parts = density.terms(x, key=keys).parts
        depth = cast(Hierarchical, density).depth
        return _summed([parts[f"kl_{i + 1}"] for i in range(depth)])


@jax.jit
def _summed(parts: list[Array]) -> Numbers:
    """Parts ``(n, *latent)``, each summed over an example, beside each other."""
    return jnp.stack([part.reshape(len(part), -1).sum(1) for part in parts], axis=-1)


@dataclasses.dataclass(frozen=True)
class HierarchyRatio(Score):
    """Score ``s = LLR^{>k} = L - L^{>k}`` in nats, for densities with a hierarchy of latents.

    ``L`` is the bound, ``L^{>k}`` the bound with the ``k`` lowest latents from their conditional
    priors. The ratio is small where the latents above ``k``, which carry what an image is about,
    suffice to generate those below, and large where the image has to correct them. ``log p(x)``
    cancels, and with it what misleads the likelihood. Both bounds see the same noise for the
    latents above ``k``.

    With ``replacement="mean"``, as in the released code, the low latents are the means of their
    conditional priors and ``L^{>k}`` is no bound; with ``"sample"``, as defined in the paper, they
    are drawn.

    References:
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know,
      arXiv:2102.08248.

    Example:
      >>> import likejax as lj
      >>> lj.ood.HierarchyRatio(k=2, draws=10).label
      'hierarchy ratio >2 (10 draws)'
    """

    name: ClassVar[str] = "hierarchy ratio"

    k: Count = 1
    """Number of lowest latents from their conditional priors; see ``choose_k``."""
    draws: Count = 1
    """Number of draws per example for both bounds, each combined by the log of their mean."""
    replacement: Replacement = "mean"
    """Replacement of those latents: ``mean`` or ``sample``."""
    shared_noise: bool = True
    """Same noise for both bounds; otherwise independent draws, as in the released code."""

    @property
    def label(self) -> str:
        """Name in tables, with ``k`` and what differs from the default."""
        how = " by draws" if self.replacement == "sample" else ""
        return with_draws(f"{self.name} >{self.k}{how}", self.draws)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The bounds for all ``k``, and the bound by other draws if noise is not shared."""
        above = LogProbAbove(self.draws, self.replacement)
        return (above,) if self.shared_noise else (above, LogProb(draws=self.draws, stream=1))

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        """Returns the difference of the bounds in nats.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        above = compute(self.features[0])
        bound = above[:, 0] if self.shared_noise else compute(self.features[1])
        return bound - above[:, self.k]

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density has more than ``k`` latents.

        Args:
          density: Density that is scored.
        """
        depth = _depth(density)
        if depth <= self.k:
            raise ValueError(f"expected a VAE of more than k={self.k} latents, got {depth}")

    def check_features(self, compute: Compute) -> None:
        """Warns of every latent above ``k`` that has collapsed.

        Args:
          compute: Function that computes a feature of inside examples.
        """
        divergences = np.asarray(compute(LatentKL())).mean(0)
        above = range(self.k, len(divergences))
        dead = [i for i in above if divergences[i] < COLLAPSED]
        if not dead:
            return
        names = ", ".join(f"latent {i + 1} ({divergences[i]:.2f} nats)" for i in dead)
        rest = "the other latents above k" if len(dead) < len(above) else "no latent at all"
        warnings.warn(
            f"above k={self.k} of {len(divergences)} latents these have collapsed, by their mean "
            f"divergence from the prior: {names}. So {self.label} rests on {rest}. Free nats or a "
            "longer warm-up in training keep latents alive",
            stacklevel=4,
        )


def choose_k(
    density: Density,
    dataset: Examples,
    *,
    key: KeyLike,
    loss: float = 0.05,
    replacement: Replacement = "mean",
    batch_size: int = 128,
    devices: Devices | None = None,
) -> int:
    """Chooses the number of latents to leave out in ``HierarchyRatio``, by inside data alone.

    It is the largest ``k`` for which ``L^{>k}`` is below ``L`` by at most the share ``loss`` of its
    size on inside data: there the latents above still carry what makes an inside image, so that a
    larger gap is a sign of an outside one. It is 1 if there is none. A collapsed latent carries no
    information: a ``k`` with only collapsed latents above it does not count.

    Args:
      density: A VAE of at least two latents.
      dataset: Inside examples, never outside ones, and not those that will calibrate the score.
      key: Key of the draws; example ``i`` uses ``fold_in(key, i)``.
      loss: Share of the bound that may be lost; below 0, the share that must be gained.
      replacement: Replacement of the low latents; see ``HierarchyRatio``.
      batch_size: Number of examples at a time on each device.
      devices: Devices to compute on; all of this process if not given.

    Returns:
      The number of lowest latents, for ``HierarchyRatio(k=...)``.

    Raises:
      TypeError: If there is no density or no dataset where one is due.
      ValueError: If the density is no VAE of at least two latents, or all but the lowest have
        collapsed.

    Example:
      >>> import likejax as lj
      >>> uniform, points = lj.models.Uniform((2,)), [[0.5, 0.5]]
      >>> lj.ood.choose_k(uniform, points, key=0)
      Traceback (most recent call last):
      ValueError: expected a VAE for a ratio of its latents, got Uniform: ...
    """
    loss = checked("loss", loss, float)
    replacement = checked("replacement", replacement, Replacement)
    check_density(density)
    depth = _depth(density)
    if depth < 2:
        raise ValueError(f"expected a VAE of at least two latents, got {depth}")
    data = checked_dataset(dataset, density, "the inside examples")
    check_fit(density, data)
    keys = keys_of(key, (len(data),))
    compute = features_of(
        {"density": density}, data.examples, keys, batch_size=batch_size, devices=devices
    )
    divergences = np.asarray(compute(LatentKL())).mean(0)
    alive = [k for k in range(1, depth) if divergences[k:].max() >= COLLAPSED]
    if not alive:
        raise ValueError(
            "expected a VAE whose upper latents are alive, got divergences from the priors of "
            f"{divergences.round(2)} nats"
        )
    bounds = np.asarray(compute(LogProbAbove(replacement=replacement))).mean(0)
    lost = bounds[0] - bounds
    cheap = [k for k in alive if lost[k] <= loss * abs(bounds[0])]
    return max(cheap, default=1)


def _depth(density: Density) -> int:
    """Returns the number of latents.

    Raises:
      ValueError: If the density has no hierarchy of latents.
    """
    if not density.offers("log_prob_above"):
        name = type(density).__name__
        raise ValueError(
            f"expected a VAE for a ratio of its latents, got {name}: lj.ood.LikelihoodRatio "
            "compares any two densities, and lj.ood.standard(density) lists the scores that apply"
        )
    return cast(Hierarchical, density).depth

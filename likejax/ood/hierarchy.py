"""The likelihood ratio of a hierarchical VAE: what its low latents must add to what its high ones know."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from likejax.data.dataset import Dataset
from likejax.density import Density, check_density
from likejax.evaluation import check_fit
from likejax.keys import KeyLike
from likejax.ood.checks import checked_dataset
from likejax.ood.features import (
    Compute,
    Feature,
    LatentKL,
    LogProb,
    LogProbAbove,
    Values,
    features_of,
    keys_of,
)
from likejax.ood.fitted import FittedScore
from likejax.ood.scores import Score
from likejax.settings import Count, checked

COLLAPSED = 0.5
"""Nats of divergence below which a latent is taken to know nothing."""

Replacement = Literal["sample", "mean"]
"""What stands for latents that are not inferred: draws from their conditional priors, or the means of these."""


@dataclasses.dataclass(frozen=True)
class HierarchyRatio(Score):
    """``s = LLR^{>k} = L - L^{>k}``, nats: the bound minus the bound with the ``k`` lowest latents from their priors.

    Small where the latents above ``k``, which know what an image is about, are enough to draw those below; large where
    the low latents have to be corrected by the image. ``log p(x)`` cancels, and with it what misleads the likelihood.
    Both bounds see the same noise for the latents above ``k``.

    With ``replacement="mean"``, the released code's way, the low latents are the means of their conditional priors and
    ``L^{>k}`` is no bound; with ``"sample"``, as defined in the paper, they are drawn.

    References:
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know, arXiv:2102.08248.
    """

    name: ClassVar[str] = "hierarchy ratio"

    k: Count = 1
    """How many of the lowest latents come from their conditional priors; ``choose_k`` chooses by inside data."""
    draws: Count = 1
    """Draws per example of both bounds, each combined by the log of their mean."""
    replacement: Replacement = "mean"
    """What stands for those latents."""
    shared_noise: bool = True
    """Whether both bounds see the same noise; otherwise independent draws, as in the released code."""

    @property
    def features(self) -> tuple[Feature, ...]:
        above = LogProbAbove(self.draws, self.replacement)
        return (above,) if self.shared_noise else (above, LogProb(draws=self.draws, stream=1))

    def _statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Values:
        above = compute(self.features[0])
        bound = above[:, 0] if self.shared_noise else compute(self.features[1])
        return bound - above[:, self.k]

    @property
    def label(self) -> str:
        return (
            f"{self.name} >{self.k}"
            + (" by draws" if self.replacement == "sample" else "")
            + self._draws_told()
        )

    def densities_of(self, density: Density, dataset: Dataset) -> dict[str, Density]:
        """As ``Score.densities_of``.

        Raises:
          ValueError: If the density is no VAE of more than ``k`` latents.
        """
        depth = _depth(density)
        if depth <= self.k:
            raise ValueError(f"expected a VAE of more than k={self.k} latents, got {depth}")
        return super().densities_of(density, dataset)

    def fit_features(
        self, densities: Mapping[str, Density], compute: Compute, dataset: Dataset
    ) -> FittedScore:
        """As ``Score.fit_features``; warns of every latent above ``k`` that has collapsed."""
        divergences = np.asarray(compute(LatentKL())).mean(0)
        above = range(self.k, len(divergences))
        dead = [i for i in above if divergences[i] < COLLAPSED]
        if dead:
            names = ", ".join(f"latent {i + 1} ({divergences[i]:.2f} nats)" for i in dead)
            rest = "the other latents above k" if len(dead) < len(above) else "no latent at all"
            warnings.warn(
                f"above k={self.k} of {len(divergences)} latents these have collapsed, by their mean divergence from "
                f"the prior: {names}. So {self.label} rests on {rest}. Free nats or a longer warm-up in training keep "
                "latents alive",
                stacklevel=2,
            )
        return super().fit_features(densities, compute, dataset)


def choose_k(
    density: Density,
    dataset: Dataset,
    *,
    key: KeyLike,
    loss: float = 0.05,
    replacement: Replacement = "mean",
    batch_size: int = 128,
) -> int:
    """How many of the lowest latents to leave out, by inside data alone.

    The largest ``k`` for which ``L^{>k}`` is below ``L`` by at most ``loss`` of its size on inside data: the latents
    above still know what makes an inside image, so that a larger gap is a sign of an outside one. 1 if none is. A
    latent that has collapsed knows nothing: a ``k`` with none but collapsed latents above it does not count.

    Args:
      density: A VAE of at least two latents.
      dataset: Inside examples, never outside ones, and not those that the score will be calibrated with.
      key: Key of the draws; example ``i`` uses ``fold_in(key, i)``.
      loss: Part of the bound that may be lost; below 0, part that must be gained.
      replacement: As in ``HierarchyRatio``.
      batch_size: Examples at a time.

    Returns:
      The number of lowest latents, for ``HierarchyRatio(k=...)``.

    Raises:
      TypeError: If there is no density or no dataset where one is due.
      ValueError: If the density is no VAE of at least two latents, or all but the lowest have collapsed.
    """
    loss = checked("loss", loss, float)
    replacement = checked("replacement", replacement, Replacement)
    check_density(density)
    depth = _depth(density)
    if depth < 2:
        raise ValueError(f"expected a VAE of at least two latents, got {depth}")
    dataset = checked_dataset(dataset, density, "the inside examples")
    check_fit(density, dataset)
    keys = keys_of(key, (len(dataset),))
    features = features_of({"density": density}, dataset.examples, keys, batch_size=batch_size)
    divergences = np.asarray(features(LatentKL())).mean(0)
    alive = [k for k in range(1, depth) if divergences[k:].max() >= COLLAPSED]
    if not alive:
        raise ValueError(
            "expected a VAE whose upper latents are alive, got divergences from the priors of "
            f"{divergences.round(2)} nats"
        )
    bounds = np.asarray(features(LogProbAbove(replacement=replacement))).mean(0)
    return max((k for k in alive if bounds[0] - bounds[k] <= loss * abs(bounds[0])), default=1)


def _depth(density: Any) -> int:
    if not hasattr(density, "log_prob_above"):
        raise ValueError(f"expected a VAE for a ratio of its latents, got {type(density).__name__}")
    return density.depth

"""The standard scores for a density."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast, get_args

from likejax.density import Density, check_density, count_parameters
from likejax.models.ensemble import Ensemble
from likejax.ood.baselines import Contrast, MeanIntensity
from likejax.ood.codecs import codecs_for
from likejax.ood.combined import Combined
from likejax.ood.complexity import CodeLength, ComplexityOnly, InputComplexity
from likejax.ood.curvature import Curvature
from likejax.ood.density_of_states import DensityOfStates, Statistics, likelihood_path
from likejax.ood.diffusion_scores import (
    PosteriorSpread,
    diffusion_path,
    intrinsic_dimension,
    multiscale_norms,
)
from likejax.ood.embeddings import NearestNeighbors, WhitenedEmbedding
from likejax.ood.ensembles import EnsembleScore
from likejax.ood.features import Feature
from likejax.ood.gradients import InputGradient, ParameterGradient
from likejax.ood.hierarchy import Hierarchical, HierarchyRatio
from likejax.ood.latent_scores import LastScale, LatentFit, LocalDimension
from likejax.ood.likelihood_scores import LikelihoodRatio, NegativeLogProb, Typicality
from likejax.ood.regret import LikelihoodRegret
from likejax.ood.score import Score
from likejax.ood.tokens import MinK, MinKPlus
from likejax.ood.vectors import Backend
from likejax.settings import Count, checked

_MOST_DIMENSIONS = 128
"""Dimensions up to which the whole Jacobian of a flow is taken for every example."""

_LEAST_SCALE = 0.5
"""Standard deviation of perturbations in levels: that of 8-bit images is 1, of others not less."""


def standard(
    density: Density,
    *,
    draws: int = 1,
    groups: Sequence[int] = (),
    background: Density | None = None,
    early: Density | None = None,
    ensemble: Density | None = None,
) -> list[Score]:
    """Returns every score that applies to a density, by what it offers.

    In this order: the negative log-likelihood and typicality; the ratio to a background; for a
    density with a hierarchy of latents ``HierarchyRatio`` with every ``k``, and for a VAE the
    likelihood path and its regret; Min-K% and Min-K%++ where the density has terms of single
    pixels, and for images the curvature; the density of states with every backend; gradients by the
    parameters, their combination with typicality, those of early weights, and by the input; for a
    flow the last of several scales, the fit of its latents, and up to 128 dimensions their local
    dimension; for a diffusion model the norms of its
    score, the path of an example to the noise, the intrinsic dimension around it and the spread of
    its posteriors; for an ensemble WAIC and the variance of its members; embeddings, where the
    density has one; and for integer images ``InputComplexity`` with the built-in code, PNG and
    WebP, its combinations with the density of states, and what needs no density: the complexity,
    intensity and contrast.

    A table of outside data must not choose ``k``, a backend or a codec, so it shows them all.

    Args:
      density: Density that will be scored.
      draws: Number of draws per example, for every score of log-probabilities.
      groups: Sizes of groups that typicality scores together, besides single examples.
      background: Density for a ``LikelihoodRatio``; ``None`` for no such score.
      early: The same model after little training, for its gradient; ``None`` for no such score.
      ensemble: Ensemble for ``EnsembleScore``; the density itself if it is one.

    Returns:
      Scores for ``benchmark``.

    Example:
      >>> import likejax as lj
      >>> [score.label for score in lj.ood.standard(lj.models.Uniform((2,)), groups=[5])]
      ['negative log-likelihood', 'typicality', 'typicality of 5']
    """
    check_density(density)
    draws = checked("draws", draws, Count)
    scores: list[Score] = [NegativeLogProb(draws=draws), Typicality(draws=draws)]
    if isinstance(groups, int):
        raise TypeError(f"expected groups as a list of sizes, got a number: groups=[{groups}]")
    scores += [Typicality(group=group, draws=draws) for group in groups]
    if background is not None:
        scores.append(LikelihoodRatio(background, draws=draws))
    scores += _of_latent_variables(density, draws)
    scores += _of_pixels(density)
    scores += _of_statistics(density, draws)
    scores += _of_gradients(density, draws, early)
    scores += _of_flows(density, draws)
    scores += _of_diffusions(density)
    members = density if ensemble is None and isinstance(density, Ensemble) else ensemble
    if members is not None:
        quantities = ("waic", "variance")
        scores += [EnsembleScore(members, quantity=each, draws=draws) for each in quantities]
    if density.offers("embed"):
        scores += [WhitenedEmbedding(), NearestNeighbors()]
    if _is_image(density):
        scores += _of_images(density, draws)
    return scores


def _is_image(density: Density) -> bool:
    return density.levels is not None and len(density.event_shape) == 3


def _of_images(density: Density, draws: int) -> Iterator[Score]:
    """Scores of code lengths, and what needs no density."""
    assert density.levels is not None
    codecs = codecs_for(density.levels, channels=density.event_shape[2])
    by_codec = [InputComplexity(draws=draws, codec=codec) for codec in codecs]
    yield from by_codec
    states = next(_of_statistics(density, draws), None)
    if states is not None:
        yield from (Combined(scores=(states, complexity)) for complexity in by_codec)
    yield from (ComplexityOnly(), MeanIntensity(), Contrast())


def _of_latent_variables(density: Density, draws: int) -> Iterator[Score]:
    """Scores of VAEs."""
    if density.offers("log_prob_above"):
        yield from (
            HierarchyRatio(k=k, draws=draws) for k in range(1, cast(Hierarchical, density).depth)
        )
    if density.offers("regret"):
        yield likelihood_path(draws=draws)
        yield LikelihoodRegret()


def _of_pixels(density: Density) -> Iterator[Score]:
    """Scores of the log-probabilities of single pixels or columns, and of small changes of them."""
    if density.offers("log_prob_map"):
        yield MinK()
    if density.offers("token_moments"):
        yield MinKPlus()
    if _is_image(density) and density.differentiable:
        assert density.levels is not None
        yield Curvature(scale=max(_LEAST_SCALE, (density.levels - 1) / 255))


def _of_statistics(density: Density, draws: int) -> Iterator[Score]:
    """The density of states, if there is more to it than one number."""
    features: tuple[Feature, ...] = (Statistics(draws=draws),)
    if _is_image(density):
        features += (CodeLength(),)
    if len(density.statistic_names) + len(features) > 2:
        yield from (DensityOfStates(features, backend) for backend in get_args(Backend))


def _of_gradients(density: Density, draws: int, early: Density | None) -> Iterator[Score]:
    """Scores of gradients, by the input and, if there are any, by the parameters."""
    if count_parameters(density):
        gradient = ParameterGradient()
        yield gradient
        yield Combined(scores=(Typicality(draws=draws), gradient))
    if early is not None:
        yield ParameterGradient(early)
    if density.differentiable:
        yield InputGradient()


def _of_flows(density: Density, draws: int) -> Iterator[Score]:
    """Scores of the latents of a flow."""
    if any(name.startswith("latent_log_prob_") for name in density.statistic_names):
        yield LastScale(draws=draws)
    if density.offers("white_latents"):
        yield LatentFit()
        if math.prod(density.event_shape) <= _MOST_DIMENSIONS:
            yield LocalDimension(draws=draws)


def _of_diffusions(density: Density) -> Iterator[Score]:
    """Scores of what a denoiser sees."""
    if density.offers("diffusion"):
        yield from (multiscale_norms(), diffusion_path(), intrinsic_dimension())
        yield PosteriorSpread()

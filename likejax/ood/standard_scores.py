"""The standard scores for a density."""

from __future__ import annotations

from collections.abc import Sequence

from likejax.density import Density, check_density
from likejax.ood.complexity import ComplexityOnly, InputComplexity
from likejax.ood.hierarchy import Hierarchical, HierarchyRatio
from likejax.ood.likelihood_scores import LikelihoodRatio, NegativeLogProb, Typicality
from likejax.ood.score import Score


def standard(
    density: Density,
    *,
    draws: int = 1,
    groups: Sequence[int] = (),
    background: Density | None = None,
) -> list[Score]:
    """Returns the standard scores for a density, by what it offers.

    They are the negative log-likelihood and typicality; for a density with a hierarchy of latents
    ``HierarchyRatio`` with every ``k``, since a table of outside data must not choose ``k``; and
    for a density of integer images ``InputComplexity`` with its baseline ``ComplexityOnly``.

    Args:
      density: Density that will be scored.
      draws: Number of draws per example, for every score.
      groups: Sizes of groups that typicality scores together, besides single examples.
      background: Density for a ``LikelihoodRatio``; ``None`` for no such score.

    Returns:
      Scores for ``benchmark``.

    Example:
      >>> import likejax as lj
      >>> [score.label for score in lj.ood.standard(lj.models.Uniform((2,)), groups=[5])]
      ['negative log-likelihood', 'typicality', 'typicality of 5']
    """
    check_density(density)
    scores: list[Score] = [NegativeLogProb(draws=draws), Typicality(draws=draws)]
    scores += [Typicality(group=group, draws=draws) for group in groups]
    if background is not None:
        scores.append(LikelihoodRatio(background, draws=draws))
    if isinstance(density, Hierarchical):
        scores += [HierarchyRatio(k=k, draws=draws) for k in range(1, density.depth)]
    is_image = density.levels is not None and len(density.event_shape) == 3
    if is_image:
        scores += [InputComplexity(draws=draws), ComplexityOnly()]
    return scores

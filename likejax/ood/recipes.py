"""All recipes by name, for what is saved."""

from __future__ import annotations

from likejax.ood.hierarchy import HierarchyRatio
from likejax.ood.scores import (
    ComplexityOnly,
    InputComplexity,
    LikelihoodRatio,
    NegativeLogProb,
    Score,
    Typicality,
)

SCORES: dict[str, type[Score]] = {
    score.name: score
    for score in (
        NegativeLogProb,
        Typicality,
        LikelihoodRatio,
        InputComplexity,
        ComplexityOnly,
        HierarchyRatio,
    )
}
"""Name to recipe."""

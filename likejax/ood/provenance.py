"""A test of where a model comes from: does it remember rows in the order of a training run?"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from likejax.ood.metrics import Scores, as_scores
from likejax.settings import Count, CountOrZero, checked

Alternative = Literal["greater", "two_sided"]
"""What a test holds against independence: later rows gain more, or any dependence."""


@dataclasses.dataclass(frozen=True)
class OrderTest:
    """Result of ``order_test``.

    Attributes:
      statistic: Spearman's rank correlation, from -1 to 1.
      p_value: Share of the permutations, the observed order among them, that correlate at least as
        much.
      permutations: Number of permutations.
      n: Number of rows.

    Example:
      >>> from likejax import ood
      >>> print(ood.OrderTest(statistic=0.21, p_value=0.004, permutations=999, n=500))
      rank correlation 0.210, p = 0.004 (n = 500, 999 permutations)
    """

    statistic: float
    p_value: float
    permutations: int
    n: int

    def __str__(self) -> str:
        return (
            f"rank correlation {self.statistic:.3f}, p = {self.p_value:.3g} "
            f"(n = {self.n}, {self.permutations} permutations)"
        )


def order_test(
    differences: Scores,
    order: Scores,
    *,
    permutations: int = 9_999,
    alternative: Alternative = "greater",
    seed: int = 0,
) -> OrderTest:
    """Tests whether a model is independent of the order in which rows were trained on.

    A model remembers best what it saw last, so the log-probabilities of a model that descends from
    a run correlate with the run's order. If the order was drawn at random, that of an independent
    model's does not, whatever the rows are. The statistic is Spearman's correlation ``rho`` of the
    ranks, ties by their mean rank, and ``p = (1 + #{rho_permuted >= rho}) / (1 + permutations)``,
    which is at most ``alpha`` with a probability of at most ``alpha`` if the two are independent.

    The test needs the order of one pass in which each row occurs once: ``lj.train.order_of`` gives
    it. Rows that differ in difficulty add noise, so the difference of the log-probability from that
    under a model of another order, such as an earlier checkpoint, is more powerful.

    Args:
      differences: Log-probabilities of the rows under the model, or their differences from those
        under another model, ``(n,)`` in nats.
      order: Place of each row in training, such as the number of its step, ``(n,)``.
      permutations: Number of random permutations of the order.
      alternative: ``greater`` if later rows are remembered better; ``two_sided`` for a correlation
        of either sign.
      seed: Random seed of the permutations.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If their numbers differ, are below 3, all are equal, or one is NaN.

    References:
      Kuditipudi et al., 2025, Blackbox model provenance via palimpsestic membership inference,
      arXiv:2510.19796.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> rng = np.random.default_rng(0)
      >>> order = rng.permutation(200)
      >>> remembered = 0.01 * order + rng.normal(size=200)
      >>> bool(ood.order_test(remembered, order).p_value < 0.01)
      True
    """
    values, places = _checked_rows(differences, "differences"), _checked_rows(order, "order")
    if len(values) != len(places):
        raise ValueError(
            f"expected a place in the order for each of the {len(values)} differences, got "
            f"{len(places)}"
        )
    permutations = checked("permutations", permutations, Count)
    alternative = checked("alternative", alternative, Alternative)
    rng = np.random.default_rng(checked("seed", seed, CountOrZero))
    first, second = _white_ranks(values), _white_ranks(places)
    observed = float(first @ second)
    permuted = np.array([first @ rng.permutation(second) for _ in range(permutations)])
    if alternative == "two_sided":
        reached = abs(permuted) >= abs(observed) - _ROUNDING
    else:
        reached = permuted >= observed - _ROUNDING
    p_value = (1 + int(reached.sum())) / (1 + permutations)
    return OrderTest(observed, p_value, permutations, len(values))


_ROUNDING = 1e-12
"""Difference of two correlations that counts as none, against the test."""


def _checked_rows(values: Scores, name: str) -> Float[np.ndarray, " n"]:
    """Returns the numbers of all rows in float64."""
    array = as_scores(values, name)
    if array.ndim != 1 or len(array) < 3:
        raise ValueError(f"expected {name} of at least 3 rows, (n,), got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"expected {name} without NaN, {int(np.isnan(array).sum())} are")
    if (array == array[0]).all():
        raise ValueError(f"expected {name} that differ between rows, all are {array[0]:g}")
    return array


def _white_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns ranks with mean 0 and length 1, whose product is Spearman's correlation."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    centered = ranks - ranks.mean()
    return centered / np.linalg.norm(centered)

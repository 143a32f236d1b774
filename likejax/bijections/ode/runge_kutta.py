"""Explicit Runge-Kutta methods by name: those of diffrax, and the classical one.

The methods loop over their stages, so a compiled solve holds the field once and not once for every
stage. The price is that the gradient of the loop evaluates every stage once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import diffrax
import numpy as np


class RK4(diffrax.AbstractERK):
    """The classical method of order four, which has no error estimate: its steps are given.

    References:
      Hairer, Norsett and Wanner, 1993, Solving ordinary differential equations I, section II.1.
    """

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        c=np.array([0.5, 0.5, 1.0]),
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
    )
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms: object) -> int:
        """Returns the order of the global error."""
        del terms
        return 4


METHODS: dict[str, type[diffrax.AbstractERK]] = {
    "midpoint": diffrax.Midpoint,
    "rk4": RK4,
    "bosh3": diffrax.Bosh3,
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
}
"""Methods by the names of their settings."""


def evaluations(method: diffrax.AbstractERK) -> tuple[int, int]:
    """Evaluations of the field at the start of a solve and in each step, accepted or not."""
    tableau = method.tableau
    assert isinstance(tableau, diffrax.ButcherTableau)
    reused = int(tableau.fsal)
    return reused, tableau.num_stages - reused

"""A linear map of vectors by its triangular factors."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, LogDet, check_last_axis
from likejax.nn.product import product
from likejax.settings import Count, checked

Vector = Float[Array, " d"]

MINIMUM_DIAGONAL = 1e-3
"""Smallest entry of the diagonal, as in the official code."""

# an invertible map in reduced precision is no longer inverted by its inverse
_EXACT = "highest"


class LULinear(Bijection):
    """``z = L U x + bias`` with ``log_det = sum(log diag U)``; the identity at the start.

    ``L`` is unit lower triangular, ``U`` upper triangular with the diagonal
    ``softplus(r) + 0.001``. A ``Permutation`` before it makes up for the order that both prefer.

    Args:
      dimensions: Number of features.

    References:
      Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows, arXiv:1906.04032,
      official code. Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.2.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> lj.bijections.LULinear(3).forward(jnp.arange(3.0))[0].round(5).tolist()
      [0.0, 1.0, 2.0]
    """

    def __init__(self, dimensions: int):
        self.dimensions = checked("dimensions", dimensions, Count)
        entries = dimensions * (dimensions - 1) // 2
        unit = math.log(math.expm1(1 - MINIMUM_DIAGONAL))  # softplus(unit) + 0.001 = 1
        self.lower = nnx.Param(jnp.zeros(entries))
        self.upper = nnx.Param(jnp.zeros(entries))
        self.diagonal = nnx.Param(jnp.full(dimensions, unit))
        self.bias = nnx.Param(jnp.zeros(dimensions))

    @override
    def forward(
        self, x: Vector, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        check_last_axis(x, self.dimensions, "LULinear")
        lower, upper, diagonal = self._factors()
        # One factor after the other: their product would cost the cube of the features
        times_upper = product(x, upper.T, precision=_EXACT)
        z = product(times_upper, lower.T, precision=_EXACT) + self.bias[...]
        return z, jnp.sum(jnp.log(diagonal))

    @override
    def inverse(self, z: Vector, condition: Array | None = None) -> Vector:
        """Maps a latent back to its example."""
        solve = jax.scipy.linalg.solve_triangular
        lower, upper, _ = self._factors()
        without_lower = solve(lower, z - self.bias[...], lower=True, unit_diagonal=True)
        return solve(upper, without_lower)

    def _factors(self) -> tuple[Array, Array, Array]:
        """Returns ``L``, ``U`` and the diagonal of ``U``."""
        diagonal = jax.nn.softplus(self.diagonal[...]) + MINIMUM_DIAGONAL
        identity = jnp.eye(self.dimensions, dtype=diagonal.dtype)
        below = np.tril_indices(self.dimensions, -1)
        above = np.triu_indices(self.dimensions, 1)
        lower = identity.at[below].set(self.lower[...], mode="promise_in_bounds")
        upper = jnp.diag(diagonal).at[above].set(self.upper[...], mode="promise_in_bounds")
        return lower, upper, diagonal

"""Settings of a continuous flow: of its ODE solves, and of the trace of its Jacobian."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.settings import Count, CountOrOff, NonNegative, Settings

Method = Literal["dopri5", "tsit5", "dopri8", "bosh3", "rk4", "midpoint"]
"""Explicit Runge-Kutta methods."""
_ADAPTIVE = ("dopri5", "tsit5", "dopri8", "bosh3")
"""Methods that estimate the error of a step."""


@dataclasses.dataclass(frozen=True)
class Solver(Settings):
    """Settings of an ODE solve and of its gradient.

    Raises:
      ValueError: If the settings contradict each other.

    References:
      Chen, Rubanova, Bettencourt and Duvenaud, 2018, Neural ordinary differential equations,
      arXiv:1806.07366 (the continuous adjoint).

    Example:
      >>> import likejax as lj
      >>> lj.bijections.Solver("rk4", steps=10).steps
      10
    """

    method: Method = "dopri5"
    """Runge-Kutta method; rk4 and midpoint have no error estimate and need steps."""
    rtol: NonNegative = 1e-5
    """Error allowed in a step relative to the state."""
    atol: NonNegative = 1e-5
    """Error allowed in a step in absolute terms."""
    steps: CountOrOff = None
    """Number of steps of equal length; ``None`` lets the error choose the steps."""
    max_steps: Count = 1_000
    """Largest number of steps, accepted or rejected; a solve that needs more fails."""
    adjoint: Literal["checkpointed", "continuous"] = "checkpointed"
    """Gradient of the steps taken, from checkpoints, or by solving the adjoint equation."""

    def _check_together(self):
        if self.steps is not None and self.max_steps < self.steps:
            raise ValueError(
                f"expected steps <= max_steps, got steps={self.steps}, max_steps={self.max_steps}"
            )
        if self.steps is None and self.method not in _ADAPTIVE:
            raise ValueError(
                f"{self.method} has no error estimate: set steps, "
                f"or choose one of {', '.join(_ADAPTIVE)}"
            )
        if self.steps is None and self.rtol + self.atol <= 0:
            raise ValueError(
                "expected rtol or atol above 0 for steps that the error chooses, got 0 for both"
            )


@dataclasses.dataclass(frozen=True)
class Trace(Settings):
    """Settings of the trace of the Jacobian ``J = df/dz``.

    Without probes the trace is exact. With probes it is Hutchinson's estimate, the mean of
    ``e^T J e`` over random vectors ``e``. Each example has its own, drawn once per solve.

    References:
      Hutchinson, 1990, A stochastic estimator of the trace of the influence matrix.
      Grathwohl et al., 2019, FFJORD, arXiv:1810.01367, section 3.1.

    Example:
      >>> import jax, likejax as lj
      >>> lj.bijections.Trace(probes=2).draw(jax.random.key(0), (3,)).shape
      (2, 3)
    """

    probes: CountOrOff = None
    """Number of random vectors per example and solve; ``None`` for the exact trace."""
    noise: Literal["rademacher", "gaussian"] = "rademacher"
    """Distribution of the entries of the probes."""
    product: Literal["jvp", "vjp"] = "jvp"
    """Mode of the products with the Jacobian, forward or reverse; the values are the same."""

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "probes ..."]:
        """Draws the probes of one example of that shape.

        Args:
          key: Random key of the example.
          shape: Shape of the example.

        Returns:
          Array ``(probes, *shape)`` of independent entries with mean 0 and variance 1.
        """
        count = self.probes or 0  # the exact trace draws none
        draw = jax.random.rademacher if self.noise == "rademacher" else jax.random.normal
        vectors = draw(key, (count, math.prod(shape)), jnp.result_type(float))
        return vectors.reshape(count, *shape)

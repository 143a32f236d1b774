"""Explicit Runge-Kutta methods for diffrax with their stages written out.

diffrax's own solvers loop over the stages, and the gradient of that loop evaluates every stage
once more. Written out, a step is one straight program: it takes half as long again to compile, and
trains faster where the field is wide. On two quiet cores the gradient at MINIBOONE's sizes took
171 and 172 ms with these methods, 233 and 219 ms with diffrax's; ``benchmarks/ode_steps.py``
compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

Time = Array | float | int


class Tableau(NamedTuple):
    """Butcher's coefficients of an explicit method."""

    times: tuple[float, ...]
    """Time of each stage, as a fraction of the step."""
    stages: tuple[tuple[float, ...], ...]
    """Weights of the earlier stages in each stage."""
    solution: tuple[float, ...]
    """Weights of the stages in the result."""
    error: tuple[float, ...]
    """Weights of the stages in the error estimate; empty for a method without one."""
    order: int
    reuses_last: bool = False
    """Whether the last stage is the first of the next step (FSAL)."""


def _of_diffrax(solver: Any, order: int) -> Tableau:
    tableau = solver.tableau
    stages = ((), *(tuple(map(float, row)) for row in tableau.a_lower))
    solution, error = (tuple(map(float, weights)) for weights in (tableau.b_sol, tableau.b_error))
    return Tableau(
        (0.0, *map(float, tableau.c)), stages, solution, error, order, bool(tableau.fsal)
    )


TABLEAUS: dict[str, Tableau] = {
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), (), 2),
    "rk4": Tableau(
        (0.0, 0.5, 0.5, 1.0),
        ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
        (),
        4,
    ),
    "bosh3": _of_diffrax(diffrax.Bosh3, 3),
    "tsit5": _of_diffrax(diffrax.Tsit5, 5),
    "dopri5": _of_diffrax(diffrax.Dopri5, 5),
    "dopri8": _of_diffrax(diffrax.Dopri8, 8),
}
"""Method name to its coefficients."""


class RungeKutta(diffrax.AbstractAdaptiveSolver):
    """The explicit Runge-Kutta method of a name.

    Attributes:
      method: Name of the method, a key of ``TABLEAUS``.

    References:
      Hairer, Norsett and Wanner, 1993, Solving ordinary differential equations I, section II.1.
    """

    method: str

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    @property
    def tableau(self) -> Tableau:
        """Coefficients of the method."""
        return TABLEAUS[self.method]

    @property
    def evaluations(self) -> tuple[int, int]:
        """Evaluations of the field at the start of a solve and in each step, accepted or not."""
        reused = int(self.tableau.reuses_last)
        return reused, len(self.tableau.times) - reused

    def order(self, terms: diffrax.AbstractTerm) -> int:
        """Returns the order of the global error.

        Args:
          terms: Field, on which the order does not depend.
        """
        return self.tableau.order

    def init(
        self, terms: diffrax.AbstractTerm, t0: Time, t1: Time, y0: PyTree, args: PyTree
    ) -> Any:
        """Evaluates what the first step reuses.

        Args:
          terms: Field.
          t0: Start of the first step.
          t1: End of the first step.
          y0: State at the start.
          args: Arguments of the field.

        Returns:
          The velocity at the start if the method reuses its last stage, else ``None``.
        """
        return terms.vf(t0, y0, args) if self.tableau.reuses_last else None

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Time,
        t1: Time,
        y0: PyTree,
        args: PyTree,
        solver_state: PyTree,
        made_jump: object,
    ) -> Any:
        """Makes one step from ``t0`` to ``t1``, with its error estimate.

        Args:
          terms: Field.
          t0: Start of the step.
          t1: End of the step.
          y0: State at the start.
          args: Arguments of the field.
          solver_state: Velocity at the start, if the step before has computed it.
          made_jump: Flag of fields that jump, of which there are none here.

        Returns:
          The state at the end, its error estimate (``None`` for a method without one), both states
          for interpolation, the velocity that the next step reuses (``None`` if it reuses none),
          and diffrax's mark of success.
        """
        tableau = self.tableau
        # the step is signed: a solve backward in time is one forward under a reflected term
        control = terms.contr(t0, t1)
        slopes = []
        for number, (time, weights) in enumerate(zip(tableau.times, tableau.stages, strict=True)):
            if number == 0 and solver_state is not None:
                slopes.append(solver_state)
                continue
            y = _advance(terms, y0, slopes, weights, control)
            at = t1 if time == 1.0 else t0 + time * (t1 - t0)
            slopes.append(terms.vf(at, y, args))
        y1 = _advance(terms, y0, slopes, tableau.solution, control)
        error = None
        if tableau.error:
            error = terms.prod(_combine(slopes, tableau.error), control)
        state = slopes[-1] if tableau.reuses_last else None
        return y1, error, {"y0": y0, "y1": y1}, state, diffrax.RESULTS.successful

    def func(self, terms: diffrax.AbstractTerm, t0: Time, y0: PyTree, args: PyTree) -> Any:
        """Evaluates the field.

        Args:
          terms: Field.
          t0: Time.
          y0: State.
          args: Arguments of the field.

        Returns:
          The velocity, of the structure of ``y0``.
        """
        return terms.vf(t0, y0, args)


def _combine(slopes: Sequence[Any], weights: Sequence[float]) -> Any:
    """``sum_i weights_i slopes_i``, leaf by leaf."""
    used = [(weight, slope) for weight, slope in zip(weights, slopes, strict=False) if weight]
    scaled = [jax.tree.map(lambda leaf, w=weight: w * leaf, slope) for weight, slope in used]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *scaled)


def _advance(
    terms: diffrax.AbstractTerm,
    y0: PyTree,
    slopes: Sequence[Any],
    weights: Sequence[float],
    control: PyTree,
) -> Any:
    if not any(weights):
        return y0
    return jax.tree.map(jnp.add, y0, terms.prod(_combine(slopes, weights), control))

"""Continuous flows: the solution of an ordinary differential equation as an invertible map."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, DTypeLike, Float, PyTree
from typing_extensions import override

from likejax.bijections.bijection import Bijection, Parts, check_not_batched
from likejax.bijections.ode.field import AugmentedState, augmented_field, error_norm
from likejax.bijections.ode.settings import Solver, Trace
from likejax.nn.condition import as_vector
from likejax.nn.modules import Buffer, replace
from likejax.settings import Positive, checked

_FIRST_STEP = 0.05
"""First step of an adaptive solve, as a fraction of the interval; the controller corrects it."""


@runtime_checkable
class ConditionalField(Protocol):
    """Dynamics that depend on a condition.

    ``given(condition)`` returns ``f(t, z)``, an ``nnx.Module``. It gets labels ``(*batch,)`` or
    floats ``(*batch, size)``, with the leading axes of the states that ``f`` is called with.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> class Drift(nnx.Module):
      ...     def __init__(self, speed):
      ...         self.speed = nnx.data(speed)
      ...     def __call__(self, t, z):
      ...         return self.speed + 0 * z
      >>> class Drifts(nnx.Module):
      ...     def __call__(self, t, z):
      ...         raise ValueError("expected a condition")
      ...     def given(self, condition):
      ...         return Drift(condition)
      >>> ode = lj.bijections.ODE(Drifts(), solver=lj.bijections.Solver("rk4", steps=1))
      >>> ode.forward(jnp.zeros(2), condition=jnp.array([1.0, 3.0]))[0].tolist()
      [1.0, 3.0]
    """

    def given(self, condition: Array) -> nnx.Module:
        """Returns the dynamics for given conditions.

        Args:
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)``.

        Returns:
          A module ``f(t, z)`` from a time and states ``(*batch, *event)`` to velocities.
        """
        ...


def field_given(dynamics: nnx.Module, condition: Array | None) -> nnx.Module:
    """Returns dynamics for given conditions; those that depend on none as they are.

    Args:
      dynamics: ``f(t, z)``, or a ``ConditionalField``.
      condition: Labels ``(*batch,)`` or floats ``(*batch, size)``, if there are any.
    """
    if condition is None or not isinstance(dynamics, ConditionalField):
        return dynamics
    return dynamics.given(condition)


class ODE(Bijection):
    """``z = x + integral_0^T f(t, z(t)) dt`` with ``log_det = integral_0^T tr(df/dz) dt``.

    ``forward`` and ``inverse`` solve every example by itself with ``solver``, so no value depends
    on batch-mates. ``terms``, for training, solves with ``training_solver``, and under
    ``jax.vmap`` it is one solve of the whole batch whose steps all examples share: the gradient of
    separate solves would keep a gradient of all parameters per example. A solve that does not
    reach its end within ``max_steps`` gives NaN.

    Args:
      dynamics: ``f(t, z)`` on any leading batch shape, or a ``ConditionalField``, whose method
        ``given(condition)`` returns it; what it computes there is computed once for each solve.
      end_time: ``T``; its square root is stored.
      learn_end_time: Whether ``T`` is learned.
      trace: Trace of ``forward``; by default exact.
      training_trace: Trace of ``terms``; by default that of ``forward``.
      solver: Solver of ``forward`` and ``inverse``.
      training_solver: Solver of ``terms``; by default that of ``forward``.

    Raises:
      TypeError: If the dynamics cannot be called.
      ValueError: If ``end_time`` is not positive.

    References:
      Chen, Rubanova, Bettencourt and Duvenaud, 2018, Neural ordinary differential equations,
      arXiv:1806.07366. Grathwohl et al., 2019, FFJORD, arXiv:1810.01367. Finlay et al., 2020, How
      to train your neural ODE, arXiv:2002.02798 (the two energies).

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> class Decay(nnx.Module):
      ...     def __call__(self, t, z):
      ...         return -z
      >>> ode = lj.bijections.ODE(Decay(), solver=lj.bijections.Solver("rk4", steps=4))
      >>> z, log_det = ode.forward(jnp.ones(2))
      >>> round(float(log_det), 4)
      -2.0
    """

    def __init__(
        self,
        dynamics: nnx.Module,
        *,
        end_time: float = 1.0,
        learn_end_time: bool = True,
        trace: Trace | None = None,
        training_trace: Trace | None = None,
        solver: Solver | None = None,
        training_solver: Solver | None = None,
    ):
        end_time = checked("end_time", end_time, Positive)
        if not callable(dynamics):
            raise TypeError(f"expected dynamics f(t, z), got {type(dynamics).__name__}")
        trace = checked("trace", trace, Trace | None)
        training_trace = checked("training_trace", training_trace, Trace | None)
        solver = checked("solver", solver, Solver | None)
        training_solver = checked("training_solver", training_solver, Solver | None)
        self.dynamics = dynamics
        root = jnp.asarray(math.sqrt(end_time))
        self.sqrt_end_time = nnx.data(nnx.Param(root) if learn_end_time else Buffer(root))
        self.trace = trace or Trace()
        self.training_trace = training_trace or self.trace
        self.solver = solver or Solver()
        self.training_solver = training_solver or self.solver

    @property
    @override
    def estimates(self) -> bool:  # type: ignore[override]
        """Whether the log-determinant is an estimate that needs a key."""
        return self.trace.probes is not None

    @override
    def forward(
        self, x: Float[Array, "*shape"], key: Array | None = None, condition: Array | None = None
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        """Solves the equation from one example to its latent, with ``solver``."""
        if self.trace.probes is None:
            return self.forward_with_probes(x, None, condition)
        if key is None:
            # without a key there is nothing to estimate with, and encoding needs no log-determinant
            z = self._carry(x, condition)
            return z, jnp.full((), jnp.nan, _accumulation_dtype(x))
        return self.forward_with_probes(x, self.trace.draw(key, x.shape), condition)

    def forward_with_probes(
        self,
        x: Float[Array, "*shape"],
        probes: Float[Array, "probes ..."] | None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        """Maps one example with given probes; without any, with the exact trace.

        Args:
          x: One example.
          probes: Probes ``(probes, *shape)`` of ``Trace.draw``; ``None`` for the exact trace.
          condition: Label, or floats of any shape, if the dynamics depend on them.

        Returns:
          The latent, and ``log |det dz/dx|`` or its estimate in nats, a scalar.
        """
        start = AugmentedState(x, jnp.zeros((), _accumulation_dtype(x)))
        ode = self.given(_vector(condition))
        final, _ = solve(ode, start, self.solver, trace=self.trace, probes=probes)
        assert final.log_det is not None
        return final.z, final.log_det

    @override
    def inverse(
        self, z: Float[Array, "*shape"], condition: Array | None = None
    ) -> Float[Array, "*shape"]:
        """Solves the equation backward in time, with ``solver``."""
        return self._carry(z, condition, start=1.0, end=0.0)

    def terms(
        self, x: Float[Array, "*shape"], key: Array | None = None, condition: Array | None = None
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""], Parts]:
        """Maps one example for training; under ``jax.vmap``, the batch in one solve.

        Args:
          x: One example.
          key: Random key of the probes; not needed if ``training_trace`` is exact.
          condition: Label, or floats of any shape, if the dynamics depend on them.

        Returns:
          The latent, the log-determinant, and the parts ``kinetic_energy`` and ``jacobian_norm``
          (see ``AugmentedState``), which do not change the steps, and ``evaluations``, the number
          of evaluations of ``f`` in the solve.

        Raises:
          ValueError: If the trace is estimated and there is no key, or if the parameters of the ODE
            have a batch axis.
        """
        if self.training_trace.probes is None:
            return self.terms_with_probes(x, None, condition)
        if key is None:
            raise ValueError("training with a stochastic trace needs a key: pass key= to terms")
        return self.terms_with_probes(x, self.training_trace.draw(key, x.shape), condition)

    def terms_with_probes(
        self,
        x: Float[Array, "*shape"],
        probes: Float[Array, "probes ..."] | None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""], Parts]:
        """Maps one example for training with given probes; without any, with the exact trace.

        Args:
          x: One example.
          probes: Probes ``(probes, *shape)`` of ``Trace.draw``; ``None`` for the exact trace.
          condition: Label, or floats of any shape, if the dynamics depend on them.

        Returns:
          The latent, the log-determinant and the parts, as ``terms`` returns them.
        """
        return _training_map(self, x, probes, _vector(condition))

    @override
    def dry_run(self, x: Array, key: Array, condition: Array | None) -> Array:
        """Checks that the dynamics return the shape of the state."""
        velocity = self.given(_vector(condition)).velocity(0.0, x)
        if jnp.shape(velocity) != x.shape:
            raise ValueError(
                f"expected dynamics that return the shape of the state, got {jnp.shape(velocity)}"
            )
        return x

    def path(
        self,
        x: Float[Array, "*shape"],
        times: Float[np.ndarray, " times"],
        condition: Array | None = None,
    ) -> Float[Array, "times ..."]:
        """Returns the state at rising ``times``, fractions of ``T`` from 0 (data) to 1 (latent).

        Args:
          x: One example, the state at time 0.
          times: Fractions of ``T``, none smaller than the one before it.
          condition: Label, or floats of any shape, if the dynamics depend on them.

        Returns:
          States ``(times, *shape)``.
        """
        states, before, z = [], 0.0, x
        for time in times:
            if time != before:
                z = self._carry(z, condition, start=before, end=float(time))
                before = float(time)
            states.append(z)
        return jnp.stack(states)

    def velocity(self, time: ArrayLike, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes ``dz/ds = T f(s T, z)`` at the fraction ``s = time`` of the end time.

        Args:
          time: Fraction ``s`` of the end time, from 0 to 1.
          z: States ``(*batch, *event)``.

        Returns:
          Velocities of the shape of ``z``.
        """
        end_time = self.end_time()
        return end_time * self.dynamics(time * end_time, z)  # type: ignore[operator]

    def end_time(self) -> Float[Array, ""]:
        """Returns ``T``."""
        return jnp.square(self.sqrt_end_time[...])

    def given(self, condition: Array | None) -> ODE:
        """Returns the ODE for given conditions, which needs none any more.

        Args:
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)``, if there are any.
        """
        dynamics = field_given(self.dynamics, condition)
        if dynamics is self.dynamics:
            return self
        # NNX lets only that trace of JAX change a module in which it was put together
        of_this_trace = jax.tree.map(lambda leaf: leaf, self)
        return replace(of_this_trace, dynamics=dynamics)

    def _carry(
        self, z: Array, condition: Array | None, *, start: float = 0.0, end: float = 1.0
    ) -> Array:
        """Moves a state along the field without its log-determinant."""
        ode = self.given(_vector(condition))
        return solve(ode, AugmentedState(z), self.solver, start=start, end=end)[0].z


def _vector(condition: Array | None) -> Array | None:
    """One condition as a field takes it."""
    return None if condition is None else as_vector(condition)


@jax.custom_batching.custom_vmap
def _training_map(
    ode: ODE, x: Array, probes: Array | None, condition: Array | None
) -> tuple[Array, Array, Parts]:
    """The training map of one example, a batch of one."""
    batch_of_probes = None if probes is None else probes[:, None]
    batch_of_conditions = None if condition is None else condition[None]
    mapped = _training_map_of_batch(ode, x[None], batch_of_probes, batch_of_conditions)
    return jax.tree.map(lambda leaf: leaf[0], mapped)


@_training_map.def_vmap
def _vectorized_training_map(
    size: int,
    is_batched: list[Any],
    ode: ODE,
    x: Array,
    probes: Array | None,
    condition: Array | None,
) -> tuple[tuple[Array, Array, Parts], Any]:
    """The training map under ``jax.vmap``: one solve of the batch."""
    ode_is_batched, x_is_batched, probes_are_batched, conditions_are_batched = is_batched
    check_not_batched(ode_is_batched, "ODE")
    if not x_is_batched:
        x = jnp.broadcast_to(x, (size, *x.shape))
    if probes is not None:
        # from (batch, probes, *event) to (probes, batch, *event)
        probes = (
            jnp.moveaxis(probes, 0, 1)
            if probes_are_batched
            else jnp.broadcast_to(probes[:, None], (len(probes), size, *probes.shape[1:]))
        )
    if condition is not None and not conditions_are_batched:
        condition = jnp.broadcast_to(condition, (size, *condition.shape))
    mapped = _training_map_of_batch(ode, x, probes, condition)
    return mapped, jax.tree.map(lambda leaf: True, mapped)


def _training_map_of_batch(
    ode: ODE,
    x: Float[Array, "batch ..."],
    probes: Float[Array, "probes batch ..."] | None,
    condition: Array | None,
) -> tuple[Float[Array, "batch ..."], Float[Array, " batch"], Parts]:
    zero = jnp.zeros(len(x), _accumulation_dtype(x))
    start = AugmentedState(x, zero, zero, zero)
    # only here are the conditions bound to the field, which then has arrays with a batch axis
    final, evaluations = solve(
        ode.given(condition), start, ode.training_solver, trace=ode.training_trace, probes=probes
    )
    parts = {
        "kinetic_energy": final.kinetic_energy,
        "jacobian_norm": final.jacobian_norm,
        "evaluations": jnp.broadcast_to(evaluations.astype(zero.dtype), zero.shape),
    }
    return final.z, final.log_det, parts  # type: ignore[return-value]


def solve(
    ode: ODE,
    state: AugmentedState,
    solver: Solver,
    *,
    trace: Trace | None = None,
    probes: Array | None = None,
    start: float = 0.0,
    end: float = 1.0,
) -> tuple[AugmentedState, Array]:
    """Solves an ODE for an augmented state.

    Time runs over [0, 1] and the field is multiplied by ``T``, so a learned ``T`` has a gradient by
    every adjoint.

    Args:
      ode: Field and end time.
      state: State at the start; what is ``None`` in it is not computed.
      solver: Settings of the solve.
      trace: Settings of the trace; by default exact.
      probes: Probes ``(probes, *batch, *event)``; ``None`` for the exact trace.
      start: Time to start from, in [0, 1].
      end: Time to solve to, in [0, 1].

    Returns:
      The state at the end, NaN if the solver did not get there, and the number of evaluations of
      the field.
    """
    import diffrax

    from likejax.bijections.ode.runge_kutta import RungeKutta

    fixed_probes = None if probes is None else jax.lax.stop_gradient(probes)
    method = RungeKutta(solver.method)
    stepping = _stepping(solver, start, end)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_field(trace or Trace())),
        method,
        start,
        end,
        stepping.first,
        state,
        args=(ode, fixed_probes),  # not by closure, which the continuous adjoint refuses
        stepsize_controller=stepping.controller,
        adjoint=stepping.adjoint,
        max_steps=stepping.limit,
        throw=False,
    )
    assert solution.ys is not None
    arrived = solution.result == diffrax.RESULTS.successful
    final = jax.tree.map(lambda leaf: jnp.where(arrived, leaf[0], jnp.nan), solution.ys)
    at_start, per_step = method.evaluations
    return final, at_start + per_step * solution.stats["num_steps"]


@functools.cache
def _field(settings: Trace) -> Callable[..., AugmentedState]:
    """Returns the field of augmented states: one function for all solves, flows and calls.

    Stages, their derivatives and flows of one form share what is traced once.
    """

    @jax.jit
    def field(
        time: ArrayLike, state: AugmentedState, args: tuple[ODE, Array | None]
    ) -> AugmentedState:
        ode, probes = args
        return augmented_field(
            lambda z: ode.velocity(time, z),
            state,
            trace=settings,
            probes=probes,
            end_time=ode.end_time(),
        )

    return field


class _Stepping(NamedTuple):
    """The arguments of diffrax about the steps of a solve."""

    controller: Any
    adjoint: Any
    first: float | None
    limit: int


def _stepping(solver: Solver, start: float, end: float) -> _Stepping:
    if solver.steps is None:
        return _chosen_steps(solver, start, end)
    return _equal_steps(solver, solver.steps, start, end)


def _equal_steps(solver: Solver, steps: int, start: float, end: float) -> _Stepping:
    import diffrax

    count = max(1, math.ceil(steps * abs(end - start) - 1e-6))
    times = np.linspace(start, end, count + 1)
    # one checkpoint per step: there are few enough to keep them all
    adjoint = _adjoint(solver, backward=diffrax.StepTo(ts=times[::-1]), checkpoints=count)
    return _Stepping(diffrax.StepTo(ts=times), adjoint, None, count + 1)


def _chosen_steps(solver: Solver, start: float, end: float) -> _Stepping:
    import diffrax

    controller = diffrax.PIDController(rtol=solver.rtol, atol=solver.atol, norm=_norm)
    backward = diffrax.PIDController(
        rtol=solver.rtol, atol=solver.atol, norm=diffrax.adjoint_rms_seminorm
    )
    length = end - start
    first = math.copysign(min(_FIRST_STEP, abs(length)), length)
    adjoint = _adjoint(solver, backward=backward, checkpoints=None)
    return _Stepping(controller, adjoint, first, solver.max_steps)


def _adjoint(solver: Solver, *, backward: object, checkpoints: int | None) -> Any:
    import diffrax

    if solver.adjoint == "continuous":
        return diffrax.BacksolveAdjoint(stepsize_controller=backward)
    return diffrax.RecursiveCheckpointAdjoint(checkpoints=checkpoints)


def _norm(error: PyTree) -> Array:
    return error_norm(error)


def _accumulation_dtype(x: Array) -> DTypeLike:
    """The type that log-determinants and energies add up in: float32 or better."""
    return jnp.promote_types(x.dtype, jnp.float32)

"""Continuous flows: the solution of an ordinary differential equation as an invertible map."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from likejax.bijections.bijection import Bijection, Parts
from likejax.nn.modules import Buffer, replace
from likejax.settings import Count, CountOrZero, NonNegative, Positive, Settings, checked

Method = Literal["dopri5", "tsit5", "dopri8", "bosh3", "rk4", "midpoint"]
_ADAPTIVE = ("dopri5", "tsit5", "dopri8", "bosh3")
_FIRST_STEP = 0.05
"""Of an adaptive solve, as a part of the whole; the controller corrects it at once."""


@dataclasses.dataclass(frozen=True)
class Solver(Settings):
    """How an ODE is solved, and how its gradient is found.

    Raises:
      ValueError: If the settings contradict each other.
    """

    method: Method = "dopri5"
    """Runge-Kutta method; rk4 and midpoint have no error estimate and need steps."""
    rtol: NonNegative = 1e-5
    """Error allowed in a step relative to the state."""
    atol: NonNegative = 1e-5
    """Error allowed in a step in absolute terms."""
    steps: CountOrZero = 0
    """So many steps of equal length; 0 for steps chosen by the error."""
    max_steps: Count = 1_000
    """Most steps, taken or rejected; a solve that needs more fails."""
    adjoint: Literal["checkpointed", "continuous"] = "checkpointed"
    """Gradient: of the steps taken, from checkpoints; or by solving the adjoint equation backwards (Chen et al.)."""

    def _check_together(self):
        if self.max_steps < self.steps:
            raise ValueError(
                f"expected steps <= max_steps, got steps={self.steps}, max_steps={self.max_steps}"
            )
        if not self.steps and self.method not in _ADAPTIVE:
            raise ValueError(
                f"{self.method} has no error estimate: set steps, or choose one of {', '.join(_ADAPTIVE)}"
            )
        if not self.steps and self.rtol + self.atol <= 0:
            raise ValueError(
                "expected rtol or atol above 0 for steps that the error chooses, got 0 for both"
            )


@dataclasses.dataclass(frozen=True)
class Trace(Settings):
    """How the trace of the Jacobian ``J = df/dz`` is found.

    With probes it is Hutchinson's estimate, the mean of ``e^T J e`` over ``probes`` random ``e``; each example has its
    own, drawn once per solve.

    References:
      Hutchinson, 1990, A stochastic estimator of the trace of the influence matrix. Grathwohl et al., 2019, FFJORD,
      arXiv:1810.01367, section 3.1.
    """

    probes: CountOrZero = 0
    """Random vectors per example and solve; 0 for the exact trace, as many products as there are dimensions."""
    noise: Literal["rademacher", "gaussian"] = "rademacher"
    """Distribution of the probes' entries."""
    product: Literal["jvp", "vjp"] = "jvp"
    """Products with the Jacobian in forward or reverse mode; the values are the same."""

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "probes ..."]:
        """The probes of one example of that shape."""
        size = (self.probes, math.prod(shape))
        draw = jax.random.rademacher if self.noise == "rademacher" else jax.random.normal
        return draw(key, size, jnp.zeros(()).dtype).reshape(self.probes, *shape)


class Flight(NamedTuple):
    """What a solve carries: the state, and integrals along its path, each of the batch shape.

    Attributes:
      z: State.
      log_det: ``integral of tr(df/dz)``, nats.
      kinetic_energy: ``integral of |f|^2 / (2 D)``.
      jacobian_norm: ``integral of |df/dz|_F^2 / D``, or its estimate from the probes.
    """

    z: Array
    log_det: Array | None = None
    kinetic_energy: Array | None = None
    jacobian_norm: Array | None = None


class ODE(Bijection):
    """``z = x + integral_0^T f(t, z(t)) dt`` with ``log_det = integral_0^T tr(df/dz) dt``.

    ``forward`` and ``inverse`` solve every example by itself with ``solver``, so no value depends on batch-mates;
    ``forward_jointly``, for training, makes one solve of the batch with ``training_solver``, whose steps all examples
    share: a gradient of separate solves would keep a gradient of all parameters per example. A solve that does not
    reach its end within ``max_steps`` gives NaN.

    Args:
      dynamics: ``f(t, z)`` on any leading batch shape.
      end_time: ``T``; kept as its root.
      learn_end_time: Whether ``T`` is learned.
      trace: Of ``forward``.
      training_trace: Of ``forward_jointly``.
      solver: Of ``forward`` and ``inverse``.
      training_solver: Of ``forward_jointly``.

    Raises:
      ValueError: If ``end_time`` is not positive.

    References:
      Chen, Rubanova, Bettencourt and Duvenaud, 2018, Neural ordinary differential equations, arXiv:1806.07366.
      Grathwohl et al., 2019, FFJORD, arXiv:1810.01367. Finlay et al., 2020, How to train your neural ODE,
      arXiv:2002.02798 (the two energies).
    """

    joint = True

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
        trace, training_trace = (
            checked("trace", each, Trace | None) for each in (trace, training_trace)
        )
        solver, training_solver = (
            checked("solver", each, Solver | None) for each in (solver, training_solver)
        )
        self.dynamics = dynamics
        root = jnp.asarray(math.sqrt(end_time))
        self.sqrt_end_time = nnx.data(nnx.Param(root) if learn_end_time else Buffer(root))
        self.trace = trace or Trace()
        self.training_trace = training_trace or self.trace
        self.solver = solver or Solver()
        self.training_solver = training_solver or self.solver

    @property
    def estimates(self) -> bool:  # type: ignore[override]
        return self.trace.probes > 0

    def forward(
        self, x: Float[Array, "*shape"], key: Array | None = None, condition: Array | None = None
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        probes = None
        if self.trace.probes:
            if (
                key is None
            ):  # without one there is nothing to estimate with; encoding needs no log-determinant
                return self._carry(Flight(x), self.solver).z, jnp.full((), jnp.nan, _wide(x))
            probes = self.trace.draw(key, x.shape)
        return self.forward_with(x, probes)

    def forward_with(
        self, x: Float[Array, "*shape"], probes: Float[Array, "probes ..."] | None
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        """``forward`` with these probes; without any, with the exact trace."""
        flight = self._carry(Flight(x, jnp.zeros((), _wide(x))), self.solver, self.trace, probes)
        assert flight.log_det is not None
        return flight.z, flight.log_det

    def inverse(
        self, z: Float[Array, "*shape"], condition: Array | None = None
    ) -> Float[Array, "*shape"]:
        return self._carry(Flight(z), self.solver, start=1.0, end=0.0).z

    def forward_jointly(
        self,
        x: Float[Array, "batch ..."],
        keys: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "batch ..."], Float[Array, " batch"], Parts]:
        """As ``forward`` for a batch in one solve, with the parts that an objective may weight.

        Parts: ``kinetic_energy`` and ``jacobian_norm`` (see ``Flight``), which have no say in the steps, and
        ``evaluations``, those of ``f`` in this solve.
        """
        probes = None
        if self.training_trace.probes:
            if keys is None:
                raise ValueError("training with a stochastic trace needs a key: pass key= to terms")
            probes = jnp.moveaxis(
                jax.vmap(lambda key: self.training_trace.draw(key, x.shape[1:]))(keys), 1, 0
            )
        return self.forward_jointly_with(x, probes)

    def forward_jointly_with(
        self, x: Float[Array, "batch ..."], probes: Float[Array, "probes batch ..."] | None
    ) -> tuple[Float[Array, "batch ..."], Float[Array, " batch"], Parts]:
        """``forward_jointly`` with these probes; without any, with the exact trace."""
        zero = jnp.zeros(len(x), _wide(x))
        start = Flight(x, zero, zero, zero)
        flight, evaluations = self._solve(start, self.training_solver, self.training_trace, probes)
        parts = {
            "kinetic_energy": flight.kinetic_energy,
            "jacobian_norm": flight.jacobian_norm,
            "evaluations": jnp.broadcast_to(evaluations.astype(zero.dtype), zero.shape),
        }
        assert flight.log_det is not None
        return flight.z, flight.log_det, parts  # type: ignore[return-value]

    def path(
        self, x: Float[Array, "*shape"], times: Float[np.ndarray, " times"]
    ) -> Float[Array, "times ..."]:
        """The state at ``times``, parts of ``T`` from 0 (data) to 1 (latent), rising."""
        pieces, before, z = [], 0.0, x
        for time in times:
            z = (
                z
                if time == before
                else self._carry(Flight(z), self.solver, start=before, end=float(time)).z
            )
            before = float(time)
            pieces.append(z)
        return jnp.stack(pieces)

    def velocity(self, time: ArrayLike, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """``dz/ds = T f(s T, z)`` at the part ``s = time`` of the end time."""
        end_time = jnp.square(self.sqrt_end_time[...])
        return end_time * self.dynamics(time * end_time, z)  # type: ignore[operator]

    def _carry(self, *args: Any, **options: Any) -> Flight:
        return self._solve(*args, **options)[0]

    def _solve(
        self,
        start_from: Flight,
        solver: Solver,
        trace: Trace | None = None,
        probes: Array | None = None,
        *,
        start: float = 0.0,
        end: float = 1.0,
    ) -> tuple[Flight, Array]:
        """The flight at the end, and evaluations of the field; NaN if the solver did not get there.

        The time runs over [0, 1] and the field is multiplied by ``T``, so a learned ``T`` has a gradient by every
        adjoint.
        """
        import diffrax

        from likejax.bijections.ode.runge_kutta import RungeKutta

        method = RungeKutta(solver.method)
        count = 0 if start_from.log_det is None else start_from.log_det.ndim
        field = _Field(trace or Trace(), count)
        fixed = None if probes is None else jax.lax.stop_gradient(probes)
        stepping = _stepping(solver, start, end)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda time, flight, ode: field(time, flight, ode, fixed)),
            method,
            start,
            end,
            stepping.first,
            start_from,
            args=self,
            stepsize_controller=stepping.controller,
            adjoint=stepping.adjoint,
            max_steps=stepping.most,
            throw=False,
        )
        arrived = solution.result == diffrax.RESULTS.successful
        assert solution.ys is not None
        flight = jax.tree.map(lambda leaf: jnp.where(arrived, leaf[0], jnp.nan), solution.ys)
        at_start, per_step = method.evaluations
        return flight, at_start + per_step * solution.stats["num_steps"]


class _Stepping(NamedTuple):
    """What diffrax is told of the steps of a solve."""

    controller: Any
    adjoint: Any
    first: float | None
    most: int


def _stepping(solver: Solver, start: float, end: float) -> _Stepping:
    import diffrax

    if solver.steps:
        most = max(1, math.ceil(solver.steps * abs(end - start) - 1e-6))
        times = np.linspace(start, end, most + 1)
        controller: Any = diffrax.StepTo(ts=times)
        backward: Any = diffrax.StepTo(ts=times[::-1])
        first, checkpoints, most = None, most, most + 1  # a checkpoint a step: few enough to keep
    else:
        tolerances: dict[str, Any] = {"rtol": solver.rtol, "atol": solver.atol}
        controller = diffrax.PIDController(**tolerances, norm=_state_norm)
        backward = diffrax.PIDController(**tolerances, norm=diffrax.adjoint_rms_seminorm)
        first, most = (
            math.copysign(min(_FIRST_STEP, abs(end - start)), end - start),
            solver.max_steps,
        )
        checkpoints = None
    if solver.adjoint == "continuous":
        return _Stepping(
            controller, diffrax.BacksolveAdjoint(stepsize_controller=backward), first, most
        )
    return _Stepping(
        controller, diffrax.RecursiveCheckpointAdjoint(checkpoints=checkpoints), first, most
    )


class _Field(NamedTuple):
    """The derivative of a ``Flight``."""

    trace: Trace
    batch_axes: int

    def __call__(self, time: Any, flight: Flight, ode: ODE, probes: Array | None) -> Flight:
        z = flight.z
        if flight.log_det is None:
            return Flight(ode.velocity(time, z))
        event = tuple(range(self.batch_axes, z.ndim))
        size = math.prod(z.shape[self.batch_axes :])
        exact = probes is None
        directions = _basis(z, self.batch_axes) if exact else probes
        velocity, products = _products(
            self.trace.product, lambda z: ode.velocity(time, z), z, directions
        )
        shifted = tuple(axis + 1 for axis in event)
        wide = flight.log_det.dtype
        along = jnp.sum((products * directions).astype(wide), shifted)  # e^T J e
        collect = jnp.sum if exact else jnp.mean
        log_det = collect(along, axis=0)
        if flight.kinetic_energy is None:
            return Flight(velocity, log_det)
        # with T f for velocity in [0, 1]: the integral over [0, T] of |f|^2 is that over [0, 1] of |T f|^2 / T
        end_time = jnp.square(ode.sqrt_end_time[...])
        kinetic_energy = jnp.sum(jnp.square(velocity).astype(wide), event) / (2 * size * end_time)
        squares = jnp.sum(jnp.square(products).astype(wide), shifted)
        return Flight(
            velocity, log_det, kinetic_energy, collect(squares, axis=0) / (size * end_time)
        )


def _basis(z: Array, batch_axes: int) -> Array:
    """The unit vectors of the event, ``(D, *batch, *event)``."""
    event = z.shape[batch_axes:]
    size = math.prod(event)
    units = jnp.eye(size, dtype=z.dtype).reshape(size, *(1,) * batch_axes, *event)
    return jnp.broadcast_to(units, (size, *z.shape))


def _products(
    kind: str, field: Callable[[Array], Array], z: Array, directions: Array
) -> tuple[Array, Array]:
    """``f(z)``, and ``J e`` (or ``e^T J``) for each of the directions."""
    if kind == "jvp":
        one = lambda direction: jax.jvp(field, (z,), (direction,))  # noqa: E731
        if len(directions) == 1:
            velocity, product = one(directions[0])
            return velocity, product[None]
        return jax.vmap(one, out_axes=(None, 0))(directions)
    velocity, pull = jax.vjp(field, z)
    if len(directions) == 1:
        return velocity, pull(directions[0])[0][None]
    return velocity, jax.vmap(lambda direction: pull(direction)[0])(directions)


def _state_norm(error: Any) -> Array:
    """Root mean square over state and log-determinant; the energies have no say."""
    if isinstance(error, Flight):
        error = (error.z, error.log_det)
    leaves = [leaf for leaf in jax.tree.leaves(error) if leaf is not None]
    total = sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)
    return _safe_sqrt(total / sum(leaf.size for leaf in leaves))  # type: ignore[operator]


def _safe_sqrt(x: Any) -> Array:
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def _wide(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def check_continuous(module: Any) -> None:
    """Raises a TypeError unless there is an ``ODE`` in a bijection or a density."""
    nodes = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, ODE))
    if not any(isinstance(node, ODE) for node in nodes):
        raise TypeError(f"expected a continuous flow, {type(module).__name__} solves no ODE")


def with_solver(
    module: Any,
    *,
    trace: Trace | None = None,
    training_trace: Trace | None = None,
    solver: Solver | None = None,
    training_solver: Solver | None = None,
) -> Any:
    """``module`` with the solvers and traces of every ``ODE`` in it replaced by those given; its config follows.

    Args:
      module: A bijection or a density.
      trace: How ``log_prob`` finds traces.
      training_trace: How ``terms`` does.
      solver: Of ``log_prob``, ``sample``, ``encode`` and ``decode``.
      training_solver: Of ``terms``.

    Raises:
      TypeError: If there is no ``ODE`` in ``module``, or a setting is of another type.

    Example:
      >>> import likejax as lj
      >>> density = lj.build(lj.models.FFJORDConfig(hidden=(8,)), key=0)
      >>> lj.models.with_solver(density, trace=lj.bijections.Trace(probes=1)).kind
      <Kind.ESTIMATE: 'estimate'>
    """
    check_continuous(module)
    given = {
        "trace": trace,
        "training_trace": training_trace,
        "solver": solver,
        "training_solver": training_solver,
    }
    kinds = {"trace": Trace, "training_trace": Trace, "solver": Solver, "training_solver": Solver}
    changes: dict[str, Any] = {
        name: checked(name, value, kinds[name])
        for name, value in given.items()
        if value is not None
    }

    def change(node: Any) -> Any:
        return replace(node, **changes) if isinstance(node, ODE) else node

    changed = jax.tree.map(change, module, is_leaf=lambda node: isinstance(node, ODE))
    config = getattr(module, "config", None)
    return (
        changed
        if config is None
        else replace(changed, config=dataclasses.replace(config, **changes))
    )

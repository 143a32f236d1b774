"""Guard against steps whose loss or gradient is not finite, or whose gradient explodes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from likejax.experiment import Guard


class NonFiniteError(FloatingPointError):
    """Error of a run: too many steps in a row were skipped, or a validation is not finite.

    Example:
      >>> import likejax as lj
      >>> def overflows(density, batch, key, step):
      ...     loss, metrics = lj.NLL()(density, batch, key, step)
      ...     return loss * float("inf"), metrics
      >>> model = lj.models.VectorGlowConfig(depth=1, width=4)
      >>> experiment = lj.Experiment(model=model, objective=overflows, batch_size=24)
      >>> try:
      ...     lj.fit(experiment, lj.load("moons"), key=0)
      ... except lj.train.NonFiniteError as error:
      ...     print(str(error).partition(":")[0])
      step 10
    """


class GuardState(NamedTuple):
    """Memory of the guard.

    Attributes:
      log_norm: Running mean of the log of gradient norms, the reference.
      seen: Steps that went into it.
      in_a_row: Steps skipped since the last one that was taken.
      skipped: Steps skipped in all.
    """

    log_norm: Float[Array, ""]
    seen: Int[Array, ""]
    in_a_row: Int[Array, ""]
    skipped: Int[Array, ""]


_MEMORY = 0.95
_GROWTH = 2.0


def begin() -> GuardState:
    """Returns the memory of a guard before the first step."""
    return GuardState(jnp.zeros((), jnp.float32), *(jnp.zeros((), jnp.int32) for _ in range(3)))


def update(
    guard: Guard, state: GuardState, finite: Bool[Array, ""], norm: Float[Array, ""]
) -> tuple[Bool[Array, ""], GuardState]:
    """Returns whether to take a step, and the guard's memory after it.

    Args:
      guard: The rule.
      state: Memory of the guard.
      finite: Whether loss, terms and gradient are finite.
      norm: Norm of the gradient.
    """
    log_norm = jnp.log(jnp.maximum(jnp.where(finite, norm, 1.0), 1e-30))
    spike = jnp.zeros((), bool)
    if guard.spike_factor is not None:
        spike = (
            finite
            & (state.seen >= guard.after)
            & (log_norm > state.log_norm + jnp.log(guard.spike_factor))
        )
    # the plain mean at first, a moving average later; a spike counts as twice the reference
    rate = jnp.maximum(1 / (state.seen.astype(jnp.float32) + 1.0), 1 - _MEMORY)
    moved = jnp.where(
        spike,
        state.log_norm + jnp.log(_GROWTH),
        state.log_norm + rate * (log_norm - state.log_norm),
    )
    taken = finite & ~spike
    counts = finite & (norm > 0)  # a gradient of zero says nothing of the others
    skipped = (~taken).astype(jnp.int32)
    return taken, GuardState(
        log_norm=jnp.where(counts, moved, state.log_norm),
        seen=state.seen + counts.astype(jnp.int32),
        in_a_row=(state.in_a_row + 1) * skipped,
        skipped=state.skipped + skipped,
    )

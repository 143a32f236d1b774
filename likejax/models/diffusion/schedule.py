"""Noise schedules: the course of ``gamma`` over time, fixed or learned, always rising."""

from __future__ import annotations

import abc
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float
from typing_extensions import override

from likejax.nn.channels import per_channel
from likejax.nn.initial import normal_weights
from likejax.settings import checked

ScheduleName = Literal["fixed", "learned_linear", "learned_network", "importance"]
"""Names of the schedules of a config."""

_HIDDEN = 1024
"""Hidden units of the learned monotone network, in the paper and in the official code."""


class Schedule(nnx.Module, abc.ABC):
    """``gamma(t)`` for times from 0, the data, to 1, the noise.

    In continuous time the bound depends on the end points alone; the course between them changes
    the variance of its estimate, and the bound of a process of finitely many steps.
    """

    @abc.abstractmethod
    def __call__(self, t: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Computes ``gamma`` at times in [0, 1].

        Args:
          t: Times.
        """

    def with_rate(self, t: Float[Array, "*batch"]) -> tuple[Array, Array]:
        """``gamma`` at times, and its derivative by time.

        Args:
          t: Times.
        """
        return jax.jvp(self, (t,), (jnp.ones_like(t),))


class FixedSchedule(Schedule):
    """``gamma(t) = start + (end - start) t``, not learned.

    Args:
      start: ``gamma`` of the data.
      end: ``gamma`` of the noise.

    Raises:
      ValueError: If ``end`` is not above ``start``.

    Example:
      >>> from likejax.models.diffusion.schedule import FixedSchedule
      >>> float(FixedSchedule(-13.0, 5.0)(0.5))
      -4.0
    """

    def __init__(self, start: float, end: float):
        self.start, self.end = _checked_ends(start, end)

    @override
    def __call__(self, t: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Computes ``gamma`` at times in [0, 1]."""
        return self.start + (self.end - self.start) * jnp.asarray(t, jnp.result_type(float))


class LinearSchedule(Schedule):
    """``gamma(t) = b + |w| t`` with learned ``b`` and ``w``.

    Args:
      start: ``gamma`` of the data at the start of training.
      end: ``gamma`` of the noise at the start of training.

    Raises:
      ValueError: If ``end`` is not above ``start``.
    """

    def __init__(self, start: float, end: float):
        start, end = _checked_ends(start, end)
        self.offset = nnx.Param(jnp.asarray(start))
        self.slope = nnx.Param(jnp.asarray(end - start))

    @override
    def __call__(self, t: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Computes ``gamma`` at times in [0, 1]."""
        return self.offset[...] + jnp.abs(self.slope[...]) * jnp.asarray(t)


class MonotoneSchedule(Schedule):
    """A learned monotone network of one input, a line plus sigmoids.

    ``gamma(t) = b_1 + |w_1| t + sum_j |c_j| (2 sigmoid(|w_j| (2 t - 1) + b_j) - 1) / H`` with ``H``
    hidden units.

    Args:
      start: ``gamma`` of the data at the start of training, nearly.
      end: ``gamma`` of the noise at the start of training, nearly.
      rngs: Source of the weights.

    Raises:
      ValueError: If ``end`` is not above ``start``.

    References:
      Kingma et al., 2021, Variational diffusion models, arXiv:2107.00630, appendix H, and its
      official code.
    """

    def __init__(self, start: float, end: float, *, rngs: nnx.Rngs):
        start, end = _checked_ends(start, end)
        self.offset = nnx.Param(jnp.asarray(start))
        self.slope = nnx.Param(jnp.asarray(end - start))
        self.inner = nnx.Param(normal_weights(rngs.params(), (_HIDDEN,), scale=0.01))
        self.inner_bias = nnx.Param(jnp.zeros(_HIDDEN))
        self.outer = nnx.Param(normal_weights(rngs.params(), (_HIDDEN,), scale=0.01))

    @override
    def __call__(self, t: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Computes ``gamma`` at times in [0, 1]."""
        t = jnp.asarray(t)
        line = self.offset[...] + jnp.abs(self.slope[...]) * t
        centered = 2 * t[..., None] - 1
        weights = (jnp.abs(self.inner[...]), self.inner_bias[...], jnp.abs(self.outer[...]))
        inner, inner_bias, outer = (per_channel(weight, centered) for weight in weights)
        hidden = jax.nn.sigmoid(inner * centered + inner_bias)
        return line + jnp.sum(outer * (2 * hidden - 1), -1) / _HIDDEN


class ImportanceSchedule(Schedule):
    """Times that are uniform draw ``gamma`` with a density proportional to ``alpha^2``.

    ``gamma(t) = -log(exp(-Z t) (1 + exp(-start)) - 1)`` with
    ``Z = log((1 + exp(-start)) / (1 + exp(-end)))``. Its derivative is ``Z / alpha^2``, so every
    time has the same weight on the error of a velocity.

    Args:
      start: ``gamma`` of the data.
      end: ``gamma`` of the noise; in single precision at most 8, or the end is lost to rounding.

    Raises:
      ValueError: If ``end`` is not above ``start``, or above 8.

    References:
      Zheng, Lu, Chen and Zhu, 2023, Improved techniques for maximum likelihood estimation for
      diffusion ODEs, arXiv:2305.03935, section 4.2.

    Example:
      >>> from likejax.models.diffusion.schedule import ImportanceSchedule
      >>> [round(float(ImportanceSchedule(-13.3, 5.0)(t)), 3) for t in (0.0, 1.0)]
      [-13.3, 5.0]
    """

    def __init__(self, start: float, end: float):
        self.start, self.end = _checked_ends(start, end)
        if self.end > 8:
            raise ValueError(f"expected an end of at most 8 for importance sampling, got {end}")

    @override
    def __call__(self, t: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Computes ``gamma`` at times in [0, 1]."""
        log_total = jnp.logaddexp(0.0, -jnp.asarray(self.start, jnp.result_type(float)))
        span = log_total - jnp.logaddexp(0.0, -jnp.asarray(self.end, log_total.dtype))
        # exp(log_total - span t) - 1, which is exp(-gamma)
        return -jnp.log(jnp.expm1(log_total - span * jnp.asarray(t)))


def make_schedule(name: ScheduleName, start: float, end: float, *, rngs: nnx.Rngs) -> Schedule:
    """Makes the schedule of a name.

    Args:
      name: Name of the schedule.
      start: ``gamma`` of the data.
      end: ``gamma`` of the noise.
      rngs: Source of the weights.
    """
    if name == "fixed":
        return FixedSchedule(start, end)
    if name == "learned_linear":
        return LinearSchedule(start, end)
    if name == "importance":
        return ImportanceSchedule(start, end)
    return MonotoneSchedule(start, end, rngs=rngs)


def _checked_ends(start: float, end: float) -> tuple[float, float]:
    start, end = checked("start", start, float), checked("end", end, float)
    if not start < end:
        raise ValueError(f"expected a gamma that rises, got {start} at the start and {end} at last")
    return float(start), float(end)

"""From an optimizer's config to an optax transformation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from likejax.experiment import Optimizer
from likejax.nn.repeat import stacked_axes
from likejax.records import Recorded


def schedule(optimizer: Optimizer, steps: int) -> optax.Schedule:
    """Returns the learning rate by step: linear warm-up, then the decay, which ends at ``steps``.

    Args:
      optimizer: Settings; their own schedule is returned as it is.
      steps: Number of steps of the run.
    """
    if optimizer.schedule is not None:
        return optimizer.schedule
    rate, warmup = optimizer.learning_rate, optimizer.warmup_steps
    left = max(1, steps - warmup)
    after = {
        "constant": lambda: optax.constant_schedule(rate),
        "cosine": lambda: optax.cosine_decay_schedule(rate, left),
        "linear": lambda: optax.linear_schedule(rate, 0.0, left),
        "exponential": lambda: optax.exponential_decay(rate, 1, optimizer.decay_rate),
    }[optimizer.decay]()
    if not warmup:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(rate / warmup, rate, warmup), after], [warmup]
    )


def rate_that_jumps(
    optimizer: Optimizer, *, planned: int, steps: int, done: int
) -> tuple[float, float] | None:
    """Learning rates at a step under two plans, if a decaying schedule jumps between them.

    Args:
      optimizer: Its settings.
      planned: Steps that the run was planned for.
      steps: Steps that are asked for now.
      done: Steps done.

    Returns:
      The rate of the old plan and of the new one, or ``None`` if they differ by less than a
      hundredth of the peak.
    """
    before, now = (float(np.asarray(schedule(optimizer, plan)(done))) for plan in (planned, steps))
    return None if abs(now - before) < 0.01 * optimizer.learning_rate else (before, now)


def build_optimizer(
    optimizer: Optimizer | optax.GradientTransformation | Recorded, steps: int
) -> optax.GradientTransformation:
    """Returns the update rule with its schedule, after clipping; one of optax as it is.

    ``adamax`` is the textbook rule; the official Glow code has a factor ``sqrt(1 - b2^t)`` more,
    which reaches 1 within its warm-up.

    Args:
      optimizer: Settings, or a transformation of optax.
      steps: Number of steps of the run, which the schedule needs.

    Raises:
      ValueError: If only the name of a transformation is known, from the record of a run.
    """
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    if isinstance(optimizer, Recorded):
        return optimizer()  # raises: only its name is known
    rate = schedule(optimizer, steps)
    mask = _matrices if optimizer.decay_mask == "matrices" else None
    b1, b2, eps, eps_root = optimizer.b1, optimizer.b2, optimizer.eps, optimizer.eps_root
    rule = {
        "adam": lambda: optax.adam(rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root),
        "adamw": lambda: optax.adamw(
            rate,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            weight_decay=optimizer.weight_decay,
            mask=mask,
        ),
        "adamax": lambda: optax.adamax(rate, b1=b1, b2=b2, eps=eps),
    }[optimizer.name]()
    before = []
    if optimizer.weight_decay and optimizer.name != "adamw":
        before.append(optax.add_decayed_weights(optimizer.weight_decay, mask))
    if optimizer.clip_adaptive is not None:
        before.append(_clip_adaptively(optimizer.clip_adaptive))
    if optimizer.clip_norm is not None:
        before.append(optax.clip_by_global_norm(optimizer.clip_norm))
    return optax.chain(*before, rule) if before else rule


def _matrices(params: Mapping[str, Any]) -> dict[str, bool]:
    """Which arrays have two or more axes; the depth of a stack is no axis of a weight."""
    return {name: leaf.ndim - stacked_axes(name) > 1 for name, leaf in params.items()}


def _clip_adaptively(limit: float) -> optax.GradientTransformation:
    """The adaptive clipping of optax, applied to each block of a stack by itself.

    References:
      Brock, De, Smith and Simonyan, 2021, High-performance large-scale image recognition without
      normalization, arXiv:2102.06171.
    """
    rule = optax.adaptive_grad_clip(limit)

    def update(gradient: Any, state: Any, params: Mapping[str, Any]) -> tuple[Any, Any]:
        clipped = {}
        for name, leaf in gradient.items():
            clip = lambda g, p: rule.update(g, optax.EmptyState(), p)[0]  # noqa: E731
            for _ in range(stacked_axes(name)):
                clip = jax.vmap(clip)
            clipped[name] = clip(leaf, params[name])
        return clipped, state

    return optax.GradientTransformation(rule.init, update)  # type: ignore[arg-type]

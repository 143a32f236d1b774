"""From an optimiser's config to an optax transformation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from likejax.experiment import Optimiser, Recorded
from likejax.nn.depth import stacked_axes


def schedule(optimiser: Optimiser, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then what ``decay`` says, to end at ``steps``."""
    rate, warmup = optimiser.learning_rate, optimiser.warmup_steps
    left = max(1, steps - warmup)
    after = {
        "constant": lambda: optax.constant_schedule(rate),
        "cosine": lambda: optax.cosine_decay_schedule(rate, left),
        "linear": lambda: optax.linear_schedule(rate, 0.0, left),
        "exponential": lambda: optax.exponential_decay(rate, 1, optimiser.decay_rate),
    }[optimiser.decay]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(rate / warmup, rate, warmup), after], [warmup])


def rate_that_jumps(optimiser: Optimiser, *, planned: int, steps: int, done: int) -> tuple[float, float] | None:
    """Learning rates at a step under two plans, if a decaying schedule jumps between them.

    Args:
      optimiser: Its settings.
      planned: Steps that the run was planned for.
      steps: Steps that are asked for now.
      done: Steps done.

    Returns:
      The rate of the old plan and of the new one, or ``None`` if they differ by less than a hundredth of the peak.
    """
    before, now = (float(np.asarray(schedule(optimiser, plan)(done))) for plan in (planned, steps))
    return None if abs(now - before) < 0.01 * optimiser.learning_rate else (before, now)


def build_optimiser(
    optimiser: Optimiser | optax.GradientTransformation | Recorded, steps: int
) -> optax.GradientTransformation:
    """The update rule with its schedule, after clipping; a transformation of optax is taken as it is.

    ``adamax`` is the textbook rule; the official Glow code has a factor ``sqrt(1 - b2^t)`` more, which reaches 1
    within its warm-up.
    """
    if isinstance(optimiser, optax.GradientTransformation):
        return optimiser
    if isinstance(optimiser, Recorded):
        return optimiser()  # raises: only its name is known
    rate = schedule(optimiser, steps)
    b1, b2, eps, eps_root = optimiser.b1, optimiser.b2, optimiser.eps, optimiser.eps_root
    rule = {
        "adam": lambda: optax.adam(rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root),
        "adamw": lambda: optax.adamw(
            rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, weight_decay=optimiser.weight_decay
        ),
        "adamax": lambda: optax.adamax(rate, b1=b1, b2=b2, eps=eps),
    }[optimiser.name]()
    before = []
    if optimiser.weight_decay and optimiser.name != "adamw":
        before.append(optax.add_decayed_weights(optimiser.weight_decay))
    if optimiser.clip_adaptive:
        before.append(_clip_adaptively(optimiser.clip_adaptive))
    if optimiser.clip_norm:
        before.append(optax.clip_by_global_norm(optimiser.clip_norm))
    return optax.chain(*before, rule) if before else rule


def _clip_adaptively(limit: float) -> optax.GradientTransformation:
    """optax's adaptive clipping, applied to each block of a stack by itself: the depth is no axis of a weight.

    References:
      Brock, De, Smith and Simonyan, 2021, High-performance large-scale image recognition without normalization,
      arXiv:2102.06171.
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

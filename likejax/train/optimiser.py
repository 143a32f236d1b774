"""From an optimiser's config to an optax transformation."""

from __future__ import annotations

import optax

from likejax.experiment import Optimiser


def schedule(optimiser: Optimiser, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant or half a cosine to zero at ``steps``."""
    rate, warmup = optimiser.learning_rate, optimiser.warmup_steps
    if optimiser.decay == "cosine":
        after = optax.cosine_decay_schedule(rate, max(1, steps - warmup))
    else:
        after = optax.constant_schedule(rate)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(rate / warmup, rate, warmup), after], [warmup])


def build_optimiser(optimiser: Optimiser, steps: int) -> optax.GradientTransformation:
    """The update rule with its schedule, after clipping.

    ``adamax`` is the textbook rule; the official Glow code has a factor ``sqrt(1 - b2^t)`` more, which reaches 1
    within its warm-up.
    """
    rate = schedule(optimiser, steps)
    b1, b2, eps = optimiser.b1, optimiser.b2, optimiser.eps
    rule = {
        "adam": lambda: optax.adam(rate, b1=b1, b2=b2, eps=eps),
        "adamw": lambda: optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=optimiser.weight_decay),
        "adamax": lambda: optax.adamax(rate, b1=b1, b2=b2, eps=eps),
    }[optimiser.name]()
    return optax.chain(optax.clip_by_global_norm(optimiser.clip_norm), rule) if optimiser.clip_norm else rule

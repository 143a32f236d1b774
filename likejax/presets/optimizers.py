"""Optimizer settings that small presets of several families share."""

from __future__ import annotations

from likejax.experiment import Optimizer

SMALL = Optimizer(
    name="adam", learning_rate=2e-3, b2=0.99, warmup_steps=100, decay="cosine", clip_norm=50.0
)
"""Adam with a cosine schedule, for trainings of minutes on two CPU cores."""

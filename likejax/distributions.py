"""Log-density functions, one per formula; nats, elementwise, no state."""

from __future__ import annotations

import math

from jaxtyping import Array, Float


def standard_normal_log_prob(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``log N(x; 0, 1) = -(x^2 + log 2 pi) / 2``, elementwise."""
    return -0.5 * (x * x + math.log(2 * math.pi))

"""Fixed elementwise maps: shift and scale, and the logit."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from likejax.bijections.bijection import Bijection
from likejax.inputs import as_array
from likejax.nn.modules import Buffer
from likejax.settings import Range, checked


class Affine(Bijection):
    """``z = (x - location) / scale`` with fixed location and scale; ``log_det = -sum(log |scale|)``.

    Args:
      location: Scalar or array that broadcasts to the event by its last axes.
      scale: Non-zero, likewise.

    Raises:
      TypeError: If they are no numbers.
      ValueError: If a number is not finite, or a scale is zero.
    """

    def __init__(self, location: ArrayLike, scale: ArrayLike = 1.0):
        self.location = Buffer(_finite("location", location))
        self.scale = Buffer(_finite("scale", scale))
        if not np.all(np.asarray(scale)):
            raise ValueError("expected a scale without zeros: a map by 0 cannot be inverted")

    def forward(
        self, x: Float[Array, "*shape"], key: Array | None = None, condition: Array | None = None
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        location, scale = (jnp.broadcast_to(a[...], x.shape) for a in (self.location, self.scale))
        return (x - location) / scale, -jnp.sum(jnp.log(jnp.abs(scale)))

    def inverse(
        self, z: Float[Array, "*shape"], condition: Array | None = None
    ) -> Float[Array, "*shape"]:
        location, scale = (jnp.broadcast_to(a[...], z.shape) for a in (self.location, self.scale))
        return z * scale + location


def _finite(name: str, values: ArrayLike) -> Float[Array, "..."]:
    array = as_array(name, values)
    if not np.isfinite(array).all():
        raise ValueError(f"expected a finite {name}, got {values}")
    return jnp.asarray(array, dtype=float)


class Logit(Bijection):
    """``z = logit(s)`` with ``s = alpha + (1 - 2 alpha) x`` for ``x`` in [0, 1].

    ``log_det = sum(-log s - log(1 - s) + log(1 - 2 alpha))``.

    Args:
      alpha: In [0, 1/2); keeps the ends of the interval finite. 0.05 in RealNVP, 1e-6 in FFJORD.

    Raises:
      ValueError: If ``alpha`` is outside [0, 1/2).

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 4.1.
    """

    def __init__(self, alpha: float = 0.05):
        self.alpha = checked("alpha", alpha, Annotated[float, Range(at_least=0, below=0.5)])

    def forward(
        self, x: Float[Array, "*shape"], key: Array | None = None, condition: Array | None = None
    ) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        span = 1 - 2 * self.alpha
        log_s, log_1_minus_s = jnp.log(self.alpha + span * x), jnp.log(self.alpha + span * (1 - x))
        return log_s - log_1_minus_s, jnp.sum(jnp.log(span) - log_s - log_1_minus_s)

    def inverse(
        self, z: Float[Array, "*shape"], condition: Array | None = None
    ) -> Float[Array, "*shape"]:
        return (jax.nn.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)

"""Fixed elementwise maps: shift and scale, and the logit."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, Event, LogDet
from likejax.inputs import as_array
from likejax.nn.modules import Buffer
from likejax.settings import Range, checked


class Affine(Bijection):
    """``z = (x - location) / scale`` with fixed location and scale.

    ``log_det = -sum(log |scale|)``.

    Args:
      location: Shift, a scalar or an array that broadcasts to the event by its last axes.
      scale: Divisor, a scalar or an array without zeros that broadcasts likewise.

    Raises:
      TypeError: If they are not numbers.
      ValueError: If a number is not finite, or a scale is zero.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> z, log_det = lj.bijections.Affine(1.0, 2.0).forward(jnp.full(3, 5.0))
      >>> z.tolist()
      [2.0, 2.0, 2.0]
    """

    def __init__(self, location: ArrayLike, scale: ArrayLike = 1.0):
        self.location = Buffer(_finite("location", location))
        self.scale = Buffer(_finite("scale", scale))
        if not np.all(np.asarray(scale)):
            raise ValueError("expected a scale without zeros: a map by 0 cannot be inverted")

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        location = jnp.broadcast_to(self.location[...], x.shape)
        scale = jnp.broadcast_to(self.scale[...], x.shape)
        return (x - location) / scale, -jnp.sum(jnp.log(jnp.abs(scale)))

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        location = jnp.broadcast_to(self.location[...], z.shape)
        scale = jnp.broadcast_to(self.scale[...], z.shape)
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
      alpha: Distance that ``s`` keeps from 0 and 1, in [0, 1/2); 0.05 in RealNVP, 1e-6 in FFJORD.

    Raises:
      ValueError: If ``alpha`` is outside [0, 1/2).

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803, section 4.1.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> z, log_det = lj.bijections.Logit(0.05).forward(jnp.full(2, 0.5))
      >>> z.tolist()
      [0.0, 0.0]
    """

    def __init__(self, alpha: float = 0.05):
        self.alpha = checked("alpha", alpha, Annotated[float, Range(at_least=0, below=0.5)])

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        span = 1 - 2 * self.alpha
        log_s = jnp.log(self.alpha + span * x)
        log_1_minus_s = jnp.log(self.alpha + span * (1 - x))
        return log_s - log_1_minus_s, jnp.sum(jnp.log(span) - log_s - log_1_minus_s)

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        return (jax.nn.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)

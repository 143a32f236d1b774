"""The variance-preserving diffusion process, in terms of the negative log signal-to-noise ratio.

``gamma = -log SNR`` rises from the data to the noise. At ``gamma`` a point ``y`` has become
``z = alpha y + sigma eps`` with ``alpha^2 = sigmoid(-gamma)``, ``sigma^2 = sigmoid(gamma)`` and
standard normal ``eps``, so ``alpha^2 + sigma^2 = 1``.

References:
  Kingma, Salimans, Poole and Ho, 2021, Variational diffusion models, arXiv:2107.00630.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

Prediction = Literal["noise", "velocity", "logits"]
"""What a denoiser predicts: ``eps``, ``v = alpha eps - sigma y``, or logits of integers."""


def alpha(gamma: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
    """Factor on the data, ``sqrt(sigmoid(-gamma))``.

    Args:
      gamma: Negative log signal-to-noise ratio.
    """
    return jnp.sqrt(jax.nn.sigmoid(-jnp.asarray(gamma)))


def sigma(gamma: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
    """Factor on the noise, ``sqrt(sigmoid(gamma))``.

    Args:
      gamma: Negative log signal-to-noise ratio.
    """
    return jnp.sqrt(jax.nn.sigmoid(jnp.asarray(gamma)))


def over_event(values: Float[Array, "*batch"], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Numbers of examples, reshaped so that they broadcast over the axes of their events.

    Args:
      values: ``(*batch,)``.
      x: ``(*batch, *event)``.
    """
    return values.reshape(*values.shape, *(1,) * (x.ndim - values.ndim))


def diffused(
    y: Float[Array, "..."], noise: Float[Array, "..."], gamma: Float[ArrayLike, "*batch"]
) -> Float[Array, "..."]:
    """``z = alpha y + sigma eps``.

    Args:
      y: Points ``(*batch, *event)``.
      noise: Standard normal ``eps`` of that shape.
      gamma: Negative log signal-to-noise ratio ``(*batch,)``.
    """
    gamma = jnp.asarray(gamma)
    return over_event(alpha(gamma), noise) * y + over_event(sigma(gamma), noise) * noise


class Predicted(NamedTuple):
    """The noise and the data that a denoiser sees in ``z``.

    Attributes:
      noise: Estimate of ``eps``.
      data: Estimate of ``y``.
    """

    noise: Array
    data: Array


def predicted(
    output: Float[Array, "..."],
    z: Float[Array, "..."],
    gamma: Float[Array, "*batch"],
    prediction: Literal["noise", "velocity"],
) -> Predicted:
    """Noise and data from the output of a denoiser that predicts one of them or their velocity.

    A noise ``eps`` means the data ``y = (z - sigma eps) / alpha``. A velocity ``v`` means
    ``eps = alpha v + sigma z`` and ``y = alpha z - sigma v``.

    Args:
      output: Output of the denoiser.
      z: Its input.
      gamma: Negative log signal-to-noise ratio.
      prediction: Name of the quantity that the output is.
    """
    a, s = over_event(alpha(gamma), z), over_event(sigma(gamma), z)
    if prediction == "velocity":
        return Predicted(a * output + s * z, a * z - s * output)
    return Predicted(output, (z - s * output) / a)


def predicted_by_data(
    data: Float[Array, "..."], z: Float[Array, "..."], gamma: Float[Array, "*batch"]
) -> Predicted:
    """Noise and data from an estimate of the data: ``eps = (z - alpha y) / sigma``.

    Args:
      data: Estimate of ``y``.
      z: Noisy points.
      gamma: Negative log signal-to-noise ratio.
    """
    a, s = over_event(alpha(gamma), z), over_event(sigma(gamma), z)
    return Predicted((z - a * data) / s, data)


def prior_divergence(y: Float[Array, "*event"], gamma: Float[Array, ""]) -> Float[Array, ""]:
    """``KL(q(z_1 | y) || N(0, I))`` in nats, of one example.

    ``sum (alpha^2 y^2 + sigma^2 - log sigma^2 - 1) / 2``.

    Args:
      y: Point of one example.
      gamma: Negative log signal-to-noise ratio at the end of the process.
    """
    variance = jax.nn.sigmoid(gamma)
    excess = variance - 1 + jax.nn.softplus(-gamma)
    return 0.5 * jnp.sum(jax.nn.sigmoid(-gamma) * jnp.square(y) + excess)


def smallest_gamma(levels: int) -> float:
    """Start of the process for integers: -13.3 for 256 levels, the same part of a level for others.

    ``-13.3 + 2 log(256 / levels)``: half a level is 3.02 standard deviations of the noise at the
    start.

    Args:
      levels: Number of integer values.

    Example:
      >>> round(smallest_gamma(17), 2)
      -7.88
    """
    return -13.3 + 2 * math.log(256 / levels)

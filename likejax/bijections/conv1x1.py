"""Linear maps that mix the channels of every position: 1x1 convolutions and permutations."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float, Int
from typing_extensions import override

from likejax.bijections.bijection import Bijection, Event, LogDet, no_volume
from likejax.nn.initial import normal_weights
from likejax.nn.modules import Buffer
from likejax.nn.product import product
from likejax.settings import Count, checked

# an invertible map in reduced precision is no longer inverted by its inverse
_EXACT = "highest"


def _rotation(channels: int, rngs: nnx.Rngs) -> Float[Array, "channels channels"]:
    channels = checked("channels", channels, Count)
    return jnp.linalg.qr(normal_weights(rngs.params(), (channels, channels)))[0]


def _mix(x: Event, weight: Float[Array, "channels channels"]) -> Event:
    return product(x, weight, precision=_EXACT)


class Conv1x1(Bijection):
    """``z = x W`` at every position; ``log_det = positions * log |det W|``.

    Args:
      channels: Size of the last axis.
      rngs: Source of the initial W, a random rotation.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.2.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> lj.bijections.Conv1x1(3, rngs=nnx.Rngs(0)).forward(jnp.ones((2, 2, 3)))[0].shape
      (2, 2, 3)
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(_rotation(channels, rngs))

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        weight = self.weight[...]
        positions = math.prod(x.shape[:-1])
        return _mix(x, weight), positions * jnp.linalg.slogdet(weight).logabsdet

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        return _mix(z, jnp.linalg.inv(self.weight[...]))


class Conv1x1LU(Bijection):
    """``z = x W`` with ``W = P L (U + diag(sign * exp(log_scale)))``.

    Then ``log |det W| = sum(log_scale)``. ``L`` is unit lower triangular and ``U`` strictly upper;
    ``P`` and ``sign`` stay as initialized.

    Args:
      channels: Size of the last axis.
      rngs: Source of the initial W, a random rotation.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.2, equation 10.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> lj.bijections.Conv1x1LU(3, rngs=nnx.Rngs(0)).forward(jnp.ones((2, 2, 3)))[0].shape
      (2, 2, 3)
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        permutation, lower, upper = jax.scipy.linalg.lu(_rotation(channels, rngs))
        diagonal = jnp.diag(upper)
        self.permutation = Buffer(permutation)
        self.sign = Buffer(jnp.sign(diagonal))
        self.lower = nnx.Param(jnp.tril(lower, -1))
        self.upper = nnx.Param(jnp.triu(upper, 1))
        self.log_scale = nnx.Param(jnp.log(jnp.abs(diagonal)))

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        lower, upper = self._factors()
        weight = jnp.linalg.multi_dot([self.permutation[...], lower, upper], precision=_EXACT)
        positions = math.prod(x.shape[:-1])
        return _mix(x, weight), positions * jnp.sum(self.log_scale[...])

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        solve = jax.scipy.linalg.solve_triangular
        lower, upper = self._factors()
        # W^-1 = U^-1 L^-1 P^T
        without_lower = solve(lower, self.permutation[...].T, lower=True, unit_diagonal=True)
        return _mix(z, solve(upper, without_lower))

    def _factors(self) -> tuple[Array, Array]:
        strict = jnp.tril(self.lower[...], -1)
        lower = strict + jnp.eye(len(strict), dtype=strict.dtype)
        diagonal = self.sign[...] * jnp.exp(self.log_scale[...])
        upper = jnp.triu(self.upper[...], 1) + jnp.diag(diagonal)
        return lower, upper


class Permutation(Bijection):
    """``z[..., i] = x[..., order[i]]``, a fixed permutation of the channels; ``log_det = 0``.

    The reversed order and a random shuffle are the two that Glow compares its 1x1 convolution with.

    Args:
      order: A permutation of ``0..channels-1``.

    Raises:
      ValueError: If an index is missing or repeated.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> permutation = lj.bijections.Permutation(jnp.array([2, 0, 1]))
      >>> permutation.forward(jnp.array([10.0, 20.0, 30.0]))[0].tolist()
      [30.0, 10.0, 20.0]
    """

    def __init__(self, order: Int[Array, " channels"]):
        if not isinstance(order, Tracer):
            indices = sorted(np.asarray(order).tolist())
            if indices != list(range(len(order))):
                raise ValueError(
                    f"expected each of 0..{len(order) - 1} once in a permutation, got {order}"
                )
        self.order = Buffer(order)

    @override
    def forward(
        self, x: Event, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Event, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        return jnp.take(x, self.order[...], axis=-1), no_volume(x)

    @override
    def inverse(self, z: Event, condition: Array | None = None) -> Event:
        """Maps a latent back to its example."""
        return jnp.take(z, jnp.argsort(self.order[...]), axis=-1)

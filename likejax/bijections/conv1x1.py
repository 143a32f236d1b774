"""Linear maps that mix the channels of every position: invertible 1x1 convolutions and fixed permutations."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from likejax.bijections.bijection import Bijection
from likejax.nn.initial import normal_weights
from likejax.nn.modules import Buffer
from likejax.settings import Count, checked

_EXACT = (
    jax.lax.Precision.HIGHEST
)  # an invertible map in reduced precision is no longer inverted by its inverse


def _rotation(channels: int, rngs: nnx.Rngs) -> Float[Array, "channels channels"]:
    channels = checked("channels", channels, Count)
    return jnp.linalg.qr(normal_weights(rngs.params(), (channels, channels)))[0]


class Conv1x1(Bijection):
    """``z = x W`` at every position; ``log_det = positions * log |det W|``.

    Args:
      channels: Size of the last axis.
      rngs: Source of the initial W, a random rotation.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.2.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(_rotation(channels, rngs))

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape channels"], Float[Array, ""]]:
        weight = self.weight[...]
        log_det = math.prod(x.shape[:-1]) * jnp.linalg.slogdet(weight).logabsdet
        return jnp.tensordot(x, weight, 1, precision=_EXACT), log_det

    def inverse(
        self, z: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape channels"]:
        return jnp.tensordot(z, jnp.linalg.inv(self.weight[...]), 1, precision=_EXACT)


class Conv1x1LU(Bijection):
    """``z = x W`` with ``W = P L (U + diag(sign * exp(log_scale)))``, so that ``log |det W| = sum(log_scale)``.

    ``L`` is unit lower triangular, ``U`` strictly upper; ``P`` and ``sign`` stay as initialized.

    Args:
      channels: Size of the last axis.
      rngs: Source of the initial W, a random rotation.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.2, equation 10.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        permutation, lower, upper = jax.scipy.linalg.lu(_rotation(channels, rngs))
        diagonal = jnp.diag(upper)
        self.permutation = Buffer(permutation)
        self.sign = Buffer(jnp.sign(diagonal))
        self.lower = nnx.Param(jnp.tril(lower, -1))
        self.upper = nnx.Param(jnp.triu(upper, 1))
        self.log_scale = nnx.Param(jnp.log(jnp.abs(diagonal)))

    def _factors(self) -> tuple[Array, Array]:
        lower = jnp.tril(self.lower[...], -1) + jnp.eye(
            len(self.sign[...]), dtype=self.lower[...].dtype
        )
        diagonal = self.sign[...] * jnp.exp(self.log_scale[...])
        return lower, jnp.triu(self.upper[...], 1) + jnp.diag(diagonal)

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape channels"], Float[Array, ""]]:
        lower, upper = self._factors()
        weight = jnp.linalg.multi_dot([self.permutation[...], lower, upper], precision=_EXACT)
        log_det = math.prod(x.shape[:-1]) * jnp.sum(self.log_scale[...])
        return jnp.tensordot(x, weight, 1, precision=_EXACT), log_det

    def inverse(
        self, z: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape channels"]:
        lower, upper = self._factors()
        solve = jax.scipy.linalg.solve_triangular
        inverse = solve(
            upper, solve(lower, self.permutation[...].T, lower=True, unit_diagonal=True)
        )
        return jnp.tensordot(z, inverse, 1, precision=_EXACT)


class Permutation(Bijection):
    """``z[..., i] = x[..., order[i]]``, a fixed permutation of the channels; ``log_det = 0``.

    Args:
      order: A permutation of ``0..channels-1``; reversed order and a random shuffle are the two that Glow
        compares its 1x1 convolution with.
    """

    def __init__(self, order: Int[Array, " channels"]):
        if not isinstance(order, Tracer) and sorted(np.asarray(order).tolist()) != list(
            range(len(order))
        ):
            raise ValueError(
                f"expected each of 0..{len(order) - 1} once in a permutation, got {order}"
            )
        self.order = Buffer(order)

    def forward(
        self,
        x: Float[Array, "*shape channels"],
        key: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Float[Array, "*shape channels"], Float[Array, ""]]:
        return jnp.take(x, self.order[...], axis=-1), jnp.zeros(
            (), jnp.promote_types(x.dtype, jnp.float32)
        )

    def inverse(
        self, z: Float[Array, "*shape channels"], condition: Array | None = None
    ) -> Float[Array, "*shape channels"]:
        return jnp.take(z, jnp.argsort(self.order[...]), axis=-1)

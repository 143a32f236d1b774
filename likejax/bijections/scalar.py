"""Increasing maps of one number whose parameters a network gives: the interface, and the affine."""

from __future__ import annotations

import abc
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.settings import Settings

Numbers = Float[Array, "*shape"]
Parameters = Float[Array, "*shape parameters"]

MINIMUM_SCALE = 1e-3
"""Smallest scale of the sigmoid form, as in the official code."""


class ScalarMap(abc.ABC):
    """An increasing map of one number, elementwise, with ``parameters`` numbers for each.

    Couplings and autoregressive maps let a network compute the parameters of some numbers from
    other ones. A new map implements ``forward`` and ``inverse``; it is a frozen dataclass of its
    settings, and holds no arrays.

    Example:
      >>> import dataclasses, jax.numpy as jnp, likejax as lj
      >>> @dataclasses.dataclass(frozen=True)
      ... class Shift(lj.bijections.ScalarMap):
      ...     @property
      ...     def parameters(self):
      ...         return 1
      ...     def forward(self, x, parameters):
      ...         return x + parameters[..., 0], jnp.zeros_like(x)
      ...     def inverse(self, z, parameters):
      ...         return z - parameters[..., 0]
      >>> Shift().forward(jnp.ones(2), jnp.ones((2, 1)))[0].tolist()
      [2.0, 2.0]
    """

    @property
    @abc.abstractmethod
    def parameters(self) -> int:
        """Number of parameters for each number that is mapped."""

    @abc.abstractmethod
    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """Maps numbers, data to latent.

        Args:
          x: Numbers.
          parameters: Parameters of the map of each number, any reals.

        Returns:
          The mapped numbers, and the logarithm of the derivative at each.
        """

    @abc.abstractmethod
    def inverse(self, z: Numbers, parameters: Parameters) -> Numbers:
        """Maps numbers back, the inverse of ``forward`` with the same parameters.

        Args:
          z: Mapped numbers ``(*shape,)``.
          parameters: Parameters of the map of each number, any reals, ``(*shape, parameters)``.

        Returns:
          Numbers of the shape of ``z``.
        """


@dataclasses.dataclass(frozen=True)
class AffineScalar(Settings, ScalarMap):
    """``z = s x + t`` with parameters ``(a, t)``, or ``z = (x - t) exp(-a)``.

    References:
      Papamakarios, Pavlakou and Murray, 2017, Masked autoregressive flow, arXiv:1705.07057 (the
      exponential form). Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows,
      arXiv:1906.04032, official code (the sigmoid form).

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> affine = lj.bijections.AffineScalar(scale="exp")
      >>> z, log_derivative = affine.forward(jnp.ones(1), jnp.array([[0.0, 3.0]]))
      >>> z.tolist()
      [-2.0]
    """

    scale: Literal["sigmoid", "exp"] = "sigmoid"
    """Scale ``s``: ``sigmoid(a + 2) + 0.001``, which is bounded, or ``exp(-a)``."""

    @property
    @override
    def parameters(self) -> int:
        """Two: the scale's and the shift."""
        return 2

    @override
    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """Maps numbers, data to latent."""
        a, shift = parameters[..., 0], parameters[..., 1]
        if self.scale == "exp":
            return (x - shift) * jnp.exp(-a), -a
        scale = _bounded_scale(a)
        return scale * x + shift, jnp.log(scale)

    @override
    def inverse(self, z: Numbers, parameters: Parameters) -> Numbers:
        """Maps numbers back."""
        a, shift = parameters[..., 0], parameters[..., 1]
        if self.scale == "exp":
            return z * jnp.exp(a) + shift
        return (z - shift) / _bounded_scale(a)


def _bounded_scale(a: Numbers) -> Numbers:
    return jax.nn.sigmoid(a + 2.0) + MINIMUM_SCALE

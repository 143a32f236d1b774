"""Densities of a flow's latents other than the standard normal: heavy tails, several modes.

Which one to take for ``Flow(..., base=...)``:

* The standard normal is the default: latents are white, and the cheapest to compute.
* ``StudentT`` for data with heavy tails, such as returns, counts or physical measurements with rare
  large values. A map of bounded slope, as spline and affine flows have outside of the bulk, cannot
  turn a normal's tails into heavy ones, whatever its depth. So the base must have them.
* ``GaussianMixture`` for modes that are apart from each other. A continuous map of one normal joins
  them by thin bridges of density, and its slopes must grow without bound to make these thin.

References:
  Jaini, Kobyzev, Yu and Brubaker, 2020, Tails of Lipschitz triangular flows, arXiv:1907.04481.
  Izmailov, Kirichenko, Finzi and Wilson, 2020, Semi-supervised learning with normalizing flows,
  arXiv:1912.13025 (a mixture as base).
"""

from __future__ import annotations

import abc
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from likejax.distributions import normal_log_prob, student_t_log_prob
from likejax.settings import Count, NonNegative, Positive, checked

Degrees = Literal["each", "one"]
"""Whether each entry has degrees of freedom of its own, or all entries share one number."""
_LEAST_DEGREES = 1.0
"""Lower limit of the degrees of freedom, where a Student's t is a Cauchy distribution."""


class LatentDensity(nnx.Module, abc.ABC):
    """A density of the latents of one example, as one vector; a new one implements two methods.

    Attributes:
      dimensions: Number of entries of all latents of an example together.

    Example:
      >>> import jax, jax.numpy as jnp, likejax as lj
      >>> class Laplace(lj.models.LatentDensity):
      ...     dimensions = 2
      ...     def log_prob(self, z):
      ...         return -jnp.sum(jnp.abs(z) + jnp.log(2.0))
      ...     def sample(self, key, temperature):
      ...         return temperature * jax.random.laplace(key, (2,))
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,), base=Laplace())
      >>> flow.log_prob(jnp.zeros((3, 2))).shape
      (3,)
    """

    dimensions: int

    @abc.abstractmethod
    def log_prob(self, z: Float[Array, " d"]) -> Float[Array, ""]:
        """Returns the log-density of one vector in nats.

        Args:
          z: All latents of one example.
        """

    @abc.abstractmethod
    def sample(self, key: Array, temperature: ArrayLike) -> Float[Array, " d"]:
        """Draws one vector.

        Args:
          key: Key of the example.
          temperature: Factor on the noise, at least 0; 1 draws from the density itself.
        """


class StudentT(LatentDensity):
    """Independent Student's t with learned degrees of freedom; the scale is 1.

    ``degrees = 1 + softplus(raw)``: above 1, so that a mean exists; the variance is finite above 2.
    A Student's t is a normal whose variance is drawn, and temperature multiplies the standard
    deviation of that normal. So a sample at a temperature is the sample at 1, times it.

    Args:
      dimensions: Number of entries.
      degrees: ``each`` entry with degrees of freedom of its own, or ``one`` number for all.
      initial: Degrees of freedom at the start, above 1.

    References:
      Jaini, Kobyzev, Yu and Brubaker, 2020, Tails of Lipschitz triangular flows, arXiv:1907.04481.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> round(float(lj.models.StudentT(1, initial=3.0).log_prob(jnp.zeros(1))), 4)
      -1.0009
    """

    def __init__(self, dimensions: int, *, degrees: Degrees = "each", initial: float = 10.0):
        self.dimensions = checked("dimensions", dimensions, Count)
        degrees = checked("degrees", degrees, Degrees)
        initial = checked("initial", initial, Positive)
        if initial <= _LEAST_DEGREES:
            raise ValueError(
                f"expected initial degrees of freedom above {_LEAST_DEGREES:g}, got {initial:g}"
            )
        excess = initial - _LEAST_DEGREES
        raw = excess + math.log(-math.expm1(-excess))  # softplus undone
        self.raw = nnx.Param(jnp.full((self.dimensions if degrees == "each" else 1,), raw))

    @property
    def degrees(self) -> Float[Array, " degrees"]:
        """Degrees of freedom, one for each entry or one for all."""
        return _LEAST_DEGREES + jax.nn.softplus(self.raw[...])

    def log_prob(self, z: Float[Array, " d"]) -> Float[Array, ""]:
        """Returns the log-density of one vector in nats.

        Args:
          z: All latents of one example.
        """
        return student_t_log_prob(z, jnp.broadcast_to(self.degrees, z.shape)).sum()

    def sample(self, key: Array, temperature: ArrayLike) -> Float[Array, " d"]:
        """Draws one vector.

        Args:
          key: Key of the example.
          temperature: Factor on the noise.
        """
        noise = jax.random.t(key, self.degrees, (self.dimensions,))
        return jnp.asarray(temperature * noise)


class GaussianMixture(LatentDensity):
    """``sum_k w_k prod_d N(z_d; mean_kd, std_kd^2)`` with learned weights, means and scales.

    At a temperature ``T`` the component is that of the largest ``log w_k + T * gumbel_k``, and its
    standard deviations are multiplied by ``T``: 0 gives the mean of the heaviest component.

    Args:
      dimensions: Number of entries.
      components: Number of normals.
      spread: Standard deviation of the initial means; equal means would stay equal.
      rngs: Random generators of the initial means.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> mixture = lj.models.GaussianMixture(2, 3, rngs=nnx.Rngs(0))
      >>> mixture.log_prob(jnp.zeros(2)).shape
      ()
    """

    def __init__(self, dimensions: int, components: int, *, spread: float = 1.0, rngs: nnx.Rngs):
        self.dimensions = checked("dimensions", dimensions, Count)
        shape = (checked("components", components, Count), self.dimensions)
        spread = checked("spread", spread, NonNegative)
        self.means = nnx.Param(spread * jax.random.normal(rngs.params(), shape))
        self.log_scales = nnx.Param(jnp.zeros(shape))
        self.logits = nnx.Param(jnp.zeros(shape[0]))

    def log_prob(self, z: Float[Array, " d"]) -> Float[Array, ""]:
        """Returns the log-density of one vector in nats.

        Args:
          z: All latents of one example.
        """
        of_entries = normal_log_prob(z[None], self.means[...], jnp.exp(self.log_scales[...]))
        log_weights = jax.nn.log_softmax(self.logits[...])
        return jax.nn.logsumexp(log_weights + of_entries.sum(-1))

    def sample(self, key: Array, temperature: ArrayLike) -> Float[Array, " d"]:
        """Draws one vector.

        Args:
          key: Key of the example.
          temperature: Factor on the noise.
        """
        component_key, normal_key = jax.random.split(key)
        gumbel = jax.random.gumbel(component_key, self.logits[...].shape)
        best = jnp.argmax(self.logits[...] + temperature * gumbel)
        noise = temperature * jax.random.normal(normal_key, (self.dimensions,))
        return self.means[...][best] + jnp.exp(self.log_scales[...][best]) * noise


def check_latent_density(base: object, dimensions: int) -> None:
    """Raises unless ``base`` is a density of latents of so many entries.

    Args:
      base: Base of a flow.
      dimensions: Number of entries of all latents of an example together.

    Raises:
      TypeError: If it is no density of latents.
      ValueError: If it has other dimensions.
    """
    if not isinstance(base, LatentDensity):
        raise TypeError(
            "expected base to be a density of latents, such as lj.models.StudentT(dimensions), "
            f"got {base if isinstance(base, str) else type(base).__name__}"
        )
    if base.dimensions != dimensions:
        raise ValueError(
            f"expected a base of {dimensions} dimensions, one for each entry of the latents, "
            f"got {type(base).__name__} of {base.dimensions}"
        )

"""Data as points that a diffusion can move, and the likelihood of the data given such a point.

The process ends, at its first time, with a point ``u = z_0 / alpha_0 = y + exp(gamma_0 / 2) eps``
near ``y``, the embedding of the data. ``log p(x | u)`` is the reconstruction term of the bound.
"""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num
from typing_extensions import override

from likejax.bijections.standardize import Standardize
from likejax.density import integer_dtype
from likejax.distributions import normal_log_prob
from likejax.inputs import inside_levels
from likejax.nn.channels import per_channel
from likejax.nn.modules import replace
from likejax.settings import Levels, checked


class Embedding(nnx.Module, abc.ABC):
    """A map from data to points of the diffusion, with a likelihood for the way back.

    Attributes:
      levels: Number of integer values of the data; ``None`` if they are continuous.
    """

    levels: int | None = None

    @abc.abstractmethod
    def embed(self, x: Num[Array, "*event"]) -> Float[Array, "*latent"]:
        """Maps one example to its point ``y``.

        Args:
          x: One example of shape ``event``.

        Returns:
          Point of shape ``latent``.
        """

    @abc.abstractmethod
    def log_prob(
        self, x: Num[Array, "*event"], u: Float[Array, "*latent"], gamma: Float[Array, ""]
    ) -> Float[Array, ""]:
        """``log p(x | u)`` in nats, per example.

        Args:
          x: Data.
          u: Noisy point, of noise ``exp(gamma / 2)``.
          gamma: Negative log signal-to-noise ratio at the start of the process.
        """

    @abc.abstractmethod
    def nearest(self, u: Float[Array, "*latent"]) -> Num[Array, "*event"]:
        """The most likely data of a point.

        Args:
          u: Noisy point of shape ``latent``.

        Returns:
          One example of shape ``event``.
        """

    @abc.abstractmethod
    def sample(
        self, key: Array, u: Float[Array, "*latent"], gamma: Float[Array, ""]
    ) -> Num[Array, "*event"]:
        """Draws data from ``p(x | u)``.

        Args:
          key: Random key.
          u: Noisy point of shape ``latent``, of noise ``exp(gamma / 2)``.
          gamma: Negative log signal-to-noise ratio at the start of the process.

        Returns:
          One example of shape ``event``.
        """

    def initialize(self, batch: Num[Array, "batch ..."], key: Array) -> Embedding:
        """Returns an embedding that fits data; this one if it has nothing to fit.

        Args:
          batch: Examples ``(n, *event)``.
          key: Random key.
        """
        del batch, key
        return self


class DiscreteEmbedding(Embedding):
    """An embedding of integers whose entries, given a point, are independent of each other.

    Such data can be predicted by their logits: a denoiser that returns logits ``l`` sees the data
    ``sum_v softmax(l + logits(u))_v y(v)``.
    """

    levels: int  # type: ignore[assignment]

    @abc.abstractmethod
    def logits(
        self, u: Float[Array, "*batch_and_latent"], gamma: Float[Array, "..."]
    ) -> Float[Array, "*batch_and_event levels"]:
        """Unnormalized log-probability of every value of each entry, which the point alone gives.

        Under a uniform prior these are Bayes' probabilities.

        Args:
          u: Noisy points, of noise ``exp(gamma / 2)``.
          gamma: Negative log signal-to-noise ratio, which broadcasts against ``u``.
        """

    @abc.abstractmethod
    def mean(
        self, probabilities: Float[Array, "*batch_and_event levels"]
    ) -> Float[Array, "*batch_and_latent"]:
        """The mean of the embedded integers under probabilities of their values.

        Args:
          probabilities: Probability of every value of each entry.
        """

    @override
    def sample(
        self, key: Array, u: Float[Array, "*latent"], gamma: Float[Array, ""]
    ) -> Num[Array, "*event"]:
        """Draws a value for every entry."""
        drawn = jax.random.categorical(key, self.logits(u, gamma), axis=-1)
        return drawn.astype(integer_dtype(self.levels))


class LevelEmbedding(DiscreteEmbedding):
    """Integers ``0..L-1`` as the centers of ``L`` equal cells of [-1, 1].

    ``y = 2 (x + 1/2) / L - 1``, and ``p(x | u)`` is proportional to
    ``exp(-(u - y(x))^2 / (2 exp(gamma)))`` over the levels, for every entry by itself.

    Args:
      levels: Number of integer values, ``L``.

    References:
      Kingma et al., 2021, Variational diffusion models, arXiv:2107.00630, appendix; official code.
    """

    def __init__(self, levels: int):
        self.levels: int = checked("levels", levels, Levels)

    @override
    def embed(self, x: Num[Array, "*event"]) -> Float[Array, "*event"]:
        """Maps integers to the centers of their cells."""
        return 2 * (x.astype(jnp.result_type(float)) + 0.5) / self.levels - 1

    @override
    def log_prob(
        self, x: Num[Array, "*event"], u: Float[Array, "*event"], gamma: Float[Array, ""]
    ) -> Float[Array, ""]:
        """``log p(x | u)`` in nats; minus infinity if an entry is no level."""
        own = self._relative(u, self.embed(x), gamma)
        total = jnp.sum(own - jax.nn.logsumexp(self.logits(u, gamma), axis=-1))
        return jnp.where(inside_levels(x, self.levels).all(), total, -jnp.inf)

    @override
    def logits(
        self, u: Float[Array, "*batch_and_event"], gamma: Float[Array, "..."]
    ) -> Float[Array, "*batch_and_event levels"]:
        """Unnormalized log-probability of every level."""
        each = u[..., None]
        of_each = gamma[..., None] if gamma.ndim else gamma
        return self._relative(each, self._centers(each), of_each)

    @override
    def mean(
        self, probabilities: Float[Array, "*batch_and_event levels"]
    ) -> Float[Array, "*batch_and_event"]:
        """The mean of the centers."""
        return jnp.sum(probabilities * self._centers(probabilities), -1)

    def _centers(self, x: Float[Array, "*shape _"]) -> Float[Array, "*ones levels"]:
        """The centers of all levels, with as many axes as ``x``."""
        return per_channel(self.embed(jnp.arange(self.levels)), x)

    def _relative(self, u: Array, center: Array, gamma: Float[Array, "..."]) -> Array:
        """``((u - nearest)^2 - (u - center)^2) / (2 exp(gamma))``.

        It is relative to the nearest level, so no large numbers cancel.
        """
        nearest = self._center(u)
        excess = (nearest - center) * (2 * u - nearest - center)
        return -0.5 * jnp.exp(-gamma) * excess

    def _center(self, u: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """The center of the cell of a point; its place has no gradient."""
        return self.embed(jax.lax.stop_gradient(self._level(u)))

    def _level(self, u: Float[Array, "*event"]) -> Float[Array, "*event"]:
        return jnp.clip(jnp.floor((u + 1) * (self.levels / 2)), 0, self.levels - 1)

    @override
    def nearest(self, u: Float[Array, "*event"]) -> Num[Array, "*event"]:
        """The level whose center is nearest."""
        return self._level(u).astype(integer_dtype(self.levels))


class RealEmbedding(Embedding):
    """Real vectors as they are, or standardized, with Gaussian noise of the start of the process.

    ``log p(x | u) = log N(y; u, exp(gamma)) - sum(log std)``, in nats of the data as given.

    Args:
      dimensions: Number of entries of a vector.
      standardize: Whether the vectors are standardized with statistics of the training data.
    """

    def __init__(self, dimensions: int, *, standardize: bool = False):
        self.standardize = nnx.data(Standardize(dimensions) if standardize else None)

    @override
    def embed(self, x: Num[Array, "*event"]) -> Float[Array, "*event"]:
        """Standardizes one vector, if that is what the embedding does."""
        return x if self.standardize is None else self.standardize.forward(x)[0]

    @override
    def log_prob(
        self, x: Num[Array, "*event"], u: Float[Array, "*event"], gamma: Float[Array, ""]
    ) -> Float[Array, ""]:
        """``log p(x | u)`` in nats."""
        return normal_log_prob(self.embed(x), u, jnp.exp(0.5 * gamma)).sum() + self.log_det()

    @override
    def sample(
        self, key: Array, u: Float[Array, "*event"], gamma: Float[Array, ""]
    ) -> Float[Array, "*event"]:
        """Draws a vector."""
        return self.nearest(u + jnp.exp(0.5 * gamma) * jax.random.normal(key, u.shape, u.dtype))

    @override
    def nearest(self, u: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """The vector of a point."""
        return u if self.standardize is None else self.standardize.inverse(u)

    def log_det(self) -> Float[Array, ""]:
        """``log |det dy/dx|`` of the embedding, in nats."""
        return jnp.zeros(()) if self.standardize is None else -self.standardize.sum_log_std()

    @override
    def initialize(self, batch: Num[Array, "batch ..."], key: Array) -> RealEmbedding:
        """Returns an embedding that standardizes data like ``batch``."""
        if self.standardize is None:
            return self
        return replace(self, standardize=self.standardize.initialize(batch, key))


def half_cell(levels: int, gamma: Float[Array, ""]) -> Float[Array, ""]:
    """Half the width of a level's cell in standard deviations of the noise, ``exp(-gamma/2) / L``.

    Args:
      levels: Number of integer values, ``L``.
      gamma: Negative log signal-to-noise ratio at the start of the process.
    """
    return jnp.exp(-0.5 * gamma) / levels


def log_mass_of_cell(tau: Float[Array, ""]) -> Float[Array, ""]:
    """``log P(|eps| < tau)`` of a standard normal, in nats.

    Args:
      tau: Half the width of the cell, in standard deviations; see ``half_cell``.
    """
    return jnp.log(jax.scipy.special.erf(tau / math.sqrt(2)))

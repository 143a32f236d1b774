"""Likelihoods at the bottom of a VAE: from the last map to the distribution of the data."""

from __future__ import annotations

import abc
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Num
from typing_extensions import override

from likejax.distributions import (
    MIN_LOG_SCALE,
    Form,
    LogisticMixture,
    bernoulli_log_prob,
    discretized_logistic_log_prob,
    logistic_mixture_log_probs,
    logistic_mixture_sample,
    normal_log_prob,
    to_level,
)
from likejax.models.vae.network import ACTIVATIONS, Map, MapShape, Moments, layer
from likejax.models.vae.stage import Options

LikelihoodName = Literal["bernoulli", "gaussian", "logistic", "logistic_mixture"]


class Likelihood(nnx.Module, abc.ABC):
    """``p(x | z)`` by a convolution of the last map.

    Its ``x`` is a map of the data's height, width and channels.

    Args:
      shape: Shape of the last map.
      outputs: Number of parameters of a pixel.
      kernel: Rows and columns of the convolution.
      options: Settings of the network.
      rngs: Source of the initial weights.
    """

    activated: bool = True

    def __init__(
        self, shape: MapShape, outputs: int, *, kernel: int, options: Options, rngs: nnx.Rngs
    ):
        self.layer = layer(shape, outputs, kernel=kernel, rngs=rngs, dtype=options.dtype)
        self.activation = options.activation

    def outputs(self, d: Map) -> Map:
        """Returns the parameters as the network gives them.

        Args:
          d: Last map ``(*batch, height, width, channels)``.

        Returns:
          Parameters ``(*batch, height, width, outputs)``, in float32 or better.
        """
        out = self.layer(ACTIVATIONS[self.activation](d) if self.activated else d)
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))

    @abc.abstractmethod
    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        """Returns the log-probability of each entry, nats.

        Args:
          outputs: Parameters as the network gives them.
          x: Data, a map of the data's height, width and channels.

        Returns:
          Array ``(*batch, height, width, channels)``.
        """

    @abc.abstractmethod
    def mean(self, outputs: Map) -> Map:
        """Returns the expected data, in units of the data.

        Args:
          outputs: Parameters as the network gives them.

        Returns:
          Map ``(*batch, height, width, channels)`` of the data, as floats.
        """

    @abc.abstractmethod
    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        """Draws data, as floats.

        Args:
          outputs: Parameters as the network gives them.
          key: Key of the draws.
          temperature: Factor on the scales of normals and logistics, and divisor of logits; at 0
            the data are the mode of the distribution, of a mixture that of its most probable
            component.
        """


class Bernoulli(Likelihood):
    """``p(x = 1) = sigmoid(outputs)``."""

    @override
    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        return bernoulli_log_prob(x, outputs)

    @override
    def mean(self, outputs: Map) -> Map:
        return jax.nn.sigmoid(outputs)

    @override
    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        warm = jnp.asarray(temperature) > 0
        tempered = jax.nn.sigmoid(outputs / jnp.where(warm, temperature, 1.0))
        probability = jnp.where(warm, tempered, (outputs > 0).astype(tempered.dtype))
        drawn = jax.random.bernoulli(key, probability).astype(outputs.dtype)
        return jnp.where(jnp.isnan(outputs), outputs, drawn)


class Gaussian(Likelihood):
    """Independent normals of continuous data, mean and ``std`` by the network."""

    @override
    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        return normal_log_prob(x, *Moments.of(outputs))

    @override
    def mean(self, outputs: Map) -> Map:
        return Moments.of(outputs).mean

    @override
    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        moments = Moments.of(outputs)
        eps = jax.random.normal(key, moments.mean.shape, moments.mean.dtype)
        return moments.at(jnp.asarray(temperature * eps))


class DiscretizedLogistic(Likelihood):
    """One logistic per channel on ``levels`` bins that divide [0, 1].

    The outer bins reach to infinity. ``mean = output + 1/2`` and
    ``log scale = max(output - 1, -7)``, on [0, 1]. The form ``reference`` adds 1e-7 to every mass,
    as the released code does: then the masses sum to more than 1.

    References:
      Kingma et al., 2016, Improved variational inference with inverse autoregressive flow,
      arXiv:1606.04934.
    """

    activated = False

    def __init__(
        self,
        form: LikelihoodForm,
        shape: MapShape,
        channels: int,
        *,
        options: Options,
        rngs: nnx.Rngs,
    ):
        kernel = 1 if form.dense else 3
        super().__init__(shape, 2 * channels, kernel=kernel, options=options, rngs=rngs)
        assert form.levels is not None
        self.form: Form = form.logistic
        self.levels = form.levels

    def parameters(self, outputs: Map) -> tuple[Map, Map]:
        """Returns mean and log-scale, on [0, 1].

        Args:
          outputs: Parameters ``(*batch, height, width, 2 channels)`` as the network gives them.

        Returns:
          Two maps ``(*batch, height, width, channels)``.
        """
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return mean + 0.5, jnp.maximum(log_scale - 1.0, MIN_LOG_SCALE)

    @override
    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        mean, log_scale = self.parameters(outputs)
        # Bin k is [k, k + 1] / levels here, and centered on its level in the formula.
        half = (self.levels - 1) / 2
        mean = (self.levels * mean - 0.5) / half - 1.0
        log_scale = log_scale + math.log(self.levels / half)
        k = jnp.broadcast_to(x, mean.shape).astype(mean.dtype)
        log_mass = discretized_logistic_log_prob(k, mean, log_scale, self.levels)
        return log_mass if self.form == "exact" else jnp.log(jnp.exp(log_mass) + 1e-7)

    @override
    def mean(self, outputs: Map) -> Map:
        mean, log_scale = self.parameters(outputs)
        inverse_scale = jnp.exp(-log_scale)

        def add(j: Array, total: Array) -> Array:
            return total + jax.nn.sigmoid((mean - j / self.levels) * inverse_scale)  # P(k >= j)

        return jax.lax.fori_loop(1, self.levels, add, jnp.zeros_like(mean))

    @override
    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        mean, log_scale = self.parameters(outputs)
        noise = jax.random.logistic(key, mean.shape, mean.dtype)
        value = mean + temperature * jnp.exp(log_scale) * noise
        return jnp.clip(jnp.floor(self.levels * value), 0, self.levels - 1)


class DiscretizedLogisticMixture(Likelihood):
    """PixelCNN++'s mixture of discretized logistics for the channels of a pixel.

    Its mean is that of the components' means, each channel given the means of those before it.
    """

    activated = False

    def __init__(
        self,
        form: LikelihoodForm,
        shape: MapShape,
        channels: int,
        *,
        options: Options,
        rngs: nnx.Rngs,
    ):
        size = LogisticMixture.size(channels, form.mixtures)
        super().__init__(shape, size, kernel=1, options=options, rngs=rngs)
        assert form.levels is not None
        self.form: Form = form.logistic
        self.levels = form.levels
        self.channels = channels
        self.mixtures = form.mixtures

    def mixture(self, outputs: Map) -> LogisticMixture:
        """Returns the mixture of every pixel.

        Args:
          outputs: Parameters as the network gives them.
        """
        return LogisticMixture.of(outputs, self.channels, self.mixtures)

    @override
    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        x = jnp.broadcast_to(x, (*outputs.shape[:-1], self.channels))
        return logistic_mixture_log_probs(x, self.mixture(outputs), self.levels, self.form)

    @override
    def mean(self, outputs: Map) -> Map:
        mixture = self.mixture(outputs)
        weights = jax.nn.softmax(mixture.logits)
        values = jnp.zeros((*weights.shape[:-1], 0), weights.dtype)
        for channel in range(self.channels):
            means = mixture.mean(channel, values)  # given the channels before
            value = jnp.clip(jnp.sum(weights * means, axis=-1), -1.0, 1.0)
            values = jnp.concatenate([values, value[..., None]], axis=-1)
        return (values + 1.0) * ((self.levels - 1) / 2)

    @override
    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        component_key, value_key = jax.random.split(key)
        shape = outputs.shape[:-1]
        gumbel = jax.random.gumbel(component_key, (*shape, self.mixtures), outputs.dtype)
        logistic = jax.random.logistic(value_key, (*shape, self.channels), outputs.dtype)
        values = logistic_mixture_sample(
            self.mixture(outputs), gumbel, logistic, self.levels, temperature
        )
        return to_level(values, self.levels)


class LikelihoodForm(NamedTuple):
    """Settings of a likelihood.

    Attributes:
      name: Family of the distribution.
      levels: Integer values of an entry; ``None`` for continuous data.
      mixtures: Components of a logistic mixture.
      logistic: Form of a discretized logistic.
      dense: Whether the last map is a vector.
    """

    name: LikelihoodName
    levels: int | None
    mixtures: int
    logistic: Form
    dense: bool


def likelihood(
    form: LikelihoodForm, shape: MapShape, channels: int, *, options: Options, rngs: nnx.Rngs
) -> Likelihood:
    """Returns a likelihood on the last map.

    Args:
      form: Settings of the likelihood.
      shape: Shape of the last map.
      channels: Channels of the data.
      options: Settings of the network.
      rngs: Source of the initial weights.
    """
    kernel = 1 if form.dense else 3
    if form.name == "bernoulli":
        return Bernoulli(shape, channels, kernel=kernel, options=options, rngs=rngs)
    if form.name == "gaussian":
        return Gaussian(shape, 2 * channels, kernel=kernel, options=options, rngs=rngs)
    if form.name == "logistic":
        return DiscretizedLogistic(form, shape, channels, options=options, rngs=rngs)
    return DiscretizedLogisticMixture(form, shape, channels, options=options, rngs=rngs)

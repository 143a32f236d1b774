"""Likelihoods at the bottom of a VAE: from the last map to the distribution of the data."""

from __future__ import annotations

import abc
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Num

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
from likejax.models.vae.network import ACTIVATIONS, Map, MapShape, Moments, Options, layer

LikelihoodName = Literal["bernoulli", "gaussian", "logistic", "logistic_mixture"]


class Likelihood(nnx.Module, abc.ABC):
    """``p(x | z)`` by a convolution of the last map; ``x`` is a map of the data's height, width and channels.

    Args:
      shape: Of the last map.
      outputs: Parameters of a pixel.
      kernel: Of the convolution.
      options: Of the network.
      rngs: Source of the initial weights.
    """

    activated: bool = True

    def __init__(
        self, shape: MapShape, outputs: int, *, kernel: int, options: Options, rngs: nnx.Rngs
    ):
        self.layer = layer(shape, outputs, kernel=kernel, rngs=rngs, dtype=options.dtype)
        self.activation = options.activation

    def outputs(self, d: Map) -> Map:
        """The parameters as the network gives them."""
        out = self.layer(ACTIVATIONS[self.activation](d) if self.activated else d)
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))

    @abc.abstractmethod
    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        """Log-probability of each entry, nats."""

    @abc.abstractmethod
    def mean(self, outputs: Map) -> Map:
        """The expected data, in units of the data."""

    @abc.abstractmethod
    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        """Data, as floats.

        Args:
          outputs: Parameters as the network gives them.
          key: Key of the draws.
          temperature: Factor on the scales of normals and logistics, and divisor of logits; at 0 the data are the mode
            of the distribution, of a mixture that of its most probable component.
        """


class Bernoulli(Likelihood):
    """``p(x = 1) = sigmoid(outputs)``."""

    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        return bernoulli_log_prob(x, outputs)

    def mean(self, outputs: Map) -> Map:
        return jax.nn.sigmoid(outputs)

    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        warm = jnp.asarray(temperature) > 0
        tempered = jax.nn.sigmoid(outputs / jnp.where(warm, temperature, 1.0))
        probability = jnp.where(warm, tempered, (outputs > 0).astype(tempered.dtype))
        drawn = jax.random.bernoulli(key, probability).astype(outputs.dtype)
        return jnp.where(jnp.isnan(outputs), outputs, drawn)


class Gaussian(Likelihood):
    """Independent normals of continuous data, mean and ``std`` by the network."""

    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        return normal_log_prob(x, *Moments.of(outputs))

    def mean(self, outputs: Map) -> Map:
        return Moments.of(outputs).mean

    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        moments = Moments.of(outputs)
        eps = jax.random.normal(key, moments.mean.shape, moments.mean.dtype)
        return moments.at(jnp.asarray(temperature * eps))


class DiscretisedLogistic(Likelihood):
    """One logistic a channel on ``levels`` bins that divide [0, 1], the outer ones reaching to infinity.

    ``mean = output + 1/2`` and ``log scale = max(output - 1, -7)``, on [0, 1]. ``reference`` adds 1e-7 to every mass,
    as the released code does: then the masses sum to more than 1.

    References:
      Kingma et al., 2016, Improved variational inference with inverse autoregressive flow, arXiv:1606.04934.
    """

    activated = False

    def __init__(self, levels: int, form: Form, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.form: Form = form
        self.levels = levels

    def parameters(self, outputs: Map) -> tuple[Map, Map]:
        """Mean and log-scale, on [0, 1]."""
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return mean + 0.5, jnp.maximum(log_scale - 1.0, MIN_LOG_SCALE)

    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        mean, log_scale = self.parameters(outputs)
        half = (
            self.levels - 1
        ) / 2  # bin k is [k, k + 1] / levels here, and centered on its level in the formula
        mean, log_scale = (
            (self.levels * mean - 0.5) / half - 1.0,
            log_scale + math.log(self.levels / half),
        )
        k = jnp.broadcast_to(x, mean.shape).astype(mean.dtype)
        log_mass = discretized_logistic_log_prob(k, mean, log_scale, self.levels)
        return log_mass if self.form == "exact" else jnp.log(jnp.exp(log_mass) + 1e-7)

    def mean(self, outputs: Map) -> Map:
        mean, log_scale = self.parameters(outputs)
        inverse_scale = jnp.exp(-log_scale)

        def add(j: Array, total: Array) -> Array:
            return total + jax.nn.sigmoid((mean - j / self.levels) * inverse_scale)  # P(k >= j)

        return jax.lax.fori_loop(1, self.levels, add, jnp.zeros_like(mean))

    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        mean, log_scale = self.parameters(outputs)
        value = mean + temperature * jnp.exp(log_scale) * jax.random.logistic(
            key, mean.shape, mean.dtype
        )
        return jnp.clip(jnp.floor(self.levels * value), 0, self.levels - 1)


class DiscretisedLogisticMixture(Likelihood):
    """PixelCNN++'s mixture of discretized logistics for the channels of a pixel.

    Its mean is that of the components' means, each channel given the means of those before it.
    """

    activated = False

    def __init__(self, levels: int, form: Form, channels: int, mixtures: int, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.form: Form = form
        self.levels, self.channels, self.mixtures = levels, channels, mixtures

    def mixture(self, outputs: Map) -> LogisticMixture:
        """The mixture of every pixel."""
        return LogisticMixture.of(outputs, self.channels, self.mixtures)

    def log_prob(self, outputs: Map, x: Num[Array, "..."]) -> Float[Array, "..."]:
        x = jnp.broadcast_to(x, (*outputs.shape[:-1], self.channels))
        return logistic_mixture_log_probs(x, self.mixture(outputs), self.levels, self.form)

    def mean(self, outputs: Map) -> Map:
        mixture = self.mixture(outputs)
        weights = jax.nn.softmax(mixture.logits)
        values: list[Array] = []
        for channel in range(self.channels):
            before = (
                jnp.stack(values, axis=-1)
                if values
                else jnp.zeros((*weights.shape[:-1], 0), weights.dtype)
            )
            values.append(
                jnp.clip(jnp.sum(weights * mixture.mean(channel, before), axis=-1), -1.0, 1.0)
            )
        return (jnp.stack(values, axis=-1) + 1.0) * ((self.levels - 1) / 2)

    def sample(self, outputs: Map, key: Array, temperature: ArrayLike = 1.0) -> Map:
        component_key, value_key = jax.random.split(key)
        shape = outputs.shape[:-1]
        gumbel = jax.random.gumbel(component_key, (*shape, self.mixtures), outputs.dtype)
        logistic = jax.random.logistic(value_key, (*shape, self.channels), outputs.dtype)
        values = logistic_mixture_sample(
            self.mixture(outputs), gumbel, logistic, self.levels, temperature
        )
        return to_level(values, self.levels)


def likelihood(
    name: LikelihoodName,
    shape: MapShape,
    channels: int,
    *,
    levels: int,
    mixtures: int,
    form: Form,
    dense: bool,
    options: Options,
    rngs: nnx.Rngs,
) -> Likelihood:
    """The likelihood of that name on a last map of that shape; ``dense`` where the map is a vector."""
    make = {"options": options, "rngs": rngs}
    kernel = 1 if dense else 3
    if name == "bernoulli":
        return Bernoulli(shape, channels, kernel=kernel, **make)
    if name == "gaussian":
        return Gaussian(shape, 2 * channels, kernel=kernel, **make)
    if name == "logistic":
        return DiscretisedLogistic(levels, form, shape, 2 * channels, kernel=kernel, **make)
    size = LogisticMixture.size(channels, mixtures)
    return DiscretisedLogisticMixture(
        levels, form, channels, mixtures, shape, size, kernel=1, **make
    )

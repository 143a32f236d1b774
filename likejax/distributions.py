"""Log-density functions, one per formula; nats, elementwise, no state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from likejax.inputs import inside_levels
from likejax.settings import checked

Form = Literal["exact", "reference"]
"""Form in which a discretized logistic is computed; see ``discretized_logistic_log_prob``."""

MIN_LOG_SCALE = -7.0
"""Smallest log-scale of a logistic, on the scale on which the levels span [-1, 1]."""


def standard_normal_log_prob(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``log N(x; 0, 1) = -(x^2 + log 2 pi) / 2``, elementwise.

    Args:
      x: Numbers of any shape.

    Returns:
      Log-densities in nats, of the shape of ``x``.
    """
    return -0.5 * (x * x + math.log(2 * math.pi))


def normal_log_prob(
    x: Float[Array, "*#shape"], mean: Float[Array, "*#shape"], std: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """``log N(x; mean, std^2)``, elementwise.

    Args:
      x: Numbers of any shape.
      mean: Means, of a shape that broadcasts with that of ``x``.
      std: Standard deviations above 0, likewise.

    Returns:
      Log-densities in nats, of the broadcast shape.
    """
    return standard_normal_log_prob((x - mean) / std) - jnp.log(std)


def student_t_log_prob(
    x: Float[Array, "*#shape"], degrees: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """Log-density of Student's t with ``degrees`` of freedom, location 0 and scale 1, elementwise.

    ``log G((v + 1) / 2) - log G(v / 2) - log(v pi) / 2 - (v + 1) / 2 log(1 + x^2 / v)`` with the
    gamma function ``G``. For many degrees of freedom the difference of the first two terms is
    computed as a series, since it would lose its digits.

    Args:
      x: Numbers of any shape.
      degrees: Degrees of freedom above 0, of a shape that broadcasts with that of ``x``.

    Returns:
      Log-densities in nats, of the broadcast shape.
    """
    half = degrees / 2
    power = (half + 0.5) * jnp.log1p(x * x / degrees)
    return _log_gamma_step(half) - 0.5 * jnp.log(math.pi * degrees) - power


def _log_gamma_step(a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``log G(a + 1/2) - log G(a)`` for positive ``a``; the series is exact to 1e-9 from 8 on."""
    large = a > 8
    inverse = 1 / jnp.where(large, a, 8.0)
    square = inverse * inverse
    series = inverse * (-1 / 8 + square * (1 / 192 - square / 640))
    small = jnp.where(large, 1.0, a)
    direct = jax.lax.lgamma(small + 0.5) - jax.lax.lgamma(small)
    return jnp.where(large, 0.5 * jnp.log(jnp.where(large, a, 1.0)) + series, direct)


def normal_kl(
    mean: Float[Array, "*#shape"],
    std: Float[Array, "*#shape"],
    other_mean: Float[Array, "*#shape"],
    other_std: Float[Array, "*#shape"],
) -> Float[Array, "*#shape"]:
    """``KL(N(mean, std^2) || N(other_mean, other_std^2))``, elementwise.

    Args:
      mean: Means of the first normal.
      std: Standard deviations of the first normal, above 0.
      other_mean: Means of the second normal.
      other_std: Standard deviations of the second normal, above 0.

    Returns:
      Divergences in nats, of the broadcast shape of the four.
    """
    ratio, distance = std / other_std, (mean - other_mean) / other_std
    return 0.5 * (ratio * ratio + distance * distance - 1.0) - jnp.log(ratio)


def bernoulli_log_prob(
    k: Num[Array, "*#shape"], logits: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """``k log p + (1 - k) log(1 - p)`` with ``p = sigmoid(logits)``, for ``k`` in {0, 1}.

    Args:
      k: Zeros and ones, as integers or floats.
      logits: Log-odds of a one, of a shape that broadcasts with that of ``k``.

    Returns:
      Log-masses in nats, of the broadcast shape.
    """
    return -jax.nn.softplus(jnp.where(k > 0, -logits, logits))


def to_unit_scale(
    k: Num[Array, "*shape"], levels: int, dtype: jnp.dtype | type = jnp.float32
) -> Float[Array, "*shape"]:
    """Maps integers ``0..levels-1`` to ``2 k / (levels - 1) - 1`` on [-1, 1].

    Args:
      k: Integers ``0..levels-1``, as integers or floats.
      levels: Number of integers, at least 2.
      dtype: Floating-point type of the result.

    Returns:
      Numbers on [-1, 1], of the shape of ``k``.
    """
    return k.astype(dtype) * (2.0 / (levels - 1)) - 1.0


def discretized_logistic_log_prob(
    k: Float[Array, "*shape"],
    mean: Float[Array, "*shape"],
    log_scale: Float[Array, "*shape"],
    levels: int,
    form: Form = "exact",
) -> Float[Array, "*shape"]:
    """Log-mass that a logistic gives to the bin of an integer, elementwise, in nats.

    ``log(sigmoid((k + 1/2 - m) / s) - sigmoid((k - 1/2 - m) / s))`` with mean ``m`` and scale ``s``
    in units of one level; the lowest bin reaches to minus infinity, the highest to infinity. The
    exact form is
    ``log(1 - exp(-1 / s)) - softplus(-(k + 1/2 - m) / s) - softplus((k - 1/2 - m) / s)``, which
    loses no digits however small the mass is. Neighboring bins share their edge bit by bit, so that
    the masses sum to 1.

    Args:
      k: Integers ``0..levels-1``, as floats.
      mean: Mean, on the scale on which the levels span [-1, 1].
      log_scale: Log of the scale, on that scale.
      levels: Number of integers.
      form: ``exact``; or ``reference``, which takes the difference of the sigmoids and, where that
        is at most 1e-5, the density at the center times the width, as the official PixelCNN++ code.

    Returns:
      Log-masses in nats, of the shape of ``k``.

    References:
      Salimans, Karpathy, Chen and Kingma, 2017, PixelCNN++, arXiv:1701.05517, section 2.1.
    """
    form = checked("form", form, Form)
    half = (levels - 1) / 2
    centered = k - (mean + 1.0) * half  # in levels
    inverse_scale = jnp.exp(-log_scale) / half
    upper, lower = (centered + 0.5) * inverse_scale, (centered - 0.5) * inverse_scale
    if form == "exact":
        inner = _log_one_minus_exp(inverse_scale, -log_scale - math.log(half))
        inner = inner - jax.nn.softplus(-upper) - jax.nn.softplus(lower)
    else:
        difference = jax.nn.sigmoid(upper) - jax.nn.sigmoid(lower)
        middle = centered * inverse_scale
        density = middle - log_scale - 2.0 * jax.nn.softplus(middle) - math.log(half)
        inner = jnp.where(difference > 1e-5, jnp.log(jnp.maximum(difference, 1e-12)), density)
    lowest, highest = k < _EDGE, k > levels - 1 - _EDGE
    return jnp.where(
        lowest, -jax.nn.softplus(-upper), jnp.where(highest, -jax.nn.softplus(lower), inner)
    )


_EDGE = 0.1275
"""Distance from the outer levels within which a value belongs to an outer bin, in levels.

It is the official code's 0.001 on [-1, 1] at 256 levels, and matters for values off the grid.
"""


def _log_one_minus_exp(
    x: Float[Array, "*shape"], log_x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """``log(1 - exp(-x))`` for positive ``x`` down to 0, where it is ``log x``.

    Its gradients are finite.
    """
    small = x < 1e-2
    series = log_x - x / 2 + x * x / 24
    return jnp.where(small, series, jnp.log(-jnp.expm1(-jnp.where(small, 1.0, x))))


class LogisticMixture(NamedTuple):
    """Parameters of a mixture of logistics over the channels of a pixel.

    The mean of a channel is linear in the channels before it:
    ``means[c] + sum_d coefficients[c, d] x[d]``, ``d < c``.

    Attributes:
      logits: Logits of the components, ``(*shape, mixtures)``.
      means: Means ``(*shape, channels, mixtures)``, on the scale on which the levels span [-1, 1].
      log_scales: Log-scales ``(*shape, channels, mixtures)``, at least ``MIN_LOG_SCALE``.
      coefficients: Coefficients ``(*shape, channels (channels - 1) / 2, mixtures)``, in the order
        (1, 0), (2, 0), (2, 1), ...
    """

    logits: Float[Array, "*shape mixtures"]
    means: Float[Array, "*shape channels mixtures"]
    log_scales: Float[Array, "*shape channels mixtures"]
    coefficients: Float[Array, "*shape pairs mixtures"]

    @staticmethod
    def size(channels: int, mixtures: int) -> int:
        """Returns the number of parameters of a pixel.

        Args:
          channels: Number of channels of a pixel.
          mixtures: Number of components.

        Returns:
          ``mixtures (1 + 2 channels + channels (channels - 1) / 2)``.
        """
        return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)

    @classmethod
    def of(
        cls, outputs: Float[Array, "*shape size"], channels: int, mixtures: int
    ) -> LogisticMixture:
        """Makes a mixture of a network's outputs.

        Log-scales are clipped from below, and coefficients go through tanh.

        Args:
          outputs: Outputs ``(*shape, size)``, with the ``size`` of ``LogisticMixture.size``.
          channels: Number of channels of a pixel.
          mixtures: Number of components.

        Returns:
          The mixture of every pixel.
        """
        rows = outputs.reshape(*outputs.shape[:-1], -1, mixtures)
        logits, means, log_scales, coefficients = jnp.split(
            rows, [1, 1 + channels, 1 + 2 * channels], axis=-2
        )
        clipped = jnp.where(log_scales >= MIN_LOG_SCALE, log_scales, MIN_LOG_SCALE)
        return cls(logits[..., 0, :], means, clipped, jnp.tanh(coefficients))

    def mean(
        self, channel: int, before: Float[Array, "*shape channels"]
    ) -> Float[Array, "*shape mixtures"]:
        """Returns the means of a channel's components given the channels before it.

        Args:
          channel: Number of the channel.
          before: Values of the channels before it, on [-1, 1].
        """
        first = channel * (channel - 1) // 2
        mean = self.means[..., channel, :]
        for d in range(channel):
            mean = mean + self.coefficients[..., first + d, :] * before[..., d, None]
        return mean


def logistic_mixture_log_probs(
    k: Num[Array, "*shape channels"],
    mixture: LogisticMixture,
    levels: int,
    form: Form = "exact",
) -> Float[Array, "*shape channels"]:
    """Log-mass of every channel of integer pixels given the channels before it, nats.

    ``log p(x_c | x_<c) = log sum_m w_m prod_(d <= c) p_md - log sum_m w_m prod_(d < c) p_md``;
    their sum is the log-mass of the pixel, whose channels share the component.

    Args:
      k: Integers ``0..levels-1``, as integers or floats.
      mixture: Parameters of the pixels.
      levels: Number of integers.
      form: Form of the logistic, see ``discretized_logistic_log_prob``.
    """
    values = k.astype(mixture.means.dtype)
    scaled = to_unit_scale(values, levels, values.dtype)
    total, before, out = jax.nn.log_softmax(mixture.logits), 0.0, []
    for channel in range(k.shape[-1]):
        mean, log_scale = mixture.mean(channel, scaled), mixture.log_scales[..., channel, :]
        value = jnp.broadcast_to(values[..., channel, None], mean.shape)
        total = total + discretized_logistic_log_prob(value, mean, log_scale, levels, form)
        joint = jax.nn.logsumexp(total, axis=-1)
        out.append(joint - before)
        before = joint
    return jnp.stack(out, axis=-1)


def table_log_probs(
    k: Num[Array, "*shape"], log_probs: Float[Array, "*shape levels"]
) -> Float[Array, "*shape"]:
    """Log-masses of integers by tables of them, elementwise; minus infinity outside the levels.

    Args:
      k: Integers.
      log_probs: Log-mass of every level of every entry.
    """
    rows = k[..., None].astype(jnp.int32)
    found = jnp.take_along_axis(log_probs, rows, axis=-1, mode="clip")[..., 0]
    return jnp.where(inside_levels(k, log_probs.shape[-1]), found, -jnp.inf)


def table_moments(
    log_probs: Float[Array, "*shape levels"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Moments of the log-mass of a value drawn by a table of them; ``log_prob_moments``.

    Args:
      log_probs: Log-mass of every level of every entry.
    """
    levels = log_probs.shape[-1]
    return log_prob_moments(lambda value: log_probs[..., value.astype(jnp.int32)], levels)


def log_prob_moments(
    log_prob: Callable[[Float[Array, ""]], Float[Array, "*shape"]], levels: int
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Mean and standard deviation of ``log p`` of a value drawn from ``p`` on integers, in nats.

    ``mean = sum_v p(v) log p(v)`` and ``std^2 = sum_v p(v) (log p(v) - mean)^2``. The values are
    taken one after the other and the moments corrected by each, so that nothing cancels and only
    one value's masses are held.

    Args:
      log_prob: Function from a value ``0..levels-1`` to its log-masses, ``(*shape,)``.
      levels: Number of integers.
    """

    def with_value(
        moments: tuple[Array, Array, Array], value: Array
    ) -> tuple[tuple[Array, Array, Array], None]:
        total, mean, square = moments
        each = log_prob(value)
        mass = jnp.exp(each)
        finite = jnp.where(mass == 0, 0.0, each)  # a mass of 0 adds 0
        total = total + mass
        distance = finite - mean
        mean = mean + distance * mass / jnp.where(total == 0, 1.0, total)
        square = square + mass * distance * (finite - mean)
        return (total, mean, square), None

    form = jax.eval_shape(log_prob, jnp.zeros(()))
    nothing = jnp.zeros(form.shape, form.dtype)
    values = jnp.arange(levels, dtype=form.dtype)
    (_, mean, square), _ = jax.lax.scan(with_value, (nothing, nothing, nothing), values)
    return mean, jnp.sqrt(jnp.maximum(square, 0.0))


def logistic_mixture_moments(
    k: Num[Array, "*shape channels"],
    mixture: LogisticMixture,
    levels: int,
    form: Form = "exact",
) -> tuple[Float[Array, "*shape channels"], Float[Array, "*shape channels"]]:
    """Moments of ``log p(v | x_<c)`` over the values ``v`` of every channel; ``log_prob_moments``.

    Given the channels before it, a channel is a mixture of logistics whose weights are those of the
    components given these channels.

    Args:
      k: Integers ``0..levels-1``, as integers or floats.
      mixture: Parameters of the pixels.
      levels: Number of integers.
      form: Form of the logistic, see ``discretized_logistic_log_prob``.

    Returns:
      Means and standard deviations, each of the shape of ``k``.
    """
    values = k.astype(mixture.means.dtype)
    scaled = to_unit_scale(values, levels, values.dtype)
    weights = jax.nn.log_softmax(mixture.logits)
    means, stds = [], []
    for channel in range(k.shape[-1]):
        mean, log_scale = mixture.mean(channel, scaled), mixture.log_scales[..., channel, :]
        of_components = functools.partial(
            discretized_logistic_log_prob, mean=mean, log_scale=log_scale, levels=levels, form=form
        )

        def log_prob(
            value: Array,
            weights: Array = weights,
            of_components: Callable[[Array], Array] = of_components,
        ) -> Array:
            each = of_components(jnp.broadcast_to(value, weights.shape))
            return jax.nn.logsumexp(weights + each, axis=-1)

        each = log_prob_moments(log_prob, levels)
        means.append(each[0])
        stds.append(each[1])
        of_this = of_components(jnp.broadcast_to(values[..., channel, None], weights.shape))
        weights = jax.nn.log_softmax(weights + of_this)
    return jnp.stack(means, axis=-1), jnp.stack(stds, axis=-1)


def logistic_mixture_sample(
    mixture: LogisticMixture,
    gumbel: Float[Array, "*shape mixtures"],
    logistic: Float[Array, "*shape channels"],
    levels: int | None,
    temperature: ArrayLike = 1.0,
) -> Float[Array, "*shape channels"]:
    """Pixels on [-1, 1] drawn with given noise, channel by channel.

    The component is that of the largest ``logits + temperature * gumbel``. A value is its mean plus
    ``temperature * scale * logistic``, clipped to [-1, 1] and put on the nearest level before the
    next channel sees it.

    Args:
      mixture: Parameters of the pixels.
      gumbel: Standard Gumbel noise.
      logistic: Standard logistic noise.
      levels: Number of integers; ``None`` leaves values between the levels, as the official code.
      temperature: Factor on the noise; 0 gives the largest component's mean.
    """
    best = jnp.argmax(mixture.logits + temperature * gumbel, axis=-1)
    chosen = jax.nn.one_hot(best, gumbel.shape[-1], dtype=mixture.logits.dtype)
    values: list[Array] = []
    for channel in range(logistic.shape[-1]):
        before = jnp.stack(values, axis=-1) if values else logistic
        mean = jnp.sum(chosen * mixture.mean(channel, before), axis=-1)
        scale = jnp.exp(jnp.sum(chosen * mixture.log_scales[..., channel, :], axis=-1))
        value = jnp.clip(mean + temperature * scale * logistic[..., channel], -1.0, 1.0)
        if levels is not None:
            value = to_unit_scale(to_level(value, levels), levels, value.dtype)
        values.append(value)
    return jnp.stack(values, axis=-1)


def to_level(x: Float[Array, "*shape"], levels: int) -> Float[Array, "*shape"]:
    """Returns the level nearest to ``x`` on [-1, 1], as a float.

    Args:
      x: Numbers of any shape, on the scale on which the levels span [-1, 1].
      levels: Number of integers, at least 2.

    Returns:
      Integers ``0..levels-1`` in the type of ``x``, of its shape.
    """
    return jnp.clip(jnp.round((x + 1.0) * ((levels - 1) / 2)), 0, levels - 1)

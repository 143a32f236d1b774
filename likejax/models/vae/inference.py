"""One way through a hierarchical VAE: up from the data to the latents, and down to the data.

Latents and everything that belongs to them are ordered from the one next to the data upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.distributions import standard_normal_log_prob
from likejax.models.vae.likelihood import Likelihood
from likejax.models.vae.network import GenerativeStage, InferenceStage, Map, Moments

Replacement = Literal["sample", "mean"]
"""Value of a latent that is not inferred: a draw from its conditional prior, or its mean."""
Latents = tuple[Float[Array, "..."], ...]
"""Values of all latents, from the one next to the data upwards."""


class Noise(NamedTuple):
    """Standard normal noise of every latent.

    Attributes:
      posterior: Noise for draws from the posteriors.
      prior: Noise for draws from the conditional priors.
    """

    posterior: Latents
    prior: Latents


class Pass(NamedTuple):
    """One way through the network.

    Attributes:
      latents: Values of the latents.
      posteriors: Moments of the latents that were inferred; ``None`` for those from the conditional
        prior.
      priors: Moments of the conditional priors.
      kl: ``log q(z | x) - log p(z)`` at the value, elementwise; ``None`` for latents that were not
        inferred.
      outputs: Parameters of the likelihood, as the network gives them.
    """

    latents: Latents
    posteriors: tuple[Moments | None, ...]
    priors: tuple[Moments, ...]
    kl: tuple[Float[Array, "..."] | None, ...]
    outputs: Array


class Encoded(NamedTuple):
    """Results of the way up for one latent.

    Attributes:
      hidden: Hidden map of the inference stage.
      posterior: Moments of the features that are inferred on the way up, or ``None``.
      z: Value of these features.
      eps: Noise that the value was drawn with.
    """

    hidden: Map
    posterior: Moments | None
    z: Float[Array, "..."] | None
    eps: Float[Array, "..."] | None


class Ladder(NamedTuple):
    """The parts of the network, and the condition that all of them see.

    Attributes:
      inference: Inference stages, one per latent.
      generation: Generative stages, one per latent.
      likelihood: Distribution of the data.
      condition: Labels ``(*batch,)`` or floats ``(*batch, size)`` of a conditional model.
    """

    inference: Sequence[InferenceStage]
    generation: Sequence[GenerativeStage]
    likelihood: Likelihood
    condition: Array | None

    @property
    def depth(self) -> int:
        """Number of latents, L."""
        return len(self.generation)


def draw_noise(key: Array, shapes: Sequence[tuple[int, ...]], dtype: jnp.dtype) -> Noise:
    """Draws the noise of one example.

    Args:
      key: Key of the example.
      shapes: Shape of each latent.
      dtype: Type of the latents.
    """
    sizes = [math.prod(shape) for shape in shapes]
    cuts = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]

    def draw(key: Array) -> Latents:
        # One flat draw: XLA takes seconds to compile a vectorized draw of several axes.
        flat = jax.random.normal(key, (sum(sizes),), dtype)
        parts = jnp.split(flat, cuts)
        return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))

    posterior_key, prior_key = jax.random.split(key)
    return Noise(draw(posterior_key), draw(prior_key))


def up(
    ladder: Ladder, x: Map, eps: Latents, *, means: int = 0, known: Sequence[Encoded] = ()
) -> list[Encoded]:
    """Goes up from the data, or from the stages that are known.

    Args:
      ladder: The network.
      x: Data as a map.
      eps: Noise of the posteriors.
      means: Number of lowest latents that take their posterior means; the others are drawn.
      known: Results of the lowest stages, which are not computed again.

    Returns:
      The result of every stage.
    """
    encoded = list(known)
    for i in range(len(known), ladder.depth):
        stage = ladder.inference[i]
        if i == 0:
            hidden = stage(x, None, ladder.condition)
        else:
            below = encoded[-1]
            start, skip = ladder.inference[i - 1].upwards(below.hidden, below.z)
            hidden = stage(start, skip, ladder.condition)
        posterior = z = own = None
        if stage.posterior is not None:
            posterior = stage.posterior(hidden)
            own = eps[i][..., : stage.features]
            z = posterior.mean if i < means else posterior.at(own)
        encoded.append(Encoded(hidden, posterior, z, own))
    return encoded


def ways_up(ladder: Ladder, x: Map, eps: Latents, ks: tuple[int, ...]) -> list[list[Encoded]]:
    """Goes up once for each ``k``, with posterior means for the ``k`` lowest latents.

    The stages up to ``k`` see means only, so they are computed once for all ``k``.

    Args:
      ladder: The network.
      x: Data as a map.
      eps: Noise of the posteriors.
      ks: Numbers of lowest latents that take their means.

    Returns:
      The result of every stage, for each ``k``.
    """
    most = max(ks)
    by_means = up(ladder, x, eps, means=most)
    ways = []
    for k in ks:
        first = by_means[k]
        if k == most or first.posterior is None:
            ways.append(by_means)  # without a posterior nothing above depends on k
            continue
        assert first.eps is not None
        drawn = first._replace(z=first.posterior.at(first.eps))
        ways.append(up(ladder, x, eps, means=k, known=[*by_means[:k], drawn]))
    return ways


def down(
    ladder: Ladder,
    encoded: Sequence[Encoded] | None,
    noise: Noise,
    *,
    above: int,
    replacement: Replacement,
) -> Pass:
    """Goes down to the data.

    Args:
      ladder: The network.
      encoded: Result of the way up; ``None`` if no latent is inferred.
      noise: Noise of all latents.
      above: Number of lowest latents that come from their conditional priors.
      replacement: Whether these are draws or means.
    """
    latents, posteriors, priors, divergences = [], [], [], []
    d, skips = None, ()
    for i in reversed(range(ladder.depth)):
        stage, eps = ladder.generation[i], noise.prior[i]
        # The prior of the top latent has no batch axes, unless there is a condition.
        moments = stage.prior(d, ladder.condition)
        prior = Moments(*(jnp.broadcast_to(part, eps.shape) for part in moments))
        posterior = divergence = None
        if encoded is None or i < above:
            z = prior.mean if replacement == "mean" else prior.at(eps)
        else:
            z, posterior, eps = _inferred(stage, encoded[i], d, noise.posterior[i])
            divergence = _sampled_divergence(z, eps, posterior, prior)
        latents.append(z)
        posteriors.append(posterior)
        priors.append(prior)
        divergences.append(divergence)
        d, skips = stage(z, skips, ladder.condition, top=i == ladder.depth - 1)
    assert d is not None
    return Pass(
        latents=tuple(latents[::-1]),
        posteriors=tuple(posteriors[::-1]),
        priors=tuple(priors[::-1]),
        kl=tuple(divergences[::-1]),
        outputs=ladder.likelihood.outputs(d),
    )


def decoded(ladder: Ladder, latents: Latents) -> Array:
    """Returns the parameters of the likelihood, given all latents.

    Args:
      ladder: The network.
      latents: Values of the latents.
    """
    return generated(ladder, latents)[0]


def generated(ladder: Ladder, latents: Latents) -> tuple[Array, tuple[Moments, ...]]:
    """Returns the parameters of the likelihood and the moments of the priors, given all latents.

    Args:
      ladder: The network.
      latents: Values of the latents.
    """
    skips: tuple[Map, ...] = ()
    d, priors = None, []
    for i in reversed(range(ladder.depth)):
        stage = ladder.generation[i]
        priors.append(stage.prior(d, ladder.condition))
        d, skips = stage(latents[i], skips, ladder.condition, top=i == ladder.depth - 1)
    assert d is not None
    return ladder.likelihood.outputs(d), tuple(priors[::-1])


def _sampled_divergence(z: Array, eps: Array, posterior: Moments, prior: Moments) -> Array:
    """``log q(z) - log p(z)`` for ``z = posterior.mean + posterior.std * eps``, elementwise."""
    log_q = standard_normal_log_prob(eps) - jnp.log(posterior.std)
    whitened = (z - prior.mean) / prior.std
    return log_q - standard_normal_log_prob(whitened) + jnp.log(prior.std)


def _inferred(
    stage: GenerativeStage, encoded: Encoded, d: Map | None, eps: Float[Array, "..."]
) -> tuple[Array, Moments, Array]:
    """A latent's value, the moments of its posterior, and its noise.

    Features inferred on the way up come first, those inferred on the way down behind them.
    """
    if stage.posterior is None:
        assert encoded.posterior is not None
        assert encoded.z is not None
        assert encoded.eps is not None
        return encoded.z, encoded.posterior, encoded.eps
    moments = stage.posterior_down(encoded.hidden, d)
    own = eps[..., eps.shape[-1] - moments.mean.shape[-1] :]
    z = moments.at(own)
    if encoded.posterior is None or encoded.z is None:
        return z, moments, own
    return jnp.concatenate([encoded.z, z], axis=-1), encoded.posterior.joined(moments), eps

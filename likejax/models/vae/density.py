"""Hierarchical variational autoencoders, bottom-up, top-down and bidirectional; one latent or many."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from likejax.density import Density, Kind, LatentTerms, Terms, combine_draws, integer_dtype
from likejax.distributions import Form, normal_kl, standard_normal_log_prob
from likejax.inputs import as_array, inside_levels
from likejax.keys import KeyLike
from likejax.models.vae.likelihood import Likelihood, LikelihoodName, likelihood
from likejax.models.vae.network import (
    Activation,
    Block,
    GenerativeStage,
    InferenceStage,
    Map,
    MapShape,
    Moments,
    Options,
    Skips,
)
from likejax.nn.dtypes import compute_dtype
from likejax.nn.weight_norm import initialize_by_running
from likejax.settings import Count, CountOrZero, Positive, Range, Settings, checked

Inference = Literal["bottom_up", "top_down", "bidirectional"]
Replacement = Literal["sample", "mean"]
"""What stands for a latent that is not inferred: a draw from its conditional prior, or its mean."""
Latents = tuple[Float[Array, "..."], ...]
"""From the one next to the data upwards."""


@dataclasses.dataclass(frozen=True)
class StageConfig(Settings):
    """One latent of a VAE and its blocks, from the data upwards; the generative blocks mirror them.

    Example:
      >>> import likejax as lj
      >>> lj.models.StageConfig(channels=(32, 32), strides=(1, 2), latent=8).kernel
      3
    """

    channels: tuple[Count, ...] = (64, 64, 64)
    """Of each residual block."""
    strides: tuple[Annotated[int, Range(at_least=1, at_most=2)], ...] = (1, 1, 1)
    """Of each block: 2 halves the map."""
    kernel: Count | tuple[Count, ...] = 3
    """Rows and columns of the kernels: one number for all blocks, or one for each."""
    latent: Count = 8
    """Features of the latent."""
    dense: bool = True
    """Whether the latent is a vector; otherwise a map of the size that the blocks leave."""
    gated: tuple[bool, ...] | None = None
    """Which blocks have a gate; None for all or none of them, as ``VAEConfig.gated`` says."""

    def _check_together(self):
        if not self.channels or len(self.channels) != len(self.strides):
            raise ValueError(
                f"expected a stride for each block's channels, got {self.channels} and {self.strides}"
            )
        if len(self.kernels) != len(self.channels):
            raise ValueError(
                f"expected one kernel, or one for each of {len(self.channels)} blocks, got {self.kernel}"
            )
        if self.gated is not None and len(self.gated) != len(self.channels):
            raise ValueError(
                f"expected gated for each of {len(self.channels)} blocks, got {self.gated}"
            )

    @property
    def kernels(self) -> tuple[int, ...]:
        """Rows and columns of the kernels of each block."""
        return (self.kernel,) * len(self.channels) if isinstance(self.kernel, int) else self.kernel

    def blocks(self, *, gated: bool) -> tuple[Block, ...]:
        """The form of each block, from the data upwards; ``gated`` where the stage itself does not say."""
        gates = (gated,) * len(self.channels) if self.gated is None else self.gated
        rows = zip(self.channels, self.kernels, self.strides, gates, strict=True)
        return tuple(Block(*row) for row in rows)


_GRAY_STAGES = (
    StageConfig(strides=(1, 1, 2), kernel=5, latent=8, dense=False),
    StageConfig(strides=(1, 1, 2), latent=16),
    StageConfig(strides=(1, 1, 1), latent=8),
)


@dataclasses.dataclass(frozen=True)
class VAEConfig(Settings):
    """A hierarchical VAE; by default that of Havtorn et al. for binarized 28x28 images, with working skips.

    Example:
      >>> import jax, likejax as lj
      >>> stage = lj.models.StageConfig(channels=(4,), strides=(2,), latent=2)
      >>> lj.build(lj.models.VAEConfig(event_shape=(4, 4, 1), stages=(stage,)), key=jax.random.key(0)).kind
      <Kind.BOUND: 'bound'>
    """

    family: ClassVar[str] = "vae"

    event_shape: tuple[Count, ...] = (28, 28, 1)
    """Height, width and channels of images, or the number of entries of a vector."""
    levels: CountOrZero = 2
    """Integer values of an entry; 0 for continuous data."""
    stages: tuple[StageConfig, ...] = _GRAY_STAGES
    """Latents and blocks, from the data upwards."""
    likelihood: LikelihoodName = "bernoulli"
    """Of the data given the latents."""
    mixtures: Count = 10
    """Components of the logistic mixture."""
    likelihood_form: Form = "exact"
    """Of a discretized logistic; ``reference`` computes small masses as the released code does."""
    inference: Inference = "bottom_up"
    """Latents inferred on the way up, each from the one below; on the way down, each from the data and those above
    (ladder); or half of each latent's features so and half so (BIVA)."""
    skips: Skips = "working"
    """Whether skips between maps of one shape work, or are left out as in the released code, which then also has a
    projection above a dense top latent that nothing reads."""
    gated: bool = False
    """Gate the output of every residual block; a stage with ``gated`` of its own says otherwise."""
    activation: Activation = "relu"
    """Between layers."""
    flatten: bool = False
    """Take the example as one vector: blocks of dense layers, with kernels of 1."""
    latent_scale: Positive = 1.0
    """Standard deviation of what layers put out for latents after initialization; 0.1 starts near N(0, 1)."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type the network computes in; the likelihood itself stays in float32."""

    def _check_together(self):
        if not self.stages:
            raise ValueError("expected at least one stage")
        if (self.levels == 0) != (self.likelihood == "gaussian"):
            raise ValueError(
                f"expected levels=0 for the gaussian likelihood and levels for the others, got {self.levels} for "
                f"{self.likelihood}"
            )
        if self.likelihood == "bernoulli" and self.levels != 2:
            raise ValueError(
                f"expected 2 levels for the bernoulli likelihood, got {self.levels}: binarize the data"
            )
        if self.levels == 1:
            raise ValueError("expected at least 2 levels, or 0 for continuous data, got 1")
        if not self.flatten and len(self.event_shape) != 3:
            raise ValueError(
                f"expected images (height, width, channels) or flatten=True, got {self.event_shape}"
            )
        if self.flatten and any(max(*stage.kernels, *stage.strides) > 1 for stage in self.stages):
            raise ValueError("expected stages of kernel 1 and strides 1 for flatten=True")

    def build(self, rngs: nnx.Rngs) -> VAE:
        """The untrained density."""
        options = Options(
            self.activation,
            self.skips,
            self.latent_scale,
            compute_dtype(self.compute_dtype),
            unread_projection=self.skips == "as_released" and self.inference == "bottom_up",
        )
        shape: MapShape = (
            (1, 1, math.prod(self.event_shape)) if self.flatten else _map_shape(self.event_shape)
        )
        data_channels = shape[2]
        last, up, below = len(self.stages) - 1, [], None
        for i, stage in enumerate(self.stages):
            inferred_up, _ = self._features(i)
            built = InferenceStage(
                shape,
                below,
                bottom=i == 0,
                top=i == last,
                blocks=stage.blocks(gated=self.gated),
                features=inferred_up,
                dense=stage.dense,
                options=options,
                rngs=rngs,
            )
            up.append(built)
            shape, below = built.next_shape, built.shape if inferred_up else None
        down: list[GenerativeStage] = []
        for i in reversed(range(len(self.stages))):
            stage, (inferred_up, inferred_down) = self.stages[i], self._features(i)
            down.append(
                GenerativeStage(
                    up[i].shape,
                    None if i == last else down[-1].shape,
                    () if i == last else down[-1].skip_shapes,
                    blocks=stage.blocks(gated=self.gated)[::-1],
                    up=inferred_up,
                    down=inferred_down,
                    dense=stage.dense,
                    options=options,
                    rngs=rngs,
                )
            )
        if down[-1].shape[:2] != ((1, 1) if self.flatten else self.event_shape[:2]):
            raise ValueError(
                f"expected strides that divide the image, {self.event_shape} comes back as {down[-1].shape[:2]}"
            )
        head = likelihood(
            self.likelihood,
            down[-1].shape,
            data_channels,
            levels=self.levels,
            mixtures=self.mixtures,
            form=self.likelihood_form,
            dense=self.flatten,
            options=options,
            rngs=rngs,
        )
        return VAE(
            up, down[::-1], head, self.event_shape, levels=self.levels or None, flatten=self.flatten
        )

    def _features(self, index: int) -> tuple[int, int]:
        """How many features of a latent are inferred on the way up, and how many on the way down."""
        features = self.stages[index].latent
        if self.inference == "bottom_up" or index == len(self.stages) - 1:
            return features, 0
        if self.inference == "top_down":
            return 0, features
        if features < 2:
            raise ValueError(
                "expected at least 2 features of each latent for bidirectional inference"
            )
        return features - features // 2, features // 2


def _map_shape(event_shape: tuple[int, ...]) -> MapShape:
    height, width, channels = event_shape
    return height, width, channels


class Noise(NamedTuple):
    """Standard normal noise of every latent: for draws from its posterior, and from its conditional prior."""

    posterior: Latents
    prior: Latents


class Pass(NamedTuple):
    """One way through the network; tuples go from the latent next to the data upwards.

    Attributes:
      latents: The values.
      posteriors: Moments of those that were inferred; ``None`` for those from the conditional prior.
      priors: Moments of the conditional priors.
      kl: ``log q(z | x) - log p(z)`` at the value, elementwise; ``None`` for those that were not inferred.
      outputs: Parameters of the likelihood, as the network gives them.
    """

    latents: Latents
    posteriors: tuple[Moments | None, ...]
    priors: tuple[Moments, ...]
    kl: tuple[Float[Array, "..."] | None, ...]
    outputs: Array


class _Encoded(NamedTuple):
    hidden: Map
    posterior: Moments | None
    z: Float[Array, "..."] | None
    eps: Float[Array, "..."] | None


class VAE(Density):
    """``p(x) = int p(x | z) p(z_1 | z_>1) ... p(z_L) dz``, bounded by inference of the latents.

    ``log_prob`` is the log importance weight ``log p(x | z) + sum_i log p(z_i | z_>i) - log q(z_i | ...)`` of one draw
    of the latents, a bound; with ``draws`` it is the importance-weighted bound. ``z_1`` is next to the data.

    The temperature of ``sample`` multiplies the standard deviation of every latent given those above it, and the scale
    of normals and logistics in the likelihood; logits are divided by it. At 0 a sample is the most likely data at the
    means of the priors.

    Args:
      inference: A stage for each latent, from the data upwards.
      generation: As many.
      likelihood: Of the data given the last map.
      event_shape: Of an example.
      levels: Integer values of an entry; ``None`` for continuous data.
      flatten: Whether the network takes an example as one vector; otherwise it is a map.

    References:
      Kingma and Welling, 2014, arXiv:1312.6114; Rezende, Mohamed and Wierstra, 2014, arXiv:1401.4082 (deep latent
      Gaussian models); Sonderby et al., 2016, arXiv:1602.02282 (ladder); Maaloe, Fraccaro, Lievin and Winther, 2019,
      arXiv:1902.02102 (BIVA); Burda, Grosse and Salakhutdinov, 2016, arXiv:1509.00519 (importance weighting);
      Havtorn, Frellsen, Hauberg and Maaloe, 2021, arXiv:2102.08248 (skips, bounds above a latent).
    """

    kind = Kind.BOUND

    def __init__(
        self,
        inference: list[InferenceStage],
        generation: list[GenerativeStage],
        likelihood: Likelihood,
        event_shape: tuple[int, ...],
        *,
        levels: int | None,
        flatten: bool = False,
    ):
        self.inference = nnx.List(inference)
        self.generation = nnx.List(generation)
        self.likelihood = likelihood
        self.event_shape = tuple(event_shape)
        self.levels = levels
        self.flatten = flatten

    @property
    def depth(self) -> int:
        """Number of latents, L."""
        return len(self.generation)

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of each latent, from the one next to the data upwards."""
        return tuple(tuple(stage.latent_shape) for stage in self.generation)

    def draw_noise(self, key: Array) -> Noise:
        """The noise that ``log_prob`` draws for one example from a key of its own."""
        sizes = [math.prod(shape) for shape in self.latent_shapes]
        cuts = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]

        def draw(key: Array) -> Latents:
            # one flat draw: XLA takes seconds to compile a vectorized one of several axes
            flat = jax.random.normal(key, (sum(sizes),), self._dtype)
            return tuple(
                part.reshape(shape)
                for part, shape in zip(jnp.split(flat, cuts), self.latent_shapes, strict=True)
            )

        posterior_key, prior_key = jax.random.split(key)
        return Noise(draw(posterior_key), draw(prior_key))

    @property
    def _dtype(self) -> jnp.dtype:
        prior = self.generation[-1].top_prior
        assert prior is not None
        return prior[...].dtype

    def run(
        self,
        x: Num[Array, "..."],
        noise: Noise,
        *,
        above: int = 0,
        replacement: Replacement = "sample",
    ) -> Pass:
        """Infers the latents above the ``above`` lowest, takes those from their conditional priors, and decodes.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          noise: With the same leading axes.
          above: How many of the lowest latents are not inferred.
          replacement: Whether those are draws or means; for means the inference above them sees posterior means too,
            as in the released code.

        Raises:
          ValueError: If ``replacement`` is another word.
        """
        replacement = checked("replacement", replacement, Replacement)
        means = above if replacement == "mean" else 0
        return self._down(self._up(x, noise.posterior, means), noise, above, replacement)

    def _up(
        self, x: Array, eps: Latents, means: int, known: Sequence[_Encoded] = ()
    ) -> list[_Encoded]:
        """The way up from the stages in ``known``, with posterior means for the ``means`` lowest latents."""
        encoded = list(known)
        for i in range(len(known), self.depth):
            stage = self.inference[i]
            if i == 0:
                hidden = stage(self._map(x), None)
            else:
                below = encoded[-1]
                hidden = stage(*self.inference[i - 1].upwards(below.hidden, below.z))
            posterior = z = own = None
            if stage.posterior is not None:
                posterior, own = stage.posterior(hidden), eps[i][..., : stage.features]
                z = posterior.mean if i < means else posterior.at(own)
            encoded.append(_Encoded(hidden, posterior, z, own))
        return encoded

    def _ways_up(self, x: Array, eps: Latents, ks: tuple[int, ...]) -> list[list[_Encoded]]:
        """The way up for each ``k``, with posterior means for the ``k`` lowest latents.

        The stages up to ``k`` see means only, so they are computed once for all ``k``.
        """
        most = max(ks)
        by_means = self._up(x, eps, means=most)
        ways = []
        for k in ks:
            first = by_means[k]
            if (
                k == most or first.posterior is None
            ):  # without a posterior nothing above depends on k
                ways.append(by_means)
                continue
            assert first.eps is not None
            drawn = first._replace(z=first.posterior.at(first.eps))
            ways.append(self._up(x, eps, means=k, known=[*by_means[:k], drawn]))
        return ways

    def _down(
        self, encoded: list[_Encoded] | None, noise: Noise, above: int, replacement: Replacement
    ) -> Pass:
        """The way down, with the ``above`` lowest latents from the conditional prior; all without an encoding."""
        latents, posteriors, priors, kls = [], [], [], []
        d, skips = None, ()
        for i in reversed(range(self.depth)):
            stage, eps = self.generation[i], noise.prior[i]
            prior = stage.prior(d)
            prior = Moments(*(jnp.broadcast_to(part, eps.shape) for part in prior))
            posterior = kl = None
            if encoded is None or i < above:
                z = prior.mean if replacement == "mean" else prior.at(eps)
            else:
                z, posterior, eps = _inferred(stage, encoded[i], d, noise.posterior[i])
                log_q = standard_normal_log_prob(eps) - jnp.log(posterior.std)
                kl = (
                    log_q
                    - standard_normal_log_prob((z - prior.mean) / prior.std)
                    + jnp.log(prior.std)
                )
            latents.append(z)
            posteriors.append(posterior)
            priors.append(prior)
            kls.append(kl)
            d, skips = stage(z, skips, top=i == self.depth - 1)
        assert d is not None
        outputs = self.likelihood.outputs(d)
        return Pass(
            tuple(latents[::-1]),
            tuple(posteriors[::-1]),
            tuple(priors[::-1]),
            tuple(kls[::-1]),
            outputs,
        )

    def _map(self, x: Array) -> Map:
        """Examples as the network takes them: maps on [0, 1], or as they are if they are continuous."""
        x = x.astype(self._dtype)
        return self._as_map(x if self.levels is None else x / (self.levels - 1))

    def _as_map(self, x: Array) -> Array:
        batch = x.shape[: x.ndim - len(self.event_shape)]
        return x.reshape(*batch, 1, 1, -1) if self.flatten else x

    def _reconstruction(self, outputs: Array, x: Array) -> Float[Array, "*batch"]:
        """``log p(x | z)``, summed over the event."""
        log_prob = self.likelihood.log_prob(outputs, self._as_map(x)).sum((-3, -2, -1))
        if self.levels is None or not jnp.issubdtype(x.dtype, jnp.integer):
            return log_prob
        inside = jnp.broadcast_to(inside_levels(x, self.levels), x.shape)
        event_axes = tuple(range(-len(self.event_shape), 0))
        return jnp.where(inside.all(event_axes), log_prob, -jnp.inf)

    def weights(self, passed: Pass, x: Num[Array, "..."]) -> Float[Array, "*batch"]:
        """``log p(x | z)`` minus the sampled divergences of the latents that were inferred, nats."""
        return self._reconstruction(passed.outputs, x) - self._divergence(passed)

    def _divergence(self, passed: Pass) -> Float[Array, "*batch"]:
        """The sampled divergences of the latents that were inferred, summed."""
        parts = [
            _summed(kl, shape)
            for kl, shape in zip(passed.kl, self.latent_shapes, strict=True)
            if kl is not None
        ]
        return sum(parts, start=jnp.zeros((), passed.outputs.dtype))

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        assert key is not None
        return self.weights(self.run(x, self.draw_noise(key)), x)

    def latent_terms_with(self, x: Num[Array, "..."], noise: Noise) -> LatentTerms:
        """``latent_terms`` with given noise, of the same leading axes as ``x``."""
        passed = self.run(x, noise)
        analytic = [
            normal_kl(*posterior, *prior)
            for posterior, prior in zip(passed.posteriors, passed.priors, strict=True)
            if posterior is not None
        ]
        sampled = tuple(kl for kl in passed.kl if kl is not None)
        reconstruction = self._reconstruction(passed.outputs, x)
        return LatentTerms(
            reconstruction - self._divergence(passed), reconstruction, tuple(analytic), sampled
        )

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        assert key is not None
        terms = self.latent_terms_with(x, self.draw_noise(key))
        parts = {"reconstruction": terms.reconstruction}
        parts |= {f"kl_{i + 1}": kl.sum() for i, kl in enumerate(terms.kl)}
        return Terms(terms.log_prob, parts)

    def latent_terms(self, x: ArrayLike, *, key: KeyLike) -> LatentTerms:
        """What an ELBO is made of, for each example; arguments as for ``terms``."""
        flat, batch = self._checked(x)
        terms = _batched_latent_terms(self, flat, self._keys(key, batch))
        return jax.tree.map(lambda term: term.reshape(batch + term.shape[1:]), terms)

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Num[Array, "*event"], Bool[Array, ""]]:
        """One sample, and whether all numbers that it comes from are finite: integers cannot show it themselves."""
        latent_key, data_key = jax.random.split(key)
        noise = self.draw_noise(latent_key)
        noise = Noise(noise.posterior, tuple(jnp.asarray(temperature * eps) for eps in noise.prior))
        passed = self._down(None, noise, self.depth, "sample")
        x = self.likelihood.sample(passed.outputs, data_key, temperature).reshape(self.event_shape)
        finite = jnp.stack(
            [jnp.isfinite(part).all() for part in (*passed.latents, passed.outputs, x)]
        ).all()
        return x if self.levels is None else x.astype(integer_dtype(self.levels)), finite

    def initialize(self, batch: ArrayLike, key: KeyLike) -> VAE:
        """A new density whose layers standardize their outputs on examples ``(n, *event_shape)``.

        Layers are initialized in the order in which they run, with drawn latents. The key is that of the noise.
        """
        flat = self._checked_batch(batch)
        return _initialized(self, flat, self._keys(key, (len(flat),)))

    def log_prob_above(
        self,
        x: ArrayLike,
        k: int | None = None,
        *,
        key: KeyLike,
        draws: int = 1,
        replacement: Replacement = "sample",
    ) -> Float[Array, "..."]:
        """``L^{>k}``: the bound with the ``k`` lowest latents from their conditional priors, nats.

        ``log p(x | z) + sum_(i > k) log p(z_i | z_>i) - log q(z_i | ...)`` with ``z_i ~ p(z_i | z_>i)`` for ``i <= k``.
        With draws of them it is a bound on ``log p(x)``, looser than ``log_prob``, which it is for ``k = 0``; with
        means, as in the released code, it is a score without a kind. The latents that are inferred see the noise of
        ``log_prob`` for the same key.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          k: How many of the lowest latents are not inferred, 0 to L - 1; ``None`` for each of these in one compiled
            call. For draws all ``k`` share one inference. For means they share the stages up to the first latent that
            is drawn: those above it see another latent for each ``k``, and are computed for each.
          key: As for ``log_prob``.
          draws: Combined by the log of the mean.
          replacement: ``sample`` or ``mean``; for means the inference above sees posterior means as well.

        Returns:
          ``(*batch,)``, or ``(L, *batch)`` for all ``k``.

        Raises:
          ValueError: If ``k`` is not between 0 and L - 1, ``replacement`` is another word, or as for ``log_prob``.

        References:
          Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know, arXiv:2102.08248.
        """
        k = checked("k", k, CountOrZero | None)
        if k is not None and k >= self.depth:
            raise ValueError(f"expected k between 0 and {self.depth - 1}, got {k}")
        draws = checked("draws", draws, Count)
        replacement = checked("replacement", replacement, Replacement)
        flat, batch = self._checked(x)
        keys = self._keys(key, batch)
        ks = tuple(range(self.depth)) if k is None else (k,)
        each = [_batched_above(self, flat, keys, draw, ks, replacement) for draw in range(draws)]
        values = combine_draws(jnp.stack(each), Kind.BOUND)
        return values.reshape(self.depth, *batch) if k is None else values.reshape(batch)

    def _above(
        self, x: Array, noise: Noise, ks: tuple[int, ...], replacement: Replacement
    ) -> Float[Array, " ks"]:
        if replacement == "mean":
            ways = self._ways_up(x, noise.posterior, ks)
        else:
            ways = [self._up(x, noise.posterior, means=0)] * len(ks)
        passes = [self._down(way, noise, k, replacement) for k, way in zip(ks, ways, strict=True)]
        return jnp.stack([self.weights(passed, x) for passed in passes])

    def encode(self, x: ArrayLike, *, key: KeyLike) -> Latents:
        """A draw of all latents given examples, from the one next to the data upwards.

        Args:
          x: ``(*batch, *event_shape)``.
          key: As for ``log_prob``.

        Returns:
          For each latent ``(*batch, *latent_shape)``.
        """
        flat, batch = self._checked(x)
        latents = _batched_latents(self, flat, self._keys(key, batch))
        return jax.tree.map(lambda z: z.reshape(batch + z.shape[1:]), latents)

    def decode(self, latents: Latents) -> Float[Array, "..."]:
        """The expected data of latents, as ``encode`` returned them, in units of the data.

        Raises:
          ValueError: If the latents are of other shapes than ``latent_shapes``, or of several batch shapes.
        """
        if not isinstance(latents, tuple | list) or len(latents) != self.depth:
            given = (
                f"{len(latents)}" if isinstance(latents, tuple | list) else type(latents).__name__
            )
            raise ValueError(f"expected {self.depth} latents in a tuple, got {given}")
        parts = [as_array("a latent", z) for z in latents]
        batches = set()
        for z, wanted in zip(parts, self.latent_shapes, strict=True):
            own = z.ndim - len(wanted)
            if own < 0 or z.shape[own:] != wanted:
                raise ValueError(
                    f"expected a latent of shape (*batch, {', '.join(map(str, wanted))}), got {z.shape}"
                )
            batches.add(z.shape[:own])
        if len(batches) > 1:
            raise ValueError(
                f"expected latents of one batch shape, got {' and '.join(map(str, sorted(batches)))}"
            )
        return _decoded(self, tuple(jnp.asarray(z, self._dtype) for z in parts))

    def reconstruct(
        self,
        x: ArrayLike,
        *,
        key: KeyLike,
        from_level: int = 0,
        replacement: Replacement = "sample",
    ) -> Float[Array, "..."]:
        """The expected data when only the latents above ``from_level`` are inferred: what those know of ``x``.

        Args:
          x: ``(*batch, *event_shape)``.
          key: As for ``log_prob``.
          from_level: How many of the lowest latents come from their conditional priors: 0 for a reconstruction from
            all, L for a sample that knows nothing of ``x``.
          replacement: Whether those are draws or means.

        Returns:
          ``(*batch, *event_shape)`` in units of the data.

        Raises:
          ValueError: If ``from_level`` is not between 0 and L, or ``replacement`` is another word.
        """
        from_level = checked("from_level", from_level, CountOrZero)
        if from_level > self.depth:
            raise ValueError(f"expected from_level between 0 and {self.depth}, got {from_level}")
        replacement = checked("replacement", replacement, Replacement)
        flat, batch = self._checked(x)
        means = _batched_reconstruction(self, flat, self._keys(key, batch), from_level, replacement)
        return means.reshape(batch + self.event_shape)

    def impute(
        self, x: ArrayLike, known: Bool[ArrayLike, "..."], *, key: KeyLike, sweeps: int = 200
    ) -> Float[Array, "..."]:
        """Expected values of entries that are not known, given those that are.

        A Markov chain: the latents are drawn given the data, the unknown data given the latents, ``sweeps`` times;
        the result is the mean of the expected data over the second half of them, with the known entries as they are.

        Args:
          x: ``(*batch, *event_shape)``; what is not known is not looked at.
          known: Which entries are known: ``(*batch, *event_shape)``, or one mask for all.
          key: As for ``log_prob``.
          sweeps: Length of the chain.

        Raises:
          TypeError: If the mask is not of booleans.
          ValueError: If ``sweeps`` is below 1 or the mask has another shape.

        References:
          Rezende, Mohamed and Wierstra, 2014, Stochastic backpropagation and approximate inference in deep generative
          models, arXiv:1401.4082, appendix F.
        """
        sweeps = checked("sweeps", sweeps, Count)
        flat, batch = self._checked(x)
        mask = as_array("known", known)
        if mask.dtype != bool:
            raise TypeError(f"expected known to be a mask of True and False, got {mask.dtype}")
        if mask.shape not in (self.event_shape, batch + self.event_shape):
            raise ValueError(
                f"expected a mask of shape {self.event_shape} or {batch + self.event_shape}, got {mask.shape}"
            )
        mask = jnp.broadcast_to(jnp.asarray(mask), batch + self.event_shape).reshape(flat.shape)
        means = _batched_imputation(self, flat, mask, self._keys(key, batch), sweeps)
        return means.reshape(batch + self.event_shape)

    def _mean(self, outputs: Array) -> Array:
        mean = self.likelihood.mean(outputs)
        return mean.reshape(*mean.shape[:-3], *self.event_shape)

    def _imputed(self, x: Array, known: Array, key: Array, sweeps: int) -> Array:
        start = jax.random.split(key, sweeps + 1)
        x = x.astype(self._dtype)
        top = 1.0 if self.levels is None else self.levels - 1.0
        guess = jax.random.uniform(start[0], x.shape, x.dtype) * top
        x = jnp.where(known, x, guess if self.levels is None else jnp.round(guess))

        def sweep(x: Array, key: Array) -> tuple[Array, Array]:
            latent_key, data_key = jax.random.split(key)
            outputs = self.run(x, self.draw_noise(latent_key)).outputs
            drawn = self.likelihood.sample(outputs, data_key).reshape(x.shape)
            return jnp.where(known, x, drawn), self._mean(outputs)

        _, means = jax.lax.scan(sweep, x, start[1:])
        return jnp.where(known, x, means[sweeps // 2 :].mean(0))


def _inferred(
    stage: GenerativeStage, encoded: _Encoded, d: Map | None, eps: Float[Array, "..."]
) -> tuple[Array, Moments, Array]:
    """A latent's value, the moments it comes from, and its noise."""
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


def _summed(values: Array, shape: tuple[int, ...]) -> Array:
    return values.sum(tuple(range(-len(shape), 0)))


def _drawn(key: Array, draw: ArrayLike) -> Array:
    return jax.random.fold_in(key, draw)


@jax.jit
def _batched_latent_terms(density: VAE, x: Array, keys: Array) -> LatentTerms:
    return jax.vmap(
        lambda x, key: density.latent_terms_with(x, density.draw_noise(_drawn(key, 0)))
    )(x, keys)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _batched_above(
    density: VAE,
    x: Array,
    keys: Array,
    draw: ArrayLike,
    ks: tuple[int, ...],
    replacement: Replacement,
) -> Array:
    def one(x: Array, key: Array) -> Array:
        return density._above(x, density.draw_noise(_drawn(key, draw)), ks, replacement)

    return jax.vmap(one, out_axes=1)(x, keys)


@jax.jit
def _batched_latents(density: VAE, x: Array, keys: Array) -> Latents:
    return jax.vmap(lambda x, key: density.run(x, density.draw_noise(_drawn(key, 0))).latents)(
        x, keys
    )


@functools.partial(jax.jit, static_argnums=(3, 4))
def _batched_reconstruction(
    density: VAE, x: Array, keys: Array, above: int, replacement: Replacement
) -> Array:
    def one(x: Array, key: Array) -> Array:
        noise = density.draw_noise(_drawn(key, 0))
        return density._mean(density.run(x, noise, above=above, replacement=replacement).outputs)

    return jax.vmap(one)(x, keys)


@functools.partial(jax.jit, static_argnums=4)
def _batched_imputation(density: VAE, x: Array, known: Array, keys: Array, sweeps: int) -> Array:
    return jax.vmap(lambda x, known, key: density._imputed(x, known, key, sweeps))(x, known, keys)


@jax.jit
def _decoded(density: VAE, latents: Latents) -> Array:
    skips: tuple[Map, ...] = ()
    d = None
    for i in reversed(range(density.depth)):
        d, skips = density.generation[i](latents[i], skips, top=i == density.depth - 1)
    assert d is not None
    return density._mean(density.likelihood.outputs(d))


@jax.jit
def _initialized(density: VAE, x: Array, keys: Array) -> VAE:
    noise = jax.vmap(density.draw_noise)(keys)
    return initialize_by_running(density, lambda density: density.run(x, noise))

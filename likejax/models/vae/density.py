"""The density of a hierarchical variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from likejax.batching import Rows, over_batch
from likejax.density import Density, Kind, Statistics, Terms, combine_in_own_type, integer_dtype
from likejax.distributions import normal_kl, normal_log_prob
from likejax.inputs import as_array, inside_levels, numpy_of
from likejax.keys import KeyLike, keys_of_batch, keys_of_rows
from likejax.models.vae import inference as passes
from likejax.models.vae import regret
from likejax.models.vae.imputation import chain_mean
from likejax.models.vae.inference import Ladder, Latents, Noise, Pass, Replacement
from likejax.models.vae.likelihood import Likelihood
from likejax.models.vae.network import GenerativeStage, InferenceStage, Map
from likejax.nn.condition import as_vector
from likejax.nn.weight_norm import initialize_by_running
from likejax.settings import Count, CountOrZero, Positive, checked


class VAE(Density):
    """``p(x) = int p(x | z) p(z_1 | z_>1) ... p(z_L) dz``, bounded by inference of the latents.

    ``log_prob`` is the log importance weight of one draw of the latents,
    ``log p(x | z) + sum_i log p(z_i | z_>i) - log q(z_i | ...)``, a bound. With ``draws`` it is the
    importance-weighted bound. ``z_1`` is next to the data.

    The terms have the parts ``reconstruction``, ``log p(x | z)``; ``kl_1``, ``kl_2``, ...,
    elementwise divergences of each latent's posterior from its prior given those above; and
    ``sampled_kl_1``, ..., their estimates ``log q - log p`` at the drawn value.

    The temperature of ``sample`` multiplies the standard deviation of every latent given those
    above it, and the scale of normals and logistics in the likelihood; logits are divided by it. At
    0 a sample is the most likely data at the means of the priors.

    Args:
      inference: Inference stages, one per latent, ordered from the data upwards.
      generation: Generative stages, one per latent, ordered from the data upwards.
      likelihood: Distribution of the data given the last map.
      event_shape: Shape of one example.
      levels: Integer values of an entry; ``None`` for continuous data.
      flatten: Whether the network takes an example as one vector; otherwise it is a map.
      condition_shape: Shape of one condition, ``()`` for a label; ``None`` if unconditional.
      num_classes: Number of class labels, if the condition is one.

    References:
      Kingma and Welling, 2014, arXiv:1312.6114; Rezende, Mohamed and Wierstra, 2014,
      arXiv:1401.4082 (deep latent Gaussian models); Sonderby et al., 2016, arXiv:1602.02282
      (ladder); Maaloe, Fraccaro, Lievin and Winther, 2019, arXiv:1902.02102 (BIVA); Burda, Grosse
      and Salakhutdinov, 2016, arXiv:1509.00519 (importance weighting); Havtorn, Frellsen, Hauberg
      and Maaloe, 2021, arXiv:2102.08248 (skips, bounds above a latent).

    Example:
      >>> import jax, numpy as np, likejax as lj
      >>> stage = lj.models.StageConfig(channels=(4,), strides=(2,), latent=2)
      >>> config = lj.models.VAEConfig(event_shape=(4, 4, 1), stages=(stage,))
      >>> vae = lj.build(config, key=jax.random.key(0))
      >>> vae.latent_shapes
      ((2,),)
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
        condition_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
    ):
        self.inference = nnx.List(inference)
        self.generation = nnx.List(generation)
        self.likelihood = likelihood
        self.event_shape = tuple(event_shape)
        self.levels = levels
        self.flatten = flatten
        self.condition_shape = condition_shape
        self.num_classes = num_classes

    def ladder(self, condition: Array | None) -> Ladder:
        """Returns the network: stages and likelihood, with the condition that they see.

        Args:
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``.
        """
        if condition is not None:
            # floats in place of a label are weights of the classes
            condition = as_vector(condition, axes=len(self.condition_shape or (1,)))
        return Ladder(self.inference, self.generation, self.likelihood, condition)

    def no_condition(self, count: int) -> Float[Array, "count ..."] | None:
        """Returns floats that add nothing, in place of conditions; ``None`` if unconditional.

        Args:
          count: Number of examples.
        """
        if self.num_classes is not None:
            return jnp.zeros((count, self.num_classes))
        if self.condition_shape is not None:
            return jnp.zeros((count, *self.condition_shape))
        return None

    @property
    def depth(self) -> int:
        """Number of latents, L."""
        return len(self.generation)

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each latent, from the one next to the data upwards."""
        return tuple(tuple(stage.latent_shape) for stage in self.generation)

    @property
    def _dtype(self) -> jnp.dtype:
        prior = self.generation[-1].top_prior
        assert prior is not None
        return prior[...].dtype

    # --- one example, or examples whose noise has the same leading axes

    def draw_noise(self, key: Array) -> Noise:
        """Draws the noise that ``log_prob`` uses for one example.

        Args:
          key: Key of the example.
        """
        return passes.draw_noise(key, self.latent_shapes, self._dtype)

    def run(
        self,
        x: Num[Array, "..."],
        noise: Noise,
        *,
        condition: Array | None = None,
        above: int = 0,
        replacement: Replacement = "sample",
    ) -> Pass:
        """Infers the upper latents, takes the others from their priors, and decodes.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          noise: Noise with the same leading axes.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``.
          above: Number of lowest latents that are not inferred.
          replacement: Whether those are draws or means. With means the inference above them sees
            posterior means too, as in the released code.

        Raises:
          ValueError: If ``replacement`` is another word.
        """
        replacement = checked("replacement", replacement, Replacement)
        means = above if replacement == "mean" else 0
        ladder = self.ladder(condition)
        encoded = passes.up(ladder, self._map(x), noise.posterior, means=means)
        return passes.down(ladder, encoded, noise, above=above, replacement=replacement)

    def prior_pass(self, noise: Noise, condition: Array | None = None) -> Pass:
        """Takes all latents from their conditional priors, and decodes.

        Args:
          noise: Noise of one example, or with leading axes.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``.
        """
        ladder = self.ladder(condition)
        return passes.down(ladder, None, noise, above=self.depth, replacement="sample")

    def weights(self, passed: Pass, x: Num[Array, "..."]) -> Float[Array, "*batch"]:
        """Returns ``log p(x | z)`` minus the sampled divergences of inferred latents, nats.

        Args:
          passed: Result of ``run`` on ``x``.
          x: Examples ``(*batch, *event_shape)``.
        """
        return self._reconstruction(passed.outputs, x) - self._divergence(passed)

    def terms_with(
        self, x: Num[Array, "..."], noise: Noise, condition: Array | None = None
    ) -> Terms:
        """Training terms with given noise.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          noise: Noise with the same leading axes.
          condition: Labels ``(*batch,)`` or floats ``(*batch, *condition_shape)``.
        """
        passed = self.run(x, noise, condition=condition)
        reconstruction = self._reconstruction(passed.outputs, x)
        parts = {"reconstruction": reconstruction}
        for i in range(self.depth):
            posterior, prior, sampled = passed.posteriors[i], passed.priors[i], passed.kl[i]
            assert posterior is not None
            assert sampled is not None
            parts[f"kl_{i + 1}"] = normal_kl(*posterior, *prior)
            parts[f"sampled_kl_{i + 1}"] = sampled
        return Terms(reconstruction - self._divergence(passed), parts)

    def log_joint(
        self, x: Num[Array, "..."], latents: Latents, condition: Array | None = None
    ) -> Float[Array, ""]:
        """Returns ``log p(x | z) + sum_i log p(z_i | z_>i)`` of one example, nats.

        Args:
          x: One example.
          latents: Values of its latents.
          condition: Its label or floats.
        """
        outputs, priors = passes.generated(self.ladder(condition), latents)
        total = self._reconstruction(outputs, x)
        for z, prior in zip(latents, priors, strict=True):
            total = total + normal_log_prob(z, *prior).sum()
        return total

    def weights_above(
        self,
        x: Array,
        noise: Noise,
        ks: tuple[int, ...],
        replacement: Replacement,
        condition: Array | None = None,
    ) -> Float[Array, " ks"]:
        """Returns the log weight of one example for each number of lowest latents, nats.

        Args:
          x: One example.
          noise: Its noise.
          ks: Numbers of lowest latents that are not inferred.
          replacement: Whether those are draws or means.
          condition: Its label or floats.
        """
        checked("replacement", replacement, Replacement)
        image, ladder = self._map(x), self.ladder(condition)
        if replacement == "mean":
            ways = passes.ways_up(ladder, image, noise.posterior, ks)
        else:
            ways = [passes.up(ladder, image, noise.posterior)] * len(ks)
        weights = []
        for k, way in zip(ks, ways, strict=True):
            passed = passes.down(ladder, way, noise, above=k, replacement=replacement)
            weights.append(self.weights(passed, x))
        return jnp.stack(weights)

    def _map(self, x: Array) -> Map:
        """Examples as the network takes them: maps on [0, 1], or unscaled if continuous."""
        x = x.astype(self._dtype)
        return self._as_map(x if self.levels is None else x / (self.levels - 1))

    def _as_map(self, x: Array) -> Array:
        batch = x.shape[: x.ndim - len(self.event_shape)]
        return x.reshape(*batch, 1, 1, -1) if self.flatten else x

    def _reconstruction(self, outputs: Array, x: Array) -> Float[Array, "*batch"]:
        """``log p(x | z)``, summed over the event; minus infinity outside the levels."""
        log_prob = self.likelihood.log_prob(outputs, self._as_map(x)).sum((-3, -2, -1))
        if self.levels is None or not jnp.issubdtype(x.dtype, jnp.integer):
            return log_prob
        inside = jnp.broadcast_to(inside_levels(x, self.levels), x.shape)
        event_axes = tuple(range(-len(self.event_shape), 0))
        return jnp.where(inside.all(event_axes), log_prob, -jnp.inf)

    def _divergence(self, passed: Pass) -> Float[Array, "*batch"]:
        """The sampled divergences of the latents that were inferred, summed."""
        total = jnp.zeros((), passed.outputs.dtype)
        for divergence, shape in zip(passed.kl, self.latent_shapes, strict=True):
            if divergence is not None:
                total = total + divergence.sum(tuple(range(-len(shape), 0)))
        return total

    def _mean(self, outputs: Array) -> Array:
        """The expected data, in the shape of events."""
        mean = self.likelihood.mean(outputs)
        return mean.reshape(*mean.shape[:-3], *self.event_shape)

    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        assert key is not None
        return self.weights(self.run(x, self.draw_noise(key), condition=condition), x)

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        assert key is not None
        return self.terms_with(x, self.draw_noise(key), condition)

    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """Reconstruction and error, and divergence, entropy and norms of each posterior."""
        assert key is not None
        passed = self.run(x, self.draw_noise(key), condition=condition)
        error = self._mean(passed.outputs) - x.astype(self._dtype)
        values = {
            "log_prob": self.weights(passed, x),
            "reconstruction": self._reconstruction(passed.outputs, x),
            "reconstruction_error": jnp.linalg.norm(error.reshape(-1)),
        }
        for i in range(self.depth):
            posterior, prior = passed.posteriors[i], passed.priors[i]
            assert posterior is not None
            values[f"kl_{i + 1}"] = normal_kl(*posterior, *prior).sum()
            values[f"posterior_log_std_{i + 1}"] = jnp.log(posterior.std).sum()
            values[f"posterior_mean_norm_{i + 1}"] = jnp.linalg.norm(posterior.mean.reshape(-1))
            values[f"posterior_std_norm_{i + 1}"] = jnp.linalg.norm(posterior.std.reshape(-1))
        return values

    def _embed(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, " d"]:
        assert key is not None
        top = self.run(x, self.draw_noise(key), condition=condition).posteriors[-1]
        assert top is not None
        return top.mean.reshape(-1)

    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Num[Array, "*event"], Bool[Array, ""]]:
        latent_key, data_key = jax.random.split(key)
        noise = self.draw_noise(latent_key)
        prior = tuple(jnp.asarray(temperature * eps) for eps in noise.prior)
        passed = self.prior_pass(Noise(noise.posterior, prior), condition)
        x = self.likelihood.sample(passed.outputs, data_key, temperature).reshape(self.event_shape)
        numbers = (*passed.latents, passed.outputs, x)
        finite = jnp.stack([jnp.isfinite(part).all() for part in numbers]).all()
        return x if self.levels is None else x.astype(integer_dtype(self.levels)), finite

    # --- batches

    def initialize(self, batch: ArrayLike, key: KeyLike) -> VAE:
        """Returns a density whose layers standardize their outputs on ``batch``.

        Layers are initialized in the order in which they run, with drawn latents and without
        conditions.

        Args:
          batch: Examples ``(n, *event_shape)``.
          key: Key of the noise.
        """
        flat = self._checked_batch(batch)
        rows = np.arange(len(flat), dtype=np.uint32)
        keys = keys_of_rows(keys_of_batch(key, (len(flat),)), rows)
        assert keys is not None
        return _initialized(self, flat, keys)

    def log_prob_above(
        self,
        x: ArrayLike,
        k: int | None = None,
        *,
        key: KeyLike,
        condition: ArrayLike | None = None,
        draws: int = 1,
        replacement: Replacement = "sample",
    ) -> Float[Array, "..."]:
        """``L^{>k}``: the bound with the ``k`` lowest latents from their conditional priors, nats.

        ``log p(x | z) + sum_(i > k) log p(z_i | z_>i) - log q(z_i | ...)`` with
        ``z_i ~ p(z_i | z_>i)`` for ``i <= k``. With draws of them it is a bound on ``log p(x)``,
        looser than ``log_prob``, which it equals for ``k = 0``. With means, as in the released
        code, it is a score without a kind. The latents that are inferred see the noise of
        ``log_prob`` for the same key.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          k: Number of lowest latents that are not inferred, 0 to L - 1; ``None`` for each of these
            in one compiled call. With draws all ``k`` share one inference. With means they share
            the stages up to the first latent that is drawn: those above it see another latent for
            each ``k``, and are computed for each.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.
          draws: Number of draws, combined by the log of the mean.
          replacement: ``sample`` or ``mean``; with means the inference above sees posterior means
            as well.

        Returns:
          ``(*batch,)``, or ``(L, *batch)`` for all ``k``.

        Raises:
          ValueError: If ``k`` is not between 0 and L - 1, ``replacement`` is another word, or as
            for ``log_prob``.

        References:
          Havtorn, Frellsen, Hauberg and Maaloe, 2021, Hierarchical VAEs know what they don't know,
          arXiv:2102.08248.
        """
        k = checked("k", k, CountOrZero | None)
        if k is not None and k >= self.depth:
            raise ValueError(f"expected k between 0 and {self.depth - 1}, got {k}")
        draws = checked("draws", draws, Count)
        replacement = checked("replacement", replacement, Replacement)
        ks = tuple(range(self.depth)) if k is None else (k,)
        options = {"ks": ks, "replacement": replacement}
        each = self._over_draws(
            _weights_of_draw, x, key=key, condition=condition, draws=draws, **options
        )
        by_level = numpy_of(each).moveaxis(each, -1, 1)
        values = combine_in_own_type(by_level, Kind.BOUND)
        return values if k is None else values[0]

    def regret(
        self,
        x: ArrayLike,
        *,
        key: KeyLike,
        condition: ArrayLike | None = None,
        steps: int = 100,
        learning_rate: float = 0.05,
        draws: int = 16,
    ) -> Float[Array, "*batch"]:
        """How much the bound gains if the posterior is fitted to each example, in nats.

        ``L(x; q*_x) - L(x; q_x)``, where ``q_x`` has independent normals with the moments that the
        network infers at the means of the latents, and ``q*_x`` has those that ``steps`` steps of
        Adam find for this example alone. The decoder does not change. Both bounds are means over
        the same draws of the noise.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.
          steps: Steps of Adam, each with one new draw of the noise.
          learning_rate: Learning rate of the means and the logs of the standard deviations, which
            falls to zero.
          draws: Number of draws of both bounds.

        Returns:
          ``(*batch,)`` in nats, at least 0 up to noise.

        Raises:
          ValueError: If a number is out of range, or as for ``log_prob``.

        References:
          Xiao, Yan and Amit, 2020, Likelihood regret, arXiv:2003.02977. The network is not trained
          on here, but the moments that it gives.
        """
        steps, draws = checked("steps", steps, Count), checked("draws", draws, Count)
        rate = checked("learning_rate", learning_rate, Positive)
        rows = self._rows(x, key=key, condition=condition)
        flat = rows._replace(shape=(rows.count,))
        fit = over_batch(regret.begin, self, flat._replace(key=None))

        def step(number: Array | np.ndarray, fit: regret.Fit) -> regret.Fit:
            falling = rate * (1 - number / steps)  # the noise of single draws averages out
            return over_batch(regret.step, self, flat._replace(x=(flat.x, fit)), number, falling)

        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(fit)):
            fit = jax.lax.fori_loop(0, steps, step, fit)
        else:  # XLA's convolutions are slow in a loop on CPU: one compiled call for every step
            for number in range(steps):
                fit = step(np.asarray(number), fit)
        gains = over_batch(regret.gain, self, flat._replace(x=(flat.x, fit)), draws=draws)
        return gains.reshape(rows.shape)

    def encode(self, x: ArrayLike, *, key: KeyLike, condition: ArrayLike | None = None) -> Latents:
        """A draw of all latents given examples, from the one next to the data upwards.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.

        Returns:
          For each latent an array ``(*batch, *latent_shape)``.
        """
        return self._over_batch(_latents, x, key=key, condition=condition)

    def decode(
        self, latents: Latents, *, condition: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        """The expected data of latents, as ``encode`` returned them, in units of the data.

        Args:
          latents: For each latent an array ``(*batch, *latent_shape)``.
          condition: Condition, as for ``log_prob``.

        Returns:
          ``(*batch, *event_shape)``.

        Raises:
          ValueError: If the latents are of other shapes than ``latent_shapes``, or of several batch
            shapes.
        """
        if not isinstance(latents, tuple | list) or len(latents) != self.depth:
            is_sequence = isinstance(latents, tuple | list)
            given = len(latents) if is_sequence else type(latents).__name__
            raise ValueError(f"expected {self.depth} latents in a tuple, got {given}")
        parts = [as_array("a latent", z) for z in latents]
        batch = self._batch_of_latents(parts)
        flat = []
        for z, shape in zip(parts, self.latent_shapes, strict=True):
            flat.append(jnp.asarray(z, self._dtype).reshape(math.prod(batch), *shape))
        rows = Rows(tuple(flat), None, self._checked_condition(condition, batch), batch)
        return over_batch(_expected_data, self, rows)

    def _batch_of_latents(self, parts: Sequence[Array | np.ndarray]) -> tuple[int, ...]:
        """The batch shape of latents, whose other axes are checked."""
        batches = set()
        for z, wanted in zip(parts, self.latent_shapes, strict=True):
            rank = z.ndim - len(wanted)
            if rank < 0 or z.shape[rank:] != wanted:
                shape = ", ".join(map(str, wanted))
                raise ValueError(f"expected a latent of shape (*batch, {shape}), got {z.shape}")
            batches.add(z.shape[:rank])
        if len(batches) > 1:
            given = " and ".join(map(str, sorted(batches)))
            raise ValueError(f"expected latents of one batch shape, got {given}")
        return batches.pop()

    def reconstruct(
        self,
        x: ArrayLike,
        *,
        key: KeyLike,
        condition: ArrayLike | None = None,
        from_level: int = 0,
        replacement: Replacement = "sample",
    ) -> Float[Array, "..."]:
        """The expected data when only the latents above ``from_level`` are inferred.

        It shows what these latents know of ``x``.

        Args:
          x: Examples ``(*batch, *event_shape)``.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.
          from_level: Number of lowest latents that come from their conditional priors: 0 for a
            reconstruction from all, L for a sample that knows nothing of ``x``.
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
        options = {"above": from_level, "replacement": replacement}
        return self._over_batch(_reconstructed, x, key=key, condition=condition, **options)

    def impute(
        self,
        x: ArrayLike,
        known: Bool[ArrayLike, "..."],
        *,
        key: KeyLike,
        condition: ArrayLike | None = None,
        sweeps: int = 200,
    ) -> Float[Array, "..."]:
        """Expected values of entries that are not known, given those that are.

        A Markov chain: the latents are drawn given the data, the unknown data given the latents,
        ``sweeps`` times. The result is the mean of the expected data over the second half of them,
        with the known entries as they are.

        Args:
          x: Examples ``(*batch, *event_shape)``; values that are not known do not matter.
          known: Mask of the known entries: ``(*batch, *event_shape)``, or one mask for all.
          key: Key or keys, as for ``log_prob``.
          condition: Condition, as for ``log_prob``.
          sweeps: Length of the chain.

        Returns:
          ``(*batch, *event_shape)`` in units of the data.

        Raises:
          TypeError: If the mask is not of booleans.
          ValueError: If ``sweeps`` is below 1 or the mask has another shape.

        References:
          Rezende, Mohamed and Wierstra, 2014, Stochastic backpropagation and approximate inference
          in deep generative models, arXiv:1401.4082, appendix F.
        """
        sweeps = checked("sweeps", sweeps, Count)
        rows = self._rows(x, key=key, condition=condition)
        mask = as_array("known", known)
        if mask.dtype != bool:
            raise TypeError(f"expected known to be a mask of True and False, got {mask.dtype}")
        whole = rows.shape + self.event_shape
        if mask.shape not in (self.event_shape, whole):
            raise ValueError(
                f"expected a mask of shape {self.event_shape} or {whole}, got {mask.shape}"
            )
        mask = jnp.broadcast_to(jnp.asarray(mask), whole).reshape(rows.x.shape)
        return over_batch(_imputed, self, rows._replace(x=(rows.x, mask)), sweeps=sweeps)


# --- queries of one example, in the form that `batching` vectorizes


def _weights_of_draw(
    vae: VAE,
    x: Array,
    key: Array,
    condition: Array | None,
    draw: ArrayLike,
    *,
    ks: tuple[int, ...],
    replacement: Replacement,
) -> Float[Array, " ks"]:
    noise = vae.draw_noise(jax.random.fold_in(key, draw))
    return vae.weights_above(x, noise, ks, replacement, condition)


def _latents(vae: VAE, x: Array, key: Array, condition: Array | None) -> Latents:
    noise = vae.draw_noise(jax.random.fold_in(key, 0))
    return vae.run(x, noise, condition=condition).latents


def _expected_data(vae: VAE, latents: Latents, key: None, condition: Array | None) -> Array:
    del key
    return vae._mean(passes.decoded(vae.ladder(condition), latents))


def _reconstructed(
    vae: VAE,
    x: Array,
    key: Array,
    condition: Array | None,
    *,
    above: int,
    replacement: Replacement,
) -> Array:
    noise = vae.draw_noise(jax.random.fold_in(key, 0))
    passed = vae.run(x, noise, condition=condition, above=above, replacement=replacement)
    return vae._mean(passed.outputs)


def _imputed(
    vae: VAE,
    x_and_known: tuple[Array, Array],
    key: Array,
    condition: Array | None,
    *,
    sweeps: int,
) -> Array:
    x, known = x_and_known
    keys = jax.random.split(key, sweeps + 1)
    x = x.astype(vae._dtype)
    guess = jax.random.uniform(keys[0], x.shape, x.dtype)
    if vae.levels is not None:
        guess = jnp.round(guess * (vae.levels - 1.0))

    def redraw(x: Array, key: Array) -> tuple[Array, Array]:
        latent_key, data_key = jax.random.split(key)
        outputs = vae.run(x, vae.draw_noise(latent_key), condition=condition).outputs
        drawn = vae.likelihood.sample(outputs, data_key).reshape(x.shape)
        return drawn, vae._mean(outputs)

    return chain_mean(redraw, jnp.where(known, x, guess), known, keys[1:])


@jax.jit
def _initialized(vae: VAE, x: Array, keys: Array) -> VAE:
    noise = jax.vmap(vae.draw_noise)(keys)
    nothing = vae.no_condition(len(x))
    return initialize_by_running(vae, lambda pending: pending.run(x, noise, condition=nothing))

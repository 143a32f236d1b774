"""Variational diffusion models: a density whose log-probability is bounded by denoising."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float
from typing_extensions import override

from likejax.batching import Rows, over_batch
from likejax.bijections.ode import Solver, Trace
from likejax.density import Density, Diffusion, Kind, Statistics, Terms
from likejax.keys import KeyLike, as_key
from likejax.models.diffusion.denoiser import NO_HINTS, Hints, as_denoiser
from likejax.models.diffusion.embedding import DiscreteEmbedding, Embedding
from likejax.models.diffusion.estimate import estimate
from likejax.models.diffusion.field import DiffusionField
from likejax.models.diffusion.flow import Dequantization, DiffusionFlow, DiffusionFlowConfig
from likejax.models.diffusion.orientations import Augmentation, reoriented
from likejax.models.diffusion.process import (
    Predicted,
    Prediction,
    alpha,
    diffused,
    over_event,
    prior_divergence,
    sigma,
)
from likejax.models.diffusion.sampling import DiffusionSampler, ancestral_step, ddim_step
from likejax.models.diffusion.schedule import Schedule
from likejax.models.diffusion.times import (
    evaluation_times,
    scaled_by_loss,
    training_time,
    with_loss_for_schedule,
)
from likejax.nn.modules import replace
from likejax.progress import track
from likejax.settings import Count, Fraction, Settings, checked

_STEPS_AT_ONCE = 100
"""Steps of a sampler that one compiled program takes, between two updates of the progress bar."""

ScheduleGradient = Literal["bound", "variance"]
"""What a learned schedule reduces between its ends: the bound, or the variance of its estimate."""


@dataclasses.dataclass(frozen=True)
class BoundSettings(Settings):
    """How a diffusion model's bound is computed, in training and in evaluation.

    Example:
      >>> from likejax.models.diffusion.density import BoundSettings
      >>> BoundSettings(steps=1_000).time_points
      8
    """

    prediction: Prediction = "noise"
    """What the denoiser predicts: the noise, the velocity ``alpha eps - sigma y``, or the logits of
    integers, which are added to those that the noisy point gives by itself."""
    steps: Count | None = None
    """Steps of the process that the bound is for; ``None`` for continuous time."""
    time_points: Count = 8
    """Times at which one draw of ``log_prob`` evaluates the denoiser, one in each of as many equal
    parts of the process."""
    schedule_gradient: ScheduleGradient = "bound"
    """What a learned schedule reduces between its ends: the bound, as in the official code, or the
    variance of its estimate, as in the paper; in continuous time the bound does not depend on
    it."""
    augmentation: Augmentation = "none"
    """How training images are moved, which the network is told by a flag; ``log_prob`` sees images
    as they are."""
    condition_dropout: Fraction = 0.0
    """Probability that training leaves out the condition of an example, for guidance."""


class VDM(Density):
    """A variational diffusion model, whose ``log_prob`` estimates a lower bound by denoising.

    ``log p(x) >= E[log p(x | z_0)] - KL(q(z_1 | x) || N(0, I)) - D`` with the diffusion loss
    ``D = 1/2 E_t[gamma'(t) |eps - eps_hat(z_t, gamma(t))|^2]``, ``z_t = alpha_t y + sigma_t eps``.
    With ``T`` steps ``gamma'(t)`` becomes ``T (exp(gamma(t) - gamma(t - 1/T)) - 1)``.

    A draw is not an importance weight, so the kind is an estimate, and draws combine by the plain
    mean. ``as_flow`` returns the density of the same model's probability-flow ODE.

    Args:
      event_shape: Shape of one example.
      embedding: Map from data to points of the diffusion.
      schedule: Course of ``gamma``, the negative log signal-to-noise ratio.
      denoiser: Function ``(z, gamma, condition) -> prediction``, usually an ``nnx.Module``.
      settings: Settings of the bound.
      sampler: Settings of sampling.
      condition_shape: Shape of a condition, as for ``Density``.
      num_classes: Number of class labels; ``None`` if the condition is none.

    Raises:
      TypeError: If something else than these is given.
      ValueError: If logits are predicted of data that are no integers.

    References:
      Kingma, Salimans, Poole and Ho, 2021, Variational diffusion models, arXiv:2107.00630.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.VDMConfig(event_shape=(4, 4, 1), levels=4, width=8, blocks=1)
      >>> vdm = lj.build(config, key=jax.random.key(0))
      >>> vdm.kind, vdm.as_flow(trace=lj.bijections.Trace()).kind
      (<Kind.ESTIMATE: 'estimate'>, <Kind.BOUND: 'bound'>)
    """

    kind: Kind = Kind.ESTIMATE

    def __init__(
        self,
        event_shape: tuple[int, ...],
        embedding: Embedding,
        schedule: Schedule,
        denoiser: object,
        *,
        settings: BoundSettings | None = None,
        sampler: DiffusionSampler | None = None,
        condition_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
    ):
        self.event_shape = checked("event_shape", event_shape, tuple[Count, ...])
        self.embedding = embedding
        self.schedule = schedule
        self.denoiser = as_denoiser(denoiser)
        self.settings = checked("settings", settings or BoundSettings(), BoundSettings)
        self.sampler = checked("sampler", sampler or DiffusionSampler(), DiffusionSampler)
        self.levels = embedding.levels
        if self.settings.prediction == "logits" and not isinstance(embedding, DiscreteEmbedding):
            raise ValueError(
                "expected prediction='noise' or 'velocity' for data that are no integers, got "
                "'logits'"
            )
        self.condition_shape = condition_shape
        self.num_classes = num_classes

    # --- the bound

    @override
    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        return self._bound(x, key, condition).log_prob

    @override
    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """The bound and its three parts."""
        terms = self._bound(x, key, condition)
        return {"log_prob": terms.log_prob, **terms.parts}

    def _bound(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        """The terms of an example as it is, at several times."""
        assert key is not None
        reconstruction_key, noise_key, time_key = jax.random.split(key, 3)
        times = evaluation_times(time_key, self.settings.time_points)
        noises = BoundNoises(
            _normal(reconstruction_key, (), self.latent_shape),
            _normal(noise_key, times.shape, self.latent_shape),
            times,
        )
        return self.bound_of_noises(x, noises, condition)

    @override
    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        """The terms of training: one time, low-discrepancy over a batch, dropout, augmentation."""
        assert key is not None
        names = ("reconstruction", "noise", "time", "augmentation", "condition", "dropout")
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        x, flag = reoriented(x, keys["augmentation"], self.settings.augmentation)
        noises = BoundNoises(
            _normal(keys["reconstruction"], (), self.latent_shape),
            _normal(keys["noise"], (1,), self.latent_shape),
            training_time(keys["time"])[None],
        )
        present = None
        if condition is not None and self.settings.condition_dropout:
            kept = 1 - self.settings.condition_dropout
            present = jax.random.bernoulli(keys["condition"], kept)[None]
        flag = None if flag is None else flag[None]
        hints = Hints(flag, present, keys["dropout"])
        return self.bound_of_noises(x, noises, condition, hints)

    def bound_of_noises(
        self,
        x: Array,
        noises: BoundNoises,
        condition: Array | None = None,
        hints: Hints = NO_HINTS,
    ) -> Terms:
        """The terms of one example for given noises and times.

        Args:
          x: One example.
          noises: Its noises and times.
          condition: Its condition, if the density has one.
          hints: Other facts for the denoiser.

        Returns:
          Terms with the parts ``reconstruction``, the log-likelihood of the data given the first
          latent, ``prior``, the divergence of the last latent from the prior, and ``diffusion``,
          the loss in between, in nats.
        """
        y = self.embedding.embed(x)
        start, end = self.ends()
        u = y + jnp.exp(0.5 * start) * noises.reconstruction
        reconstruction = self.embedding.log_prob(x, u, start)
        prior = prior_divergence(y, end)
        diffusion = self._diffusion_loss(y, noises, condition, hints)
        log_prob = reconstruction - prior - diffusion
        return Terms(
            log_prob, {"reconstruction": reconstruction, "prior": prior, "diffusion": diffusion}
        )

    def _diffusion_loss(
        self, y: Array, noises: BoundNoises, condition: Array | None, hints: Hints
    ) -> Float[Array, ""]:
        """The diffusion loss of one example, the mean over the times, in nats."""
        gamma, weight = self._gamma_and_weight(noises.times)
        carried = None
        if self.settings.schedule_gradient == "variance":
            gamma, weight, carried = self._for_variance(gamma, weight)
        conditions = _for_each(condition, len(noises.times))
        losses = weight * self._errors(y[None], noises.noise, gamma, conditions, hints)
        if carried is not None:
            # in nats per dimension: the schedule's gradient is then about as large as the others
            size = y.size
            losses = with_loss_for_schedule(losses / size, carried) * size
        return losses.mean()

    def _errors(
        self, y: Array, noise: Array, gamma: Array, condition: Array | None, hints: Hints
    ) -> Float[Array, " times"]:
        """``|eps - eps_hat|^2 / 2`` at each time, by whatever is predicted."""
        z = diffused(y, noise, gamma)
        prediction = self.settings.prediction
        if prediction == "logits":
            parts = (self.denoiser, self.embedding, prediction)
            difference = estimate(*parts, z, gamma, condition, hints).data - y
            scale = jnp.exp(-gamma)  # |eps - eps_hat|^2 = (alpha / sigma)^2 |y - y_hat|^2
        elif prediction == "velocity":
            a, s = over_event(alpha(gamma), z), over_event(sigma(gamma), z)
            difference = a * noise - s * y - self.denoiser(z, gamma, condition, hints)
            scale = jax.nn.sigmoid(-gamma)  # |eps - eps_hat|^2 = alpha^2 |v - v_hat|^2
        else:
            difference = noise - self.denoiser(z, gamma, condition, hints)
            scale = jnp.ones_like(gamma)
        squares = jnp.square(difference).astype(z.dtype)
        return 0.5 * scale * squares.reshape(len(gamma), -1).sum(-1)

    def _gamma_and_weight(self, times: Float[Array, " times"]) -> tuple[Array, Array]:
        """``gamma`` at times, and the weights of the errors there."""
        steps = self.settings.steps
        if steps is None:
            return self.schedule.with_rate(times)
        late = jnp.maximum(jnp.ceil(times * steps), 1) / steps
        gamma = self.schedule(late)
        return gamma, steps * jnp.expm1(gamma - self.schedule(late - 1 / steps))

    def _for_variance(self, gamma: Array, rate: Array) -> tuple[Array, Array, Array]:
        """``gamma`` and its rate with a gradient that reduces variance between the ends.

        The ends keep the gradient of the bound; the course between them, as a fraction of the way,
        gets that of the squared loss.
        """
        start, end = self.ends()
        fraction, fraction_rate, carried = scaled_by_loss(
            (gamma - start) / (end - start), rate / (end - start)
        )
        return start + (end - start) * fraction, (end - start) * fraction_rate, carried

    # --- the model's other views

    def predict(self, z: Array, gamma: Array, condition: Array | None = None) -> Predicted:
        """Noise and data that the denoiser sees in noisy points.

        Args:
          z: Points ``(*batch, *latent_shape)``.
          gamma: Negative log signal-to-noise ratio ``(*batch,)``.
          condition: Conditions ``(*batch, ...)``.
        """
        parts = (self.denoiser, self.embedding, self.settings.prediction)
        return estimate(*parts, z, gamma, condition)

    @override
    def _diffusion(self, x: Array, key: Array | None, condition: Array | None) -> Diffusion:
        del key
        density = self._in_loops()

        def noise_at(z: Array, gamma: Array) -> Array:
            return density.predict(z, gamma, condition).noise

        return Diffusion(self.embedding.embed(x), noise_at, self.ends())

    def ends(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """``gamma`` at the start, the data, and at the end, the noise."""
        zero = jnp.zeros(())
        return self.schedule(zero), self.schedule(zero + 1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the point that an example becomes."""
        dtype = jnp.int32 if self.levels is not None else jnp.result_type(float)
        x = jax.ShapeDtypeStruct(self.event_shape, dtype)
        return jax.eval_shape(self.embedding.embed, x).shape

    def as_flow(
        self,
        dequantization: Dequantization = "truncated_normal",
        *,
        trace: Trace | None = None,
        solver: Solver | None = None,
    ) -> DiffusionFlow:
        """The density of the model's probability-flow ODE, which shares its parameters.

        Args:
          dequantization: Noise by which integers become points; continuous data get none.
          trace: Trace of the Jacobian; by default one random probe. Without probes it is exact.
          solver: Solver of the ODE; by default dopri5 with tolerances of 1e-5.

        Returns:
          A density, a bound with an exact trace and an estimate with probes; exact for continuous
          data with an exact trace.

        References:
          Song et al., 2021, Score-based generative modeling through stochastic differential
          equations, arXiv:2011.13456. Zheng et al., 2023, arXiv:2305.03935 (dequantizations).
        """
        field = DiffusionField(
            self.denoiser.in_loops(),
            self.embedding,
            self.schedule,
            prediction=self.settings.prediction,
            latent_shape=self.latent_shape,
            condition_shape=self.condition_shape,
        )
        trace, solver = trace or Trace(probes=1), solver or Solver()
        flow = DiffusionFlow(
            field,
            self.event_shape,
            dequantization,
            trace=trace,
            solver=solver,
            num_classes=self.num_classes,
        )
        if self.config is None:
            return flow
        return replace(flow, config=DiffusionFlowConfig(self.config, dequantization, trace, solver))

    @override
    def initialize(self, batch: ArrayLike, key: KeyLike) -> VDM:
        """Returns a density whose embedding fits ``batch``.

        Args:
          batch: Examples ``(n, *event_shape)``.
          key: Key of the noise, if any.
        """
        flat = self._checked_batch(batch)
        return replace(self, embedding=self.embedding.initialize(flat, as_key(key)))

    # --- samples

    def with_sampler(self, sampler: DiffusionSampler) -> VDM:
        """Returns the density with another way to draw samples.

        Args:
          sampler: Settings of the sampler.
        """
        sampler = checked("sampler", sampler, DiffusionSampler)
        config = self.config
        if config is not None:
            config = dataclasses.replace(config, sampler=sampler)
        return replace(self, sampler=sampler, config=config)

    @override
    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    @override
    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        z = self._first_point(key, temperature)
        z = self._after_steps(z, key, condition, 0, temperature, count=self.sampler.steps)
        return self._last(z, key)

    @override
    def _draw_rows(self, rows: Rows, temperature: ArrayLike) -> tuple[Array, Bool[Array, "*batch"]]:
        """Draws the example of every key, some steps at a time so that there is a progress bar."""
        leaves = (rows.key, rows.condition, temperature, *jax.tree.leaves(self))
        total = self.sampler.steps
        if total <= _STEPS_AT_ONCE or any(isinstance(leaf, Tracer) for leaf in leaves):
            return super()._draw_rows(rows, temperature)
        z = over_batch(_first_point, self, rows, temperature)
        first = total % _STEPS_AT_ONCE or _STEPS_AT_ONCE
        starts = [0, *range(first, total, _STEPS_AT_ONCE)]
        for start, end in track(list(pairwise([*starts, total])), what="sampling"):
            flat = z.reshape(rows.count, *self.latent_shape)
            now = rows._replace(x=flat)
            z = over_batch(_after_steps, self, now, start, temperature, count=end - start)
        flat = z.reshape(rows.count, *self.latent_shape)
        return over_batch(_last, self, rows._replace(x=flat))

    def _first_point(self, key: Array, temperature: ArrayLike) -> Array:
        """The noise that one sample begins with."""
        first_key, _, _ = jax.random.split(key, 3)
        return jnp.asarray(temperature) * _normal(first_key, (), self.latent_shape)

    def _after_steps(
        self,
        z: Array,
        key: Array,
        condition: Array | None,
        first: ArrayLike,
        temperature: ArrayLike,
        *,
        count: int,
    ) -> Array:
        """The point of one sample after ``count`` steps from the step ``first`` on."""
        _, steps_key, _ = jax.random.split(key, 3)
        density = self._in_loops()
        factor = jnp.asarray(temperature)

        def step(z: Array, index: Array) -> tuple[Array, None]:
            noise = _normal(jax.random.fold_in(steps_key, index), (), self.latent_shape)
            return density.step(z, index, factor * noise, condition), None

        return jax.lax.scan(step, z, jnp.asarray(first) + jnp.arange(count))[0]

    def _last(self, z: Array, key: Array) -> tuple[Array, Bool[Array, ""]]:
        """The data of the last point of one sample, and whether its numbers are finite."""
        _, _, last_key = jax.random.split(key, 3)
        start, _ = self.ends()
        u = z / alpha(start)
        x = self.embedding.nearest(u)
        if self.sampler.last == "drawn":
            x = self.embedding.sample(last_key, u, start)
        return x, jnp.isfinite(u).all()

    def _in_loops(self) -> VDM:
        """The density with the denoiser in the form that is fast inside of loops."""
        # NNX lets only that trace of JAX change a module in which it was put together
        of_this_trace = jax.tree.map(lambda leaf: leaf, self)
        return replace(of_this_trace, denoiser=self.denoiser.in_loops())

    def step(
        self, z: Array, index: ArrayLike, noise: Array, condition: Array | None = None
    ) -> Array:
        """One step of the sampler for one example, from ``t = (T - index) / T`` to ``t - 1/T``.

        Args:
          z: Point before the step.
          index: Number of the step, from 0.
          noise: Standard normal noise of the shape of ``z``, times the temperature.
          condition: Condition of the example, if the density has one.
        """
        total = self.sampler.steps
        t = (total - jnp.asarray(index)) / total
        late, early = self.schedule(t), self.schedule(t - 1 / total)
        seen = self._guided(z, late, condition)
        if self.sampler.method == "ddim":
            return ddim_step(seen, early)
        return ancestral_step(z, seen, late, early, noise)

    def _guided(self, z: Array, gamma: Array, condition: Array | None) -> Predicted:
        """What the denoiser sees in one point, with guidance if the sampler asks for it."""
        guidance = self.sampler.guidance
        seen = self.predict(z, gamma, condition)
        if condition is None or not guidance:
            return seen
        without = self.predict(z, gamma, None)
        return Predicted(
            without.noise + (1 + guidance) * (seen.noise - without.noise),
            without.data + (1 + guidance) * (seen.data - without.data),
        )


class BoundNoises(NamedTuple):
    """The random numbers of one draw of the bound for one example.

    Attributes:
      reconstruction: Standard normal noise of the reconstruction, of the shape of a point.
      noise: Standard normal noise at each time, ``(times, *latent)``.
      times: Times in [0, 1).
    """

    reconstruction: Array
    noise: Array
    times: Float[Array, " times"]


# --- queries of one example, in the form that `batching` vectorizes


def _first_point(
    density: VDM, x: None, key: Array, condition: Array | None, temperature: ArrayLike
) -> Array:
    del x, condition
    return density._first_point(key, temperature)


def _after_steps(
    density: VDM,
    z: Array,
    key: Array,
    condition: Array | None,
    first: ArrayLike,
    temperature: ArrayLike,
    *,
    count: int,
) -> Array:
    return density._after_steps(z, key, condition, first, temperature, count=count)


def _last(
    density: VDM, z: Array, key: Array, condition: Array | None
) -> tuple[Array, Bool[Array, ""]]:
    del condition
    return density._last(z, key)


def _normal(key: Array, leading: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Standard normal noise ``(*leading, *shape)``, drawn flat: that compiles faster."""
    total = jnp.zeros((*leading, *shape)).size
    return jax.random.normal(key, (total,)).reshape(*leading, *shape)


def _for_each(condition: Array | None, times: int) -> Array | None:
    """The condition of one example, once for each time."""
    if condition is None:
        return None
    return jnp.broadcast_to(condition, (times, *jnp.shape(condition)))

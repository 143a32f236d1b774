"""The probability-flow ODE of a diffusion model as a density of its own."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float
from typing_extensions import override

from likejax.bijections.ode import ODE, Solver, Trace
from likejax.density import Density, Diffusion, Kind, Statistics, Terms
from likejax.distributions import standard_normal_log_prob
from likejax.models.diffusion.embedding import (
    Embedding,
    LevelEmbedding,
    RealEmbedding,
    half_cell,
    log_mass_of_cell,
)
from likejax.models.diffusion.estimate import estimate
from likejax.models.diffusion.field import DiffusionField
from likejax.models.diffusion.process import alpha, sigma
from likejax.models.flow import Flow
from likejax.nn.repeat import stack
from likejax.settings import Settings, checked

Dequantization = Literal["truncated_normal", "uniform", "variational"]
"""Noise by which integers become points of the ODE."""
_WITHOUT_NOISE = (LevelEmbedding, RealEmbedding)
"""Embeddings of data that fill the space, by cells or by themselves."""


class DiffusionFlow(Density):
    """A diffusion model's probability-flow ODE, whose log-probability has no gap but the solver's.

    ``log p(z_0) = log N(z_1; 0, I) + integral of tr(df/dz)`` along the ODE from the data to the
    noise. An integer becomes a point ``z_0 = alpha_0 y + sigma_0 eps``, and
    ``log P(x, eps) = log p(z_0) - log q(z_0 | x)`` is a log importance weight:

    * ``truncated_normal``: ``eps`` is normal within the cell of the integer, about 3 standard
      deviations to each side;
    * ``uniform``: the point is uniform in the cell;
    * ``variational``: ``eps`` is normal, and ``log p(x | z_0)`` of the diffusion model is added.

    Continuous data are the point ``alpha_0 y`` themselves.

    ``vdm.as_flow()`` makes it of a diffusion model.

    Args:
      field: Vector field of the ODE, with the map from data to points of the diffusion.
      event_shape: Shape of one example.
      dequantization: Noise by which integers become points; continuous data get none.
      trace: Trace of the Jacobian; by default one random probe.
      solver: Solver of the ODE; by default dopri5 with tolerances of 1e-5.
      num_classes: Number of class labels; ``None`` if the condition is none.

    Raises:
      ValueError: If cells of levels are asked for where the data have none.

    References:
      Song et al., 2021, arXiv:2011.13456. Zheng, Lu, Chen and Zhu, 2023, Improved techniques for
      maximum likelihood estimation for diffusion ODEs, arXiv:2305.03935.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.VDMConfig(event_shape=(4, 4, 1), levels=4, width=8, blocks=1)
      >>> vdm = lj.build(config, key=jax.random.key(0))
      >>> vdm.as_flow("uniform").kind
      <Kind.ESTIMATE: 'estimate'>
    """

    def __init__(
        self,
        field: DiffusionField,
        event_shape: tuple[int, ...],
        dequantization: Dequantization = "truncated_normal",
        *,
        trace: Trace | None = None,
        solver: Solver | None = None,
        num_classes: int | None = None,
    ):
        checked("dequantization", dequantization, Dequantization)
        if dequantization != "variational" and not isinstance(field.embedding, _WITHOUT_NOISE):
            raise ValueError(
                "expected dequantization='variational' for data that are not levels on a line, got "
                f"{dequantization!r}"
            )
        ode = ODE(
            field,
            end_time=1.0,
            learn_end_time=False,
            trace=checked("trace", trace, Trace | None) or Trace(probes=1),
            solver=checked("solver", solver, Solver | None),
        )
        self.dequantization: Dequantization = dequantization
        self.flow = Flow(
            ode,
            field.latent_shape,
            condition_shape=field.condition_shape,
            num_classes=num_classes,
        )
        self.event_shape = event_shape
        self.levels = field.embedding.levels
        self.condition_shape = field.condition_shape
        self.num_classes = num_classes

    @property
    def kind(self) -> Kind:
        """Whether ``log_prob`` is exact, a bound or an estimate."""
        if self.flow.kind is Kind.ESTIMATE:
            return Kind.ESTIMATE
        return Kind.EXACT if self._is_continuous else Kind.BOUND

    @property
    def embedding(self) -> Embedding:
        """Map from data to points of the diffusion."""
        return self._field.embedding

    @property
    def _is_continuous(self) -> bool:
        return isinstance(self.embedding, RealEmbedding)

    @property
    def _in_loops(self) -> Flow:
        """The flow with the blocks of its network as a scan, also where they are stored apart."""
        return stack(self.flow)

    @property
    def _start(self) -> Float[Array, ""]:
        """``gamma`` at the data."""
        return self._field.schedule(jnp.zeros(()))

    @property
    def _field(self) -> DiffusionField:
        ode = self.flow.bijection
        assert isinstance(ode, ODE)
        assert isinstance(ode.dynamics, DiffusionField)
        return ode.dynamics

    @override
    def _log_prob(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, ""]:
        z, log_weight, key = self._point(x, key)
        return self._in_loops._log_prob(z, key, condition) + log_weight

    @override
    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        z, log_weight, key = self._point(x, key)
        terms = self._in_loops._terms(z, key, condition)
        return terms._replace(log_prob=terms.log_prob + log_weight)

    @override
    def _statistics(self, x: Array, key: Array | None, condition: Array | None) -> Statistics:
        """Log-determinant and latent log-probability of the ODE."""
        z, log_weight, key = self._point(x, key)
        values = self._in_loops._statistics(z, key, condition)
        return {**values, "log_prob": values["log_prob"] + log_weight}

    @override
    def _white_latents(
        self, x: Array, key: Array | None, condition: Array | None
    ) -> tuple[Array, ...]:
        z, _, key = self._point(x, key)
        return self._in_loops._white_latents(z, key, condition)

    @override
    def _embed(self, x: Array, key: Array | None, condition: Array | None) -> Float[Array, " d"]:
        z, _, key = self._point(x, key)
        return self._in_loops._embed(z, key, condition)

    @override
    def _diffusion(self, x: Array, key: Array | None, condition: Array | None) -> Diffusion:
        """The same as that of the diffusion model: no noise dequantizes the example."""
        del key
        field = self._field
        parts = (stack(field.denoiser), self.embedding, field.prediction)

        def noise_at(z: Array, gamma: Array) -> Array:
            return estimate(*parts, z, gamma, condition).noise

        ends = self._start, field.schedule(jnp.ones(()))
        return Diffusion(self.embedding.embed(x), noise_at, ends)

    def _point(self, x: Array, key: Array | None) -> tuple[Array, Float[Array, ""], Array | None]:
        """The point of one example, what its noise adds to ``log p``, and the key that is left."""
        start = self._start
        y = self.embedding.embed(x)
        size = y.size
        a = alpha(start)
        if isinstance(self.embedding, RealEmbedding):
            return a * y, size * jnp.log(a) + self.embedding.log_det(), key
        assert key is not None
        noise_key, key = jax.random.split(key)
        if self.dequantization == "variational":
            noise = jax.random.normal(noise_key, (size,)).reshape(y.shape)
            u = y + jnp.exp(0.5 * start) * noise
            log_q = standard_normal_log_prob(noise).sum() - size * jnp.log(sigma(start))
            return a * u, self.embedding.log_prob(x, u, start) - log_q, key
        assert self.levels is not None
        if self.dequantization == "uniform":
            noise = jax.random.uniform(noise_key, (size,), minval=-1, maxval=1).reshape(y.shape)
            log_q = -size * jnp.log(2 * a / self.levels)
            return a * (y + noise / self.levels), -log_q, key
        tau = half_cell(self.levels, start)
        noise = jax.random.truncated_normal(noise_key, -tau, tau, (size,)).reshape(y.shape)
        log_q = standard_normal_log_prob(noise).sum()
        log_q = log_q - size * (jnp.log(sigma(start)) + log_mass_of_cell(tau))
        return a * y + sigma(start) * noise, -log_q, key

    @override
    def _sample(self, key: Array, condition: Array | None, temperature: ArrayLike) -> Array:
        return self._draw(key, condition, temperature)[0]

    @override
    def _draw(
        self, key: Array, condition: Array | None, temperature: ArrayLike
    ) -> tuple[Array, Bool[Array, ""]]:
        key, last_key = jax.random.split(key)
        z = self._in_loops._sample(key, condition, temperature)
        start = self._start
        u = z / alpha(start)
        if self.dequantization == "variational" and not self._is_continuous:
            x = self.embedding.sample(last_key, u, start)
        else:
            x = self.embedding.nearest(u)
        return x, jnp.isfinite(u).all()


@dataclasses.dataclass(frozen=True)
class DiffusionFlowConfig(Settings):
    """The probability-flow ODE of a diffusion model; ``vdm.as_flow()`` makes it of a trained one.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.VDMConfig(event_shape=(4, 4, 1), levels=4, width=8, blocks=1)
      >>> lj.build(lj.models.DiffusionFlowConfig(config), key=jax.random.key(0)).event_shape
      (4, 4, 1)
    """

    family: ClassVar[str] = "diffusion_flow"

    model: Any
    """Config of the diffusion model."""
    dequantization: Dequantization = "truncated_normal"
    """Noise by which integers become points."""
    trace: Trace = dataclasses.field(default_factory=lambda: Trace(probes=1))
    """Trace of the Jacobian."""
    solver: Solver = dataclasses.field(default_factory=Solver)
    """Solver of the ODE."""

    def _check_together(self):
        if not hasattr(self.model, "build") or isinstance(self.model, type):
            raise TypeError(
                "expected DiffusionFlowConfig.model to be the config of a diffusion model, such as "
                f"lj.models.VDMConfig(), got {self.model!r:.100}"
            )

    def build(self, rngs: nnx.Rngs) -> DiffusionFlow:
        """Builds the untrained density.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of the examples that the diffusion model takes.

        Raises:
          TypeError: If ``model`` is not the config of a diffusion model.
        """
        vdm = self.model.build(rngs)
        if not hasattr(vdm, "as_flow"):
            raise TypeError(
                "expected DiffusionFlowConfig.model to be the config of a diffusion model, such as "
                f"lj.models.VDMConfig(), got {type(self.model).__name__}"
            )
        return vdm.as_flow(self.dequantization, trace=self.trace, solver=self.solver)

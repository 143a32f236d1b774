"""The vector field of a diffusion model's probability-flow ODE."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from likejax.models.diffusion.denoiser import Denoiser
from likejax.models.diffusion.embedding import Embedding
from likejax.models.diffusion.estimate import estimate
from likejax.models.diffusion.process import Prediction, alpha, sigma
from likejax.models.diffusion.schedule import Schedule
from likejax.nn.modules import replace


class DiffusionField(nnx.Module):
    """``dz/ds = (gamma_1 - gamma_0) dz/dgamma`` with ``gamma = gamma_0 + s (gamma_1 - gamma_0)``.

    ``dz/dgamma = (sigma eps_hat(z, gamma) - sigma^2 z) / 2``; for a velocity that is
    ``alpha sigma v_hat / 2``. The ODE has the distributions of the diffusion process at every
    ``gamma``, if the denoiser is the best one.

    Args:
      denoiser: Denoiser, in the form for loops.
      embedding: Map from data to points of the diffusion.
      schedule: Schedule, of which only the ends count.
      prediction: Name of the quantity that the denoiser predicts.
      latent_shape: Shape of one point.
      condition_shape: Shape of one condition.

    References:
      Song et al., 2021, arXiv:2011.13456, section 4.3. Zheng et al., 2023, arXiv:2305.03935.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        embedding: Embedding,
        schedule: Schedule,
        *,
        prediction: Prediction,
        latent_shape: tuple[int, ...],
        condition_shape: tuple[int, ...] | None,
    ):
        self.denoiser = denoiser
        self.embedding = embedding
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.latent_shape = latent_shape
        self.condition_shape = condition_shape
        self.condition = nnx.data(None)

    def __call__(
        self, s: ArrayLike, z: Float[Array, "*batch_and_latent"]
    ) -> Float[Array, "*batch_and_latent"]:
        """Computes the velocity at the fraction ``s`` of the way from data to noise."""
        zero = jnp.zeros(())
        start, end = self.schedule(zero), self.schedule(zero + 1)
        gamma = start + s * (end - start)
        batch = z.shape[: z.ndim - len(self.latent_shape)]
        each = jnp.broadcast_to(gamma, batch).astype(z.dtype)
        if self.prediction == "velocity":
            velocity = self.denoiser(z, each, self.condition)
            slope = 0.5 * alpha(gamma) * sigma(gamma) * velocity
        else:
            parts = (self.denoiser, self.embedding, self.prediction)
            noise = estimate(*parts, z, each, self.condition).noise
            slope = 0.5 * sigma(gamma) * noise - 0.5 * jax.nn.sigmoid(gamma) * z
        return ((end - start) * slope).astype(z.dtype)

    def given(self, condition: Array) -> DiffusionField:
        """Returns the field for given conditions.

        Args:
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)``.
        """
        if self.condition_shape:
            condition = condition.reshape(*condition.shape[:-1], *self.condition_shape)
        # NNX lets only that trace of JAX change a module in which it was put together
        of_this_trace = jax.tree.map(lambda leaf: leaf, self)
        return replace(of_this_trace, condition=nnx.data(condition))

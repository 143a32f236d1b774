"""Steps from noise to data: ancestral sampling and DDIM."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.models.diffusion.process import Predicted, alpha, sigma
from likejax.settings import Count, NonNegative, Settings


@dataclasses.dataclass(frozen=True)
class DiffusionSampler(Settings):
    """How samples of a diffusion model are drawn.

    ``vdm.as_flow().sample`` draws by the probability-flow ODE.

    References:
      Kingma et al., 2021, arXiv:2107.00630 (ancestral). Song, Meng and Ermon, 2021, Denoising
      diffusion implicit models, arXiv:2010.02502 (DDIM). Ho and Salimans, 2022, Classifier-free
      diffusion guidance, arXiv:2207.12598.

    Example:
      >>> import likejax as lj
      >>> lj.models.DiffusionSampler(method="ddim", steps=50).steps
      50
    """

    method: Literal["ancestral", "ddim"] = "ancestral"
    """Steps that add noise as the reversed process does, or steps without noise, of which fewer are
    enough."""
    steps: Count = 1_000
    """Number of steps, equal in time."""
    guidance: NonNegative = 0.0
    """Weight of what the condition changes beyond what the model says; needs training with
    condition_dropout. With guidance samples are not those of the density."""
    last: Literal["nearest", "drawn"] = "nearest"
    """Take the data nearest to the last point, or draw them from p(x | z_0)."""


def ancestral_step(
    z: Float[Array, "*event"],
    seen: Predicted,
    late: Float[Array, ""],
    early: Float[Array, ""],
    noise: Float[Array, "*event"],
) -> Float[Array, "*event"]:
    """One draw of ``p(z_s | z_t)``.

    ``z_s = (alpha_s / alpha_t) (z_t - sigma_t c eps_hat) + sigma_s sqrt(c) eps`` with
    ``c = 1 - exp(gamma_s - gamma_t)``.

    Args:
      z: Point ``z_t``.
      seen: Noise and data that the denoiser sees in it.
      late: ``gamma_t``.
      early: ``gamma_s``, smaller.
      noise: Standard normal noise.
    """
    c = -jnp.expm1(early - late)
    mean = alpha(early) / alpha(late) * (z - sigma(late) * c * seen.noise)
    return mean + sigma(early) * jnp.sqrt(c) * noise


def ddim_step(seen: Predicted, early: Float[Array, ""]) -> Float[Array, "*event"]:
    """``z_s = alpha_s y_hat + sigma_s eps_hat``, one step of the ODE without noise.

    Args:
      seen: Noise and data that the denoiser sees in ``z_t``.
      early: ``gamma_s``.
    """
    return alpha(early) * seen.data + sigma(early) * seen.noise

"""What a denoiser sees in noisy points, whichever way it says it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likejax.models.diffusion.denoiser import NO_HINTS, Denoiser, Hints
from likejax.models.diffusion.embedding import DiscreteEmbedding, Embedding
from likejax.models.diffusion.process import (
    Predicted,
    Prediction,
    alpha,
    over_event,
    predicted,
    predicted_by_data,
)


def estimate(
    denoiser: Denoiser,
    embedding: Embedding,
    prediction: Prediction,
    z: Float[Array, "..."],
    gamma: Float[Array, "*batch"],
    condition: Array | None = None,
    hints: Hints = NO_HINTS,
) -> Predicted:
    """Noise and data that a denoiser sees in noisy points.

    Logits ``l`` mean the data ``sum_v p_v y(v)`` with ``p = softmax(l + b)``, where ``b`` is the
    evidence, the logits that the point gives by itself, which the denoiser is told in its hints.

    Args:
      denoiser: Denoiser.
      embedding: Map from data to points; one of integers if logits are predicted.
      prediction: Name of the quantity that the denoiser predicts.
      z: Noisy points ``(*batch, *latent)``.
      gamma: Negative log signal-to-noise ratio.
      condition: Conditions ``(*batch, ...)``.
      hints: Other facts for the denoiser.

    References:
      Gulrajani and Hashimoto, 2023, Likelihood-based diffusion language models, arXiv:2305.18619,
      sections 3.2 and 3.3.
    """
    if prediction != "logits":
        return predicted(denoiser(z, gamma, condition, hints), z, gamma, prediction)
    assert isinstance(embedding, DiscreteEmbedding)
    u = z / over_event(alpha(gamma), z)
    evidence = embedding.logits(u, over_event(jnp.asarray(gamma), z))
    logits = denoiser(z, gamma, condition, hints._replace(evidence=evidence)) + evidence
    data = embedding.mean(jax.nn.softmax(logits, axis=-1)).astype(z.dtype)
    return predicted_by_data(data, z, gamma)

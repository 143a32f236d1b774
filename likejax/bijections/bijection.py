"""The interface of an invertible map."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

Latent = Any
"""An array, or a tuple of arrays: the part still to be mapped first, then the parts already factored out."""

Parts = Mapping[str, Array]
"""Named terms of one example that an objective may weight."""


class Bijection(nnx.Module, abc.ABC):
    """An invertible map of one example, data to latent, with the log-determinant of its Jacobian.

    Attributes:
      estimates: Whether ``log_det`` is a random estimate, which then needs a key.
      factored: How many arrays the map factors out; the latent is a tuple if there are any.
    """

    estimates: bool = False
    factored: int = 0

    @abc.abstractmethod
    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, Float[Array, ""]]:
        """Data to latent.

        Args:
          x: One example.
          key: Used by maps that estimate their log-determinant, ignored by the others.
          condition: Used by conditional maps, ignored by the others.

        Returns:
          The latent, and ``log |det dz/dx|`` in nats, a scalar in float32 or better.
        """

    @abc.abstractmethod
    def inverse(self, z: Latent, condition: Array | None = None) -> Array:
        """Latent to data, the inverse of ``forward``."""

    def terms(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, Float[Array, ""], Parts]:
        """Maps one example for training, with named parts that an objective may weight.

        Training vectorizes it over the examples of a batch. A map may then do the work of the batch at
        once, by a batching rule of its own (``jax.custom_batching.custom_vmap``), as ``ODE`` does.

        Returns:
          The latent and the log-determinant as ``forward`` returns them, and the parts, none by default.
        """
        z, log_det = self.forward(x, key, condition)
        return z, log_det, {}

    def initialize(self, batch: Float[Array, "batch ..."], key: Array) -> Bijection:
        """A new map whose data-dependent parameters fit ``batch``; without such parameters, itself."""
        del batch, key
        return self


def check_last_axis(x: Array, channels: int, name: str) -> None:
    """Raises a ValueError unless the last axis is as long as a map has parameters: a shorter one would be broadcast."""
    if x.ndim == 0 or x.shape[-1] != channels:
        raise ValueError(
            f"expected an input of {channels} channels on the last axis for {name}, got shape {x.shape}"
        )


def check_bijection(bijection: Any) -> None:
    """Raises a TypeError unless ``bijection`` is one."""
    if not isinstance(bijection, Bijection):
        given = bijection.__name__ if isinstance(bijection, type) else type(bijection).__name__
        raise TypeError(
            f"expected a bijection, an instance of a subclass of lj.bijections.Bijection, got {given}"
        )


def forward_batch(bijection: Bijection, batch: Array) -> Latent:
    """Latents of a batch of examples, without the log-determinants."""
    return jax.vmap(lambda x: bijection.forward(x)[0])(batch)

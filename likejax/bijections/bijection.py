"""The interface of an invertible map."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

Event = Float[Array, "*event"]
"""One example; two of them in one signature have the same shape."""

Latent = Any
"""An array or a tuple of arrays: the part still to be mapped, then the parts factored out."""

LogDet = Float[Array, ""]
"""``log |det dz/dx|`` of one example in nats, a scalar in float32 or better."""

Parts = Mapping[str, Array]
"""Named terms of one example that an objective may weight."""


class Bijection(nnx.Module, abc.ABC):
    """An invertible map of one example, data to latent, with the log-determinant of its Jacobian.

    A new map implements ``forward`` and ``inverse``.

    Attributes:
      estimates: Whether ``log_det`` is a random estimate, which then needs a key.
      factored: Number of arrays the map factors out; the latent is a tuple if there are any.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> class Exponential(lj.bijections.Bijection):
      ...     def forward(self, x, key=None, condition=None):
      ...         return jnp.exp(x), jnp.sum(x)
      ...     def inverse(self, z, condition=None):
      ...         return jnp.log(z)
      >>> z, log_det = Exponential().forward(jnp.ones(3))
      >>> float(log_det)
      3.0
    """

    estimates: bool = False
    factored: int = 0

    @abc.abstractmethod
    def forward(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, LogDet]:
        """Maps data to latent.

        Args:
          x: One example.
          key: Random key of maps that estimate their log-determinant; the others ignore it.
          condition: Condition of conditional maps; the others ignore it.

        Returns:
          The latent, and ``log |det dz/dx|`` in nats, a scalar in float32 or better.
        """

    @abc.abstractmethod
    def inverse(self, z: Latent, condition: Array | None = None) -> Array:
        """Maps latent to data, the inverse of ``forward``.

        Args:
          z: Latent of one example.
          condition: Condition of conditional maps; the others ignore it.

        Returns:
          One example.
        """

    def terms(
        self, x: Array, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Latent, LogDet, Parts]:
        """Maps one example for training, with named parts that an objective may weight.

        Training vectorizes it over the examples of a batch. A map may then do the work of the
        batch at once, by a batching rule of its own (``jax.custom_batching.custom_vmap``), as
        ``ODE`` does.

        Args:
          x: One example.
          key: Random key of maps that estimate their log-determinant; the others ignore it.
          condition: Condition of conditional maps; the others ignore it.

        Returns:
          The latent and the log-determinant as ``forward`` returns them, and the parts, by default
          none.
        """
        z, log_det = self.forward(x, key, condition)
        return z, log_det, {}

    def dry_run(self, x: Array, key: Array, condition: Array | None) -> Latent:
        """Returns a latent of which only the shapes count; it is traced by JAX and never computed.

        A ``Flow`` calls it once when it is built, to find maps whose shapes do not fit. A
        composition names the map in the error, and an expensive map leaves out what does not
        decide the shape.

        Args:
          x: One example, traced.
          key: Random key, traced.
          condition: Condition of one example, traced; ``None`` if the map is unconditional.

        Raises:
          ValueError: If ``forward`` does not return one log-determinant for an example.
        """
        z, log_det = self.forward(x, key, condition)
        if jnp.shape(log_det) != ():
            raise ValueError(
                "expected forward to return (latent, log_det) with one log_det for an example, "
                f"got shape {jnp.shape(log_det)}: sum over the dimensions of the event"
            )
        return z

    def initialize(self, batch: Float[Array, "batch ..."], key: Array) -> Bijection:
        """Returns a new map whose data-dependent parameters fit ``batch``; by default itself.

        Args:
          batch: Examples ``(n, ...)`` of the map's input.
          key: Random key of maps that need one.
        """
        del batch, key
        return self

    def forward_at_start(self, x: Array) -> Latent:
        """Maps one example to its latent in initialization, where no condition is known.

        By default by ``forward``. A conditional map that starts as an unconditional one overrides
        it.

        Args:
          x: One example.
        """
        return self.forward(x)[0]

    @property
    def fits_data(self) -> bool:
        """Whether the map, or one inside it, has an ``initialize`` of its own."""
        return type(self).initialize is not Bijection.initialize


def no_volume(x: Array) -> LogDet:
    """Returns the log-determinant of a map that preserves volume: zero in float32 or better.

    Args:
      x: One example, whose type decides that of the zero.

    Example:
      >>> import jax.numpy as jnp
      >>> no_volume(jnp.ones(3, jnp.bfloat16)).dtype
      dtype('float32')
    """
    return jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))


def dry_run(
    bijection: Bijection, x: Array, key: Array, condition: Array | None, *, place: str = ""
) -> Latent:
    """Returns a map's ``dry_run``, with the map named in its error.

    Args:
      bijection: Map.
      x: One example, traced.
      key: Random key, traced.
      condition: Condition, traced.
      place: Position of the map in a composition, for the error.

    Raises:
      ValueError: If the map does not take an input of that shape, or changes the number of entries.
    """
    name = f"{place}{type(bijection).__name__}"
    try:
        z = bijection.dry_run(x, key, condition)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot map an input of shape {x.shape}: {error}") from error
    shapes = [part.shape for part in jax.tree.leaves(z)]
    if sum(map(math.prod, shapes)) != x.size:
        raise ValueError(
            f"{name} maps an input of shape {x.shape} to {shapes}: "
            "an invertible map has as many outputs as inputs"
        )
    return z


def check_not_batched(parameters: PyTree, what: str) -> None:
    """Raises a ValueError if ``jax.vmap`` runs over parameters where a batch is trained at once.

    Args:
      parameters: For every array of the map, whether it has a batch axis.
      what: Name of the map in the error.
    """
    if any(jax.tree.leaves(parameters)):
        raise ValueError(
            f"expected the examples of one {what} in training, got parameters with a batch axis: "
            "map over an ensemble outside of terms, "
            "jax.vmap(lambda density: density.terms(x))(densities)"
        )


def check_last_axis(x: Array, channels: int, name: str) -> None:
    """Raises a ValueError unless the last axis has the expected size.

    A shorter axis would be broadcast against the parameters without an error.

    Args:
      x: One example, or several.
      channels: Expected size of the last axis.
      name: Name of the map in the message.

    Raises:
      ValueError: If the last axis has another size, or there is no axis.
    """
    if x.ndim == 0 or x.shape[-1] != channels:
        raise ValueError(
            f"expected an input of {channels} channels on the last axis for {name}, "
            f"got shape {x.shape}"
        )


def check_bijection(bijection: object) -> None:
    """Raises a TypeError unless ``bijection`` is one.

    Args:
      bijection: Anything.

    Raises:
      TypeError: If it is not a bijection; a class of bijections is none.
    """
    if isinstance(bijection, Bijection):
        return
    given = bijection if isinstance(bijection, type) else type(bijection)
    raise TypeError(
        "expected a bijection, an instance of a subclass of lj.bijections.Bijection, "
        f"got {given.__name__}"
    )


def forward_batch(bijection: Bijection, batch: Array) -> Latent:
    """Maps a batch of examples to latents in initialization, without the log-determinants.

    Args:
      bijection: Map of one example.
      batch: Examples ``(n, ...)``.

    Returns:
      The latent, every array of it with the leading axis ``n``.
    """
    return jax.vmap(bijection.forward_at_start)(batch)

"""Autoregressive maps of vectors: each feature is moved by a map that those before it choose."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import LogDet, check_last_axis
from likejax.bijections.network_map import NetworkMap
from likejax.bijections.scalar import ScalarMap
from likejax.nn.modules import Buffer
from likejax.nn.residual import ResidualNetwork, degrees_in_turn, random_degrees
from likejax.settings import Count, checked

Vector = Float[Array, " d"]


class Autoregressive(NetworkMap):
    """``z_i = f(x_i; network(x)_i)``, where masks let output ``i`` see only features before ``i``.

    ``log_det = sum_i log f'(x_i)``. Data to latent is one pass through the network; the inverse
    takes as many passes as there are features. ``Inverse(Autoregressive(...))`` is the other way
    round: fast to sample from, as an inverse autoregressive flow.

    Args:
      dimensions: Number of features.
      scalar: Map ``f`` of one feature.
      width: Hidden units of the network; with fewer than ``dimensions - 1`` some features are seen
        by no other, which is warned of.
      blocks: Residual blocks of the network.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      dropout_rate: Probability of dropping a hidden unit in training.
      random_order: Whether the order of the features and the masks are drawn from ``rngs``;
        otherwise the features keep their order and hidden units take turns.
      rngs: Source of the weights.

    References:
      Germain, Gregor, Murray and Larochelle, 2015, MADE, arXiv:1502.03509. Papamakarios, Pavlakou
      and Murray, 2017, Masked autoregressive flow, arXiv:1705.07057. Kingma et al., 2016, Improving
      variational inference with inverse autoregressive flow, arXiv:1606.04934.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> affine = lj.bijections.AffineScalar()
      >>> map = lj.bijections.Autoregressive(3, affine, width=8, rngs=nnx.Rngs(0))
      >>> map.forward(jnp.ones(3))[0].shape
      (3,)
    """

    def __init__(
        self,
        dimensions: int,
        scalar: ScalarMap,
        *,
        width: int,
        blocks: int = 2,
        condition_size: int | None = None,
        dropout_rate: float = 0.0,
        random_order: bool = False,
        rngs: nnx.Rngs,
    ):
        self.dimensions = checked("dimensions", dimensions, Count)
        width = checked("width", width, Count)
        if width < dimensions - 1:
            warnings.warn(
                f"an autoregressive network of {width} hidden units for {dimensions} features: "
                f"with fewer than {dimensions - 1} some features are seen by no other",
                stacklevel=2,
            )
        self.scalar = scalar
        if random_order:
            key = rngs.params()
            degrees = random_degrees(dimensions, width, scalar.parameters, key=key)
        else:
            degrees = degrees_in_turn(dimensions, width, scalar.parameters)
        self.place = Buffer(degrees.inputs)
        self.network = ResidualNetwork(
            dimensions,
            dimensions * scalar.parameters,
            width=width,
            blocks=blocks,
            condition_size=condition_size,
            dropout_rate=dropout_rate,
            degrees=degrees,
            rngs=rngs,
        )

    @override
    def map_with_dropout(
        self, x: Vector, condition: Array | None, key: Array | None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        check_last_axis(x, self.dimensions, "Autoregressive")
        parameters = self.parameters(x, condition, key)
        z, log_derivative = self.scalar.forward(x, parameters)
        return z, jnp.sum(log_derivative)

    @override
    def inverse(self, z: Vector, condition: Array | None = None) -> Vector:
        """Maps a latent back to its example, one feature after the other."""

        def find_next(x: Vector, place: Array) -> tuple[Vector, None]:
            found = self.scalar.inverse(z, self.parameters(x, condition))
            # the others are kept: what is not found yet may overflow, and 0 * inf is no number
            return jnp.where(self.place[...] == place, found, x), None

        places = jnp.arange(1, self.dimensions + 1)
        x, _ = jax.lax.scan(find_next, jnp.zeros_like(z), places)
        return x

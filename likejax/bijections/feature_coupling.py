"""Couplings of vectors: every second feature is moved by a map that the others choose."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, LogDet, check_last_axis
from likejax.bijections.network_map import NetworkMap
from likejax.bijections.scalar import ScalarMap
from likejax.nn.initial import uniform_weights
from likejax.nn.residual import ResidualNetwork
from likejax.settings import Count, checked

Vector = Float[Array, " d"]


class Elementwise(Bijection):
    """Each feature by a scalar map with parameters of its own, which are learned.

    Args:
      dimensions: Number of features.
      scalar: Map of one feature.
      rngs: Source of the initial parameters, uniform between 0 and 1.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> spline = lj.bijections.RationalQuadratic(bins=4)
      >>> lj.bijections.Elementwise(3, spline, rngs=nnx.Rngs(0)).forward(jnp.ones(3))[0].shape
      (3,)
    """

    def __init__(self, dimensions: int, scalar: ScalarMap, *, rngs: nnx.Rngs):
        shape = (checked("dimensions", dimensions, Count), scalar.parameters)
        self.parameters = nnx.Param(0.5 + uniform_weights(rngs.params(), shape, 0.5))
        self.scalar = scalar

    @override
    def forward(
        self, x: Vector, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        check_last_axis(x, len(self.parameters[...]), "Elementwise")
        z, log_derivative = self.scalar.forward(x, self.parameters[...])
        return z, jnp.sum(log_derivative)

    @override
    def inverse(self, z: Vector, condition: Array | None = None) -> Vector:
        """Maps a latent back to its example."""
        return self.scalar.inverse(z, self.parameters[...])


class FeatureCoupling(NetworkMap):
    """``z_i = f(x_i; network(kept features)_i)`` for every second feature ``i``.

    ``log_det = sum_i log f'(x_i)``. The kept features stay as they are, or pass through a map of
    their own, which the network does not see.

    Args:
      dimensions: Number of features, at least 2.
      scalar: Map ``f`` of one feature.
      first: First feature that is moved, 0 or 1.
      width: Hidden units of the network.
      blocks: Residual blocks of the network.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      dropout_rate: Probability of dropping a hidden unit in training.
      kept_map: Scalar map of the kept features, whose parameters are learned; ``None`` for none.
      rngs: Source of the weights.

    Raises:
      ValueError: If there are fewer than two features.

    References:
      Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows, arXiv:1906.04032,
      section 3.2 and official code. Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP,
      arXiv:1605.08803.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> from flax import nnx
      >>> spline = lj.bijections.RationalQuadratic(bins=4)
      >>> coupling = lj.bijections.FeatureCoupling(3, spline, width=8, rngs=nnx.Rngs(0))
      >>> coupling.forward(jnp.ones(3))[0].shape
      (3,)
    """

    def __init__(
        self,
        dimensions: int,
        scalar: ScalarMap,
        *,
        first: int = 0,
        width: int,
        blocks: int = 2,
        condition_size: int | None = None,
        dropout_rate: float = 0.0,
        kept_map: ScalarMap | None = None,
        rngs: nnx.Rngs,
    ):
        self.dimensions = checked("dimensions", dimensions, Count)
        if self.dimensions < 2 or first not in (0, 1):
            raise ValueError(
                "expected at least 2 dimensions to move some by the others, and first 0 or 1; got "
                f"{dimensions} dimensions and first {first}"
            )
        self.scalar = scalar
        self.first = first
        moved = len(range(first, dimensions, 2))
        self.network = ResidualNetwork(
            dimensions - moved,
            moved * scalar.parameters,
            width=width,
            blocks=blocks,
            condition_size=condition_size,
            dropout_rate=dropout_rate,
            rngs=rngs,
        )
        kept = None
        if kept_map is not None:
            kept = Elementwise(dimensions - moved, kept_map, rngs=rngs)
        self.kept_map = nnx.data(kept)

    @override
    def map_with_dropout(
        self, x: Vector, condition: Array | None, key: Array | None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        check_last_axis(x, self.dimensions, "FeatureCoupling")
        kept, moved = x[1 - self.first :: 2], x[self.first :: 2]
        parameters = self.parameters(kept, condition, key)
        moved, log_derivative = self.scalar.forward(moved, parameters)
        log_det = jnp.sum(log_derivative)
        if self.kept_map is not None:
            kept, log_det_kept = self.kept_map.forward(kept)
            log_det = log_det + log_det_kept
        return self._together(kept, moved), log_det

    @override
    def inverse(self, z: Vector, condition: Array | None = None) -> Vector:
        """Maps a latent back to its example."""
        kept, moved = z[1 - self.first :: 2], z[self.first :: 2]
        if self.kept_map is not None:
            kept = self.kept_map.inverse(kept)
        parameters = self.parameters(kept, condition)
        return self._together(kept, self.scalar.inverse(moved, parameters))

    def _together(self, kept: Float[Array, " k"], moved: Float[Array, " m"]) -> Vector:
        """Puts both kinds of features back in their places."""
        x = jnp.zeros((self.dimensions,), moved.dtype)
        return x.at[1 - self.first :: 2].set(kept).at[self.first :: 2].set(moved)

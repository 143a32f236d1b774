"""What couplings and autoregressive maps of vectors share: a network that chooses scalar maps."""

from __future__ import annotations

import abc

from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.bijection import Bijection, LogDet, Parts
from likejax.bijections.scalar import ScalarMap
from likejax.nn.residual import ResidualNetwork

Vector = Float[Array, " d"]


class NetworkMap(Bijection, abc.ABC):
    """A map of a vector by scalar maps whose parameters a network computes; dropout is of training.

    A subclass sets ``scalar`` and ``network``, and implements ``map_with_dropout`` and ``inverse``.

    Attributes:
      scalar: Map of one feature.
      network: Network of the parameters, feature after feature.
    """

    scalar: ScalarMap
    network: ResidualNetwork

    @abc.abstractmethod
    def map_with_dropout(
        self, x: Vector, condition: Array | None, key: Array | None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant.

        Args:
          x: One example.
          condition: Condition of a conditional map.
          key: Key for dropout in the network; ``None`` for none.
        """

    @override
    def forward(
        self, x: Vector, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Vector, LogDet]:
        """Maps one example to its latent, with the log-determinant."""
        return self.map_with_dropout(x, condition, None)

    @override
    def terms(
        self, x: Vector, key: Array | None = None, condition: Array | None = None
    ) -> tuple[Vector, LogDet, Parts]:
        """Maps one example for training, with dropout in the network."""
        z, log_det = self.map_with_dropout(x, condition, key)
        return z, log_det, {}

    def parameters(
        self, seen: Float[Array, " k"], condition: Array | None, key: Array | None = None
    ) -> Float[Array, "moved parameters"]:
        """Returns the parameters of the scalar map of each feature that is moved.

        Args:
          seen: Features that the network reads.
          condition: Condition of a conditional map.
          key: Key for dropout in the network; ``None`` for none.
        """
        rows = self.network(seen, condition, key, rows=self.scalar.parameters)
        return rows.T

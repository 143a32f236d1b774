"""Glow on vectors: the same step of ActNorm, linear map and coupling, for tables and points."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal

from flax import nnx

from likejax.bijections.actnorm import ActNorm
from likejax.bijections.bijection import Bijection
from likejax.bijections.chain import Chain, Repeat
from likejax.bijections.conv1x1 import Conv1x1LU
from likejax.bijections.coupling import AdditiveCoupling, AffineCoupling
from likejax.bijections.split import TopPrior
from likejax.models.conditional import Conditional
from likejax.models.flow import Flow
from likejax.nn.repeat import repeat
from likejax.settings import Count, CountOrOff, Range


@dataclasses.dataclass(frozen=True)
class VectorGlowConfig(Conditional):
    """A RealNVP of vectors, with ActNorm and LU-parameterized linear maps between couplings.

    The first ActNorm standardizes the data when the density is initialized, inside the density, so
    its nats refer to the data as given. A condition enters every coupling, and a Gaussian prior of
    the latent, whose mean and scale are functions of it; both start without its influence.

    References:
      Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803. Kingma and Dhariwal, 2018,
      Glow, arXiv:1807.03039.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.VectorGlowConfig(dimensions=3, depth=2, width=8)
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.EXACT: 'exact'>
    """

    family: ClassVar[str] = "vector_glow"

    dimensions: Annotated[int, Range(at_least=2)] = 2
    """Number of entries of a vector, at least 2."""
    depth: Count = 16
    """Number of flow steps."""
    width: Count = 64
    """Hidden units of the coupling networks."""
    coupling: Literal["affine", "additive"] = "affine"
    """Form of the couplings: scale and shift, or shift alone."""
    num_classes: CountOrOff = None
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    condition_shape: tuple[Count, ...] | None = None
    """Shape of a float condition; ``None`` if the condition is none."""

    def build(self, rngs: nnx.Rngs) -> Flow:
        """Builds the untrained density, its repeated steps stacked.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of vectors ``(dimensions,)`` of floats.
        """
        steps = Repeat(repeat(self._step, self.depth, rngs=rngs))
        maps: list[Bijection] = [steps, ActNorm(self.dimensions)]
        if self.condition_size is not None:
            maps.append(self._prior())
        return Flow(
            Chain(maps),
            (self.dimensions,),
            condition_shape=self.shape_of_condition,
            num_classes=self.num_classes,
        )

    def _prior(self) -> TopPrior:
        """Builds the prior that depends on the condition, and on nothing else."""
        return TopPrior(
            self.dimensions, condition_size=self.condition_size, learned=False, kernel_size=1
        )

    def _step(self, rngs: nnx.Rngs) -> Chain:
        kind = {"affine": AffineCoupling, "additive": AdditiveCoupling}[self.coupling]
        norm, linear = ActNorm(self.dimensions), Conv1x1LU(self.dimensions, rngs=rngs)
        coupling = kind(
            self.dimensions,
            width=self.width,
            rngs=rngs,
            kernel_sizes=(1, 1, 1),
            condition_size=self.condition_size,
        )
        return Chain([norm, linear, coupling])

"""Flows of vectors made of splines or affine maps: neural spline flows and MAF."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar, Literal

import jax
from flax import nnx

from likejax.bijections.autoregressive import Autoregressive
from likejax.bijections.bijection import Bijection
from likejax.bijections.chain import Chain, Repeat
from likejax.bijections.conv1x1 import Permutation
from likejax.bijections.feature_coupling import FeatureCoupling
from likejax.bijections.linear import LULinear
from likejax.bijections.scalar import AffineScalar, ScalarMap
from likejax.bijections.spline import RationalQuadratic
from likejax.bijections.standardize import Standardize
from likejax.models.bases import GaussianMixture, LatentDensity, StudentT
from likejax.models.conditional import Conditional
from likejax.models.flow import Flow
from likejax.nn.repeat import repeat
from likejax.settings import Count, CountOrOff, CountOrZero, Fraction, Positive

Form = Literal["coupling", "autoregressive"]
"""Whether half of the features choose the maps of the others, or each those of the next."""


@dataclasses.dataclass(frozen=True)
class VectorFlowConfig(Conditional, abc.ABC):
    """The settings that flows of vectors share: steps of permutation, linear map and scalar maps.

    A last permutation and linear map come after all steps.
    """

    dimensions: Count = 2
    """Number of entries of a vector."""
    form: Form = "coupling"
    """Way in which features choose the maps of others; sampling from an autoregressive flow takes
    a pass of the networks for each feature."""
    depth: Count = 10
    """Number of flow steps; couplings move even and odd features in turn."""
    width: Count = 256
    """Hidden units of the networks."""
    blocks: CountOrZero = 2
    """Residual blocks of each network."""
    dropout: Fraction = 0.0
    """Probability of dropping a hidden unit in training."""
    linear: bool = True
    """Put a fixed random permutation and a learned linear map before every step."""
    random_order: bool = False
    """Draw the order of the features and the masks of autoregressive networks at random."""
    standardize: bool = False
    """Standardize the data first, inside the density; nats refer to the data as given."""
    num_classes: CountOrOff = None
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    condition_shape: tuple[Count, ...] | None = None
    """Shape of a float condition; ``None`` if the condition is none."""
    base: Literal["normal", "student_t", "mixture"] = "normal"
    """Density of the latents: standard normal; Student's t with learned degrees of freedom, for
    heavy tails; or a learned mixture of normals, for modes apart from each other."""
    components: Count = 10
    """Number of normals of a mixture; other bases do not read it."""

    @property
    @abc.abstractmethod
    def scalar(self) -> ScalarMap:
        """Map of one feature."""

    def _check_together(self):
        super()._check_together()
        if self.form == "coupling" and (self.dimensions < 2 or self.depth < 2):
            raise ValueError(
                "expected at least 2 dimensions and a depth of at least 2 for couplings, got "
                f"{self.dimensions} dimensions and depth {self.depth}"
            )

    def build(self, rngs: nnx.Rngs) -> Flow:
        """Builds the untrained density, its repeated steps stacked.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of vectors ``(dimensions,)`` of floats.
        """
        first = [Standardize(self.dimensions)] if self.standardize else []
        flow = Chain([*first, *self._steps(rngs), *self._mix(rngs)])
        base = self._base(rngs)  # last, so that it changes no draw of the maps
        return Flow(
            flow,
            (self.dimensions,),
            condition_shape=self.shape_of_condition,
            num_classes=self.num_classes,
            base=base,
        )

    def _base(self, rngs: nnx.Rngs) -> LatentDensity | None:
        if self.base == "student_t":
            return StudentT(self.dimensions)
        if self.base == "mixture":
            return GaussianMixture(self.dimensions, self.components, rngs=rngs)
        return None

    def _steps(self, rngs: nnx.Rngs) -> list[Bijection]:
        if self.form == "autoregressive":
            return [Repeat(repeat(self._autoregressive_step, self.depth, rngs=rngs))]
        # two couplings make a block: the networks of even and of odd features have other sizes
        steps: list[Bijection] = [Repeat(repeat(self._two_couplings, self.depth // 2, rngs=rngs))]
        if self.depth % 2:
            steps += [*self._mix(rngs), self._coupling(0, rngs)]
        return steps

    def _autoregressive_step(self, rngs: nnx.Rngs) -> Chain:
        moved = Autoregressive(
            self.dimensions,
            self.scalar,
            width=self.width,
            blocks=self.blocks,
            condition_size=self.condition_size,
            dropout_rate=self.dropout,
            random_order=self.random_order,
            rngs=rngs,
        )
        return Chain([*self._mix(rngs), moved])

    def _two_couplings(self, rngs: nnx.Rngs) -> Chain:
        maps: list[Bijection] = []
        for first in (0, 1):
            maps += self._mix(rngs)
            maps.append(self._coupling(first, rngs))
        return Chain(maps)

    def _coupling(self, first: int, rngs: nnx.Rngs) -> FeatureCoupling:
        return FeatureCoupling(
            self.dimensions,
            self.scalar,
            first=first,
            width=self.width,
            blocks=self.blocks,
            condition_size=self.condition_size,
            dropout_rate=self.dropout,
            kept_map=self._kept_map,
            rngs=rngs,
        )

    def _mix(self, rngs: nnx.Rngs) -> list[Bijection]:
        if not self.linear:
            return []
        order = jax.random.permutation(rngs.params(), self.dimensions)
        return [Permutation(order), LULinear(self.dimensions)]

    @property
    def _kept_map(self) -> ScalarMap | None:
        return None


@dataclasses.dataclass(frozen=True)
class NSFConfig(VectorFlowConfig):
    """A neural spline flow: rational-quadratic splines in couplings or autoregressive maps.

    The defaults are those of the official code for tables.

    References:
      Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows, arXiv:1906.04032.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.NSFConfig(dimensions=3, depth=2, width=8)
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.EXACT: 'exact'>
    """

    family: ClassVar[str] = "nsf"

    bins: Count = 8
    """Number of bins of a spline."""
    bound: Positive = 3.0
    """Half of the side of the box outside of which a spline is the identity."""
    identity_init: bool = True
    """Start with slopes of 1 at all knots; the official code starts with 0.694 inside."""
    kept_splines: bool = True
    """Map the features that a coupling keeps by learned splines of their own."""

    @property
    def scalar(self) -> RationalQuadratic:
        """Spline of one feature; in couplings its logits are divided by the root of the width."""
        scale = 1.0 if self.form == "autoregressive" else 1 / math.sqrt(self.width)
        return dataclasses.replace(self._spline, logit_scale=scale)

    @property
    def _kept_map(self) -> RationalQuadratic | None:
        return self._spline if self.kept_splines else None

    @property
    def _spline(self) -> RationalQuadratic:
        return RationalQuadratic(self.bins, self.bound, identity_init=self.identity_init)


@dataclasses.dataclass(frozen=True)
class MAFConfig(VectorFlowConfig):
    """A masked autoregressive flow with affine maps, or RealNVP's couplings with its networks.

    The defaults are the MAF of the spline paper: residual networks, and linear maps between.

    References:
      Papamakarios, Pavlakou and Murray, 2017, Masked autoregressive flow, arXiv:1705.07057.
      Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows, arXiv:1906.04032.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.MAFConfig(dimensions=3, depth=2, width=8)
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.EXACT: 'exact'>
    """

    family: ClassVar[str] = "maf"

    form: Form = "autoregressive"
    """Way in which features choose the maps of others."""
    scale: Literal["sigmoid", "exp"] = "sigmoid"
    """Scale of the affine maps: bounded, or exponential as in the MAF paper."""

    @property
    def scalar(self) -> AffineScalar:
        """Affine map of one feature."""
        return AffineScalar(self.scale)

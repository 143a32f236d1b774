"""FFJORD: flows that follow a learned vector field, of vectors and of images."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, ClassVar

from flax import nnx

from likejax.bijections.bijection import Bijection
from likejax.bijections.chain import Chain, Repeat
from likejax.bijections.elementwise import Logit
from likejax.bijections.ode import ODE, Solver, Trace
from likejax.bijections.split import FactorOut
from likejax.bijections.squeeze import Squeeze
from likejax.bijections.standardize import Standardize
from likejax.models.conditional import Conditional
from likejax.models.dequantize import Dequantized
from likejax.models.ffjord.dynamics import (
    Activation,
    Dynamics,
    ImageDynamics,
    LayeredField,
    Strides,
    TimeInjection,
)
from likejax.models.flow import Flow
from likejax.nn.repeat import repeat
from likejax.settings import Count, CountOrOff, Levels, Positive, Range

_HUTCHINSON = functools.partial(Trace, probes=1)


@dataclasses.dataclass(frozen=True)
class FieldConfig(Conditional):
    """The settings of continuous flows that vectors and images share.

    A condition enters every layer of every field: the output, and the gate if there is one.
    """

    hidden: tuple[Count, ...] = (64, 64, 64)
    """Channels of the hidden layers of each flow's field."""
    flows: Count = 1
    """Number of continuous flows in a row, each with its own field."""
    time: TimeInjection = "concatsquash"
    """Way in which the time enters each layer."""
    activation: Activation = "tanh"
    """Function between the layers."""
    zero_last: bool = False
    """Start the last layer at zero, and so the flow as the identity (RNODE)."""
    end_time: Positive = 0.5
    """Time that a flow takes, at the start of training."""
    learn_end_time: bool = True
    """Learn that time."""
    trace: Trace = dataclasses.field(default_factory=Trace)
    """Trace of log_prob."""
    training_trace: Trace = dataclasses.field(default_factory=Trace)
    """Trace of training."""
    solver: Solver = dataclasses.field(default_factory=Solver)
    """Solver of log_prob and sampling, one solve per example."""
    training_solver: Solver = dataclasses.field(default_factory=Solver)
    """Solver of training, one solve per batch."""
    num_classes: CountOrOff = dataclasses.field(default=None, kw_only=True)
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    condition_shape: tuple[Count, ...] | None = dataclasses.field(default=None, kw_only=True)
    """Shape of a float condition; ``None`` if the condition is none."""

    def ode(self, field: LayeredField) -> ODE:
        """Builds the flow along a field.

        Args:
          field: Dynamics ``f(t, z)``.
        """
        return ODE(
            field,
            end_time=self.end_time,
            learn_end_time=self.learn_end_time,
            trace=self.trace,
            training_trace=self.training_trace,
            solver=self.solver,
            training_solver=self.training_solver,
        )

    def flow(self, bijection: Bijection, event_shape: tuple[int, ...]) -> Flow:
        """Builds the density of a map.

        Args:
          bijection: Map of one example.
          event_shape: Shape of one example.
        """
        return Flow(
            bijection,
            event_shape,
            condition_shape=self.shape_of_condition,
            num_classes=self.num_classes,
        )


@dataclasses.dataclass(frozen=True)
class FFJORDConfig(FieldConfig):
    """Continuous flows one after the other, for points and tables.

    The defaults are the paper's model of points in the plane.

    References:
      Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, 2019, FFJORD, arXiv:1810.01367,
      sections 4.1 and 4.2.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.FFJORDConfig(dimensions=3, hidden=(8,))
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.EXACT: 'exact'>
    """

    family: ClassVar[str] = "ffjord"

    dimensions: Count = 2
    """Number of entries of a vector."""
    initial_scale: Positive = 1.0
    """Factor on the initial weight matrices: above 1 fields bend more, and take more steps."""
    standardize: bool = False
    """Standardize the data first, inside the density; nats refer to the data as given."""

    def build(self, rngs: nnx.Rngs) -> Flow:
        """Builds the untrained density, its flows stacked.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of vectors ``(dimensions,)`` of floats.
        """
        flows = Repeat(repeat(self._flow, self.flows, rngs=rngs))
        first = [Standardize(self.dimensions)] if self.standardize else []
        return self.flow(Chain([*first, flows]), (self.dimensions,))

    def _flow(self, rngs: nnx.Rngs) -> ODE:
        field = Dynamics(
            self.dimensions,
            self.hidden,
            time=self.time,
            activation=self.activation,
            condition_size=self.condition_size,
            zero_last=self.zero_last,
            initial_scale=self.initial_scale,
            rngs=rngs,
        )
        return self.ode(field)


@dataclasses.dataclass(frozen=True)
class ImageFFJORDConfig(FieldConfig):
    """Continuous flows on several scales, for images.

    The defaults are the paper's CIFAR-10 model (1,358,882 parameters). A scale has ``flows``
    flows, a squeeze, ``flows`` more, and hands half of its channels to the next; the last has
    ``flows`` and no squeeze. Scales are halved while the shorter side is at least 4. In front is
    the logit of the dequantized image.

    References:
      Grathwohl et al., 2019, FFJORD, arXiv:1810.01367, section 4.2 and appendix B.1, with its
      official code. Dinh, Sohl-Dickstein and Bengio, 2017, RealNVP, arXiv:1605.08803 (scales,
      logit).

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.ImageFFJORDConfig(event_shape=(8, 8, 1), hidden=(8,), flows=1)
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.ESTIMATE: 'estimate'>
    """

    family: ClassVar[str] = "image_ffjord"

    event_shape: tuple[Count, Count, Count] = (32, 32, 3)
    """Height, width and channels of the images."""
    levels: Levels = 256
    """Number of integer values of a pixel."""
    alpha: Annotated[float, Range(at_least=0, below=0.5)] = 1e-6
    """Distance that the logit keeps from 0 and 1; 0.05 in RealNVP."""
    strides: Strides = None
    """Stride of every layer: 1, 2 (halves), -2 (doubles, transposed); ``None`` for 1 everywhere."""
    flows: Count = 2
    """Number of continuous flows at each position."""
    multiscale: bool = True
    """Use several scales; otherwise one, and no squeeze."""
    time: TimeInjection = "concat"
    """Way in which the time enters each layer."""
    activation: Activation = "softplus"
    """Function between the layers."""
    end_time: Positive = 1.0
    """Time that a flow takes, at the start of training."""
    trace: Trace = dataclasses.field(default_factory=_HUTCHINSON)
    """Trace of log_prob."""
    training_trace: Trace = dataclasses.field(default_factory=_HUTCHINSON)
    """Trace of training."""

    def _check_together(self):
        super()._check_together()
        strides = (1,) * (len(self.hidden) + 1) if self.strides is None else self.strides
        if len(strides) != len(self.hidden) + 1:
            raise ValueError(
                f"expected {len(self.hidden) + 1} strides, one for every layer, got {strides}"
            )
        if not set(strides) <= {1, 2, -2}:
            raise ValueError(f"expected strides of 1, 2 or -2, got {strides}")
        factor = 2 ** (self.scales - 1)
        sides = self.event_shape[:2]
        if any(side % factor for side in sides):
            raise ValueError(
                f"expected a height and width divisible by {factor} for {self.scales} scales, "
                f"got {sides}: pad the images, or set multiscale=False"
            )
        smallest = [side // factor for side in sides]
        if any(_size_after(side, strides) != side for side in smallest):
            raise ValueError(
                f"expected strides that lead back to the size of the image, got {strides}"
            )

    def build(self, rngs: nnx.Rngs) -> Dequantized:
        """Builds the untrained density, the flows of a position stacked.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of images ``event_shape`` of integers ``0..levels-1``.
        """
        channels = self.event_shape[-1]
        maps: list[Bijection] = [Logit(self.alpha)]
        scales = self.scales
        for scale in range(scales):
            maps.append(self._flows(channels, rngs))
            if scale < scales - 1:
                maps += [Squeeze(), self._flows(4 * channels, rngs), FactorOut(4 * channels)]
                channels *= 2
        return Dequantized(self.flow(Chain(maps), self.event_shape), self.levels)

    @property
    def scales(self) -> int:
        """Number of scales."""
        side, count = min(self.event_shape[:2]), 0
        while side >= 4 and self.multiscale:
            side, count = side // 2, count + 1
        return max(1, count)

    def _flows(self, channels: int, rngs: nnx.Rngs) -> Repeat:
        def one(rngs: nnx.Rngs) -> ODE:
            field = ImageDynamics(
                channels,
                self.hidden,
                strides=self.strides,
                time=self.time,
                activation=self.activation,
                condition_size=self.condition_size,
                zero_last=self.zero_last,
                rngs=rngs,
            )
            return self.ode(field)

        return Repeat(repeat(one, self.flows, rngs=rngs))


def _size_after(side: int, strides: tuple[int, ...]) -> int:
    """The side of a map after layers of these strides; a negative one is of a transposed layer."""
    for stride in strides:
        side = side * -stride if stride < 0 else -(-side // stride)
    return side

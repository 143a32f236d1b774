"""Glow: a multi-scale flow of ActNorm, invertible 1x1 convolutions and couplings."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from likejax.bijections.actnorm import ActNorm
from likejax.bijections.bijection import Bijection, Latent, LogDet
from likejax.bijections.chain import Chain, Repeat
from likejax.bijections.conv1x1 import Conv1x1, Conv1x1LU, Permutation
from likejax.bijections.coupling import AdditiveCoupling, AffineCoupling
from likejax.bijections.elementwise import Affine
from likejax.bijections.reversible import ReversibleRepeat
from likejax.bijections.split import Split, TopPrior
from likejax.bijections.squeeze import Squeeze
from likejax.density import Terms
from likejax.models.conditional import Conditional
from likejax.models.dequantize import Dequantized
from likejax.models.flow import Flow
from likejax.nn.condition import row_of_label
from likejax.nn.dtypes import compute_dtype
from likejax.nn.edge_convolution import ZeroConvolution
from likejax.nn.repeat import repeat
from likejax.settings import Count, CountOrOff, Levels

_COUPLINGS = {"affine": AffineCoupling, "additive": AdditiveCoupling}


@dataclasses.dataclass(frozen=True)
class GlowConfig(Conditional):
    """A Glow on integer images; the defaults are the paper's CIFAR-10 model.

    A class label chooses mean and scale of the top latent, as in the official code. A float
    condition enters the top latent in the same way, and every coupling as well.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039.

    Example:
      >>> import jax, likejax as lj
      >>> sizes = {"scales": 2, "depth": 2, "width": 8}
      >>> config = lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, **sizes)
      >>> lj.build(config, key=jax.random.key(0)).event_shape
      (8, 8, 1)
    """

    family: ClassVar[str] = "glow"

    event_shape: tuple[Count, Count, Count] = (32, 32, 3)
    """Height, width and channels of the images."""
    levels: Levels = 256
    """Integer values of a pixel: 256 for 8-bit images, 32 for 5-bit ones."""
    scales: Count = 3
    """Levels of the multi-scale architecture, L; each begins with a squeeze."""
    depth: Count = 32
    """Flow steps on each scale, K."""
    width: Count = 512
    """Hidden channels of the coupling networks."""
    coupling: Literal["affine", "additive"] = "affine"
    """Form of the couplings: scale and shift, or shift alone."""
    permutation: Literal["conv1x1", "conv1x1_lu", "reverse", "shuffle"] = "conv1x1"
    """Map that mixes the channels between couplings."""
    learned_prior: bool = True
    """Whether mean and scale of the top latent are learned."""
    num_classes: CountOrOff = None
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type the coupling networks compute in; the likelihood itself stays in float32."""
    reversible: bool = False
    """Train in memory that does not grow with ``depth``: the backward pass inverts the steps to get
    their inputs, which takes longer."""
    condition_shape: tuple[Count, ...] | None = None
    """Shape of a float condition; ``None`` if the condition is none."""

    def _check_together(self):
        super()._check_together()
        height, width, _ = self.event_shape
        factor = 2**self.scales
        if height % factor or width % factor:
            raise ValueError(
                f"expected a height and width divisible by 2^scales = {factor}, "
                f"got {height}x{width}; lower scales or pad the images"
            )

    def build(self, rngs: nnx.Rngs) -> Dequantized:
        """Builds the untrained density, its repeated steps stacked.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of images ``event_shape`` of integers ``0..levels-1``.
        """
        channels = self.event_shape[2]
        maps: list[Bijection] = [Affine(0.5)]
        for scale in range(self.scales):
            channels *= 4
            maps += [Squeeze(), self._steps(channels, rngs)]
            if scale < self.scales - 1:
                maps.append(Split(channels))
                channels //= 2
        maps.append(self._top_prior(channels))
        bijection = Chain(maps)
        if self.num_classes is not None:
            flow = ClassConditionalGlow(
                bijection, self.event_shape, channels=channels, num_classes=self.num_classes
            )
        else:
            flow = Flow(bijection, self.event_shape, condition_shape=self.condition_shape)
        return Dequantized(flow, self.levels)

    def _top_prior(self, channels: int) -> TopPrior:
        return TopPrior(
            channels,
            num_classes=self.num_classes,
            condition_size=self._floats,
            learned=self.learned_prior,
        )

    @property
    def _floats(self) -> int | None:
        """Number of entries of a float condition; ``None`` without one."""
        return self.condition_size if self.num_classes is None else None

    def _steps(self, channels: int, rngs: nnx.Rngs) -> Repeat:
        blocks = repeat(lambda rngs: self._step(channels, rngs), self.depth, rngs=rngs)
        return ReversibleRepeat(blocks) if self.reversible else Repeat(blocks)

    def _step(self, channels: int, rngs: nnx.Rngs) -> Chain:
        """Builds one flow step: ActNorm, permutation, coupling."""
        norm, permutation = ActNorm(channels), self._permutation(channels, rngs)
        coupling = _COUPLINGS[self.coupling](
            channels,
            width=self.width,
            condition_size=self._floats,
            rngs=rngs,
            dtype=compute_dtype(self.compute_dtype),
        )
        return Chain([norm, permutation, coupling])

    def _permutation(self, channels: int, rngs: nnx.Rngs) -> Bijection:
        if self.permutation == "reverse":
            return Permutation(jnp.arange(channels)[::-1])
        if self.permutation == "shuffle":
            return Permutation(jax.random.permutation(rngs.params(), channels))
        if self.permutation == "conv1x1_lu":
            return Conv1x1LU(channels, rngs=rngs)
        return Conv1x1(channels, rngs=rngs)


class ClassConditionalGlow(Flow):
    """A Glow with a top prior for each class, and a classifier of the top latent for training.

    ``terms`` has the part ``class_log_prob``, the log-probability that a linear softmax of the
    spatial mean of the top latent gives to the label; the official objective adds 0.01 of its
    negative, in bits.

    Args:
      bijection: Chain that ends with the conditional ``TopPrior``.
      event_shape: Shape of one image.
      channels: Channels of the top latent.
      num_classes: Number of labels.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, official code (``ycond``, ``weight_y``).
    """

    def __init__(
        self,
        bijection: Chain,
        event_shape: tuple[int, ...],
        *,
        channels: int,
        num_classes: int,
    ):
        super().__init__(bijection, event_shape, condition_shape=(), num_classes=num_classes)
        self.classifier = ZeroConvolution(channels, num_classes, kernel_size=1)

    def _terms(self, x: Array, key: Array | None, condition: Array | None) -> Terms:
        assert condition is not None
        z, log_det, _ = self.bijection.terms(x, key, condition)
        log_prob = self._latent_log_prob(z) + log_det
        class_log_prob = self._class_log_prob(z, condition)
        return Terms(log_prob, {"class_log_prob": class_log_prob})

    def _class_log_prob(self, z: Latent, condition: Array) -> LogDet:
        white_top = z[0] if isinstance(z, tuple) else z
        prior = self.bijection.bijections[-1]  # pyright: ignore
        top = prior.inverse(white_top, condition)
        logits = self.classifier(top.mean((0, 1)))
        return row_of_label(jax.nn.log_softmax(logits), condition)

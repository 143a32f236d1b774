"""The config of hierarchical VAEs: bottom-up, top-down and bidirectional; one latent or many."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from flax import nnx

from likejax.distributions import Form
from likejax.models.conditional import Conditional
from likejax.models.vae.density import VAE
from likejax.models.vae.likelihood import LikelihoodForm, LikelihoodName, likelihood
from likejax.models.vae.network import GenerativeStage, InferenceStage, MapShape
from likejax.models.vae.stage import Activation, Options, Skips, StageConfig, StagePlan
from likejax.nn.dtypes import compute_dtype
from likejax.settings import Count, CountOrOff, LevelsOrOff, Positive

Inference = Literal["bottom_up", "top_down", "bidirectional"]
"""Way on which latents are inferred: up, down, or half of their features on each."""

_GRAY_STAGES = (
    StageConfig(strides=(1, 1, 2), kernel=5, latent=8, dense=False),
    StageConfig(strides=(1, 1, 2), latent=16),
    StageConfig(strides=(1, 1, 1), latent=8),
)


@dataclasses.dataclass(frozen=True)
class VAEConfig(Conditional):
    """A hierarchical VAE; by default that of Havtorn et al. for binarized 28x28 images.

    The default has working skips, unlike the released code. A condition adds a linear function of
    it, which starts at zero, to the first layer of every stage, on the way up and on the way down,
    and to the mean and standard deviation of the top latent: prior, inference and likelihood
    depend on it.

    Example:
      >>> import jax, likejax as lj
      >>> stage = lj.models.StageConfig(channels=(4,), strides=(2,), latent=2)
      >>> config = lj.models.VAEConfig(event_shape=(4, 4, 1), stages=(stage,))
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.BOUND: 'bound'>
    """

    family: ClassVar[str] = "vae"

    event_shape: tuple[Count, ...] = (28, 28, 1)
    """Height, width and channels of images, or the number of entries of a vector."""
    levels: LevelsOrOff = 2
    """Integer values of an entry; ``None`` for continuous data."""
    stages: tuple[StageConfig, ...] = _GRAY_STAGES
    """Latents and blocks, from the data upwards."""
    likelihood: LikelihoodName = "bernoulli"
    """Observation model p(x | z)."""
    mixtures: Count = 10
    """Components of the logistic mixture."""
    likelihood_form: Form = "exact"
    """Form of a discretized logistic; ``reference`` computes small masses as the released code."""
    inference: Inference = "bottom_up"
    """Latents inferred on the way up, each from the one below; on the way down, each from the data
    and those above (ladder); or half of each latent's features so and half so (BIVA)."""
    skips: Skips = "working"
    """Whether skips between maps of one shape work, or are left out as in the released code, which
    then also has a projection above a dense top latent that nothing reads."""
    gated: bool = False
    """Gate the output of every residual block; a stage with ``gated`` of its own decides itself."""
    activation: Activation = "relu"
    """Function between layers."""
    flatten: bool = False
    """Take the example as one vector: blocks of dense layers, with kernels of 1."""
    latent_scale: Positive = 1.0
    """Standard deviation of the outputs for latents after initialization; 0.1 starts near
    N(0, 1)."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type the network computes in; the likelihood itself stays in float32."""
    remat: bool = False
    """Compute the inside of each block anew for gradients, which saves memory."""
    num_classes: CountOrOff = None
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    condition_shape: tuple[Count, ...] | None = None
    """Shape of a float condition; ``None`` if the condition is none."""

    def _check_together(self) -> None:
        super()._check_together()
        if not self.stages:
            raise ValueError("expected at least one stage")
        if (self.levels is None) != (self.likelihood == "gaussian"):
            raise ValueError(
                "expected levels=None for the gaussian likelihood and levels for the others, "
                f"got {self.levels} for {self.likelihood}"
            )
        if self.likelihood == "bernoulli" and self.levels != 2:
            raise ValueError(
                f"expected 2 levels for the bernoulli likelihood, got {self.levels}: "
                "binarize the data"
            )
        if not self.flatten and len(self.event_shape) != 3:
            raise ValueError(
                f"expected images (height, width, channels) or flatten=True, got {self.event_shape}"
            )
        if self.flatten and any(max(*stage.kernels, *stage.strides) > 1 for stage in self.stages):
            raise ValueError("expected stages of kernel 1 and strides 1 for flatten=True")

    def build(self, rngs: nnx.Rngs) -> VAE:
        """Returns the untrained density.

        Args:
          rngs: Source of the initial weights.

        Raises:
          ValueError: If the strides do not divide the image, or skips have shapes that no layer
            takes.
        """
        options = self._options()
        plans = [self._plan(i) for i in range(len(self.stages))]
        image = self._image_shape()
        up = self._ways_up(plans, image, options, rngs)
        down = self._ways_down(plans, up, options, rngs)
        last = down[0].shape
        if last[:2] != image[:2]:
            raise ValueError(
                f"expected strides that divide the image, {self.event_shape} comes back as "
                f"{last[:2]}"
            )
        form = LikelihoodForm(
            name=self.likelihood,
            levels=self.levels,
            mixtures=self.mixtures,
            logistic=self.likelihood_form,
            dense=self.flatten,
        )
        head = likelihood(form, last, image[2], options=options, rngs=rngs)
        return VAE(
            up,
            down,
            head,
            self.event_shape,
            levels=self.levels,
            flatten=self.flatten,
            condition_shape=self.shape_of_condition,
            num_classes=self.num_classes,
        )

    def _options(self) -> Options:
        as_released = self.skips == "as_released" and self.inference == "bottom_up"
        return Options(
            activation=self.activation,
            skips=self.skips,
            latent_scale=self.latent_scale,
            dtype=compute_dtype(self.compute_dtype),
            unread_projection=as_released,
            gated=self.gated,
            condition_size=self.condition_size,
            remat=self.remat,
        )

    def _image_shape(self) -> MapShape:
        """The shape of the map that the network takes."""
        if self.flatten:
            return (1, 1, math.prod(self.event_shape))
        height, width, channels = self.event_shape
        return height, width, channels

    def _ways_up(
        self, plans: list[StagePlan], shape: MapShape, options: Options, rngs: nnx.Rngs
    ) -> list[InferenceStage]:
        """The inference stages, from the data upwards."""
        stages: list[InferenceStage] = []
        below = None
        for plan in plans:
            stage = InferenceStage(plan, shape, below, options=options, rngs=rngs)
            stages.append(stage)
            shape = stage.next_shape
            below = stage.shape if plan.up else None
        return stages

    def _ways_down(
        self,
        plans: list[StagePlan],
        up: list[InferenceStage],
        options: Options,
        rngs: nnx.Rngs,
    ) -> list[GenerativeStage]:
        """The generative stages, from the data upwards; they are built from the top."""
        stages: list[GenerativeStage] = []
        above: GenerativeStage | None = None
        for plan, beside in zip(plans[::-1], up[::-1], strict=True):
            above = GenerativeStage(plan, beside.shape, above, options=options, rngs=rngs)
            stages.append(above)
        return stages[::-1]

    def _plan(self, index: int) -> StagePlan:
        """A stage with its place, and how many features of its latent are inferred each way."""
        stage = self.stages[index]
        top = index == len(self.stages) - 1
        up, down = stage.latent, 0
        if self.inference == "top_down" and not top:
            up, down = 0, stage.latent
        if self.inference == "bidirectional" and not top:
            if stage.latent < 2:
                raise ValueError(
                    "expected at least 2 features of each latent for bidirectional inference"
                )
            down = stage.latent // 2
            up = stage.latent - down
        return StagePlan(stage, up, down, bottom=index == 0, top=top)

"""The configs of diffusion models of images, of vectors and of text."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal

from flax import nnx

from likejax.models.conditional import Conditional
from likejax.models.diffusion.density import VDM, BoundSettings
from likejax.models.diffusion.embedding import LevelEmbedding, RealEmbedding
from likejax.models.diffusion.network import ScoreNetwork, Sizes, largest_groups
from likejax.models.diffusion.process import Prediction, smallest_gamma
from likejax.models.diffusion.sampling import DiffusionSampler
from likejax.models.diffusion.schedule import ScheduleName, make_schedule
from likejax.models.diffusion.sequence_network import SequenceNetwork, SequenceSizes
from likejax.models.diffusion.tokens import TokenEmbedding
from likejax.models.diffusion.vector_network import VectorNetwork
from likejax.nn.dtypes import compute_dtype
from likejax.settings import Count, CountOrOff, CountOrZero, Fraction, Levels, Positive, Range


class _Diffusion(Conditional):
    """What the configs of diffusion models share."""

    _predictions: ClassVar[tuple[Prediction, ...]] = ("noise", "velocity")
    """What the network of the config can predict."""

    schedule: ScheduleName
    gamma_min: float | None
    gamma_max: float
    bound: BoundSettings
    _default_start: float
    """Value of ``gamma_min`` where it is ``None``."""

    def _check_together(self) -> None:
        super()._check_together()
        name = type(self).__name__
        if not self.ends[0] < self.gamma_max:
            raise ValueError(
                f"expected {name}.gamma_min below gamma_max, got {self.ends[0]} and "
                f"{self.gamma_max}"
            )
        if self.bound.prediction not in self._predictions:
            known = " or ".join(repr(each) for each in self._predictions)
            raise ValueError(
                f"expected {name}.bound.prediction={known}, which is what its network predicts, "
                f"got {self.bound.prediction!r}"
            )
        if self.bound.condition_dropout and self.condition_size is None:
            raise ValueError(
                f"expected {name}.bound.condition_dropout=0 for a model without a condition, got "
                f"{self.bound.condition_dropout}: set num_classes or condition_shape"
            )
        is_learned = self.schedule in ("learned_linear", "learned_network")
        if self.bound.schedule_gradient == "variance" and not is_learned:
            raise ValueError(
                f"expected {name}.schedule to be learned for schedule_gradient='variance', got "
                f"{self.schedule!r}: take learned_network"
            )

    @property
    def ends(self) -> tuple[float, float]:
        """``gamma`` of the data and of the noise."""
        start = self._default_start if self.gamma_min is None else self.gamma_min
        return start, self.gamma_max


@dataclasses.dataclass(frozen=True)
class VDMConfig(_Diffusion):
    """A variational diffusion model of images; the defaults are the paper's CIFAR-10 model.

    References:
      Kingma, Salimans, Poole and Ho, 2021, Variational diffusion models, arXiv:2107.00630. Zheng,
      Lu, Chen and Zhu, 2023, arXiv:2305.03935 (velocity and importance sampling).

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.VDMConfig(event_shape=(8, 8, 1), levels=17, width=16, blocks=1)
      >>> lj.build(config, key=jax.random.key(0)).kind
      <Kind.ESTIMATE: 'estimate'>
    """

    family: ClassVar[str] = "vdm"

    event_shape: tuple[Count, Count, Count] = (32, 32, 3)
    """Height, width and channels of the images."""
    levels: Levels = 256
    """Number of integer values of a pixel."""
    width: Annotated[int, Range(at_least=4)] = 128
    """Channels of the network, an even number."""
    blocks: CountOrZero = 32
    """Residual blocks each way on a resolution."""
    resolutions: Count = 1
    """Number of resolutions, each half of the one before; the paper has one."""
    patch: Count = 1
    """Side of the squares of pixels that become one position of the network; 1 in the paper."""
    groups: Count | None = None
    """Groups of the normalizations, which divide the width; ``None`` for up to 32 of at least four
    channels. Groups of one channel hide the time from the network."""
    attention: bool = False
    """Put attention behind every block; in the middle of the network there always is one."""
    fourier: bool = True
    """Add Fourier features; of the frequencies, one period is one level and the other is two."""
    fading: bool = False
    """Fade each Fourier feature out where the noise hides it, which keeps the flow of ``as_flow``
    smooth; the paper does not."""
    dropout: Fraction = 0.1
    """Probability of dropping a hidden value in training."""
    schedule: ScheduleName = "learned_linear"
    """Course of the noise over time."""
    gamma_min: float | None = None
    """Negative log signal-to-noise ratio of the data; ``None`` for -13.3 + 2 log(256 / levels)."""
    gamma_max: float = 5.0
    """Negative log signal-to-noise ratio of the noise."""
    bound: BoundSettings = dataclasses.field(default_factory=BoundSettings)
    """How the bound is computed, in training and in evaluation."""
    sampler: DiffusionSampler = dataclasses.field(default_factory=DiffusionSampler)
    """How samples are drawn."""
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
        if self.width % 2:
            raise ValueError(f"expected an even VDMConfig.width, got {self.width}")
        if self.width % self._groups:
            raise ValueError(
                f"expected VDMConfig.groups that divide the width {self.width}, got {self._groups}"
            )
        if self.fading and not self.fourier:
            raise ValueError(
                "expected VDMConfig.fading=False where fourier=False, got True: without Fourier "
                "features there is nothing to fade"
            )
        factor = self.patch * 2 ** (self.resolutions - 1)
        if any(side % factor for side in self.event_shape[:2]):
            raise ValueError(
                f"expected a height and width divisible by {factor} for patches of {self.patch} "
                f"and {self.resolutions} resolutions, got {self.event_shape[:2]}: lower them or "
                "pad the images"
            )

    @property
    def _default_start(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return smallest_gamma(self.levels)

    @property
    def _groups(self) -> int:
        return largest_groups(self.width) if self.groups is None else self.groups

    def build(self, rngs: nnx.Rngs) -> VDM:
        """Builds the untrained density, its repeated blocks stacked.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of images ``event_shape`` of integers ``0..levels-1``.
        """
        sizes = Sizes(
            width=self.width,
            groups=self._groups,
            attention=self.attention,
            dropout=self.dropout,
            dtype=compute_dtype(self.compute_dtype),
            remat=self.remat,
        )
        denoiser = ScoreNetwork(
            self.event_shape[2],
            sizes,
            blocks=self.blocks,
            resolutions=self.resolutions,
            patch=self.patch,
            frequencies=(self.levels / 4, self.levels / 2) if self.fourier else (),
            fading=self.fading,
            ends=self.ends,
            condition_size=self.condition_size,
            rngs=rngs,
        )
        return VDM(
            self.event_shape,
            LevelEmbedding(self.levels),
            make_schedule(self.schedule, *self.ends, rngs=rngs),
            denoiser,
            settings=self.bound,
            sampler=self.sampler,
            condition_shape=self.shape_of_condition,
            num_classes=self.num_classes,
        )


@dataclasses.dataclass(frozen=True)
class VectorVDMConfig(_Diffusion):
    """A variational diffusion model of points and tables.

    The process ends at a noise of ``exp(gamma_min / 2)`` of the data, whose density is that of
    ``log_prob``; ``as_flow`` is without it.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.VectorVDMConfig(dimensions=3, width=16, blocks=1)
      >>> lj.build(config, key=jax.random.key(0)).event_shape
      (3,)
    """

    family: ClassVar[str] = "vector_vdm"
    _default_start: ClassVar[float] = -10.0  # pyright: ignore

    dimensions: Count = 2
    """Number of entries of a vector."""
    width: Annotated[int, Range(at_least=4)] = 128
    """Hidden units of the network, an even number."""
    blocks: CountOrZero = 3
    """Residual blocks."""
    frequencies: tuple[Positive, ...] = (0.25, 0.5)
    """Frequencies ``f`` of the Fourier features ``sin(2 pi f z)``, ``cos(2 pi f z)``."""
    dropout: Fraction = 0.0
    """Probability of dropping a hidden unit in training."""
    standardize: bool = True
    """Standardize the data first, inside the density; nats refer to the data as given."""
    schedule: ScheduleName = "fixed"
    """Course of the noise over time."""
    gamma_min: float | None = None
    """Negative log signal-to-noise ratio of the data; ``None`` for -10."""
    gamma_max: float = 5.0
    """Negative log signal-to-noise ratio of the noise."""
    bound: BoundSettings = dataclasses.field(default_factory=BoundSettings)
    """How the bound is computed, in training and in evaluation."""
    sampler: DiffusionSampler = dataclasses.field(
        default_factory=lambda: DiffusionSampler(steps=250)
    )
    """How samples are drawn."""
    num_classes: CountOrOff = None
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    condition_shape: tuple[Count, ...] | None = None
    """Shape of a float condition; ``None`` if the condition is none."""

    def _check_together(self) -> None:
        super()._check_together()
        if self.width % 2:
            raise ValueError(f"expected an even VectorVDMConfig.width, got {self.width}")
        if self.bound.augmentation != "none":
            raise ValueError(
                "expected VectorVDMConfig.bound.augmentation='none', got "
                f"{self.bound.augmentation!r}: vectors have no orientations"
            )

    def build(self, rngs: nnx.Rngs) -> VDM:
        """Builds the untrained density.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of vectors ``(dimensions,)`` of floats.
        """
        denoiser = VectorNetwork(
            self.dimensions,
            width=self.width,
            blocks=self.blocks,
            frequencies=self.frequencies,
            ends=self.ends,
            dropout_rate=self.dropout,
            condition_size=self.condition_size,
            rngs=rngs,
        )
        return VDM(
            (self.dimensions,),
            RealEmbedding(self.dimensions, standardize=self.standardize),
            make_schedule(self.schedule, *self.ends, rngs=rngs),
            denoiser,
            settings=self.bound,
            sampler=self.sampler,
            condition_shape=self.shape_of_condition,
            num_classes=self.num_classes,
        )


def _of_logits() -> BoundSettings:
    return BoundSettings(prediction="logits", schedule_gradient="variance")


@dataclasses.dataclass(frozen=True)
class TextVDMConfig(_Diffusion):
    """A variational diffusion model of sequences of tokens, such as the characters of a text.

    Tokens are learned vectors. The network predicts their logits, and sees the tokens that it
    found in a first pass; time and condition scale and shift its normalizations.

    References:
      Gulrajani and Hashimoto, 2023, Likelihood-based diffusion language models, arXiv:2305.18619.

    Example:
      >>> import jax, likejax as lj
      >>> config = lj.models.TextVDMConfig(length=16, vocabulary=27, width=16, blocks=1, heads=2)
      >>> vdm = lj.build(config, key=jax.random.key(0))
      >>> vdm.event_shape, vdm.levels, vdm.as_flow("variational").kind
      ((16,), 27, <Kind.ESTIMATE: 'estimate'>)
    """

    family: ClassVar[str] = "text_vdm"
    _default_start: ClassVar[float] = -3.0  # pyright: ignore
    _predictions: ClassVar[tuple[Prediction, ...]] = ("logits",)

    length: Count = 64
    """Number of tokens of a sequence."""
    vocabulary: Levels = 65
    """Number of different tokens."""
    embedding: Count = 16
    """Numbers of the vector of a token."""
    width: Annotated[int, Range(at_least=4)] = 128
    """Channels of a position of the network, an even number."""
    blocks: Count = 4
    """Blocks of attention and a dense network each."""
    heads: Count = 4
    """Heads of the attention, which divide the width."""
    dropout: Fraction = 0.0
    """Probability of dropping an entry of what a block adds in training."""
    schedule: ScheduleName = "learned_network"
    """Course of the noise over time."""
    gamma_min: float | None = None
    """Negative log signal-to-noise ratio of the data; ``None`` for -3."""
    gamma_max: float = 6.0
    """Negative log signal-to-noise ratio of the noise."""
    bound: BoundSettings = dataclasses.field(default_factory=_of_logits)
    """How the bound is computed, in training and in evaluation; its prediction is the logits."""
    sampler: DiffusionSampler = dataclasses.field(
        default_factory=lambda: DiffusionSampler(steps=250)
    )
    """How samples are drawn."""
    num_classes: CountOrOff = None
    """Number of class labels of a conditional model; ``None`` if the condition is no label."""
    condition_shape: tuple[Count, ...] | None = None
    """Shape of a float condition; ``None`` if the condition is none."""

    def _check_together(self) -> None:
        super()._check_together()
        if self.width % 2:
            raise ValueError(f"expected an even TextVDMConfig.width, got {self.width}")
        if self.width % self.heads:
            raise ValueError(
                f"expected TextVDMConfig.heads that divide the width {self.width}, got {self.heads}"
            )
        if self.bound.augmentation != "none":
            raise ValueError(
                "expected TextVDMConfig.bound.augmentation='none', got "
                f"{self.bound.augmentation!r}: text has no orientations"
            )

    def build(self, rngs: nnx.Rngs) -> VDM:
        """Builds the untrained density, its repeated blocks stacked.

        Args:
          rngs: Source of the initial weights.

        Returns:
          A density of sequences ``(length,)`` of integers ``0..vocabulary-1``.
        """
        denoiser = SequenceNetwork(
            self.length,
            self.vocabulary,
            self.embedding,
            SequenceSizes(self.width, self.heads, self.dropout),
            blocks=self.blocks,
            ends=self.ends,
            condition_size=self.condition_size,
            rngs=rngs,
        )
        return VDM(
            (self.length,),
            TokenEmbedding(self.vocabulary, self.embedding, rngs=rngs),
            make_schedule(self.schedule, *self.ends, rngs=rngs),
            denoiser,
            settings=self.bound,
            sampler=self.sampler,
            condition_shape=self.shape_of_condition,
            num_classes=self.num_classes,
        )

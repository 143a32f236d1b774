"""Settings of the stages of a VAE: one stage each way for every latent."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, NamedTuple

from jaxtyping import DTypeLike

from likejax.settings import Count, Range, Settings

Activation = Literal["relu", "leaky_relu", "swish", "elu", "selu", "softplus", "tanh"]
"""Function between layers; ``leaky_relu`` has the slope 0.01 below zero."""
Skips = Literal["working", "as_released"]
"""Whether a skip between maps of one shape is added, or omitted as in the released code."""


class Options(NamedTuple):
    """Settings that all layers of a network share.

    Attributes:
      activation: Function between layers.
      skips: Whether skips between maps of one shape work.
      latent_scale: Standard deviation of the outputs for latents after initialization.
      dtype: Type to compute in, ``None`` for that of the input and the parameters.
      unread_projection: Whether the dense layer above a dense top latent exists, which the official
        code has and never reads.
      gated: Whether blocks have a gate, where their stage does not decide.
      condition_size: Entries of a float condition or number of classes; ``None`` if unconditional.
      remat: Whether the inside of a block is computed anew for gradients, which saves memory.
    """

    activation: Activation = "relu"
    skips: Skips = "working"
    latent_scale: float = 1.0
    dtype: DTypeLike | None = None
    unread_projection: bool = False
    gated: bool = False
    condition_size: int | None = None
    remat: bool = False


class Block(NamedTuple):
    """The form of one residual block.

    Attributes:
      channels: Channels of the hidden map and of the output.
      kernel: Rows and columns of the kernels.
      stride: 2 to halve the map on the way up, and to double it on the way down; otherwise 1.
      gated: Whether the output goes through a gate.
    """

    channels: int
    kernel: int
    stride: int
    gated: bool


@dataclasses.dataclass(frozen=True)
class StageConfig(Settings):
    """One latent of a VAE and its blocks, from the data upwards; the generative blocks mirror them.

    Example:
      >>> import likejax as lj
      >>> lj.models.StageConfig(channels=(32, 32), strides=(1, 2), latent=8).kernel
      3
    """

    channels: tuple[Count, ...] = (64, 64, 64)
    """Channels of each residual block."""
    strides: tuple[Annotated[int, Range(at_least=1, at_most=2)], ...] = (1, 1, 1)
    """Stride of each block: 2 halves the map."""
    kernel: Count | tuple[Count, ...] = 3
    """Rows and columns of the kernels: one number for all blocks, or one for each."""
    latent: Count = 8
    """Features of the latent."""
    dense: bool = True
    """Whether the latent is a vector; otherwise a map of the size that the blocks leave."""
    gated: tuple[bool, ...] | None = None
    """Which blocks have a gate; None for all or none of them, as ``VAEConfig.gated`` sets it."""

    def _check_together(self) -> None:
        count = len(self.channels)
        if not count or count != len(self.strides):
            raise ValueError(
                f"expected a stride for each block's channels, got {self.channels} "
                f"and {self.strides}"
            )
        if len(self.kernels) != count:
            raise ValueError(
                f"expected one kernel, or one for each of {count} blocks, got {self.kernel}"
            )
        if self.gated is not None and len(self.gated) != count:
            raise ValueError(f"expected gated for each of {count} blocks, got {self.gated}")

    @property
    def kernels(self) -> tuple[int, ...]:
        """Rows and columns of the kernels of each block."""
        if isinstance(self.kernel, int):
            return (self.kernel,) * len(self.channels)
        return self.kernel

    def blocks(self, options: Options) -> tuple[Block, ...]:
        """Returns the form of each block, from the data upwards.

        Args:
          options: Settings of the whole network, which decide on gates where the stage does not.
        """
        gates = self.gated
        if gates is None:
            gates = (options.gated,) * len(self.channels)
        rows = zip(self.channels, self.kernels, self.strides, gates, strict=True)
        return tuple(Block(*row) for row in rows)


class StagePlan(NamedTuple):
    """A stage and its place in the network.

    Attributes:
      config: Blocks and latent of the stage.
      up: Features of the latent that are inferred on the way up.
      down: Features that are inferred on the way down, behind the others.
      bottom: Whether the stage is next to the data.
      top: Whether no stage is above.
    """

    config: StageConfig
    up: int
    down: int
    bottom: bool
    top: bool

    @property
    def features(self) -> int:
        """Features of the latent."""
        return self.up + self.down

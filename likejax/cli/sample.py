"""``likejax sample``: samples of a trained run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from likejax.cli.options import DevicesOption, SeedOption, UsageError, WeightsOption
from likejax.cli.places import check_picture, check_writable, save_samples
from likejax.settings import Count, CountOrZero, NonNegative

if TYPE_CHECKING:
    from jaxtyping import ArrayLike

    from likejax.density import Density


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(WeightsOption, SeedOption, DevicesOption):
    """Samples of a trained run, as a sheet of pictures or an array."""

    count: Count = 64
    """Number of samples."""
    batch_size: Count = 128
    """Samples drawn at a time on each device; the result does not depend on it."""
    out: Path = Path("samples.png")
    """File of the picture; a name that ends in .npy gets the array."""
    temperature: NonNegative = 1.0
    """Factor on the standard deviation of the latents."""
    label: CountOrZero | None = None
    """Class of the samples, for a model that is conditioned on classes."""
    condition: tuple[float, ...] | None = None
    """Numbers that the samples are conditioned on, row by row if they form an array."""

    def __call__(self) -> int:
        """Draws and writes samples; returns the exit code."""
        import likejax as lj

        check_writable(self.out, option="--out")
        devices = self.chosen_devices()
        density = lj.restore(self.run, which=self.which)
        condition = self._condition(density)
        check_picture(density, self.out)
        save_samples(
            density,
            self.out,
            count=self.count,
            seed=self.seed,
            temperature=self.temperature,
            condition=condition,
            batch_size=self.batch_size,
            devices=devices,
        )
        print(f"{self.count} samples: {self.out}")
        return 0

    def _condition(self, density: Density) -> ArrayLike | None:
        """Returns the condition of all samples.

        Raises:
          UsageError: If it is missing, or not what the density is conditioned on.
        """
        import numpy as np

        shape = density.condition_shape
        if shape != () and self.label is not None:
            raise UsageError("expected no --label: the model of this run has no classes")
        if not shape and self.condition is not None:
            raise UsageError("expected no --condition: the model of this run takes no numbers")
        if shape is None:
            return None
        if shape == ():
            if self.label is None:
                raise UsageError(
                    "the model is conditional: give the class of its samples with --label"
                )
            return self.label
        count = math.prod(shape)
        if self.condition is None or len(self.condition) != count:
            given = "none" if self.condition is None else str(len(self.condition))
            raise UsageError(
                f"the model is conditioned on floats of shape {shape}: give {count} numbers with "
                f"--condition, got {given}"
            )
        return np.asarray(self.condition, np.float32).reshape(shape)

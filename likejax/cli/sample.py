"""``likejax sample``: samples of a trained run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from likejax.cli.options import ConditionOptions, DevicesOption, SeedOption, WeightsOption
from likejax.cli.places import check_picture, check_writable, save_samples
from likejax.settings import Count, NonNegative


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(WeightsOption, ConditionOptions, SeedOption, DevicesOption):
    """Samples of a trained run, as a sheet of pictures or an array.

    A conditional model draws all of them under the condition of --label or --condition.
    """

    count: Count = 64
    """Number of samples."""
    batch_size: Count = 128
    """Samples drawn at a time on each device; the result does not depend on it."""
    out: Path = Path("samples.png")
    """File of the picture; a name that ends in .npy gets the array."""
    temperature: NonNegative = 1.0
    """Factor on the standard deviation of the latents."""

    def __call__(self) -> int:
        """Draws and writes samples; returns the exit code."""
        import likejax as lj

        check_writable(self.out, option="--out")
        devices = self.chosen_devices()
        density = lj.restore(self.run, which=self.which)
        condition = self.condition_for(density)
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

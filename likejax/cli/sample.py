"""``likejax sample``: samples of a trained run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from likejax.cli.options import SeedOption, UsageError, WeightsOption
from likejax.cli.places import check_picture, check_writable, save_samples
from likejax.settings import Count, CountOrZero, NonNegative

if TYPE_CHECKING:
    from likejax.density import Density


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(WeightsOption, SeedOption):
    """Samples of a trained run, as a sheet of pictures or an array."""

    count: Count = 64
    """Number of samples."""
    out: Path = Path("samples.png")
    """File of the picture; a name that ends in .npy gets the array."""
    temperature: NonNegative = 1.0
    """Factor on the standard deviation of the latents."""
    label: CountOrZero | None = None
    """Class of the samples, for a conditional model."""

    def __call__(self) -> int:
        """Draws and writes samples; returns the exit code."""
        import likejax as lj

        check_writable(self.out, option="--out")
        density = lj.restore(self.run, which=self.which)
        self._check_label(density)
        check_picture(density, self.out)
        save_samples(
            density,
            self.out,
            count=self.count,
            seed=self.seed,
            temperature=self.temperature,
            label=self.label,
        )
        print(f"{self.count} samples: {self.out}")
        return 0

    def _check_label(self, density: Density) -> None:
        """Raises a UsageError if a label is missing, or given to a density without classes."""
        if density.condition_shape is None and self.label is not None:
            raise UsageError("expected no --label: the model of this run has no classes")
        if density.condition_shape is not None and self.label is None:
            raise UsageError("the model is conditional: give the class of its samples with --label")

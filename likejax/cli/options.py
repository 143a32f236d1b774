"""Options that several commands share; each is declared here once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

import tyro

from likejax.legacy import modern_offs
from likejax.settings import (
    Count,
    CountOrZero,
    Settings,
    can_be_off,
    hints_of,
    settings_that_can_be_off,
)

if TYPE_CHECKING:
    from jaxtyping import ArrayLike

    from likejax.density import Density


@runtime_checkable
class Command(Protocol):
    """A command with its arguments: calling it does the work and returns the exit code."""

    def __call__(self) -> int:
        """Does the work and returns the exit code."""
        ...


class UsageError(ValueError):
    """An error in the command line itself, which ends the program with exit code 2."""


def with_none_for_off(args: Sequence[str], kind: type[Command]) -> list[str]:
    """Returns a command line with ``None`` where a 0 turned a setting off in older versions.

    Args:
      args: Words of the command line.
      kind: Its command; one that trains has an experiment, whose settings are options.
    """
    names = {name for name, hint in hints_of(kind).items() if can_be_off(hint)}
    experiment = getattr(kind, "experiment", None)
    if experiment is not None:
        names |= set(settings_that_can_be_off(experiment))
    return modern_offs(args, names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArgument(Settings):
    """The argument of every command about a trained run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsOption(RunArgument):
    """A run and which of its weights to use."""

    which: Literal["best", "last"] = "best"
    """Weights with the best validation, or of the last step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOption(Settings):
    """Where datasets are read from."""

    data_dir: Path | None = None
    """Directory of the dataset files; the environment variable LIKEJAX_DATA if not given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedOption(Settings):
    """The random seed."""

    seed: CountOrZero = 0
    """Random seed of everything that the command draws."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DevicesOption(Settings):
    """On which devices a command computes."""

    devices: Count | None = None
    """Number of devices of this process to compute on, the first ones; all if not given."""
    distributed: bool = False
    """Join the other processes of a cluster, or of LIKEJAX_PROCESSES=HOST:PORT,COUNT,INDEX, in
    which the same command was started, and share the work with them."""

    def __post_init__(self) -> None:
        """Refuses settings that do not go together."""
        super().__post_init__()
        if self.distributed and self.devices is not None:
            # each process would choose its own, and work alone
            raise UsageError(
                "expected no --devices with --distributed: all processes use all of theirs"
            )

    def chosen_devices(self) -> list[Any] | None:
        """Returns the devices to compute on; ``None`` for all of this process.

        Raises:
          UsageError: If there are not so many.
        """
        import jax

        if self.distributed:
            return jax.devices()
        if self.devices is None:
            return None
        found = jax.local_devices()
        if self.devices > len(found):
            raise UsageError(f"expected --devices of at most {len(found)}, got {self.devices}")
        return found[: self.devices]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringOptions(DataOption, SeedOption, DevicesOption):
    """How a dataset is scored."""

    draws: Count = 1
    """Draws for each example; more of them tighten a bound."""
    batch_size: Count = 128
    """Examples scored at a time; the result does not depend on it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionOptions(Settings):
    """One condition for all that a command asks of a conditional model."""

    label: CountOrZero | None = None
    """Class that is the condition, for a model that is conditioned on classes."""
    condition: tuple[float, ...] | None = None
    """Numbers that are the condition, row by row if they form an array."""

    def __post_init__(self) -> None:
        """Refuses two conditions."""
        super().__post_init__()
        if self.label is not None and self.condition is not None:
            raise UsageError("expected --label or --condition, got both: a model takes one of them")

    @property
    def condition_in_words(self) -> str:
        """The condition that was given; empty if there is none."""
        if self.label is not None:
            return f"label {self.label}"
        if self.condition is not None:
            return f"condition ({', '.join(f'{each:g}' for each in self.condition)})"
        return ""

    def at_condition(self, density: Density) -> Density:
        """Returns the density at the condition; an unconditional one as it is.

        Args:
          density: Density of a run.

        Raises:
          UsageError: If the condition is missing, or not what the density is conditioned on.
        """
        from likejax.models import condition

        value = self.condition_for(density)
        return density if value is None else condition(density, value)

    def condition_for(self, density: Density) -> ArrayLike | None:
        """Returns the condition of a density; ``None`` for an unconditional one.

        Args:
          density: Density of a run.

        Raises:
          UsageError: If the condition is missing, or not what the density is conditioned on.
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
                raise UsageError("the model is conditional: give a class with --label")
            return _checked(density, self.label, option="--label")
        count = math.prod(shape)
        if self.condition is None or len(self.condition) != count:
            given = "none" if self.condition is None else str(len(self.condition))
            raise UsageError(
                f"the model is conditioned on floats of shape {shape}: give {count} numbers with "
                f"--condition, got {given}"
            )
        return _checked(density, np.asarray(self.condition).reshape(shape), option="--condition")


def _checked(density: Density, value: ArrayLike, *, option: str) -> ArrayLike:
    """Returns a condition after the density's own checks, whose errors then name the option."""
    try:
        return density.checked_value(value)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error

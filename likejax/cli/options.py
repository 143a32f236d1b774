"""Options that several commands share; each is declared here once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

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

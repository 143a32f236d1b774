"""Command-line arguments to frozen dataclasses, through tyro."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from likejax.experiment import Experiment

Arguments = TypeVar("Arguments")


def parse(kind: type[Arguments], args: Sequence[str], *, prog: str, description: str) -> Arguments:
    """A dataclass from arguments; an unknown name ends the program with the near matches and exit code 2."""
    import tyro

    return tyro.cli(kind, args=list(args), prog=prog, description=description)


def parse_with_experiment(
    kind: type[Arguments],
    experiment: Experiment,
    args: Sequence[str],
    *,
    prog: str,
    description: str,
) -> tuple[Arguments, Experiment]:
    """A dataclass and an experiment with overrides, ``--optimizer.learning_rate 5e-4``, from one command line.

    Args:
      kind: Frozen dataclass of the command's own arguments.
      experiment: Gives the defaults, and the type of the model's fields.
      args: The command line.
      prog: Name to show.
      description: What to show above the arguments.
    """
    import tyro

    fields: list[Any] = [
        ("command", Annotated[kind, tyro.conf.arg(name="")]),
        (
            "experiment",
            Annotated[
                Experiment[type(experiment.model)],
                tyro.conf.arg(name=""),
                tyro.conf.AvoidSubcommands,
            ],
            dataclasses.field(default=experiment),
        ),
    ]
    both = dataclasses.make_dataclass("Both", fields, frozen=True)
    parsed = tyro.cli(both, args=list(args), prog=prog, description=description)
    return parsed.command, parsed.experiment  # type: ignore[attr-defined]

"""The command line.

Each command is a frozen dataclass: its fields are the arguments, and calling it does the work.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from likejax import memory
from likejax.cli.cluster import is_joined, joined, leave
from likejax.cli.evaluate import Evaluate
from likejax.cli.lists import Datasets, Demo, Presets, Summary
from likejax.cli.ood import Ood
from likejax.cli.options import Command, DevicesOption, UsageError, with_none_for_off
from likejax.cli.parser import parse
from likejax.cli.sample import Sample
from likejax.cli.train import Train, train_command, with_present_weights
from likejax.legacy import modern
from likejax.names import meant
from likejax.processes import check_same

COMMANDS: dict[str, type[Command]] = {
    kind.__name__.lower(): kind
    for kind in (Train, Evaluate, Sample, Ood, Summary, Presets, Datasets, Demo)
}
"""Commands by name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command of the command line.

    Args:
      argv: The command line without the name of the program; that of the process if not given.

    Returns:
      The exit code: 0; 2 for an error in the command line itself; 1 if something that it names is
      missing or the work fails; 130 after Ctrl-C; 141 if the reader of the output closed it.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given == ["--version"]:
        print(importlib.metadata.version("likejax"))
        return 0
    _silence_storage()
    if argv is None:  # the process is this command's own
        memory.keep_freed()
    if not given:
        main(["--help"])
        return 2
    try:
        code = _exit_code(given)
    except BaseException:  # an error that no sentence is known for
        if is_joined():
            traceback.print_exc()
            leave(1)
        raise
    if code != 0 and is_joined():
        leave(code)
    return code


def _exit_code(given: Sequence[str]) -> int:
    """Runs the command of a command line, and prints a sentence for its errors."""
    try:
        code = _run(_parsed([_modern_word(word) for word in given]))
        if sys.stdout is not None:  # it is None if the shell closed it
            sys.stdout.flush()
        return code
    except SystemExit as exit:  # from the parser, which has printed help or an error
        return exit.code if isinstance(exit.code, int) else 1
    except BrokenPipeError:  # the reader, for example `head`, has read enough
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.__stdout__.fileno())  # type: ignore[union-attr]
        return 141
    except KeyboardInterrupt:
        print("likejax: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FloatingPointError, OSError) as error:
        if os.environ.get("LIKEJAX_TRACEBACK"):
            raise
        print(f"likejax: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _parsed(args: Sequence[str]) -> Command:
    """Returns the command of a command line.

    Raises:
      UsageError: If there is no such command, no such preset, or a setting is not allowed.
      SystemExit: From the parser, after ``--help`` with code 0 and for wrong arguments with 2.
    """
    commands: dict[str, type[Command]] = dict(COMMANDS)
    word = args[0]
    if not word.startswith("-") and word not in commands:
        near = meant(word, commands, otherwise=f"there are {', '.join(commands)}")
        raise UsageError(f"no command {word!r}{near}")
    if word == "train" and len(args) > 1:
        if not args[1].startswith("-"):
            commands["train"] = train_command(args[1])
            args = with_present_weights(args)
        elif args[1] not in ("-h", "--help"):
            raise UsageError(f"expected PRESET right after `likejax train`, got {args[1]}")
    if word in commands:
        args = with_none_for_off(args, commands[word])
    try:
        return parse(commands, args)
    except SystemExit as exit:
        if exit.code == 2:
            command = " ".join(args[: 2 if word == "train" else 1])
            print(f"likejax: `likejax {command} --help` lists the options", file=sys.stderr)
        raise


def _run(command: Command) -> int:
    """Runs a command, in several processes if it was started so, and returns its exit code."""
    if isinstance(command, DevicesOption) and command.distributed:
        with joined():
            check_same("command line", repr(_without_places(command)))
            return command()
    return command()


def _without_places(command: DevicesOption) -> DevicesOption:
    """A command without the folder of its data, which may lie elsewhere on each machine."""
    return dataclasses.replace(command, data_dir=None) if hasattr(command, "data_dir") else command


def _modern_word(word: str) -> str:
    """Returns a word of the command line with the present spelling of options and augmentations."""
    return modern(word) if word.startswith("--") or word == "binarise" else word


def _silence_storage() -> None:
    """Leaves out what orbax and tensorstore print around the message of a failed write."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.excepthook = _without_closed_loops


def _without_closed_loops(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)

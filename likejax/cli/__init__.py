"""The command line: train, evaluate, sample, score, list, and a demo."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from likejax.cli import commands
from likejax.cli.arguments import USAGE, UsageError
from likejax.legacy import modern

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": commands.train,
    "evaluate": commands.evaluate,
    "sample": commands.sample,
    "ood": commands.ood,
    "summary": commands.summary,
    "presets": commands.presets,
    "datasets": commands.datasets,
    "demo": commands.demo,
}


def _quiet_storage() -> None:
    """When a write fails, orbax and tensorstore print pages around the one sentence that this program prints."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.excepthook = _without_closed_loops


def _without_closed_loops(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point.

    Args:
      argv: The command line without the program's name; that of the process if not given.

    Returns:
      The exit code: 0; 2 if the command line is wrong by itself; 1 if what it names is not there or the work fails; 130
      after Ctrl-C; 141 if whoever read the output closed it.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    args = [modern(word) if word.startswith("--") or word == "binarise" else word for word in given]
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if args else 2
    if args[0] == "--version":
        print(importlib.metadata.version("likejax"))
        return 0
    if args[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        print(
            f"likejax: no command {args[0]!r}{f', did you mean {near[0]}?' if near else ''}",
            file=sys.stderr,
        )
        return 2
    try:
        _quiet_storage()
        code = COMMANDS[args[0]](args[1:])
        if sys.stdout is not None:  # it is None where the shell closed it
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as head, has had enough: nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
        return 141
    except KeyboardInterrupt:
        print("likejax: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FloatingPointError, OSError) as error:
        if os.environ.get("LIKEJAX_TRACEBACK"):
            raise
        print(f"likejax: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1

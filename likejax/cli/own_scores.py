"""Scores that a user wrote, by the names that the command line takes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from likejax.cli.options import UsageError
from likejax.names import meant

if TYPE_CHECKING:
    from likejax.ood.score import Score


def score_maker(path: str) -> Callable[[], Score]:
    """Returns the class of a score, or a function that makes one.

    Args:
      path: ``MODULE:NAME``. The module is imported, from the working folder first.

    Raises:
      UsageError: If there is no such module or name, or if calling it gives no score.
    """
    name_of_module, _, name = path.partition(":")
    if not (name_of_module and name):
        raise UsageError(f"expected a score as MODULE:CLASS, such as my_scores:Edges, got {path!r}")
    maker = _found(_imported(name_of_module, path), name, path)
    _check(maker, path)
    return maker


def _imported(name: str, path: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(
            f"expected --own-scores {path} to name a module in {folder} or an installed one, "
            f"and there is no module {name!r}"
        ) from error


def _found(module: Any, name: str, path: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    public = [each for each in vars(module) if not each.startswith("_")]
    raise UsageError(
        f"expected --own-scores {path} to name a score of {module.__file__}{meant(name, public)}"
    )


def _check(maker: Any, path: str) -> None:
    """Makes one score, to say now what would fail after the densities are loaded."""
    from likejax.ood.score import Score

    advice = "expected a class of scores, or a function, that is called without arguments"
    try:
        score = maker()
    except TypeError as error:
        raise UsageError(f"--own-scores {path}: {advice}; calling it: {error}") from error
    if not isinstance(score, Score):
        raise UsageError(f"--own-scores {path}: {advice}; calling it gave {type(score).__name__}")

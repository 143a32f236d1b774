"""Logs and pictures, made with the best effort: a failure is a warning and ends no run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


class BestEffort:
    """Work that a run can do without: an error becomes one warning for each kind of work."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Makes a block whose errors become warnings.

        Args:
          what: Name of the work, for the warning.
        """
        try:
            yield
        except Exception as error:  # it may fail in any way, and none is worth a training
            if what not in self._warned:
                self._warned.add(what)
                warn(f"{what} failed, training goes on without: {type(error).__name__}: {error}")


def warn(text: str) -> None:
    """Warns, unless standard error is closed.

    Args:
      text: The warning.
    """
    try:
        warnings.warn(text, stacklevel=3)
    except Warning:  # somebody asked that warnings be errors
        raise
    except Exception:  # what shows warnings has failed itself
        return

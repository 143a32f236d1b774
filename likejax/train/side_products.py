"""What a run makes besides its weights: logs, pictures, words. A failure there is told once and ends no training."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


class SideProducts:
    """Where side products are made: an error becomes one warning for each kind of product."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextlib.contextmanager
    def making(self, what: str) -> Iterator[None]:
        """A block that makes something which training does not need.

        Args:
          what: What it makes, for the warning.
        """
        try:
            yield
        except (
            Exception
        ) as error:  # a side product may fail in any way, and none is worth a training
            if what not in self._told:
                self._told.add(what)
                tell(f"{what} failed, training goes on without: {type(error).__name__}: {error}")


def tell(text: str) -> None:
    """A warning, as far as there is somebody to hear it: standard error may be closed."""
    try:
        warnings.warn(text, stacklevel=3)
    except Warning:  # somebody asked that warnings be errors
        raise
    except Exception:  # what shows warnings has failed itself
        return

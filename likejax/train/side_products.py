"""Side products of a run, such as logs and pictures: a failure is a warning and ends no run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


class SideProducts:
    """Maker of side products: an error becomes one warning for each kind of product."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextlib.contextmanager
    def making(self, what: str) -> Iterator[None]:
        """Makes a block whose errors become warnings.

        Args:
          what: Name of the product, for the warning.
        """
        try:
            yield
        except Exception as error:  # it may fail in any way, and none is worth a training
            if what not in self._told:
                self._told.add(what)
                tell(f"{what} failed, training goes on without: {type(error).__name__}: {error}")


def tell(text: str) -> None:
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

"""Progress bars for long computations, on tqdm: in terminals, notebooks and log files."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax

Item = TypeVar("Item")

_DELAY = 2.0
"""Seconds before a bar appears: short computations show none."""
_SECONDS_BETWEEN_LINES = 30.0
"""Seconds between updates where every update becomes a line of its own, as in a log file."""


@runtime_checkable
class TextStream(Protocol):
    """Anything that takes text, such as ``sys.stderr`` or what a program put in its place."""

    def write(self, text: str, /) -> object:
        """Writes text.

        Args:
          text: Text, with its line breaks.
        """
        ...


def track(iterable: Iterable[Item], *, what: str, total: int | None = None) -> Iterator[Item]:
    """Yields the items of an iterable and shows a bar on standard error meanwhile.

    The bar appears after two seconds. There is none if the environment variable
    ``LIKEJAX_PROGRESS`` is ``0``, in processes other than the first, or if standard error is
    closed.

    Args:
      iterable: Items, each of which takes a while.
      what: Name of the computation, shown beside the bar.
      total: Number of items; the length of ``iterable`` if it has one.

    Returns:
      An iterator over the items.

    Example:
      >>> from likejax.progress import track
      >>> [2 * number for number in track(range(3), what="doubling")]
      [0, 2, 4]
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    bar = Bar(what=what, total=total, delay=_DELAY)
    try:
        for item in iterable:
            yield item
            bar.advance()
    finally:
        bar.close()


def _ignore(error: Exception) -> None:
    del error


class Bar:
    """A progress bar that never raises: after the first error it shows nothing.

    Args:
      what: Name of the computation, shown beside the bar.
      total: Number of steps; ``None`` if it is not known.
      done: Number of steps done before.
      delay: Seconds before the bar appears.
      stream: Text stream to write to; standard error if not given.
      on_failure: Function that is called with the first error.

    Example:
      >>> from likejax.progress import Bar
      >>> bar = Bar(what="training", total=2)
      >>> bar.advance()
      >>> bar.close()
    """

    def __init__(
        self,
        *,
        what: str,
        total: int | None,
        done: int = 0,
        delay: float = 0.0,
        stream: TextStream | None = None,
        on_failure: Callable[[Exception], None] = _ignore,
    ):
        self._on_failure = on_failure
        self._bar: Any = None
        stream = stream or sys.stderr
        if stream is None or not is_shown():
            return
        self._try(lambda: self._open(stream, desc=what, total=total, initial=done, delay=delay))

    def _open(self, stream: TextStream, **options: object) -> None:
        is_in_place = redraws(stream)
        self._bar = _bar_class()(
            file=stream if is_in_place else _Lines(stream),
            mininterval=0.1 if is_in_place else _SECONDS_BETWEEN_LINES,
            dynamic_ncols=True,
            leave=False,
            **options,
        )

    def _try(self, show: Callable[[], object]) -> None:
        try:
            show()
        except Exception as error:  # a closed stream, a terminal that went away
            self._bar = None
            self._on_failure(error)

    def advance(self, steps: int = 1) -> None:
        """Moves the bar.

        Args:
          steps: Number of steps done since the last call.
        """
        if self._bar is not None:
            self._try(lambda: self._bar.update(steps))

    def describe(self, text: str) -> None:
        """Changes the words behind the bar.

        Args:
          text: The newest numbers, in words.
        """
        if self._bar is not None:
            self._try(lambda: self._bar.set_postfix_str(text))

    def write(self, line: str) -> None:
        """Prints a line above the bar.

        Args:
          line: Text without a line break.
        """
        if self._bar is not None:
            self._try(lambda: self._bar.write(line, file=self._bar.fp))

    def close(self) -> None:
        """Takes the bar down."""
        if self._bar is not None:
            self._try(self._bar.close)
            self._bar = None


class _Lines:
    """A stream for tqdm that appends: each state of a bar is a line of its own.

    Args:
      stream: A log file, a pipe or the like.
    """

    def __init__(self, stream: TextStream):
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes a state of the bar, and nothing for the blanks that take it down."""
        state = text.strip()
        if state:
            self._stream.write(f"{state}\n")

    def flush(self) -> None:
        """Flushes the stream, if it can."""
        flush = getattr(self._stream, "flush", None)
        if flush is not None:
            flush()


def is_shown() -> bool:
    """Returns whether this process shows progress."""
    return os.environ.get("LIKEJAX_PROGRESS", "1") != "0" and jax.process_index() == 0


def redraws(stream: object) -> bool:
    """Returns whether a stream shows a bar in place, as terminals do, or appends lines.

    Args:
      stream: A text stream, such as ``sys.stderr``.
    """
    if type(stream).__module__.startswith("ipykernel."):
        return True
    # an object that a program put in the place of standard error may have no method but write
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and isatty()


@functools.cache
def _bar_class() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without widgets gets the bar of text
        from tqdm.auto import tqdm

    class Quiet(tqdm):
        """A bar without the thread that tqdm starts to watch its bars."""

        monitor_interval = 0

    return Quiet

"""Text as integers: one for each character, its place in an alphabet.

The examples of a text are stretches of one length, in order and without overlap. So the first rows
and the last rows of a dataset are two parts of the text that share no character.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Integer, Num

from likejax.density import integer_dtype
from likejax.settings import Count, checked

_LEAST, _MOST = 2, 65_536
"""Fewest and most characters of an alphabet."""
_EXCERPT = 20
"""Characters of a text that an error shows around a wrong one, on each side."""


@runtime_checkable
class Readable(Protocol):
    """The attributes of a ``Dataset`` that transforms of texts use."""

    @property
    def examples(self) -> Num[np.ndarray, "n ..."]:
        """Examples ``(n, length)``."""
        ...

    @property
    def alphabet(self) -> str | None:
        """The characters that the integers stand for."""
        ...

    def with_examples(self: Text, examples: np.ndarray, *, step: str, **changes: object) -> Text:
        """The same dataset with other examples and one more step in its provenance.

        Args:
          examples: New examples ``(n, length)``, one for each.
          step: Note for the provenance.
          **changes: New values of other attributes.
        """
        ...


Text = TypeVar("Text", bound=Readable)
"""A ``Dataset`` of text."""


def read_text(source: object) -> tuple[str, str]:
    """The characters of a source, and words for it.

    Args:
      source: A text itself, or the path of a file in UTF-8, which is no string but a path.

    Raises:
      TypeError: If it is neither.
      ValueError: If the file is not text in UTF-8, or a string is the name of a file.
    """
    if isinstance(source, os.PathLike):
        path = Path(source)
        try:
            return path.read_bytes().decode("utf-8"), f"file {path.name}"
        except UnicodeDecodeError as error:
            raise ValueError(f"expected text in UTF-8 in {path}: {error}") from error
    if not isinstance(source, str):
        raise TypeError(f"expected a text or the path of one, got {type(source).__name__}")
    if "\n" not in source and len(source) < 1_000 and os.path.isfile(source):
        raise ValueError(
            f"expected a text, got the name of a file: pass pathlib.Path({source!r}) to read it"
        )
    return source, "a text in memory"


def alphabet_of(text: str) -> str:
    """The different characters of a text, in the order of Unicode.

    Args:
      text: Any text.

    Example:
      >>> from likejax.data.text import alphabet_of
      >>> alphabet_of("to be or not")
      ' benort'
    """
    return "".join(sorted(set(text)))


def encoded(text: str, alphabet: str) -> Integer[np.ndarray, " n"]:
    """The place of every character in an alphabet.

    Args:
      text: Any text.
      alphabet: Different characters, at least two.

    Returns:
      Integers from 0, in the smallest unsigned type that fits.

    Raises:
      ValueError: If a character of the text is not in the alphabet, or the alphabet is none.

    Example:
      >>> from likejax.data.text import encoded
      >>> encoded("abba", "ab").tolist()
      [0, 1, 1, 0]
    """
    check_alphabet(alphabet)
    points = _code_points(text)
    places = np.full(0x110000, -1, np.int32)
    places[_code_points(alphabet)] = np.arange(len(alphabet))
    tokens = places[points]
    if (tokens < 0).any():
        at = int(np.argmax(tokens < 0))
        around = text[max(0, at - _EXCERPT) : at + _EXCERPT]
        raise ValueError(
            f"expected characters of the alphabet {alphabet!r}, got {text[at]!r} at position {at}, "
            f"in {around!r}: add it to the alphabet or take it out of the text"
        )
    return tokens.astype(integer_dtype(len(alphabet)))


def check_alphabet(alphabet: object) -> None:
    """Raises an error unless an alphabet is a string of different characters, at least two.

    Args:
      alphabet: Anything.

    Raises:
      TypeError: If it is not a string.
      ValueError: If it has too few or too many characters, or one twice.
    """
    if not isinstance(alphabet, str):
        raise TypeError(
            f"expected an alphabet as a string of its characters, got {type(alphabet).__name__}"
        )
    if not _LEAST <= len(alphabet) <= _MOST:
        raise ValueError(
            f"expected an alphabet of {_LEAST} to {_MOST} characters, got {len(alphabet)}"
        )
    if len(set(alphabet)) < len(alphabet):
        twice = next(each for each in alphabet if alphabet.count(each) > 1)
        raise ValueError(f"expected an alphabet of different characters, got {twice!r} twice")


def _code_points(text: str) -> Integer[np.ndarray, " n"]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def decode_text(tokens: object, alphabet: str | None) -> list[str]:
    """Turns rows of integers back into strings.

    Args:
      tokens: Integers ``(n, length)``, such as the samples of a density of text.
      alphabet: The characters that they stand for, ``dataset.alphabet``.

    Returns:
      One string for each row.

    Raises:
      TypeError: If the tokens are no integers, or the alphabet is no string.
      ValueError: If they are of another shape, or outside of the alphabet.

    Example:
      >>> import likejax as lj
      >>> text = lj.Dataset.from_text("to be or not to be", length=6)
      >>> lj.data.decode_text(text.examples, text.alphabet)
      ['to be ', 'or not', ' to be']
    """
    check_alphabet(alphabet)
    assert isinstance(alphabet, str)
    rows = np.asarray(tokens)
    if rows.dtype.kind not in "ui":
        raise TypeError(f"expected integers to decode, got {rows.dtype}")
    if rows.ndim != 2:
        raise ValueError(f"expected tokens of shape (n, length) to decode, got {rows.shape}")
    if rows.size and not 0 <= rows.min() <= rows.max() < len(alphabet):
        raise ValueError(
            f"expected tokens in 0..{len(alphabet) - 1} for an alphabet of {len(alphabet)} "
            f"characters, got {rows.min()}..{rows.max()}"
        )
    return ["".join(alphabet[token] for token in row) for row in rows.tolist()]


def in_rows(tokens: Integer[np.ndarray, " n"], length: int) -> Integer[np.ndarray, "rows length"]:
    """Cuts a text into rows of one length; what is left at the end is left out.

    Args:
      tokens: The text.
      length: Characters of a row.

    Raises:
      ValueError: If the text is shorter.
    """
    length = checked("length", length, Count)
    rows = len(tokens) // length
    if not rows:
        raise ValueError(f"expected a text of at least {length} characters, got {len(tokens)}")
    return tokens[: rows * length].reshape(rows, length)


def recut(dataset: Text, length: int) -> Text:
    """Cuts the rows of a text anew, in their order; labels, weights and conditions are left out.

    Args:
      dataset: Text whose rows follow each other, as ``Dataset.from_text`` makes it.
      length: Characters of a row.

    Raises:
      ValueError: If the data are no text, or shorter than a row.

    Example:
      >>> import likejax as lj
      >>> text = lj.Dataset.from_text("to be or not to be", length=9)
      >>> lj.data.recut(text, 6).event_shape
      (6,)
    """
    if dataset.alphabet is None:
        raise ValueError(f"expected a text to cut, got {dataset!r}: lj.Dataset.from_text makes one")
    rows = in_rows(dataset.examples.reshape(-1), length)
    nothing = dict.fromkeys(("labels", "weights", "conditions"))
    return dataset.with_examples(rows, step=f"cut anew in rows of {length} characters", **nothing)

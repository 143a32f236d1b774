"""Files of text: three parts of one text, each a stretch of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from likejax.data.dataset import Dataset
from likejax.data.readers.files import FileError
from likejax.data.text import alphabet_of, encoded, read_text
from likejax.settings import Fraction, checked

LENGTH = 64
"""Characters of a row of a text that is loaded by its name."""
_FOLDER = "text"
"""Folder of files that are read as text."""


def is_text(path: Path) -> bool:
    """Whether a file is read as text: its name ends in ``.txt``, its folder is called ``text``.

    Args:
      path: Path of the file.
    """
    return path.parent.name == _FOLDER and path.name.lower().endswith(".txt")


def load_text(path: Path, name: str) -> dict[str, Dataset]:
    """Reads the parts of a text.

    Args:
      path: The file.
      name: Name of the dataset.

    Raises:
      FileError: If it is not text in UTF-8, or too short for three parts.
    """
    try:
        return text_parts(path, length=LENGTH, name=name)
    except ValueError as error:
        raise FileError(path, str(error)) from error


def text_parts(
    source: object,
    *,
    length: int,
    alphabet: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    name: str = "text",
) -> dict[str, Dataset]:
    """Cuts a text into train, validation and test parts, which are stretches of it in this order.

    Args:
      source: The text, or the path of a file in UTF-8.
      length: Characters of an example.
      alphabet: Its characters; those of the whole text in the order of Unicode if not given.
      validation: Share of the characters for the validation part.
      test: Share of the characters for the test part.
      name: Name of the data.

    Returns:
      The parts by their splits, with one alphabet.

    Raises:
      TypeError: If the source is neither a text nor a path.
      ValueError: If a part would be shorter than an example, or a character is not in the alphabet.

    Example:
      >>> import likejax as lj
      >>> parts = lj.data.text_parts("to be or not to be, " * 50, length=8)
      >>> {split: len(part) for split, part in parts.items()}
      {'train': 100, 'validation': 12, 'test': 12}
    """
    validation, test = checked("validation", validation, Fraction), checked("test", test, Fraction)
    text, where = read_text(source)
    alphabet = alphabet_of(text) if alphabet is None else alphabet
    encoded(text, alphabet)  # an error names the position in the whole text
    end = len(text) - round(test * len(text))
    middle = end - round(validation * len(text))
    stretches = {"train": (0, middle), "validation": (middle, end), "test": (end, len(text))}
    parts = {}
    for split, (start, stop) in stretches.items():
        if stop - start < length:
            raise ValueError(
                f"expected at least {length} characters for the {split} part, got {stop - start} "
                f"of {len(text)}: take a longer text, a shorter length or a larger share"
            )
        stretch = text[start:stop]
        part = Dataset.from_text(stretch, length=length, alphabet=alphabet, name=name, split=split)
        source_of_part = f"from {where}, {len(text)} characters, of which {start}..{stop - 1}"
        provenance = (source_of_part, *part.provenance[1:])
        parts[split] = dataclasses.replace(part, provenance=provenance)
    return parts

"""Names that were almost right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(
    name: object,
    known: Iterable[str],
    *,
    count: int = 1,
    similarity: float = 0.6,
    otherwise: str = "",
) -> str:
    """Returns the names that somebody may have meant, as the end of a sentence.

    Args:
      name: Name that is not known.
      known: Names that are.
      count: Number of names at most.
      similarity: Share of equal letters, from 0 to 1, from which on a name is near.
      otherwise: End of the sentence if no name is near.

    Example:
      >>> from likejax.names import meant
      >>> meant("tets", ["train", "test"])
      "; did you mean 'test'?"
    """
    near = difflib.get_close_matches(str(name), list(known), n=count, cutoff=similarity)
    if near:
        return f"; {did_you_mean(near)}"
    return f"; {otherwise}" if otherwise else ""


def did_you_mean(names: Iterable[str]) -> str:
    """Returns the question whether one of the names was meant.

    Args:
      names: Names, at least one.
    """
    return f"did you mean {' or '.join(map(repr, names))}?"

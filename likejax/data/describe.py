"""Description of a dataset for people: its parts, classes, values and peculiarities."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping

import numpy as np

from likejax.data.dataset import Dataset
from likejax.data.loading import load_parts
from likejax.data.splits import check_disjoint
from likejax.precision import check_representable, entry_name, never_varies

_MOST = 12
"""Most names that are listed."""


def described(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> str:
    """Describes a dataset: its parts, their shape, type and classes, its source, its peculiarities.

    Args:
      name: Name of a dataset, which ``load`` explains.
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.

    Returns:
      Lines of text.

    Raises:
      ValueError: If there is no such dataset, or a file is damaged.

    Example:
      >>> import likejax as lj
      >>> print(lj.data.described("digits").splitlines()[0])
      Dataset('digits', train, n=1258, (8, 8, 1) uint8, 17 levels, 10 classes)
    """
    parts = load_parts(name, data_dir=data_dir)
    lines = [repr(part) for part in parts.values()]
    first = next(iter(parts.values()))
    if first.class_names is not None:
        lines.append(f"classes, by number: {_listed(first.class_names)}")
    if first.columns is not None:
        lines.append(f"columns: {_listed(first.columns)}")
    lines.append(_values(parts))
    if first.levels is None:
        lines += _columns(parts)
    lines += _overlaps(parts)
    lines += [f"{split}: {'; '.join(part.provenance)}" for split, part in parts.items()]
    return "\n".join(lines)


def _listed(names: tuple[str, ...]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _values(parts: Mapping[str, Dataset]) -> str:
    low = min(part.examples.min() for part in parts.values())
    high = max(part.examples.max() for part in parts.values())
    return f"values: {low:.10g} to {high:.10g}"


def _columns(parts: Mapping[str, Dataset]) -> list[str]:
    """Columns that never vary in any part, and those that single precision cannot hold."""
    first = next(iter(parts.values()))
    rows = np.concatenate([part.examples for part in parts.values()])
    found = []
    constant = np.argwhere(never_varies(rows))
    if len(constant):
        names = tuple(entry_name([int(i) for i in place], first.columns) for place in constant)
        found.append(f"never varies: {_listed(names)}")
    try:
        check_representable(rows, np.float32, columns=first.columns)
    except ValueError as error:
        found.append(f"in single precision: {error}")
    return found


def _overlaps(parts: Mapping[str, Dataset]) -> list[str]:
    """Examples that two published parts share, which ``fit`` refuses unless found to allow them."""
    pairs = itertools.combinations(parts.values(), 2)
    return [
        f"overlap: {overlap}" for pair in pairs for overlap in check_disjoint(*pair, tolerance=1.0)
    ]

"""Warnings about integers that were rounded from numbers that are not finite."""

from __future__ import annotations

import warnings

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool


def warn_of_lost(finite: Bool[Array, " n"], what: str, again: str) -> None:
    """Warns of integers that were rounded from numbers that are not finite; an error if all were.

    In a traced function the warning comes while it runs, and there is no error.

    Args:
      finite: Whether each example was made from finite numbers only.
      what: Name of one example in the message, such as "sample".
      again: Advice on getting those examples again, with ``{rows}`` and ``{count}`` in it.

    Raises:
      ValueError: If no example is finite.
    """
    if isinstance(finite, Tracer):
        jax.debug.callback(lambda known: _warn(np.atleast_1d(known), what, again), finite)
        return
    known = np.asarray(finite)
    if known.size and not known.any():
        raise ValueError(
            f"expected finite numbers behind the {what}s, got none for any of {known.size}: "
            "the weights are NaN, or decoding overflows, where a lower temperature helps"
        )
    _warn(known, what, again)


def _warn(finite: np.ndarray, what: str, again: str) -> None:
    rows = np.flatnonzero(~finite).tolist()
    if not rows:
        return
    shown = ", ".join(map(str, rows[:8]))
    if len(rows) > 8:
        shown += ", ..."
    advice = again.format(rows=rows[:8], count=len(rows[:8]))
    warnings.warn(
        f"{len(rows)} of {finite.size} {what}s were rounded from numbers that are not finite and "
        f"mean nothing (rows {shown}): decoding overflowed. {advice}",
        RuntimeWarning,
        stacklevel=4,
    )

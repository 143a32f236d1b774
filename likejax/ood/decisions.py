"""Decisions from many p-values: which examples are called OOD, and several p-values made into one.

References:
  Benjamini and Hochberg, 1995, Controlling the false discovery rate, J. R. Statist. Soc. B 57.
  Bates, Candes, Lei, Romano and Sesia, 2023, Testing for outliers with conformal p-values,
  arXiv:2104.08279.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from likejax.ood.checks import real_numbers
from likejax.settings import Probability, checked

_ROUNDING = 1e-12
"""Relative error of an adjusted p-value that lies on the false-discovery rate itself."""


# --- many examples: the false-discovery rate


def adjusted_p_values(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Computes ``min_{j >= i} n p_(j) / j`` for the ``i``-th smallest of ``n`` p-values.

    This is the smallest false-discovery rate at which ``benjamini_hochberg`` calls the example OOD.

    Args:
      p_values: One p-value of every example, ``(n,)``.

    Returns:
      Adjusted p-values in the order of the examples, ``(n,)``.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If they do not lie in one row, or one is NaN or not from 0 to 1.

    References:
      Yekutieli and Benjamini, 1999, Resampling-based false discovery rate controlling multiple test
      procedures for correlated test statistics.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> ood.adjusted_p_values(np.array([0.5, 0.01, 0.03, 0.04])).round(3).tolist()
      [0.5, 0.04, 0.053, 0.053]
    """
    p = _checked_p_values(p_values)
    if p.ndim != 1:
        raise ValueError(f"expected p_values of shape (n,), got {p.shape}")
    order = np.argsort(p)
    steps = len(p) * p[order] / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return adjusted


def benjamini_hochberg(p_values: Float[np.ndarray, " n"], fdr: float) -> Bool[np.ndarray, " n"]:
    """Decides which examples are called OOD such that few of the calls are false.

    The ``k`` examples with the smallest p-values are called OOD, where ``k`` is the largest number
    with ``p_(k) <= fdr k / n``. The expected share of inside examples among those that are called
    OOD is then at most ``fdr`` times the share of inside examples among all.

    This holds for independent p-values, and for those that depend positively on each other.
    Conformal p-values of one calibration set do so: a theorem for scores without ties.

    Args:
      p_values: One p-value of every example, ``(n,)``.
      fdr: Wanted false-discovery rate, between 0 and 1.

    Returns:
      Whether each example is called OOD, ``(n,)``.

    Raises:
      TypeError: If these are no real numbers.
      ValueError: If p-values do not lie in one row, or one is NaN or not from 0 to 1.

    References:
      Benjamini and Hochberg, 1995, Controlling the false discovery rate. Bates et al., 2023,
      Testing for outliers with conformal p-values, arXiv:2104.08279, theorem 2.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> ood.benjamini_hochberg(np.array([0.5, 0.01, 0.03, 0.04]), fdr=0.06).tolist()
      [False, True, True, True]
    """
    fdr = checked("fdr", fdr, Probability)
    return adjusted_p_values(p_values) <= fdr * (1 + _ROUNDING)


# --- several p-values of one example or one group


def fisher(p_values: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Combines ``k`` independent p-values: ``p = P(chi2_{2k} >= -2 sum_j log p_j)``.

    The result is uniform if all ``k`` are uniform and independent. P-values of several scores of
    one example are not independent, and neither are those of a group under one calibration set:
    their combination can be far too small. It is still a good score: calibrate ``-log p`` with
    ``p_values`` on inside examples of its own.

    Args:
      p_values: P-values, ``k`` of them along ``axis``.
      axis: Axis that is combined.

    Returns:
      Combined p-values, of the shape without ``axis``; 0 where one of them is 0.

    Raises:
      TypeError: If these are no real numbers, or the axis is no integer.
      ValueError: If there are none along the axis, or one is NaN or not from 0 to 1.

    References:
      Fisher, 1932, Statistical methods for research workers, fourth edition. Bergamin et al., 2022,
      Model-agnostic out-of-distribution detection using combined statistical tests,
      arXiv:2203.01097.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> ood.fisher(np.array([0.05, 0.05])).round(4).tolist()
      0.0175
    """
    from scipy.special import gammaincc

    p = _along_last(p_values, axis)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is -inf, and the combination 0
        half_statistic = -np.log(p).sum(-1)
    # the upper incomplete gamma function at half the statistic is the chi-square's tail
    return np.asarray(gammaincc(p.shape[-1], half_statistic))


def simes(p_values: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Combines ``k`` p-values: ``p = min_i k p_(i) / i``, the smallest of the adjusted ones.

    The result is uniform if all ``k`` are uniform and independent, and not too small if they depend
    positively on each other, as conformal p-values of one calibration set do.

    Args:
      p_values: P-values, ``k`` of them along ``axis``.
      axis: Axis that is combined.

    Returns:
      Combined p-values, of the shape without ``axis``.

    Raises:
      TypeError: If these are no real numbers, or the axis is no integer.
      ValueError: If there are none along the axis, or one is NaN or not from 0 to 1.

    References:
      Simes, 1986, An improved Bonferroni procedure for multiple tests of significance, Biometrika
      73. Sarkar, 1998, Some probability inequalities for ordered MTP2 random variables.

    Example:
      >>> import numpy as np
      >>> from likejax import ood
      >>> ood.simes(np.array([0.05, 0.04, 0.9])).round(3).tolist()
      0.075
    """
    p = _along_last(p_values, axis)
    k = p.shape[-1]
    return np.asarray((np.sort(p, axis=-1) * k / np.arange(1, k + 1)).min(-1))


# --- checks


def _along_last(p_values: np.ndarray, axis: int) -> Float[np.ndarray, "... k"]:
    """Returns p-values with an axis moved to the end.

    Raises:
      ValueError: If there is no such axis, or nothing along it.
    """
    p = _checked_p_values(p_values)
    axis = checked("axis", axis, int)
    if not -p.ndim <= axis < p.ndim:
        raise ValueError(f"expected an axis of p_values, which have shape {p.shape}, got {axis}")
    if p.shape[axis] == 0:
        raise ValueError(f"expected p_values to combine, there are none along axis {axis}")
    return np.moveaxis(p, axis, -1)


def _checked_p_values(p_values: np.ndarray) -> Float[np.ndarray, "..."]:
    """Returns p-values in float64.

    Raises:
      ValueError: If one is NaN or not from 0 to 1.
    """
    p = real_numbers("p_values", p_values)
    outside = p[(p < 0) | (p > 1)]
    if outside.size:
        raise ValueError(
            f"expected p_values from 0 to 1, {outside.size} are not, such as {outside[0]:g}: "
            "likejax.ood.p_values computes them from scores"
        )
    return p

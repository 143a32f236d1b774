"""Monotone rational-quadratic splines of one number."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from typing_extensions import override

from likejax.bijections.scalar import Numbers, Parameters, ScalarMap
from likejax.settings import Count, Positive, Settings

MINIMUM = 1e-3
"""Smallest slope at a knot, and smallest width and height of a bin as a part of the box."""


class _Bin(NamedTuple):
    """The bin of each number: its lower left corner, its sides, and the slopes at its ends."""

    x: Numbers
    y: Numbers
    width: Numbers
    height: Numbers
    slope_left: Numbers
    slope_right: Numbers

    @property
    def mean_slope(self) -> Numbers:
        return self.height / self.width

    @property
    def bend(self) -> Numbers:
        """What both end slopes have above the mean slope, together."""
        return self.slope_right + self.slope_left - 2 * self.mean_slope


@dataclasses.dataclass(frozen=True)
class RationalQuadratic(Settings, ScalarMap):
    """A monotone spline on ``[-bound, bound]``; outside it is the identity, with slope 1 at ±bound.

    In a bin of width ``w``, height ``h``, mean slope ``s = h / w`` and end slopes ``d0``, ``d1``,
    at ``t = (x - x0) / w``::

        z = y0 + h (s t^2 + d0 t (1 - t)) / D,      D = s + (d0 + d1 - 2 s) t (1 - t)
        log z' = 2 log s + log(d1 t^2 + 2 s t (1 - t) + d0 (1 - t)^2) - 2 log D

    The ``3 bins - 1`` parameters of a number are the logits of the widths, those of the heights,
    and the inner slopes before a softplus.

    References:
      Durkan, Bekasov, Murray and Papamakarios, 2019, Neural spline flows, arXiv:1906.04032,
      section 3 and official code. Gregory and Delbourgo, 1982, Piecewise rational quadratic
      interpolation to monotonic data.

    Example:
      >>> import jax.numpy as jnp, likejax as lj
      >>> spline = lj.bijections.RationalQuadratic(bins=4)
      >>> z, log_derivative = spline.forward(jnp.array([0.5, 9.0]), jnp.zeros((2, 11)))
      >>> z.round(4).tolist()
      [0.5, 9.0]
    """

    bins: Count = 8
    """Number of bins."""
    bound: Positive = 3.0
    """Half of the side of the box outside of which the map is the identity."""
    logit_scale: Positive = 1.0
    """Factor on the logits of widths and heights; ``1 / sqrt(hidden units)`` in NSF's couplings."""
    identity_init: bool = True
    """Whether parameters of zero give the identity; in the official code inner slopes are 0.694."""

    def _check_together(self):
        if MINIMUM * self.bins >= 1:
            most = math.ceil(1 / MINIMUM) - 1
            raise ValueError(f"expected at most {most} bins, got {self.bins}")

    @property
    @override
    def parameters(self) -> int:
        """``3 bins - 1``."""
        return 3 * self.bins - 1

    @override
    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """Maps numbers, data to latent."""
        is_inside = jnp.abs(x) <= self.bound
        # replaced before anything is computed: a gradient through the other branch would be NaN
        x_inside = jnp.where(is_inside, x, 0.0)
        x_knots, y_knots, slopes = self._knots(parameters)
        place = _bin(x_inside, x_knots, x_knots, y_knots, slopes)
        t = jnp.clip((x_inside - place.x) / place.width, 0, 1)
        product = t * (1 - t)
        s = place.mean_slope
        denominator = s + place.bend * product
        z = place.y + place.height * (s * t**2 + place.slope_left * product) / denominator
        numerator = place.slope_right * t**2 + 2 * s * product + place.slope_left * (1 - t) ** 2
        log_derivative = 2 * (jnp.log(s) - jnp.log(denominator)) + jnp.log(numerator)
        return jnp.where(is_inside, z, x), jnp.where(is_inside, log_derivative, 0.0)

    @override
    def inverse(self, z: Numbers, parameters: Parameters) -> Numbers:
        """Maps numbers back: the root of a quadratic equation in their bin."""
        is_inside = jnp.abs(z) <= self.bound
        z_inside = jnp.where(is_inside, z, 0.0)
        x_knots, y_knots, slopes = self._knots(parameters)
        place = _bin(z_inside, y_knots, x_knots, y_knots, slopes)
        rise = z_inside - place.y
        a = place.height * (place.mean_slope - place.slope_left) + rise * place.bend
        b = place.height * place.slope_left - rise * place.bend
        c = -place.mean_slope * rise
        t = jnp.clip(_root(a, b, c), 0, 1)
        return jnp.where(is_inside, place.x + place.width * t, z)

    def _knots(
        self, parameters: Parameters
    ) -> tuple[Float[Array, "*s k"], Float[Array, "*s k"], Float[Array, "*s k"]]:
        """Returns the ``bins + 1`` knots of every spline in x and in y, and the slopes there."""
        widths, heights, slopes = jnp.split(parameters, [self.bins, 2 * self.bins], axis=-1)
        shift = math.log(math.expm1(1 - MINIMUM)) if self.identity_init else 0.0
        inner = MINIMUM + jax.nn.softplus(slopes + shift)
        one = jnp.ones((*slopes.shape[:-1], 1), slopes.dtype)
        slopes = jnp.concatenate([one, inner, one], axis=-1)
        return self._edges(widths), self._edges(heights), slopes

    def _edges(self, logits: Float[Array, "*s k"]) -> Float[Array, "*s k+1"]:
        """Returns the ends of bins of these logits, from ``-bound`` to exactly ``bound``."""
        parts = jax.nn.softmax(self.logit_scale * logits, axis=-1)
        parts = MINIMUM + (1 - MINIMUM * self.bins) * parts
        # a product with ones above the diagonal: XLA's cumulative sum has a slower gradient
        ones = jnp.asarray(np.triu(np.ones((self.bins, self.bins - 1))), parts.dtype)
        inner = jnp.matmul(parts, ones, precision=jax.lax.Precision.HIGHEST)
        end = jnp.full((*logits.shape[:-1], 1), self.bound, logits.dtype)
        return jnp.concatenate([-end, self.bound * (2 * inner - 1), end], axis=-1)


def _bin(
    value: Numbers,
    edges: Float[Array, "*s k"],
    x_knots: Float[Array, "*s k"],
    y_knots: Float[Array, "*s k"],
    slopes: Float[Array, "*s k"],
) -> _Bin:
    """Returns the bin of each number between the given edges, always one of the bins.

    Args:
      value: Numbers inside the box.
      edges: Either the knots in x or those in y.
      x_knots: Knots in x.
      y_knots: Knots in y.
      slopes: Slopes at the knots.
    """
    # the number of inner knots that are not above; a product with a one-hot vector compiles and
    # runs faster than a gather under two vectorizations
    index = jnp.sum(value[..., None] >= edges[..., 1:-1], axis=-1)
    bins = edges.shape[-1] - 1
    one_hot = jax.nn.one_hot(index, bins, dtype=bool)

    def pick(values: Array) -> Numbers:
        return jnp.sum(jnp.where(one_hot, values, 0), axis=-1)

    return _Bin(
        x=pick(x_knots[..., :-1]),
        y=pick(y_knots[..., :-1]),
        width=pick(jnp.diff(x_knots, axis=-1)),
        height=pick(jnp.diff(y_knots, axis=-1)),
        slope_left=pick(slopes[..., :-1]),
        slope_right=pick(slopes[..., 1:]),
    )


def _root(a: Numbers, b: Numbers, c: Numbers) -> Numbers:
    """Returns the root in [0, 1] of ``a t^2 + b t + c``, in the form that cancels no digits."""
    discriminant = b**2 - 4 * a * c
    # rounding may leave it a little below 0, and the gradient of a root at 0 is infinite
    is_positive = discriminant > 0
    root = jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, discriminant, 1)), 0)
    # each branch divides by 1 where the other is taken: gradients of both stay finite
    first = b >= 0
    of_first = -2 * c / jnp.where(first & (b + root > 0), b + root, 1)
    of_second = (root - b) / jnp.where(first, 1, 2 * a)
    return jnp.where(first, of_first, of_second)

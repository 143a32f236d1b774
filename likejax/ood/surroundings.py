"""The log-probability around an example: a slice through it, and how flat it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Num

from likejax import plot
from likejax.density import Density, Kind, check_density
from likejax.inputs import as_array
from likejax.keys import KeyLike, as_key
from likejax.ood.features import LogProb, features_of
from likejax.settings import Count, Positive, checked

_ANGLES = 120
"""Points on the circle of the flatness: its mean is exact for a quadratic that keeps its sign."""
_PARALLEL = 1e-6
"""Part of a direction across the other one below which the two are parallel."""
Numbers = Num[ArrayLike, "..."]
"""An example, or a direction of its shape."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Landscape:
    """The log-probability on a square around an example ``x``, in the plane of two directions.

    A point of the plane is ``x + a d_1 + b d_2`` with orthonormal ``d_1`` and ``d_2``, so that its
    Euclidean distance from ``x`` is ``sqrt(a^2 + b^2)`` in units of the data. With the change
    ``c(t) = log p(x + r cos(t) d_1 + r sin(t) d_2) - log p(x)`` on the circle of the radius ``r``,

    * ``flatness = 1 / (2 pi) integral |c(t)| dt``: how much ``log p`` changes at this distance, in
      nats; 0 is flat, and a larger number is less flat.
    * ``fall = -1 / (2 pi) integral c(t) dt``: how much lower the surroundings are, in nats. On a
      slope it is near 0, where the flatness is not; it is negative in a hollow.

    For a normal with precision ``P``, ``fall = r^2 / 4 (d_1' P d_1 + d_2' P d_2)`` everywhere, and
    at the mean the flatness is the same number.

    Attributes:
      event_shape: Shape of the example.
      center: The example.
      directions: The two directions, ``(2, *event_shape)``.
      radius: Half the side of the square and the radius ``r`` of the circle.
      log_prob: Log-probability on the grid ``(n, n)`` in nats, ``b`` along the first axis.
      center_log_prob: Log-probability of the example in nats.
      circle: Log-probability at equally spaced angles of the circle, in nats.
      kind: Kind of these numbers.
      name: Name of the density's class.

    References:
      Li, Xu, Taylor, Studer and Goldstein, 2018, Visualizing the loss landscape of neural nets,
      arXiv:1712.09913, for slices along two directions, there of the weights.

    Example:
      >>> import jax.numpy as jnp, likejax as lj, numpy as np
      >>> gaussian = lj.models.FullGaussian(jnp.zeros(3), jnp.eye(3), (3,))
      >>> landscape = lj.ood.landscape(gaussian, np.zeros(3, np.float32), radius=2.0, key=0)
      >>> landscape
      Landscape(FullGaussian, radius 2, flatness 2.000 nats, fall 2.000 nats, exact)
      >>> figure = landscape.plot()
    """

    event_shape: tuple[int, ...]
    center: Num[np.ndarray, "..."]
    directions: Float[np.ndarray, "2 ..."]
    radius: float
    log_prob: Float[np.ndarray, "n n"]
    center_log_prob: float
    circle: Float[np.ndarray, " angles"]
    kind: Kind
    name: str

    @property
    def axis(self) -> Float[np.ndarray, " n"]:
        """Values of ``a`` and of ``b`` on the grid, in units of the data."""
        return np.linspace(-self.radius, self.radius, len(self.log_prob))

    @property
    def heights(self) -> Float[np.ndarray, "n n"]:
        """Log-probability on the grid minus that of the example, in nats."""
        return self.log_prob - self.center_log_prob

    @property
    def flatness(self) -> float:
        """Mean ``|log p - log p(x)|`` on the circle, in nats; 0 is flat."""
        return float(np.abs(self.circle - self.center_log_prob).mean())

    @property
    def fall(self) -> float:
        """Mean of ``log p(x) - log p`` on the circle, in nats."""
        return float((self.center_log_prob - self.circle).mean())

    def coordinates(self, x: Numbers) -> tuple[float, float]:
        """Returns ``a`` and ``b`` of the point of the plane that is closest to an example.

        Args:
          x: An example of the same shape.

        Raises:
          ValueError: If it has another shape.

        Example:
          >>> import jax.numpy as jnp, likejax as lj, numpy as np
          >>> gaussian = lj.models.FullGaussian(jnp.zeros(3), jnp.eye(3), (3,))
          >>> along = np.eye(3, dtype=np.float32)[:2]
          >>> landscape = lj.ood.landscape(gaussian, np.zeros(3), radius=2.0, directions=along)
          >>> landscape.coordinates(np.array([1.0, 0.5, 7.0]))
          (1.0, 0.5)
        """
        away = _example("x", x, self.event_shape) - self.center.astype(np.float64)
        right, up = (float(np.sum(away * each)) for each in self.directions)
        return right, up

    def plot(
        self,
        *,
        lowest: float | None = None,
        marks: Mapping[str, Numbers] | None = None,
        title: str | None = None,
    ) -> Any:
        """Returns the picture, ``lj.plot.landscape``.

        Args:
          lowest: Lowest height with a color of its own, in nats; ``None`` to show all.
          marks: From a name to an example, whose place in the plane is marked.
          title: Title in place of the flatness.
        """
        places = {name: self.coordinates(x) for name, x in (marks or {}).items()}
        if title is None:
            title = f"log p around an example: flatness {self.flatness:.1f} nats"
        return plot.landscape(
            self.heights, radius=self.radius, lowest=lowest, marks=places, title=title
        )

    def __repr__(self) -> str:
        numbers = f"flatness {self.flatness:.3f} nats, fall {self.fall:.3f} nats"
        return f"Landscape({self.name}, radius {self.radius:g}, {numbers}, {self.kind.value})"


def landscape(
    density: Density,
    x: Numbers,
    *,
    radius: float,
    directions: Sequence[Numbers] | Numbers | None = None,
    points: int = 41,
    key: KeyLike | None = None,
    draws: int = 1,
    batch_size: int = 128,
) -> Landscape:
    """Computes the log-probability on a slice around an example, and its flatness.

    All points have the noise of the example, so that differences are those of the place alone. Of
    a density on integers the points are rounded to levels and clipped to their range, so that every
    value is a mass; then distances are those before rounding. A move by less than half a level in
    each entry is none: for random directions the radius should be some ``sqrt(dimensions)``.

    Args:
      density: Density; a conditional one after ``lj.condition``.
      x: One example, ``event_shape``.
      radius: Half the side of the square and the radius of the circle, in units of the data.
      directions: Two directions of the example's shape, such as differences of examples. The first
        is scaled to length 1, and of the second what is across it. ``None`` for two random ones.
      points: Points along a side of the grid.
      key: Key of the random directions and of the draws; not needed if there are neither.
      draws: Draws per point, combined as the kind allows.
      batch_size: Points at a time.

    Returns:
      The ``Landscape``; ``landscape.plot()`` draws it.

    Raises:
      TypeError: If ``density`` is no density.
      ValueError: If the example or a direction has another shape or is not finite, the directions
        are parallel, or a key is missing.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits", split="test").examples
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> directions = [digits[1] - digits[0].astype(float), digits[2] - digits[0].astype(float)]
      >>> landscape = lj.ood.landscape(histogram, digits[0], radius=20.0, directions=directions)
      >>> landscape.log_prob.shape, landscape.flatness > landscape.fall
      ((41, 41), True)
    """
    check_density(density)
    radius = checked("radius", radius, Positive)
    points = checked("points", points, Count)
    center = _example("x", x, density.event_shape)
    directions_key, draws_key = _keys(density, directions, key)
    frame = _frame(directions, directions_key, density.event_shape)
    axis = np.linspace(-radius, radius, points)
    right, up = np.meshgrid(axis, axis)
    angle = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    a = np.concatenate([[0.0], right.ravel(), radius * np.cos(angle)])
    b = np.concatenate([[0.0], up.ravel(), radius * np.sin(angle)])
    places = _places(center, frame, np.stack([a, b], axis=1), density.levels)
    keys = None if draws_key is None else jax.numpy.broadcast_to(draws_key, (len(places),))
    compute = features_of(
        {"density": density}, places, keys, batch_size=batch_size, what="landscape"
    )
    values = np.asarray(compute(LogProb(draws=draws)), np.float64)
    return Landscape(
        event_shape=density.event_shape,
        center=places[0],
        directions=frame,
        radius=radius,
        log_prob=values[1:-_ANGLES].reshape(points, points),
        center_log_prob=float(values[0]),
        circle=values[-_ANGLES:],
        kind=density.kind,
        name=type(density).__name__,
    )


def _example(name: str, x: Numbers, event_shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """A finite array of an event's shape in float64."""
    values = np.asarray(as_array(name, x), np.float64)
    if values.shape != event_shape:
        raise ValueError(f"expected {name} of shape {event_shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"expected {name} to be finite, got {values[~np.isfinite(values)][0]}")
    return values


def _keys(
    density: Density, directions: object, key: KeyLike | None
) -> tuple[Key[Array, ""] | None, Key[Array, ""] | None]:
    """Keys of the directions and of the draws; raises a ValueError if one is needed and missing."""
    is_exact = density.kind is Kind.EXACT
    if key is None and (directions is None or not is_exact):
        what = "random directions" if directions is None else "the draws of this density"
        raise ValueError(f"expected a key for {what}: pass key=jax.random.key(seed)")
    if key is None:
        return None, None
    directions_key, draws_key = jax.random.split(as_key(key))
    return directions_key, None if is_exact else draws_key


def _frame(
    directions: Sequence[Numbers] | Numbers | None,
    key: Key[Array, ""] | None,
    event_shape: tuple[int, ...],
) -> Float[np.ndarray, "2 ..."]:
    """Two orthonormal directions: those given, by Gram and Schmidt, or random ones."""
    if directions is None:
        assert key is not None  # _keys has seen to it
        directions = np.asarray(jax.random.normal(key, (2, *event_shape)))
    given: Any = directions
    pair = list(given) if np.iterable(given) else [given]
    if len(pair) != 2:
        raise ValueError(f"expected two directions, got {len(pair)}")
    first, second = (_example("a direction", each, event_shape) for each in pair)
    lengths = [float(np.linalg.norm(each)) for each in (first, second)]
    if 0 in lengths:
        raise ValueError("expected directions that are not 0")
    first, second = first / lengths[0], second / lengths[1]
    across = second - np.sum(first * second) * first
    across -= np.sum(first * across) * first  # a second time, for what rounding has left
    length = float(np.linalg.norm(across))
    if length < _PARALLEL:
        raise ValueError("expected two directions that are not parallel; in one dimension all are")
    return np.stack([first, across / length])


def _places(
    center: Float[np.ndarray, "..."],
    frame: Float[np.ndarray, "2 ..."],
    coordinates: Float[np.ndarray, "n 2"],
    levels: int | None,
) -> Num[np.ndarray, "n ..."]:
    """Points of the plane, as the density takes them."""
    points = center + np.tensordot(coordinates, frame, axes=1)
    if levels is None:
        return points.astype(jax.numpy.zeros(()).dtype)
    rounded = np.clip(np.rint(points), 0, levels - 1)
    return rounded.astype(np.uint8 if levels <= 256 else np.int32)

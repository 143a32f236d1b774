"""Eight distributions in the plane, the test bed of FFJORD.

References:
  Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, 2019, FFJORD, arXiv:1810.01367, and its
  official code.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from likejax.data.dataset import Dataset

Points = Float[np.ndarray, "n 2"]
SIZES = {"train": 20_000, "validation": 2_000, "test": 10_000}


def _swissroll(n: int, rng: np.random.Generator) -> Points:
    t = 1.5 * np.pi * (1 + 2 * rng.random(n))
    points = np.stack([t * np.cos(t), t * np.sin(t)], 1)
    return (points + rng.normal(size=(n, 2))) / 5


def _eight_gaussians(n: int, rng: np.random.Generator) -> Points:
    angle = rng.integers(8, size=n) * np.pi / 4
    centers = 4 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return (centers + 0.5 * rng.normal(size=(n, 2))) / 1.414


def _pinwheel(n: int, rng: np.random.Generator) -> Points:
    arms, rate = 5, 0.25
    radial, tangential = 1 + 0.3 * rng.normal(size=n), 0.1 * rng.normal(size=n)
    angle = 2 * np.pi * rng.integers(arms, size=n) / arms + rate * np.exp(radial)
    cos, sin = np.cos(angle), np.sin(angle)
    return 2 * np.stack([radial * cos + tangential * -sin, radial * sin + tangential * cos], 1)


def _circles(n: int, rng: np.random.Generator) -> Points:
    angle = 2 * np.pi * rng.random(n)
    radius = np.where(rng.random(n) < 0.5, 1.0, 0.5)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return 3 * (points + 0.08 * rng.normal(size=(n, 2)))


def _moons(n: int, rng: np.random.Generator) -> Points:
    angle = np.pi * rng.random(n)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    points = np.where(rng.random((n, 1)) < 0.5, upper, lower)
    return 2 * (points + 0.1 * rng.normal(size=(n, 2))) + np.array([-1, -0.2])


def _two_spirals(n: int, rng: np.random.Generator) -> Points:
    t = np.sqrt(rng.random(n)) * 540 * np.pi / 180
    arm = np.stack([-np.cos(t) * t + rng.random(n) / 2, np.sin(t) * t + rng.random(n) / 2], 1) / 3
    sign = np.where(rng.random((n, 1)) < 0.5, 1.0, -1.0)
    return sign * arm + 0.1 * rng.normal(size=(n, 2))


def _checkerboard(n: int, rng: np.random.Generator) -> Points:
    x = 4 * rng.random(n) - 2
    y = rng.random(n) - 2 * rng.integers(2, size=n) + np.floor(x) % 2
    return 2 * np.stack([x, y], 1)


def _rings(n: int, rng: np.random.Generator) -> Points:
    angle = 2 * np.pi * rng.random(n)
    radius = 3 * (1 + rng.integers(4, size=n)) / 4
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.08 * rng.normal(
        size=(n, 2)
    )


TOYS: dict[str, Callable[[int, np.random.Generator], Points]] = {
    "swissroll": _swissroll,
    "8gaussians": _eight_gaussians,
    "pinwheel": _pinwheel,
    "circles": _circles,
    "moons": _moons,
    "2spirals": _two_spirals,
    "checkerboard": _checkerboard,
    "rings": _rings,
}


def toy(name: str, n: int, *, seed: int) -> Points:
    """Draws independent points of a toy distribution.

    Args:
      name: One of ``TOYS``.
      n: Number of points.
      seed: Random seed.
    """
    return TOYS[name](n, np.random.default_rng([zlib.crc32(name.encode()), seed])).astype(
        np.float32
    )


def load_toy(name: str) -> dict[str, Dataset]:
    """Three independent samples of a toy distribution as train, validation and test.

    Args:
      name: One of ``TOYS``.

    Returns:
      Points ``(n, 2)`` in float32 by split, as many as ``SIZES`` says.
    """
    return {
        split: Dataset.from_array(
            toy(name, size, seed=seed),
            name=name,
            split=split,
            provenance=[f"generated, {size} points, seed {seed}"],
        )
        for seed, (split, size) in enumerate(SIZES.items())
    }

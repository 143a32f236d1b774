"""Densities in, matplotlib figures out: samples, temperatures, latents, and the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, Integer, Num

from likejax.density import Density, Kind, check_density
from likejax.keys import KeyLike, as_key
from likejax.plot import arrays
from likejax.settings import Count, Positive, checked


def samples(
    density: Density,
    *,
    key: KeyLike,
    n: int = 32,
    condition: ArrayLike | None = None,
    temperature: float = 1.0,
    columns: int = 8,
    title: str = "",
):
    """Draws samples of a density of images.

    Args:
      density: Density of integer images.
      key: Key of the samples.
      n: Number of samples.
      condition: Condition of all samples, or one for each.
      temperature: Factor on the standard deviations of the model's Gaussians, as for ``sample``.
      columns: Most images in a row.
      title: Title above the sheet.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If the density is not of images, or the temperature is below 0.

    Example:
      >>> import likejax as lj
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> figure = lj.plot.samples(histogram, key=0, n=16)
    """
    levels = _levels_of(density)
    n = checked("n", n, Count)
    drawn = density.sample(as_key(key), n, condition=condition, temperature=temperature)
    images = np.asarray(drawn)
    return arrays.sheet(images, levels=levels, columns=columns, title=title)


def temperatures(
    density: Density,
    *,
    key: KeyLike,
    values: Sequence[float] = (0.0, 0.5, 0.7, 0.9, 1.0),
    n: int = 8,
    condition: ArrayLike | None = None,
):
    """Draws a row of samples for each temperature, the noise in a column being the same.

    Args:
      density: Density of integer images.
      key: Key of the samples, the same in all rows.
      values: Factors on the standard deviations of the model's Gaussians, one a row.
      n: Number of samples in a row.
      condition: Condition of all samples, or one for each in a row.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If the density is not of images, a temperature is below 0, or there are none.

    References:
      Kingma and Dhariwal, 2018, Glow: generative flow with invertible 1x1 convolutions,
      arXiv:1807.03039, section 6.

    Example:
      >>> import likejax as lj
      >>> histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
      >>> figure = lj.plot.temperatures(histogram, key=0, values=(0.5, 1.0), n=4)
    """
    levels = _levels_of(density)
    n = checked("n", n, Count)
    key = as_key(key)
    rows = {}
    for value in values:
        images = density.sample(key, n, condition=condition, temperature=value)
        rows[f"temperature {value:g}"] = np.asarray(images) / (levels - 1)
    return arrays.galleries(rows)


def interpolation(
    density: Density,
    first: Integer[ArrayLike, "..."],
    second: Integer[ArrayLike, "..."],
    *,
    key: KeyLike,
    steps: int = 8,
):
    """Draws images on straight lines in the space of all latents, ``z_w = (1 - w) z_0 + w z_1``.

    Args:
      density: Density of integer images with ``encode`` and ``decode``, such as a Glow or a VAE.
      first: Images ``(n, height, width, channels)`` at the left ends, or one image.
      second: Images at the right ends.
      key: Key of the latents, which are drawn by dequantization or by an encoder.
      steps: Number of images in a row, the two ends included.

    Returns:
      A matplotlib figure with a row for each pair; the ends are decoded latents too.

    Raises:
      TypeError: If the density has no latents to decode.
      ValueError: If it is not of images, there are fewer than two steps, or the shapes differ.

    References:
      Kingma and Dhariwal, 2018, Glow: generative flow with invertible 1x1 convolutions,
      arXiv:1807.03039, figure 5.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits", split="test").examples
      >>> glow = lj.preset("glow/digits").override({"model.depth": 1, "model.width": 8}).model
      >>> density = lj.build(glow, key=0)
      >>> figure = lj.plot.interpolation(density, digits[0], digits[1], key=1, steps=4)
    """
    levels = _levels_of(density)
    encode, decode = _method(density, "encode"), _method(density, "decode")
    if checked("steps", steps, Count) < 2:
        raise ValueError(f"expected at least 2 steps, the ends, got {steps}")
    ends = [np.asarray(each).reshape(-1, *density.event_shape) for each in (first, second)]
    if len(ends[0]) != len(ends[1]):
        raise ValueError(
            f"expected as many images at both ends, got {len(ends[0])} and {len(ends[1])}"
        )
    latents = encode(np.stack(ends), key=as_key(key))
    weights = np.linspace(0, 1, steps)

    def between(z: Num[Any, "2 n *latent"]) -> Num[np.ndarray, "n steps *latent"]:
        z = np.asarray(z)
        return np.stack([(1 - w) * z[0] + w * z[1] for w in weights], axis=1)

    decoded = np.asarray(decode(jax.tree.map(between, latents)))
    images = np.clip(np.rint(decoded), 0, levels - 1).astype(int)
    return arrays.sheet(images.reshape(-1, *density.event_shape), levels=levels, columns=steps)


def reconstructions(
    density: Density,
    x: Integer[ArrayLike, "n height width channels"],
    *,
    key: KeyLike,
    replacement: str = "mean",
):
    """Draws images, and what each level of a hierarchical VAE knows of them.

    Row ``from level k`` is ``density.reconstruct(x, from_level=k)``: the lowest ``k`` latents are
    not inferred from the image, but come from their priors given the levels above.

    Args:
      density: Hierarchical VAE of integer images.
      x: Images.
      key: Key of the latents.
      replacement: Whether the latents that are not inferred are a ``"sample"`` of their priors or
        their ``"mean"``.

    Returns:
      A matplotlib figure: the images, then a row for each level.

    Raises:
      TypeError: If the density reconstructs nothing.
      ValueError: If it is not of images.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits", split="test").examples
      >>> vae = lj.build(lj.preset("hvae/digits").model, key=0)
      >>> figure = lj.plot.reconstructions(vae, digits[:4], key=1)
    """
    brightest = _levels_of(density) - 1
    reconstruct = _method(density, "reconstruct")
    rows = {"images": np.asarray(x) / brightest}
    for level in range(getattr(density, "depth") + 1):  # noqa: B009 - only VAEs have it
        options = {"from_level": level, "replacement": replacement}
        again = np.asarray(reconstruct(x, key=as_key(key), **options))
        rows[f"from level {level}"] = np.clip(again / brightest, 0, 1)
    return arrays.galleries(rows)


def density_2d(
    density: Density,
    *,
    side: float,
    key: KeyLike | None = None,
    draws: int = 1,
    pictures: Mapping[str, Float[np.ndarray, "m 2"]] | None = None,
    title: str = "",
    points: int = 100,
):
    """Draws a density of points in the plane, and sets of points beside it.

    Args:
      density: Density of event shape ``(2,)``; see ``lj.condition`` for a conditional one.
      side: Half the side of the square that is shown, in units of the data.
      key: Key of the draws; needed unless the density is exact.
      draws: Draws per point of the grid, combined as the kind allows.
      pictures: From a title to points ``(m, 2)``, such as the data or samples.
      title: Title above the figure.
      points: Points along a side of the grid on which the density is computed.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If the density is not of points in the plane, or a key is missing.

    Example:
      >>> import likejax as lj
      >>> moons = lj.load("moons")
      >>> gaussian = lj.models.FullGaussian.fit(moons)
      >>> figure = lj.plot.density_2d(gaussian, side=3.0, pictures={"data": moons.examples[:500]})
    """
    check_density(density)
    if density.event_shape != (2,):
        raise ValueError(
            f"expected a density of points in the plane, of event shape (2,), got "
            f"{type(density).__name__} of {density.event_shape}"
        )
    if key is None and density.kind is not Kind.EXACT:
        raise ValueError(f"{type(density).__name__} draws at random: pass key=jax.random.key(seed)")
    side = checked("side", side, Positive)
    axis = np.linspace(-side, side, checked("points", points, Count), dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)  # first axis upwards
    key = None if key is None else as_key(key)
    values = np.exp(np.asarray(density.log_prob(grid, key=key, draws=draws), np.float64))
    panels = {"density": {"": values}}
    for name, drawn in (pictures or {}).items():
        panels[name] = {"": np.asarray(drawn)}
    return arrays.plane(panels, side=side, title=title)


def _levels_of(density: Density) -> int:
    """The number of levels of a density of images; raises for any other."""
    check_density(density)
    if density.levels is None or len(density.event_shape) != 3:
        raise ValueError(
            "expected a density of integer images, of event shape (height, width, channels), got "
            f"{type(density).__name__} of {density.event_shape} with levels={density.levels}"
        )
    return density.levels


def _method(density: Density, name: str) -> Any:
    method = getattr(density, name, None)
    if method is None:
        raise TypeError(f"expected a density with {name}, {type(density).__name__} has none")
    return method

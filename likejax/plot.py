"""Arrays in, matplotlib figures out; nothing is shown and no global state is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, Num


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def sheet(
    images: Integer[np.ndarray, "n height width channels"], *, levels: int = 256, columns: int = 8, title: str = ""
):
    """A sheet of images in rows, each pixel drawn as a square.

    Args:
      images: Integers ``0..levels-1``, one or three channels.
      levels: Value range.
      columns: Images in a row.
      title: Above the sheet.

    Returns:
      A matplotlib figure; ``figure.savefig(path)`` writes it.
    """
    images = np.asarray(images)
    n, height, width, channels = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), levels - 1, images.dtype)
    for i, image in enumerate(images):
        top, left = 1 + (i // columns) * (height + 1), 1 + (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image
    figure = _figure(0.9 * columns, 0.9 * rows * height / width + (0.3 if title else 0))
    axes = figure.add_subplot()
    picture = canvas[..., 0] if channels == 1 else canvas / (levels - 1)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=levels - 1 if channels == 1 else None, interpolation="nearest")
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x_label: str, y_label: str, title: str = ""
):
    """Lines over a common axis, from their names to their ``(x, y)``; few points are marked."""
    figure = _figure(6, 3.5)
    axes = figure.add_subplot()
    low, high = math.inf, -math.inf
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name, marker="o" if len(x) < 20 else None, markersize=4, linewidth=1.5)
        if len(y):
            low, high = min(low, float(np.min(y))), max(high, float(np.percentile(y, 90)))
    if low < high:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def histograms(values: Mapping[str, Num[np.ndarray, " n"]], *, x_label: str, bins: int = 50, title: str = ""):
    """Overlaid histograms, normalised, from their names to their values."""
    figure = _figure(6, 3.5)
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(v) for v in values.values()]), bins=bins)
    for name, value in values.items():
        axes.hist(np.asarray(value), bins=edges, density=True, alpha=0.5, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel("density")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    return figure

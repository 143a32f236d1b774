"""Arrays in, matplotlib figures out; nothing is shown and no global state is touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, Num


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def sheet(
    images: Integer[np.ndarray, "n height width channels"],
    *,
    levels: int = 256,
    columns: int = 8,
    title: str = "",
):
    """A sheet of images in rows, each pixel drawn as a square.

    Args:
      images: Integers ``0..levels-1``. One channel is drawn gray and three in color; of any other number each channel
        is drawn by itself, gray, those of an image side by side.
      levels: Value range.
      columns: Images in a row, at most.
      title: Above the sheet.

    Returns:
      A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
      ValueError: If there are no images, or the array does not hold images.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.size == 0:
        raise ValueError(
            f"expected images of shape (n, height, width, channels) with n > 0 for a sheet, got {images.shape}"
        )
    planes = images.shape[-1]
    if planes not in (1, 3):
        images = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3], 1)
        columns = planes * max(1, columns // planes)  # the planes of an image stay in one row
    n, height, width, channels = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    canvas = np.full(
        (rows * (height + 1) + 1, columns * (width + 1) + 1, channels), levels - 1, images.dtype
    )
    for i, image in enumerate(images):
        top, left = 1 + (i // columns) * (height + 1), 1 + (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image
    figure = _figure(0.9 * columns, 0.9 * rows * height / width + (0.3 if title else 0))
    axes = figure.add_subplot()
    picture = canvas[..., 0] if channels == 1 else canvas / (levels - 1)
    axes.imshow(
        picture,
        cmap="gray",
        vmin=0,
        vmax=levels - 1 if channels == 1 else None,
        interpolation="nearest",
    )
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def maps(
    values: Num[np.ndarray, "n height width"], *, label: str, columns: int = 8, title: str = ""
):
    """A sheet of numbers per pixel under one color scale, such as the bits that each pixel needs.

    Args:
      values: One map per example.
      label: What the colors say, with the unit.
      columns: Maps in a row.
      title: Above the sheet.

    Returns:
      A matplotlib figure.
    """
    values = np.asarray(values, float)
    n, height, width = values.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), np.nan)
    for i, one in enumerate(values):
        top, left = 1 + (i // columns) * (height + 1), 1 + (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = one
    figure = _figure(0.9 * columns + 0.9, 0.9 * rows * height / width + (0.5 if title else 0.2))
    axes = figure.add_subplot()
    picture = axes.imshow(canvas, cmap="viridis", interpolation="nearest")
    axes.set_axis_off()
    figure.colorbar(picture, ax=axes, label=label, fraction=0.03, pad=0.01)
    if title:
        axes.set_title(title, fontsize=10)
    return figure


def pixels(figure: Any) -> Integer[np.ndarray, "height width 3"]:
    """What a figure looks like, as an RGB array."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
):
    """Lines over a common axis, from their names to their ``(x, y)``; few points are marked."""
    figure = _figure(6, 3.5)
    axes = figure.add_subplot()
    low, high = math.inf, -math.inf
    for name, (x, y) in lines.items():
        axes.plot(
            x, y, label=name, marker="o" if len(x) < 20 else None, markersize=4, linewidth=1.5
        )
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


def histograms(panels: Mapping[str, Mapping[str, Num[np.ndarray, " n"]]], *, bins: int = 60):
    """A panel of overlaid histograms for every title, from names to values; the tails outside 1..99 % are cut off."""

    def draw(axes: Any, values: Mapping[str, Any]) -> None:
        finite = {name: np.asarray(v)[np.isfinite(v)] for name, v in values.items()}
        bounds = np.array([np.quantile(v, [0.01, 0.99]) for v in finite.values() if len(v)])
        low, high = bounds[:, 0].min(), bounds[:, 1].max()
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
        for number, (name, value) in enumerate(finite.items()):
            filled = (
                {"histtype": "stepfilled", "alpha": 0.35}
                if number == 0
                else {"histtype": "step", "linewidth": 1.4}
            )
            shares = np.full(len(value), 1 / max(1, len(value)))
            axes.hist(
                np.clip(value, edges[0], edges[-1]),
                bins=edges,
                weights=shares,
                label=name,
                **filled,
            )
        axes.set_ylabel("share")

    return _panels(panels, draw)


def roc(panels: Mapping[str, Mapping[str, tuple[Any, Any]]]):
    """A panel of ROC curves for every title, from names to false- and true-positive rates."""

    def draw(axes: Any, lines: Mapping[str, tuple[Any, Any]]) -> None:
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for name, (false_rate, true_rate) in lines.items():
            axes.plot(false_rate, true_rate, label=name, linewidth=1.5)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_aspect("equal")

    return _panels(panels, draw, height=4.6)


def _panels(panels: Mapping[str, Any], draw: Callable[[Any, Any], None], *, height: float = 3.2):
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    rows = math.ceil(len(panels) / columns)
    figure = _figure(4.8 * columns, height * rows)
    for number, (title, content) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        draw(axes, content)
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=7, framealpha=0.5, edgecolor="none")
    return figure


def plane(
    panels: Mapping[str, Mapping[str, Num[np.ndarray, "..."]]],
    *,
    side: float,
    columns: int = 4,
    title: str = "",
):
    """Densities in the plane as pictures, each above points: what a model says, and what it draws or has seen.

    Args:
      panels: From a title to pictures by the name of the row: ``(n, n)`` values of a density on a square grid, first
        axis upwards, or points ``(m, 2)``.
      side: Half the side of the square that is shown.
      columns: Panels in a row.
      title: Above the sheet.

    Returns:
      A matplotlib figure.
    """
    names = list(next(iter(panels.values())))
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(2.1 * columns, 2.15 * rows * len(names) + (0.4 if title else 0))
    for number, (label, pictures) in enumerate(panels.items()):
        row, column = divmod(number, columns)
        for below, name in enumerate(names):
            place = (row * len(names) + below) * columns + column + 1
            axes = figure.add_subplot(rows * len(names), columns, place)
            picture = np.asarray(pictures[name])
            if picture.shape[-1] == 2:
                axes.scatter(picture[:, 0], picture[:, 1], s=0.6, linewidths=0, color="0.15")
                axes.set_xlim(-side, side)
                axes.set_ylim(-side, side)
            else:
                axes.imshow(
                    picture, extent=(-side, side, -side, side), origin="lower", cmap="viridis"
                )
            axes.set_aspect("equal")
            axes.set_xticks([])
            axes.set_yticks([])
            if below == 0:
                axes.set_title(label, fontsize=9)
            if column == 0:
                axes.set_ylabel(name, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, wrap=True)
    return figure


def field(
    velocities: Mapping[str, Num[np.ndarray, "n n 2"]],
    paths: Num[np.ndarray, "times points 2"],
    *,
    side: float,
    title: str = "",
):
    """A vector field in the plane at several times, and the paths of points that follow it.

    Args:
      velocities: From a title to velocities on a square grid of ``[-side, side]``, first axis upwards.
      paths: Of each point, at rising times; drawn in a panel of their own, where they begin and end marked.
      side: Half the side of the square that is shown.
      title: Above the figure.

    Returns:
      A matplotlib figure.
    """
    figure = _figure(3 * (len(velocities) + 1), 3.1 + (0.3 if title else 0))
    fastest = max(float(np.linalg.norm(v, axis=-1).max()) for v in velocities.values()) or 1.0
    for number, (label, velocity) in enumerate(velocities.items()):
        axes = figure.add_subplot(1, len(velocities) + 1, number + 1)
        ticks = np.linspace(-side, side, len(velocity))
        speed = np.linalg.norm(velocity, axis=-1)
        axes.quiver(
            ticks,
            ticks,
            velocity[..., 0],
            velocity[..., 1],
            speed,
            cmap="viridis",
            clim=(0, fastest),
        )
        axes.set_title(label, fontsize=9)
        _square(axes, side)
    axes = figure.add_subplot(1, len(velocities) + 1, len(velocities) + 1)
    axes.plot(paths[..., 0], paths[..., 1], color="0.6", linewidth=0.5, zorder=1)
    axes.scatter(*paths[0].T, s=4, color="tab:blue", label="data", zorder=2)
    axes.scatter(*paths[-1].T, s=4, color="tab:orange", label="latent", zorder=3)
    axes.set_title("paths", fontsize=9)
    axes.legend(fontsize=7, framealpha=0.5, edgecolor="none")
    _square(axes, side)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _square(axes: Any, side: float) -> None:
    axes.set_xlim(-side, side)
    axes.set_ylim(-side, side)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])

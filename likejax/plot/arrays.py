"""Arrays in, matplotlib figures out; nothing is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Integer, Num

_INCHES = 0.9
"""Width of an image of a sheet."""
_GRID = 0.8
"""Brightness of the lines between the images of a sheet: black, white and light images keep their
edges."""
Content = TypeVar("Content")


def sheet(
    images: Integer[np.ndarray, "n height width channels"],
    *,
    levels: int = 256,
    columns: int = 8,
    title: str = "",
):
    """Draws images in rows, each pixel as a square.

    Args:
      images: Integers ``0..levels-1``. One channel is drawn gray and three in color; of any other
        number each channel is drawn by itself, gray, those of an image side by side.
      levels: Number of values.
      columns: Most images in a row.
      title: Title above the sheet.

    Returns:
      A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
      TypeError: If the images are not integers.
      ValueError: If there are no images, the array does not hold images, or a value is not in
        ``0..levels-1``.

    Example:
      >>> import likejax as lj
      >>> digits = lj.load("digits", split="test")
      >>> figure = lj.plot.sheet(digits.examples[:16], levels=digits.levels)
      >>> figure.savefig("digits.png")  # doctest: +SKIP
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.size == 0:
        raise ValueError(
            "expected images of shape (n, height, width, channels) with n > 0 for a sheet, got "
            f"{images.shape}"
        )
    if images.dtype.kind not in "bui":
        raise TypeError(
            f"expected integers 0..{levels - 1} for a sheet, got {images.dtype}; draw other "
            "numbers "
            "with lj.plot.maps"
        )
    low, high = int(images.min()), int(images.max())
    if low < 0 or high >= levels:
        raise ValueError(
            f"expected values 0..{levels - 1} for a sheet of {levels} levels, got {low}..{high}; "
            "pass levels="
        )
    _check_columns(columns)
    planes = images.shape[-1]
    if planes not in (1, 3):
        images = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3], 1)
        columns = planes * max(1, columns // planes)  # the planes of an image stay in one row
    brightest = levels - 1
    canvas = _tiled(images.astype(float), columns, background=_GRID * brightest)
    figure, axes = _sheet_axes(images.shape, columns, title=title)
    if planes == 3:
        axes.imshow(canvas / brightest, interpolation="nearest")
    else:
        gray = {"cmap": "gray", "vmin": 0, "vmax": brightest}
        axes.imshow(canvas[..., 0], interpolation="nearest", **gray)
    return figure


def maps(
    values: Num[np.ndarray, "n height width"], *, label: str, columns: int = 8, title: str = ""
):
    """Draws numbers per pixel under one color scale, such as the bits that each pixel needs.

    Args:
      values: One map per example; entries that are not finite stay blank.
      label: Meaning of the colors, with the unit.
      columns: Most maps in a row.
      title: Title above the sheet.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no maps, or the array does not hold maps.

    Example:
      >>> import numpy as np, likejax as lj
      >>> bits = np.random.default_rng(0).gamma(2, size=(10, 8, 8))
      >>> figure = lj.plot.maps(bits, label="bits")
    """
    values = np.asarray(values, float)
    if values.ndim != 3 or values.size == 0:
        raise ValueError(
            f"expected maps of shape (n, height, width) with n > 0, got {values.shape}; for images "
            "there is lj.plot.sheet"
        )
    _check_columns(columns)
    finite = np.where(np.isfinite(values), values, np.nan)
    canvas = _tiled(finite[..., None], columns, background=np.nan)[..., 0]
    figure, axes = _sheet_axes(values.shape, columns, title=title, margin=(0.9, 0.2))
    picture = axes.imshow(canvas, cmap="viridis", interpolation="nearest")
    figure.colorbar(picture, ax=axes, label=label, fraction=0.03, pad=0.01)
    return figure


def _tiled(
    images: Float[np.ndarray, "n height width channels"], columns: int, *, background: float
) -> Float[np.ndarray, "rows columns channels"]:
    """Images in rows on one canvas, with lines of one pixel between and around them."""
    n, height, width, channels = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), background)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = 1 + row * (height + 1), 1 + column * (width + 1)
        canvas[top : top + height, left : left + width] = image
    return canvas


def _sheet_axes(
    shape: tuple[int, ...], columns: int, *, title: str, margin: tuple[float, float] = (0.0, 0.0)
) -> tuple[Any, Any]:
    """A figure for a sheet of ``shape`` ``(n, height, width, ...)``, its axes hidden."""
    n, height, width = shape[:3]
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    beside, above = margin
    if title:
        above += 0.3
    figure = _figure(_INCHES * columns + beside, _INCHES * rows * height / width + above)
    axes = figure.add_subplot()
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=10)
    return figure, axes


def _check_columns(columns: int) -> None:
    if columns < 1:
        raise ValueError(f"expected at least one column, got {columns}")


def pixels(figure: Any) -> Integer[np.ndarray, "height width 3"]:
    """Draws a figure into an array.

    Args:
      figure: A matplotlib figure.

    Returns:
      Red, green and blue, ``uint8``.

    Example:
      >>> import numpy as np, likejax as lj
      >>> figure = lj.plot.sheet(np.zeros((2, 8, 8, 1), np.uint8))
      >>> lj.plot.pixels(figure).shape
      (90, 180, 3)
    """
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
    """Draws lines over a common axis; the points of short lines are marked.

    The vertical axis leaves out the highest tenth of a line of 20 or more points, such as the loss
    of the first steps.

    Args:
      lines: From the name of a line to its ``x`` and ``y``.
      x_label: Meaning of ``x``, with the unit.
      y_label: Meaning of ``y``, with the unit.
      title: Title above the figure.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no lines, or the lengths of ``x`` and ``y`` differ.

    Example:
      >>> import likejax as lj
      >>> lines = {"train": ([0, 1, 2], [4.0, 3.0, 2.5]), "validation": ([0, 2], [4.1, 2.7])}
      >>> figure = lj.plot.curves(lines, x_label="step", y_label="bits/dim")
    """
    _check_not_empty("lines", lines)
    figure = _figure(6.0, 3.5)
    axes = figure.add_subplot()
    low, high = math.inf, -math.inf
    for number, (name, (x, y)) in enumerate(lines.items()):
        if len(x) != len(y):
            raise ValueError(f"expected as many x as y for {name!r}, got {len(x)} and {len(y)}")
        marker = "o" if len(x) < 20 else None
        style: dict[str, Any] = {"markersize": 4, "linewidth": 1.5, "linestyle": _dashes(number)}
        axes.plot(x, y, label=name, marker=marker, **style)
        if len(y):
            low = min(low, float(np.min(y)))
            high = max(high, float(np.max(y) if marker else np.percentile(y, 90)))
    if low < high:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def histograms(
    panels: Mapping[str, Mapping[str, Num[np.ndarray, " _"]]], *, bins: int = 60, x_label: str = ""
):
    """Draws overlaid histograms, the first of each panel filled.

    The axis ends at the lowest 1 % and the highest 99 % quantile of a panel's histograms; values
    beyond are counted in the outermost bins, and those that are not finite are left out.

    Args:
      panels: From the title of a panel to the values ``(n,)`` of each histogram by its name.
      bins: Number of bins.
      x_label: Name and unit of the values; without one, the title of a panel says what they are.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no panels, or no finite values in one.

    Example:
      >>> import numpy as np, likejax as lj
      >>> rng = np.random.default_rng(0)
      >>> scores = {"digits": rng.normal(size=99), "noise": rng.normal(3, 1, size=99)}
      >>> figure = lj.plot.histograms({"- log p": scores})
    """

    def draw(axes: Any, values: Mapping[str, Num[np.ndarray, " _"]]) -> None:
        finite = {name: np.asarray(v)[np.isfinite(v)] for name, v in values.items()}
        edges = _edges(list(finite.values()), bins)
        for number, (name, value) in enumerate(finite.items()):
            dashes = _dashes(number)
            style: dict[str, Any] = {"histtype": "step", "linewidth": 1.4, "linestyle": dashes}
            if number == 0:
                style = {"histtype": "stepfilled", "alpha": 0.35}
            shown = np.clip(value, edges[0], edges[-1])
            shares = np.full(len(value), 1 / max(1, len(value)))
            axes.hist(shown, bins=edges, weights=shares, label=name, **style)
        axes.set_xlabel(x_label)
        axes.set_ylabel("share")

    return _panels(panels, draw)


def _dashes(number: int) -> str:
    """The style of a line: matplotlib has ten colors, and after them they begin anew, dashed."""
    return "solid" if number < 10 else "dashed"


def _edges(values: Sequence[np.ndarray], bins: int) -> np.ndarray:
    """Edges of the bins between the outer quantiles of all values."""
    bounds = [np.quantile(each, [0.01, 0.99]) for each in values if len(each)]
    if not bounds:
        raise ValueError("expected finite values for every panel of histograms, got none")
    low = min(float(pair[0]) for pair in bounds)
    high = max(float(pair[1]) for pair in bounds)
    if not high > low:
        high = low + 1
    return np.linspace(low, high, bins + 1)


def roc(panels: Mapping[str, Mapping[str, tuple[Any, Any]]]):
    """Draws ROC curves: the true-positive rate against the false-positive rate.

    Args:
      panels: From the title of a panel to the false- and true-positive rates of each curve by its
        name.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no panels.

    Example:
      >>> import numpy as np, likejax as lj
      >>> rates = np.linspace(0, 1, 20)
      >>> figure = lj.plot.roc({"- log p": {"noise": (rates, rates**0.3)}})
    """

    def draw(axes: Any, lines: Mapping[str, tuple[Any, Any]]) -> None:
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for number, (name, (false_rate, true_rate)) in enumerate(lines.items()):
            dashes = _dashes(number)
            axes.plot(false_rate, true_rate, label=name, linewidth=1.5, linestyle=dashes)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_aspect("equal")

    return _panels(panels, draw, height=4.6)


def matrix(
    values: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    colors: str = "RdBu",
    x_label: str = "",
    y_label: str = "",
    title: str = "",
):
    """Draws a table of numbers in color, with the numbers in it.

    Args:
      values: Numbers ``(rows, columns)``.
      rows: Title of every row.
      columns: Title of every column.
      limits: Numbers at the ends of the colors.
      colors: Name of a matplotlib color map; the middle of ``RdBu`` is white.
      x_label: Meaning of the columns.
      y_label: Meaning of the rows.
      title: Title above the table.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If the titles do not fit the numbers.

    Example:
      >>> import numpy as np, likejax as lj
      >>> values = np.array([[0.1, 0.9]])
      >>> columns = ["noise", "letters"]
      >>> figure = lj.plot.matrix(values, rows=["- log p"], columns=columns, limits=(0, 1))
    """
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"expected numbers of shape {(len(rows), len(columns))} for these titles, got "
            f"{values.shape}"
        )
    margin = 0.25 * (bool(x_label) + bool(title))
    figure = _figure(2.6 + 0.8 * len(columns), 1.2 + 0.3 * len(rows) + margin)
    axes = figure.add_subplot()
    low, high = limits
    drawn = axes.imshow(values, cmap=colors, vmin=low, vmax=high, aspect="auto")
    slanted = {"rotation": 30, "ha": "right"} if max(map(len, columns), default=0) > 3 else {}
    axes.set_xticks(range(len(columns)), columns, fontsize=8, **slanted)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = drawn.to_rgba(value)
        luminance = 0.3 * red + 0.59 * green + 0.11 * blue
        color = "white" if luminance < 0.5 else "black"
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(column, row, f"{value:.2f}", color=color, **style)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10)
    return figure


def galleries(rows: Mapping[str, Num[np.ndarray, "..."]]):
    """Draws rows of pictures, each with a title.

    Args:
      rows: From a title to images ``(n, height, width, channels)`` with values from 0 to 1, of one
        or three channels; or to maps of any numbers ``(n, height, width)``, which get a color bar.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no rows, or one holds neither images nor maps.

    Example:
      >>> import numpy as np, likejax as lj
      >>> rng = np.random.default_rng(0)
      >>> rows = {"images": rng.random((5, 8, 8, 1)), "nats": -rng.random((5, 8, 8))}
      >>> figure = lj.plot.galleries(rows)
    """
    _check_not_empty("rows", rows)
    longest = max(len(pictures) for pictures in rows.values())
    figure = _figure(_INCHES * longest + 0.8, (_INCHES + 0.3) * len(rows))
    for number, (title, pictures) in enumerate(rows.items()):
        if pictures.ndim not in (3, 4) or len(pictures) == 0:
            raise ValueError(
                f"expected images (n, height, width, channels) or maps (n, height, width) for "
                f"{title!r}, got shape {pictures.shape}"
            )
        axes = figure.add_subplot(len(rows), 1, number + 1)
        axes.set_axis_off()
        axes.set_title(title, fontsize=8, loc="left")
        _draw_row(figure, axes, pictures)
    return figure


def _draw_row(figure: Any, axes: Any, pictures: Num[np.ndarray, "..."]) -> None:
    """Draws one row of images or of maps."""
    if pictures.ndim == 3:
        lowest = float(pictures.min())
        canvas = _tiled(pictures[..., None].astype(float), len(pictures), background=np.nan)
        drawn = axes.imshow(canvas[..., 0], interpolation="nearest", cmap="magma", vmin=lowest)
        figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.01).ax.tick_params(labelsize=6)
        return
    _show(axes, _tiled(pictures.astype(float), len(pictures), background=_GRID))


def _show(axes: Any, image: Float[np.ndarray, "height width channels"]) -> None:
    """Draws an image of one or three channels with values from 0 to 1."""
    if image.shape[-1] == 3:
        axes.imshow(image, interpolation="nearest")
    else:
        axes.imshow(image[..., 0], interpolation="nearest", cmap="gray", vmin=0, vmax=1)


def _panels(
    panels: Mapping[str, Content], draw: Callable[[Any, Content], None], *, height: float = 3.2
):
    """A figure with a panel for every title, at most three in a row."""
    _check_not_empty("panels", panels)
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(4.8 * columns, height * rows)
    for number, (title, content) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        draw(axes, content)
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=7, framealpha=0.5, edgecolor="none")
    return figure


def _check_not_empty(name: str, values: Mapping[str, Any]) -> None:
    if not values:
        raise ValueError(f"expected {name} to draw, got none")


def plane(
    panels: Mapping[str, Mapping[str, Num[np.ndarray, "..."]]],
    *,
    side: float,
    columns: int = 4,
    title: str = "",
):
    """Draws densities and points in the plane, in a grid of panels.

    Args:
      panels: From the title of a panel to its pictures by the name of their row, the same in all
        panels. A picture is the values ``(n, n)`` of a density on a square grid, first axis
        upwards, or points ``(m, 2)``.
      side: Half the side of the square that is shown.
      columns: Most panels in a row.
      title: Title above the figure.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no panels, or a panel lacks a picture.

    Example:
      >>> import numpy as np, likejax as lj
      >>> axis = np.linspace(-4, 4, 50)
      >>> density = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2))
      >>> points = lj.load("moons", split="test").examples
      >>> figure = lj.plot.plane({"moons": {"density": density, "data": points}}, side=4.0)
    """
    _check_not_empty("panels", panels)
    _check_columns(columns)
    names = list(next(iter(panels.values())))
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 2.15 * rows * len(names)
    if title:
        height += 0.4
    figure = _figure(2.1 * columns, height)
    for number, (label, pictures) in enumerate(panels.items()):
        if list(pictures) != names:
            raise ValueError(f"expected the pictures {names} in {label!r}, got {list(pictures)}")
        row, column = divmod(number, columns)
        for below, name in enumerate(names):
            place = (row * len(names) + below) * columns + column + 1
            axes = figure.add_subplot(rows * len(names), columns, place)
            _picture(axes, np.asarray(pictures[name]), side)
            if below == 0:
                axes.set_title(label, fontsize=9)
            if column == 0:
                axes.set_ylabel(name, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, wrap=True)
    return figure


def _picture(axes: Any, picture: np.ndarray, side: float) -> None:
    """Points or a density in one panel of ``plane``."""
    if picture.shape[-1] == 2:
        axes.scatter(picture[:, 0], picture[:, 1], s=0.6, linewidths=0, color="0.15")
    else:
        extent = (-side, side, -side, side)
        axes.imshow(picture, extent=extent, origin="lower", cmap="viridis")
    _square(axes, side)


def landscape(
    heights: Float[np.ndarray, "n n"],
    *,
    radius: float,
    lowest: float | None = None,
    marks: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
):
    """Draws how the log-probability changes over a square around an example.

    A white line joins the points that are as probable as the example, which a cross marks. The
    dashed circle is where the flatness is measured; ``lj.ood.landscape`` computes both.

    Args:
      heights: Log-probability minus that of the example on a grid of ``[-radius, radius]``, in
        nats, first axis upwards. Values that are not finite stay blank.
      radius: Half the side of the square, in units of the data.
      lowest: Lowest height with a color of its own, in nats; lower ones share it. ``None`` to show
        all.
      marks: From a name to its place, to the right and up, in units of the data.
      title: Title above the figure.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If no height is finite.

    Example:
      >>> import numpy as np, likejax as lj
      >>> axis = np.linspace(-2, 2, 41)
      >>> heights = -0.5 * (axis[:, None] ** 2 + axis**2)
      >>> figure = lj.plot.landscape(heights, radius=2.0, title="a normal")
    """
    shown = np.where(np.isfinite(heights), heights, np.nan)
    if np.isnan(shown).all():
        raise ValueError("expected finite heights for a landscape, got none")
    floor = float(np.nanmin(shown)) if lowest is None else lowest
    extend = "min" if np.nanmin(shown) < floor else "neither"
    figure = _figure(5.2, 4.3)
    axes = figure.add_subplot()
    extent = (-radius, radius, -radius, radius)
    scale: dict[str, Any] = {"vmin": floor, "vmax": max(float(np.nanmax(shown)), floor + 1e-6)}
    picture = axes.imshow(shown, extent=extent, origin="lower", cmap="viridis", **scale)
    figure.colorbar(picture, ax=axes, label="log p minus that of the center, nats", extend=extend)
    if np.nanmin(shown) < 0 < np.nanmax(shown):
        axes.contour(shown, levels=[0.0], extent=extent, colors="white", linewidths=1)
    _mark_landscape(axes, radius, {"center": (0.0, 0.0), **(marks or {})})
    axes.set_xlabel("first direction, units of the data")
    axes.set_ylabel("second direction, units of the data")
    axes.set_title(title, fontsize=10)
    return figure


def _mark_landscape(axes: Any, radius: float, marks: Mapping[str, tuple[float, float]]) -> None:
    """Draws the circle of the flatness, and named places inside the square."""
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = {"color": "white", "linewidth": 0.8, "linestyle": "dashed"}
    axes.plot(radius * np.cos(angle), radius * np.sin(angle), **circle)
    for name, (right, up) in marks.items():
        axes.plot(right, up, marker="x", color="tab:red", markersize=6)
        place: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
        axes.annotate(name, (right, up), fontsize=8, bbox=box, **place)
    axes.set_xlim(-radius, radius)
    axes.set_ylim(-radius, radius)


def posteriors(
    probabilities: Float[np.ndarray, "n classes"],
    *,
    names: Sequence[str],
    images: Integer[np.ndarray, "n height width channels"] | None = None,
    levels: int = 256,
    titles: Sequence[str] | None = None,
):
    """Draws the probability of every class for each example, below its image.

    Args:
      probabilities: Probability of each class for each example.
      names: Name of every class.
      images: Image of every example with integers ``0..levels-1``, or ``None``.
      levels: Number of values of the images.
      titles: Title of every example, such as its true class; ``None`` for none.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no examples, or the numbers of names, images or titles do not fit.

    Example:
      >>> import numpy as np, likejax as lj
      >>> probabilities = np.array([[0.9, 0.1], [0.4, 0.6]])
      >>> figure = lj.plot.posteriors(probabilities, names=["cat", "dog"], titles=["cat", "dog"])
    """
    n, classes = probabilities.shape
    _check_posteriors(n, classes, names=names, images=images, titles=titles)
    columns = min(6, n)
    rows = math.ceil(n / columns)
    heights = [0.8, 0.2 + 0.13 * classes] if images is not None else [0.2 + 0.13 * classes]
    figure = _figure(1.9 * columns, rows * (sum(heights) + 0.6))
    grid = figure.add_gridspec(rows * len(heights), columns, height_ratios=heights * rows)
    for number, values in enumerate(probabilities):
        row, column = divmod(number, columns)
        first = row * len(heights)
        top = axes = figure.add_subplot(grid[first + len(heights) - 1, column])
        _draw_bars(axes, values, names if column == 0 else [])
        if row < rows - 1:
            axes.set_xticklabels([])
        if images is not None:
            top = figure.add_subplot(grid[first, column])
            _show(top, images[number] / (levels - 1))
            top.set_axis_off()
        if titles is not None:
            top.set_title(titles[number], fontsize=8)
    figure.supxlabel("probability", fontsize=8)
    return figure


def _check_posteriors(n: int, classes: int, **given: Any) -> None:
    """Raises a ValueError unless there are examples and as many of everything else."""
    if not n:
        raise ValueError("expected probabilities of examples to draw, got none")
    for name, wanted in {"names": classes, "images": n, "titles": n}.items():
        if given[name] is not None and len(given[name]) != wanted:
            raise ValueError(f"expected {wanted} {name}, got {len(given[name])}")


def _draw_bars(axes: Any, values: np.ndarray, names: Sequence[str]) -> None:
    """A bar for every class, the largest in color; without names there are none beside them."""
    places = np.arange(len(values))
    colors = np.where(places == values.argmax(), "tab:blue", "0.7")
    axes.barh(places, values, color=colors)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=7)
    axes.set_yticks(places if len(names) else [], names, fontsize=7)
    axes.set_ylim(len(values) - 0.5, -0.5)


def field(
    velocities: Mapping[str, Num[np.ndarray, "n n 2"]],
    paths: Num[np.ndarray, "times points 2"],
    *,
    side: float,
    title: str = "",
):
    """Draws a vector field in the plane at several times, and the paths of points that follow it.

    Args:
      velocities: From the title of a panel to velocities on a square grid of ``[-side, side]``,
        first axis upwards.
      paths: Places of each point at rising times; a panel of their own marks where they begin and
        end.
      side: Half the side of the square that is shown.
      title: Title above the figure.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: If there are no velocities.

    Example:
      >>> import numpy as np, likejax as lj
      >>> y, x = np.mgrid[-4:4:9j, -4:4:9j]
      >>> turning = np.stack([-y, x], axis=-1)
      >>> angle = np.linspace(0, 1, 20)[:, None]
      >>> paths = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
      >>> figure = lj.plot.field({"t = 0": turning}, paths, side=4.0)
    """
    _check_not_empty("velocities", velocities)
    panels = len(velocities) + 1
    figure = _figure(3.0 * panels, 3.4 if title else 3.1)
    speeds = {label: np.linalg.norm(each, axis=-1) for label, each in velocities.items()}
    fastest = max(float(speed.max()) for speed in speeds.values()) or 1.0
    for number, (label, velocity) in enumerate(velocities.items()):
        axes = figure.add_subplot(1, panels, number + 1)
        ticks = np.linspace(-side, side, len(velocity))
        arrows = velocity[..., 0], velocity[..., 1], speeds[label]
        axes.quiver(ticks, ticks, *arrows, cmap="viridis", clim=(0, fastest))
        axes.set_title(label, fontsize=9)
        _square(axes, side)
    axes = figure.add_subplot(1, panels, panels)
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


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")

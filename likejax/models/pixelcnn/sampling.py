"""Drawing from a PixelCNN++: pixel by pixel, all pixels until none changes, or with a cache.

All three use the same noise, drawn first, so that one key gives one image whichever draws it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, PyTree

from likejax.distributions import LogisticMixture, logistic_mixture_sample, to_level, to_unit_scale
from likejax.models.pixelcnn.causal import GatedBlock
from likejax.models.pixelcnn.network import AnyConvolution, Level, Mode, PixelCNNNetwork, Stream
from likejax.nn.weight_norm import Convolution, fold_weights


@runtime_checkable
class Drawable(Protocol):
    """The parts of a PixelCNN that drawing needs."""

    network: PixelCNNNetwork
    levels: int
    mixtures: int


class Noise(NamedTuple):
    """Standard Gumbel noise for each pixel's component and logistic noise for its channels."""

    gumbel: Float[Array, "*shape mixtures"]
    logistic: Float[Array, "*shape channels"]


class Task(NamedTuple):
    """One image to draw: the first ``known`` pixels are those of ``x``.

    Attributes:
      x: Image whose first pixels are known.
      known: Number of known pixels, in raster order.
      noise: Noise for every pixel.
      condition: Label, or floats in a vector, of a conditional model.
      temperature: Factor on the noise.
    """

    x: Integer[Array, "height width channels"]
    known: ArrayLike
    noise: Noise
    condition: Array | None
    temperature: ArrayLike


def draw_noise(key: Array, event_shape: tuple[int, ...], mixtures: int) -> Noise:
    """Draws the noise that makes an image.

    Args:
      key: Random key of the image.
      event_shape: Height, width and channels of the image.
      mixtures: Number of components of a pixel's mixture.

    Returns:
      Noise ``(height, width, mixtures)`` and ``(height, width, channels)``.
    """
    gumbel_key, logistic_key = jax.random.split(key)
    *place, channels = event_shape
    pixels = place[0] * place[1]
    # Drawn flat: XLA takes seconds to compile vectorized draws of several axes.
    gumbel = jax.random.gumbel(gumbel_key, (pixels * mixtures,))
    logistic = jax.random.logistic(logistic_key, (pixels * channels,))
    return Noise(gumbel.reshape(*place, mixtures), logistic.reshape(*place, channels))


class Drawn(NamedTuple):
    """An image, and whether all outputs of the network that it was drawn from are finite."""

    x: Integer[Array, "height width channels"]
    finite: Bool[Array, ""]


def _sweep(density: Drawable, network: PixelCNNNetwork, task: Task, x: Array) -> Drawn:
    """Draws every unknown pixel given the pixels of ``x`` before it."""
    image = to_unit_scale(x, density.levels, task.noise.logistic.dtype)
    outputs = network(image, task.condition)
    mixture = LogisticMixture.of(outputs, x.shape[-1], density.mixtures)
    values = logistic_mixture_sample(mixture, *task.noise, density.levels, task.temperature)
    place = jnp.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1)
    drawn = jnp.where(place < task.known, x, to_level(values, density.levels).astype(x.dtype))
    return Drawn(drawn, jnp.isfinite(outputs).all())


def naive(density: Drawable, task: Task) -> Drawn:
    """Runs the whole network once for every pixel; the oracle.

    Args:
      density: Density to draw from.
      task: Image to draw.
    """
    network = fold_weights(density.network)
    height, width = task.x.shape[:2]
    place = jnp.arange(height * width).reshape(height, width, 1)

    def step(pixel: Array, drawn: Drawn) -> Drawn:
        new = _sweep(density, network, task, drawn.x)
        return Drawn(jnp.where(place == pixel, new.x, drawn.x), new.finite)

    return jax.lax.fori_loop(0, height * width, step, Drawn(task.x, jnp.ones((), bool)))


def fixed_point(density: Drawable, task: Task) -> Drawn:
    """Draws all pixels at once, again and again, until the image no longer changes.

    After ``n`` rounds at least the first ``n`` pixels are final. The last round
    is the one that changes nothing.

    Args:
      density: Density to draw from.
      task: Image to draw.

    References:
      Song, Meng, Liao and Ermon, 2021, Accelerating feedforward computation via parallel nonlinear
      equation solving, arXiv:2002.03629.
    """
    network = fold_weights(density.network)

    def sweep(state: tuple[Drawn, Array]) -> tuple[Drawn, Array]:
        before, _ = state
        new = _sweep(density, network, task, before.x)
        return new, jnp.any(new.x != before.x)

    start = Drawn(task.x, jnp.ones((), bool)), jnp.ones((), bool)
    return jax.lax.while_loop(lambda state: state[1], sweep, start)[0]


def cached(density: Drawable, task: Task) -> Drawn:
    """Computes each row of one stream and each pixel of the other once.

    A causal convolution at a row (pixel) needs its input at the row above (and at the pixel to the
    left): only that is kept. A resolution works on every second row and column of the one above it.

    Args:
      density: Density to draw from.
      task: Image to draw.

    References:
      Ramachandran et al., 2017, Fast generation for convolutional autoregressive models,
      arXiv:1704.06001.
    """
    x, _, finite = _scan(density, task)
    return Drawn(x, finite)


def cached_outputs(
    density: Drawable, x: Integer[Array, "height width channels"], condition: Array | None = None
) -> Float[Array, "height width outputs"]:
    """Returns the network's outputs for a given image, computed as ``cached`` computes them.

    Args:
      density: Density whose network is run.
      x: Image ``(height, width, channels)`` of integers ``0..levels-1``.
      condition: Label, or floats in a vector, of a conditional model.

    Returns:
      Parameters of every pixel's distribution, ``(height, width, outputs)``.
    """
    height, width, channels = x.shape
    nothing = Noise(
        jnp.zeros((height, width, density.mixtures)), jnp.zeros((height, width, channels))
    )
    return _scan(density, Task(x, height * width, nothing, condition, 1.0))[1]


class _Kept(NamedTuple):
    """Values that go from row to row.

    Attributes:
      images: The two rows above, framed.
      above: For every convolution of the stream above, its input at the row above.
      left: The same for the left stream.
    """

    images: Array
    above: list[Level]
    left: list[Level]


def _scan(density: Drawable, task: Task) -> tuple[Array, Array, Array]:
    """Returns the image, the network's outputs, and whether these are finite; row by row."""
    network: Any = fold_weights(density.network)
    height, width, _ = task.x.shape
    framed = network.framed(jnp.zeros(task.x.shape, task.noise.logistic.dtype))
    columns = framed.shape[1]
    above, left = (_empty(stream, columns, network) for stream in (network.above, network.left))
    start = _Kept(jnp.zeros((2, *framed.shape[1:]), framed.dtype), above, left)

    def row(
        kept: _Kept, items: tuple[Array, Array, Noise]
    ) -> tuple[_Kept, tuple[Array, Array, Array]]:
        i, given, noise = items
        draw = _Drawing(density, task, i, given, noise, columns)
        # The stream above looks at finished rows alone, so it runs once for the whole row; the left
        # one looks at pixels of this row, and runs with them. Above the first row both see zeros.
        above_first = network.above_first(kept.images, padding=((0, 0), (1, 1)))[0]
        mode = _RowMode(i, task.condition)
        _, sides, above = network.above.walk(
            mode, _unless(i == 0, above_first), _no_sides(kept.above), kept.above
        )
        first = _unless(i == 0, network.row_first(kept.images[1:])[0])
        pixels, outputs, left = _row_of_pixels(network, kept, first, sides, draw, i, task.condition)
        images = jnp.stack([kept.images[1], draw.frame(pixels)])
        outputs = outputs[:width]
        return _Kept(images, above, left), (pixels[:width], outputs, jnp.isfinite(outputs).all())

    _, (x, outputs, finite) = jax.lax.scan(row, start, (jnp.arange(height), task.x, task.noise))
    return x, outputs, finite.all()


class _Drawing:
    """The drawing of one row: known pixels, noise, and the padding at the right."""

    def __init__(
        self, density: Drawable, task: Task, i: Array, given: Array, noise: Noise, columns: int
    ):
        self.density = density
        self.task = task
        self.first = i * given.shape[0]
        self.width = given.shape[0]
        extra = [(0, columns - self.width), (0, 0)]
        self.given = jnp.pad(given, extra)
        self.noise = jax.tree.map(lambda leaf: jnp.pad(leaf, extra), noise)

    def pixel(self, j: Array, given: Array, noise: Noise, outputs: Array) -> Array:
        """Draws the integer values of one pixel."""
        mixture = LogisticMixture.of(outputs, given.shape[-1], self.density.mixtures)
        drawn = logistic_mixture_sample(mixture, *noise, self.density.levels, self.task.temperature)
        level = to_level(drawn, self.density.levels).astype(given.dtype)
        return jnp.where(self.first + j < self.task.known, given, level)

    def frame(self, pixels: Array, j: Array | None = None) -> Array:
        """Returns integer pixels as the network sees them.

        They are on [-1, 1] with a channel of ones, and zero in the padding.
        """
        values = to_unit_scale(pixels, self.density.levels, self.noise.logistic.dtype)
        framed = jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1)
        j = jnp.arange(len(pixels))[:, None] if j is None else j
        return jnp.where(j < self.width, framed, 0)


def _row_of_pixels(
    network: Any,
    kept: _Kept,
    first: Array,
    sides: list[Level],
    draw: _Drawing,
    i: Array,
    condition: Array | None,
) -> tuple[Array, Array, list[Level]]:
    """Draws the pixels of a row one after the other.

    Returns the pixels, the network's outputs, and the inputs of the left stream's convolutions at
    this row, which the next row needs. At level ``k`` of the U-net only every ``2^k``-th row and
    column is computed; values of a level are repeated to the columns of the image and back.
    """
    columns = first.shape[0]
    # For each pixel, at every convolution: (columns, *blocks, 2, channels), above left and above.
    pairs = [
        jax.tree.map(lambda leaf, k=k: _pairs(leaf, k), level) for k, level in enumerate(kept.left)
    ]
    # Outputs of the stream above at each pixel: (columns, *blocks, channels).
    beside = [
        jax.tree.map(lambda leaf, k=k: _by_pixel(leaf, k), side) for k, side in enumerate(sides)
    ]
    corner = jnp.pad(kept.images[1], ((1, 0), (0, 0)))[:-1]
    items = jnp.arange(columns), first, corner, pairs, beside, draw.given, draw.noise
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[..., 0, :]), kept.left)

    def pixel(carry: tuple[Array, list[Level]], items: PyTree) -> tuple[Any, Any]:
        (left_image, left), (j, first, corner, pairs, beside, given, noise) = carry, items
        from_left = network.left_first.at(jnp.stack([corner, left_image])[:, None])
        mode = _PixelMode(i, j, condition)
        states = [
            jax.tree.map(_Beside, pair, value) for pair, value in zip(pairs, left, strict=True)
        ]
        h, _, left = network.left.walk(mode, first + _unless(j == 0, from_left), beside, states)
        outputs = network.outputs(h)
        x = draw.pixel(j, given, noise, outputs)
        return (draw.frame(x, j), left), (x, outputs, left)

    # The carry holds the inputs at the pixel to the left, which is zero at the first column.
    _, (x, outputs, values) = jax.lax.scan(pixel, (jnp.zeros_like(corner[0]), zeros), items)
    new = [
        jax.tree.map(
            lambda leaf, old, k=k: jnp.where(_is_active(i, k), _by_row(leaf, k), old), level, old
        )
        for k, (level, old) in enumerate(zip(values, kept.left, strict=True))
    ]
    return x, outputs, new


class _Beside(NamedTuple):
    """A convolution's input around a pixel: above at the left and above, and at the left."""

    above: Array
    left: Array


def _pairs(
    rows: Float[Array, "*blocks width channels"], level: int
) -> Float[Array, "columns *blocks two channels"]:
    """Returns for each column of the image the values at the column before and at it."""
    before = jnp.roll(rows, 1, axis=-2).at[..., 0, :].set(0)
    return _by_pixel(jnp.stack([before, rows], axis=-2), level, axis=-3)


def _by_pixel(rows: Array, level: int, axis: int = -2) -> Array:
    """Puts the column axis first, and repeats it to the columns of the image."""
    return jnp.repeat(jnp.moveaxis(rows, axis, 0), 2**level, axis=0)


def _by_row(
    values: Float[Array, "columns *blocks channels"], level: int
) -> Float[Array, "*blocks width channels"]:
    """The inverse of ``_by_pixel``."""
    return jnp.moveaxis(values[:: 2**level], 0, -2)


def _unless(condition: Array, x: Array) -> Array:
    return jnp.where(condition, jnp.zeros((), x.dtype), x)


def _is_active(index: Array, level: int) -> Array:
    """Returns whether a resolution works on this row or column of the image."""
    return index % 2**level == 0


def _no_sides(states: list[Level]) -> list[Level]:
    return [Level() for _ in states]


def _empty(stream: Stream, columns: int, network: Any) -> list[Level]:
    """Returns zeros for the input of every convolution at a row, by level."""
    dtype = jnp.result_type(
        network.above_first(jnp.zeros((2, 1, network.above_first.kernel[...].shape[2])))
    )
    filters = network.above_first.kernel[...].shape[-1]

    def of_block(width: int) -> Callable[[None, GatedBlock], tuple[None, Any]]:
        def step(carry: None, block: GatedBlock) -> tuple[None, dict[str, Array]]:
            return carry, {"first": row(width, 2 * filters), "second": row(width, 2 * filters)}

        return step

    def row(width: int, channels: int) -> Array:
        return jnp.zeros((width, channels), dtype)

    levels = []
    for k, scale in enumerate(stream.scales):
        width = columns // 2**k
        step = of_block(width)
        merge, last = None, scale.merge is None
        if scale.merge is not None:
            _, merge = step(None, scale.merge)
        levels.append(
            Level(
                up=scale.up.fold(step, None)[1],
                down=scale.down.fold(step, None)[1],
                merge=merge,
                shrink=None if last else row(width, filters),
                grow=None,
                out=row(width, filters),
            )
        )
    return levels


class _Incremental(Mode):
    """Runs one row or pixel at a time.

    A state is the input of a convolution before, the new state its input now.
    """

    def __init__(self, condition: Array | None):
        self.condition = condition

    @abc.abstractmethod
    def convolve(self, layer: Convolution, state: PyTree, x: Array) -> Array:
        """Runs a causal convolution where ``x`` is its input."""

    def block(
        self, block: GatedBlock, state: PyTree, x: Array, side: Array | None
    ) -> tuple[Array, Any]:
        inputs: dict[str, Array] = {}

        def call(name: str, h: Array) -> Array:
            layer: Any = getattr(block, name)
            if name == "skip":
                return layer(h)
            inputs[name] = h
            return self.convolve(layer, state[name], h)

        return block.run(call, x, side, self.condition, None), inputs

    def shrink(self, layer: Any, state: PyTree, x: Array) -> tuple[Array, Any]:
        return self.convolve(layer, state, x), x


class _RowMode(_Incremental):
    """Runs the stream above by rows; a state is a convolution's input at the row before."""

    def __init__(self, i: Array, condition: Array | None):
        super().__init__(condition)
        self.i = i

    def convolve(self, layer: Convolution, state: Array, x: Array) -> Array:
        return layer(jnp.stack([state, x]), padding=((0, 0), layer.geometry.padding[1]))[0]

    def grow(self, layer: AnyConvolution, state: PyTree, x: Array, level: int) -> tuple[Array, Any]:
        return layer(x[None])[(self.i // 2**level) % 2], None

    def below(self, go: Callable[[], Any], states: list[Level], level: int) -> Any:
        _, outs, _ = jax.eval_shape(go)
        idle = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outs)
        return jax.lax.cond(_is_active(self.i, level), go, lambda: (states[0].out, idle, states))


class _PixelMode(_Incremental):
    """Runs the left stream by pixels; a state is a convolution's input around the pixel."""

    def __init__(self, i: Array, j: Array, condition: Array | None):
        super().__init__(condition)
        self.i = i
        self.j = j

    def convolve(self, layer: Convolution, state: _Beside, x: Array) -> Array:
        return layer.at(jnp.stack([state.above, jnp.stack([state.left, x])]))

    def grow(self, layer: AnyConvolution, state: PyTree, x: Array, level: int) -> tuple[Array, Any]:
        return layer(x[None, None])[(self.i // 2**level) % 2, (self.j // 2**level) % 2], None

    def below(self, go: Callable[[], Any], states: list[Level], level: int) -> Any:
        def run() -> tuple[Array, list[Level]]:
            h, _, new = go()
            return h, new

        unchanged = jax.tree.map(
            lambda state: state.left, states, is_leaf=lambda node: isinstance(node, _Beside)
        )
        row_is_active, out = _is_active(self.i, level), states[0].out
        last = jnp.where(
            row_is_active, out.left, out.above[1]
        )  # in an idle row, of the row last worked on
        h, new = jax.lax.cond(
            row_is_active & _is_active(self.j, level), run, lambda: (last, unchanged)
        )
        return h, [], new

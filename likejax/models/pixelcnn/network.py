r"""The network of PixelCNN++: two causal U-nets, run on images or pixel by pixel.

One stream sees the rows above a pixel, the other the pixels to the left in its row and, through the
first, all above. The two have one architecture, which ``Stream.walk`` describes once:

    level 0   h -> up -> up ----------- skips ----------> merge -> down -> down -> out
                        \                               /
                       shrink                          grow
                          \                           /
    level 1                up -> up --- skips ---> down -> down

Every block gives its output to the block of the same place in the left stream, as a side input. A
``Mode`` defines how a piece runs, and what its *states* are:

* ``Apply``: states are keys for dropout, and there are no new states;
* ``Initialize``: states are keys for dropout, new states are the initialized layers;
* the modes of ``sampling``: states are the inputs of convolutions at pixels before, new states the
  inputs at this pixel.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree
from typing_extensions import override

from likejax.models.pixelcnn.causal import SHIFTS, BlockOptions, GatedBlock
from likejax.nn.modules import replace
from likejax.nn.repeat import Blocks, repeat
from likejax.nn.weight_norm import Convolution, WeightNormConvolution

AnyConvolution = WeightNormConvolution | Convolution


class Level(NamedTuple):
    """One value for each piece of a level of a U-net: a side input, an output or a state.

    Attributes:
      up: Values of the blocks before the smaller level, as ``Blocks.fold`` takes them.
      down: Values of the blocks after it.
      merge: Value of the block that takes the output of the smaller level.
      shrink: Value of the convolution to the smaller level.
      grow: Value of the transposed convolution back from it.
      out: Value of the level as a whole.
    """

    up: Any = None
    down: Any = None
    merge: Any = None
    shrink: Any = None
    grow: Any = None
    out: Any = None


class Mode(abc.ABC):
    """One way to run the pieces of a stream: each takes its state and returns its new state."""

    @abc.abstractmethod
    def block(
        self, block: GatedBlock, state: PyTree, x: Array, side: Array | None
    ) -> tuple[Array, Any]:
        """Runs a gated block.

        Args:
          block: The block.
          state: State of the block, as the mode defines it.
          x: Input ``(..., filters)``.
          side: Side input ``(..., side channels)``; ``None`` for a block without one.

        Returns:
          The output ``(..., filters)``, and the new state.
        """

    @abc.abstractmethod
    def shrink(self, layer: AnyConvolution, state: PyTree, x: Array) -> tuple[Array, Any]:
        """Runs a convolution of stride 2.

        Args:
          layer: The convolution.
          state: State of the convolution, as the mode defines it.
          x: Input ``(..., filters)``.

        Returns:
          The output ``(..., filters)``, and the new state.
        """

    @abc.abstractmethod
    def grow(self, layer: AnyConvolution, state: PyTree, x: Array, level: int) -> tuple[Array, Any]:
        """Runs a transposed convolution of stride 2, back to ``level``.

        Args:
          layer: The convolution.
          state: State of the convolution, as the mode defines it.
          x: Input ``(..., filters)`` from the level below.
          level: Number of the level of the output, 0 at full size.

        Returns:
          The output ``(..., filters)``, and the new state.
        """

    @abc.abstractmethod
    def below(self, go: Callable[[], Any], states: list[Level], level: int) -> Any:
        """Runs the levels from ``level`` on by calling ``go``, or returns cached outputs.

        Args:
          go: Function without arguments that runs them, and returns what ``Stream.walk`` returns.
          states: States of each level from this one on.
          level: Number of the first level to run.

        Returns:
          The output, the outputs of every block if another stream reads them, and the new states.
        """


class Scale(nnx.Module):
    """The pieces of one level: repeated blocks both ways and the way to the next level, if any."""

    def __init__(
        self,
        up: Blocks,
        down: Blocks,
        shrink: AnyConvolution | None,
        grow: AnyConvolution | None,
        merge: GatedBlock | None,
    ):
        self.up = up
        self.down = down
        self.shrink = shrink
        self.grow = grow
        self.merge = merge


class Stream(nnx.Module):
    """A causal U-net.

    On each level there are ``blocks`` gated blocks, then the level below, then as many blocks, each
    of which takes the input of its mirror image by a short-cut. Every block can have a side input
    from another stream.

    Args:
      filters: Channels throughout.
      blocks: Blocks on a level each way, R.
      levels: Resolutions.
      stream: Name of the causal convolutions; the ``left`` stream takes the outputs of the
        ``above`` stream as side inputs.
      options: Settings that all blocks share.
      rngs: Source of the initial weights.
    """

    def __init__(
        self,
        filters: int,
        blocks: int,
        levels: int,
        *,
        stream: Literal["above", "left"],
        options: BlockOptions,
        rngs: nnx.Rngs,
    ):
        size, padding = SHIFTS[stream]
        beside = filters if stream == "left" else None
        joined = filters if beside is None else filters + beside  # with the short-cut

        def make(side: int | None) -> Callable[[nnx.Rngs], GatedBlock]:
            return lambda rngs: GatedBlock(filters, side, stream=stream, options=options, rngs=rngs)

        def between(**geometry: Any) -> WeightNormConvolution:
            return WeightNormConvolution(
                filters, filters, kernel_size=size, rngs=rngs, dtype=options.dtype, **geometry
            )

        def scale(last: bool) -> Scale:
            return Scale(
                up=repeat(make(beside), blocks, rngs=rngs),
                down=repeat(make(joined), blocks, rngs=rngs),
                shrink=None if last else between(padding=padding, stride=2),
                grow=None if last else between(crop=(0, (size[1] - 1) // 2)),
                merge=None if last else make(joined)(rngs),
            )

        self.scales = nnx.List([scale(i == levels - 1) for i in range(levels)])
        self.blocks = blocks

    def walk(
        self, mode: Mode, h: Array, sides: list[Level], states: list[Level], level: int = 0
    ) -> tuple[Array, list[Level], list[Level]]:
        """Runs the levels from ``level`` on.

        Args:
          mode: Way to run the pieces.
          h: Input of the level.
          sides: Side inputs of each level from this one on.
          states: States of each level from this one on.
          level: The first level to run.

        Returns:
          The output, the outputs of every block (side inputs of the other stream), and the new
          states.
        """
        scale, side, state = self.scales[level], sides[0], states[0]
        merge = merge_state = shrink_state = grow_state = None
        outs: list[Level] = []
        new: list[Level] = []

        def up(h: Array, block: GatedBlock, side: Array | None, state: PyTree) -> tuple[Array, Any]:
            out, state = mode.block(block, state, h, side)
            return out, (h, out, state)

        def down(
            h: Array, block: GatedBlock, skip: Array, side: Array | None, state: PyTree
        ) -> tuple[Array, Any]:
            out, state = mode.block(block, state, h, _join(side, skip))
            return out, (out, state)

        # up: the output of each block is kept, as skip of its mirror image on the way down
        h, (skips, ups, up_states) = scale.up.fold(up, h, side.up, state.up)
        if scale.merge is not None and scale.shrink is not None and scale.grow is not None:
            # a smaller level between the two ways, all of whose own levels it runs
            small, shrink_state = mode.shrink(scale.shrink, state.shrink, h)
            small, outs, new = mode.below(
                lambda: self.walk(mode, small, sides[1:], states[1:], level + 1),
                states[1:],
                level + 1,
            )
            grown, grow_state = mode.grow(scale.grow, state.grow, small, level)
            merge, merge_state = mode.block(scale.merge, state.merge, grown, _join(side.merge, h))
            h = merge
        # down: the last skip is taken first
        h, (downs, down_states) = scale.down.fold(
            down, h, skips, side.down, state.down, reverse=True
        )
        this = Level(up_states, down_states, merge_state, shrink_state, grow_state, h)
        return h, [Level(ups, downs, merge), *outs], [this, *new]

    def keys(self, key: Array | None) -> list[Level]:
        """Returns states that are keys for dropout, one for every block; none without a key.

        Args:
          key: Key for dropout; ``None`` for none.
        """
        if key is None:
            return [Level() for _ in self.scales]
        each = [jax.random.split(key, 3) for key in jax.random.split(key, len(self.scales))]
        return [
            Level(jax.random.split(up, self.blocks), jax.random.split(down, self.blocks), m)
            for up, down, m in each
        ]

    def replaced(self, states: list[Level]) -> Stream:
        """Returns the stream whose pieces are ``states``, the new states of ``Initialize``.

        Args:
          states: New states, one for each level.
        """
        scales = [
            replace(
                scale,
                up=scale.up.with_blocks(state.up),
                down=scale.down.with_blocks(state.down),
                shrink=state.shrink,
                grow=state.grow,
                merge=state.merge,
            )
            for scale, state in zip(self.scales, states, strict=True)
        ]
        return replace(self, scales=nnx.List(scales))


def _join(side: Array | None, skip: Array) -> Array:
    return skip if side is None else jnp.concatenate([side, skip], axis=-1)


class Apply(Mode):
    """Runs on whole images; the states are keys for dropout, or nothing."""

    def __init__(self, condition: Array | None):
        self.condition = condition

    @override
    def block(
        self, block: GatedBlock, state: PyTree, x: Array, side: Array | None
    ) -> tuple[Array, Any]:
        return block(x, side, self.condition, state), None

    @override
    def shrink(self, layer: AnyConvolution, state: PyTree, x: Array) -> tuple[Array, Any]:
        return layer(x), None

    @override
    def grow(self, layer: AnyConvolution, state: PyTree, x: Array, level: int) -> tuple[Array, Any]:
        return layer(x), None

    @override
    def below(self, go: Callable[[], Any], states: list[Level], level: int) -> Any:
        return go()


class Initialize(Mode):
    """Runs on a batch of images, and initializes every layer before the next sees its output.

    The new states are the initialized pieces.
    """

    @override
    def block(
        self, block: GatedBlock, state: PyTree, x: Array, side: Array | None
    ) -> tuple[Array, Any]:
        block, out = block.initialize(x, side, None, state)
        return out, block

    @override
    def shrink(self, layer: Any, state: PyTree, x: Array) -> tuple[Array, Any]:
        layer, out = layer.initialize(x)
        return out, layer

    @override
    def grow(self, layer: AnyConvolution, state: PyTree, x: Array, level: int) -> tuple[Array, Any]:
        return self.shrink(layer, state, x)

    @override
    def below(self, go: Callable[[], Any], states: list[Level], level: int) -> Any:
        return go()


class PixelCNNNetwork(nnx.Module):
    """From an image on [-1, 1] to the parameters of every pixel's distribution.

    Each pixel's distribution is the one given the pixels before it in raster order.

    Args:
      channels: Channels of the image.
      outputs: Output channels: the parameters of each pixel's distribution.
      filters: Channels throughout, F.
      blocks: Blocks on a level each way, R.
      levels: Resolutions.
      output_scale: Standard deviation of the outputs after initialization.
      options: Settings that all blocks share.
      rngs: Source of the initial weights.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        filters: int,
        blocks: int,
        levels: int,
        output_scale: float,
        options: BlockOptions,
        rngs: nnx.Rngs,
    ):
        def first(rows: int, columns: int) -> WeightNormConvolution:
            side = columns // 2
            padding = ((rows - 1, 0), (side, side))
            return WeightNormConvolution(
                channels + 1,
                filters,
                kernel_size=(rows, columns),
                padding=padding,
                rngs=rngs,
                dtype=options.dtype,
            )

        self.above_first = first(2, 3)
        self.row_first = first(1, 3)
        self.left_first = first(2, 1)
        self.above = Stream(filters, blocks, levels, stream="above", options=options, rngs=rngs)
        self.left = Stream(filters, blocks, levels, stream="left", options=options, rngs=rngs)
        self.out = WeightNormConvolution(
            filters, outputs, initial_scale=output_scale, rngs=rngs, dtype=options.dtype
        )
        self.multiple = 2 ** (levels - 1)

    def __call__(
        self,
        image: Float[Array, "*batch height width channels"],
        condition: Array | None = None,
        key: Array | None = None,
    ) -> Float[Array, "*batch height width outputs"]:
        """Returns the parameters of every pixel's distribution.

        Args:
          image: Images on [-1, 1].
          condition: Labels ``(*batch,)`` or floats ``(*batch, size)`` of a conditional model.
          key: Key for dropout; ``None`` for none.
        """
        height, width = image.shape[-3:-1]
        x = self.framed(image)
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        mode = Apply(condition)
        nothing = [Level() for _ in self.above.scales]
        _, sides, _ = self.above.walk(
            mode, shift_down(self.above_first(x)), nothing, self.above.keys(keys[0])
        )
        first = shift_down(self.row_first(x)) + shift_right(self.left_first(x))
        h, _, _ = self.left.walk(mode, first, sides, self.left.keys(keys[1]))
        return self.outputs(h)[..., :height, :width, :]

    def framed(
        self, image: Float[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch rows columns plus"]:
        """Adds a channel of ones, and pads to a size that the levels divide.

        The zeros are below and at the right.

        Args:
          image: Images ``(*batch, height, width, channels)`` on [-1, 1].

        Returns:
          Array ``(*batch, rows, columns, channels + 1)``, the sizes rounded up to such a multiple.
        """
        one = jnp.ones((*image.shape[:-1], 1), image.dtype)
        rows, columns = (-size % self.multiple for size in image.shape[-3:-1])
        edges = [(0, 0)] * (image.ndim - 3) + [(0, rows), (0, columns), (0, 0)]
        return jnp.pad(jnp.concatenate([image, one], axis=-1), edges)

    def outputs(self, h: Float[Array, "*shape filters"]) -> Float[Array, "*shape outputs"]:
        """Runs the last layer on the left stream's output; at least float32.

        Args:
          h: Array ``(*shape, filters)``.

        Returns:
          Parameters of every pixel's distribution, ``(*shape, outputs)``.
        """
        return _at_least_float32(self.out(jax.nn.elu(h)))

    def initialize(
        self, image: Float[Array, "batch height width channels"], key: Array
    ) -> PixelCNNNetwork:
        """Initializes every layer on a batch, in the order in which it runs; with dropout.

        Args:
          image: Images ``(n, height, width, channels)`` on [-1, 1].
          key: Key for dropout.

        Returns:
          A new network.
        """
        x = self.framed(image)
        above_key, left_key = jax.random.split(key)
        mode = Initialize()
        nothing = [Level() for _ in self.above.scales]
        above_first, h = self.above_first.initialize(x)
        _, sides, above = self.above.walk(mode, shift_down(h), nothing, self.above.keys(above_key))
        row_first, row = self.row_first.initialize(x)
        left_first, left_h = self.left_first.initialize(x)
        h, _, left = self.left.walk(
            mode, shift_down(row) + shift_right(left_h), sides, self.left.keys(left_key)
        )
        out, _ = self.out.initialize(jax.nn.elu(h))
        return replace(
            self,
            above_first=above_first,
            row_first=row_first,
            left_first=left_first,
            above=self.above.replaced(above),
            left=self.left.replaced(left),
            out=out,
        )


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def shift_down(
    x: Float[Array, "*batch height width channels"],
) -> Float[Array, "*batch height width channels"]:
    """Moves every row one lower; the first is zero.

    Args:
      x: Array ``(*batch, height, width, channels)``.

    Returns:
      Array of the same shape.
    """
    return jax.lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 3) + [(1, -1, 0), (0, 0, 0), (0, 0, 0)]
    )


def shift_right(
    x: Float[Array, "*batch height width channels"],
) -> Float[Array, "*batch height width channels"]:
    """Moves every column one to the right; the first is zero.

    Args:
      x: Array ``(*batch, height, width, channels)``.

    Returns:
      Array of the same shape.
    """
    return jax.lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 3) + [(0, 0, 0), (1, -1, 0), (0, 0, 0)]
    )

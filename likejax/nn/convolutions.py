"""Convolutions: one function that picks the fastest form for the backend, and the layers on it.

On GPU and TPU a convolution is XLA's own. On CPU XLA's convolutions are slow inside loops and between narrow maps, so
there a convolution is written as one matrix product: over gathered patches where the input is the narrower side, to all
taps at once, shifted and added, where the output is, or over gathered columns to all rows of the kernel. A network that
runs outside of loops asks for XLA's own between wide maps.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from likejax.nn.initial import normal_weights

PRECISION = "high"
"""Precision of matrix products inside networks: TF32 on GPU, three bfloat16 passes on TPU, exact on CPU."""


_NARROW = 12
"""Channels up to which matrix products are faster on CPU than XLA's own convolution, on either side."""
Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros above and below, left and right."""


def same(rows: int, columns: int) -> Padding:
    """The padding under which an odd-sized kernel keeps height and width."""
    return ((rows // 2, rows // 2), (columns // 2, columns // 2))


def convolve(
    x: Float[Array, "*shape channels"],
    kernel: Float[Array, "rows columns channels features"],
    *,
    padding: Padding | None = None,
    stride: int = 1,
    native: bool = False,
) -> Float[Array, "*out features"]:
    """Correlation of ``x`` with ``kernel``.

    Args:
      x: Images ``(*batch, height, width, channels)``; for a 1x1 kernel any array with the channels last.
      kernel: Weights in the layout (rows, columns, in, out), of the dtype of ``x``.
      padding: Zeros around the image; by default those of an odd-sized kernel that keep its size.
      stride: Of both axes.
      native: XLA's own convolution between wide maps on CPU too: faster, but many times slower inside loops of XLA.
    """
    rows, columns, channels, features = kernel.shape
    if (rows, columns, stride) == (1, 1, 1) and padding in (None, same(1, 1)):
        return jnp.tensordot(x, kernel[0, 0], 1, precision=PRECISION)
    padding = same(rows, columns) if padding is None else padding
    if jax.default_backend() != "cpu" or (native and min(channels, features) > _NARROW):
        return _convolve_by_xla(x, kernel, padding, stride)
    if stride == 2 and x.shape[-3] % 2 == x.shape[-2] % 2 == 0 and max(rows, columns) > 1:
        return _convolve_phases(x, kernel, padding, native)
    if stride > 1 or sum(padding[0]) < rows - 1:  # taps would be computed where no output is
        return _convolve_patches(x, kernel, padding, stride)
    # numbers moved per pixel; what is added costs more than what is copied (measured)
    cost = {
        _convolve_patches: rows * columns * channels,
        _convolve_columns: columns * channels + 1.5 * rows * features,
        _convolve_taps: 1.5 * rows * columns * features,
    }
    return min(cost, key=cost.__getitem__)(x, kernel, padding)


def _convolve_phases(x: Array, kernel: Array, padding: Padding, native: bool) -> Array:
    """At stride 2: the pixels of every 2x2 square as channels of one, and a convolution of stride 1 of those.

    ``out[i] = sum_a x[2 i + a - before] k[a]``, and ``a = 2 o + phase + before`` for the square ``i + o``.
    """
    *batch, height, width, channels = x.shape
    taps, edges = [], []
    for size, taken, (before, after) in zip(
        (height, width), kernel.shape[:2], padding, strict=True
    ):
        offsets = np.arange((-before) // 2, (taken - 1 - before) // 2 + 1)
        taps.append(2 * offsets[:, None] + np.arange(2) + before)
        outputs = (size + before + after - taken) // 2 + 1
        edges.append((-int(offsets[0]), outputs + int(offsets[-1]) - size // 2))
    if min(edge for pair in edges for edge in pair) < 0:
        return _convolve_patches(x, kernel, padding, 2)
    squares = x.reshape(*batch, height // 2, 2, width // 2, 2, channels)
    squares = jnp.moveaxis(squares, -4, -3).reshape(*batch, height // 2, width // 2, 4 * channels)
    parts = _gather_taps(kernel, *taps).transpose(0, 2, 1, 3, 4, 5)
    parts = parts.reshape(*parts.shape[:2], 4 * channels, -1)
    return convolve(squares, parts, padding=(edges[0], edges[1]), native=native)


def _gather_taps(kernel: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """``kernel[rows][:, columns]``, ``(*rows.shape, *columns.shape, in, out)``, with zeros where there is no tap."""
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    inside = [
        np.where((t >= 0) & (t < n), t, n)
        for t, n in zip((rows, columns), kernel.shape[:2], strict=True)
    ]
    return jnp.take(jnp.take(padded, inside[0], axis=0), inside[1], axis=rows.ndim)


def _convolve_by_xla(x: Array, kernel: Array, padding: Padding, stride: int) -> Array:
    images = x.reshape(-1, *x.shape[-3:])
    out = jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
    )
    return out.reshape(*x.shape[:-3], *out.shape[1:])


def _tap(x: Array, kernel: Array, padding: Padding, row: int, column: int) -> Array:
    """What the tap (row, column) of a kernel sees at every output position, at stride 1; zero outside ``x``."""
    rows, columns = kernel.shape[:2]
    (top, bottom), (left, right) = padding
    edges = [
        (top - row, bottom - rows + 1 + row, 0),
        (left - column, right - columns + 1 + column, 0),
        (0, 0, 0),
    ]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 3) + edges)


def _convolve_patches(x: Array, kernel: Array, padding: Padding, stride: int = 1) -> Array:
    rows, columns, channels, features = kernel.shape
    taps = [
        _tap(x, kernel, padding, row, column) for row in range(rows) for column in range(columns)
    ]
    patches = jnp.concatenate([tap[..., ::stride, ::stride, :] for tap in taps], axis=-1)
    return jnp.tensordot(
        patches, kernel.reshape(rows * columns * channels, features), 1, precision=PRECISION
    )


def _convolve_taps(x: Array, kernel: Array, padding: Padding) -> Array:
    rows, columns, channels, features = kernel.shape
    by_tap = kernel.transpose(2, 0, 1, 3).reshape(channels, rows * columns * features)
    products = jnp.tensordot(x, by_tap, 1, precision=PRECISION)
    # lax.split, not slices: its gradient is one concatenation instead of a padded sum per tap, 4 times faster
    parts = jax.lax.split(products, [features] * (rows * columns), axis=products.ndim - 1)
    places = [(row, column) for row in range(rows) for column in range(columns)]
    shifted = [
        _tap(part, kernel, padding, *place) for part, place in zip(parts, places, strict=True)
    ]
    return sum(shifted[1:], shifted[0])


def _convolve_columns(x: Array, kernel: Array, padding: Padding) -> Array:
    rows, columns, channels, features = kernel.shape
    width = x.shape[-2] + sum(padding[1]) - columns + 1
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [padding[1], (0, 0)])
    gathered = [padded[..., column : column + width, :] for column in range(columns)]
    by_row = kernel.transpose(1, 2, 0, 3).reshape(columns * channels, rows * features)
    products = jnp.tensordot(jnp.concatenate(gathered, axis=-1), by_row, 1, precision=PRECISION)
    parts = jax.lax.split(products, [features] * rows, axis=products.ndim - 1)
    shifted = [
        _tap(part, kernel[:, :1], (padding[0], (0, 0)), row, 0) for row, part in enumerate(parts)
    ]
    return sum(shifted[1:], shifted[0])


def convolve_transposed(
    x: Float[Array, "*batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    *,
    crop: int = 0,
    crop_rows: int = 0,
    stride: int = 2,
    native: bool = False,
) -> Float[Array, "*batch larger_height larger_width features"]:
    """Transposed convolution: ``out[stride i + a - crop_rows, stride j + b - crop] += x[i, j] @ kernel[a, b]``.

    The output has ``stride`` times the height and width; what falls outside is cut off.

    Args:
      x: Images.
      kernel: Weights in the layout (rows, columns, in, out), of the dtype of ``x``.
      crop: Columns cut off at the left.
      crop_rows: Rows cut off at the top.
      stride: Factor on height and width.
      native: As for ``convolve``.
    """
    taps, edges = [], []
    for taken, cut in zip(kernel.shape[:2], (crop_rows, crop), strict=True):
        # out[stride i' + phase] = sum_o x[i' + o] k[phase + cut - stride o]
        offsets = np.arange(-((taken - 1 - cut) // stride), (stride - 1 + cut) // stride + 1)
        taps.append(np.arange(stride) + cut - stride * offsets[:, None])
        edges.append((-int(offsets[0]), int(offsets[-1])))
    features = kernel.shape[-1]
    parts = _gather_taps(kernel, *taps).transpose(0, 2, 4, 1, 3, 5)
    parts = parts.reshape(*parts.shape[:3], stride * stride * features)
    phases = convolve(x, parts, padding=(edges[0], edges[1]), native=native)
    *batch, height, width, _ = phases.shape
    squares = phases.reshape(*batch, height, width, stride, stride, features)
    return jnp.moveaxis(squares, -3, -4).reshape(*batch, stride * height, stride * width, features)


def edge_map(
    height: int, width: int, kernel: Float[Array, "rows columns features"]
) -> Float[Array, "height width features"]:
    """Convolution with ``kernel`` of a plane that is 1 on the padding ring and 0 inside.

    The official Glow appends this plane to the input of every 3x3 convolution. It does not depend on the
    data, so its part of the output is a learned bias per position, computed once for all examples.
    """
    inside = jnp.ones((height, width, 1), kernel.dtype)
    total = kernel.sum((0, 1)).reshape(1, 1, -1)
    return total - convolve(inside, kernel[:, :, None, :])


class Linear(nnx.Module):
    """A convolution with a learned response to the image border, or a dense layer on the last axis.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      kernel_size: Odd; 1 is a matrix product on the last axis and works on vectors too. A larger kernel has
        an extra input channel that is 1 on the zero padding and 0 inside (Glow's edge channel).
      scale: Standard deviation of the initial weights.
      rngs: Source of the initial weights.
      dtype: Type to compute in; parameters stay in float32.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel_size: int,
        scale: float,
        rngs: nnx.Rngs,
        dtype: str = "float32",
    ):
        extra = int(kernel_size > 1)
        shape = (kernel_size, kernel_size, channels + extra, features)
        self.kernel = nnx.Param(
            normal_weights(rngs.params(), shape, scale=scale) if scale else jnp.zeros(shape)
        )
        self.channels = channels
        self.dtype = dtype

    def __call__(
        self,
        x: Float[Array, "*shape channels"],
        *,
        bias: Float[Array, " features"] | None = None,
        scale: Float[Array, " features"] | None = None,
    ) -> Float[Array, "*shape features"]:
        """``(linear(x) + bias) * scale``; the scale is folded into the weights, which costs no pass over the output."""
        kernel = self.kernel[...]
        features = kernel.shape[-1]
        constant = jnp.zeros(features, kernel.dtype) if bias is None else bias
        if scale is not None:
            kernel, constant = kernel * scale.reshape(1, 1, 1, features), constant * scale
        dtype = (
            jnp.promote_types(x.dtype, kernel.dtype)
            if self.dtype == "float32"
            else jnp.dtype(self.dtype)
        )
        out = convolve(x.astype(dtype), kernel[:, :, : self.channels].astype(dtype))
        if kernel.shape[0] > 1:
            constant = edge_map(
                x.shape[-3], x.shape[-2], kernel[:, :, self.channels]
            ) + constant.reshape(1, 1, features)
        return out + constant.reshape((1,) * (out.ndim - constant.ndim) + constant.shape).astype(
            dtype
        )


class ZeroLinear(nnx.Module):
    """``(Linear(x) + bias) * exp(factor * log_scale)``, with everything learned starting at zero.

    Args:
      channels: Channels of the input.
      features: Channels of the output.
      kernel_size: As for ``Linear``.
      factor: Constant on the stored log-scale; 3 in the official Glow code.
      dtype: Type to compute in.

    References:
      Kingma and Dhariwal, 2018, Glow, arXiv:1807.03039, section 3.3 and official code (``conv2d_zeros``).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel_size: int,
        factor: float = 3.0,
        dtype: str = "float32",
    ):
        make = partial(Linear, kernel_size=kernel_size, scale=0.0, dtype=dtype)
        self.linear = make(channels, features, rngs=nnx.Rngs(0))
        self.bias = nnx.Param(jnp.zeros(features))
        self.log_scale = nnx.Param(jnp.zeros(features))
        self.factor = factor

    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*shape features"]:
        out = self.linear(x, bias=self.bias[...], scale=jnp.exp(self.factor * self.log_scale[...]))
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))


@jax.custom_jvp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``max(x, 0)``, whose gradient reads its output, so that the input need not be kept."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], jnp.zeros((), y.dtype))

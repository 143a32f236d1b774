"""Convolutions in the form that is fastest on the backend.

On GPU and TPU a convolution is XLA's own. On CPU XLA's matrix products are faster than its
convolutions, many times so inside loops. There a convolution is written in matrix products:

* over gathered patches, where the input is the narrower side;
* to all taps at once, which are shifted and added, where the output is the narrower side;
* over gathered columns to all rows of the kernel, in between;
* to the entries of transformed tiles, where images and kernels are large.

``benchmarks/convolutions.py`` measures the forms. Convolutions that keep the size are functions
that the program calls, so that all of one form are compiled once. The training step of a diffusion
model takes three quarters of the time and of the memory so, and that of an image FFJORD compiles in
two thirds. The shifted kernels of a PixelCNN++ are written out, and were slower as calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from likejax.nn.calls import called
from likejax.nn.product import PRECISION, product
from likejax.nn.tile_convolution import convolve_tiles, entries_per_pixel

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros above and below, left and right."""


def same(rows: int, columns: int) -> Padding:
    """The padding under which an odd-sized kernel keeps height and width.

    Args:
      rows: Rows of the kernel.
      columns: Columns of the kernel.
    """
    return ((rows // 2, rows // 2), (columns // 2, columns // 2))


def convolve(
    x: Float[Array, "*shape channels"],
    kernel: Float[Array, "rows columns channels features"],
    *,
    padding: Padding | None = None,
    stride: int = 1,
) -> Float[Array, "*out features"]:
    """Correlates ``x`` with ``kernel``.

    On CPU the output of a centered kernel may depend, by rounding, on pixels that the kernel does
    not reach. An autoregressive model shifts its kernels instead of masking a centered one.

    Args:
      x: Images ``(*batch, height, width, channels)``; for a 1x1 kernel any array, channels last.
      kernel: Weights in the layout (rows, columns, in, out), of the dtype of ``x``.
      padding: Zeros around the image; by default those that keep the size under an odd-sized
        kernel.
      stride: Stride of both axes.

    Returns:
      Images ``(*batch, out_height, out_width, features)``.
    """
    padding = same(*kernel.shape[:2]) if padding is None else padding
    if _is_matrix_product(kernel, padding, stride):
        return product(x, kernel[0, 0])
    if jax.default_backend() != "cpu":
        return _convolve_by_xla(x, kernel, padding, stride)
    if padding == same(*kernel.shape[:2]):
        return _called_by_products(padding, stride)(x, kernel)
    return _convolve_by_products(x, kernel, padding, stride)


def _is_matrix_product(kernel: Array, padding: Padding, stride: int) -> bool:
    return (*kernel.shape[:2], stride) == (1, 1, 1) and padding == same(1, 1)


@functools.cache
def _called_by_products(padding: Padding, stride: int) -> Callable[[Array, Array], Array]:
    """The convolution in matrix products as a function that the program calls."""
    return called(functools.partial(_convolve_by_products, padding=padding, stride=stride))


def _convolve_by_products(x: Array, kernel: Array, padding: Padding, stride: int) -> Array:
    """Convolves in the cheapest of the forms in matrix products."""
    rows, columns, channels, features = kernel.shape
    has_even_sides = x.shape[-3] % 2 == x.shape[-2] % 2 == 0
    if stride == 2 and has_even_sides and max(rows, columns) > 1:
        return _convolve_phases(x, kernel, padding)
    if stride > 1 or sum(padding[0]) < rows - 1:
        # the other forms would compute taps where there is no output
        return _convolve_patches(x, kernel, padding, stride)
    products = rows * columns * channels * features
    # numbers moved for each pixel, to which 25 multiplications are equal; what is added costs more
    # than what is copied (measured)
    cost = {
        _convolve_patches: 1.4 * rows * columns * channels + products / 25,
        _convolve_columns: columns * channels + 1.5 * rows * features + products / 25,
        _convolve_taps: 1.5 * rows * columns * features + products / 25,
    }
    if _may_see_a_tile(x, kernel, padding):
        entries = entries_per_pixel(x.shape[-3:-1], (rows, columns))
        moved = (6.4 + 0.7 * entries) * (channels + features)
        cost[_convolve_tiles] = moved + entries * channels * features / 17
    return min(cost, key=cost.__getitem__)(x, kernel, padding)


def _may_see_a_tile(x: Array, kernel: Array, padding: Padding) -> bool:
    """Whether an output may depend, by rounding, on pixels outside of its kernel.

    The kernels of autoregressive models are not centered. In half precision, rounding is too large.
    """
    rows, columns = kernel.shape[:2]
    is_centered = padding == same(rows, columns)
    return is_centered and {rows, columns} <= {3, 5} and jnp.finfo(x.dtype).bits >= 32


def _convolve_tiles(x: Array, kernel: Array, padding: Padding) -> Array:
    del padding  # that of the same size
    return convolve_tiles(x, kernel)


def _convolve_phases(x: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves at stride 2 by a convolution at stride 1.

    The pixels of every 2x2 square become channels of one position.

    ``out[i] = sum_a x[2 i + a - before] k[a]``, and ``a = 2 o + phase + before`` for the square
    ``i + o``.
    """
    *batch, height, width, channels = x.shape
    taps, edges = [], []
    for size, taken, (before, after) in zip(
        (height, width), kernel.shape[:2], padding, strict=True
    ):
        # the squares o that the kernel reaches, and which of its taps falls on each phase of them
        offsets = np.arange((-before) // 2, (taken - 1 - before) // 2 + 1)
        taps.append(2 * offsets[:, None] + np.arange(2) + before)
        outputs = (size + before + after - taken) // 2 + 1
        edges.append((-int(offsets[0]), outputs + int(offsets[-1]) - size // 2))
    if min(edge for pair in edges for edge in pair) < 0:
        return _convolve_patches(x, kernel, padding, 2)  # an edge is cut off, not padded
    squares = x.reshape(*batch, height // 2, 2, width // 2, 2, channels)
    squares = jnp.moveaxis(squares, -4, -3).reshape(*batch, height // 2, width // 2, 4 * channels)
    parts = _gather_taps(kernel, *taps).transpose(0, 2, 1, 3, 4, 5)
    parts = parts.reshape(*parts.shape[:2], 4 * channels, -1)
    return convolve(squares, parts, padding=(edges[0], edges[1]))


def _gather_taps(kernel: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Returns ``kernel[rows][:, columns]``, with zeros where there is no tap.

    The shape is ``(*rows.shape, *columns.shape, in, out)``.
    """
    # one row and column of zeros more: what lies outside the kernel is taken from there
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    inside = [
        np.where((t >= 0) & (t < n), t, n)
        for t, n in zip((rows, columns), kernel.shape[:2], strict=True)
    ]
    return jnp.take(jnp.take(padded, inside[0], axis=0), inside[1], axis=rows.ndim)


def _convolve_by_xla(x: Array, kernel: Array, padding: Padding, stride: int) -> Array:
    images = x.reshape(-1, *x.shape[-3:])  # XLA takes one axis of examples
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
    """Returns the input under one tap of a kernel for every output at stride 1, zero outside."""
    rows, columns = kernel.shape[:2]
    (top, bottom), (left, right) = padding
    edges = [
        (top - row, bottom - rows + 1 + row, 0),
        (left - column, right - columns + 1 + column, 0),
        (0, 0, 0),
    ]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 3) + edges)


def _convolve_patches(x: Array, kernel: Array, padding: Padding, stride: int = 1) -> Array:
    """Convolves by one product of all inputs under the kernel, side by side, with its weights.

    Nothing is summed after it, but its input takes the most memory of the three forms.
    """
    rows, columns, channels, features = kernel.shape
    taps = [
        _tap(x, kernel, padding, row, column) for row in range(rows) for column in range(columns)
    ]
    patches = jnp.concatenate([tap[..., ::stride, ::stride, :] for tap in taps], axis=-1)
    return product(patches, kernel.reshape(rows * columns * channels, features))


def _convolve_taps(x: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves by one product of the input with the weights of all taps, whose parts are shifted.

    For few output channels that is less memory than the inputs under the kernel.
    """
    rows, columns, channels, features = kernel.shape
    by_tap = kernel.transpose(2, 0, 1, 3).reshape(channels, rows * columns * features)
    products = product(x, by_tap)
    # lax.split, not slices: its gradient is one concatenation, not a padded sum per tap,
    # which is 4 times slower
    parts = jax.lax.split(products, [features] * (rows * columns), axis=products.ndim - 1)
    places = [(row, column) for row in range(rows) for column in range(columns)]
    shifted = [
        _tap(part, kernel, padding, *place) for part, place in zip(parts, places, strict=True)
    ]
    return sum(shifted[1:], shifted[0])


def _convolve_columns(x: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves by one product for the taps of a row, whose parts are shifted by rows.

    It lies between the other two: inputs under a row of the kernel are put side by side, and
    outputs of its rows are summed.
    """
    rows, columns, channels, features = kernel.shape
    width = x.shape[-2] + sum(padding[1]) - columns + 1
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [padding[1], (0, 0)])
    gathered = [padded[..., column : column + width, :] for column in range(columns)]
    by_row = kernel.transpose(1, 2, 0, 3).reshape(columns * channels, rows * features)
    products = product(jnp.concatenate(gathered, axis=-1), by_row)
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
) -> Float[Array, "*batch larger_height larger_width features"]:
    """Convolves with a transposed kernel, which makes images larger.

    ``out[stride i + a - crop_rows, stride j + b - crop] += x[i, j] @ kernel[a, b]``.

    The output has ``stride`` times the height and width; what falls outside is cut off.

    Args:
      x: Images.
      kernel: Weights in the layout (rows, columns, in, out), of the dtype of ``x``.
      crop: Columns cut off at the left.
      crop_rows: Rows cut off at the top.
      stride: Factor on height and width.
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
    phases = convolve(x, parts, padding=(edges[0], edges[1]))
    *batch, height, width, _ = phases.shape
    squares = phases.reshape(*batch, height, width, stride, stride, features)
    return jnp.moveaxis(squares, -3, -4).reshape(*batch, stride * height, stride * width, features)

"""Convolutions of kernels of 3 or 5 with fewer multiplications, by transforms of tiles.

In one dimension, ``m`` outputs of a kernel of ``r`` taps need ``m r`` multiplications. The product
of two polynomials with ``m`` and ``r`` coefficients needs ``n = m + r - 1``, one at each of
``n - 1`` points and one for the leading coefficients. Correlation is the transpose of that product:

    out = A ((G kernel) * (B tile)),

where ``tile`` holds ``n`` neighboring inputs. Images have tiles of ``n x n`` pixels, transformed
along both axes, and the multiplications of all channels are one matrix product for each of the
``n^2`` entries of a tile. With ``n = 6``, 3x3 kernels take a quarter of the products of the plain
form and 5x5 kernels 9 of 25.

Numbers of a tile are mixed and cancel again. So the rounding errors are 3 to 6 times those of the
plain form (a test holds them below 5e-6 of the largest output), and an output depends by rounding
on all pixels of its tile. The kernels of autoregressive models, whose outputs must not see later
pixels at all, do not come here.

References:
  Winograd, 1980, Arithmetic complexity of computations. Lavin and Gray, 2016, Fast algorithms for
  convolutional neural networks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from likejax.nn.bilinear import bilinear_primitive
from likejax.nn.product import PRECISION

SIZE = 6
"""Height and width of tiles."""
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where the polynomials are evaluated. They round less than 0, 1, -1, 2, -2 do (measured)."""


def entries_per_pixel(image: Sequence[int], kernel: Sequence[int]) -> float:
    """Entries of all tiles of an image for each of its pixels.

    Args:
      image: Height and width of the image.
      kernel: Rows and columns of the kernel.
    """
    tiles = [-(-size // _outputs(taps)) for size, taps in zip(image, kernel, strict=True)]
    return math.prod(tiles) * SIZE**2 / math.prod(image)


def _outputs(taps: int) -> int:
    """Outputs of a tile along one axis."""
    return SIZE - taps + 1


def convolve_tiles(
    x: Float[Array, "*batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
) -> Float[Array, "*batch height width features"]:
    """Correlates images with an odd-sized kernel by transforms of tiles, zeros around them.

    Args:
      x: Images.
      kernel: Weights in the layout (rows, columns, in, out), of the dtype of ``x``.
    """
    return _primitive.bind(x, kernel)


def _by_transforms(x: Array, kernel: Array) -> Array:
    height, width, channels = x.shape[-3:]
    rows, columns, _, features = kernel.shape
    # entries of the tiles along rows, along columns, then batch, tiles, channels
    tiles = _take_tiles(x, columns, axis=x.ndim - 2)
    tiles = _take_tiles(tiles, rows, axis=tiles.ndim - 3)
    both_axes = np.kron(_transforms(rows).kernel, _transforms(columns).kernel)
    by_entry = jnp.matmul(
        both_axes.astype(kernel.dtype), kernel.reshape(rows * columns, -1), precision="highest"
    )
    multiplied = jnp.matmul(
        tiles.reshape(SIZE * SIZE, -1, channels),
        by_entry.reshape(SIZE * SIZE, channels, features),
        precision=PRECISION,
    )
    multiplied = multiplied.reshape(*tiles.shape[:-1], features)
    out = _join(multiplied, rows, axis=multiplied.ndim - 3)
    out = _join(out, columns, axis=out.ndim - 2)
    return out[..., :height, :width, :]


def _gradient_by_array(cotangent: Array, x: Any, kernel: Array) -> Array:
    shape = jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype)
    return jax.linear_transpose(lambda x: _by_transforms(x, kernel), shape)(cotangent)[0]


def _gradient_by_kernel(cotangent: Array, x: Array, kernel: Any) -> Array:
    shape = jax.ShapeDtypeStruct(kernel.aval.shape, kernel.aval.dtype)
    return jax.linear_transpose(lambda kernel: _by_transforms(x, kernel), shape)(cotangent)[0]


_primitive = bilinear_primitive(
    "likejax_tile_convolution", _by_transforms, _gradient_by_array, _gradient_by_kernel
)


class _Transforms:
    """The matrices of one axis.

    Attributes:
      inputs: ``B``, shape (``SIZE``, ``SIZE``).
      kernel: ``G``, shape (``SIZE``, taps).
      outputs: ``A``, shape (outputs, ``SIZE``).
    """

    def __init__(self, taps: int):
        outputs = _outputs(taps)
        powers = np.vander(_POINTS, SIZE, increasing=True)
        others = [[other for other in _POINTS if other != point] for point in _POINTS]
        # Lagrange's interpolation: a polynomial is the sum of its values at the points times
        # prod (z - other) / prod (point - other). The rows of G evaluate and divide, the columns of
        # A evaluate. The last ones take the leading coefficient, which belongs to prod (z - point).
        divisors = [
            np.prod(np.subtract(point, rest)) for point, rest in zip(_POINTS, others, strict=True)
        ]
        scaled = powers / np.asarray(divisors)[:, None]
        self.kernel = np.vstack([scaled[:, :taps], np.eye(taps)[-1]])
        self.outputs = np.vstack([powers[:, :outputs], np.eye(outputs)[-1]]).T
        # The rows of B have the coefficients of those products, lowest first.
        self.inputs = np.zeros((SIZE, SIZE))
        for row, roots in enumerate([*others, _POINTS]):
            self.inputs[row, : len(roots) + 1] = np.poly(roots)[::-1]


_transforms = functools.cache(_Transforms)


def _combine(matrix: np.ndarray, parts: Sequence[Array], axis: int) -> Array:
    """Stacks sums of the parts, weighted by the rows of a matrix."""
    sums = []
    for row in matrix:
        weighted = [
            part if weight == 1 else float(weight) * part
            for weight, part in zip(row, parts, strict=True)
            if weight != 0
        ]
        sums.append(sum(weighted[1:], weighted[0]))
    return jnp.stack(sums, axis)


def _take_tiles(x: Array, taps: int, axis: int) -> Array:
    """Transforms the tiles along an axis of images; their entries become the first axis."""
    size, outputs = x.shape[axis], _outputs(taps)
    tiles = -(-size // outputs)
    before = taps // 2
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, outputs * tiles + taps - 1 - size - before)
    padded = jnp.pad(x, padding)
    last = outputs * (tiles - 1) + 1
    entries = [
        jax.lax.slice_in_dim(padded, start, start + last, outputs, axis) for start in range(SIZE)
    ]
    return _combine(_transforms(taps).inputs, entries, 0)


def _join(tiles: Array, taps: int, axis: int) -> Array:
    """Transforms entries, the first axis, to the outputs of tiles along an axis of images."""
    # lax.split, not indices: its gradient is one concatenation, not a padded sum for each entry
    entries = [part[0] for part in jax.lax.split(tiles, [1] * SIZE, axis=0)]
    out = _combine(_transforms(taps).outputs, entries, axis)
    return out.reshape(*out.shape[: axis - 1], -1, *out.shape[axis + 1 :])

"""Convolutions between wide maps on CPU: XLA's own, with a weight gradient in matrix products.

XLA's CPU convolutions run near the rate of matrix products, but the gradient by the kernel does
not: it is up to four times slower than one matrix product for each tap of the kernel,
``dK[a, b] = sum_(n, i, j) x[n, i + a, j + b] g[n, i, j]^T``.

A convolution is linear in the image and in the kernel, so it is a primitive of JAX with a transpose
for each. A custom gradient would do for training, but it would take forward mode away, and under
``jax.vmap`` it would keep a gradient of the kernel for every example.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros above and below, left and right."""

_primitive = Primitive("likejax_wide_convolution")


def convolve_wide(
    images: Float[Array, "n height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    padding: Padding,
    precision: str,
) -> Float[Array, "n out_height out_width features"]:
    """Correlates images with a kernel at stride 1.

    Args:
      images: Images.
      kernel: Weights, of the dtype of the images.
      padding: Zeros around the image.
      precision: Precision of the products.
    """
    return _primitive.bind(images, kernel, padding=padding, precision=precision)


def _by_xla(images: Array, kernel: Array, *, padding: Padding, precision: str) -> Array:
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _gradient_by_images(
    cotangent: Array, images: Any, kernel: Array, *, padding: Padding, precision: str
) -> Array:
    """The transpose in the images: a convolution with the kernel turned around."""
    del images
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    rows, columns = kernel.shape[:2]
    (top, bottom), (left, right) = padding
    edges = ((rows - 1 - top, rows - 1 - bottom), (columns - 1 - left, columns - 1 - right))
    return convolve_wide(cotangent, turned, edges, precision)


def _gradient_by_kernel(
    cotangent: Array, images: Array, kernel: Any, *, padding: Padding, precision: str
) -> Array:
    """The transpose in the kernel: a matrix product for each tap."""
    rows, columns, channels, features = kernel.aval.shape
    padded = jnp.pad(images, [(0, 0), *padding, (0, 0)])
    height, width = cotangent.shape[1:3]
    outputs = cotangent.reshape(-1, features)

    def tap(row: int, column: int) -> Array:
        seen = padded[:, row : row + height, column : column + width].reshape(-1, channels)
        return jnp.matmul(seen.T, outputs, precision=precision)

    taps = [[tap(row, column) for column in range(columns)] for row in range(rows)]
    return jnp.stack([jnp.stack(of_row) for of_row in taps])


def _over_a_batch(
    arguments: tuple[Array, Array], axes: tuple[int | None, int | None], **settings: Any
) -> tuple[Array, int]:
    """The rule of ``jax.vmap``: images of a batch are more images."""
    images, kernel = arguments
    of_images, of_kernel = axes
    if of_kernel is not None:
        over = jax.vmap(functools.partial(_by_xla, **settings), in_axes=axes)
        return over(images, kernel), 0
    assert of_images is not None
    images = jnp.moveaxis(images, of_images, 0)
    flat = images.reshape(-1, *images.shape[2:])
    out = _primitive.bind(flat, kernel, **settings)
    return out.reshape(*images.shape[:2], *out.shape[1:]), 0


def _shape_of_output(images: Any, kernel: Any, **settings: Any) -> Any:
    out = jax.eval_shape(functools.partial(_by_xla, **settings), images, kernel)
    return images.update(shape=out.shape, dtype=out.dtype)


_primitive.def_impl(jax.jit(_by_xla, static_argnames=("padding", "precision")))
_primitive.def_abstract_eval(_shape_of_output)
mlir.register_lowering(_primitive, mlir.lower_fun(_by_xla, multiple_results=False))
ad.defbilinear(_primitive, _gradient_by_images, _gradient_by_kernel)
batching.primitive_batchers[_primitive] = _over_a_batch

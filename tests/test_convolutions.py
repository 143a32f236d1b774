"""Convolutions: the matrix-product forms against XLA's own."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from likejax.nn import convolution as convolutions
from likejax.nn.convolution import convolve, convolve_transposed, same
from likejax.nn.product import product
from likejax.nn.tile_convolution import convolve_tiles


@pytest.mark.parametrize(("channels", "features"), [(2, 5), (5, 2), (3, 3), (1, 4)])
@pytest.mark.parametrize(
    ("size", "padding", "stride"),
    [
        ((3, 3), same(3, 3), 1),
        ((1, 1), same(1, 1), 1),
        ((5, 3), same(5, 3), 1),
        ((5, 5), same(5, 5), 1),
        ((2, 3), ((1, 0), (1, 1)), 1),
        ((2, 2), ((1, 0), (1, 0)), 1),
        ((2, 3), ((1, 0), (1, 1)), 2),
        ((2, 2), ((1, 0), (1, 0)), 2),
        ((2, 3), ((0, 0), (1, 1)), 1),
    ],
)
def test_convolutions_agree(channels, features, size, padding, stride):
    """Values and both gradients, under vmap too."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 6, 5, channels)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*size, channels, features)), jnp.float32)
    forms = [
        functools.partial(convolve, padding=padding, stride=stride),
        lambda x, kernel: convolutions._convolve_patches(x, kernel, padding, stride),
    ]
    if stride == 1 and padding[0] != (0, 0):
        forms.append(lambda x, kernel: convolutions._convolve_taps(x, kernel, padding))
        forms.append(lambda x, kernel: convolutions._convolve_columns(x, kernel, padding))
    if set(size) <= {3, 5}:
        forms.append(convolve_tiles)

    def values(form, x, kernel):
        def total(x, kernel):
            return jnp.sum(jnp.sin(jax.vmap(form, (0, None))(x, kernel)))

        return form(x, kernel), *jax.grad(total, (0, 1))(x, kernel)

    def by_xla(x, kernel):
        return convolutions._convolve_by_xla(x, kernel, padding, stride)

    @jax.jit
    def values_of_all(x, kernel):
        return [values(form, x, kernel) for form in (by_xla, *forms)]

    expected, *found = values_of_all(x, kernel)
    for of_form in found:
        for a, b in zip(of_form, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (3, 5)])
def test_tiles_round_little(size):
    """The bound that the module states, on the shapes that come there; exact in float64."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 28, 28, 64))
    kernel = rng.normal(size=(*size, 64, 64))
    with jax.enable_x64(True):
        exact = convolutions._convolve_by_xla(jnp.asarray(x), jnp.asarray(kernel), same(*size), 1)
        largest = jnp.abs(exact).max()
        assert jnp.abs(convolve_tiles(jnp.asarray(x), jnp.asarray(kernel)) - exact).max() < (
            1e-13 * largest
        )
        rounded = convolve_tiles(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
        assert rounded.dtype == jnp.float32
        assert jnp.abs(rounded - exact).max() < 5e-6 * largest


def test_when_tiles_are_taken():
    """For large images and centered kernels: never where an output must not see later pixels, and
    not in half precision."""

    def takes_tiles(padding, dtype=jnp.float32, side=28):
        x, kernel = jnp.zeros((side, side, 64), dtype), jnp.zeros((5, 5, 64, 64), dtype)
        program = str(jax.make_jaxpr(functools.partial(convolve, padding=padding))(x, kernel))
        return "tile_convolution" in program

    assert takes_tiles(same(5, 5))
    assert not takes_tiles(((4, 0), (2, 2)))
    assert not takes_tiles(same(5, 5), jnp.bfloat16)
    assert not takes_tiles(same(5, 5), side=5)


@pytest.mark.parametrize("size", [(2, 3), (2, 2)])
def test_transposed_convolution(size):
    """Against XLA's, cropped: the middle columns of three, the first rows and columns of two."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*size, 5, 2)), jnp.float32)
    full = jax.lax.conv_transpose(
        x,
        kernel[::-1, ::-1],
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        transpose_kernel=False,
    )
    # correlation of the dilated input with the flipped kernel is the scatter out[2i+a, 2j+b] +=
    # x[i, j] kernel[a, b]
    crop = (size[1] - 1) // 2
    np.testing.assert_allclose(
        convolve_transposed(x, kernel, crop=crop),
        full[:, :6, crop : crop + 8],
        rtol=1e-5,
        atol=1e-5,
    )


def convolution_by_xla(x, kernel, *, padding):
    flat = x.reshape(-1, *x.shape[-3:])
    out = jax.lax.conv_general_dilated(
        flat, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return out.reshape(*x.shape[:-3], *out.shape[1:])


FORMS = {
    "product to more features": (product, jnp.matmul, (3, 5)),
    "product to fewer features": (product, jnp.matmul, (5, 3)),
    "tiles": (
        convolve_tiles,
        functools.partial(convolution_by_xla, padding=same(3, 3)),
        (3, 3, 8, 9),
    ),
    **{
        f"convolution {padding}": (
            functools.partial(convolve, padding=padding),
            functools.partial(convolution_by_xla, padding=padding),
            (*(sum(pair) + 1 for pair in padding), 8, 9),
        )
        for padding in [((1, 1), (1, 1)), ((1, 0), (2, 1))]
    },
}


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_xla(name):
    """Values, both gradients, forward mode, mixed derivatives, and all under vmap."""
    rng = np.random.default_rng(0)
    ours, xla, shape = FORMS[name]
    x = jnp.asarray(rng.normal(size=(3, 2, 5, 4, shape[-2])), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=shape), jnp.float32)
    primitive = "likejax_tile_convolution" if name == "tiles" else "likejax_product"
    assert primitive in str(jax.make_jaxpr(ours)(x, kernel))

    def total(form):
        return lambda x, kernel: jnp.sum(jnp.sin(0.01 * form(x, kernel)))

    def over_batch(form):
        return lambda x, kernel: jax.vmap(total(form), in_axes=(0, None))(x, kernel).sum()

    def per_example(form):
        return jax.vmap(jax.grad(total(form), (0, 1)), in_axes=(0, None))

    def forward(form):
        return lambda x, kernel: jax.jvp(form, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))

    def twice(form):
        gradient = jax.grad(total(form), (0, 1))
        return lambda x, kernel: jax.jvp(gradient, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))

    def kernels(form):
        return lambda x, kernel: jax.vmap(form, in_axes=(None, 0))(x, jnp.stack([kernel, -kernel]))

    queries = [
        lambda form: jax.grad(total(form), (0, 1)),
        lambda form: jax.grad(over_batch(form), (0, 1)),
        per_example,
        forward,
        twice,
        kernels,
    ]
    for query in queries:
        found, expected = (jax.jit(query(form))(x, kernel) for form in (ours, xla))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))

"""Convolutions and products of likejax against XLA's own on CPU, inside whole networks.

    python benchmarks/convolutions.py [glow/fashion_mnist-small:64 hvae/fashion_mnist-small:64 ...]

Each argument is a preset and a batch size. ``log_prob`` and the gradient of its mean are timed
against the same network with XLA's convolutions in place of matrix products, against that with the
gradient by weights that JAX writes for matrix products, and against that without tiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
from first_steps import examples_of
from jaxtyping import Array
from side_by_side import compare

import likejax as lj
from likejax.nn import convolution

PRESETS = (
    "pixelcnn/fashion_mnist-small:16",
    "hvae/fashion_mnist-small:64",
    "hvae/fashion_mnist:16",
    "glow/fashion_mnist-small:64",
    "vdm/fashion_mnist-small:32",
)


def main() -> None:
    """Compiles the forms of each preset, and times them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET:BATCH")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    lj.memory.keep_freed()
    print(f"jax {jax.__version__}, {jax.default_backend()}")
    for text in options.presets:
        name, size = text.split(":")
        print(f"{name}, batch {size}", flush=True)
        density = lj.build(lj.preset(name).model, key=0)
        x = examples_of(density, int(size))
        density = density.initialize(x, jax.random.key(0))
        for query in (mean_log_prob, gradient):
            ours = compiled(query, density, x)
            for rival, patch in RIVALS.items():
                with patch():
                    theirs = compiled(query, density, x)
                sides = {"likejax": ours, rival: theirs}
                compare(f"  {query.__name__.replace('_', ' ')}", sides, options.rounds)


def convolve_by_xla(x: Array, kernel: Array, padding: convolution.Padding, stride: int) -> Array:
    """XLA's convolution in place of matrix products."""
    return convolution._convolve_by_xla(x, kernel, padding, stride)


def multiply_by_xla(x: Array, weights: Array) -> Array:
    """JAX's matrix product, with its own gradients."""
    return jnp.tensordot(x, weights, 1, precision=convolution.PRECISION)


RIVALS = {
    "XLA's convolutions": lambda: mock.patch.object(
        convolution, "_convolve_by_products", convolve_by_xla
    ),
    "no tiles": lambda: mock.patch.object(convolution, "_may_see_a_tile", return_value=False),
    "JAX's products": lambda: mock.patch.object(convolution, "product", multiply_by_xla),
}


def mean_log_prob(density: lj.Density, x: Array) -> Array:
    """The mean of ``log_prob``, with the same draws for every form."""
    return density.terms(x, key=lj.example_keys(0, range(len(x)))).log_prob.mean()


def gradient(density: lj.Density, x: Array) -> lj.Density:
    """Its gradient by the density's parameters."""
    return jax.grad(mean_log_prob, allow_int=True)(density, x)


def compiled(query: Callable, density: lj.Density, x: Array) -> Callable[[], object]:
    """A program of the query that runs to its end."""
    jax.clear_caches()  # traces of the other forms
    program = jax.jit(query).lower(density, x).compile()
    return lambda: jax.block_until_ready(program(density, x))


if __name__ == "__main__":
    main()

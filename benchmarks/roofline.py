"""Achieved rates of arithmetic of training gradients and ``log_prob``, as shares of this machine's.

    python benchmarks/roofline.py [PRESET:BATCH ...] [--rounds 7]

The rate of the machine is that of a large matrix product in float32, measured in the same run.
Operations are those of products and convolutions alone, two for a multiplication with its addition.
They are counted as they are done, in the program as JAX traced it: fewer than those of plain
convolutions where these go by tiles, and those of loops as often as they run. Loops whose
length is found while they run, as those of FFJORD, cannot be counted; a preset with one is refused.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from first_steps import examples_of
from flax import nnx
from jax.extend.core import jaxprs_in_params
from side_by_side import timed

import likejax as lj
from likejax.nn import tile_convolution

PRESETS = (
    "glow/fashion_mnist-small:16",
    "glow/cifar10:8",
    "pixelcnn/fashion_mnist-small:16",
    "pixelcnn/cifar10:2",
    "hvae/fashion_mnist-small:64",
    "hvae/fashion_mnist:16",
    "vdm/fashion_mnist-small:16",
    "nsf/power:512",
    "maf/power:512",
)


def rate_of_machine(rounds: int, size: int = 2048) -> float:
    """Operations a second of a square matrix product in float32, the median of the rounds."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / seconds_of(lambda: product(x, x), rounds)


def seconds_of(work: Callable[[], Any], rounds: int) -> float:
    """Median time after two untimed calls."""
    run = lambda: jax.block_until_ready(work())  # noqa: E731
    run()
    run()
    return statistics.median(timed(run) for _ in range(rounds))


def operations(jaxpr: Any) -> int:
    """Operations of the products and convolutions in a traced program.

    Raises:
      ValueError: If a loop has no fixed length.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "while":
            raise ValueError("the length of a loop is found while it runs: it cannot be counted")
        if name in ("dot_general", "likejax_product"):
            total += operations_of_product(equation)
        elif name == "likejax_tile_convolution":
            inputs = [variable.aval for variable in equation.invars]
            total += operations(jax.make_jaxpr(tile_convolution._by_transforms)(*inputs).jaxpr)
        elif name == "conv_general_dilated":
            kernel, features = equation.invars[1].aval, params["dimension_numbers"].rhs_spec[0]
            total += 2 * equation.outvars[0].aval.size * kernel.size // kernel.shape[features]
        elif name == "cond":
            total += max(operations(branch.jaxpr) for branch in params["branches"])
        else:
            inner = sum(operations(each) for each in jaxprs_in_params(params))
            total += inner * params.get("length", 1)
    return total


def operations_of_product(equation: Any) -> int:
    """Two for each entry of the output and each summed index."""
    left = equation.invars[0].aval.shape
    if equation.primitive.name == "likejax_product":
        summed = left[-1]
    else:
        (axes, _), _ = equation.params["dimension_numbers"]
        summed = math.prod(left[axis] for axis in axes)
    return 2 * equation.outvars[0].aval.size * summed


def measure(preset: str, size: int, rounds: int, machine: float) -> None:
    """Prints a line for the gradient and one for ``log_prob``."""
    density = lj.build(lj.preset(preset).model, key=0)
    x = examples_of(density, size)
    graph, params, rest = nnx.split(density.initialize(x, jax.random.key(0)), nnx.Param, ...)

    def log_prob(params: Any, rest: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, rest).terms(x, key=jax.random.key(1)).log_prob.mean()

    for name, program in (("gradient", jax.grad(log_prob)), ("log_prob", log_prob)):
        counted = operations(jax.make_jaxpr(program)(params, rest, x).jaxpr)
        compiled = jax.jit(program).lower(params, rest, x).compile()
        seconds = seconds_of(lambda run=compiled: run(params, rest, x), rounds)
        peak = compiled.memory_analysis().temp_size_in_bytes / 1e6
        print(
            f"{preset + ':' + str(size):34} {name:9} {counted / 1e9:8.2f} GFLOP "
            f"{1e3 * seconds:8.1f} ms {counted / seconds / 1e9:7.1f} GFLOP/s "
            f"share {counted / seconds / machine:.2f}   temporary memory {peak:7.1f} MB",
            flush=True,
        )


def main() -> None:
    """Measures the machine, then every preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET:BATCH")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    lj.memory.keep_freed()
    machine = rate_of_machine(arguments.rounds)
    device = jax.devices()[0].device_kind
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {device}")
    print(f"matrix products of 2048 x 2048: {machine / 1e9:.1f} GFLOP/s")
    for text in arguments.presets:
        preset, size = text.split(":")
        measure(preset, int(size), arguments.rounds, machine)


if __name__ == "__main__":
    main()

"""Repeated blocks as a scan against blocks one by one: the two forms of ``likejax.nn.repeat``.

    python benchmarks/scan.py [glow/fashion_mnist-small:16 maf/power:512 ...]

Each argument is a preset and a batch size. For ``log_prob`` and the gradient of its mean, the
seconds of compiling and the times of both forms are printed, the latter in turn with their ratio.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
from first_steps import examples_of
from flax import nnx
from side_by_side import compare, timed

import likejax as lj
from likejax.nn.repeat import stack, unstack

PRESETS = (
    "glow/digits:64",
    "glow/fashion_mnist-small:16",
    "vector_glow/moons:256",
    "maf/miniboone:128",
    "nsf/miniboone:128",
    "nsf/power:512",
    "pixelcnn/fashion_mnist-small:16",
)
FORMS = {"scan": stack, "one by one": unstack}


def main() -> None:
    """Compiles both forms of each preset, and times them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET:BATCH")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    for text in options.presets:
        name, size = text.split(":")
        print(f"{name}, batch {size}", flush=True)
        compare_forms(lj.build(lj.preset(name).model, key=0), int(size), options.rounds)


def compare_forms(density: lj.Density, size: int, rounds: int) -> None:
    """Prints the costs of both forms of one density."""
    x = examples_of(density, size)
    density = density.initialize(x, jax.random.key(0))
    for query, program in {"log_prob": mean_log_prob, "gradient": gradient}.items():
        sides, compiling = {}, []
        for form, convert in FORMS.items():
            run = compiled(program, convert(density), x)
            compiling.append(f"{form} {timed(run):.1f} s")
            sides[form] = run
        print(f"{query:14} compiles in: {'   '.join(compiling)}", flush=True)
        compare(query, sides, rounds)


def mean_log_prob(params: Any, rest: Any, x: jax.Array, *, graph: Any) -> jax.Array:
    """The mean log-probability of a batch by a density in parts."""
    density = nnx.merge(graph, params, rest)
    return density.log_prob(x, key=jax.random.key(1)).mean()


def gradient(params: Any, rest: Any, x: jax.Array, *, graph: Any) -> Any:
    """The gradient of the mean by the parameters."""
    return jax.grad(functools.partial(mean_log_prob, graph=graph))(params, rest, x)


def compiled(program: Callable[..., Any], density: lj.Density, x: Any) -> Any:
    """A function without arguments that runs the program; its first call compiles."""
    graph, params, rest = nnx.split(density, nnx.Param, ...)
    run = jax.jit(functools.partial(program, graph=graph))
    return lambda: jax.block_until_ready(run(params, rest, x))


if __name__ == "__main__":
    main()

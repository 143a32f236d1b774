"""Repeated blocks in the forms of ``likejax.nn.repeat``: a scan, one by one, calls of one program.

    python benchmarks/scan.py [glow/fashion_mnist-small:16 maf/power:512 ...] [--rounds 10]

Each argument is a preset and a batch size. For ``log_prob`` and the gradient of its mean, the
seconds of tracing and compiling every form, the temporary memory of its program and its times are
printed, the latter in turn with their ratio. Blocks are calls only where they are many.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
from first_steps import examples_of
from flax import nnx
from side_by_side import compare

import likejax as lj
from likejax.nn.calls import written_out
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
FORMS = {
    "scan": (stack, contextlib.nullcontext),
    "one by one": (unstack, written_out),
    "calls": (unstack, contextlib.nullcontext),
}
"""How the density is changed, and in what context it is traced."""


def main() -> None:
    """Compiles all forms of each preset, and times them."""
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
    """Prints the costs of all forms of one density."""
    lj.memory.keep_freed()
    x = examples_of(density, size)
    density = density.initialize(x, jax.random.key(0))
    for query, program in {"log_prob": mean_log_prob, "gradient": gradient}.items():
        sides = {}
        for form, (convert, context) in FORMS.items():
            jax.clear_caches()  # which do not know the context
            with context():
                sides[form] = compiled(program, convert(density), x, f"{query:9} {form:11}")
        compare(query, sides, rounds)


def mean_log_prob(params: Any, rest: Any, x: jax.Array, *, graph: Any) -> jax.Array:
    """The mean log-probability of a batch by a density in parts."""
    density = nnx.merge(graph, params, rest)
    return density.log_prob(x, key=jax.random.key(1)).mean()


def gradient(params: Any, rest: Any, x: jax.Array, *, graph: Any) -> Any:
    """The gradient of the mean by the parameters."""
    return jax.grad(functools.partial(mean_log_prob, graph=graph))(params, rest, x)


def compiled(program: Callable[..., Any], density: lj.Density, x: Any, title: str) -> Any:
    """A function without arguments that runs the program, whose costs before it are printed."""
    graph, params, rest = nnx.split(density, nnx.Param, ...)
    start = time.perf_counter()
    lowered = jax.jit(functools.partial(program, graph=graph)).lower(params, rest, x)
    traced = time.perf_counter()
    run = lowered.compile()
    done = time.perf_counter()
    megabytes = run.memory_analysis().temp_size_in_bytes / 1e6
    print(
        f"{title} traced in {traced - start:.1f} s, compiled in {done - traced:.1f} s, "
        f"temporary memory {megabytes:.1f} MB",
        flush=True,
    )
    return lambda: jax.block_until_ready(run(params, rest, x))


if __name__ == "__main__":
    main()

"""The largest batch of a training step that fits into a given memory.

    python benchmarks/largest_batch.py [--gigabytes 16] [--presets glow/cifar10 ...]

The gradient of the training loss is compiled for two small batches. Its temporary memory, its
arguments and its results, by the compiler's count, and Adam's two moments grow with the batch along
a line, whose crossing of the limit is the largest batch. The program for that batch is compiled as
well; where it needs more than the line says, smaller batches are tried. Nothing runs, so paper
sizes need no memory.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
from memory import gradient_of

import likejax as lj

SIZES = (16, 32)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("glow/fashion_mnist-small", {}),
    ("glow/fashion_mnist-small", {"reversible": True}),
    ("glow/cifar10", {}),
    ("glow/cifar10", {"reversible": True}),
    ("pixelcnn/fashion_mnist-small", {}),
    ("pixelcnn/cifar10", {}),
    ("hvae/fashion_mnist-small", {}),
    ("hvae/fashion_mnist", {}),
    ("vdm/fashion_mnist-small", {}),
    ("vdm/fashion_mnist-small", {"remat": True}),
    ("ffjord/digits", {}),
    ("ffjord/digits", {"training_solver.adjoint": "continuous"}),
    ("nsf/power", {}),
    ("maf/power", {}),
]
"""Presets, and settings of their models that save memory."""


def bytes_of(config: Any, size: int) -> float:
    """Memory of a step of Adam with a batch of ``size`` examples."""
    program = gradient_of(config, size)
    counted = program.compiled.memory_analysis()
    params = program.arguments[0]
    moments = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return (
        counted.temp_size_in_bytes
        + counted.argument_size_in_bytes
        + counted.output_size_in_bytes
        + moments
    )


def report(title: str, config: Any, limit: float) -> None:
    """Prints the bytes of an example, and the largest batch with the count of its program."""
    small, large = (bytes_of(config, size) for size in SIZES)
    of_example = (large - small) / (SIZES[1] - SIZES[0])
    fixed = small - SIZES[0] * of_example
    batch = int((limit - fixed) // of_example)
    counted = bytes_of(config, batch)
    while counted > 1.01 * limit:
        batch = int(batch * limit / counted)
        counted = bytes_of(config, batch)
    print(
        f"{title:58} fixed {fixed / 1e6:8.1f} MB, an example {of_example / 1e6:7.2f} MB, "
        f"largest batch {batch:8,}, counted {counted / 1e9:.2f} GB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=16.0)
    names = list(dict.fromkeys(name for name, _ in CASES))
    parser.add_argument("--presets", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    for name, changes in CASES:
        if name in options.presets:
            settings = {f"model.{field}": value for field, value in changes.items()}
            title = ", ".join([name, *(f"{field} {value}" for field, value in changes.items())])
            report(title, lj.preset(name).override(settings).model, options.gigabytes * 1e9)


if __name__ == "__main__":
    main()

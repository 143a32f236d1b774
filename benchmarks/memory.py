"""Memory and time of gradients that keep activations against those that compute them anew.

    python benchmarks/memory.py [--batch-size 16 --depths 4 16 64 --rounds 5]

For a Glow of every depth with and without ``reversible``, for a PixelCNN++, a hierarchical VAE and
a diffusion model with and without ``remat``, and for continuous flows with each adjoint of their
solver, the gradient of the training loss is compiled and run. Printed are the size of what JAX
keeps for the backward pass, parameters among it; the temporary memory of the compiled program; the
largest difference of the gradients relative to the largest entry of their array; and the times with
their ratio.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import jax
import numpy as np
from first_steps import examples_of
from flax import nnx
from side_by_side import compare

import likejax as lj
from likejax.nn.repeat import stack

GLOW = "glow/fashion_mnist-small"
WITH_REMAT = ("pixelcnn/fashion_mnist-small", "hvae/fashion_mnist-small", "vdm/fashion_mnist-small")
CONTINUOUS = ("ffjord/moons", "ffjord/digits")
Switch = tuple[str, tuple[Any, Any]]
"""A setting of a model, and the two values that are compared."""


class Program(NamedTuple):
    """A compiled gradient, its arguments, and what JAX keeps between its two passes."""

    compiled: Any
    arguments: tuple[Any, ...]
    kept_megabytes: float

    def run(self) -> Any:
        """Returns the gradient."""
        return jax.block_until_ready(self.compiled(*self.arguments))

    @property
    def megabytes(self) -> float:
        """Temporary memory of a run."""
        return self.compiled.memory_analysis().temp_size_in_bytes / 1e6


def main() -> None:
    """Compares both forms of every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--depths", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--presets", nargs="*", default=WITH_REMAT)
    parser.add_argument("--continuous", nargs="*", default=CONTINUOUS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for depth in options.depths:
        title = f"{GLOW}, depth {depth}"
        compare_forms(title, GLOW, {"depth": depth}, ("reversible", (False, True)), options)
    for name in options.presets:
        compare_forms(name, name, {}, ("remat", (False, True)), options)
    for name in options.continuous:
        adjoints = ("training_solver.adjoint", ("checkpointed", "continuous"))
        compare_forms(name, name, {}, adjoints, options)


def compare_forms(
    title: str, name: str, changes: dict[str, Any], switch: Switch, options: argparse.Namespace
) -> None:
    """Prints the costs of a preset's gradient with both values of one of its switches."""
    programs = {}
    field, values = switch
    for value in values:
        model = {f"model.{key}": each for key, each in (changes | {field: value}).items()}
        config = lj.preset(name).override(model)
        programs[f"{field.split('.')[-1]} {value}"] = gradient_of(config.model, options.batch_size)
    print(f"{title}, batch {options.batch_size}")
    for form, each in programs.items():
        print(
            f"  {form:20} kept {each.kept_megabytes:8.1f} MB, temporary {each.megabytes:8.1f} MB",
            flush=True,
        )
    kept, recomputed = (each.run() for each in programs.values())
    print(f"  largest relative difference of the gradients {difference(kept, recomputed):.1e}")
    compare("  time", {form: each.run for form, each in programs.items()}, options.rounds)


def gradient_of(config: Any, size: int) -> Program:
    """The compiled gradient of the mean loss of a batch, the repeated blocks in loops."""
    density = lj.build(config, key=0)
    x = examples_of(density, size)
    graph, params, rest = nnx.split(stack(density), nnx.Param, ...)

    def loss(params: Any, rest: Any, x: jax.Array) -> jax.Array:
        terms = nnx.merge(graph, params, rest).terms(x, key=jax.random.key(1))
        return -terms.log_prob.mean()

    arguments = (params, rest, x)
    kept = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(p, rest, x), params)[1], params)
    kept_bytes = sum(leaf.size * _entry_bytes(leaf) for leaf in jax.tree.leaves(kept))
    compiled = jax.jit(jax.grad(loss)).lower(*arguments).compile()
    return Program(compiled, arguments, kept_bytes / 1e6)


def _entry_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    """Bytes of an entry; those of a key are two words."""
    return 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize


def difference(first: Any, second: Any) -> float:
    """The largest difference of two gradients, relative to the largest entry of its array."""
    largest = 0.0
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        scale = float(np.abs(a).max())
        if scale:
            largest = max(largest, float(np.abs(np.subtract(a, b)).max()) / scale)
    return largest


if __name__ == "__main__":
    main()

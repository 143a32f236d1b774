"""Seconds to trace and to compile a training step of a Glow of few and of many steps of flow.

    python benchmarks/depth.py [--preset glow/cifar10] [--depths 2 32] [--rounds 3]

The steps of one scale are one compiled step of flow in a loop, so the time should not grow with
their number. Nothing is computed: weights are shapes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from side_by_side import timed

import likejax as lj
from likejax.nn.state import merge, split


def seconds_of(preset: str, depth: int, batch: int) -> tuple[float, float]:
    """Seconds of tracing and of compiling one step of the preset at a depth."""
    model = lj.preset(preset).model
    assert isinstance(model, lj.models.GlowConfig)
    config = dataclasses.replace(model, depth=depth)
    density = jax.eval_shape(lambda: lj.build(config, key=0))
    structure, params, fixed = split(density)
    rule = optax.adamax(1e-3)

    def step(params, state, fixed, x, key):
        def loss(params):
            return -merge(structure, params, fixed).terms(x, key=key).log_prob.mean()

        updates, state = rule.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    x = jax.ShapeDtypeStruct((batch, *config.event_shape), jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(rule.init, params)
    traced = []
    tracing = timed(lambda: traced.append(jax.jit(step).lower(params, state, fixed, x, key)))
    return tracing, timed(traced[0].compile)


def main() -> None:
    """Prints medians of alternating rounds, and the ratio of their sums to that of the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="glow/cifar10")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 32])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    seconds_of(arguments.preset, 1, arguments.batch)  # what every first program costs
    rounds = [
        [seconds_of(arguments.preset, depth, arguments.batch) for depth in arguments.depths]
        for _ in range(arguments.rounds)
    ]
    sums = np.asarray(rounds).sum(-1)
    for column, depth in enumerate(arguments.depths):
        tracing, compiling = (
            statistics.median(each[column][part] for each in rounds) for part in (0, 1)
        )
        ratio = statistics.median(sums[:, column] / sums[:, 0])
        print(
            f"depth {depth:3}: traced in {tracing:.1f} s, compiled in {compiling:.1f} s, "
            f"ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()

"""Sides timed in one run, alternating, as ratios to the first."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

jax.config.update("jax_enable_compilation_cache", False)  # first calls are those of a first start


def put_torch_on_gpu() -> None:
    """Makes PyTorch put tensors on the GPU, where there is one, as JAX does by itself."""
    import torch

    if torch.cuda.is_available():
        torch.set_default_device("cuda")


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes, until a GPU has done it."""
    start = time.perf_counter()
    work()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(
    what: str, sides: dict[str, Callable[[], object]], rounds: int, *, in_a_row: int = 5
) -> None:
    """Prints seconds of the first calls, medians, and ratios of the others' times to the first's.

    A first call compiles where a side does. Two rounds warm up. In a round each side works once
    untimed and then ``in_a_row`` times, as in a training loop, of which the mean counts.
    """
    firsts = {name: timed(work) for name, work in sides.items()}
    print(f"{what:14} first call: {', '.join(f'{n} {s:.2f} s' for n, s in firsts.items())}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 2):
        for name, work in sides.items():
            time.sleep(0.3)  # until the other side's threads no longer spin
            timed(work)  # until caches and threads are those of this side
            elapsed = timed(lambda work=work: [work() for _ in range(in_a_row)]) / in_a_row
            if number >= 2:
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first, *others = times
    for other in others:
        ratios = np.divide(times[other], times[first])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        shown = "   ".join(f"{name} {1e3 * medians[name]:8.1f} ms" for name in (first, other))
        spread = f"(quartiles {low:.2f}-{high:.2f})"
        print(f"{what:14} {shown}   ratio {middle:.2f} {spread}", flush=True)

"""Sides timed in one run, alternating, as ratios to the first."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import jax
import numpy as np
from speed_record import Other, Timing

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


def in_own_process(make: Callable[..., tuple], *arguments: Any, **options: Any) -> tuple:
    """Has a side work in a process of its own, as in a program of its users.

    The ``lj.memory.keep_freed()`` of this process does not reach it.

    Args:
      make: Makes the side, a tuple of functions and numbers. The process finds it by its name.
      *arguments: What it is made of.
      **options: What it is made of, by names.

    Returns:
      The tuple, whose functions wait until the process has worked, and return numbers alone.
    """
    here, there = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    serve = spawn.Process(target=_serve, args=(there, make, arguments, options), daemon=True)
    serve.start()

    def function(index: int) -> Callable[..., float | None]:
        def work(*inputs: Any) -> float | None:
            here.send((index, inputs))
            return here.recv()

        return work

    numbers = here.recv()
    return tuple(function(i) if number is None else number for i, number in enumerate(numbers))


def _serve(there: Connection, make: Callable[..., tuple], arguments: tuple, options: dict) -> None:
    """Makes a side, tells its numbers, and works whenever one of its functions is asked for."""
    put_torch_on_gpu()
    side = make(*arguments, **options)
    there.send([None if callable(each) else each for each in side])
    while True:
        try:
            index, inputs = there.recv()
        except EOFError:  # the benchmark is done
            return
        result = side[index](*inputs)
        timed(lambda: None)  # until a GPU has done it
        there.send(result if isinstance(result, float) else None)


def compare(
    what: str, sides: dict[str, Callable[[], object]], rounds: int, *, in_a_row: int = 5
) -> Timing:
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
    in_words = f"{rounds} alternating rounds of {in_a_row}"
    timing = Timing(medians[first], firsts[first], in_words, {})
    for other in others:
        ratios = np.divide(times[other], times[first])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
        timing.others[other] = Other(medians[other], firsts[other], middle, (low, high))
        shown = "   ".join(f"{name} {1e3 * medians[name]:8.1f} ms" for name in (first, other))
        spread = f"(quartiles {low:.2f}-{high:.2f})"
        print(f"{what:14} {shown}   ratio {middle:.2f} {spread}", flush=True)
    return timing

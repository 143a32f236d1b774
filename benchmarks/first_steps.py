"""Seconds to the first numbers of every small preset, without a compile cache and with one.

    python benchmarks/first_steps.py [--tree PATH] [--presets NAME ...] [--rounds 1]

Each preset is built, initialized, asked for a ``log_prob``, for one of another, odd batch size, and
for samples in one fresh process, and trained for one step by ``lj.fit`` in another. Wall and
processor seconds are printed. With ``--tree``, another checkout of likejax does the same in turn, and
a third line has this tree's share of its time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SMALL = (
    "glow/digits",
    "glow/fashion_mnist-small",
    "pixelcnn/fashion_mnist-small",
    "hvae/fashion_mnist-small",
    "ffjord/moons",
    "ffjord/digits",
    "vector_glow/moons",
)
BATCH = 8
ODD_BATCH = 7
QUERIES = ("build", "initialize", "log_prob", "odd batch", "sample")
STAGES = (*QUERIES, "train")
Seconds = dict[str, tuple[float, float]]
"""Wall and processor seconds of each stage."""


def timed(work: Callable[[], object]) -> tuple[object, tuple[float, float]]:
    """The computed result of ``work``, and the wall and processor seconds that it took."""
    import jax

    wall, processor = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(work())
    return result, (time.perf_counter() - wall, time.process_time() - processor)


def examples_of(density, count: int):
    """Random examples of the kind that a density takes."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (count, *density.event_shape)
    if density.levels is None:
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, density.levels, shape).astype(np.min_scalar_type(density.levels - 1))


def time_queries(preset: str) -> Seconds:
    """Builds, initializes, scores and samples in this process."""
    import jax

    import likejax as lj

    config = lj.preset(preset).model
    keys = jax.block_until_ready(jax.random.split(jax.random.key(0), 4))
    seconds: Seconds = {}
    density, seconds["build"] = timed(lambda: lj.build(config, key=keys[0]))
    x = examples_of(density, 256)
    initialize = getattr(density, "initialize", None) or density.initialise  # before 0.7
    density, seconds["initialize"] = timed(lambda: initialize(x, keys[1]))
    for stage, count in (("log_prob", BATCH), ("odd batch", ODD_BATCH)):
        _, seconds[stage] = timed(lambda n=count: density.log_prob(x[:n], key=keys[2]))
    _, seconds["sample"] = timed(lambda: density.sample(keys[3], BATCH))
    return seconds


def time_training(preset: str) -> Seconds:
    """Trains one step in this process: build and initialization are in it."""
    import dataclasses

    import jax
    import numpy as np

    import likejax as lj

    experiment = dataclasses.replace(lj.preset(preset), steps=1)
    density = jax.eval_shape(lambda: lj.build(experiment.model, key=jax.random.key(0)))
    x = examples_of(density, 512)
    if density.levels == 2:  # the experiment binarizes gray images itself
        x = np.where(x > 0, 255, 0).astype(np.uint8)
    data = lj.Dataset.from_array(x, levels=256 if density.levels == 2 else density.levels)
    _, seconds = timed(lambda: lj.fit(experiment, data, key=0).density.event_shape)
    return {"train": seconds}


def in_fresh_process(tree: Path, part: str, preset: str, cache: str) -> Seconds:
    """The seconds of one part, measured in a process of its own.

    Args:
      tree: Checkout of likejax to measure.
      part: ``queries`` or ``training``.
      preset: Name of the preset.
      cache: Folder of the compile cache, or nothing for none.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree), "LIKEJAX_PROGRESS": "0"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        environment.pop(name, None)
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "1" if cache else "0"
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    command = [sys.executable, __file__, "--child", part, "--presets", preset]
    done = subprocess.run(
        command, env=environment, cwd=cache or tree, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{preset} failed in {tree}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(tree: Path, preset: str, *, rounds: int) -> dict[str, Seconds]:
    """The best seconds of each stage, without a cache and with that of an earlier start."""
    best: dict[str, Seconds] = {"cold": {}, "warm": {}}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for part in ("queries", "training"):
                keep_best(best["cold"], in_fresh_process(tree, part, preset, ""))
                in_fresh_process(tree, part, preset, cache)  # fills the cache
                keep_best(best["warm"], in_fresh_process(tree, part, preset, cache))
    return best


def keep_best(best: Seconds, new: Seconds) -> None:
    """Lowers the seconds in ``best`` to those of ``new``, stage by stage."""
    for stage, (wall, processor) in new.items():
        old_wall, old_processor = best.get(stage, (wall, processor))
        best[stage] = min(wall, old_wall), min(processor, old_processor)


def row(name: str, seconds: Seconds) -> str:
    """A line of the table: wall/processor seconds of each stage and their sums."""
    cells = [seconds[stage] for stage in STAGES]
    cells.append((sum(wall for wall, _ in cells), sum(processor for _, processor in cells)))
    return f"{name:44}" + "".join(f"{wall:7.2f}/{processor:5.1f}" for wall, processor in cells)


def share(ours: Seconds, theirs: Seconds) -> str:
    """A line of the table: our seconds divided by theirs."""
    ratios = {
        stage: (ours[stage][0] / theirs[stage][0], ours[stage][1] / theirs[stage][1])
        for stage in STAGES
    }
    totals = [[sum(each[stage][i] for stage in STAGES) for each in (ours, theirs)] for i in (0, 1)]
    cells = [*ratios.values(), tuple(mine / other for mine, other in totals)]
    return f"{'  share':44}" + "".join(f"{wall:7.2f}/{processor:5.2f}" for wall, processor in cells)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=list(SMALL))
    parser.add_argument("--tree", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=1, help="measurements, of which the best")
    parser.add_argument("--child", choices=["queries", "training"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work = time_queries if arguments.child == "queries" else time_training
        print(json.dumps(work(arguments.presets[0])))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, wall/processor s")
    print(" " * 44 + "".join(f"{stage:>13}" for stage in (*STAGES, "sum")))
    for preset in arguments.presets:
        ours = measure(HERE, preset, rounds=arguments.rounds)
        theirs = measure(arguments.tree, preset, rounds=arguments.rounds) if arguments.tree else {}
        for cache in ("cold", "warm"):
            print(row(f"{preset}, {cache}", ours[cache]), flush=True)
            if theirs:
                print(row(f"  {arguments.tree}", theirs[cache]))
                print(share(ours[cache], theirs[cache]), flush=True)


if __name__ == "__main__":
    main()

"""Seconds from the command to the first step of training, at the first start and at the second.

    python benchmarks/second_start.py [--presets NAME ...] [--data-dir DATA]

The first start finds no compiled programs; the second finds those of the first in the cache of the
command line. A start ends when the first step stands in ``metrics.jsonl``.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = (
    "glow/digits",
    "glow/fashion_mnist-small",
    "pixelcnn/fashion_mnist-small",
    "hvae/fashion_mnist-small",
    "vdm/fashion_mnist-small",
    "nsf/moons",
    "ffjord/moons",
    "ffjord/digits",
)


def seconds_to_the_first_step(preset: str, data_dir: str, cache: Path, workdir: Path) -> float:
    """Starts a training as a user does, and kills it after its first step."""
    arguments = ["--log-every", "1", "--workdir", str(workdir), "--data-dir", data_dir]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "LIKEJAX_PROGRESS": "0"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "likejax", "train", preset, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    log = workdir / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        if process.poll() is not None:
            raise RuntimeError(f"{preset} ended early:\n{process.stderr.read().decode()[-3000:]}")
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    process.kill()
    process.communicate()
    return seconds


def main() -> None:
    """Prints a line for each preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=list(SMALL))
    parser.add_argument("--data-dir", default="data")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    for preset in arguments.presets:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            first, second = (
                seconds_to_the_first_step(
                    preset, arguments.data_dir, place / "cache", place / str(number)
                )
                for number in range(2)
            )
        print(
            f"{preset:30} {first:6.1f} s {second:6.1f} s   share {second / first:.2f}", flush=True
        )


if __name__ == "__main__":
    main()

"""Time that training waits for its batches, as a share of the training loop's.

    python benchmarks/input.py [--preset glow/digits] [--steps 300] [--batch-size 0]

Also prints how fast batches are drawn alone, with the preset's augmentations and with all of them,
for images of 32x32x3 in batches of 512: what a GPU would have to be fed with.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import time

import jax
import numpy as np

import likejax as lj
from likejax.data.batches import DatasetBatches, Position
from likejax.train import sharding
from likejax.train.feed import Feed


def waiting_share(preset: str, steps: int, batch_size: int) -> tuple[float, float]:
    """Seconds a step waits for its batch, and seconds a step takes in all, compilation left out."""
    experiment = lj.preset(preset)
    experiment = dataclasses.replace(
        experiment, steps=steps, log_every=steps, batch_size=batch_size or experiment.batch_size
    )
    train = lj.load(experiment.dataset)
    waits, ends = [], []
    take = Feed.take

    def timed(feed: Feed):
        began = time.perf_counter()
        taken = take(feed)
        ends.append(time.perf_counter())
        waits.append(ends[-1] - began)
        return taken

    Feed.take = timed
    try:
        lj.fit(experiment, train, key=0)
    finally:
        Feed.take = take
    skipped = 20  # the first steps compile
    return float(np.mean(waits[skipped:])), (ends[-1] - ends[skipped - 1]) / (len(ends) - skipped)


def drawing_speed(augment: tuple[str, ...], *, batch_size: int = 512, batches: int = 40) -> float:
    """Examples a second that one thread draws, augments and puts on the device."""
    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    stream = DatasetBatches(
        lj.Dataset.from_array(images), batch_size, position=Position(0, 0, 0), augment=augment
    )
    mesh = sharding.device_mesh()
    began = time.perf_counter()
    for _ in range(batches):
        jax.block_until_ready(sharding.put_batch(next(stream), mesh).x)
    return batch_size * batches / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="glow/digits")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=0, help="the preset's if 0")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}, {jax.devices()}")
    wait, step = waiting_share(arguments.preset, arguments.steps, arguments.batch_size)
    print(
        f"{arguments.preset}: waits {1e3 * wait:.3f} ms of {1e3 * step:.1f} ms a step, "
        f"{wait / step:.2%}"
    )
    for augment in ((), ("flip",), ("flip", "shift"), ("mutate:0.2",)):
        rate = drawing_speed(augment)
        print(
            f"32x32x3, batches of 512, augment {', '.join(augment) or 'nothing'}: "
            f"{rate:,.0f} examples/s"
        )


if __name__ == "__main__":
    main()

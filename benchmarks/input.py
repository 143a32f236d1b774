"""How long training waits for its batches, and how many examples a second it needs and can have.

    python benchmarks/input.py [PRESET ...] [--steps 200] [--record]

For each preset, by default a small one of every family, it trains some steps, of which the first
20 compile and do not count. The examples that a step needs are those of a batch over the time of a
step; those that one thread can draw are timed alone, with the preset's augmentations. It also
prints that for images of 32x32x3 in batches of 512: what a GPU would have to be fed with.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import speed_record

import likejax as lj
from likejax.data.batches import DatasetBatches, Position
from likejax.train import sharding
from likejax.train.feed import Feed

PRESETS = (
    "glow/digits",
    "pixelcnn/digits",
    "hvae/digits",
    "ffjord/digits",
    "vdm/digits",
    "nsf/moons",
    "maf/moons",
    "vector_glow/moons",
)
COMPILES = 20
"""Steps at the beginning that do not count."""
ENOUGH_SECONDS = 0.5
"""Time for which batches are drawn alone."""


class Waiting(NamedTuple):
    """Times of the steps of a training.

    Attributes:
      batch_size: Examples of a step.
      step: Mean seconds from one step to the next.
      waits: Seconds that every step waited for its batch.
      drawn: Examples a second that one thread draws.
    """

    batch_size: int
    step: float
    waits: np.ndarray
    drawn: float

    @property
    def needed(self) -> float:
        """Examples a second that the steps take."""
        return self.batch_size / self.step

    @property
    def wait(self) -> float:
        """Mean seconds that a step waited."""
        return float(self.waits.mean())

    @property
    def error(self) -> float:
        """Standard error of ``wait``."""
        return float(self.waits.std(ddof=1) / math.sqrt(len(self.waits)))


def waiting(preset: str, steps: int) -> Waiting:
    """Returns the times of a preset's training."""
    experiment = lj.preset(preset)
    experiment = dataclasses.replace(experiment, steps=steps, log_every=steps)
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
    step = (ends[-1] - ends[COMPILES - 1]) / (len(ends) - COMPILES)
    drawn = drawing_speed(train, experiment.batch_size, experiment.augment)
    return Waiting(experiment.batch_size, step, np.array(waits[COMPILES:]), drawn)


def drawing_speed(data: lj.Dataset, batch_size: int, augment: tuple[str, ...]) -> float:
    """Examples a second that one thread draws, augments and puts on the device."""
    stream = DatasetBatches(data, batch_size, position=Position(0, 0, 0), augment=augment)
    mesh = sharding.device_mesh()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < ENOUGH_SECONDS:
        jax.block_until_ready(sharding.put_batch(next(stream), mesh).x)
        count += batch_size
    return count / (time.perf_counter() - began)


def row(preset: str, found: Waiting) -> dict[str, Any]:
    """Returns the row of a preset in the record."""
    return {
        "preset": f"`{preset}`",
        "batch": found.batch_size,
        "step": {"value": round(1e3 * found.step, 2), "unit": "ms"},
        "wait for a batch": {
            "value": round(1e3 * found.wait, 3),
            "error": round(1e3 * found.error, 3),
            "unit": "ms",
            "digits": 3,
        },
        "examples/s needed": round(found.needed),
        "examples/s drawn": round(found.drawn),
    }


def keep(rows: list[dict[str, Any]]) -> None:
    """Writes the rows into the record."""
    path = speed_record.RESULTS / "input_speed.json"
    record = json.loads(path.read_text())
    record |= {
        "command": speed_record.command(),
        "likejax": lj.__version__,
        "software": ", ".join(speed_record.versions(record["software"])),
        "hardware": speed_record.hardware(),
        "wall_time": speed_record.in_words(round(speed_record.seconds_so_far())),
        "rows": rows,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET")
    parser.add_argument("--steps", type=int, default=200)
    speed_record.add_option(parser)
    arguments = parser.parse_args()
    if arguments.steps < COMPILES + 2:
        parser.error(f"expected --steps of at least {COMPILES + 2}, got {arguments.steps}")
    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}, {jax.devices()}")
    rows = []
    for preset in arguments.presets:
        found = waiting(preset, arguments.steps)
        rows.append(row(preset, found))
        print(
            f"{preset}: waits {1e3 * found.wait:.3f} ± {1e3 * found.error:.3f} ms of "
            f"{1e3 * found.step:.2f} ms a step; needs {found.needed:,.0f} examples/s, "
            f"{found.drawn:,.0f} can be drawn"
        )
    if arguments.record:
        keep(rows)
    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    data = lj.Dataset.from_array(images)
    for augment in ((), ("flip",), ("flip", "shift"), ("mutate:0.2",)):
        rate = drawing_speed(data, 512, augment)
        print(
            f"32x32x3, batches of 512, augment {', '.join(augment) or 'nothing'}: "
            f"{rate:,.0f} examples/s"
        )


if __name__ == "__main__":
    main()

"""Peak memory of a training step and a ``log_prob``, in likejax and in the libraries beside it.

    python benchmarks/peak_memory.py [--networks glow vdm/moons ...] [--record]

The networks, batches and libraries are those whose times are recorded. Each side works in a process
of its own, where the C library gives arrays back to the system as soon as they are freed. A call's
memory is the peak of the resident set while it works above the resident set just before it. So it
has activations and gradients in it, and for a first call what compiling takes, and what stays from
then on, such as the moments of Adam; weights, which every side holds before, are not in it.
Optimizers of PyTorch drop their gradients at the end of a step, since those of JAX live no longer.
Numbers of later calls are medians of three. It works on Linux, on CPU, and needs no quiet machine.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ffjord
import glow
import nsf
import numpy as np
import pixelcnn
import speed_record
import torch
import vae
import vdm
from bound_sides import our_side
from torch.optim.optimizer import register_optimizer_step_post_hook

import likejax as lj

CALLS = 3
THREADS = 2
RECORD = speed_record.RESULTS / "peak_memory.json"
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""What makes the GNU C library give arrays of 64 KiB and more back when they are freed."""
SMALL_TABLE = ("dimensions=43", "width=512")
LARGE_TEXT = ("length=256", "width=384", "heads=6", "blocks=16")

Work = Callable[[], object]
Programs = dict[str, Work]
"""A training step and a ``log_prob``, by their titles."""


class Case(NamedTuple):
    """A network, and what makes the programs of each side, likejax first."""

    title: str
    sides: dict[str, Callable[[], Programs]]


class Needed(NamedTuple):
    """Megabytes that the first call of a program takes, and later ones."""

    first: float
    later: float


def cases() -> Iterator[Case]:
    """All networks with recorded times."""
    for preset, batch in (("glow/fashion_mnist-small", 16), ("glow/cifar10", 8)):
        yield of_images(preset, batch, glow.ours, glow.theirs)
    for preset, batch in (("pixelcnn/fashion_mnist-small", 16), ("pixelcnn/cifar10", 2)):
        yield of_images(preset, batch, pixelcnn.ours, pixelcnn.theirs)
    for hidden, dimensions, batch in (((64, 64, 64), 2, 100), ((860, 860), 43, 64)):
        yield of_continuous_flow(hidden, dimensions, batch)
    for preset, batch in (("hvae/fashion_mnist-small", 64), ("hvae/fashion_mnist", 16)):
        yield of_vae(preset, batch)
    for preset, changes, batch in (
        ("vdm/fashion_mnist-small", (), 32),
        ("vdm/cifar10", (), 1),
        ("vdm/moons", (), 256),
        ("vdm/moons", SMALL_TABLE, 256),
        ("vdm/tinyshakespeare", (), 32),
        ("vdm/tinyshakespeare", LARGE_TEXT, 2),
    ):
        yield of_diffusion(preset, changes, batch)
    for form in nsf.FORMS:
        yield of_vector_flow(form, 512)


def random_images(config: Any, batch: int) -> np.ndarray:
    levels = getattr(config, "levels", 2)
    shape = (batch, *config.event_shape)
    return np.random.default_rng(0).integers(0, levels, shape).astype(np.uint8)


def of_images(preset: str, batch: int, ours: Callable, theirs: Callable) -> Case:
    config = lj.preset(preset).model
    x = random_images(config, batch)
    sides = {
        "likejax": lambda: titled(ours(config, x), "`log_prob`"),
        "PyTorch": lambda: titled(theirs(config, x), "`log_prob`"),
    }
    return Case(f"`{preset}`, batch {batch}", sides)


def of_vae(preset: str, batch: int) -> Case:
    config = lj.preset(preset).model
    x = random_images(config, batch)
    sides = {
        "likejax": lambda: titled(our_side(vae.build(config, x), x, 3e-4), "bound"),
        "PyTorch": lambda: titled(vae.theirs(config, x, THREADS), "bound"),
    }
    return Case(f"`{preset}`, batch {batch}", sides)


def of_diffusion(preset: str, changes: tuple[str, ...], batch: int) -> Case:
    config = vdm.configured(preset, changes)
    sides = {
        "likejax": lambda: titled(our_side(*vdm.build(config, batch), vdm.RATE), "bound"),
        "PyTorch": lambda: titled(vdm.theirs(config, batch, THREADS), "bound"),
    }
    return Case(f"{vdm.title(preset, changes)}, batch {batch}", sides)


def of_continuous_flow(hidden: tuple[int, ...], dimensions: int, batch: int) -> Case:
    config, x = ffjord.problem(dimensions, hidden, batch)

    def programs(make: Callable[..., ffjord.Side]) -> Programs:
        side = make(config, 1e-3)
        step, score = functools.partial(side.train, x), functools.partial(side.log_prob, x)
        return titled((step, score), "`log_prob`")

    makers = {"likejax": ffjord.ours, "PyTorch": ffjord.theirs}
    sides = {name: functools.partial(programs, make) for name, make in makers.items()}
    return Case(f"FFJORD of {dimensions} columns, batch {batch}", sides)


def of_vector_flow(form: str, batch: int) -> Case:
    makers, config = nsf.FORMS[form]
    x = np.random.default_rng(0).normal(size=(batch, nsf.POWER["dimensions"])).astype(np.float32)

    def programs(make: Callable[..., nsf.Side], *arguments: Any) -> Programs:
        return titled(make(*arguments, x), "`log_prob`")

    others = {name: functools.partial(programs, make) for name, make in makers.items()}
    ours = functools.partial(programs, nsf.ours, config)
    return Case(f"{form}, batch {batch}", {"likejax": ours, **others})


def titled(side: tuple, score: str) -> Programs:
    """The first two programs of a side."""
    return {"training step": side[0], score: side[1]}


# In the process of a side


def measure(make: Callable[[], Programs]) -> dict[str, Needed]:
    """Makes the programs of a side and measures each."""
    torch.set_num_threads(THREADS)
    register_optimizer_step_post_hook(_drop_gradients)
    found = {}
    for title, work in make().items():
        first = megabytes_of(work)
        later = statistics.median(megabytes_of(work) for _ in range(CALLS))
        found[title] = Needed(first, later)
    return found


def _drop_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    optimizer.zero_grad()


def megabytes_of(work: Work) -> float:
    """The peak of the resident set while ``work`` works, above that before it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now the resident set
    before = kilobytes("VmHWM")
    work()
    return (kilobytes("VmHWM") - before) * 1024 / 1e6


def kilobytes(name: str) -> int:
    """A number of the status of this process; a kilobyte is 1,024 bytes there."""
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(found)


# In the process of the benchmark


def in_fresh_process(case: Case, side: str) -> dict[str, Needed]:
    """What the programs of a side need, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", case.title, side]
    settings = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0", **GIVING_BACK}
    environment = {**os.environ, **settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} failed with {case.title}:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {title: Needed(*values) for title, values in found.items()}


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Measures a network; a row for each program and each of the other libraries."""
    found = {side: in_fresh_process(case, side) for side in case.sides}
    ours = found.pop("likejax")
    return [
        row(f"{case.title}: {title}", needed, name, theirs[title])
        for title, needed in ours.items()
        for name, theirs in found.items()
    ]


def row(program: str, ours: Needed, name: str, theirs: Needed) -> dict[str, Any]:
    """A row of the record."""
    label = {"tfp": "TFP"}.get(name, name)
    ratio = theirs.later / ours.later
    print(f"{program:70} {ours.later:8.1f} MB   {label} {theirs.later:8.1f} MB   ratio {ratio:.2f}")
    print(f"{'':70} {ours.first:8.1f} MB   {label} {theirs.first:8.1f} MB at first", flush=True)
    return {
        "program": program,
        "likejax": {"value": round(ours.later, 1), "unit": "MB"},
        "other": {"label": label, "value": round(theirs.later, 1), "unit": "MB"},
        "other / likejax": {"value": round(ratio, 2), "digits": 2},
        "first call": f"{ours.first:.0f} MB / {theirs.first:.0f} MB",
    }


def keep(rows: list[dict[str, Any]], titles: list[str]) -> None:
    """Puts the rows of a network into the record, in the order of the titles."""
    record = json.loads(RECORD.read_text())
    measured = {row["program"] for row in rows}
    rows = [*(row for row in record["rows"] if row["program"] not in measured), *rows]
    record |= {
        "likejax": lj.__version__,
        "software": ", ".join(speed_record.versions(record["software"])),
        "hardware": speed_record.hardware(),
        "rows": sorted(rows, key=lambda row: titles.index(row["program"].rpartition(": ")[0])),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", default=[""], metavar="PART", help="those with a part in the title"
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    speed_record.add_option(parser)
    arguments = parser.parse_args()
    if arguments.child:
        title, side = arguments.child
        (make,) = (case.sides[side] for case in cases() if case.title == title)
        print(json.dumps(measure(make)))
        return
    every = list(cases())
    titles = [case.title for case in every]
    chosen = [case for case in every if any(part in case.title for part in arguments.networks)]
    if not chosen:
        parser.error(f"expected parts of {'; '.join(titles)}, got {' '.join(arguments.networks)}")
    for case in chosen:
        rows = rows_of(case)
        if arguments.record:
            keep(rows, titles)
    print(f"{speed_record.in_words(round(speed_record.seconds_so_far()))} in all")


if __name__ == "__main__":
    main()

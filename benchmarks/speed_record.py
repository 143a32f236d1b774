"""Keeps what a benchmark has timed in the record of its table, beside what other commands timed.

A record of times is made by several commands, of small networks and of large ones, say. ``keep``
puts the rows of one command in the place of its earlier ones and states the machine, the versions,
the rounds and the time anew; titles and remarks stay as a person wrote them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import likejax as lj

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("jax", "torch", "nflows", "normflows", "flowjax", "distrax", "zuko")
OPTION = "--record"
_BEGIN = time.perf_counter()


class Other(NamedTuple):
    """Times of one of the other sides.

    Attributes:
      seconds: Median.
      first: Seconds of its first call.
      ratio: Median over rounds of its time over that of the first side.
      quartiles: The lower and the upper quartile of the ratio.
    """

    seconds: float
    first: float
    ratio: float
    quartiles: tuple[float, float]


class Timing(NamedTuple):
    """Times of the first side, median and first call, and of the others by name.

    Attributes:
      seconds: Median.
      first: Seconds of its first call.
      rounds: Number of rounds and of calls in each, in words.
      others: Times of the other sides.
    """

    seconds: float
    first: float
    rounds: str
    others: dict[str, Other]


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that keeps the times."""
    parser.add_argument(OPTION, action="store_true", help="keep the times in benchmarks/results")


def keep(name: str, timings: Mapping[str, Timing]) -> None:
    """Writes timings into a record that exists.

    Args:
      name: Name of the record.
      timings: What was timed, by the name of its program in the table.
    """
    path = RESULTS / f"{name}.json"
    record = json.loads(path.read_text())
    part = {
        "command": command(),
        "programs": list(timings),
        "rounds": next(iter(timings.values())).rounds,
        "seconds": round(seconds_so_far()),
    }
    parts = with_part(record.get("parts", []), part)
    by_program: dict[str, list[dict[str, Any]]] = {}
    for row in record["rows"]:
        by_program.setdefault(row["program"], []).append(row)
    by_program |= {each: rows_of(each, timing, record) for each, timing in timings.items()}
    programs = [program for each in parts for program in each["programs"]]
    record |= {
        "command": [each["command"] for each in parts],
        "likejax": f"{lj.__version__}, memory kept",
        "software": ", ".join(versions(record["software"])),
        "hardware": hardware(),
        "standard_error": f"quartiles of {', and of '.join(each['rounds'] for each in parts)}",
        "wall_time": ", and ".join(in_words(each["seconds"]) for each in parts),
        "rows": [row for program in programs for row in by_program[program]],
        "parts": parts,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{path} has the times of this run; benchmarks/render.py writes the tables")


def seconds_so_far() -> float:
    """Seconds since the benchmark began, which imports this module at its start."""
    return time.perf_counter() - _BEGIN


def with_part(parts: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a record with a new one, where the first stood that timed one of its programs.

    The others lose those programs, and a part without programs is left out.
    """
    retimed = set(new["programs"])
    found = [i for i, part in enumerate(parts) if retimed & set(part["programs"])]
    place = min(found, default=len(parts))  # no part before it loses a program
    left = [
        part | {"programs": [n for n in part["programs"] if n not in retimed]} for part in parts
    ]
    return [*left[:place], new, *(part for part in left[place:] if part["programs"])]


def command() -> str:
    """The command of this benchmark, as a record states it."""
    arguments = [argument for argument in sys.argv[1:] if argument != OPTION]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])


def rows_of(program: str, timing: Timing, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a program in the columns that the record has: one for each of the others."""
    columns: Sequence[str] = record["columns"]
    rows = []
    for name, other in timing.others.items():
        if "other" not in columns and name not in columns:
            continue  # torch.compile has a table of its own
        cell = {"value": round(1e3 * other.seconds, 1), "unit": "ms"}
        if "other" in columns:
            cell = {"label": {"tfp": "TFP"}.get(name, name), **cell}
        title = "other" if "other" in columns else name
        row = {
            "program": program,
            "likejax": {"value": round(1e3 * timing.seconds, 1), "unit": "ms"},
            title: cell,
            f"{title} / likejax (quartiles)": {
                "value": round(other.ratio, 2),
                "quartiles": [round(each, 2) for each in other.quartiles],
                "digits": 2,
            },
        }
        if "first call" in columns:
            row["first call"] = f"{timing.first:.2f} s / {other.first:.2f} s"
        rows.append(row)
    return rows


def versions(before: str) -> list[str]:
    """The libraries that a record names, with their versions here."""
    named = [each.split()[0] for each in before.split(", ")]
    found = {name: importlib.metadata.version(name) for name in LIBRARIES if name in named}
    kept = [each for each in before.split(", ") if each.split()[0] not in found]
    short = {name: version.split("+")[0] for name, version in found.items()}
    return [*(f"{name} {version}" for name, version in short.items()), *kept]


def hardware() -> str:
    """The processors, and the GPU if there is one."""
    info = Path("/proc/cpuinfo")
    models = [line.partition(": ")[2] for line in _lines(info) if line.startswith("model name")]
    model = " ".join(models[0].split()[:2]) if models else platform.processor() or "processor"
    device = jax.devices()[0]
    gpu = "no GPU" if device.platform == "cpu" else device.device_kind
    count = {1: "one core", 2: "two cores"}.get(os.cpu_count() or 0, f"{os.cpu_count()} cores")
    return f"{count} of an {model}, {gpu}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def in_words(seconds: int) -> str:
    """Seconds as minutes and seconds."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

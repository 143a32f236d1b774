"""Draws the ratios of the records of speed: `python benchmarks/speed_picture.py`.

Writes docs/pictures/speed.png from benchmarks/results, which ``--record`` of the benchmarks fills,
and prints the geometric means over the families against plain PyTorch.
"""

from __future__ import annotations

import collections
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs/pictures/speed.png"
RECORDS = (
    "ffjord_speed",
    "glow_speed",
    "hvae_speed",
    "pixelcnn_speed",
    "vdm_speed",
    "nsf_speed",
)
KINDS = {"training step": "tab:blue", "log_prob": "tab:orange", "samples": "tab:green"}
RATIOS = ("PyTorch / likejax (quartiles)", "other / likejax (quartiles)")


def bars() -> list[tuple[str, str, dict[str, Any]]]:
    """Returns the label, the kind of program and the ratio of every row, record after record."""
    found = []
    for name in RECORDS:
        record = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        for row in record["rows"]:
            program = row["program"].replace("`", "").replace("bound", "log_prob")
            (kind,) = (kind for kind in KINDS if kind in program)
            place = program.partition(kind)[0].split(",")[0].strip(" :")
            place = f"FFJORD, {place}" if name == "ffjord_speed" else place
            (ratio,) = (row[title] for title in RATIOS if title in row)
            other = row["other"]["label"] if "other" in row else "PyTorch"
            found.append((f"{place}: {other}", kind, ratio))
    return found


def means() -> dict[str, float]:
    """Returns the geometric mean of the ratios to PyTorch, by the kind of program.

    Every family weighs the same: its ratio is the geometric mean of those of its networks.
    """
    ratios: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for label, kind, ratio in bars():
        network, _, other = label.partition(": ")
        if other == "PyTorch":
            family = network.partition(",")[0].partition("/")[0]
            ratios[kind, family].append(ratio["value"])
    of_families: dict[str, list[float]] = collections.defaultdict(list)
    for (kind, _), values in ratios.items():
        of_families[kind].append(statistics.geometric_mean(values))
    return {kind: statistics.geometric_mean(values) for kind, values in of_families.items()}


def sentence() -> str:
    """Returns the geometric means in words, as the page of measurements has them."""
    each = ", ".join(f"{kind} {mean:.2f}" for kind, mean in means().items())
    return f"Geometric means over the families, PyTorch / likejax: {each}."


def draw() -> Figure:
    """Draws a bar for each row, with the quartiles, and the line where both sides are level."""
    rows = bars()
    figure = Figure(figsize=(9, 1.2 + 0.19 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, kind, ratio) in enumerate(rows):
        low, high = ratio["quartiles"]
        value = ratio["value"]
        errors = [[max(value - low, 0)], [max(high - value, 0)]]
        axes.barh(place, value - 1, left=1, color=KINDS[kind], height=0.8)
        axes.errorbar(value, place, xerr=errors, color="black", linewidth=0.8, capsize=1.5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [0.7, 1, 1.5, 2, 3, 5, 8]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("time of the other library over that of likejax, two CPU cores; quartiles")
    for kind, color in KINDS.items():
        axes.barh(0, 0, color=color, label=kind)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def main() -> None:
    draw().savefig(OUT, dpi=110)
    print(f"{OUT.relative_to(ROOT)} is written")
    print(sentence())


if __name__ == "__main__":
    main()

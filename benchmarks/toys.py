"""A family on eight distributions in the plane: nats against entropies, mass on a grid, pictures.

    python benchmarks/toys.py --out toys [--family ffjord] [--names moons rings]

Trains the presets ``FAMILY/NAME`` (runs that are finished are reused), prints a table, and writes
``plane.png`` with every density, samples and data; of FFJORD also ``field.png`` with the vector
field and the paths of the first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

import likejax as lj
from likejax import plot
from likejax.data.sources.toys import TOYS, toy
from likejax.evaluation import log_prob_in_chunks

SIDE, CELLS = 6.0, 240
"""Half the side of the square on which mass is counted, and cells along it."""
SHOWN = 4.5
"""Half the side of the square in pictures."""


def true_log_probs(name: str, points: np.ndarray) -> np.ndarray:
    """Returns the distribution's own log-density, by a histogram of 64 million points.

    Cells of 0.03 are narrow against every structure (the rings' blur adds 0.006 nats) and full
    enough (what is left of counting noise adds 0.001); of the checkerboard it is -log 32 exactly.
    """
    if name == "checkerboard":
        return np.full(len(points), -np.log(32))
    edges = np.linspace(-8, 8, 534)
    counts = sum(
        np.histogram2d(*toy(name, 4_000_000, seed=seed).T, bins=edges)[0] for seed in range(77, 93)
    )
    counts = counts + 0.1
    density = counts / counts.sum() / (edges[1] - edges[0]) ** 2
    cells = np.clip(np.digitize(points, edges) - 1, 0, len(edges) - 2)
    return np.log(density[cells[:, 0], cells[:, 1]])


def grid(side: float, cells: int) -> np.ndarray:
    """Centers of square cells, ``(cells, cells, 2)``, first axis upwards."""
    ticks = (np.arange(cells) + 0.5) / cells * 2 * side - side
    return np.stack(np.meshgrid(ticks, ticks), -1).astype(np.float32)


def study(family: str, name: str, out: Path) -> tuple[dict[str, Any], lj.Density]:
    """Trains a preset and measures it."""
    train, validation, test = (lj.load(name, split=s) for s in ("train", "validation", "test"))
    run = lj.fit(
        lj.preset(f"{family}/{name}"), train, validation=validation, workdir=out / name, key=0
    )
    density = run.density
    evaluation = lj.evaluate(density, test, batch_size=1_000)
    points = grid(SIDE, CELLS)
    log_probs = log_prob_in_chunks(density, points.reshape(-1, 2), batch_size=2_400)
    true = true_log_probs(name, test.examples)
    excess = true - evaluation.log_prob  # its mean: the model's divergence from the distribution
    row = {
        "nats": -evaluation.mean,
        "error": evaluation.standard_error,
        "entropy": -true.mean(),
        "above": excess.mean(),
        "above error": excess.std(ddof=1) / np.sqrt(len(excess)),
        "mass": float(np.exp(log_probs).sum() * (2 * SIDE / CELLS) ** 2),
    }
    print(
        f"{name:13} -log p {row['nats']:.4f} ± {row['error']:.4f}   "
        f"entropy (same points) {row['entropy']:.4f}   "
        f"above {row['above']:+.4f} ± {row['above error']:.4f}   mass {row['mass']:.4f}",
        flush=True,
    )
    if family == "ffjord":
        batch = train.examples[:100]
        evaluations = lj.models.function_evaluations(density, batch, key=jax.random.key(1))
        row["evaluations"] = evaluations._asdict()
        print(f"{'':13} evaluations a step {row['evaluations']}", flush=True)
    margin = round(CELLS * (SIDE - SHOWN) / (2 * SIDE))
    density_on_grid = np.exp(log_probs).reshape(CELLS, CELLS)
    row["density"] = density_on_grid[margin:-margin, margin:-margin]
    row["samples"] = np.asarray(density.sample(2, 4_000))
    row["data"] = test.examples[:4_000]
    return row, density


def flow_picture(name: str, density: lj.Density) -> Any:
    """The field at three times and the paths of 150 points."""
    (repeated,) = density.bijection.bijections
    ode = repeated.blocks.blocks[0]
    points = grid(SIDE / 1.2, 21)
    velocities = {
        f"t = {part:g} T": np.asarray(ode.velocity(part, points)) for part in (0.0, 0.5, 1.0)
    }
    data = lj.load(name, split="test").examples[:150]
    paths = jax.jit(jax.vmap(lambda x: ode.path(x, np.linspace(0, 1, 11)), out_axes=1))(data)
    return plot.field(
        velocities, np.asarray(paths), side=SIDE / 1.2, title=f"The vector field of ffjord/{name}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("toys"))
    parser.add_argument("--family", default="ffjord", choices=["ffjord", "nsf", "maf"])
    parser.add_argument("--names", nargs="+", default=list(TOYS), choices=list(TOYS))
    arguments = parser.parse_args()
    rows, densities = {}, {}
    for name in arguments.names:
        rows[name], densities[name] = study(arguments.family, name, arguments.out)
    pictures = {
        name: {part: row.pop(part) for part in ("density", "samples", "data")}
        for name, row in rows.items()
    }
    title = "Model densities, samples of the models, data"
    plot.plane(pictures, side=SHOWN, title=title).savefig(arguments.out / "plane.png", dpi=130)
    if arguments.family == "ffjord":
        first = arguments.names[0]
        flow_picture(first, densities[first]).savefig(arguments.out / "field.png", dpi=130)
    (arguments.out / "toys.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()

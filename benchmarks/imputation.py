"""Missing pixels filled in by a VAE against the mean of each pixel: error and picture.

    likejax train dlgm/mnist --data-dir DATA --workdir runs/dlgm
    python benchmarks/imputation.py runs/dlgm --data-dir DATA --out imputation.png

Binary images with a share of the pixels missing at random, or the lower half. The errors are root
mean squares of the difference of the expected value from the pixel, with standard errors over
images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import numpy as np

import likejax as lj
from likejax import plot


def errors(expected: np.ndarray, x: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Root mean square over the missing pixels of all images, and its standard error."""
    missing = ~np.broadcast_to(known, x.shape)
    squares = np.where(missing, (expected - x) ** 2, 0).reshape(len(x), -1).sum(1)
    each = squares / missing.reshape(len(x), -1).sum(1)
    root = np.sqrt(each.mean())
    return float(root), float(each.std(ddof=1) / np.sqrt(len(each)) / (2 * root))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--sweeps", type=int, default=500)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    density = lj.restore(arguments.run)
    assert isinstance(density, lj.models.VAE)
    experiment = lj.experiment.from_json((arguments.run / "experiment.json").read_text())
    parts = {
        s: lj.load(experiment.dataset, split=s, data_dir=arguments.data_dir)
        for s in ("train", "test")
    }
    train, test = (experiment.as_evaluated(parts[s]) for s in ("train", "test"))
    x = test.examples[: arguments.images]
    mean = np.broadcast_to(train.examples.mean(0), x.shape)
    height = x.shape[1]
    rng = np.random.default_rng(0)
    masks = {
        f"{share:.0%} of the pixels": rng.random(x.shape) >= share for share in (0.2, 0.5, 0.8)
    }
    masks["the lower half"] = np.broadcast_to(
        np.arange(height)[:, None, None] < height // 2, x.shape
    )
    rows = []
    for name, known in masks.items():
        filled = np.concatenate(
            [
                np.asarray(
                    density.impute(
                        x[i : i + 250],
                        known[i : i + 250],
                        key=jax.random.key(i),
                        sweeps=arguments.sweeps,
                    )
                )
                for i in range(0, len(x), 250)
            ]
        )
        ours, theirs = errors(filled, x, known), errors(mean, x, known)
        print(
            f"{name:20} {ours[0]:.4f} ± {ours[1]:.4f}   "
            f"pixel mean {theirs[0]:.4f} ± {theirs[1]:.4f}",
            flush=True,
        )
        rows += [np.where(known, x, 0.5)[:16], filled[:16]]
    if arguments.out is not None:
        images = np.rint(255 * np.concatenate([x[:16], *rows])).astype(np.uint8)
        title = "Images; for each kind of hole the known pixels and the expected image"
        plot.sheet(images, levels=256, columns=16, title=title).savefig(arguments.out, dpi=130)


if __name__ == "__main__":
    main()

"""Anomalies in the tables of ADBench: likelihoods of flows beside classical detectors.

    python benchmarks/adbench.py --data-dir DATA [--out adbench] [--workers 2] [--names 12_fault]

The normal rows of every table with at least 300 rows are split, copies of a row together: 60 %
train, 10 % select the weights, 30 % are tested with all anomalies. Training sees no anomaly.
Columns that do not vary in the training rows are left out, and at most 5,000 rows of each part are
used. A score that is NaN, where a density overflows, counts as the largest, and is counted in the
record.

The flows are scored by `lj.ood.NegativeLogProb` and the detectors of scikit-learn by their own
score of standardized rows; all are measured by `lj.ood.evaluate_scores`. What is finished is kept
in ``--out``, so that a run that was stopped goes on. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

import likejax as lj
from likejax.bijections import Solver, Trace

METRICS = {"auroc": "AUROC", "aupr_out": "AUPR (anomalies positive)"}
LEAST_ROWS, MOST_ROWS = 300, 5_000
Rows = np.ndarray
Parts = Mapping[str, Rows]


def parts_of(path: Path) -> dict[str, Rows]:
    """The rows of a table: train, validation, test (normal) and anomalies, in float32."""
    with np.load(path) as file:
        x, is_anomaly = file["X"].astype(np.float32), file["y"].astype(bool)
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    normal, copies = np.unique(x[~is_anomaly], axis=0, return_inverse=True)
    place = rng.permutation(len(normal)) / len(normal)
    of_row = place[copies.reshape(-1)]
    rows = x[~is_anomaly]
    parts = {
        "train": rows[of_row < 0.6],
        "validation": rows[(of_row >= 0.6) & (of_row < 0.7)],
        "test": rows[of_row >= 0.7],
        "anomalies": x[is_anomaly],
    }
    parts = {name: rng.permutation(part)[:MOST_ROWS] for name, part in parts.items()}
    varies = np.ptp(parts["train"], axis=0) > 0
    return {name: part[:, varies] for name, part in parts.items()}


def flow(model: Any, parts: Parts, *, steps: int) -> lj.Density:
    """The density with the best validation loss of a short training."""
    experiment = lj.Experiment(
        model=model,
        optimizer=lj.Optimizer(
            name="adamw",
            learning_rate=2e-3,
            weight_decay=0.03,
            warmup_steps=50,
            decay="cosine",
            clip_norm=5.0,
        ),
        batch_size=min(128, len(parts["train"])),
        steps=steps,
        ema_decay=0.99,
        validate_every=100,
        validation_examples=1_000,
        log_every=steps,
    )
    validation = lj.Dataset.from_array(parts["validation"], split="validation")
    return lj.fit(experiment, parts["train"], validation=validation, key=0).density


def nsf(parts: Parts) -> lj.Density:
    d = parts["train"].shape[1]
    model = lj.models.NSFConfig(
        dimensions=d, depth=4, width=64, bound=5.0, dropout=0.1, standardize=True
    )
    return flow(model, parts, steps=800)


def maf(parts: Parts) -> lj.Density:
    d = parts["train"].shape[1]
    width = max(64, d)  # with fewer hidden units some features would be seen by no other
    model = lj.models.MAFConfig(dimensions=d, depth=4, width=width, dropout=0.1, standardize=True)
    return flow(model, parts, steps=800)


def ffjord(parts: Parts) -> lj.Density:
    """A continuous flow with fixed steps; one probe estimates the trace in training."""
    d = parts["train"].shape[1]
    solver = Solver(method="rk4", steps=8)
    model = lj.models.FFJORDConfig(
        dimensions=d,
        hidden=(64, 64),
        end_time=1.0,
        standardize=True,
        training_trace=Trace(probes=1),
        trace=Trace() if d <= 32 else Trace(probes=8),
        solver=solver,
        training_solver=solver,
    )
    return flow(model, parts, steps=400)


def gaussian(parts: Parts) -> lj.Density:
    return lj.models.FullGaussian.fit(lj.Dataset.from_array(parts["train"]))


DENSITIES: dict[str, Callable[[Parts], lj.Density]] = {
    "NSF": nsf,
    "MAF": maf,
    "FFJORD": ffjord,
    "Gaussian": gaussian,
}


def scores_by_density(density: lj.Density, parts: Parts) -> tuple[Rows, Rows]:
    """The negative log-likelihood of test rows and of anomalies, in nats."""
    fitted = lj.ood.NegativeLogProb().fit(density, parts["validation"], key=1)
    test, anomalies = (np.asarray(fitted(parts[name], key=2)) for name in ("test", "anomalies"))
    return test, anomalies


def standardized(parts: Parts) -> dict[str, Rows]:
    mean, std = parts["train"].mean(0, dtype=np.float64), parts["train"].std(0, dtype=np.float64)
    return {name: (part - mean) / std for name, part in parts.items()}


def isolation_forest(parts: Parts) -> tuple[Rows, Rows]:
    forest = IsolationForest(random_state=0).fit(parts["train"])
    return -forest.score_samples(parts["test"]), -forest.score_samples(parts["anomalies"])


def local_outlier_factor(parts: Parts) -> tuple[Rows, Rows]:
    neighbors = min(20, len(parts["train"]) - 1)
    factor = LocalOutlierFactor(n_neighbors=neighbors, novelty=True).fit(parts["train"])
    return -factor.score_samples(parts["test"]), -factor.score_samples(parts["anomalies"])


def tails(parts: Parts) -> tuple[Rows, Rows]:
    """Sum over columns of minus the log of empirical tail probabilities, as in ECOD.

    The largest of three sums counts: left tails, right tails, and of each column the tail on the
    side of its skewness (Li et al., 2022, arXiv:2201.00382).
    """
    columns = np.sort(parts["train"], axis=0)
    n = len(columns)
    is_left = stats.skew(parts["train"], axis=0) < 0

    def score(rows: Rows) -> Rows:
        pairs = list(zip(columns.T, rows.T, strict=True))
        at_most = np.stack([np.searchsorted(c, r, "right") for c, r in pairs], 1)
        at_least = n - np.stack([np.searchsorted(c, r, "left") for c, r in pairs], 1)
        left, right = (-np.log((count + 1) / (n + 1)) for count in (at_most, at_least))
        sums = [left.sum(1), right.sum(1), np.where(is_left, left, right).sum(1)]
        return np.max(sums, axis=0)

    return score(parts["test"]), score(parts["anomalies"])


DETECTORS = {
    "IsolationForest": isolation_forest,
    "LOF": local_outlier_factor,
    "ECOD-like": tails,
}


def measure(path: Path, name: str) -> dict[str, Any]:
    """The metrics of one method on one table."""
    parts = parts_of(path)
    start = time.monotonic()
    if name in DENSITIES:
        inside, outside = scores_by_density(DENSITIES[name](parts), parts)
    else:
        inside, outside = DETECTORS[name](standardized(parts))
    lost = int(np.isnan(inside).sum() + np.isnan(outside).sum())
    inside, outside = (np.where(np.isnan(each), np.inf, each) for each in (inside, outside))
    found = lj.ood.evaluate_scores(inside, outside, resamples=200)
    seconds = round(time.monotonic() - start, 1)
    record: dict[str, Any] = {"seconds": seconds, "scores that are NaN": lost}
    for metric in METRICS:
        interval = found[metric]
        record[metric] = [interval.value, interval.low, interval.high]
    sizes = {part: len(rows) for part, rows in parts.items()}
    return {**record, "columns": parts["train"].shape[1], "rows": sizes}


def tables(folder: Path, names: list[str]) -> list[Path]:
    """The tables that are large enough, smallest first."""
    found = []
    for path in sorted((folder / "adbench").glob("*.npz")):
        with np.load(path) as file:
            size = file["X"].size if len(file["X"]) >= LEAST_ROWS else 0
        if size and (not names or path.stem in names):
            found.append((size, path))
    return [path for _, path in sorted(found)]


def work(paths: list[Path], out: Path) -> None:
    """Measures what is missing, one file for each table and method."""
    for path in paths:
        for name in [*DETECTORS, *DENSITIES]:
            place = out / f"{path.stem}.{name}.json"
            if place.exists():
                continue
            record = measure(path, name)
            place.with_suffix(".part").write_text(json.dumps(record))
            place.with_suffix(".part").rename(place)
            print(f"{path.stem:22} {name:16} {record['auroc'][0]:.3f}", flush=True)
        jax.clear_caches()  # the programs of another table have other shapes


def mean_ranks(values: Rows) -> list[str]:
    """The mean rank of each method over tables, with its standard error if there are several.

    Args:
      values: Metric of each table and method, ``(tables, methods)``; the largest has rank 1.
    """
    ranks = stats.rankdata(-values, axis=1)
    means = [f"{mean:.2f}" for mean in ranks.mean(0)]
    if len(ranks) == 1:
        return means
    errors = ranks.std(0, ddof=1) / np.sqrt(len(ranks))
    return [f"{mean} ± {error:.2f}" for mean, error in zip(means, errors, strict=True)]


def summary(paths: list[Path], out: Path) -> str:
    """A Markdown table of AUROC and AUPR with intervals, and the mean ranks."""
    names = [*DENSITIES, *DETECTORS]
    records = {
        path.stem: {
            name: json.loads((out / f"{path.stem}.{name}.json").read_text()) for name in names
        }
        for path in paths
    }
    lines = []
    for metric, title in METRICS.items():
        lines += [f"\n{title} with 95 % intervals\n", f"| table | {' | '.join(names)} |"]
        lines.append("|---" * (len(names) + 1) + "|")
        for table, of_table in records.items():
            cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*of_table[name][metric]) for name in names]
            lines.append(f"| {table} | {' | '.join(cells)} |")
        values = np.array([[r[name][metric][0] for name in names] for r in records.values()])
        lines.append(f"| mean rank ± standard error | {' | '.join(mean_ranks(values))} |")
        medians = [f"{value:.3f}" for value in np.median(values, axis=0)]
        lines.append(f"| median | {' | '.join(medians)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("adbench"))
    parser.add_argument("--names", nargs="+", default=[])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = tables(arguments.data_dir, arguments.names)
    start = time.monotonic()
    if arguments.workers == 1:
        lj.memory.keep_freed()
        work(paths, arguments.out)
        return
    shares = [paths[i :: arguments.workers] for i in range(arguments.workers)]
    places = ["--data-dir", str(arguments.data_dir), "--out", str(arguments.out), "--workers", "1"]
    processes = [
        subprocess.Popen([sys.executable, __file__, *places, "--names", *(p.stem for p in share)])
        for share in shares
        if share
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a worker failed; the same command goes on where it stopped")
    text = summary(paths, arguments.out)
    (arguments.out / "adbench.md").write_text(text)
    print(text)
    print(f"{len(paths)} tables in {(time.monotonic() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()

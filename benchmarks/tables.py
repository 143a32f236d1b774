"""A neural spline flow on the UCI tables against FFJORD, a RealNVP and a Gaussian, in nats.

    python benchmarks/tables.py --data-dir DATA [--names redwine whitewine parkinsons]
        [--seeds 0 1 2] [--out tables] [--record]

The RealNVP is ``VectorGlowConfig`` (ActNorm and linear maps between its couplings) with the width
that brings it nearest to FFJORD's parameter count. Every candidate is trained from every seed. The
base of the spline flow, normal or Student's t, and the learning rate of the RealNVP are those whose
trainings have the highest mean log-likelihood of the validation rows. Only what was chosen so meets
the test rows. Differences are paired over the test rows: those of a row are averaged over the seeds
first. Trainings in OUT that are finished are read, not repeated. ``--record`` writes the rows of
``benchmarks/results/nsf_tables.json`` and ``ffjord_tables.json``; its remarks are a person's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import likejax as lj
from likejax.evaluation import Evaluation
from likejax.nn.state import split

RESULTS = Path(__file__).resolve().parent / "results"
TITLES = {"redwine": "red wine", "whitewine": "white wine", "parkinsons": "parkinsons"}


def parameters(config: Any) -> int:
    density = nnx.eval_shape(lambda: lj.build(config, key=jax.random.key(0)))
    return sum(math.prod(leaf.shape) for leaf in split(density)[1].values())


def real_nvp_of_size(dimensions: int, size: int) -> lj.models.VectorGlowConfig:
    configs = [
        lj.models.VectorGlowConfig(dimensions=dimensions, depth=8, width=width)
        for width in range(4, 129)
    ]
    return min(configs, key=lambda config: abs(parameters(config) - size))


def candidates(name: str) -> dict[str, dict[str, lj.Experiment]]:
    """Returns the experiments of each family on a table, of which validation chooses one."""
    spline, ffjord = lj.preset(f"nsf/{name}"), lj.preset(f"ffjord/{name}")
    real_nvp = real_nvp_of_size(ffjord.model.dimensions, parameters(ffjord.model))
    bases, rates = ("normal", "student_t"), (5e-4, 2e-3)
    return {
        "NSF": {base: spline.override({"model.base": base}) for base in bases},
        "FFJORD": {"preset": ffjord},
        "RealNVP": {
            f"{rate:g}": ffjord.override({"model": real_nvp, "optimizer.learning_rate": rate})
            for rate in rates
        },
    }


def averaged(trainings: Sequence[Evaluation]) -> Evaluation:
    """Returns the evaluation whose nats of each row are the mean over the trainings."""
    rows = np.stack([each.log_prob for each in trainings])
    return dataclasses.replace(trainings[0], log_prob=rows.mean(axis=0))


def deviation(values: Sequence[float]) -> float:
    """Returns the standard deviation between trainings, NaN of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def summary(trainings: Sequence[Evaluation]) -> dict[str, Any]:
    """Returns the mean over trainings with both of its errors, and the mean of each training."""
    result, means = averaged(trainings), [each.mean for each in trainings]
    return {
        "mean": result.mean,
        "standard_error": result.standard_error,
        "between_seeds": deviation(means),
        "standardized": result.standardized,
        "means": means,
    }


def difference(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> dict[str, float]:
    """Returns ``first - second``, paired over rows, with its error and its spread over seeds."""
    pair = lj.compare(averaged(first), averaged(second))
    seeds = [lj.compare(a, b).difference for a, b in zip(first, second, strict=True)]
    return {
        "mean": pair.difference,
        "standard_error": pair.standard_error,
        "between_seeds": deviation(seeds),
    }


def choose(
    label: str,
    experiments: Mapping[str, lj.Experiment],
    parts: Mapping[str, lj.Dataset],
    seeds: Sequence[int],
    folder: Path,
) -> tuple[str, list[lj.Density], dict[str, Any]]:
    """Trains the candidates of a family and chooses one by the validation rows.

    Returns:
      The chosen candidate, its densities, and what validation said of every candidate.
    """
    densities, on_validation = {}, {}
    for candidate, experiment in experiments.items():
        densities[candidate] = [
            lj.fit(
                experiment,
                parts["train"],
                validation=parts["validation"],
                workdir=folder / f"{label.lower()}-{candidate}-{seed}",
                key=seed,
            ).density
            for seed in seeds
        ]
        on_validation[candidate] = [
            lj.evaluate(each, parts["validation"]) for each in densities[candidate]
        ]
    said: dict[str, Any] = {name: summary(each) for name, each in on_validation.items()}
    best = max(said, key=lambda name: said[name]["mean"])
    for name, each in on_validation.items():
        if name != best:
            said[f"{best} - {name}"] = difference(on_validation[best], each)
    for name, numbers in said.items():
        print(f"  validation, {label} {name}: {shown(numbers)}", flush=True)
    return best, densities[best], said


def shown(numbers: Mapping[str, float]) -> str:
    spread = f"{numbers['between_seeds']:.3f} between seeds"
    return f"{numbers['mean']:.3f} ± {numbers['standard_error']:.3f} nats, {spread}"


def on_table(name: str, seeds: Sequence[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains all families on a table, and returns what validation and the test rows say."""
    parts = {
        s: lj.load(f"uci/{name}", split=s, data_dir=arguments.data_dir)
        for s in ("train", "validation", "test")
    }
    print(name, flush=True)
    validation, chosen, sizes = {}, {}, {"Gaussian": 0}
    results: dict[str, list[Evaluation]] = {}  # of the test rows, one for each training
    for label, experiments in candidates(name).items():
        best, densities, validation[label] = choose(
            label, experiments, parts, seeds, arguments.out / name
        )
        chosen[label], sizes[label] = best, parameters(experiments[best].model)
        results[label] = [lj.evaluate(density, parts["test"]) for density in densities]
    gaussian = lj.models.FullGaussian.fit(parts["train"])
    results["Gaussian"] = [lj.evaluate(gaussian, parts["test"])] * len(seeds)
    test = {label: summary(each) for label, each in results.items()}
    for label, numbers in test.items():
        print(f"  test, {label} ({sizes[label]:,} parameters): {shown(numbers)}", flush=True)
    differences = {
        f"{first} - {second}": difference(results[first], results[second])
        for first, second in (("NSF", "FFJORD"), ("NSF", "RealNVP"), ("FFJORD", "RealNVP"))
    }
    for pair, numbers in differences.items():
        print(f"  test, {pair}, paired: {shown(numbers)}", flush=True)
    return {
        "rows": len(parts["test"]),
        "seeds": list(seeds),
        "chosen": chosen,
        "validation": validation,
        "test": test,
        "differences": differences,
    }


def rows_of(columns: Sequence[str], name: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns two rows of a record: numbers with errors over test rows, and spreads over seeds."""
    numbers = found["test"] | {f"{k}, paired": v for k, v in found["differences"].items()}
    title = f"{TITLES[name]}, {found['rows']}, mean of {len(found['seeds'])} seeds"
    over_rows: dict[str, Any] = {"id": name, "test rows": title}
    over_seeds: dict[str, Any] = {"id": f"{name}-seeds", "test rows": "deviation between seeds"}
    for column in columns[1:]:
        cell = numbers[column]
        over_rows[column] = {
            "value": round(cell["mean"], 3),
            "error": round(cell["standard_error"], 3),
        }
        over_seeds[column] = round(cell["between_seeds"], 3)
    over_seeds |= {"Gaussian": "none"} if "Gaussian" in columns else {}
    return [over_rows, over_seeds]


def write_record(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts the rows of these tables in the place of those that a record has of them."""
    record = json.loads(path.read_text())
    rows = []
    for name in TITLES:
        if name in tables:
            rows += rows_of(record["columns"], name, tables[name])
        else:
            rows += [row for row in record["rows"] if row["id"] in (name, f"{name}-seeds")]
    record["rows"] = rows
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("tables"))
    parser.add_argument("--names", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--record", action="store_true", help="write the rows of the records")
    arguments = parser.parse_args()
    lj.memory.keep_freed()  # as on the command line
    tables: dict[str, Any] = {}
    for name in arguments.names:
        tables[name] = on_table(name, arguments.seeds, arguments)
        (arguments.out / "tables.json").write_text(json.dumps(tables, indent=2))
    if arguments.record:
        for record in ("nsf_tables", "ffjord_tables"):
            write_record(RESULTS / f"{record}.json", tables)


if __name__ == "__main__":
    main()

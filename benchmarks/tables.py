"""A neural spline flow on the UCI tables against FFJORD, a RealNVP and a Gaussian, in nats.

    python benchmarks/tables.py --data-dir DATA [--names redwine whitewine parkinsons] [--out
    tables]

The RealNVP is ``VectorGlowConfig`` (ActNorm and linear maps between its couplings) with the width
that brings it nearest to FFJORD's parameter count, trained at two learning rates of which the
better on validation counts. Differences are paired over the test rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import likejax as lj
from likejax.nn.state import split


def parameters(config: Any) -> int:
    density = nnx.eval_shape(lambda: lj.build(config, key=jax.random.key(0)))
    return sum(math.prod(leaf.shape) for leaf in split(density)[1].values())


def real_nvp_of_size(dimensions: int, size: int) -> lj.models.VectorGlowConfig:
    configs = [
        lj.models.VectorGlowConfig(dimensions=dimensions, depth=8, width=width)
        for width in range(4, 129)
    ]
    return min(configs, key=lambda config: abs(parameters(config) - size))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("tables"))
    parser.add_argument("--names", nargs="+", default=["redwine", "whitewine", "parkinsons"])
    arguments = parser.parse_args()
    record = {}
    for name in arguments.names:
        parts = {
            s: lj.load(f"uci/{name}", split=s, data_dir=arguments.data_dir)
            for s in ("train", "validation", "test")
        }
        experiment = lj.preset(f"ffjord/{name}")
        runs, sizes = {}, {}

        def fit(
            label: str,
            experiment: lj.Experiment,
            parts: dict[str, lj.Dataset] = parts,
            name: str = name,
        ) -> lj.train.Run:
            workdir = arguments.out / name / label
            return lj.fit(
                experiment, parts["train"], validation=parts["validation"], workdir=workdir, key=0
            )

        size = parameters(experiment.model)
        runs["FFJORD"], sizes["FFJORD"] = fit("ffjord", experiment).density, size
        real_nvp = real_nvp_of_size(experiment.model.dimensions, size)
        candidates = [
            fit(
                f"real_nvp-{rate:g}",
                dataclasses.replace(
                    experiment,
                    model=real_nvp,
                    optimizer=dataclasses.replace(experiment.optimizer, learning_rate=rate),
                ),
            )
            for rate in (5e-4, 2e-3)
        ]
        best = max(candidates, key=lambda run: lj.evaluate(run.density, parts["validation"]).mean)
        runs["NSF"] = fit("nsf", lj.preset(f"nsf/{name}")).density
        sizes["NSF"] = parameters(lj.preset(f"nsf/{name}").model)
        runs["RealNVP"], sizes["RealNVP"] = best.density, parameters(real_nvp)
        runs["Gaussian"], sizes["Gaussian"] = lj.models.FullGaussian.fit(parts["train"]), 0
        results = {label: lj.evaluate(density, parts["test"]) for label, density in runs.items()}
        for label, result in results.items():
            against = lj.compare(results["NSF"], result)
            better = ""
            if label != "NSF":
                gain = f"{against.difference:.3f} ± {against.standard_error:.3f}"
                better = f"   NSF is better by {gain}"
            print(
                f"{name:10} {label:8} {sizes[label]:7,} parameters   {result}{better}", flush=True
            )
        record[name] = {label: result.to_dict() for label, result in results.items()}
    (arguments.out / "tables.json").write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()

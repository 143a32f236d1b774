"""Makes a density that ships with the package from the directory of a run.

    python benchmarks/pretrained.py glow/digits RUN --command "likejax train glow/digits --seed 0"

It restores the weights that validation selected, evaluates them on the test part, and writes
likejax/weights/glow-digits.safetensors and its record, glow-digits.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path

import jax

import likejax as lj
from likejax.cli.places import experiment_of, load_as_evaluated
from likejax.evaluation import Evaluation
from likejax.weights import Weights

FIRST = 100
"""Number of examples that the tests evaluate."""
FIRST_DRAWS = 2
EVALUATION_SEED = 1
LARGEST = 3_000_000
"""Most bytes of one file."""


def evaluations(density: lj.Density, test: lj.Dataset, draws: int) -> tuple[Evaluation, Evaluation]:
    """The number of the whole part, and that of its first examples with few draws."""
    key = jax.random.key(EVALUATION_SEED)
    whole = lj.evaluate(density, test, key=key, draws=draws)
    return whole, lj.evaluate(density, test[:FIRST], key=key, draws=FIRST_DRAWS, batch_size=FIRST)


def make(
    name: str, run: Path, *, command: str, seed: int, draws: int, data_dir: Path | None
) -> None:
    """Writes the file of weights and the record."""
    experiment = experiment_of(run)
    density = lj.restore(run)
    test = load_as_evaluated(experiment, experiment.dataset, split="test", data_dir=data_dir)
    whole, first = evaluations(density, test, draws)
    weights = Weights(
        name=name,
        preset=name,
        command=command,
        likejax=lj.__version__,
        seed=seed,
        steps=experiment.steps,
        dataset=experiment.dataset,
        split="test",
        parameters=lj.count_parameters(density),
        evaluation_seed=EVALUATION_SEED,
        evaluation=whole.to_dict(),
        first=first.to_dict(),
        sha256="",
    )
    lj.save(density, weights.path)
    content = weights.path.read_bytes()
    if len(content) > LARGEST:
        weights.path.unlink()
        raise SystemExit(f"{name} has {len(content)} bytes, the most that ships is {LARGEST}")
    record = dataclasses.replace(weights, sha256=hashlib.sha256(content).hexdigest())
    text = json.dumps(dataclasses.asdict(record), indent=2) + "\n"
    weights.path.with_suffix(".json").write_text(text)
    print(f"{name}: {whole}, {len(content)} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(lj.PRESETS), metavar="PRESET")
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("--command", required=True, help="command that trained the run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--draws", type=int, default=4, help="draws per test example")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    make(
        options.name,
        options.run,
        command=options.command,
        seed=options.seed,
        draws=options.draws,
        data_dir=options.data_dir,
    )


if __name__ == "__main__":
    main()

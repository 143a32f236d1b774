"""Makes the record of a table of AUROC from the report of `likejax ood`.

    python benchmarks/ood_record.py RUN/ood glow_fashion_mnist_scores --title TITLE \\
        --command "likejax train ..." "likejax ood ..." --wall-time "7 min for the scores"

It reads `records.csv` of the report. The cells have the mean and the standard deviation over the
trainings if there are several, else DeLong's standard error.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import jax

import likejax as lj

RESULTS = Path(__file__).parent / "results"
Cell = dict[str, float]
HARDWARE = "two cores of an AMD EPYC, no GPU"


def main() -> None:
    """Reads the report, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="directory that `likejax ood` wrote")
    parser.add_argument("name", help="name of the record")
    parser.add_argument("--title", required=True)
    parser.add_argument("--command", nargs="+", required=True, help="what trained and scored")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--wall-time", required=True)
    parser.add_argument("--remark", nargs="*", default=[])
    options = parser.parse_args()

    with (options.report / "records.csv").open() as file:
        aurocs = [row for row in csv.DictReader(file) if row["metric"] == "auroc"]
    record = {
        "title": options.title,
        "command": options.command,
        "likejax": lj.__version__,
        "software": f"jax {jax.__version__}",
        "hardware": HARDWARE,
        "seed": int(options.seed) if options.seed.isdigit() else options.seed,
        "kind": f"AUROC of scores; the log-probability is {_kind_in_words(aurocs[0]['kind'])}",
        "draws": int(aurocs[0]["draws"]),
        "standard_error": _errors(aurocs),
        "wall_time": options.wall_time,
        "digits": 3,
        "columns": ["score", *_unique(map(label, aurocs))],
        "rows": rows_of(aurocs),
        "remarks": options.remark,
    }
    path = RESULTS / f"{options.name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{path}: {len(record['rows'])} scores, {len(record['columns']) - 1} sets")


def rows_of(aurocs: list[dict[str, str]]) -> list[dict[str, object]]:
    """One row for each score, one cell for each outside set.

    A score of no density, or of the ensemble of all trainings, has plain numbers.
    """
    rows = []
    several = _trainings(aurocs) > 1
    for score in _unique(row["score"] for row in aurocs):
        row: dict[str, Any] = {"id": _identifier(score), "score": score}
        of_score = [each for each in aurocs if each["score"] == score]
        for name in _unique(map(label, of_score)):
            trainings = [each for each in of_score if label(each) == name]
            row[name] = _cell(trainings)
        if several and not any(map(_spread, row.values())):
            row = {name: _value(cell) for name, cell in row.items()}
        rows.append(row)
    return rows


def label(row: dict[str, str]) -> str:
    """The name of an outside set in the head of the table, without what is the same for all."""
    name = row["outside"].removeprefix(f"{row['inside']}+")
    first, *steps = name.split("+")
    return "+".join([first, *(step for step in steps if not step.startswith("resize:"))])


def _identifier(score: str) -> str:
    """The name by which pages select a row: letters, digits and hyphens, such as min-kpp-20."""
    return "-".join(re.findall("[a-z0-9]+", score.lower().replace("+", "p")))


def _cell(trainings: list[dict[str, str]]) -> Cell:
    values = [float(each["value"]) for each in trainings]
    error = float(trainings[0]["standard_error"])
    if len(values) > 1:
        error = statistics.stdev(values)
    return {"value": round(statistics.mean(values), 3), "error": round(error, 3)}


def _spread(cell: str | Cell) -> float:
    return 0.0 if isinstance(cell, str) else cell["error"]


def _value(cell: str | Cell) -> str | float:
    return cell if isinstance(cell, str) else cell["value"]


def _trainings(aurocs: list[dict[str, str]]) -> int:
    return len({row["training"] for row in aurocs if row["training"]})


def _errors(aurocs: list[dict[str, str]]) -> str:
    trainings = _trainings(aurocs)
    sizes = f"{aurocs[0]['n_inside']} inside images"
    if trainings == 1:
        return f"DeLong's, over {sizes} and as many or fewer outside ones, for one training"
    return f"standard deviation over {trainings} trainings; {sizes}"


def _kind_in_words(kind: str) -> str:
    return {"exact": "exact", "bound": "a bound", "estimate": "an estimate"}[kind]


def _unique(names: object) -> list[str]:
    return list(dict.fromkeys(names))  # type: ignore[call-overload]


if __name__ == "__main__":
    main()

"""Every number that a page shows in a generated table stands in a record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import render, speed, speed_picture, speed_record, tables
from likejax.density import Kind
from likejax.evaluation import Evaluation

RECORDS = render.records()
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w.])")


def words_of(value: object, digits: int) -> Iterator[str]:
    """All texts and numbers of a piece of JSON, the numbers as they are written in tables."""
    if isinstance(value, dict):
        digits = value.get("digits", digits)
        for each in value.values():
            yield from words_of(each, digits)
    elif isinstance(value, list):
        for each in value:
            yield from words_of(each, digits)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        yield render.number(value, digits)


def source_of(name: str) -> dict:
    """The record or the table of that name; a cell that points to a record is followed."""
    if name in RECORDS:
        return RECORDS[name]
    table = json.loads((render.TABLES / f"{name}.json").read_text())
    for row in table["rows"]:
        for column, cell in row.items():
            if isinstance(cell, dict):
                found, digits = render.find_cell(cell)
                row[column] = {"digits": digits, **found}  # type: ignore[dict-item]
    return table


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_states_where_its_numbers_come_from(name):
    record = RECORDS[name]
    for fact, types in render.FACTS.items():
        assert isinstance(record[fact], types), fact
        assert record[fact] != "", fact
    assert set(record) <= {*render.FACTS, "remarks", "parts"}
    for row in record["rows"]:
        assert set(row) - {"id"} == set(record["columns"])


def test_pages_are_up_to_date():
    """`python benchmarks/render.py` mends this."""
    assert render.outdated() == []


@pytest.mark.parametrize("path", render.pages(), ids=lambda path: str(path.name))
def test_every_number_of_a_table_has_its_record(path):
    shown = 0
    for match in render.MARKED.finditer(path.read_text()):
        name = render.read_marker(match[2]).name
        source = source_of(name)
        known = set()
        for word in words_of(source, source.get("digits", 0)):
            known |= set(NUMBER.findall(word))
        lines = [line for line in match[0].splitlines() if line.startswith("|")]
        numbers = NUMBER.findall("\n".join(lines))
        assert set(numbers) <= known, name
        shown += len(numbers)
    assert shown > 0


def test_a_number_that_was_edited_by_hand_is_found():
    page = (render.ROOT / "README.md").read_text()
    edited = page.replace("<= 2.256 ± 0.019", "<= 2.156 ± 0.019")
    assert edited != page
    assert render.updated(edited) == page


def test_every_record_is_shown_beside_the_benchmarks():
    page = (render.ROOT / "benchmarks/README.md").read_text()
    shown = {render.read_marker(match[2]).name for match in render.MARKED.finditer(page)}
    assert shown == set(RECORDS)


def test_the_geometric_means_are_those_of_the_records():
    """`python benchmarks/speed_picture.py` prints the line."""
    assert speed_picture.sentence() in (render.ROOT / "benchmarks/README.md").read_text()


def test_one_command_knows_the_commands_of_all_comparisons():
    """A comparison of the picture is one that `python benchmarks/speed.py` times."""
    scripts = {"ffjord", "glow", "vae", "pixelcnn", "vdm", "nsf"}
    of_scripts = [(script, command) for script in scripts for command in speed.chosen([script])]
    assert sorted(command for _, command in of_scripts) == sorted(speed.commands())
    assert all(f"benchmarks/{script}.py" in command for script, command in of_scripts)
    assert all((render.ROOT / command.split()[1]).is_file() for _, command in of_scripts)
    with pytest.raises(ValueError, match=r"expected names among ffjord.* got glows"):
        speed.chosen(["glow", "glows"])


def test_a_marker_selects_rows_and_columns():
    text = render.rendered("demo rows=pixelcnn columns=model,bits/dim plain")
    assert "| model | bits/dim |" in text
    assert "| PixelCNN++ | = 1.937 ± 0.013 |" in text
    assert "Glow" not in text
    with pytest.raises(ValueError, match="asked for"):
        render.rendered("demo rows=glove")
    with pytest.raises(ValueError, match="lacks the columns"):
        render.rendered("demo columns=bits")
    with pytest.raises(ValueError, match=r"expected rows=\.\.\."):
        render.read_marker("demo lines=glow")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (10000, "10,000"),
        (0.96, "0.960"),
        ({"kind": "bound", "value": 3.241, "error": 0.009}, "<= 3.241 ± 0.009"),
        ({"value": 0.04, "unit": "s", "digits": 2}, "0.04 s"),
        ({"value": 1.94, "quartiles": [1.74, 1.99], "digits": 2}, "1.94 (1.74–1.99)"),
        ({"value": 1.0, "interval": [0.98, 1.0]}, "1.000 [0.980, 1.000]"),
        ({"label": "zuko", "value": 75.0, "unit": "ms", "digits": 1}, "zuko 75.0 ms"),
    ],
)
def test_cells(cell, text):
    assert render.shown(cell, 3) == text


def test_times_of_a_command_take_the_place_of_its_earlier_ones(tmp_path, monkeypatch):
    """The rows of other commands and what a person wrote stay; the facts are those of the runs."""
    columns = ["program", "likejax", "PyTorch", "PyTorch / likejax (quartiles)", "first call"]
    record = {"title": "T", "software": "jax 0, other 1", "columns": columns, "rows": []}
    path = tmp_path / "some_speed.json"
    path.write_text(json.dumps(record | {"remarks": ["a remark"]}))
    monkeypatch.setattr(speed_record, "RESULTS", tmp_path)
    monkeypatch.setattr(speed_record, "seconds_so_far", lambda: 61.2)

    def keep(arguments: list[str], program: str, ours: float) -> dict:
        monkeypatch.setattr("sys.argv", ["benchmarks/some.py", *arguments, "--record"])
        others = {"PyTorch": speed_record.Other(0.2, 0.5, 0.2 / ours, (1.5, 2.5))}
        others["torch.compile"] = others["PyTorch"]  # which this table has no column for
        timings = {program: speed_record.Timing(ours, 3.0, "4 rounds", others)}
        speed_record.keep("some_speed", timings)
        return json.loads(path.read_text())

    keep([], "small: step", 0.05)
    keep(["--batch", "2"], "large: step", 0.1)
    kept = keep([], "small: step", 0.1)
    assert [row["program"] for row in kept["rows"]] == ["small: step", "large: step"]
    assert kept["command"] == ["python benchmarks/some.py", "python benchmarks/some.py --batch 2"]
    anew = keep(["--rounds", "9"], "small: step", 0.1)
    assert anew["rows"] == kept["rows"]
    assert anew["command"] == ["python benchmarks/some.py --rounds 9", kept["command"][1]]
    assert kept["remarks"] == ["a remark"]
    assert kept["standard_error"] == "quartiles of 4 rounds, and of 4 rounds"
    assert kept["wall_time"] == "1 min 1 s, and 1 min 1 s"
    assert kept["software"].endswith(", other 1")
    assert not kept["software"].startswith("jax 0,")
    small = kept["rows"][0]
    assert small["likejax"] == {"value": 100.0, "unit": "ms"}
    ratio = {"value": 2.0, "quartiles": [1.5, 2.5], "digits": 2}
    assert small["PyTorch / likejax (quartiles)"] == ratio
    assert small["first call"] == "3.00 s / 0.50 s"
    assert set(small) == set(columns)


def test_programs_that_were_not_timed_again_stay():
    both, other = {"programs": ["a", "b"]}, {"programs": ["c"]}
    again = {"programs": ["b"], "command": "newer"}
    parts = speed_record.with_part([other, both], again)
    assert parts == [other, again, {"programs": ["a"]}]
    assert speed_record.with_part(parts, both) == [other, both]
    assert speed_record.with_part([], both) == [both]


def evaluation_of(*log_probs: float) -> Evaluation:
    """An evaluation of rows that are the same in every call."""
    rows = np.array(log_probs)
    return Evaluation(rows, Kind.EXACT, 1, None, (2,), "rows", "the same", 0.0)


def test_a_difference_of_trainings_is_paired_over_rows():
    """The error is that of rows averaged over seeds, the spread is that of the seeds' means."""
    first = [evaluation_of(1.0, 5.0, 9.0), evaluation_of(3.0, 7.0, 11.0)]
    second = [evaluation_of(0.0, 4.0, 8.0), evaluation_of(0.0, 4.0, 5.0)]
    found = tables.difference(first, second)
    assert found["mean"] == 2.5
    assert found["standard_error"] == pytest.approx(np.std([2.0, 2.0, 3.5], ddof=1) / np.sqrt(3))
    assert found["between_seeds"] == pytest.approx(np.std([1.0, 4.0], ddof=1))
    alone = tables.summary(first[:1])
    assert alone["mean"] == 5.0
    assert np.isnan(alone["between_seeds"])


def test_validation_rows_choose_by_the_mean_over_seeds(monkeypatch, tmp_path):
    """One good training of three does not decide, and the test rows are not looked at."""
    nats = {"normal": [1.0, 1.0, 1.0], "student_t": [2.0, 0.0, 0.5]}

    def fit(experiment, train, *, validation, workdir, key):
        return SimpleNamespace(density=nats[experiment][key])

    def evaluate(density, rows):
        assert rows == "validation rows"
        return evaluation_of(density, density)

    monkeypatch.setattr(tables.lj, "fit", fit)
    monkeypatch.setattr(tables.lj, "evaluate", evaluate)
    parts: dict[str, Any] = {name: f"{name} rows" for name in ("train", "validation", "test")}
    experiments: dict[str, Any] = {base: base for base in nats}
    best, densities, said = tables.choose("NSF", experiments, parts, [0, 1, 2], tmp_path)
    assert (best, densities) == ("normal", nats["normal"])
    assert said["student_t"]["mean"] == pytest.approx(5 / 6)
    assert said["normal - student_t"]["mean"] == pytest.approx(1 / 6)


def test_rows_of_tables_that_were_not_measured_again_stay(tmp_path):
    numbers = {"mean": 0.12345, "standard_error": 0.5, "between_seeds": 0.25}
    columns = ["test rows", "NSF", "NSF - FFJORD, paired"]
    old = [{"id": "redwine"}, {"id": "redwine-seeds"}, {"id": "parkinsons"}]
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"title": "T", "columns": columns, "rows": old, "remarks": ["R"]}))
    found: dict[str, Any] = {"rows": 163, "seeds": [0, 1, 2], "test": {"NSF": numbers}}
    found["differences"] = {"NSF - FFJORD": numbers}
    tables.write_record(path, {"redwine": found})
    record = json.loads(path.read_text())
    assert [row["id"] for row in record["rows"]] == ["redwine", "redwine-seeds", "parkinsons"]
    assert record["rows"][0]["test rows"] == "red wine, 163, mean of 3 seeds"
    assert record["rows"][0]["NSF - FFJORD, paired"] == {"value": 0.123, "error": 0.5}
    assert record["rows"][1]["NSF"] == 0.25
    assert record["remarks"] == ["R"]

"""Writes the measured tables of the Markdown pages from their records.

`python benchmarks/render.py` rewrites what stands between the markers `<!-- table NAME -->` and
`<!-- end table -->` in the README, `benchmarks/README.md` and `docs`; `--check` only says which
pages are out of date. NAME is a record in `benchmarks/results`, with its provenance below the
table, or a table in `benchmarks/tables`, which has labels of its own and cells of records.
`rows=a,b` and `columns=c,d` after the name select; `plain` leaves the remarks out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks/results"
TABLES = ROOT / "benchmarks/tables"
FACTS = {
    "title": str,
    "command": (str, list),
    "likejax": str,
    "software": str,
    "hardware": str,
    "seed": (int, str),
    "kind": str,
    "draws": (int, str),
    "standard_error": str,
    "wall_time": str,
    "digits": int,
    "columns": list,
    "rows": list,
}
"""What every record states, and the types of it; a fact that nobody noted is "not recorded"."""
SIGNS = {"bound": "<= ", "exact": "= ", "estimate": "~ "}
MARKED = re.compile(r"(<!-- table ([^>]*?) -->\n).*?(<!-- end table -->)", re.S)

Cell = str | int | float | dict
Row = Mapping[str, Cell]


@dataclasses.dataclass(frozen=True)
class Marker:
    """What a marker asks for."""

    name: str
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    plain: bool = False


def read_marker(text: str) -> Marker:
    """Reads ``NAME [rows=...] [columns=...] [plain]``; names with spaces stand in quotes.

    Raises:
      ValueError: If a word is none of these.
    """
    name, *words = shlex.split(text)
    chosen: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, _, value = word.partition("=")
        if word != "plain" and key not in ("rows", "columns"):
            raise ValueError(f"expected rows=..., columns=... or plain after {name!r}, got {word}")
        if word != "plain":
            chosen[key] = tuple(value.split(","))
    return Marker(name, chosen.get("rows"), chosen.get("columns"), "plain" in words)


def records() -> dict[str, dict]:
    """Returns all records by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))}


def find_cell(source: Mapping[str, str]) -> tuple[Cell, int]:
    """Returns a cell of a record by record, row and column, and the digits of that record."""
    record = json.loads((RECORDS / f"{source['record']}.json").read_text())
    for row in record["rows"]:
        if row.get("id") == source["row"]:
            return row[source["column"]], record["digits"]
    raise ValueError(f"no row {source['row']!r} in the record {source['record']!r}")


def number(value: float, digits: int) -> str:
    """Writes an integer with commas, another number with as many digits as were measured."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}"


def shown(cell: Cell, digits: int) -> str:
    """Writes one cell."""
    if isinstance(cell, str):
        return cell
    if not isinstance(cell, dict):
        return number(cell, digits)
    if "record" in cell:
        return shown(*find_cell(cell))
    digits = cell.get("digits", digits)
    parts = [SIGNS.get(cell.get("kind", ""), ""), number(cell["value"], digits)]
    if "label" in cell:
        parts.insert(0, f"{cell['label']} ")
    if "error" in cell:
        parts.append(f" ± {number(cell['error'], digits)}")
    if "unit" in cell:
        parts.append(f" {cell['unit']}")
    for key, form in {"quartiles": " ({}–{})", "interval": " [{}, {}]"}.items():
        if key in cell:
            parts.append(form.format(*(number(each, digits) for each in cell[key])))
    return "".join(parts)


def markdown(columns: Sequence[str], rows: Sequence[Row], digits: int) -> str:
    """Writes a table of pipes."""
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[shown(row[column], digits) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def selected(table: Mapping, marker: Marker) -> tuple[Sequence[str], list[Row]]:
    """Returns the columns and rows that a marker asks for.

    Raises:
      ValueError: If the table lacks one of them.
    """
    rows = list(table["rows"])
    if marker.rows is not None:
        by_id = {row.get("id"): row for row in rows}
        rows = [by_id[name] for name in marker.rows if name in by_id]
        if len(rows) < len(marker.rows):
            raise ValueError(f"{marker.name} has the rows {list(by_id)}, asked for {marker.rows}")
    columns = marker.columns or table["columns"]
    missing = set(columns) - set(table["columns"])
    if missing:
        raise ValueError(f"{marker.name} lacks the columns {sorted(missing)}")
    return columns, rows


def provenance(record: Mapping) -> str:
    """Returns where the numbers of a record come from, in one sentence."""
    command = record["command"]
    commands = [command] if isinstance(command, str) else command
    quoted = [each if each.startswith("see ") else f"`{each}`" for each in commands]
    facts = {
        "Command": ", ".join(quoted),
        "likejax": record["likejax"],
        "on": f"{record['hardware']}, {record['software']}",
        "seed": record["seed"],
        "kind": record["kind"],
        "draws": record["draws"],
        "errors": record["standard_error"],
        "time": record["wall_time"],
    }
    return "; ".join(f"{name}: {value}" for name, value in facts.items()) + "."


def rendered(text: str) -> str:
    """Returns what stands between the markers of a marker's text."""
    marker = read_marker(text)
    path = RECORDS / f"{marker.name}.json"
    is_record = path.exists()
    if not is_record:
        path = TABLES / f"{marker.name}.json"
    table = json.loads(path.read_text())
    columns, rows = selected(table, marker)
    blocks = [markdown(columns, rows, table.get("digits", 0))]
    if is_record:
        blocks = [f"**{table['title']}**", *blocks, provenance(table)]
        if not marker.plain:
            blocks += table.get("remarks", [])
    return "\n\n".join(blocks)


def updated(page: str) -> str:
    """Returns a page with its tables as the records say."""
    return MARKED.sub(lambda match: f"{match[1]}\n{rendered(match[2])}\n\n{match[3]}", page)


def pages() -> list[Path]:
    """Returns the pages that have tables of records."""
    found = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    return [path for path in found if MARKED.search(path.read_text())]


def outdated() -> list[Path]:
    """Returns the pages whose tables are not those of the records."""
    return [path for path in pages() if updated(path.read_text()) != path.read_text()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if out of date")
    check = parser.parse_args().check
    paths = outdated()
    for path in paths:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'is written'}")
        if not check:
            path.write_text(updated(path.read_text()))
    return 1 if check and paths else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every comparison with other libraries anew, by one command: times, tables and the picture.

    python benchmarks/speed.py            # all of them, three quarters of an hour on two cores
    python benchmarks/speed.py glow vdm   # those of these scripts

It runs the commands that the records name, one after the other, each with ``--record``, and then
writes the tables and the picture. A record whose command fails stays as it is. ``--list`` prints
the commands. Needs ``pip install -e '.[benchmarks]'``, and nothing else that runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
AFTER = ("benchmarks/render.py", "benchmarks/speed_picture.py")


def commands() -> list[str]:
    """Returns the commands whose times are in the records, each of which has its parts."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [part["command"] for record in records for part in record.get("parts", [])]


def chosen(scripts: Sequence[str]) -> list[str]:
    """Returns the commands of some scripts, or of all.

    Args:
      scripts: Names of scripts without their ending; none for all.

    Raises:
      ValueError: If a script has no command in the records.
    """
    of_scripts = {command: Path(shlex.split(command)[1]).stem for command in commands()}
    unknown = set(scripts) - set(of_scripts.values())
    if unknown:
        known = ", ".join(dict.fromkeys(of_scripts.values()))
        raise ValueError(f"expected names among {known}, got {', '.join(sorted(unknown))}")
    return [command for command, script in of_scripts.items() if not scripts or script in scripts]


def run(command: str) -> bool:
    """Runs a command in the checkout with this Python; returns whether it succeeded."""
    print(f"\n$ {command}", flush=True)
    _, *arguments = shlex.split(command)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode == 0


def main() -> int:
    """Times everything that was chosen and writes tables and picture; returns the exit code."""
    summary, _, text = (__doc__ or "").partition("\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=f"{summary}\n{text}", formatter_class=form)
    parser.add_argument("scripts", nargs="*", help="names of benchmarks, such as glow; all if none")
    parser.add_argument("--list", action="store_true", help="print the commands and end")
    given = parser.parse_args()
    try:
        wanted = chosen(given.scripts)
    except ValueError as error:
        parser.error(str(error))
    if given.list:
        print("\n".join(wanted))
        return 0
    failed = [command for command in wanted if not run(f"{command} --record")]
    failed += [script for script in AFTER if not run(f"python {script}")]
    for command in failed:
        print(f"failed: {command}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

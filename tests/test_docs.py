"""What the documentation shows runs: docstring examples, README blocks, notebooks."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import likejax
from tests import forks

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
PAGES = [path for path in PAGES if "_build" not in path.parts]
MEASUREMENTS = README + (ROOT / "benchmarks/README.md").read_text()
TEXTS = MEASUREMENTS + "".join(path.read_text() for path in PAGES)
LINKED = [*PAGES, *ROOT.glob("*.md"), ROOT / "benchmarks/README.md"]
MODULES = [m.name for m in pkgutil.walk_packages(likejax.__path__, "likejax.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


def blocks_of(text: str, language: str) -> list[str]:
    """The fenced blocks of a page that are in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def run_python(code: str, directory: Path, *, timeout: int) -> str:
    """Runs a program in a process of its own and returns what it prints."""
    ast.parse(code)
    return run_in_fork(forks.run_program, code, directory, timeout=timeout)


def run_in_fork(run: Callable[..., None], what: str, directory: Path, *, timeout: int) -> str:
    """Has a function of ``forks`` run something in a directory and returns what is printed."""
    printed, warned = directory / "printed.txt", directory / "warned.txt"
    process = forks.START.Process(
        target=run, args=(what, str(directory), str(printed), str(warned))
    )
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"the program runs for more than {timeout} s")
    assert process.exitcode == 0, printed.read_text()[-3000:] + warned.read_text()[-3000:]
    return printed.read_text()


def test_readme_python(tmp_path):
    """The README's Python prints what the README says, up to the last digits of a short training.

    Tests compile without XLA's optimizations, which sum in another order.
    """
    (code,) = blocks_of(README, "python")
    (shown,) = blocks_of(README, "text")
    printed = run_python(code, tmp_path, timeout=300)
    number = r"-?\d+\.\d*"
    # The blanks beside a number depend on the digits of its neighbors in an array.
    words = [re.sub(rf"\s*{number}\s*", " # ", text).split() for text in (shown, printed)]
    assert words[0] == words[1]
    pairs = zip(re.findall(number, shown), re.findall(number, printed), strict=True)
    for stated, found in pairs:
        assert abs(float(stated) - float(found)) < 0.05 + 0.02 * abs(float(stated)), printed


def test_readme_is_short():
    assert len(README.splitlines()) <= 120


PROGRAMS = {
    str(path.relative_to(ROOT / "docs").with_suffix("")): blocks_of(path.read_text(), "python")
    for path in PAGES
}
"""The Python blocks of each page, by its name."""


@pytest.mark.parametrize("page", [name for name, blocks in PROGRAMS.items() if blocks])
def test_pages_run(page, tmp_path):
    """The Python of a page, run as one program."""
    run_python("\n".join(PROGRAMS[page]), tmp_path, timeout=120)


@pytest.mark.parametrize("page", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Links and pictures that name a file of the repository name one that exists."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_every_family_has_a_page():
    """Each page of a family is in the list, and names its paper or says what it is."""
    index = (ROOT / "docs/families/index.md").read_text()
    for path in (ROOT / "docs/families").glob("*.md"):
        if path.stem != "index":
            assert re.search(rf"^{path.stem}$", index, re.M), path.stem
            text = path.read_text()
            assert "## Measured" in text, path.stem
            assert "](../pictures/" in text, path.stem


def test_the_page_of_scores_names_them_all():
    page = (ROOT / "docs/scores.md").read_text()
    for name, value in vars(likejax.ood).items():
        is_score = isinstance(value, type) and issubclass(value, likejax.ood.Score)
        if is_score and value is not likejax.ood.Score:
            assert f"`{name}" in page, name


def test_readme_commands_exist():
    """Every `likejax ...` command in the README and the pages is one, and its presets are."""
    text = TEXTS
    from likejax.cli import COMMANDS

    programs = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", text, re.S | re.M))
    used = {*re.findall(r"^likejax (\w+)", programs, re.M), *re.findall(r"`likejax (\w+)", text)}
    assert used
    assert used <= set(COMMANDS)
    trained = set(re.findall(r"likejax train\s([\w/-]+)", text)) - {"PRESET"}  # a placeholder
    assert len(trained) > 5
    assert trained <= set(likejax.PRESETS)


def test_cards_have_the_numbers_of_the_readme():
    """What the card of a preset says was measured is in the README or beside the benchmarks."""
    readme = MEASUREMENTS
    stated = 0
    for name, preset in likejax.PRESETS.items():
        for value, error in re.findall(r"(\d+\.\d+) ± (\d+\.\d+)", preset.trained):
            stated += 1
            assert f"{value} ± {error}" in readme, f"the card of {name} says {value} ± {error}"
    assert stated >= 10


def test_the_readme_leans_on_nothing_that_is_gone():
    """Scripts that it names are in the tree, and options of `likejax train` exist."""
    readme = TEXTS
    assert "not kept" not in readme
    assert "no\npreset" not in readme
    for script in re.findall(r"(?:benchmarks|tests)/[\w*]+\.py", readme):
        assert list(ROOT.glob(script)), script
    from likejax.settings import Settings

    for preset, option in re.findall(r"train ([\w/-]+) --(model\.[\w-]+)", readme):
        model = likejax.preset(preset).model
        assert isinstance(model, Settings)
        assert hasattr(model, option.removeprefix("model.").replace("-", "_")), option


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_page_of_notebooks_names_them_all():
    """In its table, and in its list of pages, whose sources are the notebooks themselves."""
    page = (ROOT / "docs/notebooks.md").read_text()
    names = {path.stem for path in NOTEBOOKS}
    assert set(re.findall(r"^\| `(\w+)`", page, re.M)) == names
    assert set(re.findall(r"^notebooks/(\w+)$", page, re.M)) == names
    assert (ROOT / "docs/notebooks").resolve() == ROOT / "notebooks"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_short_and_hold_no_outputs(path):
    """Outputs are stripped, there are fewer than 15 cells of code, and its Python file agrees."""
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) < 15
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    program = path.with_suffix(".py").read_text().replace("# %matplotlib", "%matplotlib")
    assert "LIKEJAX_SMOKE" in "".join(code[0]["source"])
    for cell in code:
        assert "".join(cell["source"]) in program


IN_JUPYTER = "simulation_based_inference"
"""The shortest notebook, which a kernel of Jupyter runs."""


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.stem != IN_JUPYTER], ids=lambda path: path.stem
)
def test_notebooks_run(path, tmp_path):
    """Each notebook runs from top to bottom, with small models and few steps."""
    run_in_fork(forks.run_notebook, str(path), tmp_path, timeout=500)


def test_a_notebook_runs_in_jupyter():
    """One of them, from top to bottom in the same way."""
    path = ROOT / f"notebooks/{IN_JUPYTER}.ipynb"
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--nbmake",
            "--nbmake-timeout=500",
            "-p",
            "no:xdist",
            "-W",
            "default",
            str(path),
        ],
        cwd=ROOT,
        env=os.environ | {"LIKEJAX_SMOKE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout

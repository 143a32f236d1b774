"""The wheel and the sdist build, and what is installed from the wheel runs, without a network."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERSION = importlib.metadata.version("likejax")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "likejax")


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command that sees nothing of the repository but what it is given."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with both distributions, built from a copy of the sources."""
    place = tmp_path_factory.mktemp("built")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, place / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, place / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", cwd=place)
    return place / "dist"


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; the packages that it needs are those of this process."""
    place = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place)
    python = place / "bin/python"
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-index", "--no-deps", wheel, cwd=place)
    (site,) = place.glob("lib/python*/site-packages")
    here = {sysconfig.get_path("purelib"), *(path for path in sys.path if "site-packages" in path)}
    (site / "needed.pth").write_text("\n".join(sorted(here)))
    return place


def test_what_the_distributions_hold(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packages = {str(path.relative_to(ROOT)) for path in (ROOT / "likejax").rglob("*.py")}
    weights = {str(path.relative_to(ROOT)) for path in (ROOT / "likejax/weights").glob("*-*.*")}
    assert weights
    assert packages | weights <= names
    assert "likejax/py.typed" in names
    assert f"likejax-{VERSION}.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = set(archive.getnames())
    assert {f"likejax-{VERSION}/{name}" for name in SOURCES} <= held


def test_the_installed_program_says_its_version(environment, tmp_path):
    program = environment / "bin/likejax"
    assert run(program, "--version", cwd=tmp_path).strip() == VERSION
    python = environment / "bin/python"
    assert run(python, "-m", "likejax", "--version", cwd=tmp_path).strip() == VERSION


def test_the_installed_package_computes(environment, tmp_path):
    code = """
import likejax as lj
print(lj.__file__)
test = lj.load("digits", split="test")
print(lj.evaluate(lj.models.PixelHistogram.fit(lj.load("digits", split="train")), test))
"""
    place, value = run(environment / "bin/python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(environment)
    assert value.startswith("bits/dim = 2.43")


def test_the_citation_names_this_version():
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def test_an_extra_has_what_the_benchmarks_import():
    """Besides the standard library, the dependencies of likejax, and their own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["benchmarks"]]
    declared = {re.split(r"[^\w-]", each)[0].replace("-", "_") for each in needed}
    of_diffrax, of_flowjax, of_distrax = {"equinox"}, {"paramax"}, {"tensorflow_probability"}
    declared |= {"likejax", "sklearn"} | of_diffrax | of_flowjax | of_distrax
    scripts = list((ROOT / "benchmarks").glob("*.py"))
    declared |= set(sys.stdlib_module_names) | {path.stem for path in scripts}
    imported = set()
    for path in scripts:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert imported >= {"torch", "zuko"}
    assert imported <= declared

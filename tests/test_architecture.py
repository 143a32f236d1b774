"""Import layers, public names, start-up cost."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import likejax
import likejax.plot
from benchmarks import code_metrics
from tests.conftest import slow_tests

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(likejax.__file__).parent
LAYERS = [
    {"compilation", "facts", "keys", "legacy", "memory", "names", "processes", "progress"},
    {"settings", "inputs", "precision", "batching", "devices", "rounding"},
    {"records"},
    {"density"},
    {"data", "nn", "distributions", "plot"},
    {"bijections"},
    {"models"},
    {"objectives", "evaluation", "exporting", "storage"},
    {"experiment", "classification"},
    {"train"},
    {"ood"},
    {"presets", "reference", "weights", "hub"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Parts of likejax that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "likejax"
        ):
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            found |= {name if name in LEVEL else "" for name in names}
        elif isinstance(node, ast.Import):
            found |= {"" for alias in node.names if alias.name.split(".")[0] == "likejax"}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    """A module imports lower layers and its own part only; the command line also the public API."""
    own = part(path)
    assert own in LEVEL, f"{own} has no layer"
    for other in imported_parts(path):
        if other == "":
            assert own == "cli", f"{path.name} imports the top level"
        else:
            assert other == own or LEVEL[other] < LEVEL[own], f"{own} imports {other}"


def test_names_say_something():
    for path in modules():
        assert not path.stem.startswith(
            ("utils", "helpers", "common", "misc", "base_", "manager")
        ), path


def test_modules_are_taken_apart_in_one_place():
    """NNX's split and merge stay in one file; its transforms stay out of the library."""
    for path in modules():
        text = path.read_text()
        for name in ("nnx.jit", "nnx.grad", "nnx.Optimizer"):
            assert name not in text, f"{path.name} uses {name}"
        if path != PACKAGE / "nn" / "state.py":
            for name in ("nnx.split", "nnx.merge"):
                assert name not in text, f"{path.name} uses {name}"


def module_name(path: Path) -> str:
    """``likejax.data.steps`` of ``likejax/data/steps.py``; a package's name of its ``__init__``."""
    words = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Modules that a file imports anywhere in it, also for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module)
    return found & known


def reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Modules that ``start`` imports, directly or through others."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def test_no_import_circles():
    """No module imports itself through others, inside a package either, nor for types only."""
    paths = {module_name(path): path for path in modules()}
    graph = {name: imported_modules(path, set(paths)) for name, path in paths.items()}
    circular = sorted(name for name in graph if name in reachable(name, graph))
    assert circular == []


def test_docstrings_stand_alone():
    """Every entry of a docstring begins with a noun: what it describes is its subject."""
    headless = re.compile(r"^\s+[\w*, ]+: (Of|As|What|How|Which|Puts|That|Those)\b")
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                lines = (ast.get_docstring(node) or "").splitlines()
                found = [line for line in lines if headless.match(line)]
                assert not found, f"{path.name}, {node.name}: {found}"


def public_functions(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Public functions of a module, and public methods of its public classes."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and child.name[0] != "_":
            if isinstance(child, ast.ClassDef):
                yield from public_functions(child)
            else:
                yield child


def arguments_of(function: ast.FunctionDef) -> set[str]:
    """Names of the arguments that a caller gives."""
    given = function.args
    found = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {each.arg for each in found if each is not None} - {"self", "cls"}


def described_arguments(function: ast.FunctionDef) -> set[str]:
    """Names of the entries of ``Args`` in a docstring."""
    text = ast.get_docstring(function) or ""
    sections = re.findall(r"^Args:\n((?:  .*\n|\n)+)", f"{text}\n", re.M)
    entries = re.findall(r"^  ([\w*][\w*, ]*): ", "".join(sections), re.M)
    return {name.strip(" *") for entry in entries for name in entry.split(",")}


def wrongly_described(tree: ast.Module) -> list[str]:
    """Functions whose ``Args`` lack an argument, or have one that there is not."""
    wrong = []
    for function in public_functions(tree):
        decorators = {ast.unparse(each) for each in function.decorator_list}
        if "override" in decorators:  # what it overrides describes its arguments
            continue
        if arguments_of(function) != described_arguments(function) - {"self", "cls"}:
            wrong.append(function.name)
    return wrong


def test_docstrings_describe_every_argument():
    wrong = {
        module_name(path): names
        for path in modules()
        if (names := wrongly_described(ast.parse(path.read_text())))
    }
    assert wrong == {}


def test_a_missing_argument_is_found():
    """The test above sees what is missing, left over or hidden in a class."""
    described = '"""Adds.\n\nArgs:\n  x: Number.\n  *more: Numbers:\n    any: other.\n"""'
    source = f"""
def right(x, *more): {described}
def missing(x): "Adds."
def renamed(y, *more): {described}
def _private(x): "Adds."
class Public:
    def method(self, x): "Adds."
    @override
    def known(self, x): "Adds."
"""
    assert wrongly_described(ast.parse(source)) == ["missing", "renamed", "method"]


ROOMS = {
    "lj": likejax,
    "lj.models": likejax.models,
    "lj.bijections": likejax.bijections,
    "lj.data": likejax.data,
    "lj.train": likejax.train,
    "lj.ood": likejax.ood,
    "lj.plot": likejax.plot,
}


def public_objects(room) -> dict[str, object]:
    """Classes and functions of the library that a module exports."""
    found = {}
    for name, value in vars(room).items():
        is_ours = getattr(value, "__module__", "").startswith("likejax")
        if name[0] != "_" and is_ours and (inspect.isclass(value) or inspect.isfunction(value)):
            found[name] = value
    return found


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_every_public_name_has_an_example(room):
    missing = []
    for name, value in public_objects(room).items():
        is_error = isinstance(value, type) and issubclass(value, BaseException)
        if not is_error and ">>> " not in (value.__doc__ or ""):
            missing.append(name)
    assert missing == []


def test_no_function_hides_a_module_of_its_name():
    for path in modules():
        name = module_name(path)
        package, _, word = name.rpartition(".")
        value = getattr(importlib.import_module(package), word, None)
        assert value is None or inspect.ismodule(value), f"{package}.{word} hides {name}"


def test_types_are_announced():
    """PEP 561: type checkers of users read the annotations."""
    assert (PACKAGE / "py.typed").exists()


def test_only_one_place_knows_log_two():
    """Bits become nats, and the reverse, in ``bits_per_dim`` alone."""
    for path in modules():
        if path == PACKAGE / "density.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                of_two = any(
                    isinstance(each, ast.Constant) and each.value == 2 for each in node.args
                )
                assert name not in ("log2", "exp2"), f"{path}, line {node.lineno}"
                assert not (name == "log" and of_two), f"{path}, line {node.lineno}"


def run(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


def test_import_is_light():
    """`import likejax` imports no heavy package."""
    heavy = [
        "tensorflow",
        "torch",
        "matplotlib",
        "tensorflow_datasets",
        "sklearn",
        "tyro",
        "diffrax",
        "PIL",
    ]
    loaded = run(f"import likejax, sys; print([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_import_time(tmp_path):
    """`import likejax` adds under 1.5 s to `import jax`, median of three warm starts.

    A warm start finds its bytecode, also where the machine of the tests writes none. Processor time
    does not count what else the machine does.
    """
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    clock = "time.process_time()"
    code = f"import time, jax; start = {clock}; import likejax; print({clock} - start)"
    run(code, **bytecode)
    assert statistics.median(float(run(code, **bytecode)) for _ in range(3)) < 1.5


def test_few_names_stand_at_the_top():
    """What completion shows; and nothing else but submodules is bound there."""
    shown = {name for name in dir(likejax) if name[0] != "_"}
    submodules = {name for name in shown if inspect.ismodule(getattr(likejax, name))}
    assert submodules == {"bijections", "data", "hub", "memory", "models", "ood", "plot", "train"}
    assert len(shown - submodules) <= 25
    others = {name: value for name, value in vars(likejax).items() if name not in dir(likejax)}
    assert all(inspect.ismodule(value) for value in others.values()), others


MOVED = ["Run", "fit_ensemble", "weight_noise_ensemble", "datasets", *likejax._MOVED]


@pytest.mark.parametrize("name", MOVED)
def test_a_name_that_moved_leads_to_its_place(name):
    with pytest.raises(AttributeError) as error:
        getattr(likejax, name)
    (place,) = re.findall(r"; it is ([\w.]+) now$", str(error.value))
    value = eval(place, {"lj": likejax, "likejax": likejax})
    assert value.__name__ == name
    assert ">>> " in value.__doc__


def test_public_names_are_documented():
    for name in dir(likejax):
        value = getattr(likejax, name)
        if not name.startswith("_") and callable(value):
            assert value.__doc__, name


def test_the_code_meets_its_targets():
    """The numbers that `benchmarks/code_metrics.py` prints."""
    values = code_metrics.measure(code_metrics.sources())
    missed = {
        name: values[name] for name, limit in code_metrics.TARGETS.items() if values[name] >= limit
    }
    assert missed == {}


def test_the_list_of_slow_tests_names_tests():
    """A renamed test would leave the list, and slow everybody down, without a word."""
    for name in slow_tests():
        file, function = name.split("[")[0].split("::")
        assert f"\ndef {function}(" in (ROOT / file).read_text(), name

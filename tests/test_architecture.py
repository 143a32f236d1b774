"""Import layers, public names, start-up cost."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import likejax

PACKAGE = Path(likejax.__file__).parent
LAYERS = [
    {
        "settings",
        "compilation",
        "keys",
        "inputs",
        "precision",
        "legacy",
        "progress",
        "batching",
        "rounding",
    },
    {"density"},
    {"data", "nn", "distributions", "plot"},
    {"bijections"},
    {"models"},
    {"objectives", "evaluation", "exporting", "storage"},
    {"experiment"},
    {"train"},
    {"ood"},
    {"presets", "reference"},
    {"demo"},
    {"cli"},
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
    """A module imports from lower layers and its own part only; the command line may use the public API."""
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
    """NNX's split, merge and transforms stay out of the library; the train state has the one way in and out."""
    for path in modules():
        text = path.read_text()
        for name in ("nnx.split", "nnx.merge", "nnx.jit", "nnx.grad", "nnx.Optimizer"):
            assert name not in text, f"{path.name} uses {name}"


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


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_is_light():
    """No TensorFlow, PyTorch, matplotlib, orbax, diffrax, TFDS, scikit-learn or tyro on `import likejax`."""
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


@pytest.mark.slow
def test_import_time():
    """`import likejax` adds under 1.5 s to `import jax`, median of five warm starts."""
    code = (
        "import time, jax; t = time.perf_counter(); import likejax; print(time.perf_counter() - t)"
    )
    run(code)
    assert statistics.median(float(run(code)) for _ in range(5)) < 1.5


def test_public_names_are_documented():
    for name in dir(likejax):
        value = getattr(likejax, name)
        if not name.startswith("_") and callable(value):
            assert value.__doc__, name

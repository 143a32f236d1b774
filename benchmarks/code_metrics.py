"""How the library is written, in numbers, and the targets of its house style.

    python benchmarks/code_metrics.py [--files] [--long] [--foreign] [--any]

A token is one of Python's ``tokenize``, without comments, docstrings and line ends; a line of code
has at least one.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "likejax"
LONG_FUNCTION = 40
"""Lines of a body, without its docstring, above which a function is long."""
TARGETS: Mapping[str, float] = {
    "median tokens a line": 9,
    "functions over 40 lines, %": 1,
    "parameters typed Any, %": 2,
    "foreign private uses": 1,
}
"""Each number must stay below its target."""
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)
_PUBLIC_ALL_THE_SAME = ("_replace", "_asdict", "_fields", "_make", "_exit")
"""What Python documents of named tuples, and ``os._exit``, underscores all the same."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of the package.

    Attributes:
      path: Place of the file.
      text: Content of the file.
      tree: Syntax tree of the content.
    """

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Path of the file inside the package."""
        return str(self.path.relative_to(PACKAGE))

    def nodes(self, *kinds: type) -> Iterator[ast.AST]:
        """All nodes of some kinds."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


def sources() -> list[Source]:
    """All files of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        found.append(Source(path, text, ast.parse(text)))
    return found


def docstring_lines(source: Source) -> set[int]:
    """Numbers of the lines that belong to a string which stands alone: a docstring."""
    lines: set[int] = set()
    for node in source.nodes(ast.Expr):
        assert isinstance(node, ast.Expr)
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def tokens_per_line(source: Source) -> list[int]:
    """Number of tokens on each line of code."""
    left_out = docstring_lines(source)
    counts: Counter[int] = Counter()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        line = token.start[0]
        if token.type not in _NO_CODE and line not in left_out:
            counts[line] += 1
    return list(counts.values())


def body_length(function: Function) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    if not body:
        return 0
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1


def functions(source: Source) -> list[Function]:
    """All functions and methods of a file."""
    return list(source.nodes(ast.FunctionDef, ast.AsyncFunctionDef))  # type: ignore[arg-type]


def parameters(function: Function) -> list[ast.arg]:
    """All parameters of a function that have an annotation."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    return [each for each in named if each.annotation is not None]


def is_any(parameter: ast.arg) -> bool:
    """Whether the annotation is ``Any`` and nothing else."""
    return isinstance(parameter.annotation, ast.Name) and parameter.annotation.id == "Any"


def is_private(name: str) -> bool:
    """Whether a name is meant for its own module or class."""
    return name.startswith("_") and not name.startswith("__") and name not in _PUBLIC_ALL_THE_SAME


def own_names(source: Source) -> set[str]:
    """Private names that a file defines: functions, classes, attributes and fields."""
    definitions = source.nodes(ast.FunctionDef, ast.ClassDef)
    names = {node.name for node in definitions}  # type: ignore[attr-defined]
    for node in source.nodes(ast.Name, ast.Attribute):
        if isinstance(node.ctx, ast.Store):  # type: ignore[attr-defined]
            name = node.id if isinstance(node, ast.Name) else node.attr  # type: ignore[attr-defined]
            names.add(name)
    return names


def foreign_uses(source: Source) -> list[str]:
    """Uses of private names that belong to another module or to an object of another module.

    ``self``, ``cls``, ``super()`` and ``sys`` may be asked for anything private, every other object
    for private names that the file defines itself: a wrapper calls the method it implements.
    """
    own = own_names(source)
    found = []
    for node in source.nodes(ast.ImportFrom):
        assert isinstance(node, ast.ImportFrom)
        names = [alias.name for alias in node.names if is_private(alias.name)]
        found += [f"{source.name}:{node.lineno} import {name}" for name in names]
    for node in source.nodes(ast.Attribute):
        assert isinstance(node, ast.Attribute)
        if is_private(node.attr) and node.attr not in own and not _is_own_object(node.value):
            found.append(f"{source.name}:{node.lineno} {ast.unparse(node)}")
    return found


def _is_own_object(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls", "sys")


def measure(files: list[Source]) -> dict[str, float]:
    """The numbers of the package, by name; those in ``TARGETS`` among them."""
    tokens = [count for source in files for count in tokens_per_line(source)]
    lengths = [body_length(each) for source in files for each in functions(source)]
    typed = [each for source in files for f in functions(source) for each in parameters(f)]
    long = sum(length > LONG_FUNCTION for length in lengths)
    lines = [len(source.text.splitlines()) for source in files]
    return {
        "files": len(files),
        "lines": sum(lines),
        "lines a file, median": statistics.median(lines),
        "median tokens a line": statistics.median(tokens),
        "mean tokens a line": statistics.mean(tokens),
        "functions": len(lengths),
        "functions over 40 lines, %": 100 * long / len(lengths),
        "parameters typed Any, %": 100 * sum(map(is_any, typed)) / len(typed),
        "foreign private uses": sum(len(foreign_uses(source)) for source in files),
    }


def long_functions(files: list[Source]) -> list[str]:
    """Place, name and length of every long function."""
    return [
        f"{source.name}:{each.lineno} {each.name} {body_length(each)}"
        for source in files
        for each in functions(source)
        if body_length(each) > LONG_FUNCTION
    ]


def untyped(files: list[Source]) -> list[str]:
    """Place, function and name of every parameter that is typed ``Any``."""
    return [
        f"{source.name}:{parameter.lineno} {function.name}({parameter.arg})"
        for source in files
        for function in functions(source)
        for parameter in parameters(function)
        if is_any(parameter)
    ]


def main() -> None:
    """Prints the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", action="store_true", help="also lines and tokens of each file")
    parser.add_argument("--long", action="store_true", help="also the long functions")
    parser.add_argument("--foreign", action="store_true", help="also the foreign private uses")
    parser.add_argument("--any", action="store_true", help="also the parameters typed Any")
    arguments = parser.parse_args()
    files = sources()
    for name, value in measure(files).items():
        target = f"   (target below {TARGETS[name]:g})" if name in TARGETS else ""
        print(f"{name:30} {value:10.2f}{target}")
    if arguments.files:
        for source in files:
            tokens = tokens_per_line(source) or [0]
            lines = len(source.text.splitlines())
            print(f"{source.name:44} {lines:5} lines {statistics.mean(tokens):6.1f} tokens a line")
    if arguments.long:
        print("\n".join(long_functions(files)))
    if arguments.any:
        print("\n".join(untyped(files)))
    if arguments.foreign:
        print("\n".join(use for source in files for use in foreign_uses(source)))


if __name__ == "__main__":
    main()

"""How the parser reads the dataclasses of the command line: plain help, and errors of settings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from likejax.cli.options import Command, UsageError
from likejax.settings import hints_of, setting_names

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|References|Example):$", re.M)
"""Title that ends the description at the beginning of a docstring."""


class _Refused(Exception):
    """Error of settings that refuse a value.

    It is no ValueError, which the parser would show with internal names of its own.
    """


def parse(commands: dict[str, type[Command]], args: Sequence[str]) -> Command:
    """Returns the command of a command line.

    Args:
      commands: Commands by name.
      args: Words of the command line.

    Raises:
      UsageError: If a setting refuses its value.
      SystemExit: From the parser, after ``--help`` with code 0 and for wrong arguments with 2.
    """
    registry = ConstructorRegistry()
    registry.struct_rule(_Rule())
    try:
        return tyro.extras.subcommand_cli_from_dict(
            commands,
            args=list(args),
            prog="likejax",
            description="Likelihood-based generative density models: train, evaluate in bits/dim, "
            "sample, and detect out-of-distribution data.",
            registry=registry,
        )
    except _Refused as refused:
        message = _with_options(str(refused), commands[args[0]])
        raise UsageError(message) from refused.__cause__


class _Rule:
    """Rule for dataclasses: the parser's own, with plain help and with ``_Refused`` for errors."""

    def __init__(self) -> None:
        self._is_asking = False

    def __call__(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        """Returns how a dataclass is described and built; ``None`` leaves it to other rules."""
        if self._is_asking or not dataclasses.is_dataclass(info.type):
            return None
        self._is_asking = True
        try:
            found = ConstructorRegistry.get_struct_spec(info)
        finally:
            self._is_asking = False
        if not isinstance(found, StructConstructorSpec):
            return None
        fields = tuple(_with_plain_help(field) for field in found.fields)
        return StructConstructorSpec(_refusing(found.instantiate, info.type), fields)


def _with_plain_help(field: StructFieldSpec) -> StructFieldSpec:
    help = field.helptext
    if callable(help):  # the parser reads source code only if help is asked for
        return dataclasses.replace(field, helptext=functools.partial(_plain_result, help))
    return dataclasses.replace(field, helptext=_plain(help))


def _plain_result(help: Callable[[], str | None]) -> str | None:
    return _plain(help())


def _plain(text: str | None) -> str | None:
    """A text of docstrings in a terminal: one line a paragraph, without double backticks."""
    if text is None:
        return None
    paragraphs = [" ".join(each.split()) for each in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(paragraphs).replace("``", "`")


def _refusing(build: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """A function that builds settings and raises ``_Refused`` for their errors."""

    def built(**values: object) -> object:
        try:
            return build(**values)
        except (ValueError, TypeError) as error:
            raise _Refused(str(error)) from error

    description, *_ = _SECTION.split(inspect.cleandoc(kind.__doc__ or ""))
    built.__doc__ = _plain(description)  # the parser's description of the options
    return built


def _with_options(message: str, kind: type[Command]) -> str:
    """An error of settings in the words of the command line: options in place of fields."""
    for field, options in _options_of_fields(kind).items():
        message = re.sub(rf"\b{re.escape(field)}\b", " or ".join(options), message)
    return message


def _options_of_fields(kind: type[Command]) -> dict[str, list[str]]:
    """Options by the name of a field in error messages, such as ``Optimizer.learning_rate``."""
    owners = dict.fromkeys(hints_of(kind), kind)
    experiment = getattr(kind, "experiment", None)
    if experiment is not None:
        for name in setting_names(experiment):
            outer = name.split(".")[:-1]
            owners[name] = type(functools.reduce(getattr, outer, experiment))
    options: dict[str, list[str]] = {}
    for name, owner in owners.items():
        field = f"{owner.__name__}.{name.split('.')[-1]}"
        options.setdefault(field, []).append(f"--{name.replace('_', '-')}")
    return options

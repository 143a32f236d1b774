"""Records in JSON of settings and of what a user brings.

A record names the class of every dataclass by its import path, so that classes of users are
restored like those of the library. Reading a record never imports a module of a user's.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from likejax.legacy import was_off
from likejax.settings import can_be_off, hints_of


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A function or object that a record names and cannot hold, such as an optax transformation.

    Attributes:
      path: Dotted path of its definition, ``module.name``.
      settings: Its fields or bound arguments as JSON.

    Example:
      >>> from likejax.records import Recorded, from_record, to_record
      >>> from_record(to_record(sorted))
      Recorded(path='builtins.sorted', settings='{}')
    """

    path: str
    settings: str = "{}"

    def __call__(self, *args: object) -> NoReturn:
        """Raises a ValueError, since only the name is known."""
        raise ValueError(
            f"the run was trained with {self.path}, which its record only names: import it and put "
            "it into the experiment"
        )


def to_record(value: object) -> Any:
    """Returns a value as JSON keeps it.

    A dataclass becomes an object with the import path of its class and its fields. Functions and
    other objects that JSON cannot hold are named only.

    Args:
      value: Settings, or the value of a field.

    Example:
      >>> import likejax as lj
      >>> from likejax.records import to_record
      >>> to_record(lj.Optimizer(name="adamw"))["class"]
      'likejax:Optimizer'
    """
    if isinstance(value, Recorded):
        return {"name": value.path, "settings": json.loads(value.settings)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        record = {name: to_record(getattr(value, name)) for name in fields}
        return {"class": class_path(type(value)), **record}
    if isinstance(value, Mapping):
        return {str(name): to_record(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        is_named_tuple = hasattr(value, "_fields")
        return _named(value) if is_named_tuple else [to_record(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _named(value)


def _named(value: object) -> dict[str, Any]:
    """The name of a function or an object, and the arguments that a partial function holds."""
    settings: dict[str, Any] = {}
    value = getattr(value, "update", value)  # an optax transformation is known by its update
    if isinstance(value, functools.partial):
        settings["args"] = [_as_text(argument) for argument in value.args]
        settings |= {name: _as_text(argument) for name, argument in value.keywords.items()}
        value = value.func
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return {"name": f"{named.__module__}.{named.__qualname__}", "settings": settings}


def _as_text(value: object) -> Any:
    """A plain value as it is, any other as text without its place in memory."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_as_text(item) for item in value]
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def from_record(record: object, *, expected: object = None) -> Any:
    """Returns the value of a record that ``to_record`` made.

    Where ``None`` turns a setting off, the 0 of older versions is read as ``None``.

    Args:
      record: Parsed JSON.
      expected: Type annotation of the value. Records of older versions lack the classes of nested
        settings, which are then taken from here.

    Returns:
      The value; lists become tuples, and what was only named becomes a ``Recorded``.

    Raises:
      ValueError: If a class is not known in this process, or a setting is not allowed.
      TypeError: If a class lacks a setting of the record.

    Example:
      >>> import likejax as lj
      >>> from likejax.records import from_record, to_record
      >>> from_record(to_record(lj.train.Guard(patience=3))).patience
      3
    """
    if isinstance(record, list | tuple):
        inside = typing.get_args(expected)[0] if typing.get_origin(expected) is tuple else None
        return tuple(from_record(item, expected=inside) for item in record)
    if not isinstance(record, Mapping):
        return record
    if record.keys() == {"name", "settings"}:
        return Recorded(str(record["name"]), json.dumps(record["settings"]))
    kind = class_at(record["class"]) if "class" in record else _dataclass_of(expected)
    if kind is None:
        return {name: from_record(item) for name, item in record.items()}
    hints = hints_of(kind)
    fields = {name: item for name, item in record.items() if name != "class"}
    values = {name: _setting(item, hints.get(name)) for name, item in fields.items()}
    return kind(**values)


def _setting(record: object, hint: object) -> Any:
    """The value of a setting, of which older versions wrote 0 where it was off."""
    if can_be_off(hint) and was_off(record):
        return None
    return from_record(record, expected=hint)


def _dataclass_of(hint: object) -> Any:
    """The dataclass that an annotation allows, the first one of a union; ``None`` without one."""
    allowed = [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        allowed = list(typing.get_args(hint))
    for each in allowed:
        if isinstance(each, type) and dataclasses.is_dataclass(each):
            return each
    return None


def class_path(cls: type) -> str:
    """Returns the import path of a class, ``module:Name``; of the library's own the public one.

    Args:
      cls: Any class.

    Example:
      >>> import likejax as lj
      >>> from likejax.records import class_path
      >>> class_path(lj.models.GlowConfig)
      'likejax.models:GlowConfig'
    """
    module, name = cls.__module__, cls.__qualname__
    if module.partition(".")[0] == _OWN:
        parts = module.split(".")
        for length in range(1, len(parts)):
            shorter = ".".join(parts[:length])
            if getattr(sys.modules.get(shorter), name, None) is cls:
                return f"{shorter}:{name}"
    return f"{module}:{name}"


_OWN = __name__.partition(".")[0]


def class_at(path: str) -> type:
    """Returns the dataclass at an import path, if its module is imported already.

    Args:
      path: Import path ``module:Name``, as ``class_path`` makes it.

    Raises:
      ValueError: If the module is not imported, or has no such dataclass.

    Example:
      >>> from likejax.records import class_at
      >>> class_at("likejax.models:GlowConfig").__name__
      'GlowConfig'
    """
    module_name, _, name = str(path).partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        module = _own_module(module_name)
    if module is None:
        raise ValueError(
            f"the record names the class {path}, whose module is not imported: run "
            f"`import {module_name}` first"
        )
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(
            f"the record names the class {path}, and {module_name} has no dataclass of that name: "
            "define it there under this name, at the top of the module"
        )
    return found


def _own_module(name: str) -> types.ModuleType | None:
    """A module of the library that nothing has imported so far."""
    first, *rest = name.split(".")
    is_public = not any(part.startswith("_") for part in rest)
    if first != _OWN or not is_public or "cli" in rest:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None

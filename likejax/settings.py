"""Settings: frozen dataclasses that check themselves, their records in JSON, and their overrides.

The type annotation of a setting defines what it allows, and one function reads it. ``Literal``
lists the allowed words, ``Count`` and the other aliases here give the range of a number, and the
elements of a tuple are checked one by one.

A record names the class of every dataclass by its import path, so that classes of users are
restored like those of the library. Reading a record never imports a module of a user's.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import json
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import numpy as np

from likejax.legacy import modern

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True, repr=False)
class Range:
    """The numbers that a setting allows; a bound that is ``None`` does not apply."""

    at_least: int | float | None = None
    above: int | float | None = None
    at_most: int | float | None = None
    below: int | float | None = None

    def __contains__(self, value: int | float) -> bool:
        if self.at_least is not None and not value >= self.at_least:
            return False
        if self.above is not None and not value > self.above:
            return False
        if self.at_most is not None and not value <= self.at_most:
            return False
        return self.below is None or value < self.below

    def __str__(self) -> str:
        bounds = ((name.replace("_", " "), bound) for name, bound in vars(self).items())
        return " and ".join(f"{name} {bound:g}" for name, bound in bounds if bound is not None)

    __repr__ = __str__


Count = Annotated[int, Range(at_least=1)]
"""A number of things, at least one."""
CountOrZero = Annotated[int, Range(at_least=0)]
"""A number of things, possibly none."""
Levels = Annotated[int, Range(at_least=2, at_most=65536)]
"""How many integer values an entry of the data can take."""
Positive = Annotated[float, Range(above=0)]
"""A real number above 0."""
NonNegative = Annotated[float, Range(at_least=0)]
"""A real number of at least 0."""
Probability = Annotated[float, Range(above=0, below=1)]
"""A real number strictly between 0 and 1."""
Fraction = Annotated[float, Range(at_least=0, below=1)]
"""A real number from 0 to below 1."""


class Settings:
    """Base of frozen dataclasses of settings, which check themselves when they are made.

    Every field is checked against its annotation; lists become tuples and numpy's scalars become
    Python's. A subclass whose fields depend on each other says so in ``_check_together``, which
    runs afterwards.

    Raises:
      TypeError: If a field is unknown, or has a value of another type.
      ValueError: If a field has a value that is not allowed.

    Example:
      >>> import dataclasses
      >>> from likejax.settings import Count, Settings
      >>> @dataclasses.dataclass(frozen=True)
      ... class Layer(Settings):
      ...     width: Count = 8
      >>> Layer(width=0)
      Traceback (most recent call last):
      ValueError: expected Layer.width to be an integer of at least 1, got 0
    """

    def __new__(cls, *args: object, **values: object):
        """Refuses unknown settings, with the near match."""
        known = inspect.signature(cls).parameters
        for name in values:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no setting {name!r}{_near(name, known)}")
        return super().__new__(cls)

    def __post_init__(self):
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            hint = _hints(type(self))[field.name]
            value = checked(f"{type(self).__name__}.{field.name}", getattr(self, field.name), hint)
            object.__setattr__(self, field.name, value)
        self._check_together()

    def _check_together(self) -> None:
        """Raises a ValueError where fields contradict each other."""


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def checked(name: str, value: object, hint: object) -> Any:
    """A value that fits its annotation, as the plain Python value that it stands for.

    Args:
      name: What the value is called in an error message.
      value: A setting or an argument.
      hint: ``Literal[...]``, an alias of this module, a plain type, a tuple of these, or a union
        with ``None``.

    Returns:
      ``value``; of a list the tuple, of a numpy scalar the Python number.

    Raises:
      TypeError: If the value is of another type.
      ValueError: If the value is not allowed; a near match is named.

    Example:
      >>> from typing import Literal
      >>> from likejax.settings import checked
      >>> checked("mode", "fast", Literal["fast", "exact"])
      'fast'
    """
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _choice(name, value, typing.get_args(hint))
    if origin is Annotated:
        base, *notes = typing.get_args(hint)
        ranges = [note for note in notes if isinstance(note, Range)]
        return _number_in(name, value, base, ranges) if ranges else checked(name, value, base)
    if origin is tuple:
        return _tuple(name, value, typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return _union(name, value, typing.get_args(hint))
    if hint in (int, float):
        return _number_in(name, value, hint, [])
    if hint is bool:
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"expected {name} to be True or False, got {_shown(value)}")
        return bool(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise TypeError(f"expected {name} to be of type {hint.__name__}, got {_shown(value)}")
    return value


def _choice(name: str, value: object, allowed: tuple[Any, ...]) -> Any:
    if isinstance(value, str) and value in allowed:
        return value
    words = " or ".join(map(repr, allowed))
    if not isinstance(value, str):
        raise TypeError(f"expected {name} to be {words}, got {_shown(value)}")
    raise ValueError(f"expected {name} to be {words}, got {value!r}{_near(value, allowed)}")


def _near(word: str, known: Iterable[str]) -> str:
    """The words that somebody may have meant, as the end of a sentence."""
    known = list(known)
    found = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(known)}"


def _number_in(name: str, value: object, base: object, ranges: list[Range]) -> Any:
    kind = "an integer" if base is int else "a number"
    wanted = " ".join(
        [kind, *(f"of {each}" if each.at_least is not None else str(each) for each in ranges)]
    )
    number = _number(value, base)
    if number is None:
        raise TypeError(f"expected {name} to be {wanted}, got {_shown(value)}")
    if not math.isfinite(number):
        raise ValueError(f"expected {name} to be {wanted}, got {number}: it must be finite")
    if any(number not in each for each in ranges):
        raise ValueError(f"expected {name} to be {wanted}, got {number}")
    return number


def _number(value: object, base: object) -> Any:
    """The Python number of type ``base`` that a value is, or ``None`` if it is none."""
    is_array_of_one = hasattr(value, "dtype") and getattr(value, "shape", None) == ()
    scalar = np.asarray(value)[()] if is_array_of_one else value
    if isinstance(scalar, bool | np.bool_):
        return None
    if base is int:
        return int(scalar) if isinstance(scalar, numbers.Integral) else None
    return float(scalar) if isinstance(scalar, numbers.Real) else None


def _tuple(name: str, value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    is_sequence = isinstance(value, tuple | list | range) or getattr(value, "ndim", 0) == 1
    if not is_sequence:
        raise TypeError(f"expected {name} to be a tuple, got {_shown(value)}")
    items = list(value)
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(items)
    if len(items) != len(hints):
        raise ValueError(f"expected {name} to have {len(hints)} entries, got {_shown(value)}")
    pairs = zip(items, hints, strict=True)
    return tuple(checked(f"{name}[{i}]", item, hint) for i, (item, hint) in enumerate(pairs))


def _union(name: str, value: object, hints: tuple[Any, ...]) -> Any:
    if value is None and type(None) in hints:
        return None
    rest = [hint for hint in hints if hint is not type(None)]
    if len(rest) == 1:
        return checked(name, value, rest[0])
    out_of_range = None
    for hint in rest:
        try:
            return checked(name, value, hint)
        except TypeError:
            continue
        except ValueError as error:  # the type is right, so this message is the one to read
            out_of_range = error
    if out_of_range is not None:
        raise out_of_range
    words = " or ".join(map(_word, rest))
    raise TypeError(f"expected {name} to be {words}, got {_shown(value)}")


def _word(hint: object) -> str:
    if typing.get_origin(hint) is tuple:
        return "a tuple"
    base = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return getattr(base, "__name__", str(base))


def _shown(value: object) -> str:
    text = repr(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"{shown} of type {type(value).__name__}"


# --- records


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A function or object that a record names and cannot hold, such as an optax transformation.

    Attributes:
      path: Dotted path of its definition, ``module.name``.
      settings: Its fields or bound arguments as JSON.

    Example:
      >>> from likejax.settings import Recorded, from_record, to_record
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
      >>> from likejax.settings import to_record
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
      >>> from likejax.settings import from_record, to_record
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
    hints = _hints(kind)
    fields = {name: item for name, item in record.items() if name != "class"}
    values = {name: from_record(item, expected=hints.get(name)) for name, item in fields.items()}
    return kind(**values)


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
      >>> from likejax.settings import class_path
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
      >>> from likejax.settings import class_at
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


# --- overrides


def setting_names(settings: Any, *, prefix: str = "") -> list[str]:
    """Returns the dotted names of all settings, those of nested settings included.

    Args:
      settings: A dataclass.
      prefix: Start of every name.

    Example:
      >>> import likejax as lj
      >>> from likejax.settings import setting_names
      >>> setting_names(lj.train.Guard())
      ['spike_factor', 'after', 'patience']
    """
    names = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        names.append(prefix + field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names += setting_names(value, prefix=f"{prefix}{field.name}.")
    return names


def override(settings: Config, values: Mapping[str, Any]) -> Config:
    """Returns settings with other values, named as on the command line.

    All values are set at once, so settings that depend on each other can change together.

    Args:
      settings: A dataclass; it is left as it is.
      values: New values by dotted names, such as ``{"optimizer.learning_rate": 1e-4}``.

    Raises:
      ValueError: If there is no such setting, with the near match, or a value is not allowed.
      TypeError: If a value is of another type.

    Example:
      >>> import likejax as lj
      >>> from likejax.settings import override
      >>> override(lj.preset("glow/digits"), {"optimizer.b1": 0.8}).optimizer.b1
      0.8
    """
    known = setting_names(settings)
    values = {modern(name): value for name, value in values.items()}
    for name in values:
        if name not in known:
            raise ValueError(f"there is no setting {name!r}{_did_you_mean(name, known)}")
    return _replaced(settings, values)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    known = list(known)
    same_end = [each for each in known if each.endswith(f".{name}")]
    near = same_end or difflib.get_close_matches(name, known, n=3)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    top = [each for each in known if "." not in each]
    return f"; there are {', '.join(top)}"


def _replaced(settings: Any, values: Mapping[str, Any]) -> Any:
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, _, rest = name.partition(".")
        if rest:
            nested.setdefault(first, {})[rest] = value
        else:
            direct[first] = value
    for first, inner in nested.items():
        direct[first] = _replaced(direct.get(first, getattr(settings, first)), inner)
    hints = _hints(type(settings))
    for name, value in direct.items():
        direct[name] = checked(f"{type(settings).__name__}.{name}", value, hints[name])
    return dataclasses.replace(settings, **direct)

"""Settings: frozen dataclasses that check themselves, and their overrides.

The type annotation of a setting defines what it allows, and one function reads it. ``Literal``
lists the allowed words, ``Count`` and the other aliases here give the range of a number, and the
elements of a tuple are checked one by one. ``None`` turns a setting off that can be off, and 0 is
refused there.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import numpy as np

from likejax.facts import facts_table
from likejax.legacy import modern, was_off
from likejax.names import did_you_mean, meant

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


@dataclasses.dataclass(frozen=True)
class NoneIsOff:
    """Mark of a setting that ``None`` turns off, as 0 did in older versions."""


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
CountOrOff = Annotated[Count | None, NoneIsOff()]
"""A number of things, or ``None`` for off."""
LevelsOrOff = Annotated[Levels | None, NoneIsOff()]
"""How many integer values an entry can take, or ``None`` for continuous or unchanged data."""
PositiveOrOff = Annotated[Positive | None, NoneIsOff()]
"""A real number above 0, or ``None`` for off."""
ProbabilityOrOff = Annotated[Probability | None, NoneIsOff()]
"""A real number strictly between 0 and 1, or ``None`` for off."""


class Settings:
    """Base of frozen dataclasses of settings, which check themselves when they are made.

    Every field is checked against its annotation; lists become tuples and numpy's scalars become
    Python's. A subclass whose fields depend on each other says so in ``_check_together``, which
    runs afterwards.

    Raises:
      TypeError: If a field is unknown, or has a value of another type, or if a subclass is no
        dataclass.
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
        _check_decorated(cls)
        known = _arguments_of(cls) if values else ()
        for name in values:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no setting {name!r}{_near(name, known)}")
        return super().__new__(cls)

    def __post_init__(self):
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            hint = hints_of(type(self))[field.name]
            value = checked(f"{type(self).__name__}.{field.name}", getattr(self, field.name), hint)
            object.__setattr__(self, field.name, value)
        self._check_together()

    def _check_together(self) -> None:
        """Raises a ValueError where fields contradict each other."""

    def _repr_html_(self) -> str:
        """A table for notebooks: the settings that are not at their defaults, by their paths."""
        facts = changed(self) or {"settings": "all at their defaults"}
        return facts_table(facts, caption=type(self).__name__)


def changed(settings: object) -> dict[str, str]:
    """Returns the settings that differ from their defaults, in words.

    Args:
      settings: A dataclass of settings; those inside it are named by paths, as ``override`` takes
        them.

    Example:
      >>> import likejax as lj
      >>> from likejax.settings import changed
      >>> changed(lj.Experiment(lj.models.VectorGlowConfig(depth=2), steps=5))
      {'model': 'VectorGlowConfig', 'model.depth': '2', 'steps': '5'}
    """
    facts: dict[str, str] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if _is_default(field, value):
            continue
        if not isinstance(value, Settings):
            facts[field.name] = _in_words(value)
            continue
        facts[field.name] = type(value).__name__
        facts |= {f"{field.name}.{name}": words for name, words in changed(value).items()}
    return facts


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    compared = (*_PLAIN, Settings)
    return type(default) is type(value) and isinstance(value, compared) and default == value


_PLAIN = (bool, int, float, str, tuple, type(None))
"""Types whose values are compared and written as Python writes them."""


def _in_words(value: object) -> str:
    """Text as it is, other values as Python writes them, objects with arrays by their class."""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, _PLAIN) else type(value).__name__


@functools.cache
def _check_decorated(kind: type) -> None:
    """Raises a TypeError if a class is no dataclass, or declares fields that it does not take."""
    declared = {
        name for name, hint in inspect.get_annotations(kind).items() if "ClassVar" not in str(hint)
    }
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is None or not declared <= set(fields):
        raise TypeError(
            f"expected the class {kind.__name__} to be a dataclass, as all settings, scores and "
            "features are: write @dataclasses.dataclass(frozen=True) above it"
        )


@functools.cache
def _arguments_of(kind: type) -> tuple[str, ...]:
    return tuple(inspect.signature(kind).parameters)


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """Returns the annotations of the fields of a dataclass.

    Args:
      kind: A dataclass.
    """
    return typing.get_type_hints(kind, include_extras=True)


def checked(name: str, value: object, hint: object) -> Any:
    """A value that fits its annotation, as the plain Python value that it stands for.

    Args:
      name: Name of the value in an error message.
      value: A setting or an argument.
      hint: ``Literal[...]``, an alias of this module, a plain type, a tuple of these, or a union
        with ``None``, which may be marked as a setting that ``None`` turns off.

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
        if can_be_off(hint) and was_off(value):
            former = value if isinstance(value, tuple | list | str) else 0
            raise ValueError(
                f"expected {name}=None, got {value!r}: None, not {former!r}, turns it off"
            )
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


def can_be_off(hint: object) -> bool:
    """Returns whether an annotation is that of a setting that ``None`` turns off.

    Args:
      hint: Annotation of a setting.

    Example:
      >>> from likejax.settings import CountOrOff, CountOrZero, can_be_off
      >>> can_be_off(CountOrOff), can_be_off(CountOrZero)
      (True, False)
    """
    notes = typing.get_args(hint) if typing.get_origin(hint) is Annotated else ()
    return any(isinstance(note, NoneIsOff) for note in notes)


def _choice(name: str, value: object, allowed: tuple[Any, ...]) -> Any:
    if isinstance(value, str) and value in allowed:
        return value
    words = " or ".join(map(repr, allowed))
    if not isinstance(value, str):
        raise TypeError(f"expected {name} to be {words}, got {_shown(value)}")
    raise ValueError(f"expected {name} to be {words}, got {value!r}{_near(value, allowed)}")


def _near(word: str, known: Iterable[str]) -> str:
    """The word that somebody may have meant, or all of them, as the end of a sentence."""
    known = list(known)
    return meant(word, known, otherwise=f"there are {', '.join(known)}")


def _number_in(name: str, value: object, base: object, ranges: list[Range]) -> Any:
    number = _number(value, base)
    if number is None:
        raise TypeError(
            f"expected {name} to be {_wanted_number(base, ranges)}, got {_shown(value)}"
        )
    finite = math.isfinite(number)
    if not finite or any(number not in each for each in ranges):
        reason = "" if finite else ": it must be finite"
        raise ValueError(
            f"expected {name} to be {_wanted_number(base, ranges)}, got {number}{reason}"
        )
    return number


def _wanted_number(base: object, ranges: list[Range]) -> str:
    kind = "an integer" if base is int else "a number"
    limits = (f"of {each}" if each.at_least is not None else str(each) for each in ranges)
    return " ".join([kind, *limits])


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


def settings_that_can_be_off(settings: Any) -> list[str]:
    """Returns the dotted names of the settings that ``None`` turns off, nested ones included.

    Args:
      settings: A dataclass.

    Example:
      >>> import likejax as lj
      >>> from likejax.settings import settings_that_can_be_off
      >>> settings_that_can_be_off(lj.train.Guard())
      ['spike_factor']
    """
    names = []
    for name in setting_names(settings):
        *outer, last = name.split(".")
        owner = functools.reduce(getattr, outer, settings)
        if can_be_off(hints_of(type(owner))[last]):
            names.append(name)
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
            raise ValueError(f"there is no setting {name!r}{_near_settings(name, known)}")
    return _replaced(settings, values)


def _near_settings(name: str, known: Iterable[str]) -> str:
    """The settings that somebody may have meant, or those at the top, as the end of a sentence."""
    known = list(known)
    same_end = [each for each in known if each.endswith(f".{name}")]
    if same_end:
        return f"; {did_you_mean(same_end)}"
    top = [each for each in known if "." not in each]
    return meant(name, known, count=3, otherwise=f"there are {', '.join(top)}")


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
    hints = hints_of(type(settings))
    for name, value in direct.items():
        direct[name] = checked(f"{type(settings).__name__}.{name}", value, hints[name])
    return dataclasses.replace(settings, **direct)

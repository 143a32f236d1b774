"""Every setting of the library says what it allows, and refuses what it does not, when it is given."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import math
import pickle
import pkgutil
import typing
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import likejax as lj
from likejax.settings import Count, Fraction, Positive, Range, Settings, checked

pytestmark = pytest.mark.untyped


def modules() -> list[Any]:
    names = (module.name for module in pkgutil.walk_packages(lj.__path__, "likejax."))
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def config_classes() -> list[type]:
    found = {each for module in modules() for each in vars(module).values() if isinstance(each, type)}
    ours = [each for each in found if issubclass(each, Settings) and each is not Settings]
    return sorted(ours, key=lambda each: each.__name__)


EXAMPLES = {
    "Experiment": lambda: lj.preset("glow/digits"),
    "LikelihoodRatio": lambda: lj.ood.LikelihoodRatio(lj.Uniform((2,))),
}
"""Configs that need an argument."""


def example_of(kind: type) -> Any:
    return EXAMPLES.get(kind.__name__, kind)()


def senseless(hint: Any) -> list[Any]:
    """Values that a hint does not allow."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return [inner[0] + "x", inner[0].upper(), "", 3, None, True]
    if origin is Annotated:
        bounds = [note for note in inner if isinstance(note, Range)]
        below = [each.at_least - 1 for each in bounds if each.at_least is not None]
        below += [each.above for each in bounds if each.above is not None]
        above = [each.at_most + 1 for each in bounds if each.at_most is not None]
        above += [each.below for each in bounds if each.below is not None]
        return [inner[0](value) for value in [*below, *above]] + senseless(inner[0])
    if origin is tuple:
        return [3, None, "ab", *((value,) * max(1, len(inner) - (inner[-1] is ...)) for value in senseless(inner[0]))]
    if hint is int:
        return ["3", 2.5, None, True, math.nan]
    if hint is float:
        return ["3", None, True, math.nan, math.inf, 1j]
    if hint is bool:
        return ["yes", 1, None]
    if hint is str:
        return [3, None]
    if isinstance(hint, type) and issubclass(hint, Settings):
        return [3, None, "default"]
    return []


@pytest.mark.parametrize("kind", config_classes(), ids=lambda kind: kind.__name__)
def test_every_field_refuses_what_it_does_not_allow(kind):
    """The message names the field and says what it expects; no other exception, and no silence."""
    example = example_of(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        for value in senseless(hints[field.name]):
            with pytest.raises((TypeError, ValueError), match=rf"expected {kind.__name__}\.{field.name}.*got"):
                dataclasses.replace(example, **{field.name: value})


def test_the_walk_finds_the_configs():
    names = {kind.__name__ for kind in config_classes()}
    assert {"GlowConfig", "VAEConfig", "StageConfig", "Solver", "Trace", "NLL", "ELBO", "Guard", "Experiment"} <= names


def test_every_frozen_config_of_numbers_and_words_checks_itself():
    """A frozen dataclass with defaults is a config: none is left out of the mechanism."""
    for module in modules():
        for kind in vars(module).values():
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__):
                continue
            fields = dataclasses.fields(kind)
            has_defaults = all(
                f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING for f in fields
            )
            is_config = fields and has_defaults and kind.__dataclass_params__.frozen and kind.__name__[0] != "_"
            if is_config and kind is not Range:
                assert issubclass(kind, Settings), f"{module.__name__}.{kind.__name__}"


def test_near_matches():
    with pytest.raises(ValueError, match="did you mean 'exact'"):
        lj.PixelCNNConfig(likelihood="exakt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="GlowConfig has no setting 'widht'; did you mean 'width'"):
        lj.GlowConfig(widht=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no setting 'widht'"):
        dataclasses.replace(lj.GlowConfig(), widht=3)


def test_lists_and_numpy_scalars_are_taken():
    config = lj.GlowConfig(event_shape=[8, 8, 1], levels=np.int64(17), depth=np.uint8(2))  # type: ignore[arg-type]
    assert config == lj.GlowConfig(event_shape=(8, 8, 1), levels=17, depth=2)
    assert type(config.levels) is int
    assert lj.Optimiser(learning_rate=np.float32(0.5)).learning_rate == 0.5
    assert lj.FFJORDConfig(hidden=np.array([4, 5])).hidden == (4, 5)  # type: ignore[arg-type]


def test_configs_are_copied_and_pickled():
    config = lj.VAEConfig()
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    assert list(inspect.signature(lj.Guard).parameters) == ["spike_factor", "after", "patience"]


def test_arguments_are_checked_the_same_way():
    assert checked("draws", np.int64(3), Count) == 3
    assert checked("rate", None, float | None) is None
    for value, hint, error in ((0, Count, ValueError), (1.0, Fraction, ValueError), ("a", Positive, TypeError)):
        with pytest.raises(error, match="expected name to be"):
            checked("name", value, hint)

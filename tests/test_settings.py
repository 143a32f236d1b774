"""Every setting of the library says what it allows, and refuses what it does not, when it is given."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import typing

import numpy as np
import pytest

import likejax as lj
from likejax.settings import Count, Fraction, Positive, Range, Settings, checked
from tests.settings_values import config_classes, example_of, modules, senseless

pytestmark = pytest.mark.untyped


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

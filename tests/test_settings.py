"""Every setting of the library says what it allows, and refuses what it does not, when it is
given."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
import pickle
import typing

import jax
import numpy as np
import pytest
from flax import nnx

import likejax as lj
import likejax.reference
from likejax.models.ffjord.dynamics import Dynamics, ImageDynamics
from likejax.records import from_record, to_record
from likejax.settings import (
    Count,
    Fraction,
    Positive,
    Range,
    Settings,
    can_be_off,
    checked,
    settings_that_can_be_off,
)
from tests.registry import DENSITIES
from tests.settings_values import config_classes, example_of, modules, senseless

pytestmark = pytest.mark.untyped


@pytest.mark.parametrize("kind", config_classes(), ids=lambda kind: kind.__name__)
def test_every_field_refuses_what_it_does_not_allow(kind):
    """The message names the field and says what it expects; no other exception, and no silence."""
    example = example_of(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        for value in senseless(hints[field.name]):
            with pytest.raises(
                (TypeError, ValueError), match=rf"expected {kind.__name__}\.{field.name}.*got"
            ):
                dataclasses.replace(example, **{field.name: value})


def test_a_class_with_settings_needs_the_decorator():
    """Forgotten above a score, and above a class with a setting of its own."""

    class Dark(lj.ood.Score):
        features = (lj.ood.LogProb(),)

    class Louder(lj.Optimizer):
        volume: float = 2.0

    for kind in (Dark, Louder):
        with pytest.raises(TypeError, match=f"the class {kind.__name__} to be a dataclass.*above"):
            kind()

    class Renamed(lj.Optimizer):
        """Adds no setting, and is the dataclass that its parent is."""

    assert Renamed(b1=0.5).b1 == 0.5


def test_the_walk_finds_the_configs():
    names = {kind.__name__ for kind in config_classes()}
    assert {
        "GlowConfig",
        "VAEConfig",
        "StageConfig",
        "Solver",
        "Trace",
        "NLL",
        "ELBO",
        "Guard",
        "Experiment",
    } <= names


def test_every_frozen_config_of_numbers_and_words_checks_itself():
    """A frozen dataclass with defaults is a config: none is left out of the mechanism."""
    for module in modules():
        for kind in vars(module).values():
            if not (
                isinstance(kind, type)
                and dataclasses.is_dataclass(kind)
                and kind.__module__ == module.__name__
            ):
                continue
            fields = dataclasses.fields(kind)
            has_defaults = all(
                f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
                for f in fields
            )
            is_config = (
                fields
                and has_defaults
                and kind.__dataclass_params__.frozen
                and kind.__name__[0] != "_"
            )
            if is_config and kind is not Range:
                assert issubclass(kind, Settings), f"{module.__name__}.{kind.__name__}"


def test_near_matches():
    with pytest.raises(ValueError, match="did you mean 'exact'"):
        lj.models.PixelCNNConfig(likelihood="exakt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="GlowConfig has no setting 'widht'; did you mean 'width'"):
        lj.models.GlowConfig(widht=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no setting 'widht'"):
        dataclasses.replace(lj.models.GlowConfig(), widht=3)


def test_lists_and_numpy_scalars_are_taken():
    config = lj.models.GlowConfig(event_shape=[8, 8, 1], levels=np.int64(17), depth=np.uint8(2))  # type: ignore[arg-type]
    assert config == lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, depth=2)
    assert type(config.levels) is int
    assert lj.Optimizer(learning_rate=np.float32(0.5)).learning_rate == 0.5
    assert lj.models.FFJORDConfig(hidden=np.array([4, 5])).hidden == (4, 5)  # type: ignore[arg-type]


def test_configs_are_copied_and_pickled():
    config = lj.models.VAEConfig()
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    assert list(inspect.signature(lj.train.Guard).parameters) == [
        "spike_factor",
        "after",
        "patience",
    ]


def test_arguments_are_checked_the_same_way():
    assert checked("draws", np.int64(3), Count) == 3
    assert checked("rate", None, float | None) is None
    for value, hint, error in (
        (0, Count, ValueError),
        (1.0, Fraction, ValueError),
        ("a", Positive, TypeError),
    ):
        with pytest.raises(error, match="expected name to be"):
            checked("name", value, hint)


def switches() -> list[tuple[type, str]]:
    """The settings of all configs that ``None`` turns off."""
    return [
        (kind, name)
        for kind in config_classes()
        for name, hint in typing.get_type_hints(kind, include_extras=True).items()
        if can_be_off(hint)
    ]


def test_the_settings_that_none_turns_off():
    found = {f"{kind.__name__}.{name}" for kind, name in switches()}
    assert found == {
        *(f"Experiment.{name}" for name in ("levels", "early_stopping", "samples_every")),
        *(f"Optimizer.{name}" for name in ("clip_norm", "clip_adaptive")),
        *("Guard.spike_factor", "Solver.steps", "Trace.probes", "VAEConfig.levels"),
        *("ImageFFJORDConfig.strides", "Ood.limit", "Train.background"),
        *(
            f"{family}Config.num_classes"
            for family in (
                *("Glow", "VectorGlow", "NSF", "MAF", "FFJORD", "ImageFFJORD", "PixelCNN"),
                *("VAE", "VDM", "VectorVDM", "TextVDM", "Field"),
            )
        ),
    }
    names = settings_that_can_be_off(lj.preset("ffjord/digits"))
    assert {"optimizer.clip_norm", "model.trace.probes", "model.solver.steps"} <= set(names)


@pytest.mark.parametrize(
    ("kind", "name"), switches(), ids=lambda each: getattr(each, "__name__", each)
)
def test_none_and_not_0_turns_a_setting_off(kind, name):
    config = example_of(kind)
    off = {name: None}
    if name == "levels" and kind is lj.models.VAEConfig:
        off["likelihood"] = "gaussian"
    assert getattr(dataclasses.replace(config, **off), name) is None
    zeros = [()] if name == "strides" else [0, 0.0, np.float32(0)]
    for zero in zeros:
        match = rf"expected {kind.__name__}\.{name}=None, got .*: None, not (0|\(\)), turns it off"
        with pytest.raises(ValueError, match=match):
            dataclasses.replace(config, **{name: zero})


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, name in switches() if "cli" not in kind.__module__],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_the_0_of_an_older_record_is_none(kind, name):
    record = json.loads(json.dumps(to_record(example_of(kind))))
    record[name] = [] if name == "strides" else 0
    if kind is lj.models.VAEConfig and name == "levels":
        record["likelihood"] = "gaussian"
    assert getattr(from_record(record), name) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: lj.bijections.TopPrior(2, num_classes=0),
        lambda: lj.bijections.TopPrior(2, condition_size=0),
        lambda: lj.bijections.AffineCoupling(2, width=2, condition_size=0, rngs=nnx.Rngs(0)),
        lambda: lj.bijections.FeatureCoupling(
            2, lj.bijections.AffineScalar(), width=2, condition_size=0, rngs=nnx.Rngs(0)
        ),
        lambda: Dynamics(2, (2,), condition_size=0, rngs=nnx.Rngs(0)),
        lambda: ImageDynamics(2, (2,), strides=(), rngs=nnx.Rngs(0)),
        lambda: lj.models.PixelCNN(None, (4, 4, 1), levels=4, mixtures=1, num_classes=0),
        lambda: lj.preset("glow/digits").override({"optimizer.clip_norm": 0}),
        lambda: lj.ELBO(free_steps=0),
    ],
)
def test_arguments_that_none_turns_off(wrong):
    with pytest.raises(ValueError, match=r"None, not (0|\(\)), turns it off"):
        wrong()


def test_a_floor_that_sinks_needs_its_first_step():
    assert lj.ELBO(free_nats=1.0, free_steps=0, free_fade_steps=5).free_steps == 0
    with pytest.raises(ValueError, match="free_steps=0 lets the floor sink from the first step on"):
        lj.ELBO(free_nats=1.0, free_fade_steps=5)


def _takes_words(hint: typing.Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return True
    return any(_takes_words(inner) for inner in typing.get_args(hint) if inner is not ...)


def _evaluated(annotation: typing.Any, function: typing.Any) -> typing.Any:
    """An annotation as an object; a shape, which is no Python expression, takes no words."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)
    except (NameError, SyntaxError, TypeError, AttributeError, ValueError):
        return None


def functions_that_take_words() -> set[tuple[str, str]]:
    """Public functions and methods with an argument of a fixed set of words, and the name of that
    argument."""
    rooms = (lj, lj.models, lj.train, lj.ood, lj.bijections, lj.data, likejax.reference)
    things = [
        (name, value) for room in rooms for name, value in vars(room).items() if name[0] != "_"
    ]
    functions = [(name, value) for name, value in things if inspect.isfunction(value)]
    for name, value in things:
        if isinstance(value, type) and not issubclass(value, Settings):
            methods = [(key, getattr(each, "__func__", each)) for key, each in vars(value).items()]
            functions += [
                (f"{name}.{key}", each)
                for key, each in methods
                if key == "__init__" or key[0] != "_"
            ]
    found = set()
    for name, function in functions:
        for argument, annotation in getattr(function, "__annotations__", {}).items():
            if argument != "return" and _takes_words(_evaluated(annotation, function)):
                found.add((name, argument))
    return found


@functools.cache
def vae() -> lj.models.VAE:
    return DENSITIES["vae"].make()


IMAGES = np.zeros((2, 4, 4, 1), np.uint8)
DATA = lj.Dataset.from_array(IMAGES, levels=17)
WRONG_WORDS = {
    ("GaussianNaiveBayes.fit", "variance"): lambda: lj.models.GaussianNaiveBayes.fit(
        DATA, variance="share"
    ),
    ("code_lengths", "codec"): lambda: lj.ood.code_lengths(
        np.zeros((1, 4, 4, 1), np.uint8), codec="pgn"
    ),
    ("likelihood_path", "backend"): lambda: lj.ood.likelihood_path(backend="copd"),
    ("multiscale_norms", "backend"): lambda: lj.ood.multiscale_norms(backend="mixtur"),
    ("diffusion_path", "backend"): lambda: lj.ood.diffusion_path(backend="mixtur"),
    ("intrinsic_dimension", "backend"): lambda: lj.ood.intrinsic_dimension(backend="gausian"),
    ("fit_backend", "name"): lambda: lj.ood.fit_backend("copd", np.eye(3)),
    ("backend_score", "name"): lambda: lj.ood.backend_score("copd", {}, np.eye(3)),
    ("StudentT.__init__", "degrees"): lambda: lj.models.StudentT(2, degrees="on"),
    ("PixelCNN.__init__", "form"): lambda: lj.models.PixelCNN(
        None, (4, 4, 1), levels=4, mixtures=1, form="exakt"
    ),
    ("VDM.as_flow", "dequantization"): lambda: DENSITIES["vdm"].make().as_flow("unifrom"),
    ("DiffusionFlow.__init__", "dequantization"): lambda: lj.models.DiffusionFlow(
        None, (2,), "unifrom"
    ),
    ("PixelCNN.with_sampler", "sampler"): lambda: (
        DENSITIES["pixelcnn"].make().with_sampler("cache")
    ),
    ("VAE.run", "replacement"): lambda: vae().run(
        IMAGES[0], vae().draw_noise(jax.random.key(0)), replacement="mode"
    ),
    ("VAE.weights_above", "replacement"): lambda: vae().weights_above(
        IMAGES[0], vae().draw_noise(jax.random.key(0)), (0,), "mode"
    ),
    ("VAE.log_prob_above", "replacement"): lambda: vae().log_prob_above(
        IMAGES, key=0, replacement="mode"
    ),
    ("VAE.reconstruct", "replacement"): lambda: vae().reconstruct(
        IMAGES, key=0, replacement="mode"
    ),
    ("choose_k", "replacement"): lambda: lj.ood.choose_k(vae(), DATA, key=0, replacement="mode"),
    ("Report.write", "picture_format"): lambda: lj.ood.Report.write(
        None, "out", picture_format="pgn"
    ),
    ("order_test", "alternative"): lambda: lj.ood.order_test(
        [0.0, 1.0, 2.0], [0, 1, 2], alternative="greatr"
    ),
    ("aupr", "positive"): lambda: lj.ood.aupr([0.0], [1.0], positive="in"),
    ("aupr", "estimator"): lambda: lj.ood.aupr([0.0], [1.0], estimator="average"),
    ("restore", "which"): lambda: lj.restore(".", which="beast"),
    ("glow_arrays", "weights"): lambda: likejax.reference.glow_arrays({}, weights="averages"),
    ("pixelcnn_arrays", "weights"): lambda: likejax.reference.pixelcnn_arrays(
        {}, lj.models.PixelCNNConfig(), weights="averages"
    ),
}
"""A misspelt word for every argument that takes words."""


def test_every_function_refuses_misspelt_words():
    assert functions_that_take_words() == set(WRONG_WORDS)
    for (name, argument), call in WRONG_WORDS.items():
        with pytest.raises(ValueError, match=rf"expected .*{argument}.* to be '.*got"):
            call()
        assert name

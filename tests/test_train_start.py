"""What ``fit`` refuses before it builds or compiles anything, and the forms of data that it
takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax.data.batches import Position
from likejax.train.source import open_source
from tests.registry import Laplace

RNG = np.random.default_rng(0)
POINTS = RNG.laplace(scale=3, size=(240, 2)).astype(np.float32)
IMAGES = RNG.integers(0, 4, (40, 4, 4, 1)).astype(np.uint8)
GLOW = lj.models.GlowConfig(event_shape=(4, 4, 1), levels=4, scales=1, depth=1, width=4)
PLAIN = lj.Experiment(
    model=Laplace(),
    optimizer=lj.Optimizer(learning_rate=0.05),
    batch_size=24,
    steps=10,
    log_every=1,
    ema_decay=0.0,
)
STAGE = lj.models.StageConfig(channels=(4,), strides=(1,), latent=2)
POINT_MODEL = lj.models.VectorGlowConfig(dimensions=2, depth=1, width=4)


@pytest.fixture
def nothing_is_built(monkeypatch):
    """Refusals come before parameters are made and before the step is compiled."""

    def built(*args: Any, **options: Any) -> Any:
        raise AssertionError("something was built before the refusal")

    monkeypatch.setattr("likejax.train.first_state.build", built)
    monkeypatch.setattr("likejax.train.loop.compile_step", built)


def images(n: int = 40, **options: Any) -> lj.Dataset:
    return lj.Dataset.from_array(IMAGES[:n], levels=4, **options)


def scale(run: lj.train.Run) -> np.ndarray:
    return np.asarray(run.last.log_scale[...])


def fit(train: Any, **settings: Any) -> lj.train.Run:
    return lj.fit(dataclasses.replace(PLAIN, **settings), train, key=0)


# --- options that cannot be used


LABELED = images(labels=np.arange(40) % 5)
CONDITIONAL = dataclasses.replace(GLOW, num_classes=3)
REFUSED: list[tuple[dict[str, Any], Any, type[Exception], str]] = [
    (
        {"model": GLOW, "objective": lj.NLL(weights={"class_log_prob": -0.1})},
        images(),
        ValueError,
        r"NLL.weights of parts that the terms of \w+.*-0\.1",
    ),
    (
        {"model": GLOW, "objective": lj.NLL(weights={"kinetic_energy": 0.1})},
        images(),
        ValueError,
        "no part kinetic_energy",
    ),
    (
        {"model": GLOW, "objective": lj.NLL(weights={"jacobian_norm": 1.0})},
        images(),
        ValueError,
        "no part jacobian_norm",
    ),
    (
        {"model": GLOW, "objective": lj.ELBO()},
        images(),
        TypeError,
        "expected terms with the parts kl_1, reconstruction for the ELBO objective.*use NLL",
    ),
    (
        {"model": POINT_MODEL, "augment": ("flip",)},
        POINTS,
        ValueError,
        "integer images to augment by flip",
    ),
    (
        {"model": GLOW, "samples_every": 5},
        images(),
        ValueError,
        "expected a workdir for samples_every=5",
    ),
    (
        {"model": GLOW, "tensorboard": True},
        images(),
        ValueError,
        "expected a workdir for tensorboard=True",
    ),
    (
        {"model": POINT_MODEL, "early_stopping": 3},
        POINTS,
        ValueError,
        "validation set for early_stopping=3",
    ),
    ({"model": CONDITIONAL}, LABELED, ValueError, r"dataset 'array', train: .*0\.\.2"),
    ({"model": CONDITIONAL}, images(), ValueError, "expected a labeled dataset"),
    (
        {"model": "glow"},
        images(),
        TypeError,
        "expected Experiment.model to be a config .* or a Density, got 'glow'",
    ),
    (
        {"model": lj.models.GlowConfig},
        images(),
        TypeError,
        "expected Experiment.model to be a config",
    ),
]


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize(
    ("settings", "train", "kind", "text"), REFUSED, ids=lambda value: str(value)[:40]
)
def test_what_a_model_cannot_use_is_refused_at_the_start(settings, train, kind, text):
    with pytest.raises(kind, match=text):
        lj.fit(dataclasses.replace(PLAIN, **settings), train, key=0)


@pytest.mark.usefixtures("nothing_is_built")
def test_points_have_no_sheets(tmp_path):
    with pytest.raises(ValueError, match="expected images for sheets of samples"):
        lj.fit(
            dataclasses.replace(PLAIN, model=POINT_MODEL, samples_every=5),
            POINTS,
            key=0,
            workdir=tmp_path,
        )


@pytest.mark.usefixtures("nothing_is_built")
def test_arrays_are_compared_with_the_validation_rows():
    with pytest.raises(ValueError, match="expected parts that share no examples"):
        lj.fit(dataclasses.replace(PLAIN, model=GLOW), IMAGES, validation=IMAGES[:5], key=0)


def test_initialization_sees_the_whole_table():
    """A column may be constant in a few hundred rows; images are taken by the hundred."""
    assert PLAIN.rows_to_initialize((3,)) == 100_000
    assert PLAIN.rows_to_initialize((8, 8, 1)) == 256
    assert dataclasses.replace(PLAIN, initialize_with=7).rows_to_initialize((3,)) == 7


@pytest.mark.usefixtures("nothing_is_built")
def test_labels_of_the_validation_part_are_checked_too():
    train = images(20, labels=np.arange(20) % 3)
    valid = lj.Dataset.from_array(
        IMAGES[20:], levels=4, labels=np.arange(20) % 4, split="validation"
    )
    with pytest.raises(ValueError, match=r"dataset 'array', validation: .*0\.\.2"):
        lj.fit(dataclasses.replace(PLAIN, model=CONDITIONAL), train, validation=valid, key=0)


@pytest.mark.usefixtures("nothing_is_built")
def test_binary_images_are_not_binarized_again():
    binary = lj.Dataset.from_array(IMAGES // 2, levels=2)
    vae = lj.models.VAEConfig(event_shape=(4, 4, 1), stages=(STAGE,))
    with pytest.raises(
        ValueError, match=r"2 levels already: leave binarize out of Experiment\.augment"
    ):
        lj.fit(dataclasses.replace(PLAIN, model=vae, augment=("binarize",)), binary, key=0)


@pytest.mark.usefixtures("nothing_is_built")
def test_integer_tables_are_not_shifted():
    table = lj.Dataset.from_array(IMAGES.reshape(40, 16), levels=4)
    with pytest.raises(ValueError, match=r"images \(height, width, channels\) to augment by shift"):
        lj.fit(dataclasses.replace(PLAIN, augment=("shift",)), table, key=0)


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize(
    "given", ["vector_glow/moons", POINT_MODEL, Laplace()], ids=lambda value: type(value).__name__
)
def test_what_is_no_experiment(given):
    with pytest.raises(Exception, match=r"expected an Experiment to fit, got|Type-check error"):
        lj.fit(given, POINTS, key=0)


def test_densities_that_cannot_be_trained():
    class Fixed(Laplace):
        """Nothing in an ``nnx.Param``."""

        def __init__(self):
            self.log_scale = nnx.Variable(jnp.zeros(2))

    with pytest.raises(ValueError, match=r"trainable parameters, Fixed has none: .*nnx\.Param"):
        fit(POINTS, model=Fixed())

    class Undeclared(Laplace):
        event_shape = None  # type: ignore[assignment]

    with pytest.raises((TypeError, ValueError), match="event_shape"):
        fit(POINTS, model=Undeclared())


# --- forms of data


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_plain_arrays(kind):
    dataset = lj.Dataset.from_array(POINTS)
    valid = lj.Dataset.from_array(POINTS[:20] + 1, split="validation")
    expected = lj.fit(
        dataclasses.replace(PLAIN, validate_every=5), dataset, validation=valid, key=0
    )
    found = lj.fit(
        dataclasses.replace(PLAIN, validate_every=5),
        kind(POINTS),
        validation=kind(POINTS[:20] + 1),
        key=0,
    )
    np.testing.assert_array_equal(scale(found), scale(expected))
    assert found.validation == expected.validation
    with pytest.raises(
        TypeError, match=r"validation to be a Dataset or an array, got list|Type-check error"
    ):
        lj.fit(PLAIN, POINTS, validation=[POINTS], key=0)


def test_items_of_any_size_give_batches_of_one_size():
    """Rows one by one, in pairs and all at once: the same batches, so the same weights."""
    whole = fit([POINTS])
    for size in (1, 2, 77):
        pieces = [POINTS[start : start + size] for start in range(0, 240, size)]
        np.testing.assert_array_equal(scale(fit(pieces)), scale(whole))
        np.testing.assert_array_equal(scale(fit(iter(pieces * 2))), scale(whole))


def test_initialization_sees_as_many_rows_as_it_asks_for():
    """Items of one row: a mean and a deviation of one row would be no start; iterators get their
    rows back."""
    experiment = dataclasses.replace(PLAIN, model=POINT_MODEL, initialize_with=64)
    rows = [row[None] for row in POINTS]
    for train in (rows, iter(rows)):
        source = open_source(experiment, train)
        np.testing.assert_array_equal(source.examples.examples, POINTS[:64])
        batch = next(source.batches(Position(0, 0, 0), Laplace()))
        np.testing.assert_array_equal(batch.x, POINTS[:24])
    assert len(open_source(PLAIN, rows).examples) == 1  # a ready density needs none of them
    assert (
        len(open_source(dataclasses.replace(experiment, initialize_with=999), rows).examples) == 240
    )
    few = lj.fit(dataclasses.replace(experiment, steps=2), rows, key=0)
    assert np.isfinite(few.history[0]["loss"])


def test_items_with_weights():
    """Triples and mappings weigh examples as a dataset with weights of mean 1 does."""
    weights = np.arange(240) % 3 + 1.0
    weights /= weights.mean()
    settings = {"batch_size": 240, "steps": 1}
    pairs = [(POINTS[i : i + 60], weights[i : i + 60]) for i in range(0, 240, 60)]
    triples = fit([(x, None, w) for x, w in pairs], **settings)
    mappings = fit([{"x": x, "weights": w} for x, w in pairs], **settings)
    unweighted = fit([x for x, _ in pairs], **settings)
    np.testing.assert_array_equal(scale(triples), scale(mappings))
    first = triples.history[0]["log_prob"]
    by_hand = np.average(np.asarray(Laplace().log_prob(POINTS)), weights=weights)
    np.testing.assert_allclose(first, by_hand, rtol=1e-5)
    assert abs(first - unweighted.history[0]["log_prob"]) > 1e-3
    with pytest.raises(
        ValueError, match=r"keys x, .* and conditions .*got 'wieghts'; did you mean 'weights'"
    ):
        fit([{"x": POINTS, "wieghts": weights}])
    with pytest.raises(ValueError, match="expected the key x in every item"):
        fit([{"labels": np.zeros(3, int)}])
    with pytest.raises(ValueError, match="weights with every item of the iterable, or with none"):
        fit([(POINTS[:60], None, weights[:60]), POINTS[60:]])


def test_labels_of_later_items_are_checked():
    first = (IMAGES[:6], np.array([0, 1, 2, 0, 1, 2]))
    later = (IMAGES[6:12], np.array([0, 1, 2, 3, 1, 2]))
    experiment = dataclasses.replace(
        PLAIN, model=CONDITIONAL, batch_size=6, initialize_with=6, steps=3
    )
    with pytest.raises(
        ValueError, match=r"'iterable', train: .*labels 0\.\.2 for a model of 3 classes, got 0\.\.3"
    ):
        lj.fit(experiment, [first, later], key=0)


def test_single_examples_as_items_are_explained():
    with pytest.raises(
        ValueError, match=r"got one example of shape \(4, 4, 1\): give x\[None\] for each"
    ):
        fit(list(IMAGES), model=GLOW)


def test_a_gaussian_vae_trains_from_an_iterable():
    """Its ``levels=None`` means continuous data, not data of no level."""
    model = lj.models.VAEConfig(
        event_shape=(4, 4, 1), levels=None, likelihood="gaussian", stages=(STAGE,)
    )
    x = RNG.normal(size=(12, 4, 4, 1)).astype(np.float32)
    run = lj.fit(
        lj.Experiment(model=model, objective=lj.ELBO(), batch_size=6, steps=1, log_every=1),
        [x],
        key=0,
    )
    assert np.isfinite(run.history[0]["loss"])


# --- strict modes of JAX


def test_strict_modes_of_jax():
    """No implicit promotion of types and no key that is used twice, in the step, the guard and the
    averages."""
    before = jax.config.jax_numpy_dtype_promotion, jax.config.jax_debug_key_reuse
    try:
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        jax.config.update("jax_debug_key_reuse", True)
        valid = lj.Dataset.from_array(POINTS[:20] + 1, split="validation")
        experiment = dataclasses.replace(PLAIN, ema_decay=0.9, accumulate=2, validate_every=5)
        assert lj.fit(experiment, POINTS, validation=valid, key=jax.random.key(0)).steps == 10
    finally:
        jax.config.update("jax_numpy_dtype_promotion", before[0])
        jax.config.update("jax_debug_key_reuse", before[1])


def test_weights_or_labels_that_are_added_are_other_data(tmp_path):
    """A run of this version knows the labels and weights that it was begun with, also that there
    were none."""
    experiment = dataclasses.replace(PLAIN, model=POINT_MODEL, steps=2, checkpoint_every=2)
    rows = POINTS
    lj.fit(experiment, lj.Dataset.from_array(rows), key=0, workdir=tmp_path)
    weighted = lj.Dataset.from_array(rows, weights=np.linspace(0.1, 1, len(rows)))
    with pytest.raises(lj.train.CheckpointError, match="other training data"):
        lj.fit(dataclasses.replace(experiment, steps=4), weighted, key=0, workdir=tmp_path)


def test_a_ready_density_is_another_model(tmp_path):
    experiment = dataclasses.replace(PLAIN, model=POINT_MODEL, steps=2, checkpoint_every=2)
    lj.fit(experiment, POINTS, key=0, workdir=tmp_path)
    ready = dataclasses.replace(experiment, model=lj.build(POINT_MODEL, key=1))
    with pytest.raises(lj.train.CheckpointError, match=r"model\.(density|family)"):
        lj.fit(ready, POINTS, key=0, workdir=tmp_path)


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize("levels", [2, 8])
def test_levels_of_an_experiment_are_those_of_its_model(levels):
    with pytest.raises(
        ValueError, match=rf"Experiment\.levels={levels} levels, got one of levels=4"
    ):
        lj.fit(dataclasses.replace(PLAIN, model=GLOW, levels=levels), images(), key=0)


@pytest.mark.usefixtures("nothing_is_built")
def test_copies_of_another_type_are_copies():
    rows = POINTS
    with pytest.raises(ValueError, match="share no examples"):
        lj.fit(
            dataclasses.replace(PLAIN, model=POINT_MODEL),
            rows,
            validation=rows[:9].astype(np.float64),
            key=0,
        )

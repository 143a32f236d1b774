"""What an experiment can ask of training: accumulation, clipping, schedules, weights, iterables,
pictures, logs."""

from __future__ import annotations

import dataclasses
import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import likejax as lj
from likejax.cli import main
from likejax.nn.repeat import stack
from likejax.nn.state import merge, split
from likejax.progress import Bar
from likejax.train.feed import Feed
from likejax.train.optimizer import _clip_adaptively, build_optimizer, schedule
from likejax.train.progress import TrainingProgress
from likejax.train.sharding import device_mesh
from tests.registry import Laplace

RNG = np.random.default_rng(0)
POINTS = RNG.laplace(scale=3, size=(240, 2)).astype(np.float32)
PLAIN = lj.Experiment(
    model=Laplace(),
    optimizer=lj.Optimizer(learning_rate=0.05),
    batch_size=24,
    steps=10,
    log_every=1,
    ema_decay=0.0,
)


def dataset(points=POINTS, **options) -> lj.Dataset:
    return lj.Dataset.from_array(points, **options)


def scale(run: lj.train.Run) -> np.ndarray:
    return np.asarray(run.last.log_scale[...])


def fit(train=None, validation=None, workdir=None, **settings) -> lj.train.Run:
    experiment = dataclasses.replace(PLAIN, **settings)
    return lj.fit(
        experiment,
        dataset() if train is None else train,
        validation=validation,
        workdir=workdir,
        key=0,
    )


# --- the update


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_another_implementation(impl):
    """Those that are quick on TPU; the run is a run, with other noise."""
    run = lj.fit(
        lj.Experiment(
            model=lj.models.VectorGlowConfig(dimensions=2, depth=1, width=4), batch_size=20, steps=3
        ),
        lj.Dataset.from_array(POINTS),
        key=jax.random.key(0, impl=impl),
    )
    assert run.steps == 3


def test_accumulated_gradients_are_those_of_the_whole_batch():
    np.testing.assert_allclose(scale(fit(accumulate=4)), scale(fit()), rtol=1e-5)
    losses = [[record["loss"] for record in fit(accumulate=n).history] for n in (1, 3)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_norm_clipping_bounds_the_update():
    update = build_optimizer(lj.Optimizer(clip_norm=0.5), 10)
    gradient = {"a": jnp.full((4,), 3.0)}
    clipped, _ = optax.clip_by_global_norm(0.5).update(gradient, optax.EmptyState())
    np.testing.assert_allclose(jnp.linalg.norm(clipped["a"]), 0.5, rtol=1e-6)
    direct = optax.adam(1e-3)
    ours, theirs = (
        rule.update(g, rule.init(gradient)) for rule, g in ((update, gradient), (direct, clipped))
    )
    np.testing.assert_allclose(ours[0]["a"], theirs[0]["a"], rtol=1e-6)


def test_adaptive_clipping_treats_blocks_of_a_stack_one_by_one():
    """Stacked or apart, the same clipped gradient, and not the raw one: the axis of depth is no
    axis of a weight."""
    density = lj.build(
        lj.models.GlowConfig(event_shape=(4, 4, 1), levels=4, scales=1, depth=3, width=4), key=0
    )
    structure, params, fixed = split(density)
    names = iter(range(len(params)))
    gradient = {
        n: jax.random.normal(jax.random.key(next(names)), leaf.shape) for n, leaf in params.items()
    }
    rule = _clip_adaptively(0.01)

    def stacked(arrays):
        return split(stack(merge(structure, arrays, fixed)))[1]

    apart, _ = rule.update(gradient, rule.init(params), params)
    together, _ = rule.update(stacked(gradient), rule.init(params), stacked(params))
    for name, leaf in stacked(apart).items():
        np.testing.assert_allclose(together[name], leaf, rtol=1e-6, atol=1e-9)
    assert any(not np.allclose(apart[name], gradient[name]) for name in gradient)
    one = {"a": jnp.full((3, 4), 5.0)}
    expected, _ = optax.adaptive_grad_clip(0.01).update(
        one, optax.EmptyState(), {"a": jnp.ones((3, 4))}
    )
    found, _ = rule.update(one, rule.init(one), {"a": jnp.ones((3, 4))})
    np.testing.assert_array_equal(found["a"], expected["a"])


@pytest.mark.parametrize("name", ["adam", "adamax"])
def test_weight_decay_of_adam_is_added_to_the_gradient(name):
    """As in the official FFJORD code (PyTorch's Adam), and unlike adamw."""
    params, gradient = {"w": jnp.array([3.0, -2.0])}, {"w": jnp.array([0.1, 0.2])}
    decayed = build_optimizer(lj.Optimizer(name=name, weight_decay=0.5), 10)
    plain = build_optimizer(lj.Optimizer(name=name), 10)
    got, _ = decayed.update(gradient, decayed.init(params), params)
    expected, _ = plain.update({"w": gradient["w"] + 0.5 * params["w"]}, plain.init(params), params)
    np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-6)


def test_schedules_end_where_they_say():
    settings = {decay: {} for decay in ("constant", "cosine", "linear")} | {
        "exponential": {"decay_rate": 0.9}
    }
    rates = {}
    for decay, more in settings.items():
        rate = schedule(lj.Optimizer(learning_rate=1.0, decay=decay, **more), 100)
        rates[decay] = [float(rate(step)) for step in (0, 50, 100)]
    np.testing.assert_allclose(rates["constant"], [1, 1, 1])
    np.testing.assert_allclose(rates["cosine"], [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(rates["linear"], [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(rates["exponential"], [1, 0.9**50, 0.9**100], rtol=1e-5)


# --- data


def test_integer_weights_equal_repetition():
    """Weights 1, 2 and 3 give the step that one, two and three copies of the examples give."""
    weights = np.arange(240) % 3 + 1
    repeated = np.repeat(POINTS, weights, axis=0)
    settings = {"steps": 1, "optimizer": lj.Optimizer(learning_rate=0.1, name="adam", eps=1.0)}
    weighted = fit(dataset(weights=weights), batch_size=240, **settings)
    copies = fit(dataset(repeated), batch_size=480, **settings)
    np.testing.assert_allclose(scale(weighted), scale(copies), rtol=1e-5)
    equal = fit(dataset(weights=np.full(240, 7.0)))
    np.testing.assert_allclose(scale(equal), scale(fit()), rtol=1e-6)
    with pytest.raises(ValueError, match="240 positive finite weights"):
        dataset(weights=np.zeros(240))


def test_any_iterable_of_arrays():
    """A list of uneven arrays, a generator and a data loader give the examples in order, epoch
    after epoch."""
    pieces = [POINTS[:50], POINTS[50:51], POINTS[51:]]
    from_list = fit(pieces, steps=15)  # 1.5 epochs

    def generate():
        while True:
            yield from pieces

    np.testing.assert_array_equal(scale(from_list), scale(fit(generate(), steps=15)))
    with pytest.raises(ValueError, match=r"ended after 0 epochs and 240 more examples"):
        fit(iter(pieces), steps=15)
    with pytest.raises(ValueError, match=r"examples of shape \(k, 2\), got \(5, 3\)"):
        fit([POINTS, np.zeros((5, 3), np.float32)], steps=15)
    with pytest.raises(TypeError, match=r"Dataset or an iterable|Type-check error"):
        fit(3)
    with pytest.raises(ValueError, match="gives none"):
        fit([])


def test_nested_lists_are_an_array():
    """As in ``lj.evaluate``: the rows of a list of lists of numbers are examples."""
    x = POINTS[:60]
    run = fit(x.tolist(), validation=POINTS[60:70].tolist(), steps=2, validate_every=2)
    expected = fit(x, validation=POINTS[60:70], steps=2, validate_every=2)
    np.testing.assert_array_equal(scale(run), scale(expected))


def test_a_loader_of_grain():
    """Its batches, shuffled and of an epoch each time, are those of a list of the same arrays."""
    grain = pytest.importorskip("grain", reason="Grain is not installed")
    rows = grain.MapDataset.source(POINTS).shuffle(seed=3)
    loader = rows.batch(48).to_iter_dataset()
    batches = list(loader)
    assert len(batches) == 5
    np.testing.assert_array_equal(scale(fit(loader, steps=15)), scale(fit(batches, steps=15)))


def test_an_iterable_resumes_where_it_was(tmp_path):
    pieces = [POINTS[:100], POINTS[100:]]
    fit(pieces, steps=7, workdir=tmp_path / "run")
    resumed = fit(pieces, steps=13, workdir=tmp_path / "run")
    np.testing.assert_array_equal(scale(resumed), scale(fit(pieces, steps=13)))


def test_pairs_of_images_and_labels():
    images = RNG.integers(0, 4, (30, 4, 4, 1)).astype(np.uint8)
    labels = RNG.integers(0, 3, 30)
    model = lj.models.GlowConfig(
        event_shape=(4, 4, 1), levels=4, scales=1, depth=1, width=4, num_classes=3
    )
    experiment = lj.Experiment(
        model=model, batch_size=6, steps=3, objective=lj.NLL(weights={"class_log_prob": -0.1})
    )
    assert lj.fit(experiment, [(images, labels)], key=0).steps == 3
    with pytest.raises(ValueError, match="labeled dataset for a conditional density"):
        lj.fit(experiment, [images], key=0)


class Counting:
    """Batches that say how many were drawn."""

    def __init__(self):
        from likejax.data.batches import Batch, Position

        self.batch, self.kind, self.drawn = Batch, Position, 0

    @property
    def position(self):
        return self.kind(0, 0, self.drawn)

    def __next__(self):
        self.drawn += 1
        if self.drawn > 5:
            raise OSError("the disk is gone")
        return self.batch(np.full((2, 2), self.drawn, np.float32), None)


def test_the_feed_runs_ahead_and_knows_where_the_taken_batch_ends():
    source = Counting()
    with Feed(source, device_mesh(), ahead=2) as feed:
        for number in range(1, 6):
            batch, position = feed.take()
            assert float(batch.x[0, 0]) == number
            assert position.row == number
        with pytest.raises(OSError, match="the disk is gone"):
            feed.take()
    assert not feed._thread.is_alive()


# --- selection


def test_early_stopping_ends_after_so_many_validations(tmp_path):
    """Validation on points at the origin gets worse as the scale grows to 3: the first is the
    best."""
    origin = dataset(np.zeros((5, 2), np.float32))
    settings = {"steps": 100, "validate_every": 5, "early_stopping": 3, "validation": origin}
    run = fit(workdir=tmp_path / "run", **settings)
    assert (run.best_step, run.steps) == (5, 20)
    again = fit(workdir=tmp_path / "run", **settings)
    assert again.steps == 20
    np.testing.assert_array_equal(scale(again), scale(run))
    assert fit(**(settings | {"early_stopping": None})).steps == 100


def test_shared_rows_are_refused_unless_a_tolerance_allows_them():
    with pytest.raises(ValueError, match="24 of the 48 of array train are in array train"):
        lj.fit(PLAIN, dataset(POINTS[:200]), validation=dataset(POINTS[176:224]), key=0)
    coarse = np.round(POINTS)  # many points are equal
    with pytest.raises(
        ValueError, match=r"share no examples: 34 of the 84 .*\(Experiment\.overlap_tolerance\)"
    ):
        fit(dataset(coarse[:120]), validation=dataset(coarse[120:]))
    with pytest.warns(
        UserWarning, match="rows that are trained on: 34 of the 84 .* overlap_tolerance=0.5 allows"
    ):
        assert (
            fit(
                dataset(coarse[:120]), validation=dataset(coarse[120:]), overlap_tolerance=0.5
            ).steps
            == 10
        )


# --- what a person sees


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_fits_the_place():
    """Lines in a log, a bar in terminals and notebooks."""
    stream = io.StringIO()
    lines = TrainingProgress(0, 10, stream=stream)
    lines.advance(1)
    lines.report(5, "bits/dim 3.100", 2.0)
    lines.say("a line")
    lines.close()
    assert stream.getvalue().splitlines() == [
        "compiling the first step",
        "step 5/10: bits/dim 3.100, 2.00 steps/s, 0:02 left",
        "a line",
    ]
    done = io.StringIO()
    TrainingProgress(10, 10, stream=done).close()  # a finished run compiles nothing
    assert done.getvalue() == ""
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    for live in (Terminal(), notebook):
        bar = TrainingProgress(0, 10, stream=live)
        assert "compiling the first step" in live.getvalue()
        bar.advance(5)
        bar.report(5, "bits/dim < 3", 2.0)
        bar.say("a line")
        bar.close()
        assert "5/10" in live.getvalue()
        assert "bits/dim < 3, 2.00 steps/s" in live.getvalue()
        assert "a line\n" in live.getvalue()


def test_a_log_file_gets_the_states_of_a_bar_in_lines():
    """Nothing that a program prints afterwards shares a line with a bar."""
    stream = io.StringIO()
    bar = Bar(what="scoring", total=3, stream=stream)
    bar.advance()
    bar.write("a line")
    bar.describe("7 left")
    bar.close()
    lines = stream.getvalue().splitlines()
    assert stream.getvalue().endswith("\n")
    assert "\r" not in stream.getvalue()
    assert all("scoring: " in line or line == "a line" for line in lines)
    assert "7 left" in lines[-1]
    assert "a line" in lines


def test_progress_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("LIKEJAX_PROGRESS", "0")
    for stream in (Terminal(), io.StringIO()):
        view = TrainingProgress(0, 10, stream=stream)
        view.advance(5)
        view.report(5, "bits/dim 3.100", 2.0)
        view.close()
        assert stream.getvalue() == ""


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    model = lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, scales=1, depth=1, width=4)
    experiment = lj.Experiment(
        model=model,
        dataset="digits",
        batch_size=16,
        steps=4,
        log_every=2,
        samples_every=2,
        tensorboard=True,
    )
    workdir = tmp_path_factory.mktemp("pictures") / "run"
    return lj.fit(
        experiment,
        lj.load("digits"),
        validation=lj.load("digits", split="validation"),
        workdir=workdir,
        key=0,
    )


def test_sheets_of_samples(pictured):
    sheets = sorted((pictured.workdir / "samples").glob("*.png"))
    assert [sheet.name for sheet in sheets] == ["00000002.png", "00000004.png"]
    with Image.open(sheets[0]) as picture:
        assert min(picture.size) > 300
    with pytest.raises(ValueError, match="expected a workdir for samples_every=1"):
        fit(samples_every=1)


def test_tensorboard_events_hold_the_metrics(pictured):
    """Read back by tensorboardX's own reader of records."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

    assert RecordWriter is not None
    (file,) = (pictured.workdir / "tensorboard").glob("events.out.tfevents.*")
    data, events, place = file.read_bytes(), [], 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        events.append(Event.FromString(data[place + 12 : place + 12 + length]))
        place += 12 + length + 4
    found = {(value.tag, event.step): value for event in events for value in event.summary.value}
    record = next(r for r in pictured.history if r["step"] == 4 and "loss" in r)
    assert math.isclose(found["loss", 4].simple_value, record["loss"], rel_tol=1e-6)
    assert found["samples", 2].image.height > 300


def test_summary(pictured, capsys):
    text = pictured.summary()
    assert "parameters" in text
    assert "4 of 4" in text
    assert main(["summary", str(pictured.workdir)]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == text
    count = sum(leaf.size for leaf in split(pictured.density)[1].values())
    assert f"{count:,} parameters" in printed
    (pictured.workdir / "evaluation.json").write_text(
        json.dumps(lj.evaluate(pictured.density, lj.load("digits", split="test"), key=0).to_dict())
    )
    assert main(["summary", str(pictured.workdir)]) == 0
    assert "bits/dim (bound, n = 359, digits test)" in capsys.readouterr().out
    assert main(["summary", "nowhere"]) == 1
    assert "expected the directory of a run" in capsys.readouterr().err

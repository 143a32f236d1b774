"""Random calls of the public API: each gives the right number, by an independent path, or an error
of ours."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import likejax as lj
from tests.registry import DENSITIES, examples_of, perturbed
from tests.settings_values import senseless

pytestmark = pytest.mark.untyped

PACKAGE = str(Path(lj.__file__).parent)
REFUSED = object()
"""What a call gives that was refused with an error of ours."""


class Invalid(tuple):
    """A value that a call must refuse."""

    def __new__(cls, value: Any):
        return super().__new__(cls, (value,))


def chosen(
    rng: np.random.Generator, valid: list[Any], invalid: list[Any], chance: float = 0.15
) -> Any:
    """A valid value, or now and then an invalid one, marked as such."""
    if invalid and rng.random() < chance:
        return Invalid(invalid[rng.integers(len(invalid))])
    return valid[rng.integers(len(valid))]


def bare(value: Any) -> Any:
    return value[0] if isinstance(value, Invalid) else value


def outcome(call: Callable[[], Any], tally: collections.Counter) -> Any:
    """What a call gives, or ``REFUSED``; any other error than one of ours fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*rounded from numbers that are not finite.*"
            )
            result = call()
    except (ValueError, TypeError) as error:
        check_ours(error)
        tally["refused"] += 1
        return REFUSED
    tally["answered"] += 1
    return result


def check_ours(error: Exception) -> None:
    """An error of ours is raised in the package, and says something."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    assert where.filename.startswith(PACKAGE), (
        f"{type(error).__name__} of {where.filename}: {error}"
    )
    assert len(str(error)) > 15, f"an error that says nothing: {error!r}"


def judged(values: dict[str, Any], result: Any) -> bool:
    """Whether there is a result to look at; one from invalid values is a failure."""
    invalid = {name: bare(value) for name, value in values.items() if isinstance(value, Invalid)}
    assert not invalid or result is REFUSED, f"accepted {invalid} beside {values}"
    assert invalid or result is not REFUSED, f"refused {values}"
    return result is not REFUSED


@contextlib.contextmanager
def tallied(least: int) -> Iterator[collections.Counter]:
    """Counts outcomes; a run that refuses or answers everything has tested nothing."""
    tally: collections.Counter = collections.Counter()
    yield tally
    assert sum(tally.values()) >= least
    assert min(tally["refused"], tally["answered"]) > least / 10, tally


SMALL: dict[type, dict[str, list[Any]]] = {
    lj.models.GlowConfig: {
        "event_shape": [(4, 4, 1), (8, 4, 3), [8, 8, 2], (6, 6, 1), (5, 5, 1)],
        "levels": [2, 17, 256, np.int64(32)],
        "scales": [1, 2],
        "depth": [1, 2],
        "width": [1, 4],
        "num_classes": [None, 3],
    },
    lj.models.VectorGlowConfig: {
        "dimensions": [2, 3, 5],
        "depth": [1, 2],
        "width": [1, 4],
        "num_classes": [None, 3],
        "condition_shape": [None, (2,), [1, 2]],
    },
    lj.models.FFJORDConfig: {
        "dimensions": [1, 2, 3],
        "hidden": [(4,), (3, 2), [2]],
        "flows": [1, 2],
        "end_time": [0.5, 1],
        "condition_shape": [None, (2,)],
    },
    lj.models.ImageFFJORDConfig: {
        "event_shape": [(4, 4, 1), (8, 8, 3), (6, 6, 1), (30, 30, 1), (3, 5, 2)],
        "levels": [2, 17],
        "hidden": [(4,), (3, 2)],
        "strides": [None, (1, 1), (2, -2), (2, 1)],
        "flows": [1],
        "alpha": [0.05, 1e-6],
    },
    lj.models.PixelCNNConfig: {
        "event_shape": [(4, 4, 1), (3, 5, 3), (1, 1, 1)],
        "levels": [2, 17],
        "filters": [1, 4],
        "blocks": [1, 2],
        "resolutions": [1, 2],
        "mixtures": [1, 2],
        "num_classes": [None, 3],
    },
    lj.models.VAEConfig: {
        "event_shape": [(4, 4, 1), (4, 6, 3), (8,)],
        "levels": [2, 17, None],
        "mixtures": [1, 2],
        "stages": [
            (lj.models.StageConfig(channels=(4,), strides=(2,), latent=2),),
            (
                lj.models.StageConfig(channels=(4,), strides=(1,), latent=2, dense=False),
                lj.models.StageConfig(channels=(4,), strides=(2,), latent=3),
            ),
            (lj.models.StageConfig(channels=(4,), strides=(1,), kernel=1, latent=2),),
        ],
    },
    lj.models.StageConfig: {
        "channels": [(4,), (4, 4)],
        "strides": [(1,), (2, 1)],
        "latent": [1, 2],
    },
    lj.bijections.Solver: {
        "steps": [None, 2, 2000],
        "max_steps": [1, 1000],
        "rtol": [0.0, 1e-3],
        "atol": [0.0, 1e-3],
    },
    lj.bijections.Trace: {"probes": [None, 1, 3]},
    lj.ELBO: {"beta": [0.0, 2], "warmup_steps": [0, 5], "free_nats": [0.0, 1.5]},
    lj.NLL: {"weights": [(), (("class_log_prob", -0.5),)]},
    lj.Optimizer: {
        "learning_rate": [1e-3, 1],
        "b1": [0.0, 0.9],
        "clip_norm": [None, 1.0],
        "decay_rate": [0.5, 1],
    },
    lj.train.Guard: {"spike_factor": [None, 1.5, 20.0], "patience": [1, 10]},
}
"""Values for some fields of each config, each allowed by itself; together they may contradict each
other."""


def random_settings(kind: type, rng: np.random.Generator) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    values = {
        name: chosen(rng, options, senseless(hints[name])) for name, options in SMALL[kind].items()
    }
    for field in dataclasses.fields(kind):
        words = typing.get_args(hints[field.name])
        if typing.get_origin(hints[field.name]) is typing.Literal:
            values[field.name] = chosen(rng, list(words), senseless(hints[field.name]), 0.05)
    if rng.random() < 0.05:
        values["no_such_setting"] = Invalid(1)
    return values


def test_settings():
    """Invalid settings are refused; a config that is made is built, and its density computes what
    it says."""
    rng = np.random.default_rng(0)
    buildable = 0
    with tallied(1200) as tally:
        for number in range(1200):
            kind = list(SMALL)[number % len(SMALL)]
            values = random_settings(kind, rng)
            settings = {name: bare(value) for name, value in values.items()}
            config = outcome(lambda kind=kind, settings=settings: kind(**settings), tally)
            invalid = {name: value for name, value in values.items() if isinstance(value, Invalid)}
            assert not invalid or config is REFUSED, f"{kind.__name__} accepted {invalid}"
            if config is REFUSED:
                continue
            for name, value in settings.items():
                given = tuple(value) if isinstance(value, list) else value
                assert getattr(config, name) == given, (
                    f"{kind.__name__}.{name} became {getattr(config, name)}"
                )
            if hasattr(config, "build") and buildable < 60:
                buildable += check_abstractly(config)
    assert buildable == 60


def check_abstractly(config: Any) -> bool:
    """Builds a config without memory, and looks at the types of one log-probability and one
    sample."""
    tally: collections.Counter = collections.Counter()
    density = outcome(lambda: jax.eval_shape(lambda: lj.build(config, key=0)), tally)
    if density is REFUSED:
        return False
    shape = getattr(config, "event_shape", None) or (config.dimensions,)
    assert density.event_shape == tuple(shape)
    assert density.levels == getattr(config, "levels", None)
    dtype = jnp.float32 if density.levels is None else jnp.uint8
    x = jax.ShapeDtypeStruct(density.event_shape, dtype)
    label = density.condition_form
    key = jax.eval_shape(lambda: jax.random.key(0))
    log_prob = jax.eval_shape(
        lambda density, *rest: density._log_prob(*rest), density, x, key, label
    )
    assert (log_prob.shape, log_prob.dtype) == ((), jnp.float32)
    sample = jax.eval_shape(lambda density, *rest: density._sample(*rest), density, key, label, 1.0)
    assert (sample.shape, sample.dtype) == (density.event_shape, dtype)
    return True


CASES = (
    "glow conditional",
    "pixelcnn conditional",
    "vae",
    "vector glow",
    "ffjord",
    "pixel histogram",
    "user's laplace",
)


def typed(key: Any) -> Any:
    """The typed key of a seed or of legacy words."""
    if isinstance(key, int | np.integer):
        return jax.random.key(int(key))
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if is_typed else jax.random.wrap_key_data(jnp.asarray(key))


@dataclasses.dataclass(frozen=True)
class Subject:
    """A density with two functions of a single example, written down again here: the independent
    path."""

    density: lj.Density
    classes: int
    log_prob: Callable[..., Any]
    sample: Callable[..., Any]

    @classmethod
    def of(cls, name: str) -> Subject:
        case = DENSITIES[name]
        density = perturbed(case.make(), scale=0.05)
        log_prob = jax.jit(lambda x, key, label: density._log_prob(x, key, label))
        sample = jax.jit(lambda key, label, temperature: density._sample(key, label, temperature))
        return cls(density, case.classes, log_prob, sample)

    def expected(
        self, x: Any, keys: Any, labels: Any, draws: int, *, batch: tuple[int, ...]
    ) -> np.ndarray:
        """Log-probabilities one by one, draws combined on the host in float64, of shape
        ``batch``."""
        density = self.density
        dtype = np.uint8 if density.levels is not None else np.float32
        flat = np.asarray(x).astype(dtype).reshape(-1, *density.event_shape)
        labels = (
            [None] * len(flat) if labels is None else np.broadcast_to(labels, batch).reshape(-1)
        )
        keys = None if density.kind is lj.Kind.EXACT else typed(keys)
        values = []
        for i, (row, label) in enumerate(zip(flat, labels, strict=True)):
            label = None if label is None else jnp.asarray(label, jnp.int32)
            if density.kind is lj.Kind.EXACT:
                values.append(float(self.log_prob(row, None, label)))
                continue
            own = keys.reshape(-1)[i] if keys.shape == batch else jax.random.fold_in(keys, i)
            each = [
                float(self.log_prob(row, jax.random.fold_in(own, s), label)) for s in range(draws)
            ]
            values.append(np.logaddexp.reduce(each) - np.log(draws))
        return np.array(values).reshape(batch)


@pytest.fixture(
    scope="module", params=CASES, ids=lambda name: name.replace(" ", "-").replace("'", "")
)
def subject(request) -> Subject:
    return Subject.of(request.param)


BATCHES = [(4,), (2, 2), (4, 1), (), (1,)]


def random_x(rng: np.random.Generator, density: lj.Density, batch: tuple[int, ...]) -> Any:
    n = int(np.prod(batch, dtype=int))
    x = examples_of(density, n, seed=int(rng.integers(100))).reshape(*batch, *density.event_shape)
    forms: list[Any] = [x, jnp.asarray(x), x.tolist(), np.asfortranarray(x)]
    wrong: list[Any] = [
        x[..., :-1],
        x[..., None],
        None,
        "x",
        x.astype(complex),
        x.astype(str),
        {"x": 1},
    ]
    wrong += [np.ma.masked_array(x, x == x.ravel()[0]), [[0.0], [1.0, 2.0]], x.astype(object)]
    if density.levels is None:
        forms += [x.astype(np.float64), x.astype(">f4"), x.astype(np.longdouble)]
        wrong += [x.astype(int), np.full(x.shape, 1e39), x > 0]
    else:
        forms += [x.astype(np.int64), x.astype(">u2"), x.astype(np.int32)]
        wrong += [x.astype(np.float32), np.full(x.shape, 17), x.astype(int) - 17, x / 255.0]
    return chosen(rng, forms, wrong)


def random_key(rng: np.random.Generator, density: lj.Density, batch: tuple[int, ...]) -> Any:
    seed = int(rng.integers(1000))
    forms: list[Any] = [seed, np.int64(seed), jax.random.key(seed), jax.random.PRNGKey(seed)]
    if batch:
        n = int(np.prod(batch))
        forms.append(jax.random.split(jax.random.key(seed), n).reshape(batch))
    wrong: list[Any] = [
        "seed",
        0.5,
        np.zeros(3),
        jax.random.split(jax.random.key(seed), 7),
        None,
        2**70,
    ]
    return chosen(rng, forms, wrong if density.kind is not lj.Kind.EXACT else [])


def random_labels(rng: np.random.Generator, classes: int, batch: tuple[int, ...]) -> Any:
    if not classes:
        return chosen(rng, [None], [np.zeros(batch, int), 0], 0.05)
    labels = rng.integers(0, classes, batch)
    forms: list[Any] = [
        labels,
        jnp.asarray(labels),
        labels.astype(np.uint8),
        labels.tolist(),
        int(rng.integers(classes)),
    ]
    wrong: list[Any] = [
        None,
        labels + classes,
        labels - classes,
        labels + 0.5,
        labels.astype(float),
        labels == 0,
        99,
        -1,
    ]
    return chosen(rng, forms, [*wrong, np.zeros((7,), int), "cat"])


def test_log_prob(subject):
    """Random examples, keys, labels and draws against one example at a time."""
    rng = np.random.default_rng(1)
    with tallied(60) as tally:
        for _ in range(60):
            batch = BATCHES[rng.integers(len(BATCHES))]
            values = {
                "x": random_x(rng, subject.density, batch),
                "key": random_key(rng, subject.density, batch),
                "condition": random_labels(rng, subject.classes, batch),
                "draws": chosen(rng, [1, 2, np.int64(3)], [0, -1, 2.5, "3", None, True], 0.1),
            }
            given = {name: bare(value) for name, value in values.items()}
            x, draws = given.pop("x"), given["draws"]
            result = outcome(lambda x=x, given=given: subject.density.log_prob(x, **given), tally)
            if not judged(values, result):
                continue
            assert result.shape == batch
            expected = subject.expected(x, given["key"], given["condition"], draws, batch=batch)
            np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-5)


def test_sample(subject):
    """Random shapes, labels and temperatures against one sample at a time."""
    density, rng = subject.density, np.random.default_rng(2)
    with tallied(30) as tally:
        for _ in range(30):
            shape = chosen(
                rng,
                [(), 1, (4,), 4, (2, 2), [4], np.int64(4), 0],
                [-1, 2.5, "2", (2, -1), None, True],
            )
            values = {
                "key": random_key(rng, NEEDS_KEY, ()),
                "sample_shape": shape,
                "condition": random_labels(rng, subject.classes, ()),
                "temperature": chosen(
                    rng, [1.0, 0.5, 1, np.float32(0.7)], [-1.0, np.nan, np.inf, "hot", None, 1j]
                ),
            }
            given = {name: bare(value) for name, value in values.items()}
            result = outcome(lambda given=given: density.sample(**given), tally)
            if not judged(values, result):
                continue
            sizes = tuple(np.atleast_1d(np.asarray(given["sample_shape"], int)))
            assert result.shape == (*sizes, *density.event_shape)
            flat = np.asarray(result).reshape(-1, *density.event_shape)
            condition = given["condition"]
            label = None if condition is None else jnp.asarray(condition, jnp.int32)
            temperature = float(given["temperature"])
            for i, x in enumerate(flat):
                key = jax.random.fold_in(typed(given["key"]), i)
                one = np.asarray(subject.sample(key, label, temperature))
                if density.levels is None:
                    np.testing.assert_allclose(x, one, rtol=2e-4, atol=2e-4)
                else:  # rounding at a tie may differ between shapes, and a later pixel follows it
                    assert x.dtype == np.uint8
                    assert x.max() < density.levels
                    assert np.abs(x.astype(int) - one).mean() < 0.5 or subject.classes


NEEDS_KEY = DENSITIES["noisy normal"].make()


def test_evaluate_and_scores(subject):
    """Random datasets and arguments: a mean is the mean of single log-probabilities, a score their
    negative."""
    density, rng = subject.density, np.random.default_rng(3)
    score = lj.ood.NegativeLogProb()
    with tallied(60) as tally:
        for _ in range(30):
            n = int(rng.integers(1, 6))
            x = examples_of(density, n, seed=int(rng.integers(100)))
            labels = rng.integers(0, max(1, subject.classes), n)
            good = lj.Dataset.from_array(x, levels=density.levels, labels=labels)
            other = examples_of(DENSITIES["pixel histogram"].make(), n)
            wrong = [lj.Dataset.from_array(other[:, :2], levels=5), None, "digits", {"x": x}]
            if subject.classes:
                wrong += [
                    dataclasses.replace(good, labels=None),
                    dataclasses.replace(good, labels=labels + 3),
                ]
            key = random_key(rng, density, ())
            values = {
                "dataset": chosen(rng, [good], wrong),
                "key": key,
                "draws": chosen(rng, [1, 2], [0, 1.5, "2"], 0.1),
                "batch_size": chosen(rng, [4], [0, -3, 2.5, None], 0.1),
            }
            given = {name: bare(value) for name, value in values.items()}
            dataset = given.pop("dataset")
            result = outcome(lambda d=dataset, given=given: lj.evaluate(density, d, **given), tally)
            if judged(values, result):
                condition = labels if subject.classes else None
                expected = subject.expected(x, given["key"], condition, given["draws"], batch=(n,))
                np.testing.assert_allclose(result.log_prob, expected, rtol=2e-5, atol=1e-5)
            if subject.classes:
                tally["answered"] += 1
                continue
            settings = {"key": given["key"], "batch_size": given["batch_size"]}
            fitted = outcome(lambda d=dataset, s=settings: score.fit(density, d, **s), tally)
            if judged({name: value for name, value in values.items() if name != "draws"}, fitted):
                scores = fitted(x, key=given["key"])
                expected = subject.expected(x, given["key"], None, 1, batch=(n,))
                np.testing.assert_allclose(scores, -expected, rtol=2e-5, atol=1e-5)


def test_datasets():
    """Random arrays: a dataset holds the very values that came in, or the array is refused."""
    rng = np.random.default_rng(4)
    with tallied(300) as tally:
        for _ in range(300):
            n = int(rng.integers(1, 5))
            images = rng.integers(0, 4, (n, 3, 3))
            table = rng.normal(size=(n, 3))
            bad_table = table.copy()
            bad_table[0, 1] = rng.choice([np.nan, np.inf, -np.inf])
            continuous = bool(rng.random() < 0.5)
            forms: list[Any] = (
                [
                    table,
                    table.astype("f4"),
                    table.tolist(),
                    jnp.asarray(table, "f4"),
                    table.astype(">f8"),
                ]
                if continuous
                else [
                    images,
                    images.astype(np.uint8),
                    images.tolist(),
                    jnp.asarray(images),
                    images.astype(">i4"),
                    images.astype(object),
                ]
            )
            wrong = (
                [
                    bad_table,
                    table[:0],
                    table.astype(complex),
                    table.astype(str),
                    "table",
                    None,
                    3.0,
                    table[:, 0],
                ]
                if continuous
                else [images + 1, images - 1, images / 4.0, images[:0], None, "images", 3]
            )
            levels = None if continuous else 4
            values = {
                "examples": chosen(rng, forms, wrong),
                "levels": chosen(rng, [levels], [0, 1, -4, 2.5, "4"], 0.1),
                "labels": chosen(
                    rng,
                    [None, rng.integers(0, 3, n)],
                    [np.zeros(n + 1, int), rng.normal(size=n), "a"],
                    0.1,
                ),
                "weights": chosen(
                    rng,
                    [None, rng.random(n) + 0.1],
                    [np.zeros(n), np.full(n, np.nan), -np.ones(n)],
                    0.1,
                ),
            }
            given = {name: bare(value) for name, value in values.items()}
            examples = given.pop("examples")
            result = outcome(
                lambda e=examples, given=given: lj.Dataset.from_array(e, **given), tally
            )
            if not judged(values, result):
                continue
            expected = np.asarray(examples).astype(np.float64)
            expected = expected if continuous else expected[..., None]
            np.testing.assert_allclose(result.examples, expected, rtol=1e-6)
            assert result.levels == levels
            assert not result.examples.flags.writeable


def pairs_won(inside: np.ndarray, outside: np.ndarray) -> float:
    """The share of pairs in which the outside score is higher; ties count half."""
    pairs = itertools.product(inside, outside)
    return float(np.mean([float(b > a) + 0.5 * float(b == a) for a, b in pairs]))


def test_metrics():
    """Random scores, ties and all: AUROC is the share of pairs in order; what is no score is
    refused."""
    rng = np.random.default_rng(5)
    with tallied(300) as tally:
        for _ in range(300):
            inside, outside = (
                rng.integers(0, 5, rng.integers(1, 9)).astype(float) for _ in range(2)
            )
            wrong = [np.array([]), np.array([np.nan]), np.ones((2, 2)), "scores", None]
            forms = [inside, inside.tolist(), jnp.asarray(inside), np.append(inside, np.inf)]
            values = {
                "inside": chosen(rng, forms, wrong),
                "outside": chosen(rng, [outside, outside.tolist()], wrong),
            }
            first, second = (bare(value) for value in values.values())
            result = outcome(lambda a=first, b=second: lj.ood.auroc(a, b), tally)
            if judged(values, result):
                np.testing.assert_allclose(
                    result, pairs_won(np.asarray(first), np.asarray(second)), atol=1e-12
                )

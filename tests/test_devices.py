"""One code path for one device, several devices, divided parameters and several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import likejax as lj
from likejax.train import sharding
from tests.forks import START, run_program

ROOT = Path(__file__).resolve().parents[1]
SETUP = """
import dataclasses, json, os
import jax, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
if "PROCESS" in os.environ:
    process = int(os.environ["PROCESS"])
    jax.distributed.initialize(os.environ["ADDRESS"], num_processes=2, process_id=process)
import likejax as lj
model = lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, scales=1, depth=1, width=24)
train, valid = lj.load("digits"), lj.load("digits", split="validation")
experiment = lj.Experiment(
    model=model, batch_size=16, log_every=1, steps=20, validate_every=10, checkpoint_every=10,
    augment=("mutate:0.1",), initialize_with=64,
    # Adam's own eps would blow rounding up to whole steps where gradients are zero
    optimizer=lj.Optimizer(eps=1e-3),
)
def show(run):
    arrays = [np.asarray(leaf, np.float64).tolist() for leaf in jax.tree.leaves(run.last)]
    losses = [[r["step"], r.get("loss", r.get("validation"))] for r in run.history]
    print("RESULT", json.dumps([len(jax.devices()), losses, arrays]), flush=True)
"""
FIT = "show(lj.fit(experiment.override({}), train, validation=valid, key=1))\n"
WAYS = [
    {},
    {"parameter_shards": 4},
    {"parameter_shards": 8, "model.reversible": True},
    {"accumulate": 2},
]
MORE_STEPS = {"steps": 22}


def launch(
    code: str, folder: Path, devices: int, **environment: str
) -> multiprocessing.process.BaseProcess:
    """A process of its own with so many devices, which writes what it says to a new folder."""
    folder.mkdir()
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    variables = {"XLA_FLAGS": flags, **environment}
    set_up = f"import os; os.environ.update({variables!r})\n"
    process = START.Process(
        target=run_program,
        name=str(folder),
        args=(set_up + SETUP + code, str(folder), str(folder / "out"), str(folder / "err")),
        daemon=True,
    )
    process.start()
    return process


def results(process: multiprocessing.process.BaseProcess):
    process.join(300)
    folder = Path(process.name)
    assert process.exitcode == 0, (folder / "err").read_text()[-3000:]
    return [
        json.loads(line.removeprefix("RESULT "))
        for line in (folder / "out").read_text().splitlines()
        if line.startswith("RESULT ")
    ]


def fits(folder: Path, devices: int, ways: list[dict[str, int]]):
    """Results of runs that differ in those settings, from one process: it starts once."""
    return results(launch("".join(FIT.format(settings) for settings in ways), folder, devices))


@pytest.fixture(scope="module")
def one_device_runs(tmp_path_factory):
    return fits(tmp_path_factory.mktemp("one") / "process", 1, [{}, MORE_STEPS])


@pytest.fixture(scope="module")
def one_device(one_device_runs):
    return one_device_runs[0]


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eight") / "process"
    return dict(zip(map(str, WAYS), fits(folder, 8, WAYS), strict=True))


def assert_like(found, expected, rtol):
    (_, losses, arrays), (_, expected_losses, expected_arrays) = found, expected
    np.testing.assert_allclose(losses, expected_losses, rtol=rtol)
    for a, b in zip(arrays, expected_arrays, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_eight_devices_give_the_losses_of_one(settings, one_device, eight_devices):
    """Copied, divided and accumulated: every loss is that of one device within 1e-5 relative."""
    eight = eight_devices[str(settings)]
    assert eight[0] == 8
    assert_like(eight, one_device, rtol=1e-5)


OWN_ITERABLES = """
mine = lj.load("moons").examples[100 * jax.process_index() :][:100]
model = lj.models.VectorGlowConfig(dimensions=2, depth=1, width=4)
points = lj.Experiment(model=model, batch_size=16, steps=2)
apart = lj.fit(points, [mine], key=2)
arrays = [np.asarray(leaf, np.float64).tolist() for leaf in jax.tree.leaves(apart.last)]
print("RESULT", json.dumps(arrays))
"""


OWN_VALIDATION = """
try:
    lj.fit(experiment, train, validation=valid[jax.process_index() :], key=1)
except ValueError as error:
    print("RESULT", json.dumps(str(error)))
"""


SHARED = """
density, points = apart.density, lj.load("moons", split="test").take(slice(0, 90))
folder = os.path.join({folder!r}, os.environ["PROCESS"])  # each process sees its own files alone
def numbers(devices, workdir=None):
    rows = [lj.evaluate(density, points, batch_size=size, devices=devices) for size in (16, 90)]
    samples = density.sample(jax.random.key(3), 10, batch_size=4, devices=devices)
    report = lj.ood.benchmark(
        density, inside=points, outside=[lj.load("circles").take(slice(0, 40))],
        scores=[lj.ood.Typicality()], held_out=lj.load("moons").take(slice(0, 80)), key=4,
        batch_size=32, resamples=10, workdir=workdir, devices=devices,
    )
    report = json.dumps(report.to_dict())
    return [*(each.log_prob.tolist() for each in rows), np.asarray(samples).tolist(), report]
alone, together = numbers(None), numbers(jax.devices(), folder)
kept = os.listdir(folder)
again = numbers(jax.devices(), folder)
print("RESULT", json.dumps([alone == together == again, len(kept), kept == os.listdir(folder)]))
"""


def test_two_processes_give_the_result_of_one(one_device_runs, tmp_path):
    """Two processes of two devices each, joined by jax.distributed on loopback, with checkpoints
    that one resumes.

    Before that they train on an iterable of their own each, from the same parameters all the same,
    and share the rows of an evaluation, samples and a benchmark, of which the first keeps features.
    """
    one_device, straight = one_device_runs
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    workdir = str(tmp_path / "run")
    code = f"show(lj.fit(experiment, train, validation=valid, workdir={workdir!r}, key=1))"
    shared = SHARED.format(folder=str(tmp_path / "features"))
    all_code = f"{OWN_ITERABLES}{shared}{OWN_VALIDATION}{code}\njax.distributed.shutdown()\n"
    both = [
        launch(all_code, tmp_path / f"process-{index}", 2, ADDRESS=address, PROCESS=str(index))
        for index in (0, 1)
    ]
    found = [results(process) for process in both]
    (apart, of_first, refused, first), (also_apart, of_second, _, second) = found
    assert apart == also_apart
    are_equal, files, go_on = of_first
    assert are_equal
    assert files > 0
    assert go_on
    assert of_second == [True, 0, True]
    assert "expected the same validation rows in all 2 processes" in refused
    assert first[0] == 4
    assert first[2] == second[2]
    assert_like(first, one_device, rtol=1e-5)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == len(first[1])
    more = f"experiment = dataclasses.replace(experiment, **{MORE_STEPS})\n"
    (resumed,) = results(launch(more + code, tmp_path / "alone", 1))
    assert_like(resumed, straight, rtol=1e-5)


BREAKS = """
import os, sys
import likejax.devices
from likejax.cli import main
def shared(*results):
    raise RuntimeError("broken")
if os.environ["LIKEJAX_PROCESSES"].endswith(",1"):
    likejax.devices.shared = shared
sys.exit(main())
"""
"""The command line, of which the second process fails before it gives its results."""


def command_line(
    words: str, folder: Path, program: tuple[str, ...] = ("-m", "likejax"), **environment: str
) -> subprocess.Popen:
    """The command line in a folder, with what it prints on its standard error."""
    return subprocess.Popen(
        [sys.executable, *program, *words.split()],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two_processes(
    words: str, folder: Path, program: tuple[str, ...] = ("-m", "likejax"), of_second: str = ""
) -> list[subprocess.Popen]:
    """One command in two processes that know of each other; the second may have its own words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = f"{words} --distributed", f"{words} --distributed {of_second}"
    return [
        command_line(each, folder, program, LIKEJAX_PROCESSES=f"127.0.0.1:{port},2,{index}")
        for index, each in enumerate(commands)
    ]


def test_a_killed_process_ends_the_others_and_the_run_goes_on(tmp_path):
    """kill -9 of one of two processes of the command line: the other says so and ends within a
    minute, and one process alone goes on from the last checkpoint.

    Two processes evaluate the run as one does, and the first one of them prints and writes. If one
    fails, or is given other words, both end.
    """
    words = "train vector_glow/moons --workdir run --checkpoint-every 2 --log-every 1"
    words += " --validate-every 1000 --batch-size 16 --model.depth 1"
    both = two_processes(f"{words} --steps 1000000", tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    started = time.monotonic()
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 6:
        assert all(process.poll() is None for process in both), both[0].communicate()[1]
        assert time.monotonic() - started < 200
        time.sleep(0.2)
    both[1].kill()
    _, printed = both[0].communicate(timeout=60)
    both[1].communicate()
    assert both[0].returncode != 0
    assert "another process of this command has ended" in printed, printed
    assert "goes on from its last checkpoint" in printed, printed
    # a few steps more than both have taken: each second one writes a checkpoint
    end = json.loads(metrics.read_text().splitlines()[-1])["step"] + 20
    resumed = command_line(f"{words} --steps {end} --draws 1", tmp_path)
    _, told = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, told
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps[-1] == end
    assert f"step 1/{end}:" not in told, "the run began anew"
    assert f"step {end}/{end}:" in told
    both = two_processes("evaluate run --json two.json --batch-size 500", tmp_path)
    (first, _), (second, _) = (process.communicate(timeout=120) for process in both)
    of_one = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    of_two = json.loads((tmp_path / "two.json").read_text())
    assert of_two["mean"] == pytest.approx(of_one["mean"], rel=1e-6)
    assert first.startswith("log p =")  # what connects the processes says so on standard error
    assert second == ""
    both = two_processes("evaluate run", tmp_path, ("-c", BREAKS))
    (_, lost), (_, broken) = (process.communicate(timeout=60) for process in both)
    assert [process.returncode for process in both] == [1, 1], lost
    assert "RuntimeError: broken" in broken
    assert "another process of this command has ended" in lost
    both = two_processes("evaluate run", tmp_path, of_second="--seed 1")
    for process in both:
        _, printed = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "expected the same command line in all 2 processes" in printed


def test_parameters_are_divided_along_their_longest_axis():
    mesh = jax.sharding.AbstractMesh((2, 4), sharding.AXES)
    shape = jax.ShapeDtypeStruct
    found = sharding.divided(
        mesh, {"a": shape((3, 3, 8, 512), "f4"), "b": shape((7,), "f4"), "c": shape((63, 65), "f4")}
    )
    assert found["a"].spec == jax.sharding.PartitionSpec(None, None, None, "shard")
    assert found["b"].spec == found["c"].spec == jax.sharding.PartitionSpec()


def test_numbers_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"parameter_shards to divide the 1 devices, got 3"):
        lj.fit(
            lj.Experiment(model=lj.models.VectorGlowConfig(), parameter_shards=3),
            lj.load("moons"),
            key=0,
        )
    with pytest.raises(ValueError, match="divisible by accumulate=3"):
        lj.Experiment(model=lj.models.VectorGlowConfig(), accumulate=3)


SCORING = """
import warnings
warnings.simplefilter("ignore")
model = lj.models.GlowConfig(event_shape=(8, 8, 1), levels=17, scales=1, depth=1, width=8)
density = lj.build(model, key=0).initialize(train.examples[:64], 1)
test = lj.load("digits", split="test")
seen = set()
@dataclasses.dataclass(frozen=True)
class Places(lj.ood.Feature):
    def __call__(self, densities, x, keys):
        leaf = jax.tree.leaves(densities["density"])[0]
        seen.update(device.id for device in leaf.devices())
        return np.asarray(x, np.float64).sum((1, 2, 3))
@dataclasses.dataclass(frozen=True)
class Sum(lj.ood.Score):
    @property
    def features(self):
        return (Places(),)
def numbers(devices):
    evaluation = lj.evaluate(density, test, key=2, draws=2, batch_size=16, devices=devices)
    scores = [lj.ood.Typicality(), lj.ood.ParameterGradient(), Sum()]
    report = lj.ood.benchmark(
        density, inside=test, outside=[test.invert()], scores=scores, held_out=valid, key=0,
        resamples=2, batch_size=16, devices=devices,
    )
    fitted = scores[0].fit(density, valid, key=3, batch_size=16, devices=devices)
    typical = fitted(test.examples, key=4, batch_size=16, devices=devices)
    of_sets = [np.ravel(v).tolist() for each in report.scores for v in each.values.values()]
    drawn = np.ravel(density.sample(5, 359, batch_size=16, devices=devices))
    return [evaluation.log_prob.tolist(), typical.tolist(), drawn.tolist(), *of_sets]
whole = density.log_prob(test.examples[:16], key=6)
for kind in jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit:
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(kind,))
    places = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    spread = jax.device_put(test.examples[:16], places)
    np.testing.assert_allclose(density.log_prob(spread, key=6), whole, rtol=1e-5)
    assert len(density.encode(spread, key=6).devices()) == 8
one = numbers(jax.devices()[:1])
used_by_one = sorted(seen)
seen.clear()
print("RESULT", json.dumps([used_by_one, one, numbers(None), sorted(seen)]))
"""


def test_eight_devices_evaluate_score_and_sample_as_one(tmp_path):
    """Chunks of one shape on eight devices: every number is the same to the last bit."""
    ((used_by_one, one, eight, used),) = results(launch(SCORING, tmp_path / "process", 8))
    assert used_by_one == [0]
    assert used == list(range(8))
    assert [len(each) for each in one] == [359, 359, 64 * 359, *[359] * 6]
    assert one == eight


def test_chunks_are_in_order_and_stop_at_an_error():
    """Two places that are one device here: threads keep the order, and an error comes through."""
    from likejax import devices

    rows = np.arange(7)
    places = [None, None]
    with devices._threads(lambda start, place: rows[start : start + 2].tolist(), places) as results:
        assert list(results(range(0, 7, 2))) == [[0, 1], [2, 3], [4, 5], [6]]
    with (
        pytest.raises(ZeroDivisionError),
        devices._threads(lambda start, place: 1 // (start - 2), places) as results,
    ):
        list(results(range(0, 7, 2)))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([], ValueError, "at least one device"),
        ("cpu", TypeError, "expected devices such as jax.devices"),
        (["cpu:0"], TypeError, "expected devices such as jax.devices"),
        ([jax.devices()[0]] * 2, ValueError, "each named once"),
    ],
    ids=str,
)
def test_what_are_no_devices_is_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        lj.evaluate(lj.models.Uniform((2,)), np.full((3, 2), 0.5), devices=wrong)

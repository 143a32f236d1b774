"""Runs that are killed at any moment end where they would have ended undisturbed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import likejax as lj
from likejax.storage.store import Store
from likejax.train.interrupt import Interruption
from tests import faulted_run
from tests.forks import START

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from tests.faulted_run import train
train(sys.argv[1], int(sys.argv[2]))
"""


def launch(workdir: Path, steps: int) -> subprocess.Popen:
    arguments = [sys.executable, "-c", SCRIPT, str(workdir), str(steps)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr
    return process


def finish(*processes: multiprocessing.Process) -> None:
    """Waits for processes that ``fork`` started; what one said is shown if it failed."""
    for process in processes:
        process.join(300)
        assert process.exitcode == 0, Path(process.name).read_text()[-3000:]


def assert_same_run(one: Path, other: Path) -> None:
    """Bitwise the same weights, best and last, and the same log but for its clock."""
    for which in ("best", "last"):
        pairs = zip(
            *(jax.tree.leaves(lj.restore(run, which=which)) for run in (one, other)), strict=True
        )
        assert all(np.array_equal(a, b) for a, b in pairs)
    logs = [
        [
            {k: v for k, v in r.items() if k not in ("seconds", "steps_per_second")}
            for r in _history(run)
        ]
        for run in (one, other)
    ]
    assert logs[0] == logs[1]


def _history(run: Path):
    from likejax.train.log import read_metrics

    return read_metrics(run / "metrics.jsonl")


def wait_for_steps(workdir: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while (
        not (workdir / "metrics.jsonl").exists()
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.02)


def test_ctrl_c_saves_and_a_second_one_acts_at_once(tmp_path):
    process = launch(tmp_path / "run", 1_000_000)
    wait_for_steps(tmp_path / "run", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err.rstrip().endswith("KeyboardInterrupt")
    stopped = int(err.split("stopped by SIGINT after step ")[1].split(":")[0])
    assert Store(tmp_path / "run" / "last").steps()[-1] == stopped
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.received == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def fork(workdir: Path, steps: int, said: Path) -> multiprocessing.Process:
    process = START.Process(
        target=faulted_run.train_in_a_fork,
        name=str(said),
        args=(str(workdir), steps, str(said)),
        daemon=True,
    )
    process.start()
    return process


def wait_until_said(said: Path, pattern: str, process: multiprocessing.Process) -> None:
    while not (said.exists() and re.search(pattern, said.read_text(), re.M | re.S)):
        assert process.is_alive(), f"{said.read_text()[-3000:]}\n{ENDED_EARLY}"
        time.sleep(0.01)


FAULTS = int(os.environ.get("LIKEJAX_FAULTS", "12"))
"""Number of faults, of which a soak has more: CONTRIBUTING.md has the command."""
ENDED_EARLY = "the run ended before it was disturbed so often: give it more steps"
TWO_LOG_LINES = r"^step \d+/.*^step \d+/"
"""Thirty steps apart, while there is a checkpoint every 25 steps."""


def test_faults_change_no_bit(tmp_path):
    """Kills, full disks and truncated files at random moments: no intact checkpoint is lost, and
    the final weights and log equal those of an undisturbed run."""
    steps, rng = 100 * FAULTS, random.Random(1)
    straight = fork(tmp_path / "straight", steps, tmp_path / "straight.txt")
    kinds = [kill, kill, end_at_start, terminate, fill_the_disk, truncate_a_file]
    faults = list(itertools.islice(itertools.cycle(kinds), FAULTS))
    rng.shuffle(faults)
    reached, saved = [], []
    last = tmp_path / "run" / "last"
    for number, fault in enumerate(faults):
        said = tmp_path / f"fault_{number}.txt"
        fault(fork(tmp_path / "run", steps, said), said, rng, last)
        messages = said.read_text()
        passed_over = map(int, re.findall(r"checkpoint of step (\d+) in .* is damaged", messages))
        intact = max(set(saved) - set(passed_over), default=0)
        saved = Store(last).steps() if last.is_dir() else []
        reached.append(max(saved, default=0))
        assert reached[-1] >= intact, (reached, saved, messages[-3000:])
    assert len(set(reached)) > 0.4 * FAULTS, reached
    undisturbed = fork(tmp_path / "run", steps, tmp_path / "undisturbed.txt")
    finish(straight, undisturbed)
    assert_same_run(tmp_path / "run", tmp_path / "straight")
    print(f"steps reached: {reached}")


def wait_while_it_trains(process: multiprocessing.Process, said: Path, rng: random.Random) -> None:
    wait_until_said(said, TWO_LOG_LINES, process)
    time.sleep(rng.uniform(0.0, 0.3))
    assert process.is_alive(), ENDED_EARLY


def end(process: multiprocessing.Process, number: signal.Signals, *codes: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode in codes, Path(process.name).read_text()[-3000:]


def kill(process: multiprocessing.Process, said: Path, rng: random.Random, last: Path) -> None:
    """``kill -9`` while it trains, validates and writes."""
    wait_while_it_trains(process, said, rng)
    end(process, signal.SIGKILL, -signal.SIGKILL)


def end_at_start(
    process: multiprocessing.Process, said: Path, rng: random.Random, last: Path
) -> None:
    """``kill -9`` or SIGTERM while it reads its checkpoint and compiles."""
    wait_until_said(said, "^ready", process)
    time.sleep(rng.uniform(0.0, 1.2))
    number = rng.choice([signal.SIGKILL, signal.SIGTERM])
    end(process, number, -number, 143)


def terminate(process: multiprocessing.Process, said: Path, rng: random.Random, last: Path) -> None:
    """SIGTERM, at which it saves the state of the very step and ends with the signal's code."""
    wait_while_it_trains(process, said, rng)
    end(process, signal.SIGTERM, 143)
    messages = said.read_text()
    assert "stopping after this step and saving" in messages
    stopped = int(messages.split("stopped by SIGTERM after step ")[1].split(":")[0])
    assert Store(last).steps()[-1] == stopped


def fill_the_disk(
    process: multiprocessing.Process, said: Path, rng: random.Random, last: Path
) -> None:
    """Its files cannot grow any more, that of its messages neither, as on a full disk: it ends."""
    wait_while_it_trains(process, said, rng)
    assert process.pid is not None
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    process.join(60)
    assert process.exitcode == 1, said.read_text()[-3000:]


def truncate_a_file(
    process: multiprocessing.Process, said: Path, rng: random.Random, last: Path
) -> None:
    """``kill -9``, and then a file of the newest checkpoint loses its end; another one is there."""
    wait_while_it_trains(process, said, rng)
    while len(Store(last).steps()) < 2:
        assert process.is_alive(), ENDED_EARLY
    end(process, signal.SIGKILL, -signal.SIGKILL)
    newest = last / str(Store(last).steps()[-1])
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    path = rng.choice(files)
    os.truncate(path, rng.randrange(path.stat().st_size))

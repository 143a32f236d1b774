"""Runs that are killed at any moment end where they would have ended undisturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
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


def test_sigterm_saves_and_ends(tmp_path):
    """The state of the very step is saved, the exit code is the signal's, and the run ends as an
    undisturbed one."""
    steps = 1200
    straight = fork(tmp_path / "straight", steps, tmp_path / "straight.txt")
    said = tmp_path / "stopped.txt"
    process = fork(tmp_path / "run", steps, said)
    wait_until_said(said, TWO_LOG_LINES, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    err = said.read_text()
    assert process.exitcode == 143, err[-3000:]
    assert "stopping after this step and saving" in err
    stopped = int(err.split("stopped by SIGTERM after step ")[1].split(":")[0])
    assert Store(tmp_path / "run" / "last").steps()[-1] == stopped
    finish(straight, fork(tmp_path / "run", steps, tmp_path / "finished.txt"))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


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


ENDED_EARLY = "the run ended before it was disturbed twenty times: give it more steps"
TWO_LOG_LINES = r"^step \d+/.*^step \d+/"
"""Thirty steps apart, while there is a checkpoint every 25 steps."""


def test_twenty_faults_change_no_bit(tmp_path):
    """kill -9 and SIGTERM at twenty random moments; final weights and log equal those of an
    undisturbed run."""
    steps, rng = 2000, random.Random(1)
    straight = fork(tmp_path / "straight", steps, tmp_path / "straight.txt")
    reached = []
    for fault in range(20):
        said = tmp_path / f"fault_{fault}.txt"
        process = fork(tmp_path / "run", steps, said)
        # three in four while it trains, validates and writes, the others while it starts
        trains = fault % 4 > 0
        wait_until_said(said, TWO_LOG_LINES if trains else "^ready", process)
        time.sleep(rng.uniform(0.0, 0.3 if trains else 1.2))
        assert process.is_alive(), ENDED_EARLY
        os.kill(process.pid, rng.choice([signal.SIGKILL, signal.SIGTERM]))
        process.join(60)
        assert process.exitcode in (-signal.SIGKILL, 143, -signal.SIGTERM)
        last = tmp_path / "run" / "last"
        reached.append(max(Store(last).steps(), default=0) if last.is_dir() else 0)
    assert reached == sorted(reached)  # nothing that was saved is lost
    assert len(set(reached)) > 10, reached
    undisturbed = fork(tmp_path / "run", steps, tmp_path / "undisturbed.txt")
    finish(straight, undisturbed)
    assert_same_run(tmp_path / "run", tmp_path / "straight")
    print(f"steps reached: {reached}")

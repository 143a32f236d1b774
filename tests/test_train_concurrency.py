"""Saves, restores and trainings at the same time: in threads, under a running event loop, in a
forked process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import os
import threading
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import likejax as lj
from likejax.storage import thread as storage_thread
from likejax.storage.store import Store
from likejax.storage.thread import StorageTimeoutError, ask
from tests.registry import Laplace

POINTS = lj.Dataset.from_array(np.random.default_rng(0).laplace(size=(80, 2)).astype(np.float32))
EXPERIMENT = lj.Experiment(model=Laplace(), batch_size=20, steps=8, checkpoint_every=1, log_every=8)


@pytest.fixture(autouse=True)
def _a_hang_shows_where_it_stands():
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def train(place: Path) -> bool:
    run = lj.fit(EXPERIMENT, POINTS, key=0, workdir=place)
    return same(lj.restore(place, density=Laplace()), run.density)


def save(place: Path) -> bool:
    density = Laplace()
    for _ in range(5):
        lj.save(density, place)
    return same(lj.restore(place, density=Laplace()), density)


def test_trainings_and_saves_in_threads_of_one_process(tmp_path):
    """Eight at once, each with what it wrote afterwards; two of the savers share a directory."""
    jobs = [(train, tmp_path / f"run{i}") for i in range(4)]
    jobs += [(save, tmp_path / name) for name in ("a", "b", "shared", "shared")]
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job, place) for job, place in jobs]
        assert all(future.result(200) for future in futures)
    assert Store(tmp_path / "run0" / "last").steps() == [7, 8]


def test_readers_see_a_whole_density_while_another_thread_replaces_it(tmp_path):
    one, other = Laplace(), lj.fit(EXPERIMENT, POINTS, key=0).last
    lj.save(one, tmp_path)
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            found = lj.restore(tmp_path, density=one)
            assert same(found, one) or same(found, other)
            count += 1
        return count

    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        warnings.simplefilter("error")  # nothing is taken for damaged
        reader = pool.submit(read)
        for density in (other, one) * 4:
            lj.save(density, tmp_path)
        done.set()
        assert reader.result(60) > 0


def test_under_a_running_event_loop(tmp_path):
    """As in a notebook: in the thread of the loop, and in threads that it waits for."""

    async def everything():
        assert train(tmp_path / "here")
        assert save(tmp_path / "saved")
        return await asyncio.gather(
            *(asyncio.to_thread(train, tmp_path / f"there{i}") for i in range(2))
        )

    assert asyncio.run(everything()) == [True, True]


def test_two_threads_cannot_train_in_one_directory(tmp_path):
    began, may_end = threading.Event(), threading.Event()

    def slow():
        yield POINTS.examples[:20]
        began.set()
        assert may_end.wait(60)
        while True:
            yield POINTS.examples[:20]

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: lj.fit(EXPERIMENT, slow(), key=0, workdir=tmp_path))
        try:
            assert began.wait(60)
            with pytest.raises(
                lj.train.CheckpointError, match="another process or thread is training in"
            ):
                lj.fit(EXPERIMENT, POINTS, key=0, workdir=tmp_path)
        finally:
            may_end.set()
        assert first.result(60).steps == 8


def test_jobs_come_one_at_a_time_in_order_and_hand_over_errors():
    running, order = [], []

    def work(number: int) -> int:
        running.append(number)
        assert running == [number]
        order.append(number)
        running.remove(number)
        return number

    jobs = [
        ask(f"number {number} to be noted", lambda number=number: work(number))
        for number in range(50)
    ]
    assert [job.result(patience=10.0) for job in jobs] == list(range(50)) == order
    with pytest.raises(ZeroDivisionError):
        ask("a mistake", lambda: 1 // 0).result(patience=10.0)
    inside = ask(
        "a job that asks for another", lambda: ask("another", lambda: 7).result(patience=10.0)
    )
    assert inside.result(patience=10.0) == 7


def test_a_wait_has_a_limit_and_names_what_it_waits_for(tmp_path, monkeypatch):
    """A disk that does not answer: the save that waits says so, and is no silent success."""
    answers = threading.Event()
    store = Store(tmp_path, writes=True)
    monkeypatch.setattr(storage_thread, "PATIENCE", 0.2)
    try:
        stuck = ask("a disk that does not answer", lambda: answers.wait(60))
        with pytest.raises(
            StorageTimeoutError, match=r"for a disk that does not answer.*stands at .*wait"
        ):
            stuck.result()
        store.save(3, {"x": {"a": np.zeros(2, np.float32)}}, {})
        with pytest.raises(
            lj.train.CheckpointError,
            match=r"checkpoint of step 3 .*waited 0 seconds for the checkpoint",
        ):
            store.wait()
    finally:
        answers.set()
    assert ask("the thread to be free again", lambda: True).result(patience=30.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_process_has_a_thread_of_its_own():
    assert ask("the thread to begin", lambda: 1).result(patience=30.0) == 1
    child = os.fork()
    if child == 0:  # nothing but the thread: what else JAX has running did not come along
        code = 1
        try:
            code = ask("a job in the child", lambda: 7).result(patience=20.0)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_record_is_written_as_it_was_when_it_was_given(tmp_path):
    """The training goes on while the storage thread is busy, and what it appends belongs to the
    next checkpoint."""
    answers = threading.Event()
    store = Store(tmp_path, writes=True)
    try:
        ask("a disk that is busy", lambda: answers.wait(60))
        window = [1.0]
        store.save(3, {"x": {"a": np.zeros(2, np.float32)}}, {"window": window})
        window.append(2.0)
    finally:
        answers.set()
    store.wait()
    assert store.record(3)["window"] == [1.0]

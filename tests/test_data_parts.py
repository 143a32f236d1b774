"""Parts that share no examples: how a source is cut, and how overlap is measured, refused and
allowed."""

from __future__ import annotations

import numpy as np
import pytest

import likejax as lj
from likejax.data.loading import load_parts
from likejax.data.splits import (
    check_disjoint,
    check_disjoint_rows,
    completed,
    row_hashes,
    split_by_fractions,
)
from tests.paths import DATA

RNG = np.random.default_rng(0)
FRACTIONS = {"train": 1.0, "validation": 0.1, "test": 0.2}


def table(rows, split="train"):
    return lj.Dataset.from_array(np.asarray(rows, np.float64), name="t", split=split)


def numbers(n):
    return np.arange(n, dtype=np.float64)[:, None]


def whole(part):
    return sorted(part.examples[:, 0])


# --- carving


def test_carved_rows_are_those_of_the_permutation():
    """Without copies nothing moves: the rows of earlier versions."""
    parts = split_by_fractions("t", table(numbers(100)), FRACTIONS)
    order = np.random.default_rng(20180709).permutation(100)
    assert whole(parts["test"]) == sorted(order[80:])
    assert whole(parts["validation"]) == sorted(order[70:80])
    assert whole(parts["train"]) == sorted(order[:70])
    assert parts["test"].provenance[-1] == "20 of 100 rows by the permutation of seed 20180709"


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_lie_in_one_part(copies):
    """Single rows stay where they are, copies go where the first of them is, and the provenance
    counts them."""
    rows = numbers(1000)
    twice = RNG.choice(1000, 100, replace=False)
    rows[twice[: 100 // copies * copies]] = 2000 + np.arange(100 // copies).repeat(copies)[:, None]
    parts = split_by_fractions("t", table(rows), FRACTIONS)
    assert check_disjoint(*parts.values()) == ()
    assert sorted(x for part in parts.values() for x in whole(part)) == sorted(rows[:, 0])
    assert abs(len(parts["test"]) - 200) < 40
    order = np.random.default_rng(20180709).permutation(1000)
    single = rows[order[800:], 0]
    assert set(single[single < 2000]) == {x for x in whole(parts["test"]) if x < 2000}
    assert "rows that changed parts to lie with their copies" in parts["test"].provenance[-1]


def test_a_row_that_fills_a_part_lies_in_the_first():
    rows = numbers(100)
    rows[:40] = -1.0
    parts = split_by_fractions("t", table(rows), FRACTIONS)
    assert (parts["train"].examples == -1).sum() == 40


@pytest.mark.parametrize("rows", [numbers(1), numbers(2), np.ones((50, 1))])
def test_too_few_different_rows_to_carve(rows):
    assert {split: len(part) for split, part in completed({"": table(rows)}).items()} == {
        "test": len(rows)
    }
    assert list(completed({"train": table(rows[:1])})) == ["train"]


def test_completed():
    train, valid, test = (table(numbers(100) + start) for start in (0, 1000, 2000))
    assert {s: len(p) for s, p in completed({"": train}).items()} == {
        "train": 80,
        "validation": 10,
        "test": 10,
    }
    assert {s: len(p) for s, p in completed({"train": train}).items()} == {
        "train": 80,
        "validation": 10,
        "test": 10,
    }
    assert {s: len(p) for s, p in completed({"test": test}).items()} == {"test": 100}
    assert {s: len(p) for s, p in completed({"train": train, "test": test}).items()} == {
        "train": 90,
        "validation": 10,
        "test": 100,
    }
    given = completed({"test": test, "validation": valid, "train": train})
    assert list(given) == ["train", "validation", "test"]
    assert all(
        whole(given[s]) == whole(p)
        for s, p in (("train", train), ("validation", valid), ("test", test))
    )
    small = completed({"train": train, "validation": valid})
    assert whole(small["test"]) == whole(valid)
    assert small["test"].split == "test"
    assert len(small["validation"]) == 10


@pytest.mark.parametrize(
    ("split", "message"), [("valid", "did you mean 'validation'"), ("tset", "did you mean 'test'")]
)
def test_split_misspelt(split, message, tmp_path):
    """Refused before any file is looked for."""
    with pytest.raises(ValueError, match=message):
        lj.load("nothing of that name", split=split, data_dir=tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA")
@pytest.mark.parametrize(
    "name", ["mnist", "fashion_mnist", "uci/redwine", "uci/whitewine", "adbench/2_annthyroid"]
)
def test_real_parts_share_nothing(name):
    assert check_disjoint(*load_parts(name, data_dir=DATA).values()) == ()


@pytest.mark.parametrize("name", ["digits", "photographs", "moons"])
def test_built_in_parts_share_nothing(name):
    assert check_disjoint(*load_parts(name).values()) == ()


# --- overlap


def test_one_shared_row_of_a_thousand_is_refused():
    first, second = table(numbers(5000)), table(numbers(1000) + 4999, split="test")
    with pytest.raises(
        ValueError, match=r"1 of the 1000 of t test are in t train.*at least 0\.001"
    ):
        check_disjoint(first, second)
    (allowed,) = check_disjoint(first, second, tolerance=0.001)
    assert (allowed.shared, allowed.smaller, allowed.share) == (1, 1000, 0.001)
    assert str(allowed) == "1 of the 1000 of t test are in t train"
    assert check_disjoint(first, table(numbers(10) + 5000)) == ()


def test_repetition_does_not_hide_an_overlap():
    blank = table(np.concatenate([np.zeros((500, 1)), numbers(500)]))
    with pytest.raises(ValueError, match=r"1 of the 1 of t train"):
        check_disjoint(blank, table(np.zeros((300, 1))))


def test_data_of_few_different_rows_have_a_switch():
    """4x4 bars and stripes: thirty patterns, drawn again and again."""
    bars = np.array([[i >> bit & 1 for bit in range(4)] for i in range(16)], np.uint8)
    patterns = np.concatenate([np.repeat(bars[:, :, None], 4, 2), np.repeat(bars[:, None], 4, 1)])
    parts = [
        lj.Dataset.from_array(patterns[RNG.integers(0, 32, n)], levels=2, name="bars")
        for n in (500, 100)
    ]
    with pytest.raises(ValueError, match="pass a tolerance of at least 1"):
        check_disjoint(*parts)
    assert check_disjoint(*parts, tolerance=1.0)[0].share == 1.0


def test_tolerance_is_checked():
    for tolerance in (-0.1, 1.5, float("nan")):
        with pytest.raises(
            ValueError, match="overlap tolerance to be a number of at least 0 and at most 1"
        ):
            check_disjoint_rows(("a", row_hashes(table(numbers(3)))), tolerance=tolerance)


def test_advised_tolerance_is_enough():
    for shared in (1, 7, 33, 999):
        first, second = table(numbers(3000)), table(numbers(1000) + 3000 - shared)
        with pytest.raises(ValueError, match="at least") as told:
            check_disjoint(first, second)
        advised = float(str(told.value).rsplit(" ", 1)[1])
        assert check_disjoint(first, second, tolerance=advised)[0].shared == shared

"""Text as a dataset: characters and integers, parts, files."""

from __future__ import annotations

import numpy as np
import pytest

import likejax as lj

TEXT = "It is a truth universally acknowledged,\nthat a single man in possession of\n" * 8


def test_a_text_comes_back():
    text = lj.Dataset.from_text(TEXT, length=10)
    assert text.levels == len(set(TEXT))
    assert text.examples.dtype == np.uint8
    assert "".join(lj.data.decode_text(text.examples, text.alphabet)) == TEXT
    assert text[3:5].alphabet == text.alphabet
    assert lj.data.decode_text(text.examples[3:4], text.alphabet) == [TEXT[30:40]]
    again = lj.data.recut(text, 7)
    assert "".join(lj.data.decode_text(again.examples, text.alphabet)) == TEXT[: len(TEXT) // 7 * 7]
    assert again.provenance[-1] == "cut anew in rows of 7 characters"
    assert text.representation()["alphabet"] == text.alphabet


def test_letters_beyond_ascii():
    words = "ça brûle 火曜日 🜁🜁 "
    text = lj.Dataset.from_text(words, length=len(words))
    assert lj.data.decode_text(text.examples, text.alphabet) == [words]
    given = lj.Dataset.from_text("bab", length=3, alphabet="ba火")
    assert (given.examples.tolist(), given.levels) == ([[0, 1, 0]], 3)


def test_the_provenance_says_file_length_and_alphabet(tmp_path):
    path = tmp_path / "abba.txt"
    path.write_bytes(b"abbaab\r\nb")
    text = lj.Dataset.from_text(path, length=2)
    assert text.provenance == (
        "from file abba.txt, 9 characters",
        "rows of 2 characters",
        "1 left out at the end",
        "alphabet of 4 characters: '\\n\\rab'",
    )
    assert repr(text) == "Dataset('text', train, n=4, (2,) uint8, 4 levels, text)"


def test_parts_are_stretches_that_share_nothing():
    parts = lj.data.text_parts(TEXT, length=5, validation=0.2, test=0.1)
    assert list(parts) == ["train", "validation", "test"]
    ends = {"train": (0, 420), "validation": (420, 540), "test": (540, 600)}
    for split, (start, stop) in ends.items():
        part = parts[split]
        assert (part.split, part.alphabet) == (split, parts["train"].alphabet)
        assert "".join(lj.data.decode_text(part.examples, part.alphabet)) == TEXT[start:stop]
        assert part.provenance[0].endswith(f"600 characters, of which {start}..{stop - 1}")
    joined = lj.data.concatenate(list(parts.values()))
    assert joined.alphabet == parts["train"].alphabet


def test_a_file_of_text_is_loaded_by_its_name(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "austen.txt").write_text(TEXT * 4)
    assert lj.data.datasets(tmp_path)["text/austen"] == "files"
    train = lj.load("text/austen", data_dir=tmp_path)
    assert train.event_shape == (64,)
    test = lj.load("text/austen+chars:16", split="test", data_dir=tmp_path)
    assert test.event_shape == (16,)
    assert lj.data.decode_text(test.examples[:1], test.alphabet) == [(TEXT * 4)[2160:2176]]
    (folder / "short.txt").write_text("too short")
    with pytest.raises(ValueError, match=r"short\.txt: expected at least 64 characters"):
        lj.load("text/short", data_dir=tmp_path)


def test_what_is_no_text_is_refused(tmp_path):
    make = lj.Dataset.from_text
    with pytest.raises(ValueError, match="got 'é' at position 3, in 'cafés'"):
        make("cafés", length=2, alphabet="acefs")
    with pytest.raises(ValueError, match="position 545"):
        lj.data.text_parts(TEXT[:545] + "?" + TEXT[545:], length=5, alphabet="".join({*TEXT}))
    with pytest.raises(ValueError, match="different characters, got 'a' twice"):
        make("aba", length=2, alphabet="aba")
    with pytest.raises(ValueError, match="2 to 65536 characters, got 1"):
        make("aaa", length=2)
    with pytest.raises(ValueError, match="at least 5 characters, got 3"):
        make("aba", length=5)
    with pytest.raises(TypeError, match="expected a text or the path of one, got int"):
        make(3, length=5)
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="expected text in UTF-8 in"):
        make(path, length=1)
    with pytest.raises(ValueError, match=r"got the name of a file: pass pathlib\.Path"):
        make(str(path), length=1)
    with pytest.raises(ValueError, match="expected a text to cut"):
        lj.data.recut(lj.load("digits"), 4)
    with pytest.raises(ValueError, match="differ in alphabet"):
        lj.data.concatenate([make("abab", length=2), make("acac", length=2)])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((2, 3)), "expected integers to decode, got float64"),
        (np.zeros(3, int), r"expected tokens of shape \(n, length\)"),
        (np.full((1, 2), 2), r"expected tokens in 0\.\.1"),
    ],
)
def test_what_cannot_be_decoded(tokens, message):
    with pytest.raises((TypeError, ValueError), match=message):
        lj.data.decode_text(tokens, "ab")


def test_decoding_needs_an_alphabet():
    with pytest.raises(TypeError, match="as a string of its characters, got NoneType"):
        lj.data.decode_text(np.zeros((1, 2), int), None)

"""Datasets whose files are damaged: every place that reads them answers, or says what is wrong, and
nothing else."""

from __future__ import annotations

import random
import shutil

import pytest

import likejax as lj
from likejax.data.loading import load_parts, outline
from likejax.data.readers import FileError
from tests.test_fuzz import CRAFTED, VALID, mutated

NAMES = {
    "x-images-idx3-ubyte": "train-images-idx3-ubyte",
    "x-images-idx3-ubyte.gz": "train-images-idx3-ubyte.gz",
}
FORMS = VALID | {
    "train/x.png": VALID["x.png"],
    "train_data_batch_1": VALID["test_batch"],
    "table.csv": [b"a,b,label\n1,2,x\n3,4,y\n5,6,x\n", b"1;2\n3;4\n", b"1 2\n3 4\n5 6\n"],
}


def _answer(folder) -> str:
    try:
        load_parts("d", data_dir=folder)
    except FileError:
        return "refused"
    return "read"


def test_damaged_datasets_are_refused_with_their_file(tmp_path):
    rng = random.Random(0)
    answers = {"read": 0, "refused": 0}
    for _ in range(400):
        form = rng.choice(list(FORMS))
        whole = FORMS[form]
        data = mutated(rng.choice(whole), whole, rng)
        if rng.random() < 0.1:
            data = rng.choice([*whole, *CRAFTED.get(form, [])])
        file = tmp_path / "d" / NAMES.get(form, form)
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        assert set(lj.data.datasets(tmp_path)) >= {"digits"}
        assert isinstance(outline("d", data_dir=tmp_path), str)
        answers[_answer(tmp_path)] += 1
        shutil.rmtree(tmp_path / "d")
    assert min(answers.values()) > 50


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"\xff\xfe" + data, lambda data: b""]
)
def test_damaged_packed_table(tmp_path, damage):
    import gzip

    text = "\n".join(f"{i},{i * i}" for i in range(2000)).encode()
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text))
    assert sum(map(len, load_parts("t", data_dir=tmp_path).values())) == 2000
    (tmp_path / "t.csv.gz").write_bytes(damage(gzip.compress(text)))
    with pytest.raises(FileError, match=r"t\.csv\.gz"):
        load_parts("t", data_dir=tmp_path)

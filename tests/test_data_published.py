"""Files in the forms in which they are published, and what is told of them."""

from __future__ import annotations

import gzip
import pickle
import struct
import zipfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

import likejax as lj
from likejax.cli import main
from likejax.data.loading import load_parts, outline
from likejax.data.sources.tfds import NAMES
from likejax.data.splits import check_disjoint
from tests.paths import DATA

RNG = np.random.default_rng(0)
SPLITS = ("train", "validation", "test")


def images(n: int, height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def sizes(name, folder) -> dict[str, int]:
    return {split: len(part) for split, part in load_parts(name, data_dir=folder).items()}


def rows(dataset) -> set[bytes]:
    return {example.tobytes() for example in dataset.examples}


def save_pictures(folder, pictures, mode=None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture, mode=mode).save(
            folder / f"{i:03}.png"
        )


# --- MATLAB


def save_svhn(folder, n_train=40, n_test=20):
    (folder / "svhn").mkdir()
    wanted = {}
    for part, n in (("train", n_train), ("test", n_test)):
        x, y = images(n, 32, 32), RNG.integers(1, 11, (n, 1)).astype(np.uint8)
        wanted[part] = x, y.ravel() % 10
        scipy.io.savemat(
            folder / "svhn" / f"{part}_32x32.mat", {"X": x.transpose(1, 2, 3, 0), "y": y}
        )
    return wanted


@pytest.mark.parametrize("n_test", [20, 32, 3])
def test_svhn(tmp_path, n_test):
    """The examples come first and label 10 is the digit 0, whatever the number of images."""
    wanted = save_svhn(tmp_path, n_test=n_test)
    test = lj.load("svhn", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples, wanted["test"][0])
    np.testing.assert_array_equal(test.labels, wanted["test"][1])
    assert (test.num_classes, test.class_names, test.levels) == (10, tuple("0123456789"), 256)
    told = " ".join(test.provenance)
    assert "label 10 is the digit 0" in told
    assert "last axis" in told
    assert sizes("svhn", tmp_path) == {"train": 36, "validation": 4, "test": n_test}


def test_matlab_axes_that_cannot_be_told(tmp_path):
    (tmp_path / "faces").mkdir()
    scipy.io.savemat(tmp_path / "faces" / "faces.mat", {"X": np.zeros((5, 6, 7), np.uint8)})
    with pytest.raises(ValueError, match="cannot tell which axis"):
        lj.load("faces", data_dir=tmp_path)


def test_matlab_images_kept_as_doubles(tmp_path):
    x = images(30, 8, 8, 1)[..., 0]
    scipy.io.savemat(
        tmp_path / "faces.mat",
        {"X": x.astype(float).transpose(1, 2, 0), "y": np.arange(30) % 3 + 1},
    )
    parts = load_parts("faces", data_dir=tmp_path)
    assert all(part.levels == 256 and part.event_shape == (8, 8, 1) for part in parts.values())
    assert set().union(*map(rows, parts.values())) == {example.tobytes() for example in x}
    assert parts["train"].class_names == ("1", "2", "3")


def test_matlab_headers(tmp_path):
    """What a file holds is told without reading it, also where it is compressed."""
    for compressed in (False, True):
        scipy.io.savemat(
            tmp_path / "a.mat",
            {"X": images(7), "y": np.full((7, 1), 0.5)},
            do_compression=compressed,
        )
        assert outline("a", data_dir=tmp_path).startswith("X (7, 6, 5, 3) uint8, y (7, 1) float64")


# --- arrays by name


@pytest.mark.parametrize(
    ("examples", "labels", "parts"),
    [
        ("x_{}", "y_{}", ("train", "test")),  # Keras
        ("X_{}", "Y_{}", ("train", "test")),
        ("{}_images", "{}_labels", ("train", "val", "test")),  # MedMNIST
        ("{}", "{}_labels", ("train", "valid", "test")),
        ("{}.X", "{}.y", ("Train", "Dev", "Test")),
    ],
)
def test_archives(tmp_path, examples, labels, parts):
    arrays, wanted = {}, {}
    for number, part in enumerate(parts):
        x, y = images(10 + number), RNG.integers(0, 4, (10 + number, 1))
        arrays |= {examples.format(part): x, labels.format(part): y}
        wanted[part.lower()] = x, y
    np.savez(tmp_path / "scans.npz", **arrays)
    found = load_parts("scans", data_dir=tmp_path)
    assert list(found) == list(SPLITS)
    x, y = wanted["test"]
    np.testing.assert_array_equal(found["test"].examples, x)
    np.testing.assert_array_equal(found["test"].labels, y[:, 0])
    if len(parts) == 3:
        assert [len(found[split]) for split in SPLITS] == [10, 11, 12]


def test_archives_with_more_in_them(tmp_path):
    """What is not used is said; labels of another kind than a class number are not taken for
    one."""
    x = images(20)
    np.savez(
        tmp_path / "a.npz",
        x_train=x,
        x_test=x[:5] // 2,
        train_index=np.arange(20),
        all_train_labels=np.arange(9),
    )
    assert (
        "arrays not used: train_index, all_train_labels"
        in lj.load("a", data_dir=tmp_path).provenance
    )
    np.savez(tmp_path / "b.npz", X=x, y=np.eye(4)[np.arange(20) % 4])
    assert lj.load("b", data_dir=tmp_path).num_classes == 4
    np.savez(tmp_path / "c.npz", X=x, y=np.ones((20, 3), int))
    many = lj.load("c", data_dir=tmp_path)
    assert many.labels is None
    assert "no class number per example" in " ".join(many.provenance)
    np.savez(tmp_path / "d.npz", X=x, y=np.array(["cat", "dog"] * 10))
    assert lj.load("d", data_dir=tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_val": 9, "x_valid": 9, "x_train": 9}, "two arrays of one meaning: x_val and x_valid"),
        ({"X": 9, "X_test": 9}, "of parts, or of one whole"),
        (
            {"inner": 9, "outer": 9},
            "expected arrays named x_train and x_test, or X and y; got inner, outer",
        ),
    ],
)
def test_archives_that_say_two_things(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **{name: images(n) for name, n in arrays.items()})
    with pytest.raises(ValueError, match=message):
        lj.load("a", data_dir=tmp_path)


def test_labels_of_files(tmp_path):
    """Whole floats are classes, others are refused; numbers from 1 and others are mapped once for
    all parts."""
    x = images(6)

    def labels(name, train, test):
        np.savez(
            tmp_path / f"{name}.npz",
            x_train=x,
            y_train=np.array(train),
            x_test=x[:3] // 2,
            y_test=np.array(test),
        )
        return load_parts(name, data_dir=tmp_path)

    whole = labels("whole", [0.0, 1.0, 2.0] * 2, [2.0] * 3)
    assert whole["test"].labels.dtype.kind == "i"
    np.testing.assert_array_equal(whole["test"].labels, [2, 2, 2])
    with pytest.raises(ValueError, match=r"expected integer labels, got 0\.5 at row 0"):
        labels("half", [0.5] * 6, [1.0] * 3)
    letters = labels("letters", [1, 2, 3, 1, 2, 3], [3, 3, 26])
    assert (
        letters["train"].class_names
        == letters["test"].class_names
        == tuple(str(i) for i in range(1, 27))
    )
    np.testing.assert_array_equal(letters["test"].labels, [2, 2, 25])
    assert "labels 1 to 26 are classes 0 to 25" in letters["test"].provenance
    signs = labels("signs", [-1, 1] * 3, [1, 1, 1])
    np.testing.assert_array_equal(signs["test"].labels, [1, 1, 1])
    assert signs["test"].class_names == ("-1", "1")
    gaps = labels("gaps", [0, 2, 4] * 2, [4, 4, 4])
    np.testing.assert_array_equal(gaps["test"].labels, [4, 4, 4])
    assert gaps["train"].num_classes == 5


# --- one array, from a file and from memory


@pytest.mark.parametrize("form", ["npz", "npy", "mat"])
def test_boolean_images(tmp_path, form):
    x = RNG.random((50, 8, 8)) < 0.4
    if form == "npz":
        np.savez(tmp_path / "ink.npz", x_test=x)
    elif form == "npy":
        (tmp_path / "ink").mkdir()
        np.save(tmp_path / "ink" / "test.npy", x)
    else:
        (tmp_path / "ink").mkdir()
        scipy.io.savemat(tmp_path / "ink" / "ink_test.mat", {"X": x})
    from_file, from_memory = (
        lj.load("ink", split="test", data_dir=tmp_path),
        lj.Dataset.from_array(x),
    )
    assert from_file.levels == from_memory.levels == 2
    assert from_file.fingerprint() == from_memory.fingerprint()
    seen = lj.preset("hvae/fashion_mnist-small").as_evaluated(from_file)
    np.testing.assert_array_equal(seen.examples, from_memory.examples)


def test_zeros_and_ones_are_binary(tmp_path):
    """All parts together decide, and binary images that are called gray are not binarized to
    nothing."""
    x = (RNG.random((30, 8, 8)) < 0.4).astype(np.uint8)
    np.savez(tmp_path / "ink.npz", x_train=x, x_test=0 * x[:3])
    assert {part.levels for part in load_parts("ink", data_dir=tmp_path).values()} == {2}
    np.savez(tmp_path / "gray.npz", x_train=x * 7, x_test=x)
    assert {part.levels for part in load_parts("gray", data_dir=tmp_path).values()} == {256}
    for step in (lambda data: data.binarize(0), lambda data: data.reduce_levels(4)):
        with pytest.raises(ValueError, match=r"got only zeros and ones: make binary images"):
            step(lj.Dataset.from_array(x))


@pytest.mark.parametrize("dtype", ["int64", "int16", "uint16", ">i4"])
def test_integer_images_of_other_types(tmp_path, dtype):
    x = images(20)
    np.savez(tmp_path / "a.npz", x_test=x.astype(dtype))
    from_file, from_memory = (
        lj.load("a", split="test", data_dir=tmp_path),
        lj.Dataset.from_array(x.astype(dtype)),
    )
    assert (
        from_file.fingerprint()
        == from_memory.fingerprint()
        == lj.Dataset.from_array(x).fingerprint()
    )
    np.savez(tmp_path / "b.npz", x_test=x.astype(dtype).astype(np.int64) * 100)
    for make in (
        lambda: lj.load("b", split="test", data_dir=tmp_path),
        lambda: lj.Dataset.from_array(x.astype(np.int64) * 100),
    ):
        with pytest.raises(ValueError, match="pass levels=N"):
            make()


# --- folders of images


def test_small_imagenet(tmp_path):
    """The held-out part that is published as valid is the test part, and validation comes from
    train."""
    train, valid = images(20), images(5)
    save_pictures(tmp_path / "imagenet32" / "train_32x32", train)
    save_pictures(tmp_path / "imagenet32" / "valid_32x32", valid)
    parts = load_parts("imagenet32", data_dir=tmp_path)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 18,
        "validation": 2,
        "test": 5,
    }
    np.testing.assert_array_equal(parts["test"].examples, valid)
    assert parts["test"].labels is None
    assert (
        "published as the validation part, and the only held-out one: the test part here"
        in parts["test"].provenance
    )


@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_downsampled_imagenet_in_batches(tmp_path, suffix):
    """Ten batches in the order of their numbers, planes to images, labels 1 to 1000 to classes 0 to
    999."""
    folder = tmp_path / "imagenet8"
    folder.mkdir()
    x, y = images(30, 8, 8), np.concatenate([[1, 1000], RNG.integers(1, 1001, 28)])
    planes = x.transpose(0, 3, 1, 2).reshape(30, -1)

    def save(name, rows):
        batch = {"data": planes[rows], "labels": y[rows].tolist(), "mean": planes.mean(0)}
        if suffix:
            np.savez(folder / f"{name}{suffix}", **batch)
        else:
            (folder / name).write_bytes(pickle.dumps(batch, protocol=4))

    for i in range(10):
        save(f"train_data_batch_{i + 1}", slice(2 * i, 2 * i + 2))
    save("val_data", slice(20, 30))
    parts = load_parts("imagenet8", data_dir=tmp_path)
    assert list(parts) == list(SPLITS)
    np.testing.assert_array_equal(parts["test"].examples, x[20:])
    np.testing.assert_array_equal(parts["test"].labels, y[20:] - 1)
    assert parts["train"].num_classes == 1000
    in_order = np.concatenate([parts["train"].examples, parts["validation"].examples])
    assert {image.tobytes() for image in in_order} == {image.tobytes() for image in x[:20]}
    np.testing.assert_array_equal(parts["train"].examples[0], x[0])
    assert "imagenet8" in lj.data.datasets(tmp_path)


def test_channels_that_come_first(tmp_path):
    x = images(20, 8, 8)
    np.savez(tmp_path / "torch.npz", X=x.transpose(0, 3, 1, 2))
    parts = load_parts("torch", data_dir=tmp_path)
    assert set().union(*map(rows, parts.values())) == {image.tobytes() for image in x}
    assert "axes (n, 3, 8, 8) brought to (n, height, width, channels)" in parts["test"].provenance


@pytest.mark.parametrize("classes", [None, ("cat", "dog")])
def test_one_folder_of_images_gives_all_parts(tmp_path, classes):
    pictures = images(40)
    for i, name in enumerate(classes or [""]):
        save_pictures(tmp_path / "pets" / name, pictures[i :: len(classes or [""])])
    (tmp_path / "pets" / ".ipynb_checkpoints").mkdir()
    Image.fromarray(pictures[0]).save(tmp_path / "pets" / ".ipynb_checkpoints" / "0.png")
    (tmp_path / "pets" / ".DS_Store").write_bytes(b"\0")
    parts = load_parts("pets", data_dir=tmp_path)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }
    assert set().union(*map(rows, parts.values())) == {picture.tobytes() for picture in pictures}
    assert all("by the permutation of seed" in part.provenance[-1] for part in parts.values())
    assert parts["test"].class_names == classes
    assert check_disjoint(*parts.values()) == ()


def test_classes_are_the_same_in_all_parts(tmp_path):
    """A part that lacks classes, or has one left, keeps their numbers; folders called by numbers
    keep those."""
    shade = {"cat": 10, "dog": 100, "fish": 200}
    for part, names in (("train", shade), ("test", ["fish"])):
        for name in names:
            noise = RNG.integers(0, 5, (12, 8, 8, 1), dtype=np.uint8)
            save_pictures(tmp_path / "pets" / part / name, shade[name] + noise)
    train, test = (lj.load("pets", split=s, data_dir=tmp_path) for s in ("train", "test"))
    assert set(train.labels[train.examples[:, 0, 0, 0] >= 200]) == set(test.labels) == {2}
    assert train.class_names == test.class_names == ("cat", "dog", "fish")
    assert (test.num_classes, repr(test).count("3 classes")) == (3, 1)
    for number in (0, 2, 10):
        save_pictures(tmp_path / "digits10" / str(number), images(2))
    assert lj.load("digits10", data_dir=tmp_path).num_classes == 11


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "car", "plane"), "holds a folder 'train' beside car, plane"),
        (("train", "training"), "two folders for one part"),
        (("cup/train", "cup/test", "pen/train"), "a part below another folder"),
        ((".", "cat", "dog"), "holds images beside folders of images"),
    ],
)
def test_folders_that_say_two_things(tmp_path, folders, message):
    for name in folders:
        save_pictures(tmp_path / "things" / name, images(2))
    with pytest.raises(ValueError, match=message):
        lj.load("things", data_dir=tmp_path)


def test_folders_called_almost_like_parts_are_classes(tmp_path):
    for name in ("test_tube", "training_shoe"):
        save_pictures(tmp_path / "things" / name, images(5))
    assert lj.load("things", data_dir=tmp_path).class_names == ("test_tube", "training_shoe")


def test_zips_as_archivers_leave_them(tmp_path):
    """Parts and classes inside of an archive count, and what a Mac adds to it does not."""
    (tmp_path / "pets").mkdir()
    save_pictures(tmp_path / "loose", images(4))
    with zipfile.ZipFile(tmp_path / "pets" / "pets.zip", "w") as archive:
        for i, inner in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
            archive.write(tmp_path / "loose" / f"{i:03}.png", f"pets/{inner}/{i}.png")
            archive.writestr(f"__MACOSX/pets/{inner}/._{i}.png", b"\0\5\x16\7")
        archive.writestr("pets/.DS_Store", b"\0")
    parts = load_parts("pets", data_dir=tmp_path)
    assert len(parts["test"]) == 2
    assert parts["test"].class_names == ("cat", "dog")
    assert "pets.zip: 4 images like (6, 5, 3) uint8" in outline("pets", data_dir=tmp_path)


def test_pictures_are_turned_as_they_are_seen(tmp_path):
    picture = images(1)[0]
    (tmp_path / "p" / "test").mkdir(parents=True)
    turned = Image.fromarray(np.rot90(picture).copy())  # a camera held upright, which says so
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "p" / "test" / "a.png", exif=exif)
    Image.fromarray(picture).save(tmp_path / "p" / "test" / "b.png")
    test = lj.load("p", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples, [picture, picture])
    assert "1 images turned as their EXIF orientation says" in test.provenance


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGBA", "transparent pixels"),
        ("LA", "transparent pixels"),
        ("CMYK", r"convert\('RGB'\)"),
        ("I;16", r"\.npy"),
    ],
)
def test_pictures_that_are_not_plain(tmp_path, mode, message):
    (tmp_path / "p" / "test").mkdir(parents=True)
    gray = Image.fromarray(images(1, channels=1)[0, ..., 0])
    picture = gray.convert("I").convert(mode) if mode == "I;16" else gray.convert(mode)
    if mode in ("RGBA", "LA"):
        picture.save(tmp_path / "p" / "test" / "opaque.png")
        opaque = lj.load("p", split="test", data_dir=tmp_path)
        np.testing.assert_array_equal(opaque.examples[0, ..., 0], np.asarray(gray))
        picture.putpixel((0, 0), (*picture.getpixel((0, 0))[:-1], 100))
    picture.save(tmp_path / "p" / "test" / ("a.tif" if mode == "CMYK" else "a.png"))
    with pytest.raises(ValueError, match=message):
        lj.load("p", split="test", data_dir=tmp_path)


# --- EMNIST


def test_every_emnist_is_turned_upright(tmp_path):
    (tmp_path / "mine").mkdir()
    x = images(4, 3, 3, 1)[..., 0]
    header = struct.pack(">HBB3I", 0, 8, 3, *x.shape)
    file = tmp_path / "mine" / "emnist-balanced-test-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(header + x.tobytes()))
    test = lj.load("mine", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples[..., 0], x.transpose(0, 2, 1))


# --- tables as text


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.csv", "u,v,w\n1,2.5,3\n4,5,6e2\n7,8,-9\n", ("u", "v", "w")),
        ("a.csv", "\ufeff1;2.5;3\r\n4;5;6e2\r\n7;8;-9\r\n", None),
        ("a.tsv", '"u"\t"v"\t"w"\n1\t2.5\t3\n4\t5\t6e2\n7\t8\t-9\n', ("u", "v", "w")),
        ("a.csv", "0,1,2\n1,2.5,3\n4,5,6e2\n7,8,-9\n", ("0", "1", "2")),
        ("a.txt", "# made by hand\n1 2.5  3\n\n4 5 6e2\n7 8 -9\n", None),
    ],
)
def test_tables_as_text(tmp_path, name, text, columns):
    (tmp_path / name).write_text(text, encoding="utf-8")
    parts = load_parts("a", data_dir=tmp_path)
    assert {part.columns for part in parts.values()} == {columns}
    found = {tuple(row) for part in parts.values() for row in part.examples}
    assert found == {(1, 2.5, 3), (4, 5, 600), (7, 8, -9)}
    assert "a" in lj.data.datasets(tmp_path)
    assert outline("a", data_dir=tmp_path) == f"{name}: table of 3 columns"


def test_table_with_classes(tmp_path):
    """A column of that name holds the classes, in every part the same; columns must agree."""
    (tmp_path / "iris").mkdir()
    (tmp_path / "iris" / "train.csv").write_text("a,Label,b\n1,x,2\n3,z,4\n5,y,6\n")
    (tmp_path / "iris" / "test.csv").write_text("a,Label,b\n1.5,z,2\n")
    test = lj.load("iris", split="test", data_dir=tmp_path)
    assert (test.columns, test.class_names) == (("a", "b"), ("x", "y", "z"))
    np.testing.assert_array_equal(test.labels, [2])
    np.testing.assert_array_equal(test.examples, [[1.5, 2]])
    (tmp_path / "iris" / "test.csv").write_text("b,Label,a\n1.5,z,2\n")
    with pytest.raises(ValueError, match="headers differ"):
        lj.load("iris", split="test", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u,v\n1,2\n3,x\n", r"got 'x' in row 2, column 1 \('v'\)"),
        ("1,2\n3,\n", r"got '' in row 2, column 1"),
        ("1,2\n3,nan\n", r"got 'nan' in row 2, column 1"),
        ("u;v\n1;2,5\n3;4\n", r"got '2,5' in row 1, column 1"),
        ("1,x\n3,y\n", "a column of classes must be called 'label'"),
        (",u\n0,1.5\n1,2.5\n", r"column 0 has no name.*index=False"),
        ("1,2\n3\n", "row 2 has 1"),
        ("1,2\n3,4,5\n", "row 2 has 3"),
        ("some words\nand others\n", "expected a table"),
        ("", "expected a table"),
    ],
)
def test_texts_that_are_no_tables(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        lj.load("a", data_dir=tmp_path)


def test_integer_tables_as_continuous_values(tmp_path):
    """Bytes have 256 levels, from a file as from memory; a step behind the name takes them as
    continuous."""
    x = RNG.integers(0, 11, (50, 4)).astype(np.uint8)
    np.savez(tmp_path / "counts.npz", X=x)
    assert lj.load("counts", data_dir=tmp_path).levels == lj.Dataset.from_array(x).levels == 256
    parts = load_parts("counts+continuous", data_dir=tmp_path)
    assert {(part.levels, part.examples.dtype.name) for part in parts.values()} == {
        (None, "float32")
    }
    assert parts["test"].provenance[-1] == "256 levels taken as continuous values"
    with pytest.raises(ValueError, match="expected a table of integers"):
        lj.load("digits+continuous")
    with pytest.raises(ValueError, match="expected a table of integers"):
        parts["test"].continuous()


# --- names


def test_names_with_dots_and_plus_signs(tmp_path):
    """The dataset that was asked for, never another; every listed name is loaded."""
    for value, name in enumerate(("scans", "scans.v2", "faces1.5", "c++", "a+invert", "a")):
        x = (
            np.full((40, 4, 4, 1), 10 * value, np.uint8)
            + np.arange(40, dtype=np.uint8)[:, None, None, None] % 9
        )
        np.savez(tmp_path / f"{name}.npz", x_train=x, x_test=x[:1])
        assert lj.load(name, split="test", data_dir=tmp_path).examples.max() == 10 * value
    listed = [name for name, source in lj.data.datasets(tmp_path).items() if source == "files"]
    assert listed == ["a", "a+invert", "c++", "faces1.5", "scans", "scans.v2"]
    assert lj.load("c+++invert", split="test", data_dir=tmp_path).examples.max() == 255 - 30
    assert lj.load("a+invert+transpose", split="test", data_dir=tmp_path).examples.max() == 40
    with pytest.raises(
        ValueError, match=r"no dataset 'scans\.v3'; did you mean 'scans\.v2'\?"
    ) as error:
        lj.load("scans.v3", data_dir=tmp_path)
    assert "Tried" not in str(error.value)  # TFDS, which has no such set either
    with pytest.raises(ValueError, match="did you mean 'fashion_mnist'"):  # its files are not here
        lj.load("fashion_mnst", data_dir=tmp_path)


def test_what_is_listed_is_what_is_found(tmp_path):
    x, table = images(20), RNG.normal(size=(20, 3))
    np.savez(tmp_path / "two.npz", X=x)
    (tmp_path / "two.csv").write_text("1,2\n3,4\n5,6\n")
    (tmp_path / "words.txt").write_text("To be, or not to be\nthat is the question\n")
    for name in ("deep/er/npy", "deep/npys", "archives", "named"):
        (tmp_path / name).mkdir(parents=True)
    np.save(tmp_path / "deep" / "er" / "npy" / "data.npy", table)
    np.save(tmp_path / "deep" / "npys" / "first.npy", table)
    np.save(tmp_path / "deep" / "npys" / "second.npy", table)
    for name in ("b", "c"):
        np.savez(tmp_path / "archives" / f"{name}.npz", X=table)
    for part in ("train", "test"):
        np.savetxt(
            tmp_path / "named" / f"my_{part}.csv",
            table[: 20 if part == "train" else 3],
            delimiter=",",
        )
    save_pictures(tmp_path / "pets" / "train" / "cat", x[:4])
    save_pictures(tmp_path / "pets" / "train" / "dog", x[4:8])
    save_pictures(tmp_path / "pets" / "test" / "dog", x[8:])
    (tmp_path / "pets" / "about.csv").write_text("1,2\n3,4\n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "notes.csv").write_text("no table\n")
    listed = [name for name, source in lj.data.datasets(tmp_path).items() if source == "files"]
    arrays = ["archives/b", "archives/c", "deep/er/npy", "deep/npys/first", "deep/npys/second"]
    assert sorted(listed) == sorted([*arrays, "named", "pets", "two.csv", "two.npz"])
    for name in listed:
        assert load_parts(name, data_dir=tmp_path)
        assert outline(name, data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"load 'two.npz' or 'two.csv'"):
        lj.load("two", data_dir=tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data: set LIKEJAX_DATA")
def test_real_names_are_outlined_and_found():
    """Listing and outlines take no reading; what cannot be loaded of the real folder is not
    listed."""
    for name, source in lj.data.datasets(DATA).items():
        if source == "files":
            assert any(
                kind in outline(name, data_dir=DATA)
                for kind in ("uint8", "int16", "float64", "text of")
            )
    for name in ("adbench/4_breastw", "adbench/30_satellite", "omniglot"):
        assert load_parts(name, data_dir=DATA)


@pytest.mark.parametrize("name", ["svhn", "imagenet32", "imagenet64", "celeba_hq256"])
def test_names_of_presets_are_names_of_tfds(tmp_path, monkeypatch, name):
    from likejax.data.sources import tfds as adapter

    asked = []

    def load_tfds(theirs, folder):
        asked.append(theirs)
        raise ValueError("not there")

    monkeypatch.setattr(adapter, "load_tfds", load_tfds)
    with pytest.raises(ValueError, match=f"TFDS calls it '{NAMES[name]}'"):
        lj.load(name, data_dir=tmp_path)
    assert asked == [NAMES[name]]


# --- what was understood


def test_datasets_command(tmp_path, capsys):
    save_svhn(tmp_path)
    (tmp_path / "times.csv").write_text(
        "time,same\n" + "".join(f"{1.7e9 + i / 10:.1f},0.1\n" for i in range(50))
    )
    assert main(["datasets", "--data-dir", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "X (32, 32, 3, 20) uint8" in listed
    assert "times.csv: table of 2 columns" in listed
    assert main(["datasets", "svhn", "--data-dir", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "Dataset('svhn', validation, n=4, (32, 32, 3) uint8, 256 levels, 10 classes)" in told
    assert "label 10 is the digit 0" in told
    assert main(["datasets", "times", "--data-dir", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "never varies: column 1 ('same')" in told
    assert "column 0 ('time') has the mean 1700000002" in told

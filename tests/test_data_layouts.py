"""Datasets of the OOD suites in the layouts in which they are published, made small."""

from __future__ import annotations

import pickle
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

import likejax as lj
from likejax.data.loading import load_parts, outline

RNG = np.random.default_rng(0)


def picture(height: int, width: int, channels: int = 3) -> Image.Image:
    array = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(array[..., 0] if channels == 1 else array)


def save(path, image: Image.Image, **options) -> np.ndarray:
    """Saves an image; returns what a reader finds in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return np.asarray(Image.open(path))


def zipped(folder, archive, inner: str) -> None:
    """Moves a folder below another one into an archive."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((folder / inner).rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    shutil.rmtree(folder / inner)


def sizes(name: str, folder) -> dict[str, int]:
    return {split: len(part) for split, part in load_parts(name, data_dir=folder).items()}


# --- Tiny ImageNet


def tiny_imagenet(folder) -> dict[str, np.ndarray]:
    root = folder / "tiny_imagenet" / "tiny-imagenet-200"
    for name in ("n01443537", "n12267677"):
        for i in range(6):
            save(root / "train" / name / "images" / f"{name}_{i}.JPEG", picture(64, 64))
        (root / "train" / name / f"{name}_boxes.txt").write_text("0.JPEG\t0\t0\t62\t62\n")
    found = {
        "color": save(root / "val" / "images" / "val_0.JPEG", picture(64, 64)),
        "gray": save(root / "val" / "images" / "val_1.JPEG", picture(64, 64, 1)),
    }
    rows = "val_0.JPEG\tn12267677\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t0\t0\t63\t63\n"
    (root / "val" / "val_annotations.txt").write_text(rows)
    save(root / "test" / "images" / "test_0.JPEG", picture(64, 64))
    (root / "wnids.txt").write_text("n12267677\nn01443537\n")
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    return found


@pytest.mark.parametrize("is_zip", [False, True])
def test_tiny_imagenet(tmp_path, is_zip):
    """The part called val has the classes of the list and is the test part; gray becomes RGB."""
    wanted = tiny_imagenet(tmp_path)
    if is_zip:
        folder = tmp_path / "tiny_imagenet"
        zipped(folder, folder / "tiny-imagenet-200.zip", "tiny-imagenet-200")
    assert [name for name, how in lj.data.datasets(tmp_path).items() if how == "files"] == [
        "tiny_imagenet"
    ]
    assert "(64, 64" in outline("tiny_imagenet", data_dir=tmp_path)
    assert sizes("tiny_imagenet", tmp_path) == {"train": 11, "validation": 1, "test": 2}
    test = lj.load("tiny_imagenet", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples[0], wanted["color"])
    np.testing.assert_array_equal(test.examples[1], np.repeat(wanted["gray"][..., None], 3, 2))
    assert test.class_names == ("n01443537", "n12267677")
    np.testing.assert_array_equal(test.labels, [1, 0])
    assert "not used: test, which has no classes" in test.provenance
    small = lj.load("tiny_imagenet+resize:32x32:box", split="test", data_dir=tmp_path)
    blocks = test.examples.reshape(2, 32, 2, 32, 2, 3).astype(float).mean((2, 4))
    assert np.abs(small.examples - blocks).max() <= 1  # rounded along each axis


def test_a_picture_of_tiny_imagenet_that_is_not_listed(tmp_path):
    tiny_imagenet(tmp_path)
    root = tmp_path / "tiny_imagenet" / "tiny-imagenet-200"
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn12267677\t0\t0\t1\t1\n")
    with pytest.raises(ValueError, match=r"val_1\.JPEG: its class is not in val_annotations"):
        lj.load("tiny_imagenet", data_dir=tmp_path)


# --- GTSRB

LAYOUTS = {
    "published": ("GTSRB/Final_Training/Images", "00000", "GTSRB/Final_Test/Images", "ppm"),
    "torchvision": ("GTSRB/Training", "00000", "GTSRB/Final_Test/Images", "ppm"),
    "one table": ("Train", "0", "Test", "png"),
}


def gtsrb(folder, layout: str) -> list[np.ndarray]:
    root = folder / "gtsrb"
    train, zero, test, ending = LAYOUTS[layout]
    for number in (0, 14):
        name = f"{number:0{len(zero)}d}"
        for i in range(5):
            save(root / train / name / f"00000_{i:05}.{ending}", picture(15 + i, 30))
        (root / train / name / f"GT-{name}.csv").write_text("Filename;ClassId\n00000_00000.ppm;9\n")
    made = [save(root / test / f"{i:05}.{ending}", picture(40, 25 + 7 * i)) for i in range(2)]
    header = "Width;Height;Roi.X1;ClassId;"
    if layout == "one table":
        rows = "Width,Height,ClassId,Path\n25,40,14,Test/00000.png\n32,40,0,Test/00001.png\n"
        (root / "Test.csv").write_text(rows)
        save(root / "Meta" / "0.png", picture(100, 100))
    else:
        rows = f"Filename;{header[:-1]}\n00000.ppm;25;40;5;14\n00001.ppm;32;40;5;0\n"
        (root / "GT-final_test.csv").write_text(rows)
        unlabeled = "Filename;Width;Height\n00000.ppm;25;40\n"
        (root / test / "GT-final_test.test.csv").write_text(unlabeled)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gtsrb(tmp_path, layout):
    """All sizes become one; classes are the numbers of folders, and those of the test list."""
    wanted = gtsrb(tmp_path, layout)
    assert "gtsrb" in lj.data.datasets(tmp_path)
    assert sizes("gtsrb", tmp_path) == {"train": 9, "validation": 1, "test": 2}
    test = lj.load("gtsrb", split="test", data_dir=tmp_path)
    assert (test.event_shape, test.num_classes) == ((32, 32, 3), 15)
    np.testing.assert_array_equal(test.labels, [14, 0])
    resized = Image.fromarray(wanted[0]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(test.examples[0], np.asarray(resized))
    assert "all of the picture resized to 32x32 (bilinear)" in test.provenance


def test_gtsrb_in_its_archives(tmp_path):
    """Three archives, one of which holds a list alone; without it the test part has no labels."""
    gtsrb(tmp_path, "published")
    folder = tmp_path / "gtsrb"
    for name in ("Final_Training", "Final_Test"):
        zipped(folder, folder / f"GTSRB_{name}_Images.zip", f"GTSRB/{name}")
    shutil.rmtree(folder / "GTSRB")
    text = (folder / "GT-final_test.csv").read_text()
    (folder / "GT-final_test.csv").unlink()
    assert lj.load("gtsrb", split="test", data_dir=tmp_path).labels is None
    with zipfile.ZipFile(folder / "GTSRB_Final_Test_GT.zip", "w") as archive:
        archive.writestr("GT-final_test.csv", text)
    assert lj.load("gtsrb", split="test", data_dir=tmp_path).labels.tolist() == [14, 0]
    assert outline("gtsrb", data_dir=tmp_path).count("images like") == 2
    (folder / "GTSRB_Final_Test_GT.zip").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match="damaged zip archive"):
        lj.load("gtsrb", split="test", data_dir=tmp_path)


def test_a_list_of_signs_without_classes(tmp_path):
    gtsrb(tmp_path, "published")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;Width\n00000.ppm;25\n")
    with pytest.raises(ValueError, match=r"expected columns Filename .* and ClassId"):
        lj.load("gtsrb", split="test", data_dir=tmp_path)


# --- CelebA


def celeba(folder, ending: str = "txt") -> np.ndarray:
    root = folder / "celeba"
    for i in range(1, 6):
        face = save(root / "img_align_celeba" / f"00000{i}.jpg", picture(218, 178))
    numbers = (0, 0, 0, 1, 2)
    if ending == "csv":
        rows = ["image_id,partition", *(f"00000{i + 1}.jpg,{n}" for i, n in enumerate(numbers))]
    else:
        rows = [f"00000{i + 1}.jpg {n}" for i, n in enumerate(numbers)]
    (root / f"list_eval_partition.{ending}").write_text("\n".join(rows) + "\n")
    (root / "list_attr_celeba.txt").write_text("5\nYoung Male\n000001.jpg -1  1\n")
    return face


@pytest.mark.parametrize(("ending", "is_zip"), [("txt", False), ("csv", False), ("txt", True)])
def test_celeba(tmp_path, ending, is_zip):
    """Parts as in the list, the middle 140x140 at 64x64."""
    face = celeba(tmp_path, ending)
    folder = tmp_path / "celeba"
    if is_zip:
        zipped(folder, folder / "img_align_celeba.zip", "img_align_celeba")
    assert "celeba" in lj.data.datasets(tmp_path)
    assert sizes("celeba", tmp_path) == {"train": 3, "validation": 1, "test": 1}
    test = lj.load("celeba", split="test", data_dir=tmp_path)
    middle = Image.fromarray(face[39:179, 19:159])
    expected = np.asarray(middle.resize((64, 64), Image.Resampling.BOX))
    np.testing.assert_array_equal(test.examples, expected[None])
    assert "middle 140x140 of 218x178, resized to 64x64 (box)" in test.provenance
    assert lj.data.source_of("celeba+resize:32x32:box", data_dir=tmp_path) == "files"


def test_faces_that_no_list_has(tmp_path):
    celeba(tmp_path)
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(ValueError, match=r"000002\.jpg: its part is not in list_eval_partition"):
        lj.load("celeba", data_dir=tmp_path)
    (tmp_path / "celeba" / "list_eval_partition.txt").unlink()
    assert sum(sizes("celeba", tmp_path).values()) == 5
    assert "no list_eval_partition.txt" in lj.load("celeba", data_dir=tmp_path).provenance


# --- notMNIST, KMNIST, CIFAR-100


def test_not_mnist(tmp_path):
    """Two files of notMNIST_small are published damaged; any other damaged file is an error."""
    root = tmp_path / "notmnist" / "notMNIST_small"
    for letter in "AF":
        for i in range(3):
            save(root / letter / f"{i}.png", picture(28, 28, 1))
    (root / "A" / "RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png").write_bytes(b"")
    (root / "F" / "Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png").write_bytes(b"\x89PNG")
    test = lj.load("notmnist", split="test", data_dir=tmp_path)
    assert (len(test), test.class_names, test.event_shape) == (6, ("A", "F"), (28, 28, 1))
    assert "2 pictures that are published damaged left out" in test.provenance
    (root / "F" / "other.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"other\.png: not a readable image"):
        lj.load("notmnist", split="test", data_dir=tmp_path)


def test_not_mnist_in_matlab(tmp_path):
    (tmp_path / "notmnist").mkdir()
    images = RNG.integers(0, 256, (28, 28, 40)).astype(float)
    arrays = {"images": images, "labels": np.arange(40.0)[None] % 10}
    scipy.io.savemat(tmp_path / "notmnist" / "notMNIST_small.mat", arrays)
    test = lj.load("notmnist", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples[..., 0], images.transpose(2, 0, 1))
    np.testing.assert_array_equal(test.labels, np.arange(40) % 10)


def test_kuzushiji_arrays(tmp_path):
    """Four files with one array each."""
    folder = tmp_path / "kmnist"
    folder.mkdir()
    wanted = {}
    for part, n in (("train", 20), ("test", 6)):
        images = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        np.savez_compressed(folder / f"kmnist-{part}-imgs.npz", images)
        np.savez_compressed(folder / f"kmnist-{part}-labels.npz", labels)
        wanted[part] = images, labels
    assert "kmnist" in lj.data.datasets(tmp_path)
    assert sizes("kmnist", tmp_path) == {"train": 18, "validation": 2, "test": 6}
    test = lj.load("kmnist", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples[..., 0], wanted["test"][0])
    np.testing.assert_array_equal(test.labels, wanted["test"][1])


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar100(tmp_path, form):
    """The fine of the two labels; pickles are read by the unpickler that builds data alone."""
    folder = tmp_path / "cifar100" / f"cifar-100-{form}"
    folder.mkdir(parents=True)
    rows = RNG.integers(0, 256, (8, 3072), dtype=np.uint8)
    fine, coarse = [99, 3, 5, 7, 11, 0, 1, 2], [19, 0, 0, 1, 1, 2, 2, 3]
    for part, taken in (("train", slice(0, 6)), ("test", slice(6, 8))):
        if form == "binary":
            labels = np.stack([coarse[taken], fine[taken]], 1).astype(np.uint8)
            data = np.concatenate([labels, rows[taken]], axis=1)
            (folder / f"{part}.bin").write_bytes(data.tobytes())
        else:
            batch = {b"data": rows[taken], b"fine_labels": fine[taken]}
            batch |= {b"coarse_labels": coarse[taken], b"filenames": [b"a.png"]}
            (folder / part).write_bytes(pickle.dumps(batch, protocol=2))
    test = lj.load("cifar100", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.labels, [1, 2])
    images = rows[6:].reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(test.examples, images)
    assert test.num_classes == 100
    assert "cifar100" in lj.data.datasets(tmp_path)


# --- TFDS


class Rows(list):
    """What TFDS calls a source of data."""

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]


@pytest.mark.parametrize(
    ("name", "builder", "shape", "expected"),
    [
        ("emnist_letters", "emnist/letters", (28, 28, 1), lambda x: x.transpose(0, 2, 1, 3)),
        ("omniglot", "omniglot", (105, 105, 3), lambda x: x[..., :1]),
        ("kmnist", "kmnist", (28, 28, 1), lambda x: x),
        ("cifar100", "cifar100", (32, 32, 3), lambda x: x),
    ],
)
def test_tfds_gives_what_files_give(tmp_path, monkeypatch, name, builder, shape, expected):
    """EMNIST lies on its side in TFDS too, and omniglot has three equal channels there."""
    x = RNG.integers(0, 256, (3, *shape[:2], 1), dtype=np.uint8)
    x = np.broadcast_to(x, (3, *shape))
    rows = Rows({"image": image, "label": i, "alphabet": 0} for i, image in enumerate(x))
    (tmp_path / builder / "1.0.0").mkdir(parents=True)
    (tmp_path / builder / "1.0.0" / "features.json").write_text("{}")
    names = types.SimpleNamespace(names=["a", "b", "c"])
    info = types.SimpleNamespace(features={"image": None, "label": names})
    fake = types.ModuleType("tensorflow_datasets")
    fake.core = types.SimpleNamespace(constants=types.SimpleNamespace(DATA_DIR="nowhere"))
    fake.data_source = lambda asked, **_: {"test": rows, "small1": rows} if asked == builder else {}
    fake.builder = lambda asked, **_: types.SimpleNamespace(info=info)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    assert lj.data.source_of(name, data_dir=tmp_path) == "TFDS, prepared"
    test = lj.load(name, split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(test.examples, expected(x))
    np.testing.assert_array_equal(test.labels, [0, 1, 2])


def test_celeba_from_tfds_is_that_of_files(tmp_path):
    """The same pixels give the same face by both ways."""
    from likejax.data.sources.tfds import _CHANGES

    face = celeba(tmp_path)
    by_files = lj.load("celeba", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(_CHANGES["celeb_a"].change(face), by_files.examples[0])
    assert _CHANGES["celeb_a"].note in by_files.provenance


def test_lists_are_read_up_to_a_limit(tmp_path, monkeypatch):
    from likejax.data.sources import published

    monkeypatch.setattr(published, "_LARGEST_LIST", 4)
    (tmp_path / "a.txt").write_text("abcdefgh")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("inner/b.txt", "ijklmnop")
    found = published.contents(tmp_path)
    assert {name: read() for name, read in found.lists.items()} == {
        "a.txt": "abcd",
        "b.txt": "ijkl",
    }

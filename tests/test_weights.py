"""Densities in safetensors files, on the Hub, and those that ship with the package."""

from __future__ import annotations

import json
import struct
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import likejax as lj
from likejax.storage.density import checksum_of, model_record

safetensors = pytest.importorskip("safetensors", reason="needs likejax[hub]")
CONFIG = lj.models.VectorGlowConfig(depth=2, width=4)
CheckpointError = lj.train.CheckpointError


@pytest.fixture(scope="module")
def density() -> lj.Density:
    return lj.build(CONFIG, key=3)


@pytest.fixture
def file(density, tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    lj.save(density, path)
    return path


class Mixed(lj.Density):
    """A density of one number whose arrays have several types, and which has no config."""

    event_shape = (1,)
    kind = lj.Kind.EXACT
    levels = None

    def __init__(self, **arrays):
        self.loc = nnx.Param(arrays.pop("loc", jnp.ones(1, jnp.bfloat16)))
        for name, value in arrays.items():
            setattr(self, name, nnx.Variable(value))

    def _log_prob(self, x, key, condition):
        return jax.scipy.stats.norm.logpdf(x - self.loc[...]).sum()

    def _sample(self, key, condition, temperature):
        return self.loc[...] + temperature * jax.random.normal(key, (1,))


def header_of(path: Path) -> dict:
    """The JSON at the start of a safetensors file, read without the package."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def with_header(path: Path, header: dict) -> None:
    """Writes a file anew with another header before the same arrays."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_what_a_file_holds(density, file):
    header = header_of(file)
    metadata = header.pop("__metadata__")
    assert json.loads(metadata["model"]) == model_record(density)
    assert metadata["likejax"] == lj.__version__
    assert metadata["sha256"] == checksum_of(density)
    assert len(header) > 4
    assert all(name.startswith(("density/params/", "density/fixed/")) for name in header)
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]


def test_a_file_and_a_directory_give_the_same_density(density, file, tmp_path):
    lj.save(density, tmp_path / "directory")
    again, other = lj.restore(file), lj.restore(str(tmp_path / "directory"))
    assert checksum_of(again) == checksum_of(density) == checksum_of(other)
    x = np.array([[0.3, -1.0], [2.0, 0.1]], np.float32)
    np.testing.assert_array_equal(again.log_prob(x), other.log_prob(x))
    assert type(again) is type(density)
    assert again.config == CONFIG


def test_a_file_is_replaced(density, file):
    other = lj.build(CONFIG, key=4)
    assert checksum_of(other) != checksum_of(density)
    lj.save(other, file)
    assert checksum_of(lj.restore(file)) == checksum_of(other)


def test_types_are_kept(tmp_path):
    arrays = {
        "loc": jnp.array([0.1], jnp.bfloat16),
        "half": jnp.array(2.5, jnp.float16),
        "count": jnp.array([[1], [-2]], jnp.int32),
        "raw": jax.random.key_data(jax.random.key(5)),
        "flag": jnp.array([True, False]),
        "empty": jnp.zeros((0, 3)),
    }
    lj.save(Mixed(**arrays), tmp_path / "m.safetensors")
    zeros = Mixed(**jax.tree.map(jnp.zeros_like, arrays))
    again = lj.restore(tmp_path / "m.safetensors", density=zeros)
    for name, value in arrays.items():
        read = getattr(again, name)[...]
        assert read.dtype == value.dtype
        assert read.shape == value.shape
        np.testing.assert_array_equal(np.asarray(read), np.asarray(value))
    with pytest.raises(ValueError, match=r"Mixed: pass it as density="):
        lj.restore(tmp_path / "m.safetensors")


def test_arrays_that_do_not_lie_in_order(tmp_path):
    """The package writes memory as it lies, and a transposed array lies otherwise."""
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    lj.save(Mixed(turned=turned), tmp_path / "m.safetensors")
    again = lj.restore(tmp_path / "m.safetensors", density=Mixed(turned=np.zeros((3, 2), "f4")))
    np.testing.assert_array_equal(again.turned[...], turned)


def test_a_type_that_the_format_lacks_is_refused(tmp_path):
    odd = Mixed(odd=jnp.ones(2, jnp.int4))
    with pytest.raises(CheckpointError, match=r"does not hold these arrays .*int4.* a directory"):
        lj.save(odd, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_typed_keys_are_treated_as_in_a_directory(tmp_path):
    odd = Mixed(noise=jax.random.key(1))
    errors = []
    for place in (tmp_path / "m", tmp_path / "m.safetensors"):
        with pytest.raises(TypeError) as caught:
            lj.save(odd, place)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1], ids=str)
def test_a_file_that_was_cut_off(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        lj.restore(file)


def test_a_bit_that_flipped_in_an_array(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="its arrays do not have the SHA-256"):
        lj.restore(file)


def test_arrays_that_changed_their_names(file):
    header = header_of(file)
    first, second = same_form(header)
    header[first], header[second] = header[second], header[first]
    with_header(file, header)
    with pytest.raises(CheckpointError, match="its arrays do not have the SHA-256"):
        lj.restore(file)


def same_form(header: dict) -> tuple[str, str]:
    """Two arrays of one shape and type."""
    forms: dict[str, str] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        form = json.dumps([entry["dtype"], entry["shape"]])
        if form in forms:
            return forms[form], name
        forms[form] = name
    raise AssertionError("no two arrays of one form")


@pytest.mark.parametrize("entry", ["model", "likejax", "sha256", "layout"])
def test_metadata_that_changed(file, entry):
    header = header_of(file)
    header["__metadata__"][entry] += " "
    with_header(file, header)
    with pytest.raises(CheckpointError, match="its metadata do not have the SHA-256"):
        lj.restore(file)


def test_a_newer_layout_says_what_to_install(file):
    from likejax.storage.files import digest

    header = header_of(file)
    header["__metadata__"] |= {"layout": "7", "likejax": "9.1"}
    header["__metadata__"]["digest"] = digest(header["__metadata__"])
    with_header(file, header)
    with pytest.raises(CheckpointError, match=r"has layout 7, written by likejax 9\.1"):
        lj.restore(file)


def test_files_of_others(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "theirs.safetensors"
    for metadata, there in ((None, "got none"), ({"format": "pt"}, "got format")):
        save_file({"weight": np.ones(2)}, path, metadata=metadata)
        with pytest.raises(CheckpointError, match=rf"lj.save did not write: .*{there}"):
            lj.restore(path)
    path.write_bytes(b"PK\x03\x04" + b"0" * 200)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        lj.restore(path)
    with pytest.raises(CheckpointError, match="does not exist: expected a file that lj.save wrote"):
        lj.restore(tmp_path / "absent.safetensors")


def test_another_structure_is_refused_as_in_a_directory(density, file, tmp_path):
    lj.save(density, tmp_path / "directory")
    other = lj.build(lj.models.VectorGlowConfig(depth=2, width=8), key=0)
    messages = []
    for place in (file, tmp_path / "directory"):
        with pytest.raises(CheckpointError, match="does not fit") as caught:
            lj.restore(place, density=other)
        messages.append(str(caught.value).split("does not fit")[1])
    assert messages[0] == messages[1]


def test_64_bits_read_in_32(tmp_path):
    with jax.enable_x64(True):
        lj.save(Mixed(loc=jnp.array([1 / 3])), tmp_path / "m.safetensors")
    with pytest.warns(UserWarning, match="written in 64 bits .* 1 arrays are rounded"):
        again = lj.restore(tmp_path / "m.safetensors", density=Mixed(loc=jnp.zeros(1)))
    assert again.loc[...] == np.float32(1 / 3)


def test_a_place_that_cannot_be_written(density, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        lj.save(density, tmp_path / "file" / "m.safetensors")


def test_without_the_package(density, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'likejax\[hub\]'"):
        lj.save(density, tmp_path / "m.safetensors")
    with pytest.raises(ImportError, match=r"pip install 'likejax\[hub\]'"):
        lj.restore(tmp_path / "m.safetensors")
    lj.save(density, tmp_path / "m")

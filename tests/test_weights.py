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
from tests.paths import DATA

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
    with pytest.raises(CheckpointError, match=r"does not exist: expected a file that lj\.save"):
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


class FolderHub(types.ModuleType):
    """The client's interface, with a folder in the place of the Hub."""

    def __init__(self, root: Path):
        super().__init__("huggingface_hub")
        self.root = root
        self.tokens: list[str | None] = []
        self.private: dict[str, bool] = {}

    def HfApi(self, *, token=None):
        self.tokens.append(token)
        return self

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        assert repo_type == "model"
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        self.private[repo_id] = private

    def upload_folder(self, *, repo_id, folder_path, repo_type, commit_message):
        assert repo_type == "model"
        assert commit_message
        for path in Path(folder_path).iterdir():
            (self.root / repo_id / path.name).write_bytes(path.read_bytes())
        return f"hub:{repo_id}"

    def hf_hub_download(self, repo_id, filename, *, revision=None, token=None):
        self.tokens.append(token)
        path = self.root / repo_id / filename
        if revision not in (None, "main") or not path.exists():
            raise OSError(f"404: {repo_id} at {revision} has no {filename}\nmore lines")
        return str(path)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FolderHub:
    folder = FolderHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", folder)
    return folder


def test_the_fake_has_the_interface_of_the_client():
    """The real client takes the arguments that the library passes."""
    client = pytest.importorskip("huggingface_hub", reason="needs likejax[hub]")
    import inspect

    def takes(function, **arguments):
        inspect.signature(function).bind_partial(**arguments)

    takes(client.HfApi.__init__, token=None)
    given = {"repo_type": "model", "private": True, "exist_ok": True}
    takes(client.HfApi.create_repo, repo_id="a/b", **given)
    folder = {"folder_path": ".", "repo_type": "model", "commit_message": "m"}
    takes(client.HfApi.upload_folder, repo_id="a/b", **folder)
    takes(client.hf_hub_download, repo_id="a/b", filename="f", revision=None, token=None)
    for name in ("HfHubHTTPError", "LocalEntryNotFoundError"):
        assert issubclass(getattr(client.errors, name), OSError)


def test_up_and_down(density, hub):
    test = lj.load("moons", split="test")[:50]
    evaluation = lj.evaluate(density, test)
    address = lj.hub.upload(
        density, "me/points", evaluation=evaluation, private=True, token="secret"
    )
    assert address == "hub:me/points"
    assert hub.private == {"me/points": True}
    files = {path.name for path in (hub.root / "me/points").iterdir()}
    assert files == {"README.md", "model.safetensors"}
    again = lj.hub.download("me/points", revision="main", token="other")
    assert checksum_of(again) == checksum_of(density)
    assert hub.tokens == ["secret", "other"]
    text = (hub.root / "me/points/README.md").read_text()
    assert text.startswith("---\nlibrary_name: likejax\n")
    assert f"`{evaluation}`" in text
    assert "* Kind of `log_prob`: exact" in text
    assert f"* Parameters: {lj.count_parameters(density):,}" in text
    assert "secret" not in text
    assert json.loads(text.split("```json\n")[1].split("```")[0]) == model_record(density)


def test_a_second_upload_replaces_the_first(density, hub):
    lj.hub.upload(density, "me/points")
    other = lj.build(CONFIG, key=9)
    lj.hub.upload(other, "me/points")
    assert checksum_of(lj.hub.download("me/points")) == checksum_of(other)


def test_what_the_hub_refuses(density, hub):
    for repo in ("points", "me/", "a/b/c", "../x/y", "me/po ints", ""):
        with pytest.raises(ValueError, match="expected repo to be OWNER/NAME"):
            lj.hub.upload(density, repo)
        with pytest.raises(ValueError, match="expected repo to be OWNER/NAME"):
            lj.hub.download(repo)
    with pytest.raises(CheckpointError, match=r"me/none cannot be downloaded, .*404: [^\n]*$"):
        lj.hub.download("me/none")
    lj.hub.upload(density, "me/points")
    with pytest.raises(CheckpointError, match="revision v9"):
        lj.hub.download("me/points", revision="v9")
    (hub.root / "me/points/model.safetensors").write_bytes(b"foreign")
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        lj.hub.download("me/points")
    histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
    evaluation = lj.evaluate(histogram, lj.load("digits", split="test")[:5])
    with pytest.raises(ValueError, match="expected an evaluation of this density"):
        lj.hub.upload(density, "me/points", evaluation=evaluation)


def test_without_the_client(density, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: lj.hub.upload(density, "me/a"), lambda: lj.hub.download("me/a")):
        with pytest.raises(ImportError, match=r"pip install 'likejax\[hub\]'"):
            call()


def test_records_and_files_belong_together():
    from likejax.weights import FOLDER

    assert {"glow/digits", "hvae/digits"} <= set(lj.PRETRAINED)
    files = {path.name for path in FOLDER.glob("*.safetensors")}
    assert files == {weights.path.name for weights in lj.PRETRAINED.values()}
    assert sum(weights.path.stat().st_size for weights in lj.PRETRAINED.values()) < 8_000_000
    for name, weights in lj.PRETRAINED.items():
        assert weights.name == name
        assert weights.preset in lj.PRESETS
        assert weights.command.startswith(f"likejax train {weights.preset}")
        assert weights.path.stat().st_size < 3_000_000


@pytest.mark.parametrize("name", list(lj.PRETRAINED))
def test_a_density_that_ships_has_its_number(name):
    """The first test examples, with the record's key and draws, give the record's number."""
    weights = lj.PRETRAINED[name]
    density = lj.pretrained(name)
    assert lj.count_parameters(density) == weights.parameters
    if weights.dataset == "fashion_mnist" and not DATA.is_dir():
        pytest.skip("no folder of real data: set LIKEJAX_DATA")
    data_dir = DATA if DATA.is_dir() else None
    part = lj.load(weights.dataset, split=weights.split, data_dir=data_dir)
    test = lj.preset(weights.preset).as_evaluated(part[: weights.first["n"]])
    key = jax.random.key(weights.evaluation_seed)
    draws, n = weights.first["draws"], weights.first["n"]
    found = lj.evaluate(density, test, key=key, draws=draws, batch_size=n).to_dict()
    for entry in ("kind", "draws", "n", "fingerprint"):
        assert found[entry] == weights.first[entry], entry
    assert found["mean"] == pytest.approx(weights.first["mean"], rel=1e-4)
    # the examples are rows of the whole part, whose mean is within their scatter
    gap = abs(weights.evaluation["mean"] - weights.first["mean"])
    assert gap < 4 * weights.first["standard_error"]


def test_names_of_densities_that_ship():
    with pytest.raises(ValueError, match=r"no density 'glow/digit' .* did you mean 'glow/digits'"):
        lj.pretrained("glow/digit")


def test_a_file_that_is_not_the_measured_one(tmp_path, monkeypatch, density):
    import likejax.weights as shipped

    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        lj.pretrained("glow/digits")
    lj.save(density, tmp_path / "glow-digits.safetensors")
    with pytest.raises(CheckpointError, match="does not have the SHA-256 of the weights"):
        lj.pretrained("glow/digits")

"""Malformed files: clear errors only, bounded memory, nothing executed."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

import likejax as lj
from likejax.data import readers

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 4), np.uint8)
MARK = "executed"
"""Name of the file that payloads would create in the current directory."""
EXTRA_MEMORY = 1 << 30


class Payload:
    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


def bytes_of(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def idx(images: np.ndarray) -> bytes:
    return (
        struct.pack(">BBBB", 0, 0, 8, images.ndim)
        + struct.pack(f">{images.ndim}I", *images.shape)
        + images.tobytes()
    )


def zip_of(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    return bytes_of(write)


def picture(form: str) -> bytes:
    return bytes_of(lambda buffer: Image.fromarray(IMAGES[0]).save(buffer, form))


def npy(array: np.ndarray) -> bytes:
    return bytes_of(lambda buffer: np.save(buffer, array))


def claims(shape: tuple[int, ...]) -> bytes:
    """A .npy header that claims far more than follows."""
    return npy(np.zeros(2)).replace(b"'shape': (2,), }", f"'shape': {shape}, }}".encode().ljust(16))


CIFAR = {b"data": RNG.integers(0, 256, (3, 3072), np.uint8), b"labels": [0, 1, 2]}
VALID: dict[str, list[bytes]] = {
    "x-images-idx3-ubyte": [idx(IMAGES)],
    "x-images-idx3-ubyte.gz": [gzip.compress(idx(IMAGES))],
    "x.npy": [npy(IMAGES), npy(RNG.normal(size=(4, 3)))],
    "x.npz": [
        bytes_of(lambda b: np.savez(b, x_train=IMAGES, x_test=IMAGES, y_train=np.arange(6))),
        bytes_of(lambda b: np.savez_compressed(b, X=IMAGES)),
    ],
    "x.mat": [
        bytes_of(lambda b: scipy.io.savemat(b, {"X": IMAGES})),
        bytes_of(
            lambda b: scipy.io.savemat(b, {"X": RNG.normal(size=(30, 9))}, do_compression=True)
        ),
    ],
    "test_batch.bin": [RNG.integers(0, 256, 3 * 3073, np.uint8).tobytes()],
    "test_batch": [pickle.dumps(CIFAR, protocol=p) for p in (2, 4)],
    "x.png": [picture(form) for form in ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")],
    "x.zip": [zip_of({f"{i}.png": picture("PNG") for i in range(3)})],
}
READERS: dict[str, Callable[[Path], object]] = {
    "x-images-idx3-ubyte": readers.read_idx,
    "x-images-idx3-ubyte.gz": readers.read_idx,
    "x.npy": readers.read_npy,
    "x.npz": readers.read_npz,
    "x.mat": readers.read_mat,
    "test_batch.bin": readers.read_cifar_binary,
    "test_batch": readers.read_cifar_pickle,
    "x.png": lambda path: readers.read_images([(path.name, path)]),
    "x.zip": lambda path: readers.read_images(readers.images_in_zip(path)),
}
POSTSCRIPT = (
    "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n"
    f"({MARK}) (w) file closefile\nshowpage\n%%EOF\n"
)
CRAFTED: dict[str, list[bytes]] = {
    "x-images-idx3-ubyte": [
        struct.pack(">BBBB3I", 0, 0, 8, 3, 100_000, 400, 400),
        struct.pack(">BBBB255I", 0, 0, 8, 255, *[2**32 - 1] * 255),
        b"\0\0\x0e\x01\0\0\0\x05",
    ],
    "x-images-idx3-ubyte.gz": [
        gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 100_000, 400, 400) + bytes(50_000))
    ],
    "x.npy": [
        npy(np.array([Payload()], dtype=object)),
        claims((10**9, 16)),
        claims((10**18,)),
        claims((-1,)),
        pickle.dumps(Payload()),
        npy(np.array([("a", 1)], dtype=[("x", "U1"), ("y", "i4")])),
    ],
    "x.npz": [
        bytes_of(lambda b: np.savez(b, x_train=np.array([Payload()], dtype=object))),
        zip_of({"x_train.npy": claims((10**9, 16))}),
        zip_of({"x_train.npy": npy(IMAGES), "../../etc/x.npy": npy(IMAGES)}),
        zip_of({"x_train.npy": pickle.dumps(Payload())}),
    ],
    "test_batch": [
        pickle.dumps(Payload()),
        pickle.dumps({b"data": Payload(), b"labels": [0]}),
        b'c__builtin__\neval\n(S\'__import__("os").system("touch executed")\'\ntR.',
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L40000000000L\ntS'b'\ntR.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40),
        b"(" * 100_000 + b"." * 3,
    ],
    "x.png": [
        POSTSCRIPT.encode(),
        b"P6\n60000 60000\n255\n",
        b"P5\n1000000000 1000000000\n255\n",
        picture("PNG").replace(struct.pack(">II", 4, 5), struct.pack(">II", 30_000, 30_000)),
    ],
    "x.zip": [
        zip_of({"a.png": POSTSCRIPT.encode()}),
        zip_of({"a.png": b"", "b.png": b"\0" * 100_000}),
    ],
    "x.mat": [
        b"MATLAB 5.0 MAT-file".ljust(124)
        + b"\0\x01IM"
        + struct.pack("<II", 15, 2**31 - 1)
        + b"\x78\x9c"
    ],
}


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A file with one kind of damage."""
    out = bytearray(data)
    kind = rng.randrange(8)
    place = (
        rng.randrange(len(out)) if rng.random() < 0.5 else rng.randrange(min(len(out), 160))
    )  # half in the header
    if kind == 0:
        return bytes(out[:place])
    if kind == 1:
        for _ in range(rng.randint(1, 8)):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        size = min(rng.randint(1, 32), len(out) - place)
        out[place : place + size] = rng.randbytes(size)
    elif kind == 3:
        out[place:place] = rng.randbytes(rng.randint(1, 64))
    elif kind == 4:
        del out[place : place + rng.randint(1, 64)]
    elif kind == 5:
        extreme = rng.choice(
            [
                b"\xff" * 4,
                b"\x7f\xff\xff\xff",
                b"\xff\xff\xff\x7f",
                b"\0" * 4,
                b"\xff" * 8,
                b"9" * 9,
            ]
        )
        out[place : place + len(extreme)] = extreme
    elif kind == 6:
        other = rng.choice(others)
        return bytes(out[:place]) + other[rng.randrange(len(other)) :]
    else:
        out[place] = rng.choice(b"\0\x7f\x80\xff(){}[]'\"-9")
    return bytes(out)


def limit_memory() -> None:
    """Nothing may take much more than what is in use now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_MEMORY, resource.RLIM_INFINITY))


def fuzz_readers(count: int, seed: int) -> dict:
    """Reads ``count`` damaged files; every failure must be a FileError."""
    rng, problems, tally = random.Random(seed), [], {"read": 0, "refused": 0}
    limit_memory()
    everything = [data for files in VALID.values() for data in files]
    cases = [(name, data) for name, files in CRAFTED.items() for data in files]
    while len(cases) < count:
        name = rng.choice(list(VALID))
        cases.append((name, mutated(rng.choice(VALID[name]), everything, rng)))
    for number, (name, data) in enumerate(cases):
        Path(name).write_bytes(data)
        try:
            READERS[name](Path(name))
            tally["read"] += 1
        except readers.FileError as error:
            tally["refused"] += 1
            if not str(error).isprintable() or len(str(error)) > 700:
                problems.append(f"case {number}, {name}: message {str(error)[:200]!r}")
        except BaseException as error:
            problems.append(f"case {number}, {name}: {type(error).__name__}: {str(error)[:200]}")
    return {"problems": problems, "cases": len(cases), **tally, "executed": Path(MARK).exists()}


def fuzz_restore(count: int, seed: int, run: str) -> dict:
    """Restores ``count`` damaged runs; what comes back is a density that was saved, or a
    CheckpointError."""
    warnings.simplefilter("ignore")
    import jax

    place = Path(run)
    rng, problems, tally = random.Random(seed), [], {"read": 0, "refused": 0}

    def state(which: str) -> bytes:
        return b"".join(
            np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(lj.restore(place, which=which))
        )

    good = {state("best"), state("last")}
    shutil.copytree(place / "last" / "8", place / "kept")
    shutil.rmtree(place / "last" / "8")
    good.add(state("last"))
    shutil.move(place / "kept", place / "last" / "8")
    files = sorted(path for path in place.rglob("*") if path.is_file())
    everything = [path.read_bytes() for path in files if path.stat().st_size]
    limit_memory()
    for number in range(count):
        chosen = {
            path: path.read_bytes()
            for path in rng.sample(files, rng.choice([1, 1, 1, 3, 12, len(files)]))
        }
        for path, data in chosen.items():
            path.write_bytes(mutated(data, everything, rng) if data else rng.randbytes(20))
        try:
            if state(rng.choice(["best", "last"])) not in good:
                problems.append(
                    f"case {number}: a density that was never saved, from damage to {list(chosen)}"
                )
            tally["read"] += 1
        except lj.train.CheckpointError:
            tally["refused"] += 1
        except BaseException as error:
            names = [str(path.relative_to(place)) for path in chosen]
            problems.append(f"case {number}, {names}: {type(error).__name__}: {str(error)[:300]}")
        for path, data in chosen.items():
            path.write_bytes(data)
    return {"problems": problems, "cases": count, **tally, "executed": Path(MARK).exists()}


def _saved_things() -> dict[str, Callable[[], bytes]]:
    """Saves a density in both forms and a fitted score here, and returns how each is read."""
    import jax

    density = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
    points = lj.load("moons").examples[:40]
    lj.save(density, "density")
    lj.save(density, "density.safetensors")
    lj.ood.Typicality().fit(density, points).save("score")

    def all_of(tree: object) -> bytes:
        return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))

    return {
        "density": lambda: all_of(lj.restore("density")),
        "density.safetensors": lambda: all_of(lj.restore("density.safetensors")),
        "score": lambda: all_of(lj.ood.restore("score")),
    }


def fuzz_saved(count: int, seed: int) -> dict:
    """Reads ``count`` damaged densities and scores; what comes back is what was saved, or a
    CheckpointError."""
    warnings.simplefilter("ignore")
    rng, problems, tally = random.Random(seed), [], {"read": 0, "refused": 0}
    things = _saved_things()
    good = {name: read() for name, read in things.items()}
    limit_memory()
    for number in range(count):
        name = list(things)[number % len(things)]
        place = Path(name)
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        some = rng.sample(files, min(len(files), rng.choice([1, 1, 1, 2])))
        chosen = {path: path.read_bytes() for path in some}
        for path, data in chosen.items():
            path.write_bytes(mutated(data, list(chosen.values()), rng) if data else b"more")
        try:
            if things[name]() != good[name]:
                problems.append(f"case {number}: {name} that was never saved, from {list(chosen)}")
            tally["read"] += 1
        except lj.train.CheckpointError:
            tally["refused"] += 1
        except BaseException as error:
            names = [str(path) for path in chosen]
            problems.append(f"case {number}, {names}: {type(error).__name__}: {str(error)[:200]}")
        for path, data in chosen.items():
            path.write_bytes(data)
    return {"problems": problems, "cases": count, **tally, "executed": Path(MARK).exists()}


def fuzz_tables(count: int, seed: int) -> dict:
    """Reads ``count`` damaged texts and Parquet files as tables: a dataset or a ValueError or
    TypeError."""
    warnings.simplefilter("ignore")
    import pyarrow
    from pyarrow import parquet

    rng, problems, tally = random.Random(seed), [], {"read": 0, "refused": 0}
    columns = {"a": [1.5, -2.0, 3e4, 0.0], "b": [1, 2, 3, 4], "c": ["x", "y", "x", "z"]}
    lines = ["a,b,c", *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    text = "\n".join(lines).encode()
    table = bytes_of(lambda buffer: parquet.write_table(pyarrow.table(columns), buffer))
    valid = {
        "x.csv": text,
        "x.tsv": text.replace(b",", b"\t"),
        "x.csv.gz": gzip.compress(text),
        "x.parquet": table,
    }
    limit_memory()
    for number in range(count):
        name = list(valid)[number % len(valid)]
        Path(name).write_bytes(mutated(valid[name], list(valid.values()), rng))
        try:
            lj.Dataset.from_table(name)
            tally["read"] += 1
        except (ValueError, TypeError):
            tally["refused"] += 1
        except BaseException as error:
            problems.append(f"case {number}, {name}: {type(error).__name__}: {str(error)[:200]}")
    return {"problems": problems, "cases": count, **tally, "executed": Path(MARK).exists()}


def in_a_process(call: str, folder: Path) -> dict:
    """A crash of the interpreter is a failure with its signal, not the end of the tests."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import json, resource\n"
        f"from tests import test_fuzz\n"
        f"before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"found = test_fuzz.{call}\n"
        f"after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"found['megabytes'] = (after - before) / 1024\n"
        f"print(json.dumps(found))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, f"exit code {result.returncode}: {result.stderr[-2000:]}"
    return json.loads(result.stdout.splitlines()[-1])


def assert_harmless(found: dict) -> None:
    assert found["problems"] == []
    assert not found["executed"]
    assert found["megabytes"] < 600


def test_the_readers_read_what_is_valid(tmp_path):
    for name, contents in VALID.items():
        for data in contents:
            (tmp_path / name).write_bytes(data)
            assert READERS[name](tmp_path / name) is not None


def test_two_thousand_malformed_files(tmp_path):
    found = in_a_process("fuzz_readers(2400, 0)", tmp_path)
    assert_harmless(found)
    assert found["cases"] == 2400
    assert found["refused"] > 1000


def test_malformed_tables(tmp_path):
    found = in_a_process("fuzz_tables(2000, 0)", tmp_path)
    assert_harmless(found)
    assert found["read"] > 100
    assert found["refused"] > 500


def test_malformed_densities_and_scores(tmp_path):
    found = in_a_process("fuzz_saved(210, 0)", tmp_path)
    assert_harmless(found)
    assert found["read"] > 10
    assert found["refused"] > 70


def test_malformed_runs(tmp_path):
    from tests.test_checkpoints import fit

    fit(tmp_path / "run")
    found = in_a_process("fuzz_restore(200, 0, 'run')", tmp_path)
    assert_harmless(found)
    assert found["read"] > 20
    assert found["refused"] > 5

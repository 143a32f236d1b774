"""What the commands read from a run, and the files they write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from likejax.cli.options import UsageError

if TYPE_CHECKING:
    from jaxtyping import ArrayLike

    from likejax.data.dataset import Dataset
    from likejax.density import Density
    from likejax.devices import Devices
    from likejax.experiment import Experiment


def experiment_of(run: Path) -> Experiment:
    """Returns the experiment that a run recorded.

    Args:
      run: Directory of the run.

    Raises:
      CheckpointError: If the directory holds no run.
    """
    from likejax.experiment import from_json
    from likejax.storage.density import RECORD
    from likejax.storage.store import CheckpointError

    path = run / RECORD
    if not path.exists():
        raise CheckpointError(f"{run} is not the directory of a run: it has no {RECORD}")
    return from_json(path.read_text())


def load_as_evaluated(
    experiment: Experiment, name: str, *, split: str, data_dir: Path | None
) -> Dataset:
    """Returns a part of a dataset in the representation that the experiment's model takes.

    Args:
      experiment: Experiment of a run.
      name: Name of the dataset, as ``load`` takes it.
      split: Part of the dataset, one of ``SPLITS``.
      data_dir: Folder of data files; the environment variable ``LIKEJAX_DATA`` if not given.
    """
    from likejax.data.loading import load

    return experiment.as_evaluated(load(name, split=split, data_dir=data_dir))


def check_writable(path: Path, *, option: str) -> None:
    """Raises an OSError, before any work, if a file could not be written after it.

    Args:
      path: Name of the file; its directory is made.
      option: Option that gave the name, for the message.
    """
    folder = path.expanduser().absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        handle, draft = tempfile.mkstemp(dir=folder, prefix=".likejax-")
        os.close(handle)
        os.unlink(draft)
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(f"{path} is write-protected")
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write {path}, which {option} names: {reason}") from error


def has_pictures(density: Density) -> bool:
    """Returns whether samples are integer images, which a sheet of pictures can show.

    Args:
      density: Density of the samples.
    """
    return density.levels is not None and len(density.event_shape) == 3


def check_picture(density: Density, out: Path) -> None:
    """Raises a UsageError if samples cannot be written to a file of this name.

    Args:
      density: Density of the samples.
      out: Path of the file.

    Raises:
      UsageError: If the name ends in no known format, or in one for pictures and there are none.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    if out.suffix == ".npy":
        return
    if not has_pictures(density):
        kind = "continuous values" if density.levels is None else "integers"
        raise UsageError(
            f"samples of shape {density.event_shape} and {kind} are not images: "
            "give --out a name that ends in .npy"
        )
    known = FigureCanvasBase.get_supported_filetypes()
    if out.suffix.removeprefix(".") not in known:
        raise UsageError(
            f"expected --out to end in .png, .npy or another format for pictures, got {out}"
        )


def save_samples(
    density: Density,
    out: Path,
    *,
    count: int,
    seed: int,
    temperature: float = 1.0,
    condition: ArrayLike | None = None,
    batch_size: int = 128,
    devices: Devices | None = None,
) -> None:
    """Draws samples and writes them, as an array if the name ends in .npy, else as a picture.

    Of several processes, which share the drawing, the first one writes.

    Args:
      density: Density to draw from.
      out: Path of the file; its folder is made.
      count: Number of samples.
      seed: Random seed.
      temperature: Factor on the noise of samples, at least 0.
      condition: Condition of all samples of a conditional density.
      batch_size: Number of samples that are drawn at a time on each device.
      devices: Devices to draw with; all of this process if not given.
    """
    import jax
    import numpy as np

    from likejax.plot import sheet

    drawn = density.sample(
        jax.random.key(seed),
        count,
        condition,
        temperature,
        batch_size=batch_size,
        devices=devices,
    )
    samples = np.asarray(drawn)
    if jax.process_index() != 0:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        np.save(out, samples)
    else:
        sheet(samples, levels=density.levels or 256).savefig(out, dpi=150)

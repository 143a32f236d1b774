"""Synthetic OOD images in the form of a dataset: uniform noise and constant images."""

from __future__ import annotations

import dataclasses

import numpy as np

from likejax.data.dataset import Dataset


def noise_like(dataset: Dataset, n: int, *, seed: int) -> Dataset:
    """Draws independent uniform values in every entry.

    Args:
      dataset: Dataset with the shape, levels and representation to imitate.
      n: Number of examples.
      seed: Random seed of the values.
    """
    values = np.random.default_rng([seed, 4]).integers(
        0, _levels(dataset), (n, *dataset.event_shape)
    )
    return _named(dataset, "noise", values, f"uniform noise, {n} examples, seed {seed}")


def constants_like(dataset: Dataset, n: int, *, seed: int) -> Dataset:
    """Draws images of one uniform value in all entries of a channel.

    Args:
      dataset: Dataset with the shape, levels and representation to imitate.
      n: Number of examples.
      seed: Random seed of the values.
    """
    shape = dataset.event_shape
    one = (n, *(1,) * (len(shape) - 1), shape[-1] if len(shape) > 1 else 1)
    values = np.random.default_rng([seed, 5]).integers(0, _levels(dataset), one)
    values = np.broadcast_to(values, (n, *shape))
    return _named(dataset, "constants", values, f"images of one value, {n} examples, seed {seed}")


def _levels(dataset: Dataset) -> int:
    if dataset.levels is None:
        raise ValueError(f"expected integer data to imitate, {dataset.name!r} is continuous")
    return dataset.levels


def _named(dataset: Dataset, name: str, values: np.ndarray, made: str) -> Dataset:
    examples = Dataset.from_array(
        values.astype(dataset.examples.dtype), levels=dataset.levels
    ).examples
    return dataclasses.replace(
        dataset,
        name=name,
        split="test",
        examples=examples,
        labels=None,
        weights=None,
        class_names=None,
        provenance=(made,),
    )

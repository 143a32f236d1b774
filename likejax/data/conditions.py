"""What a model takes of a dataset as the conditions of its examples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Num

from likejax.data.dataset import Dataset
from likejax.inputs import check_labels


def condition_of(
    dataset: Dataset, shape: tuple[int, ...] | None, *, num_classes: int | None = None
) -> Num[np.ndarray, "n ..."] | None:
    """The condition of every example for a model: labels, float conditions, or nothing.

    Args:
      dataset: Examples with labels, conditions, both or neither.
      shape: ``condition_shape`` of the model: ``()`` for labels, another one for floats, ``None``
        for nothing.
      num_classes: Number of classes of the model, or ``None`` if it is not known.

    Returns:
      Labels ``(n,)``, floats ``(n, *shape)``, or ``None``.

    Raises:
      ValueError: If the dataset lacks them, or has others than the model takes.

    Example:
      >>> import likejax as lj
      >>> from likejax.data.conditions import condition_of
      >>> condition_of(lj.load("digits"), ()).shape
      (1258,)
    """
    if shape is None:
        return None
    if shape == ():
        return _labels(dataset, num_classes)
    conditions = dataset.conditions
    if conditions is None:
        raise ValueError(
            f"expected a dataset with conditions of shape {shape} for a conditional density, "
            f"{dataset.name!r} has none: pass conditions= to lj.Dataset.from_array"
        )
    if conditions.shape[1:] != shape:
        raise ValueError(
            f"expected conditions of shape {shape} for this density, {dataset.name!r} has "
            f"conditions of shape {conditions.shape[1:]}: build the density with "
            "condition_shape of the data, or change the data"
        )
    return conditions


def _labels(dataset: Dataset, num_classes: int | None) -> np.ndarray:
    """The labels of a dataset for a model of that many classes."""
    if dataset.labels is None:
        raise ValueError(
            f"expected a labeled dataset for a conditional density, {dataset.name!r} has no "
            "labels: pass labels= to lj.Dataset.from_array"
        )
    try:
        check_labels(dataset.labels, num_classes)
    except ValueError as error:
        raise ValueError(f"dataset {dataset.name!r}, {dataset.split}: {error}") from error
    return dataset.labels

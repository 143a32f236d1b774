"""Integer-to-integer steps by name, as they stand behind a dataset's name: ``omniglot+invert+resize:28x28``."""

from __future__ import annotations

from collections.abc import Callable

from likejax.data.dataset import Dataset
from likejax.data.names import meant
from likejax.legacy import modern


def apply_steps(dataset: Dataset, steps: list[str]) -> Dataset:
    """The dataset after each step in order, noted in its provenance.

    Args:
      dataset: Integer images, or a table.
      steps: ``invert``, ``gray``, ``color``, ``transpose``, ``levels:N``, ``pad:HEIGHTxWIDTH``,
        ``resize:HEIGHTxWIDTH`` or ``resize:HEIGHTxWIDTH:FILTER``, ``binarize:SEED``; ``continuous`` for tables.

    Raises:
      ValueError: For an unknown step, or one that does not fit the data.
    """
    for step in steps:
        name, *arguments = step.split(":")
        name = modern(name)
        if name not in STEPS:
            raise ValueError(
                f"unknown step {step!r} behind a dataset's name; there are {', '.join(USAGE)}{meant(name, STEPS)}"
            )
        try:
            dataset = STEPS[name](dataset, *arguments)
        except (TypeError, ValueError) as error:
            usage = next(text for text in USAGE if text.split(":")[0] == name)
            raise ValueError(f"step {step!r} (expected {usage}): {error}") from error
    return dataset


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def _resize(dataset: Dataset, size: str, filter: str = "box") -> Dataset:
    return dataset.resize(*_size(size), filter=filter)


STEPS: dict[str, Callable[..., Dataset]] = {
    "invert": Dataset.invert,
    "gray": Dataset.gray,
    "color": Dataset.color,
    "transpose": Dataset.transpose,
    "levels": lambda dataset, levels: dataset.reduce_levels(int(levels)),
    "pad": lambda dataset, size: dataset.pad(*_size(size)),
    "resize": _resize,
    "binarize": lambda dataset, seed: dataset.binarize(int(seed)),
    "continuous": Dataset.continuous,
}
USAGE = (
    "invert",
    "gray",
    "color",
    "transpose",
    "levels:N",
    "pad:HEIGHTxWIDTH",
    "resize:HEIGHTxWIDTH[:FILTER]",
    "binarize:SEED",
    "continuous",
)

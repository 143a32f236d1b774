"""Facts about published datasets that their files lack: layouts, archives, classes and shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from likejax.data.classes import Classes, numbered
from likejax.data.dataset import Dataset
from likejax.data.parts import WHOLE, Raw
from likejax.data.sources.published import celeba, gtsrb, tiny_imagenet

Labels = Mapping[str, np.ndarray | None]


class Known(NamedTuple):
    """Facts about the files of a dataset."""

    adjust: Callable[[Dataset], Dataset] = lambda dataset: dataset
    """Turns what the files hold into images."""
    archives: str = "*.zip"
    """Pattern of the names of its zip archives."""
    classes: Callable[[Labels], Classes] = numbered
    """Numbers its classes."""
    whole: str = WHOLE
    """Part that files which name none are; ``WHOLE`` to cut them."""
    layout: Callable[[Path], dict[str, Raw]] | None = None
    """Reads a folder in the layout of this dataset alone; no parts if it has another."""
    damaged: frozenset[str] = frozenset()
    """Names of pictures that are published damaged."""


PUBLISHED = (
    *("mnist", "fashion_mnist", "kmnist", "emnist_letters", "notmnist", "omniglot"),
    *("binarized_mnist", "cifar10", "cifar100", "svhn", "celeba", "celeba_hq256", "tiny_imagenet"),
    *("imagenet32", "imagenet64", "gtsrb"),
)
"""Names that published datasets have here, whether or not their files are."""


def known(name: str) -> Known:
    """Facts about a dataset, by its name.

    Args:
      name: Name of the dataset, or its path below the folder of all data.
    """
    return _KNOWN.get(name.rsplit("/", 1)[-1].lower(), Known())


def _binary_images(dataset: Dataset) -> Dataset:
    """Rows of 784 zeros and ones as binary 28x28 images."""
    values = dataset.examples.reshape(-1, 28, 28).astype(np.uint8)
    images = Dataset.from_array(values, levels=2)
    step = "rows of 784 as 28x28"
    made = "as in the files"
    return dataset.with_examples(images.examples, step=step, levels=2, binarization=made)


def _digit_classes(labels: Labels) -> Classes:
    """SVHN's labels 1 to 10, where 10 is the digit 0, as the digits."""
    given = {part: each for part, each in labels.items() if each is not None}
    highest = max((int(each.max()) for each in given.values() if each.size), default=0)
    if not given or highest > 10:
        return numbered(labels)
    digits = {part: each.astype(np.int64) % 10 for part, each in given.items()}
    notes = ("label 10 is the digit 0",) if highest == 10 else ()
    of_parts = {part: digits.get(part) for part in labels}
    return Classes(of_parts, tuple("0123456789"), notes)


_NOTMNIST = Known(
    whole="test",
    damaged=frozenset(
        {
            "RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png",
            "Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png",
        }
    ),
)
_SVHN = Known(classes=_digit_classes)
_KNOWN = {
    "binarized_mnist": Known(adjust=_binary_images),
    "celeba": Known(layout=celeba),
    "gtsrb": Known(layout=gtsrb),
    "notmnist": _NOTMNIST,
    "notmnist_small": _NOTMNIST,
    # omniglot's archives of one-shot runs belong to another task
    "omniglot": Known(archives="images_background*.zip", whole="test"),
    "svhn": _SVHN,
    "svhn_cropped": _SVHN,
    "tiny_imagenet": Known(layout=tiny_imagenet),
}

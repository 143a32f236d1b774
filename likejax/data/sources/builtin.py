"""Images that come with scikit-learn: nothing to download."""

from __future__ import annotations

from typing import Any

import numpy as np

from likejax.data.dataset import Dataset
from likejax.data.splits import split_by_fractions

PATCH = 32
_BANDS = {"train": (0, 416), "validation": (416, 512), "test": (512, 640)}
_STRIDES = {"train": 8, "validation": 16, "test": 16}


def load_digits() -> dict[str, Dataset]:
    """Handwritten digits, 1,797 gray images of 8x8 with 17 levels, labeled."""
    from sklearn import datasets

    digits: Any = datasets.load_digits()
    rows = Dataset.from_array(
        digits.images.astype(np.uint8),
        levels=17,
        labels=digits.target,
        class_names=[str(each) for each in digits.target_names],
        name="digits",
        provenance=["scikit-learn's digits (UCI optical recognition of handwritten digits)"],
    )
    return split_by_fractions("digits", rows, {"train": 1.0, "validation": 0.1, "test": 0.2})


def load_photographs() -> dict[str, Dataset]:
    """Natural RGB patches of 32x32 from two photographs, parts from bands that do not touch."""
    from sklearn import datasets

    photographs = datasets.load_sample_images().images
    parts = {}
    for split, (left, right) in _BANDS.items():
        stride = _STRIDES[split]
        patches = [
            photograph[top : top + PATCH, x : x + PATCH]
            for photograph in photographs
            for top in range(0, photograph.shape[0] - PATCH + 1, stride)
            for x in range(left, right - PATCH + 1, stride)
        ]
        files = "scikit-learn's china.jpg and flower.jpg"
        source = f"{files}, columns {left}..{right - 1}, patches every {stride} pixels"
        parts[split] = Dataset.from_array(
            np.stack(patches), name="photographs", split=split, provenance=[source]
        )
    return parts

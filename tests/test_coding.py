"""The range coder of the benchmarks: as long as the model says, and back bit for bit."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

import likejax as lj
from tests.registry import perturbed

pytest.importorskip(
    "constriction", reason="constriction is not installed: pip install -e '.[benchmarks]'"
)
PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "coding.py"


@pytest.fixture(scope="module")
def coding():
    spec = importlib.util.spec_from_file_location("coding", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "options",
    [{"event_shape": (8, 8, 1), "levels": 17}, {"event_shape": (4, 4, 3), "num_classes": 2}],
)
def test_images_come_back(coding, options):
    """Within 1 % and one word of the stated bits, with channels and labels."""
    sizes = {"filters": 4, "blocks": 1, "resolutions": 2, "mixtures": 2, "dropout": 0.0}
    density = perturbed(lj.build(lj.models.PixelCNNConfig(**sizes | options), key=0))
    x = (
        np.random.default_rng(0)
        .integers(0, density.levels, (6, *density.event_shape))
        .astype(np.uint8)
    )
    labels = np.arange(6) % 2 if options.get("num_classes") else None
    text = coding.encode(density, x, labels)
    stated = float(
        -np.asarray(density.log_prob(x, condition=labels), np.float64).sum() / math.log(2)
    )
    assert stated < 8 * len(text) < 1.01 * stated + 64
    np.testing.assert_array_equal(coding.decode(density, text, 6, labels), x)
    if labels is not None:
        assert (coding.decode(density, text, 6, 1 - labels) != x).any()

"""Named experiments, a file for each family. Paper-scale first, then small ones of the same code for two CPU cores.

A card is a preset's docstring. What it says was measured is what the README has, with the command; a number of a paper
is called so.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from likejax.experiment import Experiment
from likejax.presets import ffjord, glow, pixelcnn, vae

PRESETS: dict[str, Callable[[], Experiment]] = (
    glow.PRESETS | ffjord.PRESETS | pixelcnn.PRESETS | vae.PRESETS
)
"""Name to the function that makes the experiment; its docstring is the preset's card."""


def preset(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
      TypeError: If it is no text.
      ValueError: If there is none; the message names those that come near.

    Example:
      >>> import likejax as lj
      >>> lj.preset("glow/cifar10").model.depth
      32
    """
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a preset, got {type(name).__name__}")
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no preset {name!r}{hint} `likejax presets` lists them")
    return PRESETS[name]()

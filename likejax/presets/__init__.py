"""Named experiments, one file for each family.

Each file lists the configurations of the papers first, then small ones of the same code that train
on two CPU cores. The card of a preset gives its command, the published number with its source, and
what was measured when it was trained with likejax.
"""

from __future__ import annotations

from typing import Any

from likejax.experiment import Experiment
from likejax.names import meant
from likejax.presets import diffusion, ffjord, glow, pixelcnn, vae, vector_flows
from likejax.presets.card import Preset as Preset
from likejax.presets.card import named

PRESETS: dict[str, Preset] = named(
    [
        *glow.PRESETS,
        *ffjord.PRESETS,
        *pixelcnn.PRESETS,
        *vae.PRESETS,
        *vector_flows.PRESETS,
        *diffusion.PRESETS,
    ]
)
"""All presets by name; ``PRESETS[name].card`` is a description of one."""


def preset(name: str) -> Experiment[Any]:
    """Returns the experiment of a preset.

    Args:
      name: Name of the preset, for example ``glow/cifar10``. ``likejax presets`` lists them.

    Raises:
      TypeError: If the name is not a string.
      ValueError: If there is no preset of that name; the message suggests similar names.

    Example:
      >>> import likejax as lj
      >>> lj.preset("glow/cifar10").model.depth
      32
    """
    return find(name).experiment


def find(name: str) -> Preset:
    """Returns a preset with its card.

    Args:
      name: Name of the preset, for example ``glow/cifar10``.

    Raises:
      TypeError: If the name is not a string.
      ValueError: If there is no preset of that name; the message suggests similar names.
    """
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a preset, got {type(name).__name__}")
    if name not in PRESETS:
        near = meant(name, PRESETS, count=3, similarity=0.4) or ";"
        raise ValueError(f"no preset {name!r}{near} `likejax presets` lists them")
    return PRESETS[name]

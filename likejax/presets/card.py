"""A preset: a named experiment together with the facts that its card prints."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable
from typing import Any

from likejax.data.sources.toys import TOYS
from likejax.experiment import Experiment
from likejax.facts import facts_table

_BUILT_IN = {"digits", "photographs", *TOYS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A named experiment and its card; calling the preset returns the experiment.

    Example:
      >>> import likejax as lj
      >>> preset = lj.PRESETS["glow/cifar10"]
      >>> preset.command
      'likejax train glow/cifar10 --data-dir DATA'
      >>> preset().batch_size
      512
    """

    name: str
    """Family and dataset, with a variant after a hyphen: ``glow/cifar10-additive``."""
    summary: str
    """One sentence: the model, the data and the size."""
    experiment: Experiment[Any]
    """Model, data, objective, optimizer and schedule."""
    paper: str = ""
    """Published number with its source; empty if none was published for this configuration."""
    hardware: str = ""
    """Hardware and time of the published training."""
    trained: str = ""
    """Measured result of a whole training with likejax and its hardware; empty if there is none."""
    notes: str = ""
    """Differences to the paper, and advice."""

    def __call__(self) -> Experiment[Any]:
        """Returns the experiment."""
        return self.experiment

    @property
    def command(self) -> str:
        """Command that trains the preset."""
        data = "" if self.experiment.dataset in _BUILT_IN else " --data-dir DATA"
        return f"likejax train {self.name}{data}"

    @property
    def card(self) -> str:
        """The summary, the command, and the published and measured numbers, as paragraphs."""
        trained = f"Measured: {self.trained}" if self.trained else "Not trained to the end here."
        paper = f"Paper: {self.paper}" if self.paper else ""
        facts = [f"Command: {self.command}", paper, self.hardware, trained, self.notes]
        paragraphs = [textwrap.fill(fact, 88) for fact in facts if fact]
        return "\n\n".join([self.summary, *paragraphs])

    def _repr_html_(self) -> str:
        """The card for notebooks."""
        facts = {
            "content": self.summary,
            "command": self.command,
            "paper": self.paper,
            "hardware of the paper": self.hardware,
            "measured": self.trained or "not trained to the end here",
            "notes": self.notes,
        }
        known = {name: fact for name, fact in facts.items() if fact}
        return facts_table(known, caption=self.name)


def named(presets: Iterable[Preset]) -> dict[str, Preset]:
    """Returns presets by their names.

    Args:
      presets: Presets of one family.

    Raises:
      ValueError: If two presets have the same name.
    """
    by_name: dict[str, Preset] = {}
    for each in presets:
        if each.name in by_name:
            raise ValueError(f"expected different names of presets, got {each.name!r} twice")
        by_name[each.name] = each
    return by_name

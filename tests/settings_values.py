"""The configs of the library, and values that their fields allow or do not."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import likejax as lj
from likejax import cli
from likejax.cli.options import RunArgument, WeightsOption
from likejax.settings import Range, Settings


def modules() -> list[Any]:
    names = (module.name for module in pkgutil.walk_packages(lj.__path__, "likejax."))
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def config_classes() -> list[type]:
    found = {
        each for module in modules() for each in vars(module).values() if isinstance(each, type)
    }
    ours = [each for each in found if issubclass(each, Settings) and each is not Settings]
    # the others are bases that configs share
    ours = [
        each for each in ours if dataclasses.is_dataclass(each) and not inspect.isabstract(each)
    ]
    return sorted(ours, key=lambda each: each.__name__)


def _flow() -> lj.Density:
    return lj.models.Flow(lj.bijections.ActNorm(2), (2,))


EXAMPLES = {
    "Experiment": lambda: lj.preset("glow/digits"),
    "Curvature": lambda: lj.ood.Curvature(scale=1.0),
    "LowestMean": lambda: lj.ood.LowestMean(lj.ood.LogProbMap()),
    "PerturbedLogProbs": lambda: lj.ood.PerturbedLogProbs(scale=1.0),
    "EnsembleConfig": lambda: lj.models.EnsembleConfig(member=lj.models.NSFConfig(dimensions=2)),
    "DiffusionFlowConfig": lambda: lj.models.DiffusionFlowConfig(lj.models.VDMConfig()),
    "EnsembleScore": lambda: lj.ood.EnsembleScore(lj.Ensemble(2 * [_flow()])),
    "LikelihoodRatio": lambda: lj.ood.LikelihoodRatio(lj.models.Uniform((2,))),
    "Train": lambda: cli.Train(preset="glow/digits"),
    "Categorical": lambda: lj.data.Categorical(("blue", "red")),
} | {
    kind.__name__: lambda kind=kind: kind(run=Path("run"))
    for kind in (RunArgument, WeightsOption, cli.Evaluate, cli.Sample, cli.Ood, cli.Summary)
}
"""Configs that need an argument."""


def example_of(kind: type) -> Any:
    return EXAMPLES.get(kind.__name__, kind)()


def senseless(hint: Any) -> list[Any]:
    """Values that a hint does not allow."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return [inner[0] + "x", inner[0].upper(), "", 3, None, True]
    if origin is Annotated:
        bounds = [note for note in inner if isinstance(note, Range)]
        below = [each.at_least - 1 for each in bounds if each.at_least is not None]
        below += [each.above for each in bounds if each.above is not None]
        above = [each.at_most + 1 for each in bounds if each.at_most is not None]
        above += [each.below for each in bounds if each.below is not None]
        return [inner[0](value) for value in [*below, *above]] + senseless(inner[0])
    if origin is tuple:
        return [
            3,
            None,
            "ab",
            *((value,) * max(1, len(inner) - (inner[-1] is ...)) for value in senseless(inner[0])),
        ]
    if hint is int:
        return ["3", 2.5, None, True, math.nan]
    if hint is float:
        return ["3", None, True, math.nan, math.inf, 1j]
    if hint is bool:
        return ["yes", 1, None]
    if hint is str:
        return [3, None]
    if isinstance(hint, type) and issubclass(hint, Settings):
        return [3, None, "default"]
    return []

"""Likelihoods you can compare: one ``log_prob`` for generative density models in JAX.

Every log-probability has its kind (exact, a bound or an estimate) and its error.
"""

import importlib.metadata
import types
import typing

from likejax import bijections as bijections
from likejax import compilation
from likejax import data as data
from likejax import hub as hub
from likejax import memory as memory
from likejax import models as models
from likejax import ood as ood
from likejax import plot as plot
from likejax import train as train
from likejax.classification import Classifier as Classifier
from likejax.data.dataset import Dataset as Dataset
from likejax.data.loading import load as load
from likejax.density import Density as Density
from likejax.density import Kind as Kind
from likejax.density import bits_per_dim as bits_per_dim
from likejax.density import count_parameters as count_parameters
from likejax.evaluation import compare as compare
from likejax.evaluation import evaluate as evaluate
from likejax.experiment import Experiment as Experiment
from likejax.experiment import Optimizer as Optimizer
from likejax.exporting import export as export
from likejax.keys import example_keys as example_keys
from likejax.models import Ensemble as Ensemble
from likejax.models import build as build
from likejax.models import condition as condition
from likejax.objectives import ELBO as ELBO
from likejax.objectives import NLL as NLL
from likejax.presets import PRESETS as PRESETS
from likejax.presets import preset as preset
from likejax.storage.density import restore as restore
from likejax.storage.density import save as save
from likejax.train.loop import fit as fit
from likejax.weights import PRETRAINED as PRETRAINED
from likejax.weights import pretrained as pretrained

compilation.use_persistent_cache()

__version__ = importlib.metadata.version("likejax")

_SUBMODULES = (bijections, data, hub, memory, models, ood, plot, train)
"""Submodules that are public by their short names."""

_MOVED = {
    "combine_draws": "likejax.density.combine_draws",
    "Diffusion": "likejax.density.Diffusion",
    "Terms": "likejax.density.Terms",
    "log_prob_in_chunks": "likejax.evaluation.log_prob_in_chunks",
    "log_prob_draws_in_chunks": "likejax.evaluation.log_prob_draws_in_chunks",
    "Comparison": "likejax.evaluation.Comparison",
    "Evaluation": "likejax.evaluation.Evaluation",
    "Classification": "likejax.classification.Classification",
}
"""Names that were at the top once and are in none of those submodules, and their place now."""


def __dir__() -> list[str]:
    """Returns the public names, for completion: other submodules are the library's own."""
    return [
        name
        for name, value in globals().items()
        if not isinstance(value, types.ModuleType) or value in _SUBMODULES
    ]


def __getattr__(name: str) -> typing.NoReturn:
    """Raises an AttributeError that names the present place of a name that has moved."""
    place = _MOVED.get(name)
    for module in (models, bijections, data, train, ood):
        if place is None and not name.startswith("_") and hasattr(module, name):
            place = f"lj.{module.__name__.removeprefix('likejax.')}.{name}"
    advice = "" if place is None else f"; it is {place} now"
    raise AttributeError(f"module 'likejax' has no attribute {name!r}{advice}")

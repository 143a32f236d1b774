"""Likelihoods you can compare: one ``log_prob`` for generative density models in JAX, with its kind and its error."""

from likejax import compilation as compilation
from likejax import bijections as bijections
from likejax import data as data
from likejax import models as models
from likejax import ood as ood
from likejax import plot as plot
from likejax import train as train
from likejax.density import Density as Density
from likejax.density import Kind as Kind
from likejax.density import Terms as Terms
from likejax.density import bits_per_dim as bits_per_dim
from likejax.density import combine_draws as combine_draws
from likejax.density import example_keys as example_keys
from likejax.density import log_prob_draws_in_chunks as log_prob_draws_in_chunks
from likejax.density import log_prob_in_chunks as log_prob_in_chunks
from likejax.data.dataset import Dataset as Dataset
from likejax.data.loading import datasets as datasets
from likejax.data.loading import load as load
from likejax.models import build as build
from likejax.objectives import ELBO as ELBO
from likejax.objectives import NLL as NLL
from likejax.evaluation import Evaluation as Evaluation
from likejax.evaluation import compare as compare
from likejax.evaluation import evaluate as evaluate
from likejax.exporting import export as export
from likejax.experiment import Experiment as Experiment
from likejax.experiment import Optimizer as Optimizer
from likejax.train.checkpoint import restore as restore
from likejax.train.checkpoint import save as save
from likejax.train.loop import Run as Run
from likejax.train.loop import fit as fit
from likejax.presets import PRESETS as PRESETS
from likejax.presets import preset as preset

compilation.use_persistent_cache()

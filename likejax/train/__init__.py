"""Training: the loop, its state, devices, checkpoints, the log."""

from likejax.experiment import Guard as Guard
from likejax.storage.store import CheckpointError as CheckpointError
from likejax.train.ensemble import EnsembleRun as EnsembleRun
from likejax.train.ensemble import fit_ensemble as fit_ensemble
from likejax.train.guard import NonFiniteError as NonFiniteError
from likejax.train.log import JSONLines as JSONLines
from likejax.train.log import Logger as Logger
from likejax.train.log import TensorBoard as TensorBoard
from likejax.train.loop import fit as fit
from likejax.train.order import order_of as order_of
from likejax.train.order import recorded_order as recorded_order
from likejax.train.record import selection_of as selection_of
from likejax.train.run import Run as Run
from likejax.train.run import restore_run as restore_run
from likejax.train.state import TrainState as TrainState
from likejax.train.weight_noise import WeightNoise as WeightNoise
from likejax.train.weight_noise import weight_noise_ensemble as weight_noise_ensemble

"""Training: the loop, its state, devices, checkpoints, the log."""

from likejax.experiment import Guard as Guard
from likejax.storage.store import CheckpointError as CheckpointError
from likejax.train.guard import NonFiniteError as NonFiniteError
from likejax.train.loop import Run as Run
from likejax.train.loop import fit as fit

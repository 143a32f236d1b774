"""Diffusion models with a likelihood: the variational bound, and the probability-flow ODE."""

from likejax.models.diffusion.config import TextVDMConfig as TextVDMConfig
from likejax.models.diffusion.config import VDMConfig as VDMConfig
from likejax.models.diffusion.config import VectorVDMConfig as VectorVDMConfig
from likejax.models.diffusion.density import VDM as VDM
from likejax.models.diffusion.density import BoundSettings as BoundSettings
from likejax.models.diffusion.flow import DiffusionFlow as DiffusionFlow
from likejax.models.diffusion.flow import DiffusionFlowConfig as DiffusionFlowConfig
from likejax.models.diffusion.sampling import DiffusionSampler as DiffusionSampler

"""Hierarchical variational autoencoders."""

from likejax.models.vae.config import VAEConfig as VAEConfig
from likejax.models.vae.density import VAE as VAE
from likejax.models.vae.stage import StageConfig as StageConfig

"""Hierarchical variational autoencoders."""

from likejax.models.vae.density import VAE as VAE
from likejax.models.vae.density import StageConfig as StageConfig
from likejax.models.vae.density import VAEConfig as VAEConfig

"""Importers: weights of the official implementations as likejax densities."""

from likejax.reference.glow import glow as glow

"""Importers: weights of the official implementations as likejax densities."""

from likejax.reference.ffjord import ffjord as ffjord
from likejax.reference.glow import glow as glow
from likejax.reference.hvae import hvae as hvae
from likejax.reference.pixelcnn import pixelcnn as pixelcnn

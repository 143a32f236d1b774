"""Importers: weights of the official implementations as likejax densities.

Each importer takes arrays by name. A function beside it gets them from a checkpoint of the official
code, whose names and order of layers it knows; its docstring says how the official tool reads such
a file. likejax itself imports neither TensorFlow nor PyTorch.
"""

from likejax.reference.ffjord import ffjord as ffjord
from likejax.reference.ffjord import ffjord_arrays as ffjord_arrays
from likejax.reference.glow import glow as glow
from likejax.reference.glow import glow_arrays as glow_arrays
from likejax.reference.hvae import hvae as hvae
from likejax.reference.hvae import hvae_arrays as hvae_arrays
from likejax.reference.hvae import hvae_config as hvae_config
from likejax.reference.pixelcnn import pixelcnn as pixelcnn
from likejax.reference.pixelcnn import pixelcnn_arrays as pixelcnn_arrays
from likejax.reference.pixelcnn import pixelcnn_port_arrays as pixelcnn_port_arrays

"""Importers: weights of the official implementations as likejax densities.

Each importer takes arrays by name. A function beside it gets them from a checkpoint of the official
code, whose names and order of layers it knows; its docstring says how the official tool reads such
a file. likejax itself imports neither TensorFlow nor PyTorch.
"""

from likejax.reference.ffjord_weights import ffjord as ffjord
from likejax.reference.ffjord_weights import ffjord_arrays as ffjord_arrays
from likejax.reference.glow_weights import glow as glow
from likejax.reference.glow_weights import glow_arrays as glow_arrays
from likejax.reference.hvae_weights import hvae as hvae
from likejax.reference.hvae_weights import hvae_arrays as hvae_arrays
from likejax.reference.hvae_weights import hvae_config as hvae_config
from likejax.reference.nsf_weights import nsf as nsf
from likejax.reference.pixelcnn_weights import pixelcnn as pixelcnn
from likejax.reference.pixelcnn_weights import pixelcnn_arrays as pixelcnn_arrays
from likejax.reference.pixelcnn_weights import pixelcnn_port_arrays as pixelcnn_port_arrays
from likejax.reference.vdm_weights import vdm as vdm

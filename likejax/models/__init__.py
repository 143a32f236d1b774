"""Model families: each is one file, or a folder when it needs more."""

from likejax.models.baselines import FullGaussian as FullGaussian
from likejax.models.baselines import PixelHistogram as PixelHistogram
from likejax.models.baselines import Uniform as Uniform
from likejax.models.building import build as build
from likejax.models.dequantize import Dequantized as Dequantized
from likejax.models.ffjord import FFJORDConfig as FFJORDConfig
from likejax.models.ffjord import ImageFFJORDConfig as ImageFFJORDConfig
from likejax.models.ffjord import function_evaluations as function_evaluations
from likejax.models.ffjord import with_solver as with_solver
from likejax.models.flow import Flow as Flow
from likejax.models.glow import GlowConfig as GlowConfig
from likejax.models.pixelcnn import PixelCNN as PixelCNN
from likejax.models.pixelcnn import PixelCNNConfig as PixelCNNConfig
from likejax.models.tabular import Tabular as Tabular
from likejax.models.tabular import TabularConfig as TabularConfig
from likejax.models.vae import VAE as VAE
from likejax.models.vae import StageConfig as StageConfig
from likejax.models.vae import VAEConfig as VAEConfig
from likejax.models.vector_flows import MAFConfig as MAFConfig
from likejax.models.vector_flows import NSFConfig as NSFConfig
from likejax.models.vector_glow import VectorGlowConfig as VectorGlowConfig

"""PixelCNN++, an autoregressive model of images."""

from likejax.models.pixelcnn.density import PixelCNN as PixelCNN
from likejax.models.pixelcnn.density import PixelCNNConfig as PixelCNNConfig

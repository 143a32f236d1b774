"""Raw examples from built-in sources, files and TFDS: named, frozen, never scaled."""

from likejax.data.dataset import Dataset as Dataset
from likejax.data.load import datasets as datasets
from likejax.data.load import load as load
from likejax.data.splits import hold_out as hold_out

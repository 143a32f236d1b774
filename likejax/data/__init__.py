"""Raw examples from built-in sources, files and TFDS: named, frozen, never scaled."""

from likejax.data.dataset import Dataset as Dataset
from likejax.data.dataset import as_dataset as as_dataset
from likejax.data.describe import described as described
from likejax.data.loading import datasets as datasets
from likejax.data.loading import load as load
from likejax.data.loading import load_parts as load_parts
from likejax.data.splits import check_disjoint as check_disjoint
from likejax.data.splits import hold_out as hold_out

"""Datasets of raw examples from built-in sources, files and TFDS, and transforms of them."""

from likejax.data.dataset import Dataset as Dataset
from likejax.data.dataset import as_dataset as as_dataset
from likejax.data.describe import described as described
from likejax.data.loading import datasets as datasets
from likejax.data.loading import load as load
from likejax.data.loading import load_parts as load_parts
from likejax.data.splits import check_disjoint as check_disjoint
from likejax.data.splits import concatenate as concatenate
from likejax.data.splits import hold_out as hold_out
from likejax.data.splits import split as split
from likejax.data.steps import apply_steps as apply_steps
from likejax.data.transforms import binarize as binarize
from likejax.data.transforms import color as color
from likejax.data.transforms import continuous as continuous
from likejax.data.transforms import gray as gray
from likejax.data.transforms import invert as invert
from likejax.data.transforms import mutate as mutate
from likejax.data.transforms import pad as pad
from likejax.data.transforms import reduce_levels as reduce_levels
from likejax.data.transforms import resize as resize
from likejax.data.transforms import subtract as subtract
from likejax.data.transforms import transpose as transpose

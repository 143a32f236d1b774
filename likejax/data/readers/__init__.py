"""Readers of file formats: bytes in, arrays out, and a ``FileError`` for anything else.

Why a reader refuses files. Data files are downloaded, copied from disk to disk and passed on by
strangers, and three things happen to them: they are cut off or changed on the way, they are
something else than their name says, and now and then somebody means harm. Each of these has a rule:

* **A damaged file gives an error, never wrong examples.** A likelihood of half a data set, or of
  one shifted by a byte, looks like any other number. So lengths are compared with what the header
  claims, before and after reading, and the error names the file and what is wrong with it.
* **A header costs no memory.** A header of twenty bytes can claim an array of a terabyte, and an
  archive of a kilobyte can unpack to one. Sizes are checked before memory is taken (``MAX_BYTES``),
  and data are read in pieces.
* **A file runs no code.** Pickled objects may call any function while they are read. ``.npy`` and
  ``.npz`` files are read without pickle; the CIFAR batches, which are published as pickles, are
  read by an unpickler that builds arrays, numbers, strings and containers only. Pillow's readers
  that start other programs (PostScript) are switched off.
* **A file never ends the process.** ``scipy.io.loadmat`` (1.17) ends Python with a segmentation
  fault on a few damaged files in a thousand, which no caller can catch; ``mat`` reads the few parts
  of the format that numeric arrays need.

``tests/test_fuzz.py`` and ``tests/test_data_damaged.py`` feed the readers thousands of damaged and
crafted files. The modules are named by the format that they read: ``idx``, ``numpy_files``,
``mat``, ``cifar``, ``images``, ``delimited`` and ``mixed`` (tables with words, and Parquet);
``named_arrays`` and ``image_folders`` decide which arrays or images belong to which part.
"""

from likejax.data.readers.cifar import read_cifar_binary as read_cifar_binary
from likejax.data.readers.cifar import read_cifar_pickle as read_cifar_pickle
from likejax.data.readers.delimited import read_delimited as read_delimited
from likejax.data.readers.files import FileError as FileError
from likejax.data.readers.idx import read_idx as read_idx
from likejax.data.readers.images import images_in_zip as images_in_zip
from likejax.data.readers.images import read_images as read_images
from likejax.data.readers.mat import read_mat as read_mat
from likejax.data.readers.numpy_files import read_npy as read_npy
from likejax.data.readers.numpy_files import read_npz as read_npz

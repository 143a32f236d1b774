"""Values that the processes of one run share; one process alone has them already.

Every process must call these functions, in the same order: each waits for the others.
"""

from __future__ import annotations

import collections
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def to_host(tree: PyTree) -> Any:
    """Returns whole arrays in the memory of every process, wherever their parts are.

    Args:
      tree: Tree of arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> from likejax.processes import to_host
      >>> to_host({"x": jnp.arange(3)})
      {'x': array([0, 1, 2], dtype=int32)}
    """

    def one(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        from jax.experimental.multihost_utils import process_allgather

        return np.asarray(process_allgather(leaf, tiled=True))

    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, jax.device_get(tree))
    return jax.tree.map(one, tree)


def agreed(flag: bool) -> bool:
    """Returns whether the flag is set in any process.

    Args:
      flag: Flag of this process.

    Example:
      >>> from likejax.processes import agreed
      >>> agreed(True)
      True
    """
    if jax.process_count() == 1:
        return flag
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.asarray(flag))))


def check_same(what: str, mine: str) -> None:
    """Raises a ValueError unless a text is the same in all processes.

    Args:
      what: Name of what the text describes.
      mine: The text of this process.

    Example:
      >>> from likejax.processes import check_same
      >>> check_same("validation rows", "all 360 rows")
    """
    if jax.process_count() == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    number = np.asarray(zlib.crc32(mine.encode()), np.uint32)
    numbers = process_allgather(number)
    if len(np.unique(numbers)) > 1:
        raise ValueError(
            f"expected the same {what} in all {len(numbers)} processes, got {mine} in process "
            f"{jax.process_index()} and others elsewhere: every process must make the same call, "
            "and only iterables of training examples may differ"
        )


def digest(tree: PyTree) -> str:
    """Returns a short name of the numbers in a tree of arrays, to compare them between processes.

    Args:
      tree: Tree of arrays, keys included.

    Example:
      >>> import numpy as np
      >>> from likejax.processes import digest
      >>> digest(np.arange(3)) == digest([0, 1, 3])
      False
    """
    number = 0
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(to_host(leaf))
        number = zlib.crc32(f"{array.dtype}{array.shape}".encode(), number)
        number = zlib.crc32(array.tobytes(), number)
    return f"{number:08x}"


def of_first_process(tree: PyTree) -> Any:
    """Returns the arrays of the first process, in every process: initializations may differ.

    Args:
      tree: Tree of arrays, of the same shapes in every process, of at most 32 bits unless JAX
        computes with 64.

    Example:
      >>> import numpy as np
      >>> from likejax.processes import of_first_process
      >>> of_first_process(np.arange(3))
      array([0, 1, 2])
    """
    if jax.process_count() == 1:
        return tree
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return broadcast_one_to_all(to_host(tree))


def bytes_of_first_process(mine: bytes) -> bytes:
    """Returns the bytes of the first process, in every process, whatever their number is.

    Args:
      mine: Bytes of this process, which only count in the first one.

    Example:
      >>> from likejax.processes import bytes_of_first_process
      >>> bytes_of_first_process(b"abc")
      b'abc'
    """
    size = int(of_first_process(np.asarray(len(mine), np.uint32)))
    padded = np.zeros(size, np.uint8)
    if len(mine) == size:
        padded = np.frombuffer(mine, np.uint8)
    return np.asarray(of_first_process(padded)).tobytes()


def shared(results: Sequence[PyTree], owners: Sequence[int]) -> list[Any]:
    """Returns the results of all pieces of a work, in order, in every process.

    Args:
      results: Results of the pieces that this process owns, in order, or of any piece if it owns
        none: that one only tells the form. All are trees of one structure, of arrays of one shape
        and type.
      owners: For every piece, the process that owns it.

    Returns:
      Trees of arrays on the host, bit for bit what their owners have.

    Example:
      >>> import numpy as np
      >>> from likejax.processes import shared
      >>> shared([np.zeros(2), np.ones(2)], owners=[0, 0])
      [array([0., 0.]), array([1., 1.])]
    """
    own = [jax.tree.map(np.asarray, jax.device_get(result)) for result in results]
    if jax.process_count() == 1:
        return own
    from jax.experimental.multihost_utils import process_allgather

    # every process sends as many pieces, the last ones again
    most = max(owners.count(process) for process in set(owners))
    sent = [own[min(number, len(own) - 1)] for number in range(most)]
    places = _places_among(owners)

    def gather(*pieces: np.ndarray) -> list[np.ndarray]:
        stacked = np.stack(pieces)
        # as bytes, since JAX would round numbers of 64 bits
        received = np.asarray(process_allgather(stacked.reshape(-1).view(np.uint8)))
        of_all = received.view(stacked.dtype).reshape(len(received), *stacked.shape)
        return [of_all[place] for place in places]

    structure = jax.tree.structure(own[0])
    columns = zip(*(jax.tree.leaves(each) for each in sent), strict=True)
    gathered = [gather(*column) for column in columns]
    return [jax.tree.unflatten(structure, row) for row in zip(*gathered, strict=True)]


def _places_among(owners: Sequence[int]) -> list[tuple[int, int]]:
    """For every piece its owner, and its number among those of its owner."""
    counts: collections.Counter[int] = collections.Counter()
    places = []
    for owner in owners:
        places.append((owner, counts[owner]))
        counts[owner] += 1
    return places

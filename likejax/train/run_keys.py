"""The keys of a run, each for one use."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jaxtyping import Array, Key

from likejax.keys import KeyLike, as_key


class RunKeys(NamedTuple):
    """Keys of a run.

    Attributes:
      build: Key of the initial weights.
      data: Key of the order of the data.
      noise: Key of the noise of the steps.
      validation: Key of the draw of validation rows.
      sample: Key of the samples that are drawn on the way.
    """

    build: Key[Array, ""]
    data: Key[Array, ""]
    noise: Key[Array, ""]
    validation: Key[Array, ""]
    sample: Key[Array, ""]

    @classmethod
    def of(cls, key: KeyLike) -> RunKeys:
        """Returns the keys of the run that ``fit`` begins with a key.

        Args:
          key: Key that ``fit`` is called with.
        """
        return cls(*jax.random.split(as_key(key), len(cls._fields)))

    @property
    def order_seed(self) -> int:
        """Seed of the order of the data."""
        return int(jax.random.randint(self.data, (), 0, 2**31 - 1))

"""From the config of a family to an untrained density."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
from flax import nnx
from jax.core import Tracer

from likejax.density import Density
from likejax.keys import KeyLike, as_key
from likejax.nn.modules import replace
from likejax.nn.repeat import for_backend


@runtime_checkable
class _Config(Protocol):
    """Anything that builds a density: the config of a family, of the library or of a user."""

    def build(self, rngs: nnx.Rngs, /) -> Density: ...


def build(config: object, *, key: KeyLike) -> Density:
    """Builds the untrained density of a model config.

    Under ``jax.eval_shape`` or ``nnx.eval_shape`` nothing is allocated and repeated blocks stay
    stacked; otherwise they take the form that is fastest on this backend.

    Args:
      config: A family's config, such as ``GlowConfig``.
      key: Key of the initial parameters.

    Raises:
      TypeError: If ``config`` is no config of a model, or ``key`` no key.
      ValueError: If the sizes in the config contradict each other.

    Example:
      >>> import jax, likejax as lj
      >>> lj.build(lj.preset("glow/digits").model, key=jax.random.key(0)).kind
      <Kind.BOUND: 'bound'>
    """
    if not isinstance(config, _Config) or isinstance(config, type):
        advice = " (lj.preset(name).model is a config)" if isinstance(config, str) else ""
        raise TypeError(
            "expected the config of a model, such as lj.models.GlowConfig(), got "
            f"{type(config).__name__}{advice}"
        )
    # Operation by operation: the small programs are shared by all configs, while one program for
    # the whole would cost seconds for each.
    density = replace(config.build(nnx.Rngs(as_key(key))), config=config)
    abstract = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(density))
    return density if abstract else for_backend(density)

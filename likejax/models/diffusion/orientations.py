"""Augmentation that a diffusion model is told of by a flag: flips and quarter turns."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

Augmentation = Literal["none", "orientations"]
"""Whether training images are turned and flipped."""


def reoriented(
    x: Num[Array, "*event"], key: Array, augmentation: Augmentation
) -> tuple[Num[Array, "*event"], Float[Array, ""] | None]:
    """One example in a random orientation, and whether it was moved.

    Half of the images stay as they are. The others are flipped and turned at random; an image that
    is not square is only flipped, in one direction or both.

    Args:
      x: Image ``(height, width, channels)``.
      key: Key of the draw.
      augmentation: Whether there is any.

    Returns:
      The image, and 1 if it was moved, 0 if not; ``None`` without augmentation.

    References:
      Kingma et al., 2021, Variational diffusion models, arXiv:2107.00630, section 6 (CIFAR-10 with
      augmentation). Jun et al., 2020, Distribution augmentation for generative modeling.
    """
    if augmentation == "none":
        return x, None
    flips = [x[:, ::-1], x[::-1], x[::-1, ::-1]]
    turns = [each.swapaxes(0, 1) for each in (x, *flips)] if x.shape[0] == x.shape[1] else []
    moved = jnp.stack([*flips, *turns])
    moves_key, which_key = jax.random.split(key)
    is_moved = jax.random.bernoulli(moves_key)
    chosen = moved[jax.random.randint(which_key, (), 0, len(moved))]
    return jnp.where(is_moved, chosen, x), is_moved.astype(jnp.result_type(float))

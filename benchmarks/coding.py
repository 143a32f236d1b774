"""Lossless compression with an exact density, bit for bit at the stated length.

    python benchmarks/coding.py runs/pixelcnn-fashion_mnist-small --dataset fashion_mnist \\
      --data-dir DATA --count 10

A range coder writes every (sub-)pixel with the probabilities the model gives to its values after
those before it. It reads them back by running the same compiled functions on what it has read so
far; what they return at a pixel does not depend, by one bit, on the pixels that come later. Needs
``pip install -e '.[benchmarks]'``.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path

import constriction
import jax
import jax.numpy as jnp
import numpy as np

import likejax as lj
from likejax.density import integer_dtype
from likejax.distributions import LogisticMixture, logistic_mixture_log_probs


@jax.jit
def _mixture_at(
    density: lj.models.PixelCNN, x: jax.Array, pixel: jax.Array, condition: jax.Array | None
) -> LogisticMixture:
    """The distribution of one pixel of every image, ``(n, ...)``."""
    mixture = density.mixture(x, condition)
    width = x.shape[2]
    return jax.tree.map(lambda leaf: leaf[:, pixel // width, pixel % width], mixture)


@partial(jax.jit, static_argnames=("channel", "levels", "form"))
def _probabilities(
    mixture: LogisticMixture, k: jax.Array, channel: int, levels: int, form: str
) -> jax.Array:
    """Of all values of a channel given those before it in the pixels ``k``: ``(n, levels)``."""

    def of(value: jax.Array) -> jax.Array:
        return logistic_mixture_log_probs(k.at[:, channel].set(value), mixture, levels, form)[
            :, channel
        ]  # type: ignore[arg-type]

    return jnp.exp(jax.vmap(of, out_axes=1)(jnp.arange(levels)))


def _each_probability(density: lj.models.PixelCNN, x: np.ndarray, condition: np.ndarray | None):
    """Yields place and probabilities of every sub-pixel in coding order, from ``x`` before it."""
    height, width, channels = density.event_shape
    for pixel in range(height * width):
        i, j = divmod(pixel, width)
        mixture = _mixture_at(density, jnp.asarray(x), pixel, condition)
        for channel in range(channels):
            probabilities = _probabilities(
                mixture,
                jnp.asarray(x[:, i, j].astype(np.int32)),
                channel,
                density.levels,
                density.form,
            )
            yield (slice(None), i, j, channel), np.asarray(probabilities, np.float32)


_FAMILY = constriction.stream.model.Categorical(perfect=False)


def encode(
    density: lj.models.PixelCNN, x: np.ndarray, condition: np.ndarray | None = None
) -> bytes:
    """Integer images ``(n, *event_shape)`` as a string of bytes."""
    coder = constriction.stream.queue.RangeEncoder()
    for place, probabilities in _each_probability(density, x, condition):
        coder.encode(x[place].astype(np.int32), _FAMILY, probabilities)
    return coder.get_compressed().astype("<u4").tobytes()


def decode(
    density: lj.models.PixelCNN, text: bytes, n: int, condition: np.ndarray | None = None
) -> np.ndarray:
    """The ``n`` images of ``encode``, with the same density on the same kind of machine."""
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(text, "<u4").astype(np.uint32))
    x = np.zeros((n, *density.event_shape), integer_dtype(density.levels))
    for place, probabilities in _each_probability(density, x, condition):
        x[place] = coder.decode(_FAMILY, probabilities)
    return x


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("images.bin"))
    arguments = parser.parse_args()
    density = lj.restore(arguments.run)
    assert isinstance(density, lj.models.PixelCNN), (
        f"expected a PixelCNN to code with, got {type(density).__name__}"
    )
    test = lj.load(arguments.dataset, split="test", data_dir=arguments.data_dir).take(
        slice(0, arguments.count)
    )
    condition = test.labels if density.condition_shape is not None else None
    stated = float(
        -np.asarray(density.log_prob(test.examples, condition=condition), np.float64).sum()
        / math.log(2)
    )
    start = time.perf_counter()
    arguments.out.write_bytes(encode(density, test.examples, condition))
    wrote = time.perf_counter()
    back = decode(density, arguments.out.read_bytes(), len(test), condition)
    read = time.perf_counter()
    bits = 8 * arguments.out.stat().st_size
    same = "identical" if (back == test.examples).all() else "NOT identical"
    print(
        f"{len(test)} images of {test.name}: stated {stated:.0f} bits, file {bits} bits "
        f"({bits / stated - 1:+.3%}),"
    )
    print(
        f"read back {same}; {wrote - start:.1f} s to write, {read - wrote:.1f} s to read; "
        f"raw {test.examples.nbytes} B"
    )


if __name__ == "__main__":
    main()

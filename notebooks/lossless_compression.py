# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lossless compression: the log-likelihood in bytes
#
# A probability is a promise about file size: an image of probability $p$ can be written in
# $-\log_2 p$ bits, and read back without an error. This notebook keeps the promise. A PixelCNN++
# of 8x8 digits gives the probability of every pixel after those before it, a range coder writes
# the pixels with them, and the file on disk is as long as `log_prob` says. That works since
# PixelCNN++ is *exact*: with a bound or an estimate the file would be longer than the true
# $-\log_2 p$.
#
# It needs the package `constriction`, which has the range coder.

# %%
# %matplotlib inline
import lzma
import os
import tempfile
from functools import partial
from pathlib import Path

import constriction
import jax
import jax.numpy as jnp
import numpy as np

import likejax as lj
from likejax.distributions import logistic_mixture_log_probs
from likejax.ood import lossless

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

train, valid, test = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
test = test[:100] if smoke else test
place = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A model
#
# Smaller than the preset `pixelcnn/digits`, to be done in two minutes. Its bits/dim on test images
# is exact (`=`), and the error is over the test images.

# %%
config = lj.models.PixelCNNConfig(
    event_shape=(8, 8, 1),
    levels=17,
    filters=4 if smoke else 24,
    blocks=1 if smoke else 2,
    resolutions=1,
    mixtures=2 if smoke else 5,
)
experiment = lj.Experiment(
    model=config,
    optimizer=lj.Optimizer(learning_rate=2e-3),
    batch_size=64,
    steps=5 if smoke else 500,
    ema_decay=0.98,
    validate_every=100,
    log_every=100,
)
density = lj.fit(experiment, train, validation=valid, key=jax.random.key(0)).density
stated = lj.evaluate(density, test)
histogram = lj.models.PixelHistogram.fit(train)
print("PixelCNN++         ", stated)
print("per-pixel histogram", lj.evaluate(histogram, test))

# %% [markdown]
# ## Where the bits go
#
# `log_prob_map` has the nats of each pixel given those before it; they sum to `log_prob`. A flat
# ground costs next to nothing, and the pixels where a stroke begins cost most.

# %%
some = test.examples[:10]
bits = -np.asarray(density.log_prob_map(some), np.float64)[..., 0] / np.log(2)
print("sum of the maps", bits.sum().round(2), "bits; log_prob", end=" ")
print((-np.asarray(density.log_prob(some), np.float64).sum() / np.log(2)).round(2))
lj.plot.galleries({"images": some / 16, "bits of each pixel": bits})

# %% [markdown]
# ## The probabilities of all values of one pixel
#
# `density.mixture(x)` returns the mixtures of logistics of all pixels; that at a pixel depends
# only on pixels before it in the raster. The coder needs the table of the 17 probabilities of one
# pixel, for many images at once. They sum to 1, or else no code could be decoded.


# %%
@partial(jax.jit, static_argnames="levels")
def probabilities(density, x, row, column, levels):
    mixture = jax.tree.map(lambda leaf: leaf[:, row, column], density.mixture(x))

    def of(value):
        pixel = jnp.full((len(x), 1), value)
        return logistic_mixture_log_probs(pixel, mixture, levels, density.form)[:, 0]

    return jnp.exp(jax.vmap(of, out_axes=1)(jnp.arange(levels)))


table = np.asarray(probabilities(density, jnp.asarray(some), 3, 3, 17))
print("sums", table.sum(1).round(6))
names = [f"image {i}" for i in range(10)]
values = [str(value) for value in range(17)]
lj.plot.matrix(table, rows=names, columns=values, limits=(0, 1), colors="Blues")

# %% [markdown]
# ## Writing and reading
#
# The range coder takes a value and its table, pixel after pixel. To read, the same function runs
# on the pixels that have been read so far; what it returns does not depend, by one bit, on pixels
# that come later. The same compiled program has to run for both, on the same kind of machine:
# another order of float sums would change a last digit, and every pixel after it would be wrong.

# %%
MODEL = constriction.stream.model.Categorical(perfect=False)


def encode(images):
    coder = constriction.stream.queue.RangeEncoder()
    for row, column in np.ndindex(8, 8):
        table = np.asarray(probabilities(density, jnp.asarray(images), row, column, 17))
        coder.encode(images[:, row, column, 0].astype(np.int32), MODEL, table)
    return coder.get_compressed().astype("<u4").tobytes()


def decode(text, count):
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(text, "<u4").astype(np.uint32))
    images = np.zeros((count, 8, 8, 1), np.uint8)
    for row, column in np.ndindex(8, 8):
        table = np.asarray(probabilities(density, jnp.asarray(images), row, column, 17))
        images[:, row, column, 0] = coder.decode(MODEL, table)
    return images


images = test.examples
path = place / "digits.bin"
path.write_bytes(encode(images))
back = decode(path.read_bytes(), len(images))
assert (back == images).all()
on_disk = 8 * path.stat().st_size
promised = -stated.log_prob.sum() / np.log(2)
print(f"{len(images)} images: {on_disk} bits on disk, log_prob says {promised:.0f}")
print(f"longer by {on_disk / promised - 1:+.3%}; read back identical")
assert abs(on_disk / promised - 1) < 0.01

# %% [markdown]
# What is left over is the end of the stream, which is a multiple of 32 bits, and the rounding of
# probabilities to the coder's 24 bits. Neither is a sampling error: this is the code length of
# just these images.
#
# ## Against other codes
#
# In bits for each pixel. $\log_2 17$ is what a list of raw values needs. LZMA knows nothing of
# digits, and one image of 64 pixels is too short for it to learn from, so it gets the whole set as
# one file as well. The code of single images is the one whose length the score `InputComplexity`
# takes for the complexity of an image.

# %%
pixels = images.size
single = sum(8 * len(lossless.encode(image)) for image in images)
together = 8 * len(lzma.compress(images.tobytes(), preset=9 | lzma.PRESET_EXTREME))
rows = {
    "raw values": np.log2(17),
    "each image by itself": single / pixels,
    "LZMA, all as one file": together / pixels,
    "per-pixel histogram": lj.evaluate(histogram, test).bits_per_dim,
    "PixelCNN++, on disk": on_disk / pixels,
}
for name, value in rows.items():
    print(f"{name:24} {value:.3f} bits for each pixel")

# %% [markdown]
# ## Other images in the code of digits
#
# The same functions write any other images of this shape without loss, at the length that the
# model gives them. An OOD score by likelihood asks just this: is the file longer than usual? The
# weak point of the question is in the last row. An empty page is simple, so its file can be
# shorter than that of any digit, although no digit is empty.

# %%
count = 10 if smoke else 100
photographs = lj.load("photographs+gray+resize:8x8+levels:17", split="test")
others = {
    "digits": images[:count],
    "photographs": photographs.examples[:count],
    "empty pages": np.zeros((count, 8, 8, 1), np.uint8),
}
for name, each in others.items():
    text = encode(each)
    assert (decode(text, len(each)) == each).all()
    nats = np.asarray(density.log_prob(each), np.float64)
    bits = -nats / 64 / np.log(2)
    print(
        f"{name:12} {8 * len(text) / each.size:.3f} bits/pixel on disk; log_prob: mean "
        f"{bits.mean():.3f}, {bits.min():.3f} to {bits.max():.3f}"
    )

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
# # What a bits/dim is
#
# Image models are compared by *bits per dimension*: the mean of $-\log_2 p(x)$ over test images,
# divided by the number $D$ of values in an image. Lower is better. This notebook takes the number
# apart: what makes it finite, when it is a bound, how sure it is, and why two papers with "the
# same" data print numbers that do not compare. No download is needed; the images are 8x8 digits
# with 17 gray levels, so that $D = 64$.

# %%
# %matplotlib inline
import os

import jax
import numpy as np

import likejax as lj
from likejax.density import combine_draws

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

train, valid, test = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
test

# %% [markdown]
# ## The two ends of the scale
#
# A density that knows only that there are 17 levels needs $\log_2 17 = 4.0875$ bits for each
# pixel, whatever the image. A table of how often each pixel has each level needs fewer, and it is
# a yardstick: a model that does not beat it has learned nothing about how pixels belong together.
#
# `log_prob` is in nats, summed over the image, so by hand the number is $-\text{mean} / (64 \ln
# 2)$. `lj.evaluate` prints it with its kind (`=` for exact, `<=` for an upper bound on the bits,
# `~` for an estimate) and its standard error.

# %%
uniform = lj.models.Dequantized(lj.models.Uniform(test.event_shape), levels=17)
histogram = lj.models.PixelHistogram.fit(train)
print("uniform  ", lj.evaluate(uniform, test, key=jax.random.key(0)))
print("histogram", lj.evaluate(histogram, test))
nats = np.asarray(histogram.log_prob(test.examples), np.float64)
print("histogram, by hand", -nats.mean() / (64 * np.log(2)))

# %% [markdown]
# ## Why noise is added: dequantization
#
# A flow or a Gaussian is a density of real numbers, and images are integers. Fitted to the bare
# integers such a density can be made as high as one likes: some pixels at the rim of a digit are
# always 0, and a spike at 0 costs nothing. Below, a Gaussian is fitted to the integers taken as
# real numbers, with a ridge that keeps its spikes from being infinitely thin. With every tenfold
# thinner ridge the mean over the training images "improves", in the end by the same amount each
# time: that of the pixels which never change. That is no knowledge about digits, and it has no
# end. (On test images the spikes are punished as soon as one pixel differs from 0, which makes the
# number no more meaningful.)
#
# `lj.models.Dequantized` adds uniform noise within the cell of each integer instead. What is
# averaged over a cell is a probability mass, which never exceeds 1, so the bits cannot fall below
# 0.

# %%
ridges = [10.0**-k for k in range(1, 8)]
as_reals = train.examples.reshape(len(train), 64).astype(np.float32)
spiky = []
for ridge in ridges:
    spikes = lj.models.FullGaussian.fit(as_reals, ridge=ridge)
    spiky.append(-lj.evaluate(spikes, as_reals).mean / (64 * np.log(2)))
gaussian = lj.models.FullGaussian.fit(train)  # integers: with noise in their cells
proper = lj.evaluate(gaussian, train, key=jax.random.key(1), draws=4)
print("with dequantization:", proper)
thinness = -np.log10(ridges)
lj.plot.curves(
    {
        "bare integers": (thinness, spiky),
        "dequantized": (thinness, [proper.bits_per_dim] * len(ridges)),
    },
    x_label="-log10 of the ridge: thinner spikes to the right",
    y_label='"bits/dim" of training images',
)

# %% [markdown]
# ## A bound, and what draws do to it
#
# One draw of noise gives one number $\ell(x)$, and $E[\exp \ell(x)] = p(x)$ exactly. The log of an
# average lies above the average of logs (Jensen), so one draw gives a *lower bound* of $\log p(x)$
# on average: an upper bound of the bits. Averaging $S$ draws before the logarithm tightens it, and
# the numbers fall with $S$ (Burda et al., 2016). The model does not change; only what is printed
# does.
#
# Here a Glow is trained for about a minute, and 64 draws are made of each image, in groups of $S$.
# Each group of $2S$ is two groups of $S$, so the curve falls for certain, not only on average.

# %%
experiment = lj.preset("glow/digits")
if smoke:
    experiment = experiment.override({"steps": 4, "model.depth": 1, "model.width": 8})
run = lj.fit(experiment, train, validation=valid, key=jax.random.key(2))
glow = run.density
run

# %%
total = 8 if smoke else 64
some = test.examples[:100]
draws = np.asarray(glow.log_prob_draws(some, key=jax.random.key(3), draws=total), np.float64)
sizes, bits = [2**k for k in range(total.bit_length())], []
for size in sizes:
    groups = [combine_draws(draws[i : i + size], glow.kind) for i in range(0, total, size)]
    bits.append(lj.bits_per_dim(np.mean(groups), test.event_shape))
assert (np.diff(bits) <= 1e-9).all()
print("1 draw", round(bits[0], 4), f"and {total} draws", round(bits[-1], 4), "bits/dim")
lj.plot.curves({"Glow, 100 images": (sizes, bits)}, x_label="draws S", y_label="bits/dim <=")

# %% [markdown]
# ## Exact, bound or estimate
#
# `kind` is computed from what a density is made of. Compare numbers of one kind, with the same
# number of draws; across kinds a bound may only be *said* to be at most so good.
#
# * exact: every value is $\log p(x)$. No key, no draws.
# * bound: draws are importance weights; more draws tighten it. A VAE's number with 1 draw and its
#   number with 500 are two numbers.
# * estimate: a random number whose mean is at most $\log p(x)$. The log of the mean of its
#   exponentials would mean nothing, so draws are averaged plainly: they make it steadier, not
#   tighter.

# %%
shape = {"event_shape": (8, 8, 1), "levels": 17}
pixels = lj.models.PixelCNNConfig(**shape, filters=4, blocks=1, resolutions=1, mixtures=2)
diffusion = lj.models.VDMConfig(**shape, width=8, blocks=0)
families = {
    "per-pixel histogram": histogram,
    "PixelCNN++": lj.build(pixels, key=0),
    "dequantized Gaussian": gaussian,
    "Glow": glow,
    "hierarchical VAE": lj.build(lj.preset("hvae/digits").model, key=0),
    "diffusion model": lj.build(diffusion, key=0),
}
for name, density in families.items():
    print(f"{name:22} {density.kind.value}")

# %% [markdown]
# ## How sure the number is
#
# The standard error says how much the mean would move with another test set of the same size and
# other draws. `monte_carlo_error` is the part that the draws alone make. Neither says anything
# about a second training with another seed: for that, train twice.
#
# Images differ a lot: the histograms below are wide. Two models see the same images, and what
# makes an image easy or hard for both cancels in their difference. `lj.compare` pairs the images,
# and its error is the one to use for "A is better than B".

# %%
found = lj.evaluate(glow, test, key=jax.random.key(4), draws=8)
yardstick = lj.evaluate(histogram, test)
gauss = lj.evaluate(gaussian, test, key=jax.random.key(4), draws=8)
print("Glow     ", found)
print("Gaussian ", gauss)
unpaired = np.hypot(found.standard_error, gauss.standard_error)
print(f"draws alone: {found.monte_carlo_error:.3f} of {found.standard_error:.3f} nats of error")
print("Glow - Gaussian:", lj.compare(found, gauss))
print(f"its error, had the images not been paired: {unpaired:.4f} nats")
each = {"Glow": found, "Gaussian": gauss, "histogram": yardstick}
panel = {name: np.asarray(lj.bits_per_dim(e.log_prob, e.event_shape)) for name, e in each.items()}
lj.plot.histograms({"bits/dim of each test image": panel}, bins=30)

# %% [markdown]
# ## Why the numbers of two papers differ: the data
#
# The same photographs, made small in two ways, are two datasets. Averaging over boxes smooths, and
# smooth images are cheap; taking every fourth pixel keeps the edges, and edges are dear. ImageNet
# 32x32 exists in two versions that differ in just this way, and a table that mixes them ranks the
# resizers. likejax writes each step into the name of the dataset, and reports print it.

# %%
results = {}
for how in ("box", "nearest"):
    parts = [
        lj.data.resize(lj.load("photographs+gray", split=split), 8, 8, filter=how)
        for split in ("train", "test")
    ]
    model = lj.models.FullGaussian.fit(parts[0])
    results[how] = lj.evaluate(model, parts[1], key=jax.random.key(5), draws=16)
    print(f"{how:8}", results[how])
photographs = lj.load("photographs+gray", split="test")[::45]
small = [lj.data.resize(photographs, 8, 8, filter=how).examples for how in ("box", "nearest")]
lj.plot.sheet(np.concatenate(small), columns=8, title="above: box; below: nearest")

# %% [markdown]
# ## Why the numbers of two papers differ: the levels
#
# Fewer gray levels mean less to say about each pixel. CelebA-HQ with 5 bits has 32 levels, and
# binarized MNIST 2; their bits/dim do not compare with those of 8 bits. The number of levels that
# a uniform guess would need, $\log_2(\text{levels})$, belongs beside every such number.

# %%
photographs = [lj.load("photographs+gray+resize:8x8", split=split) for split in ("train", "test")]
for levels in (256, 32, 8, 2):
    reduced = [part.reduce_levels(levels) if levels < 256 else part for part in photographs]
    model = lj.models.FullGaussian.fit(reduced[0])
    print(
        f"{levels:4} levels, uniform {np.log2(levels):.0f}:",
        lj.evaluate(model, reduced[1], key=jax.random.key(6), draws=16),
    )

# %% [markdown]
# ## Why the numbers of two papers differ: the arithmetic
#
# Scaling pixels to the unit interval moves every log-density by $D \ln(\text{levels})$: exactly
# $\log_2 256 = 8$ bits/dim for photographs. It has to be added once, by someone. In likejax
# `Dequantized` is its only owner. Below, the log-density of the scaled pixels is taken out of the
# wrapper: read as bits/dim it is too low by $\log_2$ of the levels, and can even be negative.

# %%
photo_train, photo_test = photographs
model = lj.models.FullGaussian.fit(photo_train)
noise = np.random.default_rng(0).uniform(size=photo_test.examples.shape)
scaled = ((photo_test.examples + noise) / 256).astype(np.float32)
forgotten = lj.bits_per_dim(lj.evaluate(model.density, scaled).mean, (8, 8, 1))
right = lj.evaluate(model, photo_test, key=jax.random.key(7))
print("right:               ", right)
print(f"log 256 was forgotten: {forgotten:.4f}, {right.bits_per_dim - forgotten:.3f} too low")

# %% [markdown]
# ## What to write beside a bits/dim
#
# The dataset with its version, resizing and levels; the part and the number of images; the kind;
# the draws; the standard error and what it is over; and how many trainings there were. `str` of an
# evaluation has all but the last, and `to_dict()` has them for a record.

# %%
found.to_dict()

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
# # First steps: a Glow, its likelihoods, and the paradox
#
# A flow is trained on handwritten digits in about a minute on two cores, evaluated in bits per dimension, sampled, and
# then asked about images that are no digits. No download is needed.

# %%
# %matplotlib inline
import dataclasses

import jax
import numpy as np

import likejax as lj
from likejax import plot

train, valid, test = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
train

# %% [markdown]
# A preset is a frozen record. Anything in it can be replaced; here fewer steps than the preset's.

# %%
experiment = dataclasses.replace(lj.preset("glow/digits"), steps=300)
run = lj.fit(experiment, train, validation=valid, key=jax.random.key(0))
density = run.density
run.best_step, round(run.validation, 3)

# %% [markdown]
# `log_prob` gives the log-probability mass of integer images in nats. This density dequantises, so each value is a
# bound, and needs a key; more draws tighten it.

# %%
density.kind, density.log_prob(test.examples[:4], key=1), density.log_prob(test.examples[:4], key=1, draws=16)

# %%
glow = lj.evaluate(density, test, key=2, draws=8)
histogram = lj.evaluate(lj.PixelHistogram.fit(train), test)
print("Glow      ", glow)
print("histogram ", histogram)
print("Glow - histogram:", lj.compare(glow, histogram))

# %% [markdown]
# Samples, and an interpolation between two test images through all latents.

# %%
plot.sheet(np.asarray(density.sample(3, 32)), levels=17, columns=16)

# %%
latents = density.encode(test.examples[:2], key=4)
weights = np.linspace(0, 1, 16)
path = jax.tree.map(lambda z: np.stack([(1 - w) * z[0] + w * z[1] for w in weights]), latents)
plot.sheet(np.asarray(density.decode(path)), levels=17, columns=16)

# %% [markdown]
# A model may give images it has never seen a *higher* likelihood than its own data: a blank page scores far fewer bits
# than any digit, although the model never draws one. Likelihood alone is no test for out-of-distribution inputs.

# %%
blank = lj.Dataset.from_array(np.zeros((200, 8, 8), np.uint8), levels=17, name="blank")
noise = lj.Dataset.from_array(
    np.random.default_rng(0).integers(0, 17, (200, 8, 8)).astype(np.uint8), levels=17, name="noise"
)
for data in (test, test.invert(), blank, noise):
    result = lj.evaluate(density, data, key=5)
    print(f"{data.name:8} {data.provenance[-1]:12.12} {result}")

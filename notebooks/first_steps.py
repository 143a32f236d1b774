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
# A flow is trained on handwritten digits in about a minute on two cores, evaluated in bits per
# dimension, sampled, and then asked about images that are not digits. No download is needed.

# %%
# %matplotlib inline
import dataclasses
import os

import jax
import numpy as np

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

train, valid, test = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
selecting, held_out = lj.data.hold_out(
    valid
)  # rows that choose the weights, and rows that calibrate scores
train

# %% [markdown]
# A preset is a frozen record. Anything in it can be replaced; here fewer steps than the preset's.
# The loss of a run is in its history, and `run.plot()` draws it: training batches with the raw
# weights, validation with their moving average, which needs some steps to forget the start.

# %%
experiment = dataclasses.replace(lj.preset("glow/digits"), steps=300)
if smoke:
    experiment = experiment.override({"steps": 4, "model.depth": 1, "model.width": 8})
run = lj.fit(experiment, train, validation=selecting, key=jax.random.key(0))
density = run.density
run.plot()

# %% [markdown]
# `log_prob` gives the log-probability mass of integer images in nats. This density dequantizes, so
# each value is a bound, and needs a key; more draws tighten it on average.

# %%
(
    density.kind,
    density.log_prob(test.examples[:4], key=jax.random.key(1)),
    density.log_prob(test.examples[:4], key=jax.random.key(1), draws=16),
)

# %%
glow = lj.evaluate(density, test, key=jax.random.key(2), draws=8)
histogram = lj.evaluate(lj.models.PixelHistogram.fit(train), test)
print("Glow      ", glow)
print("histogram ", histogram)
print("Glow - histogram:", lj.compare(glow, histogram))

# %% [markdown]
# Samples, and interpolations between pairs of test images through all latents.

# %%
lj.plot.samples(density, key=3, n=32, columns=16)

# %%
lj.plot.interpolation(density, test.examples[:2], test.examples[2:4], key=4, steps=16)

# %% [markdown]
# Does the model know what it does not know? OOD scores build on `log_prob`; each is fitted and
# calibrated on held-out digits that did not choose the weights, and the report says how sure its
# numbers are. On these small images the likelihood itself is a good score, and the length of a
# lossless code alone points the wrong way: outside images are simpler. On larger images likelihoods
# fail in that very way (see the README's table of Fashion-MNIST), which the other scores mend or do
# not.

# %%
blank = lj.Dataset.from_array(np.zeros((200, 8, 8), np.uint8), levels=17, name="blank pages")
patches = lj.load("photographs+gray+resize:8x8+levels:17", split="test")
turned = dataclasses.replace(test.transpose(), name="digits transposed")
report = lj.ood.benchmark(
    density,
    inside=test,
    outside=[patches, turned, blank],
    scores=[
        lj.ood.NegativeLogProb(),
        lj.ood.Typicality(),
        lj.ood.InputComplexity(),
        lj.ood.ComplexityOnly(),
    ],  # lj.ood.standard(density) makes all that apply
    held_out=held_out,
    selected_on=selecting,
    train=train,
    key=jax.random.key(5),
    resamples=20 if smoke else 1_000,
)
print(report.auroc_table())

# %%
report.plot()["histograms"]

# %% [markdown]
# A calibrated score gives p-values with a guarantee: of new digits at most a share `alpha` has a
# p-value up to `alpha`.

# %%
fit_rows, calibration_rows = held_out.take(slice(0, 45)), held_out.take(slice(45, None))
score = lj.ood.Typicality().fit(density, fit_rows, key=jax.random.key(6))
score = score.calibrate(calibration_rows, key=jax.random.key(7))
digits = score.p_value(test.examples[:200], key=jax.random.key(8))
photographs = score.p_value(patches.examples[:200], key=jax.random.key(8))
print(f"p <= 0.05: {np.mean(digits <= 0.05):.3f} of digits")
print(f"p <= 0.05: {np.mean(photographs <= 0.05):.3f} of photographs")

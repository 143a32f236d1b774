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
# # When likelihood fails, and what repairs it
#
# "Is this image of the kind the model knows?" The obvious answer is the likelihood: improbable
# images are from elsewhere. It fails in a regular way. Images that are *simpler* than those of the
# training are cheap to describe, so models give them a high likelihood, although no such image was
# ever seen (Nalisnick et al., 2019; Serrà et al., 2020). The known example is Fashion-MNIST
# against MNIST, at the end of this notebook for whoever has their files. First the same thing
# happens on 8x8 digits, in minutes and without a download: digits of which half is blank.
#
# **A higher score is more outside**, outside is the positive class, and an AUROC of 0.5 is chance.
# Below 0.5 a score is worse than none: it calls the strangers more normal than the natives.

# %%
# %matplotlib inline
import os

import jax
import numpy as np
from IPython.display import display

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

train, valid, test = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
selecting, held_out = lj.data.hold_out(valid)  # to choose weights; to fit and calibrate scores
test = test[:90] if smoke else test
inside, others = test[::2], test[1::2]
left, upper = np.arange(8)[None, :, None] < 4, np.arange(8)[:, None, None] < 4
outside = {
    "left halves": lj.Dataset.from_array(others.examples * left.astype(np.uint8), levels=17),
    "upper halves": lj.Dataset.from_array(others.examples * upper.astype(np.uint8), levels=17),
    "photographs": lj.load("photographs+gray+resize:8x8+levels:17", split="test"),
}
if smoke:
    outside["photographs"] = outside["photographs"][: len(inside)]
rows = {"digits": inside, **outside}
lj.plot.galleries({name: each.examples[::17][:10] / 16 for name, each in rows.items()})

# %% [markdown]
# ## Two models
#
# A PixelCNN++, whose likelihood is exact and has a term for every pixel; and a hierarchical VAE,
# whose likelihood is a bound (8 draws), and whose upper latents carry what an image is about. A
# table about scores means little if the models are bad, so their bits/dim on test digits come
# first, with the standard error over images.

# %%
pixels = lj.Experiment(
    model=lj.models.PixelCNNConfig(
        event_shape=(8, 8, 1),
        levels=17,
        filters=4 if smoke else 24,
        blocks=1 if smoke else 2,
        resolutions=1,
        mixtures=2 if smoke else 5,
    ),
    optimizer=lj.Optimizer(learning_rate=2e-3),
    batch_size=64,
    steps=3 if smoke else 500,
    ema_decay=0.98,
    validate_every=100,
    log_every=250,
)
hierarchy = lj.preset("hvae/digits")
if smoke:
    stages = [lj.models.StageConfig(channels=(4,), strides=(2,), latent=2, dense=False)]
    stages += [lj.models.StageConfig(channels=(4,), strides=(1,), latent=2)]
    hierarchy = hierarchy.override({"steps": 3, "model.stages": tuple(stages)})
pixelcnn = lj.fit(pixels, train, validation=selecting, key=0).density
vae = lj.fit(hierarchy, train, validation=selecting, key=1).density
histogram = lj.models.PixelHistogram.fit(train)
print("PixelCNN++      ", lj.evaluate(pixelcnn, test))
print("hierarchical VAE", lj.evaluate(vae, test, key=2, draws=8))
print("histogram       ", lj.evaluate(histogram, test))

# %% [markdown]
# ## Raw likelihood
#
# The histograms show bits/dim under the PixelCNN++, exact for each image. Patches of photographs
# lie to the right of the digits, as hoped, but for those that are blank. Halves of digits lie to
# the *left*: half of their pixels are blank, and blank is cheap.

# %%
bits = {
    name: np.asarray(lj.bits_per_dim(lj.evaluate(pixelcnn, each).log_prob, (8, 8, 1)))
    for name, each in rows.items()
}
lj.plot.histograms({"bits/dim under the PixelCNN++": bits}, bins=40)

# %% [markdown]
# ## Repairs, from raw to better
#
# * `Typicality` asks whether $\log p$ is unusual in *either* direction.
# * `LikelihoodRatio` compares with a background density that knows only the pixels' frequencies.
#   What makes an image cheap for both cancels.
# * `InputComplexity` takes off the length of a lossless code: simple images are cheap to every
#   code, and only what the model knows beyond that counts.
# * `ComplexityOnly` and `MeanIntensity` know no model. The first shows that the halves *are*
#   simpler; the second that brightness alone would do, here: a score has to be judged against such
#   baselines.
#
# Brackets: DeLong's 95 % interval over images, for this one training.

# %%
of_pixels = [
    lj.ood.NegativeLogProb(),
    lj.ood.Typicality(),
    lj.ood.LikelihoodRatio(histogram),
    lj.ood.InputComplexity(),
    lj.ood.ComplexityOnly(),
    lj.ood.MeanIntensity(),
]
of_levels = [
    lj.ood.NegativeLogProb(draws=8),
    lj.ood.HierarchyRatio(k=1, draws=8),
    lj.ood.InputComplexity(draws=8),
]
common = {"inside": inside, "outside": outside, "held_out": held_out, "selected_on": selecting}
common |= {"train": train, "resamples": 0 if smoke else 500}
report = lj.ood.benchmark(pixelcnn, scores=of_pixels, key=jax.random.key(3), **common)
levels = lj.ood.benchmark(vae, scores=of_levels, key=jax.random.key(4), **common)
print("PixelCNN++, exact\n" + report.auroc_table())
print("\nhierarchical VAE, bounds of 8 draws\n" + levels.auroc_table())

# %% [markdown]
# Every repair lifts the halves above 0.5, and some of them pay for it: typicality and the ratio
# lose on photographs against the raw likelihood. Brightness alone is nearly perfect, which no table
# of a paper may hide. Never choose a score by the outside set that you then report; on larger
# images, other repairs break on other sets.

# %%
report.plot()["histograms"]

# %% [markdown]
# ## Why the hierarchy helps: reconstructions by level
#
# The VAE draws an image again from all of its latents (level 0), or from the upper latents only,
# with the lower ones at their means given the upper (level 1), or from nothing (level 2, the same
# picture for all). The first four images are digits, the others left halves. The upper latents know
# digits. For half a digit the lower latents still repeat the half, which is why
# the likelihood is high; from the upper ones alone comes something that is more of a digit, and
# unlike the image. `HierarchyRatio` is the price of that difference in nats.

# %%
shown = np.concatenate([inside.examples[:4], outside["left halves"].examples[:4]])
lj.plot.reconstructions(vae, shown, key=5)

# %% [markdown]
# ## Where an image is unusual: maps per pixel
#
# Under an exact autoregressive model a score is a sum over pixels, and `score_map` has its terms.
# Raw: the nats of each pixel; the blank half is dark, which is where the high likelihood comes
# from. Ratio to the histogram: what the neighbors say beyond the frequencies; bright pixels are
# worse explained by the PixelCNN++ than by the histogram.

# %%
raw = lj.ood.NegativeLogProb().fit(pixelcnn, held_out)
ratio = lj.ood.LikelihoodRatio(histogram).fit(pixelcnn, held_out)
lj.plot.galleries(
    {
        "four digits, four left halves": shown / 16,
        "-log p of each pixel, nats": raw.score_map(shown)[..., 0],
        "ratio to the histogram, nats": ratio.score_map(shown)[..., 0],
    }
)

# %% [markdown]
# ## The landscape around one image
#
# A slice of $\log p$ through three images: a digit in the center, its left half to the right, and
# another digit above. Points between them are rounded to levels, so every value is an exact mass.
# The white line joins images as probable as the digit: a digit need not stand on a summit, and its
# half can stand higher. Values more than 150 nats below the center share a color.
#
# The *flatness* is the mean of $|\log p(x + \delta) - \log p(x)|$ in nats over the circle of a
# radius $r$ in the slice; 0 is flat. Through random directions, at $r = 8$, where each of the 64
# pixels moves by about one level, it says how sharp the surroundings of an image are.

# %%
center, another = inside.examples[0], inside.examples[7]
half = center * left
toward = [half - center.astype(float), another - center.astype(float)]
grid = 5 if smoke else 49
landscape = lj.ood.landscape(pixelcnn, center, radius=60.0, directions=toward, points=grid)
for name, each in rows.items():
    some = each.examples[:: len(each) // 8][:8]
    flat = [lj.ood.landscape(pixelcnn, x, radius=8.0, points=2, key=6).flatness for x in some]
    print(f"{name:12} flatness at r = 8: mean {np.mean(flat):5.1f} nats of 8 images")
landscape.plot(lowest=-150.0, marks={"left half": half, "another digit": another})

# %% [markdown]
# ## One image, one decision
#
# A score by itself decides nothing. It is fitted on some held-out digits and calibrated with
# others; then one image has a p-value, and of new digits at most a share `a` has a p-value up to
# `a`, on average over calibration sets. With $m$ calibration rows the smallest p-value is $1 / (m
# + 1)$: more rows, finer decisions.

# %%
score = lj.ood.InputComplexity().fit(pixelcnn, held_out[:45]).calibrate(held_out[45:])
limit = score.threshold(fpr=0.05)
digit = inside.examples[3]
for name, image in {"a digit": digit, "its left half": digit * left}.items():
    value, p = score(image[None])[0], score.p_value(image[None])[0]
    verdict = "outside" if value > limit else "inside"
    print(f"{name:14} score {value:+.3f}, threshold {limit:+.3f}, p = {p:.3f}: {verdict}")
print(f"p <= 0.05: {np.mean(score.p_value(inside.examples) <= 0.05):.3f} of test digits")
for name, each in outside.items():
    print(f"p <= 0.05: {np.mean(score.p_value(each.examples) <= 0.05):.3f} of {name}")

# %% [markdown]
# ## The known example: Fashion-MNIST against MNIST
#
# Densities of Fashion-MNIST ship with the package; the images do not. With `LIKEJAX_DATA` naming a
# folder that holds `fashion_mnist` and `mnist` (see the page on data), the rest of this notebook
# repeats the story on them: raw likelihood calls digits more normal than garments, and here the
# repairs that look at *several* parts of a likelihood at once go furthest. Garments turned upside
# down stay hard for all.

# %%
known = {}
if os.environ.get("LIKEJAX_DATA"):
    count, fitted = (16, 32) if smoke else (512, 512)  # half of the latter calibrate
    garments, digits = (lj.load(name, split="test") for name in ("fashion_mnist", "mnist"))
    flipped = lj.load("fashion_mnist+vflip", split="test")
    known = {"MNIST": digits[:count], "garments upside down": flipped[count : 2 * count]}
    _, garments_held_out = lj.data.hold_out(lj.load("fashion_mnist", split="validation"))
    scores = [
        lj.ood.NegativeLogProb(),
        lj.ood.Typicality(),
        lj.ood.InputComplexity(),
        lj.ood.DensityOfStates(),
    ][: 1 if smoke else None]
presets = ["hvae/fashion_mnist-small", "pixelcnn/fashion_mnist-small"][: 1 if smoke else None]
for preset in presets if known else []:
    seen = lj.preset(preset).as_evaluated  # the VAE is one of black and white pixels
    report = lj.ood.benchmark(
        lj.pretrained(preset),
        inside=seen(garments[:count]),
        outside={name: seen(each) for name, each in known.items()},
        scores=[*scores, lj.ood.HierarchyRatio(k=2)] if preset.startswith("hvae") else scores,
        held_out=seen(garments_held_out[:fitted]),
        key=jax.random.key(7),
        resamples=0 if smoke else 500,
    )
    print(preset + "\n" + report.auroc_table() + "\n")

# %% [markdown]
# Garments and digits again from the upper latents alone: digits come back as garments.

# %%
if known:
    seen = lj.preset("hvae/fashion_mnist-small").as_evaluated
    eight = np.concatenate([seen(garments[:4]).examples, seen(digits[:4]).examples])
    display(lj.plot.reconstructions(lj.pretrained("hvae/fashion_mnist-small"), eight, key=8))

# %% [markdown]
# Nats of each pixel under the PixelCNN++: the black surroundings of a digit cost nothing.

# %%
if known:
    eight = np.concatenate([garments.examples[:4], digits.examples[:4]])
    pixelcnn = lj.pretrained("pixelcnn/fashion_mnist-small")
    nats = -np.asarray(pixelcnn.log_prob_map(eight))[..., 0]
    display(lj.plot.galleries({"garments and digits": eight / 255, "-log p, nats": nats}))

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
# # An OOD table for a paper
#
# Which scores tell digits from other images, by how much, and would the answer be the same after
# another training? This notebook makes what a paper needs: one model trained several times, scores
# fitted and calibrated on rows of their own, two outside sets, intervals, paired tests, the spread
# between trainings, and the table in LaTeX.
#
# Everywhere: *inside* are new images of the kind the model was trained on, *outside* is anything
# else, outside is the positive class, and **a higher score means more outside**.

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path

import jax

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

train, valid, test = (lj.load("digits", split=split) for split in ("train", "validation", "test"))
selecting, held_out = lj.data.hold_out(valid)
place = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Which rows do what
#
# Four parts that share no row: one trains the weights, one chooses the best step, one fits and
# calibrates the scores, and one is tested. A threshold from rows that chose the weights would be
# too low, because the weights suit these rows. `benchmark` prints the parts and refuses overlap.
#
# Two outside sets: digits turned over (near: the same ink, another order) and patches of
# photographs (far). Both have the representation of the digits, 8x8 pixels of 17 levels, and every
# step that was done to them is noted. Half of the test digits are inside, and the other half are
# turned over: if the same images were on both sides, the intervals, which take the two sets as
# independent, would be wrong.

# %%
test = test[:90] if smoke else test
inside, others = test[::2], test[1::2]
near = others.vflip()
far = lj.load("photographs+gray+resize:8x8+levels:17", split="test")
far = far[: len(inside)] if smoke else far
print("train", len(train), "select", len(selecting), "scores", len(held_out), "test", len(inside))
rows = {"digits": inside, "turned over": near, "photographs": far}
lj.plot.galleries({name: each.examples[::17][:10] / 16 for name, each in rows.items()})

# %% [markdown]
# ## Several trainings
#
# The same experiment with different seeds: other initial weights, another order of the rows, other
# noise. Three are the least that give a spread. The test bits/dim of the trainings come first, as
# a table about scores says nothing if the models are bad. They are bounds of 8 draws; their errors
# are over images and shared by the trainings, so look at the paired difference for what the seed
# does.

# %%
trainings = 2 if smoke else 3
experiment = lj.preset("glow/digits").override({"steps": 200})
if smoke:
    experiment = experiment.override({"steps": 3, "model.depth": 1, "model.width": 8})
densities = []
for seed in range(trainings):
    run = lj.fit(experiment, train, validation=selecting, key=jax.random.key(seed))
    densities.append(run.density)
numbers = [lj.evaluate(each, test, key=jax.random.key(9), draws=8) for each in densities]
for seed, number in enumerate(numbers):
    print(f"seed {seed}:", number)
print("seed 0 - seed 1:", lj.compare(numbers[0], numbers[1]))

# %% [markdown]
# ## The scores
#
# * `NegativeLogProb`: unlikely is outside. It fails where outside images are simpler than inside
#   ones.
# * `Typicality`: the distance of $\log p$ from its usual value, in both directions.
# * `InputComplexity`: $-\log p$ minus the length of a lossless code of the image.
# * `ComplexityOnly`, `MeanIntensity` and `Contrast` look at no density. A score that does not beat
#   them has found smoothness, brightness or contrast, and nothing that the model has learned.
#
# `benchmark` takes the list of trainings. For every training it fits the scores on one half of the
# held-out rows, calibrates them with the other, and scores every image once, with the same draws.

# %%
scores = [
    lj.ood.NegativeLogProb(draws=4),
    lj.ood.Typicality(draws=4),
    lj.ood.InputComplexity(draws=4),
    lj.ood.ComplexityOnly(),
    lj.ood.MeanIntensity(),
    lj.ood.Contrast(),
]
report = lj.ood.benchmark(
    densities,
    inside=inside,
    outside={"turned over": near, "photographs": far},
    scores=scores,
    held_out=held_out,
    selected_on=selecting,
    train=train,
    key=jax.random.key(10),
    resamples=20 if smoke else 1_000,
)
print(report.auroc_table())

# %% [markdown]
# Each cell begins with the mean and, behind `±`, the standard deviation over the trainings; then
# come the number of the *first* training and DeLong's 95 % interval over its images. They answer
# two questions: would another training give another number, and would other images of the same
# kind? Where the first is larger than the second, a table of one training would be luck. Scores
# without a density are the same in all trainings, and have no spread.

# %%
report

# %% [markdown]
# ## Is A better than B? Paired tests
#
# Two scores see the same images, so their errors go together, and overlapping intervals say
# little. The difference of two AUROCs with DeLong's paired interval is what decides: it excludes
# 0, or the order of the two is not known. It holds for one training; below it is printed for each
# of them, and a claim for a paper should hold in all.

# %%
labels = [score.label for score in scores]
likelihood = labels[0]
for outside in ("turned over", "photographs"):
    print(outside)
    for other in labels[1:4]:
        each = (report, *report.trainings)
        differences = [str(one.difference(other, likelihood, outside)) for one in each]
        print(f"  {other} - {likelihood}:", "; ".join(differences))

# %% [markdown]
# ## Other metrics, with the same care
#
# AUROC is an average over thresholds. `fpr95` is the share of inside images that are flagged when
# 95 % of the outside ones are caught; `spread` has its mean and standard deviation over the
# trainings.

# %%
print("metrics:", ", ".join(lj.ood.METRICS))
for name in lj.ood.METRICS:
    found = report.metric(likelihood, "photographs", name)
    print(f"{name:18} {found}; over trainings {report.spread(likelihood, 'photographs', name)}")

# %% [markdown]
# ## Thresholds that hold
#
# A threshold is chosen on held-out inside images for a false-positive rate of 5 %; outside images
# are never looked at. `flagged` is the share of each set above it. For digits it should be near 5
# %, within what the small number of calibration rows allows.

# %%
for score in report.scores:
    flagged = {name: round(score.flagged(name), 3) for name in score.values}
    print(f"{score.label:36}", flagged)

# %% [markdown]
# ## Pictures and files
#
# The histograms show what an AUROC hides: on which side of the digits an outside set lies.

# %%
figures = report.plot()
print("figures:", ", ".join(figures))
figures["histograms"]

# %% [markdown]
# ## The table in LaTeX
#
# It needs the package `booktabs`. `report.write(folder)` keeps everything: the tables in Markdown
# and LaTeX, every number as JSON with the raw scores of every image, and the pictures. State with
# it what the report states: the kind and draws of the likelihoods, the number of trainings, which
# rows did what, and the conventions of the metrics.

# %%
report.write(place / "report")
print(sorted(path.name for path in (place / "report").iterdir()))
print(report.to_latex())

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
# # Your own data
#
# Three ways in: an array, a folder of images, and a table with columns of several kinds. A dataset
# is a frozen array of *raw* values. Nothing is scaled beforehand and no noise is added; that is
# part of the density, so that its numbers refer to your data as they are. What cannot be right is
# refused with a message that says where and how to mend it.

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

rng = np.random.default_rng(0)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Arrays
#
# Floats of shape `(n, d)` are points: their log-density is in nats and depends on their units.
# Integers of shape `(n, height, width, channels)` are images: their log-probability is a mass, so
# there are bits/dim. Arrays go to `fit` and `evaluate` as they are; as a `Dataset` they carry a
# name, labels, and the number of levels, which is 256 for `uint8` unless you say otherwise.

# %%
angle = rng.uniform(0, 2 * np.pi, size=5_000)
spiral = np.stack([angle * np.cos(2 * angle), angle * np.sin(2 * angle)], axis=-1)
spiral = (spiral + 0.2 * rng.normal(size=spiral.shape)).astype(np.float32)
points = lj.Dataset.from_array(spiral, name="a spiral")
train, valid, test = lj.data.split(points, validation=0.1, test=0.2)

flow = lj.models.NSFConfig(dimensions=2, depth=4, width=64, blocks=1, bound=4.0, standardize=True)
if smoke:
    flow = lj.models.NSFConfig(dimensions=2, depth=2, width=8, blocks=1, standardize=True)
experiment = lj.Experiment(
    model=flow,
    optimizer=lj.Optimizer(learning_rate=2e-3, decay="cosine", clip_norm=5.0),
    batch_size=256,
    steps=10 if smoke else 1_500,
    validate_every=500,
    log_every=500,
)
density = lj.fit(experiment, train, validation=valid, key=0).density
gaussian = lj.models.FullGaussian.fit(train)
print("spline flow:", lj.evaluate(density, test))
print("Gaussian:   ", lj.evaluate(gaussian, test))

# %% [markdown]
# Both numbers are exact, and their error is over the test points. The second number of the flow
# refers to standardized columns, as many papers print it: the first is for your units. Multiply
# your data by 10 and the first falls by $2 \ln 10$; the second stays.

# %%
axis = np.linspace(-8, 8, 11 if smoke else 100, dtype=np.float32)
grid = np.stack(np.meshgrid(axis, axis), axis=-1)
panels = {}
for name, each in {"spline flow": density, "Gaussian": gaussian}.items():
    drawn = np.asarray(each.sample(jax.random.key(1), 2_000))
    panels[name] = {"density": np.exp(np.asarray(each.log_prob(grid))), "samples": drawn}
panels["data"] = {"density": np.histogram2d(*spiral.T[::-1], bins=60, range=[(-8, 8)] * 2)[0]}
panels["data"]["samples"] = spiral[:2_000]
lj.plot.plane(panels, side=8.0)

# %% [markdown]
# ## A folder of images
#
# Parts are folders with names such as `train` and `test`, classes are the folders below them. Here
# such a folder is written first: bright disks and bright bars on a dark ground, as PNG files.
# `lj.load` takes the name of the folder and the place where it lies. A part that is not there,
# such as `validation`, is cut from the training part, always the same rows.


# %%
def picture(kind):
    row, column = rng.integers(4, 12, size=2)
    y, x = np.mgrid[:16, :16]
    inside = np.hypot(y - row, x - column) < 4 if kind == "disk" else np.abs(x - column) < 2
    bright = np.where(inside, 180, 40) + rng.normal(scale=12, size=(16, 16))
    return Image.fromarray(bright.clip(0, 255).astype(np.uint8))


for part, count in {"train": 40 if smoke else 400, "test": 20 if smoke else 100}.items():
    for kind in ("bar", "disk"):
        place = folder / "shapes" / part / kind
        place.mkdir(parents=True)
        for number in range(count):
            picture(kind).save(place / f"{number}.png")

shapes, fresh, unseen = (
    lj.load("shapes", split=split, data_dir=folder) for split in ("train", "validation", "test")
)
print(shapes, fresh, unseen, sep="\n")
lj.plot.sheet(unseen.shuffled(0).examples[:16], levels=256, columns=8)

# %% [markdown]
# Steps may follow the name, and reports print them; `likejax datasets shapes` describes the folder
# on the command line. The PixelCNN++ below is exact, so its bits/dim have the sign `=`. The noise
# alone, a normal of standard deviation 12 rounded to integers, has an entropy of $\log_2(12
# \sqrt{2 \pi e}) = 5.63$ bits for each pixel: no model can need less on average than that, and
# what is above it is what the model does not know about the shapes. Its samples show that: a small
# model, trained for a minute, begins shapes and loses them some rows below.

# %%
pixelcnn = lj.Experiment(
    model=lj.models.PixelCNNConfig(
        event_shape=(16, 16, 1),
        filters=4 if smoke else 16,
        blocks=1,
        resolutions=1,
        mixtures=2,
    ),
    optimizer=lj.Optimizer(learning_rate=3e-3),
    batch_size=32,
    steps=3 if smoke else 400,
    ema_decay=0.98,
    validate_every=100,
    log_every=100,
)
run = lj.fit(pixelcnn, shapes, validation=fresh, key=1)
print(lj.evaluate(run.density, unseen))
print(lj.evaluate(lj.models.PixelHistogram.fit(shapes), unseen), "without neighbors")
lj.plot.samples(run.density, key=2, n=8, title="samples")

# %% [markdown]
# ## A table with columns of several kinds
#
# A table declares its columns: continuous, positive, bounded, integer or categorical. What is not
# declared follows from the type, and the dataset notes it. The example is a mapping of columns; a
# data frame, a CSV or a Parquet file goes in the same way. The homes below are simulated: prices
# rise with the size, and one city is dearer.


# %%
def homes(count):
    size = rng.gamma(6.0, 15.0, size=count) + 20.0
    rooms = 1 + rng.poisson(size / 30.0)
    city = rng.choice(["Bonn", "Rom", "Ulm"], size=count, p=[0.5, 0.2, 0.3])
    dear = np.where(city == "Rom", 1.5, 1.0)
    price = 3.0 * size * dear * np.exp(0.2 * rng.normal(size=count))
    return {"size": size, "rooms": rooms, "city": city, "price": price}


declared = {"size": "positive", "price": "positive"}
table = lj.Dataset.from_table(homes(4_000), columns=declared, name="homes")
later = [
    lj.Dataset.from_table(homes(1_000), columns=table.column_kinds, name="homes", split=split)
    for split in ("validation", "test")
]
table.column_kinds

# %% [markdown]
# `TabularConfig` puts a flow of real vectors behind the columns: it takes logarithms of positive
# columns, adds noise within the cells of integers and categories, and standardizes. The number is
# for the raw table: a density in `size` and `price`, a probability in `rooms` and `city`. Noise
# makes it a lower bound of $\log p$ in nats, tightened by draws; there are no bits/dim, since not
# all columns are integers.

# %%
depth, width = (2, 8) if smoke else (4, 64)
columns = lj.models.NSFConfig(dimensions=4, depth=depth, width=width, blocks=1)
tabular = lj.Experiment(
    model=lj.models.TabularConfig(table.column_kinds, columns),
    optimizer=lj.Optimizer(learning_rate=2e-3, decay="cosine", clip_norm=5.0),
    batch_size=256,
    steps=10 if smoke else 1_500,
    validate_every=500,
    log_every=500,
)
model = lj.fit(tabular, table, validation=later[0], key=3).density
print(lj.evaluate(model, later[1], key=4, draws=8))
drawn = lj.data.as_columns(model.sample(jax.random.key(5), 1_000), table.column_kinds)
for name, values in drawn.items():
    print(f"{name:6}", values[:6])

# %% [markdown]
# Samples come back as columns. The price of a square meter was not told to the model; its
# histogram in the samples shows what was learned of how columns belong together.

# %%
true = homes(1_000)
each = {"simulated": true["price"] / true["size"], "model": drawn["price"] / drawn["size"]}
lj.plot.histograms({"price / size": each}, bins=40)

# %% [markdown]
# ## Missing values
#
# A density of complete rows has no value for an incomplete one, so missing values are refused,
# with the column and the row. What to do is your decision, and each way answers another question:
#
# * leave the rows out: the numbers are then about complete rows only, so say how many were left
#   out;
# * make "unknown" a category, if that a value is missing says something itself;
# * leave the column out, with `columns={"price": None}`: a density of the other columns.

# %%
gaps = homes(1_000)
gaps["price"][rng.random(1_000) < 0.1] = np.nan
gaps["city"] = np.where(rng.random(1_000) < 0.1, None, gaps["city"].astype(object))
try:
    lj.Dataset.from_table(gaps, columns=declared)
except ValueError as error:
    print(error)

priced = ~np.isnan(gaps["price"])
city = [word or "unknown" for word in gaps["city"]]
complete = {name: np.array(values)[priced] for name, values in (gaps | {"city": city}).items()}
print(f"{(~priced).sum()} rows without a price left out:")
print(lj.Dataset.from_table(complete, columns=declared, name="homes with a price"))
print(lj.Dataset.from_table(gaps | {"city": city}, columns=declared | {"price": None}))

# %% [markdown]
# The same care for categories that training did not have: read the test part with the kinds of the
# training part, and a new city is refused by name instead of becoming a number.

# %%
new = {"size": [70.0], "rooms": [3], "city": ["Rio"], "price": [210.0]}
try:
    lj.Dataset.from_table(new, columns=table.column_kinds)
except ValueError as error:
    print(error)

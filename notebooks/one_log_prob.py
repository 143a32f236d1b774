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
# # One `log_prob`, many families
#
# Every model of likejax is a density with one `log_prob`, in nats of the data as they are. So
# models of quite different kinds can be compared, example by example, and with the truth where it
# is known. This notebook does both: flows of points in the plane against the exact density of
# those points, and five families of image models on handwritten digits. Most densities are trained
# already and ship with the package; one is trained here. No download is needed.

# %%
# %matplotlib inline
import dataclasses
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

# %% [markdown]
# ## Against the truth
#
# The two moons are made from points on two half circles, with Gaussian noise of standard deviation
# 0.2 in both directions. Their density is therefore an integral along the arcs,
#
# $$p(x) = \frac{1}{2\pi} \sum_{\text{arcs}} \int_0^\pi
#   \mathcal{N}\big(x;\, c(t),\, 0.2^2 I\big)\, dt,$$
#
# which a sum over many points of the arcs gives to the last digit. Written as a density of
# likejax, the truth itself is evaluated, compared and drawn like any model.


# %%
class TwoMoons(lj.Density):
    """The distribution of the dataset `moons`."""

    event_shape = (2,)
    kind = lj.Kind.EXACT

    def centers(self, angle):
        upper = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        lower = jnp.stack([1 - jnp.cos(angle), 0.5 - jnp.sin(angle)], axis=-1)
        return 2 * jnp.stack([upper, lower]) + jnp.array([-1.0, -0.2])

    def _log_prob(self, x, key, condition):
        centers = self.centers(jnp.pi * (jnp.arange(500) + 0.5) / 500).reshape(-1, 2)
        log_normals = jax.scipy.stats.norm.logpdf(x, centers, 0.2).sum(axis=-1)
        return jax.nn.logsumexp(log_normals) - jnp.log(len(centers))

    def _sample(self, key, condition, temperature):
        angle_key, arc_key, noise_key = jax.random.split(key, 3)
        centers = self.centers(jnp.pi * jax.random.uniform(angle_key))
        noise = 0.2 * temperature * jax.random.normal(noise_key, (2,))
        return centers[jax.random.randint(arc_key, (), 0, 2)] + noise


train, test = lj.load("moons"), lj.load("moons", split="test")
truth = TwoMoons()
print("truth", lj.evaluate(truth, test))

# %% [markdown]
# A neural spline flow and an autoregressive flow come with the package. A continuous flow, FFJORD,
# is trained here for a fifth of its preset's steps. A preset is a frozen record, of which anything
# can be replaced. `run.plot()` draws the curves of the run.

# %%
experiment = lj.preset("ffjord/moons")
experiment = dataclasses.replace(experiment, steps=experiment.steps // 5)
if smoke:
    experiment = experiment.override({"steps": 4, "model.hidden": (8,)})
run = lj.fit(experiment, train, validation=lj.load("moons", split="validation"), key=0)
run.plot()

# %% [markdown]
# The mean of $\log p(x) - \log q(x)$ over test points is the Kullback-Leibler divergence of a model
# $q$ from the truth $p$: the nats that the model loses, with the standard error of the mean. Both
# log-densities are taken of the same points, so the error is far smaller than that of either mean.
# A full Gaussian says what a model without any idea of the moons loses.

# %%
models = {
    "neural spline flow": lj.pretrained("nsf/moons"),
    "MAF": lj.pretrained("maf/moons"),
    "FFJORD": run.density,
    "Gaussian": lj.models.FullGaussian.fit(train),
}
points = test.take(slice(0, 100)) if smoke else test
exact = lj.evaluate(truth, points)
for name, model in models.items():
    lost = lj.compare(exact, lj.evaluate(model, points, key=jax.random.key(1)))
    print(f"{name:20} loses {lost.difference:.4f} ± {lost.standard_error:.4f} nats")

# %%
axis = np.linspace(-3.5, 3.5, 10 if smoke else 100, dtype=np.float32)
grid = np.stack(np.meshgrid(axis, axis), axis=-1)
panels = {
    name: {"": np.exp(np.asarray(model.log_prob(grid, key=jax.random.key(2)), np.float64))}
    for name, model in {"truth": truth, **models}.items()
}
lj.plot.plane(panels, side=3.5, columns=5)

# %% [markdown]
# ## Digits
#
# The same call gives the log-probability of an image. Digits are integers, so it is the log of a
# probability, never above 0, whatever a model does inside: dequantization and scaling belong to the
# density. What the number is, the density says itself: exact for PixelCNN++; a bound for
# the Glow, which adds noise, and for the hierarchical VAE; an estimate for the models that solve a
# differential equation or sum over noise levels at random. Those that draw need a key.

# %%
names = ["pixelcnn", "glow", "hvae", "ffjord", "vdm"][: 1 if smoke else None]
densities = {name: lj.pretrained(f"{name}/digits") for name in names}
digits = lj.load("digits", split="test")
digits = digits.take(slice(0, 3)) if smoke else digits
for name, density in densities.items():
    print(f"{name:10} {density.kind.value:9}", density.log_prob(digits.examples[:3], key=3))

# %% [markdown]
# In bits per dimension, on the whole test part, beside a table of how often each pixel has each
# level. `=` is exact, `<=` is a bound from above, `~` is an estimate.

# %%
evaluations = {
    name: lj.evaluate(density, digits, key=jax.random.key(4), draws=4)
    for name, density in densities.items()
}
histogram = lj.models.PixelHistogram.fit(lj.load("digits"))
evaluations["histogram"] = lj.evaluate(histogram, digits)
for name, evaluation in evaluations.items():
    print(f"{name:10}", evaluation)

# %% [markdown]
# Two models are compared on the same images. The difference is known better than either mean,
# because an image that is hard for one is hard for the other too.

# %%
for one, other in itertools.pairwise(evaluations):
    print(f"{one} - {other}:", lj.compare(evaluations[one], evaluations[other]))

# %% [markdown]
# How much they agree: correlations of the log-probabilities over the test images. Then the digits
# that the models find most and least probable, by their mean rank.

# %%
log_probs = np.stack([evaluation.log_prob for evaluation in evaluations.values()])
lj.plot.matrix(
    np.corrcoef(log_probs),
    rows=list(evaluations),
    columns=list(evaluations),
    limits=(0, 1),
    colors="Blues",
    title="correlation of log-probabilities",
)

# %%
order = np.argsort(log_probs.argsort(axis=1).mean(axis=0))
rows = {
    "most probable": digits.examples[order[::-1][:10]] / 16,
    "least probable": digits.examples[order[:10]] / 16,
}
lj.plot.galleries(rows)

# %% [markdown]
# And ten samples of each.

# %%
samples = {name: np.asarray(density.sample(5, 10)) / 16 for name, density in densities.items()}
lj.plot.galleries(samples)

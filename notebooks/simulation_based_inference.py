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
# # Simulation-based inference: a posterior for every observation
#
# A simulator turns parameters into observations, and its likelihood is unknown. A conditional
# neural spline flow learns the posterior $p(\theta \mid x)$ from simulated pairs alone; afterwards
# one call gives the posterior of any observation. Here the simulator is linear with Gaussian noise,
# so that the exact posterior is known and the flow can be checked.

# %%
# %matplotlib inline
import os

import jax
import numpy as np
from scipy import stats

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # fewer steps, enough for the check below

rng = np.random.default_rng(0)
design = np.array([[1.0, 0.5], [-0.3, 1.0], [0.8, -0.6]])  # three observations of two parameters
noise = 0.5


def simulate(n):
    theta = rng.normal(size=(n, 2))
    x = theta @ design.T + noise * rng.normal(size=(n, 3))
    return theta.astype("f4"), x.astype("f4")


def pairs(n, split):
    theta, x = simulate(n)
    return lj.Dataset.from_array(theta, conditions=x, split=split, name="simulated")


train, valid, test = (
    pairs(n, s) for n, s in ((20_000, "train"), (2_000, "validation"), (2_000, "test"))
)
train

# %% [markdown]
# The density is of the parameters; the observation is its condition.

# %%
experiment = lj.Experiment(
    model=lj.models.NSFConfig(dimensions=2, depth=2, width=32, condition_shape=(3,)),
    optimizer=lj.Optimizer(name="adam", learning_rate=1e-2, decay="cosine", clip_norm=5.0),
    batch_size=256,
    steps=250 if smoke else 1_500,
    log_every=500,
    ema_decay=0.99,
    validate_every=250,
)
posterior = lj.fit(experiment, train, validation=valid, key=jax.random.key(0)).density
found = lj.evaluate(posterior, test, key=jax.random.key(1))
print(found)

# %% [markdown]
# The exact posterior is a normal distribution. The difference of the mean log-posteriors is the
# Kullback-Leibler divergence from the exact posterior to the flow, averaged over observations.

# %%
precision = np.eye(2) + design.T @ design / noise**2
covariance = np.linalg.inv(precision)
means = test.conditions @ (covariance @ design.T / noise**2).T
exact = stats.multivariate_normal(np.zeros(2), covariance).logpdf(test.examples - means)
gap = exact.mean() - found.mean
print(f"exact {exact.mean():.3f} nats, flow {found.mean:.3f}, {gap:.3f} apart")
assert gap < 0.05

# %% [markdown]
# One observation: its condition is fixed, and what is left is an ordinary density. Its picture
# shows parameters in the square of side 5 around 0, with samples of the flow and of the exact
# posterior beside it.

# %%
observed = test.conditions[0]
of_observed = lj.condition(posterior, observed)
samples = np.asarray(of_observed.sample(jax.random.key(2), 4_000))
print("mean", samples.mean(0).round(2), "exact", means[0].round(2))
print("std ", samples.std(0).round(2), "exact", np.sqrt(np.diag(covariance)).round(2))
truth = rng.multivariate_normal(means[0], covariance, size=4_000)
pictures = {"samples": samples, "exact": truth}
lj.plot.density_2d(of_observed, side=2.5, pictures=pictures, points=10 if smoke else 100)

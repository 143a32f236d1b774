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
# # Your own pieces
#
# Whatever likejax has several of, you can add one from outside, in about twenty lines: a
# bijection, a density, an objective with your own optimizer, a score. Each then goes through the
# same calls as the built-in ones: `fit`, `save`, `restore`, `evaluate` and `ood`. The data are
# points in the plane with heavy tails, drawn from a known distribution, so that every number can
# be checked against the truth. All values are exact log-densities in nats: the kind is `EXACT`,
# and the errors printed are standard errors over the test points.

# %%
# %matplotlib inline
import dataclasses
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import likejax as lj
from likejax.settings import Count, Positive, Settings

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

rng = np.random.default_rng(0)
points = rng.standard_t(df=3, size=(6_000, 2)).astype(np.float32) * [1.0, 2.0] + [1.0, 0.0]
points = points.astype(np.float32)
train, valid, test = points[:4_000], points[4_000:5_000], points[5_000:]
tested = lj.Dataset.from_array(test, name="points", split="test")
place = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A bijection
#
# A bijection has two methods, written for *one* example: `forward` from data to latent, which also
# returns the logarithm of the Jacobian's determinant, and `inverse`. What is trained is an
# `nnx.Param`. This one makes tails heavier or lighter, with one parameter for each coordinate.
#
# Two checks catch nearly every mistake: the inverse returns to the start, and the determinant is
# that of the Jacobian that JAX computes.


# %%
class SinhArcsinh(lj.bijections.Bijection):
    """z = sinh(tail * arcsinh(x)), one tail for each coordinate."""

    def __init__(self, dimensions: int):
        self.log_tail = nnx.Param(jnp.zeros(dimensions))

    def forward(self, x, key=None, condition=None):
        tail = jnp.exp(self.log_tail[...])
        bent = tail * jnp.arcsinh(x)
        slope = jnp.log(jnp.cosh(bent)) + jnp.log(tail) - 0.5 * jnp.log1p(x**2)
        return jnp.sinh(bent), jnp.sum(slope)

    def inverse(self, z, condition=None):
        return jnp.sinh(jnp.arcsinh(z) / jnp.exp(self.log_tail[...]))


bend = SinhArcsinh(2)
bend.log_tail[...] = jnp.array([-0.5, 0.3])
x = test[0]
z, log_det = bend.forward(x)
jacobian = jax.jacfwd(lambda y: bend.forward(y)[0])(x)
print("back to the start:", np.abs(bend.inverse(z) - x).max())
print("log-determinant:", float(log_det), "by JAX:", float(np.linalg.slogdet(jacobian)[1]))

# %% [markdown]
# A chain of bijections over a standard normal is a flow. Here points are shifted and scaled, bent,
# and shifted and scaled again. `lj.fit` takes a ready density as its model.
#
# The truth is a product of two Student distributions, so the best possible mean is known; the
# paired difference says how many nats the flow lacks.

# %%
stretch = lj.bijections.ActNorm
chain = lj.bijections.Chain([stretch(2), SinhArcsinh(2), stretch(2)])
flow = lj.models.Flow(chain, event_shape=(2,))
experiment = lj.Experiment(
    model=flow,
    optimizer=lj.Optimizer(learning_rate=1e-2),
    batch_size=256,
    steps=10 if smoke else 1_000,
    ema_decay=0.99,
    validate_every=250,
    log_every=250,
)
bent = lj.fit(experiment, train, validation=valid, key=0).density
print("flow    ", lj.evaluate(bent, tested))

# %% [markdown]
# ## A density
#
# A density names its `event_shape`, its `kind` and whether its data have levels, and has two
# methods for one example, `_log_prob` and `_sample`. Batches, keys, draws and checks of the input
# come from the base class. A config, which is a frozen dataclass with a method `build`, makes a
# family of it: its settings are checked, written beside the weights, and used to restore them.


# %%
class Student(lj.Density):
    """Independent Student distributions with a trained location, scale and tail."""

    kind = lj.Kind.EXACT
    levels = None  # continuous data

    def __init__(self, dimensions: int, freedom: float):
        self.event_shape = (dimensions,)
        self.location = nnx.Param(jnp.zeros(dimensions))
        self.log_scale = nnx.Param(jnp.zeros(dimensions))
        self.log_freedom = nnx.Param(jnp.full(dimensions, jnp.log(freedom)))

    def _log_prob(self, x, key, condition):
        scale, freedom = jnp.exp(self.log_scale[...]), jnp.exp(self.log_freedom[...])
        return jax.scipy.stats.t.logpdf(x, freedom, self.location[...], scale).sum()

    def _sample(self, key, condition, temperature):
        noise = jax.random.t(key, jnp.exp(self.log_freedom[...]), self.event_shape)
        return self.location[...] + temperature * jnp.exp(self.log_scale[...]) * noise


@dataclasses.dataclass(frozen=True)
class StudentConfig(Settings):
    dimensions: Count = 2
    freedom: Positive = 10.0

    def build(self, rngs: nnx.Rngs) -> Student:
        return Student(self.dimensions, self.freedom)


truth = Student(2, 3.0)
truth.location[...], truth.log_scale[...] = jnp.array([1.0, 0.0]), jnp.log(jnp.array([1.0, 2.0]))
best = lj.evaluate(truth, tested)
print("truth       ", best)
print("truth - flow:", lj.compare(best, lj.evaluate(bent, tested)))

# %% [markdown]
# The grid shows why a picture belongs beside the mean: the log-density of the truth and that of
# the flow, in the same square, and points drawn from each.

# %%
axis = np.linspace(-8, 8, 80, dtype=np.float32)
grid = np.stack(np.meshgrid(axis, axis), axis=-1)
panels = {}
for name, density in {"truth": truth, "flow": bent}.items():
    drawn = np.asarray(density.sample(jax.random.key(1), 1_000))
    panels[name] = {"log p": np.asarray(density.log_prob(grid)), "samples": drawn}
lj.plot.plane(panels, side=8.0)

# %% [markdown]
# ## An objective, and an optimizer of optax
#
# An objective is any function `(density, batch, key, step) -> (loss, metrics)`. This one lets no
# example cost more than a limit, which makes a fit robust to a few broken rows. As a frozen
# dataclass it is saved with its settings. An optimizer is any `optax.GradientTransformation` with
# its own schedule. To see the objective work, one training point in fifty is moved far away.


# %%
@dataclasses.dataclass(frozen=True)
class Clipped:
    """Negative log-likelihood in which no example costs more than a limit, in nats."""

    most: float = 12.0

    def __call__(self, density, batch, key, step):
        nats = -density.terms(batch.x, key=key).log_prob
        return jnp.mean(jnp.minimum(nats, self.most)), {"clipped": jnp.mean(nats > self.most)}


broken = train.copy()
broken[::50] = 1_000.0
steps = 10 if smoke else 1_500
schedule = optax.warmup_cosine_decay_schedule(0.0, 0.02, 50, max(steps, 100))
plain = lj.Experiment(
    model=StudentConfig(freedom=10.0),
    optimizer=optax.chain(optax.clip(1.0), optax.lion(schedule)),
    batch_size=256,
    steps=steps,
    ema_decay=0.98,
    log_every=500,
)
robust = dataclasses.replace(plain, objective=Clipped(most=12.0))
found = {}
for name, each in {"plain": plain, "clipped": robust}.items():
    student = lj.fit(each, broken, key=0).density
    found[name] = student
    result = lj.evaluate(student, tested)
    print(f"{name:8}", result)
    print("   truth minus it:", lj.compare(best, result))

# %% [markdown]
# ## Save and restore
#
# `lj.save` writes the weights and the config. `lj.restore` finds the class by its import path; in
# a notebook that is the notebook itself, so put a class that others should restore into a module.
# The restored density gives the same numbers, to the last bit.

# %%
lj.save(found["clipped"], place / "student")
again = lj.restore(place / "student")
same = np.array_equal(again.log_prob(test), found["clipped"].log_prob(test))
print("same values:", same)
again

# %% [markdown]
# ## A score
#
# A score says which features of an example it needs, and makes a number of them; **higher means
# more out-of-distribution**. Fitting, calibration, p-values, saving and reports come with it. This
# one is the distance of $\log p$ from the mean that held-out points have, in either direction,
# with a weight for the side of too likely points.


# %%
@dataclasses.dataclass(frozen=True)
class Lopsided(lj.ood.Score):
    """Distance of log p from its held-out mean; too likely counts less than too unlikely."""

    too_likely: Positive = 0.5

    @property
    def features(self):
        return (lj.ood.LogProb(),)

    def statistic(self, compute, event_shape):
        return compute(self.features[0])

    def learn(self, statistics):
        return {"mean": statistics.mean()}

    def group_score(self, state, statistics):
        gap = state["mean"] - statistics.mean(axis=-1)
        return np.where(gap > 0, gap, -self.too_likely * gap)


score = Lopsided().fit(again, valid[:500]).calibrate(valid[500:])
print("p-value of the first test point", score.p_value(test[:1]))
print("p-value of a point far away    ", score.p_value(np.full((1, 2), 60.0, np.float32)))

# %% [markdown]
# It stands in a report beside the built-in ones. The brackets are DeLong's 95 % intervals of the
# AUROC over the points; 0.5 is chance. One outside set is too wide, the other is too narrow:
# points close to the center, which the likelihood alone ranks as *more* normal than the normal
# ones.

# %%
center = np.array([1.0, 0.0], np.float32)
wide = lj.Dataset.from_array(center + 4.0 * (valid - center), name="too wide")
narrow = lj.Dataset.from_array(center + 0.1 * (valid - center), name="too narrow")
report = lj.ood.benchmark(
    again,
    inside=tested,
    outside=[wide, narrow],
    scores=[lj.ood.NegativeLogProb(), lj.ood.Typicality(), Lopsided()],
    held_out=valid,
    train=train,
    key=jax.random.key(2),
    resamples=20 if smoke else 500,
)
print(report.auroc_table())
report.plot()["histograms"]

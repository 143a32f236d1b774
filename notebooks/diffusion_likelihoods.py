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
# # The two likelihoods of a diffusion model
#
# A diffusion model learns to see the noise in noisy data. Two log-likelihoods follow from that one
# network: a *variational bound*, which is what training reduces (Kingma et al., 2021), and the
# likelihood of a flow without any noise, the *probability-flow ODE* (Song et al., 2021). They are
# different kinds of number, and papers print either. Here both are computed on points in the
# plane, where everything can be seen, and on 8x8 digits with a model that ships with likejax.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

train, valid, test = (lj.load("moons", split=split) for split in ("train", "validation", "test"))
few = test[:20] if smoke else test[:1_000]

# %% [markdown]
# ## Training
#
# 2,000 of the 3,000 steps of the preset, about a minute. Validation is of the moving average of the
# weights, which is what a run returns.

# %%
settings = {"steps": 3, "model.width": 8, "model.blocks": 1, "model.sampler.steps": 5}
experiment = lj.preset("vdm/moons").override(settings if smoke else {"steps": 2_000})
run = lj.fit(experiment, train, validation=valid, key=0)
vdm = run.density
run.plot()

# %% [markdown]
# ## The bound is an estimate, and more draws do not raise it
#
# A draw takes noise at random times, and its mean is *below* $\log p(x)$. It is no importance
# weight, though: the log of the mean of $e^{\text{draw}}$ would not be a likelihood. So draws of
# this kind, `~`, combine by their plain mean, which makes the number surer and not larger. (Those
# of a VAE are importance weights, and more draws raise its number.)

# %%
for draws in (1, 4, 16):
    print(f"{draws:2} draws  ", lj.evaluate(vdm, few, key=1, draws=draws))

# %% [markdown]
# Its parts: what the decoder loses at the clean end, what is left of the data at the noisy end,
# and the noise that was not seen in between, in nats.

# %%
parts = vdm.statistics(few.examples, key=jax.random.key(2), draws=4)
for name, values in parts.items():
    print(f"{name:20} {float(values.mean()):8.3f}")

# %% [markdown]
# ## Where the nats are lost
#
# `density.diffusion(x)` gives an example in the model's diffusion: its point $y$, and what the
# denoiser sees in a noisy point $z = \alpha y + \sigma \epsilon$ near it, at any $\gamma$, the
# negative log of the signal-to-noise ratio. The bound adds up half of the squared error over
# $\gamma$. A network that saw nothing would be at 2, one for each dimension. On the right a point
# is nearly all noise, which is easy to see. On the left the noise is smaller than a moon is thick,
# and nobody could tell it from the data. In between there is a step: noise across a moon is seen,
# and noise along it is not.

# %%
diffusion = vdm.diffusion(few.examples, key=jax.random.key(3))
y = diffusion.point
first, last = (float(end[0]) for end in diffusion.ends)
grid = np.linspace(first, last, 5 if smoke else 40)
noise = jax.random.normal(jax.random.key(4), y.shape)
errors = []
for gamma in grid:
    z = jnp.sqrt(jax.nn.sigmoid(-gamma)) * y + jnp.sqrt(jax.nn.sigmoid(gamma)) * noise
    seen = diffusion.noise_at(z, jnp.full(len(y), gamma))
    errors.append(float(((noise - seen) ** 2).sum(-1).mean()))
lj.plot.curves(
    {"squared error of the noise": (grid, errors)},
    x_label="gamma: data on the left, noise on the right",
    y_label="summed over two dimensions",
)

# %% [markdown]
# ## The flow has no gap
#
# `as_flow` is another density with the same parameters: a continuous flow whose field is made of
# the denoiser. In two dimensions its trace can be exact, and then so is the number, `=`, for the
# flow as it is solved. If the denoiser were the best one both numbers would be of the same
# distribution, and the bound lower by its gap. Compare them on the same points, paired.

# %%
method = "bosh3" if smoke else "dopri5"
solver = lj.bijections.Solver(method=method, rtol=1e-4, atol=1e-4)
flow = vdm.as_flow(trace=lj.bijections.Trace(), solver=solver)
bound = lj.evaluate(vdm, few, key=1, draws=16)
exact = lj.evaluate(flow, few)
print("bound", bound)
print("flow ", exact)
print("flow - bound:", lj.compare(exact, bound))

# %% [markdown]
# The entropy of these moons is 2.399 nats, so no density can have a mean above -2.399 on many
# points. Below are the flow's density on a grid of 10,000 points, which takes a minute or two, and
# samples drawn in two ways: by the reversed process, with noise in each step, and by the flow from
# noise to data.

# %%
count = 20 if smoke else 1_500
pictures = {
    "data": np.asarray(few.examples[:count]),
    f"{vdm.sampler.steps} noisy steps": np.asarray(vdm.sample(jax.random.key(5), count)),
    "the flow": np.asarray(flow.sample(jax.random.key(6), count)),
}
lj.plot.density_2d(flow, side=4.0, pictures=pictures, points=4 if smoke else 100)

# %% [markdown]
# ## Digits
#
# For integers the flow needs noise within each level, as any flow does, and a random trace in many
# dimensions: the number is an estimate again. Solve it with *two* tolerances. If they disagree,
# the field is rough, and the looser solve flatters: quote neither. Bits/dim are of a few images,
# since the flow takes hundreds of evaluations of the network.

# %%
digits = lj.load("digits", split="test")[: 2 if smoke else 32]
model = lj.pretrained("vdm/digits")
if smoke:
    tiny = lj.models.VDMConfig(event_shape=(8, 8, 1), levels=17, width=4, blocks=0, dropout=0.0)
    model = lj.build(tiny, key=0)
numbers = {"bound, 16 draws": lj.evaluate(model, digits, key=7, draws=1 if smoke else 16)}
for tolerance in (1e-2,) if smoke else (1e-2, 1e-3):
    solver = lj.bijections.Solver(method=method, rtol=tolerance, atol=tolerance)
    as_flow = model.as_flow(solver=solver)
    numbers[f"flow, tolerance {tolerance:g}"] = lj.evaluate(as_flow, digits, key=8)
for name, number in numbers.items():
    print(f"{name:22} {number}")
for name, number in list(numbers.items())[1:]:
    print(f"{name} - bound:", lj.compare(number, numbers["bound, 16 draws"]))

# %% [markdown]
# What to print in a paper: which of the two numbers, its kind, the draws, the number of images,
# and for the flow its solver and tolerance. The page about diffusion models in the documentation
# has both numbers of a model of Fashion-MNIST.

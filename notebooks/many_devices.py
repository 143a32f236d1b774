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
# # From a laptop to many devices
#
# The same call trains on one device, on the eight of a machine, and on those of several machines:
# one `jax.jit` over a mesh. What a run computes does not depend on how many devices there are, but
# for the order of float sums. This notebook shows that on a laptop, where JAX can pretend that its
# processor is four devices. Nothing gets faster by that; what is learned here is that nothing
# changes.
#
# The number of emulated devices has to be set before JAX starts. On real devices leave these lines
# out.

# %%
# %matplotlib inline
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import likejax as lj

smoke = bool(os.environ.get("LIKEJAX_SMOKE"))  # small models and few steps: does it run?

train, valid, test = (lj.load("moons", split=split) for split in ("train", "validation", "test"))
if smoke:
    valid, test = valid[:128], test[:256]
place = Path(tempfile.mkdtemp())
devices = jax.devices()
devices

# %% [markdown]
# ## One device and four
#
# A batch of 256 points is cut into four parts of 64, parameters are copied to every device, and
# the gradients are averaged. The batch size of an experiment is that of all devices together, so
# its learning rate needs no change. `devices=` chooses some; without it all are used.

# %%
steps = 8 if smoke else 800
experiment = lj.Experiment(
    model=lj.models.NSFConfig(dimensions=2, depth=2, width=8 if smoke else 32, bins=8, blocks=1),
    optimizer=lj.Optimizer(learning_rate=2e-3, clip_norm=5.0),
    batch_size=256,
    steps=steps,
    ema_decay=0.9,
    log_every=max(1, steps // 40),
    validate_every=steps // 2,
    checkpoint_every=steps // 2,
)
runs = {
    "1 device": lj.fit(experiment, train, validation=valid, key=0, devices=devices[:1]),
    "4 devices": lj.fit(experiment, train, validation=valid, key=0),
}


def apart(first, second):
    """Largest difference of two runs' parameters after the last step."""
    pairs = zip(jax.tree.leaves(first.last), jax.tree.leaves(second.last), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


print("largest difference of a parameter:", apart(runs["1 device"], runs["4 devices"]))

# %% [markdown]
# The difference begins with float sums in another order, and training makes it larger: Adam
# divides by the size of a gradient, so where a gradient is nearly 0 its rounding counts. What
# matters is what the densities say. The test numbers are exact log-densities in nats with a
# standard error over the test points; compare with it their paired difference.

# %%
numbers = {name: lj.evaluate(run.density, test) for name, run in runs.items()}
for name, number in numbers.items():
    print(f"{name:10}", number)
print(lj.compare(numbers["1 device"], numbers["4 devices"]))

# %% [markdown]
# ## Parameters that are divided
#
# A model that is too large for one device is divided: with `parameter_shards=2` the four devices
# become a mesh of two by two, each parameter array and the state of its optimizer is cut in two,
# and the batch is still cut in four. Small arrays are copied, since dividing them would cost more
# than it saves.

# %%
divided = lj.fit(experiment.override({"parameter_shards": 2}), train, validation=valid, key=0)
runs["2 x 2, divided"] = divided
print("largest difference from one device:", apart(runs["1 device"], divided))

# %% [markdown]
# ## Evaluation over devices
#
# A density is a tree of arrays, so `jax.device_put` copies it to all devices. It then takes a
# batch whose rows lie on several devices; they stay where they are, and each device computes its
# own.

# %%
mesh = jax.sharding.Mesh(np.array(devices), ("rows",))
density = runs["1 device"].density
some = test.examples[: 128 if smoke else 1_000]
points = jax.device_put(some, NamedSharding(mesh, P("rows")))
everywhere = jax.device_put(density, NamedSharding(mesh, P()))  # a copy on each device
nats = everywhere.log_prob(points)
print("rows of each device:", [shard.data.shape for shard in points.addressable_shards])
at_home = density.log_prob(some)
print("largest difference from one device:", float(np.abs(nats - at_home).max()), "nats")

# %% [markdown]
# ## Stop on four devices, go on with two
#
# A run with a `workdir` keeps checkpoints that know nothing of devices. Here one is trained to the
# half on four devices, and the same call with more steps goes on with two. On a cluster this is
# what happens when a job returns to another machine.

# %%
half = experiment.override({"steps": steps // 2})
lj.fit(half, train, validation=valid, key=0, workdir=place / "run")
resumed = lj.fit(
    experiment, train, validation=valid, key=0, workdir=place / "run", devices=devices[:2]
)
runs["4, then 2"] = resumed
print("steps:", resumed.steps, "largest difference:", apart(runs["1 device"], resumed))

# %% [markdown]
# All runs in one picture. Where the losses lie on each other, only the last line is seen.

# %%
lines = {name: run.curves()["training batches"] for name, run in runs.items()}
lj.plot.curves(lines, x_label="step", y_label="-log p of training batches, nats")

# %% [markdown]
# ## Two processes
#
# Several machines run one process each, which meet at an address; on a cluster whose launcher JAX
# knows, `--distributed` needs nothing else. Here two processes of this machine with two emulated
# devices each train together with the command `likejax train`. The first writes the checkpoints
# and prints.

# %%
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.executable, "-m", "likejax", "train", "nsf/moons", "--distributed"]
command += ["--steps", "4" if smoke else "200", "--workdir", str(place / "two")]
command += ["--model.depth", "2", "--model.width", "8" if smoke else "32"]
command += ["--model.blocks", "1"] if smoke else []
flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2")
processes = []
for index in range(2):
    joined = {"LIKEJAX_PROCESSES": f"127.0.0.1:{port},2,{index}", "XLA_FLAGS": flags}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes.append(subprocess.Popen(command, env=os.environ | joined, **pipes))
printed = [process.communicate(timeout=300)[0] for process in processes]
assert [process.returncode for process in processes] == [0, 0], printed
print("\n".join(line for line in printed[0].splitlines() if "Gloo" not in line)[-500:])
print(lj.evaluate(lj.restore(place / "two"), test))

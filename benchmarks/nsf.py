"""Neural spline flows of POWER's size against nflows and zuko: times of a step and of log_prob.

    python benchmarks/nsf.py [--rounds 10] [--batch-size 512]

The coupling form is compared with nflows: the same steps, splines and residual networks, with the
permutations and LU maps. The autoregressive form is compared with zuko, without permutations and LU
maps on both sides: masked networks of as many layers and hidden units, splines of as many bins. All
sides run Adam with the gradient's norm clipped, in float32, on the same threads. Needs
``pip install nflows zuko`` besides PyTorch.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
import torch
import zuko
from nflows import transforms
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow as NflowsFlow
from nflows.nn.nets import ResidualNet
from side_by_side import compare
from torch import nn

import likejax as lj
from likejax.nn.state import merge, split

POWER = {"dimensions": 6, "depth": 10, "width": 256, "bins": 8}
RATE, CLIP = 5e-4, 5.0


class Side(NamedTuple):
    """A training step and the log-probabilities of a batch, and the number of parameters."""

    step: Callable[[], object]
    log_prob: Callable[[], object]
    parameters: int


def ours(config: lj.models.NSFConfig, x: np.ndarray) -> Side:
    density = lj.build(config, key=jax.random.key(0))
    structure, params, fixed = split(density)
    rule = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))

    @jax.jit
    def mean_log_prob(params):
        return merge(structure, params, fixed).terms(x).log_prob.mean()

    def update(state):
        params, moments = state
        gradient = jax.grad(lambda params: -mean_log_prob(params))(params)
        updates, moments = rule.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments

    compiled = jax.jit(update, donate_argnums=0)
    state = jax.tree.map(jax.numpy.copy, params), rule.init(params)

    def step() -> object:
        nonlocal state
        state = jax.block_until_ready(compiled(state))
        return state

    return Side(
        step,
        lambda: jax.block_until_ready(density.log_prob(x)),
        lj.count_parameters(density),
    )


def theirs(flow: nn.Module, log_prob: Callable[[torch.Tensor], torch.Tensor], x) -> Side:
    rows = torch.as_tensor(x)
    optimizer = torch.optim.Adam(flow.parameters(), lr=RATE)

    def step() -> object:
        optimizer.zero_grad()
        (-log_prob(rows).mean()).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        return optimizer.step()

    def evaluate() -> object:
        with torch.no_grad():
            return log_prob(rows)

    return Side(step, evaluate, sum(p.numel() for p in flow.parameters()))


def of_nflows(x: np.ndarray) -> Side:
    dimensions, width = POWER["dimensions"], POWER["width"]

    def network(inputs: int, outputs: int) -> nn.Module:
        return ResidualNet(inputs, outputs, hidden_features=width, num_blocks=2)

    def mix() -> list[nn.Module]:
        return [transforms.RandomPermutation(dimensions), transforms.LULinear(dimensions)]

    maps: list[nn.Module] = []
    for i in range(POWER["depth"]):
        mask = torch.arange(dimensions) % 2 == i % 2
        spline = transforms.PiecewiseRationalQuadraticCouplingTransform(
            mask=mask.int(),
            transform_net_create_fn=network,
            num_bins=POWER["bins"],
            tails="linear",
            tail_bound=3.0,
            apply_unconditional_transform=True,
        )
        maps += [*mix(), spline]
    flow = NflowsFlow(transforms.CompositeTransform([*maps, *mix()]), StandardNormal([dimensions]))
    return theirs(flow, flow.log_prob, x)


def of_zuko(x: np.ndarray) -> Side:
    flow = zuko.flows.NSF(
        features=POWER["dimensions"],
        transforms=POWER["depth"],
        bins=POWER["bins"],
        hidden_features=[POWER["width"]] * 5,
    )
    return theirs(flow, lambda rows: flow().log_prob(rows), x)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    lj.memory.keep_freed()  # for both sides, as on the command line
    shape = (arguments.batch_size, POWER["dimensions"])
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    print(
        f"jax {jax.__version__} on {jax.devices()[0].platform}, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}"
    )
    autoregressive = {"form": "autoregressive", "linear": False}
    pairs = {
        "coupling": (ours(lj.models.NSFConfig(**POWER), x), {"nflows": of_nflows(x)}),
        "autoregressive": (
            ours(lj.models.NSFConfig(**POWER, **autoregressive), x),
            {"zuko": of_zuko(x)},
        ),
    }
    for form, (mine, others) in pairs.items():
        for name, other in others.items():
            print(f"{form}: likejax {mine.parameters:,} parameters, {name} {other.parameters:,}")
            for what in ("step", "log_prob"):
                sides = {"likejax": getattr(mine, what), name: getattr(other, what)}
                compare(what, sides, arguments.rounds)


if __name__ == "__main__":
    main()

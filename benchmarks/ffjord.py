"""FFJORD against the same model in PyTorch with torchdiffeq: training step, log_prob and samples.

Seconds of each, then also nats against seconds, then the products of forward against those of
reverse mode:

    python benchmarks/ffjord.py [--dimensions 43 --hidden 860 860 --batch-size 64]
    python benchmarks/ffjord.py --steps 2000
    python benchmarks/ffjord.py --products

Both sides use dopri5 at the same tolerance, one solve for the batch, the same network
(concatsquash), Adam at the same rate; likejax with the checkpointed adjoint, PyTorch with the
official code's continuous one. PyTorch works in a process of its own, as its users run it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import speed_record
import torch
from side_by_side import compare, in_own_process, put_torch_on_gpu
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

import likejax as lj
from likejax.evaluation import log_prob_in_chunks
from likejax.nn.state import merge, split


class ConcatSquash(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.layer = nn.Linear(before, after)
        self.gate = nn.Linear(1, after)
        self.shift = nn.Linear(1, after, bias=False)

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        t = t.reshape(1, 1)
        return self.layer(x) * torch.sigmoid(self.gate(t)) + self.shift(t)


class Field(nn.Module):
    """Field of state and log-determinant; the trace is exact or by the one probe ``noise``."""

    def __init__(self, config: lj.models.FFJORDConfig):
        super().__init__()
        sizes = (config.dimensions, *config.hidden, config.dimensions)
        self.layers = nn.ModuleList(ConcatSquash(a, b) for a, b in itertools.pairwise(sizes))
        self.activation = {"tanh": torch.tanh, "softplus": nn.functional.softplus}[
            config.activation
        ]
        self.noise: torch.Tensor | None = None

    def velocity(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = self.activation(layer(t, x))
        return self.layers[-1](t, x)

    def forward(
        self, t: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            x = state[0].requires_grad_(True)
            f = self.velocity(t, x)
            if self.noise is None:
                columns = [
                    torch.autograd.grad(f[:, i].sum(), x, create_graph=True)[0][:, i]
                    for i in range(f.shape[1])
                ]
                trace = sum(columns)
            else:
                trace = (
                    torch.autograd.grad(f, x, self.noise, create_graph=True)[0] * self.noise
                ).sum(1)
        return f, trace


class FFJORD(nn.Module):
    def __init__(self, config: lj.models.FFJORDConfig):
        super().__init__()
        self.field = Field(config)
        self.sqrt_end_time = nn.Parameter(torch.tensor(math.sqrt(config.end_time)))
        self.config = config

    def times(self) -> torch.Tensor:
        return torch.stack([torch.zeros(()), self.sqrt_end_time**2])

    def tolerances(self) -> dict[str, Any]:
        solver = self.config.training_solver
        return {"method": "dopri5", "rtol": solver.rtol, "atol": solver.atol}

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        self.field.noise = torch.randn_like(x) if self.config.training_trace.probes else None
        state = x, torch.zeros(len(x))
        z, log_det = odeint_adjoint(self.field, state, self.times(), **self.tolerances())
        return (-0.5 * (z[-1] ** 2 + math.log(2 * math.pi))).sum(1) + log_det[-1]

    def sample(self, count: int) -> torch.Tensor:
        z = torch.randn(count, self.config.dimensions)
        return odeint(self.field.velocity, z, self.times().flip(0), **self.tolerances())[-1]


class Side(NamedTuple):
    """What one library does with a model and its newest weights."""

    train: Callable[[np.ndarray], float]
    nats: Callable[[np.ndarray], float]
    log_prob: Callable[[np.ndarray], object]
    sample: Callable[[int], object]
    size: int


def ours(config: lj.models.FFJORDConfig, rate: float) -> Side:
    density = lj.models.with_solver(
        lj.build(config, key=0), solver=config.training_solver, trace=config.training_trace
    )
    structure, params, fixed = split(density)
    rule = optax.adam(rate)
    state = params, rule.init(params), jax.random.key(2)

    @functools.partial(jax.jit, donate_argnums=0)  # as in training
    def step(state, x):
        params, moments, key = state
        key, own = jax.random.split(key)

        def loss(params):
            return -merge(structure, params, fixed).terms(x, key=own).log_prob.mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = rule.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments, key), value

    def train(x: np.ndarray) -> float:
        nonlocal state
        state, value = step(state, x)
        return float(value)

    def trained() -> lj.Density:
        return merge(structure, state[0], fixed)

    def nats(x: np.ndarray) -> float:
        return -float(np.mean(log_prob_in_chunks(trained(), x, key=3, batch_size=1000)))

    def log_prob(x: np.ndarray) -> object:
        return jax.block_until_ready(trained().log_prob(x, key=3))

    def sample(count: int) -> object:
        return jax.block_until_ready(trained().sample(4, count))

    return Side(train, nats, log_prob, sample, sum(leaf.size for leaf in params.values()))


def theirs(config: lj.models.FFJORDConfig, rate: float) -> Side:
    torch.manual_seed(0)
    model = FFJORD(config)
    rule = torch.optim.Adam(model.parameters(), rate)

    def train(x: np.ndarray) -> float:
        rule.zero_grad()
        loss = -model.log_prob(torch.as_tensor(x)).mean()
        loss.backward()
        rule.step()
        return float(loss.detach())

    def log_prob(x: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return model.log_prob(torch.as_tensor(x))

    def nats(x: np.ndarray) -> float:
        return -float(log_prob(x).mean())

    def sample(count: int) -> object:
        with torch.no_grad():
            return model.sample(count)

    return Side(train, nats, log_prob, sample, sum(p.numel() for p in model.parameters()))


def race(
    config: lj.models.FFJORDConfig, name: str, rate: float, batch_size: int, steps: int
) -> None:
    """Trains both on the same batches; prints nats of 2,000 test points against seconds."""
    train, test = lj.load(name).examples, lj.load(name, split="test").examples[:2_000]
    rows = np.random.default_rng(0).integers(0, len(train), (steps, batch_size))
    marks = sorted({max(1, round(steps * part)) for part in (0.25, 0.5, 0.75, 1.0)})
    reached: dict[str, list[tuple[float, float]]] = {}
    for side, make in (("likejax", ours), ("PyTorch", theirs)):
        trained = make(config, rate)
        seconds, reached[side] = 0.0, []
        for number, batch in enumerate(rows, 1):
            start = time.perf_counter()
            trained.train(train[batch])
            seconds += time.perf_counter() - start
            if number in marks:
                reached[side].append((seconds, trained.nats(test)))
                print(
                    f"{side:8} step {number:5}  {seconds:7.1f} s  {reached[side][-1][1]:.4f} nats",
                    flush=True,
                )
    target = max(reached[side][-1][1] for side in reached) + 1e-9
    times = {
        side: next(seconds for seconds, nats in marks if nats <= target)
        for side, marks in reached.items()
    }
    print(
        f"to {target:.4f} nats: "
        + ", ".join(f"{side} {seconds:.1f} s" for side, seconds in times.items()),
        end="",
    )
    print(f", ratio {times['PyTorch'] / times['likejax']:.2f}")


def problem(
    dimensions: int, hidden: Sequence[int], batch_size: int
) -> tuple[lj.models.FFJORDConfig, np.ndarray]:
    """A model of points with the exact trace, or of a table with one probe, and its batch."""
    points = dimensions == 2
    trace = lj.bijections.Trace(probes=1, noise="gaussian")
    solver = lj.bijections.Solver() if points else lj.bijections.Solver(rtol=1e-6, atol=1e-8)
    config = lj.models.FFJORDConfig(
        dimensions=dimensions,
        hidden=tuple(hidden),
        activation="tanh" if points else "softplus",
        end_time=0.5 if points else 1.0,
        training_trace=lj.bijections.Trace() if points else trace,
        training_solver=solver,
    )
    if points:
        x = lj.load("moons").examples
    else:
        x = np.random.default_rng(0).normal(size=(2_000, dimensions)).astype(np.float32)
    return config, np.array(x[:batch_size])  # PyTorch wants it writable


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dimensions", type=int, default=2)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64, 64])
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--in-a-row", type=int, default=5, help="steps of a round")
    parser.add_argument(
        "--steps", type=int, default=0, help="also train so many steps on the two moons"
    )
    parser.add_argument(
        "--products", action="store_true", help="compare products with the Jacobian by JVP and VJP"
    )
    speed_record.add_option(parser)
    arguments = parser.parse_args()
    lj.memory.keep_freed()  # as on the command line
    put_torch_on_gpu()
    points = arguments.dimensions == 2
    config, batch = problem(arguments.dimensions, arguments.hidden, arguments.batch_size)
    solver = config.training_solver
    if arguments.products:
        reverse = dataclasses.replace(config.training_trace, product="vjp")
        sides = {
            "jvp": ours(config, 1e-3),
            "vjp": ours(dataclasses.replace(config, training_trace=reverse), 1e-3),
        }
    else:
        sides = {
            "likejax": ours(config, 1e-3),
            "PyTorch": Side(*in_own_process(theirs, config, 1e-3)),
        }
    (size,) = {side.size for side in sides.values()}  # all have the same
    trace = "exact trace" if points else "one Gaussian probe"
    print(
        f"{size:,} parameters, batch {len(batch)}, {trace}, "
        f"rtol {solver.rtol:g}, atol {solver.atol:g};"
    )
    print(
        f"{platform.processor() or 'cpu'}, jax {jax.__version__} ({jax.default_backend()}), "
        f"torch {torch.__version__},"
    )
    print(f"{torch.get_num_threads()} threads; the first steps of training")
    programs = {
        "training step": lambda side: lambda: side.train(batch),
        "`log_prob`": lambda side: lambda: side.log_prob(batch),
        "samples": lambda side: lambda: side.sample(len(batch)),
    }
    if arguments.products:
        del programs["`log_prob`"], programs["samples"]
    network = "points" if points else f"{arguments.dimensions} columns"
    network += f", {size:,} parameters, batch {len(batch)}, {trace}"
    timings = {}
    for what, work_of in programs.items():
        work = {name: work_of(side) for name, side in sides.items()}
        timings[f"{network}: {what}"] = compare(
            what.strip("`"), work, arguments.rounds, in_a_row=arguments.in_a_row
        )
    if arguments.record:
        speed_record.keep("ffjord_speed", timings)
    if arguments.steps:
        race(config, "moons", 1e-3, arguments.batch_size, arguments.steps)


if __name__ == "__main__":
    main()

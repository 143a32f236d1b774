"""Glow's training step, log_prob and sampling against the same network in plain PyTorch.

    python benchmarks/glow.py [--preset glow/fashion_mnist-small] [--batch-size 16] [--rounds 10]
        [--compile]
    python benchmarks/glow.py --preset glow/cifar10 --batch-size 8 --rounds 3 --in-a-row 1

All sides get the same architecture, batch size, optimizer (Adam) and thread count; PyTorch works in
a process of its own, as its users run it. Times are medians over the rounds; the ratio is PyTorch's
time over likejax's, above 1 where likejax is faster. Needs `pip install torch`.
"""

from __future__ import annotations

import argparse
import functools
import math
import platform

import jax
import jax.numpy as jnp
import numpy as np
import optax
import speed_record
import torch
from side_by_side import compare, in_own_process, put_torch_on_gpu
from torch import nn
from torch.nn import functional

import likejax as lj
from likejax.nn.state import merge, split


class EdgeConv(nn.Module):
    """A 3x3 convolution with an input channel that is 1 on the padding, or a 1x1 one without."""

    def __init__(self, channels: int, features: int, size: int, zero: bool = False):
        super().__init__()
        self.edge = size > 1
        self.conv = nn.Conv2d(channels + self.edge, features, size, bias=zero)
        self.log_scale = nn.Parameter(torch.zeros(1, features, 1, 1)) if zero else None
        nn.init.normal_(self.conv.weight, std=0.05)
        if zero:
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.edge:
            ring = functional.pad(torch.zeros_like(x[:, :1]), (1, 1, 1, 1), value=1.0)
            x = torch.cat([functional.pad(x, (1, 1, 1, 1)), ring], 1)
        x = self.conv(x)
        return x if self.log_scale is None else x * torch.exp(3 * self.log_scale)


class ActNorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        positions = x.shape[2] * x.shape[3]
        return (x + self.bias) * torch.exp(3 * self.log_scale), positions * 3 * self.log_scale.sum()

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y * torch.exp(-3 * self.log_scale) - self.bias


class Step(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.first, self.second = EdgeConv(channels // 2, width, 3), EdgeConv(width, width, 1)
        self.first_norm, self.second_norm = ActNorm(width), ActNorm(width)
        self.last = EdgeConv(width, channels, 3, zero=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, total = self.actnorm(x)
        x = functional.conv2d(x, self.weight.T[..., None, None])
        total = total + x.shape[2] * x.shape[3] * torch.linalg.slogdet(self.weight)[1]
        kept, moved = x.chunk(2, 1)
        shift, logit = self.condition(kept)
        moved = (moved + shift) * torch.sigmoid(logit)
        return torch.cat([kept, moved], 1), total + functional.logsigmoid(logit).sum((1, 2, 3))

    def condition(self, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = functional.relu(self.first_norm(self.first(kept))[0])
        h = functional.relu(self.second_norm(self.second(h))[0])
        h = self.last(h)
        return h[:, 0::2], h[:, 1::2] + 2

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        kept, moved = y.chunk(2, 1)
        shift, logit = self.condition(kept)
        x = torch.cat([kept, moved / torch.sigmoid(logit) - shift], 1)
        x = functional.conv2d(x, torch.linalg.inv(self.weight).T[..., None, None])
        return self.actnorm.inverse(x)


def log_normal(x: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    return (-0.5 * (math.log(2 * math.pi) + ((x - mean) * torch.exp(-log_std)) ** 2) - log_std).sum(
        (1, 2, 3)
    )


class Glow(nn.Module):
    """The official architecture, written plainly."""

    def __init__(self, config: lj.models.GlowConfig):
        super().__init__()
        self.config = config
        self.steps, self.priors = nn.ModuleList(), nn.ModuleList()
        channels = config.event_shape[2]
        for scale in range(config.scales):
            channels *= 4
            self.steps.append(
                nn.ModuleList(Step(channels, config.width) for _ in range(config.depth))
            )
            if scale < config.scales - 1:
                self.priors.append(EdgeConv(channels // 2, channels, 3, zero=True))
                channels //= 2
        self.top = EdgeConv(2 * channels, 2 * channels, 3, zero=True)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        x = (x + torch.rand_like(x)) / self.config.levels - 0.5
        total = -math.log(self.config.levels) * x[0].numel()
        for scale, steps in enumerate(self.steps):
            x = functional.pixel_unshuffle(x, 2)
            for step in steps:
                x, log_det = step(x)
                total = total + log_det
            if scale < len(self.priors):
                x, out = x.chunk(2, 1)
                h = self.priors[scale](x)
                total = total + log_normal(out, h[:, 0::2], h[:, 1::2])
        mean, log_std = self.top(torch.zeros_like(x).repeat(1, 2, 1, 1)).chunk(2, 1)
        return total + log_normal(x, mean, log_std)

    def sample(self, count: int) -> torch.Tensor:
        height, width, _ = self.config.event_shape
        side = 2 ** len(self.steps)
        channels = self.top.conv.weight.shape[0] // 2
        start = torch.zeros(count, 2 * channels, height // side, width // side)
        mean, log_std = self.top(start).chunk(2, 1)
        x = mean + torch.exp(log_std) * torch.randn_like(mean)
        for scale in reversed(range(len(self.steps))):
            if scale < len(self.priors):
                h = self.priors[scale](x)
                mean, log_std = h[:, 0::2], h[:, 1::2]
                x = torch.cat([x, mean + torch.exp(log_std) * torch.randn_like(mean)], 1)
            for step in reversed(self.steps[scale]):
                x = step.inverse(x)
            x = functional.pixel_shuffle(x, 2)
        levels = self.config.levels
        return ((x + 0.5) * levels).floor().clamp(0, levels - 1).to(torch.uint8)


def ours(config: lj.models.GlowConfig, x: np.ndarray):
    density = lj.build(config, key=0).initialize(x, 1)
    structure, params, fixed = split(density)
    rule = optax.adam(1e-3)
    state = jax.tree.map(jnp.copy, params), rule.init(params)
    keys = lj.example_keys(2, range(len(x)))

    @functools.partial(jax.jit, donate_argnums=0)  # as in training
    def step(state, x):
        def loss(params):
            return -merge(structure, params, fixed).terms(x, key=keys).log_prob.mean() / x[0].size

        params, moments = state
        gradient = jax.grad(loss)(params)
        updates, moments = rule.update(gradient, moments)
        return optax.apply_updates(params, updates), moments

    def train():
        nonlocal state
        state = jax.block_until_ready(step(state, x))

    def score():
        jax.block_until_ready(density.log_prob(x, key=keys))

    def sample():
        jax.block_until_ready(density.sample(2, len(x)))

    return train, score, sample, sum(leaf.size for leaf in params.values())


def theirs(config: lj.models.GlowConfig, x: np.ndarray, *, is_compiled: bool = False):
    torch.manual_seed(0)
    model = Glow(config)
    draw = torch.compile(model.sample) if is_compiled else model.sample
    log_prob = torch.compile(model.log_prob) if is_compiled else model.log_prob
    rule = torch.optim.Adam(model.parameters(), 1e-3)
    data = torch.as_tensor(x.transpose(0, 3, 1, 2).copy()).float()

    def train():
        rule.zero_grad()
        (-log_prob(data).mean() / data[0].numel()).backward()
        rule.step()

    def score():
        with torch.no_grad():
            log_prob(data)

    def sample():
        with torch.no_grad():
            draw(len(data))

    return train, score, sample, sum(p.numel() for p in model.parameters())


PROGRAMS = {
    "training step": "training step (Adam)",
    "log_prob": "`log_prob`",
    "sample": "samples",
}
"""What is timed, and its title in the table."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="glow/fashion_mnist-small")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--in-a-row", type=int, default=5, help="steps of a round")
    parser.add_argument(
        "--compile", action="store_true", help="also time PyTorch's network under torch.compile"
    )
    speed_record.add_option(parser)
    arguments = parser.parse_args()
    lj.memory.keep_freed()  # as on the command line
    put_torch_on_gpu()
    config = lj.preset(arguments.preset).model
    rng = np.random.default_rng(0)
    x = rng.integers(0, config.levels, (arguments.batch_size, *config.event_shape)).astype(np.uint8)
    sides = {
        "likejax": ours(config, x),
        "PyTorch": in_own_process(theirs, config, x),
    }
    if arguments.compile:
        sides["torch.compile"] = in_own_process(theirs, config, x, is_compiled=True)
    assert len({side[-1] for side in sides.values()}) == 1, "the two networks differ in size"
    print(
        f"{arguments.preset}, batch {len(x)}, {sides['likejax'][-1]:,} parameters; "
        f"{platform.processor() or 'cpu'},"
    )
    print(
        f"jax {jax.__version__} ({jax.default_backend()}), torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    timings = {}
    for index, (what, title) in enumerate(PROGRAMS.items()):
        work = {name: side[index] for name, side in sides.items()}
        timings[f"`{arguments.preset}`: {title}"] = compare(
            what, work, arguments.rounds, in_a_row=arguments.in_a_row
        )
    if arguments.record:
        speed_record.keep("glow_speed", timings)


if __name__ == "__main__":
    main()

"""PixelCNN++ against the same network in plain PyTorch: training step, log_prob, sampling.

One run, all sides alternating, medians and ratios; PyTorch in a process of its own, as its users
run it. A step and `log_prob` of the small preset, the samplers of a small network at 32x32x3, and
those of the paper's network:

    python benchmarks/pixelcnn.py [--compile]
    python benchmarks/pixelcnn.py --preset pixelcnn/cifar10 --batch-size 2 --rounds 3 --in-a-row 1
    python benchmarks/pixelcnn.py --sampling
    python benchmarks/pixelcnn.py --sampling --filters 160 --blocks 5 --batches 1 16

Naive samplers are timed on some evenly spaced pixels (``--naive-pixels``) and scaled to all:
"extrapolated". Needs ``pip install -e '.[benchmarks]'``.
"""

from __future__ import annotations

import argparse
import functools
import platform
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import speed_record
import torch
from side_by_side import compare, in_own_process, put_torch_on_gpu, timed
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

import likejax as lj
from likejax.distributions import LogisticMixture
from likejax.models.pixelcnn import sampling
from likejax.nn.modules import replace
from likejax.nn.state import merge, split
from likejax.nn.weight_norm import fold_weights

# PyTorch, written plainly after the official code


def concat_elu(x: torch.Tensor) -> torch.Tensor:
    return functional.elu(torch.cat([x, -x], 1))


class Down(nn.Module):
    """A convolution that sees its row and those above."""

    def __init__(
        self, channels: int, features: int, size: tuple[int, int] = (2, 3), stride: int = 1
    ):
        super().__init__()
        side = (size[1] - 1) // 2
        self.padding = (side, side, size[0] - 1, 0)
        self.convolution = weight_norm(nn.Conv2d(channels, features, size, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(functional.pad(x, self.padding))


class Right(nn.Module):
    """A convolution that sees its pixel and those to the left and above."""

    def __init__(
        self, channels: int, features: int, size: tuple[int, int] = (2, 2), stride: int = 1
    ):
        super().__init__()
        self.padding = (size[1] - 1, 0, size[0] - 1, 0)
        self.convolution = weight_norm(nn.Conv2d(channels, features, size, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(functional.pad(x, self.padding))


class Up(nn.Module):
    """A transposed convolution of stride 2, cropped to twice the size."""

    def __init__(self, filters: int, size: tuple[int, int]):
        super().__init__()
        self.convolution = weight_norm(nn.ConvTranspose2d(filters, filters, size, 2), dim=1)
        self.crop = (size[1] - 1) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        return self.convolution(x)[:, :, :height, self.crop : self.crop + width]


class Block(nn.Module):
    def __init__(self, convolution: type, filters: int, side: int, dropout: float):
        super().__init__()
        self.first = convolution(2 * filters, filters)
        self.skip = weight_norm(nn.Conv2d(2 * side, filters, 1)) if side else None
        self.second = convolution(2 * filters, 2 * filters)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, side: torch.Tensor | None = None) -> torch.Tensor:
        h = self.first(concat_elu(x))
        if self.skip is not None:
            h = h + self.skip(concat_elu(side))
        value, gate = self.second(self.dropout(concat_elu(h))).chunk(2, 1)
        return x + value * torch.sigmoid(gate)


class PixelCNN(nn.Module):
    def __init__(self, config: lj.models.PixelCNNConfig):
        super().__init__()
        self.config = config
        channels, filters, dropout = config.event_shape[2], config.filters, config.dropout
        self.u_first = Down(channels + 1, filters)
        self.ul_row, self.ul_left = (
            Down(channels + 1, filters, (1, 3)),
            Right(channels + 1, filters, (2, 1)),
        )
        r, last = config.blocks, config.resolutions - 1

        def blocks(kind: type, sides: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(
                Block(kind, filters, sides * filters, dropout) for _ in range(count)
            )

        self.up_u = nn.ModuleList(blocks(Down, 0, r) for _ in range(last + 1))
        self.up_ul = nn.ModuleList(blocks(Right, 1, r) for _ in range(last + 1))
        self.shrink_u = nn.ModuleList(Down(filters, filters, stride=2) for _ in range(last))
        self.shrink_ul = nn.ModuleList(Right(filters, filters, stride=2) for _ in range(last))
        self.down_u = nn.ModuleList(blocks(Down, 1, r + (s > 0)) for s in range(last + 1))
        self.down_ul = nn.ModuleList(blocks(Right, 2, r + (s > 0)) for s in range(last + 1))
        self.grow_u = nn.ModuleList(Up(filters, (2, 3)) for _ in range(last))
        self.grow_ul = nn.ModuleList(Up(filters, (2, 2)) for _ in range(last))
        self.out = weight_norm(
            nn.Conv2d(filters, LogisticMixture.size(channels, config.mixtures), 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.cat([image, torch.ones_like(image[:, :1])], 1)
        shift_down = lambda v: functional.pad(v, (0, 0, 1, 0))[:, :, :-1]  # noqa: E731
        shift_right = lambda v: functional.pad(v, (1, 0))[:, :, :, :-1]  # noqa: E731
        u = [shift_down(self.u_first(x))]
        ul = [shift_down(self.ul_row(x)) + shift_right(self.ul_left(x))]
        for s, (us, uls) in enumerate(zip(self.up_u, self.up_ul, strict=True)):
            for block_u, block_ul in zip(us, uls, strict=True):
                u.append(block_u(u[-1]))
                ul.append(block_ul(ul[-1], u[-1]))
            if s < len(self.shrink_u):
                u.append(self.shrink_u[s](u[-1]))
                ul.append(self.shrink_ul[s](ul[-1]))
        h_u, h_ul = u.pop(), ul.pop()
        for s, (us, uls) in enumerate(zip(self.down_u, self.down_ul, strict=True)):
            for block_u, block_ul in zip(us, uls, strict=True):
                h_u = block_u(h_u, u.pop())
                h_ul = block_ul(h_ul, torch.cat([h_u, ul.pop()], 1))
            if s < len(self.grow_u):
                h_u, h_ul = self.grow_u[s](h_u), self.grow_ul[s](h_ul)
        return self.out(functional.elu(h_ul))

    def split(self, outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, means, log-scales and coefficients, (batch, rows, height, width, mixtures)."""
        channels, mixtures = self.config.event_shape[2], self.config.mixtures
        n, _, height, width = outputs.shape
        rows = outputs.reshape(n, -1, mixtures, height, width).permute(0, 1, 3, 4, 2)
        logits, means, log_scales, coefficients = rows.split(
            [1, channels, channels, rows.shape[1] - 1 - 2 * channels], dim=1
        )
        return logits[:, 0], means, log_scales.clamp(min=-7.0), torch.tanh(coefficients)

    def log_prob(self, k: torch.Tensor) -> torch.Tensor:
        half = (self.config.levels - 1) / 2
        x = k / half - 1
        logits, means, log_scales, coefficients = self.split(self(x))
        total, pair = torch.log_softmax(logits, -1), 0
        for c in range(x.shape[1]):
            mean = means[:, c]
            for d in range(c):
                mean = mean + coefficients[:, pair] * x[:, d, :, :, None]
                pair += 1
            centered, inverse = x[:, c, :, :, None] - mean, torch.exp(-log_scales[:, c])
            upper, lower = inverse * (centered + 0.5 / half), inverse * (centered - 0.5 / half)
            difference, middle = torch.sigmoid(upper) - torch.sigmoid(lower), inverse * centered
            density = middle - log_scales[:, c] - 2 * functional.softplus(middle) - np.log(half)
            inner = torch.where(difference > 1e-5, torch.log(difference.clamp(min=1e-12)), density)
            ends = torch.where(
                k[:, c, :, :, None] > 2 * half - 0.5, -functional.softplus(lower), inner
            )
            total = total + torch.where(
                k[:, c, :, :, None] < 0.5, -functional.softplus(-upper), ends
            )
        return torch.logsumexp(total, -1).sum((1, 2))

    def draw(self, outputs: torch.Tensor) -> torch.Tensor:
        """Every pixel given the image behind ``outputs``, on [-1, 1]."""
        logits, means, log_scales, coefficients = self.split(outputs)
        gumbel = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-5, 1 - 1e-5)))
        best = (logits + gumbel).argmax(-1, keepdim=True)
        values, pair, half = [], 0, (self.config.levels - 1) / 2
        for c in range(means.shape[1]):
            mean = means[:, c].gather(-1, best)[..., 0]
            for value in values:
                mean = mean + coefficients[:, pair].gather(-1, best)[..., 0] * value
                pair += 1
            u = torch.rand_like(mean).clamp(1e-5, 1 - 1e-5)
            value = mean + torch.exp(log_scales[:, c].gather(-1, best)[..., 0]) * (
                torch.log(u) - torch.log1p(-u)
            )
            values.append((torch.round((value.clamp(-1, 1) + 1) * half)) / half - 1)
        return torch.stack(values, 1)


# Timing


Work = Callable[[], object]


def ours(config: lj.models.PixelCNNConfig, x: np.ndarray) -> tuple[Work, Work, int]:
    """A step of Adam and a ``log_prob`` in likejax, and the number of parameters."""
    density = lj.build(config, key=0)
    structure, params, fixed = split(density)
    rule, keys = optax.adam(1e-3), lj.example_keys(2, range(len(x)))
    state = jax.tree.map(jnp.copy, params), rule.init(params)

    @functools.partial(jax.jit, donate_argnums=0)  # as in training
    def step(state, x):
        def loss(params):
            return -merge(structure, params, fixed).terms(x, key=keys).log_prob.mean() / x[0].size

        params, moments = state
        updates, moments = rule.update(jax.grad(loss)(params), moments)
        return optax.apply_updates(params, updates), moments

    def train() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, x))

    def score() -> None:
        jax.block_until_ready(density.log_prob(x))

    return train, score, sum(leaf.size for leaf in params.values())


def theirs(
    config: lj.models.PixelCNNConfig, x: np.ndarray, *, is_compiled: bool = False
) -> tuple[Work, Work, int]:
    """A step of Adam and a ``log_prob`` in PyTorch, and the number of parameters."""
    torch.manual_seed(0)
    model = PixelCNN(config)
    log_prob = torch.compile(model.log_prob) if is_compiled else model.log_prob
    rule = torch.optim.Adam(model.parameters(), 1e-3)
    data = torch.as_tensor(x.transpose(0, 3, 1, 2).copy()).float()

    def train() -> None:
        rule.zero_grad()
        (-log_prob(data).mean() / data[0].numel()).backward()
        rule.step()

    def score() -> None:
        model.eval()
        with torch.no_grad():
            log_prob(data)
        model.train()

    return train, score, sum(p.numel() for p in model.parameters())


def training(
    preset: str, batch_size: int, rounds: int, *, in_a_row: int, with_compile: bool
) -> dict[str, speed_record.Timing]:
    """Times a step of Adam and a ``log_prob`` of the same network on all sides."""
    config = lj.preset(preset).model
    x = (
        np.random.default_rng(0)
        .integers(0, config.levels, (batch_size, *config.event_shape))
        .astype(np.uint8)
    )
    sides = {
        "likejax": ours(config, x),
        "PyTorch": in_own_process(theirs, config, x),
    }
    if with_compile:
        sides["torch.compile"] = in_own_process(theirs, config, x, is_compiled=True)
    (size,) = {side[-1] for side in sides.values()}  # all have the same
    print(f"{preset}, batch {batch_size}, {size:,} parameters")
    timings = {}
    titles = {"training step": "training step (Adam)", "log_prob": "`log_prob`"}
    for index, (what, title) in enumerate(titles.items()):
        work = {name: side[index] for name, side in sides.items()}
        timings[f"`{preset}`: {title}"] = compare(what, work, rounds, in_a_row=in_a_row)
    return timings


def sampler_seconds(density: lj.models.PixelCNN, batch: int) -> float:
    """Seconds for a batch of images, compiled before."""
    keys = [jax.random.key(i) for i in range(2)]
    jax.block_until_ready(density.sample(keys[0], batch))
    return timed(lambda: jax.block_until_ready(density.sample(keys[1], batch)))


def naive_seconds(density: lj.models.PixelCNN, batch: int, count: int) -> float:
    """Seconds of one network run and one draw for ``count`` spaced pixels, scaled to all.

    A host loop over the compiled round that the naive sampler repeats: the loop itself costs
    nothing beside it.
    """
    height, width, _ = density.event_shape
    task = sampling.Task(
        np.zeros((batch, *density.event_shape), np.uint8),
        0,
        jax.vmap(lambda key: sampling.draw_noise(key, density.event_shape, density.mixtures))(
            lj.example_keys(0, range(batch))
        ),
        None,
        1.0,
    )
    folded = replace(density, network=fold_weights(density.network))
    one = lambda x, noise: sampling._sweep(folded, folded.network, task._replace(noise=noise), x)  # noqa: E731
    sweep = jax.jit(jax.vmap(one))
    x = jax.block_until_ready(sweep(task.x, task.noise))
    pixels = np.linspace(0, height * width - 1, count).astype(int)
    start = time.perf_counter()
    for pixel in pixels:
        i, j = divmod(int(pixel), width)
        x = x.at[:, i, j].set(sweep(x, task.noise)[:, i, j])
    jax.block_until_ready(x)
    return (time.perf_counter() - start) * height * width / len(pixels)


def torch_naive_seconds(config: lj.models.PixelCNNConfig, batch: int, count: int) -> float:
    """The plain PyTorch sampler, on the same pixels."""
    height, width, channels = config.event_shape
    model = PixelCNN(config).eval()
    x = torch.zeros(batch, channels, height, width)
    pixels = np.linspace(0, height * width - 1, count).astype(int)
    with torch.no_grad():
        model(x)
        start = time.perf_counter()
        for pixel in pixels:
            i, j = divmod(int(pixel), width)
            x[:, :, i, j] = model.draw(model(x))[:, :, i, j]
    return (time.perf_counter() - start) * height * width / len(pixels)


def samplers(config: lj.models.PixelCNNConfig, batches: list[int], count: int) -> None:
    density = lj.build(config, key=0)
    noise = (
        np.random.default_rng(0)
        .integers(0, config.levels, (16, *config.event_shape))
        .astype(np.uint8)
    )
    density = density.initialize(noise, 1)
    print(f"sampling {config.event_shape}, {config.filters} filters, {config.blocks} blocks")
    for batch in batches:
        cached = sampler_seconds(density, batch)
        naive = naive_seconds(density, batch, count)
        plain = torch_naive_seconds(config, batch, count)
        print(
            f"{batch:3} images: cached {cached:8.2f} s ({cached / batch:.3f} s an image); "
            f"naive {naive:9.1f} s (extrapolated), ratio {naive / cached:.0f}; "
            f"PyTorch naive {plain:9.1f} s (extrapolated), ratio "
            f"{plain / cached:.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="pixelcnn/fashion_mnist-small")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--in-a-row", type=int, default=5, help="steps of a round")
    parser.add_argument(
        "--compile", action="store_true", help="also time PyTorch's network under torch.compile"
    )
    parser.add_argument(
        "--sampling", action="store_true", help="time the samplers at 32x32x3 instead"
    )
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--naive-pixels", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    speed_record.add_option(parser)
    arguments = parser.parse_args()
    lj.memory.keep_freed()  # as on the command line
    put_torch_on_gpu()
    torch.manual_seed(0)
    print(
        f"{platform.processor() or 'cpu'}, jax {jax.__version__} ({jax.default_backend()}), "
        f"torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    if arguments.sampling:
        config = lj.models.PixelCNNConfig(filters=arguments.filters, blocks=arguments.blocks)
        samplers(config, arguments.batches, arguments.naive_pixels)
        return
    timings = training(
        arguments.preset,
        arguments.batch_size,
        arguments.rounds,
        in_a_row=arguments.in_a_row,
        with_compile=arguments.compile,
    )
    if arguments.record:
        speed_record.keep("pixelcnn_speed", timings)


if __name__ == "__main__":
    main()

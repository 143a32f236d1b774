"""A diffusion model in likejax against the same network in plain PyTorch: step, bound, samples.

One run, all sides alternating, medians and ratios; PyTorch in a process of its own, as its users
run it. The small preset and the paper's network of CIFAR-10:

    python benchmarks/vdm.py [--compile]
    python benchmarks/vdm.py --preset vdm/cifar10 --batch 4 --rounds 4 --in-a-row 1

The PyTorch side gets likejax's weights first, moved a little so that no layer is zero, and both
predictions of the same noisy images are compared. A draw of the bound has 8 times; samples take 20
ancestral steps. Needs ``pip install -e '.[benchmarks]'``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import platform

import jax
import numpy as np
import speed_record
import torch
from bound_sides import Side, compared, our_side
from side_by_side import in_own_process, put_torch_on_gpu
from torch import nn
from torch.nn import functional

import likejax as lj
from likejax.models.diffusion.network import Block, Layer, Level, ScoreNetwork
from likejax.models.diffusion.schedule import ImportanceSchedule, LinearSchedule
from likejax.nn.group_norm import GroupNorm
from likejax.nn.repeat import Blocks
from likejax.nn.state import merge, split

TIMES = 8
STEPS = 20

# PyTorch, written plainly after the official code


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(np.array(values, np.float32))


def convolution(layer: Layer) -> nn.Conv2d:
    kernel = tensor(layer.kernel[...]).permute(3, 2, 0, 1).contiguous()
    features, channels, size, _ = kernel.shape
    own = nn.Conv2d(channels, features, size, layer.stride, size // 2)
    assert layer.bias is not None
    assert own.bias is not None
    with torch.no_grad():
        own.weight.copy_(kernel)
        own.bias.copy_(tensor(layer.bias[...]))
    return own


def dense(layer: Layer) -> nn.Linear:
    kernel = tensor(layer.kernel[...])[0, 0]
    linear = nn.Linear(*kernel.shape, bias=layer.bias is not None)
    with torch.no_grad():
        linear.weight.copy_(kernel.T)
        if layer.bias is not None:
            linear.bias.copy_(tensor(layer.bias[...]))
    return linear


def normalization(norm: GroupNorm) -> nn.GroupNorm:
    scale = tensor(norm.scale[...])
    own = nn.GroupNorm(norm.groups, len(scale), norm.epsilon)
    with torch.no_grad():
        own.weight.copy_(scale)
        own.bias.copy_(tensor(norm.bias[...]))
    return own


class TorchBlock(nn.Module):
    def __init__(self, block: Block):
        super().__init__()
        inside, attention = block.residual, block.attention
        self.norm1, self.norm2 = normalization(inside.norm1), normalization(inside.norm2)
        self.conv1, self.conv2 = convolution(inside.conv1), convolution(inside.conv2)
        self.project = dense(inside.project)
        self.skip = nn.Identity() if inside.skip is None else convolution(inside.skip)
        self.dropout = nn.Dropout(inside.dropout_rate)
        self.norm3 = None
        if attention is not None:
            self.norm3 = normalization(attention.norm)
            layers = (attention.query, attention.key, attention.value)
            self.parts = nn.ModuleList(convolution(layer) for layer in layers)
            self.out = convolution(attention.project)

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        change = self.conv1(functional.silu(self.norm1(h)))
        change = change + self.project(embedding)[:, :, None, None]
        change = self.conv2(self.dropout(functional.silu(self.norm2(change))))
        h = self.skip(h) + change
        if self.norm3 is None:
            return h
        normed = self.norm3(h)
        query, key, value = (part(normed).flatten(2).transpose(1, 2) for part in self.parts)
        seen = functional.scaled_dot_product_attention(query, key, value)
        return h + self.out(seen.transpose(1, 2).reshape(h.shape))


def torch_blocks(blocks: Blocks | None) -> nn.ModuleList:
    """The blocks of a repetition, or none."""
    if blocks is None:
        return nn.ModuleList()
    return nn.ModuleList(TorchBlock(blocks.at(i)) for i in range(blocks.length))


class TorchLevel(nn.Module):
    def __init__(self, level: Level):
        super().__init__()
        self.down, self.up = torch_blocks(level.down), torch_blocks(level.up)
        self.merge = TorchBlock(level.merge)
        self.below = None
        if level.below is None:
            assert level.first is not None
            assert level.last is not None
            self.first, self.last = TorchBlock(level.first), TorchBlock(level.last)
        else:
            assert level.shrink is not None
            assert level.grow is not None
            self.below = TorchLevel(level.below)
            self.shrink, self.grow = convolution(level.shrink), convolution(level.grow)

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        skips = []
        for block in self.down:
            skips.append(h)
            h = block(h, embedding)
        if self.below is None:
            inside = self.last(self.first(h, embedding), embedding)
        else:
            small = self.below(self.shrink(h), embedding)
            inside = self.grow(functional.interpolate(small, scale_factor=2, mode="nearest"))
        h = self.merge(torch.cat([inside, h], 1), embedding)
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            h = block(torch.cat([h, skip], 1), embedding)
        return h


def into_patches(x: torch.Tensor, side: int) -> torch.Tensor:
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // side, side, width // side, side)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, height // side, width // side)


def out_of_patches(x: torch.Tensor, side: int) -> torch.Tensor:
    n, more, rows, columns = x.shape
    x = x.reshape(n, side, side, more // side**2, rows, columns)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, rows * side, columns * side)


def over_images(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


class TorchVDM(nn.Module):
    """The network, the bound and the ancestral sampler, with the weights of a likejax density."""

    def __init__(self, density: lj.models.VDM):
        super().__init__()
        network, schedule = density.denoiser, density.schedule
        assert isinstance(network, ScoreNetwork)
        self.levels, self.velocity = density.levels, density.settings.prediction == "velocity"
        self.ends, self.width = network.ends, network.time.width
        self.fading, self.patch = network.fading, network.patch
        self.register_buffer("factors", 2 * math.pi * tensor(network.frequencies))
        half = self.width // 2
        periods = np.exp(-math.log(10_000) * np.arange(half) / (half - 1))
        self.register_buffer("periods", tensor(1_000 * periods))
        self.time1, self.time2 = dense(network.time.first), dense(network.time.second)
        self.first, self.last = convolution(network.first), convolution(network.last)
        self.level, self.norm = TorchLevel(network.level), normalization(network.norm)
        self.offset = self.slope = None
        if isinstance(schedule, LinearSchedule):
            self.offset = nn.Parameter(tensor(schedule.offset[...]))
            self.slope = nn.Parameter(tensor(schedule.slope[...]))
        elif not isinstance(schedule, ImportanceSchedule):
            raise TypeError(f"expected a linear schedule or importance, got {schedule!r}")

    def gamma_and_rate(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.offset is not None and self.slope is not None:
            slope = self.slope.abs()
            return self.offset + slope * t, slope.expand(t.shape)
        start, end = (np.logaddexp(0, -each) for each in self.ends)
        exponent = start - (start - end) * t
        rest = torch.expm1(exponent)
        return -torch.log(rest), (start - end) * torch.exp(exponent) / rest

    def predict(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        start, end = self.ends
        angles = ((gamma - start) / (end - start))[:, None] * self.periods
        seen = torch.cat([angles.sin(), angles.cos(), torch.zeros_like(angles[:, :1])], 1)
        embedding = functional.silu(self.time2(functional.silu(self.time1(seen))))
        h = self.first(into_patches(self.features(z, gamma), self.patch))
        h = functional.silu(self.norm(self.level(h, embedding)))
        return z + out_of_patches(self.last(h), self.patch)

    def features(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        factors = self.factors[:, None, None]
        angles, remains = z[:, :, None] * factors, torch.ones(())
        if self.fading:
            noise = gamma.exp()[:, None, None, None, None]
            angles = angles * torch.sqrt(1 + noise)
            remains = torch.exp(-0.5 * factors**2 * noise)
        sines, cosines = angles.sin() * remains, angles.cos() * remains
        return torch.cat([z, sines.flatten(1, 2), cosines.flatten(1, 2)], 1)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * (x + 0.5) / self.levels - 1

    def reconstruction(self, y: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        u = y + torch.exp(0.5 * gamma) * torch.randn_like(y)
        centers = self.embed(torch.arange(self.levels))
        logits = -0.5 * torch.exp(-gamma) * (u[..., None] - centers) ** 2
        own = -0.5 * torch.exp(-gamma) * (u - y) ** 2
        return (own - torch.logsumexp(logits, -1)).flatten(1).sum(1)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The bound of images at ``times``, ``(points, images)``."""
        y = self.embed(x)
        (start, end), _ = self.gamma_and_rate(torch.tensor([0.0, 1.0]))
        excess = torch.sigmoid(end) - 1 + functional.softplus(-end)
        prior = 0.5 * (torch.sigmoid(-end) * y**2 + excess).flatten(1).sum(1)
        gamma, rate = self.gamma_and_rate(times.flatten())
        y_each = y.repeat(len(times), 1, 1, 1)
        noise = torch.randn_like(y_each)
        a, s = self.alpha_and_sigma(gamma)
        prediction = self.predict(a * y_each + s * noise, gamma)
        if self.velocity:
            target, scale = a * noise - s * y_each, torch.sigmoid(-gamma)
        else:
            target, scale = noise, torch.ones_like(gamma)
        errors = (target - prediction).square().flatten(1).sum(1)
        diffusion = (0.5 * rate * scale * errors).reshape(times.shape).mean(0)
        return self.reconstruction(y, start) - prior - diffusion

    def alpha_and_sigma(self, gamma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gamma = over_images(gamma)
        return torch.sqrt(torch.sigmoid(-gamma)), torch.sqrt(torch.sigmoid(gamma))

    def sample(self, shape: torch.Size) -> torch.Tensor:
        z = torch.randn(shape)
        gammas, _ = self.gamma_and_rate(torch.linspace(1, 0, STEPS + 1))
        for late, early in itertools.pairwise(gammas):
            each = late.expand(shape[0])
            prediction = self.predict(z, each)
            a, s = self.alpha_and_sigma(each)
            noise = a * prediction + s * z if self.velocity else prediction
            a_early, s_early = self.alpha_and_sigma(early.expand(shape[0]))
            c = -torch.expm1(early - late)
            z = a_early / a * (z - s * c * noise) + s_early * torch.sqrt(c) * torch.randn_like(z)
        u = (z / a_early + 1) * self.levels / 2
        return u.floor().clamp(0, self.levels - 1)


def in_torch(peer: TorchVDM, x: torch.Tensor, *, is_compiled: bool = False) -> Side:
    """A step of Adam, a bound and samples in PyTorch."""
    bound = torch.compile(peer) if is_compiled else peer
    predict = peer.predict
    optimizer = torch.optim.Adam(peer.parameters(), 2e-4)
    spread = torch.arange(len(x)) / len(x)

    def step() -> None:
        optimizer.zero_grad()
        times = (torch.rand(()) + spread) % 1
        (-bound(x, times[None]).mean()).backward()
        optimizer.step()

    def evaluate() -> None:
        peer.eval()
        with torch.no_grad():
            bound(x, (torch.rand(len(x)) + torch.arange(TIMES)[:, None]) / TIMES)
        peer.train()

    def sample() -> None:
        peer.eval()
        peer.predict = torch.compile(predict) if is_compiled else predict
        with torch.no_grad():
            peer.sample(x.shape)
        peer.predict = predict
        peer.train()

    return step, evaluate, sample


def build(config: lj.models.VDMConfig) -> lj.models.VDM:
    """The density with weights moved a little: some layers begin at zero."""
    density = lj.build(config, key=0)
    assert isinstance(density, lj.models.VDM)
    density = density.with_sampler(lj.models.DiffusionSampler(steps=STEPS))
    structure, params, fixed = split(density)
    rng = np.random.default_rng(1)
    moved = {
        name: value + 0.02 * rng.normal(size=value.shape).astype(np.float32)
        if name.startswith("denoiser")
        else value
        for name, value in params.items()
    }
    return merge(structure, moved, fixed)


def channels_first(x: np.ndarray) -> torch.Tensor:
    return tensor(x).permute(0, 3, 1, 2).contiguous()


def theirs(
    config: lj.models.VDMConfig, x: np.ndarray, threads: int, *, is_compiled: bool = False
) -> Side:
    """The PyTorch side of a network with likejax's weights."""
    torch.set_num_threads(threads)
    return in_torch(TorchVDM(build(config)), channels_first(x), is_compiled=is_compiled)


def difference(density: lj.models.VDM) -> float:
    """How far the two predictions of the same noisy images are apart, relative to their size."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(2, *density.event_shape)).astype(np.float32)
    gamma = np.float32([-9.0, 2.0])
    ours = np.asarray(jax.jit(lambda z, gamma: density.denoiser(z, gamma))(z, gamma))
    with torch.no_grad():
        peer = TorchVDM(density).eval()
        same = peer.predict(channels_first(z), tensor(gamma)).permute(0, 2, 3, 1).cpu().numpy()
    return float(np.abs(ours - same).max() / np.abs(same - z).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="vdm/fashion_mnist-small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--in-a-row", type=int, default=5, help="calls of a round")
    parser.add_argument(
        "--compile", action="store_true", help="also time PyTorch's network under torch.compile"
    )
    parser.add_argument("--threads", type=int, default=2)
    speed_record.add_option(parser)
    arguments = parser.parse_args()
    lj.memory.keep_freed()  # as on the command line
    put_torch_on_gpu()
    torch.set_num_threads(arguments.threads)
    versions = f"jax {jax.__version__}, torch {torch.__version__}"
    print(
        f"{platform.processor() or platform.machine()}, {versions}; "
        f"{arguments.preset}, batch {arguments.batch}"
    )
    config = lj.preset(arguments.preset).model
    rng = np.random.default_rng(0)
    shape = (arguments.batch, *config.event_shape)
    x = rng.integers(0, config.levels, shape).astype(np.uint8)
    density = build(config)
    print(f"predictions of one noise agree to {difference(density):.1e} of their size")

    sides = {
        "likejax": our_side(density, x, 2e-4),
        "PyTorch": in_own_process(theirs, config, x, arguments.threads),
    }
    if arguments.compile:
        sides["torch.compile"] = in_own_process(
            theirs, config, x, arguments.threads, is_compiled=True
        )
    network = f"`{arguments.preset}`, batch {arguments.batch}"
    timings = compared(network, sides, arguments.rounds, in_a_row=arguments.in_a_row)
    if arguments.record:
        speed_record.keep("vdm_speed", timings)


if __name__ == "__main__":
    main()

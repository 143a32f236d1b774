"""Diffusion models of images, of vectors and of text in plain PyTorch, with likejax's weights.

They are written after the official code: of variational diffusion models for images and vectors,
and of Plaid for text, which runs the first pass of its self-conditioning without gradients, and in
training for every fourth example alone. ``benchmarks/vdm.py`` compares them with likejax.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import likejax as lj
from likejax.models.diffusion.embedding import LevelEmbedding, RealEmbedding
from likejax.models.diffusion.network import Block, Layer, Level, ScoreNetwork, TimeEmbedding
from likejax.models.diffusion.schedule import (
    FixedSchedule,
    ImportanceSchedule,
    LinearSchedule,
    MonotoneSchedule,
)
from likejax.models.diffusion.sequence_network import Modulated, SequenceBlock, SequenceNetwork
from likejax.models.diffusion.tokens import TokenEmbedding
from likejax.models.diffusion.vector_network import VectorBlock, VectorNetwork
from likejax.nn.group_norm import GroupNorm
from likejax.nn.repeat import Blocks

KEPT = 4
"""One of so many training examples sees the tokens of a first pass, as in Plaid."""

# Layers


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


class TorchTime(nn.Module):
    """The embedding of ``gamma``."""

    def __init__(self, time: TimeEmbedding, ends: tuple[float, float]):
        super().__init__()
        self.ends = ends
        half = time.width // 2
        periods = np.exp(-math.log(10_000) * np.arange(half) / (half - 1))
        self.register_buffer("periods", tensor(1_000 * periods))
        self.first, self.second = dense(time.first), dense(time.second)

    def forward(self, gamma: torch.Tensor) -> torch.Tensor:
        start, end = self.ends
        angles = ((gamma - start) / (end - start))[:, None] * self.periods
        seen = torch.cat([angles.sin(), angles.cos(), torch.zeros_like(angles[:, :1])], 1)
        return functional.silu(self.second(functional.silu(self.first(seen))))


# Networks, which return noises or velocities, or logits of tokens that get evidence


class ImageNetwork(nn.Module):
    def __init__(self, network: ScoreNetwork):
        super().__init__()
        self.fading, self.patch = network.fading, network.patch
        self.register_buffer("factors", 2 * math.pi * tensor(network.frequencies))
        self.time = TorchTime(network.time, network.ends)
        self.first, self.last = convolution(network.first), convolution(network.last)
        self.level, self.norm = TorchLevel(network.level), normalization(network.norm)

    def forward(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        h = self.first(into_patches(self.features(z, gamma), self.patch))
        h = functional.silu(self.norm(self.level(h, self.time(gamma))))
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


class TorchVectorBlock(nn.Module):
    def __init__(self, block: VectorBlock):
        super().__init__()
        self.first, self.second = dense(block.first), dense(block.second)
        self.project = dense(block.project)
        self.dropout = nn.Dropout(block.dropout_rate)

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        change = self.first(functional.silu(h)) + self.project(embedding)
        return h + self.second(self.dropout(functional.silu(change)))


class TorchVectorNetwork(nn.Module):
    def __init__(self, network: VectorNetwork):
        super().__init__()
        self.register_buffer("factors", 2 * math.pi * tensor(network.frequencies))
        self.time = TorchTime(network.time, network.ends)
        self.first, self.last = dense(network.first), dense(network.last)
        blocks = network.blocks
        count = 0 if blocks is None else blocks.length
        self.blocks = nn.ModuleList(TorchVectorBlock(blocks.at(i)) for i in range(count))

    def forward(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        angles = (z[:, :, None] * self.factors).flatten(1)
        embedding = self.time(gamma)
        h = self.first(torch.cat([z, angles.sin(), angles.cos()], 1))
        for block in self.blocks:
            h = block(h, embedding)
        return z + self.last(functional.silu(h))


class TorchModulated(nn.Module):
    def __init__(self, norm: Modulated):
        super().__init__()
        self.project = dense(norm.project)

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.project(embedding)[:, None].chunk(2, -1)
        return functional.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift


class TorchSequenceBlock(nn.Module):
    def __init__(self, block: SequenceBlock):
        super().__init__()
        self.norm1, self.norm2 = (
            TorchModulated(block.attention_norm),
            TorchModulated(block.dense_norm),
        )
        self.heads = block.attention.heads
        self.inputs, self.out = dense(block.attention.inputs), dense(block.attention.project)
        self.first, self.second = dense(block.first), dense(block.second)
        self.dropout = nn.Dropout(block.dropout_rate)

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        parts = self.inputs(self.norm1(h, embedding)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        h = h + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        change = functional.gelu(self.first(self.norm2(h, embedding)), approximate="tanh")
        return h + self.dropout(self.second(change))


class TorchSequenceNetwork(nn.Module):
    def __init__(self, network: SequenceNetwork):
        super().__init__()
        self.time = TorchTime(network.time, network.ends)
        self.first, self.estimate = dense(network.first), dense(network.estimate)
        self.positions = nn.Parameter(tensor(network.positions[...]))
        blocks = network.blocks
        self.blocks = nn.ModuleList(TorchSequenceBlock(blocks.at(i)) for i in range(blocks.length))
        self.norm, self.last = TorchModulated(network.norm), dense(network.last)

    def forward(self, z: torch.Tensor, gamma: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
        embedding = self.time(gamma)
        h = self.first(z) + self.positions
        seen = torch.zeros_like(evidence)
        rows = slice(None)
        if self.training:
            rows = slice(int(torch.randint(KEPT, ())), None, KEPT)
        with torch.no_grad():
            logits = self.once(h[rows], embedding[rows]) + evidence[rows]
            seen[rows] = torch.softmax(logits, -1)
        return self.once(h + self.estimate(math.sqrt(seen.shape[-1]) * seen), embedding)

    def once(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """One of the two passes."""
        for block in self.blocks:
            h = block(h, embedding)
        return self.last(self.norm(h, embedding))


def network_of(density: lj.models.VDM) -> nn.Module:
    denoiser = density.denoiser
    if isinstance(denoiser, VectorNetwork):
        return TorchVectorNetwork(denoiser)
    if isinstance(denoiser, SequenceNetwork):
        return TorchSequenceNetwork(denoiser)
    assert isinstance(denoiser, ScoreNetwork)
    return ImageNetwork(denoiser)


# Schedules: gamma at times, and its derivative


class TorchLinear(nn.Module):
    def __init__(self, schedule: LinearSchedule | FixedSchedule):
        super().__init__()
        if isinstance(schedule, FixedSchedule):
            self.register_buffer("offset", tensor(schedule.start))
            self.register_buffer("slope", tensor(schedule.end - schedule.start))
        else:
            self.offset = nn.Parameter(tensor(schedule.offset[...]))
            self.slope = nn.Parameter(tensor(schedule.slope[...]))

    def forward(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slope = self.slope.abs()
        return self.offset + slope * t, slope.expand(t.shape)


class TorchImportance(nn.Module):
    def __init__(self, schedule: ImportanceSchedule):
        super().__init__()
        self.ends = [float(np.logaddexp(0, -each)) for each in (schedule.start, schedule.end)]

    def forward(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start, end = self.ends
        exponent = start - (start - end) * t
        rest = torch.expm1(exponent)
        return -torch.log(rest), (start - end) * torch.exp(exponent) / rest


class TorchMonotone(nn.Module):
    def __init__(self, schedule: MonotoneSchedule):
        super().__init__()
        self.offset = nn.Parameter(tensor(schedule.offset[...]))
        self.slope = nn.Parameter(tensor(schedule.slope[...]))
        self.inner = nn.Parameter(tensor(schedule.inner[...]))
        self.inner_bias = nn.Parameter(tensor(schedule.inner_bias[...]))
        self.outer = nn.Parameter(tensor(schedule.outer[...]))

    def forward(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slope, inner = self.slope.abs(), self.inner.abs()
        outer = self.outer.abs() / len(self.outer)
        hidden = torch.sigmoid(inner * (2 * t[:, None] - 1) + self.inner_bias)
        gamma = self.offset + slope * t + (2 * hidden - 1) @ outer
        return gamma, slope + 4 * (hidden * (1 - hidden)) @ (inner * outer)


def schedule_of(density: lj.models.VDM) -> nn.Module:
    schedule = density.schedule
    if isinstance(schedule, LinearSchedule | FixedSchedule):
        return TorchLinear(schedule)
    if isinstance(schedule, ImportanceSchedule):
        return TorchImportance(schedule)
    assert isinstance(schedule, MonotoneSchedule)
    return TorchMonotone(schedule)


# Embeddings: the points of data, their likelihood given a noisy point, and the way back


class TorchLevels(nn.Module):
    def __init__(self, embedding: LevelEmbedding):
        super().__init__()
        self.levels = embedding.levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * (x + 0.5) / self.levels - 1

    def log_prob(
        self, x: torch.Tensor, y: torch.Tensor, u: torch.Tensor, gamma: torch.Tensor
    ) -> torch.Tensor:
        logits = -0.5 * torch.exp(-gamma) * (u[..., None] - self(torch.arange(self.levels))) ** 2
        own = -0.5 * torch.exp(-gamma) * (u - y) ** 2
        return (own - torch.logsumexp(logits, -1)).flatten(1).sum(1)

    def nearest(self, u: torch.Tensor) -> torch.Tensor:
        return ((u + 1) * self.levels / 2).floor().clamp(0, self.levels - 1)


class TorchReals(nn.Module):
    def __init__(self, embedding: RealEmbedding):
        super().__init__()
        assert embedding.standardize is not None
        self.register_buffer("mean", tensor(embedding.standardize.mean[...]))
        self.register_buffer("std", tensor(embedding.standardize.std[...]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std

    def log_prob(
        self, x: torch.Tensor, y: torch.Tensor, u: torch.Tensor, gamma: torch.Tensor
    ) -> torch.Tensor:
        each = torch.exp(-gamma) * (y - u) ** 2 + gamma + math.log(2 * math.pi)
        return (-0.5 * each - torch.log(self.std)).sum(1)

    def nearest(self, u: torch.Tensor) -> torch.Tensor:
        return u * self.std + self.mean


class TorchTokens(nn.Module):
    def __init__(self, embedding: TokenEmbedding):
        super().__init__()
        self.table = nn.Parameter(tensor(embedding.table[...]))

    def vectors(self) -> torch.Tensor:
        return math.sqrt(self.table.shape[1]) * functional.normalize(self.table, dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.embedding(x, self.vectors())

    def logits(self, u: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        return (torch.exp(-gamma) * u) @ self.vectors().T

    def log_prob(
        self, x: torch.Tensor, y: torch.Tensor, u: torch.Tensor, gamma: torch.Tensor
    ) -> torch.Tensor:
        logits = self.logits(u, gamma).flatten(0, 1)
        return -functional.cross_entropy(logits, x.flatten(), reduction="none").view(x.shape).sum(1)

    def nearest(self, u: torch.Tensor) -> torch.Tensor:
        return self.logits(u, torch.zeros(())).argmax(-1)


def embedding_of(density: lj.models.VDM) -> nn.Module:
    embedding = density.embedding
    if isinstance(embedding, LevelEmbedding):
        return TorchLevels(embedding)
    if isinstance(embedding, RealEmbedding):
        return TorchReals(embedding)
    assert isinstance(embedding, TokenEmbedding)
    return TorchTokens(embedding)


# The model


class TorchVDM(nn.Module):
    """The bound and the ancestral sampler; images have their channels first."""

    def __init__(self, density: lj.models.VDM):
        super().__init__()
        settings = density.settings
        if settings.steps is not None or settings.augmentation != "none":
            raise ValueError(f"expected continuous time and no augmentation, got {settings}")
        self.prediction, self.gradient = settings.prediction, settings.schedule_gradient
        self.network, self.schedule = network_of(density), schedule_of(density)
        self.embedding = embedding_of(density)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The bound of examples at ``times``, ``(points, examples)``, with noises drawn anew."""
        like = self.embedding(x)
        noise = torch.randn(len(times) * len(x), *like.shape[1:])
        return self.bound(x, times, torch.randn_like(like), noise)

    def bound(
        self, x: torch.Tensor, times: torch.Tensor, first_noise: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """The bound for given noises: that of the reconstruction, and those of all times."""
        y = self.embedding(x)
        start, end = self.schedule(torch.tensor([0.0, 1.0]))[0]
        u = y + torch.exp(0.5 * start) * first_noise
        excess = torch.sigmoid(end) - 1 + functional.softplus(-end)
        prior = 0.5 * (torch.sigmoid(-end) * y**2 + excess).flatten(1).sum(1)
        gamma, rate = self.schedule(times.flatten())
        arriving: list[torch.Tensor] = []
        if self.gradient == "variance":
            gamma, rate = for_variance(gamma, rate, start, end, arriving)
        errors = self.errors(y.repeat(len(times), *[1] * (y.ndim - 1)), noise, gamma)
        losses = 0.5 * rate * errors
        arriving.append(losses.detach() / y[0].numel())
        diffusion = losses.reshape(times.shape).mean(0)
        return self.embedding.log_prob(x, y, u, start) - prior - diffusion

    def errors(self, y: torch.Tensor, noise: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        """``|eps - eps_hat|^2`` at each time."""
        a, s = alpha_and_sigma(gamma, y)
        z = a * y + s * noise
        output, scale = self.output(z, gamma), torch.ones_like(gamma)
        if self.prediction == "logits":
            difference, scale = output - y, torch.exp(-gamma)
        elif self.prediction == "velocity":
            difference, scale = a * noise - s * y - output, torch.sigmoid(-gamma)
        else:
            difference = noise - output
        return scale * difference.square().flatten(1).sum(1)

    def output(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        """The noise or velocity that the network sees, or the data of its logits."""
        if self.prediction != "logits":
            return self.network(z, gamma)
        a, _ = alpha_and_sigma(gamma, z)
        evidence = self.embedding.logits(z / a, gamma[:, None, None])
        logits = self.network(z, gamma, evidence) + evidence
        return torch.softmax(logits, -1) @ self.embedding.vectors()

    def noise_in(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        """The noise that the network sees."""
        a, s = alpha_and_sigma(gamma, z)
        output = self.output(z, gamma)
        if self.prediction == "logits":
            return (z - a * output) / s
        return a * output + s * z if self.prediction == "velocity" else output

    def sample(self, shape: torch.Size, steps: int) -> torch.Tensor:
        """Draws examples from points of this shape."""
        z = torch.randn(shape)
        gammas, _ = self.schedule(torch.linspace(1, 0, steps + 1))
        for late, early in itertools.pairwise(gammas):
            each = late.expand(len(z))
            seen = self.noise_in(z, each)
            (a, s), (a_early, s_early) = (
                alpha_and_sigma(g, z) for g in (each, early.expand(len(z)))
            )
            c = -torch.expm1(early - late)
            z = a_early / a * (z - s * c * seen) + s_early * torch.sqrt(c) * torch.randn_like(z)
        return self.embedding.nearest(z / a_early)


def alpha_and_sigma(gamma: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    gamma = gamma.reshape(-1, *[1] * (z.ndim - 1))
    return torch.sqrt(torch.sigmoid(-gamma)), torch.sqrt(torch.sigmoid(gamma))


def for_variance(
    gamma: torch.Tensor,
    rate: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    arriving: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """A schedule whose course between its ends reduces the variance of the losses.

    Hooks multiply the gradient of the course by twice the losses, which will be in ``arriving``.
    """
    course = [(gamma - start) / (end - start), rate / (end - start)]
    for each in course:
        if each.requires_grad:
            each.register_hook(lambda gradient: 2 * arriving[0] * gradient)
    fraction, fraction_rate = course
    return start + (end - start) * fraction, (end - start) * fraction_rate

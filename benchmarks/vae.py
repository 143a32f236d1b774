"""A hierarchical VAE in likejax against the same network in plain PyTorch: step, bound, samples.

One run, all sides alternating, medians and ratios; PyTorch in a process of its own, as its users
run it. The small preset and the paper's network:

    python benchmarks/vae.py [--compile]
    python benchmarks/vae.py --preset hvae/fashion_mnist --batch 16 --rounds 6

The PyTorch side gets likejax's weights first, and both bounds of the same noise are compared. Needs
``pip install -e '.[benchmarks]'``.
"""

from __future__ import annotations

import argparse
import math
import platform
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import speed_record
import torch
from bound_sides import Side, compared, our_side
from side_by_side import in_own_process, put_torch_on_gpu
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

import likejax as lj
from likejax.models.vae import VAE
from likejax.models.vae.network import ResidualBlock
from likejax.nn.weight_norm import WeightNormConvolution

# PyTorch, written plainly after the official code


class Convolution(nn.Module):
    """A weight-normalized convolution with the geometry and weights of a likejax layer."""

    def __init__(self, layer: WeightNormConvolution):
        super().__init__()
        direction, geometry = np.asarray(layer.direction[...]), layer.geometry
        rows, columns, channels, features = direction.shape
        (top, bottom), (left, right) = geometry.padding
        self.padding = (left, right, top, bottom)
        self.crop = geometry.crop
        if self.crop is None:
            convolution = nn.Conv2d(channels, features, (rows, columns), geometry.stride)
            weights, axis = direction.transpose(3, 2, 0, 1), 0
        else:
            convolution = nn.ConvTranspose2d(channels, features, (rows, columns), 2)
            weights, axis = direction.transpose(2, 3, 0, 1), 1
        self.convolution = weight_norm(convolution, dim=axis)
        shape = [1, 1, 1, 1]
        shape[axis] = features
        with torch.no_grad():
            parameters = self.convolution.parametrizations.weight
            parameters.original1.copy_(torch.as_tensor(weights.copy()))
            parameters.original0.copy_(torch.as_tensor(np.array(layer.scale[...]).reshape(shape)))
            self.convolution.bias.copy_(torch.as_tensor(np.array(layer.bias[...])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.crop is None:
            return self.convolution(functional.pad(x, self.padding))
        top, left = self.crop
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        return self.convolution(x)[:, :, top : top + height, left : left + width]


class Dense(nn.Module):
    """A weight-normalized dense layer with likejax weights; maps are flattened channels last."""

    def __init__(self, layer: WeightNormConvolution):
        super().__init__()
        direction = np.asarray(layer.direction[...])[0, 0]
        self.linear = weight_norm(nn.Linear(*direction.shape))
        with torch.no_grad():
            parameters = self.linear.parametrizations.weight
            parameters.original1.copy_(torch.as_tensor(direction.T.copy()))
            parameters.original0.copy_(torch.as_tensor(np.array(layer.scale[...])[:, None]))
            self.linear.bias.copy_(torch.as_tensor(np.array(layer.bias[...])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Block(nn.Module):
    def __init__(self, block: ResidualBlock):
        super().__init__()
        self.conv1, self.conv2 = Convolution(block.conv1), Convolution(block.conv2)
        self.aux = None if block.aux is None else Convolution(block.aux)
        self.first, self.residual, self.adds_aux = block.first, block.residual, block.adds_aux
        self.stride, self.channels = block.stride, block.channels
        (top, bottom), (left, right) = block.pooling
        self.pooling = (left, right, top, bottom)

    def forward(self, x: torch.Tensor, a: torch.Tensor | None) -> torch.Tensor:
        y = self.conv1(x if self.first else functional.relu(x))
        if self.adds_aux:
            y = y + (functional.relu(a) if self.aux is None else self.aux(functional.relu(a)))
        y = self.conv2(functional.relu(y))
        if not self.residual:
            return y
        missing = self.channels - x.shape[1]
        x = functional.pad(x, (0, 0, 0, 0, 0, missing)) if missing > 0 else x[:, : self.channels]
        if self.stride > 1:
            x = functional.avg_pool2d(functional.pad(x, self.pooling), 3, self.stride)
        return y + x


def moments(logits: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    mean, raw = logits.chunk(2, axis)
    return mean, functional.softplus(math.log(2) * raw).div(math.log(2)).clamp(min=1e-6)


class Gaussian(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.dense = layer.dense
        self.layer = Dense(layer.layer) if layer.dense else Convolution(layer.layer)

    def forward(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = functional.relu(h)
        if self.dense:
            return moments(self.layer(h.permute(0, 2, 3, 1).flatten(1)), 1)
        return moments(self.layer(h), 1)


class TorchVAE(nn.Module):
    """The bottom-up, ungated network with a Bernoulli likelihood."""

    def __init__(self, density: VAE):
        super().__init__()
        up, down = density.inference, density.generation
        self.up = nn.ModuleList(nn.ModuleList(Block(b) for b in stage.blocks) for stage in up)
        self.down = nn.ModuleList(nn.ModuleList(Block(b) for b in stage.blocks) for stage in down)
        self.posteriors = nn.ModuleList(Gaussian(stage.posterior) for stage in up)
        self.priors = nn.ModuleList(Gaussian(stage.prior_layer) for stage in down[:-1])
        self.to_next = nn.ModuleList(
            nn.Identity() if s.to_map is None else Dense(s.to_map) for s in up
        )
        self.to_map = nn.ModuleList(
            nn.Identity() if s.to_map is None else Dense(s.to_map) for s in down
        )
        self.dense = [s.to_map is not None for s in down]
        self.shapes = [s.shape for s in up]
        self.likelihood = Convolution(density.likelihood.layer)

    def spread(self, v: torch.Tensor, i: int) -> torch.Tensor:
        return v.reshape(-1, *self.shapes[i]).permute(0, 3, 1, 2)

    def forward(self, x: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        lower, skip, latents, depth = x, None, [], len(self.up)
        for i in range(depth):
            h = lower
            for block in self.up[i]:
                h = block(h, skip)
            mean, std = self.posteriors[i](h)
            latents.append((mean + std * noise[i], std))
            if i < depth - 1:
                z = latents[i][0]
                lower, skip = (self.spread(self.to_next[i](z), i) if self.dense[i] else z), h
        d, queue, kl = None, [], 0.0
        for i in reversed(range(depth)):
            z, std = latents[i]
            mean, prior_std = self.prior(i, d, z)
            log_ratio = (
                0.5 * (((z - mean) / prior_std) ** 2 - noise[i] ** 2) + prior_std.log() - std.log()
            )
            kl = kl + log_ratio.flatten(1).sum(1)
            d = self.generate(i, z, queue)
        logits = self.likelihood(functional.relu(d))
        reconstruction = (
            -functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
            .flatten(1)
            .sum(1)
        )
        return reconstruction - kl

    def prior(
        self, i: int, d: torch.Tensor | None, like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if d is None:
            return torch.zeros_like(like), torch.ones_like(like)
        return self.priors[i](d)

    def generate(self, i: int, z: torch.Tensor, queue: list[torch.Tensor]) -> torch.Tensor:
        d = self.spread(self.to_map[i](z), i) if self.dense[i] else z
        for block in self.down[i]:
            d = block(d, queue.pop(0) if queue and i < len(self.up) - 1 else None)
            queue.append(d)
        return d

    def sample(self, noise: list[torch.Tensor]) -> torch.Tensor:
        d, queue = None, []
        for i in reversed(range(len(self.up))):
            mean, std = self.prior(i, d, noise[i])
            d = self.generate(i, mean + std * noise[i], queue)
        return torch.bernoulli(torch.sigmoid(self.likelihood(functional.relu(d))))


def in_torch(
    peer: TorchVAE, x: torch.Tensor, noise: list[torch.Tensor], *, is_compiled: bool = False
) -> Side:
    """A step of Adam, a bound and samples in PyTorch, with noise of the given shapes drawn anew."""
    bound = torch.compile(peer) if is_compiled else peer
    draw = torch.compile(peer.sample) if is_compiled else peer.sample
    optimizer = torch.optim.Adam(peer.parameters(), 3e-4)

    def step() -> None:
        optimizer.zero_grad()
        (-bound(x, [torch.randn_like(eps) for eps in noise]).mean()).backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.no_grad():
            bound(x, [torch.randn_like(eps) for eps in noise])

    def sample() -> None:
        with torch.no_grad():
            draw([torch.randn_like(eps) for eps in noise])

    return step, evaluate, sample


def build(config: lj.models.VAEConfig, x: np.ndarray) -> VAE:
    density = lj.build(config, key=0).initialize(x, 1)
    assert isinstance(density, VAE)
    return density


def draw_noise(density: VAE, count: int) -> Any:
    return jax.vmap(density.draw_noise)(lj.example_keys(2, range(count)))


def to_torch(x: np.ndarray, noise: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Images and noise of the latents with channels first."""
    images = torch.as_tensor(x.astype(np.float32).transpose(0, 3, 1, 2).copy())
    latents = [
        torch.as_tensor(np.array(np.moveaxis(eps, -1, 1) if eps.ndim == 4 else eps).copy())
        for eps in noise.posterior
    ]
    return images, latents


def theirs(
    config: lj.models.VAEConfig, x: np.ndarray, threads: int, *, is_compiled: bool = False
) -> Side:
    """The PyTorch side of a network with likejax's weights."""
    torch.set_num_threads(threads)
    density = build(config, x)
    images, noise = to_torch(x, draw_noise(density, len(x)))
    return in_torch(TorchVAE(density), images, noise, is_compiled=is_compiled)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="hvae/fashion_mnist-small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
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
    x = (
        np.random.default_rng(0)
        .integers(0, 2, (arguments.batch, *config.event_shape))
        .astype(np.uint8)
    )
    density = build(config, x)
    noise = draw_noise(density, len(x))
    peer = TorchVAE(density)
    their_x, their_noise = to_torch(x, noise)
    bound = jax.jit(lambda density, x, noise: density.weights(density.run(x, noise), x))
    ours = np.asarray(bound(density, jnp.asarray(x), noise))
    with torch.no_grad():
        same = peer(their_x, their_noise).cpu().numpy()
    print(
        "bounds of one noise agree to "
        f"{np.max(np.abs(ours - same) / np.abs(same)):.1e} of their size"
    )

    sides = {
        "likejax": our_side(density, x, 3e-4),
        "PyTorch": in_own_process(theirs, config, x, arguments.threads),
    }
    if arguments.compile:
        sides["torch.compile"] = in_own_process(
            theirs, config, x, arguments.threads, is_compiled=True
        )
    network = f"`{arguments.preset}`, batch {arguments.batch}"
    timings = compared(network, sides, arguments.rounds)
    if arguments.record:
        speed_record.keep("hvae_speed", timings)


if __name__ == "__main__":
    main()

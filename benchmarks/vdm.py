"""Diffusion models in likejax against the same networks in plain PyTorch: step, bound, samples.

One run, all sides alternating, medians and ratios; PyTorch in a process of its own, as its users
run it. Images with the small preset and the paper's network of CIFAR-10, points, a table of 43
columns, text, and text with a network of the size of the official code's:

    python benchmarks/vdm.py [--compile]
    python benchmarks/vdm.py --preset vdm/cifar10 --batch 4 --rounds 4 --in-a-row 1
    python benchmarks/vdm.py --preset vdm/moons
    python benchmarks/vdm.py --preset vdm/moons --set dimensions=43 width=512 --batch 256
    python benchmarks/vdm.py --preset vdm/tinyshakespeare
    python benchmarks/vdm.py --preset vdm/tinyshakespeare --set length=256 width=384 heads=6 \
        blocks=16 --batch 2 --rounds 4 --in-a-row 1

The PyTorch side gets likejax's weights first, moved a little so that no layer is zero. What both
networks say of the same noisy points is compared, and the bounds of the same noises. A draw of the
bound has 8 times; samples take 20 ancestral steps. Needs ``pip install -e '.[benchmarks]'``.
"""

from __future__ import annotations

import argparse
import ast
import platform
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import speed_record
import torch
from bound_sides import Side, compared, our_side
from first_steps import examples_of
from side_by_side import in_own_process, put_torch_on_gpu
from vdm_torch import TorchVDM, tensor

import likejax as lj
from likejax.models.diffusion.density import BoundNoises
from likejax.nn.state import merge, split

TIMES = 8
STEPS = 20
RATE = 2e-4


def in_torch(peer: TorchVDM, x: torch.Tensor, *, is_compiled: bool = False) -> Side:
    """A step of Adam, a bound and samples in PyTorch."""
    bound = torch.compile(peer) if is_compiled else peer
    network = peer.network
    optimizer = torch.optim.Adam(peer.parameters(), RATE)
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
        peer.network = torch.compile(network) if is_compiled else network
        with torch.no_grad():
            peer.sample(peer.embedding(x).shape, STEPS)
        peer.network = network
        peer.train()

    return step, evaluate, sample


def title(preset: str, changes: Sequence[str]) -> str:
    """The name of a network in a table."""
    return f"`{preset}` with {' '.join(changes)}" if changes else f"`{preset}`"


def configured(preset: str, changes: Sequence[str]) -> lj.models.VDMConfig:
    """The model of a preset with changes such as ``width=512``."""
    pairs = (change.split("=", 1) for change in changes)
    values = {f"model.{name}": ast.literal_eval(value) for name, value in pairs}
    return lj.preset(preset).override(values).model


def build(config: lj.models.VDMConfig, batch: int) -> tuple[lj.models.VDM, np.ndarray]:
    """Examples, and a density with weights moved a little: some layers begin at zero."""
    density = lj.build(config, key=0)
    assert isinstance(density, lj.models.VDM)
    density = density.with_sampler(lj.models.DiffusionSampler(steps=STEPS))
    x = examples_of(density, batch)
    structure, params, fixed = split(density.initialize(x, 1))
    rng = np.random.default_rng(1)
    moved = {
        name: value + 0.02 * rng.normal(size=value.shape).astype(np.float32)
        if name.startswith("denoiser")
        else value
        for name, value in params.items()
    }
    return merge(structure, moved, fixed), x


def to_torch(x: np.ndarray) -> torch.Tensor:
    """Points as PyTorch takes them: those of images, which have four axes, with channels first."""
    points = tensor(x)
    return points.permute(0, 3, 1, 2).contiguous() if points.ndim == 4 else points


def examples_to_torch(density: lj.models.VDM, x: np.ndarray) -> torch.Tensor:
    """Images and vectors as floats, tokens as indices."""
    is_text = density.levels is not None and len(density.event_shape) == 1
    return torch.as_tensor(x.astype(np.int64)) if is_text else to_torch(x)


def theirs(
    config: lj.models.VDMConfig, batch: int, threads: int, *, is_compiled: bool = False
) -> Side:
    """The PyTorch side of a network with likejax's weights."""
    torch.set_num_threads(threads)
    density, x = build(config, batch)
    return in_torch(TorchVDM(density), examples_to_torch(density, x), is_compiled=is_compiled)


def differences(density: lj.models.VDM, x: np.ndarray) -> tuple[float, float]:
    """How far the noises that both networks see in the same points, and both bounds, are apart.

    Both are relative to the size of the largest.
    """
    x = x[:2]
    rng = np.random.default_rng(2)
    first, *noise = rng.normal(size=(3, len(x), *density.latent_shape)).astype(np.float32)
    noise = np.stack(noise)
    times = np.float32([[0.1, 0.3], [0.6, 0.9]])[:, : len(x)]

    @jax.jit
    def ours(density, x, first, noise, times):
        noises = BoundNoises(first, jnp.moveaxis(noise, 0, 1), times.T)
        bounds = jax.vmap(density.bound_of_noises)(x, noises).log_prob
        return density.predict(noise[0], density.schedule(times[0])).noise, bounds

    seen, bounds = (np.asarray(each) for each in ours(density, x, first, noise, times))
    peer = TorchVDM(density).eval()
    all_noise = to_torch(noise.reshape(-1, *density.latent_shape))
    with torch.no_grad():
        gamma, _ = peer.schedule(tensor(times[0]))
        same = peer.noise_in(to_torch(noise[0]), gamma)
        their_x = examples_to_torch(density, x)
        their_bounds = peer.bound(their_x, tensor(times), to_torch(first), all_noise)
    pairs = ((to_torch(seen), same), (tensor(bounds), their_bounds))
    of_noises, of_bounds = (
        float((own - other).abs().max() / own.abs().max()) for own, other in pairs
    )
    return of_noises, of_bounds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="vdm/fashion_mnist-small")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the model"
    )
    parser.add_argument("--batch", type=int, help="examples; by default as the preset trains")
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
    batch = arguments.batch or lj.preset(arguments.preset).batch_size
    versions = f"jax {jax.__version__}, torch {torch.__version__}"
    network = title(arguments.preset, arguments.set)
    print(f"{platform.processor() or platform.machine()}, {versions}; {network}, batch {batch}")
    config = configured(arguments.preset, arguments.set)
    density, x = build(config, batch)
    of_noises, of_bounds = differences(density, x)
    size = sum(leaf.size for leaf in split(density)[1].values())
    print(f"{size:,} parameters; noises seen in the same points agree to {of_noises:.1e} of their")
    print(f"size, bounds of the same noises to {of_bounds:.1e}")

    sides = {
        "likejax": our_side(density, x, RATE),
        "PyTorch": in_own_process(theirs, config, batch, arguments.threads),
    }
    if arguments.compile:
        sides["torch.compile"] = in_own_process(
            theirs, config, batch, arguments.threads, is_compiled=True
        )
    timings = compared(
        f"{network}, batch {batch}", sides, arguments.rounds, in_a_row=arguments.in_a_row
    )
    if arguments.record:
        speed_record.keep("vdm_speed", timings)


if __name__ == "__main__":
    main()

"""Weights of the official variational diffusion models as a likejax density."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from likejax.models.building import build
from likejax.models.diffusion import VDM, VDMConfig
from likejax.nn.repeat import for_backend, unstack
from likejax.reference.weights import check_names, fill

Names = Iterator[tuple[str, str]]
"""Pairs of a name in the density and the official name."""

_SCORE = "score_model"


def vdm(arrays: Mapping[str, np.ndarray], config: VDMConfig) -> VDM:
    """Makes a density of the weights of google-research/vdm.

    Args:
      arrays: Arrays by the official names with dots, ``score_model.down.block_0.conv1.kernel`` and
        ``gamma.l1.bias`` for example: the parameters of a checkpoint of the official code.
      config: Config of the same sizes, with one resolution.

    Returns:
      The density, of the same terms.

    Raises:
      ValueError: If arrays are missing, left over or of other shapes.

    References:
      Kingma, Salimans, Poole and Ho, 2021, Variational diffusion models, arXiv:2107.00630,
      official code.
    """
    density = unstack(build(config, key=jax.random.key(0)))
    names = dict([*_network(config), *_schedule(config)])
    check_names(arrays, names.values(), config=config)
    return for_backend(fill(density, arrays, names))


def _schedule(config: VDMConfig) -> Names:
    if config.schedule == "learned_linear":
        yield "schedule.offset", "gamma.b"
        yield "schedule.slope", "gamma.w"
    if config.schedule == "learned_network":
        yield "schedule.offset", "gamma.l1.bias"
        yield "schedule.slope", "gamma.l1.kernel"
        yield "schedule.inner", "gamma.l2.kernel"
        yield "schedule.inner_bias", "gamma.l2.bias"
        yield "schedule.outer", "gamma.l3.kernel"


def _network(config: VDMConfig) -> Names:
    yield from _layer("denoiser.time.first", f"{_SCORE}.dense0")
    yield from _layer("denoiser.time.second", f"{_SCORE}.dense1")
    yield from _layer("denoiser.first", f"{_SCORE}.conv_in")
    yield from _layer("denoiser.last", f"{_SCORE}.conv_out")
    yield from _norm("denoiser.norm", f"{_SCORE}.GroupNorm_0")
    level = "denoiser.level"
    yield from _residual(f"{level}.first.residual", f"{_SCORE}.mid.block_1", skip=False)
    yield from _attention(f"{level}.first.attention", f"{_SCORE}.mid.attn_1")
    yield from _residual(f"{level}.last.residual", f"{_SCORE}.mid.block_2", skip=False)
    yield from _block(f"{level}.merge", "up", 0, config, skip=True)
    for i in range(config.blocks):
        yield from _block(f"{level}.down.blocks.{i}", "down", i, config, skip=False)
        # the official code counts the blocks in their order; ours, by the skip that they take
        yield from _block(f"{level}.up.blocks.{i}", "up", config.blocks - i, config, skip=True)


def _block(ours: str, way: str, index: int, config: VDMConfig, *, skip: bool) -> Names:
    yield from _residual(f"{ours}.residual", f"{_SCORE}.{way}.block_{index}", skip=skip)
    if config.attention:
        yield from _attention(f"{ours}.attention", f"{_SCORE}.{way}.attn_{index}")


def _residual(ours: str, official: str, *, skip: bool) -> Names:
    yield from _norm(f"{ours}.norm1", f"{official}.GroupNorm_0")
    yield from _norm(f"{ours}.norm2", f"{official}.GroupNorm_1")
    yield from _layer(f"{ours}.conv1", f"{official}.conv1")
    yield from _layer(f"{ours}.conv2", f"{official}.conv2")
    yield f"{ours}.project.kernel", f"{official}.cond_proj.kernel"
    if skip:
        yield from _layer(f"{ours}.skip", f"{official}.nin_shortcut")


def _attention(ours: str, official: str) -> Names:
    yield from _norm(f"{ours}.norm", f"{official}.GroupNorm_0")
    for layer, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("project", "proj_out")):
        yield from _layer(f"{ours}.{layer}", f"{official}.{theirs}")


def _layer(ours: str, official: str) -> Names:
    yield f"{ours}.kernel", f"{official}.kernel"
    yield f"{ours}.bias", f"{official}.bias"


def _norm(ours: str, official: str) -> Names:
    yield f"{ours}.scale", f"{official}.scale"
    yield f"{ours}.bias", f"{official}.bias"

"""Neural spline flows of POWER's size against other libraries: times of a step and of log_prob.

    python benchmarks/nsf.py [--rounds 10] [--batch-size 512] [--against nflows zuko]

The coupling form is compared with nflows and normflows: the same steps, splines and residual
networks, with the permutations and LU maps. flowjax's nearest form has plain networks of as many
layers and a permutation for each LU map; distrax's is built from its masked couplings and splines
with the residual network of nflows. The autoregressive form is compared with zuko, without
permutations and LU maps on both sides: masked networks of as many layers and hidden units, splines
of as many bins. TFP's splines do not trace in this JAX, so affine couplings are compared with its
RealNVP, with the same residual networks and permutations. All sides run Adam with the gradient's
norm clipped, in float32, on the same threads; each of the other libraries works in a process of its
own, as its users run it. Needs ``pip install -e '.[benchmarks]'``, or PyTorch and those of the
libraries that ``--against`` names.
"""

from __future__ import annotations

import argparse
import itertools
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import speed_record
import torch
from side_by_side import compare, in_own_process, put_torch_on_gpu
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


def in_jax(
    params: Any,
    log_prob: Callable[[Any, jax.Array], jax.Array],
    x: np.ndarray,
    evaluate: Callable[[], object] | None = None,
) -> Side:
    """The side of a library on JAX; ``evaluate`` is its own way to the log-probabilities."""
    rule = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))

    def update(state, x):
        params, moments = state
        gradient = jax.grad(lambda params: -log_prob(params, x).mean())(params)
        updates, moments = rule.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments

    compiled = jax.jit(update, donate_argnums=0)
    score = jax.jit(log_prob)
    state = jax.tree.map(jnp.copy, params), rule.init(params)

    def step() -> object:
        nonlocal state
        state = jax.block_until_ready(compiled(state, x))
        return state

    def compiled_score() -> object:
        return jax.block_until_ready(score(params, x))

    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Side(step, evaluate or compiled_score, size)


def ours(config: Any, x: np.ndarray) -> Side:
    density = lj.build(config, key=jax.random.key(0))
    structure, params, fixed = split(density)
    return in_jax(
        params,
        lambda params, x: merge(structure, params, fixed).terms(x).log_prob,
        x,
        lambda: jax.block_until_ready(density.log_prob(x)),
    )


def in_torch(flow: nn.Module, log_prob: Callable[[torch.Tensor], torch.Tensor], x) -> Side:
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
    from nflows import transforms
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import ResidualNet

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
    flow = Flow(transforms.CompositeTransform([*maps, *mix()]), StandardNormal([dimensions]))
    return in_torch(flow, flow.log_prob, x)


def of_zuko(x: np.ndarray) -> Side:
    import zuko

    flow = zuko.flows.NSF(
        features=POWER["dimensions"],
        transforms=POWER["depth"],
        bins=POWER["bins"],
        hidden_features=[POWER["width"]] * 5,
    )
    return in_torch(flow, lambda rows: flow().log_prob(rows), x)


def of_normflows(x: np.ndarray) -> Side:
    import normflows

    dimensions = POWER["dimensions"]
    maps: list[nn.Module] = [normflows.flows.LULinearPermute(dimensions)]
    for i in range(POWER["depth"]):
        spline = normflows.flows.CoupledRationalQuadraticSpline(
            dimensions, 2, POWER["width"], num_bins=POWER["bins"], reverse_mask=i % 2 == 1
        )
        maps += [spline, normflows.flows.LULinearPermute(dimensions)]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(dimensions), maps)
    return in_torch(flow, flow.log_prob, x)


def of_flowjax(x: np.ndarray) -> Side:
    import equinox
    import paramax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import StandardNormal
    from flowjax.flows import coupling_flow

    flow = coupling_flow(
        jax.random.key(0),
        base_dist=StandardNormal((POWER["dimensions"],)),
        transformer=RationalQuadraticSpline(knots=POWER["bins"], interval=3.0),
        flow_layers=POWER["depth"],
        nn_width=POWER["width"],
        nn_depth=5,
    )
    params, static = equinox.partition(flow, equinox.is_inexact_array)

    def log_prob(params: Any, x: jax.Array) -> jax.Array:
        return paramax.unwrap(equinox.combine(params, static)).log_prob(x)

    return in_jax(params, log_prob, x)


Layers = list[tuple[jax.Array, jax.Array]]


def residual_network(layers: Layers, x: jax.Array) -> jax.Array:
    """The network of nflows: a layer, residual blocks of two layers, and a layer."""
    dense = [lambda h, w=w, b=b: h @ w + b for w, b in layers]
    h = dense[0](x)
    for first, second in zip(dense[1:-1:2], dense[2:-1:2], strict=True):
        h = h + second(jax.nn.relu(first(jax.nn.relu(h))))
    return dense[-1](h)


def residual_layers(rng: np.random.Generator, inputs: int, outputs: int) -> Layers:
    sizes = [inputs, *[POWER["width"]] * 5, outputs]
    return [
        (jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a), "float32"), jnp.zeros(b))
        for a, b in itertools.pairwise(sizes)
    ]


def of_distrax(x: np.ndarray) -> Side:
    import distrax

    dimensions, bins = POWER["dimensions"], POWER["bins"]
    rng = np.random.default_rng(0)
    outputs = dimensions * (3 * bins + 1)
    params = [residual_layers(rng, dimensions, outputs) for _ in range(POWER["depth"])]
    base = distrax.MultivariateNormalDiag(jnp.zeros(dimensions), jnp.ones(dimensions))

    def spline(params: jax.Array) -> distrax.Bijector:
        return distrax.RationalQuadraticSpline(params, -3.0, 3.0, boundary_slopes="identity")

    def log_prob(params: list[Layers], x: jax.Array) -> jax.Array:
        couplings = [
            distrax.MaskedCoupling(
                mask=np.arange(dimensions) % 2 == i % 2,
                conditioner=lambda x, layers=layers: residual_network(layers, x).reshape(
                    *x.shape, 3 * bins + 1
                ),
                bijector=spline,
            )
            for i, layers in enumerate(params)
        ]
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(couplings))).log_prob(x)

    return in_jax(params, log_prob, x)


def of_tfp(x: np.ndarray) -> Side:
    import tensorflow_probability.substrates.jax as tfp

    tfb, tfd = tfp.bijectors, tfp.distributions
    dimensions = POWER["dimensions"]
    kept, moved = dimensions // 2, dimensions - dimensions // 2
    rng = np.random.default_rng(0)
    params = [residual_layers(rng, kept, 2 * moved) for _ in range(POWER["depth"])]
    orders = [rng.permutation(dimensions) for _ in params]
    base = tfd.MultivariateNormalDiag(jnp.zeros(dimensions), jnp.ones(dimensions))

    def affine(layers: Layers) -> Callable[..., Any]:
        def shift_and_log_scale(kept: jax.Array, *_: Any, **__: Any) -> list[jax.Array]:
            return jnp.split(residual_network(layers, kept), 2, axis=-1)

        return shift_and_log_scale

    def log_prob(params: list[Layers], x: jax.Array) -> jax.Array:
        maps = []
        for layers, order in zip(params, orders, strict=True):
            maps += [tfb.RealNVP(kept, shift_and_log_scale_fn=affine(layers)), tfb.Permute(order)]
        return tfd.TransformedDistribution(base, tfb.Invert(tfb.Chain(maps))).log_prob(x)

    return in_jax(params, log_prob, x)


COUPLINGS = {
    "nflows": of_nflows,
    "normflows": of_normflows,
    "flowjax": of_flowjax,
    "distrax": of_distrax,
}
AUTOREGRESSIVE = {"zuko": of_zuko}
AFFINE = {"tfp": of_tfp}
_AFFINE_SIZES = {name: value for name, value in POWER.items() if name != "bins"}
FORMS = {
    "spline couplings": (COUPLINGS, lj.models.NSFConfig(**POWER)),
    "autoregressive splines": (
        AUTOREGRESSIVE,
        lj.models.NSFConfig(**POWER, form="autoregressive", linear=False),
    ),
    "affine couplings": (
        AFFINE,
        lj.models.MAFConfig(**_AFFINE_SIZES, form="coupling", linear=False),
    ),
}
"""The libraries that a form is compared with, and its config."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=10)
    libraries = [*COUPLINGS, *AUTOREGRESSIVE, *AFFINE]
    parser.add_argument("--against", nargs="+", choices=libraries, default=libraries)
    speed_record.add_option(parser)
    arguments = parser.parse_args()
    lj.memory.keep_freed()  # as on the command line
    put_torch_on_gpu()
    shape = (arguments.batch_size, POWER["dimensions"])
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    print(
        f"jax {jax.__version__} on {jax.devices()[0].platform}, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}"
    )
    timings = {}
    for form, (makers, config) in FORMS.items():
        makers = {name: make for name, make in makers.items() if name in arguments.against}
        if not makers:
            continue
        sides = {"likejax": ours(config, x)}
        sides |= {name: Side(*in_own_process(make, x)) for name, make in makers.items()}
        sizes = (f"{name} {side.parameters:,}" for name, side in sides.items())
        print(f"{form}, parameters: {', '.join(sizes)}")
        for what, title in {"step": "training step", "log_prob": "`log_prob`"}.items():
            work = {name: getattr(side, what) for name, side in sides.items()}
            timings[f"{form}, {title}"] = compare(what, work, arguments.rounds)
    if arguments.record:
        speed_record.keep("nsf_speed", timings)


if __name__ == "__main__":
    main()

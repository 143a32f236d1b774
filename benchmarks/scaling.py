"""Communication of data-parallel training: measured at 8 emulated devices, projected to 1,024.

    python benchmarks/scaling.py [--checked glow/digits ... --projected glow/cifar10 ...]

First, a training step of each checked preset is compiled for 8 emulated devices, with parameters
copied to each and divided over them, and the bytes that its collective operations reduce or gather
are counted in the program that XLA made. The formula says ``4 P`` bytes for ``P`` parameters of
float32: their gradient, once a step; and as much for parameters that are divided, which are
gathered. Then steps of the projected presets are counted: ``F`` floating-point operations for
``--per-device`` examples, by XLA's count before it optimizes. On ``N`` devices, with as many
examples on each, a ring moves ``2 (N - 1) / N`` times the gradient through every link, so

    compute = F / (flops * utilization),    exchange = 8 P (N - 1) / N / bandwidth.

A step takes their maximum if the exchange hides behind the backward pass, and their sum if nothing
does. Efficiency is compute time by step time. Left out are latency, input and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import likejax as lj
from likejax.nn.repeat import unstack

CHECKED = ("glow/digits", "pixelcnn/digits")
PROJECTED = ("glow/cifar10", "pixelcnn/cifar10", "vdm/cifar10")
DEVICES = 8
COUNTS = (8, 64, 256, 1024)
WAYS = {"copied": 1, "divided": DEVICES}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_ARRAY = re.compile(r"(f32|bf16|f64|s32|u32|pred)\[([\d,]*)\]")
_BYTES = {"f32": 4, "bf16": 2, "f64": 8, "s32": 4, "u32": 4, "pred": 1}
_PROGRAM = """
import sys
import likejax as lj
name, shards = sys.argv[1], int(sys.argv[2])
experiment = lj.preset(name).override({"steps": 1, "batch_size": 64, "parameter_shards": shards})
lj.fit(experiment, lj.load("digits"), key=0)
"""


def main() -> None:
    """Checks the formula, and projects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checked", nargs="*", default=CHECKED)
    parser.add_argument("--projected", nargs="*", default=PROJECTED)
    parser.add_argument("--per-device", type=int, default=32, help="examples on a device")
    parser.add_argument("--flops", type=float, default=400e12, help="of a device, per second")
    parser.add_argument("--utilization", type=float, default=0.3)
    parser.add_argument("--bandwidth", type=float, default=25e9, help="bytes per second of a link")
    options = parser.parse_args()
    for name in options.checked:
        for way, shards in WAYS.items():
            print(json.dumps({"preset": name, "parameters": way, **checked(name, shards)}))
    for name in options.projected:
        print(json.dumps({"preset": name, **projected(name, options)}))


def checked(name: str, shards: int) -> dict[str, Any]:
    """Bytes of the collective operations in a compiled step, beside those of the formula."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_dump_to={folder}"
        flags += " --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_step"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
        command = [sys.executable, "-c", _PROGRAM, name, str(shards)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        (path,) = Path(folder).glob("*jit_step*after_optimizations.txt")
        found = collective_bytes(path.read_text())
    return {
        "megabytes": {kind: round(size / 1e6, 3) for kind, size in found.items()},
        "4 P": round(4 * parameters_of(name) / 1e6, 3),
    }


def collective_bytes(program: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective operation in one run of a program.

    Operations in the body of a loop count as often as the loop runs.
    """
    computations = dict(_COMPUTATION.findall(program))
    found = dict.fromkeys(COLLECTIVES, 0)
    for name, body in computations.items():
        runs = _runs(name, computations)
        for result, kind in _OPERATION.findall(body):
            for dtype, shape in _ARRAY.findall(result):
                sizes = [int(size) for size in shape.split(",") if size]
                found[kind] += runs * math.prod(sizes) * _BYTES[dtype]
    return {kind: size for kind, size in found.items() if size}


def _runs(name: str, computations: dict[str, str]) -> int:
    """How often a computation runs: the product of the counts of the loops around it."""
    for caller, body in computations.items():
        for line in body.splitlines():
            if re.search(rf"body=%?{re.escape(name)}[,\s]", line):
                count = re.search(r"known_trip_count\W+n\W+(\d+)", line)
                assert count, f"a loop without a known count: {line[:200]}"
                return int(count[1]) * _runs(caller, computations)
    return 1


def parameters_of(name: str) -> int:
    """Number of parameters of a preset."""
    config = lj.preset(name).model
    return lj.count_parameters(jax.eval_shape(lambda: config.build(nnx.Rngs(0))))


def projected(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of computing and of the exchange, and efficiencies by number of devices."""
    flops = flops_of(name, options.per_device)
    compute = flops / (options.flops * options.utilization)
    row: dict[str, Any] = {
        "parameters": parameters_of(name),
        "gigaflops": round(flops / 1e9, 1),
        "compute ms": round(1e3 * compute, 2),
    }
    for count in COUNTS:
        exchange = 8 * row["parameters"] * (count - 1) / count / options.bandwidth
        hidden, open_ = compute / max(compute, exchange), compute / (compute + exchange)
        row[f"N = {count}"] = f"{1e3 * exchange:.2f} ms, {open_:.2f} to {hidden:.2f}"
    return row


def flops_of(name: str, size: int) -> float:
    """Floating-point operations of the gradient of a batch, as XLA counts them unoptimized.

    It counts the body of a loop once, so the blocks are taken one by one.
    """
    config = lj.preset(name).model
    density = jax.eval_shape(lambda: unstack(config.build(nnx.Rngs(0))))
    graph, params, rest = nnx.split(density, nnx.Param, ...)
    dtype = "float32" if density.levels is None else "uint8"
    x = jax.ShapeDtypeStruct((size, *density.event_shape), dtype)

    def loss(params: Any, rest: Any, x: jax.Array) -> jax.Array:
        terms = nnx.merge(graph, params, rest).terms(x, key=jax.random.key(0))
        return -terms.log_prob.mean()

    cost: Any = jax.jit(jax.grad(loss)).lower(params, rest, x).cost_analysis()
    return cost["flops"]


if __name__ == "__main__":
    main()

"""The Runge-Kutta steps of likejax against diffrax's own, in the gradient of one training solve.

    python benchmarks/ode_steps.py [--batch-size 128 --hidden 64 64 --steps 10]

Both sides solve the same field with Dormand and Prince's method, the same steps of equal length
and the checkpointed adjoint. They differ in ``RungeKutta("dopri5")`` against ``diffrax.Dopri5()``
alone. Printed are the floating-point operations and the temporary memory of the compiled
gradients, and their times with the ratio.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from side_by_side import compare

from likejax.bijections.ode.runge_kutta import RungeKutta
from likejax.models.ffjord.dynamics import Dynamics


def main() -> None:
    """Compiles both gradients, prints what they cost, and times them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()

    field = Dynamics(2, options.hidden, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (options.batch_size, 2))
    gradients = {
        "likejax": compiled_gradient(field, x, RungeKutta("dopri5"), options.steps),
        "diffrax": compiled_gradient(field, x, diffrax.Dopri5(), options.steps),
    }
    for name, gradient in gradients.items():
        cost: Any = gradient.cost_analysis()
        memory: Any = gradient.memory_analysis()
        print(
            f"{name}: {cost['flops'] / 1e6:.1f} million operations in XLA's count of one step, "
            f"{memory.temp_size_in_bytes / 1e6:.2f} MB of temporary memory"
        )

    def run(name: str) -> None:
        jax.block_until_ready(gradients[name](field, x))

    sides = {name: functools.partial(run, name) for name in gradients}
    compare("gradient", sides, options.rounds)


def compiled_gradient(field: Dynamics, x: jax.Array, method: Any, steps: int) -> Any:
    """The compiled gradient of ``loss`` by the parameters of the field."""
    gradient = jax.grad(functools.partial(loss, method=method, steps=steps))
    return jax.jit(gradient).lower(field, x).compile()


def loss(field: Dynamics, x: jax.Array, *, method: Any, steps: int) -> jax.Array:
    """The mean square of the state at the end, by ``steps`` equal steps."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, z, field: field(t, z)),
        method,
        0.0,
        1.0,
        None,
        x,
        args=field,
        stepsize_controller=diffrax.StepTo(ts=np.linspace(0.0, 1.0, steps + 1)),
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=steps),
        max_steps=steps + 1,
    )
    assert solution.ys is not None
    return jnp.mean(jnp.square(solution.ys[-1]))


if __name__ == "__main__":
    main()

"""Scores from gradients of the log-probability, by parameters and by the input."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from likejax.batching import Rows, over_batch
from likejax.density import Density, count_parameters, log_prob_of_draw
from likejax.inputs import numpy_of
from likejax.nn.repeat import stacked_axes
from likejax.nn.state import merge, split
from likejax.ood.features import (
    Batch,
    Densities,
    Feature,
    Numbers,
    OfDensity,
    Values,
    named_density,
)
from likejax.ood.score import Groups, Score, State

_ENTRIES_AT_A_TIME = 2**24
"""Entries of gradients that are held together: 64 MiB in float32."""
_LEAST = 1e-30
"""Squared norm that stands for a gradient of zero, whose log is finite."""


@dataclasses.dataclass(frozen=True)
class GradientNorms(OfDensity):
    """``log ||d log p(x) / d theta_j||^2`` for every tensor of parameters, ``(n, tensors)``.

    Every example has a gradient of its own. Few are held together, so the memory is that of
    training on one example. Each of several repeated blocks has tensors of its own.

    Example:
      >>> import likejax as lj, numpy as np
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,))
      >>> points = np.ones((3, 2), np.float32)
      >>> lj.ood.GradientNorms()({"density": flow}, points, None).shape  # two tensors
      (3, 2)
    """

    density: str = "density"
    """Name of the density: ``density`` for the scored one, or one that it is compared with."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the logarithms of the squared norms of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        density = named_density(densities, self.density)
        together = max(1, min(32, _ENTRIES_AT_A_TIME // max(1, count_parameters(density))))
        is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((density, x, keys)))
        if is_traced or len(x) == 0:
            return _gradient_norms_in_a_loop(density, jnp.asarray(x), keys, together)
        # XLA's convolutions are slow in a loop on CPU: one compiled call for every few examples
        norms = []
        size = math.ceil(len(x) / math.ceil(len(x) / together))
        for start in range(0, len(x), size):
            chunk = x[start : start + size]
            own = None if keys is None else keys[start : start + size]
            rows = Rows(chunk, own, None, (len(chunk),))
            norms.append(over_batch(_gradient_norms, density, rows))
        return jnp.concatenate(norms)


def _gradient_norms(
    density: Density, x: Array, key: Array | None, condition: None
) -> Float[Array, " tensors"]:
    """The logarithms of the squared norms of one example's gradient."""
    structure, params, buffers = split(density)

    def log_prob(params: dict[str, Array]) -> Array:
        merged = merge(structure, params, buffers)
        return log_prob_of_draw(merged, x, key, condition, 0)

    gradients = jax.grad(log_prob)(params)
    squares = [_squared_norms(name, each) for name, each in sorted(gradients.items())]
    return jnp.log(jnp.concatenate(squares) + _LEAST)


def _gradient_norms_in_a_loop(
    density: Density, x: Array, keys: Array | None, together: int
) -> Float[Array, "n tensors"]:
    def norms(row: tuple[Array, Array | None]) -> Float[Array, " tensors"]:
        return _gradient_norms(density, *row, None)

    return jax.lax.map(norms, (x, keys), batch_size=together)


def _squared_norms(name: str, gradient: Array) -> Float[Array, " blocks"]:
    """The squared norm of a tensor, one for each block if it holds those of several."""
    blocks = gradient.shape[: stacked_axes(name)]
    wide = gradient.astype(jnp.promote_types(gradient.dtype, jnp.float32))
    return (wide.reshape(int(np.prod(blocks, dtype=int)), -1) ** 2).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class InputGradientNorm(OfDensity):
    """``||d log p(x) / dx||``, one number per example, in nats per unit of the data.

    Integers are taken as the numbers that they are: a density on integers is differentiated as the
    function of real numbers that its formula is.

    Example:
      >>> import likejax as lj, numpy as np
      >>> gaussian = lj.models.FullGaussian.fit(np.eye(3, dtype=np.float32))
      >>> x = np.zeros((2, 3), np.float32)
      >>> lj.ood.InputGradientNorm()({"density": gaussian}, x, None).shape
      (2,)
    """

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Values:
        """Computes the norms of examples.

        Args:
          densities: Densities by name.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        return _input_gradient_norms(densities["density"], jnp.asarray(x), keys)


@jax.jit
def _input_gradient_norms(density: Density, x: Array, keys: Array | None) -> Float[Array, " n"]:
    def norm(x: Array, key: Array | None) -> Float[Array, ""]:
        gradient = jax.grad(lambda x: log_prob_of_draw(density, x, key, None, 0))(x)
        return jnp.linalg.norm(gradient.reshape(-1))

    return jax.vmap(norm)(x.astype(jnp.promote_types(x.dtype, jnp.float32)), keys)


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterGradient(Score):
    """Score ``s = -sum_j log N(f_j(x); mu_j, sigma_j)``, ``f_j = log ||d log p(x)/d theta_j||^2``.

    An example that would change the weights in an unusual way is suspicious. Mean and standard
    deviation of each tensor's ``f_j`` come from inside examples. The sum approximates the norm of
    the score under Fisher's metric, which does not change with the representation of the data.

    With ``early``, the gradient is that of the same model after little training, which still learns
    what inside examples have in common (Montazeran and Koethe, 2025).

    References:
      Dauncey, Holmes, Williams and Falck, 2024, Approximations to the Fisher information metric of
      deep generative models for out-of-distribution detection, arXiv:2403.01485. Bergamin et al.,
      2022, Model-agnostic out-of-distribution detection using combined statistical tests,
      arXiv:2203.01097. Montazeran and Koethe, 2025, arXiv:2502.00820 (immature models).

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> flow = lj.models.Flow(lj.bijections.ActNorm(2), (2,)).initialize(points[:100], 0)
      >>> score = lj.ood.ParameterGradient().fit(flow, points[100:])
      >>> near, far = score(np.array([[0.5, -0.5], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "parameter gradient"

    early: Density | None = None
    """The same model after little training, whose gradient is taken instead."""

    @property
    def label(self) -> str:
        """Name in tables."""
        return self.name if self.early is None else "parameter gradient, early weights"

    @property
    def features(self) -> tuple[Feature, ...]:
        """The norms of all gradients."""
        return (GradientNorms("density" if self.early is None else "early"),)

    def check(self, density: Density) -> None:
        """Raises a ValueError if there are no parameters to differentiate by.

        Args:
          density: Density that is scored.
        """
        source = density if self.early is None else self.early
        if count_parameters(source) == 0:
            raise ValueError(
                f"expected a density with parameters that are trained, {type(source).__name__} has "
                "none: lj.ood.Typicality() takes any density"
            )

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns mean and standard deviation of each tensor that varies.

        Args:
          statistics: Logarithms of squared norms of inside examples, ``(n, tensors)``.
        """
        if len(statistics) < 2:
            raise ValueError(f"expected at least two examples to fit {self.label} to, got 1")
        std = statistics.std(axis=0)
        tensors = np.flatnonzero(std > 1e-6)
        if len(tensors) == 0:
            raise ValueError(
                "expected gradients that differ between inside examples, all are the same: the "
                "density has no parameters that the log-probability depends on"
            )
        return {"tensors": tensors, "mean": statistics.mean(axis=0)[tensors], "std": std[tensors]}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns minus the log-density of every example's norms.

        Args:
          state: Mapping with ``tensors``, ``mean`` and ``std``.
          statistics: Logarithms of squared norms, ``(n, 1, tensors)``.
        """
        numpy = numpy_of(statistics)
        tensors = numpy.asarray(state["tensors"]).astype(int)
        white = (statistics[:, 0][:, tensors] - state["mean"][None]) / state["std"][None]
        constant = numpy.log(numpy.asarray(state["std"]) * np.sqrt(2 * np.pi)).sum()
        return (white**2).sum(axis=1) / 2 + constant


@dataclasses.dataclass(frozen=True)
class InputGradient(Score):
    """Score ``s = ||d log p(x) / dx||``: little mass lies around where the density is steep.

    It is the approximate mass of Grathwohl et al., with the sign turned. It tends to find outside
    examples that are simpler than inside ones, and to miss those that are not.

    References:
      Grathwohl et al., 2020, Your classifier is secretly an energy based model and you should treat
      it like one, arXiv:1912.03263, section 5.3.3.

    Example:
      >>> import likejax as lj, numpy as np
      >>> points = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
      >>> gaussian = lj.models.FullGaussian.fit(lj.Dataset.from_array(points[:100]))
      >>> score = lj.ood.InputGradient().fit(gaussian, points[100:])
      >>> near, far = score(np.array([[0, 0], [9, 9]], np.float32))
      >>> bool(near < far)
      True
    """

    name: ClassVar[str] = "input gradient"

    @property
    def features(self) -> tuple[Feature, ...]:
        """The norm of the gradient."""
        return (InputGradientNorm(),)

    def check(self, density: Density) -> None:
        """Raises a ValueError if the density has no gradient by its input.

        Args:
          density: Density that is scored.
        """
        if not density.differentiable:
            raise ValueError(
                f"expected a density that changes with x, {type(density).__name__} is constant "
                "between integers: lj.ood.Typicality() takes any density"
            )

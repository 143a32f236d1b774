"""Scores from what the denoiser of a diffusion model sees: norms, a path, dimensions, posteriors.

An example has a point ``y``. At ``gamma``, the negative log signal-to-noise ratio, that point with
noise is ``z = alpha y + sigma eps``, and the denoiser sees the noise ``eps_hat(z, gamma)`` in it.
So ``-eps_hat / sigma`` is the gradient of ``log p(z)``, and ``y_hat = (z - sigma eps_hat) / alpha``
is the mean of what ``y`` may have been. A score asks a density for its ``diffusion``, never for its
class.

No default was chosen with outside data. They are those of the papers, with their noise levels in
``gamma``: the levels of an example then depend neither on the course of a learned schedule nor on
the number of its steps.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Num

from likejax.density import Density, Diffusion, diffusion_of_draw
from likejax.inputs import numpy_of
from likejax.keys import as_key
from likejax.models.diffusion.process import alpha, diffused, predicted, sigma
from likejax.models.diffusion.sampling import ddim_step
from likejax.ood.density_of_states import DensityOfStates
from likejax.ood.features import (
    Batch,
    Compute,
    Densities,
    Feature,
    Numbers,
    OfDensity,
    OfDraws,
    Values,
)
from likejax.ood.score import Groups, Score, State, with_draws
from likejax.ood.vectors import Backend
from likejax.settings import Count

_STREAM = np.uint32(2**31 + 1)
"""Number of the keys of probes and noises, far from those of a density's draws."""
_POWERS = (1, 2, 3)
"""Powers of the noise along a path, whose means are taken."""
_LEAST_SPREAD = 1e-5
"""Standard deviation over inside examples, as a share of the mean, that is rounding and no more."""


class OfDiffusion(Feature):
    """Part of the features that ask a density for its diffusion."""

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density is a diffusion model.

        Args:
          density: Density that is scored.
        """
        check_diffusion(density)


# --- norms at several levels of noise


@dataclasses.dataclass(frozen=True)
class NoiseNorms(OfDiffusion, OfDensity):
    """``||eps_hat(alpha y, gamma)||`` at several values of ``gamma``, ``(n, levels)``.

    The point carries no noise: the denoiser is asked how much of it looks like noise. The norm is
    that of the gradient of ``log p(z)`` times ``sigma``. The values of ``gamma`` are equally far
    apart, from the end of the process at the data to that at the noise.

    Example:
      >>> import likejax as lj, numpy as np
      >>> vdm = lj.build(lj.models.VectorVDMConfig(width=8, blocks=1), key=0)
      >>> keys = lj.example_keys(0, np.arange(3))
      >>> lj.ood.NoiseNorms(levels=4)({"density": vdm}, np.ones((3, 2), np.float32), keys).shape
      (3, 4)
    """

    levels: Count = 10
    """Number of values of ``gamma``."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the norms of examples.

        Args:
          densities: Densities by name; the scored one is a diffusion model.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        return _noise_norms(densities["density"], jnp.asarray(x), keys, self.levels)


@functools.partial(jax.jit, static_argnums=3)
def _noise_norms(
    density: Density, x: Array, keys: Array | None, levels: int
) -> Float[Array, "n levels"]:
    def norms(x: Array, key: Array | None) -> Float[Array, " levels"]:
        diffusion = diffusion_of_draw(density, x, key, None)

        def norm(gamma: Float[Array, ""]) -> Float[Array, ""]:
            noise = diffusion.noise_at(alpha(gamma) * diffusion.point, gamma)
            return jnp.linalg.norm(noise.reshape(-1))

        return jax.lax.map(norm, _from_end_to_end(diffusion, levels))

    return jax.vmap(norms)(x, keys)


def multiscale_norms(*, backend: Backend = "mixture", levels: int = 10) -> DensityOfStates:
    """Returns MSMA: a density of states of the score's norms at several levels of noise.

    References:
      Mahmood, Oliva and Styner, 2021, Multiscale score matching for out-of-distribution detection,
      arXiv:2010.13132. The model there is a score network, the levels are 10, and the backend is
      a mixture of normals, a flow or nearest neighbors.

    Args:
      backend: Form of the density of the norms.
      levels: Number of levels.

    Example:
      >>> import likejax as lj
      >>> lj.ood.multiscale_norms().label
      'multiscale norms, mixture'
    """
    features = (NoiseNorms(levels=levels),)
    return DensityOfStates(features=features, backend=backend, title="multiscale norms")


# --- the path from the data to the noise


@dataclasses.dataclass(frozen=True)
class NoiseMoments(OfDiffusion, OfDensity):
    """Moments of the noise along the path of an example from the data to the noise, ``(n, 6)``.

    DDIM steps without noise, equally far apart in ``gamma``, lead from ``alpha y`` to the end of
    the process: ``z' = alpha' y_hat + sigma' eps_hat``. With ``eps_i`` the noise that step ``i`` of
    ``T`` sees, the numbers are ``sum_i mean(eps_i^p)`` and then
    ``sum_i mean((T (eps_(i+1) - eps_i))^p)`` for ``p = 1, 2, 3``, with means over the entries.

    Example:
      >>> import likejax as lj, numpy as np
      >>> vdm = lj.build(lj.models.VectorVDMConfig(width=8, blocks=1), key=0)
      >>> keys = lj.example_keys(0, np.arange(3))
      >>> lj.ood.NoiseMoments()({"density": vdm}, np.ones((3, 2), np.float32), keys).shape
      (3, 6)
    """

    steps: Count = 10
    """Number of steps, ``T``."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the moments of examples.

        Args:
          densities: Densities by name; the scored one is a diffusion model.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example; not needed if the density is exact.
        """
        return _noise_moments(densities["density"], jnp.asarray(x), keys, self.steps)


@functools.partial(jax.jit, static_argnums=3)
def _noise_moments(density: Density, x: Array, keys: Array | None, steps: int) -> Array:
    def moments(x: Array, key: Array | None) -> Float[Array, " moments"]:
        diffusion = diffusion_of_draw(density, x, key, None)
        gammas = _from_end_to_end(diffusion, steps + 1)

        def step(z: Array, gammas: tuple[Array, Array]) -> tuple[Array, Array]:
            gamma, next_gamma = gammas
            noise = diffusion.noise_at(z, gamma)
            seen = predicted(noise, z, gamma, "noise")
            return ddim_step(seen, next_gamma), noise

        start = alpha(gammas[0]) * diffusion.point
        _, noises = jax.lax.scan(step, start, (gammas[:-1], gammas[1:]))
        rates = steps * jnp.diff(noises, axis=0)
        return jnp.stack([_sum_of_means(part**p) for part in (noises, rates) for p in _POWERS])

    return jax.vmap(moments)(x, keys)


def _sum_of_means(values: Float[Array, "steps ..."]) -> Float[Array, ""]:
    """The sum over steps of the means over all entries."""
    return values.mean(axis=tuple(range(1, values.ndim))).sum()


def diffusion_path(*, backend: Backend = "mixture", steps: int = 10) -> DensityOfStates:
    """Returns DiffPath-6D: a density of states of six moments of an example's path to the noise.

    References:
      Heng, Thiery and Soh, 2024, Out-of-distribution detection with a single unconditional
      diffusion model, arXiv:2405.11881.

    Args:
      backend: Form of the density of the moments.
      steps: Number of steps of the path.

    Example:
      >>> import likejax as lj
      >>> lj.ood.diffusion_path().label
      'diffusion path, mixture'
    """
    features = (NoiseMoments(steps=steps),)
    return DensityOfStates(features=features, backend=backend, title="diffusion path")


# --- the dimension of the data around an example


@dataclasses.dataclass(frozen=True)
class DimensionEstimate(OfDiffusion, OfDraws):
    """Local intrinsic dimension of the data around an example, one number each.

    ``D - sigma tr(d eps_hat / dz) + ||eps_hat||^2`` at ``z = alpha y`` and one ``gamma``. Where the
    data fill ``k`` dimensions around an example it tends to ``k`` as ``sigma`` does to 0. Examples
    of at most ``probes`` dimensions have the exact trace, the others Hutchinson's estimate of it
    with so many vectors of random signs.

    Example:
      >>> import likejax as lj, numpy as np
      >>> vdm = lj.build(lj.models.VectorVDMConfig(width=8, blocks=1), key=0)
      >>> keys = lj.example_keys(0, np.arange(3))
      >>> lj.ood.DimensionEstimate()({"density": vdm}, np.ones((3, 2), np.float32), keys).shape
      (3,)
    """

    gamma: float = -3.5
    """Level of the noise, the 5 % of the process that the paper takes; a level outside of the
    model's process is the nearer end of it."""
    probes: Count = 16
    """Number of derivatives per example."""

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Values:
        """Computes the dimensions of examples.

        Args:
          densities: Densities by name; the scored one is a diffusion model.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example.

        Raises:
          ValueError: If there are no keys.
        """
        arguments = densities["density"], jnp.asarray(x), _present(keys)
        return _dimensions(*arguments, self.gamma, self.probes)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _dimensions(
    density: Density, x: Array, keys: Array, gamma: float, probes: int
) -> Float[Array, " n"]:
    def dimension(x: Array, key: Array) -> Float[Array, ""]:
        diffusion = diffusion_of_draw(density, x, key, None)
        level = _inside(diffusion, gamma)
        z = alpha(level) * diffusion.point
        directions = _directions(key, z.shape, probes).astype(z.dtype)

        def along(direction: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
            noise, pushed = _noise_and_change(diffusion, z, level, direction)
            return jnp.sum(direction * pushed), jnp.sum(noise**2)

        parts, norms = jax.lax.map(along, directions)
        trace = parts.sum() * z.size / jnp.sum(directions**2)
        return z.size - sigma(level) * trace + norms[0]  # every direction has the same norm

    return jax.vmap(dimension)(x, keys)


def _directions(key: Array, shape: tuple[int, ...], probes: int) -> Num[Array, "probes ..."]:
    """All unit vectors if there are no more than the probes, else vectors of random signs."""
    size = math.prod(shape)
    if size <= probes:
        return jnp.eye(size).reshape(size, *shape)
    signs = jax.random.rademacher(jax.random.fold_in(key, _STREAM), (probes, size))
    return signs.reshape(probes, *shape)


def _noise_and_change(
    diffusion: Diffusion, z: Array, gamma: Array, direction: Float[Array, "*latent"]
) -> tuple[Float[Array, "*latent"], Float[Array, "*latent"]]:
    """The noise that is seen in ``z``, and its derivative along a direction."""
    return jax.jvp(lambda z: diffusion.noise_at(z, gamma), (z,), (direction,))


def intrinsic_dimension(
    *, backend: Backend = "gaussian", gamma: float = -3.5, probes: int = 16
) -> DensityOfStates:
    """Returns FLIPD: how unusual the local intrinsic dimension around an example is.

    An outside example may be simpler than inside ones, and so have fewer dimensions, or more
    complex, and have more: both count. Together with other numbers it is a feature like any other,
    ``DensityOfStates(features=(Statistics(("log_prob",)), DimensionEstimate()))``.

    References:
      Kamkari, Ross, Hosseinzadeh, Cresswell and Loaiza-Ganem, 2024, A geometric view of data
      complexity: efficient local intrinsic dimension estimation with diffusion models,
      arXiv:2406.03537. Kamkari et al., 2024, arXiv:2403.18910 (dimension and likelihood).

    Args:
      backend: Form of the density of the dimension.
      gamma: Level of the noise.
      probes: Number of derivatives per example.

    Example:
      >>> import likejax as lj
      >>> lj.ood.intrinsic_dimension().label
      'intrinsic dimension, gaussian'
    """
    features = (DimensionEstimate(gamma=gamma, probes=probes),)
    return DensityOfStates(features=features, backend=backend, title="intrinsic dimension")


# --- the covariance of what an example with noise may have been


@dataclasses.dataclass(frozen=True)
class PosteriorEigenvalues(OfDiffusion, OfDraws):
    """Largest eigenvalues of the posterior's covariance at several levels, ``(n, levels, k)``.

    ``Cov[y | z] = (sigma^2 / alpha) d y_hat / dz`` at ``z = alpha y + sigma eps``, where ``y_hat``
    is the mean. The eigenvalues are those of subspace iteration with exact derivatives, largest
    first, and means over draws of ``eps``; of a model whose derivative is not symmetric, they are
    those of its symmetric part on the subspace. The iterations of a draw start with the same
    vectors for all examples. An example of few dimensions has no more eigenvalues than these.

    Example:
      >>> import likejax as lj, numpy as np
      >>> vdm = lj.build(lj.models.VectorVDMConfig(width=8, blocks=1), key=0)
      >>> keys = lj.example_keys(0, np.arange(3))
      >>> feature = lj.ood.PosteriorEigenvalues(draws=2, iterations=1)
      >>> feature({"density": vdm}, np.ones((3, 2), np.float32), keys).shape
      (3, 3, 2)
    """

    gammas: tuple[float, ...] = (-2.14, -0.65, 0.43)
    """Levels of the noise, those of steps 100, 200 and 300 of the 1,000 of DDPM; a level outside of
    the model's process is the nearer end of it."""
    eigenvalues: Count = 3
    """Number of eigenvalues."""
    draws: Count = 5
    """Number of noises per level."""
    iterations: Count = 4
    """Number of iterations; each takes a derivative per eigenvalue, and so does the last step."""

    def _check_together(self) -> None:
        if not self.gammas:
            raise ValueError("expected PosteriorEigenvalues.gammas to have a level, got none")

    def __call__(self, densities: Densities, x: Batch, keys: Key[Array, " n"] | None) -> Numbers:
        """Computes the eigenvalues of examples.

        Args:
          densities: Densities by name; the scored one is a diffusion model.
          x: Examples ``(n, *event_shape)``.
          keys: Key of each example.

        Raises:
          ValueError: If there are no keys.
        """
        return _posteriors(densities["density"], jnp.asarray(x), _present(keys), self)


@functools.partial(jax.jit, static_argnums=3)
def _posteriors(
    density: Density, x: Array, keys: Array, settings: PosteriorEigenvalues
) -> Float[Array, "n levels k"]:
    def of_example(x: Array, key: Array) -> Float[Array, "levels k"]:
        diffusion = diffusion_of_draw(density, x, key, None)
        gammas = _inside(diffusion, jnp.asarray(settings.gammas))

        def of_draw(draw: Array) -> Float[Array, "levels k"]:
            point = diffusion.point
            noise_key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), draw)
            noise = jax.random.normal(noise_key, (point.size,)).reshape(point.shape)
            # the same for all examples: what few iterations miss is no difference between examples
            start_key = jax.random.fold_in(as_key(0), draw)
            columns = min(settings.eigenvalues, point.size)
            start = jax.random.normal(start_key, (point.size, columns))

            def of_level(gamma: Array) -> Float[Array, " k"]:
                z = diffused(point, noise, gamma)
                return posterior_eigenvalues(diffusion, z, gamma, start, settings.iterations)

            return jax.lax.map(of_level, gammas)

        return jax.lax.map(of_draw, jnp.arange(settings.draws)).mean(axis=0)

    return jax.vmap(of_example)(x, keys)


def posterior_eigenvalues(
    diffusion: Diffusion,
    z: Float[Array, "*latent"],
    gamma: Float[Array, ""],
    start: Float[Array, "d k"],
    iterations: int,
) -> Float[Array, " k"]:
    """Largest eigenvalues of the covariance of ``y`` given ``z``, largest first.

    Args:
      diffusion: One example in a diffusion.
      z: Point with noise.
      gamma: Negative log signal-to-noise ratio.
      start: Vectors that the iteration starts with, one per eigenvalue.
      iterations: Number of iterations.
    """
    covariance = jax.vmap(_covariance_times(diffusion, z, gamma), in_axes=1, out_axes=1)

    def iterate(columns: Array, _: None) -> tuple[Array, Array]:
        moved = covariance(columns)
        return jnp.linalg.qr(moved)[0], columns.T @ moved

    # the last step is for the covariance on the subspace, and makes no further one
    _, inner = jax.lax.scan(iterate, jnp.linalg.qr(start)[0], length=iterations + 1)
    last = inner[-1]
    return jnp.linalg.eigvalsh((last + last.T) / 2)[::-1]


def _covariance_times(
    diffusion: Diffusion, z: Array, gamma: Array
) -> Callable[[Float[Array, " d"]], Float[Array, " d"]]:
    """The function that multiplies a vector with the covariance of ``y`` given ``z``."""
    variance = (sigma(gamma) / alpha(gamma)) ** 2

    def times(vector: Float[Array, " d"]) -> Float[Array, " d"]:
        direction = vector.reshape(z.shape).astype(z.dtype)
        _, change = _noise_and_change(diffusion, z, gamma, direction)
        return (variance * (direction - sigma(gamma) * change)).reshape(-1)

    return times


@dataclasses.dataclass(frozen=True)
class PosteriorSpread(Score):
    """EigenScore: how much an example with noise may have been, compared with inside examples.

    At every level of noise the largest eigenvalues of the posterior's covariance are summed, and
    standardized by mean and standard deviation of inside examples; the score is the sum over the
    levels. A model is less sure about what lies under the noise of an outside example, so only
    large eigenvalues count, and small ones are no sign. Levels at which inside examples do not
    differ are left out.

    References:
      Shoushtari, Wang, Shi, Asif and Kamilov, 2025, EigenScore: OOD detection using posterior
      covariance in diffusion models, arXiv:2510.07206. It has 20 draws, iterates until nothing
      changes, with finite differences, and chooses levels with outside data.

    Example:
      >>> import likejax as lj
      >>> lj.ood.PosteriorSpread(lj.ood.PosteriorEigenvalues(draws=20)).label
      'posterior spread (20 draws)'
    """

    name: ClassVar[str] = "posterior spread"

    eigenvalues: PosteriorEigenvalues = PosteriorEigenvalues()  # pyright: ignore
    """Levels, draws and number of the eigenvalues."""

    @property
    def label(self) -> str:
        """Name in tables, with the number of draws unless it is one."""
        return with_draws(self.name, self.eigenvalues.draws)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The eigenvalues."""
        return (self.eigenvalues,)

    def check(self, density: Density) -> None:
        """Raises a ValueError unless the density is a diffusion model.

        Args:
          density: Density that is scored.
        """
        check_diffusion(density)

    def statistic(self, compute: Compute, event_shape: tuple[int, ...]) -> Numbers:
        """Returns the sum of the eigenvalues at every level, ``(n, levels)``.

        Args:
          compute: Function that computes a feature.
          event_shape: Shape of one example.
        """
        del event_shape
        return compute(self.eigenvalues).sum(axis=-1)

    def learn(self, statistics: Float[np.ndarray, "n ..."]) -> dict[str, Any]:
        """Returns the levels that vary, with mean and standard deviation of inside examples.

        Args:
          statistics: Sums of eigenvalues, ``(n, levels)``.

        Raises:
          ValueError: If no level varies.
        """
        mean, std = statistics.mean(axis=0), statistics.std(axis=0)
        levels = np.flatnonzero(std > _LEAST_SPREAD * abs(mean))
        if len(levels) == 0:
            raise ValueError(
                "expected posteriors that differ between inside examples, all have the same "
                "eigenvalues: the denoiser is linear, as before training or for normal data"
            )
        return {"levels": levels, "mean": mean[levels], "std": std[levels]}

    def group_score(self, state: State, statistics: Groups) -> Values:
        """Returns the sum of the standardized numbers of every example.

        Args:
          state: Mapping with ``levels``, ``mean`` and ``std``.
          statistics: Sums of eigenvalues, ``(n, 1, levels)``.
        """
        levels = numpy_of(statistics).asarray(state["levels"]).astype(int)
        chosen = statistics[:, 0][:, levels]
        return ((chosen - state["mean"][None]) / state["std"][None]).sum(axis=1)


# --- what they share


def check_diffusion(density: Density) -> None:
    """Raises a ValueError unless a density offers its diffusion.

    Args:
      density: Density that is scored.
    """
    if not density.offers("diffusion"):
        advice = density.why_not("diffusion") or "lj.ood.DensityOfStates() takes any density"
        raise ValueError(
            f"expected a diffusion model, such as a VDM, got {type(density).__name__}: {advice}"
        )


def _present(keys: Key[Array, " n"] | None) -> Key[Array, " n"]:
    if keys is None:
        raise ValueError(
            "expected a key, by which noises and probes are drawn: pass key=jax.random.key(seed)"
        )
    return keys


def _from_end_to_end(diffusion: Diffusion, count: int) -> Float[Array, " count"]:
    """Values of ``gamma``, equally far apart, from the data to the noise."""
    start, end = diffusion.ends
    return start + (end - start) * jnp.linspace(0, 1, count)


def _inside(diffusion: Diffusion, gamma: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Values of ``gamma``, those outside of the process at the nearer end of it."""
    return jnp.clip(gamma, *diffusion.ends)
